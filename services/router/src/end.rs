//! The end of calls and legs: whoever rings is cancelled, whoever talks gets BYE, and nothing is left behind.

use crate::call::CallKey;
use crate::cause;
use crate::core::{Client, Core, Turn};
use crate::headers;
use crate::hold::Over;
use crate::io::Ask;
use crate::leg::{Exchange, LegKey, Phase};
use crate::media;
use crate::negotiate;
use crate::timers::Timer;
use contract::events::CallEventKind;
use dialplan::Cause;
use sip::transaction::ServerId;
use sip::{Method, Name};

/// Why and how a call ends.
#[derive(Debug)]
pub(crate) struct End {
    /// The final answer, if the caller has none.
    pub(crate) code: u16,
    pub(crate) cause: Cause,
    pub(crate) why: String,
    /// Fields of the final answer.
    pub(crate) fields: Vec<(String, String)>,
    /// `Reason` of the BYEs; without one it is made of the cause.
    pub(crate) reason: Option<String>,
}

impl Core {
    /// Ends a call before its plan ran.
    pub(crate) fn refuse(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        code: u16,
        cause: Cause,
        why: &str,
        fields: Vec<(Name, String)>,
    ) {
        let fields = fields.into_iter().map(|(name, value)| (name.as_str().to_owned(), value)).collect();
        self.end(turn, key, End { code, cause, why: why.to_owned(), fields, reason: None });
    }

    /// Ends a call with all its legs.
    pub(crate) fn end(&mut self, turn: &mut Turn<'_>, key: CallKey, end: End) {
        self.drop_holds(turn, key, if end.code == 503 { Over::Store } else { Over::Cancelled });
        let Some(call) = self.calls.get(&key) else { return };
        let winner = call.dialing.as_ref().and_then(|d| d.winner);
        let reason = end.reason.unwrap_or_else(|| cause::reason(end.cause));
        self.cancel_branches(turn, key, winner, Some(&reason));
        let Some(call) = self.calls.remove(&key) else { return };
        self.ids.remove(&call.id);
        for timer in Timer::of_call(key) {
            self.timers.disarm(timer);
        }
        let bridge = call.bridge.and_then(|b| self.bridges.remove(&b));
        let far = bridge.as_ref().map(|b| b.other(call.leg));
        if let Some(bridge) = bridge.filter(|_| call.saved) {
            self.order(Ask::Remove { kind: "bridge", id: bridge.id, owner: bridge.owner });
        }
        self.hang_up_caller(turn, call.leg, end.code, end.fields, &reason);
        for leg in [winner, far].into_iter().flatten() {
            self.detach(leg);
            self.bye(turn, leg, Some(reason.clone()));
        }
        for relay in call.relay.into_iter().chain(call.leaving.map(|l| l.relay)) {
            self.order(Ask::Media { relay, command: media::delete_call(&call.id) });
        }
        if call.saved {
            self.order(Ask::Remove { kind: "call", id: call.id.clone(), owner: call.owner });
        }
        tracing::info!(call = %call.id, cause = end.cause.number(), why = %end.why, "ended");
        self.event(turn, &call.id, CallEventKind::Ended { cause: end.cause.number(), reason: end.why });
    }

    /// Somebody who may wants a call to end.
    pub(crate) fn hang_up_call(&mut self, turn: &mut Turn<'_>, id: &str) {
        if let Some(key) = self.ids.get(id).copied() {
            self.refuse(turn, key, 480, Cause::NORMAL, "hung up by command", Vec::new());
        }
    }

    /// The caller's leg ends: by a final answer, or by BYE.
    fn hang_up_caller(
        &mut self,
        turn: &mut Turn<'_>,
        leg_key: LegKey,
        code: u16,
        fields: Vec<(String, String)>,
        reason: &str,
    ) {
        self.detach(leg_key);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(server) = leg.server.take() else {
            return self.bye(turn, leg_key, Some(reason.to_owned()));
        };
        leg.phase = Phase::Ending;
        let tag = leg.name.1.clone();
        let session = headers::session_id(&leg.call_id, leg.remote_session.as_deref());
        self.servers.remove(&server);
        let warned = code != 488 || fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("Warning"));
        self.reply_as(turn, server, code, &tag, |r| {
            let r = r.header(Name::SessionId, session).header_opt(Name::Reason, (code != 401).then_some(reason));
            let r = r.header_opt(Name::Warning, (!warned).then_some(negotiate::NO_COMMON_CODEC));
            fields.iter().fold(r, |r, (name, value)| r.other(name, value))
        });
        self.bury(leg_key);
    }

    /// A leg belongs to no call any more.
    pub(crate) fn detach(&mut self, leg_key: LegKey) {
        if let Some(leg) = self.legs.get_mut(&leg_key) {
            leg.call = None;
            leg.bridge = None;
            leg.awaits_answer = None;
            leg.realign = None;
            leg.place = None;
        }
    }

    /// Ends a leg's dialog: BYE at once, or after the ACK that is owed to us (RFC 3261 15).
    pub(crate) fn bye(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, reason: Option<String>) {
        self.drop_change(turn, leg_key);
        self.timers.disarm(Timer::Session(leg_key));
        self.timers.disarm(Timer::Retry(leg_key));
        self.acknowledge_rejecting(turn, leg_key);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.phase = Phase::Ending;
        self.forget_record(leg_key);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        if leg.bye_sent || leg.dialog.is_none() {
            return self.bury(leg_key);
        }
        if leg.resend.is_some() {
            leg.bye_on_ack = Some(reason);
            return;
        }
        leg.bye_sent = true;
        let via = turn.via();
        let session = headers::session_id(&leg.call_id, leg.remote_session.as_deref());
        let Some(dialog) = leg.dialog.as_mut() else { return };
        let request = dialog
            .request(Method::Bye.as_str(), &via)
            .header_opt(Name::Reason, reason)
            .header(Name::SessionId, session)
            .header(Name::UserAgent, headers::AGENT);
        self.send(turn, leg_key, request, Client::Bye(leg_key));
        self.bury(leg_key);
    }

    /// A leg's record is needed no more.
    pub(crate) fn forget_record(&mut self, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        if std::mem::take(&mut leg.saved) {
            let remove = Ask::Remove { kind: "leg", id: leg.id.clone(), owner: leg.owner };
            self.order(remove);
        }
    }

    /// The ACK came, or never will: the BYE that waited for it goes.
    pub(crate) fn bye_waiting(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.resend = None;
        let reason = leg.bye_on_ack.take().flatten();
        self.timers.disarm(Timer::Resend(leg_key));
        self.bye(turn, leg_key, reason);
    }

    /// A request that the leg made, and ours on the other leg for it, come to nothing.
    fn drop_change(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        if let Some(Exchange::Serving(serving)) = leg.exchange.take() {
            let tag = leg.name.1.clone();
            self.servers.remove(&serving.server);
            self.reply_as(turn, serving.server, 487, &tag, |r| r);
        }
    }

    /// Forgets a leg that has nothing left to wait for.
    pub(crate) fn bury(&mut self, leg_key: LegKey) {
        if self.legs.get(&leg_key).is_none_or(|leg| !leg.is_over()) {
            return;
        }
        self.forget_leg(leg_key);
    }

    /// Forgets a leg, whatever is under way on it.
    pub(crate) fn forget_leg(&mut self, leg_key: LegKey) {
        let Some(leg) = self.legs.remove(&leg_key) else { return };
        self.dialogs.remove(&leg.name);
        if let Some(caller) = leg.caller {
            self.callers.remove(&caller);
        }
        for timer in Timer::of_leg(leg_key) {
            self.timers.disarm(timer);
        }
        let serving = match leg.exchange {
            Some(Exchange::Serving(serving)) => Some(serving.server),
            _ => None,
        };
        for server in leg.server.into_iter().chain(serving) {
            self.servers.remove(&server);
            self.transactions.forget(server);
        }
    }

    /// CANCEL: of the INVITE that makes a call, or of a re-INVITE (RFC 3261 9.2).
    pub(crate) fn cancelled(&mut self, turn: &mut Turn<'_>, cancel: ServerId, invite: Option<ServerId>) {
        let Some(invite) = invite else {
            return self.reply(turn, cancel, 481, |r| r);
        };
        let leg_key = self.servers.get(&invite).copied();
        let tag = leg_key.and_then(|l| self.legs.get(&l)).map(|l| l.name.1.clone());
        match tag {
            Some(tag) => self.reply_as(turn, cancel, 200, &tag, |r| r),
            // It has its final answer: nothing happens.
            None => return self.reply(turn, cancel, 200, |r| r),
        }
        let Some(leg_key) = leg_key else { return };
        let Some(leg) = self.legs.get(&leg_key) else { return };
        match leg.call.filter(|_| leg.server == Some(invite)) {
            Some(call) => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.outcome = None;
                }
                let why = "cancelled by the caller".to_owned();
                self.end(turn, call, End { code: 487, cause: Cause::NORMAL, why, fields: vec![], reason: None });
            }
            None => self.change_cancelled(turn, leg_key),
        }
    }

    /// BYE from a leg.
    pub(crate) fn bye_received(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, reason: Option<String>) {
        self.drop_change(turn, leg_key);
        self.timers.disarm(Timer::Resend(leg_key));
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.bye_sent = true;
        leg.bye_on_ack = None;
        leg.resend = None;
        leg.phase = Phase::Ending;
        let Some(key) = leg.call else { return self.bury(leg_key) };
        let Some(call) = self.calls.get(&key) else { return self.bury(leg_key) };
        let far = call.bridge.and_then(|b| self.bridges.get(&b)).is_some_and(|b| b.other(call.leg) == leg_key);
        if call.leg != leg_key && far && call.far != Some(crate::call::Far::Dial) {
            return self.far_left(turn, key, leg_key);
        }
        // A caller may give up by BYE too, while its INVITE is unanswered (RFC 3261 15.1.2).
        let (code, why) = if call.leg == leg_key { (487, "the caller hung up") } else { (480, "the callee hung up") };
        let why = why.to_owned();
        self.end(turn, key, End { code, cause: Cause::NORMAL, why, fields: vec![], reason });
        self.bury(leg_key);
    }

    /// A conference is done with the caller: the plan goes on, unless it went on already.
    pub(crate) fn far_left(&mut self, turn: &mut Turn<'_>, key: CallKey, leg_key: LegKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let waits = call.far == Some(crate::call::Far::Play) && call.dialing.is_none();
        self.unbridge(key, leg_key);
        self.bye(turn, leg_key, None);
        if waits {
            self.run(turn, key);
        }
    }

    /// The caller has no far leg any more.
    pub(crate) fn unbridge(&mut self, key: CallKey, far: LegKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.far = None;
        let bridge = call.bridge.take().and_then(|b| self.bridges.remove(&b));
        if let Some(bridge) = bridge {
            if let Some(near) = self.legs.get_mut(&bridge.other(far)) {
                near.bridge = None;
            }
            self.order(Ask::Remove { kind: "bridge", id: bridge.id, owner: bridge.owner });
        }
        self.leave_relay(far);
        self.detach(far);
    }
}
