//! Messages from outside.

use super::context::{Context, Goal, Plan};
use super::{Core, Hop, Turn};
use crate::counters::Counter;
use crate::{options, refuse, trust, via};
use bytes::Bytes;
use contract::peers::PeerState;
use contract::{Flow, Service, Transport};
use sip::edit::Edit;
use sip::header::NameAddr;
use sip::status::reason_phrase;
use sip::transaction::Received;
use sip::uri::Uri;
use sip::{Message, Method, Name, ParseError};

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) reason: Option<String>,
    pub(super) headers: Vec<(Name, String)>,
}

impl Refusal {
    pub(super) fn new(status: u16, reason: &str) -> Self {
        Self { status, reason: Some(reason.to_owned()), headers: Vec::new() }
    }

    pub(super) fn plain(status: u16) -> Self {
        Self { status, reason: None, headers: Vec::new() }
    }

    pub(super) fn with(mut self, name: Name, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Line ends that keep a flow open (RFC 5626 3.5.1), empty datagrams, and STUN (RFC 5389 6: the first two bits are 0
/// and no SIP begins so). Nothing is answered: a phone that wants an answer says so by `ob`, which we do not offer.
fn is_keepalive(bytes: &[u8]) -> bool {
    bytes.iter().all(|b| matches!(b, b'\r' | b'\n' | b' ' | b'\t' | 0)) || bytes.first().is_some_and(|b| *b < 4)
}

impl Core {
    /// A message from outside; `handed` if another replica got it and gave it to us.
    pub(super) fn outside(&mut self, turn: &mut Turn<'_>, bytes: Bytes, flow: Flow, handed: bool) {
        if is_keepalive(&bytes) {
            return self.counters.count(Counter::Keepalive);
        }
        let message = match Message::parse(&bytes) {
            Ok(message) => message,
            Err(fault) => {
                // What can be answered has a readable header.
                let repaired = (fault == ParseError::FieldLine).then(|| sip::intake::without_broken_lines(&bytes));
                match Message::parse_head(repaired.as_deref().unwrap_or(&bytes)) {
                    Ok(head) => self.malformed(turn, &head, &flow, &fault),
                    Err(_) => self.counters.count(Counter::Unparsable),
                }
                return;
            }
        };
        if let Err(fault) = message.validate() {
            return self.malformed(turn, &message, &flow, &fault);
        }
        if !message.is_request() {
            self.counters.count(Counter::OutsideResponse);
            return self.response(turn, &message, &bytes, Hop::Outside(flow), handed);
        }
        self.counters.count(Counter::OutsideRequest);
        if let Some(fixed) = self.loosened(turn, &message) {
            // Its Request-URI is not our token any more, so this comes here once.
            if let Ok(message) = Message::parse(&fixed) {
                self.outside_request(turn, &message, &fixed, flow, handed);
            }
            return;
        }
        self.outside_request(turn, &message, &bytes, flow, handed);
    }

    pub(super) fn malformed(&mut self, turn: &Turn<'_>, message: &Message<'_>, flow: &Flow, fault: &ParseError) {
        let status = fault.status().filter(|_| message.is_request() && message.method() != Some(Method::Ack));
        let Some(status) = status else {
            return self.counters.count(Counter::Unparsable);
        };
        self.counters.count(Counter::Malformed);
        let reason = format!("{} ({fault})", reason_phrase(status));
        self.refuse_outside(turn, message, flow, &Refusal::new(status, &reason));
    }

    /// Answers a request from outside without keeping state.
    fn refuse_outside(&mut self, turn: &Turn<'_>, request: &Message<'_>, flow: &Flow, refusal: &Refusal) {
        let headers: Vec<_> = refusal.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let status = (refusal.status, refusal.reason.as_deref());
        if let Some(bytes) = refuse::answer(request, Some(flow.remote), turn.view.keys, status, &headers) {
            self.send(answer_hop(request, flow), bytes);
        }
    }

    /// A request of a strict router (RFC 3261 16.4): our Record-Route stands in the Request-URI, and the Request-URI
    /// at the end of Route.
    fn loosened(&self, turn: &Turn<'_>, request: &Message<'_>) -> Option<Bytes> {
        let uri = Uri::parse(request.uri()?).ok()?;
        let (user, call_id) = (uri.user?, request.call_id().ok()?);
        let ours = Flow::from_token(user, turn.view.keys).is_some()
            || crate::token::pair::open(user, call_id, turn.view.keys).is_some();
        if !ours {
            return None;
        }
        let routes: Vec<&str> = request.values(Name::Route).collect();
        let (last, others) = routes.split_last()?;
        let mut edit = Edit::new(request);
        edit.set_uri(NameAddr::parse(last).ok()?.uri).remove_all(Name::Route);
        // What stood in the Request-URI is our own route of this side: it is kept, to be popped as any other.
        edit.append(Name::Route, format!("<{}>", uri.raw));
        for route in others {
            edit.append(Name::Route, *route);
        }
        Some(edit.finish())
    }

    fn outside_request(&mut self, turn: &mut Turn<'_>, request: &Message<'_>, bytes: &Bytes, flow: Flow, handed: bool) {
        match request.method() {
            Some(Method::Ack) => return self.outside_ack(turn, request, bytes, flow, handed),
            Some(Method::Cancel) => return self.outside_cancel(turn, request, bytes, flow),
            _ => {}
        }
        let plan = match self.judge(turn, request, &flow) {
            Ok(plan) => plan,
            Err(refusal) => {
                if refusal.status == 403 {
                    self.counters.count(Counter::Refused);
                }
                return self.refuse_outside(turn, request, &flow, &refusal);
            }
        };
        if let Goal::Flow(target) = &plan.goal
            && let Some(owner) = self.connection_owner(turn, target)
            && !handed
        {
            return self.hand_over(turn, owner, request, &flow);
        }
        let source = answer_hop(request, &flow);
        match self.transactions.receive(request, bytes, source, flow.transport.is_reliable(), turn.now.mono) {
            Received::Request(server) => {
                let invite = request.method() == Some(Method::Invite);
                let context = Context::new(server, bytes.clone(), Hop::Outside(flow), invite, plan);
                self.begin(turn, context);
            }
            Received::Overflow => self.overflow(turn, request, &flow),
            _ => {}
        }
    }

    fn overflow(&mut self, turn: &Turn<'_>, request: &Message<'_>, flow: &Flow) {
        self.counters.count(Counter::Overflow);
        let refusal = Refusal::plain(503).with(Name::RetryAfter, self.limits.retry_after.to_string());
        self.refuse_outside(turn, request, flow, &refusal);
    }

    /// The replica that alone can send on a connection, if it is another one that lives.
    pub(super) fn connection_owner(&self, turn: &Turn<'_>, flow: &Flow) -> Option<crate::token::branch::Owner> {
        let elsewhere = flow.transport != Transport::Udp && flow.connection != 0 && flow.process != self.me.process;
        let owner = crate::token::branch::Owner { process: flow.process, shard: 0 };
        (elsewhere && self.is_alive(turn, owner)).then_some(owner)
    }

    fn outside_cancel(&mut self, turn: &mut Turn<'_>, cancel: &Message<'_>, bytes: &Bytes, flow: Flow) {
        let source = answer_hop(cancel, &flow);
        let received = self.transactions.receive(cancel, bytes, source, flow.transport.is_reliable(), turn.now.mono);
        let (server, invite) = match received {
            Received::Cancel { cancel, invite } => (cancel, invite),
            Received::Overflow => return self.overflow(turn, cancel, &flow),
            _ => return,
        };
        let context = invite.and_then(|s| self.contexts.of_server(s));
        if let Some(number) = context {
            // A copy of the INVITE came here, but another replica has the call.
            let owner = self.contexts.get_mut(number).and_then(|c| c.owner);
            if let Some(owner) = owner {
                return self.hand_over(turn, owner, cancel, &flow);
            }
            self.answer(turn, server, &Refusal::plain(200));
            return self.cancel(turn, number, cancel);
        }
        // Its INVITE went through another replica or is over: it follows the INVITE (RFC 3261 16.10), by the branch
        // that derives from the one they share.
        let refusal = if invite.is_some() || turn.view.peers.serving(Service::Balancer).count() < 2 {
            Refusal::plain(481)
        } else {
            match self.judge(turn, cancel, &flow) {
                Ok(plan) => {
                    let context = Context::new(server, bytes.clone(), Hop::Outside(flow), false, plan);
                    return self.begin(turn, context);
                }
                Err(refusal) => refusal,
            }
        };
        self.answer(turn, server, &refusal);
    }

    /// What a request from outside may do, from the request and the configuration alone.
    pub(super) fn judge(&self, turn: &Turn<'_>, request: &Message<'_>, flow: &Flow) -> Result<Plan, Refusal> {
        let busy = || Refusal::plain(503).with(Name::RetryAfter, self.limits.retry_after.to_string());
        let uri = Uri::parse(request.uri().unwrap_or_default()).map_err(|_| Refusal::plain(400))?;
        if options::is_for_us(request, &uri, flow.local, &self.listeners) {
            // Who probes us sends its calls elsewhere before we refuse them.
            let me = turn.view.peers.get(self.me.process);
            if self.setup.version.is_none() || me.is_some_and(|p| p.state == PeerState::Draining) {
                return Err(busy());
            }
            let capable = |r: Refusal, (name, value): &(Name, &str)| r.with(*name, *value);
            return Err(options::CAPABILITIES.iter().fold(Refusal::plain(200), capable));
        }
        if self.setup.version.is_none() {
            return Err(busy());
        }
        if matches!(request.max_forwards(), Some(Ok(0))) {
            return Err(Refusal::plain(483));
        }
        let required: Vec<&str> = request.values(Name::ProxyRequire).filter(|v| !v.is_empty()).collect();
        if !required.is_empty() {
            return Err(Refusal::plain(420).with(Name::Unsupported, required.join(", ")));
        }
        let own = trust::own_routes(request, flow.local, &self.listeners, turn.view.keys);
        // Behind a pair of ours stand the routes that the far server recorded: the pair chooses where it goes, they are its.
        if own.foreign && own.pair.is_none() {
            return Err(Refusal::new(403, "Foreign Route"));
        }
        let in_dialog = request.to().is_ok_and(|to| to.tag().is_some());
        let goal = if let Some(leg) = trust::leg(&uri, turn.view.keys) {
            Goal::Leg(leg)
        } else if let Some(target) = own.pair {
            if !in_dialog {
                return Err(Refusal::new(403, "Foreign Flow"));
            }
            Goal::Flow(target)
        } else if own.flow.is_some_and(|f| f.remote.ip() != flow.remote.ip()) {
            return Err(Refusal::new(403, "Foreign Flow"));
        } else {
            self.service_for(request, &uri, flow, in_dialog)?
        };
        Ok(Plan { goal, popped: own.count, trusted: trust::is_trusted(flow.remote.ip(), &self.setup.trunks) })
    }

    fn service_for(&self, request: &Message<'_>, uri: &Uri<'_>, flow: &Flow, in_dialog: bool) -> Result<Goal, Refusal> {
        let call_id = request.call_id().unwrap_or_default();
        if request.method() == Some(Method::Register) {
            // One AOR, one registrar: what it holds of the AOR stays warm.
            let to = request.to().and_then(|to| to.uri_parsed());
            let user = to.map(|u| u.user_unescaped().into_owned()).unwrap_or_default();
            let key = if user.is_empty() { call_id.to_owned() } else { user };
            return Ok(Goal::Service { service: Service::Registrar, key });
        }
        if !trust::is_our_domain(uri, flow.local, &self.listeners, &self.setup.domains) {
            return Err(Refusal::new(403, "Foreign Request-URI"));
        }
        let number = uri.user_unescaped();
        match self.setup.set_for(&number).filter(|_| !in_dialog && !number.is_empty()) {
            Some(set) => Ok(Goal::Set(set.name.clone())),
            None => Ok(Goal::Service { service: Service::Router, key: call_id.to_owned() }),
        }
    }
}

/// The hop that answers to a request go to.
pub(super) fn answer_hop(request: &Message<'_>, flow: &Flow) -> Hop {
    let remote = match (flow.transport, request.via()) {
        (Transport::Udp, Ok(via)) => via::answer_to(&via, flow.remote),
        _ => flow.remote,
    };
    Hop::Outside(Flow { remote, ..*flow })
}
