//! What runs in this process and what it knows of others: the views `processes` and `peers`.

use crate::clock::Clock;
use crate::deps::Environment;
use crate::running::Running;
use crate::source::Acks;
use contract::ProcessId;
use contract::config::Version;
use contract::peers::Peer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// The services that were given their parts here, and what they say of their configuration.
#[derive(Debug, Clone)]
pub struct Processes {
    /// When this process began, in Unix seconds.
    started: u64,
    told: Arc<Mutex<BTreeMap<ProcessId, watch::Receiver<Arc<Acks>>>>>,
}

impl Processes {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self { started: clock.now().unix(), told: Arc::default() }
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<ProcessId, watch::Receiver<Arc<Acks>>>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, process: ProcessId, acks: watch::Receiver<Arc<Acks>>) {
        self.told().insert(process, acks);
    }

    /// The version that a process uses, if any, and why it does not use a later one.
    fn of(&self, process: ProcessId) -> (Option<Version>, Option<String>) {
        let told = self.told().get(&process).and_then(|acks| acks.borrow().get(&process).cloned()).unwrap_or_default();
        (Some(told.version).filter(|version| *version != Version::default()), told.error)
    }
}

/// Adds the views `processes`: `[{service, process, pod, state, load, since, version: {epoch, n, hash}, error, missing,
/// stalled}]`, those that run here, and `peers`: the peer records of all that are known.
pub fn views(environment: &Environment, running: &mut Running) {
    let env = environment.clone();
    running.view("processes", move || {
        let shown = here(&env);
        async move { shown }
    });
    let mesh = environment.mesh.clone();
    running.view("peers", move || {
        let all: Value = mesh.peers().borrow().0.iter().map(record).collect();
        async move { all }
    });
}

/// A peer record as it stands in the store, but for the name of its process: 64 bits are more than JSON's readers take for
/// a number.
fn record(peer: &Peer) -> Value {
    let mut shown = json!(peer);
    shown["process"] = peer.process.to_string().into();
    shown
}

fn here(env: &Environment) -> Value {
    let show = |peer: Peer| {
        let (version, error) = env.processes.of(peer.process);
        json!({
            "service": peer.service,
            "process": peer.process.to_string(),
            "pod": peer.pod,
            "state": peer.state,
            "load": peer.load,
            "since": env.processes.started,
            "version": version.map(|v| json!({"epoch": v.epoch, "n": v.n, "hash": format!("{:016x}", v.hash)})),
            "error": error,
            "missing": env.health.missing(),
            "stalled": env.health.stalled(),
        })
    };
    env.mesh.local().into_iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemorySource;
    use contract::Service;
    use contract::config::{RouterEntry, Snapshot};
    use contract::peers::PeerState;

    #[tokio::test]
    async fn a_process_is_shown_with_its_state_and_the_version_that_it_uses() {
        let env = Environment::in_memory();
        let version = Version { epoch: 3, n: 41, hash: 0xab };
        let source = MemorySource::<RouterEntry>::starting_at(Snapshot { version, ..Snapshot::default() });
        let deps = env.deps(ProcessId(7), source.subscribe(ProcessId(7)));
        let member = deps.mesh.join(Peer::new(Service::Router, ProcessId(7)));
        env.mesh.learn(vec![Peer::new(Service::Media, ProcessId(8))]);
        let waits = env.health.part("router");
        let mut running = Running::new();
        views(&env, &mut running);
        let shown = running.views["processes"]().await;
        assert_eq!(shown.as_array().map(Vec::len), Some(1), "{shown}");
        assert_eq!((&shown[0]["version"], &shown[0]["missing"]), (&Value::Null, &json!(["router"])));
        deps.source.ack(version);
        waits.ready();
        member.set_state(PeerState::Draining);
        let shown = running.views["processes"]().await;
        assert_eq!(shown[0]["version"], json!({"epoch": 3, "n": 41, "hash": "00000000000000ab"}));
        assert_eq!((&shown[0]["service"], &shown[0]["state"]), (&json!("router"), &json!("draining")));
        assert_eq!((&shown[0]["process"], &shown[0]["missing"]), (&json!("0000000000000007"), &json!([])));
        let peers = running.views["peers"]().await;
        let names: Vec<&Value> = peers.as_array().unwrap().iter().map(|peer| &peer["process"]).collect();
        assert_eq!(names, ["0000000000000007", "0000000000000008"], "{peers}");
        source.refuse("hash differs");
        assert_eq!(running.views["processes"]().await[0]["error"], "hash differs");
    }
}
