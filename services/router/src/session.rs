//! Requests within a dialog, and session timers (RFC 3261 12.2.2, 14, 15; RFC 4028; RFC 6086).

use crate::Limits;
use crate::call::Far;
use crate::cause;
use crate::core::{AfterSave, Client, Core, Turn};
use crate::end::End;
use crate::headers;
use crate::leg::{Asking, Exchange, LegKey, Phase, Purpose, SessionTimer};
use crate::timers::Timer;
use dialplan::Cause;
use sip::build::Response;
use sip::message::Message;
use sip::transaction::ServerId;
use sip::{Method, Name};
use std::time::Duration;

/// A refresh that collides with something else is tried again after this.
const BUSY: Duration = Duration::from_secs(5);

impl Core {
    /// A request with a To tag: it belongs to a leg, whoever sent it proves that by Call-ID and both tags.
    pub(crate) fn in_dialog(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, server: ServerId) {
        let name = message.call_id().ok().zip(message.to().ok().and_then(|to| to.tag()));
        let leg_key = name.and_then(|(id, tag)| self.dialogs.get(&(id.to_owned(), tag.to_owned())).copied());
        let leg = leg_key.and_then(|key| Some((key, self.legs.get_mut(&key)?)));
        let Some((leg_key, leg)) = leg else { return self.reply(turn, server, 481, |r| r) };
        let tag = leg.name.1.clone();
        let Some(dialog) = leg.dialog.as_mut() else { return self.reply(turn, server, 481, |r| r) };
        if let Err(error) = dialog.receive(message) {
            return self.reply(turn, server, error.status(), |r| r);
        }
        if let Some(list) = headers::unsupported(message) {
            return self.reply_as(turn, server, 420, &tag, |r| r.header(Name::Unsupported, list));
        }
        let alive = leg.phase != Phase::Ending;
        match message.method() {
            Some(Method::Bye) => {
                self.reply_as(turn, server, 200, &tag, |r| r);
                let reason = message.header(Name::Reason).filter(|r| r.len() <= 256).map(str::to_owned);
                self.bye_received(turn, leg_key, reason);
            }
            Some(Method::Options) if alive => self.options(turn, server),
            Some(Method::Invite | Method::Update) if alive => self.change_asked(turn, message, server, leg_key),
            Some(Method::Info) if alive => self.info(turn, message, server, leg_key),
            Some(Method::Subscribe) if alive => self.reply_as(turn, server, 489, &tag, |r| r),
            _ if alive => self.reply_as(turn, server, 405, &tag, |r| r.header(Name::Allow, headers::ALLOW)),
            _ => self.reply_as(turn, server, 481, &tag, |r| r),
        }
    }

    /// INFO (DTMF of phones without RFC 4733, among others) goes to the other leg, and its answer comes back.
    fn info(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, server: ServerId, leg_key: LegKey) {
        let other = self.other(leg_key);
        let tag = self.legs.get(&leg_key).map(|l| l.name.1.clone()).unwrap_or_default();
        let via = turn.via();
        let Some((other_key, other)) = other.and_then(|key| Some((key, self.legs.get_mut(&key)?))) else {
            return self.reply_as(turn, server, 200, &tag, |r| r);
        };
        let session = headers::session_id(&other.call_id, other.remote_session.as_deref());
        let Some(dialog) = other.dialog.as_mut() else { return };
        let mut request = dialog.request(Method::Info.as_str(), &via).header(Name::SessionId, session);
        request = request.header_opt(Name::InfoPackage, message.header(Name::InfoPackage));
        for (name, value) in headers::passed(message, false) {
            request = request.other(&name, value);
        }
        if let Some(kind) = message.header(Name::ContentType).filter(|_| !message.body().is_empty()) {
            request = request.body(kind, message.body().to_vec());
        }
        let client = Client::Info { from: leg_key, server, to: other_key };
        if self.send(turn, other_key, request, client).is_none() {
            self.reply_as(turn, server, 500, &tag, |r| r);
        }
    }

    /// The other leg answered an INFO.
    pub(crate) fn info_done(&mut self, turn: &mut Turn<'_>, from: LegKey, server: ServerId, to: LegKey, status: u16) {
        if let Some(tag) = self.legs.get(&from).map(|l| l.name.1.clone()) {
            let status = if matches!(status, 401 | 407 | 300..=399) { 500 } else { status };
            self.reply_as(turn, server, status, &tag, |r| r);
        }
        self.bury(to);
        self.dialog_lost(turn, to, status);
    }

    /// 481 and 408 to a request within a dialog end it (RFC 3261 12.2.1.2). True if that was so.
    pub(crate) fn dialog_lost(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, status: u16) -> bool {
        let lost = matches!(status, 408 | 481);
        if let Some(key) = self.legs.get(&leg_key).and_then(|l| l.call).filter(|_| lost) {
            // A conference that was done when nobody heard it.
            let near = self.calls.get(&key).map(|call| (call.leg, call.far));
            if near.is_some_and(|(near, far)| near != leg_key && far.is_some_and(|far| far != Far::Dial)) {
                match status {
                    408 => self.far_lost(turn, key, leg_key),
                    _ => self.far_left(turn, key, leg_key),
                }
                return true;
            }
            let why = format!("a phone answered {status} within its call");
            self.end(turn, key, End { code: 480, cause: Cause::TIMER, why, fields: vec![], reason: None });
        }
        lost
    }

    /// The leg at the other end of a leg's bridge.
    pub(crate) fn other(&self, leg: LegKey) -> Option<LegKey> {
        let bridge = self.legs.get(&leg)?.bridge?;
        Some(self.bridges.get(&bridge)?.other(leg))
    }

    /// What a request wants of session timers; `Err` is the least interval that we take (RFC 4028 9).
    pub(crate) fn session_asked(&self, message: &Message<'_>) -> Result<Option<SessionTimer>, u32> {
        let least = self.limits.session_min;
        let supports = headers::has_token(message, Name::Supported, "timer")
            || headers::has_token(message, Name::Require, "timer");
        let asked = session_expires(message);
        match asked {
            Some((interval, _)) if interval < least => Err(u32::try_from(least.as_secs()).unwrap_or(90)),
            // Somebody between us asked for a phone that cannot: then we refresh.
            Some((interval, _)) if !supports => Ok(Some(SessionTimer { interval, ours: true })),
            Some((interval, refresher)) => {
                Ok(Some(SessionTimer { interval, ours: refresher.is_some_and(|r| r.eq_ignore_ascii_case("uas")) }))
            }
            None if supports => Ok(Some(SessionTimer { interval: self.limits.session_interval, ours: false })),
            None => Ok(None),
        }
    }

    /// Starts a leg's session timer anew: half of the interval if we refresh, else its end less a margin
    /// (RFC 4028 10).
    pub(crate) fn arm_session(&mut self, turn: &Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        leg.refreshed_at = turn.now.unix();
        match leg.timer {
            Some(SessionTimer { interval, ours: true }) => {
                self.timers.arm(Timer::Session(leg_key), turn.now.mono + interval / 2);
            }
            Some(SessionTimer { interval, ours: false }) => {
                let margin = (interval / 3).min(Duration::from_secs(32));
                self.timers.arm(Timer::Session(leg_key), turn.now.mono + interval.saturating_sub(margin));
            }
            None => self.timers.disarm(Timer::Session(leg_key)),
        }
    }

    /// A session is to be refreshed, or was not.
    pub(crate) fn session_due(&mut self, turn: &mut Turn<'_>, leg_key: LegKey) {
        let Some(leg) = self.legs.get(&leg_key) else { return };
        let (Some(timer), Some(call)) = (leg.timer, leg.call) else { return };
        if !timer.ours {
            let why = "the session was not refreshed".to_owned();
            return self.end(turn, call, End { code: 408, cause: Cause::TIMER, why, fields: vec![], reason: None });
        }
        if leg.is_busy() {
            return self.timers.arm(Timer::Session(leg_key), turn.now.mono + BUSY);
        }
        let update = leg.allows_update;
        let body = (!update).then(|| leg.told.text().to_owned()).filter(|t| !t.is_empty());
        self.change(turn, leg_key, !update, body, Purpose::Refresh);
    }

    /// Sends a re-INVITE or UPDATE on a leg.
    pub(crate) fn change(
        &mut self,
        turn: &mut Turn<'_>,
        leg_key: LegKey,
        invite: bool,
        body: Option<String>,
        purpose: Purpose,
    ) -> bool {
        let via = turn.via();
        let default = self.limits.session_interval;
        let Some(leg) = self.legs.get_mut(&leg_key) else { return false };
        let session = headers::session_id(&leg.call_id, leg.remote_session.as_deref());
        let (timer, least) =
            (leg.timer, leg.min_se.max(u32::try_from(self.limits.session_min.as_secs()).unwrap_or(90)));
        let before = match &leg.exchange {
            Some(Exchange::Asking(asking)) => asking.before.clone(),
            _ => leg.told.text().to_owned(),
        };
        let Some(dialog) = leg.dialog.as_mut() else { return false };
        let method = if invite { Method::Invite } else { Method::Update };
        let mut request = dialog
            .request(method.as_str(), &via)
            .header(Name::Allow, headers::ALLOW)
            .header(Name::Supported, headers::SUPPORTED)
            .header(Name::SessionId, session)
            .header(Name::UserAgent, headers::AGENT);
        let cseq = dialog.local_cseq;
        if invite {
            leg.last_invite = Some(cseq);
        }
        if let Some(timer) = timer {
            let interval = timer.interval.max(Duration::from_secs(u64::from(least))).min(default.max(timer.interval));
            let refresher = if timer.ours { "uac" } else { "uas" };
            request = request
                .header(Name::SessionExpires, format!("{};refresher={refresher}", interval.as_secs()))
                .header(Name::MinSE, least.to_string());
        }
        let offers = body.is_some();
        if let Some(body) = body {
            request = request.body(headers::ACCEPT, body);
        }
        let asking =
            Asking { client: None, invite, cseq, purpose, offers, before, progressed: false, cancelled: false };
        leg.exchange = Some(Exchange::Asking(asking));
        let id = self.send(turn, leg_key, request, Client::Change(leg_key));
        let Some(leg) = self.legs.get_mut(&leg_key) else { return false };
        match (id, &mut leg.exchange) {
            (Some(id), Some(Exchange::Asking(asking))) => {
                asking.client = Some(id);
                // Whoever takes it over in the middle of this knows what to settle.
                if let Some(call) = leg.call.filter(|_| invite && purpose != Purpose::Refresh) {
                    self.save(turn, call, &[leg_key], false, AfterSave::Nothing);
                }
                true
            }
            _ => {
                leg.exchange = None;
                false
            }
        }
    }

    /// A refresh of ours was refused: the session goes on until it expires (RFC 4028 10), so try again before that.
    pub(crate) fn refresh_refused(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, least: Option<u32>) {
        let Some(leg) = self.legs.get_mut(&leg_key) else { return };
        let Some(timer) = leg.timer.as_mut() else { return };
        let again = match least.filter(|least| *least <= 86_400) {
            Some(least) => {
                leg.min_se = leg.min_se.max(least);
                timer.interval = timer.interval.max(Duration::from_secs(u64::from(least)));
                BUSY
            }
            None => (timer.interval / 8).max(BUSY),
        };
        self.timers.arm(Timer::Session(leg_key), turn.now.mono + again);
    }

    /// The last word on a call that cannot go on as agreed.
    pub(crate) fn broken(&mut self, turn: &mut Turn<'_>, leg_key: LegKey, cause: Cause, why: &str) {
        if let Some(call) = self.legs.get(&leg_key).and_then(|l| l.call) {
            let reason = Some(cause::reason(cause));
            self.end(turn, call, End { code: cause.status(), cause, why: why.to_owned(), fields: vec![], reason });
        }
    }
}

/// `Session-Expires`: the interval and who refreshes.
fn session_expires<'m>(message: &Message<'m>) -> Option<(Duration, Option<&'m str>)> {
    let mut parts = message.header(Name::SessionExpires)?.split(';').map(str::trim);
    let seconds: u32 = parts.next()?.parse().ok()?;
    let refresher = parts.find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("refresher").then(|| value.trim())
    });
    Some((Duration::from_secs(u64::from(seconds)), refresher))
}

impl Limits {
    /// What a 2xx to a request of ours says of session timers (RFC 4028 7.2).
    pub(crate) fn session_granted(&self, message: &Message<'_>) -> Option<SessionTimer> {
        let (interval, refresher) = session_expires(message)?;
        let ours = !refresher.is_some_and(|r| r.eq_ignore_ascii_case("uas"));
        Some(SessionTimer { interval: interval.max(self.session_min), ours })
    }
}

/// States a session timer in a 2xx of ours (RFC 4028 9).
pub(crate) fn state<'m, 'a>(response: Response<'m, 'a>, timer: Option<SessionTimer>) -> Response<'m, 'a> {
    match timer {
        Some(SessionTimer { interval, ours: true }) => {
            response.header(Name::SessionExpires, format!("{};refresher=uas", interval.as_secs()))
        }
        Some(SessionTimer { interval, ours: false }) => response
            .header(Name::Require, "timer")
            .header(Name::SessionExpires, format!("{};refresher=uac", interval.as_secs())),
        None => response,
    }
}
