//! What holds for a source of configuration, whether it feeds services of one process or is followed over a real stream:
//! first the snapshot, then deltas; after a gap the snapshot again; what is acknowledged comes back.

use super::site::{Number, Publisher, Site, soon};
use contract::ProcessId;
use contract::config::{DeltaError, Version};
use runtime::Metrics;
use runtime::source::Subscription;
use std::collections::BTreeMap;
use std::time::Duration;

/// How a subscription reaches its publisher.
enum Way {
    Memory(Publisher),
    Stream(Publisher, Box<Site>),
}

impl Way {
    fn publisher(&mut self) -> &mut Publisher {
        match self {
            Way::Memory(publisher) | Way::Stream(publisher, _) => publisher,
        }
    }

    /// A subscription of this process that has what was published.
    async fn subscribe(&mut self, process: u64) -> Subscription<Number> {
        let mut subscription = match self {
            Way::Memory(publisher) => publisher.source.subscribe(ProcessId(process)),
            Way::Stream(_, site) => site.follow(process, &Metrics::new()),
        };
        if self.publisher().version != Version::default() {
            until(&mut subscription, self.publisher().version).await;
        }
        subscription
    }

    /// Returns once the publisher knows that this is the version that a process has in use, or that it is gone.
    async fn acked(&self, process: u64, version: Option<Version>) {
        match self {
            Way::Memory(publisher) => {
                let mut acks = publisher.source.acks();
                let seen = |acks: &std::sync::Arc<runtime::source::Acks>| {
                    acks.get(&ProcessId(process)).map(|told| told.version) == version
                };
                soon(acks.wait_for(seen)).await.unwrap();
            }
            Way::Stream(_, site) => {
                let connected = |f: Option<&runtime::stream::registry::Follower>| {
                    f.filter(|f| f.connected).map(|f| f.version) == version
                };
                site.known(process, connected).await;
            }
        }
    }
}

/// Each of these runs over memory and over a stream.
macro_rules! suite {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::Way::Memory(super::Publisher::new())).await })*
        }
        mod stream {
            $(#[tokio::test] async fn $name() {
                let publisher = super::Publisher::new();
                let site = super::Site::new(&publisher.source).await;
                super::$name(super::Way::Stream(publisher, Box::new(site))).await
            })*
        }
    };
}

suite! {
    first_the_snapshot_then_each_delta
    a_gap_or_wrong_hash_is_refused_and_the_whole_sent_again_heals_it
    a_slow_subscriber_comes_to_the_last_version_and_goes_on_with_deltas
    an_older_epoch_is_refused_and_a_later_one_is_followed
    what_is_acknowledged_comes_back_until_the_subscriber_leaves
    without_its_source_a_subscription_goes_on_with_what_it_has
}

/// Reads on until this version is there.
async fn until(subscription: &mut Subscription<Number>, version: Version) {
    soon(async {
        while subscription.snapshot().version != version {
            subscription.changed().await;
        }
    })
    .await;
}

async fn quiet(subscription: &mut Subscription<Number>) -> bool {
    tokio::time::timeout(Duration::from_millis(20), subscription.changed()).await.is_err()
}

async fn first_the_snapshot_then_each_delta(mut way: Way) {
    way.publisher().publish(&[("a", 1), ("b", 2)], &[]);
    let mut subscription = way.subscribe(1).await;
    let publisher = way.publisher();
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert!(quiet(&mut subscription).await);
    let before = subscription.snapshot();
    publisher.publish(&[("b", 3)], &["a"]);
    // Nothing changes under the reader's hands.
    assert_eq!(subscription.snapshot(), before);
    soon(subscription.changed()).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(before.entries.len(), 2);
    publisher.publish(&[("c", 4)], &[]);
    soon(subscription.changed()).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(subscription.resyncs(), 0);
}

async fn a_gap_or_wrong_hash_is_refused_and_the_whole_sent_again_heals_it(mut way: Way) {
    way.publisher().publish(&[("a", 1)], &[]);
    let mut subscription = way.subscribe(1).await;
    let publisher = way.publisher();
    let good = subscription.snapshot();
    let _lost = publisher.change(&[("b", 2)], &[]);
    let after_gap = publisher.change(&[("c", 3)], &[]);
    assert_eq!(publisher.source.publish(after_gap.clone()), Err(DeltaError::Gap));
    let mut wrong = after_gap;
    (wrong.from, wrong.to.hash, wrong.put) = (good.version, wrong.to.hash ^ 1, BTreeMap::new());
    assert_eq!(publisher.source.publish(wrong), Err(DeltaError::Hash));
    assert!(quiet(&mut subscription).await);
    assert_eq!(subscription.snapshot(), good);
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    soon(subscription.changed()).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    publisher.publish(&[("d", 4)], &[]);
    soon(subscription.changed()).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
}

async fn a_slow_subscriber_comes_to_the_last_version_and_goes_on_with_deltas(mut way: Way) {
    let mut subscription = way.subscribe(1).await;
    let publisher = way.publisher();
    for n in 0..1000 {
        publisher.publish(&[("a", n)], &[]);
    }
    until(&mut subscription, publisher.version).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    let resyncs = subscription.resyncs();
    // Deltas that the whole already holds are passed over.
    assert!(quiet(&mut subscription).await);
    publisher.publish(&[("b", 1)], &[]);
    soon(subscription.changed()).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(subscription.resyncs(), resyncs);
}

async fn an_older_epoch_is_refused_and_a_later_one_is_followed(mut way: Way) {
    way.publisher().version.epoch = 3;
    let publisher = way.publisher();
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    let mut subscription = way.subscribe(1).await;
    let publisher = way.publisher();
    let mut old = publisher.whole();
    old.version = Version { epoch: 2, n: 900, hash: 0 };
    assert_eq!(publisher.source.publish_snapshot(old), Err(DeltaError::Gap));
    assert_eq!(publisher.source.version().epoch, 3);
    publisher.version.epoch = 4;
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    publisher.publish(&[("a", 1)], &[]);
    until(&mut subscription, publisher.version).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
}

async fn what_is_acknowledged_comes_back_until_the_subscriber_leaves(mut way: Way) {
    way.publisher().publish(&[("a", 1)], &[]);
    let version = way.publisher().version;
    let (one, two) = (way.subscribe(1).await, way.subscribe(2).await);
    way.acked(1, Some(Version::default())).await;
    one.ack(version);
    way.acked(1, Some(version)).await;
    way.acked(2, Some(Version::default())).await;
    two.ack(version);
    way.acked(2, Some(version)).await;
    drop(one);
    way.acked(1, None).await;
    way.acked(2, Some(version)).await;
}

async fn without_its_source_a_subscription_goes_on_with_what_it_has(mut way: Way) {
    way.publisher().publish(&[("a", 1)], &[]);
    let whole = way.publisher().whole();
    let mut subscription = way.subscribe(1).await;
    drop(way);
    assert!(quiet(&mut subscription).await);
    assert_eq!(*subscription.snapshot(), whole);
    let mut fixed = Subscription::fixed(whole.clone());
    assert!(quiet(&mut fixed).await);
    assert_eq!(*fixed.snapshot(), whole);
}

#[tokio::test]
async fn live_means_that_every_subscriber_has_acknowledged() {
    let mut publisher = Publisher::new();
    let one = publisher.source.subscribe(ProcessId(1));
    let two = publisher.source.subscribe(ProcessId(2));
    publisher.publish(&[("a", 1)], &[]);
    let version = publisher.version;
    let live =
        async |limit| tokio::time::timeout(Duration::from_millis(limit), publisher.source.live(version)).await.is_ok();
    one.ack(version);
    assert!(!live(20).await);
    two.ack(version);
    assert!(live(5000).await);
    // One that leaves is no longer waited for.
    let three = publisher.source.subscribe(ProcessId(3));
    assert!(!live(20).await);
    drop(three);
    assert!(live(5000).await);
}

#[tokio::test]
async fn in_one_process_a_slow_subscriber_is_sent_the_whole_once() {
    let mut publisher = Publisher::new();
    let mut subscription = publisher.source.subscribe(ProcessId(1));
    for n in 0..1000 {
        publisher.publish(&[("a", n)], &[]);
    }
    soon(subscription.changed()).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(subscription.resyncs(), 1);
}
