//! An object as the API server has it, reduced to what is asked of it. Pure.

use super::MANAGER;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::io;

/// An object as it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Its metadata.uid.
    pub uid: String,
    /// Its metadata.resourceVersion, which only grows.
    pub version: u64,
    /// The uid of the object that controls it; empty: none.
    pub owner: String,
    /// The hash of the fields that are ours; none: none are.
    pub fields: Option<u64>,
    /// Whether it is being deleted.
    pub leaving: bool,
    /// What a workload says of its pods; none for what has no pods.
    pub pods: Option<Pods>,
    /// The address or name that a load balancer gave a Service.
    pub ingress: Option<String>,
    /// All addresses and names that a Service has, of load balancers and of its own.
    pub hosts: Vec<String>,
}

/// The pods of a workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pods {
    /// Those that should be.
    pub wanted: i64,
    /// Those that are as the workload says now.
    pub updated: i64,
    /// Those that are available.
    pub available: i64,
    /// All there are, also of before.
    pub all: i64,
    /// Whether the figures are about the object as it is now.
    pub current: bool,
}

impl Pods {
    /// Whether all pods that should be there are, as the workload says now, and no others.
    pub fn at_strength(&self) -> bool {
        self.current && self.updated >= self.wanted && self.available >= self.wanted && self.all <= self.wanted
    }
}

impl Live {
    /// What is asked of an object of this kind; in a list objects do not say theirs.
    pub fn of(kind: &str, object: &DynamicObject) -> Self {
        let meta = &object.metadata;
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        let fields = meta.managed_fields.iter().flatten().find(|entry| {
            let apply = entry.operation.as_deref() == Some("Apply");
            apply && entry.manager.as_deref() == Some(MANAGER) && entry.subresource.as_deref().unwrap_or("").is_empty()
        });
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            version: version(meta),
            owner: owner.map(|owner| owner.uid.clone()).unwrap_or_default(),
            fields: fields.and_then(|entry| entry.fields_v1.as_ref()).map(|fields| hash(&fields.0)),
            leaving: meta.deletion_timestamp.is_some(),
            pods: pods(kind, object),
            ingress: ingress(kind, object),
            hosts: hosts(kind, object),
        }
    }
}

/// An object's resource version as a number; 0 for one that has none.
pub fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn ingress(kind: &str, object: &DynamicObject) -> Option<String> {
    let first = object.data.pointer("/status/loadBalancer/ingress/0").filter(|_| kind == "Service")?;
    let text = |field: &str| first.get(field).and_then(Value::as_str).map(str::to_owned);
    text("ip").or_else(|| text("hostname"))
}

fn hosts(kind: &str, object: &DynamicObject) -> Vec<String> {
    if kind != "Service" {
        return Vec::new();
    }
    let list = |path: &str| object.data.pointer(path).and_then(Value::as_array).into_iter().flatten();
    let given = list("/status/loadBalancer/ingress").flat_map(|one| [one.get("ip"), one.get("hostname")]).flatten();
    let texts = given.chain(list("/spec/clusterIPs")).filter_map(Value::as_str);
    // A Service without an address says None.
    texts.filter(|text| *text != "None").map(str::to_owned).collect()
}

fn pods(kind: &str, object: &DynamicObject) -> Option<Pods> {
    let number = |path: &str| object.data.pointer(path).and_then(Value::as_i64);
    let current = number("/status/observedGeneration").unwrap_or_default() >= object.metadata.generation.unwrap_or(1);
    match kind {
        "Deployment" => Some(Pods {
            wanted: number("/spec/replicas").unwrap_or(1),
            updated: number("/status/updatedReplicas").unwrap_or_default(),
            available: number("/status/availableReplicas").unwrap_or_default(),
            all: number("/status/replicas").unwrap_or_default(),
            current,
        }),
        "DaemonSet" => {
            let wanted = number("/status/desiredNumberScheduled").unwrap_or_default();
            Some(Pods {
                wanted,
                updated: number("/status/updatedNumberScheduled").unwrap_or_default(),
                available: number("/status/numberAvailable").unwrap_or_default(),
                all: number("/status/currentNumberScheduled").unwrap_or_default().min(wanted),
                current,
            })
        }
        _ => None,
    }
}

/// A hash of a value's text. Object keys are sorted, so it depends on what is said alone.
pub(super) fn hash(value: &impl serde::Serialize) -> u64 {
    let mut sum = Sum(Sha256::new());
    // Writing to a hash does not fail, and what is hashed here can be written as JSON.
    let _ = serde_json::to_writer(&mut sum, value);
    let digest: [u8; 32] = sum.0.finalize().into();
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

struct Sum(Sha256);

impl io::Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "main-router", "uid": "d", "resourceVersion": "77", "generation": 2,
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"},
                    {"apiVersion": "kubepbx.io/v1alpha1", "kind": "Pbx", "name": "main", "uid": "p", "controller": true}],
                "managedFields": [
                    {"manager": "kubepbx", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
                     "fieldsV1": {"f:status": {}}}]},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
        })
    }

    fn live(value: &Value) -> Live {
        Live::of(value["kind"].as_str().unwrap(), &serde_json::from_value(value.clone()).unwrap())
    }

    #[test]
    fn our_fields_and_the_owner_are_told_from_others() {
        let one = live(&deployment());
        assert_eq!((one.uid.as_str(), one.version, one.owner.as_str(), one.leaving), ("d", 77, "p", false));
        let mut other = deployment();
        other["metadata"]["managedFields"][1]["fieldsV1"] = json!({"f:status": {"f:replicas": {}}});
        other["metadata"]["managedFields"][0]["time"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(live(&other), one);
        other["metadata"]["managedFields"][0]["fieldsV1"] = json!({"f:spec": {}});
        assert_ne!(live(&other).fields, one.fields);
        other["metadata"]["managedFields"][0]["manager"] = json!("kubectl");
        assert_eq!(live(&other).fields, None);
    }

    #[test]
    fn a_workload_is_at_strength_once_all_its_pods_are_new_and_available() {
        let at = |path: &str, value: Value| {
            let mut object = deployment();
            *object.pointer_mut(path).unwrap() = value;
            live(&object).pods.unwrap().at_strength()
        };
        assert!(live(&deployment()).pods.unwrap().at_strength());
        for path in ["observedGeneration", "updatedReplicas", "availableReplicas"] {
            assert!(!at(&format!("/status/{path}"), json!(1)), "{path}");
        }
        assert!(!at("/status/replicas", json!(3)), "one of before is still there");
        let daemons = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                       "updatedNumberScheduled": 2, "numberAvailable": 1}});
        let pods = live(&daemons).pods.unwrap();
        assert_eq!((pods.wanted, pods.at_strength()), (2, false));
        let mut service = json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"}});
        assert_eq!((live(&service).pods, live(&service).ingress), (None, None));
        service["status"] = json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}});
        assert_eq!(live(&service).ingress.as_deref(), Some("lb.example"));
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "hostname": "lb.example"}]}});
        assert_eq!(live(&service).ingress.as_deref(), Some("192.0.2.7"));
        assert_eq!(live(&service).hosts, ["192.0.2.7", "lb.example"]);
        service["spec"] = json!({"clusterIPs": ["10.96.0.7", "fd00::7"]});
        service["status"] = json!({});
        assert_eq!(live(&service).hosts, ["10.96.0.7", "fd00::7"]);
    }
}
