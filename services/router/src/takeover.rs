//! Who owns what: the legs of a router that is gone are divided among the survivors, and a router that lost its own
//! (it was frozen, or cut off from the store) drops them without a word.
//!
//! Twice a second the store is asked how this process stands with it. Owners that are no peers any more are listed; of
//! what they own each survivor takes the calls that the rendezvous hash of the call's family gives it, as balancers do
//! when they send requests there. A process that finds itself to have slept does nothing before it knows that it still
//! owns its calls; what was not answered yet it gives up where the others must have given it up.

use crate::call::CallKey;
use crate::cause;
use crate::core::{Core, Then, Turn};
use crate::elsewhere::Parked;
use crate::io::{Answer, Ask, AskId, Input};
use bytes::Bytes;
use contract::hop::Inside;
use contract::leg::family;
use contract::location::StoreError;
use contract::media::MediaEvent;
use contract::peers::PeerState;
use contract::records::{Key, Owner, Standing, Stored};
use contract::{ProcessId, Service, rendezvous};
use dialplan::Cause;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How often the store is asked.
pub(crate) const PERIOD: Duration = Duration::from_millis(500);
/// After so long without a turn others may have taken our calls: peer records last 1.5 s, renewed each 0.5 s.
const DOUBT: Duration = Duration::from_secs(1);
/// After so long without a turn our peer record is gone, and with it every INVITE that balancers had here unanswered.
const LAPSED: Duration = Duration::from_millis(1500);
/// Owners are listed at least so often, and at once when a router goes.
const LOOK: Duration = Duration::from_secs(3);
/// What a gone router owned and nobody took for so long, anybody takes.
const LEFT: Duration = Duration::from_secs(10);
/// Calls that are being taken at once.
const AT_ONCE: usize = 256;
/// Calls whose records are written again in a period, after the store lost them.
const REFILL: usize = 500;
/// Inputs that wait while we are in doubt.
const HELD: usize = 16_384;
/// Routers that are remembered as seen.
const SEEN: usize = 1024;

/// What the store was asked, for [`Then::Takeover`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// How we stand; `settle`: and everything waits for it.
    Standing { settle: bool },
    /// What we own.
    Check { settle: bool },
    /// Who owns anything.
    Owners,
    /// What one that is gone owns.
    Owned(ProcessId),
    /// To give us the records of this family.
    Taken(String),
    /// Who has this leg.
    Sought(String),
}

/// An input that waits.
#[derive(Debug)]
enum Held {
    Message(Inside),
    Answered(AskId, Answer),
    Media(ProcessId, MediaEvent),
    Unsent(Bytes),
    HangUp,
    HangUpCall(String),
    Ring(String),
    GiveUp(String),
}

/// What is known of owners and of our own standing.
#[derive(Debug, Default)]
pub(crate) struct Takeover {
    /// Since when whoever is there could be seen.
    started: Option<Duration>,
    /// The last turn.
    last: Option<Duration>,
    next: Option<Duration>,
    looked: Option<Duration>,
    /// Routers that were peers.
    seen: BTreeSet<ProcessId>,
    /// Owners that are gone, since when, and whether their list is asked for.
    gone: BTreeMap<ProcessId, (Duration, bool)>,
    queue: VecDeque<(String, Vec<Key>)>,
    /// Families asked for or waiting in the queue.
    pub(crate) taking: BTreeSet<String>,
    under_way: usize,
    asked: bool,
    listing: bool,
    standing: Option<Standing>,
    store_lost: bool,
    doubt: Option<VecDeque<Held>>,
    /// The others thought us gone.
    lapsed: bool,
    refill: VecDeque<CallKey>,
    /// Conferences that were asked for something.
    pub(crate) conferences: BTreeSet<ProcessId>,
    /// Requests for legs that are not here.
    pub(crate) parked: BTreeMap<String, Parked>,
}

impl Takeover {
    /// When the next look is due; none while we are in doubt.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// True while nothing may be done.
    pub(crate) fn in_doubt(&self) -> bool {
        self.doubt.is_some()
    }
}

impl Core {
    /// Gives an input back that may be handled now.
    pub(crate) fn admit<'a>(&mut self, turn: &mut Turn<'_>, input: Input<'a>) -> Option<Input<'a>> {
        let now = turn.now.mono;
        self.takeover.started.get_or_insert(now);
        let slept = self.takeover.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_sub(last));
        // Within one process nobody goes on while we stand still.
        let apart = turn.view.peers.get(turn.view.me).is_some_and(|own| !own.address.is_empty());
        let lapsed = slept >= LAPSED && apart;
        if slept > DOUBT && (lapsed || !self.calls.is_empty()) && self.takeover.doubt.is_none() {
            tracing::warn!(?slept, "this process stood still: its calls may be another's by now");
            self.takeover.doubt = Some(VecDeque::new());
            self.takeover.lapsed = lapsed;
            self.takeover.next = None;
            let ask = Ask::Standing { process: turn.view.me };
            self.ask(ask, Then::Takeover(Step::Standing { settle: true }));
        }
        let Some(held) = self.takeover.doubt.as_mut() else {
            let tick = matches!(input, Input::Tick);
            self.look(turn, tick);
            return Some(input);
        };
        match input {
            Input::Answered(id, answer) => match self.asks.get(&id) {
                Some(Then::Takeover(Step::Standing { settle: true } | Step::Check { settle: true })) => {
                    return Some(Input::Answered(id, answer));
                }
                // Bounded, as questions are.
                _ => held.push_back(Held::Answered(id, answer)),
            },
            Input::HangUp => held.push_back(Held::HangUp),
            // What registers meanwhile is found when bindings are read again.
            Input::Tick | Input::Registered(_) | Input::RegistrationsMissed => {}
            _ if held.len() >= HELD => self.counters.overflow += 1,
            Input::HangUpCall(id) => held.push_back(Held::HangUpCall(id.to_owned())),
            Input::Ring(id) => held.push_back(Held::Ring(id.to_owned())),
            Input::GiveUp(id) => held.push_back(Held::GiveUp(id.to_owned())),
            Input::Message(inside) => held.push_back(Held::Message(inside.clone())),
            Input::Media { relay, event } => held.push_back(Held::Media(relay, event.clone())),
            Input::Unsent(bytes) => held.push_back(Held::Unsent(bytes.clone())),
        }
        None
    }

    /// We know where we stand: what waited is handled.
    fn settled(&mut self, turn: &mut Turn<'_>) {
        let lapsed = std::mem::take(&mut self.takeover.lapsed);
        if lapsed {
            self.give_up(turn);
        }
        for held in self.takeover.doubt.take().unwrap_or_default() {
            match held {
                Held::Message(inside) if lapsed && self.put_off_new(turn, &inside) => {}
                Held::Message(inside) => self.act(turn, Input::Message(&inside)),
                Held::Answered(id, answer) => self.act(turn, Input::Answered(id, answer)),
                Held::Media(relay, event) => self.act(turn, Input::Media { relay, event: &event }),
                Held::Unsent(bytes) => self.act(turn, Input::Unsent(&bytes)),
                Held::HangUp => self.act(turn, Input::HangUp),
                Held::HangUpCall(id) => self.act(turn, Input::HangUpCall(&id)),
                Held::Ring(id) => self.act(turn, Input::Ring(&id)),
                Held::GiveUp(id) => self.act(turn, Input::GiveUp(&id)),
            }
        }
        self.look(turn, true);
    }

    /// Ends what nobody waits for any more: callers that were not answered have heard 503 from their balancers.
    fn give_up(&mut self, turn: &mut Turn<'_>) {
        let unanswered = |leg| self.legs.get(&leg).is_some_and(|leg| leg.server.is_some());
        let calls = self.calls.iter().filter(|(_, call)| !call.saved && unanswered(call.leg));
        let calls: Vec<CallKey> = calls.map(|(key, _)| *key).collect();
        for key in calls {
            self.refuse(turn, key, 503, Cause::FAILURE, "the router stood still", Vec::new());
        }
    }

    /// Sees who is there, and asks the store what is due.
    fn look(&mut self, turn: &mut Turn<'_>, tick: bool) {
        let now = turn.now.mono;
        let due = self.takeover.next.is_none_or(|next| next <= now);
        if !due && !tick {
            return;
        }
        let me = turn.view.me;
        let routers = || turn.view.peers.0.iter().filter(|p| p.service == Service::Router && p.process != me);
        let state = &mut self.takeover;
        for peer in routers() {
            if state.seen.len() < SEEN {
                state.seen.insert(peer.process);
            }
        }
        let away = |process: &ProcessId| turn.view.peers.get(*process).is_none();
        state.gone.retain(|process, _| away(process));
        let lost: Vec<ProcessId> = state.seen.iter().copied().filter(away).collect();
        for process in &lost {
            state.seen.remove(process);
            state.gone.entry(*process).or_insert((now, false));
            tracing::info!(router = %process, "a router is gone");
        }
        if !lost.is_empty() || (due && state.looked.is_none_or(|at| now.saturating_sub(at) >= LOOK)) {
            state.looked = Some(now);
            if !std::mem::replace(&mut state.listing, true) {
                self.ask(Ask::Owners, Then::Takeover(Step::Owners));
            }
            // A single write may have failed while the store was there.
            let unprotected = self.calls.iter().filter(|(_, call)| call.unprotected).map(|(key, _)| *key);
            if !self.takeover.store_lost && self.takeover.refill.is_empty() {
                self.takeover.refill = unprotected.collect();
            }
        }
        let gone: Vec<ProcessId> = self.takeover.conferences.iter().copied().filter(away).collect();
        for process in gone {
            self.takeover.conferences.remove(&process);
            self.conference_gone(turn, process);
        }
        if !due {
            return;
        }
        self.takeover.next = Some(now + PERIOD);
        if !std::mem::replace(&mut self.takeover.asked, true) {
            self.ask(Ask::Standing { process: me }, Then::Takeover(Step::Standing { settle: false }));
        }
        self.refill(turn);
        self.seek_again(turn);
        self.leave_the_gone(turn);
    }

    /// True if a process owns its records no more: it is no peer, and would have been seen as one.
    pub(crate) fn is_gone(&self, turn: &Turn<'_>, process: ProcessId) -> bool {
        let started = self.takeover.started.unwrap_or(turn.now.mono);
        process != turn.view.me
            && turn.view.peers.get(process).is_none()
            && (self.takeover.gone.contains_key(&process) || turn.now.mono.saturating_sub(started) >= LOOK)
    }

    /// The store answered.
    pub(crate) fn takeover_answered(&mut self, turn: &mut Turn<'_>, step: Step, answer: Answer) {
        match (step, answer) {
            (Step::Standing { settle }, Answer::Standing(result)) => self.stands(turn, settle, result),
            (Step::Check { settle }, Answer::Owned(result)) => {
                if let Ok(owned) = result {
                    self.check(turn, &owned);
                }
                if settle {
                    self.settled(turn);
                }
            }
            (Step::Owners, Answer::Owners(result)) => {
                self.takeover.listing = false;
                let Ok(owners) = result else { return };
                self.takeover.gone.retain(|process, _| owners.contains(process));
                for owner in owners {
                    if self.is_gone(turn, owner) {
                        self.list(turn, owner);
                    }
                }
            }
            (Step::Owned(owner), Answer::Owned(result)) => self.listed(turn, owner, result),
            (Step::Taken(family), Answer::Taken(result)) => self.taken(turn, &family, result),
            (Step::Sought(leg), Answer::Record(result)) => self.sought(turn, &leg, result),
            _ => self.counters.dropped += 1,
        }
    }

    /// How we stand with the store.
    fn stands(&mut self, turn: &mut Turn<'_>, settle: bool, result: Result<Standing, StoreError>) {
        if !settle {
            self.takeover.asked = false;
        }
        let Ok(standing) = result else {
            // What living owners know goes on.
            self.takeover.store_lost = true;
            if settle {
                self.settled(turn);
            }
            return;
        };
        let before = self.takeover.standing.replace(standing);
        let emptied = before.is_some_and(|b| b.incarnation != standing.incarnation);
        if emptied || std::mem::take(&mut self.takeover.store_lost) {
            tracing::info!(emptied, calls = self.calls.len(), "the store is back: calls are written again");
            // Peers announce themselves again first.
            self.takeover.started = Some(turn.now.mono);
            self.takeover.refill = self.calls.keys().copied().collect();
        }
        if !emptied && standing.taken != before.map_or(0, |b| b.taken) {
            self.ask(Ask::Owned { process: turn.view.me }, Then::Takeover(Step::Check { settle }));
        } else if settle {
            self.settled(turn);
        }
    }

    /// Drops what others took. What is being written shows by itself whose it is.
    fn check(&mut self, turn: &mut Turn<'_>, owned: &[Key]) {
        let owned: BTreeSet<(&str, Owner)> =
            owned.iter().filter(|key| key.kind == "call").map(|key| (key.id.as_str(), key.owner)).collect();
        let saving: BTreeSet<CallKey> = self.saving.values().filter_map(|saving| saving.call).collect();
        let ours = |key: &CallKey, call: &crate::call::Call| {
            !call.saved || call.unprotected || saving.contains(key) || owned.contains(&(call.id.as_str(), call.owner))
        };
        let lost: Vec<CallKey> = self.calls.iter().filter(|(key, call)| !ours(key, call)).map(|(k, _)| *k).collect();
        for key in lost {
            self.lose(turn, key);
        }
    }

    /// Another process has this call: it is dropped here, and of its legs nobody is told anything. Whom we rang meanwhile
    /// for it nobody else knows: they stop ringing.
    pub(crate) fn lose(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let winner = self.dialing(key).and_then(|dialing| dialing.winner);
        self.cancel_branches(turn, key, winner, Some(&cause::reason(Cause::NORMAL)));
        self.leave_holds(key);
        let Some(call) = self.calls.remove(&key) else { return };
        tracing::warn!(call = %call.id, "taken by another router: dropped");
        self.counters.lost += 1;
        self.ids.remove(&call.id);
        for timer in crate::timers::Timer::of_call(key) {
            self.timers.disarm(timer);
        }
        let bridge = call.bridge.and_then(|bridge| self.bridges.remove(&bridge));
        let bridged = bridge.into_iter().flat_map(|bridge| bridge.legs);
        for leg in [call.leg].into_iter().chain(bridged) {
            self.forget_leg(leg);
        }
        // One that answered, and is in no record yet.
        if let Some(winner) = winner {
            self.detach(winner);
            self.bye(turn, winner, Some(cause::reason(Cause::NORMAL)));
        }
        self.saving.retain(|_, saving| saving.call != Some(key));
    }

    /// Writes calls again that the store lost, some at a time.
    fn refill(&mut self, turn: &mut Turn<'_>) {
        if self.takeover.store_lost {
            return;
        }
        let count = self.takeover.refill.len().min(REFILL);
        let keys: Vec<CallKey> = self.takeover.refill.drain(..count).collect();
        for key in keys {
            let near = self.calls.get(&key).filter(|call| call.saved).map(|call| call.leg);
            if let Some(near) = near {
                self.save(turn, key, &[near], true, crate::core::AfterSave::Nothing);
            }
        }
    }

    /// Has a list made of what a process owns that is gone.
    pub(crate) fn list(&mut self, turn: &Turn<'_>, owner: ProcessId) {
        let (_, listing) = self.takeover.gone.entry(owner).or_insert((turn.now.mono, false));
        if !std::mem::replace(listing, true) {
            self.ask(Ask::Owned { process: owner }, Then::Takeover(Step::Owned(owner)));
        }
    }

    /// The router that the family is given to.
    fn heir(&self, turn: &Turn<'_>, family: &str) -> Option<ProcessId> {
        let routers = |state: PeerState| {
            let of = turn.view.peers.0.iter().filter(move |p| p.service == Service::Router && p.state == state);
            rendezvous::choose(family.as_bytes(), of.map(|p| (p.process, p.weight)))
        };
        routers(PeerState::Serving).or_else(|| routers(PeerState::Draining))
    }

    /// What a process that is gone owned: our part of it is asked for.
    fn listed(&mut self, turn: &mut Turn<'_>, owner: ProcessId, result: Result<Vec<Key>, StoreError>) {
        let Some((since, listing)) = self.takeover.gone.get_mut(&owner) else { return };
        *listing = false;
        let left = turn.now.mono.saturating_sub(*since) >= LEFT;
        let Ok(owned) = result else { return };
        let mut families: BTreeMap<&str, Vec<Key>> = BTreeMap::new();
        for key in &owned {
            families.entry(family(&key.id)).or_default().push(key.clone());
        }
        for (name, keys) in families {
            let wanted = self.takeover.parked.keys().any(|leg| family(leg) == name);
            let ours = left || wanted || self.heir(turn, name) == Some(turn.view.me);
            if ours && !self.leaving && self.takeover.taking.insert(name.to_owned()) {
                self.takeover.queue.push_back((name.to_owned(), keys));
            }
        }
        self.take_next(turn);
    }

    fn take_next(&mut self, turn: &Turn<'_>) {
        while self.takeover.under_way < AT_ONCE {
            let Some((family, records)) = self.takeover.queue.pop_front() else { return };
            self.takeover.under_way += 1;
            self.ask(Ask::Take { records, to: turn.view.me }, Then::Takeover(Step::Taken(family)));
        }
    }

    /// A call is ours, or another had it first, or it is asked for again when the store is back.
    fn taken(&mut self, turn: &mut Turn<'_>, family: &str, result: Result<Vec<Stored>, StoreError>) {
        self.takeover.under_way = self.takeover.under_way.saturating_sub(1);
        self.takeover.taking.remove(family);
        if let Ok(records) = result {
            self.adopt(turn, records);
        }
        self.seek_family(turn, family);
        self.take_next(turn);
    }
}
