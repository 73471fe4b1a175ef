//! One watcher: from its events to facts, with what is gone while nobody looked.

use super::{Event, Fact, Key};
use crate::metrics::Measures;
use futures::{Stream, StreamExt};
use kube::api::Api;
use kube::core::{ApiResource, DynamicResourceScope, NamespaceResourceScope};
use kube::runtime::watcher::{self, Config};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a watcher rests after an error, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A part of the scope: a namespace, or all of them.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) client: Client,
    pub(super) part: Option<String>,
    pub(super) tell: mpsc::Sender<Event>,
    pub(super) measures: Measures,
}

impl Part {
    pub(super) fn dynamic<K>(&self, resource: &ApiResource) -> Api<K>
    where
        K: Resource<Scope = DynamicResourceScope, DynamicType = ApiResource>,
    {
        match &self.part {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    pub(super) fn typed<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType: Default>,
    {
        match &self.part {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Follows one kind until nobody listens any longer. `fact` says what an object is to us, if anything.
    pub(super) fn follow<K>(
        self,
        kind: &'static str,
        api: Api<K>,
        config: Config,
        fact: impl Fn(K) -> Option<(Key, Fact)> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        self.run(kind, watcher::watcher(api, config), fact)
    }

    async fn run<K: Resource>(
        self,
        kind: &'static str,
        stream: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send,
        fact: impl Fn(K) -> Option<(Key, Fact)> + Send,
    ) {
        let (mut seen, mut rest, mut synced) = (Seen::default(), REST.0, false);
        tokio::pin!(stream);
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    self.measures.api_error("watch");
                    tracing::warn!(kind, scope = self.part.as_deref().unwrap_or("all"), %error, "watch");
                    tokio::time::sleep(rest).await;
                    rest = (rest * 2).min(REST.1);
                    continue;
                }
            };
            rest = REST.0;
            let mut out = Vec::new();
            match event {
                watcher::Event::Init => {
                    if synced {
                        self.measures.watch_restarted(kind);
                    }
                    seen.begin();
                }
                watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                    let (namespace, version) = (object.namespace(), object.resource_version());
                    if let (Some(namespace), Some((key, fact))) = (namespace, fact(object))
                        && seen.put(&namespace, &key, version.unwrap_or_default())
                    {
                        out.push(Event::Put { namespace, key, fact });
                    }
                }
                watcher::Event::Delete(object) => {
                    if let (Some(namespace), Some((key, _))) = (object.namespace(), fact(object)) {
                        seen.gone(&namespace, &key);
                        out.push(Event::Gone { namespace, key });
                    }
                }
                watcher::Event::InitDone => {
                    out.extend(seen.end().into_iter().map(|(namespace, key)| Event::Gone { namespace, key }));
                    if !std::mem::replace(&mut synced, true) {
                        out.push(Event::Synced(self.part.clone()));
                    }
                }
            }
            for event in out {
                if self.tell.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What a watcher has told of: names and resource versions.
#[derive(Debug, Default)]
struct Seen {
    objects: BTreeMap<(String, Key), Entry>,
    round: u64,
}

#[derive(Debug)]
struct Entry {
    version: String,
    round: u64,
}

impl Seen {
    /// A list begins.
    fn begin(&mut self) {
        self.round += 1;
    }

    /// An object is there: true if that is news.
    fn put(&mut self, namespace: &str, key: &Key, version: String) -> bool {
        let entry = Entry { version, round: self.round };
        let version = entry.version.clone();
        let old = self.objects.insert((namespace.to_owned(), key.clone()), entry);
        old.is_none_or(|old| old.version != version)
    }

    fn gone(&mut self, namespace: &str, key: &Key) {
        self.objects.remove(&(namespace.to_owned(), key.clone()));
    }

    /// The list is complete: what was not in it is gone.
    fn end(&mut self) -> Vec<(String, Key)> {
        let gone: Vec<_> = self.objects.iter().filter(|(_, e)| e.round != self.round).map(|(k, _)| k.clone()).collect();
        gone.iter().for_each(|key| {
            self.objects.remove(key);
        });
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Kind, ResourceId};
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn object(name: &str, version: u32) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("tel".into()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn key(name: &str) -> Key {
        Key::Resource(ResourceId { kind: Kind::Dialplan, name: name.into() })
    }

    /// What is told of a stream of events, in short.
    async fn told(events: Vec<watcher::Event<ConfigMap>>) -> Vec<String> {
        let (tell, mut told) = mpsc::channel(64);
        let measures = Measures::new(&runtime::Metrics::new());
        // Never asked: the stream is given.
        let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let part = Part { client, part: Some("tel".into()), tell, measures };
        let fact = |o: ConfigMap| Some((key(&o.name_any()), Fact::Secret(o.resource_version().unwrap())));
        part.run("ConfigMap", stream::iter(events.into_iter().map(Ok)), fact).await;
        let mut out = Vec::new();
        while let Ok(event) = told.try_recv() {
            out.push(match event {
                Event::Put { key: Key::Resource(id), fact: Fact::Secret(version), .. } => {
                    format!("{}={version}", id.name)
                }
                Event::Gone { key: Key::Resource(id), .. } => format!("-{}", id.name),
                Event::Synced(part) => format!("synced {}", part.unwrap_or_default()),
                other => panic!("{other:?}"),
            });
        }
        out
    }

    #[tokio::test]
    async fn a_list_that_begins_anew_tells_only_what_changed_and_what_is_gone() {
        use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
        let events = vec![
            Init,
            InitApply(object("a", 1)),
            InitApply(object("b", 1)),
            InitApply(object("c", 1)),
            InitDone,
            Apply(object("a", 2)),
            Delete(object("b", 2)),
            Init,
            InitApply(object("a", 2)),
            InitApply(object("d", 4)),
            InitDone,
            Delete(object("d", 5)),
        ];
        assert_eq!(told(events).await, ["a=1", "b=1", "c=1", "synced tel", "a=2", "-b", "d=4", "-c", "-d"]);
    }
}
