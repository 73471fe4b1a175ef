//! What relays do, which ports they use and how many there are.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// Relays: how long a call may be silent before they give it up, the ports they use and how many there are.
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

    /// The UDP ports of a relay.
    #[serde(default)]
    pub ports: PortRange,

    /// How many relays there are.
    #[serde(default)]
    pub autoscaling: Autoscaling,
}

impl Default for PbxMedia {
    fn default() -> Self {
        Self {
            timeout: timeout(),
            held_timeout: held_timeout(),
            ports: PortRange::default(),
            autoscaling: Autoscaling::default(),
        }
    }
}

fn timeout() -> Duration {
    Duration::from_secs(60)
}

fn held_timeout() -> Duration {
    Duration::from_secs(3600)
}

/// UDP ports, both ends included. A call of two phones takes four; relays that share a node share them.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.max - self.min >= 99").message("write at least 100 ports, such as min: 30000 and max: 39999"))]
pub struct PortRange {
    /// The first.
    #[serde(default = "first_port")]
    #[schemars(range(min = 1024, max = 65_535))]
    pub min: u16,

    /// The last.
    #[serde(default = "last_port")]
    #[schemars(range(min = 1024, max = 65_535))]
    pub max: u16,
}

impl Default for PortRange {
    fn default() -> Self {
        Self { min: first_port(), max: last_port() }
    }
}

fn first_port() -> u16 {
    30_000
}

fn last_port() -> u16 {
    39_999
}

/// How many relays there are: (sessions + warm) / target, rounded up, within min and max. A relay that is no longer
/// needed first takes no new sessions and goes once it is empty.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[x_kube(validation = Rule::new("self.min <= self.max").message("write a min that is not above max"))]
pub struct Autoscaling {
    /// Who counts.
    #[serde(default)]
    pub mode: AutoscalingMode,

    /// How many sessions (calls with media) a relay is to have.
    #[serde(default = "target")]
    #[schemars(range(min = 1, max = 100_000))]
    pub target: u32,

    /// For how many sessions more there is to be room at any time.
    #[serde(default = "warm")]
    #[schemars(range(max = 100_000))]
    pub warm: u32,

    /// At least so many.
    #[serde(default = "min")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: u32,

    /// At most so many.
    #[serde(default = "max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: u32,

    /// There must be too many for so long before one is drained. More there are at once.
    #[serde(default = "stabilization")]
    #[x_kube(validation = Rule::new("self >= duration('0s') && self <= duration('1h')").message("write a duration from 0s to 1h, such as 5m"))]
    pub stabilization: Duration,

    /// The share of services.media.resources.requests.cpu, in percent, that relays are to use at most: where it asks for
    /// more relays than sessions do, it counts. Without it sessions alone do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub cpu: Option<u32>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self {
            mode: AutoscalingMode::default(),
            target: target(),
            warm: warm(),
            min: min(),
            max: max(),
            stabilization: stabilization(),
            cpu: None,
        }
    }
}

/// Who counts relays.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum AutoscalingMode {
    /// The operator, by sessions.
    #[default]
    Sessions,
    /// Somebody else, such as a HorizontalPodAutoscaler: the Deployment's replicas are left alone.
    External,
    // Not "off": YAML takes that for false.
    /// Nobody: there are services.media.replicas.
    Fixed,
}

fn stabilization() -> Duration {
    Duration::from_secs(300)
}

fn target() -> u32 {
    200
}

fn warm() -> u32 {
    50
}

fn min() -> u32 {
    2
}

fn max() -> u32 {
    10
}
