//! The mesh: inside hops and peers. Members of one process reach each other in memory, those of others over TCP
//! ([`Mesh::listen`]). Queues are bounded; sending never waits.

mod link;
mod wire;

use arc_swap::ArcSwap;
use bytes::Bytes;
use contract::hop::Inside;
use contract::media::MediaEvent;
use contract::peers::{Peer, PeerState, Peers};
use contract::{KeyRing, ProcessId, Service};
use futures::future::BoxFuture;
use link::Links;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// Messages that wait for one member, or to be sent to one process, unless said otherwise.
pub const QUEUE: usize = 4096;

/// Why an inside message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// No such process, or it left.
    #[error("the process is gone")]
    Gone,
    /// Its queue is full.
    #[error("the process's queue is full")]
    Full,
}

/// What goes from one process to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// A whole SIP message.
    Sip(Bytes),
    /// What a relay saw.
    Event(MediaEvent),
}

impl Parcel {
    /// About how much memory it takes, in bytes.
    fn size(&self) -> usize {
        match self {
            Parcel::Sip(bytes) => bytes.len(),
            Parcel::Event(event) => 128 + event.call.len() + event.tag.as_ref().map_or(0, String::len),
        }
    }
}

/// What was queued for a process elsewhere and then, as far as is known, not taken there: the process could not be
/// reached, the connection was lost, or its peer record is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Whom it was for.
    pub to: ProcessId,
    /// What it was.
    pub parcel: Parcel,
}

#[derive(Debug, Clone)]
struct Inbox {
    messages: mpsc::Sender<Inside>,
    events: mpsc::Sender<(ProcessId, MediaEvent)>,
    unsent: mpsc::Sender<Unsent>,
    service: Service,
    /// Tells two joins under one name apart.
    join: u64,
}

/// How other processes know and reach this one.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Where it listens for inside hops; port 0 takes any free one.
    pub address: SocketAddr,
    /// Proves who is who.
    pub keys: Arc<KeyRing>,
    /// The pod that it runs in; empty outside a cluster.
    pub pod: String,
    /// Where its views are served.
    pub admin: Option<SocketAddr>,
    /// Where its metrics are collected.
    pub metrics: Option<SocketAddr>,
}

#[derive(Debug)]
struct Shared {
    inboxes: ArcSwap<HashMap<ProcessId, Inbox>>,
    /// Serialises joins, leaves and what is learned.
    change: Mutex<u64>,
    peers: watch::Sender<Arc<Peers>>,
    overflows: AtomicU64,
    /// Connections refused to who could not prove that it belongs here.
    strangers: AtomicU64,
    queue: usize,
    outside: OnceLock<Reach>,
    links: Mutex<Links>,
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues, or counts that there was no room.
    fn offer<T>(&self, queue: &mpsc::Sender<T>, item: T) -> Result<(), HopError> {
        queue.try_send(item).map_err(|e| match e {
            mpsc::error::TrySendError::Closed(_) => HopError::Gone,
            mpsc::error::TrySendError::Full(_) => {
                self.overflows.fetch_add(1, Ordering::Relaxed);
                HopError::Full
            }
        })
    }

    /// Tells a member what was not taken. One that does not listen misses it.
    fn unsent(&self, inbox: &Inbox, unsent: Unsent) {
        _ = self.offer(&inbox.unsent, unsent);
    }

    fn send(self: &Arc<Self>, from: (ProcessId, Service), to: ProcessId, parcel: Parcel) -> Result<(), HopError> {
        let inboxes = self.inboxes.load();
        let Some(inbox) = inboxes.get(&to) else {
            let sent = link::send(self, from, to, parcel);
            if sent == Err(HopError::Full) {
                self.overflows.fetch_add(1, Ordering::Relaxed);
            }
            return sent;
        };
        match parcel {
            Parcel::Sip(bytes) => self.offer(&inbox.messages, Inside { from: from.0, service: from.1, bytes }),
            Parcel::Event(event) => self.offer(&inbox.events, (from.0, event)),
        }
    }
}

/// The members of one process, and the way to those of others. Clones are the same mesh.
#[derive(Debug, Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

impl Mesh {
    /// A mesh without members whose queues hold [`QUEUE`] messages each.
    pub fn new() -> Self {
        Self::with_queue(QUEUE)
    }

    /// A mesh whose queues hold `queue` messages each (at least one).
    pub fn with_queue(queue: usize) -> Self {
        let shared = Shared {
            inboxes: ArcSwap::default(),
            change: Mutex::new(0),
            peers: watch::Sender::new(Arc::default()),
            overflows: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            queue: queue.max(1),
            outside: OnceLock::new(),
            links: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Listens for other processes, and reaches those that [`Mesh::learn`] names, from now on. Once a mesh, before its
    /// members join: their records say where they are reached. The future takes connections until it is dropped; then
    /// those that were taken end.
    ///
    /// # Errors
    /// An address that cannot be bound, or a mesh that listens already.
    pub async fn listen(&self, reach: Reach) -> io::Result<(SocketAddr, BoxFuture<'static, anyhow::Result<()>>)> {
        let listener = TcpListener::bind(reach.address).await?;
        let address = listener.local_addr()?;
        let outside = Reach { address, ..reach };
        self.shared.outside.set(outside).map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
        Ok((address, Box::pin(link::accept(Arc::downgrade(&self.shared), listener))))
    }

    /// Joins under `peer.process`; leaves when the member is dropped. Joining under a name that is taken replaces the
    /// older member, whose `recv` ends.
    pub fn join(&self, mut peer: Peer) -> Member {
        if let Some(reach) = self.shared.outside.get() {
            peer.address = reach.address.to_string();
            peer.pod.clone_from(&reach.pod);
            peer.admin = reach.admin;
            peer.metrics = reach.metrics;
        }
        let (messages, inbox) = mpsc::channel(self.shared.queue);
        let (events, seen) = mpsc::channel(self.shared.queue);
        let (unsent, returned) = mpsc::channel(self.shared.queue);
        let (process, service) = (peer.process, peer.service);
        let mut joins = self.shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        *joins += 1;
        let join = *joins;
        let mut inboxes = HashMap::clone(&self.shared.inboxes.load());
        inboxes.insert(process, Inbox { messages, events, unsent, service, join });
        self.shared.inboxes.store(Arc::new(inboxes));
        self.edit(|peers| {
            peers.retain(|p| p.process != process);
            peers.push(peer);
        });
        drop(joins);
        let handle = MemberHandle { mesh: self.clone(), process, service, join };
        Member { process, service, inbox, events: Some(seen), unsent: Some(returned), handle }
    }

    /// The peers now and whenever they change: the members here, and what was learned of others.
    pub fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.shared.peers.subscribe()
    }

    /// The records of the members here.
    pub fn local(&self) -> Vec<Peer> {
        let inboxes = self.shared.inboxes.load();
        self.shared.peers.borrow().0.iter().filter(|p| inboxes.contains_key(&p.process)).cloned().collect()
    }

    /// Takes the records of all processes for true, those of members here excepted. Connections to processes that are no
    /// longer among them end, and what they had not taken is told back.
    pub fn learn(&self, all: Vec<Peer>) {
        let _change = self.shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        let inboxes = self.shared.inboxes.load();
        let others: Vec<Peer> = all.into_iter().filter(|p| !inboxes.contains_key(&p.process)).collect();
        let reached = |p: &Peer| p.address.parse().ok().map(|address| (p.process, address));
        let addresses: HashMap<ProcessId, SocketAddr> = others.iter().filter_map(reached).collect();
        let mut links = self.shared.links();
        let before = std::mem::replace(&mut links.addresses, addresses);
        let now = links.addresses.clone();
        // One that was never among them may be new, and known here before its record is.
        links.cut(|_, there| before.contains_key(&there) && !now.contains_key(&there));
        drop(links);
        self.edit(|peers| {
            peers.retain(|p| inboxes.contains_key(&p.process));
            peers.extend(others);
        });
    }

    /// True while a member of this name is joined.
    pub fn has(&self, process: ProcessId) -> bool {
        self.shared.inboxes.load().contains_key(&process)
    }

    /// How many messages were refused because a queue was full.
    pub fn overflows(&self) -> u64 {
        self.shared.overflows.load(Ordering::Relaxed)
    }

    /// How many connections were refused to who could not prove that it has the installation's key.
    pub fn strangers(&self) -> u64 {
        self.shared.strangers.load(Ordering::Relaxed)
    }

    /// Queues a message for a member here or elsewhere; never waits.
    pub fn send(&self, to: ProcessId, message: Inside) -> Result<(), HopError> {
        self.shared.send((message.from, message.service), to, Parcel::Sip(message.bytes))
    }

    /// Waits until everything that was sent to other processes was taken or told back, but not longer than `limit`.
    pub async fn flushed(&self, limit: Duration) {
        let end = tokio::time::Instant::now() + limit;
        while self.shared.links().busy() && tokio::time::Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Changes the list of peers as one step.
    fn edit(&self, change: impl FnOnce(&mut Vec<Peer>)) {
        self.shared.peers.send_if_modified(|peers| {
            let mut list = peers.0.clone();
            change(&mut list);
            let changed = list != peers.0;
            if changed {
                *peers = Arc::new(Peers(list));
            }
            changed
        });
    }

    fn leave(&self, process: ProcessId, join: u64) {
        let _joins = self.shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inboxes = HashMap::clone(&self.shared.inboxes.load());
        if inboxes.get(&process).is_some_and(|i| i.join == join) {
            inboxes.remove(&process);
            self.shared.inboxes.store(Arc::new(inboxes));
            self.shared.links().cut(|here, _| here == process);
            self.edit(|peers| peers.retain(|p| p.process != process));
        }
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self::new()
    }
}

/// One process's place in the mesh.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub process: ProcessId,
    /// Its service.
    pub service: Service,
    inbox: mpsc::Receiver<Inside>,
    events: Option<mpsc::Receiver<(ProcessId, MediaEvent)>>,
    unsent: Option<mpsc::Receiver<Unsent>>,
    handle: MemberHandle,
}

impl Member {
    /// The next message for this process; `None` when another member took its name. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Inside> {
        self.inbox.recv().await
    }

    /// A message that is already there.
    pub fn try_recv(&mut self) -> Option<Inside> {
        self.inbox.try_recv().ok()
    }

    /// What relays tell this process, and which relay did: given once. What is not taken out in time is lost.
    pub fn events(&mut self) -> mpsc::Receiver<(ProcessId, MediaEvent)> {
        self.events.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// What this process sent that was not taken: given once. What is not taken out in time is lost. In memory nothing
    /// comes back: there [`Member::send`] knows at once.
    pub fn unsent(&mut self) -> mpsc::Receiver<Unsent> {
        self.unsent.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Queues one SIP message for another process (or this one); never waits. For one elsewhere this is no promise:
    /// see [`Member::unsent`].
    pub fn send(&self, to: ProcessId, bytes: Bytes) -> Result<(), HopError> {
        self.handle.send(to, bytes)
    }

    /// Says whether this process takes new work.
    pub fn set_state(&self, state: PeerState) {
        self.handle.set_state(state);
    }

    /// Says what this process carries, in its service's own unit.
    pub fn set_load(&self, load: u64) {
        self.handle.set_load(load);
    }

    /// What other tasks of this process send with; useless once the member is dropped.
    pub fn handle(&self) -> MemberHandle {
        self.handle.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.handle.mesh.leave(self.process, self.handle.join);
    }
}

/// The sending half of a [`Member`].
#[derive(Debug, Clone)]
pub struct MemberHandle {
    mesh: Mesh,
    process: ProcessId,
    service: Service,
    join: u64,
}

impl MemberHandle {
    /// As [`Member::send`].
    pub fn send(&self, to: ProcessId, bytes: Bytes) -> Result<(), HopError> {
        self.mesh.shared.send((self.process, self.service), to, Parcel::Sip(bytes))
    }

    /// Queues an event for another process (or this one), as [`Member::send`] does with messages.
    pub fn tell(&self, to: ProcessId, event: MediaEvent) -> Result<(), HopError> {
        self.mesh.shared.send((self.process, self.service), to, Parcel::Event(event))
    }

    /// As [`Member::set_state`].
    pub fn set_state(&self, state: PeerState) {
        self.set(|peer| peer.state = state);
    }

    /// As [`Member::set_load`].
    pub fn set_load(&self, load: u64) {
        self.set(|peer| peer.load = load);
    }

    fn set(&self, change: impl FnOnce(&mut Peer)) {
        self.mesh.edit(|peers| {
            if let Some(peer) = peers.iter_mut().find(|p| p.process == self.process) {
                change(peer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProcessId = ProcessId(1);
    const B: ProcessId = ProcessId(2);

    #[tokio::test]
    async fn messages_say_who_sent_them_and_leaving_shows_in_the_peers() {
        let mesh = Mesh::new();
        let peers = mesh.peers();
        let a = mesh.join(Peer::new(Service::Balancer, A));
        let mut b = mesh.join(Peer::new(Service::Router, B));
        assert_eq!(peers.borrow().choose(Service::Router, b"k"), Some(B));
        a.send(B, Bytes::from_static(b"hello")).unwrap();
        let got = b.recv().await.unwrap();
        assert_eq!((got.from, got.service, &got.bytes[..]), (A, Service::Balancer, &b"hello"[..]));
        b.set_load(7);
        assert_eq!(peers.borrow().get(B).unwrap().load, 7);
        b.set_state(PeerState::Draining);
        assert_eq!(peers.borrow().choose(Service::Router, b"k"), None);
        drop(b);
        assert!(peers.borrow().get(B).is_none());
        assert_eq!(a.send(B, Bytes::new()), Err(HopError::Gone));
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let mesh = Mesh::with_queue(2);
        let a = mesh.join(Peer::new(Service::Router, A));
        assert_eq!([0; 3].map(|_| a.send(A, Bytes::new()).is_ok()), [true, true, false]);
        assert_eq!(a.send(A, Bytes::new()), Err(HopError::Full));
        assert_eq!(mesh.overflows(), 2);
    }

    #[tokio::test]
    async fn a_second_join_replaces_the_first_and_outlives_its_drop() {
        let mesh = Mesh::new();
        let mut old = mesh.join(Peer::new(Service::Router, A));
        let mut new = mesh.join(Peer::new(Service::Router, A));
        assert_eq!(old.recv().await, None);
        drop(old);
        assert_eq!(mesh.peers().borrow().0.len(), 1);
        new.send(A, Bytes::from_static(b"x")).unwrap();
        assert!(new.recv().await.is_some());
    }

    #[test]
    fn an_unchanged_load_wakes_nobody() {
        let mesh = Mesh::new();
        let a = mesh.join(Peer::new(Service::Media, A));
        a.set_load(3);
        let mut peers = mesh.peers();
        peers.mark_unchanged();
        a.set_load(3);
        assert!(!peers.has_changed().unwrap());
        a.set_load(4);
        assert!(peers.has_changed().unwrap());
    }
}
