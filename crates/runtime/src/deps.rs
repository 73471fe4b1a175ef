//! What a service is given: its name, and the shared parts of the process or test it runs in.

use crate::clock::Clock;
use crate::drain::Drain;
use crate::health::Health;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::processes::Processes;
use crate::source::Subscription;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use contract::{KeyRing, ProcessId};
use std::sync::Arc;

/// Everything that a service's `build` needs beside its own configuration. `E` is its kind of entry.
pub struct Deps<E> {
    /// The name of this run of the service.
    pub process: ProcessId,
    /// Inside hops and peers.
    pub mesh: Mesh,
    /// Bindings, nonces and records.
    pub store: Arc<dyn Store>,
    /// The installation's keys.
    pub keys: Arc<KeyRing>,
    /// Its configuration.
    pub source: Subscription<E>,
    /// The time.
    pub clock: Clock,
    /// Whether new work is still taken.
    pub drain: Drain,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Liveness and readiness.
    pub health: Health,
}

/// The parts that all services of one process share.
#[derive(Clone)]
pub struct Environment {
    /// Inside hops and peers.
    pub mesh: Mesh,
    /// Bindings, nonces and records.
    pub store: Arc<dyn Store>,
    /// The installation's keys.
    pub keys: Arc<KeyRing>,
    /// The time.
    pub clock: Clock,
    /// Whether new work is still taken.
    pub drain: Drain,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Liveness and readiness.
    pub health: Health,
    /// The services that were given their parts.
    pub processes: Processes,
}

impl Environment {
    /// Of this store and these keys, the rest new.
    pub fn new(store: Arc<dyn Store>, keys: KeyRing) -> Self {
        let clock = Clock::new();
        Self {
            mesh: Mesh::new(),
            store,
            keys: Arc::new(keys),
            clock,
            drain: Drain::new(),
            metrics: Metrics::new(),
            health: Health::new(clock),
            processes: Processes::new(clock),
        }
    }

    /// With a memory store that keeps nothing and new random keys: `--state none`, and tests.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(MemoryStore::new()), crate::keys::random())
    }

    /// What one service is given.
    pub fn deps<E>(&self, process: ProcessId, source: Subscription<E>) -> Deps<E> {
        self.processes.add(process, source.acks());
        Deps {
            process,
            mesh: self.mesh.clone(),
            store: self.store.clone(),
            keys: self.keys.clone(),
            source,
            clock: self.clock,
            drain: self.drain.clone(),
            metrics: self.metrics.clone(),
            health: self.health.clone(),
        }
    }
}
