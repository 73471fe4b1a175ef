//! The phone's user agent, without IO: registers, calls, answers, over `sip`'s transactions and dialogs.
//!
//! Bytes and time go in, [`Out`] comes out. The driver in `mod.rs` owns the socket, the clock and the media.

use bytes::Bytes;
use rand::RngCore;
use rtp::sdp::Session;
use sip::build;
use sip::dialog::{Dialog, Repeat, Retransmit2xx};
use sip::digest::{self, Secret};
use sip::transaction::{ClientId, Output, Received, ServerId, Timers, Transactions};
use sip::{Message, Method, Name};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Names a call within one phone.
pub(crate) type CallId = usize;

/// Who a phone is and where it registers.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub server: SocketAddr,
    pub user: String,
    pub password: String,
    pub local: SocketAddr,
    pub expires: u32,
}

/// What the driver is to do or to know.
#[derive(Debug)]
pub(crate) enum Out {
    /// Send this datagram.
    Send(SocketAddr, Bytes),
    /// The registration ended with this final status (408 when nobody answered).
    Registered(u16),
    /// A call comes in: bind media and call [`Ua::answer`].
    Incoming(CallId, Option<Box<Session>>),
    /// The callee rings.
    Ringing(CallId),
    /// Media is agreed, or agreed anew: where to send.
    Media(CallId, Box<Session>),
    /// Answered, by us or by them.
    Answered(CallId),
    /// Over. The status is the final answer's; `remote` tells who ended it.
    Ended { call: CallId, status: u16, remote: bool },
}

enum Role {
    Caller { offer: Session, invite: Bytes, cseq: u32, tries: u8, client: ClientId },
    Callee { invite: ServerId, request: Bytes, tag: String, sent: Option<Retransmit2xx> },
}

struct Leg {
    role: Role,
    dialog: Option<Dialog>,
    local_sdp: Option<Session>,
    /// The ACK of our INVITE, re-sent for each retransmitted 2xx.
    ack: Option<Bytes>,
    over: bool,
}

enum Purpose {
    Register {
        tries: u8,
    },
    /// A REGISTER that takes our contact away: whatever the answer, we are gone.
    Unregister {
        tries: u8,
    },
    Invite(CallId),
    /// A BYE: its answer changes nothing.
    Other,
}

/// The user agent.
pub(crate) struct Ua {
    account: Account,
    transactions: Transactions<SocketAddr>,
    legs: HashMap<CallId, Leg>,
    by_dialog: HashMap<(String, String), CallId>,
    purposes: HashMap<ClientId, Purpose>,
    next: CallId,
    register_cseq: u32,
    register_call_id: String,
    out: VecDeque<Out>,
}

const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";

impl Ua {
    pub(crate) fn new(account: Account, rng: &mut dyn RngCore) -> Self {
        Self {
            account,
            transactions: Transactions::new(Timers::default(), 16_384),
            legs: HashMap::new(),
            by_dialog: HashMap::new(),
            purposes: HashMap::new(),
            next: 0,
            register_cseq: 0,
            register_call_id: token(rng),
            out: VecDeque::new(),
        }
    }

    fn via(&self, rng: &mut dyn RngCore) -> String {
        format!("SIP/2.0/UDP {};rport;branch=z9hG4bK{}", self.account.local, token(rng))
    }

    fn contact(&self) -> String {
        format!("<sip:{}@{}>", sip::uri::escape_user(&self.account.user), self.account.local)
    }

    fn aor(&self, user: &str) -> String {
        format!("sip:{}@{}", sip::uri::escape_user(user), self.account.server)
    }

    fn send(&mut self, request: Bytes, purpose: Purpose, now: Duration) -> Option<ClientId> {
        let id = self.transactions.send(request, self.account.server, false, now).ok()?;
        self.purposes.insert(id, purpose);
        Some(id)
    }

    /// Starts a registration; [`Out::Registered`] follows.
    pub(crate) fn register(&mut self, now: Duration, rng: &mut dyn RngCore) {
        self.send_register(None, Purpose::Register { tries: 0 }, now, rng);
    }

    /// Takes our contact away; [`Ua::is_settled`] once that is answered.
    pub(crate) fn unregister(&mut self, now: Duration, rng: &mut dyn RngCore) {
        self.send_register(None, Purpose::Unregister { tries: 0 }, now, rng);
    }

    fn send_register(&mut self, authorization: Option<String>, purpose: Purpose, now: Duration, rng: &mut dyn RngCore) {
        let stays = matches!(purpose, Purpose::Register { .. });
        let expires = if stays { self.account.expires } else { 0 };
        self.register_cseq += 1;
        let aor = self.aor(&self.account.user);
        let request = build::request("REGISTER", &format!("sip:{}", self.account.server))
            .header(Name::Via, self.via(rng))
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("<{aor}>;tag={}", token(rng)))
            .header(Name::To, format!("<{aor}>"))
            .header(Name::CallId, &self.register_call_id)
            .header(Name::CSeq, format!("{} REGISTER", self.register_cseq))
            .header(Name::Contact, self.contact())
            .header(Name::Expires, expires.to_string())
            .header_opt(Name::Authorization, authorization)
            .finish();
        if self.send(request, purpose, now).is_none() && stays {
            self.out.push_back(Out::Registered(503));
        }
    }

    /// Calls `to` with this offer.
    pub(crate) fn call(&mut self, to: &str, offer: Session, now: Duration, rng: &mut dyn RngCore) -> CallId {
        let call = self.next;
        self.next += 1;
        let uri = self.aor(to);
        let call_id = token(rng);
        let tag = token(rng);
        let invite = build::request("INVITE", &uri)
            .header(Name::Via, self.via(rng))
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("<{}>;tag={tag}", self.aor(&self.account.user)))
            .header(Name::To, format!("<{uri}>"))
            .header(Name::CallId, &call_id)
            .header(Name::CSeq, "1 INVITE")
            .header(Name::Contact, self.contact())
            .header(Name::Allow, ALLOW)
            .header(Name::UserAgent, "kubepbx-phone")
            .body("application/sdp", offer.to_vec())
            .finish();
        self.by_dialog.insert((call_id, tag), call);
        match self.send(invite.clone(), Purpose::Invite(call), now) {
            Some(client) => {
                let role = Role::Caller { offer: offer.clone(), invite, cseq: 1, tries: 0, client };
                let leg = Leg { role, dialog: None, local_sdp: Some(offer), ack: None, over: false };
                self.legs.insert(call, leg);
            }
            None => self.out.push_back(Out::Ended { call, status: 503, remote: false }),
        }
        call
    }

    /// Answers an incoming call with this SDP: the answer to its offer, or an offer where it had none.
    pub(crate) fn answer(&mut self, call: CallId, sdp: Session, now: Duration) {
        let contact = self.contact();
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let Role::Callee { invite, request, tag, sent } = &mut leg.role else { return };
        let Ok(message) = Message::parse(request) else { return };
        let response = build::response(&message, 200, None, Some(tag))
            .record_route()
            .header(Name::Contact, contact)
            .header(Name::Allow, ALLOW)
            .body("application/sdp", sdp.to_vec())
            .finish();
        *sent = Some(Retransmit2xx::new(response.clone(), now));
        leg.local_sdp = Some(sdp);
        self.transactions.respond(*invite, response, now);
        self.out.push_back(Out::Answered(call));
    }

    /// Refuses an incoming call with this status.
    pub(crate) fn refuse(&mut self, call: CallId, status: u16, now: Duration) {
        let Some(Leg { role: Role::Callee { invite, request, tag, .. }, .. }) = self.legs.get(&call) else { return };
        let Ok(message) = Message::parse(request) else { return };
        let response = build::response(&message, status, None, Some(tag)).finish();
        self.transactions.respond(*invite, response, now);
        self.finish(call, status, false);
    }

    /// Hangs up: BYE where it was answered, CANCEL where it rings at the other side, 480 where it rings here.
    pub(crate) fn hang_up(&mut self, call: CallId, now: Duration, rng: &mut dyn RngCore) {
        let via = self.via(rng);
        let Some(leg) = self.legs.get_mut(&call) else { return };
        if leg.over {
            return;
        }
        if leg.local_sdp.is_none() && matches!(leg.role, Role::Callee { .. }) {
            return self.refuse(call, 480, now);
        }
        match (&mut leg.dialog, &leg.role) {
            (Some(dialog), _) => {
                let bye = dialog.request("BYE", &via).finish();
                leg.over = true;
                self.send(bye, Purpose::Other, now);
                self.finish(call, 200, false);
            }
            (None, Role::Caller { client, .. }) => {
                if let Some(cancel) = self.transactions.cancel_of(*client) {
                    self.send(cancel, Purpose::Other, now);
                }
            }
            (None, Role::Callee { .. }) => {}
        }
    }

    fn finish(&mut self, call: CallId, status: u16, remote: bool) {
        if let Some(leg) = self.legs.remove(&call)
            && let Some(dialog) = leg.dialog
        {
            self.by_dialog.remove(&(dialog.id.call_id.clone(), dialog.id.local_tag.clone()));
        }
        self.out.push_back(Out::Ended { call, status, remote });
    }

    /// A datagram came.
    pub(crate) fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Duration, rng: &mut dyn RngCore) {
        let bytes = Bytes::copy_from_slice(datagram);
        let Ok(message) = Message::parse(&bytes) else { return };
        match self.transactions.receive(&message, &bytes, from, false, now) {
            Received::Request(id) => self.request(id, &message, &bytes, now, rng),
            Received::Cancel { cancel, invite } => {
                self.respond(cancel, &message, 200, now);
                if let Some(invite) = invite {
                    self.cancelled(invite, now);
                }
            }
            Received::Ack2xx => {
                if let Some(call) = self.find(&message) {
                    self.acked(call, &message);
                }
            }
            Received::Response(id) => self.response(id, &message, now, rng),
            _ => {}
        }
    }

    /// The call whose dialog a request from the other side belongs to.
    fn find(&self, request: &Message<'_>) -> Option<CallId> {
        let tag = request.to().ok()?.tag()?.to_owned();
        self.by_dialog.get(&(request.call_id().ok()?.to_owned(), tag)).copied()
    }

    fn respond(&mut self, id: ServerId, request: &Message<'_>, status: u16, now: Duration) {
        let response = build::response(request, status, None, None).header(Name::Allow, ALLOW).finish();
        self.transactions.respond(id, response, now);
    }

    fn cancelled(&mut self, id: ServerId, now: Duration) {
        let found = self.legs.iter().find_map(|(call, leg)| match &leg.role {
            Role::Callee { invite, request, tag, sent: None } if *invite == id => {
                Some((*call, request.clone(), tag.clone()))
            }
            _ => None,
        });
        let Some((call, request, tag)) = found else { return };
        if let Ok(message) = Message::parse(&request) {
            let response = build::response(&message, 487, None, Some(&tag)).finish();
            self.transactions.respond(id, response, now);
        }
        self.finish(call, 487, true);
    }

    fn acked(&mut self, call: CallId, ack: &Message<'_>) {
        let Some(leg) = self.legs.get_mut(&call) else { return };
        if let Role::Callee { sent, .. } = &mut leg.role {
            *sent = None;
        }
        // Where the INVITE had no offer, ours stood in the 200 and the answer stands here.
        if let Ok(session) = Session::parse(ack.body()) {
            self.out.push_back(Out::Media(call, Box::new(session)));
        }
    }

    fn request(&mut self, id: ServerId, message: &Message<'_>, bytes: &Bytes, now: Duration, rng: &mut dyn RngCore) {
        let in_dialog = message.to().is_ok_and(|to| to.tag().is_some());
        match (message.method(), self.find(message)) {
            (Some(Method::Invite), None) if !in_dialog => self.incoming(id, message, bytes, now, rng),
            (Some(Method::Options), None) => self.respond(id, message, 200, now),
            (Some(method), Some(call)) => self.in_dialog(id, call, method, message, now),
            (_, None) => self.respond(id, message, 481, now),
            (None, _) => {}
        }
    }

    fn incoming(&mut self, id: ServerId, message: &Message<'_>, bytes: &Bytes, now: Duration, rng: &mut dyn RngCore) {
        let (Ok(call_id), tag) = (message.call_id(), token(rng)) else { return };
        let Ok(dialog) = Dialog::uas(message, &tag, &self.contact()) else {
            return self.respond(id, message, 400, now);
        };
        let call = self.next;
        self.next += 1;
        let ringing = build::response(message, 180, None, Some(&tag))
            .record_route()
            .header(Name::Contact, self.contact())
            .finish();
        self.transactions.respond(id, ringing, now);
        self.by_dialog.insert((call_id.to_owned(), tag.clone()), call);
        let role = Role::Callee { invite: id, request: bytes.clone(), tag, sent: None };
        self.legs.insert(call, Leg { role, dialog: Some(dialog), local_sdp: None, ack: None, over: false });
        let offer = Session::parse(message.body()).ok().map(Box::new);
        self.out.push_back(Out::Incoming(call, offer));
    }

    fn in_dialog(&mut self, id: ServerId, call: CallId, method: Method<'_>, message: &Message<'_>, now: Duration) {
        let contact = self.contact();
        let Some(leg) = self.legs.get_mut(&call) else { return };
        if let Some(dialog) = &mut leg.dialog
            && dialog.receive(message).is_err()
        {
            return self.respond(id, message, 500, now);
        }
        match method {
            Method::Bye => {
                self.respond(id, message, 200, now);
                self.finish(call, 200, true);
            }
            Method::Invite | Method::Update => {
                if let Some(dialog) = &mut leg.dialog {
                    dialog.refresh_target(message);
                }
                let offer = Session::parse(message.body()).ok();
                let answer = match (&offer, &mut leg.local_sdp) {
                    (Some(offer), Some(local)) => {
                        let again = answer_again(local, offer);
                        *local = again.clone().unwrap_or_else(|| local.clone());
                        again
                    }
                    (None, Some(local)) if method == Method::Invite => Some(local.clone()),
                    _ => None,
                };
                let mut response = build::response(message, 200, None, None).header(Name::Contact, contact);
                if let Some(answer) = answer {
                    response = response.body("application/sdp", answer.to_vec());
                }
                let response = response.finish();
                self.transactions.respond(id, response, now);
                if let Some(offer) = offer {
                    self.out.push_back(Out::Media(call, Box::new(offer)));
                }
            }
            Method::Options | Method::Info => self.respond(id, message, 200, now),
            _ => self.respond(id, message, 405, now),
        }
    }

    fn response(&mut self, id: ClientId, message: &Message<'_>, now: Duration, rng: &mut dyn RngCore) {
        let Some(status) = message.status() else { return };
        match self.purposes.get(&id) {
            Some(&Purpose::Register { tries }) if status >= 200 => {
                self.purposes.remove(&id);
                match self.register_credentials(message, tries, rng) {
                    Some(value) => self.send_register(Some(value), Purpose::Register { tries: tries + 1 }, now, rng),
                    None => self.out.push_back(Out::Registered(status)),
                }
            }
            Some(&Purpose::Unregister { tries }) if status >= 200 => {
                self.purposes.remove(&id);
                if let Some(value) = self.register_credentials(message, tries, rng) {
                    self.send_register(Some(value), Purpose::Unregister { tries: tries + 1 }, now, rng);
                }
            }
            Some(Purpose::Invite(call)) => {
                let call = *call;
                self.invite_response(call, status, message, now, rng);
            }
            Some(Purpose::Other) if status >= 200 => {
                self.purposes.remove(&id);
            }
            _ => {}
        }
    }

    /// Credentials for a challenge to REGISTER, twice at most.
    fn register_credentials(&self, response: &Message<'_>, tries: u8, rng: &mut dyn RngCore) -> Option<String> {
        let uri = format!("sip:{}", self.account.server);
        self.authorize(response, "REGISTER", &uri, rng).filter(|_| tries < 2)
    }

    /// Credentials for a challenge, if it is one that we can answer.
    fn authorize(&self, response: &Message<'_>, method: &str, uri: &str, rng: &mut dyn RngCore) -> Option<String> {
        let name = match response.status()? {
            401 => Name::WwwAuthenticate,
            407 => Name::ProxyAuthenticate,
            _ => return None,
        };
        let challenge = digest::choose(response.headers(name))?;
        let secret = Secret::Password(&self.account.password);
        Some(digest::answer(&challenge, &self.account.user, secret, method, uri, &token(rng), 1))
    }

    fn invite_response(
        &mut self,
        call: CallId,
        status: u16,
        message: &Message<'_>,
        now: Duration,
        rng: &mut dyn RngCore,
    ) {
        let via = self.via(rng);
        let Some(leg) = self.legs.get_mut(&call) else { return };
        let Role::Caller { offer, invite, cseq, tries, .. } = &mut leg.role else { return };
        let Ok(sent) = Message::parse(invite) else { return };
        match status {
            100 => {}
            101..=199 => self.out.push_back(Out::Ringing(call)),
            200..=299 => {
                if let Some(ack) = leg.ack.clone() {
                    return self.out.push_back(Out::Send(self.account.server, ack));
                }
                let Ok(dialog) = Dialog::uac(&sent, message) else { return };
                let ack = dialog.ack(*cseq, &via).finish();
                leg.ack = Some(ack.clone());
                leg.dialog = Some(dialog);
                self.out.push_back(Out::Send(self.account.server, ack));
                if let Ok(session) = Session::parse(message.body()) {
                    self.out.push_back(Out::Media(call, Box::new(session)));
                }
                self.out.push_back(Out::Answered(call));
            }
            _ => {
                let again = *tries == 0 && matches!(status, 401 | 407);
                let (sent_uri, next_cseq) = (sent.uri().unwrap_or_default().to_owned(), *cseq + 1);
                let (from, to) = (header(&sent, Name::From), header(&sent, Name::To));
                let call_id = header(&sent, Name::CallId);
                let body = offer.to_vec();
                let value = again.then(|| self.authorize(message, "INVITE", &sent_uri, rng)).flatten();
                let Some(value) = value else { return self.finish(call, status, true) };
                let name = if status == 401 { Name::Authorization } else { Name::ProxyAuthorization };
                let request = build::request("INVITE", &sent_uri)
                    .header(Name::Via, via)
                    .header(Name::MaxForwards, "70")
                    .header(Name::From, from)
                    .header(Name::To, to)
                    .header(Name::CallId, call_id)
                    .header(Name::CSeq, format!("{next_cseq} INVITE"))
                    .header(Name::Contact, self.contact())
                    .header(Name::Allow, ALLOW)
                    .header(Name::UserAgent, "kubepbx-phone")
                    .header(name, value)
                    .body("application/sdp", body)
                    .finish();
                let id = self.send(request.clone(), Purpose::Invite(call), now);
                match (id, self.legs.get_mut(&call).map(|l| &mut l.role)) {
                    (Some(id), Some(Role::Caller { invite, cseq, tries, client, .. })) => {
                        (*invite, *cseq, *tries, *client) = (request, next_cseq, 1, id);
                    }
                    _ => self.finish(call, 503, false),
                }
            }
        }
    }

    /// True if nobody owes us an answer to a BYE, a CANCEL or [`Ua::unregister`].
    pub(crate) fn is_settled(&self) -> bool {
        !self.purposes.values().any(|purpose| matches!(purpose, Purpose::Other | Purpose::Unregister { .. }))
    }

    /// The next thing to do; `None` until more input or the deadline.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Out> {
        if let Some(out) = self.out.pop_front() {
            return Some(out);
        }
        while let Some(output) = self.transactions.poll(now) {
            match output {
                Output::Transmit { to, bytes } => return Some(Out::Send(to, bytes)),
                Output::ClientTimeout(id) => match self.purposes.get(&id) {
                    Some(Purpose::Register { .. }) => self.out.push_back(Out::Registered(408)),
                    Some(Purpose::Invite(call)) => {
                        let call = *call;
                        if self.legs.get(&call).is_some_and(|l| l.ack.is_none()) {
                            self.finish(call, 408, false);
                        }
                    }
                    _ => {}
                },
                Output::ClientDone(id) => {
                    self.purposes.remove(&id);
                }
                _ => {}
            }
            if let Some(out) = self.out.pop_front() {
                return Some(out);
            }
        }
        let server = self.account.server;
        let mut unheard = None;
        for (call, leg) in &mut self.legs {
            let Role::Callee { sent: Some(again), .. } = &mut leg.role else { continue };
            match again.poll(now) {
                Some(Repeat::Send(bytes)) => return Some(Out::Send(server, bytes)),
                Some(Repeat::GiveUp) => unheard = Some(*call),
                None => {}
            }
        }
        // Nobody acknowledged our answer for 32 s (RFC 3261 13.3.1.4): there is no call.
        if let Some(call) = unheard {
            self.finish(call, 408, false);
        }
        self.out.pop_front()
    }

    /// When [`Ua::poll`] has something again without input.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let again = self.legs.values().filter_map(|leg| match &leg.role {
            Role::Callee { sent: Some(again), .. } => again.deadline(),
            _ => None,
        });
        again.chain(self.transactions.deadline()).min()
    }
}

/// The answer to a later offer: the same address and codecs, the version one higher.
fn answer_again(local: &Session, offer: &Session) -> Option<Session> {
    let address = local.rtp_address(local.audio()?)?;
    let id = local.origin.session_id.parse().unwrap_or(1);
    rtp::sdp::answer(offer, address, &super::codecs(), id, local.origin.version + 1).ok()
}

fn header(message: &Message<'_>, name: Name) -> String {
    message.header(name).unwrap_or_default().to_owned()
}

/// 64 random bits in hexadecimal.
pub(crate) fn token(rng: &mut dyn RngCore) -> String {
    format!("{:016x}", rng.next_u64())
}
