//! Who else is there: each process renews its record in the store and reads those of all others, twice a second.
//!
//! A store that does not answer says nothing of processes: the last that were known stay. One that comes back, perhaps
//! empty, is believed at once where it names a process; where it does not, only after all that live could renew.

use crate::deps::Environment;
use crate::health::Health;
use crate::mesh::Mesh;
use crate::metrics::{Counter, Gauge};
use crate::store::Store;
use contract::ProcessId;
use contract::location::StoreError;
use contract::peers::{Peer, PeerState, Peers};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a record is renewed and those of all are read.
pub const PERIOD: Duration = Duration::from_millis(500);

/// How long a record stands that is not renewed.
pub const TTL: Duration = Duration::from_millis(1500);

/// Renews and reads until it is dropped. A member is announced once its process is ready, and at once when its state
/// changes.
pub async fn run(environment: Environment) -> anyhow::Result<()> {
    let Environment { mesh, store, health, metrics, .. } = environment;
    let mut belief = Belief::default();
    let mut own = mesh.peers();
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tried = Vec::new();
    let failures = metrics.counter("peers_store_failures", "Rounds in which the store did not tell of peers");
    let figures = Figures {
        peers: metrics.gauge("peers", "Processes known, this one included"),
        overflows: metrics.counter("mesh_overflows", "Messages to other processes that found a queue full"),
        strangers: metrics.counter("mesh_strangers", "Inside connections refused for want of the installation's key"),
    };
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = changed(&mesh, &health, &mut own, &tried) => tick.reset(),
        }
        let local = if health.missing().is_empty() { mesh.local() } else { Vec::new() };
        let (told, read) = tokio::join!(announce(store.as_ref(), &local), store.peers());
        match read {
            Ok(all) => mesh.learn(belief.read(all, Instant::now())),
            Err(error) => {
                if belief.fail() {
                    tracing::warn!(%error, "the store tells nothing of peers: going on with those that are known");
                }
                failures.inc();
            }
        }
        tried = local.iter().map(said).collect();
        // Where the store lost its contents, what stood there before is missing in the next round.
        belief.expect(if told.is_ok() { local.iter().map(|p| p.process).collect() } else { Vec::new() });
        figures.show(&mesh);
    }
}

struct Figures {
    peers: Gauge,
    overflows: Counter,
    strangers: Counter,
}

impl Figures {
    fn show(&self, mesh: &Mesh) {
        let known = mesh.peers().borrow().0.len();
        self.peers.set(i64::try_from(known).unwrap_or(i64::MAX));
        self.overflows.inc_by(mesh.overflows().saturating_sub(self.overflows.get()));
        self.strangers.inc_by(mesh.strangers().saturating_sub(self.strangers.get()));
    }
}

/// Takes the record of a process that ends out of the store, so that the others know at once, whether its service is
/// still a member or left the mesh before. While it is one, the next round writes the record again.
pub async fn withdraw(store: &Arc<dyn Store>, process: ProcessId) {
    if let Err(error) = store.withdraw(process).await {
        tracing::debug!(%error, "the peer record stands until it expires");
    }
}

async fn announce(store: &dyn Store, local: &[Peer]) -> Result<(), StoreError> {
    for peer in local {
        store.announce(peer, u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)).await?;
    }
    Ok(())
}

/// What others must hear of at once.
fn said(peer: &Peer) -> (ProcessId, PeerState) {
    (peer.process, peer.state)
}

/// Returns when something is to be announced that was not tried.
async fn changed(
    mesh: &Mesh,
    health: &Health,
    own: &mut watch::Receiver<Arc<Peers>>,
    tried: &[(ProcessId, PeerState)],
) {
    health.ready().await;
    while mesh.local().iter().map(said).eq(tried.iter().copied()) {
        // The sender lives in the mesh, so this does not fail.
        _ = own.changed().await;
    }
}

/// What is believed of the other processes.
#[derive(Debug, Default)]
struct Belief {
    known: Vec<Peer>,
    /// Whether the last round failed.
    failed: bool,
    /// The processes here whose records must be there.
    expected: Vec<ProcessId>,
    /// Until then nobody counts as gone.
    doubt: Option<Instant>,
}

impl Belief {
    /// The store told nothing. True if it did the last time.
    fn fail(&mut self) -> bool {
        self.expected.clear();
        !std::mem::replace(&mut self.failed, true)
    }

    /// These records were written, and stand longer than a round takes.
    fn expect(&mut self, own: Vec<ProcessId>) {
        self.expected = own;
    }

    /// The store told this; returns what is to be taken for true.
    fn read(&mut self, mut all: Vec<Peer>, now: Instant) -> Vec<Peer> {
        let lost = self.expected.iter().any(|process| all.iter().all(|p| p.process != *process));
        if std::mem::take(&mut self.failed) || lost {
            tracing::info!(lost, "the store tells of peers again");
            self.doubt = Some(now + TTL);
        }
        if self.doubt.is_some_and(|until| now < until) {
            let missing = self.known.iter().filter(|k| all.iter().all(|p| p.process != k.process)).cloned();
            all.extend(missing.collect::<Vec<_>>());
        } else {
            self.doubt = None;
        }
        all.sort_by_key(|p| (p.service, p.process));
        self.known.clone_from(&all);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Service;

    fn peers(names: &[u64]) -> Vec<Peer> {
        names.iter().map(|n| Peer::new(Service::Router, ProcessId(*n))).collect()
    }

    fn names(read: Vec<Peer>) -> Vec<u64> {
        read.iter().map(|p| p.process.0).collect()
    }

    #[test]
    fn a_store_that_was_away_is_believed_of_absence_only_after_a_while() {
        let (mut belief, mut now) = (Belief::default(), Instant::now());
        assert_eq!(names(belief.read(peers(&[1, 2, 3]), now)), [1, 2, 3]);
        assert_eq!(names(belief.read(peers(&[1, 3]), now)), [1, 3]);
        assert!(belief.fail() && !belief.fail());
        assert_eq!(names(belief.read(peers(&[4]), now)), [1, 3, 4]);
        now += TTL - PERIOD;
        assert_eq!(names(belief.read(peers(&[1]), now)), [1, 3, 4]);
        now += PERIOD;
        assert_eq!(names(belief.read(peers(&[1]), now)), [1]);
    }

    #[test]
    fn a_store_that_lost_our_own_record_lost_all() {
        let (mut belief, now) = (Belief::default(), Instant::now());
        belief.read(peers(&[1, 2]), now);
        belief.expect(vec![ProcessId(1)]);
        assert_eq!(names(belief.read(peers(&[]), now)), [1, 2]);
        assert_eq!(names(belief.read(peers(&[1]), now + TTL)), [1]);
    }
}
