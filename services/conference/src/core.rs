//! The conference service without IO: dialogs that it answers by itself.
//!
//! An INVITE (with or without SDP) opens a socket and loads its prompts ([`Output::Open`]), is answered 200, and its
//! sound starts with the ACK. re-INVITE and UPDATE change where and how; BYE ends it. When prompts are through it is
//! us who send BYE, with [`ENDED`]. Sessions with a timer (RFC 4028) that nobody refreshes end too.

use crate::negotiate::Local;
use crate::program::Program;
use crate::room::Options;
use crate::room::state::{Act, Closed, MemberOrder, Order, Rooms};
use crate::speech::{ALLOW, Body, SDP, SUPPORTED, body, give_up_after, interval, stated};
use crate::stream::Agreed;
use bytes::Bytes;
use contract::hop::{self, Inside};
use contract::{Now, ProcessId, Service};
use rand::RngCore;
use sip::build::{self, Response};
use sip::dialog::{Dialog, DialogId, Repeat, Retransmit2xx};
use sip::transaction::{Output as Layer, Received, ServerId, Timers, Transactions, overloaded};
use sip::uri::Uri;
use sip::{Message, Method, Name};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The header of a BYE of ours that says why: `completed` (the prompts are through), `expired` (nobody refreshed the
/// session), `unacknowledged`, `unusable` (the answer in the ACK has no codec of ours), `limit`; of rooms `left`,
/// `kicked`, `locked`, `wrong_pin` and `room_over`.
pub const ENDED: &str = "X-KubePBX-Ended";

/// What does not come with the snapshot.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Legs at once; more are answered 503.
    pub limit: usize,
    /// A leg that lasts longer is ended, whatever its peer does.
    pub longest: Duration,
    /// Transaction timers.
    pub timers: Timers,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limit: 1000, longest: Duration::from_secs(6 * 3600), timers: Timers::default() }
    }
}

/// One leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub u64);

/// Why a leg has no socket, no prompts or no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// No such prompt: 404.
    Missing,
    /// A prompt that cannot be read, or no port: 500.
    Failed,
    /// The room is at another process: 503, and whoever asked looks again.
    Elsewhere,
}

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A SIP message from another process.
    Message(Inside),
    /// The answer to [`Output::Open`]: where the leg's socket receives.
    Opened(LegId, Result<SocketAddr, OpenError>),
    /// The leg's prompts are through.
    Played(LegId),
    /// A leg in a room keyed something in.
    Digit(LegId, char),
    /// A leg in a room began or ended to talk.
    Talking(LegId, bool),
    /// A command to a room.
    Room(String, Order),
    /// A command to a member.
    Member(LegId, MemberOrder),
    /// No new work is to be taken.
    Drain,
    /// A deadline came.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send to a process.
    Send {
        /// Which.
        to: ProcessId,
        /// The message.
        bytes: Bytes,
    },
    /// Bind a socket for a leg and load what it will play.
    Open(LegId, Program),
    /// Begin the sound.
    Start(LegId, Agreed),
    /// The leg's SDP changed.
    Update(LegId, Agreed),
    /// Close the socket, whatever state it is in.
    Close(LegId),
    /// Do something to a room's sound.
    Room(Act),
    /// Count an event, by a word of a small fixed set.
    Count(&'static str),
}

struct Leg {
    dialog: Dialog,
    peer: ProcessId,
    /// The INVITE that has no final answer yet.
    invite: Option<(ServerId, Bytes)>,
    /// CSeq of the last INVITE.
    invite_cseq: u32,
    /// Known once the socket is open.
    local: Option<Local>,
    /// A 2xx of ours without its ACK.
    unacked: Option<Retransmit2xx>,
    /// That 2xx held our offer.
    offered: bool,
    /// What the ACK puts into force.
    agreed: Option<Agreed>,
    started: bool,
    /// When nobody refreshed the session.
    expires: Option<Duration>,
    /// When it lasted too long.
    until: Duration,
    /// The room that it asks for, until it is in it, and who it is.
    room: Option<(Options, String)>,
}

/// The state machine. See the module's description.
pub struct Core {
    settings: Settings,
    host: String,
    transactions: Transactions<ProcessId>,
    legs: HashMap<LegId, Leg>,
    dialogs: HashMap<DialogId, LegId>,
    rooms: Rooms,
    next: u64,
    draining: bool,
    out: VecDeque<Output>,
}

impl Core {
    /// A service without legs.
    pub fn new(process: ProcessId, settings: Settings) -> Self {
        Self {
            host: hop::host(Service::Conference, process),
            // An answered INVITE stays 64 * T1 beyond its leg's beginning; short calls come and go in that time.
            transactions: Transactions::new(settings.timers, settings.limit.saturating_mul(32).max(1024)),
            settings,
            legs: HashMap::new(),
            dialogs: HashMap::new(),
            rooms: Rooms::default(),
            next: 0,
            draining: false,
            out: VecDeque::new(),
        }
    }

    /// Takes one input; drain [`Core::poll`] afterwards.
    pub fn handle(&mut self, input: Input, now: Now, rng: &mut dyn RngCore) {
        match input {
            Input::Message(inside) => self.message(inside, now, rng),
            Input::Opened(id, opened) => self.opened(id, opened, now, rng),
            Input::Played(id) => self.end(id, "completed", now, rng),
            Input::Digit(id, digit) => self.rooms.digit(id, digit, now),
            Input::Talking(id, talks) => self.rooms.talking(id, talks),
            Input::Room(name, order) => self.rooms.order(&name, order),
            Input::Member(id, order) => self.rooms.member_order(id, order),
            Input::Drain => self.draining = true,
            Input::Tick => {}
        }
        self.timers(now, rng);
        self.rooms.timers(now);
        while let Some(act) = self.rooms.poll() {
            match act {
                Act::End(id, why) => self.end(id, why, now, rng),
                act => self.out.push_back(Output::Room(act)),
            }
        }
        while let Some(output) = self.transactions.poll(now.mono) {
            if let Layer::Transmit { to, bytes } = output {
                self.out.push_back(Output::Send { to, bytes });
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to come again with [`Input::Tick`], on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        let rooms = self.rooms.deadline();
        self.legs.values().map(Leg::due).chain(self.transactions.deadline()).chain(rooms).min()
    }

    /// The rooms and who is in them.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Legs now.
    pub fn len(&self) -> usize {
        self.legs.len()
    }

    /// True without legs.
    pub fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    fn message(&mut self, inside: Inside, now: Now, rng: &mut dyn RngCore) {
        let Inside { from, service, bytes } = inside;
        let Ok(message) = Message::parse_stream(&bytes) else { return self.count("unreadable") };
        if let Err(error) = message.validate() {
            let answerable = message.is_request() && message.method() != Some(Method::Ack);
            if let Some(status) = error.status().filter(|_| answerable) {
                let bytes = build::response(&message, status, Some(&error.to_string()), None).finish();
                self.out.push_back(Output::Send { to: from, bytes });
            }
            return self.count("unreadable");
        }
        match self.transactions.receive(&message, &bytes, from, true, now.mono) {
            // What a balancer brings came from outside, and nobody outside talks to us but through a router.
            Received::Request(id) if service == Service::Balancer || message.other(hop::HEADER).is_some() => {
                self.refuse(id, &message, 403, now, rng, |r| r);
            }
            Received::Request(id) if message.to().is_ok_and(|to| to.tag().is_some()) => {
                self.in_dialog(id, &message, now, rng);
            }
            Received::Request(id) => match message.method() {
                Some(Method::Invite) => self.invite(id, &message, &bytes, from, now, rng),
                Some(Method::Options) => self.refuse(id, &message, 200, now, rng, |r| {
                    r.header(Name::Allow, ALLOW).header(Name::Supported, SUPPORTED).header(Name::Accept, SDP)
                }),
                Some(Method::Bye | Method::Update) => self.refuse(id, &message, 481, now, rng, |r| r),
                _ => self.refuse(id, &message, 405, now, rng, |r| r.header(Name::Allow, ALLOW)),
            },
            Received::Cancel { cancel, invite } => {
                let of =
                    |(id, leg): (&LegId, &Leg)| leg.invite.as_ref().filter(|(s, _)| Some(*s) == invite).map(|_| *id);
                let leg = self.legs.iter().find_map(of);
                self.refuse(cancel, &message, if invite.is_some() { 200 } else { 481 }, now, rng, |r| r);
                if let Some(id) = leg {
                    self.terminate(id, now);
                }
            }
            Received::Ack2xx => self.ack(&message, now, rng),
            Received::Overflow => {
                self.count("overflow");
                if let Some(bytes) = overloaded(&message, 5) {
                    self.out.push_back(Output::Send { to: from, bytes });
                }
            }
            // Answers to our BYEs say nothing that would change anything.
            Received::Response(_) | Received::StrayResponse => {}
            Received::AckAbsorbed | Received::Absorbed | Received::Invalid => {}
        }
    }

    /// A new leg.
    fn invite(
        &mut self,
        server: ServerId,
        message: &Message<'_>,
        bytes: &Bytes,
        from: ProcessId,
        now: Now,
        rng: &mut dyn RngCore,
    ) {
        let program = message.uri().and_then(Program::of);
        // Who belongs into a room that is here goes nowhere else.
        let belongs = matches!(&program, Some(Program::Room(options)) if self.rooms.has(&options.name));
        let draining = self.draining && !belongs;
        if draining || self.legs.len() >= self.settings.limit {
            self.count(if draining { "draining" } else { "overflow" });
            return self.refuse(server, message, 503, now, rng, |r| r);
        }
        let unknown: Vec<&str> =
            message.values(Name::Require).filter(|o| !o.eq_ignore_ascii_case(SUPPORTED)).take(16).collect();
        if !unknown.is_empty() {
            return self.refuse(server, message, 420, now, rng, |r| r.header(Name::Unsupported, unknown.join(", ")));
        }
        let Some(program) = program else {
            self.count("unknown_program");
            return self.refuse(server, message, 404, now, rng, |r| r);
        };
        let room = match &program {
            Program::Room(options) => {
                if let Err(closed) = self.rooms.admits(options) {
                    self.count(match closed {
                        Closed::Full => "room_full",
                        Closed::Locked => "room_locked",
                    });
                    return self.refuse(server, message, 486, now, rng, |r| r);
                }
                Some((options.as_ref().clone(), caller(message)))
            }
            _ => None,
        };
        // Whether we will be able to answer does not depend on the port.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let judged = match body(message) {
            Body::None => Ok(()),
            Body::Sdp(offer) => Local::new(nowhere, 0, room.is_some()).answer(&offer).map(|_| ()).map_err(|_| 488),
            Body::Other => Err(415),
            Body::Broken => Err(400),
        };
        if let Err(status) = judged {
            return self.refuse_offer(server, message, status, now, rng);
        }
        let expires = match interval(message) {
            Ok(expires) => expires,
            Err(least) => {
                return self.refuse(server, message, 422, now, rng, |r| r.header(Name::MinSE, least.to_string()));
            }
        };
        let tag = format!("{:016x}", rng.next_u64());
        let Ok(dialog) = Dialog::uas(message, &tag, &format!("<sip:conference@{}>", self.host)) else {
            return self.refuse(server, message, 400, now, rng, |r| r);
        };
        self.next += 1;
        let id = LegId(self.next);
        self.dialogs.insert(dialog.id.clone(), id);
        let leg = Leg {
            dialog,
            peer: from,
            invite: Some((server, bytes.clone())),
            invite_cseq: message.cseq().map(|c| c.number).unwrap_or_default(),
            local: None,
            unacked: None,
            offered: false,
            agreed: None,
            started: false,
            expires: expires.map(|e| now.mono + give_up_after(e)),
            until: now.mono + self.settings.longest,
            room,
        };
        self.legs.insert(id, leg);
        self.out.push_back(Output::Open(id, program));
    }

    fn opened(&mut self, id: LegId, opened: Result<SocketAddr, OpenError>, now: Now, rng: &mut dyn RngCore) {
        let pending = self.legs.get_mut(&id).and_then(|leg| leg.invite.clone());
        let Some((server, bytes)) = pending else {
            // It was cancelled meanwhile.
            return self.out.push_back(Output::Close(id));
        };
        let Ok(message) = Message::parse_stream(&bytes) else { return };
        match opened {
            Ok(address) => {
                if let Some(leg) = self.legs.get_mut(&id) {
                    leg.local = Some(Local::new(address, rng.next_u64(), leg.room.is_some()));
                    leg.dialog.confirm_local();
                }
                self.count("answered");
                self.answer_invite(id, server, &message, now, rng);
            }
            Err(error) => {
                let (what, status) = match error {
                    OpenError::Missing => ("unknown_prompt", 404),
                    OpenError::Failed => ("unreadable_prompt", 500),
                    OpenError::Elsewhere => ("room_elsewhere", 503),
                };
                self.count(what);
                self.refuse(server, &message, status, now, rng, |r| r);
                self.forget(id);
            }
        }
    }

    /// 200 to an INVITE of a leg that has its socket: an answer to its offer, or our offer.
    fn answer_invite(&mut self, id: LegId, server: ServerId, message: &Message<'_>, now: Now, rng: &mut dyn RngCore) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let Some(local) = leg.local.as_mut() else { return };
        let description = match body(message) {
            Body::None => {
                leg.offered = true;
                local.offer()
            }
            Body::Sdp(offer) => match local.answer(&offer) {
                Ok((answer, agreed)) => {
                    leg.offered = false;
                    leg.agreed = Some(agreed);
                    answer
                }
                Err(_) => return self.refuse_offer(server, message, 488, now, rng),
            },
            Body::Other => return self.refuse_offer(server, message, 415, now, rng),
            Body::Broken => return self.refuse_offer(server, message, 400, now, rng),
        };
        leg.invite = None;
        leg.invite_cseq = message.cseq().map(|c| c.number).unwrap_or_default();
        let response = build::response(message, 200, None, Some(&leg.dialog.id.local_tag)).record_route();
        let bytes = stated(response, message, &leg.dialog.local_contact).body(SDP, description.to_vec()).finish();
        leg.unacked = Some(Retransmit2xx::with_timers(bytes.clone(), &self.settings.timers, now.mono));
        // An established leg hears of its new address with the 200, as the peer may act on it at once.
        if leg.started
            && let Some(agreed) = leg.agreed.take()
        {
            self.out.push_back(Output::Update(id, agreed));
        }
        self.transactions.respond(server, bytes, now.mono);
    }

    fn ack(&mut self, message: &Message<'_>, now: Now, rng: &mut dyn RngCore) {
        let Some(&id) = DialogId::of_request(message).and_then(|d| self.dialogs.get(&d)) else {
            return self.count("stray_ack");
        };
        let Some(leg) = self.legs.get_mut(&id) else { return };
        let current = message.cseq().is_ok_and(|c| c.number == leg.invite_cseq);
        let Some(mut unacked) = leg.unacked.take_if(|_| current) else { return };
        unacked.acked();
        if std::mem::take(&mut leg.offered) {
            let answer = match body(message) {
                Body::Sdp(answer) => leg.local.as_ref().and_then(|l| l.answered(&answer).ok()),
                _ => None,
            };
            match answer {
                Some(agreed) => leg.agreed = Some(agreed),
                None => return self.end(id, "unusable", now, rng),
            }
        }
        if let Some(agreed) = leg.agreed.take() {
            let output = if leg.started { Output::Update(id, agreed) } else { Output::Start(id, agreed) };
            leg.started = true;
            let room = leg.room.take();
            self.out.push_back(output);
            if let Some((options, from)) = room {
                self.rooms.join(id, options, from, now);
            }
        }
    }

    fn in_dialog(&mut self, server: ServerId, message: &Message<'_>, now: Now, rng: &mut dyn RngCore) {
        let id = DialogId::of_request(message).and_then(|d| self.dialogs.get(&d).copied());
        let Some((id, leg)) = id.and_then(|id| Some((id, self.legs.get_mut(&id)?))) else {
            return self.refuse(server, message, 481, now, rng, |r| r);
        };
        if let Err(error) = leg.dialog.receive(message) {
            return self.refuse(server, message, error.status(), now, rng, |r| r);
        }
        match message.method() {
            Some(Method::Bye) => {
                self.refuse(server, message, 200, now, rng, |r| r);
                self.count("hung_up");
                self.terminate(id, now);
            }
            Some(Method::Options) => self.refuse(server, message, 200, now, rng, |r| {
                r.header(Name::Allow, ALLOW).header(Name::Supported, SUPPORTED).header(Name::Accept, SDP)
            }),
            Some(Method::Invite | Method::Update) => self.change(id, server, message, now, rng),
            _ => self.refuse(server, message, 405, now, rng, |r| r.header(Name::Allow, ALLOW)),
        }
    }

    /// re-INVITE and UPDATE.
    fn change(&mut self, id: LegId, server: ServerId, message: &Message<'_>, now: Now, rng: &mut dyn RngCore) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        // RFC 3261 14.2: one INVITE at a time; RFC 3311 5.2: and one offer.
        if leg.invite.is_some() {
            let wait = (rng.next_u32() % 10).to_string();
            return self.refuse(server, message, 500, now, rng, |r| r.header(Name::RetryAfter, wait));
        }
        if leg.offered {
            return self.refuse(server, message, 491, now, rng, |r| r);
        }
        let expires = match interval(message) {
            Ok(expires) => expires,
            Err(least) => {
                return self.refuse(server, message, 422, now, rng, |r| r.header(Name::MinSE, least.to_string()));
            }
        };
        let is_invite = message.method() == Some(Method::Invite);
        if is_invite {
            self.answer_invite(id, server, message, now, rng);
        } else if !self.answer_update(id, server, message, now, rng) {
            return;
        }
        if let Some(leg) = self.legs.get_mut(&id) {
            leg.dialog.refresh_target(message);
            leg.expires = expires.map(|e| now.mono + give_up_after(e));
        }
    }

    /// False if it was refused.
    fn answer_update(
        &mut self,
        id: LegId,
        server: ServerId,
        message: &Message<'_>,
        now: Now,
        rng: &mut dyn RngCore,
    ) -> bool {
        let Some(leg) = self.legs.get_mut(&id) else { return false };
        let response = build::response(message, 200, None, None);
        let response = stated(response, message, &leg.dialog.local_contact);
        let bytes = match (body(message), leg.local.as_mut()) {
            (Body::None, _) => response.finish(),
            (Body::Sdp(offer), Some(local)) => match local.answer(&offer) {
                Ok((answer, agreed)) => {
                    if leg.started {
                        self.out.push_back(Output::Update(id, agreed));
                    } else {
                        leg.agreed = Some(agreed);
                    }
                    response.body(SDP, answer.to_vec()).finish()
                }
                Err(_) => {
                    self.refuse_offer(server, message, 488, now, rng);
                    return false;
                }
            },
            (Body::Other, _) => {
                self.refuse_offer(server, message, 415, now, rng);
                return false;
            }
            (Body::Broken, _) | (_, None) => {
                self.refuse_offer(server, message, 400, now, rng);
                return false;
            }
        };
        self.transactions.respond(server, bytes, now.mono);
        true
    }

    fn timers(&mut self, now: Now, rng: &mut dyn RngCore) {
        let due: Vec<LegId> = self.legs.iter().filter(|(_, l)| l.due() <= now.mono).map(|(id, _)| *id).collect();
        for id in due {
            let Some(leg) = self.legs.get_mut(&id) else { continue };
            if leg.until <= now.mono {
                self.end(id, "limit", now, rng);
            } else if leg.expires.is_some_and(|at| at <= now.mono) {
                self.end(id, "expired", now, rng);
            } else if let Some(repeat) = leg.unacked.as_mut().and_then(|u| u.poll(now.mono)) {
                let to = leg.peer;
                match repeat {
                    Repeat::Send(bytes) => self.out.push_back(Output::Send { to, bytes }),
                    Repeat::GiveUp => self.end(id, "unacknowledged", now, rng),
                }
            }
        }
    }

    /// Ends a leg from our side.
    fn end(&mut self, id: LegId, why: &'static str, now: Now, rng: &mut dyn RngCore) {
        let Some(leg) = self.legs.get_mut(&id) else { return };
        self.out.push_back(Output::Count(why));
        if leg.invite.is_none() {
            let via = format!("SIP/2.0/TCP {};branch=z9hG4bK{:016x}", self.host, rng.next_u64());
            let reason = match why {
                "completed" => "SIP;cause=200;text=\"Prompt ended\"",
                "left" | "kicked" | "room_over" => "SIP;cause=200;text=\"Left the room\"",
                "locked" | "wrong_pin" => "SIP;cause=403;text=\"Not let into the room\"",
                "unusable" => "SIP;cause=488;text=\"No codec in common\"",
                _ => "SIP;cause=408;text=\"Session expired\"",
            };
            let request = leg.dialog.request("BYE", &via).header(Name::Reason, reason).other(ENDED, why).finish();
            let next = Uri::parse(leg.dialog.next_hop()).ok().and_then(|u| hop::process_of(&u.host.to_string()));
            if self.transactions.send(request, next.unwrap_or(leg.peer), true, now.mono).is_err() {
                self.out.push_back(Output::Count("overflow"));
            }
        }
        self.terminate(id, now);
    }

    /// The leg is over; an INVITE without its final answer gets 487.
    fn terminate(&mut self, id: LegId, now: Now) {
        if let Some(leg) = self.legs.get(&id)
            && let Some((server, bytes)) = &leg.invite
            && let Ok(message) = Message::parse_stream(bytes)
        {
            let response = build::response(&message, 487, None, Some(&leg.dialog.id.local_tag)).finish();
            self.transactions.respond(*server, response, now.mono);
        }
        self.forget(id);
    }

    fn forget(&mut self, id: LegId) {
        if let Some(leg) = self.legs.remove(&id) {
            self.dialogs.remove(&leg.dialog.id);
            self.rooms.leave(id);
            self.out.push_back(Output::Close(id));
        }
    }

    /// A final answer that makes no dialog.
    fn refuse<'m, 'a>(
        &mut self,
        server: ServerId,
        message: &'m Message<'a>,
        status: u16,
        now: Now,
        rng: &mut dyn RngCore,
        with: impl FnOnce(Response<'m, 'a>) -> Response<'m, 'a>,
    ) {
        let tag = format!("{:016x}", rng.next_u64());
        let response = with(build::response(message, status, None, Some(&tag))).finish();
        self.transactions.respond(server, response, now.mono);
    }

    fn refuse_offer(&mut self, server: ServerId, message: &Message<'_>, status: u16, now: Now, rng: &mut dyn RngCore) {
        let warning = format!("304 {} \"No codec in common\"", self.host);
        self.count("unusable_offer");
        self.refuse(server, message, status, now, rng, |r| match status {
            488 => r.header(Name::Warning, warning),
            415 => r.header(Name::Accept, SDP),
            _ => r,
        });
    }

    fn count(&mut self, what: &'static str) {
        self.out.push_back(Output::Count(what));
    }
}

/// Who a request is from, as views show it: the user of its From.
fn caller(message: &Message<'_>) -> String {
    let uri = message.from().ok().and_then(|from| Uri::parse(from.uri).ok());
    uri.map(|uri| uri.user_unescaped().chars().take(128).collect()).unwrap_or_default()
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "conference with {} legs", self.legs.len())
    }
}

impl Leg {
    fn due(&self) -> Duration {
        let unacked = self.unacked.as_ref().and_then(Retransmit2xx::deadline);
        [unacked, self.expires].into_iter().flatten().fold(self.until, Duration::min)
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
pub(crate) mod tests;
