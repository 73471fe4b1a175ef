//! Changes within a call: hold, re-INVITE, UPDATE, glare, INFO.

use super::lab::*;
use super::phones::*;
use contract::records::LegRecord;
use rtp::sdp::Direction;
use sip::Name;
use sip::message::Message;

const SDP: &str = "application/sdp";

fn hold(port: u16) -> String {
    format!("{}a=sendonly\r\n", sdp(port, "0 101").replace("phone 1 1", "phone 1 2"))
}

fn held(port: u16) -> String {
    format!("{}a=recvonly\r\n", sdp(port, "0 101"))
}

/// Hangs up from the caller's side and checks that nothing is left.
#[track_caller]
fn over(mut lab: Lab, a: &mut Phone, b: &Phone) {
    lab.within(a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8006");
    lab.answer(b, &bye, 200, None);
    lab.quiet();
    lab.empty();
}

#[test]
fn hold_goes_to_the_other_side_and_back() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    assert_eq!(field(&reinvite, Name::CSeq), "2 INVITE");
    assert_eq!(body(&reinvite).direction(0), Direction::SendOnly);
    assert_eq!(body(&reinvite).origin.version, 2);
    lab.answer(&b, &reinvite, 200, Some(&held(5000)));
    assert_eq!(field(&lab.request_to("ACK", "8006"), Name::CSeq), "2 ACK");
    let ok = lab.response(200, "INVITE");
    assert_eq!(body(&ok).direction(0), Direction::RecvOnly);
    assert!(Message::parse_stream(&ok).unwrap().header(Name::Contact).is_some());
    // It comes again until its ACK.
    lab.seconds(1);
    lab.response(200, "INVITE");
    lab.within(&mut a, "ACK", None);
    lab.wire.clear();
    lab.seconds(5);
    lab.quiet();
    over(lab, &mut a, &b);
}

#[test]
fn the_callee_may_ask_too() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    lab.within(&mut b, "INVITE", Some((SDP, &hold(5000))));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8005");
    assert_eq!(field(&reinvite, Name::CSeq), "1 INVITE");
    lab.answer(&a, &reinvite, 200, Some(&held(4000)));
    lab.request_to("ACK", "8005");
    lab.response(200, "INVITE");
    lab.within(&mut b, "ACK", None);
    over(lab, &mut a, &b);
}

#[test]
fn records_follow_before_the_answer_is_passed_on() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.hold = Some(|ask| matches!(ask, crate::Ask::Save { .. }));
    lab.within_with(&mut a, "INVITE", Some((SDP, &hold(4000))), |r| r);
    lab.response(100, "INVITE");
    let reinvite = lab.request("INVITE");
    lab.answer(&b, &reinvite, 200, Some(&held(5000)));
    lab.request("ACK");
    lab.quiet();
    lab.release();
    lab.response(200, "INVITE");
    let told = lab.records.iter().filter(|((kind, _), _)| kind == "leg");
    let told: Vec<LegRecord> = told.map(|(_, v)| serde_json::from_slice(v).unwrap()).collect();
    assert!(told.iter().any(|l| l.remote_sdp.contains("sendonly")), "{told:?}");
}

#[test]
fn a_new_target_is_where_requests_go_from_then_on() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    // UPDATE without a description stays on its leg.
    let bytes = {
        a.cseq += 1;
        sip::build::request("UPDATE", &a.target)
            .header(Name::Via, "SIP/2.0/TCP b.balancer.invalid;branch=z9hG4bKmoved")
            .header(Name::From, format!("{};tag={}", a.local, a.tag))
            .header(Name::To, format!("{};tag={}", a.remote, a.peer_tag))
            .header(Name::CallId, &a.call_id)
            .header(Name::CSeq, format!("{} UPDATE", a.cseq))
            .header(Name::MaxForwards, "70")
            .header(Name::Contact, "<sip:moved@127.0.0.1:1234>")
            .finish()
    };
    lab.receive(bytes);
    lab.response(200, "UPDATE");
    lab.quiet();
    let leg = lab.records.iter().filter(|((kind, _), _)| kind == "leg");
    let targets: Vec<_> =
        leg.map(|(_, v)| serde_json::from_slice::<LegRecord>(v).unwrap().dialog.remote_target).collect();
    assert!(targets.contains(&"sip:moved@127.0.0.1:1234".to_owned()));
    let mut b = b;
    lab.within(&mut b, "BYE", None);
    lab.request_to("BYE", "moved");
}

#[test]
fn the_same_offer_again_is_answered_at_once() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.within(&mut a, "INVITE", Some((SDP, &sdp(4000, "0 8 101"))));
    let ok = lab.response(200, "INVITE");
    assert_eq!(body(&ok).origin.version, 1);
    lab.quiet();
    lab.within(&mut a, "ACK", None);
    over(lab, &mut a, &b);
}

#[test]
fn update_with_an_offer_is_carried() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.within(&mut a, "UPDATE", Some((SDP, &hold(4000))));
    let update = lab.request_to("UPDATE", "8006");
    assert_eq!(body(&update).direction(0), Direction::SendOnly);
    lab.answer(&b, &update, 200, Some(&held(5000)));
    assert_eq!(body(&lab.response(200, "UPDATE")).direction(0), Direction::RecvOnly);
    lab.quiet();
    over(lab, &mut a, &b);
}

#[test]
fn a_re_invite_without_an_offer_asks_the_other_side_for_one() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.within(&mut a, "INVITE", None);
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    assert!(Message::parse_stream(&reinvite).unwrap().body().is_empty());
    lab.answer(&b, &reinvite, 200, Some(&sdp(5000, "8 0 101")));
    let ok = lab.response(200, "INVITE");
    assert_eq!(body(&ok).media[0].formats, ["8", "0", "101"]);
    lab.quiet();
    lab.within(&mut a, "ACK", Some((SDP, &sdp(4000, "8 101"))));
    let ack = lab.request_to("ACK", "8006");
    assert_eq!(body(&ack).media[0].formats, ["8", "101"]);
    over(lab, &mut a, &b);
}

#[test]
fn glare_is_491_on_both_sides() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let ours = lab.request_to("INVITE", "8006");
    lab.within(&mut b, "INVITE", Some((SDP, &hold(5000))));
    lab.response(491, "INVITE");
    // The phone says the same of ours, and the asker hears it.
    lab.answer(&b, &ours, 491, None);
    lab.request_to("ACK", "8006");
    lab.response(491, "INVITE");
    lab.quiet();
    // One of them again, later.
    lab.seconds(3);
    lab.within(&mut b, "INVITE", Some((SDP, &hold(5000))));
    lab.response(100, "INVITE");
    let ours = lab.request_to("INVITE", "8005");
    lab.answer(&a, &ours, 200, Some(&held(4000)));
    lab.request_to("ACK", "8005");
    lab.response(200, "INVITE");
    lab.within(&mut b, "ACK", None);
    over(lab, &mut a, &b);
}

#[test]
fn a_second_request_before_the_first_is_answered_is_500() {
    let mut lab = Lab::new();
    let (mut a, _) = lab.talk();
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    let refused = lab.response(500, "INVITE");
    assert!(field(&refused, Name::RetryAfter).parse::<u32>().unwrap() <= 10);
    // Out of order.
    a.cseq -= 3;
    lab.within(&mut a, "INFO", None);
    lab.response(500, "INFO");
}

#[test]
fn a_refused_change_leaves_all_as_it_was() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    let ports = lab.relay.clone();
    for (said, heard) in [(488, 488), (500, 500), (401, 500), (302, 500), (606, 606)] {
        lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
        lab.response(100, "INVITE");
        let reinvite = lab.request_to("INVITE", "8006");
        lab.answer(&b, &reinvite, said, None);
        lab.request_to("ACK", "8006");
        lab.response(heard, "INVITE");
        lab.quiet();
    }
    // No codec that both may use: the other side is not asked.
    lab.within(&mut a, "INVITE", Some((SDP, &sdp(4000, "9"))));
    assert!(field(&lab.response(488, "INVITE"), Name::Warning).starts_with("305 "));
    assert_eq!(lab.relay, ports);
    over(lab, &mut a, &b);
}

#[test]
fn a_lost_dialog_ends_the_call() {
    for status in [481, 408] {
        let mut lab = Lab::new();
        let (mut a, b) = lab.talk();
        lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
        lab.response(100, "INVITE");
        let reinvite = lab.request_to("INVITE", "8006");
        if status == 481 {
            lab.answer(&b, &reinvite, 481, None);
        } else {
            lab.seconds(33);
        }
        let _ = lab.take(|m| m.status().is_some_and(|s| s >= 400), "refusal");
        lab.request_to("BYE", "8005");
        lab.request_to("BYE", "8006");
        lab.wire.clear();
        lab.empty();
    }
}

#[test]
fn a_cancelled_change_is_taken_back() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    for crossing in [false, true] {
        let invite = lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
        a.branch = branch(&invite);
        lab.response(100, "INVITE");
        let reinvite = lab.request_to("INVITE", "8006");
        lab.answer(&b, &reinvite, 100, None);
        lab.cancel(&a, "8006");
        lab.response(200, "CANCEL");
        lab.response(487, "INVITE");
        let cancel = lab.request_to("CANCEL", "8006");
        if crossing {
            // It agreed to what nobody wants any more: the old state is agreed anew.
            lab.answer(&b, &reinvite, 200, Some(&held(5000)));
            lab.request_to("ACK", "8006");
            lab.answer(&b, &cancel, 200, None);
            let again = lab.request_to("INVITE", "8006");
            assert_eq!(body(&again).direction(0), Direction::SendRecv);
            assert!(body(&again).origin.version > body(&reinvite).origin.version);
            lab.answer(&b, &again, 200, Some(&sdp(5000, "0 101")));
            lab.request_to("ACK", "8006");
        } else {
            lab.answer(&b, &cancel, 200, None);
            lab.answer(&b, &reinvite, 487, None);
            lab.request_to("ACK", "8006");
        }
        lab.quiet();
    }
    over(lab, &mut a, &b);
}

#[test]
fn a_bye_in_the_middle_of_a_change() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    lab.within(&mut b, "BYE", None);
    lab.response(200, "BYE");
    lab.response(487, "INVITE");
    let bye = lab.request_to("BYE", "8005");
    lab.answer(&a, &bye, 200, None);
    lab.answer(&b, &reinvite, 487, None);
    lab.request_to("ACK", "8006");
    lab.quiet();
    lab.empty();
}

#[test]
fn an_unprotected_call_is_protected_by_the_next_change_that_the_store_takes() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk_without_the_store();
    for (down, offer, answer, protected) in
        [(true, hold(4000), held(5000), false), (false, sdp(4000, "0"), sdp(5000, "0"), true)]
    {
        lab.store_down = down;
        lab.within(&mut a, "UPDATE", Some((SDP, &offer)));
        let update = lab.request_to("UPDATE", "8006");
        lab.answer(&b, &update, 200, Some(&answer));
        lab.response(200, "UPDATE");
        assert_eq!(lab.core.view()[0]["protected"], protected);
    }
    // Whole: the call, its bridge and both legs, not only the leg that changed.
    let kinds: Vec<&str> = lab.records.keys().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["bridge", "call", "leg", "leg"]);
    assert_eq!(lab.core.counters().unprotected, 1);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request("BYE");
    lab.answer(&b, &bye, 200, None);
    lab.empty();
}

#[test]
fn options_within_a_dialog_is_answered_to_either_side() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    for side in [&mut a, &mut b] {
        lab.within(side, "OPTIONS", None);
        assert!(field(&lab.response(200, "OPTIONS"), Name::Allow).contains("UPDATE"));
        lab.quiet();
    }
    over(lab, &mut a, &b);
}

#[test]
fn info_of_the_callee_goes_to_the_caller() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    lab.within(&mut b, "INFO", Some(("application/dtmf-relay", "Signal=#\r\n")));
    let info = lab.request_to("INFO", "8005");
    assert_eq!(Message::parse_stream(&info).unwrap().body(), b"Signal=#\r\n");
    lab.answer(&a, &info, 200, None);
    lab.response(200, "INFO");
    over(lab, &mut a, &b);
}

#[test]
fn dtmf_by_info_goes_to_the_other_side() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.within_with(&mut a, "INFO", Some(("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n")), |r| {
        r.other("X-A", "1")
    });
    let info = lab.request_to("INFO", "8006");
    let message = Message::parse_stream(&info).unwrap();
    assert_eq!(message.body(), b"Signal=5\r\nDuration=160\r\n");
    assert_eq!((message.header(Name::ContentType), message.other("X-A")), (Some("application/dtmf-relay"), Some("1")));
    lab.answer(&b, &info, 415, None);
    lab.response(415, "INFO");
    for (method, status) in [("REFER", 405), ("SUBSCRIBE", 489), ("MESSAGE", 405), ("PRACK", 405)] {
        lab.within(&mut a, method, None);
        lab.response(status, method);
    }
    over(lab, &mut a, &b);
}
