//! The relay as a service: its place among the peers, its settings and figures, events to the owners of legs, its drain.

use crate::config::Config;
use crate::driver::{self, Event, MediaHandle};
use contract::config::{MediaEntry, Snapshot};
use contract::media::MediaEvent;
use contract::peers::{Peer, PeerState, Peers};
use contract::{ProcessId, Service};
use prometheus_client::metrics::family::Family;
use runtime::health::{Part, Pulse};
use runtime::mesh::{Member, MemberHandle, Parcel, Unsent};
use runtime::metrics::{Counter, Gauge, Reason, count};
use runtime::source::Subscription;
use runtime::{Deps, Drain, Metrics, Running};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval};

/// How often figures and load are looked at.
const BEAT: Duration = Duration::from_millis(200);
/// A drained relay that has no calls stays for so long, until the others know that it takes none.
const LINGER: Duration = Duration::from_secs(2);
/// So long before the limit of a drain, or at half of it, owners are told to have their calls elsewhere.
const LEAVE: Duration = Duration::from_secs(60);
/// Who does not is told again after this.
const LEAVE_AGAIN: Duration = Duration::from_secs(5);
/// An event that its owner did not take is told again for so long, unless the owner is gone: who takes its calls over asks
/// for what it was told last.
const TELL: Duration = Duration::from_secs(10);
/// Events that wait to be told again.
const MAX_UNTOLD: usize = 4096;

/// Starts a relay, joins the mesh and serves until drained. What is published says how long a call may be without packets,
/// whatever `config` has. The handle takes commands from within the process.
///
/// # Errors
/// A port range without ports, an address that cannot be bound, a thread that cannot be made.
pub async fn serve(config: Config, deps: Deps<MediaEntry>) -> anyhow::Result<(Running, MediaHandle)> {
    let Deps { process, mesh, source, drain, metrics, health, .. } = deps;
    let (timeout, timeout_held) = timeouts(&source.snapshot());
    let leave = config.drain_limit.map(|limit| (limit / 2).max(limit.saturating_sub(LEAVE)));
    let relay = driver::build(Config { timeout, timeout_held, ..config }).await?;
    let handle = relay.handle.clone();
    let peers = mesh.peers();
    let mut member = mesh.join(Peer { ng: relay.ng, ..Peer::new(Service::Media, process) });
    let unsent = member.unsent();
    let ordered = source.ordered_to_drain();
    let mut running = Running::new();
    running.spawn("media settings", follow(handle.clone(), source, health.part("media")));
    let keeper = Keeper {
        relay,
        teller: Teller {
            member: member.handle(),
            peers,
            untold: VecDeque::new(),
            lost: metrics.reasons("media_events_untold", "Media events that reached no owner"),
        },
        member,
        unsent,
        drain,
        ordered,
        leave,
        pulse: health.pulse("media"),
        metrics,
    };
    running.spawn_main("media", keeper.run());
    Ok((running, handle))
}

/// Holds the relay as long as it serves.
struct Keeper {
    relay: driver::Running,
    member: Member,
    teller: Teller,
    unsent: mpsc::Receiver<Unsent>,
    drain: Drain,
    /// Whether the operator wants it emptied, which it may take back.
    ordered: watch::Receiver<bool>,
    /// How long after a drain began owners are told to have their calls elsewhere.
    leave: Option<Duration>,
    pulse: Pulse,
    metrics: Metrics,
}

impl Keeper {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut figures = BTreeMap::new();
        let mut tick = interval(BEAT);
        let mut draining: Option<Instant> = None;
        let mut leave: Option<Instant> = None;
        self.ordered.mark_changed();
        loop {
            tokio::select! {
                Some(event) = self.relay.events.recv() => self.teller.event(event, Instant::now()),
                Some(Unsent { to, parcel: Parcel::Event(event) }) = self.unsent.recv() => {
                    self.teller.untold(to, event, Instant::now() + TELL);
                }
                () = self.drain.draining(), if draining.is_none() => {
                    let now = Instant::now();
                    // What it was ordered before counts.
                    (draining, leave) = (Some(now), leave.or(self.leave.map(|after| now + after)));
                    self.take_new(false);
                }
                Ok(()) = self.ordered.changed(), if draining.is_none() => {
                    let drain = *self.ordered.borrow_and_update();
                    leave = self.leave.filter(|_| drain).map(|after| Instant::now() + after);
                    self.take_new(!drain);
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    self.pulse.beat();
                    self.teller.again(now);
                    let counters = self.relay.handle.counters();
                    self.member.set_load(counters.calls);
                    for (name, help, value) in counters.table() {
                        figures.entry(name).or_insert_with(|| Figure::new(&self.metrics, name, help)).set(value);
                    }
                    if counters.calls == 0 && draining.is_some_and(|at| at.elapsed() > LINGER) {
                        self.relay.shutdown().await;
                        return Ok(());
                    }
                    if counters.calls > 0 && leave.is_some_and(|at| now >= at) {
                        tracing::info!(calls = counters.calls, "the drain is nearly over: calls are to go elsewhere");
                        leave = Some(now + LEAVE_AGAIN);
                        self.relay.handle.leave();
                    }
                }
            }
        }
    }
}

impl Keeper {
    /// Whether calls that are not known yet are taken.
    fn take_new(&self, take: bool) {
        self.relay.handle.set_draining(!take);
        self.member.set_state(if take { PeerState::Serving } else { PeerState::Draining });
    }
}

/// Tells owners of legs what their relay saw.
struct Teller {
    member: MemberHandle,
    peers: watch::Receiver<Arc<Peers>>,
    /// What was not taken, in the order it is to be told in, and until when.
    untold: VecDeque<(Instant, ProcessId, MediaEvent)>,
    lost: Family<Reason, Counter>,
}

impl Teller {
    /// An event goes to the process that owns its leg. A foreign client's legs have an owner that is none of ours, or none.
    fn event(&mut self, event: Event, now: Instant) {
        let owner = event.owner.as_deref().and_then(|owner| owner.parse::<ProcessId>().ok());
        let Some(owner) = owner else { return };
        self.tell(owner, event.event, now + TELL);
    }

    fn tell(&mut self, owner: ProcessId, event: MediaEvent, until: Instant) {
        if self.member.tell(owner, event.clone()).is_err() {
            self.untold(owner, event, until);
        }
    }

    /// An event was not taken.
    fn untold(&mut self, owner: ProcessId, event: MediaEvent, until: Instant) {
        if self.untold.len() >= MAX_UNTOLD {
            count(&self.lost, "overflow");
        } else {
            self.untold.push_back((until, owner, event));
        }
    }

    /// Tells again what was not taken.
    fn again(&mut self, now: Instant) {
        for (until, owner, event) in std::mem::take(&mut self.untold) {
            let known = self.peers.borrow().get(owner).is_some();
            match now < until && known {
                true => self.tell(owner, event, until),
                false => count(&self.lost, if known { "late" } else { "owner_gone" }),
            }
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
    use contract::ng::{Command, Delete, Description, Query, Reply};
    use runtime::Environment;
    use runtime::media::{MediaControl as _, MediaError};
    use runtime::ng::{NgClient, Timing};
    use runtime::source::MemorySource;

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

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_relay_that_is_to_be_emptied_takes_nothing_new_until_that_is_taken_back_and_has_its_calls_moved() {
        let environment = Environment::in_memory();
        let mut router = environment.mesh.join(Peer::new(Service::Router, ROUTER));
        let mut told = router.events();
        let source = MemorySource::starting_at(limits(300, 1));
        let config = Config {
            rtp_address: [127, 0, 0, 1].into(),
            ports: 24300..=24339,
            drain_limit: Some(Duration::from_millis(200)),
            ..Config::default()
        };
        source.order_drain(true);
        let deps = environment.deps(RELAY, source.subscribe(RELAY));
        let (mut running, handle) = serve(config, deps).await.unwrap();
        let mut peers = environment.mesh.peers();
        let state = |state| move |peers: &Arc<Peers>| peers.get(RELAY).is_some_and(|p| p.state == state);
        soon(peers.wait_for(state(PeerState::Draining))).await.unwrap();
        assert!(matches!(connect(&handle, &ROUTER.to_string()).await, Reply::Error(_)));
        source.order_drain(false);
        soon(peers.wait_for(state(PeerState::Serving))).await.unwrap();
        assert!(matches!(connect(&handle, &ROUTER.to_string()).await, Reply::Sdp(_)));
        source.order_drain(true);
        let (from, event) = soon(told.recv()).await.unwrap();
        assert_eq!((from, event.kind), (RELAY, MediaEventKind::Draining));
        let gone = Delete { call_id: "one".into(), ..Delete::default() };
        handle.request(Command::Delete(gone)).await;
        // Empty, it stays, and may be wanted again; only its own drain ends it.
        soon(peers.wait_for(|peers| peers.get(RELAY).is_some_and(|p| p.load == 0))).await.unwrap();
        source.order_drain(false);
        soon(peers.wait_for(state(PeerState::Serving))).await.unwrap();
        environment.drain.start();
        soon(running.join()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_router_elsewhere_takes_a_call_over_and_is_told_to_have_it_elsewhere_when_the_drain_is_nearly_over() {
        let environment = Environment::in_memory();
        let other = ProcessId(3);
        let _former = environment.mesh.join(Peer::new(Service::Router, ROUTER));
        let mut router = environment.mesh.join(Peer::new(Service::Router, other));
        let mut told = router.events();
        let config = Config {
            rtp_address: [127, 0, 0, 1].into(),
            ports: 24200..=24239,
            ng: Some("127.0.0.1:0".parse().unwrap()),
            ng_allowed: vec![],
            ng_keys: Some((RELAY, environment.keys.clone())),
            drain_limit: Some(Duration::from_millis(200)),
            ..Config::default()
        };
        let source = MemorySource::starting_at(limits(300, 1));
        let (mut running, handle) = serve(config, environment.deps(RELAY, source.subscribe(RELAY))).await.unwrap();
        let client = |keys: &Arc<contract::KeyRing>, limit| {
            let timing = Timing { limit: Duration::from_millis(limit), ..Timing::default() };
            NgClient::bind([127, 0, 0, 1].into(), keys.clone(), environment.mesh.peers(), timing)
        };
        let stranger = client(&Environment::in_memory().keys, 100).await.unwrap();
        assert_eq!(stranger.request(RELAY, Command::Ping).await, Err(MediaError::Timeout));
        let client = client(&environment.keys, 10_000).await.unwrap();
        assert_eq!(client.request(RELAY, Command::Ping).await, Ok(Reply::Pong));
        connect(&handle, &ROUTER.to_string()).await;
        let own = Query { call_id: "one".into(), owner: Some(other.to_string()), ..Query::default() };
        assert!(matches!(client.request(RELAY, Command::Query(own)).await, Ok(Reply::Report { .. })));
        environment.drain.start();
        let (from, event) = soon(told.recv()).await.unwrap();
        assert_eq!((from, event.kind), (RELAY, MediaEventKind::Draining));
        let gone = Delete { call_id: "one".into(), ..Delete::default() };
        client.request(RELAY, Command::Delete(gone)).await.unwrap();
        soon(running.join()).await.unwrap();
    }

    #[tokio::test]
    async fn what_an_owner_did_not_take_is_told_again_in_order_until_it_is_gone() {
        let environment = Environment::in_memory();
        let member = environment.mesh.join(Peer::new(Service::Media, RELAY));
        let peers = watch::Sender::new(Arc::new(Peers(vec![Peer::new(Service::Router, ROUTER)])));
        let lost = environment.metrics.reasons("lost", "");
        let mut teller =
            Teller { member: member.handle(), peers: peers.subscribe(), untold: VecDeque::new(), lost: lost.clone() };
        let event = |seq| MediaEvent { seq, call: "one".into(), tag: None, kind: MediaEventKind::Silent };
        let now = Instant::now();
        // It is known, but cannot be reached yet.
        for seq in 1..=2 {
            teller.event(Event { owner: Some(ROUTER.to_string()), event: event(seq) }, now);
        }
        teller.again(now);
        assert_eq!(teller.untold.len(), 2);
        let mut router = environment.mesh.join(Peer::new(Service::Router, ROUTER));
        let mut told = router.events();
        teller.again(now);
        assert_eq!([told.recv().await.unwrap().1.seq, told.recv().await.unwrap().1.seq], [1, 2]);
        drop(router);
        teller.untold(ROUTER, event(3), now + TELL);
        teller.again(now + TELL);
        peers.send_replace(Arc::default());
        teller.event(Event { owner: Some(ROUTER.to_string()), event: event(4) }, now);
        teller.again(now);
        assert!(teller.untold.is_empty());
        for reason in ["late", "owner_gone"] {
            assert_eq!(lost.get_or_create(&Reason { reason }).get(), 1, "{reason}");
        }
    }
}
