//! Answers of our own. Those that follow from the request alone are made without state: every copy of the request gets
//! the same one (RFC 3261 8.2.7), and junk costs no memory.

use crate::via;
use bytes::Bytes;
use contract::KeyRing;
use sip::build;
use sip::edit::Edit;
use sip::{Message, Method, Name};
use std::net::SocketAddr;

const PURPOSE: &str = "to-tag";

/// The To tag of our own answers to a request: the same for each copy, and known again in the ACK.
pub fn to_tag(request: &Message<'_>, keys: &KeyRing) -> String {
    let via = request.via();
    let branch = via.as_ref().ok().and_then(|v| v.branch()).unwrap_or_default();
    let from = request.from();
    let from = from.as_ref().ok().and_then(|f| f.tag()).unwrap_or_default();
    let call_id = request.header(Name::CallId).unwrap_or_default();
    let mac = keys.current().mac(PURPOSE, &[call_id.as_bytes(), from.as_bytes(), branch.as_bytes()]);
    mac.iter().map(|b| format!("{b:02x}")).collect()
}

/// True if an ACK acknowledges an answer that we made without state.
pub fn is_our_ack(ack: &Message<'_>, keys: &KeyRing) -> bool {
    ack.to().is_ok_and(|to| to.tag() == Some(to_tag(ack, keys).as_str()))
}

/// An answer to a request, with further headers. `remote` is the source of a request from outside, for its Via.
/// `None` where nothing can be answered: ACK, no Via.
pub fn answer(
    request: &Message<'_>,
    remote: Option<SocketAddr>,
    keys: &KeyRing,
    (status, reason): (u16, Option<&str>),
    headers: &[(Name, &str)],
) -> Option<Bytes> {
    if request.method() == Some(Method::Ack) {
        return None;
    }
    let via = request.via().ok()?;
    let tag = (status != 100).then(|| to_tag(request, keys));
    let finish = |request: &Message<'_>| {
        let response = build::response(request, status, reason, tag.as_deref());
        headers.iter().fold(response, |r, (name, value)| r.header(*name, value)).finish()
    };
    let (received, rport) = remote.map(|r| via::received(&via, r)).unwrap_or_default();
    if received.is_none() && rport.is_none() {
        return Some(finish(request));
    }
    let mut edit = Edit::new(request);
    let fixed = edit.via_received(received, rport).finish();
    // The head alone: what is answered may have a wrong Content-Length.
    Message::parse_head(&fixed).ok().map(|fixed| finish(&fixed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::InstallationKey;

    fn request(method: &str, to_tag: &str) -> String {
        format!(
            "{method} sip:8006@h SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1:5070;rport;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=f\r\n\
             To: <sip:b@h>{to_tag}\r\nCall-ID: c1\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn every_copy_gets_the_same_answer_and_its_ack_is_known() {
        let keys = KeyRing::new(InstallationKey::new(1, [1; 32]));
        let text = request("INVITE", "");
        let invite = Message::parse(text.as_bytes()).unwrap();
        let remote = Some("127.0.0.1:4000".parse().unwrap());
        let make = || answer(&invite, remote, &keys, (403, Some("Foreign Route")), &[(Name::RetryAfter, "5")]);
        let bytes = make().unwrap();
        assert_eq!(Some(&bytes), make().as_ref());
        let response = Message::parse_stream(&bytes).unwrap();
        let via = response.via().unwrap();
        assert_eq!((via.received(), via.rport()), (Some([127, 0, 0, 1].into()), Some(Some(4000))));
        assert_eq!((response.status(), response.header(Name::RetryAfter)), (Some(403), Some("5")));
        let tag = response.to().unwrap().tag().unwrap();
        let ack = request("ACK", &format!(";tag={tag}"));
        assert!(is_our_ack(&Message::parse(ack.as_bytes()).unwrap(), &keys));
        let ack = request("ACK", ";tag=other");
        let ack = Message::parse(ack.as_bytes()).unwrap();
        assert!(!is_our_ack(&ack, &keys));
        assert_eq!(answer(&ack, remote, &keys, (400, None), &[]), None);
    }
}
