//! The dial step: every live contact of every target rings at once, the first that answers wins, the others are
//! cancelled. A conference is dialled the same way, with one branch (`conference.rs`).

use crate::call::{CallKey, Dialing, Far};
use crate::cause::{self, Branch, Outcome};
use crate::core::{Client, Core, Then, Turn};
use crate::headers;
use crate::hold::Over;
use crate::io::Ask;
use crate::leg::{Begin, Leg, LegKey, Phase};
use crate::negotiate::{self, Told};
use crate::timers::Timer;
use contract::events::CallEventKind;
use contract::leg::LegToken;
use contract::location::{Aor, Binding, StoreError};
use contract::records::Direction;
use contract::{ProcessId, Service, Transport, hop::host};
use dialplan::Target;
use sip::build;
use sip::message::Message;
use sip::transaction::ClientId;
use sip::{Method, Name};
use std::time::Duration;

/// `Reason` of the branches that lost (RFC 3326 2).
const COMPLETED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";
/// A CANCEL that was not taken is sent again after this, and for so long.
const CANCEL_AGAIN: Duration = Duration::from_millis(300);
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// Whom a branch rings.
pub(crate) struct Callee<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) codecs: Vec<String>,
    pub(crate) uri: &'a str,
    pub(crate) route: &'a [String],
    /// Goes straight to this process instead of by its route.
    pub(crate) process: Option<ProcessId>,
    pub(crate) remote: Option<std::net::IpAddr>,
}

impl<'a> Callee<'a> {
    /// The phone that a binding of an endpoint is of.
    pub(crate) fn of(endpoint: &'a str, codecs: Vec<String>, binding: &'a Binding) -> Self {
        let remote = binding.flow.map(|flow| flow.remote.ip());
        Self { endpoint, codecs, uri: &binding.contact, route: &binding.path, process: None, remote }
    }
}

impl Core {
    /// The dial of a call that is under way.
    pub(crate) fn dialing(&self, key: CallKey) -> Option<&Dialing> {
        self.calls.get(&key)?.dialing.as_ref()
    }

    /// The same, to change it.
    pub(crate) fn dialing_mut(&mut self, key: CallKey) -> Option<&mut Dialing> {
        self.calls.get_mut(&key)?.dialing.as_mut()
    }

    /// Rings targets.
    pub(crate) fn dial(&mut self, turn: &mut Turn<'_>, key: CallKey, targets: &[Target], timeout: Option<Duration>) {
        let number = self.begin_dial(turn, key, Far::Dial, timeout.unwrap_or(self.limits.ring_limit));
        for target in targets {
            let Target::Endpoint(endpoint) = target else { continue };
            if turn.view.directory.endpoint(endpoint).is_none() {
                self.branch_ended(key, Branch::Unknown);
                continue;
            }
            if let Some(dialing) = self.dialing_mut(key) {
                dialing.looking += 1;
            }
            let then = Then::Located { call: key, dial: number, endpoint: endpoint.clone() };
            self.ask(Ask::Load { aor: endpoint.clone() }, then);
        }
        self.dial_over(turn, key);
    }

    pub(crate) fn begin_dial(&mut self, turn: &Turn<'_>, key: CallKey, far: Far, limit: Duration) -> u64 {
        let number = self.number();
        if let Some(call) = self.calls.get_mut(&key) {
            call.returned.clear();
            call.dialing = Some(Dialing {
                number,
                far,
                conference: None,
                looking: 0,
                branches: Vec::new(),
                ended: Vec::new(),
                early: None,
                winner: None,
                store_down: false,
                limit,
                holds: Vec::new(),
                seen: Vec::new(),
                waited: Vec::new(),
            });
            self.timers.arm(Timer::Dial(key), turn.now.mono + limit);
        }
        number
    }

    /// The bindings of a target came.
    pub(crate) fn located(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        dial: u64,
        endpoint: &str,
        result: Result<Aor, StoreError>,
    ) {
        let dialing = self.dialing_mut(key).filter(|d| d.number == dial);
        let Some(dialing) = dialing else { return };
        dialing.looking = dialing.looking.saturating_sub(1);
        match result {
            Err(_) => dialing.store_down = true,
            Ok(aor) => {
                let known = turn.view.directory.endpoint(endpoint);
                let codecs = known.map(|e| e.codecs.clone()).unwrap_or_default();
                let wakes = known.is_some_and(|e| e.callback.is_some());
                let live = aor.bindings.iter().filter(|b| is_live(turn, b) && !self.is_left_behind(key, endpoint, b));
                let live: Vec<&Binding> = live.collect();
                for binding in &live {
                    let leg = self.ring(turn, key, Callee::of(endpoint, codecs.clone(), binding));
                    if wakes {
                        self.note_rung(key, endpoint, binding, leg);
                    }
                }
                if !self.hold(turn, key, endpoint, !live.is_empty()) && live.is_empty() {
                    self.call_event(turn, key, CallEventKind::Absent { endpoint: endpoint.to_owned() });
                    self.branch_ended(key, Branch::Absent);
                }
            }
        }
        self.dial_over(turn, key);
    }

    /// Begins one branch: its leg, and the offer made for it. None if it ended at once.
    pub(crate) fn ring(&mut self, turn: &mut Turn<'_>, key: CallKey, callee: Callee<'_>) -> Option<LegKey> {
        let call = self.calls.get(&key)?;
        let branches = call.dialing.as_ref().map_or(0, |d| d.branches.len());
        if branches >= self.limits.max_branches || self.legs.len() >= self.limits.max_legs {
            self.counters.branches_dropped += 1;
            self.branch_ended(key, Branch::Status(500));
            return None;
        }
        let near = self.legs.get(&call.leg)?;
        let offer = match &near.said {
            None => None,
            Some(said) => match negotiate::restrict(said, &[&near.codecs, &callee.codecs]) {
                Some(offer) if near.is_up() => Some(negotiate::prefer(&offer, near.told.text())),
                Some(offer) => Some(offer),
                None => {
                    self.branch_ended(key, Branch::Status(488));
                    return None;
                }
            },
        };
        let place = callee.route.first().and_then(|r| headers::place(r));
        let place = place.unwrap_or_else(|| host(Service::Router, turn.view.me));
        let next = callee.process.or_else(|| headers::next_hop(turn.view, callee.route, callee.uri, &call.id));
        let Some(next) = next else {
            self.branch_ended(key, Branch::Status(500));
            return None;
        };
        let leg_id = contract::leg::leg_id(&call.id, &turn.token(8));
        let (tag, branch_call) = (turn.token(8), turn.token(16));
        let token = LegToken { process: turn.view.me, leg: leg_id.clone() }.seal(turn.view.keys);
        let host_port = turn.view.directory.pbx().domains.first().cloned();
        let host_port = host_port.unwrap_or_else(|| headers::host_of(&place).to_owned());
        let from = headers::address(call.caller_name.as_deref(), &call.caller_number, &host_port);
        let mut request = build::request(Method::Invite.as_str(), callee.uri)
            .header(Name::Via, turn.via())
            .header(Name::MaxForwards, call.max_forwards.to_string());
        for route in callee.route {
            request = request.header(Name::Route, route);
        }
        request = request
            .header(Name::From, format!("{from};tag={tag}"))
            .header(Name::To, headers::address(None, callee.endpoint, &host_port))
            .header(Name::CallId, &branch_call)
            .header(Name::CSeq, "1 INVITE")
            .header(Name::Contact, format!("<sip:{token}@{place}>"))
            .header(Name::Allow, headers::ALLOW)
            .header(Name::Supported, headers::SUPPORTED)
            .header(Name::SessionExpires, self.limits.session_interval.as_secs().to_string())
            .header(Name::MinSE, self.limits.session_min.as_secs().to_string())
            .header(Name::SessionId, headers::session_id(&call.id, near.remote_session.as_deref()))
            .header(Name::UserAgent, headers::AGENT);
        for (name, value) in &call.passed {
            request = request.other(name, value);
        }
        let (call_id, near_key, owner) = (call.id.clone(), call.leg, call.owner);
        let leg_key = LegKey(self.number());
        let mut leg = Leg::new(Begin {
            id: leg_id,
            call: key,
            call_id: call_id.clone(),
            owner,
            direction: Direction::Outbound,
            endpoint: callee.endpoint.to_owned(),
            codecs: callee.codecs,
            contact: format!("<sip:{token}@{place}>"),
            name: (branch_call, tag),
            told: Told::new(turn.rng.next_u64()),
        });
        leg.remote = callee.remote;
        leg.next = Some(next);
        leg.draft = Some(request);
        self.dialogs.insert(leg.name.clone(), leg_key);
        self.legs.insert(leg_key, leg);
        if let Some(dialing) = self.dialing_mut(key) {
            dialing.branches.push(leg_key);
        }
        match offer {
            Some(offer) => self.describe(turn, near_key, leg_key, &offer, Then::Offered(leg_key)),
            None => self.send_invite(turn, leg_key, None),
        }
        Some(leg_key)
    }

    /// The caller's offer is described for a branch: it may ring.
    pub(crate) fn offered(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, result: Result<String, String>) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(call) = leg.call else { return self.bury(leg_key) };
        match result {
            Ok(sdp) => {
                let body = leg.told.tell(&sdp);
                self.send_invite(turn, leg_key, Some(body));
            }
            Err(error) => {
                tracing::warn!(call = %leg.call_id, %error, "no relay for a branch");
                self.drop_branch(leg_key, Branch::Status(500));
                self.dial_over(turn, call);
            }
        }
    }

    fn send_invite(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, body: Option<String>) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let (Some(next), Some(draft)) = (leg.next, leg.draft.clone()) else { return };
        let request = match body {
            Some(body) => draft.body(headers::ACCEPT, body),
            None => draft,
        };
        let bytes = request.finish();
        match self.transactions.send(bytes.clone(), next, true, turn.now.mono) {
            Ok(id) => {
                leg.client = Some(id);
                leg.invite = Some(bytes);
                let (call, endpoint) = (leg.call, leg.endpoint.clone());
                self.clients.insert(id, Client::Invite(leg_key));
                if let Some(call) = call {
                    self.call_event(turn, call, CallEventKind::Called { endpoint });
                }
            }
            Err(_) => {
                self.counters.overflow += 1;
                let call = leg.call;
                self.drop_branch(leg_key, Branch::Status(500));
                if let Some(call) = call {
                    self.dial_over(turn, call);
                }
            }
        }
    }

    /// A response to the INVITE that makes a leg.
    pub(crate) fn branch_response(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        id: ClientId,
        leg_key: LegKey,
        status: u16,
    ) {
        match status {
            100..=199 => self.branch_progress(turn, message, leg_key, status),
            200..=299 => self.branch_answered(turn, message, id, leg_key),
            _ => {
                self.forget(id);
                let leg = self.legs.get_mut(&leg_key).filter(|leg| leg.client == Some(id));
                let Some(leg) = leg else { return };
                leg.client = None;
                if status == 422
                    && leg.call.is_some()
                    && leg.cancel.is_none()
                    && self.retry_interval(turn, message, leg_key)
                {
                    return;
                }
                let ended = match status {
                    // The balancer has no way to that phone any more: the binding is not live (RFC 5626 5.3).
                    430 => Branch::Absent,
                    status => Branch::Status(status),
                };
                self.branch_failed(turn, message, leg_key, ended);
            }
        }
    }

    fn branch_failed(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, leg_key: LegKey, ended: Branch) {
        let leg = self.legs.get(&leg_key);
        let (call, endpoint) = (leg.and_then(|l| l.call), leg.map(|l| l.endpoint.clone()).unwrap_or_default());
        self.drop_branch(leg_key, ended);
        let Some(key) = call else { return };
        if let Some(status) = message.status() {
            self.call_event(turn, key, CallEventKind::Refused { endpoint: endpoint.clone(), status });
        }
        if let Some(call) = self.calls.get_mut(&key)
            && call.dialing.as_ref().is_some_and(|d| d.branches.is_empty())
        {
            call.returned = headers::passed(message, false);
        }
        self.try_another(turn, key, ended);
        self.branch_over(turn, key, &endpoint, ended);
        self.dial_over(turn, key);
    }

    /// The callee wants a longer session interval: once more (RFC 4028 7.3).
    fn retry_interval(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, leg_key: LegKey) -> bool {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return false };
        let asked = message.header(Name::MinSE).and_then(|v| v.split(';').next()?.trim().parse::<u32>().ok());
        let Some(min) = asked.filter(|min| *min > leg.min_se && *min <= 86_400) else { return false };
        let Some(invite) = leg.invite.clone() else { return false };
        let Ok(sent) = Message::parse_stream(&invite) else { return false };
        leg.min_se = min;
        let (Ok(cseq), Some(next)) = (sent.cseq(), leg.next) else { return false };
        let mut bytes = Vec::new();
        sip::edit::Edit::new(&sent)
            .replace(Name::Via, turn.via())
            .replace(Name::CSeq, format!("{} INVITE", cseq.number + 1))
            .replace(Name::SessionExpires, min.to_string())
            .replace(Name::MinSE, min.to_string())
            .write(&mut bytes);
        let bytes = bytes::Bytes::from(bytes);
        let Ok(id) = self.transactions.send(bytes.clone(), next, true, turn.now.mono) else { return false };
        leg.client = Some(id);
        leg.invite = Some(bytes);
        leg.progressed = false;
        self.clients.insert(id, Client::Invite(leg_key));
        true
    }

    /// No response at all to a branch's INVITE, or none any more.
    pub(crate) fn branch_silent(&mut self, turn: &mut Turn<'_>, id: ClientId, leg_key: LegKey) {
        let heard = self.legs.get(&leg_key).is_some_and(|leg| leg.progressed);
        self.branch_lost(turn, id, leg_key, if heard { Branch::Status(408) } else { Branch::Silent });
    }

    /// A branch ended without an answer to what was sent in this transaction.
    pub(crate) fn branch_lost(&mut self, turn: &mut Turn<'_>, id: ClientId, leg_key: LegKey, ended: Branch) {
        self.forget(id);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        if leg.client == Some(id) {
            leg.client = None;
        }
        if leg.phase != Phase::Setup {
            return self.bury(leg_key);
        }
        let (call, endpoint) = (leg.call, leg.endpoint.clone());
        self.drop_branch(leg_key, ended);
        if let Some(call) = call {
            self.try_another(turn, call, ended);
            self.branch_over(turn, call, &endpoint, ended);
            self.dial_over(turn, call);
        }
    }

    fn branch_progress(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, leg_key: LegKey, status: u16) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.progressed = true;
        if let Some(reason) = leg.cancel.take() {
            return self.send_cancel(turn, leg_key, reason);
        }
        let (Some(key), true, true) = (leg.call, status > 100, leg.phase == Phase::Setup) else { return };
        leg.remote_session = headers::session_of(message).or(leg.remote_session.take());
        let rings = matches!(status, 180..=182) && !std::mem::replace(&mut leg.rang, true);
        let (endpoint, offerless) = (leg.endpoint.clone(), leg.told.text().is_empty());
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (call_id, near_key) = (call.id.clone(), call.leg);
        if rings {
            self.event(turn, &call_id, CallEventKind::Ringing { endpoint });
        }
        if self.caller_is_up(key) {
            return;
        }
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.returned = headers::passed(message, false);
        let Some(dialing) = call.dialing.as_mut().filter(|d| d.winner.is_none()) else { return };
        let early = match negotiate::body(message) {
            // An offer in an unreliable provisional answer is no offer (RFC 3261 13.2.1).
            Ok(Some(sdp)) if !offerless && dialing.early.is_none_or(|e| e == leg_key) => Some(sdp),
            _ => None,
        };
        match early {
            Some(sdp) => {
                dialing.early = Some(leg_key);
                let answer = self.fit_answer(near_key, leg_key, &sdp);
                match answer {
                    Some(answer) => {
                        self.describe_answer(turn, near_key, leg_key, &answer, Then::Early { leg: leg_key, status });
                    }
                    None => self.progress(turn, key, status, None),
                }
            }
            None => self.progress(turn, key, status, None),
        }
    }

    /// What of `answer` (the far leg's) fits the near leg's offer: codecs of both, lines as offered.
    pub(crate) fn fit_answer(&self, offerer: LegKey, answerer: LegKey, answer: &str) -> Option<String> {
        let (a, b) = (self.legs.get(&offerer)?, self.legs.get(&answerer)?);
        let fitting = negotiate::restrict(answer, &[&a.codecs, &b.codecs])?;
        Some(negotiate::conform(&fitting, a.said.as_deref().unwrap_or_default()))
    }

    /// A branch's early description is ready for the caller.
    pub(crate) fn early(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, status: u16, result: Result<String, String>) {
        let Some(key) = self.legs.get(&leg_key).filter(|l| l.phase == Phase::Setup).and_then(|l| l.call) else {
            return;
        };
        self.progress(turn, key, status, result.ok());
    }

    /// Notes how a branch ended that has no leg, or none any more.
    pub(crate) fn branch_ended(&mut self, key: CallKey, ended: Branch) {
        if let Some(dialing) = self.dialing_mut(key) {
            dialing.ended.push(ended);
        }
    }

    /// Takes a branch that ended without an answer out of its dial and forgets it.
    pub(crate) fn drop_branch(&mut self, leg_key: LegKey, ended: Branch) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.phase = Phase::Ending;
        if let Some(key) = leg.call.take() {
            self.leave_relay(leg_key);
            if let Some(dialing) = self.dialing_mut(key) {
                dialing.branches.retain(|b| *b != leg_key);
                if dialing.early == Some(leg_key) {
                    dialing.early = None;
                }
            }
            self.branch_ended(key, ended);
        }
        self.bury(leg_key);
    }

    /// If nobody is left to answer, the dial is over and the plan goes on.
    pub(crate) fn dial_over(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(dialing) = self.dialing(key) else { return };
        if dialing.looking > 0 || !dialing.branches.is_empty() || dialing.winner.is_some() {
            return;
        }
        if dialing.store_down && !self.caller_is_up(key) {
            return self.store_down(turn, key);
        }
        if !dialing.holds.is_empty() {
            return;
        }
        let outcome = cause::aggregate(&dialing.ended);
        self.dial_ended(turn, key, outcome);
    }

    fn dial_ended(&mut self, turn: &mut Turn<'_>, key: CallKey, outcome: Outcome) {
        self.drop_holds(turn, key, Over::Timeout);
        let unanswered = !self.caller_is_up(key);
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.dialing = None;
        call.resumed.clear();
        if unanswered && std::mem::take(&mut call.saved) {
            // Held no more, it rings or ends as any other.
            let remove = Ask::Remove { kind: "call", id: call.id.clone(), owner: call.owner };
            call.unprotected = false;
            self.out.push_back(crate::Output::Ask(None, remove));
        }
        call.outcome = Some(outcome);
        tracing::info!(call = %call.id, status = outcome.status.as_str(), cause = outcome.cause.number(), "dial ended");
        self.timers.disarm(Timer::Dial(key));
        self.run(turn, key);
    }

    /// Nobody answered in time.
    pub(crate) fn dial_timeout(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(dialing) = self.dialing(key) else { return };
        if dialing.winner.is_some() {
            return;
        }
        self.cancel_branches(turn, key, None, Some(&cause::reason(dialplan::Cause::NO_ANSWER)));
        self.dial_ended(turn, key, cause::NO_ANSWER);
    }

    /// Cancels all branches but `winner`.
    pub(crate) fn cancel_branches(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        winner: Option<LegKey>,
        reason: Option<&str>,
    ) {
        let reason = reason.or(winner.is_some().then_some(COMPLETED_ELSEWHERE)).map(str::to_owned);
        let Some(dialing) = self.dialing_mut(key) else { return };
        let losers: Vec<LegKey> = dialing.branches.iter().copied().filter(|b| Some(*b) != winner).collect();
        dialing.branches.retain(|b| Some(*b) == winner);
        for leg_key in losers {
            let Some(leg) = self.legs.get_mut(&leg_key) else { continue };
            leg.phase = Phase::Ending;
            leg.call = None;
            self.leave_relay(leg_key);
            match self.legs.get_mut(&leg_key) {
                Some(leg) if leg.client.is_none() => self.bury(leg_key),
                Some(leg) if leg.progressed => self.send_cancel(turn, leg_key, reason.clone()),
                // RFC 3261 9.1: CANCEL waits for a provisional answer.
                Some(leg) => leg.cancel = Some(reason.clone()),
                None => {}
            }
        }
    }

    fn send_cancel(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, reason: Option<String>) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let (Some(client), Some(next)) = (leg.client, leg.next) else { return };
        let reasons: Vec<&str> = reason.iter().map(String::as_str).collect();
        let Some(cancel) = self.transactions.cancel_with(client, &reasons) else { return };
        let until = leg.cancelling.take().map_or(turn.now.mono + CANCEL_PATIENCE, |(_, until)| until);
        leg.cancelling = Some((reason, until));
        if let Ok(id) = self.transactions.send(cancel, next, true, turn.now.mono) {
            leg.open += 1;
            self.clients.insert(id, Client::Cancel(leg_key));
        }
    }

    /// A CANCEL was not taken: its balancer lost sight of us for a moment, and the phone rings on. False if it is too late.
    pub(crate) fn cancel_later(&mut self, turn: &Turn<'_>, leg_key: LegKey) -> bool {
        let now = turn.now.mono;
        let Some(leg) = self.legs.get_mut(&leg_key) else { return false };
        let again = leg.client.is_some() && leg.cancelling.as_ref().is_some_and(|(_, until)| now < *until);
        if again {
            self.timers.arm(Timer::Cancel(leg_key), now + CANCEL_AGAIN);
        } else {
            leg.cancelling = None;
        }
        again
    }

    /// It is sent again.
    pub(crate) fn cancel_again(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let cancelling = self.legs.get(&leg_key).and_then(|leg| leg.cancelling.clone());
        if let Some((reason, _)) = cancelling {
            self.send_cancel(turn, leg_key, reason);
        }
    }

    /// A CANCEL has its answer.
    pub(crate) fn cancel_answered(&mut self, leg_key: LegKey) {
        if let Some(leg) = self.legs.get_mut(&leg_key) {
            leg.cancelling = None;
        }
    }

    /// True if the caller has been answered.
    pub(crate) fn caller_is_up(&self, key: CallKey) -> bool {
        self.calls.get(&key).and_then(|c| self.legs.get(&c.leg)).is_some_and(Leg::is_up)
    }
}

/// True if a binding can be reached: unexpired, and a stream's process still there. Whoever holds the address may send
/// on a UDP flow.
pub(crate) fn is_live(turn: &Turn<'_>, binding: &Binding) -> bool {
    let flow = binding.flow.is_none_or(|f| f.transport == Transport::Udp || turn.view.peers.get(f.process).is_some());
    binding.is_live(turn.now.unix()) && flow
}
