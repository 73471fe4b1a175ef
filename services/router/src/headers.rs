//! Header fields: what we state ourselves on each leg, what passes from one leg to the other, and where a leg's
//! requests go.

use crate::core::View;
use contract::peers::Peer;
use contract::{Flow, ProcessId, Service, hop, rendezvous};
use sip::header::NameAddr;
use sip::message::Message;
use sip::uri::Uri;
use sip::{Name, header};
use std::net::SocketAddr;

/// Hops of a call whose first request does not say (RFC 3261 8.1.1.6).
const MAX_FORWARDS: u8 = 70;
/// Methods that a leg takes.
pub(crate) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE";
/// Extensions that we have: session timers (RFC 4028).
pub(crate) const SUPPORTED: &str = "timer";
/// What bodies we read.
pub(crate) const ACCEPT: &str = "application/sdp";
/// Who we are.
pub(crate) const AGENT: &str = concat!("KubePBX/", env!("CARGO_PKG_VERSION"));
/// A Session-ID that is not known yet (RFC 7989 5).
const NULL_SESSION: &str = "00000000000000000000000000000000";

/// At most so many header fields pass from leg to leg.
const MAX_PASSED: usize = 32;
/// At most so many bytes of them.
const MAX_PASSED_BYTES: usize = 8 * 1024;

/// Fields that speak of the call and not of a hop or dialog.
const PASSED: &[Name] = &[
    Name::Subject,
    Name::AlertInfo,
    Name::CallInfo,
    Name::Priority,
    Name::Organization,
    Name::AcceptLanguage,
    Name::ReplyTo,
    Name::Date,
    Name::InReplyTo,
    Name::Diversion,
    Name::Privacy,
    Name::AnswerMode,
    Name::ContentLanguage,
];

/// The fields of a message that pass to the other leg; `trusted`: also what its sender asserts. A private header
/// (`X-...`) passes unless it is one of ours.
pub(crate) fn passed(message: &Message<'_>, trusted: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for (name, value) in message.fields() {
        let passes = match Name::parse(name) {
            Some(Name::PAssertedIdentity) => trusted,
            Some(known) => PASSED.contains(&known),
            None => is_private(name),
        };
        bytes += if passes { name.len() + value.len() } else { 0 };
        if out.len() == MAX_PASSED || bytes > MAX_PASSED_BYTES {
            break;
        }
        if passes {
            out.push((name.to_owned(), value.to_owned()));
        }
    }
    out
}

fn is_private(name: &str) -> bool {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    starts("X-") && !starts("X-KubePBX-")
}

/// The hops that a request has left; none if it says so in a way that cannot be read.
pub(crate) fn max_forwards(message: &Message<'_>) -> Option<u8> {
    match message.max_forwards() {
        None => Some(MAX_FORWARDS),
        Some(hops) => hops.ok().map(|hops| hops.min(MAX_FORWARDS)),
    }
}

/// The value of Session-ID on a leg whose other side stated `remote` (RFC 7989 6: 32 lower-case hexadecimal digits).
pub(crate) fn session_id(call: &str, remote: Option<&str>) -> String {
    format!("{call};remote={}", remote.unwrap_or(NULL_SESSION))
}

/// The sender's identifier in a Session-ID, if it is one.
pub(crate) fn session_of(message: &Message<'_>) -> Option<String> {
    let value = message.header(Name::SessionId)?;
    let id = value.split(';').next()?.trim();
    let good = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (good && id != NULL_SESSION).then(|| id.to_owned())
}

/// `host:port` and transport of a Record-Route or Path value: the balancer's address on that flow, which is where a
/// phone reaches us.
pub(crate) fn place(route: &str) -> Option<String> {
    let address = NameAddr::parse(route).ok()?;
    let uri = address.uri_parsed().ok()?;
    let port = uri.port.map(|p| format!(":{p}")).unwrap_or_default();
    let transport = match uri.param("transport").flatten() {
        Some(t) if !t.eq_ignore_ascii_case("udp") => format!(";transport={}", t.to_ascii_lowercase()),
        _ => String::new(),
    };
    Some(format!("{}{port}{transport}", uri.host))
}

/// Host and port of a place, without its transport.
pub(crate) fn host_of(place: &str) -> &str {
    place.split(';').next().unwrap_or(place)
}

/// The process that a request goes to: the one its first route's flow token names, or the one that its target's host
/// names, or, where that process is gone, the balancer that `key` chooses, first of those at the address of the flow.
pub(crate) fn next_hop(view: &View<'_>, routes: &[String], target: &str, key: &str) -> Option<ProcessId> {
    let first = match routes.first() {
        Some(route) => NameAddr::parse(route).ok()?.uri,
        None => target,
    };
    let uri = Uri::parse(first).ok()?;
    let flow = uri.user.and_then(|token| Flow::from_token(token, view.keys));
    let named = flow.map(|flow| flow.process).or_else(|| hop::process_of(&uri.host.to_string()));
    let there = || {
        let local = flow?.local.ip();
        let at = |peer: &&Peer| peer.address.parse::<SocketAddr>().is_ok_and(|address| address.ip() == local);
        let peers = view.peers.serving(Service::Balancer).filter(at);
        rendezvous::choose(key.as_bytes(), peers.map(|peer| (peer.process, peer.weight)))
    };
    let named = named.filter(|p| view.peers.get(*p).is_some());
    named.or_else(there).or_else(|| view.peers.choose(Service::Balancer, key.as_bytes()))
}

/// The flow of a balancer by which requests along these routes leave.
pub(crate) fn flow(view: &View<'_>, routes: &[String]) -> Option<Flow> {
    let address = NameAddr::parse(routes.first()?).ok()?;
    Flow::from_token(address.uri_parsed().ok()?.user?, view.keys)
}

/// A caller as `callerId` states it: display name (unquoted) and number.
pub(crate) fn caller_id(text: &str) -> (Option<String>, Option<String>) {
    let text = text.trim();
    match text.split_once('<') {
        Some((name, number)) => {
            let name = header::unquote(name.trim()).trim().to_owned();
            let number = number.trim_end().trim_end_matches('>').trim().to_owned();
            (Some(name).filter(|n| !n.is_empty()), Some(number).filter(|n| !n.is_empty()))
        }
        None if text.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b)) => (None, Some(text.to_owned())),
        None => (Some(header::unquote(text).into_owned()), None),
    }
}

/// A From or To value: display name, user and host.
pub(crate) fn address(display: Option<&str>, user: &str, host: &str) -> String {
    let uri = format!("<sip:{}@{host}>", sip::uri::escape_user(user));
    match display {
        Some(name) => format!("{} {uri}", header::quote(name)),
        None => uri,
    }
}

/// True if a comma list holds this token, in any case.
pub(crate) fn has_token(message: &Message<'_>, name: Name, token: &str) -> bool {
    message.values(name).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Whether a sender takes UPDATE; `None` if it says nothing of methods.
pub(crate) fn allows_update(message: &Message<'_>) -> Option<bool> {
    message.header(Name::Allow).map(|_| has_token(message, Name::Allow, "UPDATE"))
}

/// The option tags of Require that we do not have (RFC 3261 8.2.2.3).
pub(crate) fn unsupported(message: &Message<'_>) -> Option<String> {
    let list: Vec<_> =
        message.values(Name::Require).map(str::trim).filter(|tag| !tag.eq_ignore_ascii_case(SUPPORTED)).collect();
    (!list.is_empty()).then(|| list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_never_does() {
        let text = "INVITE sip:8006@x SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\n\
            Call-ID: 1\r\nCSeq: 1 INVITE\r\ns: Lunch\r\nAlert-Info: <http://x/ring>\r\nX-Account: 7\r\nx-kubepbx-hop: forged\r\n\
            Record-Route: <sip:r>\r\nAuthorization: Digest x\r\nContact: <sip:a@x>\r\nRequire: timer\r\nP-Asserted-Identity: <sip:boss@x>\r\n\
            Unknown-Header: 1\r\nContent-Length: 0\r\n\r\n";
        let message = Message::parse(text.as_bytes()).unwrap();
        let names = |trusted| passed(&message, trusted).into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(names(false), ["s", "Alert-Info", "X-Account"]);
        assert_eq!(names(true), ["s", "Alert-Info", "X-Account", "P-Asserted-Identity"]);
        let many = format!("{}{}\r\n\r\n", text.trim_end(), "\r\nX-A: b".repeat(50));
        let many = Message::parse(many.as_bytes()).unwrap();
        assert_eq!(passed(&many, false).len(), MAX_PASSED);
    }

    #[test]
    fn a_caller_id_is_name_and_number() {
        for (text, name, number) in [
            ("\"Front \\\"Desk\\\"\" <100>", Some("Front \"Desk\""), Some("100")),
            ("Desk <100>", Some("Desk"), Some("100")),
            ("<100>", None, Some("100")),
            ("+15550100", None, Some("+15550100")),
            ("Front desk", Some("Front desk"), None),
        ] {
            assert_eq!(caller_id(text), (name.map(str::to_owned), number.map(str::to_owned)), "{text}");
        }
        assert_eq!(address(Some("A \"B\""), "1 2", "h:5060"), "\"A \\\"B\\\"\" <sip:1%202@h:5060>");
    }

    #[test]
    fn a_place_is_the_balancers_address() {
        assert_eq!(place("<sip:tok@192.0.2.1:5060;lr>").as_deref(), Some("192.0.2.1:5060"));
        assert_eq!(
            place("<sip:tok@[2001:db8::1]:5060;transport=TCP;lr>").as_deref(),
            Some("[2001:db8::1]:5060;transport=tcp")
        );
        assert_eq!(host_of("192.0.2.1:5060;transport=tcp"), "192.0.2.1:5060");
        assert_eq!(place("nonsense"), None);
    }
}
