//! From a change to its being live: compiled, published over loopback TLS, taken in by processes, acknowledged, and told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests too.

use api::{Change, Compiler, Delta, Held, Kind, Resource, ResourceId, SecretValue, Spec, State};
use contract::config::{BalancerEntry, ConferenceEntry, Entry, MediaEntry, RegistrarEntry, RouterEntry};
use contract::{ProcessId, Service};
use futures::future::BoxFuture;
use operator::programmed::{Facts, Latch, Pod, Programmed, QUIET, Reason};
use operator::publish::Publisher;
use runtime::source::Subscription;
use runtime::stream::client::{Follow, Timing, follow};
use runtime::stream::registry::Registry;
use runtime::stream::server::{Authorise, Denied, Identity, Leader, Server};
use runtime::stream::{listen, tls};
use runtime::{Clock, Metrics};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

const EPOCH: u64 = 3;
const LIMIT: Duration = Duration::from_secs(60);

/// Takes the account's name for its token.
struct Accounts;

impl Authorise for Accounts {
    fn authorise<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Denied>> {
        let who = Identity { namespace: "tel".into(), account: token.into(), pod: None };
        Box::pin(async move { Ok(who) })
    }
}

/// An operator that leads, with a PBX of one namespace.
struct Site {
    compiler: Compiler,
    latch: Latch,
    publisher: Publisher,
    pods: Vec<Pod>,
    clock: Clock,
    address: SocketAddr,
    metrics: Metrics,
    dir: tempfile::TempDir,
    _leader: watch::Sender<Leader>,
    tasks: JoinSet<()>,
}

fn phone(n: usize, context: &str) -> Change {
    let spec = json!({"context": context, "aor": {"maxContacts": 1}, "codecs": ["ulaw"]});
    let spec = Arc::new(Spec::Endpoint(serde_json::from_value(spec).unwrap()));
    Change::Put(Resource { name: n.to_string(), generation: 1, created: None, spec })
}

fn id(n: usize) -> ResourceId {
    ResourceId { kind: Kind::PbxEndpoint, name: n.to_string() }
}

impl Site {
    async fn new() -> Self {
        let (clock, metrics) = (Clock::new(), Metrics::new());
        let (now, dir) = (clock.now().wall, tempfile::tempdir().unwrap());
        let authority = tls::Pair::authority(now).unwrap();
        std::fs::write(dir.path().join("ca.crt"), &authority.certificate).unwrap();
        let serving = tls::Serving::new(&authority.issue(&["127.0.0.1".into()], now).unwrap()).unwrap();
        let registry = Registry::new(Clock::new());
        let (leader, leads) = watch::channel(Leader::Here { epoch: EPOCH });
        let server = Server::new(Arc::new(Accounts), registry.clone(), leads, metrics.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let config = serving.config().unwrap();
        tasks.spawn(async move { listen::serve(listener, config, server.router()).await.unwrap() });
        let (compiler, latch) = (Compiler::new(EPOCH, Held::default()), Latch::new(EPOCH));
        let (publisher, pods) = (Publisher::new(registry), Vec::new());
        Self { compiler, latch, publisher, pods, clock, address, metrics, dir, _leader: leader, tasks }
    }

    fn change(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        let delta = self.compiler.apply(changes);
        self.latch.changed(&delta, self.clock.now().mono);
        self.publisher.publish("tel", "pbx", &self.compiler, &delta).unwrap();
        delta
    }

    /// A pod that has been ready.
    async fn pod<E: Entry>(&mut self, process: u64) -> Subscription<E> {
        let (service, name) = (E::SERVICE, format!("pbx-{}-{process}", E::SERVICE.as_str()));
        let token = self.dir.path().join(service.as_str());
        std::fs::write(&token, format!("pbx-{}", service.as_str())).unwrap();
        let mut subscription = follow::<E>(Follow {
            operator: format!("https://{}", self.address),
            ca: self.dir.path().join("ca.crt"),
            token,
            process: ProcessId(process),
            pod: name.clone(),
            timing: Timing::default(),
            metrics: Metrics::new(),
        });
        tokio::time::timeout(LIMIT, subscription.started()).await.unwrap();
        self.pods.push(Pod { name, service, ready: true, failing: false, leaving: false });
        subscription
    }

    /// One that takes in what it is sent.
    async fn working<E: Entry>(&mut self, process: u64) {
        let mut subscription = self.pod::<E>(process).await;
        self.tasks.spawn(async move {
            loop {
                subscription.ack(subscription.snapshot().version);
                subscription.changed().await;
            }
        });
    }

    /// What is told of an object once something is.
    async fn told(&mut self, of: &ResourceId) -> Programmed {
        let mut acks = self.publisher.acks("tel").unwrap();
        let news = async {
            loop {
                let known = acks.borrow_and_update().clone();
                let facts = Facts { pods: &self.pods, acks: &known, off: &BTreeSet::new() };
                let now = self.clock.now().mono;
                if let Some(news) = self.latch.settle(facts, now).remove(of) {
                    return news;
                }
                let deadline = self.latch.deadline(now).map(|at| self.clock.instant(at));
                tokio::select! {
                    changed = acks.changed() => changed.unwrap(),
                    () = async { tokio::time::sleep_until(deadline.unwrap()).await }, if deadline.is_some() => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, news).await.unwrap()
    }

    /// Returns once an object is live.
    async fn live(&mut self, of: &ResourceId) {
        // On a busy machine it may be called outstanding first.
        while self.told(of).await != Programmed::True {}
    }

    /// Bytes sent until now by kind.
    fn sent(&self, kind: &str) -> u64 {
        let name = format!("kubepbx_stream_sent_bytes_total{{kind=\"{kind}\"}} ");
        let text = self.metrics.encode();
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_changed_among_ten_thousand_is_live_in_each_pod_for_a_few_kilobytes() {
    let mut site = Site::new().await;
    site.change((0..10_000).map(|n| phone(n, "from-phones")));
    site.working::<RouterEntry>(1).await;
    site.working::<RouterEntry>(2).await;
    site.working::<RegistrarEntry>(3).await;
    site.live(&id(9999)).await;
    let (whole, before) = (site.sent("snapshot"), site.sent("delta"));
    let mut costs = Vec::new();
    for n in [0, 5000, 9999] {
        let begin = site.clock.now().mono;
        let before = site.sent("delta");
        site.change([phone(n, "from-elsewhere")]);
        site.live(&id(n)).await;
        costs.push((site.sent("delta") - before, site.clock.now().mono - begin));
    }
    println!("bytes to three pods, and time to live: {costs:?}");
    // Registrars need not hear of a context.
    let each = (site.sent("delta") - before) / 3 / 2;
    assert!((1..4000).contains(&each), "{each} bytes a pod");
    assert_eq!(site.sent("snapshot"), whole, "nobody was sent the whole again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_takes_nothing_is_named_until_it_does() {
    let mut site = Site::new().await;
    site.change([phone(1, "from-phones"), phone(2, "from-phones")]);
    site.working::<RegistrarEntry>(1).await;
    site.working::<RouterEntry>(2).await;
    let mut slow = site.pod::<RouterEntry>(3).await;
    slow.ack(slow.snapshot().version);
    site.live(&id(1)).await;
    site.change([phone(1, "from-elsewhere")]);
    let begin = site.clock.now().mono;
    let Programmed::False { reason, message } = site.told(&id(1)).await else { panic!() };
    assert_eq!((reason, message.as_str()), (Reason::NotAcknowledged, "not acknowledged by pbx-router-3"));
    assert!(site.clock.now().mono - begin >= QUIET);
    assert_eq!(site.latch.get(&id(2)), Some(&Programmed::True), "what did not change stays");
    while slow.snapshot().version != site.compiler.router().version {
        tokio::time::timeout(LIMIT, slow.changed()).await.unwrap();
    }
    slow.ack(slow.snapshot().version);
    site.live(&id(1)).await;
    let routers = |site: &Site| site.publisher.acks("tel").unwrap().borrow()[&Service::Router].len();
    assert_eq!(routers(&site), 2);
    site.publisher.forget("tel", Service::Router, "pbx-router-3");
    assert_eq!(routers(&site), 1, "a pod that is gone is forgotten");
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_password_stays_here_and_its_hashes_go_only_where_they_are_used() {
    const PASSWORD: &str = "canary-in-a-cage";
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _logged = tracing::subscriber::set_default(subscriber.finish());
    tracing::trace!("from here on");
    let auth = json!({"username": "8005", "passwordSecretRef": {"name": "phones", "key": "8005"}});
    let phone = |context: &str| {
        let spec = json!({"context": context, "auth": auth, "aor": {}});
        let spec = Arc::new(Spec::Endpoint(serde_json::from_value(spec).unwrap()));
        Change::Put(Resource { name: "8005".into(), generation: 1, created: None, spec })
    };
    let values = [("8005".to_owned(), SecretValue::new(PASSWORD))].into();
    let changes = [Change::Secret { name: "phones".into(), values }, phone("from-phones")];
    let mut printed = vec![format!("{changes:?}")];
    let mut site = Site::new().await;
    printed.push(format!("{:?}", site.change(changes)));
    fn sent<E: Entry>(subscription: &Subscription<E>) -> String {
        subscription.ack(subscription.snapshot().version);
        serde_json::to_string(&*subscription.snapshot()).unwrap()
    }
    let balancer = site.pod::<BalancerEntry>(1).await;
    let registrar = site.pod::<RegistrarEntry>(2).await;
    let router = site.pod::<RouterEntry>(3).await;
    let media = site.pod::<MediaEntry>(4).await;
    let conference = site.pod::<ConferenceEntry>(5).await;
    let users = [sent(&registrar), sent(&router)];
    let others = [sent(&balancer), sent(&media), sent(&conference)];
    let hashes = api::ha1("8005", "kubepbx", PASSWORD.as_bytes());
    assert!(users.iter().all(|text| text.contains(&hashes.md5) && text.contains(&hashes.sha256)));
    // It is told of, and then held because its Secret is gone.
    printed.push(format!("{:?}", site.told(&id(8005)).await));
    printed.push(format!("{:?}", site.change([Change::SecretGone { name: "phones".into() }])));
    let status = &site.compiler.statuses()[&id(8005)];
    assert_eq!(status.state, State::Held);
    let held = site.compiler.held();
    printed.push(format!("{:?} {status:?} {held:?} {:?}", site.compiler, operator::held::pack(&held, 1).unwrap()));
    printed.push(format!("{:?} {:?} {:?}", site.publisher, site.publisher.acks("tel"), site.latch));
    printed.push(site.metrics.encode());
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("from here on"), "nothing logged is seen here");
    printed.push(logged);
    let all = || printed.iter().chain(&others);
    assert!(!all().chain(&users).any(|text| text.contains(PASSWORD)));
    for text in all() {
        assert!(!text.contains(&hashes.md5) && !text.contains(&hashes.sha256), "{text}");
    }
}
