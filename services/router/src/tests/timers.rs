//! What time does: retransmission of our 2xx, missing ACKs, session timers, silent media.

use super::lab::*;
use super::phones::*;
use crate::io::Input;
use contract::media::{MediaEvent, MediaEventKind};
use sip::Name;
use sip::message::Message;
use std::time::Duration;

#[test]
fn our_2xx_comes_again_until_its_ack() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    for millis in [500, 1000, 2000, 4000, 4000] {
        lab.advance(Duration::from_millis(millis - 1));
        lab.quiet();
        lab.advance(Duration::from_millis(1));
        assert_eq!(lab.response(200, "INVITE"), ok);
    }
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.seconds(30);
    lab.quiet();
    assert_eq!(lab.core.load().calls, 1);
}

#[test]
fn no_ack_in_32_seconds_ends_both_legs() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.seconds(31);
    assert_eq!(lab.core.load().calls, 1);
    lab.seconds(1);
    let bye = lab.request_to("BYE", "8006");
    lab.answer(&b, &bye, 200, None);
    lab.request_to("BYE", "8005");
    assert_eq!(lab.ended(), (102, "no ACK from the caller".into()));
    lab.wire.clear();
    lab.empty();
}

#[test]
fn bye_waits_for_the_callers_ack() {
    for acknowledged in [true, false] {
        let mut lab = Lab::new();
        lab.register("8006");
        let mut a = lab.call("8005", "8006");
        let invite = lab.request("INVITE");
        let mut b = lab.callee(&invite);
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        lab.request("ACK");
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.within(&mut b, "BYE", None);
        lab.response(200, "BYE");
        lab.quiet();
        if acknowledged {
            lab.within(&mut a, "ACK", None);
        } else {
            lab.seconds(33);
        }
        let bye = lab.request_to("BYE", "8005");
        lab.answer(&a, &bye, 200, None);
        lab.wire.clear();
        lab.empty();
    }
}

#[test]
fn a_callee_that_lost_our_ack_gets_it_again() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    let ack = lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    for seconds in [1, 2, 40] {
        lab.seconds(seconds);
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        assert_eq!(lab.request("ACK"), ack, "also when its transaction is long gone");
        lab.quiet();
    }
}

#[test]
fn silent_media_ends_the_call_and_says_so() {
    let mut lab = Lab::new();
    let (a, b) = lab.talk();
    lab.media_timeout();
    for (name, phone) in [("8005", &a), ("8006", &b)] {
        let bye = lab.request_to("BYE", name);
        assert!(field(&bye, Name::Reason).starts_with("Q.850;cause=102"));
        lab.answer(phone, &bye, 200, None);
    }
    assert_eq!(lab.ended(), (102, "neither side sent media".into()));
    assert_eq!(lab.core.counters().media_timeouts, 1);
    // About a call that is nobody's.
    let event = MediaEvent { seq: 1, call: "x".into(), tag: None, kind: MediaEventKind::SessionTimeout };
    lab.input(Input::Media { relay: RELAY, event: &event });
    lab.quiet();
    lab.empty();
}

#[test]
fn a_caller_hears_every_minute_that_it_rings() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.response(180, "INVITE");
    for _ in 0..9 {
        lab.seconds(60);
        lab.response(180, "INVITE");
        lab.quiet();
    }
    // A dial without a timeout has an end all the same.
    lab.seconds(60);
    lab.response(480, "INVITE");
    lab.wire.clear();
    lab.empty();
}

/// The callee asks that we refresh.
fn refreshed_by_us(update: bool) -> (Lab, Phone, Phone) {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    let allow = if update { "INVITE, UPDATE" } else { "INVITE" };
    let message = Message::parse_stream(&invite).unwrap();
    let response = sip::build::response(&message, 200, None, Some(&b.tag))
        .header(Name::Contact, "<sip:8006@127.0.0.1:8006>")
        .header(Name::Allow, allow)
        .header(Name::Require, "timer")
        .header(Name::SessionExpires, "200;refresher=uac")
        .header(Name::RecordRoute, field(&invite, Name::Route))
        .body("application/sdp", sdp(5000, "0"))
        .finish();
    lab.receive(response);
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    assert_eq!(field(&ok, Name::SessionExpires), "", "the caller has no timer");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    (lab, a, b)
}

#[test]
fn a_session_is_refreshed_by_update_or_re_invite() {
    for update in [true, false] {
        let (mut lab, _, b) = refreshed_by_us(update);
        let method = if update { "UPDATE" } else { "INVITE" };
        for turn in 0..3 {
            lab.seconds(99);
            lab.quiet();
            lab.seconds(1);
            let refresh = lab.request_to(method, "8006");
            assert_eq!(field(&refresh, Name::SessionExpires), "200;refresher=uac");
            assert_eq!(field(&refresh, Name::CSeq), format!("{} {method}", turn + 2));
            if update {
                assert!(Message::parse_stream(&refresh).unwrap().body().is_empty());
            } else {
                assert_eq!(body(&refresh).origin.version, 1, "nothing changed");
            }
            let message = Message::parse_stream(&refresh).unwrap();
            let response = sip::build::response(&message, 200, None, None)
                .header(Name::Contact, "<sip:8006@127.0.0.1:8006>")
                .header(Name::Require, "timer")
                .header(Name::SessionExpires, "200;refresher=uac");
            let response = if update { response } else { response.body("application/sdp", sdp(5000, "0")) };
            lab.receive(response.finish());
            if !update {
                lab.request("ACK");
            }
            lab.quiet();
        }
        // It has lost the dialog.
        lab.seconds(100);
        let refresh = lab.request_to(method, "8006");
        lab.answer(&b, &refresh, 481, None);
        if !update {
            lab.request_to("ACK", "8006");
        }
        lab.request_to("BYE", "8005");
        lab.request_to("BYE", "8006");
        lab.empty();
    }
}

#[test]
fn a_refused_refresh_is_tried_again() {
    let (mut lab, _, b) = refreshed_by_us(true);
    lab.seconds(100);
    let refresh = lab.request("UPDATE");
    lab.answer_with(&b, &refresh, 422, None, |r| r.header(Name::MinSE, "400"));
    lab.seconds(5);
    let refresh = lab.request("UPDATE");
    assert_eq!(
        (field(&refresh, Name::SessionExpires), field(&refresh, Name::MinSE)),
        ("400;refresher=uac".into(), "400".into())
    );
    lab.answer(&b, &refresh, 500, None);
    lab.seconds(50);
    lab.request("UPDATE");
}

#[test]
fn a_session_that_they_do_not_refresh_ends() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call_with("8005", "8006", Some(&sdp(4000, "0")), |r| {
        r.header(Name::Supported, "timer").header(Name::SessionExpires, "180;refresher=uac")
    });
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    assert_eq!(field(&ok, Name::SessionExpires), "180;refresher=uac");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    // Refreshed once, by an UPDATE that changes nothing and stays on this leg.
    lab.seconds(140);
    lab.within_with(&mut a, "UPDATE", None, |r| {
        r.header(Name::Supported, "timer").header(Name::SessionExpires, "180;refresher=uac")
    });
    let refreshed = lab.response(200, "UPDATE");
    assert_eq!(field(&refreshed, Name::SessionExpires), "180;refresher=uac");
    lab.quiet();
    lab.seconds(147);
    lab.quiet();
    lab.seconds(1);
    lab.request_to("BYE", "8005");
    lab.request_to("BYE", "8006");
    assert_eq!(lab.ended(), (102, "the session was not refreshed".into()));
    lab.empty();
}

#[test]
fn a_callee_that_wants_a_longer_interval_is_asked_again() {
    let limits = crate::Limits { session_interval: Duration::from_secs(120), ..crate::Limits::default() };
    let mut lab = Lab::with(limits, steps(&[("_80XX", vec![dial(&["PJSIP/${EXTEN}"], None)])]));
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    assert_eq!(field(&invite, Name::SessionExpires), "120");
    let b = lab.callee(&invite);
    lab.answer_with(&b, &invite, 422, None, |r| r.header(Name::MinSE, "600"));
    lab.request("ACK");
    let invite = lab.request("INVITE");
    assert_eq!((field(&invite, Name::SessionExpires), field(&invite, Name::CSeq)), ("600".into(), "2 INVITE".into()));
    // Once only for the same wish.
    lab.answer_with(&b, &invite, 422, None, |r| r.header(Name::MinSE, "600"));
    lab.request("ACK");
    lab.response(500, "INVITE");
    lab.empty();
}
