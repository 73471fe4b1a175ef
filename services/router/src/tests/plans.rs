//! What the dialplan's language does to a call: menus by digits, dial options, waits, header fields, `h`.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use super::steps::{answer, hang_up, play, request};
use contract::events::CallEventKind;
use contract::media::{MediaEvent, MediaEventKind};
use dialplan::{Assigned, Condition, Dial, DialOptions, Extension, Goto, Pattern, Plan, Playback, Step, Template};
use sip::Name;
use sip::message::Message;
use std::collections::BTreeMap;
use std::time::Duration;

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn set(name: &str, value: &str) -> Step {
    Step::Set { name: Assigned::parse(name).unwrap(), value: template(value) }
}

fn log(text: &str) -> Step {
    Step::NoOp { text: Some(template(text)) }
}

fn background(prompt: &str) -> Step {
    Step::Background(Playback { prompts: vec![template(prompt)] })
}

fn dial_with(to: &str, options: DialOptions) -> Step {
    Step::Dial(Dial { to: vec![template(to)], timeout: Some(Duration::from_secs(30)), options })
}

/// What was logged by noOp steps.
fn logged(lab: &Lab) -> Vec<String> {
    let text = |kind: &CallEventKind| match kind {
        CallEventKind::Step { app, data, .. } if app == "noOp" => Some(data.clone()),
        _ => None,
    };
    lab.events.iter().filter_map(|event| text(&event.kind)).collect()
}

/// The relay hears a digit of a leg: the caller's is the first.
fn press(lab: &mut Lab, leg: usize, digit: char) {
    let view = lab.core.view();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (call, tag) = (text(&view[0]["id"]), text(&view[0]["legs"][leg]["id"]));
    let seq = 1000 + lab.unique("").parse::<u64>().unwrap();
    let event = MediaEvent { seq, call, tag: Some(tag), kind: MediaEventKind::Dtmf { digit, duration: 800 } };
    lab.input(crate::Input::Media { relay: RELAY, event: &event });
}

/// The caller is answered by this conference leg.
fn answered(lab: &mut Lab, a: &mut Phone, tag: &str) -> bytes::Bytes {
    let invite = request(lab, "INVITE");
    answer(lab, &invite, tag, Some(&sdp(6000, "0 101")));
    request(lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(a, &ok);
    lab.within(a, "ACK", None);
    invite
}

/// 8005 is joined with 8006, who answered.
fn talking(lab: &mut Lab) -> (Phone, Phone) {
    lab.register("8006");
    let mut a = lab.call("8005", "100");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    (a, b)
}

fn menu() -> Plan {
    steps(&[
        ("900", vec![background("menu"), Step::WaitExten { timeout: Some(Duration::from_secs(7)) }]),
        ("1", vec![log("one"), Step::Echo {}]),
        ("_2X", vec![log("two ${EXTEN}"), Step::Echo {}]),
        ("i", vec![log("invalid ${INVALID_EXTEN}"), Step::Busy {}]),
        ("t", vec![log("nothing"), Step::Hangup { cause: None }]),
    ])
}

#[test]
fn a_digit_stops_the_menu_and_goes_to_its_extension() {
    let mut lab = Lab::plan(menu());
    let mut a = lab.call("8005", "900");
    answered(&mut lab, &mut a, "m");
    // The callee's digits are not the caller's.
    press(&mut lab, 1, '1');
    lab.quiet();
    press(&mut lab, 0, '1');
    let bye = request(&mut lab, "BYE");
    answer(&mut lab, &bye, "m", None);
    assert_eq!(logged(&lab), ["one"]);
    assert!(request(&mut lab, "INVITE").starts_with(b"INVITE sip:echo@conference.invalid "));
}

#[test]
fn digits_are_waited_for_and_what_they_never_make_is_invalid() {
    for (digits, said) in [("25", "two 25"), ("2", "invalid 2"), ("7", "invalid 7")] {
        let mut lab = Lab::plan(menu());
        let mut a = lab.call("8005", "900");
        answered(&mut lab, &mut a, "m");
        digits.chars().for_each(|digit| press(&mut lab, 0, digit));
        if digits == "2" {
            assert_eq!(logged(&lab), [""; 0]);
            lab.seconds(5);
        }
        assert_eq!(logged(&lab), [said], "{digits}");
        if digits != "25" {
            assert_eq!(lab.ended().0, 17);
        }
    }
}

#[test]
fn nothing_pressed_is_waited_for_after_the_menu() {
    let mut lab = Lab::plan(menu());
    let mut a = lab.call("8005", "900");
    let invite = answered(&mut lab, &mut a, "m");
    hang_up(&mut lab, &invite, "m");
    lab.response(200, "BYE");
    lab.seconds(6);
    assert_eq!(logged(&lab), [""; 0]);
    lab.seconds(1);
    assert_eq!(logged(&lab), ["nothing"]);
    let bye = lab.request_to("BYE", "8005");
    lab.answer(&a, &bye, 200, None);
    lab.quiet();
    lab.empty();
}

#[test]
fn a_digit_after_the_menu_counts_too() {
    let mut lab = Lab::plan(menu());
    let mut a = lab.call("8005", "900");
    let invite = answered(&mut lab, &mut a, "m");
    hang_up(&mut lab, &invite, "m");
    lab.seconds(6);
    press(&mut lab, 0, '1');
    assert_eq!(logged(&lab), ["one"]);
}

#[test]
fn callees_see_what_the_plan_says() {
    let options = DialOptions {
        caller_id: Some(template("\"Desk\" <200>")),
        headers: BTreeMap::from([("X-Call".to_owned(), template("${EXTEN}"))]),
        ring: true,
        ..DialOptions::default()
    };
    let mut lab = Lab::plan(steps(&[(
        "100",
        vec![
            set("PJSIP_HEADER(add,X-Account)", "own ${PJSIP_HEADER(read,X-Account)}"),
            set("CALLERID(name)", "Changed"),
            dial_with("PJSIP/8006", options),
        ],
    )]));
    lab.register("8006");
    lab.call_with("8005", "100", Some(&sdp(4000, "0 101")), |r| r.other("X-Account", "7").other("X-Other", "1"));
    lab.response(180, "INVITE");
    let invite = lab.request_to("INVITE", "8006");
    assert!(field(&invite, Name::From).starts_with("\"Desk\" <sip:200@"), "{}", field(&invite, Name::From));
    let message = Message::parse_stream(&invite).unwrap();
    let named = |name: &str| {
        message.fields().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (named("X-Account"), named("X-Call"), named("X-Other")),
        (vec!["own 7".to_owned()], vec!["100".to_owned()], vec!["1".to_owned()],)
    );
}

#[test]
fn they_talk_for_as_long_as_they_may() {
    let options = DialOptions { limit: Some(Duration::from_secs(60)), ..DialOptions::default() };
    let mut lab = Lab::plan(steps(&[("100", vec![dial_with("PJSIP/8006", options)])]));
    let (a, b) = talking(&mut lab);
    lab.seconds(59);
    lab.quiet();
    lab.seconds(1);
    for (phone, name) in [(&a, "8005"), (&b, "8006")] {
        let bye = lab.request_to("BYE", name);
        lab.answer(phone, &bye, 200, None);
    }
    assert_eq!(lab.ended(), (16, "they talked for as long as they may".to_owned()));
    lab.quiet();
    lab.empty();
}

#[test]
fn a_star_ends_the_talk_where_the_plan_says_so() {
    for by_star in [true, false] {
        let options = DialOptions { hangup_by_star: by_star, ..DialOptions::default() };
        let mut lab = Lab::plan(steps(&[("100", vec![dial_with("PJSIP/8006", options)])]));
        talking(&mut lab);
        press(&mut lab, 1, '1');
        lab.quiet();
        press(&mut lab, 1, '*');
        if by_star {
            lab.request_to("BYE", "8005");
            lab.request_to("BYE", "8006");
        } else {
            lab.quiet();
        }
    }
}

#[test]
fn the_plan_goes_on_when_the_callee_hangs_up() {
    let options = DialOptions { go_on: true, ..DialOptions::default() };
    let mut lab =
        Lab::plan(steps(&[("100", vec![dial_with("PJSIP/8006", options), log("${DIALSTATUS}"), play(&["bye"])])]));
    let (mut a, mut b) = talking(&mut lab);
    lab.within(&mut b, "BYE", None);
    lab.response(200, "BYE");
    assert_eq!(logged(&lab), ["ANSWER"]);
    let invite = request(&mut lab, "INVITE");
    answer(&mut lab, &invite, "t", Some(&sdp(6000, "0 101")));
    request(&mut lab, "ACK");
    lab.quiet();
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = request(&mut lab, "BYE");
    answer(&mut lab, &bye, "t", None);
    lab.empty();
}

#[test]
fn a_wait_takes_its_time_and_a_caller_may_go_meanwhile() {
    let plan = || {
        steps(&[(
            "100",
            vec![
                Step::Ringing {},
                Step::Wait { duration: Duration::from_secs(3) },
                Step::Progress {},
                Step::Wait { duration: Duration::from_secs(3) },
                Step::Busy {},
            ],
        )])
    };
    let mut lab = Lab::plan(plan());
    lab.call("8005", "100");
    lab.response(180, "INVITE");
    lab.seconds(2);
    lab.quiet();
    lab.seconds(1);
    lab.response(183, "INVITE");
    lab.seconds(3);
    lab.response(486, "INVITE");
    lab.empty();

    let mut lab = Lab::plan(plan());
    let a = lab.call("8005", "100");
    lab.response(180, "INVITE");
    lab.cancel(&a, "100");
    lab.response(487, "INVITE");
    lab.wire.clear();
    lab.empty();
}

#[test]
fn steps_run_on_conditions_and_a_fault_is_counted() {
    let lines: Vec<(&str, Step)> = vec![
        ("headers['X-None'] == '1'", log("never")),
        (
            "caller.number == '8005' && extension == '100'",
            Step::Goto(Goto { label: Some(template("end")), ..Goto::default() }),
        ),
        ("true", log("passed over")),
        ("true", log("end")),
    ];
    let when = lines.iter().enumerate().map(|(at, (text, _))| (at, Condition::parse(text).unwrap())).collect();
    let extension = Extension::new(Pattern::parse("100").unwrap(), lines.into_iter().map(|(_, s)| s).collect());
    let extension = extension.marked(BTreeMap::from([("end".to_owned(), 3)]), when);
    let mut lab = Lab::plan(Plan::new("from-external", vec![], vec![extension]).unwrap());
    lab.call("8005", "100");
    assert_eq!(logged(&lab), ["end"]);
    assert_eq!(lab.core.counters().plan_faults, 1);
    lab.response(603, "INVITE");
    lab.empty();
}

#[test]
fn after_the_end_its_steps_run_without_anybody() {
    let mut lab = Lab::plan(steps(&[
        ("100", vec![set("N", "1"), dial(&["PJSIP/8006"], None)]),
        ("h", vec![log("${N} ${HANGUPCAUSE} ${DIALSTATUS}"), Step::Echo {}, log("done")]),
    ]));
    let (mut a, b) = talking(&mut lab);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8006");
    lab.answer(&b, &bye, 200, None);
    assert_eq!(logged(&lab), ["1 16 ANSWER", "done"]);
    lab.quiet();
    lab.empty();
}

#[test]
fn an_endless_loop_ends_with_its_reason() {
    let again = Step::Goto(Goto { extension: Some(template("${EXTEN}")), ..Goto::default() });
    let mut lab = Lab::plan(steps(&[("100", vec![again])]));
    lab.call("8005", "100");
    lab.response(503, "INVITE");
    assert!(lab.ended().1.contains("endless loop"), "{:?}", lab.ended());
    lab.empty();
}

#[test]
fn a_menu_and_a_limit_go_on_at_another_router() {
    let menu = vec![set("LANG", "de"), background("menu"), Step::WaitExten { timeout: None }];
    let mut lab = Lab::plan(steps(&[("100", menu), ("5", vec![log("five ${LANG}"), Step::Echo {}])])).fleet(&[HEIR]);
    let mut a = lab.call("8005", "100");
    answered(&mut lab, &mut a, "m");
    lab.seconds(60);
    lab.gone(HEIR);
    assert_eq!(lab.core.counters().adopted, 1);
    press(&mut lab, 0, '5');
    assert_eq!(logged(&lab), ["five de"]);

    let options = DialOptions { limit: Some(Duration::from_secs(100)), ..DialOptions::default() };
    let mut lab = Lab::plan(steps(&[("100", vec![dial_with("PJSIP/8006", options)])])).fleet(&[HEIR]);
    talking(&mut lab);
    lab.seconds(60);
    lab.gone(HEIR);
    let gone = lab.now.mono.as_secs();
    while lab.core.load().calls > 0 && lab.now.mono.as_secs() < gone + 60 {
        lab.seconds(1);
    }
    assert_eq!(lab.ended().1, "they talked for as long as they may");
    assert!((30..=41).contains(&(lab.now.mono.as_secs() - gone)), "{}", lab.now.mono.as_secs() - gone);
}
