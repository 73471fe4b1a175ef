//! Changes of a session: re-INVITE and UPDATE from one leg are carried to the other, and only its agreement is the
//! answer (RFC 3261 14, RFC 3311, RFC 3264 8). One change at a time in a bridge: glare is 491.

use crate::core::{AfterSave, Core, Then, Turn};
use crate::headers;
use crate::leg::{Asking, Exchange, LegKey, Phase, Purpose, Serving};
use crate::negotiate::{self, BodyError};
use crate::timers::Timer;
use contract::records::Direction;
use dialplan::Cause;
use sip::message::Message;
use sip::transaction::{ClientId, ServerId};
use sip::{Method, Name};
use std::time::Duration;

/// What a leg must know is told again after this, where something else is under way on it.
const BUSY: Duration = Duration::from_millis(500);
/// How often a phone may be busy with something else.
const MAX_REFUSALS: u32 = 8;

impl Core {
    /// A leg asks for a change.
    pub(crate) fn change_asked(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        server: ServerId,
        leg_key: LegKey,
    ) {
        let invite = message.method() == Some(Method::Invite);
        let timer = self.session_asked(message);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let tag = leg.name.1.clone();
        let offer = match negotiate::body(message) {
            Ok(offer) => offer,
            Err(BodyError::Type) => {
                return self.reply_as(turn, server, 415, &tag, |r| r.header(Name::Accept, headers::ACCEPT));
            }
            Err(BodyError::Malformed) => return self.reply_as(turn, server, 400, &tag, |r| r),
        };
        // A request of theirs is unanswered, or its answer not acknowledged (RFC 3261 14.2, RFC 3311 5.2).
        let serving = matches!(leg.exchange, Some(Exchange::Serving(_)));
        if serving || leg.phase != Phase::Confirmed || leg.resend.is_some() {
            let after = turn.between(0, 10).to_string();
            return self.reply_as(turn, server, 500, &tag, |r| r.header(Name::RetryAfter, after));
        }
        // Ours is.
        if leg.exchange.is_some() || leg.unacknowledged.is_some() {
            return self.reply_as(turn, server, 491, &tag, |r| r);
        }
        let timer = match timer {
            Ok(timer) => timer,
            Err(least) => return self.reply_as(turn, server, 422, &tag, |r| r.header(Name::MinSE, least.to_string())),
        };
        let same = offer.is_some() && leg.said_offer && leg.said == offer;
        let local = same || (offer.is_none() && !invite);
        let remember = |leg: &mut crate::leg::Leg, offer: Option<String>| {
            leg.timer = timer;
            leg.allows_update = headers::allows_update(message).unwrap_or(leg.allows_update);
            leg.exchange = Some(Exchange::Serving(Serving { server, invite, offer }));
        };
        if local {
            remember(leg, offer.filter(|_| invite || same));
            if invite {
                self.servers.insert(server, leg_key);
            }
            return self.confirm_change(turn, leg_key);
        }
        let other_key = self.other(leg_key);
        let Some((other_key, other)) = other_key.and_then(|k| Some((k, self.legs.get(&k)?))) else {
            // Between two far legs: it may ask again at once.
            return self.reply_as(turn, server, 491, &tag, |r| r);
        };
        if other.is_busy() || other.awaits_answer.is_some() {
            return self.reply_as(turn, server, 491, &tag, |r| r);
        }
        let (other_codecs, update) = (other.codecs.clone(), !invite && other.allows_update);
        let before = other.told.text().to_owned();
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let shown = match &offer {
            None => None,
            Some(offer) => match negotiate::restrict(offer, &[&leg.codecs, &other_codecs]) {
                Some(shown) => Some(shown),
                None => {
                    return self
                        .reply_as(turn, server, 488, &tag, |r| r.header(Name::Warning, negotiate::NO_COMMON_CODEC));
                }
            },
        };
        remember(leg, offer);
        if invite {
            self.servers.insert(server, leg_key);
            self.reply_as(turn, server, 100, &tag, |r| r);
        }
        if let Some(other) = self.legs.get_mut(&other_key) {
            let purpose = Purpose::Carry(leg_key);
            other.exchange = Some(Exchange::Asking(Asking {
                client: None,
                invite: !update,
                cseq: 0,
                purpose,
                offers: shown.is_some(),
                before,
                progressed: false,
                cancelled: false,
            }));
        }
        match shown {
            Some(shown) => {
                self.describe(turn, leg_key, other_key, &shown, Then::Changing { asker: leg_key, other: other_key });
            }
            None => self.carry(turn, leg_key, other_key, None),
        }
    }

    /// The asker's offer is described for the other leg.
    pub(crate) fn changing(
        &mut self,
        turn: &mut Turn<'_>,
        asker: LegKey,
        other: LegKey,
        result: Result<String, String>,
    ) {
        match result {
            Ok(sdp) => self.carry(turn, asker, other, Some(sdp)),
            Err(error) => {
                tracing::warn!(leg = ?asker, %error, "no relay for a change");
                self.broken(turn, asker, Cause::FAILURE, "no relay");
            }
        }
    }

    fn carry(&mut self, turn: &mut Turn<'_>, asker: LegKey, other_key: LegKey, sdp: Option<String>) {
        let Some(other) = self.legs.get_mut(&other_key) else { return };
        let Some(Exchange::Asking(asking)) = &other.exchange else { return };
        if asking.purpose != Purpose::Carry(asker) || asking.client.is_some() {
            return;
        }
        if asking.cancelled {
            // The asker thought better of it meanwhile.
            other.exchange = None;
            return self.restore(turn, asker, other_key);
        }
        let invite = asking.invite;
        let body = sdp.map(|sdp| other.told.tell(&sdp));
        other.realign = None;
        if !self.change(turn, other_key, invite, body, Purpose::Carry(asker)) {
            self.fail_change(turn, asker, other_key, 500);
        }
    }

    /// True if this request is the leg's change under way.
    pub(crate) fn asking(&self, leg: LegKey, id: ClientId) -> bool {
        let exchange = self.legs.get(&leg).and_then(|l| l.exchange.as_ref());
        matches!(exchange, Some(Exchange::Asking(asking)) if asking.client == Some(id))
    }

    /// A response to a re-INVITE or UPDATE of ours.
    pub(crate) fn change_response(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        id: ClientId,
        leg_key: LegKey,
        status: u16,
    ) {
        if !self.asking(leg_key, id) {
            return self.late_response(turn, message, id, leg_key, status);
        }
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(Exchange::Asking(asking)) = leg.exchange.as_mut() else { return };
        if status < 200 {
            asking.progressed = true;
            if asking.cancelled {
                self.cancel_change(turn, id, leg_key);
            }
            return;
        }
        if status >= 300 {
            let least = message.header(Name::MinSE).and_then(|v| v.split(';').next()?.trim().parse().ok());
            return self.change_refused(turn, id, leg_key, status, least.filter(|_| status == 422));
        }
        let asking = asking.clone();
        leg.exchange = None;
        if !asking.invite {
            self.close(id);
        }
        let granted = self.limits.session_granted(message);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.unacknowledged = asking.invite.then_some(asking.cseq);
        leg.allows_update = headers::allows_update(message).unwrap_or(leg.allows_update);
        leg.timer = granted.or(leg.timer);
        if let Some(dialog) = leg.dialog.as_mut() {
            dialog.refresh_target(message);
        }
        self.arm_session(turn, leg_key);
        let body = negotiate::body(message).ok().flatten();
        match asking.purpose {
            Purpose::Refresh => {
                self.acknowledge(turn, leg_key, None);
                self.save_leg(turn, leg_key);
                self.realign(turn, leg_key);
            }
            Purpose::Realign => self.realigned(turn, leg_key, body),
            Purpose::Carry(asker) => self.carried(turn, asker, leg_key, &asking, body),
        }
    }

    /// A response to a request that nobody waits for: a 2xx again, or one that crossed a CANCEL or BYE.
    fn late_response(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        id: ClientId,
        leg_key: LegKey,
        status: u16,
    ) {
        if (200..300).contains(&status) && message.cseq().is_ok_and(|c| c.method == Method::Invite) {
            let cseq = message.cseq().map_or(0, |c| c.number);
            match self.legs.get_mut(&leg_key) {
                Some(leg)
                    if leg.last_ack.as_ref().is_none_or(|(sent, _)| *sent < cseq) && leg.unacknowledged.is_none() =>
                {
                    leg.unacknowledged = Some(cseq);
                    self.acknowledge(turn, leg_key, None);
                }
                _ => self.acknowledge_again(turn, message, leg_key),
            }
        } else if status >= 200 {
            self.close(id);
            self.bury(leg_key);
        }
    }

    /// The other leg agreed.
    fn carried(
        &mut self,
        turn: &mut Turn<'_>,
        asker: LegKey,
        other_key: LegKey,
        asking: &Asking,
        body: Option<String>,
    ) {
        let served = match self.legs.get_mut(&asker).map(|l| (l.exchange.clone(), l)) {
            Some((Some(Exchange::Serving(serving)), leg)) if !asking.cancelled => {
                // From now on this is what they said.
                if serving.offer.is_some() {
                    leg.said = serving.offer.clone();
                    leg.said_offer = true;
                }
                true
            }
            _ => false,
        };
        if !served {
            // The asker is gone, or took it back when it was too late: the old state is agreed anew.
            self.acknowledge_rejecting_or_plain(turn, other_key, asking.offers, body.as_deref());
            if let Some(other) = self.legs.get_mut(&other_key).filter(|l| l.call.is_some()) {
                other.realign = Some(asking.before.clone());
                self.restore(turn, asker, other_key);
                self.realign(turn, other_key);
            }
            return;
        }
        match (asking.offers, body) {
            (true, Some(answer)) => {
                self.acknowledge(turn, other_key, None);
                let fitting = self.fit_answer(asker, other_key, &answer);
                if let Some(other) = self.legs.get_mut(&other_key) {
                    other.said = Some(answer);
                    other.said_offer = false;
                }
                match fitting {
                    Some(fitting) => self.describe_answer(turn, asker, other_key, &fitting, Then::Changed { asker }),
                    None => self.broken(turn, asker, Cause::BEARER_NOT_AVAILABLE, "an answer without a common codec"),
                }
            }
            (false, Some(offer)) => {
                let codecs = |key| self.legs.get(&key).map(|l| l.codecs.clone()).unwrap_or_default();
                let fitting = negotiate::restrict(&offer, &[&codecs(other_key), &codecs(asker)]);
                if let Some(other) = self.legs.get_mut(&other_key) {
                    other.said = Some(offer);
                    other.said_offer = true;
                }
                match fitting {
                    Some(offer) => {
                        let then = Then::ChangedOffer { asker, other: other_key };
                        self.describe(turn, other_key, asker, &offer, then);
                    }
                    None => self.broken(turn, asker, Cause::BEARER_NOT_AVAILABLE, "an offer without a common codec"),
                }
            }
            _ => self.broken(turn, asker, Cause::INTERWORKING, "a 2xx without its description"),
        }
    }

    fn acknowledge_rejecting_or_plain(&mut self, turn: &mut Turn<'_>, leg: LegKey, offered: bool, body: Option<&str>) {
        let answer = body.filter(|_| !offered).map(negotiate::reject);
        self.acknowledge(turn, leg, answer);
    }

    /// The other leg's answer is described for the asker.
    pub(crate) fn changed(&mut self, turn: &mut Turn<'_>, asker: LegKey, result: Result<String, String>) {
        match (result, self.legs.get_mut(&asker)) {
            (Ok(sdp), Some(leg)) => {
                leg.told.tell(&sdp);
                self.confirm_change(turn, asker);
            }
            _ => self.broken(turn, asker, Cause::FAILURE, "no relay"),
        }
    }

    /// The other leg's offer is described for the asker, whose ACK will answer it.
    pub(crate) fn changed_offer(
        &mut self,
        turn: &mut Turn<'_>,
        asker: LegKey,
        other: LegKey,
        result: Result<String, String>,
    ) {
        match (result, self.legs.get_mut(&asker)) {
            (Ok(sdp), Some(leg)) => {
                leg.told.tell(&sdp);
                leg.awaits_answer = Some(other);
                self.confirm_change(turn, asker);
            }
            _ => self.broken(turn, asker, Cause::FAILURE, "no relay"),
        }
    }

    /// A change is agreed: both legs are saved as they are now, and then the asker gets its 2xx.
    fn confirm_change(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(Exchange::Serving(serving)) = &leg.exchange else { return };
        let request = self.transactions.server_request(serving.server).cloned();
        let request = request.as_ref().and_then(|r| Message::parse_stream(r).ok());
        if let (Some(message), Some(dialog)) = (request, leg.dialog.as_mut()) {
            dialog.refresh_target(&message);
        }
        let Some(call) = leg.call else { return };
        leg.acked &= !serving.invite;
        leg.refreshed_at = turn.now.unix();
        let legs: Vec<LegKey> = [Some(leg_key), self.other(leg_key)].into_iter().flatten().collect();
        self.save(turn, call, &legs, false, AfterSave::AnswerChange(leg_key));
    }

    /// The asker gets its 2xx.
    pub(crate) fn answer_change(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(Exchange::Serving(serving)) = leg.exchange.take() else { return };
        let body = (serving.invite || serving.offer.is_some()).then(|| leg.told.text().to_owned());
        let (tag, contact, timer) = (leg.name.1.clone(), leg.contact.clone(), leg.timer);
        let session = headers::session_id(&leg.call_id, leg.remote_session.as_deref());
        let bytes = self.build_reply(serving.server, 200, &tag, |r| {
            let r = r.header(Name::Contact, contact).header(Name::Allow, headers::ALLOW);
            let r = r.header(Name::Supported, headers::SUPPORTED).header(Name::SessionId, session);
            let r = crate::session::state(r, timer);
            match body {
                Some(body) => r.body(headers::ACCEPT, body),
                None => r,
            }
        });
        self.servers.remove(&serving.server);
        self.arm_session(turn, leg_key);
        if serving.invite {
            self.send_2xx(turn, leg_key, serving.server, bytes);
        } else if let Some(bytes) = bytes {
            self.transactions.respond(serving.server, bytes, turn.now.mono);
        }
    }

    /// A request of ours was refused.
    fn change_refused(&mut self, turn: &mut Turn<'_>, id: ClientId, leg_key: LegKey, status: u16, least: Option<u32>) {
        self.close(id);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(Exchange::Asking(asking)) = leg.exchange.take() else { return };
        leg.told.revert(&asking.before);
        if leg.call.is_none() {
            return self.bury(leg_key);
        }
        match asking.purpose {
            Purpose::Carry(asker) => self.fail_change(turn, asker, leg_key, status),
            _ if self.dialog_lost(turn, leg_key, status) => {}
            Purpose::Refresh => {
                self.refresh_refused(turn, leg_key, least);
                self.realign(turn, leg_key);
            }
            Purpose::Realign if self.realign_later(turn, leg_key, status) => {}
            Purpose::Realign => {
                self.broken(turn, leg_key, Cause::BEARER_NOT_AVAILABLE, "a phone refused the new session")
            }
        }
    }

    /// A request of ours had no answer.
    pub(crate) fn change_failed(&mut self, turn: &mut Turn<'_>, id: ClientId, leg_key: LegKey, status: u16) {
        if self.asking(leg_key, id) {
            self.change_refused(turn, id, leg_key, status, None);
        } else {
            self.close(id);
            self.bury(leg_key);
        }
    }

    /// The other leg did not agree: the asker hears so, the relay goes back, and a lost dialog ends the call.
    fn fail_change(&mut self, turn: &mut Turn<'_>, asker: LegKey, other: LegKey, status: u16) {
        if let Some(leg) = self.legs.get_mut(&asker)
            && let Some(Exchange::Serving(serving)) = leg.exchange.take()
        {
            let tag = leg.name.1.clone();
            self.servers.remove(&serving.server);
            let status = match status {
                488 | 491 | 408 | 480 | 486 | 500 | 603 | 606 => status,
                487 => 488,
                _ => 500,
            };
            self.reply_as(turn, serving.server, status, &tag, |r| {
                r.header_opt(Name::Warning, (status == 488).then_some(negotiate::NO_COMMON_CODEC))
            });
        }
        if !self.dialog_lost(turn, other, status) {
            self.restore(turn, asker, other);
        }
    }

    /// Tells the relay again what the two legs had agreed on.
    fn restore(&mut self, turn: &mut Turn<'_>, asker: LegKey, other: LegKey) {
        let said = |core: &Self, key| core.legs.get(&key).filter(|l| l.call.is_some()).and_then(|l| l.said.clone());
        if let (Some(a), Some(b)) = (said(self, asker), said(self, other)) {
            self.describe(turn, asker, other, &a, Then::Told);
            self.describe_answer(turn, asker, other, &b, Then::Told);
        }
    }

    /// The asker cancels its re-INVITE.
    pub(crate) fn change_cancelled(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(Exchange::Serving(serving)) = leg.exchange.take() else { return };
        let tag = leg.name.1.clone();
        self.servers.remove(&serving.server);
        self.reply_as(turn, serving.server, 487, &tag, |r| r);
        let Some(other_key) = self.other(leg_key) else { return };
        let Some(Exchange::Asking(asking)) = self.legs.get_mut(&other_key).and_then(|l| l.exchange.as_mut()) else {
            return;
        };
        asking.cancelled = true;
        if let (true, Some(id)) = (asking.progressed, asking.client) {
            self.cancel_change(turn, id, other_key);
        }
    }

    fn cancel_change(&mut self, turn: &mut Turn<'_>, id: ClientId, leg_key: LegKey) {
        let hop = self.transactions.client_hop(id).copied();
        let (Some(cancel), Some(hop)) = (self.transactions.cancel_of(id), hop) else { return };
        if let Ok(id) = self.transactions.send(cancel, hop, true, turn.now.mono) {
            self.clients.insert(id, crate::core::Client::Cancel(leg_key));
            if let Some(leg) = self.legs.get_mut(&leg_key) {
                leg.open += 1;
            }
        }
    }

    /// Tells a leg what it must know, as soon as nothing else is under way on it.
    pub(crate) fn realign(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        if (leg.realign.is_none() && leg.place.is_none()) || !leg.is_up() {
            return;
        }
        // The ACK with the answer may have gone to the leg's former owner: then it is asked for anew.
        if leg.is_busy() || (leg.awaits_answer.is_some() && !leg.adopted) {
            return self.timers.arm(Timer::Retry(leg_key), turn.now.mono + BUSY);
        }
        let sdp = leg.realign.clone().unwrap_or_else(|| leg.told.text().to_owned());
        leg.placing = leg.place.take();
        let body = match &leg.placing {
            Some(place) => leg.told.renew(&negotiate::relocate(&sdp, place)),
            None => leg.told.tell(&sdp),
        };
        if !self.change(turn, leg_key, true, Some(body), Purpose::Realign) {
            self.unplaced(leg_key);
            self.timers.arm(Timer::Retry(leg_key), turn.now.mono + BUSY);
        }
    }

    /// What a re-INVITE said of the leg's place did not reach the phone.
    fn unplaced(&mut self, leg_key: LegKey) {
        if let Some(leg) = self.legs.get_mut(&leg_key) {
            let placing = leg.placing.take();
            leg.place = leg.place.take().or(placing);
        }
    }

    /// A phone refused for the moment what it must know: it is told again. False if it refused for good.
    fn realign_later(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, status: u16) -> bool {
        self.unplaced(leg_key);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return false };
        let wait = match status {
            // Glare: who made the Call-ID waits longer (RFC 3261 14.1).
            491 if leg.direction == Direction::Outbound => turn.between(2100, 4000),
            491 => turn.between(0, 2000),
            // It is busy with something else (RFC 3261 14.2), or somebody between us is.
            500 | 503 if leg.refusals < MAX_REFUSALS => {
                leg.refusals += 1;
                turn.between(500, 2000)
            }
            _ => return false,
        };
        self.timers.arm(Timer::Retry(leg_key), turn.now.mono + Duration::from_millis(wait));
        true
    }

    /// The leg took what it was told: the relay learns where its media is now.
    fn realigned(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, body: Option<String>) {
        self.acknowledge(turn, leg_key, None);
        let other = self.other(leg_key);
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.realign = None;
        leg.doubted = false;
        leg.acked = true;
        leg.placing = None;
        leg.refusals = 0;
        let Some(answer) = body else { return };
        let awaiting = leg.awaits_answer.take();
        let moved = leg.said.as_deref().is_none_or(|said| !negotiate::agrees(said, &answer));
        leg.said = Some(answer);
        leg.said_offer = false;
        if let Some(other) = awaiting {
            // That is what the ACK would have said.
            let answer = self.legs.get(&leg_key).and_then(|leg| leg.said.clone()).unwrap_or_default();
            match self.fit_answer(other, leg_key, &answer) {
                Some(answer) => self.describe_answer(turn, other, leg_key, &answer, Then::Acknowledged(other)),
                None => self.broken(turn, leg_key, Cause::BEARER_NOT_AVAILABLE, "an answer without a common codec"),
            }
        } else if let (true, Some(other)) = (moved, other) {
            self.restore(turn, leg_key, other);
        }
        self.save_leg(turn, leg_key);
        // The media may have moved once more meanwhile.
        self.realign(turn, leg_key);
    }

    pub(crate) fn save_leg(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        if let Some(call) = self.legs.get(&leg_key).and_then(|l| l.call) {
            self.save(turn, call, &[leg_key], false, AfterSave::Nothing);
        }
    }
}
