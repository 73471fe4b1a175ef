//! Objects of the API server as JSON, by kind and name.

use kube::api::ApiResource;
use kube::core::GroupVersionKind;
use serde_json::Value;
use std::fmt;

/// An object, whatever its kind.
#[derive(Clone)]
pub struct Object(pub Value);

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0["kind"].as_str().unwrap_or("?"), self.name())
    }
}

impl Object {
    /// Its name.
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        self.0["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// The node that a pod is on.
    pub fn node(&self) -> Option<&str> {
        self.0["spec"]["nodeName"].as_str()
    }

    /// The condition of this type, if it speaks of the object as it is now.
    pub fn condition(&self, kind: &str) -> Option<&Value> {
        let condition = self.0["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?;
        let observed = condition.get("observedGeneration").and_then(Value::as_i64);
        let generation = self.0["metadata"]["generation"].as_i64();
        (observed.is_none() || observed == generation).then_some(condition)
    }

    /// Whether that condition has this status: `True` or `False`.
    pub fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind).is_some_and(|c| c["status"] == status)
    }

    /// What its conditions say, for people.
    pub fn conditions(&self) -> String {
        let said = self.0["status"]["conditions"].as_array().into_iter().flatten().map(|c| {
            let of = |key: &str| c[key].as_str().unwrap_or("?").to_owned();
            format!("{}={}/{} {:?}", of("type"), of("status"), of("reason"), of("message"))
        });
        said.collect::<Vec<_>>().join("; ")
    }

    /// A Deployment, DaemonSet or StatefulSet with all its pods ready and none of an older template.
    pub fn is_settled(&self) -> bool {
        let (spec, status) = (&self.0["spec"], &self.0["status"]);
        let number = |value: &Value| value.as_i64().unwrap_or_default();
        let (wanted, updated, ready, all) = if self.0["kind"] == "DaemonSet" {
            let wanted = number(&status["desiredNumberScheduled"]);
            (wanted, &status["updatedNumberScheduled"], &status["numberAvailable"], wanted)
        } else {
            (
                number(&spec["replicas"]),
                &status["updatedReplicas"],
                &status["availableReplicas"],
                number(&status["replicas"]),
            )
        };
        let observed = status["observedGeneration"] == self.0["metadata"]["generation"];
        observed && number(updated) == wanted && number(ready) == wanted && all == wanted
    }

    /// A pod that is ready and not about to end.
    pub fn is_ready_pod(&self) -> bool {
        self.is("Ready", "True") && self.0["metadata"]["deletionTimestamp"].is_null()
    }
}

/// Group and version of each kind that tests touch; what is not listed is of the core group.
const GROUPS: [(&str, &[&str]); 9] = [
    ("kubepbx.io/v1alpha1", &["Pbx", "PbxEndpoint", "Dialplan", "Dispatcher"]),
    ("apps/v1", &["Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"]),
    ("policy/v1", &["PodDisruptionBudget"]),
    ("networking.k8s.io/v1", &["NetworkPolicy"]),
    ("rbac.authorization.k8s.io/v1", &["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"]),
    ("coordination.k8s.io/v1", &["Lease"]),
    ("discovery.k8s.io/v1", &["EndpointSlice"]),
    ("events.k8s.io/v1", &["Event"]),
    ("batch/v1", &["Job"]),
];

/// How the API server names a kind.
pub fn resource(kind: &str) -> ApiResource {
    let version = GROUPS.iter().find(|(_, kinds)| kinds.contains(&kind)).map_or("v1", |(version, _)| version);
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let lower = kind.to_lowercase();
    let plural = match lower.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if lower.ends_with('x') || lower.ends_with('s') => format!("{lower}es"),
        None => format!("{lower}s"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_as_the_api_server_names_them() {
        for (kind, version, plural) in [
            ("Pbx", "kubepbx.io/v1alpha1", "pbxes"),
            ("PbxEndpoint", "kubepbx.io/v1alpha1", "pbxendpoints"),
            ("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
            ("Secret", "v1", "secrets"),
        ] {
            let resource = resource(kind);
            assert_eq!((resource.api_version.as_str(), resource.plural.as_str()), (version, plural));
        }
    }

    #[test]
    fn a_condition_of_an_older_generation_says_nothing() {
        let at = |observed| {
            let condition = json!({"type": "Ready", "status": "True", "observedGeneration": observed});
            Object(json!({"metadata": {"generation": 2}, "status": {"conditions": [condition]}}))
        };
        assert!(at(2).is("Ready", "True"));
        assert!(!at(1).is("Ready", "True"));
        assert!(!Object(json!({})).is("Ready", "True"));
    }
}
