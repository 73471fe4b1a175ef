//! Steps that have their far leg at a conference: answer, playback, echo; and a far leg that replaces another.

use super::lab::*;
use super::phones::*;
use bytes::Bytes;
use contract::{ProcessId, Service};
use dialplan::{Playback, Step, Template};
use sip::Name;
use sip::message::Message;

pub(super) fn play(prompts: &[&str]) -> Step {
    Step::Playback(Playback { prompts: prompts.iter().map(|p| Template::parse(p).unwrap()).collect() })
}

/// The conference's answer to a request.
pub(super) fn answer(lab: &mut Lab, request: &Bytes, tag: &str, body: Option<&str>) {
    answer_from(lab, CONFERENCE, request, (200, tag), body);
}

/// A conference's answer to a request: its status, under its tag.
pub(super) fn answer_from(lab: &mut Lab, from: ProcessId, request: &Bytes, answer: (u16, &str), body: Option<&str>) {
    let message = Message::parse_stream(request).unwrap();
    let host = contract::hop::host(Service::Conference, from);
    let response =
        sip::build::response(&message, answer.0, None, Some(answer.1)).header(Name::Contact, format!("<sip:c@{host}>"));
    let bytes = match body {
        Some(body) => response.body("application/sdp", body.as_bytes().to_vec()).finish(),
        None => response.finish(),
    };
    lab.receive_from(from, Service::Conference, bytes);
}

/// A request to the conference of this method.
#[track_caller]
pub(super) fn request(lab: &mut Lab, method: &str) -> Bytes {
    request_at(lab, CONFERENCE, method)
}

/// A request to a conference of this method.
#[track_caller]
pub(super) fn request_at(lab: &mut Lab, process: ProcessId, method: &str) -> Bytes {
    let at = lab.wire.iter().position(|(to, b)| *to == process && b.starts_with(method.as_bytes()));
    let Some(at) = at else { panic!("no {method} to the conference {process}: {:?}", lab.lines()) };
    lab.wire.remove(at).unwrap().1
}

/// BYE from the conference.
pub(super) fn hang_up(lab: &mut Lab, invite: &Bytes, tag: &str) {
    let message = Message::parse_stream(invite).unwrap();
    let bye = sip::build::request("BYE", "sip:router")
        .header(
            Name::Via,
            format!("SIP/2.0/TCP {};branch=z9hG4bK{tag}", contract::hop::host(Service::Conference, CONFERENCE)),
        )
        .header(Name::MaxForwards, "70")
        .header(Name::From, format!("{};tag={tag}", message.header(Name::To).unwrap()))
        .header(Name::To, message.header(Name::From).unwrap())
        .header(Name::CallId, message.call_id().unwrap())
        .header(Name::CSeq, "1 BYE")
        .finish();
    lab.receive_from(CONFERENCE, Service::Conference, bye);
}

#[test]
fn playback_answers_and_the_plan_goes_on_after_it() {
    let mut lab =
        Lab::plan(steps(&[("100", vec![play(&["tone:440,500"]), play(&["bye"]), Step::Hangup { cause: None }])]));
    let mut a = lab.call("8005", "100");
    let invite = request(&mut lab, "INVITE");
    assert!(invite.starts_with(b"INVITE sip:play@conference.invalid;prompt=tone:440%2C500 SIP/2.0\r\n"));
    answer(&mut lab, &invite, "t1", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    hang_up(&mut lab, &invite, "t1");
    lab.response(200, "BYE");
    // The second prompt: the caller's side stays as it is, and is not asked again.
    let invite = request(&mut lab, "INVITE");
    assert!(invite.starts_with(b"INVITE sip:play@conference.invalid;prompt=bye.wav SIP/2.0\r\n"));
    answer(&mut lab, &invite, "t2", Some(&sdp(6004, "0 101")));
    request(&mut lab, "ACK");
    lab.quiet();
    hang_up(&mut lab, &invite, "t2");
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8005");
    lab.answer(&a, &bye, 200, None);
    lab.quiet();
    lab.empty();
}

#[test]
fn echo_lasts_until_the_caller_hangs_up() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}])]));
    let mut a = lab.call("8005", "100");
    let invite = request(&mut lab, "INVITE");
    assert!(invite.starts_with(b"INVITE sip:echo@conference.invalid "));
    answer(&mut lab, &invite, "t", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = request(&mut lab, "BYE");
    answer(&mut lab, &bye, "t", None);
    lab.empty();
}

#[test]
fn answer_then_dial_replaces_the_far_leg_and_keeps_the_near_ports() {
    for (codec, told_again) in [("0", false), ("8", true)] {
        let mut lab = Lab::plan(steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]));
        lab.register("8006");
        let mut a = lab.call("8005", "100");
        let silence = request(&mut lab, "INVITE");
        assert!(silence.starts_with(b"INVITE sip:silence@conference.invalid "));
        answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 8 101")));
        request(&mut lab, "ACK");
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.within(&mut a, "ACK", None);
        let invite = lab.request_to("INVITE", "8006");
        assert_eq!(body(&invite).media[0].formats, ["0", "8", "101"]);
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 180, None);
        assert!(lab.wire.is_empty(), "an answered caller hears no 180");
        lab.answer(&b, &invite, 200, Some(&sdp(5000, &format!("{codec} 101"))));
        lab.request_to("ACK", "8006");
        let bye = request(&mut lab, "BYE");
        answer(&mut lab, &bye, "s", None);
        if told_again {
            // Another codec than it speaks: it has to know.
            let reinvite = lab.request_to("INVITE", "8005");
            assert_eq!(body(&reinvite).media[0].formats, ["8", "101"]);
            assert_eq!(body(&reinvite).rtp_address(0), body(&ok).rtp_address(0), "its ports stay");
            assert_eq!(body(&reinvite).origin.version, 2);
            // Glare: again within 2 s, as the caller made the Call-ID.
            lab.answer(&a, &reinvite, 491, None);
            lab.request_to("ACK", "8005");
            lab.quiet();
            lab.seconds(2);
            let reinvite = lab.request_to("INVITE", "8005");
            lab.answer(&a, &reinvite, 200, Some(&sdp(4000, "8 101")));
            lab.request_to("ACK", "8005");
        }
        lab.quiet();
        assert_eq!(lab.relay.len(), 2);
        assert_eq!(lab.records.len(), 4, "{:?}", lab.records.keys());
        lab.within(&mut a, "BYE", None);
        lab.response(200, "BYE");
        let bye = lab.request_to("BYE", "8006");
        lab.answer(&b, &bye, 200, None);
        lab.quiet();
        lab.empty();
    }
}

#[test]
fn an_answered_caller_gets_bye_with_the_cause() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]));
    lab.register("8006");
    let mut a = lab.call("8005", "100");
    let silence = request(&mut lab, "INVITE");
    answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 486, None);
    lab.request_to("ACK", "8006");
    request(&mut lab, "BYE");
    lab.quiet();
    // Its ACK first (RFC 3261 15).
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    let bye = lab.request_to("BYE", "8005");
    assert!(field(&bye, Name::Reason).starts_with("Q.850;cause=17;"));
    lab.answer(&a, &bye, 200, None);
    lab.quiet();
    lab.wire.clear();
    lab.empty();
}

#[test]
fn without_a_conference_the_step_fails_and_the_plan_goes_on() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Echo {}])]));
    lab.peers.0.retain(|p| p.service != Service::Conference);
    lab.call("8005", "100");
    lab.response(500, "INVITE");
    lab.empty();
}

#[test]
fn a_caller_without_an_offer_is_answered_and_then_dials() {
    let mut lab = Lab::plan(steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]));
    lab.register("8006");
    let mut a = lab.call_with("8005", "100", None, |r| r);
    let silence = request(&mut lab, "INVITE");
    answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 8 101")));
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    // Nothing can be offered to 8006 before the caller has said something.
    lab.quiet();
    lab.within(&mut a, "ACK", Some(("application/sdp", &sdp(4000, "0 101"))));
    request(&mut lab, "ACK");
    let invite = lab.request_to("INVITE", "8006");
    assert_eq!(body(&invite).media[0].formats, ["0", "101"]);
}

#[test]
fn a_lost_relay_is_replaced_under_a_prompt() {
    let mut lab = Lab::plan(steps(&[("100", vec![play(&["tone:440"]), Step::Hangup { cause: None }])]));
    let mut a = lab.call("8005", "100");
    let invite = request(&mut lab, "INVITE");
    answer(&mut lab, &invite, "t", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    let other = contract::ProcessId(0xffff);
    lab.peers.0.push(contract::peers::Peer::new(Service::Media, other));
    lab.silent.insert(RELAY);
    lab.seconds(1);
    let reinvite = lab.request_to("INVITE", "8005");
    assert_eq!(body(&reinvite).origin.version, body(&ok).origin.version + 1);
    lab.answer(&a, &reinvite, 200, Some(&sdp(4000, "0 101")));
    lab.request_to("ACK", "8005");
    let reinvite = request(&mut lab, "INVITE");
    let ports: Vec<u16> = lab.relay.iter().filter(|((at, ..), _)| *at == other).map(|(_, port)| *port).collect();
    assert!(ports.contains(&body(&reinvite).media[0].port), "{ports:?}");
    answer(&mut lab, &reinvite, "t", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    lab.quiet();
    // The prompt is over: the plan goes on.
    hang_up(&mut lab, &invite, "t");
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8005");
    lab.answer(&a, &bye, 200, None);
    lab.relay.retain(|(at, ..), _| *at != RELAY);
    lab.silent.clear();
    lab.empty();
}
