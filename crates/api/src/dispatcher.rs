//! `Dispatcher`: a set of destinations of one's own.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::duration::Duration;

/// A set of destinations, probed and chosen among. It takes only the calls that its match selects, and is probed only
/// while it has one.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "kubepbx.io",
    version = "v1alpha1",
    kind = "Dispatcher",
    namespaced,
    derive = "PartialEq",
    status = "DispatcherStatus",
    shortname = "dsp",
    category = "kubepbx",
    doc = "A set of destinations, probed and chosen among. It takes only the calls that its match selects, and is probed only while it has one.",
    printcolumn(name = "Algorithm", type_ = "string", json_path = ".spec.algorithm"),
    printcolumn(name = "Match", type_ = "string", json_path = ".spec.match.extensions"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.algorithm != 'weight' || self.destinations.exists(d, d.weight > 0)").message("with the algorithm weight at least one destination needs a weight above 0"))]
pub struct DispatcherSpec {
    /// The set's name where Kubernetes does not allow it as metadata.name. Without it metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]{1,253}$')").message("write printable ASCII characters without spaces"))]
    pub name: Option<String>,

    /// How a destination is chosen among those that are up.
    #[serde(default)]
    pub algorithm: Algorithm,

    /// The destinations.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uri"]))]
    pub destinations: Vec<Destination>,

    /// How they are probed (by OPTIONS).
    #[serde(default)]
    pub probe: Probe,

    /// The answer when no destination is up.
    #[serde(default)]
    pub unavailable: Unavailable,

    /// The calls that it takes. Without it none.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
}

/// How a destination is chosen.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// By relative weight (Kamailio: 9).
    #[default]
    Weight,
    /// In turn (Kamailio: 4).
    RoundRobin,
    /// By hash of the Call-ID (Kamailio: 0).
    HashCallId,
}

/// One destination.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Destination {
    /// A SIP URI with a numeric host, such as sip:192.0.2.1:5060 or sip:192.0.2.1;transport=tcp.
    #[schemars(length(min = 1, max = 256))]
    pub uri: String,

    /// The share of calls that it gets, relative to the others. 0: none.
    #[serde(default = "weight")]
    #[schemars(range(max = 65_535))]
    pub weight: u32,
}

fn weight() -> u32 {
    1
}

/// How destinations are probed.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Between two probes of a destination.
    #[serde(default = "interval")]
    #[x_kube(validation = Rule::new("self >= duration('100ms') && self <= duration('1h')").message("write a duration from 100ms to 1h, such as 1s"))]
    pub interval: Duration,

    /// A probe that is not answered for so long has failed.
    #[serde(default = "probe_timeout")]
    #[x_kube(validation = Rule::new("self >= duration('50ms') && self <= duration('1m')").message("write a duration from 50ms to 1m, such as 1s"))]
    pub timeout: Duration,

    /// After so many failures in a row a destination is down.
    #[serde(default = "failures")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: u32,

    /// After so many successes in a row it is up again.
    #[serde(default = "successes")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            interval: interval(),
            timeout: probe_timeout(),
            failure_threshold: failures(),
            success_threshold: successes(),
        }
    }
}

fn interval() -> Duration {
    Duration::from_secs(10)
}

fn probe_timeout() -> Duration {
    Duration::from_secs(1)
}

fn failures() -> u32 {
    3
}

fn successes() -> u32 {
    1
}

/// The answer when no destination is up.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Unavailable {
    /// The status, 400 to 699.
    #[serde(default = "status")]
    #[schemars(range(min = 400, max = 699))]
    pub status: u16,

    /// The reason phrase.
    #[serde(default = "reason")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[ -~]{1,128}$')").message("write printable ASCII characters in one line"))]
    pub reason: String,
}

impl Default for Unavailable {
    fn default() -> Self {
        Self { status: status(), reason: reason() }
    }
}

fn status() -> u16 {
    503
}

fn reason() -> String {
    "Service Unavailable".into()
}

/// The calls that a set takes.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Match {
    /// What is dialled: extensions and patterns as in a Dialplan. One Dispatcher alone may have a pattern.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 80)))]
    pub extensions: Vec<String>,
}

/// What the operator found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DispatcherStatus {
    /// Accepted, ResolvedRefs, Programmed and Ready.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
