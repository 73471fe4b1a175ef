//! What holds for a source of configuration: first the snapshot, then deltas; after a gap the snapshot again.

use contract::ProcessId;
use contract::config::{Delta, DeltaError, Snapshot, Version, entry_hash};
use runtime::source::{MemorySource, Subscription};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Entries = BTreeMap<String, Arc<u32>>;

/// A publisher's view: entries and the versions made of them.
struct Publisher {
    source: MemorySource<u32>,
    entries: Entries,
    version: Version,
}

impl Publisher {
    fn new() -> Self {
        Self { source: MemorySource::new(), entries: Entries::new(), version: Version::default() }
    }

    /// The delta to the state with this change.
    fn change(&mut self, put: &[(&str, u32)], delete: &[&str]) -> Delta<u32> {
        let put: Entries = put.iter().map(|(k, v)| ((*k).to_owned(), Arc::new(*v))).collect();
        self.entries.retain(|k, _| !delete.contains(&k.as_str()));
        self.entries.extend(put.clone());
        let hash = self.entries.iter().fold(0u64, |h, (k, e)| h.wrapping_add(entry_hash(k, e.as_ref())));
        let from = self.version;
        self.version = Version { epoch: from.epoch, n: from.n + 1, hash };
        Delta { from, to: self.version, put, delete: delete.iter().map(|k| (*k).to_owned()).collect() }
    }

    fn publish(&mut self, put: &[(&str, u32)], delete: &[&str]) {
        let delta = self.change(put, delete);
        self.source.publish(delta).unwrap();
    }

    fn whole(&self) -> Snapshot<u32> {
        Snapshot { version: self.version, entries: self.entries.clone() }
    }
}

async fn changed(subscription: &mut Subscription<u32>) {
    tokio::time::timeout(Duration::from_secs(5), subscription.changed()).await.expect("a change");
}

async fn quiet(subscription: &mut Subscription<u32>) -> bool {
    tokio::time::timeout(Duration::from_millis(20), subscription.changed()).await.is_err()
}

#[tokio::test]
async fn first_the_snapshot_then_each_delta() {
    let mut publisher = Publisher::new();
    publisher.publish(&[("a", 1), ("b", 2)], &[]);
    let mut subscription = publisher.source.subscribe(ProcessId(1));
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert!(quiet(&mut subscription).await);
    let before = subscription.snapshot();
    publisher.publish(&[("b", 3)], &["a"]);
    // Nothing changes under the reader's hands.
    assert_eq!(subscription.snapshot(), before);
    changed(&mut subscription).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(before.entries.len(), 2);
    publisher.publish(&[("c", 4)], &[]);
    changed(&mut subscription).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(subscription.resyncs(), 0);
}

#[tokio::test]
async fn a_gap_or_wrong_hash_is_refused_and_the_whole_sent_again_heals_it() {
    let mut publisher = Publisher::new();
    let mut subscription = publisher.source.subscribe(ProcessId(1));
    publisher.publish(&[("a", 1)], &[]);
    changed(&mut subscription).await;
    let good = subscription.snapshot();
    let _lost = publisher.change(&[("b", 2)], &[]);
    let after_gap = publisher.change(&[("c", 3)], &[]);
    assert_eq!(publisher.source.publish(after_gap), Err(DeltaError::Gap));
    let mut wrong = Delta { from: good.version, to: publisher.version, put: Entries::new(), delete: vec![] };
    wrong.to.hash ^= 1;
    assert_eq!(publisher.source.publish(wrong), Err(DeltaError::Hash));
    assert!(quiet(&mut subscription).await);
    assert_eq!(subscription.snapshot(), good);
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    changed(&mut subscription).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    publisher.publish(&[("d", 4)], &[]);
    changed(&mut subscription).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
}

#[tokio::test]
async fn a_slow_subscriber_is_sent_the_whole_and_then_goes_on_with_deltas() {
    let mut publisher = Publisher::new();
    let mut subscription = publisher.source.subscribe(ProcessId(1));
    for n in 0..1000 {
        publisher.publish(&[("a", n)], &[]);
    }
    changed(&mut subscription).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(subscription.resyncs(), 1);
    // Deltas that the whole already holds are passed over.
    assert!(quiet(&mut subscription).await);
    publisher.publish(&[("b", 1)], &[]);
    changed(&mut subscription).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(subscription.resyncs(), 1);
}

#[tokio::test]
async fn an_older_epoch_is_refused() {
    let mut publisher = Publisher::new();
    publisher.version.epoch = 3;
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    publisher.version = Version { epoch: 2, n: 900, hash: 0 };
    assert_eq!(publisher.source.publish_snapshot(publisher.whole()), Err(DeltaError::Gap));
    assert_eq!(publisher.source.snapshot().version.epoch, 3);
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
    assert_eq!(publisher.source.acks().borrow().get(&ProcessId(1)), Some(&version));
    two.ack(version);
    assert!(live(5000).await);
    // One that leaves is no longer waited for.
    let three = publisher.source.subscribe(ProcessId(3));
    assert!(!live(20).await);
    drop(three);
    assert!(live(5000).await);
}

#[tokio::test]
async fn without_its_source_a_subscription_goes_on_with_what_it_has() {
    let mut publisher = Publisher::new();
    publisher.publish(&[("a", 1)], &[]);
    let whole = publisher.whole();
    let mut subscription = publisher.source.subscribe(ProcessId(1));
    drop(publisher);
    assert!(quiet(&mut subscription).await);
    assert_eq!(*subscription.snapshot(), whole);
    let mut fixed = Subscription::fixed(whole.clone());
    assert!(quiet(&mut fixed).await);
    assert_eq!(*fixed.snapshot(), whole);
}
