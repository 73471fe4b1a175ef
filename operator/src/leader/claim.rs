//! Claims of namespaces: an installation writes to a namespace only while it has the Lease `kubepbx` in it, so that two
//! installations never fight over one. Another's claim is left alone and reported.
//!
//! The holder is the installation, not the process: a claim outlives a change of leader. Only the leader renews it, seldom;
//! that of an installation which is gone for [`TERM`] falls to whoever wants it.

use super::{Candidate, run};
use kube::Client;
use runtime::stream::server::Leader;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// The Lease's name in each namespace that is served.
pub const LEASE: &str = "kubepbx";

/// How long a claim holds without being renewed.
pub const TERM: Duration = Duration::from_secs(300);

/// How often it is renewed, or another's looked at.
const PERIOD: Duration = Duration::from_secs(60);

/// Whose a namespace is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Claim {
    /// Not known yet, or not any longer: nothing may be written.
    #[default]
    Unknown,
    /// Ours.
    Ours,
    /// That of another installation, named as [`Claims::new`] was given: nothing may be written.
    Theirs(String),
}

impl From<&Leader> for Claim {
    fn from(leader: &Leader) -> Self {
        match leader {
            Leader::Nobody => Claim::Unknown,
            Leader::Here { .. } => Claim::Ours,
            Leader::There(installation) => Claim::Theirs(installation.clone()),
        }
    }
}

#[derive(Debug)]
struct Held {
    state: watch::Receiver<Leader>,
    release: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Held {
    /// Unless it was released the claim stays as it is, for the next leader of this installation.
    fn drop(&mut self) {
        if self.release.is_some() {
            self.task.abort();
        }
    }
}

/// The claims of a leader; dropping it keeps them for the next one.
pub struct Claims {
    client: Client,
    installation: String,
    held: BTreeMap<String, Held>,
}

impl Claims {
    /// `installation` names this one among all of a cluster, such as `<namespace>/<Lease of its election>`.
    pub fn new(client: Client, installation: &str) -> Self {
        Self { client, installation: installation.to_owned(), held: BTreeMap::new() }
    }

    /// Claims a namespace, and keeps it claimed, within this tokio runtime. What is told is mapped by [`Claim::from`].
    pub fn hold(&mut self, namespace: &str) -> watch::Receiver<Leader> {
        if let Some(held) = self.held.get(namespace) {
            return held.state.clone();
        }
        let candidate = Candidate {
            term: TERM,
            period: PERIOD,
            ..Candidate::new(namespace, LEASE, &self.installation, &self.installation)
        };
        let (tell, state) = watch::channel(Leader::Nobody);
        let (release, released) = oneshot::channel();
        let client = self.client.clone();
        let task = tokio::spawn(async move {
            let ahead = watch::Sender::new(0);
            run(client, candidate, ahead.subscribe(), tell, async { released.await.is_ok() }).await;
        });
        self.held.insert(namespace.to_owned(), Held { state: state.clone(), release: Some(release), task });
        state
    }

    /// Whose a namespace is, as far as is known now.
    pub fn claim(&self, namespace: &str) -> Claim {
        self.held.get(namespace).map_or(Claim::Unknown, |held| Claim::from(&*held.state.borrow()))
    }

    /// A namespace is served no longer: gives its claim up.
    pub fn release(&mut self, namespace: &str) {
        if let Some(mut held) = self.held.remove(namespace) {
            // If its task has ended there is nothing to give up.
            held.release.take().map(|release| release.send(()));
        }
    }
}
