//! What holds for every store, run on the memory store and on a real Redis.

use crate::redis_server::RedisServer;
use bytes::Bytes;
use contract::location::{Binding, StoreError};
use contract::peers::{Peer, PeerState};
use contract::records::{Key, Owner};
use contract::{ProcessId, Service};
use futures::future::join_all;
use runtime::store::memory::MemoryStore;
use runtime::store::redis::RedisStore;
use runtime::store::{AorHint, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;

const NOW: u64 = 1_800_000_000;

pub(crate) fn binding(contact: &str, expires_at: u64) -> Binding {
    Binding {
        contact: contact.into(),
        call_id: "c1".into(),
        cseq: 7,
        expires_at,
        since: NOW,
        updated: NOW,
        path: vec!["<sip:token@127.0.0.1:5060;lr>".into()],
        flow: None,
        instance: Some("urn:uuid:1".into()),
        reg_id: Some(1),
        q: 500,
        user_agent: Some("Gerät \"1\"".into()),
        push: None,
        forget_at: None,
    }
}

/// Every case of the contract on one kind of store; `store` must be empty at each.
macro_rules! contract {
    ($module:ident, $make:expr) => {
        mod $module {
            use super::*;

            contract!(@cases $make,
                a_swap_is_loaded_back_as_written,
                a_swap_from_another_revision_conflicts_and_changes_nothing,
                a_hundred_concurrent_swaps_lose_none,
                every_write_is_hinted_with_a_higher_revision,
                the_expiry_index_follows_the_first_expiry,
                a_nonce_count_is_used_once_and_rises,
                all_aors_are_listed_in_order,
                a_record_belongs_to_its_owner,
                of_many_who_take_one_wins_and_the_loser_may_not_write,
                records_are_taken_all_or_none,
                owners_and_what_they_own_follow_every_write,
                records_are_listed_by_kind_with_any_bytes,
                peers_are_there_until_they_withdraw_or_are_not_renewed
            );
        }
    };
    (@cases $make:expr, $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (store, _kept) = $make;
                super::$case(store).await;
            }
        )+
    };
}

contract!(memory, (Arc::new(MemoryStore::new()) as Arc<dyn Store>, ()));
contract!(redis, {
    let server = RedisServer::start();
    (Arc::new(RedisStore::new(&server.url(), "test").unwrap()) as Arc<dyn Store>, server)
});

async fn a_swap_is_loaded_back_as_written(store: Arc<dyn Store>) {
    assert_eq!(store.load("8005").await.unwrap(), Default::default());
    let bindings = vec![binding("sip:8005@10.0.0.2:5060", NOW + 60), binding("sip:8005@10.0.0.1", NOW + 30)];
    let revision = store.swap("8005", 0, bindings.clone(), NOW).await.unwrap();
    assert_ne!(revision, 0);
    let aor = store.load("8005").await.unwrap();
    assert_eq!((aor.revision, aor.bindings), (revision, bindings));
    assert_eq!(store.load("8006").await.unwrap().revision, 0);
    // A removal leaves nothing, and removing nothing is fine.
    assert_eq!(store.swap("8005", revision, vec![], NOW).await.unwrap(), 0);
    assert_eq!(store.load("8005").await.unwrap(), Default::default());
    assert_eq!(store.swap("8005", 0, vec![], NOW).await.unwrap(), 0);
}

async fn a_swap_from_another_revision_conflicts_and_changes_nothing(store: Arc<dyn Store>) {
    let one = store.swap("a", 0, vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
    let late = store.swap("a", 0, vec![binding("sip:2@x", NOW + 5)], NOW).await;
    assert_eq!(late, Err(StoreError::Conflict));
    let two = store.swap("a", one, vec![binding("sip:3@x", NOW + 60)], NOW).await.unwrap();
    assert!(two > one);
    assert_eq!(store.swap("a", one, vec![], NOW).await, Err(StoreError::Conflict));
    assert_eq!(store.load("a").await.unwrap().bindings[0].contact, "sip:3@x");
    assert!(store.expired(NOW + 5, 10).await.unwrap().is_empty());
    // One that was removed and made again is another: its old revision does not fit.
    store.swap("a", two, vec![], NOW).await.unwrap();
    let again = store.swap("a", 0, vec![binding("sip:4@x", NOW + 60)], NOW).await.unwrap();
    assert!(again > two);
    assert_eq!(store.swap("a", two, vec![], NOW).await, Err(StoreError::Conflict));
}

async fn a_hundred_concurrent_swaps_lose_none(store: Arc<dyn Store>) {
    let add = |n: u64, store: Arc<dyn Store>| async move {
        loop {
            let aor = store.load("many").await.unwrap();
            let mut bindings = aor.bindings;
            bindings.push(binding(&format!("sip:{n}@x"), NOW + 60 + n));
            match store.swap("many", aor.revision, bindings, NOW).await {
                Ok(_) => return,
                Err(StoreError::Conflict) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    let tasks: Vec<_> = (0..100).map(|n| tokio::spawn(add(n, store.clone()))).collect();
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let mut contacts: Vec<_> = store.load("many").await.unwrap().bindings.into_iter().map(|b| b.contact).collect();
    contacts.sort();
    contacts.dedup();
    assert_eq!(contacts.len(), 100);
}

/// The next hint about this AOR.
async fn hint(hints: &mut Receiver<AorHint>, about: &str) -> u64 {
    loop {
        let next = tokio::time::timeout(Duration::from_secs(5), hints.recv()).await.expect("a hint in time").unwrap();
        match next {
            AorHint::Changed { aor, revision } if aor == about => return revision,
            _ => {}
        }
    }
}

async fn every_write_is_hinted_with_a_higher_revision(store: Arc<dyn Store>) {
    let mut hints = store.hints();
    // A store over a network may not follow yet: write until the first hint comes.
    let mut revision = 0;
    for n in 0.. {
        assert!(n < 100, "no hint ever came");
        revision = store.swap("sync", revision, vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
        if tokio::time::timeout(Duration::from_millis(100), hint(&mut hints, "sync")).await.is_ok() {
            break;
        }
    }
    let name = "user with space@host";
    let one = store.swap(name, 0, vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
    assert_eq!(hint(&mut hints, name).await, one);
    assert_eq!(store.swap(name, 7, vec![], NOW).await, Err(StoreError::Conflict));
    store.swap(name, one, vec![], NOW).await.unwrap();
    assert!(hint(&mut hints, name).await > one);
}

async fn the_expiry_index_follows_the_first_expiry(store: Arc<dyn Store>) {
    let mut revisions = Vec::new();
    for (aor, expiries) in [("a", [30, 10]), ("b", [20, 40]), ("c", [15, 90])] {
        let bindings = expiries.map(|e| binding("sip:1@x", NOW + e)).to_vec();
        revisions.push(store.swap(aor, 0, bindings, NOW).await.unwrap());
    }
    let due = async |at: u64, limit: usize| store.expired(NOW + at, limit).await.unwrap();
    assert!(due(9, 10).await.is_empty());
    assert_eq!(due(10, 10).await, ["a"]);
    assert_eq!(due(50, 10).await, ["a", "c", "b"]);
    assert_eq!(due(50, 2).await, ["a", "c"]);
    // Refreshed: due later. Removed: never.
    store.swap("a", revisions[0], vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
    store.swap("b", revisions[1], vec![], NOW).await.unwrap();
    assert_eq!(due(50, 10).await, ["c"]);
    assert_eq!(due(60, 10).await, ["c", "a"]);
    // Expired and remembered: due when it is forgotten.
    let remembered = Binding { forget_at: Some(NOW + 100), ..binding("sip:1@x", NOW + 15) };
    store.swap("c", revisions[2], vec![remembered], NOW).await.unwrap();
    assert_eq!(due(99, 10).await, ["a"]);
    assert_eq!(due(100, 10).await, ["a", "c"]);
}

async fn a_nonce_count_is_used_once_and_rises(store: Arc<dyn Store>) {
    for (nonce, nc, fresh) in [("n", 1, true), ("n", 1, false), ("n", 3, true), ("n", 2, false), ("m", 1, true)] {
        assert_eq!(store.use_nonce(nonce, nc, 300, NOW).await.unwrap(), fresh, "{nonce} {nc}");
    }
    assert!(store.use_nonce("n", u32::MAX, 300, NOW).await.unwrap());
    assert!(!store.use_nonce("n", u32::MAX, 300, NOW).await.unwrap());
    // Of many that use one count at once, one is first.
    let uses = (0..50).map(|_| store.use_nonce("race", 1, 300, NOW));
    let fresh = join_all(uses).await.into_iter().filter(|f| *f.as_ref().unwrap()).count();
    assert_eq!(fresh, 1);
}

async fn all_aors_are_listed_in_order(store: Arc<dyn Store>) {
    assert!(store.aors().await.unwrap().is_empty());
    // More than a page of any store.
    let mut names: Vec<String> = (0..1200).map(|n| format!("user-{n}")).collect();
    for name in &names {
        store.swap(name, 0, vec![binding(&format!("sip:{name}@x"), NOW + 60)], NOW).await.unwrap();
    }
    names.sort();
    let all = store.aors().await.unwrap();
    assert_eq!(all.iter().map(|(name, _)| name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    for (name, aor) in all {
        assert_eq!(aor.bindings[0].contact, format!("sip:{name}@x"));
        assert_ne!(aor.revision, 0);
    }
}

fn owner(process: u64, epoch: u64) -> Owner {
    Owner { process: ProcessId(process), epoch }
}

async fn a_record_belongs_to_its_owner(store: Arc<dyn Store>) {
    let value = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(store.record("leg", "1").await.unwrap(), None);
    store.save("leg", "1", owner(10, 1), value("{}")).await.unwrap();
    store.save("leg", "1", owner(10, 1), value("{\"n\":2}")).await.unwrap();
    assert_eq!(store.save("leg", "1", owner(11, 1), value("x")).await, Err(StoreError::Conflict));
    assert_eq!(store.save("leg", "1", owner(10, 0), value("x")).await, Err(StoreError::Conflict));
    assert_eq!(store.remove("leg", "1", owner(11, 1)).await, Err(StoreError::Conflict));
    assert_eq!(store.record("leg", "1").await.unwrap(), Some((owner(10, 1), value("{\"n\":2}"))));
    // Epochs compare as numbers.
    store.save("leg", "1", owner(12, 9), value("nine")).await.unwrap();
    store.save("leg", "1", owner(13, 10), value("ten")).await.unwrap();
    assert_eq!(store.save("leg", "1", owner(12, 9), value("x")).await, Err(StoreError::Conflict));
    // A call of the same id is another record.
    assert_eq!(store.record("call", "1").await.unwrap(), None);
    store.remove("leg", "1", owner(13, 10)).await.unwrap();
    store.remove("leg", "1", owner(13, 10)).await.unwrap();
    assert_eq!(store.record("leg", "1").await.unwrap(), None);
}

fn key(kind: &str, id: &str, owner: Owner) -> Key {
    Key { kind: kind.into(), id: id.into(), owner }
}

async fn of_many_who_take_one_wins_and_the_loser_may_not_write(store: Arc<dyn Store>) {
    let (dead, value) = (owner(1, 4), Bytes::from_static(b"{\"a\": \"b c\"}"));
    store.save("leg", "x", dead, value.clone()).await.unwrap();
    let before = store.standing(ProcessId(1)).await.unwrap();
    let wanted = [key("leg", "x", dead)];
    let takes = (2..30).map(|n| store.take(&wanted, ProcessId(n)));
    let won: Vec<_> = join_all(takes).await.into_iter().filter_map(Result::ok).flatten().collect();
    assert_eq!(won.len(), 1);
    let new = won[0].key.owner;
    assert_eq!((new.epoch, &won[0].value), (5, &value));
    assert_eq!(store.record("leg", "x").await.unwrap(), Some((new, value)));
    // The one that thaws harms nobody, and can know.
    assert_eq!(store.save("leg", "x", dead, Bytes::new()).await, Err(StoreError::Conflict));
    assert_eq!(store.remove("leg", "x", dead).await, Err(StoreError::Conflict));
    assert_eq!(store.take(&wanted, ProcessId(1)).await, Err(StoreError::Conflict));
    let after = store.standing(ProcessId(1)).await.unwrap();
    assert_eq!((after.incarnation, after.taken), (before.incarnation, before.taken + 1));
    assert_eq!(store.standing(new.process).await.unwrap().taken, 0);
    let back = store.take(&[key("leg", "x", new)], ProcessId(1)).await.unwrap();
    assert_eq!(back[0].key.owner, owner(1, 6));
    store.save("leg", "x", owner(1, 6), Bytes::new()).await.unwrap();
}

async fn records_are_taken_all_or_none(store: Arc<dyn Store>) {
    let values = [Bytes::from_static(b" a"), Bytes::from_static(b"\0\xff "), Bytes::new()];
    let keys = [key("leg", "a", owner(7, 1)), key("leg", "b", owner(7, 3)), key("call", "a", owner(7, 1))];
    for (key, value) in keys.iter().zip(&values) {
        store.save(&key.kind, &key.id, key.owner, value.clone()).await.unwrap();
    }
    // One of another epoch, of another process, and one that is not there.
    for wrong in [key("leg", "b", owner(7, 2)), key("leg", "b", owner(8, 3)), key("leg", "c", owner(7, 1))] {
        let wanted = [keys[0].clone(), wrong, keys[2].clone()];
        assert_eq!(store.take(&wanted, ProcessId(9)).await, Err(StoreError::Conflict));
    }
    assert_eq!(store.owned(ProcessId(9)).await.unwrap(), []);
    assert_eq!(store.standing(ProcessId(7)).await.unwrap().taken, 0);
    let taken = store.take(&keys, ProcessId(9)).await.unwrap();
    let want: Vec<_> = [owner(9, 2), owner(9, 4), owner(9, 2)].into_iter().collect();
    assert_eq!(taken.iter().map(|r| r.key.owner).collect::<Vec<_>>(), want);
    assert_eq!(taken.iter().map(|r| r.value.clone()).collect::<Vec<_>>(), values);
    assert_eq!(store.standing(ProcessId(7)).await.unwrap().taken, 3);
}

async fn owners_and_what_they_own_follow_every_write(store: Arc<dyn Store>) {
    assert_eq!(store.owners().await.unwrap(), []);
    for n in 0..600 {
        store.save("leg", &format!("l{n:03}"), owner(1, 1), Bytes::new()).await.unwrap();
    }
    store.save("call", "c", owner(1, 2), Bytes::new()).await.unwrap();
    store.save("bridge", "b", owner(2, 1), Bytes::new()).await.unwrap();
    assert_eq!(store.owners().await.unwrap(), [ProcessId(1), ProcessId(2)]);
    let owned = store.owned(ProcessId(1)).await.unwrap();
    assert_eq!((owned.len(), &owned[0]), (601, &key("call", "c", owner(1, 2))));
    assert_eq!(owned[600], key("leg", "l599", owner(1, 1)));
    // Written over by a later owner, taken, removed.
    store.save("leg", "l000", owner(3, 2), Bytes::new()).await.unwrap();
    store.take(&owned[2..], ProcessId(3)).await.unwrap();
    store.remove("call", "c", owner(1, 2)).await.unwrap();
    assert_eq!(store.owned(ProcessId(1)).await.unwrap(), []);
    assert_eq!(store.owned(ProcessId(3)).await.unwrap().len(), 600);
    assert_eq!(store.owners().await.unwrap(), [ProcessId(2), ProcessId(3)]);
    for n in 0..600 {
        store.remove("leg", &format!("l{n:03}"), owner(3, 2)).await.unwrap();
    }
    // One that may not be removed stays with its owner.
    assert_eq!(store.remove("bridge", "b", owner(3, 1)).await, Err(StoreError::Conflict));
    assert_eq!(store.owners().await.unwrap(), [ProcessId(2)]);
}

async fn records_are_listed_by_kind_with_any_bytes(store: Arc<dyn Store>) {
    let bytes = |n: u64| Bytes::from(vec![0, b' ', 0xff, b'\n', n as u8]);
    for n in 0..700 {
        store.save("bridge", &format!("b{n:03}"), owner(n + 1, n), bytes(n)).await.unwrap();
    }
    store.save("call", "c", owner(1, 1), Bytes::new()).await.unwrap();
    let all = store.records("bridge").await.unwrap();
    assert_eq!(all.len(), 700);
    for (n, (id, by, value)) in (0u64..).zip(all) {
        assert_eq!((id, by, value), (format!("b{n:03}"), owner(n + 1, n), bytes(n)));
    }
    assert_eq!(store.records("call").await.unwrap(), [("c".to_owned(), owner(1, 1), Bytes::new())]);
    assert!(store.records("leg").await.unwrap().is_empty());
}

/// A record with all that one can hold.
fn peer(service: Service, process: u64, load: u64) -> Peer {
    Peer {
        address: "10.0.0.7:7000".into(),
        state: PeerState::Draining,
        weight: 0.5,
        load,
        ng: Some("10.0.0.7:2223".parse().unwrap()),
        pod: format!("pbx-{}", service.as_str()),
        admin: Some("127.0.0.1:9091".parse().unwrap()),
        metrics: Some("10.0.0.7:9090".parse().unwrap()),
        ..Peer::new(service, ProcessId(process))
    }
}

async fn peers_are_there_until_they_withdraw_or_are_not_renewed(store: Arc<dyn Store>) {
    const LONG: u64 = 60_000;
    assert!(store.peers().await.unwrap().is_empty());
    let (short, media, balancer) =
        (peer(Service::Router, 9, 1), peer(Service::Media, u64::MAX, 2), peer(Service::Balancer, 7, 3));
    let begun = Instant::now();
    store.announce(&media, LONG).await.unwrap();
    store.announce(&short, 400).await.unwrap();
    store.announce(&balancer, LONG).await.unwrap();
    if begun.elapsed() < Duration::from_millis(300) {
        assert_eq!(store.peers().await.unwrap(), [balancer.clone(), short.clone(), media.clone()]);
    }
    // Renewed: it says something else, and stands longer.
    let renewed = peer(Service::Media, u64::MAX, 4);
    store.announce(&renewed, LONG).await.unwrap();
    while store.peers().await.unwrap().contains(&short) {
        assert!(begun.elapsed() < Duration::from_secs(5), "a record that is not renewed stays");
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(store.peers().await.unwrap(), [balancer.clone(), renewed.clone()]);
    // One that was gone may come again, and who withdraws is gone at once.
    store.announce(&short, LONG).await.unwrap();
    store.withdraw(balancer.process).await.unwrap();
    store.withdraw(ProcessId(1)).await.unwrap();
    assert_eq!(store.peers().await.unwrap(), [short, renewed]);
}
