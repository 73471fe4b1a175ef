//! Holds that outlive their router.

use super::*;
use crate::io::Input;
use sip::message::Message;

/// 8005 is held for 8006 at a router that dies, and another goes on with it.
fn taken_over() -> (Lab, Phone, String) {
    let mut lab = asleep().fleet(&[HEIR]);
    let a = lab.call("8005", "8006");
    let first = lab.response(180, "INVITE");
    lab.seconds(30);
    let id = lab.notices[0]["id"].as_str().unwrap().to_owned();
    lab.notices.clear();
    lab.gone(HEIR);
    let again = lab.response(180, "INVITE");
    let tag = |bytes: &Bytes| Message::parse_stream(bytes).unwrap().to().unwrap().tag().unwrap().to_owned();
    assert_eq!(tag(&again), tag(&first));
    assert_eq!(field(&again, Name::Via), field(&first, Name::Via));
    assert!(String::from_utf8_lossy(&again).contains("X-KubePBX-Held"));
    (lab, a, id)
}

#[test]
fn another_router_goes_on_and_connects() {
    let (mut lab, mut a, id) = taken_over();
    assert_eq!(lab.owners.values().map(|o| (o.process, o.epoch)).collect::<Vec<_>>(), [(HEIR, 2)]);
    assert_eq!(lab.notices[0]["id"].as_str(), Some(id.as_str()), "whoever wakes phones sees one hold");
    assert_eq!(lab.core.counters().adopted, 1);
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    lab.talks(&mut a, &invite);
}

#[test]
fn another_router_holds_for_what_is_left_of_the_time() {
    let (mut lab, _, _) = taken_over();
    lab.seconds(58);
    assert!(lab.take_if(|m| m.status() == Some(480)).is_none());
    lab.seconds(3);
    lab.response(480, "INVITE");
    lab.wire.clear();
    lab.empty();
}

#[test]
fn another_router_takes_the_callers_cancel() {
    let (mut lab, a, _) = taken_over();
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    assert_eq!(lab.told(), [wake(), cancelled("cancelled")]);
    lab.empty();
}

#[test]
fn a_router_that_was_frozen_drops_what_another_holds_now() {
    let (mut lab, _, _) = taken_over();
    lab.peers.0.push(contract::peers::Peer::new(contract::Service::Router, ROUTER));
    lab.switch(ROUTER);
    lab.seconds(3);
    assert_eq!((lab.core.load().calls, lab.core.load().holds), (0, 0));
    assert!(lab.take_if(|m| m.status().is_some_and(|s| s >= 200)).is_none(), "without a word");
    assert_eq!(lab.told(), [wake()]);
}

#[test]
fn a_router_that_drains_leaves_its_holds_to_another() {
    let mut lab = asleep().fleet(&[HEIR]);
    let mut a = lab.held_call();
    lab.notices.clear();
    lab.draining = true;
    lab.input(Input::HangUp);
    lab.quiet();
    assert!(lab.core.is_idle());
    lab.draining = false;
    lab.gone(HEIR);
    lab.response(180, "INVITE");
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    assert_eq!(lab.told(), [wake()]);
    lab.talks(&mut a, &invite);
}

#[test]
fn an_answered_caller_is_held_by_another_router_too() {
    let (mut lab, _) = answered(&[HEIR]);
    let id = lab.notices[0]["id"].clone();
    lab.seconds(50);
    lab.gone(HEIR);
    assert_eq!(lab.notices[1]["id"], id);
    lab.wakes("8006");
    lab.request_to("INVITE", "8006");
}
