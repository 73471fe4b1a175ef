//! The claim of a namespace: a Lease in it, held in the name of the installation, so that two installations of the operator
//! never write to the same objects. Replicas of one installation have one name: who of them leads is another Lease's.

use crate::leader::{self, Candidate};
use kube::Client;
use runtime::stream::server::Leader;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// The Lease's name, in each namespace that is served.
pub const LEASE: &str = "kubepbx";

/// A claim that has not been renewed for so long is nobody's.
const TERM: Duration = Duration::from_secs(60);

/// How often it is renewed, or looked at while it is another's.
const PERIOD: Duration = Duration::from_secs(15);

/// Whose a namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Not known yet.
    Unknown,
    /// This installation's.
    Ours,
    /// Another's, which is reached there.
    Theirs(String),
}

/// A claim that is made, or kept. Dropping it leaves it as it is until its term is over.
#[derive(Debug)]
pub struct Claim {
    leads: watch::Receiver<Leader>,
    _task: JoinSet<()>,
}

impl Claim {
    /// Claims a namespace for the installation of this name, and says to `told` whenever it becomes another's or ours.
    pub fn new(client: Client, namespace: &str, installation: &str, told: mpsc::Sender<String>) -> Self {
        let candidate = Candidate {
            term: TERM,
            period: PERIOD,
            ..Candidate::new(namespace, LEASE, installation, &format!("kubepbx://{installation}"))
        };
        let (tell, leads) = watch::channel(Leader::Nobody);
        let (mut changes, namespace) = (leads.clone(), namespace.to_owned());
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Its epoch says nothing here, so there is none to be above of.
            let (_none, ahead) = watch::channel(0);
            let run = leader::run(client, candidate, ahead, tell, std::future::pending());
            let tell = async { while changes.changed().await.is_ok() && told.send(namespace.clone()).await.is_ok() {} };
            tokio::join!(run, tell);
        });
        Self { leads, _task: task }
    }

    /// Whose it is now.
    pub fn state(&self) -> Claimed {
        match &*self.leads.borrow() {
            Leader::Nobody => Claimed::Unknown,
            Leader::Here { .. } => Claimed::Ours,
            Leader::There(url) => Claimed::Theirs(url.trim_start_matches("kubepbx://").to_owned()),
        }
    }
}
