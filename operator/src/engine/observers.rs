//! Who reads, for each namespace, what is in none of the API's objects: its store, and the CPU of its relays.

use crate::cpu;
use crate::observe::{self, News};
use api::SecretRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use runtime::Clock;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A store: where its URL stands, and the resource version of that.
pub(super) type StoreAt = (SecretRef, String);

/// What reads; dropping it ends that.
pub(super) struct Observers {
    client: Client,
    clock: Clock,
    news: mpsc::Sender<(String, News)>,
    stores: BTreeMap<String, (StoreAt, JoinSet<()>)>,
    /// By the namespace: the Pbx.
    meters: BTreeMap<String, (String, JoinSet<()>)>,
}

impl Observers {
    /// Reads nothing yet.
    pub(super) fn new(client: Client, clock: Clock, news: mpsc::Sender<(String, News)>) -> Self {
        Self { client, clock, news, stores: BTreeMap::new(), meters: BTreeMap::new() }
    }

    /// Nothing of a namespace is read any longer.
    pub(super) fn remove(&mut self, namespace: &str) {
        self.stores.remove(namespace);
        self.meters.remove(namespace);
    }

    /// This store of a namespace is to be read, and no other.
    pub(super) fn store(&mut self, namespace: &str, store: Option<StoreAt>) {
        let (client, clock, tell) = (self.client.clone(), self.clock, self.tell(namespace));
        keep(&mut self.stores, namespace, store, |namespace, (at, _)| async move {
            let Some(store) = observe::open(&client, &namespace, &at.name, &at.key).await else { return };
            tokio::join!(observe::follow(store.clone(), clock, tell.clone()), observe::peers(store, tell));
        });
    }

    /// The CPU of the relays of this Pbx is to be read, and of no other.
    pub(super) fn cpu(&mut self, namespace: &str, pbx: Option<String>) {
        let (client, tell) = (self.client.clone(), self.tell(namespace));
        keep(&mut self.meters, namespace, pbx, |namespace, pbx| cpu::follow(client, namespace, pbx, tell));
    }

    fn tell(&self, namespace: &str) -> impl Fn(News) -> BoxFuture<'static, bool> + Clone + Send + Sync + 'static {
        let (news, namespace) = (self.news.clone(), namespace.to_owned());
        move |told| {
            let (news, namespace) = (news.clone(), namespace.clone());
            async move { news.send((namespace, told)).await.is_ok() }.boxed()
        }
    }
}

/// Has what is wanted of a namespace read by a task of its own, unless it is.
fn keep<W, F>(
    tasks: &mut BTreeMap<String, (W, JoinSet<()>)>,
    namespace: &str,
    wanted: Option<W>,
    read: impl FnOnce(String, W) -> F,
) where
    W: Clone + PartialEq,
    F: Future<Output = ()> + Send + 'static,
{
    let Some(wanted) = wanted else {
        tasks.remove(namespace);
        return;
    };
    if tasks.get(namespace).is_some_and(|(now, _)| *now == wanted) {
        return;
    }
    let mut task = JoinSet::new();
    task.spawn(read(namespace.to_owned(), wanted.clone()));
    tasks.insert(namespace.to_owned(), (wanted, task));
}
