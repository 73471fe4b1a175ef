//! Routers that reach the limit of their drain: what the store has is left to the others, what it has not is hung up.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use super::steps;
use crate::io::{Ask, Input};
use contract::peers::PeerState;
use rtp::sdp::Direction;
use sip::Name;
use sip::message::Message;

impl Lab {
    /// This router was told to end, and now it is late.
    fn limit(&mut self) {
        self.draining = true;
        let me = self.me;
        self.peers.0.iter_mut().filter(|p| p.process == me).for_each(|p| p.state = PeerState::Draining);
        self.input(Input::HangUp);
    }

    /// This router's process ends: its record is withdrawn, and another looks.
    #[track_caller]
    fn goes(&mut self) {
        assert!(self.core.is_idle());
        self.draining = false;
        self.gone(HEIR);
    }
}

#[test]
fn protected_calls_are_left_to_the_others_without_a_word() {
    // Just answered, and after a while.
    for age in [0, 1, 60] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        let (mut a, b) = lab.talk();
        lab.seconds(age);
        assert!(!lab.core.is_idle(), "it has a call");
        lab.limit();
        lab.quiet();
        assert_eq!((lab.core.load().calls, lab.core.counters().left), (1, 1));
        lab.goes();
        assert!(lab.owner(HEIR, 2), "at once: {:?}", lab.owners);
        if age < 60 {
            // That of the router that is gone may have been lost; it answers the callee's 2xx and nothing else.
            lab.request_to("ACK", "8006");
        }
        lab.seconds(10);
        lab.quiet();
        lab.holds(&mut a, &b);
        lab.ends(&mut a, &b);
    }
}

#[test]
fn without_another_router_that_serves_all_are_hung_up() {
    for draining in [false, true] {
        let mut lab = if draining { Lab::new().fleet(&[HEIR]) } else { Lab::new() };
        let (a, b) = lab.talk();
        lab.peers.0.iter_mut().filter(|p| p.process == HEIR).for_each(|p| p.state = PeerState::Draining);
        lab.limit();
        assert_eq!(lab.ended().1, "the router goes down");
        for phone in [&a, &b] {
            let bye = lab.request_to("BYE", &phone.name);
            assert!(!lab.core.is_idle());
            lab.answer(phone, &bye, 200, None);
        }
        assert!(lab.core.is_idle());
        lab.empty();
    }
}

#[test]
fn calls_that_the_store_has_not_are_hung_up_and_the_others_stay() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (c, d) = lab.talk_without_the_store();
    lab.store_down = false;
    let (mut a, b) = lab.talk();
    lab.limit();
    for phone in [&c, &d] {
        let bye = lab.request_to("BYE", &phone.name);
        assert_eq!(field(&bye, Name::CallId), phone.call_id);
        assert!(!lab.core.is_idle(), "its BYE has no answer yet");
        lab.answer(phone, &bye, 200, None);
    }
    lab.quiet();
    lab.goes();
    assert!(lab.owner(HEIR, 2), "{:?}", lab.owners);
    lab.request_to("ACK", "8006");
    lab.ends(&mut a, &b);
}

#[test]
fn a_caller_that_was_not_answered_is_told_so() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.response(180, "INVITE");
    lab.limit();
    lab.response(480, "INVITE");
    let cancel = lab.request("CANCEL");
    lab.answer(&b, &cancel, 200, None);
    lab.answer(&b, &invite, 487, None);
    lab.request("ACK");
    assert!(lab.core.is_idle());
    lab.empty();
}

#[test]
fn who_rings_behind_a_caller_that_is_answered_rings_at_the_other_router() {
    let (mut lab, mut a, b, invite) = rings_behind_an_answer();
    lab.limit();
    let cancel = lab.request_to("CANCEL", "8006");
    assert!(!lab.core.is_idle(), "it rings");
    lab.answer(&b, &cancel, 200, None);
    lab.answer(&b, &invite, 487, None);
    lab.request_to("ACK", "8006");
    lab.quiet();
    lab.goes();
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    let acks = std::iter::from_fn(|| lab.take_if(|m| m.method() == Some(sip::Method::Ack))).count();
    assert!(acks <= 1, "the conference's 2xx is acknowledged once more");
    let bye = steps::request(&mut lab, "BYE");
    steps::answer(&mut lab, &bye, "s", None);
    lab.seconds(5);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn a_change_that_is_under_way_is_finished_first() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    lab.limit();
    assert!(!lab.core.is_idle());
    lab.answer(&b, &reinvite, 200, Some(&held(5000)));
    lab.request_to("ACK", "8006");
    assert_eq!(body(&lab.response(200, "INVITE")).direction(0), Direction::RecvOnly);
    lab.within(&mut a, "ACK", None);
    lab.goes();
    assert!(lab.owner(HEIR, 2));
    let ack = lab.request_to("ACK", "8006");
    assert_eq!(Message::parse_stream(&ack).unwrap().cseq().unwrap().number, 2);
}

#[test]
fn a_call_whose_record_is_not_taken_at_the_limit_is_hung_up_after_all() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.hold = Some(|ask| matches!(ask, Ask::Save { .. }));
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.limit();
    lab.quiet();
    assert!(!lab.core.is_idle(), "nobody knows yet whether it is protected");
    lab.store_down = true;
    lab.release();
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    let bye = lab.request_to("BYE", "8006");
    lab.answer(&b, &bye, 200, None);
    lab.within(&mut a, "ACK", None);
    let bye = lab.request_to("BYE", "8005");
    lab.answer(&a, &bye, 200, None);
    lab.quiet();
    assert!(lab.core.is_idle());
}
