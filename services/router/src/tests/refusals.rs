//! What is refused before the dialplan runs, and requests that belong to nothing.

use super::lab::*;
use super::phones::*;
use crate::Limits;
use bytes::Bytes;
use contract::config::IdentifyBy;
use contract::hop::Hop;
use sip::Name;
use sip::build::{self, Request};
use sip::digest::{Algorithm, Challenge};
use sip::message::Message;

fn same(r: Request) -> Request {
    r
}

/// An INVITE without credentials, its answer.
#[track_caller]
fn first(lab: &mut Lab, name: &str, edit: impl FnOnce(Request) -> Request) -> Bytes {
    let phone = lab.phone(name, "8006");
    let invite = lab.invite_bytes(&phone, "8006", Some(&sdp(4000, "0")), edit);
    lab.receive(invite);
    lab.take(|m| m.status().is_some_and(|s| s != 100), "answer")
}

fn status(bytes: &Bytes) -> u16 {
    Message::parse_stream(bytes).unwrap().status().unwrap()
}

/// An INVITE from `name` with these credentials, its answer.
#[track_caller]
fn with_password(lab: &mut Lab, name: &str, user: &str, password: &str) -> Bytes {
    let challenge = first(lab, name, same);
    let credentials = Lab::credentials(&challenge, user, password, "8006");
    first(lab, name, |r| r.header(Name::Authorization, credentials))
}

#[test]
fn a_wrong_password_is_challenged_again_and_again() {
    let mut lab = Lab::new();
    lab.register("8006");
    for _ in 0..5 {
        let answer = with_password(&mut lab, "8005", "8005", "guess");
        assert_eq!(status(&answer), 401);
        assert!(!field(&answer, Name::WwwAuthenticate).contains("stale"));
    }
    // Who does not exist looks the same as who does.
    for (name, user) in [("8999", "8999"), ("8005", "nobody"), ("8999", "8005")] {
        assert_eq!(status(&with_password(&mut lab, name, user, "guess")), 401, "{name} {user}");
    }
    assert_eq!(lab.core.load().calls, 0);
    lab.quiet();
    lab.empty();
}

#[test]
fn both_algorithms_are_taken_and_the_offer_is_ours_to_order() {
    let limits = Limits { algorithms: vec![Algorithm::Sha256, Algorithm::Md5], ..Limits::default() };
    let mut lab = Lab::with(limits, steps(&[("_80XX", vec![dial(&["PJSIP/${EXTEN}"], None)])]));
    let answer = first(&mut lab, "8005", same);
    let message = Message::parse_stream(&answer).unwrap();
    let offered: Vec<_> = message.headers(Name::WwwAuthenticate).map(|v| Challenge::parse(v).unwrap()).collect();
    assert_eq!(offered.iter().map(|c| c.algorithm).collect::<Vec<_>>(), [Algorithm::Sha256, Algorithm::Md5]);
    for challenge in offered {
        // Each by a nonce count of its own nonce.
        let mut challenge = challenge;
        challenge.nonce =
            Challenge::parse(&field(&first(&mut lab, "8005", same), Name::WwwAuthenticate)).unwrap().nonce;
        let credentials = digest_answer(&challenge, "8005", "secret8005", &format!("sip:8006@{EDGE}"));
        let answer = first(&mut lab, "8005", |r| r.header(Name::Authorization, credentials));
        assert_eq!(status(&answer), 480, "{:?}", challenge.algorithm);
    }
}

#[test]
fn a_spoofed_from_is_forbidden() {
    let mut lab = Lab::new();
    lab.register("8006");
    // 8006's own password, 8005's name.
    assert_eq!(status(&with_password(&mut lab, "8005", "8006", "secret8006")), 403);
    // A name that nobody has.
    assert_eq!(status(&with_password(&mut lab, "7777", "8006", "secret8006")), 403);
    assert_eq!(lab.core.counters().spoofed, 2);
    assert_eq!(lab.core.load().calls, 0);
    // By its digest username an endpoint may be found whatever From says, if it says so.
    lab.put(contract::config::EndpointEntry {
        identify_by: vec![IdentifyBy::AuthUsername],
        ..endpoint("8007", &["ulaw"])
    });
    let challenge = first(&mut lab, "7777", same);
    let credentials = Lab::credentials(&challenge, "8007", "secret8007", "8006");
    let phone = lab.phone("7777", "8006");
    let invite =
        lab.invite_bytes(&phone, "8006", Some(&sdp(4000, "0")), |r| r.header(Name::Authorization, credentials));
    lab.receive(invite);
    lab.response(100, "INVITE");
    assert!(field(&lab.request("INVITE"), Name::From).starts_with("<sip:8007@"), "its own name goes on");
}

#[test]
fn a_captured_answer_serves_nobody() {
    let mut lab = Lab::new();
    let challenge = first(&mut lab, "8005", same);
    let credentials = Lab::credentials(&challenge, "8005", "secret8005", "8006");
    let again = credentials.clone();
    assert_eq!(status(&first(&mut lab, "8005", |r| r.header(Name::Authorization, credentials))), 480);
    let replayed = first(&mut lab, "8005", |r| r.header(Name::Authorization, again));
    assert_eq!(status(&replayed), 401);
    assert!(field(&replayed, Name::WwwAuthenticate).contains("stale=true"));
    // Too old.
    let challenge = first(&mut lab, "8005", same);
    let credentials = Lab::credentials(&challenge, "8005", "secret8005", "8006");
    lab.seconds(301);
    let old = first(&mut lab, "8005", |r| r.header(Name::Authorization, credentials));
    assert!(field(&old, Name::WwwAuthenticate).contains("stale=true"));
    // Forged: not ours, however right the password.
    let mut forged = Challenge::parse(&field(&challenge, Name::WwwAuthenticate)).unwrap();
    forged.nonce = forged.nonce.chars().rev().collect();
    let credentials = digest_answer(&forged, "8005", "secret8005", "sip:x@y");
    let forged = first(&mut lab, "8005", |r| r.header(Name::Authorization, credentials));
    assert_eq!(status(&forged), 401);
    assert!(!field(&forged, Name::WwwAuthenticate).contains("stale"));
    lab.empty();
}

#[test]
fn a_trunk_is_known_by_its_network_and_only_from_there() {
    let mut lab = Lab::new();
    lab.register("8006");
    let trunk = contract::config::EndpointEntry {
        auth: None,
        identify_by: vec![IdentifyBy::Ip],
        networks: vec!["127.0.0.1/32".parse().unwrap()],
        ..endpoint("trunk", &["ulaw"])
    };
    lab.put(trunk);
    let phone = lab.phone("5550100", "8006");
    let mut edge = phone.clone();
    edge.name = "7000".into();
    edge.local = format!("\"Somebody\" <sip:+15550100@{EDGE}>");
    let invite =
        lab.invite_bytes(&edge, "8006", Some(&sdp(4000, "0")), |r| r.header(Name::PAssertedIdentity, "<sip:+1@x>"));
    lab.receive(invite);
    lab.response(100, "INVITE");
    let invite = lab.request("INVITE");
    assert!(field(&invite, Name::From).starts_with("\"Somebody\" <sip:+15550100@"), "a trunk speaks for its callers");
    assert_eq!(field(&invite, Name::PAssertedIdentity), "");
    // A trusted trunk's assertion passes.
    let mut trusted = lab.phone("7001", "8006");
    trusted.local = edge.local.clone();
    let hop = Hop { flow: lab.flow("7001"), trusted: true }.seal(&lab.keys, &trusted.call_id, "1 INVITE");
    let bytes = lab.invite_bytes(&trusted, "8006", Some(&sdp(4000, "0")), same);
    let message = Message::parse_stream(&bytes).unwrap();
    let mut edit = sip::edit::Edit::new(&message);
    edit.remove_all_other(contract::hop::HEADER).append_other(contract::hop::HEADER, hop);
    edit.append(Name::PAssertedIdentity, "<sip:+1@x>");
    let bytes = edit.finish();
    lab.receive(bytes);
    assert_eq!(field(&lab.request("INVITE"), Name::PAssertedIdentity), "<sip:+1@x>");
    // The same from a process that is no balancer, or with a hop made for another request: nobody's.
    let other = lab.phone("7000", "8006");
    let bytes = lab.invite_bytes(&other, "8006", None, same);
    lab.wire.clear();
    lab.receive_from(CONFERENCE, contract::Service::Conference, bytes.clone());
    lab.response(401, "INVITE");
    let replaced = String::from_utf8(bytes.to_vec()).unwrap().replace(&other.call_id, "another-call");
    lab.receive(replaced.into());
    lab.response(401, "INVITE");
}

#[test]
fn what_an_invite_must_be() {
    let mut lab = Lab::new();
    lab.register("8006");
    let code = |lab: &mut Lab, edit: &dyn Fn(Request) -> Request| {
        let challenge = first(lab, "8005", same);
        let credentials = Lab::credentials(&challenge, "8005", "secret8005", "8006");
        let answer = first(lab, "8005", |r| edit(r.header(Name::Authorization, credentials)));
        lab.wire.clear();
        answer
    };
    assert_eq!(status(&first(&mut lab, "8005", |r| r.header(Name::MaxForwards, "0"))), 483);
    let answer = code(&mut lab, &|r| r.header(Name::Require, "timer, 100rel, foo"));
    assert_eq!((status(&answer), field(&answer, Name::Unsupported)), (420, "100rel, foo".into()));
    let answer = code(&mut lab, &|r| r.header(Name::Supported, "timer").header(Name::SessionExpires, "60"));
    assert_eq!((status(&answer), field(&answer, Name::MinSE)), (422, "90".into()));
    assert_eq!(lab.core.load().calls, 0);

    // Bodies.
    for (kind, text, want) in [("text/plain", "hello", 415), ("application/sdp", "hello", 400)] {
        let challenge = first(&mut lab, "8005", same);
        let credentials = Lab::credentials(&challenge, "8005", "secret8005", "8006");
        let phone = lab.phone("8005", "8006");
        let bytes = lab.invite_bytes(&phone, "8006", Some(text), |r| r.header(Name::Authorization, credentials));
        let bytes = String::from_utf8(bytes.to_vec()).unwrap().replace("application/sdp", kind);
        lab.receive(bytes.into());
        lab.response(want, "INVITE");
    }
    lab.empty();
}

#[test]
fn a_call_that_comes_back_is_a_loop() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    // Our own INVITE, sent back by whatever it reached.
    let message = Message::parse_stream(&invite).unwrap();
    let mut edit = sip::edit::Edit::new(&message);
    edit.insert_top(Name::Via, "SIP/2.0/TCP x.balancer.invalid;branch=z9hG4bKcameback").set_uri("sip:8006@192.0.2.1");
    let looped = edit.finish();
    lab.receive(looped);
    lab.response(482, "INVITE");
    // A new dialog of a B2BUA on the way that kept our Session-ID.
    let session = field(&invite, Name::SessionId);
    assert_eq!(status(&first(&mut lab, "8005", |r| r.header(Name::SessionId, session))), 482);
    assert_eq!(lab.core.load().calls, 1);
}

#[test]
fn the_same_request_on_two_ways_is_served_once() {
    let mut lab = Lab::new();
    lab.register("8006");
    let a = lab.call("8005", "8006");
    lab.request("INVITE");
    let bytes = lab.invite_bytes(&a, "8006", Some(&sdp(4000, "0")), same);
    lab.receive(bytes);
    lab.response(482, "INVITE");
}

#[test]
fn requests_that_belong_to_nothing() {
    let mut lab = Lab::new();
    let (a, _) = lab.talk();
    let ask = |lab: &mut Lab, method: &str, tag: &str| {
        let n = lab.unique("x");
        let request = build::request(method, "sip:8006@192.0.2.1")
            .header(Name::Via, format!("SIP/2.0/TCP b.balancer.invalid;branch=z9hG4bK{n}"))
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("<sip:8005@x>;tag={}", a.tag))
            .header(Name::To, format!("<sip:8006@x>{tag}"))
            .header(Name::CallId, &a.call_id)
            .header(Name::CSeq, format!("77 {method}"))
            .header(Name::Contact, "<sip:8005@127.0.0.1:8005>")
            .header(Name::Event, "presence")
            .finish();
        lab.receive(request);
        let answer = lab.take(|m| m.status().is_some(), "answer");
        lab.quiet();
        answer
    };
    for (method, want) in [
        ("REGISTER", 405),
        ("SUBSCRIBE", 489),
        ("OPTIONS", 200),
        ("BYE", 481),
        ("INFO", 481),
        ("UPDATE", 481),
        ("MESSAGE", 405),
        ("PUBLISH", 405),
        ("NOTIFY", 405),
        ("REFER", 405),
        ("FOO", 405),
    ] {
        let answer = ask(&mut lab, method, "");
        assert_eq!(status(&answer), want, "{method}");
        if matches!(want, 405 | 200) {
            assert!(field(&answer, Name::Allow).contains("INVITE"), "{method}");
        }
    }
    // A known Call-ID and From tag do not make a dialog without our tag.
    for method in ["BYE", "INVITE", "INFO", "OPTIONS"] {
        assert_eq!(status(&ask(&mut lab, method, ";tag=guessed")), 481, "{method}");
    }
    // Nor does our tag with another's.
    let mut stranger = a.clone();
    stranger.tag = "stranger".into();
    lab.within(&mut stranger, "BYE", None);
    lab.response(481, "BYE");
    assert_eq!(lab.core.load().calls, 1);
}

#[test]
fn no_room_no_store_no_new_calls() {
    let retry = |bytes: &Bytes| {
        assert!((5..=30).contains(&field(bytes, Name::RetryAfter).parse::<u32>().unwrap()));
    };
    let limits = Limits { max_calls: 1, ..Limits::default() };
    let mut lab = Lab::with(limits, steps(&[("_80XX", vec![dial(&["PJSIP/${EXTEN}"], None)])]));
    lab.register("8006");
    let a = lab.call("8005", "8006");
    lab.request("INVITE");
    let full = first(&mut lab, "8005", same);
    assert_eq!((status(&full), lab.core.counters().overflow), (503, 1));
    retry(&full);
    lab.cancel(&a, "8006");
    lab.wire.clear();

    lab.draining = true;
    retry(&first(&mut lab, "8005", same));
    lab.draining = false;

    let challenge = first(&mut lab, "8005", same);
    let credentials = Lab::credentials(&challenge, "8005", "secret8005", "8006");
    lab.store_down = true;
    let down = first(&mut lab, "8005", |r| r.header(Name::Authorization, credentials));
    assert_eq!(status(&down), 503);
    retry(&down);
    // It goes away between the nonce and the bindings.
    lab.store_down = false;
    lab.hold = Some(|ask| matches!(ask, crate::Ask::Load { .. }));
    lab.call("8005", "8006");
    lab.store_down = true;
    lab.release();
    retry(&lab.response(503, "INVITE"));
    lab.store_down = false;
    lab.wire.clear();
    lab.empty();
}

#[test]
fn noise_is_dropped() {
    let mut lab = Lab::new();
    for noise in [
        "",
        "\r\n\r\n",
        "hello",
        "INVITE\r\n\r\n",
        "SIP/2.0 200 OK\r\n\r\n",
        "ACK sip:a@b SIP/2.0\r\nContent-Length: 0\r\n\r\n",
    ] {
        lab.receive(Bytes::from_static(noise.as_bytes()));
    }
    lab.quiet();
    lab.empty();
}
