//! `Pbx`: the installation of a namespace.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::duration::Duration;

/// The installation of a namespace: what holds for all its endpoints. One a namespace; without one the defaults hold.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "kubepbx.io",
    version = "v1alpha1",
    kind = "Pbx",
    plural = "pbxes",
    namespaced,
    derive = "PartialEq",
    status = "PbxStatus",
    category = "kubepbx",
    doc = "The installation of a namespace: what holds for all its endpoints. One a namespace; without one the defaults hold.",
    printcolumn(name = "Realm", type_ = "string", json_path = ".spec.realm"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct PbxSpec {
    /// Host names that are this PBX's own in addresses of record (the part after @ that phones register with). Empty: any.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(d, d.matches('^[A-Za-z0-9:.-]{1,253}$'))").message("write host names or addresses alone, such as pbx.example.org, without sip: or a port"))]
    pub domains: Vec<String>,

    /// The digest realm: what phones show beside the password prompt, part of every password's hash, independent of addresses.
    #[serde(default = "realm")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[ !#-~]{1,128}$') && !self.contains('\\\\')").message("write printable ASCII characters without quotation marks and backslashes"))]
    pub realm: String,

    /// How long a call may be silent.
    #[serde(default)]
    pub media: PbxMedia,
}

impl Default for PbxSpec {
    fn default() -> Self {
        Self { domains: Vec::new(), realm: realm(), media: PbxMedia::default() }
    }
}

fn realm() -> String {
    "kubepbx".into()
}

/// How long a call may be silent before the relay gives it up.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PbxMedia {
    /// A call ends when neither side has sent media for so long and neither is on hold.
    #[serde(default = "timeout")]
    #[x_kube(validation = Rule::new("self >= duration('1s') && self <= duration('24h')").message("write a duration from 1s to 24h, such as 60s"))]
    pub timeout: Duration,

    /// The same for a call that is on hold or has one side only.
    #[serde(default = "held_timeout")]
    #[x_kube(validation = Rule::new("self >= duration('1s') && self <= duration('24h')").message("write a duration from 1s to 24h, such as 1h"))]
    pub held_timeout: Duration,
}

impl Default for PbxMedia {
    fn default() -> Self {
        Self { timeout: timeout(), held_timeout: held_timeout() }
    }
}

fn timeout() -> Duration {
    Duration::from_secs(60)
}

fn held_timeout() -> Duration {
    Duration::from_secs(3600)
}

/// What the operator found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PbxStatus {
    /// Accepted, ResolvedRefs, Programmed and Ready.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
