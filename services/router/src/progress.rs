//! Provisional answers to a caller, given again so that nobody on the way gives up.

use crate::call::CallKey;
use crate::core::{Core, Turn};
use crate::headers;
use crate::timers::Timer;
use contract::hop;
use sip::Name;
use std::time::Duration;

/// How often a caller is told that it still rings (RFC 3261 13.3.1.1).
const PROGRESS: Duration = Duration::from_secs(60);

impl Core {
    /// Tells an unanswered caller how far it is. A description once given is given again: the caller may have lost it.
    pub(crate) fn progress(&mut self, turn: &mut Turn<'_>, key: CallKey, status: u16, sdp: Option<String>) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let Some(near) = self.legs.get_mut(&call.leg) else { return };
        let Some(server) = near.server else { return };
        let sdp = match sdp {
            Some(sdp) => Some(near.told.tell(&sdp)),
            None => call.progress.as_ref().and_then(|(_, sdp)| sdp.clone()),
        };
        let new = (status, sdp);
        if call.progress.as_ref() == Some(&new) {
            return;
        }
        call.progress = Some(new);
        self.send_progress(turn, key, server);
    }

    fn send_progress(&mut self, turn: &mut Turn<'_>, key: CallKey, server: sip::transaction::ServerId) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(near) = self.legs.get(&call.leg) else { return };
        let Some((status, sdp)) = call.progress.clone() else { return };
        let (tag, contact) = (near.name.1.clone(), near.contact.clone());
        let session = headers::session_id(&call.id, near.remote_session.as_deref());
        let returned = call.returned.clone();
        let held = call.dialing.as_ref().is_some_and(|d| !d.holds.is_empty()) || !call.resumed.is_empty();
        let held = call.saved && held;
        self.timers.arm(Timer::Progress(key), turn.now.mono + PROGRESS);
        self.reply_as(turn, server, status, &tag, |r| {
            let r = r.record_route().header(Name::Contact, contact).header(Name::Allow, headers::ALLOW);
            let r = r.header(Name::SessionId, session);
            let r = if held { r.other(hop::HELD, "yes") } else { r };
            let r = returned.iter().fold(r, |r, (name, value)| r.other(name, value));
            match sdp {
                Some(sdp) => r.body(headers::ACCEPT, sdp),
                None => r,
            }
        });
    }

    /// A minute went by: proxies on the way must not give up.
    pub(crate) fn progress_again(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let server = self.calls.get(&key).and_then(|c| self.legs.get(&c.leg)).and_then(|l| l.server);
        if let Some(server) = server {
            self.send_progress(turn, key, server);
        }
    }
}
