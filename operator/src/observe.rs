//! What the store says: who is registered, what relays carry, and where metrics of processes are collected.
//!
//! A hint of the store says that something may have changed; what is there is then read. Everything is read at the start,
//! whenever hints were missed, and once in a while.

use crate::apply::text;
use crate::cpu::Used;
use crate::figures::Figures;
use api::Kind;
use api::conditions::rfc3339;
use contract::Service;
use contract::location::{Aor, StoreError};
use contract::peers::Peer;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use runtime::Clock;
use runtime::store::redis::RedisStore;
use runtime::store::{AorHint, Store};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often everything is read though no hint was missed.
const ROUND: Duration = Duration::from_secs(60);

/// How often peers' records are read.
const LOOK: Duration = Duration::from_secs(2);

/// How long a store that does not answer rests.
const REST: Duration = Duration::from_secs(5);

/// What is registered under an address of record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registration {
    /// Contacts that have not expired.
    pub contacts: u32,
    /// When the oldest of them was first registered, in seconds since the UNIX epoch.
    pub since: Option<u64>,
}

impl Registration {
    fn of(aor: &Aor, now: u64) -> Self {
        let live = || aor.bindings.iter().filter(|binding| binding.is_live(now));
        let contacts = u32::try_from(live().count()).unwrap_or(u32::MAX);
        Self { contacts, since: live().map(|binding| binding.since).min() }
    }

    /// As the status of an endpoint has it.
    pub fn status(&self) -> Observed {
        Observed::Endpoint(Registered {
            registered: Some(self.contacts > 0),
            contacts: Some(self.contacts),
            registered_since: self.since.map(|since| rfc3339(Duration::from_secs(since))),
        })
    }
}

/// What a status says was observed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Observed {
    /// Nothing yet; of some kinds nothing ever is.
    #[default]
    Nothing,
    /// Of an endpoint.
    Endpoint(Registered),
    /// Of a Pbx.
    Pbx(Box<Figures>),
}

impl Observed {
    /// What the status of a resource of this kind says. One that somebody has spoilt says nothing: it is written anew.
    pub fn read(kind: Kind, status: Value) -> Self {
        match kind {
            Kind::PbxEndpoint => read(status).map_or(Self::Nothing, Self::Endpoint),
            Kind::Pbx => read(status).map_or(Self::Nothing, |figures| Self::Pbx(Box::new(figures))),
            Kind::Dialplan | Kind::Dispatcher => Self::Nothing,
        }
    }
}

fn read<T: DeserializeOwned + Default + PartialEq>(status: Value) -> Option<T> {
    serde_json::from_value(status).ok().filter(|read| *read != T::default())
}

/// Who is registered, as the status of an endpoint has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// Whether anything is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<bool>,
    /// How many contacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<u32>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_since: Option<String>,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Everything there is; what is not in it is not registered.
    All(BTreeMap<String, Registration>),
    /// One address of record.
    One(String, Registration),
    /// The sessions that each relay's pod has.
    Relays(BTreeMap<String, u64>),
    /// Where the metrics of each pod's process are collected.
    Metrics(BTreeMap<String, SocketAddr>),
    /// The CPU that relays use.
    Cpu(Used),
}

/// The store whose URL stands under a key of a Secret; none if that cannot be read or is no URL.
pub async fn open(client: &Client, namespace: &str, secret: &str, key: &str) -> Option<Arc<dyn Store>> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let data = loop {
        match secrets.get_opt(secret).await {
            Ok(found) => break found?.data?,
            Err(error) => tracing::warn!(namespace, secret, error = text(&error), "the store's Secret cannot be read"),
        }
        tokio::time::sleep(REST).await;
    };
    let url = std::str::from_utf8(&data.get(key)?.0).ok()?.trim();
    // Services name what is theirs by the namespace.
    match RedisStore::new(url, namespace) {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            tracing::warn!(namespace, secret, %error, "the store cannot be used");
            None
        }
    }
}

/// Follows a store until it is dropped. `tell` takes what was read; false: nobody listens any longer.
pub async fn follow(store: Arc<dyn Store>, clock: Clock, tell: impl Fn(News) -> BoxFuture<'static, bool>) {
    let mut hints = store.hints();
    loop {
        let mut failed = None;
        match store.aors().await {
            Ok(aors) => {
                let now = clock.now().wall.as_secs();
                let all = aors.iter().map(|(name, aor)| (name.clone(), Registration::of(aor, now))).collect();
                if !tell(News::All(all)).await {
                    return;
                }
            }
            Err(error) => failed = Some(error),
        }
        let round = tokio::time::sleep(ROUND);
        tokio::pin!(round);
        while failed.is_none() {
            let hint = tokio::select! {
                hint = hints.recv() => hint,
                () = &mut round => break,
            };
            match hint {
                Ok(AorHint::Changed { aor, .. }) => match store.load(&aor).await {
                    Ok(found) => {
                        let news = News::One(aor, Registration::of(&found, clock.now().wall.as_secs()));
                        if !tell(news).await {
                            return;
                        }
                    }
                    Err(error) => failed = Some(error),
                },
                Ok(AorHint::Missed) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
        if let Some(StoreError::Unavailable(why)) = failed {
            tracing::warn!(why, "the store does not say who is registered");
            tokio::time::sleep(REST).await;
        }
    }
}

/// Tells whenever relays carry another number of sessions and whenever metrics are collected elsewhere, until it is dropped.
/// What a store that does not answer said last goes on holding.
pub async fn peers(store: Arc<dyn Store>, tell: impl Fn(News) -> BoxFuture<'static, bool>) {
    let mut told = [None, None];
    loop {
        if let Ok(peers) = store.peers().await {
            let peers: Vec<Peer> = peers.into_iter().filter(|peer| !peer.pod.is_empty()).collect();
            let relays = peers.iter().filter(|peer| peer.service == Service::Media);
            let sessions = News::Relays(relays.map(|peer| (peer.pod.clone(), peer.load)).collect());
            let metrics = peers.iter().filter_map(|peer| Some((peer.pod.clone(), peer.metrics?)));
            for (told, news) in told.iter_mut().zip([sessions, News::Metrics(metrics.collect())]) {
                if told.as_ref() != Some(&news) {
                    *told = Some(news.clone());
                    if !tell(news).await {
                        return;
                    }
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::location::Binding;
    use futures::FutureExt;
    use runtime::store::memory::MemoryStore;
    use serde_json::json;
    use tokio::sync::mpsc;

    fn binding(contact: &str, since: u64, expires: u64) -> Binding {
        let text = json!({"contact": contact, "call_id": "c", "cseq": 1, "expires_at": expires, "since": since});
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn what_is_there_is_told_and_then_each_change() {
        let clock = Clock::new();
        let now = clock.now().wall.as_secs();
        let store = Arc::new(MemoryStore::new());
        let two = vec![binding("sip:a", 200, now + 60), binding("sip:b", 100, now + 60), binding("sip:c", 1, now - 1)];
        store.swap("8005", 0, two, now).await.unwrap();
        let (tell, mut told) = mpsc::channel(8);
        let tell = move |news| {
            let tell = tell.clone();
            async move { tell.send(news).await.is_ok() }.boxed()
        };
        let following = tokio::spawn(follow(store.clone(), clock, tell));
        let first = told.recv().await.unwrap();
        assert_eq!(first, News::All([("8005".to_owned(), Registration { contacts: 2, since: Some(100) })].into()));
        store.swap("8006", 0, vec![binding("sip:d", 300, now + 60)], now).await.unwrap();
        let next = told.recv().await.unwrap();
        assert_eq!(next, News::One("8006".into(), Registration { contacts: 1, since: Some(300) }));
        let revision = store.load("8005").await.unwrap().revision;
        store.swap("8005", revision, Vec::new(), now).await.unwrap();
        assert_eq!(told.recv().await.unwrap(), News::One("8005".into(), Registration::default()));
        following.abort();
    }

    #[tokio::test]
    async fn what_peers_say_is_told_when_it_changes() {
        let store = Arc::new(MemoryStore::new());
        let at = |port| SocketAddr::from(([192, 0, 2, 7], port));
        let peer = |service, process, pod: &str, load| Peer {
            pod: pod.into(),
            load,
            metrics: (process == 1).then(|| at(40_123)),
            ..Peer::new(service, contract::ProcessId(process))
        };
        store.announce(&peer(Service::Media, 1, "media-a", 7), 60_000).await.unwrap();
        store.announce(&peer(Service::Router, 2, "router-a", 9), 60_000).await.unwrap();
        let (tell, mut told) = mpsc::channel(8);
        let tell = move |news| {
            let tell = tell.clone();
            async move { tell.send(news).await.is_ok() }.boxed()
        };
        let looking = tokio::spawn(peers(store.clone(), tell));
        assert_eq!(told.recv().await.unwrap(), News::Relays([("media-a".to_owned(), 7)].into()));
        assert_eq!(told.recv().await.unwrap(), News::Metrics([("media-a".to_owned(), at(40_123))].into()));
        store.announce(&peer(Service::Media, 1, "media-a", 8), 60_000).await.unwrap();
        assert_eq!(told.recv().await.unwrap(), News::Relays([("media-a".to_owned(), 8)].into()));
        let again = Peer { metrics: Some(at(40_124)), ..peer(Service::Router, 2, "router-a", 9) };
        store.announce(&again, 60_000).await.unwrap();
        let both = [("media-a".to_owned(), at(40_123)), ("router-a".to_owned(), at(40_124))];
        assert_eq!(told.recv().await.unwrap(), News::Metrics(both.into()));
        looking.abort();
    }

    #[test]
    fn a_status_says_since_when_only_while_something_is_registered() {
        let status = |registration: Registration| serde_json::to_value(registration.status()).unwrap();
        assert_eq!(
            status(Registration { contacts: 2, since: Some(0) }),
            json!({"registered": true, "contacts": 2, "registeredSince": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(status(Registration::default()), json!({"registered": false, "contacts": 0}));
    }
}
