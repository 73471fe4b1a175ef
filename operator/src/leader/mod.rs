//! Leader election by a Lease: one of several operators leads, and how often that has changed hands is the epoch of what
//! it publishes.
//!
//! [`Election`] decides, [`run`] does. Clocks of machines are never compared: a term is over when the Lease has not
//! changed for it by one's own monotonic clock, and a leader steps down before the others may think it gone.

pub mod claim;
mod election;

use crate::leader::election::{Step, Unwritten};
use anyhow::Context;
pub use election::{Candidate, Election, URL};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use runtime::Clock;
use runtime::stream::server::Leader;
use std::future::Future;
use std::time::Duration;
use tokio::sync::watch;

/// Stands for election until `stop` resolves, then, if to true, gives up leadership at once, so that another has it within a
/// moment. `tell` says who leads. `ahead` is the highest epoch that a process has had while ours was lower: ours is raised above it.
pub async fn run(
    client: Client,
    candidate: Candidate,
    mut ahead: watch::Receiver<u64>,
    tell: watch::Sender<Leader>,
    stop: impl Future<Output = bool>,
) {
    let clock = Clock::new();
    let leases: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let server = Server { leases, lease: candidate.lease.clone(), limit: candidate.answer() };
    let name = format!("{}/{}", candidate.namespace, candidate.lease);
    let mut election = Election::new(candidate);
    tokio::pin!(stop);
    let give_up = loop {
        let above = *ahead.borrow_and_update();
        let now = clock.now();
        let step = election.next(now.mono, now.wall, above);
        say(&name, &tell, election.leader(now.mono));
        let acted = async {
            match step {
                Step::Wait(until) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(clock.instant(until)) => {}
                        Ok(()) = ahead.changed() => {}
                    }
                    None
                }
                Step::Read => Some(Answer::Read(server.read().await)),
                Step::Create(lease) => Some(Answer::Written(server.create(&lease).await)),
                Step::Replace(lease) => Some(Answer::Written(server.replace(&lease).await)),
            }
        };
        let answer = tokio::select! {
            give_up = &mut stop => break give_up,
            answer = acted => answer,
        };
        let now = clock.now().mono;
        match answer {
            Some(Answer::Read(Some(lease))) => election.seen(lease, now),
            Some(Answer::Read(None)) => election.unseen(now),
            Some(Answer::Written(written)) => election.written(written, now),
            None => {}
        }
        say(&name, &tell, election.leader(now));
    };
    // Nothing is done in a leader's name from here on, whether or not the others hear of it.
    say(&name, &tell, Leader::Nobody);
    if let Some(lease) = election.resign().filter(|_| give_up)
        && server.replace(&lease).await.is_err()
    {
        tracing::warn!(lease = name, "leadership could not be given up: the others wait until the term is over");
    }
}

fn say(lease: &str, tell: &watch::Sender<Leader>, leader: Leader) {
    tell.send_if_modified(|told| {
        let changed = *told != leader;
        if changed {
            tracing::info!(lease, ?leader, "leadership");
            *told = leader;
        }
        changed
    });
}

enum Answer {
    /// The Lease, if there is one; `None` if nobody answered.
    Read(Option<Option<Lease>>),
    Written(Result<Lease, Unwritten>),
}

/// The API server, each question with a limit.
struct Server {
    leases: Api<Lease>,
    lease: String,
    limit: Duration,
}

impl Server {
    async fn read(&self) -> Option<Option<Lease>> {
        let read = async { self.leases.get_opt(&self.lease).await.context("the Lease cannot be read") };
        match tokio::time::timeout(self.limit, read).await {
            Ok(Ok(lease)) => Some(lease),
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "leader election");
                None
            }
            Err(_) => {
                tracing::warn!("leader election: the API server does not answer");
                None
            }
        }
    }

    async fn create(&self, lease: &Lease) -> Result<Lease, Unwritten> {
        self.write(self.leases.create(&PostParams::default(), lease)).await
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, Unwritten> {
        self.write(self.leases.replace(&self.lease, &PostParams::default(), lease)).await
    }

    async fn write(&self, write: impl Future<Output = Result<Lease, Error>>) -> Result<Lease, Unwritten> {
        match tokio::time::timeout(self.limit, write).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => Err(Unwritten::Conflict),
            Ok(Err(error)) => {
                tracing::warn!(%error, "leader election: the Lease cannot be written");
                Err(Unwritten::Unknown)
            }
            Err(_) => {
                tracing::warn!("leader election: the API server does not answer");
                Err(Unwritten::Unknown)
            }
        }
    }
}
