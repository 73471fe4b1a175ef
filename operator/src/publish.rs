//! Publishing: what the compiler made of each namespace, in the sources that its processes follow.

use api::{Compiler, Delta};
use contract::Service;
use contract::config::{self, DeltaError, Version};
use runtime::source::{MemorySource, Sources};
use runtime::stream::registry::{Acks, Registry};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Sources that have the whole of what a compiler has.
pub fn sources(compiler: &Compiler) -> Sources {
    Sources {
        balancer: MemorySource::starting_at(compiler.balancer().clone()),
        registrar: MemorySource::starting_at(compiler.registrar().clone()),
        router: MemorySource::starting_at(compiler.router().clone()),
        media: MemorySource::starting_at(compiler.media().clone()),
        conference: MemorySource::starting_at(compiler.conference().clone()),
    }
}

/// Publishes what an [`Compiler::apply`] changed. A delta that does not follow on the last is made good by the whole
/// snapshot; the error is that of a compiler whose epoch is over.
pub fn follow_on(sources: &Sources, compiler: &Compiler, delta: &Delta) -> Result<(), DeltaError> {
    put(&sources.balancer, &delta.balancer, compiler.balancer())?;
    put(&sources.registrar, &delta.registrar, compiler.registrar())?;
    put(&sources.router, &delta.router, compiler.router())?;
    put(&sources.media, &delta.media, compiler.media())?;
    put(&sources.conference, &delta.conference, compiler.conference())
}

fn put<E: Serialize + Clone + Send + Sync + 'static>(
    source: &MemorySource<E>,
    delta: &Option<config::Delta<E>>,
    whole: &config::Snapshot<E>,
) -> Result<(), DeltaError> {
    match delta {
        Some(delta) => source.publish(delta.clone()).or_else(|_| source.publish_snapshot(whole.clone())),
        None => Ok(()),
    }
}

/// What the leader publishes, by namespace. Another leader's is another one.
#[derive(Debug)]
pub struct Publisher {
    registry: Registry,
    served: BTreeMap<String, (String, Sources)>,
}

impl Publisher {
    /// Publishes to this registry, which then serves nothing else.
    pub fn new(registry: Registry) -> Self {
        registry.clear();
        Self { registry, served: BTreeMap::new() }
    }

    /// Publishes what the compiler of a namespace made: a delta, or everything when the namespace or its PBX's name is new.
    pub fn publish(
        &mut self,
        namespace: &str,
        pbx: &str,
        compiler: &Compiler,
        delta: &Delta,
    ) -> Result<(), DeltaError> {
        if let Some((_, sources)) = self.served.get(namespace).filter(|(name, _)| name == pbx) {
            return follow_on(sources, compiler, delta);
        }
        let sources = sources(compiler);
        self.registry.serve(namespace, pbx, &sources);
        self.served.insert(namespace.to_owned(), (pbx.to_owned(), sources));
        Ok(())
    }

    /// A namespace has no PBX any longer: its processes go on with what they have.
    pub fn stop(&mut self, namespace: &str) {
        if self.served.remove(namespace).is_some() {
            self.registry.remove(namespace);
        }
    }

    /// What processes of a namespace have acknowledged; `None` while it is not published.
    pub fn acks(&self, namespace: &str) -> Option<watch::Receiver<Arc<Acks>>> {
        self.registry.acks(namespace)
    }

    /// What is published to a namespace now, by service; empty while nothing is.
    pub fn versions(&self, namespace: &str) -> BTreeMap<Service, Version> {
        let Some((_, sources)) = self.served.get(namespace) else { return BTreeMap::new() };
        [
            (Service::Balancer, sources.balancer.version()),
            (Service::Registrar, sources.registrar.version()),
            (Service::Router, sources.router.version()),
            (Service::Media, sources.media.version()),
            (Service::Conference, sources.conference.version()),
        ]
        .into()
    }

    /// Which pods of a namespace are to take nothing new; no others are.
    pub fn drain(&self, namespace: &str, pods: BTreeSet<String>) {
        self.registry.drain(namespace, pods);
    }

    /// A pod is gone, and with it what it had.
    pub fn forget(&self, namespace: &str, service: Service, pod: &str) {
        self.registry.forget(namespace, service, pod);
    }
}

impl Drop for Publisher {
    /// Whoever leads no longer publishes nothing.
    fn drop(&mut self) {
        self.registry.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Change, Held, Kind, PbxSpec, Resource, Spec};
    use contract::ProcessId;
    use runtime::Clock;

    fn pbx(name: &str, realm: &str) -> Change {
        let spec = PbxSpec { realm: realm.into(), ..PbxSpec::default() };
        let spec = Arc::new(Spec::Pbx(spec));
        Change::Put(Resource { name: name.into(), generation: 1, created: None, spec })
    }

    #[tokio::test]
    async fn deltas_follow_on_one_another_and_a_subscriber_sees_each() {
        let mut compiler = Compiler::new(3, Held::default());
        let registry = Registry::new(Clock::new());
        let mut publisher = Publisher::new(registry.clone());
        let first = compiler.apply([pbx("main", "one")]);
        publisher.publish("tel", "main", &compiler, &first).unwrap();
        let (_, sources) = publisher.served["tel"].clone();
        let mut subscription = sources.registrar.subscribe(ProcessId(1));
        assert_eq!(*subscription.snapshot(), *compiler.registrar());
        let second = compiler.apply([pbx("main", "two")]);
        publisher.publish("tel", "main", &compiler, &second).unwrap();
        subscription.changed().await;
        assert_eq!((subscription.snapshot().version, subscription.resyncs()), (compiler.registrar().version, 0));
        // One that was missed is made good by the whole.
        let _missed = compiler.apply([pbx("main", "three")]);
        let third = compiler.apply([pbx("main", "four")]);
        publisher.publish("tel", "main", &compiler, &third).unwrap();
        subscription.changed().await;
        assert_eq!(*subscription.snapshot(), *compiler.registrar());
        // A compiler of an epoch before is not heard.
        let mut old = Compiler::new(2, Held::default());
        let delta = old.apply([pbx("main", "old")]);
        assert_eq!(publisher.publish("tel", "main", &old, &delta), Err(DeltaError::Gap));
        assert_eq!(publisher.versions("tel")[&Service::Registrar], compiler.registrar().version);
        assert!(publisher.versions("other").is_empty());
        assert!(publisher.acks("tel").is_some() && publisher.acks("other").is_none());
        publisher.stop("tel");
        assert!(registry.acks("tel").is_none());
    }

    #[test]
    fn another_pbx_in_a_namespace_is_served_anew_and_nothing_outlives_the_publisher() {
        let mut compiler = Compiler::new(1, Held::default());
        let registry = Registry::new(Clock::new());
        let mut publisher = Publisher::new(registry.clone());
        let delta = compiler.apply([pbx("main", "one")]);
        publisher.publish("tel", "main", &compiler, &delta).unwrap();
        let delta = compiler
            .apply([Change::Delete(api::ResourceId { kind: Kind::Pbx, name: "main".into() }), pbx("other", "one")]);
        publisher.publish("tel", "other", &compiler, &delta).unwrap();
        let (name, sources) = &publisher.served["tel"];
        assert_eq!((name.as_str(), sources.router.version()), ("other", compiler.router().version));
        drop(publisher);
        assert!(registry.acks("tel").is_none());
    }
}
