//! What is streamed to whom: the sources of each namespace, who follows them, and what the followers have acknowledged.

use super::feed::{Feed, Lines};
use super::server::Identity;
use crate::clock::Clock;
use crate::source::{MemorySource, Sources};
use contract::config::{Entry, Version};
use contract::stream::{Ack, Ask, MAX_ERROR};
use contract::{Now, ProcessId, Service};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// Processes that are remembered a namespace and service; the longest gone make room.
pub const MAX_PROCESSES: usize = 1024;

/// The most that an epoch may be ahead of ours to be believed: nobody raises it by more in an installation's life.
const MAX_AHEAD: u64 = 1_000_000;

/// What a process has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follower {
    /// The pod it runs in.
    pub pod: String,
    /// The version in use; the default one before its first acknowledgement here.
    pub version: Version,
    /// Why it did not take a later one, if it did not.
    pub error: Option<String>,
    /// When any of these last changed.
    pub since: Now,
    /// Whether it has a stream now.
    pub connected: bool,
}

/// All followers of a service in a namespace.
pub type Followers = BTreeMap<ProcessId, Follower>;

/// All followers in a namespace. A service that nobody has followed is not in it.
pub type Acks = BTreeMap<Service, Arc<Followers>>;

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller may not have this: 403.
    #[error("{0}")]
    Forbidden(String),
    /// Not yet: 503.
    #[error("{0}")]
    Later(String),
    /// An acknowledgement of a process that has no stream here: 409.
    #[error("process {0} follows no stream here")]
    Unknown(ProcessId),
}

/// One follower's stream; replacing or dropping it ends the connection.
struct Slot {
    stream: u64,
    _end: oneshot::Sender<()>,
}

struct Namespace {
    pbx: String,
    feeds: BTreeMap<Service, Box<dyn Feed>>,
    streams: BTreeMap<(Service, ProcessId), Slot>,
    acks: watch::Sender<Arc<Acks>>,
    /// Pods that are to take nothing new.
    draining: watch::Sender<BTreeSet<String>>,
}

impl Namespace {
    /// Changes what is known of a process; watchers are told only if it made a difference.
    fn note(&self, service: Service, change: impl FnOnce(&mut Followers) -> bool) {
        self.acks.send_if_modified(|acks| {
            let mut followers = acks.get(&service).map(|f| Followers::clone(f)).unwrap_or_default();
            let changed = change(&mut followers);
            if changed {
                Arc::make_mut(acks).insert(service, Arc::new(followers));
            }
            changed
        });
    }

    /// Only the service's own account of this namespace's PBX.
    fn permit(&self, who: &Identity, service: Service) -> Result<(), Refusal> {
        let account = format!("{}-{}", self.pbx, service.as_str());
        if who.account == account {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!(
            "service account {} of namespace {} may not follow {}: that is for {account}",
            who.account,
            who.namespace,
            service.as_str()
        )))
    }
}

struct Inner {
    namespaces: Mutex<BTreeMap<String, Namespace>>,
    next_stream: Mutex<u64>,
    ahead: watch::Sender<u64>,
    clock: Clock,
}

/// What is served. Clones share it.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// The stream that one process was given. Dropping it says that the process is connected no longer.
pub(super) struct Opened {
    pub(super) lines: Box<dyn Lines>,
    /// Resolves, whatever to, when the stream must end.
    pub(super) end: oneshot::Receiver<()>,
    /// The pod that the process runs in.
    pub(super) pod: String,
    /// Pods that are to take nothing new.
    pub(super) draining: watch::Receiver<BTreeSet<String>>,
    registry: Registry,
    namespace: String,
    service: Service,
    process: ProcessId,
    stream: u64,
}

impl Registry {
    /// A registry that serves nothing yet.
    pub fn new(clock: Clock) -> Self {
        let inner =
            Inner { namespaces: Mutex::default(), next_stream: Mutex::new(0), ahead: watch::Sender::new(0), clock };
        Self { inner: Arc::new(inner) }
    }

    fn namespaces(&self) -> MutexGuard<'_, BTreeMap<String, Namespace>> {
        self.inner.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves these sources to the pods of the PBX of this name. Followers of what was served there before have to come
    /// again, and what they acknowledged is forgotten.
    pub fn serve(&self, namespace: &str, pbx: &str, sources: &Sources) {
        let feeds: [(Service, Box<dyn Feed>); 5] = [
            (Service::Balancer, Box::new(sources.balancer.clone())),
            (Service::Registrar, Box::new(sources.registrar.clone())),
            (Service::Router, Box::new(sources.router.clone())),
            (Service::Media, Box::new(sources.media.clone())),
            (Service::Conference, Box::new(sources.conference.clone())),
        ];
        self.put(namespace, pbx, feeds.into());
    }

    /// [`Registry::serve`] for one service alone: for tools and tests.
    pub fn serve_one<E: Entry>(&self, namespace: &str, pbx: &str, source: &MemorySource<E>) {
        let feed: Box<dyn Feed> = Box::new(source.clone());
        self.put(namespace, pbx, [(E::SERVICE, feed)].into());
    }

    fn put(&self, namespace: &str, pbx: &str, feeds: BTreeMap<Service, Box<dyn Feed>>) {
        let mut all = self.namespaces();
        // Whoever watches the acknowledgements of this namespace goes on watching them.
        let (acks, draining) = all.remove(namespace).map(|old| (old.acks, old.draining)).unwrap_or_default();
        acks.send_replace(Arc::default());
        let pbx = pbx.to_owned();
        all.insert(namespace.to_owned(), Namespace { pbx, feeds, streams: BTreeMap::new(), acks, draining });
    }

    /// Says which pods of a namespace are to take nothing new; all others take what comes.
    pub fn drain(&self, namespace: &str, pods: BTreeSet<String>) {
        let all = self.namespaces();
        let Some(ns) = all.get(namespace) else { return };
        ns.draining.send_if_modified(|now| {
            *now != pods && {
                *now = pods;
                true
            }
        });
    }

    /// Serves a namespace no longer; streams of it end.
    pub fn remove(&self, namespace: &str) {
        self.namespaces().remove(namespace);
    }

    /// Serves nothing any longer; all streams end. For one who led and does not now.
    pub fn clear(&self) {
        self.namespaces().clear();
    }

    /// What processes of a namespace have acknowledged, now and whenever it changes; `None` if it is not served.
    pub fn acks(&self, namespace: &str) -> Option<watch::Receiver<Arc<Acks>>> {
        self.namespaces().get(namespace).map(|ns| ns.acks.subscribe())
    }

    /// Pods of a namespace that are to take nothing new, now and whenever that changes; `None` if it is not served.
    pub fn draining(&self, namespace: &str) -> Option<watch::Receiver<BTreeSet<String>>> {
        self.namespaces().get(namespace).map(|ns| ns.draining.subscribe())
    }

    /// Forgets the processes of a pod that is gone.
    pub fn forget(&self, namespace: &str, service: Service, pod: &str) {
        let mut all = self.namespaces();
        let Some(ns) = all.get_mut(namespace) else { return };
        let followers = ns.acks.borrow().get(&service).cloned().unwrap_or_default();
        for process in followers.iter().filter(|(_, f)| f.pod == pod).map(|(id, _)| *id) {
            ns.streams.remove(&(service, process));
            ns.note(service, |followers| followers.remove(&process).is_some());
        }
    }

    /// The highest epoch that an authorised process had while ours was lower; 0 if none. Whoever leads must raise its own
    /// above it, else such processes never take anything again: a process goes back to no older epoch.
    pub fn ahead(&self) -> watch::Receiver<u64> {
        self.inner.ahead.subscribe()
    }

    /// Opens a stream of `service` for a process of the caller's namespace.
    pub(super) fn open(
        &self,
        who: &Identity,
        service: Service,
        process: ProcessId,
        ask: &Ask,
    ) -> Result<Opened, Refusal> {
        if who.pod.as_ref().is_some_and(|pod| *pod != ask.pod) {
            return Err(Refusal::Forbidden(format!("the token is not that of pod {}", ask.pod)));
        }
        let mut all = self.namespaces();
        let ns = all
            .get_mut(&who.namespace)
            .ok_or_else(|| Refusal::Later(format!("no configuration for namespace {} yet", who.namespace)))?;
        ns.permit(who, service)?;
        let feed = ns
            .feeds
            .get(&service)
            .ok_or_else(|| Refusal::Later(format!("no configuration for {} yet", service.as_str())))?;
        let (has, now) = (ask.version(), feed.version());
        if has.epoch > now.epoch {
            if has.epoch - now.epoch <= MAX_AHEAD {
                self.inner.ahead.send_if_modified(|ahead| has.epoch > std::mem::replace(ahead, has.epoch.max(*ahead)));
            }
            return Err(Refusal::Later(format!("epoch {} here, {} there", now.epoch, has.epoch)));
        }
        let lines = feed.open(has);
        let (end, ended) = oneshot::channel();
        let stream = {
            let mut next = self.inner.next_stream.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let full = |ns: &Namespace| ns.acks.borrow().get(&service).is_some_and(|f| f.len() >= MAX_PROCESSES);
        // A pod has one process: another one of it that we know is gone.
        let known = ns.acks.borrow().get(&service).cloned().unwrap_or_default();
        let same_pod = |f: &Follower| !ask.pod.is_empty() && f.pod == ask.pod;
        let mut gone: Vec<ProcessId> =
            known.iter().filter(|(id, f)| **id != process && same_pod(f)).map(|(id, _)| *id).collect();
        if gone.is_empty() && full(ns) && !known.contains_key(&process) {
            let longest = known.iter().filter(|(_, f)| !f.connected).min_by_key(|(_, f)| f.since.mono);
            let (oldest, _) = longest.ok_or_else(|| Refusal::Later("too many processes".into()))?;
            gone.push(*oldest);
        }
        for process in &gone {
            ns.streams.remove(&(service, *process));
        }
        ns.streams.insert((service, process), Slot { stream, _end: end });
        let since = self.inner.clock.now();
        ns.note(service, |followers| {
            followers.retain(|id, _| !gone.contains(id));
            let version = followers.get(&process).map(|f| f.version).unwrap_or_default();
            let follower = Follower { pod: ask.pod.clone(), version, error: None, since, connected: true };
            followers.insert(process, follower);
            true
        });
        let (registry, namespace) = (self.clone(), who.namespace.clone());
        let (pod, draining) = (ask.pod.clone(), ns.draining.subscribe());
        Ok(Opened { lines, end: ended, pod, draining, registry, namespace, service, process, stream })
    }

    /// Takes an acknowledgement.
    pub(super) fn ack(&self, who: &Identity, ack: Ack) -> Result<(), Refusal> {
        let all = self.namespaces();
        let ns = all.get(&who.namespace).ok_or(Refusal::Unknown(ack.process))?;
        ns.permit(who, ack.service)?;
        let known = ns.acks.borrow().get(&ack.service).and_then(|f| f.get(&ack.process)).cloned();
        let known = known.ok_or(Refusal::Unknown(ack.process))?;
        if who.pod.as_ref().is_some_and(|pod| *pod != known.pod) {
            return Err(Refusal::Forbidden(format!("process {} runs in another pod", ack.process)));
        }
        let error = ack.error.map(plain);
        let since = self.inner.clock.now();
        ns.note(ack.service, |followers| {
            let Some(follower) = followers.get_mut(&ack.process) else { return false };
            let changed = follower.version != ack.version || follower.error != error;
            if changed {
                (follower.version, follower.error, follower.since) = (ack.version, error, since);
            }
            changed
        });
        Ok(())
    }

    fn left(&self, opened: &Opened) {
        let mut all = self.namespaces();
        let Some(ns) = all.get_mut(&opened.namespace) else { return };
        let key = (opened.service, opened.process);
        // Unless a later stream of the same process has taken its place.
        if ns.streams.get(&key).is_none_or(|slot| slot.stream != opened.stream) {
            return;
        }
        ns.streams.remove(&key);
        let since = self.inner.clock.now();
        ns.note(opened.service, |followers| {
            let Some(follower) = followers.get_mut(&opened.process) else { return false };
            (follower.connected, follower.since) = (false, since);
            true
        });
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.registry.left(self);
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({:?})", self.namespaces().keys())
    }
}

/// Text for people out of what somebody sent: short, one line.
fn plain(mut text: String) -> String {
    let mut end = text.len().min(MAX_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
