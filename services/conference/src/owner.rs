//! Which rooms are ours: the record of a room in the store names the process that mixes it, so that all who dial it land
//! together. It is written when the first leg comes and removed after the last; one of a process that is gone is taken.
//!
//! One task does it all in order, so that a room that is given up and one that begins again do not cross.

use bytes::Bytes;
use contract::ProcessId;
use contract::location::StoreError;
use contract::peers::Peers;
use contract::records::{Key, Owner, ROOM};
use runtime::Running;
use runtime::store::Store;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Tries until a room that changes hands at every look is given up.
const TRIES: usize = 4;

enum Ask {
    Claim(String, oneshot::Sender<bool>),
    Release(String),
}

/// The handle of the task. Claims and releases are as many as legs are, so they need no limit of their own.
#[derive(Debug, Clone)]
pub(crate) struct Owners(mpsc::UnboundedSender<Ask>);

struct Task {
    process: ProcessId,
    store: Arc<dyn Store>,
    peers: watch::Receiver<Arc<Peers>>,
    /// Legs of each room here, and how its record stands; none where the store did not take it.
    held: HashMap<String, (usize, Option<Owner>)>,
}

impl Owners {
    pub(crate) fn start(
        running: &mut Running,
        process: ProcessId,
        store: Arc<dyn Store>,
        peers: watch::Receiver<Arc<Peers>>,
    ) -> Self {
        let (tell, mut asks) = mpsc::unbounded_channel();
        let mut task = Task { process, store, peers, held: HashMap::new() };
        running.spawn("rooms", async move {
            while let Some(ask) = asks.recv().await {
                match ask {
                    Ask::Claim(room, tell) => {
                        let ours = task.claim(&room).await;
                        // Who asked may have gone; its release comes.
                        let _ = tell.send(ours);
                    }
                    Ask::Release(room) => task.release(&room).await,
                }
            }
            Ok(())
        });
        Self(tell)
    }

    /// A leg comes for this room: whether it is ours. Asked at once, answered when the store has.
    pub(crate) fn claim(&self, room: &str) -> impl Future<Output = bool> + Send + use<> {
        let (tell, told) = oneshot::channel();
        let sent = self.0.send(Ask::Claim(room.to_owned(), tell)).is_ok();
        async move { sent && told.await.unwrap_or(false) }
    }

    /// A leg that came for this room is gone, or did not get in.
    pub(crate) fn release(&self, room: &str) {
        // Without its task the service ends.
        let _ = self.0.send(Ask::Release(room.to_owned()));
    }
}

impl Task {
    async fn claim(&mut self, room: &str) -> bool {
        if let Some((legs, Some(_))) = self.held.get_mut(room) {
            *legs += 1;
            return true;
        }
        let won = self.win(room).await;
        let (legs, owner) = self.held.entry(room.to_owned()).or_insert((0, None));
        *legs += 1;
        match won {
            Ok(Some(own)) => {
                *owner = Some(own);
                true
            }
            Ok(None) => false,
            // Without a store the name alone brings all to one process.
            Err(error) => {
                tracing::warn!(room, %error, "a room without a record");
                true
            }
        }
    }

    /// Writes or takes the record; none where a process that is there has it.
    async fn win(&self, room: &str) -> Result<Option<Owner>, StoreError> {
        for _ in 0..TRIES {
            let done = match self.store.record(ROOM, room).await? {
                Some((owner, _)) if owner.process == self.process => return Ok(Some(owner)),
                Some((owner, _)) if self.peers.borrow().get(owner.process).is_some() => return Ok(None),
                Some((owner, _)) => {
                    let key = Key { kind: ROOM.to_owned(), id: room.to_owned(), owner };
                    let taken = self.store.take(&[key], self.process).await;
                    taken.map(|records| records.first().map(|stored| stored.key.owner))
                }
                None => {
                    let own = Owner { process: self.process, epoch: 1 };
                    self.store.save(ROOM, room, own, Bytes::from_static(b"{}")).await.map(|()| Some(own))
                }
            };
            match done {
                Ok(owner) => return Ok(owner),
                // Somebody was faster: who it was shows at the next look.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn release(&mut self, room: &str) {
        let Some((legs, owner)) = self.held.get_mut(room) else { return };
        *legs = legs.saturating_sub(1);
        if *legs > 0 {
            return;
        }
        let owner = *owner;
        self.held.remove(room);
        if let Some(owner) = owner
            && let Err(error) = self.store.remove(ROOM, room, owner).await
        {
            // Who dials it next finds us without it and begins it here again, or finds us gone and takes it.
            tracing::debug!(room, %error, "a room's record stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Service;
    use contract::peers::Peer;
    use runtime::Environment;

    struct Site {
        environment: Environment,
        _running: Vec<Running>,
    }

    impl Site {
        fn join(&mut self, process: ProcessId) -> (Owners, runtime::mesh::Member) {
            let member = self.environment.mesh.join(Peer::new(Service::Conference, process));
            let mut running = Running::new();
            let (store, peers) = (self.environment.store.clone(), self.environment.mesh.peers());
            let owners = Owners::start(&mut running, process, store, peers);
            self._running.push(running);
            (owners, member)
        }

        async fn owner(&self) -> Option<Owner> {
            self.environment.store.record(ROOM, "100").await.unwrap().map(|(owner, _)| owner)
        }
    }

    #[tokio::test]
    async fn a_room_is_at_one_process_until_its_last_leg_is_gone() {
        let mut site = Site { environment: Environment::in_memory(), _running: Vec::new() };
        let ((one, member), (two, _member)) = (site.join(ProcessId(1)), site.join(ProcessId(2)));
        assert!(one.claim("100").await && one.claim("100").await && !two.claim("100").await);
        two.release("100");
        one.release("100");
        assert!(!two.claim("100").await && two.claim("200").await);
        two.release("100");
        one.release("100");
        // In order: after the release this finds nothing of ours.
        assert!(one.claim("100").await);
        one.release("100");
        assert!(one.claim("300").await);
        assert_eq!(site.owner().await, None);
        assert!(two.claim("100").await);
        assert!(!one.claim("100").await);
        drop(member);
    }

    #[tokio::test]
    async fn what_one_that_is_gone_had_is_taken() {
        let mut site = Site { environment: Environment::in_memory(), _running: Vec::new() };
        let ((one, member), (two, _member)) = (site.join(ProcessId(1)), site.join(ProcessId(2)));
        assert!(one.claim("100").await && !two.claim("100").await);
        drop(member);
        let mut peers = site.environment.mesh.peers();
        peers.wait_for(|p| p.get(ProcessId(1)).is_none()).await.unwrap();
        assert!(two.claim("100").await);
        assert_eq!(site.owner().await, Some(Owner { process: ProcessId(2), epoch: 2 }));
    }
}
