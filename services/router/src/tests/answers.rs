//! Final answers to the caller, with DIALSTATUS and HANGUPCAUSE: the table of docs/rfc/router.md.

use super::lab::*;
use super::phones::*;
use contract::config::{EndpointEntry, IdentifyBy};
use contract::events::CallEventKind;
use dialplan::{Cause, Step, Template};
use sip::Name;
use sip::message::Message;

/// What the callee does.
#[derive(Debug, Clone, Copy)]
enum Callee {
    Unregistered,
    Unknown,
    /// Rings and answers nothing.
    Rings,
    /// Says nothing at all.
    Silent,
    Says(u16),
    RingsAndSays(u16),
}

/// The plan that ends without a cause, and notes its variables.
pub(super) fn noting() -> dialplan::Plan {
    let note = Template::parse("${DIALSTATUS}/${HANGUPCAUSE}").unwrap();
    steps(&[("_XXXX", vec![dial(&["PJSIP/${EXTEN}"], Some(40)), Step::NoOp { text: Some(note) }])])
}

#[test]
fn the_table() {
    use Callee::*;
    for (callee, code, variables) in [
        (Unregistered, 480, "CHANUNAVAIL/20"),
        (Unknown, 404, "CHANUNAVAIL/3"),
        (Rings, 480, "NOANSWER/19"),
        (Silent, 408, "NOANSWER/18"),
        (Says(486), 486, "BUSY/17"),
        (RingsAndSays(486), 486, "BUSY/17"),
        (RingsAndSays(600), 600, "BUSY/17"),
        (RingsAndSays(603), 603, "CONGESTION/21"),
        (RingsAndSays(480), 480, "NOANSWER/19"),
        (Says(404), 404, "CHANUNAVAIL/1"),
        (Says(408), 408, "NOANSWER/18"),
        (Says(410), 410, "CHANUNAVAIL/22"),
        (Says(484), 484, "CHANUNAVAIL/28"),
        (Says(488), 488, "CONGESTION/58"),
        (Says(302), 480, "NOANSWER/19"),
        (Says(401), 403, "CONGESTION/21"),
        (Says(407), 403, "CONGESTION/21"),
        (Says(500), 500, "CONGESTION/38"),
        (Says(503), 500, "CONGESTION/38"),
        (Says(606), 606, "CONGESTION/58"),
    ] {
        let mut lab = Lab::plan(noting());
        let exten = if matches!(callee, Unknown) { "9999" } else { "8006" };
        if !matches!(callee, Unregistered | Unknown) {
            lab.register("8006");
        }
        lab.call("8005", exten);
        if let Some(invite) = lab.take_if(|m| m.method().is_some_and(|m| m.as_str() == "INVITE")) {
            let phone = lab.callee(&invite);
            if matches!(callee, Rings | RingsAndSays(_)) {
                lab.answer(&phone, &invite, 180, None);
                lab.response(180, "INVITE");
            }
            match callee {
                Says(code) | RingsAndSays(code) => {
                    lab.answer(&phone, &invite, code, None);
                    lab.request("ACK");
                }
                Silent => lab.seconds(33),
                _ => {
                    lab.seconds(41);
                    let cancel = lab.request("CANCEL");
                    assert_eq!(field(&cancel, Name::Reason), "Q.850;cause=19;text=\"No answer from user\"");
                    lab.answer(&phone, &cancel, 200, None);
                    lab.answer(&phone, &invite, 487, None);
                    lab.request("ACK");
                }
            }
        }
        let last = lab.response(code, "INVITE");
        assert_eq!(Message::parse_stream(&last).unwrap().header(Name::Warning).is_some(), code == 488, "{callee:?}");
        let noted = lab.events.iter().filter_map(|e| match &e.kind {
            CallEventKind::Step { app, data, .. } => (app == "noOp").then(|| data.clone()),
            _ => None,
        });
        assert_eq!(noted.collect::<Vec<_>>(), [variables], "{callee:?}");
        lab.empty();
    }
}

#[test]
fn an_unknown_extension_is_404_and_a_plan_says_its_own_cause() {
    let hangup = |n| Step::Hangup { cause: Some(Cause::new(n).unwrap()) };
    for (cause, code) in [(17, 486), (1, 404), (21, 403), (34, 503), (16, 603)] {
        let mut lab = Lab::plan(steps(&[("100", vec![dial(&["PJSIP/8006"], None), hangup(cause)])]));
        lab.call("8005", "100");
        let last = lab.response(code, "INVITE");
        assert!(field(&last, Name::Reason).starts_with(&format!("Q.850;cause={cause};")));
        lab.empty();
    }
    let mut lab = Lab::new();
    lab.call("8005", "100");
    lab.response(404, "INVITE");
    assert_eq!(lab.ended().0, 1);
    lab.empty();
    // An endpoint whose context does not exist reaches nobody.
    let lost = EndpointEntry {
        context: "nowhere".into(),
        identify_by: vec![IdentifyBy::Username],
        ..endpoint("8005", &["ulaw"])
    };
    lab.put(lost);
    lab.call("8005", "8006");
    lab.response(404, "INVITE");
}

#[test]
fn cancel_while_it_rings() {
    let mut lab = Lab::new();
    lab.register("8006");
    let a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.response(180, "INVITE");
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    let cancel = lab.request_to("CANCEL", "8006");
    assert_eq!(branch(&cancel), branch(&invite));
    lab.answer(&b, &cancel, 200, None);
    lab.answer(&b, &invite, 487, None);
    lab.request("ACK");
    assert_eq!(lab.ended(), (16, "cancelled by the caller".into()));
    lab.empty();
}

#[test]
fn cancel_waits_for_a_provisional_answer() {
    let mut lab = Lab::new();
    lab.register("8006");
    let a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    lab.quiet();
    lab.answer(&b, &invite, 100, None);
    lab.request("CANCEL");
    lab.answer(&b, &invite, 180, None);
    lab.quiet();
    lab.answer(&b, &invite, 487, None);
    lab.request("ACK");
    lab.empty();
}

#[test]
fn a_2xx_that_crosses_cancel_gets_ack_and_bye() {
    for offered in [true, false] {
        let mut lab = Lab::new();
        lab.register("8006");
        let offer = sdp(4000, "0");
        let a = lab.call_with("8005", "8006", offered.then_some(offer.as_str()), |r| r);
        let invite = lab.request("INVITE");
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 180, None);
        lab.response(180, "INVITE");
        lab.cancel(&a, "8006");
        lab.response(200, "CANCEL");
        lab.response(487, "INVITE");
        lab.request("CANCEL");
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        let ack = lab.request("ACK");
        // An offer must be answered, if only by refusing all of it.
        assert_eq!(Message::parse_stream(&ack).unwrap().body().is_empty(), offered);
        let bye = lab.request("BYE");
        assert!(field(&bye, Name::To).ends_with(&b.tag));
        lab.answer(&b, &bye, 200, None);
        // Again, as its ACK was lost.
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        assert_eq!(lab.request("ACK"), ack);
        lab.quiet();
        lab.empty();
    }
}

#[test]
fn cancel_between_the_answer_and_its_passing_on() {
    let mut lab = Lab::new();
    lab.register("8006");
    let a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.response(180, "INVITE");
    lab.hold = Some(|ask| matches!(ask, crate::Ask::Save { .. }));
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    let bye = lab.request("BYE");
    lab.answer(&b, &bye, 200, None);
    // The store answers late; what was asked first is done first.
    let removed: Vec<_> = std::mem::take(&mut lab.records).into_keys().collect();
    assert!(removed.is_empty());
    lab.release();
    lab.records.clear();
    lab.quiet();
    lab.empty();
}

#[test]
fn cancel_after_the_answer_changes_nothing() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    a.branch = "z9hG4bKother".into();
    lab.cancel(&a, "8006");
    lab.response(481, "CANCEL");
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request("BYE");
    lab.answer(&b, &bye, 200, None);
    lab.empty();
}

#[test]
fn no_common_codec_is_488_with_a_warning() {
    let mut lab = Lab::new();
    lab.register("8007");
    // 8007 has alaw only, the caller offers ulaw only.
    lab.call_with("8005", "8007", Some(&sdp(4000, "0 101")), |r| r);
    let last = lab.response(488, "INVITE");
    assert!(field(&last, Name::Warning).starts_with("305 "));
    assert!(lab.take_if(|m| m.is_request()).is_none(), "it does not ring");
    // A callee that answers with nothing of what was offered.
    lab.call_with("8005", "8007", Some(&sdp(4000, "8 101")), |r| r);
    let invite = lab.request("INVITE");
    assert_eq!(body(&invite).media[0].formats, ["8", "101"]);
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.request("BYE");
    lab.response(488, "INVITE");
    lab.empty();
}

#[test]
fn a_relay_that_fails_fails_the_branch() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.relay_down = true;
    lab.call("8005", "8006");
    lab.response(500, "INVITE");
    assert_eq!(lab.core.counters().media_errors, 1);
    lab.relay_down = false;
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.relay_down = true;
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.request("BYE");
    lab.response(500, "INVITE");
    lab.relay.clear();
    lab.relay_down = false;
    lab.empty();
}

#[test]
fn a_caller_may_give_up_by_bye() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    let ringing = lab.response(180, "INVITE");
    Lab::joined(&mut a, &ringing);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    lab.response(487, "INVITE");
    lab.request("CANCEL");
    lab.quiet();
    lab.empty();
}
