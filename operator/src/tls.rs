//! The installation's authority, and what this process shows to those who follow it.
//!
//! The authority stands in a Secret of the operator's namespace, made by whoever comes first. Each process issues its own
//! serving certificate, for the Service's names and its own address (a standby sends to the leader by that), and keeps it
//! in memory. A new authority is trusted for [`NOTICE`] before anything is signed by it.

mod authorities;

use anyhow::{Context, bail};
use authorities::{Authorities, settle};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::{Client, Error};
use runtime::Clock;
use runtime::stream::tls::{Pair, Serving};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

pub use authorities::NOTICE;

/// The Secret's name.
pub const SECRET: &str = "kubepbx-operator-tls";

/// How often the Secret is looked at, and how soon after it could not be read or written.
const PERIOD: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(2);

/// A question to the API server that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What this process shows, and what those who follow it are to trust.
#[derive(Debug)]
pub struct Tls {
    secrets: Api<Secret>,
    names: Vec<String>,
    clock: Clock,
    authorities: Option<Authorities>,
    /// What is shown now, and the certificate of the authority that signed it.
    issued: Option<(Pair, String)>,
    serving: Option<Arc<Serving>>,
    trust: watch::Sender<String>,
}

impl Tls {
    /// Reads the authority of the installation, or makes it, and issues a certificate. Tries until that is done. `names` are
    /// the DNS names and addresses that this process is reached at.
    pub async fn start(client: Client, namespace: &str, names: Vec<String>) -> (Self, Arc<Serving>) {
        let mut this = Self {
            secrets: Api::namespaced(client, namespace),
            names,
            clock: Clock::new(),
            authorities: None,
            issued: None,
            serving: None,
            trust: watch::Sender::default(),
        };
        let serving = this.look_until_it_works().await;
        (this, serving)
    }

    /// The authorities to trust, as PEM: what ConfigMaps `kubepbx-ca` are to have as `ca.crt`, now and whenever it changes.
    pub fn trust(&self) -> watch::Receiver<String> {
        self.trust.subscribe()
    }

    /// Looks after both from then on: renews them, and takes in what another process wrote. Never returns; may be dropped at
    /// any time.
    pub async fn keep(mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.look_until_it_works().await;
        }
    }

    async fn look_until_it_works(&mut self) -> Arc<Serving> {
        loop {
            match self.look().await {
                Ok(serving) => return serving,
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the installation's authority"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn look(&mut self) -> anyhow::Result<Arc<Serving>> {
        let stored = patiently(self.secrets.get_opt(SECRET)).await.context("reading it")?;
        let now = self.clock.now().wall;
        let data = stored.as_ref().map(|secret| secret.data.clone().unwrap_or_default());
        let (authorities, is_new) = settle(data.as_ref(), self.authorities.as_ref(), now)?;
        if is_new {
            let secret = secret(stored, authorities.data());
            let params = PostParams::default();
            // Somebody who was faster has it: a conflict, and the next look finds theirs.
            if secret.metadata.resource_version.is_some() {
                patiently(self.secrets.replace(SECRET, &params, &secret)).await.context("writing it")?;
            } else {
                patiently(self.secrets.create(&params, &secret)).await.context("making it")?;
            }
            tracing::info!("a new authority of the installation, or one renewed");
        }
        let serving = self.show(&authorities, now)?;
        let trust = authorities.trust();
        self.trust.send_if_modified(|told| std::mem::replace(told, trust) != *told);
        self.authorities = Some(authorities);
        Ok(serving)
    }

    /// Issues what is shown, if there is need to.
    fn show(&mut self, authorities: &Authorities, now: Duration) -> anyhow::Result<Arc<Serving>> {
        let by = &authorities.signing().certificate;
        let is_good = |(pair, signer): &(Pair, String)| signer == by && !pair.renew_needed(now);
        if let Some(serving) = self.serving.as_ref().filter(|_| self.issued.as_ref().is_some_and(is_good)) {
            return Ok(serving.clone());
        }
        let pair = authorities.signing().issue(&self.names, now)?;
        let serving = match &self.serving {
            Some(serving) => {
                serving.replace(&pair)?;
                serving.clone()
            }
            None => Serving::new(&pair)?,
        };
        (self.issued, self.serving) = (Some((pair, by.clone())), Some(serving.clone()));
        Ok(serving)
    }
}

async fn patiently<T>(request: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => bail!("the API server does not answer"),
    }
}

fn secret(stored: Option<Secret>, data: BTreeMap<String, ByteString>) -> Secret {
    let mut secret = stored.unwrap_or_default();
    secret.metadata.name = Some(SECRET.to_owned());
    secret.metadata.managed_fields = None;
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert("app.kubernetes.io/name".into(), "kubepbx".into());
    labels.insert("app.kubernetes.io/managed-by".into(), "kubepbx-operator".into());
    secret.data = Some(data);
    secret
}
