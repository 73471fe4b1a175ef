//! The state folder: a restart forgets nobody, and a damaged file is told and kept.

use crate::store_contract::binding;
use runtime::store::Store;
use runtime::store::memory::{FILE, Limits, MemoryStore};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const NOW: u64 = 1_800_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bindings_and_nonces_survive_a_restart_and_revisions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("new").join("state");
    let bindings = vec![binding("sip:1@x", NOW + 10), binding("sip:2@x", NOW + 60)];
    let store = MemoryStore::open(&state).unwrap();
    assert_eq!(store.notice(), None);
    let kept = store.swap("8005", 0, bindings.clone(), NOW).await.unwrap();
    let gone = store.swap("8006", 0, bindings.clone(), NOW).await.unwrap();
    store.swap("8006", gone, vec![], NOW).await.unwrap();
    assert!(store.use_nonce("n", 5, 300, NOW).await.unwrap());
    drop(store);

    let store = MemoryStore::open(&state).unwrap();
    let aor = store.load("8005").await.unwrap();
    assert_eq!((aor.revision, aor.bindings), (kept, bindings));
    assert_eq!(store.len(), 1);
    assert_eq!(store.expired(NOW + 10, 5).await.unwrap(), ["8005"]);
    assert!(!store.use_nonce("n", 5, 300, NOW).await.unwrap());
    assert!(store.swap("8006", 0, vec![binding("sip:1@x", NOW)], NOW).await.unwrap() > gone + 1);
    assert_eq!(fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_on_disk_soon_without_a_clean_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::open(dir.path()).unwrap();
    store.swap("8005", 0, vec![binding("sip:1@x", NOW + 10)], NOW).await.unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    // What a process that is killed now would leave.
    while !fs::read_to_string(dir.path().join(FILE)).unwrap().contains("sip:1@x") {
        assert!(Instant::now() < end, "not written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(store);
}

#[tokio::test]
async fn a_damaged_file_is_told_and_set_aside_and_the_store_starts_empty() {
    for damaged in
        ["", "{\"schema\":1,\"revision\":3,\"aors\":{\"8005\":", "{\"schema\":77,\"revision\":3,\"aors\":{}}"]
    {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), damaged).unwrap();
        let store = MemoryStore::open(dir.path()).unwrap();
        assert!(store.is_empty());
        let notice = store.notice().unwrap();
        let aside = dir.path().join(format!("{FILE}.corrupt-1"));
        assert!(notice.contains(aside.to_str().unwrap()), "{notice}");
        assert_eq!(fs::read_to_string(aside).unwrap(), damaged);
        drop(store);
        assert_eq!(MemoryStore::open(dir.path()).unwrap().notice(), None);
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = format!("{:#}", MemoryStore::open(&file).unwrap_err());
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_memory_store_is_bounded() {
    let store = MemoryStore::with_limits(Limits { aors: 1, records: 1, nonces: 2 });
    let one = store.swap("a", 0, vec![binding("sip:1@x", NOW + 9)], NOW).await.unwrap();
    assert!(store.swap("b", 0, vec![binding("sip:1@x", NOW + 9)], NOW).await.is_err());
    store.swap("a", one, vec![], NOW).await.unwrap();
    store.swap("b", 0, vec![binding("sip:1@x", NOW + 9)], NOW).await.unwrap();
    // The nonce closest to its end goes first; those past it go by themselves.
    for (nonce, ttl) in [("long", 300), ("short", 10), ("new", 200)] {
        assert!(store.use_nonce(nonce, 1, ttl, NOW).await.unwrap());
    }
    assert!(!store.use_nonce("long", 1, 300, NOW).await.unwrap());
    assert!(!store.use_nonce("new", 1, 300, NOW).await.unwrap());
    assert!(store.use_nonce("long", 1, 300, NOW + 301).await.unwrap());
}
