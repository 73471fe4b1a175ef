//! The router's IO: mesh, store, relay, configuration and timers around [`crate::core::Core`].

use crate::Config;
use crate::core::{Core, Counters, View};
use crate::identify::Directory;
use crate::io::{Answer, Ask, AskId, Input, Output};
use contract::config::RouterEntry;
use contract::events::CallEvent;
use contract::location::StoreError;
use contract::media::MediaEvent;
use contract::ng::{Command, Reply};
use contract::peers::{Peer, PeerState, Peers};
use contract::{KeyRing, ProcessId, Service};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::drain::DrainGuard;
use runtime::log::Log;
use runtime::media::MediaControl;
use runtime::mesh::{Member, Parcel, Unsent};
use runtime::metrics::Reason;
use runtime::running::Done as Did;
use runtime::source::Subscription;
use runtime::store::{AorHint, Store};
use runtime::webhook::Webhooks;
use runtime::{Clock, Deps, Drain, Lookups, Running, entropy, timer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot, watch};

/// Events that `/v1/events` remembers.
const EVENTS: usize = 4096;
/// Requests of people that wait.
const REQUESTS: usize = 16;

/// Joins the mesh and serves until drained. The views are `calls`, `holds` and `events`, which can be followed; the
/// commands are to hang a call up, to ring whom a hold waits for, and to give a hold up.
///
/// # Errors
/// None at present; setting up may come to fail.
pub fn build(config: Config, deps: Deps<RouterEntry>, media: Arc<dyn MediaControl>) -> anyhow::Result<Running> {
    let Deps { process, mesh, store, keys, source, clock, drain, metrics, health } = deps;
    let peers = mesh.peers();
    let mut member = mesh.join(Peer::new(Service::Router, process));
    let (media_events, unsent) = (member.events(), member.unsent());
    let mut running = Running::new();
    let (asker, requests) = mpsc::channel(REQUESTS);
    for (name, make) in [("calls", Request::Calls as fn(_) -> _), ("holds", Request::Holds)] {
        let asker = asker.clone();
        running.view(name, move || {
            let asker = asker.clone();
            async move {
                let (tell, told) = oneshot::channel();
                // A router that is gone has nothing.
                let _ = asker.send(make(tell)).await;
                told.await.unwrap_or_else(|_| json!([]))
            }
        });
    }
    let commands = [
        ("calls", "hangup", Request::HangUp as fn(_, _) -> _),
        ("holds", "ring", Request::Ring),
        ("holds", "cancel", Request::GiveUp),
    ];
    for (name, verb, make) in commands {
        let asker = asker.clone();
        running.command(name, verb, move |id| {
            let asker = asker.clone();
            async move {
                let (tell, told) = oneshot::channel();
                let _ = asker.send(make(id, tell)).await;
                told.await.unwrap_or(Did::Gone)
            }
        });
    }
    let events = Log::new(process, EVENTS);
    running.log("events", events.clone());
    let directory = Directory::new(&source.snapshot());
    let driver = Driver {
        core: Core::new(config.limits.clone()),
        directory,
        known: Arc::default(),
        process,
        member,
        peers,
        store,
        keys,
        media,
        media_events,
        unsent,
        source,
        clock,
        drain,
        guard: None,
        lookups: Lookups::new(config.max_asks),
        lanes: BTreeMap::new(),
        ready: VecDeque::new(),
        requests,
        events,
        counted: Counters::default(),
        counts: metrics.reasons("router_events", "What happened to calls, by kind."),
        calls: metrics.gauge("router_calls", "Calls now."),
        legs: metrics.gauge("router_legs", "Legs now, ending ones included."),
        holds: metrics.gauge("router_holds", "Callees that calls wait for now, since they are asleep."),
        webhooks: Webhooks::new(),
        part: health.part("router"),
        pulse: health.pulse("router"),
        config,
    };
    running.spawn("router", driver.run());
    Ok(running)
}

/// The answer to a question, and the lane that is free again.
struct Done {
    id: Option<AskId>,
    lane: Option<String>,
    answer: Answer,
}

struct Driver {
    config: Config,
    core: Core,
    directory: Directory,
    known: Arc<Peers>,
    process: ProcessId,
    member: Member,
    peers: watch::Receiver<Arc<Peers>>,
    store: Arc<dyn Store>,
    keys: Arc<KeyRing>,
    media: Arc<dyn MediaControl>,
    media_events: mpsc::Receiver<(ProcessId, MediaEvent)>,
    unsent: mpsc::Receiver<Unsent>,
    source: Subscription<RouterEntry>,
    clock: Clock,
    drain: Drain,
    /// Held while there are calls.
    guard: Option<DrainGuard>,
    lookups: Lookups<Done>,
    /// What waits for another question about the same record or call: those are asked one after the other.
    lanes: BTreeMap<String, VecDeque<(Option<AskId>, Ask)>>,
    /// Answers that were known at once.
    ready: VecDeque<(AskId, Answer)>,
    requests: mpsc::Receiver<Request>,
    events: Log<CallEvent>,
    counted: Counters,
    counts: Family<Reason, Counter>,
    calls: Gauge,
    legs: Gauge,
    holds: Gauge,
    webhooks: Webhooks,
    part: runtime::health::Part,
    pulse: runtime::health::Pulse,
}

/// What people want, by way of the admin server.
enum Request {
    /// To see the calls.
    Calls(oneshot::Sender<Value>),
    /// A call to end.
    HangUp(String, oneshot::Sender<Did>),
    /// To see the holds.
    Holds(oneshot::Sender<Value>),
    /// Whom this hold waits for to be rung.
    Ring(String, oneshot::Sender<Did>),
    /// This hold to be given up.
    GiveUp(String, oneshot::Sender<Did>),
}

/// What woke the driver.
enum Woken {
    Message(contract::hop::Inside),
    Done(Done),
    Media(ProcessId, MediaEvent),
    Unsent(Unsent),
    Hint(AorHint),
    Request(Request),
    Configured,
    Peers,
    Drain,
    Beat,
    Tick,
}

impl Driver {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut rng = entropy();
        let mut draining = false;
        let mut hints = self.store.hints();
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        let mut limit = None;
        let end = tokio::time::sleep(Duration::MAX);
        tokio::pin!(end);
        self.configured();
        self.known = self.peers.borrow_and_update().clone();
        self.turn(Input::Tick, draining, &mut rng);
        loop {
            while let Some((id, answer)) = self.ready.pop_front() {
                self.turn(Input::Answered(id, answer), draining, &mut rng);
            }
            let woken = tokio::select! {
                message = self.member.recv() => match message {
                    Some(message) => Woken::Message(message),
                    None => anyhow::bail!("another process has this one's name"),
                },
                done = self.lookups.next() => Woken::Done(done),
                Some((relay, event)) = self.media_events.recv() => Woken::Media(relay, event),
                Some(unsent) = self.unsent.recv() => Woken::Unsent(unsent),
                hint = hints.recv() => match hint {
                    Ok(hint) => Woken::Hint(hint),
                    Err(RecvError::Lagged(_)) => Woken::Hint(AorHint::Missed),
                    Err(RecvError::Closed) => anyhow::bail!("the store is gone"),
                },
                Some(request) = self.requests.recv() => Woken::Request(request),
                () = self.source.changed() => Woken::Configured,
                Ok(()) = self.peers.changed() => Woken::Peers,
                () = self.drain.draining(), if !draining => Woken::Drain,
                _ = beat.tick() => Woken::Beat,
                // What was ordered of store and relays is done too.
                () = &mut end, if draining && self.lanes.is_empty() && self.core.is_idle() => return Ok(()),
                () = timer::sleep_until_mono(self.clock, self.core.deadline()) => Woken::Tick,
            };
            match woken {
                Woken::Message(inside) => self.turn(Input::Message(&inside), draining, &mut rng),
                Woken::Done(done) => self.done(done, draining, &mut rng),
                Woken::Media(relay, event) => self.turn(Input::Media { relay, event: &event }, draining, &mut rng),
                Woken::Unsent(Unsent { to, parcel: Parcel::Sip(bytes) }) => {
                    tracing::debug!(%to, "not taken");
                    runtime::metrics::count(&self.counts, "unsent");
                    self.turn(Input::Unsent(&bytes), draining, &mut rng);
                }
                // Routers tell of no media.
                Woken::Unsent(_) => {}
                Woken::Hint(AorHint::Missed) => self.turn(Input::RegistrationsMissed, draining, &mut rng),
                Woken::Hint(AorHint::Changed { aor, .. }) => {
                    if self.core.waits_for(&aor) {
                        self.turn(Input::Registered(&aor), draining, &mut rng);
                    }
                }
                // Who asked may have gone.
                Woken::Request(Request::Holds(tell)) => _ = tell.send(self.core.view_holds()),
                Woken::Request(Request::Ring(hold, tell)) => {
                    let known = self.core.has_hold(&hold);
                    self.turn(Input::Ring(&hold), draining, &mut rng);
                    _ = tell.send(if known { Did::Done } else { Did::Unknown });
                }
                Woken::Request(Request::GiveUp(hold, tell)) => {
                    let known = self.core.has_hold(&hold);
                    self.turn(Input::GiveUp(&hold), draining, &mut rng);
                    _ = tell.send(if known { Did::Done } else { Did::Unknown });
                }
                Woken::Request(Request::Calls(tell)) => _ = tell.send(self.core.view()),
                Woken::Request(Request::HangUp(call, tell)) => {
                    let known = self.core.has_call(&call);
                    self.turn(Input::HangUpCall(&call), draining, &mut rng);
                    _ = tell.send(if known { Did::Done } else { Did::Unknown });
                }
                Woken::Configured => self.configured(),
                Woken::Peers => {
                    self.known = self.peers.borrow_and_update().clone();
                    self.turn(Input::Tick, draining, &mut rng);
                }
                Woken::Drain => {
                    draining = true;
                    limit = Some(self.clock.now().mono + self.config.drain_limit);
                    self.member.set_state(PeerState::Draining);
                    end.as_mut().reset(tokio::time::Instant::now() + self.config.linger);
                }
                Woken::Beat => {
                    self.pulse.beat();
                    self.count();
                    if limit.is_some_and(|limit| self.clock.now().mono >= limit) {
                        limit = None;
                        self.turn(Input::HangUp, draining, &mut rng);
                    }
                }
                Woken::Tick => self.turn(Input::Tick, draining, &mut rng),
            }
        }
    }

    /// A new snapshot: it is in use from the next input on.
    fn configured(&mut self) {
        let snapshot = self.source.snapshot();
        self.directory = Directory::new(&snapshot);
        self.source.ack(snapshot.version);
        if !snapshot.entries.is_empty() {
            self.part.ready();
        }
    }

    fn turn(&mut self, input: Input<'_>, draining: bool, rng: &mut dyn rand::RngCore) {
        let mut unsent = self.step(input, draining, rng);
        // What could not be sent may lead to more that cannot; each failure ends a transaction, so this ends.
        while let Some(bytes) = unsent.pop() {
            unsent.extend(self.step(Input::Unsent(&bytes), draining, rng));
        }
        let calls = self.core.load().calls;
        if calls == 0 {
            self.guard = None;
        } else if self.guard.is_none() {
            self.guard = Some(self.drain.guard());
        }
    }

    /// Hands one input to the core and does what it wants; returns requests that did not reach their process.
    fn step(&mut self, input: Input<'_>, draining: bool, rng: &mut dyn rand::RngCore) -> Vec<bytes::Bytes> {
        // Whoever left a moment ago is not to be chosen, whichever news came first.
        if self.peers.has_changed().unwrap_or(false) {
            self.known = self.peers.borrow_and_update().clone();
        }
        let view =
            View { directory: &self.directory, peers: &self.known, keys: &self.keys, me: self.process, draining };
        self.core.handle(&view, input, self.clock.now(), rng);
        let mut unsent = Vec::new();
        while let Some(output) = self.core.poll() {
            match output {
                Output::Send { to, bytes } => {
                    if let Err(error) = self.member.send(to, bytes.clone()) {
                        tracing::debug!(%to, %error, "not sent");
                        runtime::metrics::count(&self.counts, "unsent");
                        unsent.push(bytes);
                    }
                }
                Output::Ask(id, ask) => self.ask(id, ask),
                Output::Event(event) => self.tell(event),
            }
        }
        unsent
    }

    fn tell(&mut self, event: CallEvent) {
        tracing::info!(call = %event.call, kind = ?event.kind, "event");
        self.events.write(event);
    }

    /// Asks, or waits until what was asked before about the same thing is answered.
    fn ask(&mut self, id: Option<AskId>, ask: Ask) {
        let lane = lane(&ask);
        if let Some(waiting) = lane.as_ref().and_then(|lane| self.lanes.get_mut(lane)) {
            waiting.push_back((id, ask));
            return;
        }
        if let Some(lane) = &lane {
            self.lanes.insert(lane.clone(), VecDeque::new());
        }
        self.begin(id, lane, ask);
    }

    fn begin(&mut self, id: Option<AskId>, lane: Option<String>, ask: Ask) {
        let means = Means { store: self.store.clone(), media: self.media.clone(), webhooks: self.webhooks.clone() };
        let unix = self.clock.now().unix();
        let (limit, failure, freed) = (self.limit(&ask), failure(&ask, "too many questions"), lane.clone());
        let late = match &ask {
            Ask::Media { .. } => Answer::NoRelay("no answer in time".to_owned()),
            other => self::failure(other, "no answer in time"),
        };
        let asked = self.lookups.push(async move {
            let answer = tokio::time::timeout(limit, perform(means, unix, ask)).await.unwrap_or(late);
            Done { id, lane, answer }
        });
        if asked.is_err() {
            runtime::metrics::count(&self.counts, "ask_overflow");
            if let Some(id) = id {
                self.ready.push_back((id, failure));
            }
            self.free(freed);
        }
    }

    /// How long an answer may take.
    fn limit(&self, ask: &Ask) -> Duration {
        match ask {
            // It has limits of its own, and a queue.
            Ask::Notify { .. } => self.config.notify_timeout,
            Ask::Media { command: Command::Ping, .. } => self.config.ask_timeout.min(crate::probe::PERIOD),
            _ => self.config.ask_timeout,
        }
    }

    /// The next question of a lane may be asked.
    fn free(&mut self, lane: Option<String>) {
        let Some(lane) = lane else { return };
        match self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) {
            Some((id, ask)) => self.begin(id, Some(lane), ask),
            None => {
                self.lanes.remove(&lane);
            }
        }
    }

    fn done(&mut self, done: Done, draining: bool, rng: &mut dyn rand::RngCore) {
        self.free(done.lane);
        if let Some(id) = done.id {
            self.turn(Input::Answered(id, done.answer), draining, rng);
        }
    }

    fn count(&mut self) {
        let (old, new) = (self.counted, self.core.counters());
        self.counted = new;
        for (kind, old, new) in [
            ("call", old.calls, new.calls),
            ("answered", old.answered, new.answered),
            ("challenged", old.challenged, new.challenged),
            ("spoofed", old.spoofed, new.spoofed),
            ("overflow", old.overflow, new.overflow),
            ("branch_dropped", old.branches_dropped, new.branches_dropped),
            ("unprotected", old.unprotected, new.unprotected),
            ("media_error", old.media_errors, new.media_errors),
            ("media_timeout", old.media_timeouts, new.media_timeouts),
            ("relay_lost", old.relays_lost, new.relays_lost),
            ("media_moved", old.moves, new.moves),
            ("taken_over", old.adopted, new.adopted),
            ("lost", old.lost, new.lost),
            ("left", old.left, new.left),
            ("forwarded", old.forwarded, new.forwarded),
            ("astray", old.astray, new.astray),
            ("held", old.held, new.held),
            ("woken", old.woken, new.woken),
            ("notify_error", old.notify_errors, new.notify_errors),
            ("dropped", old.dropped, new.dropped),
        ] {
            if new > old {
                self.counts.get_or_create(&Reason { reason: kind }).inc_by(new - old);
            }
        }
        let load = self.core.load();
        self.calls.set(i64::try_from(load.calls).unwrap_or(i64::MAX));
        self.legs.set(i64::try_from(load.legs).unwrap_or(i64::MAX));
        self.holds.set(i64::try_from(load.holds).unwrap_or(i64::MAX));
        self.member.set_load(load.calls as u64);
    }
}

/// Questions that must be asked in order: those about one record, and those about one call at one relay.
fn lane(ask: &Ask) -> Option<String> {
    match ask {
        Ask::Load { .. } | Ask::UseNonce { .. } => None,
        Ask::Standing { .. } | Ask::Owners | Ask::Owned { .. } | Ask::Take { .. } | Ask::Record { .. } => None,
        Ask::Save { kind, id, .. } | Ask::Remove { kind, id, .. } => Some(format!("{kind}/{id}")),
        Ask::Notify { hold, .. } => Some(format!("hold/{hold}")),
        Ask::Media { relay, command } => Some(format!("{relay}/{}", crate::media::call_of(command))),
    }
}

/// The answer to a question that could not be asked.
fn failure(ask: &Ask, why: &str) -> Answer {
    let store = || StoreError::Unavailable(why.to_owned());
    match ask {
        Ask::Load { .. } => Answer::Bindings(Err(store())),
        Ask::UseNonce { .. } => Answer::Nonce(Err(store())),
        Ask::Save { .. } | Ask::Remove { .. } => Answer::Stored(Err(store())),
        Ask::Standing { .. } => Answer::Standing(Err(store())),
        Ask::Owners => Answer::Owners(Err(store())),
        Ask::Owned { .. } => Answer::Owned(Err(store())),
        Ask::Take { .. } => Answer::Taken(Err(store())),
        Ask::Record { .. } => Answer::Record(Err(store())),
        Ask::Notify { .. } => Answer::Notified(Err(why.to_owned())),
        // The relay is not to blame.
        Ask::Media { .. } => Answer::Sdp(Err(why.to_owned())),
    }
}

/// What questions are asked of.
struct Means {
    store: Arc<dyn Store>,
    media: Arc<dyn MediaControl>,
    webhooks: Webhooks,
}

async fn perform(means: Means, unix: u64, ask: Ask) -> Answer {
    let Means { store, media, webhooks } = means;
    match ask {
        Ask::Load { aor } => Answer::Bindings(store.load(&aor).await),
        Ask::UseNonce { nonce, nc, ttl } => Answer::Nonce(store.use_nonce(&nonce, nc, ttl, unix).await),
        Ask::Save { kind, id, owner, value } => Answer::Stored(store.save(kind, &id, owner, value).await),
        Ask::Remove { kind, id, owner } => Answer::Stored(store.remove(kind, &id, owner).await),
        Ask::Standing { process } => Answer::Standing(store.standing(process).await),
        Ask::Owners => Answer::Owners(store.owners().await),
        Ask::Owned { process } => Answer::Owned(store.owned(process).await),
        Ask::Take { records, to } => Answer::Taken(store.take(&records, to).await),
        Ask::Record { kind, id } => Answer::Record(store.record(kind, &id).await.map(|r| r.map(|(owner, _)| owner))),
        Ask::Notify { webhook, body, .. } => Answer::Notified(webhooks.post(&webhook, body, unix).await),
        Ask::Media { relay, command } => match media.request(relay, command).await {
            Ok(Reply::Sdp(sdp)) => {
                Answer::Sdp(String::from_utf8(sdp).map_err(|_| "a description that is not UTF-8".to_owned()))
            }
            Ok(Reply::Error(reason)) => Answer::Sdp(Err(reason)),
            Ok(_) => Answer::Sdp(Ok(String::new())),
            Err(error) => Answer::NoRelay(error.to_string()),
        },
    }
}
