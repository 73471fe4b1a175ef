//! Who else is there: records that every process renews, and that the others choose by.

use crate::process::{ProcessId, Service};
use crate::rendezvous;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Whether a process takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Takes new work.
    #[default]
    Serving,
    /// Finishes what it has.
    Draining,
}

/// The record `peer:<service>:<process>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its service.
    pub service: Service,
    /// Its name.
    pub process: ProcessId,
    /// Where inside hops reach it; empty within one process.
    #[serde(default)]
    pub address: String,
    /// Whether it takes new work.
    #[serde(default)]
    pub state: PeerState,
    /// Relative weight for new work.
    #[serde(default = "one")]
    pub weight: f64,
    /// What it carries now, in the service's own unit (calls, sessions, bindings).
    #[serde(default)]
    pub load: u64,
    /// Where a relay hears NG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ng: Option<SocketAddr>,
    /// The pod it runs in; empty outside a cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Where its views are served, on loopback of the pod or node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Where its metrics are collected; none: on loopback alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
}

impl Peer {
    /// A record as one within one process has it: serving, weight one, no addresses.
    pub fn new(service: Service, process: ProcessId) -> Self {
        Self {
            service,
            process,
            address: String::new(),
            state: PeerState::Serving,
            weight: one(),
            load: 0,
            ng: None,
            pod: String::new(),
            admin: None,
            metrics: None,
        }
    }
}

fn one() -> f64 {
    1.0
}

/// All processes that are known now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Peers(pub Vec<Peer>);

impl Peers {
    /// The record of this process, whatever its state.
    pub fn get(&self, process: ProcessId) -> Option<&Peer> {
        self.0.iter().find(|p| p.process == process)
    }

    /// Those of a service that take new work.
    pub fn serving(&self, service: Service) -> impl Iterator<Item = &Peer> {
        self.0.iter().filter(move |p| p.service == service && p.state == PeerState::Serving)
    }

    /// The process of a service that has `key`, by weighted rendezvous hash among those that take new work.
    pub fn choose(&self, service: Service, key: &[u8]) -> Option<ProcessId> {
        rendezvous::choose(key, self.serving(service).map(|p| (p.process, p.weight)))
    }
}
