//! Conference processes that go, or take nothing: the caller stays, and the step goes on at another one.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use super::steps::{answer, answer_from, play, request, request_at};
use crate::io::Input;
use bytes::Bytes;
use contract::peers::Peer;
use contract::{ProcessId, Service};
use dialplan::Step;
use sip::message::Message;

const OTHER: ProcessId = ProcessId(0xcccd);

impl Lab {
    /// A second conference process appears.
    fn other(&mut self) {
        self.peers.0.push(Peer::new(Service::Conference, OTHER));
    }

    /// The first goes.
    fn lose(&mut self) {
        self.without(CONFERENCE);
        self.input(Input::Tick);
    }

    /// The caller's port at the relay.
    fn near_port(&self) -> u16 {
        let leg = self.core.view()[0]["legs"][0]["id"].as_str().unwrap().to_owned();
        *self.relay.iter().find(|((.., id), _)| *id == leg).unwrap().1
    }

    /// 8005 is with the first conference.
    #[track_caller]
    fn with_conference(&mut self) -> Phone {
        let mut a = self.call("8005", "100");
        let invite = request(self, "INVITE");
        answer(self, &invite, "t", Some(&sdp(6000, "0 8 101")));
        request(self, "ACK");
        let ok = self.response(200, "INVITE");
        Self::joined(&mut a, &ok);
        self.within(&mut a, "ACK", None);
        self.seconds(5);
        self.quiet();
        a
    }

    /// It is with the second now, and hangs up.
    #[track_caller]
    fn hangs_up_there(mut self, a: &mut Phone) {
        assert_eq!((self.relay.len(), self.records.len()), (2, 4), "{:?}", self.records.keys());
        self.within(a, "BYE", None);
        self.response(200, "BYE");
        let bye = request_at(&mut self, OTHER, "BYE");
        answer_from(&mut self, OTHER, &bye, (200, "u"), None);
        self.quiet();
        self.empty();
    }
}

fn uri(invite: &Bytes) -> String {
    Message::parse_stream(invite).unwrap().uri().unwrap().to_owned()
}

#[test]
fn a_step_begins_again_elsewhere_and_the_caller_is_told_only_what_it_must_know() {
    for (step, start) in [(Step::Echo {}, "sip:echo@"), (play(&["tone:440", "bye"]), "sip:play@")] {
        for (formats, told) in [("0 101", false), ("8 101", true)] {
            let mut lab = Lab::plan(steps(&[("100", vec![step.clone(), Step::Hangup { cause: None }])]));
            let mut a = lab.with_conference();
            let port = lab.near_port();
            lab.other();
            lab.lose();
            let invite = request_at(&mut lab, OTHER, "INVITE");
            assert!(uri(&invite).starts_with(start), "{}", uri(&invite));
            assert_eq!(body(&invite).media[0].formats, ["0", "8", "101"]);
            lab.quiet();
            answer_from(&mut lab, OTHER, &invite, (200, "u"), Some(&sdp(6100, formats)));
            request_at(&mut lab, OTHER, "ACK");
            if told {
                let reinvite = lab.request_to("INVITE", "8005");
                assert_eq!((body(&reinvite).media[0].port, body(&reinvite).origin.version), (port, 2));
                lab.answer(&a, &reinvite, 200, Some(&sdp(4000, formats)));
                lab.request_to("ACK", "8005");
            }
            lab.quiet();
            assert_eq!(lab.near_port(), port);
            lab.hangs_up_there(&mut a);
        }
    }
}

#[test]
fn without_another_conference_the_plan_goes_on() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}, dial(&["PJSIP/8006"], None)])]));
    lab.register("8006");
    let mut a = lab.with_conference();
    lab.lose();
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    lab.seconds(1);
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn a_conference_that_takes_nothing_or_goes_while_it_is_asked_costs_the_caller_nothing() {
    for refused in [true, false] {
        let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}])]));
        lab.other();
        let mut a = lab.call("8005", "100");
        // Either may be asked first.
        let (first, invite) = lab.wire.pop_front().unwrap();
        let second = if first == OTHER { CONFERENCE } else { OTHER };
        if refused {
            answer_from(&mut lab, first, &invite, (503, "x"), None);
            request_at(&mut lab, first, "ACK");
        } else {
            lab.without(first);
            lab.input(Input::Tick);
        }
        let invite = request_at(&mut lab, second, "INVITE");
        answer_from(&mut lab, second, &invite, (200, "u"), Some(&sdp(6000, "0 101")));
        request_at(&mut lab, second, "ACK");
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.within(&mut a, "ACK", None);
        lab.within(&mut a, "BYE", None);
        lab.response(200, "BYE");
        let bye = request_at(&mut lab, second, "BYE");
        answer_from(&mut lab, second, &bye, (200, "u"), None);
        lab.quiet();
        lab.empty();
    }
    // Each is asked once.
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}])]));
    lab.other();
    lab.call("8005", "100");
    for _ in 0..2 {
        let (process, invite) = lab.wire.pop_front().unwrap();
        answer_from(&mut lab, process, &invite, (503, "x"), None);
        request_at(&mut lab, process, "ACK");
    }
    lab.response(500, "INVITE");
    lab.quiet();
    lab.empty();
}

#[test]
fn who_waits_in_silence_for_a_callee_does_not_need_its_conference() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]));
    lab.register("8006");
    let mut a = lab.call("8005", "100");
    let silence = request(&mut lab, "INVITE");
    answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.other();
    lab.lose();
    lab.quiet();
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    lab.quiet();
    lab.ends(&mut a, &b);
}

#[test]
fn a_change_that_the_caller_asked_for_is_to_be_asked_again() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}])]));
    let mut a = lab.with_conference();
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    request(&mut lab, "INVITE");
    lab.other();
    lab.lose();
    lab.response(491, "INVITE");
    let invite = request_at(&mut lab, OTHER, "INVITE");
    answer_from(&mut lab, OTHER, &invite, (200, "u"), Some(&sdp(6100, "0 101")));
    request_at(&mut lab, OTHER, "ACK");
    lab.within(&mut a, "INVITE", Some((SDP, &hold(4000))));
    lab.response(100, "INVITE");
    let reinvite = request_at(&mut lab, OTHER, "INVITE");
    answer_from(&mut lab, OTHER, &reinvite, (200, "u"), Some(&held(6100)));
    request_at(&mut lab, OTHER, "ACK");
    lab.response(200, "INVITE");
    lab.within(&mut a, "ACK", None);
    lab.quiet();
    lab.hangs_up_there(&mut a);
}

#[test]
fn who_took_a_call_over_replaces_its_conference_too() {
    for unreached in [false, true] {
        let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}])])).fleet(&[HEIR]);
        let mut a = lab.with_conference();
        lab.other();
        lab.seconds(60);
        lab.gone(HEIR);
        if unreached {
            // It died with the router, and its record stands yet: the re-INVITE that says where we are finds nobody.
            lab.seconds(2);
            let reinvite = request(&mut lab, "INVITE");
            lab.input(Input::Unsent(&reinvite));
        } else {
            lab.lose();
        }
        let invite = request_at(&mut lab, OTHER, "INVITE");
        assert!(uri(&invite).starts_with("sip:echo@"));
        answer_from(&mut lab, OTHER, &invite, (200, "u"), Some(&sdp(6100, "0 101")));
        request_at(&mut lab, OTHER, "ACK");
        lab.seconds(3);
        lab.quiet();
        assert!(lab.owner(HEIR, 2), "{:?}", lab.owners);
        lab.hangs_up_there(&mut a);
    }
}
