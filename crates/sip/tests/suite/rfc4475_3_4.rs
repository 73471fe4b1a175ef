//! RFC 4475 3.4: backward compatibility.

use sip::{Message, Name};

use crate::common::{Verdict, judge, load};

/// 3.4.1: an INVITE of RFC 2543: no Max-Forwards, no branch, no tag, no Content-Length.
#[test]
fn s01_invite_of_rfc_2543() {
    let bytes = load("rfc4475/inv2543");
    assert_eq!(judge(&bytes), Verdict::Accepted);
    let m = Message::parse(&bytes).unwrap();
    assert_eq!(m.via().unwrap().branch(), None);
    assert_eq!(m.from().unwrap().tag(), None);
    assert_eq!(m.max_forwards(), None);
    // Without brackets the parameter is the field's, not the URI's.
    let to = m.to().unwrap();
    assert_eq!((to.uri, to.params.get("user")), ("sip:+16505552222@ss1.example.net", Some(Some("phone"))));
    assert!(m.body().starts_with(b"v=0\r\n") && m.body().ends_with(b"RTP/AVP 0\r\n"));
    assert_eq!(m.header(Name::RecordRoute), Some("<sip:UserB@example.com;maddr=ss1.example.com>"));
}
