//! The stream over loopback TLS: what it costs, what it survives, and what it never does.

use super::site::{Number, Publisher, Site, Wire, eventually, metric, soon};
use contract::ProcessId;
use contract::config::{
    Auth, Delta, EndpointEntry, Entry, Ha1, IdentifyBy, RouterEntry, Snapshot, Version, entry_hash,
};
use contract::process::Service;
use runtime::Metrics;
use runtime::source::{MemorySource, Subscription};
use runtime::stream::server::Leader;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads on until this version is there.
async fn until<E: Entry>(subscription: &mut Subscription<E>, version: Version) {
    soon(async {
        while subscription.snapshot().version != version {
            subscription.changed().await;
        }
    })
    .await;
}

fn snapshots(metrics: &Metrics) -> u64 {
    metric(metrics, "kubepbx_configuration_snapshots_total")
}

fn losses(metrics: &Metrics) -> u64 {
    metric(metrics, "kubepbx_configuration_losses_total")
}

#[tokio::test]
async fn what_was_missed_is_sent_as_deltas_and_the_same_entries_under_another_epoch_as_a_name() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let mut subscription = site.follow(1, &metrics);
    until(&mut subscription, publisher.version).await;
    // A leader that no longer leads ends its streams and serves nothing.
    site.leader.send_replace(Leader::Nobody);
    site.known(1, |f| f.is_some_and(|f| !f.connected)).await;
    publisher.publish(&[("b", 2)], &[]);
    publisher.publish(&[("c", 3)], &["a"]);
    let lost = losses(&metrics);
    eventually(|| losses(&metrics) > lost).await;
    assert_eq!(subscription.snapshot().version.n, 1);
    site.leader.send_replace(Leader::Here { epoch: 1 });
    until(&mut subscription, publisher.version).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!(snapshots(&metrics), 1);

    let mut next = publisher.next_epoch();
    site.registry.serve_one("tel", "pbx", &next.source);
    until(&mut subscription, next.version).await;
    assert_eq!(*subscription.snapshot(), next.whole());
    next.publish(&[("d", 4)], &[]);
    until(&mut subscription, next.version).await;
    assert_eq!(*subscription.snapshot(), next.whole());
    assert_eq!((snapshots(&metrics), subscription.resyncs()), (1, 0));
}

#[tokio::test]
async fn an_epoch_that_is_over_is_not_listened_to_and_whoever_leads_learns_of_the_later_one() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.version.epoch = 7;
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let mut subscription = site.follow(1, &metrics);
    until(&mut subscription, publisher.version).await;
    let mut old = Publisher::new();
    old.version.epoch = 5;
    old.source.publish_snapshot(old.whole()).unwrap();
    old.publish(&[("b", 2)], &[]);
    let mut ahead = site.registry.ahead();
    site.registry.serve_one("tel", "pbx", &old.source);
    soon(ahead.wait_for(|epoch| *epoch == 7)).await.unwrap();
    let lost = losses(&metrics);
    eventually(|| losses(&metrics) > lost + 2).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    // It raises its own, and is heard.
    old.version.epoch = 8;
    old.source.publish_snapshot(old.whole()).unwrap();
    until(&mut subscription, old.version).await;
    assert_eq!(*subscription.snapshot(), old.whole());
}

#[tokio::test]
async fn a_standby_sends_to_the_leader_and_takes_over_from_it() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.publish(&[("a", 1)], &[]);
    let mut leader = Site::new(&publisher.source).await;
    let mut next = publisher.next_epoch();
    let standby = Site::beside(&leader, &next.source).await;
    standby.leader.send_replace(Leader::There(format!("https://{}", leader.address)));
    let mut subscription = standby.follow(1, &metrics);
    until(&mut subscription, publisher.version).await;
    subscription.ack(publisher.version);
    leader.known(1, |f| f.is_some_and(|f| f.version == publisher.version)).await;
    leader.stop().await;
    next.publish(&[("b", 2)], &[]);
    standby.leader.send_replace(Leader::Here { epoch: 1 });
    until(&mut subscription, next.version).await;
    // What it had in use is told to the new leader too, until it has the new.
    standby.known(1, |f| f.is_some_and(|f| f.connected && f.version == publisher.version)).await;
    subscription.ack(next.version);
    standby.known(1, |f| f.is_some_and(|f| f.version == next.version)).await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_comes_is_given_up() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.publish(&[("a", 1)], &[]);
    let site = Site::new(&publisher.source).await;
    let wire = Wire::to(site.address).await;
    let mut subscription = site.follow_at::<Number>(wire.address, 1, &metrics);
    until(&mut subscription, publisher.version).await;
    wire.hold();
    publisher.publish(&[("b", 2)], &[]);
    until(&mut subscription, publisher.version).await;
    assert_eq!((wire.made(), snapshots(&metrics)), (2, 1));
}

#[tokio::test]
async fn a_reader_that_lags_is_sent_the_whole_again() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    let keys: Vec<String> = (0..5000).map(|n| format!("Dialplan/{n:0>40}")).collect();
    let all = |value: u32| keys.iter().map(|k| (k.as_str(), value)).collect::<Vec<_>>();
    publisher.publish(&all(0), &[]);
    let site = Site::patient(&publisher.source).await;
    let wire = Wire::to(site.address).await;
    let mut subscription = site.follow_at::<Number>(wire.address, 1, &metrics);
    until(&mut subscription, publisher.version).await;
    let before = wire.bytes();
    wire.hold();
    // 120 MB: more than the kernel keeps on the way.
    for n in 1..=400 {
        publisher.publish(&all(n), &[]);
        tokio::task::yield_now().await;
    }
    wire.release();
    until(&mut subscription, publisher.version).await;
    assert_eq!(*subscription.snapshot(), publisher.whole());
    assert_eq!((wire.made(), snapshots(&metrics)), (1, 2));
    assert!(wire.bytes() - before < 60_000_000, "{}", wire.bytes() - before);
    publisher.publish(&[("Dialplan/x", 1)], &[]);
    until(&mut subscription, publisher.version).await;
    assert_eq!(snapshots(&metrics), 2);
}

fn endpoint(n: u32, context: &str) -> (String, Arc<RouterEntry>) {
    let name = format!("8{n:05}");
    let ha1 = Ha1 { md5: format!("{n:032x}"), sha256: format!("{n:064x}") };
    let entry = RouterEntry::Endpoint(EndpointEntry {
        name: name.clone(),
        context: context.into(),
        auth: Some(Auth { username: name.clone(), ha1 }),
        codecs: vec!["ulaw".into(), "alaw".into(), "g722".into()],
        caller_id: Some(format!("\"Somebody\" <{name}>")),
        identify_by: vec![IdentifyBy::Username, IdentifyBy::AuthUsername],
        networks: vec!["10.0.0.0/8".parse().unwrap(), "192.168.0.0/16".parse().unwrap()],
        callback: None,
    });
    (format!("PbxEndpoint/{name}"), Arc::new(entry))
}

#[tokio::test]
async fn one_endpoint_changed_among_ten_thousand_is_less_than_four_kilobytes_on_the_wire() {
    let entries: BTreeMap<_, _> = (0..10_000).map(|n| endpoint(n, "from-external")).collect();
    let hash = entries.iter().fold(0u64, |sum, (k, e)| sum.wrapping_add(entry_hash(k, e.as_ref())));
    let first = Version { epoch: 1, n: 1, hash };
    let source = MemorySource::starting_at(Snapshot { version: first, entries: entries.clone() });
    let site = Site::patient(&source).await;
    let wire = Wire::to(site.address).await;
    let mut subscription = site.follow_at::<RouterEntry>(wire.address, 1, &Metrics::new());
    until(&mut subscription, first).await;
    let whole = wire.bytes();
    assert!(whole > 3_000_000, "the entries are as large as real ones: {whole}");

    let mut version = first;
    for n in 0..3 {
        let (key, entry) = endpoint(n, "elsewhere");
        let (old, new) = (entry_hash(&key, entries[&key].as_ref()), entry_hash(&key, entry.as_ref()));
        let to = Version { epoch: 1, n: version.n + 1, hash: version.hash.wrapping_sub(old).wrapping_add(new) };
        let before = wire.bytes();
        source.publish(Delta { from: version, to, put: [(key, entry)].into(), delete: vec![] }).unwrap();
        until(&mut subscription, to).await;
        subscription.ack(to);
        site.known(1, |f| f.is_some_and(|f| f.version == to)).await;
        // Both ways: the delta, the acknowledgement, and the first time the handshake of its connection.
        let cost = wire.bytes() - before;
        println!("change {n} of 10,000: {cost} bytes");
        assert!(cost < 4096, "{cost}");
        version = to;
    }
}

#[tokio::test]
async fn tokens_and_authorities_are_read_anew() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.publish(&[("a", 1)], &[]);
    let mut site = Site::new(&publisher.source).await;
    site.write("token", "expired");
    let mut subscription = site.follow(1, &metrics);
    eventually(|| losses(&metrics) > 2).await;
    site.write("token", "tel/pbx-router\n");
    until(&mut subscription, publisher.version).await;

    let authority = site.change_authority();
    site.leader.send_replace(Leader::Nobody);
    site.known(1, |f| f.is_some_and(|f| !f.connected)).await;
    site.leader.send_replace(Leader::Here { epoch: 1 });
    publisher.publish(&[("b", 2)], &[]);
    let lost = losses(&metrics);
    eventually(|| losses(&metrics) > lost + 2).await;
    assert_eq!(subscription.snapshot().version.n, 1, "an authority that nobody vouched for was trusted");
    let both = std::fs::read_to_string(site.path("ca.crt")).unwrap() + &authority;
    site.write("ca.crt", &both);
    until(&mut subscription, publisher.version).await;
}

/// A reader of another form of entries than what is published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Word(String);

impl Entry for Word {
    const SERVICE: Service = Service::Router;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_by_name_and_what_was_there_stays() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.version = Version { epoch: 1, n: 1, hash: 0 };
    publisher.source.publish_snapshot(publisher.whole()).unwrap();
    let good = publisher.version;
    let site = Site::new(&publisher.source).await;
    let mut subscription: Subscription<Word> = site.follow_at(site.address, 1, &metrics);
    until(&mut subscription, good).await;
    subscription.ack(good);
    site.known(1, |f| f.is_some_and(|f| f.version == good)).await;
    publisher.publish(&[("Dialplan/x", 5)], &[]);
    site.known(1, |f| {
        f.is_some_and(|f| f.version == good && f.error.as_ref().is_some_and(|e| e.contains("cannot read Dialplan/x")))
    })
    .await;
    // Pings go on, and it does not ask over and over.
    let lost = losses(&metrics);
    publisher.publish(&[("Dialplan/x", 6)], &[]);
    eventually(|| losses(&metrics) > lost).await;
    site.known(1, |f| f.is_some_and(|f| f.connected && f.version == good && f.error.is_some())).await;
    assert_eq!(subscription.snapshot().version, good);
    publisher.publish(&[], &["Dialplan/x"]);
    until(&mut subscription, publisher.version).await;
    subscription.ack(publisher.version);
    site.known(1, |f| f.is_some_and(|f| f.version == publisher.version && f.error.is_none())).await;
}

#[tokio::test]
async fn two_installations_do_not_see_one_another() {
    let (mut ours, mut theirs) = (Publisher::new(), Publisher::new());
    ours.publish(&[("a", 1)], &[]);
    theirs.publish(&[("b", 2)], &[]);
    let site = Site::new(&ours.source).await;
    site.registry.serve_one("other", "pbx", &theirs.source);
    let mut one = site.follow(1, &Metrics::new());
    until(&mut one, ours.version).await;
    site.write("token", "other/pbx-router");
    let mut two = site.follow(2, &Metrics::new());
    until(&mut two, theirs.version).await;
    assert_eq!(*one.snapshot(), ours.whole());
    assert_eq!(*two.snapshot(), theirs.whole());
    let known = |namespace: &str| {
        let acks = site.registry.acks(namespace).unwrap().borrow().clone();
        acks[&Service::Router].keys().copied().collect::<Vec<_>>()
    };
    assert_eq!((known("tel"), known("other")), (vec![ProcessId(1)], vec![ProcessId(2)]));
}

#[tokio::test]
async fn a_pod_that_is_to_take_nothing_new_is_told_so_until_it_may_again() {
    let (mut publisher, metrics) = (Publisher::new(), Metrics::new());
    publisher.publish(&[("a", 1)], &[]);
    // Its own pings are seconds apart: orders do not wait for them.
    let site = Site::patient(&publisher.source).await;
    let (mut one, mut two) = (site.follow(1, &metrics), site.follow(2, &metrics));
    until(&mut one, publisher.version).await;
    until(&mut two, publisher.version).await;
    let (mut first, second) = (one.ordered_to_drain(), two.ordered_to_drain());
    assert!(!*first.borrow_and_update() && !*second.borrow());
    site.registry.drain("tel", ["router-1".to_owned()].into());
    soon(first.wait_for(|drain| *drain)).await.unwrap();
    assert!(!*second.borrow());
    // Configuration goes on; a leader that is lost takes no order back, and the next one's is heard.
    publisher.publish(&[("b", 2)], &[]);
    until(&mut one, publisher.version).await;
    site.leader.send_replace(Leader::Nobody);
    site.known(1, |f| f.is_some_and(|f| !f.connected)).await;
    assert!(*first.borrow());
    site.leader.send_replace(Leader::Here { epoch: 1 });
    site.known(1, |f| f.is_some_and(|f| f.connected)).await;
    site.registry.drain("tel", ["router-2".to_owned()].into());
    soon(first.wait_for(|drain| !*drain)).await.unwrap();
    let mut second = second;
    soon(second.wait_for(|drain| *drain)).await.unwrap();
    // One that comes anew under an order hears of it.
    let mut late = site.follow(3, &metrics);
    site.registry.drain("tel", ["router-3".to_owned()].into());
    until(&mut late, publisher.version).await;
    soon(late.ordered_to_drain().wait_for(|drain| *drain)).await.unwrap();
}

/// An entry as routers have it, with hashes of a password that nobody may print.
fn secret() -> RouterEntry {
    let ha1 = Ha1 { md5: "0123canary".into(), sha256: "4567canary".into() };
    RouterEntry::Endpoint(EndpointEntry {
        name: "8005".into(),
        context: "x".into(),
        auth: Some(Auth { username: "8005".into(), ha1 }),
        codecs: Vec::new(),
        caller_id: None,
        identify_by: vec![IdentifyBy::Username],
        networks: Vec::new(),
        callback: None,
    })
}

#[tokio::test]
async fn what_is_sent_is_never_printed_with_the_hashes_of_passwords() {
    let source = MemorySource::<RouterEntry>::new();
    let entry = Arc::new(secret());
    let to = Version { epoch: 1, n: 1, hash: entry_hash("PbxEndpoint/8005", entry.as_ref()) };
    let put = BTreeMap::from([("PbxEndpoint/8005".to_owned(), entry)]);
    let site = Site::new(&source).await;
    let mut subscription = site.follow_at::<RouterEntry>(site.address, 1, &Metrics::new());
    site.known(1, |f| f.is_some()).await;
    source.publish(Delta { from: Version::default(), to, put, delete: Vec::new() }).unwrap();
    until(&mut subscription, to).await;
    let printed = format!("{source:?} {subscription:?}");
    assert!(printed.contains("PbxEndpoint/8005") && !printed.contains("canary"), "{printed}");
}
