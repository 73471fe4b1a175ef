//! Configuration as a process receives it: first a snapshot, then deltas; a gap resends the whole.
//!
//! [`MemorySource`] feeds the services of one process. Acknowledgements tell the publisher which version each has.

use contract::ProcessId;
use contract::config::{Delta, DeltaError, Snapshot, Version};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, watch};

/// Updates that wait for a slow subscriber before it is sent the whole snapshot instead.
const BACKLOG: usize = 64;

/// One update on its way to subscribers.
#[derive(Debug)]
enum Update<E> {
    Snapshot(Arc<Snapshot<E>>),
    Delta(Arc<Delta<E>>),
}

impl<E> Clone for Update<E> {
    fn clone(&self) -> Self {
        match self {
            Update::Snapshot(s) => Update::Snapshot(s.clone()),
            Update::Delta(d) => Update::Delta(d.clone()),
        }
    }
}

/// The version that each subscribed process has acknowledged; the default version before its first.
pub type Acks = BTreeMap<ProcessId, Version>;

#[derive(Debug)]
struct Shared<E> {
    head: Mutex<Arc<Snapshot<E>>>,
    updates: broadcast::Sender<Update<E>>,
    acks: watch::Sender<Arc<Acks>>,
}

impl<E> Shared<E> {
    fn head(&self) -> MutexGuard<'_, Arc<Snapshot<E>>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Acks)) {
        self.acks.send_modify(|acks| change(Arc::make_mut(acks)));
    }
}

/// The publisher's side. Clones publish to the same subscribers.
#[derive(Debug)]
pub struct MemorySource<E> {
    shared: Arc<Shared<E>>,
}

impl<E> Clone for MemorySource<E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<E: Serialize + Clone + Send + Sync + 'static> MemorySource<E> {
    /// A source at the default version, without entries.
    pub fn new() -> Self {
        Self::starting_at(Snapshot::default())
    }

    /// A source whose first version is this one.
    pub fn starting_at(snapshot: Snapshot<E>) -> Self {
        let shared = Shared {
            head: Mutex::new(Arc::new(snapshot)),
            updates: broadcast::Sender::new(BACKLOG),
            acks: watch::Sender::new(Arc::default()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a delta that follows on the last version. On error nothing was published: publish a snapshot.
    pub fn publish(&self, delta: Delta<E>) -> Result<(), DeltaError> {
        let mut head = self.shared.head();
        Arc::make_mut(&mut head).apply(&delta)?;
        // Without subscribers the head alone remembers it.
        let _ = self.shared.updates.send(Update::Delta(Arc::new(delta)));
        Ok(())
    }

    /// Publishes a whole snapshot; refused as a gap if its epoch is older than what was published.
    pub fn publish_snapshot(&self, snapshot: Snapshot<E>) -> Result<(), DeltaError> {
        let mut head = self.shared.head();
        if snapshot.version.epoch < head.version.epoch {
            return Err(DeltaError::Gap);
        }
        *head = Arc::new(snapshot);
        let _ = self.shared.updates.send(Update::Snapshot(head.clone()));
        Ok(())
    }

    /// The last version published, whole.
    pub fn snapshot(&self) -> Arc<Snapshot<E>> {
        self.shared.head().clone()
    }

    /// A subscription of this process, at the last version.
    pub fn subscribe(&self, process: ProcessId) -> Subscription<E> {
        // Under the lock, so that no update falls between the snapshot and the first delta.
        let head = self.shared.head();
        let updates = self.shared.updates.subscribe();
        let snapshot = head.clone();
        drop(head);
        self.shared.note(|acks| {
            acks.insert(process, Version::default());
        });
        Subscription { process, snapshot, resyncs: 0, updates: Some(updates), shared: self.shared.clone() }
    }

    /// What each subscribed process has acknowledged, now and whenever it changes.
    pub fn acks(&self) -> watch::Receiver<Arc<Acks>> {
        self.shared.acks.subscribe()
    }

    /// Returns once every subscribed process has acknowledged `version` or a later one.
    pub async fn live(&self, version: Version) {
        let mut acks = self.shared.acks.subscribe();
        let has = |v: &Version| (v.epoch, v.n) >= (version.epoch, version.n);
        // The sender lives in self, so waiting cannot fail.
        let _ = acks.wait_for(|acks| acks.values().all(has)).await;
    }
}

impl<E: Serialize + Clone + Send + Sync + 'static> Default for MemorySource<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// A process's side: read [`Subscription::snapshot`], then wait for [`Subscription::changed`], read again, acknowledge.
/// Dropping it takes the process off the list of those that must acknowledge.
#[derive(Debug)]
pub struct Subscription<E> {
    process: ProcessId,
    snapshot: Arc<Snapshot<E>>,
    resyncs: u64,
    /// `None` once the source is gone: everything goes on with what it has.
    updates: Option<broadcast::Receiver<Update<E>>>,
    shared: Arc<Shared<E>>,
}

impl<E: Serialize + Clone + Send + Sync + 'static> Subscription<E> {
    /// A subscription that never changes: for tests and tools.
    pub fn fixed(snapshot: Snapshot<E>) -> Self {
        let mut fixed = MemorySource::starting_at(snapshot).subscribe(ProcessId(0));
        fixed.updates = None;
        fixed
    }

    /// The version at hand. It changes only within [`Subscription::changed`], so swap it in between two inputs.
    pub fn snapshot(&self) -> Arc<Snapshot<E>> {
        self.snapshot.clone()
    }

    /// Returns when [`Subscription::snapshot`] has changed; never, if the source is gone. Safe to cancel.
    pub async fn changed(&mut self) {
        loop {
            let Some(updates) = &mut self.updates else { return std::future::pending().await };
            let update = match updates.recv().await {
                Ok(update) => update,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.resync();
                    return;
                }
                Err(broadcast::error::RecvError::Closed) => {
                    self.updates = None;
                    continue;
                }
            };
            if self.take(update) {
                return;
            }
        }
    }

    /// Tells the publisher that this version is in use.
    pub fn ack(&self, version: Version) {
        self.shared.note(|acks| {
            acks.insert(self.process, version);
        });
    }

    /// How often the whole snapshot was needed again because an update was missed or did not fit.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Applies an update: true if the snapshot changed.
    fn take(&mut self, update: Update<E>) -> bool {
        match update {
            // Older than what a resync brought.
            Update::Snapshot(s) if !newer(s.version, self.snapshot.version) => false,
            Update::Delta(d) if !newer(d.to, self.snapshot.version) => false,
            Update::Snapshot(s) => {
                self.snapshot = s;
                true
            }
            Update::Delta(d) => {
                if Arc::make_mut(&mut self.snapshot).apply(&d).is_err() {
                    self.resync();
                }
                true
            }
        }
    }

    fn resync(&mut self) {
        self.resyncs += 1;
        self.snapshot = self.shared.head().clone();
    }
}

impl<E> Drop for Subscription<E> {
    fn drop(&mut self) {
        self.shared.note(|acks| {
            acks.remove(&self.process);
        });
    }
}

fn newer(a: Version, b: Version) -> bool {
    (a.epoch, a.n) > (b.epoch, b.n) || ((a.epoch, a.n) == (b.epoch, b.n) && a.hash != b.hash)
}
