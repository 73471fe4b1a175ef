//! The relay as a service: its place among the peers, its settings and figures, events to the owners of legs, its drain.

use crate::config::Config;
use crate::driver::{self, Event, MediaHandle};
use contract::config::{MediaEntry, Snapshot};
use contract::peers::{Peer, PeerState};
use contract::{ProcessId, Service};
use runtime::health::{Part, Pulse};
use runtime::mesh::Member;
use runtime::metrics::{Counter, Gauge, count};
use runtime::source::Subscription;
use runtime::{Deps, Drain, Metrics, Running};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// How often figures and load are looked at.
const BEAT: Duration = Duration::from_millis(200);
/// A drained relay that has no calls stays for so long, until the others know that it takes none.
const LINGER: Duration = Duration::from_secs(2);

/// Starts a relay, joins the mesh and serves until drained. What is published says how long a call may be without packets,
/// whatever `config` has. The handle takes commands from within the process.
///
/// # Errors
/// A port range without ports, an address that cannot be bound, a thread that cannot be made.
pub async fn serve(config: Config, deps: Deps<MediaEntry>) -> anyhow::Result<(Running, MediaHandle)> {
    let Deps { process, mesh, source, drain, metrics, health, .. } = deps;
    let (timeout, timeout_held) = timeouts(&source.snapshot());
    let relay = driver::build(Config { timeout, timeout_held, ..config }).await?;
    let handle = relay.handle.clone();
    let member = mesh.join(Peer { ng: relay.ng, ..Peer::new(Service::Media, process) });
    let mut running = Running::new();
    running.spawn("media settings", follow(handle.clone(), source, health.part("media")));
    let keeper = Keeper { relay, member, drain, pulse: health.pulse("media"), metrics };
    running.spawn_main("media", keeper.run());
    Ok((running, handle))
}

/// Holds the relay as long as it serves.
struct Keeper {
    relay: driver::Running,
    member: Member,
    drain: Drain,
    pulse: Pulse,
    metrics: Metrics,
}

impl Keeper {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut figures = BTreeMap::new();
        let untold = self.metrics.reasons("media_events_untold", "Media events that reached no owner");
        let mut tick = interval(BEAT);
        let mut draining = None;
        loop {
            tokio::select! {
                Some(event) = self.relay.events.recv() => self.tell(event, |why| count(&untold, why)),
                () = self.drain.draining(), if draining.is_none() => {
                    draining = Some(Instant::now());
                    self.relay.handle.drain();
                    self.member.set_state(PeerState::Draining);
                }
                _ = tick.tick() => {
                    self.pulse.beat();
                    let counters = self.relay.handle.counters();
                    self.member.set_load(counters.calls);
                    for (name, help, value) in counters.table() {
                        figures.entry(name).or_insert_with(|| Figure::new(&self.metrics, name, help)).set(value);
                    }
                    if counters.calls == 0 && draining.is_some_and(|at: Instant| at.elapsed() > LINGER) {
                        self.relay.shutdown().await;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// An event goes to the process that owns its leg. A foreign client's legs have an owner that is none of ours, or none.
    fn tell(&self, event: Event, lost: impl Fn(&'static str)) {
        let owner = event.owner.as_deref().and_then(|owner| owner.parse::<ProcessId>().ok());
        let Some(owner) = owner else { return };
        if let Err(error) = self.member.handle().tell(owner, event.event) {
            tracing::debug!(%owner, %error, "a media event was not told");
            lost("unreachable");
        }
    }
}

/// One of the relay's figures as a metric.
enum Figure {
    Now(Gauge),
    /// A counter only goes up.
    Ever(Counter),
}

impl Figure {
    fn new(metrics: &Metrics, name: &str, help: &str) -> Self {
        match name.strip_suffix("_total") {
            Some(name) => Self::Ever(metrics.counter(&format!("media_{name}"), help)),
            None => Self::Now(metrics.gauge(&format!("media_{name}"), help)),
        }
    }

    fn set(&self, value: u64) {
        match self {
            Self::Now(gauge) => _ = gauge.set(i64::try_from(value).unwrap_or(i64::MAX)),
            Self::Ever(counter) => _ = counter.inc_by(value.saturating_sub(counter.get())),
        }
    }
}

/// How long a joined call, and a held or lone one, may be without packets: as the installation says, else the relay's
/// own limits.
fn timeouts(snapshot: &Snapshot<MediaEntry>) -> (Duration, Duration) {
    match snapshot.entries.values().next().map(AsRef::as_ref) {
        Some(MediaEntry::Pbx { timeout, held_timeout }) => {
            (Duration::from_secs((*timeout).into()), Duration::from_secs((*held_timeout).into()))
        }
        None => {
            let own = Config::default();
            (own.timeout, own.timeout_held)
        }
    }
}

/// Keeps the relay's settings at what is published, and acknowledges each version.
async fn follow(handle: MediaHandle, mut source: Subscription<MediaEntry>, part: Part) -> anyhow::Result<()> {
    loop {
        let snapshot = source.snapshot();
        let (timeout, held) = timeouts(&snapshot);
        handle.set_timeouts(timeout, held);
        source.ack(snapshot.version);
        part.ready();
        source.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::config::{Version, entry_hash};
    use contract::media::MediaEventKind;
    use contract::ng::{Command, Description, Reply};
    use runtime::Environment;
    use runtime::source::MemorySource;
    use std::sync::Arc;

    const RELAY: ProcessId = ProcessId(1);
    const ROUTER: ProcessId = ProcessId(2);

    fn limits(timeout: u32, n: u64) -> Snapshot<MediaEntry> {
        let entry = MediaEntry::Pbx { timeout, held_timeout: 3600 };
        let version = Version { epoch: 1, n, hash: entry_hash("pbx", &entry) };
        Snapshot { version, entries: BTreeMap::from([("pbx".to_owned(), Arc::new(entry))]) }
    }

    async fn soon<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
    }

    async fn connect(handle: &MediaHandle, owner: &str) -> Reply {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let say = || {
            let plain = Description::new("one", "a", Some("b"), sdp.as_bytes().to_vec());
            Description { owner: Some(owner.to_owned()), ..plain }
        };
        handle.request(Command::Offer(say())).await;
        handle.request(Command::Answer(say())).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn limits_hold_for_calls_that_exist_owners_are_told_and_a_drain_waits_for_the_last_call() {
        let environment = Environment::in_memory();
        let mut router = environment.mesh.join(Peer::new(Service::Router, ROUTER));
        let mut told = router.events();
        let source = MemorySource::starting_at(limits(300, 1));
        let config = Config { rtp_address: [127, 0, 0, 1].into(), ports: 24100..=24139, ..Config::default() };
        let deps = environment.deps(RELAY, source.subscribe(RELAY));
        let (mut running, handle) = serve(config, deps).await.unwrap();
        soon(source.live(source.version())).await;
        assert!(environment.health.missing().is_empty());
        connect(&handle, &ROUTER.to_string()).await;
        let mut peers = environment.mesh.peers();
        soon(peers.wait_for(|p| p.get(RELAY).is_some_and(|p| p.load == 1))).await.unwrap();
        environment.drain.start();
        soon(peers.wait_for(|p| p.serving(Service::Media).count() == 0)).await.unwrap();
        assert!(matches!(connect(&handle, &ROUTER.to_string()).await, Reply::Sdp(_)), "what is known goes on");
        let short = limits(1, 2);
        let version = short.version;
        source.publish_snapshot(short).unwrap();
        soon(source.live(version)).await;
        let (from, event) = soon(told.recv()).await.unwrap();
        assert_eq!((from, event.kind), (RELAY, MediaEventKind::SessionTimeout));
        soon(running.join()).await.unwrap();
        assert!(environment.mesh.peers().borrow().get(RELAY).is_none());
    }
}
