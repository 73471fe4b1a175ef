//! ACKs that are written down, so that nobody who takes a call over has to ask whether the phone heard our 2xx.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use std::time::Duration;

#[test]
fn a_young_call_is_told_again_only_while_its_ack_may_not_have_come() {
    for (millis, told_again) in [(1900, true), (2000, false), (5000, false)] {
        let mut lab = Lab::new().fleet(&[HEIR]);
        let (mut a, b) = lab.talk();
        lab.advance(Duration::from_millis(millis));
        lab.gone(HEIR);
        assert!(lab.owner(HEIR, 2));
        assert_eq!(cseq(&lab.request_to("ACK", "8006")), 1);
        lab.seconds(5);
        if told_again {
            let reinvite = lab.request_to("INVITE", "8005");
            assert_eq!(body(&reinvite).origin.version, 1);
            lab.answer(&a, &reinvite, 200, Some(&sdp(4000, "0 8 101")));
            lab.request_to("ACK", "8005");
        }
        lab.quiet();
        lab.ends(&mut a, &b);
    }
}

#[test]
fn an_ack_that_comes_to_the_heir_is_as_good() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request("ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.gone(HEIR);
    lab.request_to("ACK", "8006");
    lab.within(&mut a, "ACK", None);
    lab.seconds(5);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn whoever_asked_for_a_change_is_told_again_while_its_ack_may_not_have_come() {
    for callee in [false, true] {
        for (seconds, told_again) in [(1, true), (3, false)] {
            let mut lab = Lab::new().fleet(&[HEIR]);
            let (a, b) = lab.talk();
            lab.seconds(60);
            let (mut one, two) = if callee { (b, a) } else { (a, b) };
            lab.within(&mut one, "INVITE", Some((SDP, &hold(4000))));
            lab.response(100, "INVITE");
            let reinvite = lab.request_to("INVITE", &two.name);
            lab.answer(&two, &reinvite, 200, Some(&held(5000)));
            lab.request_to("ACK", &two.name);
            lab.response(200, "INVITE");
            lab.within(&mut one, "ACK", None);
            lab.seconds(seconds);
            lab.gone(HEIR);
            // Whether ours arrived the record does not say.
            for phone in [&one, &two] {
                lab.take_if(|m| {
                    m.method() == Some(sip::Method::Ack) && m.uri().is_some_and(|uri| uri.contains(&phone.name))
                });
            }
            lab.seconds(3);
            if told_again {
                let reinvite = lab.request_to("INVITE", &one.name);
                assert_eq!(body(&reinvite).direction(0), rtp::sdp::Direction::RecvOnly);
                lab.answer(&one, &reinvite, 200, Some(&hold(4000)));
                lab.request_to("ACK", &one.name);
            }
            lab.quiet();
            lab.ends(&mut one, &two);
        }
    }
}

#[test]
fn it_costs_a_write_and_only_in_calls_that_last() {
    for (seconds, writes) in [(1, 4), (2, 5), (300, 5)] {
        let mut lab = Lab::new();
        let (mut a, b) = lab.talk();
        assert_eq!(lab.writes, 4, "two legs, their bridge and the call, before the caller hears of it");
        lab.seconds(seconds);
        assert_eq!(lab.writes, writes, "after {seconds} s");
        lab.ends(&mut a, &b);
    }
    // It goes with whatever is written sooner: here a call that the store had lost.
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.advance(Duration::from_millis(600));
    lab.incarnation += 1;
    lab.seconds(10);
    assert_eq!(lab.writes, 8);
    lab.ends(&mut a, &b);
}
