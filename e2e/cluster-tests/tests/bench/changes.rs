//! Applying many objects at once, and watching what becomes of single ones.

use anyhow::{Context, Result};
use cluster_tests::{Object, Space};
use futures::StreamExt;
use kube::api::{Api, DynamicObject, WatchEvent, WatchParams};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Requests at once.
const AT_ONCE: usize = 16;

/// Applies objects, server-side, many at a time.
pub(super) fn apply_all(space: &Space, objects: Vec<Value>) -> Result<()> {
    let queue = Arc::new(Mutex::new(VecDeque::from(objects)));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let queue = Arc::clone(&queue);
                scope.spawn(move || -> Result<()> {
                    loop {
                        let next = queue.lock().expect("no worker panics").pop_front();
                        let Some(object) = next else { return Ok(()) };
                        space.apply_object(&object)?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })
}

/// An object as it was seen, and when.
type Seen = (Instant, Object);

/// A watch of all endpoints of a namespace.
pub(super) struct Watcher(Receiver<Seen>);

impl Watcher {
    /// Begins it; it has begun when this returns.
    pub(super) fn begin(space: &Space) -> Result<Self> {
        let api: Api<DynamicObject> = Api::namespaced_with(
            space.cluster.client.clone(),
            &space.namespace,
            &cluster_tests::objects::resource("PbxEndpoint"),
        );
        let list = {
            let api = api.clone();
            space.cluster.run(async move { Ok(api.list(&Default::default()).await?) })?
        };
        let (version, (send, receive)) = (list.metadata.resource_version.context("a version")?, channel());
        space.cluster.follow(async move {
            let mut version = version;
            loop {
                let Ok(stream) = api.watch(&WatchParams::default(), &version).await else { return };
                let mut stream = Box::pin(stream);
                while let Some(Ok(event)) = stream.next().await {
                    let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { continue };
                    version = object.metadata.resource_version.clone().unwrap_or(version);
                    let Ok(json) = serde_json::to_value(object) else { continue };
                    if send.send((Instant::now(), Object(json))).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self(receive))
    }

    /// When this generation of an object was first seen, and when it was first seen to be live.
    pub(super) fn wait(&self, name: &str, generation: i64, limit: Duration) -> Result<(Instant, Instant)> {
        let end = Instant::now() + limit;
        let mut first = None;
        loop {
            let (at, object) = self
                .0
                .recv_timeout(end.saturating_duration_since(Instant::now()))
                .with_context(|| format!("{name} of generation {generation} is not seen to be live"))?;
            if object.name() != name || object.0["metadata"]["generation"] != generation {
                continue;
            }
            let first = *first.get_or_insert(at);
            if object.is("Programmed", "True") {
                return Ok((first, at));
            }
        }
    }
}
