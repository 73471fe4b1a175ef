//! What is said of the pods of any service.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::duration::Duration;

/// The pods of a service. A change of these replaces pods one by one; calls go on.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// How many there are. Without it 2, conference 1; a balancer with HostNetwork has one a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<u32>,

    /// What they are given of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// How long one that is to end may take to do so by itself: calls end or move meanwhile, new ones go elsewhere. Without
    /// it 10s for registrar, 1m for balancer and router, 5m for media and conference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self >= duration('0s') && self <= duration('24h')").message("write a duration up to 24h, such as 5m"))]
    pub drain: Option<Duration>,

    /// The image, in place of the one of this release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = Rule::new(r"self.matches('^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$')").message("write an image, such as registry.example.org/kubepbx/router:0.1.0"))]
    pub image: Option<String>,

    /// Secrets with the credentials of the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<PullSecret>,

    /// The PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Labels beside those that the operator sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,

    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,

    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that do not keep them away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// Which nodes and which neighbours they seek or shun, as in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How they are spread. Without it over nodes and over zones, as well as can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["topologyKey"]))]
    pub topology_spread: Vec<Spread>,
}

/// What a container is given of a node, as in a Pod.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// What is set aside for it, such as cpu: 500m and memory: 128Mi.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,

    /// What it cannot exceed. A limit of cpu makes audio stutter when it is reached.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

/// A quantity as Kubernetes writes it: 2, 500m, 128Mi.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
pub struct Quantity(String);

impl Quantity {
    /// The quantity as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a number, with or without a unit.
    pub fn is_valid(&self) -> bool {
        let digits = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(digits);
        let number = number.bytes().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
        let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        number && units.contains(&unit)
    }

    /// The quantity in billionths: of a core, for CPU. None if it is not valid.
    pub fn nano(&self) -> Option<u64> {
        let digits = self.0.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(self.0.len());
        let (number, unit) = self.0.split_at(digits);
        let binary = |power: i32| 1e9 * 1024f64.powi(power);
        let factor = match unit {
            "n" => 1.0,
            "u" => 1e3,
            "m" => 1e6,
            "" => 1e9,
            "k" => 1e12,
            "M" => 1e15,
            "G" => 1e18,
            "T" => 1e21,
            "P" => 1e24,
            "E" => 1e27,
            "Ki" => binary(1),
            "Mi" => binary(2),
            "Gi" => binary(3),
            "Ti" => binary(4),
            "Pi" => binary(5),
            "Ei" => binary(6),
            _ => return None,
        };
        // What is too large for the type becomes its largest.
        number.parse::<f64>().ok().map(|number| (number * factor).round() as u64)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom("write a quantity such as 2, 500m or 128Mi")),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 64})
    }
}

/// A Secret with the credentials of a registry.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// How the pods of a service are spread, as in a Pod's topologySpreadConstraints.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The label of nodes whose values are the places to spread over, such as topology.kubernetes.io/zone.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,

    /// How many more pods one place may have than another.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_skew: u32,

    /// What becomes of a pod that fits nowhere.
    #[serde(default)]
    pub when_unsatisfiable: Unsatisfiable,
}

fn one() -> u32 {
    1
}

/// What becomes of a pod that cannot be spread.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unsatisfiable {
    /// It runs where that is least bad.
    #[default]
    ScheduleAnyway,
    /// It waits.
    DoNotSchedule,
}

/// A taint that does not keep pods away, as in a Pod.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key. Without it, and with operator: Exists, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,

    /// How it is compared. Without it Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,

    /// The taint's value, with operator: Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,

    /// The taint's effect. Without it any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,

    /// With effect: NoExecute, for how long. Without it for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration is compared with a taint.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TolerationOperator {
    /// The values are the same.
    Equal,
    /// The key is there, whatever its value.
    Exists,
}

/// What a taint does.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaintEffect {
    /// No new pods.
    NoSchedule,
    /// No new pods where it can be avoided.
    PreferNoSchedule,
    /// No pods.
    NoExecute,
}

/// Which nodes and neighbours pods seek or shun: the fields of a Pod's affinity.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Affinity {
    /// Nodes; see kubectl explain pod.spec.affinity.nodeAffinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub node_affinity: Option<Value>,

    /// Pods to be near to; see kubectl explain pod.spec.affinity.podAffinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_affinity: Option<Value>,

    /// Pods to be far from; see kubectl explain pod.spec.affinity.podAntiAffinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_anti_affinity: Option<Value>,
}

/// Spelled out these would be most of the definition, once a service; the compiler holds them against a Pod's instead.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for good in ["2", "500m", "128Mi", "0.5", "1.5Gi", ".5", "1e"] {
            assert_eq!(Quantity::from(good).is_valid(), good != "1e", "{good}");
        }
        for bad in ["", "m", "1 Mi", "1.2.3", "-1", "128MB", "."] {
            assert!(!Quantity::from(bad).is_valid(), "{bad}");
        }
        for (text, nano) in [
            ("2", Some(2_000_000_000)),
            ("500m", Some(500_000_000)),
            ("0.25", Some(250_000_000)),
            ("70204612n", Some(70_204_612)),
            ("15u", Some(15_000)),
            ("1Ki", Some(1_024_000_000_000)),
            ("99999999999E", Some(u64::MAX)),
            ("", None),
            ("m", None),
            ("1x", None),
        ] {
            assert_eq!(Quantity::from(text).nano(), nano, "{text}");
        }
        let read: Quantity = serde_json::from_str("2").unwrap();
        assert_eq!(read, Quantity::from("2"));
        assert!(serde_json::from_str::<Quantity>("true").is_err());
    }
}
