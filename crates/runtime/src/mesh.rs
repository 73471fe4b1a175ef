//! The mesh: inside hops and peers within one process, in memory. Queues are bounded.

use arc_swap::ArcSwap;
use bytes::Bytes;
use contract::hop::Inside;
use contract::peers::{Peer, PeerState, Peers};
use contract::{ProcessId, Service};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, watch};

/// Messages that wait for one member, unless said otherwise.
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

#[derive(Debug, Clone)]
struct Inbox {
    sender: mpsc::Sender<Inside>,
    /// Tells two joins under one name apart.
    join: u64,
}

#[derive(Debug)]
struct Shared {
    inboxes: ArcSwap<HashMap<ProcessId, Inbox>>,
    /// Serialises joins and leaves.
    change: Mutex<u64>,
    peers: watch::Sender<Arc<Peers>>,
    overflows: AtomicU64,
    queue: usize,
}

/// All members of one process. Clones are the same mesh.
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
            queue: queue.max(1),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Joins under `peer.process`; leaves when the member is dropped. Joining under a name that is taken replaces the
    /// older member, whose `recv` ends.
    pub fn join(&self, peer: Peer) -> Member {
        let (sender, inbox) = mpsc::channel(self.shared.queue);
        let (process, service) = (peer.process, peer.service);
        let mut joins = self.shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        *joins += 1;
        let join = *joins;
        let mut inboxes = HashMap::clone(&self.shared.inboxes.load());
        inboxes.insert(process, Inbox { sender, join });
        self.shared.inboxes.store(Arc::new(inboxes));
        self.edit(|peers| {
            peers.retain(|p| p.process != process);
            peers.push(peer);
        });
        drop(joins);
        Member { process, service, inbox, handle: MemberHandle { mesh: self.clone(), process, service, join } }
    }

    /// The peers now and whenever they change.
    pub fn peers(&self) -> watch::Receiver<Arc<Peers>> {
        self.shared.peers.subscribe()
    }

    /// True while a member of this name is joined.
    pub fn has(&self, process: ProcessId) -> bool {
        self.shared.inboxes.load().contains_key(&process)
    }

    /// How many messages were refused because a queue was full.
    pub fn overflows(&self) -> u64 {
        self.shared.overflows.load(Ordering::Relaxed)
    }

    /// Queues a message for a member; never waits.
    pub fn send(&self, to: ProcessId, message: Inside) -> Result<(), HopError> {
        let inboxes = self.shared.inboxes.load();
        let inbox = inboxes.get(&to).ok_or(HopError::Gone)?;
        inbox.sender.try_send(message).map_err(|e| match e {
            mpsc::error::TrySendError::Closed(_) => HopError::Gone,
            mpsc::error::TrySendError::Full(_) => {
                self.shared.overflows.fetch_add(1, Ordering::Relaxed);
                HopError::Full
            }
        })
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

    /// Queues one SIP message for another process (or this one); never waits.
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
        self.mesh.send(to, Inside { from: self.process, service: self.service, bytes })
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
