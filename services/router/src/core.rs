//! The router's core: a pure state machine. Feed it with [`Core::handle`], take what it wants with [`Core::poll`] until
//! none is left, and come back by [`Core::deadline`]. Time and entropy are arguments; it never waits.

use crate::Limits;
use crate::astray::{Astray, Attempts};
use crate::bridge::{Bridge, BridgeKey};
use crate::call::{Call, CallKey};
pub use crate::counters::{Counters, Load};
use crate::elsewhere::first_sender;
use crate::headers;
use crate::identify::Directory;
use crate::io::{Ask, AskId, Input, Output};
use crate::leg::{Leg, LegKey};
use crate::probe::Probe;
use crate::takeover::{Step, Takeover};
use crate::timers::{Timer, Timers};
use crate::wake::Notice;
use bytes::Bytes;
use contract::events::{CallEvent, CallEventKind};
use contract::hop::{self, Inside};
use contract::ng::Command;
use contract::peers::Peers;
use contract::{KeyRing, Now, ProcessId, Service};
use rand::RngCore;
use sip::build::{self, Request, Response};
use sip::transaction::{ClientId, Output as TransactionOutput, Received, ServerId, Transactions};
use sip::{Message, Method, Name};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// What the core may look at while it handles an input.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Endpoints and contexts.
    pub directory: &'a Directory,
    /// Who else is there.
    pub peers: &'a Peers,
    /// The installation's keys.
    pub keys: &'a KeyRing,
    /// The process that this core runs in.
    pub me: ProcessId,
    /// New calls are refused.
    pub draining: bool,
}

/// One turn: what may be looked at, the time, and entropy.
pub(crate) struct Turn<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) now: Now,
    pub(crate) rng: &'a mut dyn RngCore,
}

impl Turn<'_> {
    /// `bytes` random bytes in hexadecimal.
    pub(crate) fn token(&mut self, bytes: usize) -> String {
        let mut raw = vec![0u8; bytes.min(32)];
        self.rng.fill_bytes(&mut raw);
        raw.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.rng.next_u64() % (high.saturating_sub(low) + 1)
    }

    /// A Via of ours with a new branch.
    pub(crate) fn via(&mut self) -> String {
        let branch = self.token(12);
        format!("SIP/2.0/TCP {};branch=z9hG4bK{branch}", hop::host(Service::Router, self.view.me))
    }
}

/// What a balancer answers that does not have the flow (RFC 5626 11.5).
const FLOW_FAILED: u16 = 430;

/// What a request of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The INVITE that makes a leg.
    Invite(LegKey),
    /// A re-INVITE or UPDATE: the leg's exchange says more.
    Change(LegKey),
    /// An INFO that carries this leg's request to the other.
    Info {
        /// Who asked.
        from: LegKey,
        /// Their request.
        server: ServerId,
        /// Where it went.
        to: LegKey,
    },
    /// BYE.
    Bye(LegKey),
    /// CANCEL.
    Cancel(LegKey),
    /// The end of a dialog that nobody wanted.
    Stray,
}

/// What is to be done when a question is answered.
#[derive(Debug)]
pub(crate) enum Then {
    /// The nonce count of a new call.
    Nonce(CallKey),
    /// The bindings of an endpoint that is dialled.
    Located { call: CallKey, dial: u64, endpoint: String },
    /// Who has the room that is dialled.
    Room { call: CallKey, dial: u64 },
    /// The caller's offer, described for a branch.
    Offered(LegKey),
    /// A branch's early description, described for the caller.
    Early { leg: LegKey, status: u16 },
    /// The winner's answer, described for the caller.
    Connected(LegKey),
    /// The winner's offer, described for the caller.
    ConnectedOffer(LegKey),
    /// The answer in an ACK, described for the leg whose INVITE it answers.
    Acknowledged(LegKey),
    /// A leg's new offer, described for the other.
    Changing { asker: LegKey, other: LegKey },
    /// The other's answer to it, described for the asker.
    Changed { asker: LegKey },
    /// The other's offer (the asker made none), described for the asker.
    ChangedOffer { asker: LegKey, other: LegKey },
    /// The offer or answer that moves a call's media to this relay, described for a leg.
    Moved { call: CallKey, relay: ProcessId, leg: LegKey },
    /// A relay was asked whether it is there.
    Probed(ProcessId),
    /// A relay was told who owns a call that was taken over.
    Claimed(CallKey),
    /// The bindings of an endpoint that a call waits for.
    Reread { call: CallKey, dial: u64, endpoint: String },
    /// Whoever wakes phones was told.
    Notified(u64),
    /// Who owns what.
    Takeover(Step),
    /// A record is saved.
    Saved(u64),
    /// The relay was told something whose answer changes nothing.
    Told,
}

/// What follows when all records of a group are saved, or could not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterSave {
    /// The caller gets its 2xx.
    AnswerCaller(CallKey),
    /// The asker of a change gets its 2xx.
    AnswerChange(LegKey),
    /// The call may wait for who is asleep.
    Hold(CallKey),
    /// Nothing: the record only follows.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Saving {
    pub(crate) left: usize,
    pub(crate) failed: bool,
    /// Every record of the call is among them.
    pub(crate) whole: bool,
    pub(crate) after: AfterSave,
    pub(crate) call: Option<CallKey>,
}

/// The state machine.
pub struct Core {
    pub(crate) limits: Limits,
    pub(crate) transactions: Transactions<ProcessId>,
    pub(crate) legs: BTreeMap<LegKey, Leg>,
    pub(crate) calls: BTreeMap<CallKey, Call>,
    pub(crate) bridges: BTreeMap<BridgeKey, Bridge>,
    /// Legs by Call-ID and our tag.
    pub(crate) dialogs: BTreeMap<(String, String), LegKey>,
    /// Inbound legs by Call-ID and their tag.
    pub(crate) callers: BTreeMap<(String, String), LegKey>,
    /// Calls by id.
    pub(crate) ids: BTreeMap<String, CallKey>,
    /// INVITEs being served.
    pub(crate) servers: HashMap<ServerId, LegKey>,
    pub(crate) clients: HashMap<ClientId, Client>,
    /// Of requests that did not get outside at first.
    pub(crate) attempts: BTreeMap<ClientId, Attempts>,
    /// Requests that wait for a way outside.
    pub(crate) astray: BTreeMap<u64, Astray>,
    pub(crate) asks: BTreeMap<AskId, Then>,
    /// What relays were asked that another relay may be asked instead.
    pub(crate) commands: BTreeMap<AskId, (ProcessId, Command)>,
    /// Of all these, those whose answer is known: there is nobody to ask.
    pub(crate) refused: VecDeque<AskId>,
    /// Relays that have calls of ours, or had some when they were lost.
    pub(crate) probes: BTreeMap<ProcessId, Probe>,
    pub(crate) saving: BTreeMap<u64, Saving>,
    /// Calls that wait for an endpoint, by its name.
    pub(crate) held: BTreeMap<String, BTreeSet<CallKey>>,
    /// How many of these there are.
    pub(crate) holding: usize,
    /// What whoever wakes phones is to be told.
    pub(crate) notices: BTreeMap<u64, Notice>,
    pub(crate) timers: Timers,
    pub(crate) takeover: Takeover,
    /// What is protected is left to other routers.
    pub(crate) leaving: bool,
    pub(crate) out: VecDeque<Output>,
    pub(crate) counters: Counters,
    next: u64,
}

impl Core {
    /// A core without calls.
    pub fn new(limits: Limits) -> Self {
        Self {
            transactions: Transactions::new(limits.timers, limits.max_transactions),
            limits,
            legs: BTreeMap::new(),
            calls: BTreeMap::new(),
            bridges: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            callers: BTreeMap::new(),
            ids: BTreeMap::new(),
            servers: HashMap::new(),
            clients: HashMap::new(),
            attempts: BTreeMap::new(),
            astray: BTreeMap::new(),
            asks: BTreeMap::new(),
            commands: BTreeMap::new(),
            refused: VecDeque::new(),
            probes: BTreeMap::new(),
            saving: BTreeMap::new(),
            held: BTreeMap::new(),
            holding: 0,
            notices: BTreeMap::new(),
            timers: Timers::default(),
            takeover: Takeover::default(),
            leaving: false,
            out: VecDeque::new(),
            counters: Counters::default(),
            next: 0,
        }
    }

    /// Takes one input. Then poll until there is no more output, and come back at the deadline at the latest.
    pub fn handle(&mut self, view: &View<'_>, input: Input<'_>, now: Now, rng: &mut dyn RngCore) {
        let turn = &mut Turn { view, now, rng };
        if let Some(input) = self.admit(turn, input) {
            self.act(turn, input);
        }
    }

    /// Does what an input wants.
    pub(crate) fn act(&mut self, turn: &mut Turn<'_>, input: Input<'_>) {
        match input {
            Input::Message(inside) => self.message(turn, inside),
            Input::Answered(id, answer) => self.answered(turn, id, answer),
            Input::Media { relay, event } => self.media_event(turn, relay, event),
            Input::Unsent(bytes) => self.unsent(turn, bytes),
            Input::HangUp => self.hang_up(turn),
            Input::HangUpCall(id) => self.hang_up_call(turn, id),
            Input::Registered(aor) => self.registered(aor),
            Input::RegistrationsMissed => self.registrations_missed(turn),
            Input::Ring(hold) => self.ring_now(hold),
            Input::GiveUp(hold) => self.give_up_hold(turn, hold),
            Input::Tick => {}
        }
        // What is due waits with everything else.
        if self.takeover.in_doubt() {
            return;
        }
        self.advance(turn);
        while !self.refused.is_empty() {
            self.refuse_asks(turn);
            self.advance(turn);
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Tick`] is due at the latest, in monotonic time.
    pub fn deadline(&self) -> Option<Duration> {
        if self.takeover.in_doubt() {
            return None;
        }
        let times = [self.transactions.deadline(), self.timers.deadline(), self.takeover.deadline()];
        times.into_iter().flatten().min()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What there is now.
    pub fn load(&self) -> Load {
        Load {
            calls: self.calls.len(),
            legs: self.legs.len(),
            bridges: self.bridges.len(),
            holds: self.holds(),
            asks: self.asks.len() + self.saving.len(),
            timers: self.timers.len(),
            transactions: self.transactions.len(),
            indices: self.dialogs.len()
                + self.callers.len()
                + self.ids.len()
                + self.servers.len()
                + self.clients.len()
                + self.attempts.len()
                + self.astray.len()
                + self.notices.len()
                + self.takeover.parked.len(),
        }
    }

    /// A number that was not used before.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Asks, and says what to do with the answer.
    pub(crate) fn ask(&mut self, ask: Ask, then: Then) {
        let id = AskId(self.number());
        self.asks.insert(id, then);
        self.out.push_back(Output::Ask(Some(id), ask));
    }

    /// Has something done whose answer nobody needs.
    pub(crate) fn order(&mut self, ask: Ask) {
        self.out.push_back(Output::Ask(None, ask));
    }

    pub(crate) fn event(&mut self, turn: &Turn<'_>, call: &str, kind: CallEventKind) {
        let at = u64::try_from(turn.now.wall.as_millis()).unwrap_or(u64::MAX);
        self.out.push_back(Output::Event(CallEvent { call: call.to_owned(), at, kind }));
    }

    /// Runs transactions and timers to the present.
    fn advance(&mut self, turn: &mut Turn<'_>) {
        loop {
            while let Some(output) = self.transactions.poll(turn.now.mono) {
                match output {
                    TransactionOutput::Transmit { to, bytes } => self.out.push_back(Output::Send { to, bytes }),
                    TransactionOutput::ClientTimeout(id) | TransactionOutput::TransportFailed(id) => {
                        self.client_failed(turn, id);
                    }
                    TransactionOutput::ClientDone(id) => self.client_done(turn, id),
                    _ => {}
                }
            }
            match self.timers.pop(turn.now.mono) {
                Some(Timer::Dial(call)) => self.dial_timeout(turn, call),
                Some(Timer::Progress(call)) => self.progress_again(turn, call),
                Some(Timer::Hold(call)) => self.hold_due(turn, call),
                Some(Timer::Notice(number)) => self.tell(number),
                Some(Timer::Resend(leg)) => self.resend(turn, leg),
                Some(Timer::Session(leg)) => self.session_due(turn, leg),
                Some(Timer::Retry(leg)) => self.realign(turn, leg),
                Some(Timer::Cancel(leg)) => self.cancel_again(turn, leg),
                Some(Timer::Note(leg)) => self.save_leg(turn, leg),
                Some(Timer::Probe(relay)) => self.probe(turn, relay),
                Some(Timer::Move(call)) => self.move_again(turn, call),
                Some(Timer::Leave(call)) => self.leave_former(call),
                Some(Timer::Astray(number)) => self.try_again(turn, number),
                None => break,
            }
        }
        while let Some(output) = self.transactions.poll(turn.now.mono) {
            if let TransactionOutput::Transmit { to, bytes } = output {
                self.out.push_back(Output::Send { to, bytes });
            }
        }
    }

    fn message(&mut self, turn: &mut Turn<'_>, inside: &Inside) {
        let Ok(message) = Message::parse_stream(&inside.bytes) else {
            self.counters.dropped += 1;
            return;
        };
        if let Err(error) = message.validate() {
            self.counters.dropped += 1;
            if message.is_request() && message.method() != Some(Method::Ack) && message.via().is_ok() {
                let Some(status) = error.status() else { return };
                let bytes = build::response(&message, status, Some(&error.to_string()), None).finish();
                self.out.push_back(Output::Send { to: inside.from, bytes });
            }
            return;
        }
        let inside = first_sender(inside, &message);
        if !self.is_elsewhere(turn, &message, &inside) {
            self.receive(turn, &message, &inside);
        }
    }

    /// Takes a message that belongs here, or nowhere.
    pub(crate) fn receive(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, inside: &Inside) {
        // Read before the answer ends its transaction.
        let failed = if message.status() == Some(FLOW_FAILED) { self.sent_for(message) } else { None };
        match self.transactions.receive(message, &inside.bytes, inside.from, true, turn.now.mono) {
            Received::Response(client)
                if failed.is_some_and(|(request, hop)| self.astray(turn, client, &request, hop)) => {}
            Received::Request(server) => self.request(turn, message, server, inside),
            Received::Cancel { cancel, invite } => self.cancelled(turn, cancel, invite),
            Received::Ack2xx => self.acknowledged(turn, message),
            Received::Response(client) => {
                self.heard(message, client, inside);
                self.response(turn, message, client);
            }
            Received::StrayResponse => self.stray_response(turn, message),
            Received::Overflow => {
                self.counters.overflow += 1;
                if message.method() != Some(Method::Ack) {
                    let after = turn.between(5, 30).to_string();
                    let bytes = build::response(message, 503, None, None).header(Name::RetryAfter, after).finish();
                    self.out.push_back(Output::Send { to: inside.from, bytes });
                }
            }
            Received::Invalid => self.counters.dropped += 1,
            _ => {}
        }
    }

    fn request(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, server: ServerId, inside: &Inside) {
        if message.to().is_ok_and(|to| to.tag().is_some()) {
            return self.in_dialog(turn, message, server);
        }
        match message.method() {
            Some(Method::Invite) => self.invited(turn, message, server, inside),
            Some(Method::Options) => self.options(turn, server),
            // RFC 3261 12.2.2, 15.1.2: it belongs to a dialog, and there is none.
            Some(Method::Bye | Method::Prack | Method::Update | Method::Info) => self.reply(turn, server, 481, |r| r),
            Some(Method::Subscribe) => self.reply(turn, server, 489, |r| r),
            _ => self.reply(turn, server, 405, |r| r.header(Name::Allow, headers::ALLOW)),
        }
    }

    /// Answers OPTIONS, in a dialog or not (RFC 3261 11.2).
    pub(crate) fn options(&mut self, turn: &mut Turn<'_>, server: ServerId) {
        self.reply(turn, server, 200, |r| {
            r.header(Name::Allow, headers::ALLOW)
                .header(Name::Accept, headers::ACCEPT)
                .header(Name::Supported, headers::SUPPORTED)
        });
    }

    /// Answers a request by a tag that nothing remembers.
    pub(crate) fn reply(
        &mut self,
        turn: &mut Turn<'_>,
        server: ServerId,
        status: u16,
        more: impl for<'m, 'a> FnOnce(Response<'m, 'a>) -> Response<'m, 'a>,
    ) {
        let tag = turn.token(8);
        self.reply_as(turn, server, status, &tag, more);
    }

    /// Answers a request under a tag of ours.
    pub(crate) fn reply_as(
        &mut self,
        turn: &mut Turn<'_>,
        server: ServerId,
        status: u16,
        tag: &str,
        more: impl for<'m, 'a> FnOnce(Response<'m, 'a>) -> Response<'m, 'a>,
    ) {
        if let Some(bytes) = self.build_reply(server, status, tag, more) {
            self.transactions.respond(server, bytes, turn.now.mono);
        }
    }

    /// The answer to a request, not sent yet.
    pub(crate) fn build_reply(
        &self,
        server: ServerId,
        status: u16,
        tag: &str,
        more: impl for<'m, 'a> FnOnce(Response<'m, 'a>) -> Response<'m, 'a>,
    ) -> Option<Bytes> {
        let request = self.transactions.server_request(server)?;
        let message = Message::parse_stream(request).ok()?;
        let response = build::response(&message, status, None, (status > 100).then_some(tag));
        Some(more(response.header(Name::Server, headers::AGENT)).finish())
    }

    /// Sends a request of a leg's dialog.
    pub(crate) fn send(
        &mut self,
        turn: &mut Turn<'_>,
        leg: LegKey,
        request: Request,
        client: Client,
    ) -> Option<ClientId> {
        let to = self.hop_of(turn, leg)?;
        let id = self.transactions.send(request.finish(), to, true, turn.now.mono).ok();
        let Some(id) = id else {
            self.counters.overflow += 1;
            return None;
        };
        self.clients.insert(id, client);
        if !matches!(client, Client::Invite(_))
            && let Some(leg) = self.legs.get_mut(&leg)
        {
            leg.open += 1;
        }
        Some(id)
    }

    /// Forgets what a request of ours was for, and which way it went.
    pub(crate) fn forget(&mut self, id: ClientId) -> Option<Client> {
        self.attempts.remove(&id);
        self.clients.remove(&id)
    }

    /// The same of a finished one, which its leg has no longer under way.
    pub(crate) fn close(&mut self, id: ClientId) -> Option<Client> {
        let client = self.forget(id)?;
        let leg = match client {
            Client::Change(leg) | Client::Bye(leg) | Client::Cancel(leg) | Client::Info { to: leg, .. } => leg,
            Client::Invite(leg) => {
                if let Some(leg) = self.legs.get_mut(&leg).filter(|l| l.client == Some(id)) {
                    leg.client = None;
                }
                self.bury(leg);
                return Some(client);
            }
            Client::Stray => return Some(client),
        };
        if let Some(leg) = self.legs.get_mut(&leg) {
            leg.open = leg.open.saturating_sub(1);
        }
        Some(client)
    }

    fn response(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, id: ClientId) {
        let (Some(client), Some(status)) = (self.clients.get(&id).copied(), message.status()) else { return };
        match client {
            Client::Invite(leg) => self.branch_response(turn, message, id, leg, status),
            Client::Change(leg) => self.change_response(turn, message, id, leg, status),
            Client::Info { from, server, to } if status >= 200 => {
                self.close(id);
                self.info_done(turn, from, server, to, status);
            }
            Client::Bye(leg) | Client::Cancel(leg) if status >= 200 => {
                self.close(id);
                self.cancel_answered(leg);
                self.bury(leg);
            }
            Client::Stray if status >= 200 => {
                self.close(id);
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Core({:?})", self.load())
    }
}
