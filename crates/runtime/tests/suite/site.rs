//! A source of configuration served over loopback TLS, what follows it, and a wire between them that counts and fails.

use contract::ProcessId;
use contract::config::{Delta, Entry, Snapshot, Version, entry_hash};
use contract::process::Service;
use futures::future::BoxFuture;
use runtime::source::{MemorySource, Subscription};
use runtime::stream::client::{Follow, Timing, follow};
use runtime::stream::registry::{Follower, Registry};
use runtime::stream::server::{Authorise, Denied, Identity, Leader, Server};
use runtime::stream::{listen, tls};
use runtime::{Clock, Metrics};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// No wait of a test takes longer, unless the code is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Awaits, but not for ever.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("within the limit")
}

/// The plainest entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Number(pub(crate) u32);

impl Entry for Number {
    const SERVICE: Service = Service::Router;
}

type Entries = BTreeMap<String, Arc<Number>>;

/// A publisher's view: entries and the versions made of them.
pub(crate) struct Publisher {
    pub(crate) source: MemorySource<Number>,
    entries: Entries,
    pub(crate) version: Version,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self { source: MemorySource::new(), entries: Entries::new(), version: Version::default() }
    }

    /// The delta to the state with this change.
    pub(crate) fn change(&mut self, put: &[(&str, u32)], delete: &[&str]) -> Delta<Number> {
        let put: Entries = put.iter().map(|(k, v)| ((*k).to_owned(), Arc::new(Number(*v)))).collect();
        let hash = |key: &str, entries: &Entries| entries.get(key).map_or(0, |e| entry_hash(key, e.as_ref()));
        let from = self.version;
        let mut sum = from.hash;
        for key in delete.iter().copied().chain(put.keys().map(String::as_str)) {
            sum = sum.wrapping_sub(hash(key, &self.entries)).wrapping_add(hash(key, &put));
        }
        self.entries.retain(|k, _| !delete.contains(&k.as_str()));
        self.entries.extend(put.clone());
        self.version = Version { epoch: from.epoch, n: from.n + 1, hash: sum };
        Delta { from, to: self.version, put, delete: delete.iter().map(|k| (*k).to_owned()).collect() }
    }

    pub(crate) fn publish(&mut self, put: &[(&str, u32)], delete: &[&str]) {
        let delta = self.change(put, delete);
        self.source.publish(delta).unwrap();
    }

    pub(crate) fn whole(&self) -> Snapshot<Number> {
        Snapshot { version: self.version, entries: self.entries.clone() }
    }

    /// One that leads after this one: the same entries in the next epoch, in a source of its own.
    pub(crate) fn next_epoch(&self) -> Self {
        let version = Version { epoch: self.version.epoch + 1, n: 1, hash: self.version.hash };
        let whole = Snapshot { version, entries: self.entries.clone() };
        Self { source: MemorySource::starting_at(whole), entries: self.entries.clone(), version }
    }
}

/// Takes tokens of the form `namespace/account/pod`; `busy` cannot be judged.
struct Tokens;

impl Authorise for Tokens {
    fn authorise<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Denied>> {
        let mut parts = token.split('/').map(str::to_owned);
        let who = match (parts.next(), parts.next(), parts.next()) {
            (Some(busy), None, None) if busy == "busy" => Err(Denied::Unavailable("no API server".into())),
            (Some(namespace), Some(account), pod) => Ok(Identity { namespace, account, pod }),
            _ => Err(Denied::Invalid("not a token".into())),
        };
        Box::pin(async move { who })
    }
}

/// An operator's stream on loopback, serving namespace `tel`, whose PBX is `pbx`.
pub(crate) struct Site {
    pub(crate) registry: Registry,
    pub(crate) leader: watch::Sender<Leader>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) dir: tempfile::TempDir,
    ping: Duration,
    authority: tls::Pair,
    serving: Arc<tls::Serving>,
    tasks: JoinSet<()>,
}

const PING: Duration = Duration::from_millis(200);

fn now() -> Duration {
    Clock::new().now().wall
}

impl Site {
    /// Listens, leads, and serves this source.
    pub(crate) async fn new<E: Entry>(source: &MemorySource<E>) -> Self {
        Self::with(tls::Pair::authority(now()).unwrap(), PING, source).await
    }

    /// One that is as patient as in production.
    pub(crate) async fn patient<E: Entry>(source: &MemorySource<E>) -> Self {
        Self::with(tls::Pair::authority(now()).unwrap(), contract::stream::PING, source).await
    }

    /// Another operator of the same installation.
    pub(crate) async fn beside<E: Entry>(other: &Site, source: &MemorySource<E>) -> Self {
        Self::with(other.authority.clone(), PING, source).await
    }

    async fn with<E: Entry>(authority: tls::Pair, ping: Duration, source: &MemorySource<E>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let serving = tls::Serving::new(&authority.issue(&["127.0.0.1".into()], now()).unwrap()).unwrap();
        let (registry, metrics) = (Registry::new(Clock::new()), Metrics::new());
        let (leader, leads) = watch::channel(Leader::Here { epoch: 1 });
        let mut server = Server::new(Arc::new(Tokens), registry.clone(), leads, metrics.clone());
        server.ping = ping;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let config = serving.config().unwrap();
        tasks.spawn(async move { listen::serve(listener, config, server.router()).await.unwrap() });
        let site = Self { registry, leader, address, metrics, dir, ping, authority, serving, tasks };
        site.write("ca.crt", &site.authority.certificate);
        site.write("token", "tel/pbx-router");
        site.registry.serve_one("tel", "pbx", source);
        site
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Signs with a new authority from now on, which is not in the file yet.
    pub(crate) fn change_authority(&mut self) -> String {
        self.authority = tls::Pair::authority(now()).unwrap();
        self.serving.replace(&self.authority.issue(&["127.0.0.1".into()], now()).unwrap()).unwrap();
        self.authority.certificate.clone()
    }

    /// All connections end, and nothing answers any more.
    pub(crate) async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// Follows by way of this address.
    pub(crate) fn follow_at<E: Entry>(&self, address: SocketAddr, process: u64, metrics: &Metrics) -> Subscription<E> {
        let ms = Duration::from_millis;
        follow(Follow {
            operator: format!("https://{address}"),
            ca: self.path("ca.crt"),
            token: self.path("token"),
            process: ProcessId(process),
            pod: format!("router-{process}"),
            timing: Timing { ping: self.ping, least: ms(10), most: ms(100), connect: Duration::from_secs(2) },
            metrics: metrics.clone(),
        })
    }

    pub(crate) fn follow(&self, process: u64, metrics: &Metrics) -> Subscription<Number> {
        self.follow_at(self.address, process, metrics)
    }

    /// Returns once what is known of a process satisfies this.
    pub(crate) async fn known(&self, process: u64, is: impl Fn(Option<&Follower>) -> bool) {
        let mut acks = self.registry.acks("tel").expect("a namespace that is served");
        let seen = |acks: &Arc<runtime::stream::registry::Acks>| {
            is(acks.get(&Service::Router).and_then(|followers| followers.get(&ProcessId(process))))
        };
        soon(acks.wait_for(seen)).await.expect("a namespace that stays");
    }

    /// A request of its own connection: status, head and body. A body without end is read until `until` holds of it.
    pub(crate) async fn ask(&self, request: &str, until: impl Fn(&str) -> bool) -> (u16, String, String) {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        soon(async {
            loop {
                let whole = String::from_utf8_lossy(&text);
                let ended = whole.split_once("\r\n\r\n").is_some_and(|(_, body)| until(body));
                if ended || stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        })
        .await;
        let text = String::from_utf8(text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let config = tls::client(self.authority.certificate.as_bytes()).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = self.address.ip().into();
        tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
    }
}

/// Waits for what nothing announces.
pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The value of a metric without labels, 0 while there is none.
pub(crate) fn metric(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// A wire to a site that counts what passes and can be held.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    bytes: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
    /// Connections before this one are held: nothing passes on them.
    held: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn to(site: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (bytes, made, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), watch::Sender::new(0));
        let (count, numbers, gate) = (bytes.clone(), made.clone(), held.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(site).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let (down, up) = (count.clone(), count.clone());
                let (one, other) = (gate.subscribe(), gate.subscribe());
                connections.spawn(async move {
                    tokio::select! {
                        () = pass(far_in, near_out, down, number, one) => {}
                        () = pass(near_in, far_out, up, number, other) => {}
                    }
                });
            }
        });
        Self { address, bytes, made, held, _tasks: tasks }
    }

    /// Nothing passes any more on the connections that there are; those to come work.
    pub(crate) fn hold(&self) {
        self.held.send_replace(self.made());
    }

    /// Everything passes again.
    pub(crate) fn release(&self) {
        self.held.send_replace(0);
    }

    /// Connections that were made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }

    /// Bytes that have passed until now, both ways.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    count: Arc<AtomicU64>,
    number: u64,
    mut held: watch::Receiver<u64>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n) = from.read(&mut buffer).await {
        if n == 0 || held.wait_for(|held| number >= *held).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        count.fetch_add(n as u64, Ordering::SeqCst);
    }
}
