//! Telling whoever wakes phones: of a hold, until it was taken or the hold is over, and that a hold is over.

use crate::call::CallKey;
use crate::core::{Core, Then, Turn};
use crate::hold::{Hold, Over};
use crate::io::Ask;
use crate::timers::Timer;
use bytes::Bytes;
use contract::config::WebhookEntry;
use contract::events::CallEventKind;
use contract::location::{Binding, Push};
use serde_json::json;
use std::time::Duration;

/// The first pause before it is told again; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);
/// That a hold is over is told again for so long.
const AFTERWARDS: Duration = Duration::from_secs(30);

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The phone is to be woken.
    Wake,
    /// It need not be woken any more.
    Cancelled,
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            What::Wake => "wake",
            What::Cancelled => "cancelled",
        }
    }
}

/// One notification, until it was taken.
#[derive(Debug)]
pub(crate) struct Notice {
    what: What,
    call: String,
    endpoint: String,
    hold: String,
    webhook: WebhookEntry,
    body: Bytes,
    tries: u32,
    until: Duration,
}

impl Core {
    /// Has the phone of an endpoint woken that a call waits for, if it was not yet.
    pub(crate) fn wake(&mut self, turn: &mut Turn<'_>, key: CallKey, endpoint: &str, bindings: &[Binding]) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(hold) = call.dialing.as_ref().and_then(|d| d.holds.iter().find(|hold| hold.endpoint == endpoint))
        else {
            return;
        };
        if hold.told || hold.woken {
            return;
        }
        // Of phones that are registered no more too.
        let mut push: Vec<&Push> = Vec::new();
        for of in bindings.iter().filter_map(|binding| binding.push.as_ref()) {
            if !push.contains(&of) {
                push.push(of);
            }
        }
        let body = json!({
            "type": What::Wake.as_str(),
            "id": hold.id,
            "call": call.id,
            "endpoint": endpoint,
            "from": {"number": call.caller_number, "name": call.caller_name},
            "exten": call.exten,
            "since": hold.since,
            "until": hold.until_unix,
            "push": push,
        });
        let left = Duration::from_secs(hold.until_unix.saturating_sub(turn.now.unix()));
        let (call, hold) = (call.id.clone(), hold.id.clone());
        let number = self.notify(turn, What::Wake, call, endpoint, hold, body.to_string(), left);
        let holds = self.dialing_mut(key).map(|d| &mut d.holds);
        if let Some(hold) = holds.into_iter().flatten().find(|hold| hold.endpoint == endpoint) {
            hold.notice = number;
            hold.told = true;
        }
    }

    /// A hold is over: whoever was told of it is told so, unless the phone itself has the call or refused it.
    pub(crate) fn unwake(&mut self, turn: &mut Turn<'_>, key: CallKey, hold: Hold, why: Over) {
        if let Some(notice) = hold.notice {
            self.forget_notice(notice);
        }
        let answered = why == Over::Answered && self.winner_is(key, &hold.endpoint);
        // Nor one that rings.
        let knows = answered || why == Over::Refused || (why == Over::Timeout && hold.woken);
        let Some(call) = self.calls.get(&key).filter(|_| hold.told && !knows) else { return };
        let body = json!({
            "type": What::Cancelled.as_str(),
            "id": hold.id,
            "call": call.id,
            "endpoint": hold.endpoint,
            "reason": why.as_str(),
        });
        let call = call.id.clone();
        self.notify(turn, What::Cancelled, call, &hold.endpoint, hold.id, body.to_string(), AFTERWARDS);
    }

    fn winner_is(&self, key: CallKey, endpoint: &str) -> bool {
        let winner = self.dialing(key).and_then(|dialing| dialing.winner);
        winner.and_then(|leg| self.legs.get(&leg)).is_some_and(|leg| leg.endpoint == endpoint)
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is one notification")]
    fn notify(
        &mut self,
        turn: &Turn<'_>,
        what: What,
        call: String,
        endpoint: &str,
        hold: String,
        body: String,
        within: Duration,
    ) -> Option<u64> {
        let callback = turn.view.directory.endpoint(endpoint)?.callback.as_ref()?;
        if self.notices.len() >= self.limits.max_holds.saturating_mul(2) {
            self.counters.overflow += 1;
            return None;
        }
        let number = self.number();
        let notice = Notice {
            what,
            call,
            endpoint: endpoint.to_owned(),
            hold,
            webhook: callback.webhook.clone(),
            body: body.into(),
            tries: 0,
            until: turn.now.mono + within,
        };
        self.notices.insert(number, notice);
        self.tell(number);
        Some(number)
    }

    /// Tells it, or tells it again.
    pub(crate) fn tell(&mut self, number: u64) {
        let Some(notice) = self.notices.get_mut(&number) else { return };
        notice.tries += 1;
        let (hold, webhook, body) = (notice.hold.clone(), notice.webhook.clone(), notice.body.clone());
        self.ask(Ask::Notify { hold, webhook, body }, Then::Notified(number));
    }

    /// It need not be told any more.
    pub(crate) fn forget_notice(&mut self, number: u64) {
        self.notices.remove(&number);
        self.timers.disarm(Timer::Notice(number));
    }

    /// Whoever wakes phones took it, or did not.
    pub(crate) fn notified(&mut self, turn: &mut Turn<'_>, number: u64, result: Result<u16, String>) {
        let Some(notice) = self.notices.get(&number) else { return };
        let (call, endpoint, hold) = (notice.call.clone(), notice.endpoint.clone(), notice.hold.clone());
        let reason = match result {
            Ok(200..=299) => {
                let what = notice.what.as_str().to_owned();
                self.forget_notice(number);
                return self.event(turn, &call, CallEventKind::Notified { endpoint, hold, what });
            }
            Ok(status) => format!("HTTP {status}"),
            Err(ref why) => why.clone(),
        };
        self.counters.notify_errors += 1;
        // What is wrong with a request stays wrong.
        let lasting = matches!(result, Ok(status) if !matches!(status, 408 | 425 | 429 | 500..=599));
        let at = turn.now.mono + PAUSE.saturating_mul(1 << (notice.tries - 1).min(8)).min(LONGEST);
        let again = !lasting && at < notice.until;
        tracing::warn!(%call, %endpoint, %hold, what = notice.what.as_str(), %reason, again, "not notified");
        if again {
            self.timers.arm(Timer::Notice(number), at);
        } else {
            self.forget_notice(number);
        }
        self.event(turn, &call, CallEventKind::NotNotified { endpoint, hold, reason, again });
    }
}
