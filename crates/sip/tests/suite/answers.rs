//! RFC 3261 8.2.6 and 12.1.1: what a response takes from its request; 7.3 and 18.3: bounds of a message.

use sip::message::{MAX_FIELDS, MAX_HEAD};
use sip::{Message, Method, Name, ParseError, build};

use crate::common::{Verdict, crlf, judge};

const REQUEST: &str = "INVITE sip:b@example.com SIP/2.0
v: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2,
 SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1
Record-Route: <sip:p2;lr>, <sip:p1;lr>
f: <sip:a@example.com>;tag=1
t: <sip:b@example.com>
i: c1
CSeq: 1 INVITE
Timestamp: 54

";

#[test]
fn a_response_takes_what_it_must() {
    let bytes = crlf(REQUEST);
    let request = Message::parse(&bytes).unwrap();
    let out = build::response(&request, 180, None, Some("xyz"))
        .record_route()
        .header(Name::Contact, "<sip:b@192.0.2.3>")
        .finish();
    let response = Message::parse_stream(&out).unwrap();
    assert_eq!(response.validate(), Ok(()));
    assert_eq!((response.status(), response.reason()), (Some(180), Some("Ringing")));
    let list = |m: &Message<'_>, n| m.values(n).map(str::to_owned).collect::<Vec<_>>();
    for name in [Name::Via, Name::RecordRoute, Name::From, Name::CallId, Name::CSeq] {
        assert_eq!(list(&response, name), list(&request, name), "{name}");
    }
    assert_eq!(response.to().unwrap().tag(), Some("xyz"));
    assert_eq!(response.header(Name::Timestamp), None);
    // A 100 has the Timestamp, and a tag only when it is asked for one.
    let trying = build::response(&request, 100, None, None).finish();
    let trying = Message::parse(&trying).unwrap();
    assert_eq!((trying.header(Name::Timestamp), trying.to().unwrap().tag()), (Some("54"), None));
    assert_eq!(trying.header(Name::RecordRoute), None);
}

#[test]
fn a_tag_that_stands_stays() {
    let bytes = crlf(&REQUEST.replace("t: <sip:b@example.com>", "t: <sip:b@example.com>;tag=old"));
    let out = build::response(&Message::parse(&bytes).unwrap(), 200, Some("Fine"), Some("new")).finish();
    let response = Message::parse(&out).unwrap();
    assert_eq!((response.to().unwrap().tag(), response.reason()), (Some("old"), Some("Fine")));
}

#[test]
fn a_broken_ack_and_a_request_without_a_way_back_are_dropped() {
    let text = REQUEST.replace("INVITE", "ACK").replace("CSeq: 1 ACK", "CSeq: 1 INVITE");
    assert_eq!(Message::parse(&crlf(&text)).unwrap().method(), Some(Method::Ack));
    assert_eq!(judge(&crlf(&text)), Verdict::Dropped);
    assert_eq!(judge(b"INVITE sip:a SIP/2.0\r\ni: c\r\n\r\n"), Verdict::Dropped);
}

#[test]
fn a_line_that_is_no_field_leaves_enough_for_an_answer() {
    let text = crlf(REQUEST);
    let text = String::from_utf8(text.to_vec()).unwrap();
    for line in ["no field\r\n", "no field\r\n\tat: all\r\n", ": a\r\n", "Two words: a\r\n"] {
        for at in [text.find("\r\n").unwrap() + 2, text.find("\r\n\r\n").unwrap() + 2] {
            let broken = format!("{}{line}{}", &text[..at], &text[at..]);
            assert_eq!(Message::parse(broken.as_bytes()).unwrap_err(), ParseError::FieldLine, "{line:?}");
            assert_eq!(judge(broken.as_bytes()), Verdict::Rejected(400), "{line:?}");
            let answer = sip::intake::refuse(broken.as_bytes(), ParseError::FieldLine, "t").unwrap();
            let (answer, whole) = (Message::parse_stream(&answer).unwrap(), Message::parse(text.as_bytes()).unwrap());
            for name in [Name::Via, Name::From, Name::CallId, Name::CSeq] {
                assert_eq!(answer.values(name).collect::<Vec<_>>(), whole.values(name).collect::<Vec<_>>());
            }
        }
    }
    assert_eq!(judge(b"OPTIONS sip:a SIP/2.0\r\nVia a\r\n\r\n"), Verdict::Dropped, "no way back");
    assert_eq!(judge(b"OPTIONS sip:a SIP/2.0\r\nVia a"), Verdict::Dropped);
}

#[test]
fn line_ends() {
    for (text, fault) in [
        ("OPTIONS sip:a SIP/2.0\nVia: a\n\n", ParseError::LineEnd),
        ("OPTIONS sip:a SIP/2.0\r\nVia: a\n\r\n", ParseError::LineEnd),
        ("OPTIONS sip:a SIP/2.0\r\nVia: a\rb\r\n\r\n", ParseError::LineEnd),
        ("OPTIONS sip:a SIP/2.0\r\nVia: a\r\n", ParseError::LineEnd),
        ("OPTIONS sip:a SIP/2.0\r\nVia: a\r\n\r", ParseError::LineEnd),
        ("OPTIONS sip:a SIP/2.0\r\nVia a\r\n\r\n", ParseError::FieldLine),
        ("OPTIONS sip:a SIP/2.0\r\nVia\r\n : a\r\n\r\n", ParseError::FieldLine),
        ("OPTIONS sip:a SIP/2.0\r\n: a\r\n\r\n", ParseError::FieldLine),
        ("OPTIONS sip:a SIP/2.0\r\n Via: a\r\n\r\n", ParseError::FieldLine),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ParseError::NotSip),
        ("\r\n\r\n", ParseError::Empty),
        ("", ParseError::Empty),
        ("hello", ParseError::NotSip),
        ("SIP/2.0 20 OK\r\n\r\n", ParseError::NotSip),
        ("SIP/2.0 700 OK\r\n\r\n", ParseError::NotSip),
    ] {
        assert_eq!(Message::parse(text.as_bytes()).unwrap_err(), fault, "{text:?}");
    }
    let not_utf8 = b"OPTIONS sip:a SIP/2.0\r\nSubject: \xff\r\n\r\n";
    assert_eq!(Message::parse(not_utf8).unwrap_err(), ParseError::NotUtf8);
    // A body is bytes.
    assert_eq!(Message::parse(b"OPTIONS sip:a SIP/2.0\r\n\r\n\xff\0\n").unwrap().body(), b"\xff\0\n");
}

#[test]
fn bounds() {
    let with = |fields: usize| format!("OPTIONS sip:a SIP/2.0\r\n{}\r\n", "X: y\r\n".repeat(fields));
    assert_eq!(Message::parse(with(MAX_FIELDS).as_bytes()).unwrap().fields().count(), MAX_FIELDS);
    assert_eq!(Message::parse(with(MAX_FIELDS + 1).as_bytes()).unwrap_err(), ParseError::TooManyFields);
    let long = |len: usize| {
        let text = format!("OPTIONS sip:a SIP/2.0\r\nX: {}\r\n\r\n", "y".repeat(len - 30));
        assert_eq!(text.len(), len);
        text
    };
    let text = long(MAX_HEAD);
    assert_eq!(Message::parse(text.as_bytes()).unwrap().other("x").map(str::len), Some(MAX_HEAD - 30));
    assert_eq!(Message::parse(long(MAX_HEAD + 1).as_bytes()).unwrap_err(), ParseError::HeadTooLarge);
}

#[test]
fn fields_beyond_the_inline_index() {
    let many: String = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let text = format!("OPTIONS sip:a SIP/2.0\r\n{many}v: SIP/2.0/UDP a\r\nVia: SIP/2.0/UDP b\r\n\r\n");
    let m = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(m.values(Name::Via).collect::<Vec<_>>(), ["SIP/2.0/UDP a", "SIP/2.0/UDP b"]);
    assert_eq!(m.other("x-199"), Some("199"));
    let out = sip::edit::Edit::new(&m).pop_top(Name::Via).finish();
    assert_eq!(&out[..], text.replace("v: SIP/2.0/UDP a\r\n", "").as_bytes());
}

#[test]
fn contact_star() {
    let register = |contacts: &str| {
        crlf(&format!(
            "REGISTER sip:example.com SIP/2.0\nv: SIP/2.0/UDP a\nf: <sip:a@b>;tag=1\nt: <sip:a@b>\ni: c\nCSeq: 1 REGISTER\n{contacts}\n"
        ))
    };
    assert_eq!(judge(&register("m: *\n")), Verdict::Accepted);
    assert_eq!(judge(&register("m: *, <sip:a@c>\n")), Verdict::Rejected(400));
    assert_eq!(judge(&register("m: <sip:a@c>\nm: *\n")), Verdict::Rejected(400));
    let invite = String::from_utf8(register("m: *\n")).unwrap().replace("REGISTER", "INVITE");
    assert_eq!(judge(invite.as_bytes()), Verdict::Rejected(400));
}
