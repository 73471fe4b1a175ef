//! A call from INVITE to BYE, and what each side sees of it.

use super::lab::*;
use super::phones::*;
use crate::io::Input;
use contract::leg::LegToken;
use contract::records::LegRecord;
use sip::Name;
use sip::message::Message;
use sip::uri::Uri;

#[test]
fn a_whole_call_and_what_each_side_sees() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call_with("8005", "8006", Some(&sdp(4000, "0 8 101")), |r| {
        r.header(Name::MaxForwards, "40")
            .header(Name::Subject, "Lunch")
            .header(Name::Supported, "100rel, timer")
            .header(Name::SessionExpires, "600")
            .other("X-Account", "7")
            .header(Name::SessionId, "0123456789abcdef0123456789abcdef;remote=00000000000000000000000000000000")
    });
    let invite = lab.request_to("INVITE", "8006");
    let message = Message::parse_stream(&invite).unwrap();
    assert_eq!(message.header(Name::MaxForwards), Some("39"));
    assert_eq!(message.header(Name::Subject), Some("Lunch"));
    assert_eq!(message.other("X-Account"), Some("7"));
    assert_eq!(message.other("X-KubePBX-Hop"), None);
    assert_eq!(message.header(Name::Authorization), None);
    assert_eq!(message.header(Name::RecordRoute), None);
    assert_eq!(message.header(Name::Supported), Some("timer"), "ours, not the caller's");
    assert_eq!(message.header(Name::SessionExpires), Some("1800"));
    assert_eq!(message.headers(Name::Via).count(), 1);
    assert_ne!(message.call_id().unwrap(), a.call_id);
    assert!(message.header(Name::Route).unwrap().contains(&lab.flow("8006").token(&lab.keys)));
    assert!(message.header(Name::From).unwrap().starts_with("<sip:8005@192.0.2.1:5060>;tag="));
    let session = message.header(Name::SessionId).unwrap().to_owned();
    assert!(session.ends_with(";remote=0123456789abcdef0123456789abcdef"), "{session}");
    assert_eq!(body(&invite).audio_codecs().iter().map(|c| c.payload).collect::<Vec<_>>(), [0, 8, 101]);

    let b = lab.callee(&invite);
    let user = Uri::parse(&b.target).unwrap();
    let token = LegToken::open(user.user.unwrap(), &lab.keys).unwrap();
    assert_eq!((token.process, user.port), (ROUTER, Some(5060)));
    lab.answer(&b, &invite, 100, None);
    lab.quiet();
    lab.answer(&b, &invite, 180, None);
    let ringing = lab.response(180, "INVITE");
    assert!(lab.records.is_empty(), "nothing is confirmed yet");
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    let ack = lab.request_to("ACK", "8006");
    assert_eq!(field(&ack, Name::CSeq), "1 ACK");
    let ok = lab.response(200, "INVITE");
    assert_eq!(field(&ok, Name::To), field(&ringing, Name::To));
    assert_eq!(field(&ok, Name::SessionExpires), "600;refresher=uac");
    assert_eq!(field(&ok, Name::Require), "timer");
    assert!(field(&ok, Name::RecordRoute).contains(&lab.flow("8005").token(&lab.keys)));
    assert_eq!(field(&ok, Name::SessionId)[..32], session[..32]);
    assert_eq!(body(&ok).media[0].formats, ["0", "101"]);
    assert_eq!(body(&ok).rtp_address(0).unwrap().ip().to_string(), "127.0.0.9");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.quiet();

    // Both legs, the call and the bridge outlive this process.
    let kinds: Vec<_> = lab.records.keys().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["bridge", "call", "leg", "leg"]);
    let leg: LegRecord = serde_json::from_slice(&lab.records[&("leg".into(), token.leg.clone())]).unwrap();
    assert_eq!((leg.endpoint.as_str(), leg.dialog.remote_tag.as_str()), ("8006", b.tag.as_str()));
    assert_eq!(leg.call[..], session[..32]);
    assert!(leg.remote_sdp.contains("m=audio 5000") && leg.local_sdp.contains("127.0.0.9"));
    let view = lab.core.view();
    assert_eq!(view[0]["legs"][1]["state"], "up");
    assert_eq!((view[0]["legs"][0]["codec"].as_str(), view[0]["protected"].as_bool()), (Some("PCMU"), Some(true)));

    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8006");
    assert_eq!(field(&bye, Name::CSeq), "2 BYE");
    assert_eq!(field(&bye, Name::Reason), "Q.850;cause=16;text=\"Normal call clearing\"");
    lab.answer(&b, &bye, 200, None);
    lab.quiet();
    assert_eq!(lab.ended(), (16, "the caller hung up".into()));
    lab.empty();
}

#[test]
fn the_callee_hangs_up() {
    let mut lab = Lab::new();
    let (a, mut b) = lab.talk();
    lab.within_with(&mut b, "BYE", None, |r| r.header(Name::Reason, "Q.850;cause=31"));
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8005");
    assert_eq!(field(&bye, Name::Reason), "Q.850;cause=31");
    assert_eq!(field(&bye, Name::CSeq), "1 BYE");
    lab.answer(&a, &bye, 200, None);
    assert_eq!(lab.ended(), (16, "the callee hung up".into()));
    lab.empty();
}

#[test]
fn a_copy_that_comes_late_by_another_balancer_is_answered_as_the_first_was() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    let bye = lab.within(&mut a, "BYE", None);
    let first = lab.response(200, "BYE");
    let to_b = lab.request_to("BYE", "8006");
    lab.answer(&b, &to_b, 200, None);
    lab.seconds(20);
    lab.receive(bye.clone());
    assert_eq!(lab.response(200, "BYE"), first);
    lab.quiet();
    lab.seconds(20);
    lab.receive(bye);
    lab.response(481, "BYE");
    lab.empty();
}

#[test]
fn both_hang_up_at_once() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    lab.within(&mut a, "BYE", None);
    let bye = lab.request_to("BYE", "8006");
    lab.within(&mut b, "BYE", None);
    lab.response(200, "BYE");
    lab.response(200, "BYE");
    lab.answer(&b, &bye, 481, None);
    lab.quiet();
    lab.empty();
}

#[test]
fn records_stand_in_the_store_before_the_caller_hears() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.hold = Some(|ask| matches!(ask, crate::Ask::Save { kind: "leg", .. }));
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.quiet();
    assert_eq!(lab.held.len(), 2);
    lab.release();
    lab.response(200, "INVITE");
}

#[test]
fn a_call_answered_while_the_store_is_gone_goes_on_unprotected() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk_without_the_store();
    assert_eq!(lab.core.view()[0]["protected"], false);
    assert_eq!(lab.core.counters().unprotected, 1);
    // In-dialog requests go on.
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request("BYE");
    lab.answer(&b, &bye, 200, None);
    lab.empty();
}

#[test]
fn early_media_is_passed_and_the_answer_is_the_same() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 183, Some(&sdp(5000, "0")));
    let early = lab.response(183, "INVITE");
    assert_eq!(body(&early).media[0].formats, ["0"]);
    // A 180 after it tells the same, for a caller that lost the first.
    lab.answer(&b, &invite, 180, None);
    assert_eq!(body(&lab.response(180, "INVITE")), body(&early));
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    assert_eq!(body(&lab.response(200, "INVITE")), body(&early), "also in o=");
}

#[test]
fn a_call_without_an_offer_is_offered_by_the_callee() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call_with("8005", "8006", None, |r| r);
    let invite = lab.request("INVITE");
    assert!(Message::parse_stream(&invite).unwrap().body().is_empty());
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.response(180, "INVITE");
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "8 0 101")));
    let ok = lab.response(200, "INVITE");
    assert_eq!(body(&ok).media[0].formats, ["8", "0", "101"]);
    lab.quiet();
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", Some(("application/sdp", &sdp(4000, "0 101"))));
    let ack = lab.request("ACK");
    assert_eq!(body(&ack).media[0].formats, ["0", "101"]);
    assert_ne!(body(&ack).rtp_address(0), body(&ok).rtp_address(0), "each side has ports of its own");
    lab.within(&mut a, "BYE", None);
    let bye = lab.request("BYE");
    lab.answer(&b, &bye, 200, None);
    lab.response(200, "BYE");
    lab.empty();
}

#[test]
fn an_ack_without_the_answer_it_owes_ends_the_call() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call_with("8005", "8006", None, |r| r);
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    let ack = lab.request_to("ACK", "8006");
    assert_eq!(body(&ack).media[0].port, 0);
    let bye = lab.request_to("BYE", "8006");
    lab.answer(&b, &bye, 200, None);
    let bye = lab.request_to("BYE", "8005");
    lab.answer(&a, &bye, 200, None);
    lab.empty();
}

#[test]
fn video_lines_keep_number_and_order() {
    let with_video =
        |port, formats| format!("{}m=video {} RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n", sdp(port, formats), port + 2);
    let mut lab = Lab::new();
    for (caller, callee, offered, answered) in
        [("8008", "8009", true, true), ("8005", "8009", false, false), ("8008", "8006", false, false)]
    {
        lab.register(callee);
        let mut a = lab.call_with(caller, callee, Some(&with_video(4000, "0")), |r| r);
        let invite = lab.request_to("INVITE", callee);
        let ports: Vec<_> = body(&invite).media.iter().map(|m| (m.kind.clone(), m.port != 0)).collect();
        assert_eq!(ports, [("audio".into(), true), ("video".into(), offered)], "{caller} {callee}");
        let b = lab.callee(&invite);
        // A callee without video may leave its line out: the caller sees it all the same.
        let answer = if offered { with_video(5000, "0") } else { sdp(5000, "0") };
        lab.answer(&b, &invite, 200, Some(&answer));
        let ok = lab.response(200, "INVITE");
        let ports: Vec<_> = body(&ok).media.iter().map(|m| (m.kind.clone(), m.port != 0)).collect();
        assert_eq!(ports, [("audio".into(), true), ("video".into(), answered)]);
        lab.request("ACK");
        Lab::joined(&mut a, &ok);
        lab.within(&mut a, "ACK", None);
        lab.within(&mut a, "BYE", None);
        lab.response(200, "BYE");
        let bye = lab.request("BYE");
        lab.answer(&b, &bye, 200, None);
        lab.aors.clear();
    }
    lab.empty();
}

#[test]
fn what_the_callee_is_shown_of_the_caller() {
    let mut lab = Lab::new();
    let mut desk = endpoint("8007", &["ulaw"]);
    desk.caller_id = Some("\"Front Desk\" <100>".into());
    lab.put(desk);
    lab.register("8006");
    let mut phone = lab.phone("8007", "8006");
    phone.local = format!("\"The Boss\" <sip:8007@{EDGE}>");
    let invite = lab.invite_bytes(&phone, "8006", Some(&sdp(4000, "0")), |r| r);
    lab.receive(invite);
    let challenge = lab.response(401, "INVITE");
    let credentials = Lab::credentials(&challenge, "8007", "secret8007", "8006");
    phone.cseq += 1;
    let asserted = |r: sip::build::Request| {
        r.header(Name::Authorization, &credentials).header(Name::PAssertedIdentity, "<sip:boss@x>")
    };
    let invite = lab.invite_bytes(&phone, "8006", Some(&sdp(4000, "0")), asserted);
    lab.receive(invite);
    let invite = lab.request_to("INVITE", "8006");
    assert!(field(&invite, Name::From).starts_with("\"Front Desk\" <sip:100@192.0.2.1:5060>;tag="));
    assert_eq!(field(&invite, Name::PAssertedIdentity), "", "only a trunk's is believed");
}

#[test]
fn a_thousand_calls_leave_nothing() {
    let mut lab = Lab::new();
    lab.register("8006");
    for n in 0..1000 {
        let (mut a, b) = lab.talk();
        if n % 3 == 0 {
            lab.within(&mut a, "BYE", None);
            lab.response(200, "BYE");
            let bye = lab.request("BYE");
            lab.answer(&b, &bye, 200, None);
        } else {
            let mut b = b;
            lab.within(&mut b, "BYE", None);
            lab.response(200, "BYE");
            let bye = lab.request("BYE");
            lab.answer(&a, &bye, 200, None);
        }
        lab.seconds(1);
        assert_eq!(lab.core.load().calls, 0);
    }
    assert_eq!(lab.core.counters().answered, 1000);
    lab.empty();
}

#[test]
fn a_call_that_rings_is_hung_up_by_command() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.response(180, "INVITE");
    let id = lab.events[0].call.clone();
    assert!(lab.core.has_call(&id) && !lab.core.has_call("another"));
    lab.input(Input::HangUpCall("another"));
    lab.quiet();
    lab.input(Input::HangUpCall(&id));
    let cancel = lab.request("CANCEL");
    lab.answer(&b, &cancel, 200, None);
    lab.answer(&b, &invite, 487, None);
    lab.request("ACK");
    lab.response(480, "INVITE");
    assert_eq!(lab.ended(), (16, "hung up by command".to_owned()));
    lab.empty();
}
