//! Routers that die: what they owned goes on at the survivors, in whatever state it was.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use crate::Limits;
use crate::core::Core;
use crate::io::Input;
use contract::hop::Inside;
use contract::leg::family;
use contract::peers::{Peer, Peers};
use contract::{ProcessId, Service};
use rtp::sdp::Direction;
use sip::Name;
use std::time::Duration;

#[test]
fn a_call_goes_on_at_the_survivor_whoever_asks_for_what() {
    for callee in [false, true] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        let (a, b) = lab.talk();
        lab.seconds(60);
        assert!(lab.owner(ROUTER, 1));
        lab.gone(HEIR);
        // Nobody has to send anything, and nobody is told anything.
        assert!(lab.owner(HEIR, 2), "{:?}", lab.owners);
        assert_eq!((lab.core.load().calls, lab.core.counters().adopted), (1, 1));
        assert_eq!(lab.claims, [(RELAY, HEIR.to_string())]);
        lab.seconds(10);
        lab.quiet();
        let (mut one, mut two) = if callee { (b, a) } else { (a, b) };
        assert_eq!(lab.holds(&mut one, &two), 2, "the version goes on");
        lab.holds(&mut two, &one);
        lab.within(&mut one, "INFO", Some(("application/dtmf-relay", "Signal=5\r\n")));
        let info = lab.request_to("INFO", &two.name);
        assert!(cseq(&info) > 1000, "{}", cseq(&info));
        lab.answer(&two, &info, 200, None);
        lab.response(200, "INFO");
        assert_eq!(lab.core.view()[0]["protected"], true);
        lab.ends(&mut one, &two);
    }
}

#[test]
fn a_second_router_that_dies_is_survived_too() {
    let mut lab = Lab::new().fleet(&[HEIR, THIRD]);
    let (mut a, b) = lab.talk();
    lab.without(THIRD);
    lab.seconds(60);
    lab.gone(HEIR);
    lab.holds(&mut a, &b);
    lab.peers.0.push(Peer::new(Service::Router, THIRD));
    lab.switch(THIRD);
    lab.input(Input::Tick);
    lab.switch(HEIR);
    lab.seconds(60);
    lab.gone(THIRD);
    assert!(lab.owner(THIRD, 3));
    let reinvite = lab.holds(&mut a, &b);
    assert_eq!(reinvite, 4, "the version goes on");
    lab.ends(&mut a, &b);
}

/// 8005 calls 8006, who answers; the caller has not acknowledged.
fn answered(lab: &mut Lab) -> (Phone, Phone) {
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    (a, b)
}

#[test]
fn where_an_ack_is_pending_the_callee_gets_ours_again_and_the_caller_is_asked() {
    for heard in [true, false] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        let (mut a, b) = answered(&mut lab);
        lab.gone(HEIR);
        let ack = lab.request_to("ACK", "8006");
        assert_eq!(field(&ack, Name::CSeq), "1 ACK");
        // Its ACK went to nobody.
        lab.seconds(2);
        let reinvite = lab.request_to("INVITE", "8005");
        assert_eq!(body(&reinvite).origin.version, 1, "it is told the same again");
        if heard {
            lab.answer(&a, &reinvite, 200, Some(&sdp(4000, "0 8 101")));
            lab.request_to("ACK", "8005");
            lab.quiet();
            lab.seconds(60);
            lab.ends(&mut a, &b);
        } else {
            // The 200 never reached it.
            lab.answer(&a, &reinvite, 481, None);
            lab.request_to("ACK", "8005");
            let bye = lab.request_to("BYE", "8006");
            lab.answer(&b, &bye, 200, None);
            let bye = lab.request_to("BYE", "8005");
            lab.answer(&a, &bye, 481, None);
            lab.quiet();
            lab.empty();
        }
    }
}

#[test]
fn the_answer_in_an_ack_reaches_the_callee_through_the_survivor() {
    for acked in [true, false] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        lab.register("8006");
        let mut a = lab.call_with("8005", "8006", None, |r| r);
        let invite = lab.request("INVITE");
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 8 101")));
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.gone(HEIR);
        lab.quiet();
        if acked {
            lab.within(&mut a, "ACK", Some((SDP, &sdp(4000, "8 101"))));
        } else {
            // It was lost with the router: the caller is offered the same once more.
            lab.seconds(2);
            let reinvite = lab.request_to("INVITE", "8005");
            assert_eq!(body(&reinvite).media[0].formats, ["0", "8", "101"]);
            lab.answer(&a, &reinvite, 200, Some(&sdp(4000, "8 101")));
            lab.request_to("ACK", "8005");
        }
        let ack = lab.request_to("ACK", "8006");
        assert_eq!(
            (field(&ack, Name::CSeq), body(&ack).media[0].formats.clone()),
            ("1 ACK".into(), vec!["8".into(), "101".into()])
        );
        lab.seconds(5);
        lab.quiet();
        lab.ends(&mut a, &b);
    }
}

#[test]
fn a_re_invite_that_was_under_way_is_served_anew() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    let asked = lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let first = lab.request_to("INVITE", "8006");
    // The callee agreed, but nobody heard that; the balancer brings the request to the survivor.
    lab.gone(HEIR);
    assert_eq!(field(&lab.request_to("ACK", "8006"), Name::CSeq), "2 ACK");
    lab.receive(asked);
    lab.response(100, "INVITE");
    let again = lab.request_to("INVITE", "8006");
    assert_eq!(body(&again).direction(0), Direction::SendOnly);
    assert_eq!(body(&again).origin.version, body(&first).origin.version, "the same again");
    assert!(cseq(&again) > 1000);
    lab.answer(&b, &again, 200, Some(&held(5000)));
    lab.request_to("ACK", "8006");
    assert_eq!(body(&lab.response(200, "INVITE")).direction(0), Direction::RecvOnly);
    lab.within(&mut a, "ACK", None);
    lab.seconds(5);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn a_re_invite_that_nobody_asks_for_again_is_taken_back() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let first = lab.request_to("INVITE", "8006");
    lab.gone(HEIR);
    lab.request_to("ACK", "8006");
    lab.seconds(2);
    let back = lab.request_to("INVITE", "8006");
    assert_eq!(body(&back).direction(0), Direction::SendRecv);
    assert!(body(&back).origin.version > body(&first).origin.version);
    lab.answer(&b, &back, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn a_call_on_hold_stays_on_hold_and_is_taken_back() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    lab.answer(&b, &reinvite, 200, Some(&held(5000)));
    lab.request_to("ACK", "8006");
    lab.response(200, "INVITE");
    lab.within(&mut a, "ACK", None);
    lab.seconds(60);
    lab.gone(HEIR);
    lab.seconds(5);
    lab.quiet();
    lab.within(&mut a, "INVITE", Some((SDP, &sdp(4000, "0 101").replace("phone 1 1", "phone 1 3"))));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    assert_eq!((body(&reinvite).direction(0), body(&reinvite).origin.version), (Direction::SendRecv, 3));
    lab.answer(&b, &reinvite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    lab.response(200, "INVITE");
    lab.within(&mut a, "ACK", None);
    lab.ends(&mut a, &b);
}

#[test]
fn session_timers_have_an_owner_again() {
    for refreshed in [true, false] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        lab.register("8006");
        let mut a = lab.call_with("8005", "8006", Some(&sdp(4000, "0")), |r| {
            r.header(Name::Supported, "timer").header(Name::SessionExpires, "600;refresher=uac")
        });
        let invite = lab.request("INVITE");
        let b = lab.callee(&invite);
        lab.answer_with(&b, &invite, 200, Some(&sdp(5000, "0")), |r| {
            r.header(Name::SessionExpires, "600;refresher=uac")
        });
        lab.request("ACK");
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.within(&mut a, "ACK", None);
        lab.seconds(200);
        lab.gone(HEIR);
        lab.seconds(99);
        lab.quiet();
        // Ours is due at half of its interval since the call began, whoever owns it.
        lab.seconds(2);
        let update = lab.request_to("UPDATE", "8006");
        lab.answer_with(&b, &update, 200, None, |r| r.header(Name::SessionExpires, "600;refresher=uac"));
        if refreshed {
            lab.within_with(&mut a, "UPDATE", None, |r| {
                r.header(Name::Supported, "timer").header(Name::SessionExpires, "600;refresher=uac")
            });
            lab.response(200, "UPDATE");
            lab.seconds(280);
            lab.quiet();
            lab.ends(&mut a, &b);
        } else {
            // The caller's is: at 568 s.
            lab.seconds(266);
            lab.quiet();
            lab.seconds(2);
            assert_eq!(lab.ended().1, "the session was not refreshed");
            for phone in [&a, &b] {
                let bye = lab.request_to("BYE", &phone.name);
                lab.answer(phone, &bye, 200, None);
            }
            lab.empty();
        }
    }
}

#[test]
fn a_timer_that_was_due_while_nobody_owned_it_is_spread_over_five_seconds() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer_with(&b, &invite, 200, Some(&sdp(5000, "0")), |r| r.header(Name::SessionExpires, "600;refresher=uac"));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.seconds(290);
    lab.now = lab.now.plus(Duration::from_secs(30));
    lab.gone(HEIR);
    lab.advance(Duration::from_millis(900));
    lab.quiet();
    lab.seconds(5);
    let update = lab.request_to("UPDATE", "8006");
    lab.answer_with(&b, &update, 200, None, |r| r.header(Name::SessionExpires, "600;refresher=uac"));
    lab.ends(&mut a, &b);
}

#[test]
fn two_survivors_divide_the_calls_and_both_sides_of_each_stay_together() {
    let mut lab = Lab::new().fleet(&[HEIR, THIRD]);
    let calls: Vec<_> = (0..24).map(|_| lab.talk()).collect();
    lab.seconds(60);
    lab.gone(HEIR);
    let first = lab.core.load().calls;
    lab.switch(THIRD);
    lab.input(Input::Tick);
    let second = lab.core.load().calls;
    assert_eq!(first + second, 24);
    assert!(first > 4 && second > 4, "{first} {second}");
    assert_eq!((lab.core.load().legs, lab.core.load().bridges), (2 * second, second));
    for ((_, id), owner) in &lab.owners {
        let heir = lab.peers.choose(Service::Router, family(id).as_bytes());
        assert_eq!((Some(owner.process), owner.epoch), (heir, 2));
    }
    // Each is served where the balancers' hash says.
    for (mut a, b) in calls {
        let target = sip::uri::Uri::parse(&a.target).unwrap();
        let leg = contract::leg::LegToken::open(target.user.unwrap(), &lab.keys).unwrap().leg;
        let heir = lab.peers.choose(Service::Router, family(&leg).as_bytes()).unwrap();
        if lab.me != heir {
            lab.switch(heir);
        }
        lab.within(&mut a, "BYE", None);
        lab.response(200, "BYE");
        let bye = lab.request_to("BYE", "8006");
        lab.answer(&b, &bye, 200, None);
        lab.quiet();
    }
    assert!(lab.records.is_empty());
}

#[test]
fn a_request_that_comes_before_its_router_is_known_to_be_gone_waits_for_it() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    // Killed: no connection to it is to be had, but its record stands for a second and a half.
    lab.switch(HEIR);
    lab.within(&mut a, "BYE", None);
    let (to, passed) = lab.wire.pop_front().unwrap();
    assert_eq!(to, ROUTER);
    lab.input(Input::Unsent(&passed));
    lab.seconds(1);
    lab.quiet();
    lab.without(ROUTER);
    lab.input(Input::Tick);
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8006");
    lab.answer(&b, &bye, 200, None);
    lab.quiet();
    lab.empty();
}

#[test]
fn a_request_for_a_leg_that_nobody_has_is_481_and_503_if_the_store_does_not_say() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, _) = lab.talk();
    let names: Vec<_> = lab.records.keys().cloned().collect();
    lab.switch(HEIR);
    lab.store_down = true;
    lab.within(&mut a, "BYE", None);
    let after: u32 = field(&lab.response(503, "BYE"), Name::RetryAfter).parse().unwrap();
    assert!((5..=30).contains(&after));
    lab.store_down = false;
    for name in names {
        lab.records.remove(&name);
        lab.owners.remove(&name);
    }
    lab.within(&mut a, "BYE", None);
    lab.response(481, "BYE");
    lab.within(&mut a, "ACK", None);
    lab.quiet();
    assert_eq!(lab.core.load().indices, 0);
}

#[test]
fn a_router_that_starts_alone_finds_what_was_left() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    lab.without(ROUTER);
    lab.peers.0.push(Peer::new(Service::Router, HEIR));
    lab.others.insert(HEIR, Core::new(Limits::default()));
    lab.switch(HEIR);
    lab.input(Input::Tick);
    // It does not know yet who else is there.
    assert_eq!(lab.core.load().calls, 0);
    lab.seconds(4);
    assert_eq!(lab.core.load().calls, 1);
    lab.ends(&mut a, &b);
}

#[test]
fn a_relay_that_is_lost_after_its_calls_router_is_replaced() {
    const OTHER: ProcessId = ProcessId(0xffff);
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.peers.0.push(Peer::new(Service::Media, OTHER));
    lab.seconds(60);
    lab.gone(HEIR);
    lab.seconds(60);
    lab.quiet();
    lab.silent.insert(RELAY);
    lab.seconds(2);
    for phone in [&a, &b] {
        let reinvite = lab.request_to("INVITE", &phone.name);
        assert_eq!(body(&reinvite).origin.version, 2);
        lab.answer(phone, &reinvite, 200, Some(&sdp(if phone.name == "8005" { 4000 } else { 5000 }, "0 101")));
        lab.request_to("ACK", &phone.name);
    }
    lab.quiet();
    lab.relay.retain(|(at, ..), _| *at != RELAY);
    lab.silent.clear();
    lab.ends(&mut a, &b);
}

#[test]
fn a_call_on_hold_stays_on_hold_over_a_lost_router_and_then_a_lost_relay() {
    const OTHER: ProcessId = ProcessId(0xffff);
    for (by_callee, ask, agree, told) in [
        (false, "sendonly", "recvonly", [Direction::RecvOnly, Direction::SendOnly]),
        (true, "sendonly", "recvonly", [Direction::RecvOnly, Direction::SendOnly]),
        (false, "inactive", "inactive", [Direction::Inactive; 2]),
    ] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        let (a, b) = lab.talk();
        let (mut one, mut two) = if by_callee { (b, a) } else { (a, b) };
        lab.seconds(60);
        lab.gone(HEIR);
        // The change, its answer and its ACK are the new router's.
        let says = |port: u16, version: u32, direction: &str| {
            format!("{}a={direction}\r\n", sdp(port, "0 101").replace("phone 1 1", &format!("phone 1 {version}")))
        };
        lab.within(&mut one, "INVITE", Some((SDP, &says(4000, 2, ask))));
        lab.response(100, "INVITE");
        let reinvite = lab.request_to("INVITE", &two.name);
        assert!(cseq(&reinvite) > 1000 || two.name == "8005", "{}", cseq(&reinvite));
        lab.answer(&two, &reinvite, 200, Some(&says(5000, 2, agree)));
        lab.request_to("ACK", &two.name);
        assert_eq!(body(&lab.response(200, "INVITE")).direction(0), told[0]);
        lab.within(&mut one, "ACK", None);
        lab.seconds(5);
        lab.quiet();
        lab.peers.0.push(Peer::new(Service::Media, OTHER));
        lab.silent.insert(RELAY);
        lab.seconds(2);
        for (phone, port, said, direction) in [(&one, 4000, ask, told[0]), (&two, 5000, agree, told[1])] {
            let reinvite = lab.request_to("INVITE", &phone.name);
            assert_eq!((body(&reinvite).direction(0), body(&reinvite).origin.version), (direction, 3));
            lab.answer(phone, &reinvite, 200, Some(&says(port, 2, said)));
            lab.request_to("ACK", &phone.name);
        }
        lab.quiet();
        lab.relay.retain(|(at, ..), _| *at != RELAY);
        lab.silent.clear();
        lab.seconds(5);
        // It is taken back, by whoever held, and the other may hold too.
        lab.within(&mut one, "INVITE", Some((SDP, &says(4000, 3, "sendrecv"))));
        lab.response(100, "INVITE");
        let reinvite = lab.request_to("INVITE", &two.name);
        assert_eq!(body(&reinvite).direction(0), Direction::SendRecv);
        lab.answer(&two, &reinvite, 200, Some(&says(5000, 3, "sendrecv")));
        lab.request_to("ACK", &two.name);
        lab.response(200, "INVITE");
        lab.within(&mut one, "ACK", None);
        lab.holds(&mut two, &one);
        lab.ends(&mut one, &two);
    }
}

#[test]
fn a_store_that_comes_back_empty_is_filled_again() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(10);
    let before = lab.records.len();
    lab.records.clear();
    lab.owners.clear();
    lab.incarnation += 1;
    lab.seconds(2);
    assert_eq!((lab.records.len(), lab.core.view()[0]["protected"].as_bool()), (before, Some(true)));
    lab.seconds(60);
    lab.gone(HEIR);
    assert!(lab.owner(HEIR, 2));
    lab.ends(&mut a, &b);
}

#[test]
fn a_call_answered_without_the_store_is_protected_when_it_is_back() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk_without_the_store();
    lab.seconds(10);
    assert_eq!(lab.core.view()[0]["protected"], false);
    lab.store_down = false;
    lab.seconds(2);
    assert_eq!((lab.core.view()[0]["protected"].as_bool(), lab.records.len()), (Some(true), 4));
    lab.ends(&mut a, &b);
}

#[test]
fn what_is_left_of_a_call_that_was_ending_is_hung_up() {
    for lost in ["call", "bridge"] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        let (a, b) = lab.talk();
        lab.seconds(60);
        let name = lab.records.keys().find(|(kind, _)| kind == lost).cloned().unwrap();
        lab.records.remove(&name);
        lab.owners.remove(&name);
        lab.gone(HEIR);
        for phone in [&a, &b] {
            let bye = lab.request_to("BYE", &phone.name);
            lab.answer(phone, &bye, 200, None);
        }
        lab.quiet();
        assert!(lab.records.is_empty(), "{lost}: {:?}", lab.records.keys());
        assert_eq!(lab.core.load().calls, 0);
    }
}

#[test]
fn what_another_process_says_of_its_sender_counts_only_from_a_router() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, _) = lab.talk();
    let options =
        lab.within_with(&mut a, "OPTIONS", None, |r| r.other("X-KubePBX-From", format!("{} balancer", CONFERENCE)));
    let (to, _) = lab.wire.pop_front().unwrap();
    assert_eq!(to, BALANCER);
    let mut again = String::from_utf8(options.to_vec()).unwrap();
    again =
        again.replace("z9hG4bKb", "z9hG4bKc").replace(&format!("CSeq: {}", a.cseq), &format!("CSeq: {}", a.cseq + 1));
    lab.input(Input::Message(&Inside { from: HEIR, service: Service::Router, bytes: again.into() }));
    assert_eq!(lab.wire.pop_front().unwrap().0, CONFERENCE);
}

#[test]
fn nobody_is_thought_gone_by_a_router_that_sees_itself_alone_for_a_moment() {
    let mut lab = Lab::new();
    lab.talk();
    let me = lab.peers.clone();
    lab.others.insert(HEIR, Core::new(Limits::default()));
    lab.peers = Peers(vec![Peer::new(Service::Router, HEIR)]);
    lab.switch(HEIR);
    lab.input(Input::Tick);
    lab.seconds(1);
    lab.peers = me;
    lab.peers.0.push(Peer::new(Service::Router, HEIR));
    lab.seconds(20);
    assert_eq!(lab.core.load().calls, 0);
    assert!(lab.owner(ROUTER, 1));
}
