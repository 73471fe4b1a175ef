//! Somebody answered: the winner is acknowledged, its description brought to the caller, the legs are bridged and
//! saved, and only then the caller gets its 2xx (RFC 3261 13.2.2.4, 13.3.1.4).

use crate::bridge::{Bridge, BridgeKey};
use crate::call::{CallKey, Far};
use crate::cause::{self, Branch};
use crate::core::{AfterSave, Client, Core, Then, Turn};
use crate::end::End;
use crate::headers;
use crate::hold::Over;
use crate::io::Ask;
use crate::leg::{LegKey, Phase, Resend};
use crate::negotiate;
use crate::timers::Timer;
use bytes::Bytes;
use contract::events::CallEventKind;
use dialplan::Cause;
use sip::dialog::{Dialog, Repeat, Retransmit2xx};
use sip::message::Message;
use sip::transaction::ClientId;
use sip::{Method, Name};
use std::time::Duration;

/// That an ACK came is written with whatever is written next, or else after this: calls that are shorter cost nothing.
const NOTE: Duration = Duration::from_secs(2);

impl Core {
    /// A 2xx to the INVITE that makes a leg: the first, one again, or that of another phone behind a forking proxy.
    pub(crate) fn branch_answered(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        id: ClientId,
        leg_key: LegKey,
    ) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let tag = message.to().ok().and_then(|to| to.tag()).unwrap_or_default();
        if leg.phase != Phase::Setup && leg.dialog.as_ref().is_some_and(|d| d.id.remote_tag == tag) {
            return self.acknowledge_again(turn, message, leg_key);
        }
        let Some(invite) = leg.invite.clone() else { return };
        let Ok(sent) = Message::parse_stream(&invite) else { return };
        let Ok(dialog) = Dialog::uac(&sent, message) else {
            self.counters.dropped += 1;
            return;
        };
        let cseq = sent.cseq().map_or(1, |c| c.number);
        let wanted = leg.phase == Phase::Setup && leg.client == Some(id);
        if !wanted && leg.dialog.is_some() {
            return self.refuse_dialog(turn, dialog, cseq, message, leg_key);
        }
        leg.remote_session = headers::session_of(message).or(leg.remote_session.take());
        leg.dialog = Some(dialog);
        leg.unacknowledged = Some(cseq);
        leg.last_invite = Some(cseq);
        leg.allows_update = headers::allows_update(message) == Some(true);
        leg.answered_at = turn.now.unix();
        leg.cancel = None;
        let call = leg.call.filter(|_| wanted);
        let Some(key) = call else {
            // It answered while its CANCEL was on the way.
            leg.phase = Phase::Ending;
            self.acknowledge_unwanted(turn, message, leg_key);
            return self.bye(turn, leg_key, Some(cause::reason(Cause::NORMAL)));
        };
        leg.phase = Phase::Answered;
        leg.timer = self.limits.session_granted(message);
        self.arm_session(turn, leg_key);
        self.won(turn, message, key, leg_key);
    }

    /// This branch has the call.
    fn won(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, key: CallKey, leg_key: LegKey) {
        self.cancel_branches(turn, key, Some(leg_key), None);
        self.timers.disarm(Timer::Dial(key));
        self.timers.disarm(Timer::Progress(key));
        let Some(call) = self.calls.get_mut(&key) else { return };
        let near = call.leg;
        call.returned = headers::passed(message, false);
        if let Some(dialing) = call.dialing.as_mut() {
            dialing.winner = Some(leg_key);
            dialing.looking = 0;
        }
        self.drop_holds(turn, key, Over::Answered);
        let offered = self.legs.get(&leg_key).is_some_and(|l| !l.told.text().is_empty());
        match (offered, negotiate::body(message)) {
            (true, Ok(Some(answer))) => {
                self.acknowledge(turn, leg_key, None);
                let fitting = self.fit_answer(near, leg_key, &answer);
                if let Some(leg) = self.legs.get_mut(&leg_key) {
                    leg.said = Some(answer);
                    leg.said_offer = false;
                }
                match fitting {
                    Some(fitting) => self.describe_answer(turn, near, leg_key, &fitting, Then::Connected(leg_key)),
                    None => self.lost(turn, key, leg_key, Branch::Status(488)),
                }
            }
            (false, Ok(Some(offer))) => {
                let codecs = |key| self.legs.get(&key).map(|l| l.codecs.clone()).unwrap_or_default();
                let fitting = negotiate::restrict(&offer, &[&codecs(leg_key), &codecs(near)]);
                if let Some(leg) = self.legs.get_mut(&leg_key) {
                    leg.said = Some(offer);
                    leg.said_offer = true;
                }
                match fitting {
                    Some(fitting) => self.describe(turn, leg_key, near, &fitting, Then::ConnectedOffer(leg_key)),
                    None => {
                        self.acknowledge_unwanted(turn, message, leg_key);
                        self.lost(turn, key, leg_key, Branch::Status(488));
                    }
                }
            }
            // A 2xx without the description that it owes (RFC 3261 13.2.1).
            _ => {
                self.acknowledge_unwanted(turn, message, leg_key);
                self.lost(turn, key, leg_key, Branch::Status(500));
            }
        }
    }

    /// The winner cannot be connected after all: it is hung up, and the dial has failed.
    fn lost(&mut self, turn: &mut Turn<'_>, key: CallKey, leg_key: LegKey, ended: Branch) {
        if let Some(dialing) = self.dialing_mut(key) {
            dialing.winner = None;
            dialing.branches.clear();
            dialing.ended.push(ended);
        }
        self.detach(leg_key);
        self.bye(
            turn,
            leg_key,
            Some(cause::reason(Cause::of_status(match ended {
                Branch::Status(code) => code,
                _ => 500,
            }))),
        );
        self.dial_over(turn, key);
    }

    /// The winner's answer is described for the caller.
    pub(crate) fn connected(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, result: Result<String, String>) {
        let Some(key) = self.legs.get(&leg_key).and_then(|l| l.call) else { return };
        let sdp = match result {
            Ok(sdp) => sdp,
            Err(error) => {
                tracing::warn!(leg = ?leg_key, %error, "no relay for an answered call");
                return self.lost(turn, key, leg_key, Branch::Status(500));
            }
        };
        let Some(near_key) = self.calls.get(&key).map(|c| c.leg) else { return };
        let Some(near) = self.legs.get_mut(&near_key) else { return };
        if near.server.is_some() {
            // Who heard early media at another place goes by the first description that it got (RFC 3261 13.2.1).
            let early = !near.told.text().is_empty() && !negotiate::same_place(near.told.text(), &sdp);
            near.place = early.then(|| sdp.clone());
            near.told.tell(&sdp);
            self.bridge(turn, key, leg_key, AfterSave::AnswerCaller(key));
        } else {
            // Answered already: it is told only what it must know.
            let stays = negotiate::agrees(near.told.text(), &sdp);
            near.realign = (!stays).then_some(sdp);
            self.bridge(turn, key, leg_key, AfterSave::Nothing);
            self.joined(turn, key, leg_key);
            self.realign(turn, near_key);
        }
    }

    /// The winner's offer (the caller made none) is described for the caller.
    pub(crate) fn connected_offer(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, result: Result<String, String>) {
        let Some(key) = self.legs.get(&leg_key).and_then(|l| l.call) else { return };
        let near_key = self.calls.get(&key).map(|c| c.leg);
        let near = near_key.and_then(|n| self.legs.get_mut(&n)).filter(|n| n.server.is_some());
        match (result, near) {
            (Ok(sdp), Some(near)) => {
                near.told.tell(&sdp);
                near.awaits_answer = Some(leg_key);
                self.bridge(turn, key, leg_key, AfterSave::AnswerCaller(key));
            }
            (result, _) => {
                if let Err(error) = result {
                    tracing::warn!(leg = ?leg_key, %error, "no relay for an answered call");
                }
                self.acknowledge_rejecting(turn, leg_key);
                self.lost(turn, key, leg_key, Branch::Status(500));
            }
        }
    }

    /// Joins the caller with its new far leg and saves all that is confirmed; the former far leg goes.
    fn bridge(&mut self, turn: &mut Turn<'_>, key: CallKey, far_key: LegKey, after: AfterSave) {
        let Some(call) = self.calls.get(&key) else { return };
        let (near_key, owner, former, call_id) = (call.leg, call.owner, call.bridge, call.id.clone());
        if let Some(former) = former {
            self.leave_bridge(turn, former, near_key);
        }
        let bridge_key = BridgeKey(self.number());
        let id = contract::leg::leg_id(&call_id, &turn.token(8));
        let bridge = Bridge { id, owner, legs: [near_key, far_key] };
        self.bridges.insert(bridge_key, bridge);
        for leg in [near_key, far_key] {
            if let Some(leg) = self.legs.get_mut(&leg) {
                leg.bridge = Some(bridge_key);
            }
        }
        if let Some(call) = self.calls.get_mut(&key) {
            call.bridge = Some(bridge_key);
            call.far = call.dialing.as_ref().map(|d| d.far);
        }
        self.save(turn, key, &[near_key, far_key], true, after);
    }

    /// The near leg gets another far leg: the former one is hung up and forgotten.
    fn leave_bridge(&mut self, turn: &mut Turn<'_>, former: BridgeKey, near: LegKey) {
        let Some(bridge) = self.bridges.remove(&former) else { return };
        let far = bridge.other(near);
        self.order(Ask::Remove { kind: "bridge", id: bridge.id, owner: bridge.owner });
        self.leave_relay(far);
        self.detach(far);
        self.bye(turn, far, Some(cause::reason(Cause::NORMAL)));
    }

    /// The caller's and callee's records are saved, or could not be: the caller gets its 2xx.
    pub(crate) fn answer_caller(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let (near_key, returned) = (call.leg, call.returned.clone());
        let winner = call.dialing.as_ref().and_then(|d| d.winner);
        let Some(near) = self.legs.get_mut(&near_key) else { return };
        let Some(server) = near.server.take() else { return };
        near.phase = Phase::Answered;
        near.answered_at = turn.now.unix();
        let (tag, contact, body) = (near.name.1.clone(), near.contact.clone(), near.told.text().to_owned());
        let session = headers::session_id(&near.call_id, near.remote_session.as_deref());
        let timer = near.timer;
        let bytes = self.build_reply(server, 200, &tag, |r| {
            let r = r.record_route().header(Name::Contact, contact).header(Name::Allow, headers::ALLOW);
            let r = r.header(Name::Supported, headers::SUPPORTED).header(Name::SessionId, session);
            let r = crate::session::state(r, timer);
            let r = returned.iter().fold(r, |r, (name, value)| r.other(name, value));
            r.body(headers::ACCEPT, body)
        });
        self.send_2xx(turn, near_key, server, bytes);
        self.servers.remove(&server);
        self.arm_session(turn, near_key);
        self.counters.answered += 1;
        if let Some(winner) = winner {
            self.joined(turn, key, winner);
        }
    }

    /// Sends a 2xx to an INVITE, again and again until its ACK.
    pub(crate) fn send_2xx(
        &mut self,
        turn: &mut Turn<'_>,
        leg_key: LegKey,
        server: sip::transaction::ServerId,
        bytes: Option<Bytes>,
    ) {
        let request = self.transactions.server_request(server).cloned();
        let cseq = request.and_then(|r| Message::parse_stream(&r).ok()?.cseq().ok().map(|c| c.number));
        let (Some(bytes), Some(cseq)) = (bytes, cseq) else { return };
        self.transactions.respond(server, bytes.clone(), turn.now.mono);
        let repeat = Retransmit2xx::with_timers(bytes, &self.limits.timers, turn.now.mono);
        if let (Some(leg), Some(due)) = (self.legs.get_mut(&leg_key), repeat.deadline()) {
            self.timers.arm(Timer::Resend(leg_key), due);
            leg.resend = Some(Resend { server, cseq, repeat });
        }
    }

    /// The call is through: whoever follows it hears of it, and a plan that only wanted an answer goes on.
    fn joined(&mut self, turn: &mut Turn<'_>, key: CallKey, far: LegKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let dialing = call.dialing.take();
        call.outcome = Some(cause::ANSWERED);
        let (id, unprotected) = (call.id.clone(), call.unprotected);
        let endpoint = self.legs.get(&far).map(|l| l.endpoint.clone()).unwrap_or_default();
        tracing::info!(call = %id, %endpoint, unprotected, "answered");
        self.event(turn, &id, CallEventKind::Answered { endpoint });
        self.realign(turn, far);
        if dialing.is_none_or(|d| d.far != Far::Answer) {
            return;
        }
        match self.calls.get_mut(&key) {
            Some(call) if self.legs.get(&call.leg).is_some_and(|l| l.awaits_answer.is_some()) => call.paused = true,
            _ => self.run(turn, key),
        }
    }

    /// Acknowledges a 2xx of ours to acknowledge (RFC 3261 13.2.2.4), with the answer if the 2xx carried an offer.
    pub(crate) fn acknowledge(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, body: Option<String>) {
        let Some(to) = self.hop_of(turn, leg_key) else { return };
        let via = turn.via();
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(cseq) = leg.unacknowledged.take() else { return };
        let Some(dialog) = leg.dialog.as_ref() else { return };
        let request = dialog
            .ack(cseq, &via)
            .header(Name::SessionId, headers::session_id(&leg.call_id, leg.remote_session.as_deref()));
        let bytes = match body {
            Some(body) => request.body(headers::ACCEPT, body).finish(),
            None => request.finish(),
        };
        leg.last_ack = Some((cseq, bytes.clone()));
        if leg.phase == Phase::Answered {
            leg.phase = Phase::Confirmed;
        }
        self.out.push_back(crate::Output::Send { to, bytes });
    }

    /// Acknowledges a 2xx whose leg nobody wants: an offer in it is answered by rejecting every line.
    fn acknowledge_unwanted(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, leg_key: LegKey) {
        let offered = self.legs.get(&leg_key).is_some_and(|l| !l.told.text().is_empty());
        let body = negotiate::body(message).ok().flatten().filter(|_| !offered);
        self.acknowledge(turn, leg_key, body.map(|offer| negotiate::reject(&offer)));
    }

    /// Acknowledges a 2xx whose offer comes to nothing.
    pub(crate) fn acknowledge_rejecting(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get(&leg_key) else { return };
        let offer = leg.said.clone().filter(|_| leg.said_offer);
        self.acknowledge(turn, leg_key, offer.map(|offer| negotiate::reject(&offer)));
    }

    /// A 2xx came again: so does its ACK, if it is known yet.
    pub(crate) fn acknowledge_again(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, leg_key: LegKey) {
        let Some(to) = self.hop_of(turn, leg_key) else { return };
        let cseq = message.cseq().map_or(0, |c| c.number);
        if let Some((sent, bytes)) = self.legs.get(&leg_key).and_then(|l| l.last_ack.clone())
            && sent == cseq
        {
            self.out.push_back(crate::Output::Send { to, bytes });
        }
    }

    /// A second phone answered one branch, behind a proxy that forks: ACK and BYE.
    fn refuse_dialog(
        &mut self,
        turn: &mut Turn<'_>,
        mut dialog: Dialog,
        cseq: u32,
        message: &Message<'_>,
        leg_key: LegKey,
    ) {
        let Some(leg) = self.legs.get(&leg_key) else { return };
        let to = headers::next_hop(turn.view, &dialog.route_set, &dialog.remote_target, &leg.id);
        let Some(to) = to else { return };
        let ack = dialog.ack(cseq, &turn.via());
        let offer = negotiate::body(message).ok().flatten().filter(|_| leg.told.text().is_empty());
        let ack = match offer {
            Some(offer) => ack.body(headers::ACCEPT, negotiate::reject(&offer)),
            None => ack,
        };
        self.out.push_back(crate::Output::Send { to, bytes: ack.finish() });
        let bye = dialog.request(Method::Bye.as_str(), &turn.via()).header(Name::Reason, cause::reason(Cause::NORMAL));
        if let Ok(id) = self.transactions.send(bye.finish(), to, true, turn.now.mono) {
            self.clients.insert(id, Client::Stray);
        }
    }

    /// A 2xx without a transaction: of a leg that still knows its ACK, or of nobody's.
    pub(crate) fn stray_response(&mut self, turn: &mut Turn<'_>, message: &Message<'_>) {
        let named = |m: &Message<'_>| Some((m.call_id().ok()?.to_owned(), m.from().ok()?.tag()?.to_owned()));
        let leg = named(message).and_then(|name| self.dialogs.get(&name).copied());
        match leg {
            Some(leg) if message.status().is_some_and(|s| (200..300).contains(&s)) => {
                self.acknowledge_again(turn, message, leg);
            }
            _ => self.counters.dropped += 1,
        }
    }

    /// Our 2xx is due again, or was never acknowledged: then the session ends (RFC 3261 13.3.1.4).
    pub(crate) fn resend(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let now = turn.now.mono;
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(resend) = leg.resend.as_mut() else { return };
        let due = match resend.repeat.poll(now) {
            Some(Repeat::Send(bytes)) => {
                self.transactions.respond(resend.server, bytes, now);
                resend.repeat.deadline()
            }
            Some(Repeat::GiveUp) => None,
            None => resend.repeat.deadline(),
        };
        if let Some(due) = due {
            return self.timers.arm(Timer::Resend(leg_key), due);
        }
        leg.resend = None;
        tracing::warn!(call = %leg.call_id, leg = %leg.id, "no ACK");
        match leg.call {
            Some(call) => {
                let why = "no ACK from the caller".to_owned();
                self.end(turn, call, End { code: 408, cause: Cause::TIMER, why, fields: vec![], reason: None });
            }
            None => self.bye_waiting(turn, leg_key),
        }
    }

    /// The ACK to a 2xx of ours.
    pub(crate) fn acknowledged(&mut self, turn: &mut Turn<'_>, message: &Message<'_>) {
        let name = message.call_id().ok().zip(message.to().ok().and_then(|to| to.tag()));
        let leg_key = name.and_then(|(id, tag)| self.dialogs.get(&(id.to_owned(), tag.to_owned())).copied());
        let (Some(leg_key), Ok(cseq)) = (leg_key, message.cseq()) else {
            self.counters.dropped += 1;
            return;
        };
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        // Of one that was another's, the 2xx is not ours to send again; its ACK still says that it came.
        let adopted = leg.adopted && !leg.acked && leg.exchange.is_none();
        let owed = adopted && leg.dialog.as_ref().is_some_and(|d| d.remote_cseq == Some(cseq.number));
        if !owed && leg.resend.as_ref().is_none_or(|r| r.cseq != cseq.number) {
            return;
        }
        let doubt = std::mem::take(&mut leg.doubted) && leg.realign.as_deref() == Some(leg.told.text());
        if owed && (doubt || leg.awaits_answer.is_some()) {
            leg.realign = None;
        }
        leg.acked = true;
        if leg.saved && leg.call.is_some() {
            let wait = if self.leaving { Duration::ZERO } else { NOTE };
            self.timers.arm(Timer::Note(leg_key), turn.now.mono + wait);
        }
        leg.resend = None;
        self.timers.disarm(Timer::Resend(leg_key));
        if leg.phase == Phase::Answered {
            leg.phase = Phase::Confirmed;
        }
        if leg.bye_on_ack.is_some() {
            return self.bye_waiting(turn, leg_key);
        }
        let Some(other) = leg.awaits_answer.take() else {
            return self.realign(turn, leg_key);
        };
        let answer = negotiate::body(message).ok().flatten();
        leg.said = answer.clone().or(leg.said.take());
        leg.said_offer = false;
        let fitting = answer.and_then(|answer| self.fit_answer(other, leg_key, &answer));
        match (fitting, self.legs.get(&leg_key).and_then(|l| l.call)) {
            (Some(answer), _) => self.describe_answer(turn, other, leg_key, &answer, Then::Acknowledged(other)),
            (None, Some(call)) => {
                let why = "no answer to our offer in the ACK".to_owned();
                self.end(
                    turn,
                    call,
                    End { code: 488, cause: Cause::BEARER_NOT_AVAILABLE, why, fields: vec![], reason: None },
                );
            }
            (None, None) => {}
        }
    }

    /// The answer that came in an ACK is described for the leg whose 2xx made the offer: it gets its ACK.
    pub(crate) fn acknowledge_with(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, result: Result<String, String>) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let call = leg.call;
        match result {
            Ok(sdp) => {
                let body = leg.told.tell(&sdp);
                self.acknowledge(turn, leg_key, Some(body));
                if let Some(call) = call {
                    let legs = self.calls.get(&call).map(|c| [c.leg, leg_key]);
                    self.save(turn, call, &legs.unwrap_or([leg_key; 2]), false, AfterSave::Nothing);
                    if self.calls.get_mut(&call).is_some_and(|c| std::mem::take(&mut c.paused)) {
                        self.run(turn, call);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(call = %leg.call_id, %error, "no relay for an answer");
                if let Some(call) = call {
                    let why = "no relay".to_owned();
                    self.end(turn, call, End { code: 500, cause: Cause::FAILURE, why, fields: vec![], reason: None });
                }
            }
        }
    }
}
