//! Balancers that are gone, or have no way to a phone any more, while calls are up.

use super::answers::noting;
use super::fleet::{SDP, held, hold};
use super::lab::*;
use super::phones::*;
use crate::io::Input;
use bytes::Bytes;
use contract::events::CallEventKind;
use contract::peers::Peer;
use contract::{ProcessId, Service, Transport};
use sip::Name;
use std::time::Duration;

const OTHER: ProcessId = ProcessId(0xbbbc);

/// Two phones that talk, by the balancer that their flows name; there is another.
fn talk() -> (Lab, Phone, Phone) {
    let mut lab = Lab::new();
    lab.peers.0.push(Peer::new(Service::Balancer, OTHER));
    let (a, b) = lab.talk();
    (lab, a, b)
}

/// Where the next request of this method goes, and it.
#[track_caller]
fn next(lab: &mut Lab, method: &str) -> (ProcessId, Bytes) {
    let at = lab.wire.iter().position(|(_, b)| b.starts_with(method.as_bytes()));
    let Some(at) = at else { panic!("no {method}; on the wire: {:#?}", lab.lines()) };
    lab.wire.remove(at).unwrap()
}

/// 8005 holds, and what it says for 8006 goes to the balancer of 8006's flow.
fn holds(lab: &mut Lab, a: &mut Phone) -> Bytes {
    lab.within(a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let (to, invite) = next(lab, "INVITE");
    assert_eq!(to, BALANCER);
    invite
}

/// It is the same request in another transaction, and the change goes on.
fn goes_on(lab: &mut Lab, a: &mut Phone, b: &Phone, first: &Bytes, again: &Bytes) {
    assert_eq!(field(first, Name::CSeq), field(again, Name::CSeq));
    assert_ne!(branch(first), branch(again));
    lab.answer(b, again, 200, Some(&held(5000)));
    lab.request_to("ACK", "8006");
    lab.response(200, "INVITE");
    lab.within(a, "ACK", None);
    lab.quiet();
    assert_eq!(lab.core.load().calls, 1);
}

#[test]
fn what_a_balancer_did_not_take_leaves_by_another() {
    let (mut lab, mut a, b) = talk();
    let first = holds(&mut lab, &mut a);
    lab.without(BALANCER);
    lab.input(Input::Unsent(&first));
    let (to, again) = next(&mut lab, "INVITE");
    assert_eq!(to, OTHER);
    goes_on(&mut lab, &mut a, &b, &first, &again);
    lab.ends(&mut a, &b);
}

#[test]
fn where_no_balancer_has_the_way_it_is_tried_again_until_one_has() {
    let (mut lab, mut a, b) = talk();
    let first = holds(&mut lab, &mut a);
    lab.answer(&b, &first, 430, None);
    lab.request("ACK");
    let (to, second) = next(&mut lab, "INVITE");
    assert_eq!(to, OTHER);
    lab.answer(&b, &second, 430, None);
    lab.request("ACK");
    lab.quiet();
    lab.advance(Duration::from_millis(250));
    // The address came to the other node, and its balancer is asked in its turn.
    let (to, third) = next(&mut lab, "INVITE");
    assert_eq!(to, BALANCER);
    lab.answer(&b, &third, 430, None);
    lab.request("ACK");
    let (to, fourth) = next(&mut lab, "INVITE");
    assert_eq!(to, OTHER);
    goes_on(&mut lab, &mut a, &b, &first, &fourth);
    assert_eq!(lab.core.counters().astray, 3);
    lab.ends(&mut a, &b);
}

#[test]
fn a_way_that_does_not_come_back_is_given_up_and_the_call_goes_on() {
    let (mut lab, mut a, b) = talk();
    let mut invite = holds(&mut lab, &mut a);
    let began = lab.now.mono;
    let asked = |lab: &Lab| lab.lines().iter().any(|line| line.starts_with("INVITE"));
    let given_up = |lab: &Lab| lab.lines().iter().any(|line| line.starts_with("SIP/2.0 500"));
    while !given_up(&lab) {
        lab.answer(&b, &invite, 430, None);
        lab.request("ACK");
        if !asked(&lab) && !given_up(&lab) {
            lab.advance(Duration::from_millis(250));
        }
        if asked(&lab) {
            invite = next(&mut lab, "INVITE").1;
        }
    }
    let tried = lab.now.mono - began;
    assert!(tried >= Duration::from_secs(10) && tried < Duration::from_secs(11), "{tried:?}");
    lab.response(500, "INVITE");
    lab.within(&mut a, "ACK", None);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn an_ack_leaves_by_the_balancer_that_brought_the_answer() {
    let (mut lab, mut a, b) = talk();
    let first = holds(&mut lab, &mut a);
    lab.answer(&b, &first, 430, None);
    lab.request("ACK");
    let (to, again) = next(&mut lab, "INVITE");
    assert_eq!(to, OTHER);
    lab.edge = OTHER;
    let ok = lab.answer(&b, &again, 200, Some(&held(5000)));
    assert_eq!(next(&mut lab, "ACK").0, OTHER, "the one that its flow names has no way there");
    // It was lost, and the phone says it again.
    lab.receive(ok);
    assert_eq!(next(&mut lab, "ACK").0, OTHER);
    lab.edge = BALANCER;
    lab.response(200, "INVITE");
    lab.within(&mut a, "ACK", None);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn where_a_balancer_is_gone_the_one_at_its_address_is_asked_first() {
    let (mut lab, mut a, b) = talk();
    let address = EDGE.parse::<std::net::SocketAddr>().unwrap().ip();
    for n in 0..20 {
        lab.peers
            .0
            .push(Peer { address: format!("198.51.100.{n}:7000"), ..Peer::new(Service::Balancer, ProcessId(n)) });
    }
    let there = ProcessId(0xcccc);
    lab.peers.0.push(Peer { address: format!("{address}:7000"), ..Peer::new(Service::Balancer, there) });
    lab.without(BALANCER);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let (to, bye) = next(&mut lab, "BYE");
    assert_eq!(to, there);
    lab.answer(&b, &bye, 200, None);
    lab.quiet();
}

#[test]
fn a_bye_leaves_by_another_balancer_too() {
    let (mut lab, mut a, b) = talk();
    lab.without(BALANCER);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let (to, bye) = next(&mut lab, "BYE");
    assert_eq!(to, OTHER, "whose record is gone is not asked");
    lab.input(Input::Unsent(&bye));
    lab.quiet();
    lab.advance(Duration::from_millis(250));
    let (_, again) = next(&mut lab, "BYE");
    lab.answer(&b, &again, 200, None);
    lab.empty();
}

#[test]
fn what_was_given_to_a_balancer_that_is_gone_since_is_sent_again() {
    let (mut lab, mut a, b) = talk();
    let first = holds(&mut lab, &mut a);
    lab.without(BALANCER);
    lab.seconds(1);
    let (to, again) = next(&mut lab, "INVITE");
    assert_eq!(to, OTHER);
    goes_on(&mut lab, &mut a, &b, &first, &again);
    // But not what it is known to have passed on: the answer finds its own way.
    lab.peers.0.push(Peer::new(Service::Balancer, BALANCER));
    lab.seconds(1);
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4002))));
    lab.response(100, "INVITE");
    let (to, second) = next(&mut lab, "INVITE");
    assert_eq!(to, BALANCER);
    lab.answer(&b, &second, 100, None);
    lab.without(BALANCER);
    lab.seconds(1);
    lab.quiet();
    lab.answer(&b, &second, 200, Some(&held(5000)));
    lab.request_to("ACK", "8006");
    lab.response(200, "INVITE");
}

#[test]
fn an_invite_that_makes_a_call_waits_for_the_address_but_not_for_long() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let mut invite = next(&mut lab, "INVITE").1;
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 430, None);
    lab.request("ACK");
    lab.quiet();
    lab.advance(Duration::from_millis(250));
    invite = next(&mut lab, "INVITE").1;
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.ends(&mut a, &b);

    let mut lab = Lab::plan(noting());
    lab.register("8006");
    lab.call("8005", "8006");
    let began = lab.now.mono;
    while let Some(at) = lab.wire.iter().position(|(_, bytes)| bytes.starts_with(b"INVITE")) {
        let invite = lab.wire.remove(at).unwrap().1;
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 430, None);
        lab.request("ACK");
        lab.advance(Duration::from_millis(250));
    }
    let tried = lab.now.mono - began;
    assert!(tried >= Duration::from_secs(5) && tried < Duration::from_secs(6), "{tried:?}");
    lab.response(480, "INVITE");
    lab.quiet();
    let noted = lab.events.iter().filter_map(|event| match &event.kind {
        CallEventKind::Step { app, data, .. } => (app == "noOp").then_some(data.as_str()),
        _ => None,
    });
    assert_eq!(noted.collect::<Vec<_>>(), ["CHANUNAVAIL/20"], "the callee is absent");
}

#[test]
fn a_connection_that_is_gone_is_not_waited_for() {
    let mut lab = Lab::plan(noting());
    lab.transport = Transport::Tcp;
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = next(&mut lab, "INVITE").1;
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 430, None);
    lab.request("ACK");
    lab.response(480, "INVITE");
    lab.empty();
}

#[test]
fn a_cancel_waits_for_what_the_next_balancer_says() {
    let mut lab = Lab::new();
    lab.peers.0.push(Peer::new(Service::Balancer, OTHER));
    lab.register("8006");
    let a = lab.call("8005", "8006");
    let first = next(&mut lab, "INVITE").1;
    let b = lab.callee(&first);
    lab.answer(&b, &first, 100, None);
    lab.answer(&b, &first, 430, None);
    lab.request("ACK");
    let second = next(&mut lab, "INVITE").1;
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    lab.quiet();
    let b = lab.callee(&second);
    lab.answer(&b, &second, 180, None);
    let cancel = lab.request("CANCEL");
    assert_eq!(branch(&cancel), branch(&second));
    lab.answer(&b, &cancel, 200, None);
    lab.answer(&b, &second, 487, None);
    lab.request("ACK");
    lab.empty();
}

#[test]
fn an_invite_that_waits_is_given_up_with_its_caller() {
    let mut lab = Lab::new();
    lab.register("8006");
    let a = lab.call("8005", "8006");
    let invite = next(&mut lab, "INVITE").1;
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 430, None);
    lab.request("ACK");
    lab.quiet();
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    lab.advance(Duration::from_millis(250));
    lab.quiet();
    lab.empty();
}

#[test]
fn an_invite_that_makes_a_call_is_tried_by_each_balancer_once() {
    let mut lab = Lab::new();
    lab.peers.0.push(Peer::new(Service::Balancer, OTHER));
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let (_, first) = next(&mut lab, "INVITE");
    let b = lab.callee(&first);
    lab.answer(&b, &first, 430, None);
    lab.request("ACK");
    let (to, second) = next(&mut lab, "INVITE");
    assert_eq!(to, OTHER);
    let b = lab.callee(&second);
    lab.answer(&b, &second, 200, Some(&sdp(5000, "0 101")));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.ends(&mut a, &b);
}
