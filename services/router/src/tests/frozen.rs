//! A router that freezes and thaws after others took over.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use super::steps;
use crate::io::{Ask, Input};
use contract::Service;
use sip::Name;
use std::time::Duration;

impl Lab {
    /// The CANCEL that comes a moment after one that was not taken.
    #[track_caller]
    fn cancel_again(&mut self) -> bytes::Bytes {
        self.advance(Duration::from_millis(300));
        self.request("CANCEL")
    }
}

/// The first router freezes while a refresh is due, and thaws after the other took over.
fn frozen() -> (Lab, Phone, Phone) {
    let mut lab = Lab::new().fleet(&[HEIR]);
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer_with(&b, &invite, 200, Some(&sdp(5000, "0 101")), |r| {
        r.header(Name::SessionExpires, "600;refresher=uac")
    });
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.seconds(295);
    let peers = lab.peers.clone();
    lab.gone(HEIR);
    lab.seconds(8);
    let update = lab.request_to("UPDATE", "8006");
    lab.answer_with(&b, &update, 200, None, |r| r.header(Name::SessionExpires, "600;refresher=uac"));
    lab.seconds(2);
    lab.quiet();
    // It thaws, and everybody sees it again.
    lab.peers = peers;
    (lab, a, b)
}

#[test]
fn a_router_that_thaws_drops_what_others_took_and_says_nothing() {
    let (mut lab, mut a, b) = frozen();
    lab.switch(ROUTER);
    // Its refresh was due nine seconds ago.
    lab.input(Input::Tick);
    assert_eq!((lab.core.load().calls, lab.core.load().legs, lab.core.counters().lost), (0, 0, 1));
    lab.seconds(120);
    lab.quiet();
    assert!(lab.owner(HEIR, 2));
    lab.switch(HEIR);
    lab.input(Input::Tick);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn a_router_that_thaws_passes_requests_on_and_does_nothing_else() {
    let (mut lab, mut a, b) = frozen();
    lab.switch(ROUTER);
    // What waited in its socket: a hold, that the survivor has not seen.
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.within(&mut a, "ACK", None);
    assert_eq!(
        (lab.core.load(), lab.core.counters().forwarded),
        (crate::Load { timers: lab.core.load().timers, ..Default::default() }, 2)
    );
    let passed: Vec<_> = lab.wire.drain(..).collect();
    assert_eq!(passed.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [HEIR, HEIR]);
    lab.switch(HEIR);
    lab.receive_from(ROUTER, Service::Router, passed[0].1.clone());
    // The answers go to the balancer that asked, the change to the callee.
    let (to, _) = lab.wire.iter().find(|(_, b)| b.starts_with(b"SIP/2.0 100")).unwrap();
    assert_eq!(*to, BALANCER);
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    lab.answer(&b, &reinvite, 200, Some(&held(5000)));
    lab.request_to("ACK", "8006");
    lab.response(200, "INVITE");
    lab.receive_from(ROUTER, Service::Router, passed[1].1.clone());
    lab.seconds(5);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn what_waits_when_a_router_thaws_is_done_only_if_its_call_is_still_its_own() {
    // Nobody took anything: it was only slow.
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    lab.now = lab.now.plus(Duration::from_secs(10));
    lab.hold = Some(|ask| matches!(ask, Ask::Standing { .. }));
    lab.within(&mut a, "BYE", None);
    lab.quiet();
    assert_eq!(lab.core.deadline(), None, "it waits for the store, not for time");
    lab.release();
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8006");
    lab.answer(&b, &bye, 200, None);
    lab.quiet();
    lab.empty();
    // The store does not answer: who owned goes on.
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, _) = lab.talk();
    lab.now = lab.now.plus(Duration::from_secs(10));
    lab.store_down = true;
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    lab.request_to("BYE", "8006");
}

#[test]
fn a_write_that_finds_a_higher_epoch_ends_all_that_is_ours() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.seconds(60);
    let peers = lab.peers.clone();
    // Its record is gone for the others, who take over; it knows nothing of that, and did not sleep.
    lab.gone(HEIR);
    assert!(lab.owner(HEIR, 2));
    lab.peers = peers;
    lab.switch(ROUTER);
    assert_eq!(lab.core.load().calls, 1);
    lab.within(&mut a, "UPDATE", None);
    assert_eq!((lab.core.load().calls, lab.core.load().legs), (0, 0));
    lab.quiet();
    assert!(lab.owner(HEIR, 2));
    // Asked again, it knows where the leg is.
    a.cseq -= 1;
    let again = lab.within(&mut a, "UPDATE", None);
    let (to, _) = lab.wire.pop_front().unwrap();
    assert_eq!(to, HEIR);
    lab.switch(HEIR);
    lab.receive(again);
    lab.response(200, "UPDATE");
    lab.ends(&mut a, &b);
}

#[test]
fn what_rang_stops_ringing_at_the_thaw() {
    // The callee's answer waited in the socket, or there was none.
    for answered in [false, true] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        lab.register("8006");
        lab.call("8005", "8006");
        let invite = lab.request("INVITE");
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 180, None);
        lab.response(180, "INVITE");
        lab.now = lab.now.plus(Duration::from_secs(10));
        if answered {
            lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        } else {
            lab.input(Input::Tick);
        }
        lab.response(503, "INVITE");
        let cancel = lab.request("CANCEL");
        if answered {
            lab.answer(&b, &cancel, 200, None);
        } else {
            // The balancer has just seen the router again, and not taken it.
            lab.input(Input::Unsent(&cancel));
            assert!(!lab.core.is_idle());
            lab.quiet();
            let cancel = lab.cancel_again();
            lab.answer(&b, &cancel, 200, None);
        }
        if answered {
            lab.request("ACK");
            let bye = lab.request("BYE");
            lab.answer(&b, &bye, 200, None);
        } else {
            lab.answer(&b, &invite, 487, None);
            lab.request("ACK");
        }
        lab.seconds(60);
        lab.quiet();
        lab.empty();
    }
}

#[test]
fn a_call_that_waited_at_a_frozen_router_is_another_routers() {
    for busy in [false, true] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        if busy {
            lab.talk();
        }
        lab.seconds(60);
        let phone = lab.phone("8005", "8006");
        let invite = lab.invite_bytes(&phone, "8006", Some(&sdp(4000, "0")), |r| r);
        lab.now = lab.now.plus(Duration::from_secs(10));
        lab.receive(invite.clone());
        let refused = lab.response(503, "INVITE");
        lab.ack_failure(&invite, &refused);
        lab.quiet();
        assert_eq!(lab.core.load().calls, usize::from(busy));
        // What comes later is ours again.
        let phone = lab.phone("8005", "8006");
        let invite = lab.invite_bytes(&phone, "8006", Some(&sdp(4000, "0")), |r| r);
        lab.receive(invite);
        lab.response(401, "INVITE");
    }
}

#[test]
fn what_rings_goes_on_ringing_where_nobody_can_have_missed_the_router() {
    // Its peer record stood all the time; or all services are one process, which stood still as a whole.
    for (mut lab, millis) in [(Lab::new().fleet(&[HEIR]), 1400), (Lab::new(), 10_000)] {
        lab.register("8006");
        let mut a = lab.call("8005", "8006");
        let invite = lab.request("INVITE");
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 180, None);
        lab.response(180, "INVITE");
        lab.now = lab.now.plus(Duration::from_millis(millis));
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
        lab.request("ACK");
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.within(&mut a, "ACK", None);
        lab.quiet();
        lab.ends(&mut a, &b);
    }
}

#[test]
fn who_rings_for_a_call_that_others_took_rings_once() {
    let (mut lab, mut a, b, first) = rings_behind_an_answer();
    lab.seconds(60);
    let peers = lab.peers.clone();
    lab.gone(HEIR);
    let second = lab.request_to("INVITE", "8006");
    lab.seconds(8);
    let reinvite = steps::request(&mut lab, "INVITE");
    steps::answer(&mut lab, &reinvite, "s", Some(&sdp(6000, "0 8 101")));
    steps::request(&mut lab, "ACK");
    lab.quiet();
    lab.peers = peers;
    lab.switch(ROUTER);
    lab.input(Input::Tick);
    let cancel = lab.request_to("CANCEL", "8006");
    assert_eq!(branch(&cancel), branch(&first));
    lab.answer(&b, &cancel, 200, None);
    lab.answer(&b, &first, 487, None);
    lab.request_to("ACK", "8006");
    lab.seconds(120);
    lab.quiet();
    assert_eq!((lab.core.load().calls, lab.core.load().legs), (0, 0));
    // The other's rings on, and is answered.
    lab.switch(HEIR);
    let b = lab.callee(&second);
    lab.answer(&b, &second, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    let bye = steps::request(&mut lab, "BYE");
    steps::answer(&mut lab, &bye, "s", None);
    lab.seconds(3);
    lab.quiet();
    lab.ends(&mut a, &b);
}
