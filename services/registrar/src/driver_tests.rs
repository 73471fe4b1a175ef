//! The registrar as it runs: over a mesh, with the memory store and with a real Redis.

use super::*;
use crate::testing::{BALANCER, ME as REGISTRAR, Phone, flow, keys, snapshot};
use contract::Transport;
use contract::hop::Inside;
use runtime::Environment;
use runtime::source::MemorySource;
use runtime::store::AorHint;
use runtime::store::memory::MemoryStore;
use runtime::store::redis::RedisStore;
use sip::{Message, Name};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

/// A redis-server of the test's own, killed by its pid when dropped.
struct Redis {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Redis {
    async fn start() -> Self {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let dir = tempfile::tempdir().unwrap();
            let child = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
                .arg(dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("redis-server: install it with `make tools`");
            let mut redis = Self { child, url: format!("redis://127.0.0.1:{port}"), _dir: dir };
            for _ in 0..500 {
                if redis.child.try_wait().unwrap().is_some() {
                    break;
                }
                if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                    return redis;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        panic!("redis-server does not come up");
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Site {
    environment: Environment,
    source: MemorySource<RegistrarEntry>,
    balancer: Member,
    running: Running,
}

impl Site {
    fn start(store: Arc<dyn Store>) -> Self {
        let environment = Environment::new(store, keys().as_ref().clone());
        let source = MemorySource::starting_at(snapshot(&[]));
        let balancer = environment.mesh.join(Peer::new(Service::Balancer, BALANCER));
        let settings = Settings { sweep_interval: Duration::from_millis(50), ..Settings::default() };
        let config = Config { settings, linger: Duration::from_millis(100) };
        let deps = environment.deps(REGISTRAR, source.subscribe(REGISTRAR));
        let running = build(config, deps).unwrap();
        Self { environment, source, balancer, running }
    }

    async fn ask(&mut self, phone: &mut Phone, headers: &str) -> Inside {
        let request = phone.request(&self.environment.keys, headers);
        self.balancer.send(REGISTRAR, request).unwrap();
        timeout(LIMIT, self.balancer.recv()).await.expect("an answer in time").unwrap()
    }

    /// Registers; returns status and the contacts listed.
    async fn register(&mut self, phone: &mut Phone, headers: &str) -> (u16, Vec<String>) {
        let mut answer = self.ask(phone, headers).await;
        let first = Message::parse_stream(&answer.bytes).unwrap();
        if first.status() == Some(401) {
            phone.challenged(&first);
            answer = self.ask(phone, headers).await;
        }
        let message = Message::parse_stream(&answer.bytes).unwrap();
        (message.status().unwrap(), message.values(Name::Contact).map(str::to_owned).collect())
    }

    async fn view(&self) -> serde_json::Value {
        self.running.views["registrations"]().await
    }
}

/// What holds with every store.
async fn a_phone_comes_and_goes(store: Arc<dyn Store>) {
    let mut hints = store.hints();
    let mut site = Site::start(store.clone());
    timeout(LIMIT, site.source.live(site.source.snapshot().version)).await.expect("configuration acknowledged");
    timeout(LIMIT, site.environment.health.ready()).await.expect("ready");

    let mut phone = Phone::new("8005", "secret5");
    let contact = "Contact: <sip:8005@127.0.0.1:5070>;expires=60\r\n";
    let (status, contacts) = site.register(&mut phone, contact).await;
    assert_eq!((status, contacts), (200, vec!["<sip:8005@127.0.0.1:5070>;expires=60".to_owned()]));
    // Whoever reads again at every hint finds it (the first may be the one that says "the store is back").
    let told = async {
        loop {
            let hint = hints.recv().await.unwrap();
            let ours = hint == AorHint::Missed || matches!(hint, AorHint::Changed { aor, .. } if aor == "8005");
            if ours && !store.load("8005").await.unwrap().bindings.is_empty() {
                return;
            }
        }
    };
    timeout(LIMIT, told).await.expect("a hint");
    let stored = store.load("8005").await.unwrap();
    assert_eq!(stored.bindings[0].flow, Some(flow(Transport::Udp, BALANCER)));

    let view = site.view().await;
    let row = &view["registrations"][0];
    assert_eq!((row["aor"].as_str(), row["contact"].as_str()), (Some("8005"), Some("sip:8005@127.0.0.1:5070")));
    assert_eq!((row["flow"].as_str(), row["userAgent"].as_str()), (Some("127.0.0.1:5070"), Some("phone")));
    assert!((50..=60).contains(&row["expires"].as_u64().unwrap()));

    // The store catches a replay, the rules a second phone.
    let mut thief = Phone::new("8005", "secret5");
    thief.call_id = "thief".into();
    thief.challenge = phone.challenge.clone();
    let replayed = site.ask(&mut thief, contact).await;
    assert!(replayed.bytes.starts_with(b"SIP/2.0 401 "));
    thief.challenge = None;
    assert_eq!(site.register(&mut thief, "Contact: <sip:8005@127.0.0.1:5099>\r\n").await.0, 403);

    let (status, contacts) = site.register(&mut phone, "Contact: *\r\nExpires: 0\r\n").await;
    assert_eq!((status, contacts.len()), (200, 0));
    assert!(store.load("8005").await.unwrap().bindings.is_empty());
    assert_eq!(site.view().await["registrations"].as_array().unwrap().len(), 0);

    // Two requests of two phones for one AOR at once: one gets in, whoever it is.
    let challenge = {
        let answer = site.ask(&mut Phone::new("8006", "secret6"), "").await;
        sip::digest::choose(Message::parse_stream(&answer.bytes).unwrap().headers(Name::WwwAuthenticate))
    };
    for n in 0..2 {
        let mut rival = Phone::new("8006", "secret6");
        (rival.call_id, rival.challenge, rival.nc) = (format!("rival-{n}"), challenge.clone(), n);
        let request = rival.request(&site.environment.keys, &format!("Contact: <sip:8006@127.0.0.1:{}>\r\n", 6000 + n));
        site.balancer.send(REGISTRAR, request).unwrap();
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let answer = timeout(LIMIT, site.balancer.recv()).await.unwrap().unwrap();
        statuses.push(Message::parse_stream(&answer.bytes).unwrap().status().unwrap());
    }
    statuses.sort_unstable();
    // The second count may also reach the store before the first: then the first is a replay.
    assert!(matches!(statuses[..], [200, 403] | [200, 401]), "{statuses:?}");
    assert_eq!(store.load("8006").await.unwrap().bindings.len(), 1);

    // An expired binding goes by itself, and whoever follows is told.
    let mut old = store.load("8006").await.unwrap();
    old.bindings[0].expires_at = 1000;
    let now = site.environment.clock.now().unix();
    store.swap("8006", old.revision, old.bindings, now).await.unwrap();
    timeout(LIMIT, async {
        while !store.load("8006").await.unwrap().bindings.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("swept");

    // Drain: 503, a peer that takes no work, then it is gone.
    site.environment.drain.start();
    let mut peers = site.environment.mesh.peers();
    let draining = peers.wait_for(|p| p.serving(Service::Registrar).next().is_none());
    timeout(LIMIT, draining).await.expect("drains").unwrap();
    assert_eq!(site.register(&mut phone, contact).await.0, 503);
    timeout(LIMIT, site.running.join()).await.expect("ends").unwrap();
    assert!(!site.environment.mesh.has(REGISTRAR));
}

#[tokio::test]
async fn with_the_memory_store() {
    a_phone_comes_and_goes(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis() {
    let redis = Redis::start().await;
    a_phone_comes_and_goes(Arc::new(RedisStore::new(&redis.url, "registrar-test").unwrap())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_gone_phones_are_told_within_a_second() {
    let mut redis = Redis::start().await;
    let mut site = Site::start(Arc::new(RedisStore::new(&redis.url, "registrar-test").unwrap()));
    let mut phone = Phone::new("8005", "secret5");
    let contact = "Contact: <sip:8005@127.0.0.1:5070>\r\n";
    assert_eq!(site.register(&mut phone, contact).await.0, 200);
    redis.kill();
    for _ in 0..3 {
        let asked = tokio::time::Instant::now();
        let answer = site.ask(&mut phone, contact).await;
        assert!(asked.elapsed() < Duration::from_millis(1100), "{:?}", asked.elapsed());
        let message = Message::parse_stream(&answer.bytes).unwrap();
        assert_eq!(message.status(), Some(503));
        let wait: u32 = message.header(Name::RetryAfter).unwrap().parse().unwrap();
        assert!((5..=30).contains(&wait));
    }
}

#[tokio::test]
async fn a_changed_password_holds_from_the_next_request() {
    let mut site = Site::start(Arc::new(MemoryStore::new()));
    let mut phone = Phone::new("8005", "new-secret");
    assert_eq!(site.register(&mut phone, "").await.0, 401);
    let mut next = snapshot(&[]);
    next.version.n += 1;
    let entry = next.entries.get_mut("PbxEndpoint/8005").unwrap();
    if let RegistrarEntry::Endpoint { auth: Some(auth), .. } = Arc::make_mut(entry) {
        auth.ha1.md5 = sip::digest::ha1(sip::digest::Algorithm::Md5, "8005", "kubepbx", "new-secret");
    }
    let version = next.version;
    site.source.publish_snapshot(next).unwrap();
    timeout(LIMIT, site.source.live(version)).await.expect("acknowledged");
    assert_eq!(site.register(&mut phone, "").await.0, 200);
}
