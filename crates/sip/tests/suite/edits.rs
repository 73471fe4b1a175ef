//! Edits by splicing: each by itself, and in company.

use sip::edit::Edit;
use sip::{Message, Name};

use crate::common::crlf;

const REQUEST: &str = "INVITE sip:b@example.com SIP/2.0
v: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK1, SIP/2.0/TCP 192.0.2.2;received=192.0.2.3
Via: SIP/2.0/UDP 192.0.2.4
Record-Route: <sip:p0;lr>
Route: <sip:p1;lr>
Route: <sip:p2;lr>, <sip:p3;lr>
Max-Forwards: 70
f: <sip:a@example.com>;tag=1
t: <sip:b@example.com>
i: c1
CSeq: 1 INVITE
X-Keep:   as it is\t
x-keep: twice
c: application/sdp
l: 5

hello";

/// Applies an edit to [`REQUEST`] and gives the text back with LF.
fn edited(work: impl for<'m, 'a> FnOnce(&mut Edit<'m, 'a>)) -> String {
    let bytes = crlf(REQUEST);
    let message = Message::parse(&bytes).unwrap();
    let mut edit = Edit::new(&message);
    work(&mut edit);
    let out = edit.finish();
    Message::parse_stream(&out).expect("an edited message is a message");
    String::from_utf8(out.to_vec()).unwrap().replace("\r\n", "\n")
}

#[track_caller]
fn check(work: impl for<'m, 'a> FnOnce(&mut Edit<'m, 'a>), changes: &[(&str, &str)]) {
    let mut expected = REQUEST.to_owned();
    for (from, to) in changes {
        assert!(expected.contains(from), "{from:?}");
        expected = expected.replacen(from, to, 1);
    }
    assert_eq!(edited(work), expected);
}

#[test]
fn nothing() {
    check(|_| {}, &[]);
}

#[test]
fn insert_top_stands_before_the_first_of_its_name() {
    check(
        |e| _ = e.insert_top(Name::RecordRoute, "<sip:p9;lr>"),
        &[("Record-Route", "Record-Route: <sip:p9;lr>\nRecord-Route")],
    );
    check(
        |e| _ = e.insert_top(Name::Via, "SIP/2.0/UDP a").insert_top(Name::Via, "SIP/2.0/UDP b"),
        &[("v: ", "Via: SIP/2.0/UDP b\nVia: SIP/2.0/UDP a\nv: ")],
    );
}

#[test]
fn insert_top_of_an_absent_name_stands_on_top() {
    check(|e| _ = e.insert_top(Name::Path, "<sip:edge;lr>"), &[("v: ", "Path: <sip:edge;lr>\nv: ")]);
}

#[test]
fn append_stands_at_the_end_in_order() {
    check(
        |e| _ = e.append(Name::Reason, "Q.850;cause=16").append_other("X-Last", "1"),
        &[("l: 5\n", "l: 5\nReason: Q.850;cause=16\nX-Last: 1\n")],
    );
}

#[test]
fn remove_all_takes_every_field() {
    check(|e| _ = e.remove_all(Name::Route), &[("Route: <sip:p1;lr>\nRoute: <sip:p2;lr>, <sip:p3;lr>\n", "")]);
    check(|e| _ = e.remove_all_other("X-KEEP"), &[("X-Keep:   as it is\t\nx-keep: twice\n", "")]);
    check(|e| _ = e.remove_all_other("call-info"), &[]);
}

#[test]
fn pop_top_takes_value_after_value() {
    check(|e| _ = e.pop_top(Name::Route), &[("Route: <sip:p1;lr>\n", "")]);
    check(
        |e| _ = e.pop_top(Name::Route).pop_top(Name::Route),
        &[("Route: <sip:p1;lr>\nRoute: <sip:p2;lr>, <sip:p3;lr>", "Route: <sip:p3;lr>")],
    );
    check(
        |e| _ = (0..9).fold(e, |e, _| e.pop_top(Name::Route)),
        &[("Route: <sip:p1;lr>\nRoute: <sip:p2;lr>, <sip:p3;lr>\n", "")],
    );
    check(|e| _ = e.pop_top(Name::Via), &[("SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK1, ", "")]);
    check(|e| _ = e.pop_top(Name::Path), &[]);
}

#[test]
fn pop_and_insert_together() {
    check(
        |e| _ = e.pop_top(Name::Route).insert_top(Name::Route, "<sip:p7;lr>"),
        &[("Route: <sip:p1;lr>\n", "Route: <sip:p7;lr>\n")],
    );
}

#[test]
fn replace_keeps_the_name_and_removes_the_others() {
    check(|e| _ = e.replace(Name::MaxForwards, "69"), &[(": 70", ": 69")]);
    check(|e| _ = e.replace(Name::CallId, "c2").replace(Name::CallId, "c3"), &[("i: c1", "i: c3")]);
    check(
        |e| _ = e.replace(Name::Route, "<sip:p8;lr>"),
        &[("Route: <sip:p1;lr>\nRoute: <sip:p2;lr>, <sip:p3;lr>\n", "Route: <sip:p8;lr>\n")],
    );
    check(|e| _ = e.replace(Name::Expires, "5").replace(Name::Expires, "6"), &[("l: 5\n", "l: 5\nExpires: 6\n")]);
    check(|e| _ = e.remove_all(Name::MaxForwards).replace(Name::MaxForwards, "1"), &[(": 70", ": 1")]);
}

#[test]
fn request_uri() {
    check(|e| _ = e.set_uri("sip:c@192.0.2.7:5070"), &[("sip:b@example.com SIP", "sip:c@192.0.2.7:5070 SIP")]);
    check(|e| _ = e.set_uri("sip:x").set_uri("sip:y"), &[("sip:b@example.com SIP", "sip:y SIP")]);
}

#[test]
fn received_and_rport_stand_in_the_topmost_via() {
    let ip = Some([203, 0, 113, 7].into());
    check(
        |e| _ = e.via_received(ip, Some(6060)),
        &[(";rport;branch=z9hG4bK1,", ";branch=z9hG4bK1;received=203.0.113.7;rport=6060,")],
    );
    check(|e| _ = e.via_received(ip, None), &[("branch=z9hG4bK1,", "branch=z9hG4bK1;received=203.0.113.7,")]);
    check(|e| _ = e.via_received(None, None), &[]);
    // What stood there is replaced, once the first Via is gone from the received message.
    let popped = edited(|e| _ = e.pop_top(Name::Via));
    let bytes = crlf(&popped);
    let m = Message::parse(&bytes).unwrap();
    let out = Edit::new(&m).via_received(Some("2001:db8::1".parse().unwrap()), None).finish();
    let via = Message::parse(&out).unwrap();
    assert_eq!(via.via().unwrap().received(), Some("2001:db8::1".parse().unwrap()));
    assert_eq!(via.via().unwrap().params.iter().count(), 1);
}

#[test]
fn body_and_its_length() {
    check(
        |e| _ = e.body(Some("text/plain"), b"hi"),
        &[("application/sdp", "text/plain"), ("l: 5", "l: 2"), ("hello", "hi")],
    );
    check(|e| _ = e.body(None, b"longer body"), &[("l: 5", "l: 11"), ("hello", "longer body")]);
    check(|e| _ = e.body(None, b""), &[("c: application/sdp\n", ""), ("l: 5", "l: 0"), ("hello", "")]);
}

#[test]
fn more_edits_than_are_held_inline() {
    let names: Vec<String> = (0..40).map(|n| format!("X-{n}")).collect();
    let bytes = crlf(REQUEST);
    let m = Message::parse(&bytes).unwrap();
    let mut edit = Edit::new(&m);
    for name in &names {
        edit.append_other(name.as_str(), "v");
    }
    edit.replace(Name::MaxForwards, "3").pop_top(Name::Route);
    let lines: String = names.iter().map(|n| format!("{n}: v\n")).collect();
    let expected = REQUEST
        .replace("l: 5\n", &format!("l: 5\n{lines}"))
        .replace(": 70", ": 3")
        .replace("Route: <sip:p1;lr>\nRoute", "Route");
    assert_eq!(String::from_utf8(edit.finish().to_vec()).unwrap().replace("\r\n", "\n"), expected);
}

#[test]
fn a_value_cannot_end_its_line() {
    let out = edited(|e| _ = e.append_other("X-Evil", "a\r\nX-Injected: b"));
    assert!(out.contains("X-Evil: a  X-Injected: b\n"), "{out}");
}

#[test]
fn a_response_passes_too() {
    let bytes = crlf("SIP/2.0 200 OK\nVia: SIP/2.0/UDP a\nVia: SIP/2.0/UDP b\nl: 0\n\n");
    let m = Message::parse(&bytes).unwrap();
    let out = Edit::new(&m).pop_top(Name::Via).set_uri("sip:ignored").finish();
    assert_eq!(&out[..], &crlf("SIP/2.0 200 OK\nVia: SIP/2.0/UDP b\nl: 0\n\n")[..]);
}
