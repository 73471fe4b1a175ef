//! A Redis that goes, freezes and comes back empty.

use crate::redis_server::RedisServer;
use crate::store_contract::binding;
use bytes::Bytes;
use contract::location::StoreError;
use contract::peers::Peer;
use contract::records::{Key, Owner};
use contract::{ProcessId, Service};
use runtime::store::redis::RedisStore;
use runtime::store::{AorHint, Store};
use std::future::Future;
use std::time::{Duration, Instant};

const NOW: u64 = 1_800_000_000;

/// It must say that the store is unavailable, within a second.
async fn refused<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) {
    let begun = Instant::now();
    let answer = call.await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
}

async fn all_refused(store: &RedisStore) {
    let owner = Owner { process: ProcessId(1), epoch: 1 };
    refused(store.load("a")).await;
    refused(store.swap("a", 0, vec![binding("sip:1@x", NOW)], NOW)).await;
    refused(store.expired(NOW, 10)).await;
    refused(store.use_nonce("n", 1, 60, NOW)).await;
    refused(store.aors()).await;
    refused(store.save("leg", "1", owner, Bytes::new())).await;
    refused(store.remove("leg", "1", owner)).await;
    refused(store.record("leg", "1")).await;
    refused(store.records("leg")).await;
    refused(store.owners()).await;
    refused(store.owned(ProcessId(1))).await;
    refused(store.take(&[Key { kind: "leg".into(), id: "1".into(), owner }], ProcessId(2))).await;
    refused(store.standing(ProcessId(1))).await;
    refused(store.announce(&Peer::new(Service::Router, ProcessId(1)), 1500)).await;
    refused(store.withdraw(ProcessId(1))).await;
    refused(store.peers()).await;
    // Many at once do not wait for one another.
    let begun = Instant::now();
    futures::future::join_all((0..50).map(|_| refused(store.load("a")))).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// Loads until the store is back.
async fn back(store: &RedisStore) -> contract::location::Aor {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match store.load("a").await {
            Ok(aor) => return aor,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_store_is_unavailable_within_a_second_and_is_refilled_when_back() {
    let mut server = RedisServer::start();
    let store = RedisStore::new(&server.url(), "test").unwrap();
    let mut hints = store.hints();
    assert_eq!(hints.recv().await.unwrap(), AorHint::Missed);
    let before = store.swap("a", 0, vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
    let standing = store.standing(ProcessId(1)).await.unwrap();
    assert_eq!(store.standing(ProcessId(2)).await.unwrap(), standing);
    server.kill();
    all_refused(&store).await;
    server.restart();
    assert_eq!(back(&store).await.revision, 0);
    // Owners can know that it is empty,
    assert_ne!(store.standing(ProcessId(1)).await.unwrap().incarnation, standing.incarnation);
    // and write again what they know; revisions still rise.
    assert_eq!(store.swap("a", before, vec![], NOW).await, Err(StoreError::Conflict));
    let after = store.swap("a", 0, vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
    assert!(after > before);
    // Whoever follows is told to read again.
    let told = async { while !matches!(hints.recv().await, Ok(AorHint::Missed)) {} };
    tokio::time::timeout(Duration::from_secs(5), told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_store_is_unavailable_within_a_second_and_goes_on_when_it_thaws() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.url(), "test").unwrap();
    store.swap("a", 0, vec![binding("sip:1@x", NOW + 60)], NOW).await.unwrap();
    server.freeze(true);
    all_refused(&store).await;
    server.freeze(false);
    assert_eq!(back(&store).await.bindings.len(), 1);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unavailable_and_a_malformed_address_is_refused() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", free.local_addr().unwrap());
    drop(free);
    all_refused(&RedisStore::new(&url, "test").unwrap()).await;
    let error = RedisStore::new("redis://:secret@", "test").unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}
