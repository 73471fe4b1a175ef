//! New calls: what an INVITE must be before the dialplan sees it (RFC 3261 8.2, 13.3).

use crate::auth::{self, Verdict};
use crate::call::{Call, CallKey};
use crate::core::{Core, Then, Turn};
use crate::headers;
use crate::io::Ask;
use crate::leg::{Begin, Leg, LegKey, SessionTimer};
use crate::negotiate::{self, BodyError, Told};
use contract::config::EndpointEntry;
use contract::events::CallEventKind;
use contract::hop::{self, Hop, Inside};
use contract::leg::LegToken;
use contract::location::StoreError;
use contract::records::{Direction, Owner};
use contract::{Service, hop::host};
use dialplan::{Cause, Walk};
use sip::Name;
use sip::dialog::Dialog;
use sip::message::Message;
use sip::transaction::ServerId;
use sip::uri::Uri;
use std::collections::VecDeque;

/// Bytes of a Call-ID or tag.
const MAX_NAME: usize = 256;

/// What an INVITE says of a new call.
pub(crate) struct Caller<'a> {
    pub(crate) endpoint: &'a EndpointEntry,
    pub(crate) hop: Option<&'a Hop>,
    pub(crate) exten: &'a str,
    pub(crate) max_forwards: u8,
    pub(crate) offer: Option<String>,
    pub(crate) timer: Option<SessionTimer>,
}

/// What a new call and its first leg are called.
pub(crate) struct Names {
    pub(crate) id: String,
    pub(crate) leg: String,
    /// Our tag.
    pub(crate) tag: String,
    pub(crate) owner: Owner,
    pub(crate) started_at: u64,
}

impl Core {
    /// An INVITE outside of any dialog.
    pub(crate) fn invited(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, server: ServerId, inside: &Inside) {
        if turn.view.draining {
            return self.unavailable(turn, server);
        }
        if self.calls.len() >= self.limits.max_calls || self.legs.len() >= self.limits.max_legs {
            self.counters.overflow += 1;
            return self.unavailable(turn, server);
        }
        let (Ok(call_id), Some(cseq), Ok(from)) = (message.call_id(), message.header(Name::CSeq), message.from())
        else {
            return self.reply(turn, server, 400, |r| r);
        };
        // What is kept for as long as the call lasts is bounded.
        if call_id.len() > MAX_NAME || from.tag().is_some_and(|tag| tag.len() > MAX_NAME) {
            return self.reply(turn, server, 400, |r| r);
        }
        let names = (call_id.to_owned(), from.tag().unwrap_or_default().to_owned());
        // Our own INVITE, back from outside; or one that reached us on two ways (RFC 3261 8.2.2.2).
        let looped = self.dialogs.contains_key(&names)
            || self.callers.contains_key(&names)
            || headers::session_of(message).is_some_and(|id| self.ids.contains_key(&id));
        if looped {
            return self.reply(turn, server, 482, |r| r);
        }
        let max_forwards = match headers::max_forwards(message) {
            Some(0) => return self.reply(turn, server, 483, |r| r),
            Some(n) => n,
            None => return self.reply(turn, server, 400, |r| r),
        };
        let hop = (inside.service == Service::Balancer).then(|| message.other(hop::HEADER)).flatten();
        let hop = hop.and_then(|value| Hop::open(value, turn.view.keys, call_id, cseq));
        let verdict = auth::judge(turn.view, message, hop.as_ref(), turn.now, self.limits.nonce_age);
        let (endpoint, nonce) = match verdict {
            Verdict::Pass(endpoint, nonce) => (endpoint, nonce),
            Verdict::Challenge { stale } => return self.challenge(turn, server, stale),
            Verdict::Spoofed => {
                self.counters.spoofed += 1;
                return self.reply(turn, server, 403, |r| r);
            }
            Verdict::Malformed => return self.reply(turn, server, 400, |r| r),
        };
        if let Some(list) = headers::unsupported(message) {
            return self.reply(turn, server, 420, |r| r.header(Name::Unsupported, list));
        }
        let offer = match negotiate::body(message) {
            Ok(offer) => offer,
            Err(BodyError::Type) => return self.reply(turn, server, 415, |r| r.header(Name::Accept, headers::ACCEPT)),
            Err(BodyError::Malformed) => return self.reply(turn, server, 400, |r| r),
        };
        let Some(exten) = message.uri().and_then(extension) else {
            return self.reply(turn, server, 404, |r| r);
        };
        let timer = match self.session_asked(message) {
            Ok(timer) => timer,
            Err(min) => return self.reply(turn, server, 422, |r| r.header(Name::MinSE, min.to_string())),
        };
        let id = turn.token(16);
        let names = Names {
            tag: turn.token(8),
            leg: contract::leg::leg_id(&id, &turn.token(8)),
            id,
            owner: Owner { process: turn.view.me, epoch: 1 },
            started_at: turn.now.unix(),
        };
        let caller = Caller { endpoint, hop: hop.as_ref(), exten: &exten, max_forwards, offer, timer };
        let Some(call) = self.begin(turn, message, server, caller, names) else {
            return self.reply(turn, server, 400, |r| r);
        };
        self.counters.calls += 1;
        let (from, context) = (endpoint.name.clone(), endpoint.context.clone());
        self.call_event(turn, call, CallEventKind::Started { from, exten, context });
        self.reply(turn, server, 100, |r| r);
        match nonce {
            Some(used) => {
                let ttl = self.limits.nonce_age.as_secs() + 60;
                self.ask(Ask::UseNonce { nonce: used.nonce, nc: used.nc, ttl }, Then::Nonce(call));
            }
            None => self.start(turn, call),
        }
    }

    /// 401 with a challenge for each algorithm.
    fn challenge(&mut self, turn: &mut Turn<'_>, server: ServerId, stale: bool) {
        self.counters.challenged += 1;
        let list = auth::challenges(turn.view, &self.limits.algorithms, stale, turn.now, turn.rng);
        self.reply(turn, server, 401, |r| list.iter().fold(r, |r, value| r.header(Name::WwwAuthenticate, value)));
    }

    /// 503 with a Retry-After that spreads those who come back.
    pub(crate) fn unavailable(&mut self, turn: &mut Turn<'_>, server: ServerId) {
        let after = turn.between(5, 30).to_string();
        self.reply(turn, server, 503, |r| r.header(Name::RetryAfter, after));
    }

    /// Makes the call and its first leg.
    pub(crate) fn begin(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        server: ServerId,
        caller: Caller<'_>,
        names: Names,
    ) -> Option<CallKey> {
        let Caller { endpoint, hop, exten, max_forwards, offer, timer } = caller;
        let Names { id, tag, leg: leg_id, owner, started_at } = names;
        let (from, call_id) = (message.from().ok()?, message.call_id().ok()?);
        let (key, leg_key) = (CallKey(self.number()), LegKey(self.number()));
        let place = message.header(Name::RecordRoute).and_then(|_| message.values(Name::RecordRoute).next());
        let place = place.and_then(headers::place).unwrap_or_else(|| host(Service::Router, turn.view.me));
        let token = LegToken { process: turn.view.me, leg: leg_id.clone() }.seal(turn.view.keys);
        let contact = format!("<sip:{token}@{place}>");
        let dialog = Dialog::uas(message, &tag, &contact).ok()?;
        let (name, number) = match &endpoint.caller_id {
            Some(text) => {
                let (name, number) = headers::caller_id(text);
                (name, number.unwrap_or_else(|| endpoint.name.clone()))
            }
            // A trunk speaks for many callers; a phone only for itself.
            None if endpoint.auth.is_none() => {
                let name = Some(from.display_unquoted().into_owned()).filter(|n| !n.is_empty());
                (name, from.uri_parsed().ok()?.user_unescaped().into_owned())
            }
            None => (None, endpoint.name.clone()),
        };
        let names = (call_id.to_owned(), tag);
        let caller = (call_id.to_owned(), from.tag().unwrap_or_default().to_owned());
        let leg = Leg {
            caller: Some(caller.clone()),
            dialog: Some(dialog),
            remote_session: headers::session_of(message),
            remote: hop.map(|h| h.flow.remote.ip()),
            server: Some(server),
            allows_update: headers::allows_update(message) == Some(true),
            said_offer: offer.is_some(),
            said: offer,
            timer,
            ..Leg::new(Begin {
                id: leg_id,
                call: key,
                call_id: id.clone(),
                owner,
                direction: Direction::Inbound,
                endpoint: endpoint.name.clone(),
                codecs: endpoint.codecs.clone(),
                contact,
                name: names.clone(),
                told: Told::new(turn.rng.next_u64()),
            })
        };
        let call = Call {
            id: id.clone(),
            owner,
            leg: leg_key,
            endpoint: endpoint.name.clone(),
            walk: Walk::new(&endpoint.context, exten, dialplan::Caller { number, name }, turn.now.wall),
            digits: String::new(),
            outcome: None,
            dialing: None,
            far: None,
            shunned: None,
            bridge: None,
            max_forwards: max_forwards.saturating_sub(1),
            passed: headers::passed(message, hop.is_some_and(|h| h.trusted)),
            returned: Vec::new(),
            progress: None,
            started_at,
            relay: None,
            refused: Vec::new(),
            leaving: None,
            heard: VecDeque::new(),
            saved: false,
            unprotected: false,
            resumed: Vec::new(),
            paused: false,
        };
        self.dialogs.insert(names, leg_key);
        self.callers.insert(caller, leg_key);
        self.servers.insert(server, leg_key);
        self.ids.insert(id, key);
        self.legs.insert(leg_key, leg);
        self.calls.insert(key, call);
        Some(key)
    }

    /// The nonce count was taken, or somebody had it before.
    pub(crate) fn nonce_used(&mut self, turn: &mut Turn<'_>, call: CallKey, result: Result<bool, StoreError>) {
        match result {
            Ok(true) => self.start(turn, call),
            Ok(false) => {
                let list = auth::challenges(turn.view, &self.limits.algorithms, true, turn.now, turn.rng);
                self.counters.challenged += 1;
                let fields = list.into_iter().map(|value| (Name::WwwAuthenticate, value)).collect();
                self.refuse(turn, call, 401, Cause::REJECTED, "nonce used before", fields);
            }
            Err(_) => self.store_down(turn, call),
        }
    }

    /// The store does not answer and the call is not answered: it is to try again later.
    pub(crate) fn store_down(&mut self, turn: &mut Turn<'_>, call: CallKey) {
        let fields = vec![(Name::RetryAfter, turn.between(5, 30).to_string())];
        self.refuse(turn, call, 503, Cause::CONGESTION, "store unavailable", fields);
    }
}

/// The extension that a Request-URI dials: its user part, or the number of a tel URI; `s` where it has none.
fn extension(uri: &str) -> Option<String> {
    let uri = Uri::parse(uri).ok()?;
    let user = uri.user_unescaped().into_owned();
    let user = if user.is_empty() { "s".to_owned() } else { user };
    let fits = user.len() <= dialplan::limits::EXTENSION && !user.contains(char::is_control);
    fits.then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dialled() {
        for (uri, exten) in [
            ("sip:8006@192.0.2.1", Some("8006")),
            ("sip:192.0.2.1:5060", Some("s")),
            ("tel:+15550100", Some("+15550100")),
            ("sip:%0d@192.0.2.1", None),
        ] {
            assert_eq!(extension(uri).as_deref(), exten, "{uri}");
        }
        assert_eq!(extension(&format!("sip:{}@h", "8".repeat(81))), None);
    }
}
