//! Configuration as a process receives it: first a snapshot, then deltas; a gap resends the whole.
//!
//! [`MemorySource`] feeds the services of one process, and the streams to others (`stream::server`). Acknowledgements tell
//! the publisher which version each has.

use bytes::Bytes;
use contract::ProcessId;
use contract::config::{
    BalancerEntry, ConferenceEntry, Delta, DeltaError, MediaEntry, RegistrarEntry, RouterEntry, Snapshot, Version,
};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{broadcast, watch};

/// Updates that wait for a slow subscriber before it is sent the whole snapshot instead.
const BACKLOG: usize = 256;

/// Entries in the deltas that are kept for who comes back, in all.
const KEPT: usize = 4096;

/// A delta, and the line that it makes on a stream once one asked for it.
pub(crate) struct Published<E> {
    pub(crate) delta: Delta<E>,
    pub(crate) line: OnceLock<Bytes>,
}

/// Versions and keys alone: the line holds hashes of passwords.
impl<E> fmt::Debug for Published<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delta { from, to, put, delete } = &self.delta;
        let put: Vec<&String> = put.keys().collect();
        let mut shown = f.debug_struct("Published");
        shown.field("from", from).field("to", to).field("put", &put).field("delete", delete).finish_non_exhaustive()
    }
}

/// One update on its way to subscribers.
#[derive(Debug)]
pub(crate) enum Update<E> {
    Snapshot(Arc<Snapshot<E>>),
    Delta(Arc<Published<E>>),
}

impl<E> Clone for Update<E> {
    fn clone(&self) -> Self {
        match self {
            Update::Snapshot(s) => Update::Snapshot(s.clone()),
            Update::Delta(d) => Update::Delta(d.clone()),
        }
    }
}

/// What a process tells of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The version in use; the default one before the first.
    pub version: Version,
    /// Why it did not take a later one, if it did not.
    pub error: Option<String>,
}

/// What each subscribed process has told.
pub type Acks = BTreeMap<ProcessId, Told>;

#[derive(Debug)]
struct Head<E> {
    snapshot: Arc<Snapshot<E>>,
    /// The last deltas, oldest first: each follows on the one before, the last one makes the snapshot.
    recent: VecDeque<Arc<Published<E>>>,
    /// Entries in them.
    kept: usize,
}

#[derive(Debug)]
struct Shared<E> {
    head: Mutex<Head<E>>,
    updates: broadcast::Sender<Update<E>>,
    acks: watch::Sender<Arc<Acks>>,
    /// Whether subscribers are to take nothing new.
    drain: watch::Sender<bool>,
}

impl<E> Shared<E> {
    fn head(&self) -> MutexGuard<'_, Head<E>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Acks)) {
        self.acks.send_modify(|acks| change(Arc::make_mut(acks)));
    }
}

impl<E> Head<E> {
    fn keep(&mut self, published: Arc<Published<E>>) {
        let size = |p: &Published<E>| p.delta.put.len() + p.delta.delete.len();
        self.kept += size(&published);
        self.recent.push_back(published);
        while self.recent.len() > BACKLOG || self.kept > KEPT {
            let Some(old) = self.recent.pop_front() else { break };
            self.kept -= size(&old);
        }
    }
}

/// What brings one who has a version to the head.
#[derive(Debug)]
pub(crate) enum Start<E> {
    /// These deltas; none, if it has it. Of the first only what follows on the version.
    Deltas(Vec<Arc<Published<E>>>),
    /// Only the version's name: the entries are the same, under another epoch or number.
    Renamed(Delta<E>),
    /// Everything.
    Whole(Arc<Snapshot<E>>),
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
            head: Mutex::new(Head { snapshot: Arc::new(snapshot), recent: VecDeque::new(), kept: 0 }),
            updates: broadcast::Sender::new(BACKLOG),
            acks: watch::Sender::new(Arc::default()),
            drain: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a delta that follows on the last version. On error nothing was published: publish a snapshot.
    pub fn publish(&self, delta: Delta<E>) -> Result<(), DeltaError> {
        self.put(delta, Snapshot::apply)
    }

    /// [`MemorySource::publish`] for a delta whose hash was checked over the text that came (see [`Snapshot::follow`]).
    pub(crate) fn publish_checked(&self, delta: Delta<E>) -> Result<(), DeltaError> {
        self.put(delta, Snapshot::follow)
    }

    fn put(
        &self,
        delta: Delta<E>,
        apply: impl FnOnce(&mut Snapshot<E>, &Delta<E>) -> Result<(), DeltaError>,
    ) -> Result<(), DeltaError> {
        let mut head = self.shared.head();
        apply(Arc::make_mut(&mut head.snapshot), &delta)?;
        let published = Arc::new(Published { delta, line: OnceLock::new() });
        head.keep(published.clone());
        // Without subscribers the head alone remembers it.
        let _ = self.shared.updates.send(Update::Delta(published));
        Ok(())
    }

    /// Publishes a whole snapshot; refused as a gap if its epoch is older than what was published.
    pub fn publish_snapshot(&self, snapshot: Snapshot<E>) -> Result<(), DeltaError> {
        let mut head = self.shared.head();
        if snapshot.version.epoch < head.snapshot.version.epoch {
            return Err(DeltaError::Gap);
        }
        *head = Head { snapshot: Arc::new(snapshot), recent: VecDeque::new(), kept: 0 };
        let _ = self.shared.updates.send(Update::Snapshot(head.snapshot.clone()));
        Ok(())
    }

    /// The last version published, whole.
    pub fn snapshot(&self) -> Arc<Snapshot<E>> {
        self.shared.head().snapshot.clone()
    }

    /// The last version published.
    pub fn version(&self) -> Version {
        self.shared.head().snapshot.version
    }

    /// What brings one who has `version` to the head, everything for the default version; and all updates after it.
    pub(crate) fn feed(&self, version: Version) -> (Start<E>, broadcast::Receiver<Update<E>>) {
        // Under the lock, so that no update falls between the two.
        let head = self.shared.head();
        let (now, updates) = (head.snapshot.version, self.shared.updates.subscribe());
        let start = if version == Version::default() {
            Start::Whole(head.snapshot.clone())
        } else if version == now {
            Start::Deltas(Vec::new())
        } else if let Some(first) = head.recent.iter().position(|p| p.delta.from == version) {
            Start::Deltas(head.recent.range(first..).cloned().collect())
        } else if version.hash == now.hash && version.epoch <= now.epoch {
            Start::Renamed(Delta { from: version, to: now, put: BTreeMap::new(), delete: Vec::new() })
        } else {
            Start::Whole(head.snapshot.clone())
        };
        (start, updates)
    }

    /// A subscription of this process, at the last version.
    pub fn subscribe(&self, process: ProcessId) -> Subscription<E> {
        // Under the lock, so that no update falls between the snapshot and the first delta.
        let head = self.shared.head();
        let updates = self.shared.updates.subscribe();
        let snapshot = head.snapshot.clone();
        drop(head);
        self.shared.note(|acks| {
            acks.insert(process, Told::default());
        });
        Subscription { process, snapshot, resyncs: 0, updates: Some(updates), shared: self.shared.clone() }
    }

    /// What each subscribed process has told, now and whenever it changes.
    pub fn acks(&self) -> watch::Receiver<Arc<Acks>> {
        self.shared.acks.subscribe()
    }

    /// Says whether subscribers are to take nothing new, until it is said otherwise.
    pub fn order_drain(&self, drain: bool) {
        self.shared.drain.send_if_modified(|ordered| std::mem::replace(ordered, drain) != drain);
    }

    /// Notes for every subscribed process why a later version was not taken, until it acknowledges one.
    pub(crate) fn refuse(&self, reason: &str) {
        self.shared.note(|acks| acks.values_mut().for_each(|told| told.error = Some(reason.to_owned())));
    }

    /// Returns once every subscribed process has acknowledged `version` or a later one.
    pub async fn live(&self, version: Version) {
        let mut acks = self.shared.acks.subscribe();
        let has = |told: &Told| (told.version.epoch, told.version.n) >= (version.epoch, version.n);
        // The sender lives in self, so waiting cannot fail.
        let _ = acks.wait_for(|acks| acks.values().all(has)).await;
    }
}

/// A source for each kind of service: the configuration of one namespace.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// For balancers.
    pub balancer: MemorySource<BalancerEntry>,
    /// For registrars.
    pub registrar: MemorySource<RegistrarEntry>,
    /// For routers.
    pub router: MemorySource<RouterEntry>,
    /// For relays.
    pub media: MemorySource<MediaEntry>,
    /// For conference services.
    pub conference: MemorySource<ConferenceEntry>,
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

impl<E> Subscription<E> {
    /// What this process, beside others, has told; its entry goes when the subscription is dropped.
    pub(crate) fn acks(&self) -> watch::Receiver<Arc<Acks>> {
        self.shared.acks.subscribe()
    }
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

    /// Returns once a first version is at hand: at once, unless it comes from elsewhere. Safe to cancel.
    pub async fn started(&mut self) {
        while self.snapshot.version == Version::default() {
            self.changed().await;
        }
    }

    /// Whether the publisher wants this process to take nothing new, now and whenever that changes. It is not the end of
    /// the process, and can be taken back.
    pub fn ordered_to_drain(&self) -> watch::Receiver<bool> {
        self.shared.drain.subscribe()
    }

    /// Tells the publisher that this version is in use.
    pub fn ack(&self, version: Version) {
        self.shared.note(|acks| {
            acks.insert(self.process, Told { version, error: None });
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
            Update::Delta(d) if !newer(d.delta.to, self.snapshot.version) => false,
            Update::Snapshot(s) => {
                self.snapshot = s;
                true
            }
            Update::Delta(d) => {
                // Its hash was checked when it was published.
                if Arc::make_mut(&mut self.snapshot).follow(&d.delta).is_err() {
                    self.resync();
                }
                true
            }
        }
    }

    fn resync(&mut self) {
        self.resyncs += 1;
        self.snapshot = self.shared.head().snapshot.clone();
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
