//! Names of processes: tokens, leases and records name processes, never addresses.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The five kinds of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The edge: all SIP from outside enters and leaves here.
    Balancer,
    /// Answers REGISTER.
    Registrar,
    /// The back-to-back user agent.
    Router,
    /// The RTP relay.
    Media,
    /// Answers legs with its own media.
    Conference,
}

impl Service {
    /// All of them.
    pub const ALL: [Service; 5] =
        [Service::Balancer, Service::Registrar, Service::Router, Service::Media, Service::Conference];

    /// The name as in labels, store keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Service::Balancer => "balancer",
            Service::Registrar => "registrar",
            Service::Router => "router",
            Service::Media => "media",
            Service::Conference => "conference",
        }
    }
}

/// One run of one service (pod UID + start in a cluster; a random number in one process). Unique in an installation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for ProcessId {
    type Err = std::num::ParseIntError;

    /// Reads the 16 hexadecimal digits that `Display` writes.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(s, 16).map(ProcessId)
    }
}
