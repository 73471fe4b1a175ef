//! `Dialplan`: one context.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::steps::Step;

/// One context of the dialplan: what it includes and its extensions.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "kubepbx.io",
    version = "v1alpha1",
    kind = "Dialplan",
    namespaced,
    derive = "PartialEq",
    status = "DialplanStatus",
    shortname = "dp",
    category = "kubepbx",
    doc = "One context of the dialplan: what it includes and its extensions.",
    printcolumn(name = "Includes", type_ = "string", json_path = ".spec.includes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DialplanSpec {
    /// The context's name where Kubernetes does not allow it as metadata.name. Without it metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]{1,253}$')").message("write printable ASCII characters without spaces"))]
    pub name: Option<String>,

    /// Contexts that are searched after this one, in order, each with what it includes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub includes: Vec<String>,

    /// Whose time the conditions of this context ask for: a name of IANA's database, such as Europe/Berlin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,

    /// The extensions. Of those that match, the best wins wherever it stands: an exact one before patterns, among patterns
    /// the one with the smaller set at the first position that differs.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub extensions: Vec<Extension>,
}

/// What is dialled and what runs then.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// An extension such as 8005, or after _ a pattern: X is 0-9, Z 1-9, N 2-9, [15-7] one of a set, . one or more and
    /// ! none or more of anything. Nobody need dial these: s runs where no number was dialled and for a goto that names a
    /// context alone, i where a goto or the digits of waitExten lead nowhere, t where no digits came, h when the call ended.
    #[schemars(length(min = 1, max = 80))]
    pub pattern: String,

    /// What runs, in order. After the last step the call is hung up.
    #[schemars(length(min = 1, max = 256))]
    pub steps: Vec<Step>,
}

/// What the operator found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DialplanStatus {
    /// Accepted, ResolvedRefs, Programmed and Ready.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
