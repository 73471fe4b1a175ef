//! How holds end without the phone that was woken.

use super::*;
use crate::io::{Ask, Input};

#[test]
fn when_nobody_wakes_the_plan_goes_on() {
    let mut lab = Lab::plan(steps(&[(
        "_80XX",
        vec![dial(&["PJSIP/8006"], Some(10)), dial(&["PJSIP/8007"], None), Step::Hangup { cause: None }],
    )]));
    lab.put(wakeable("8006", false));
    lab.register("8007");
    let a = lab.call_with("8005", "8006", Some(&sdp(4000, "8")), |r| r);
    lab.response(180, "INVITE");
    // The step's own timeout is for a phone that rings.
    lab.seconds(89);
    lab.response(180, "INVITE");
    lab.quiet();
    lab.seconds(1);
    let invite = lab.request_to("INVITE", "8007");
    assert_eq!(lab.told(), [wake(), cancelled("timeout")]);
    assert!(lab.records.is_empty(), "who only rings is in no record");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 486, None);
    lab.request_to("ACK", "8007");
    let busy = lab.response(486, "INVITE");
    assert!(field(&busy, Name::Reason).contains("cause=17"));
    drop(a);
    lab.empty();
}

#[test]
fn without_a_next_step_the_caller_is_answered_480() {
    let mut lab = asleep();
    lab.call("8005", "8006");
    lab.seconds(90);
    lab.response(180, "INVITE");
    let gone = lab.response(480, "INVITE");
    assert!(field(&gone, Name::Reason).contains("cause=19"), "{gone:?}");
    lab.empty();
}

#[test]
fn a_caller_that_gives_up_is_answered_at_once_and_the_phone_need_not_wake() {
    let mut lab = asleep();
    let a = lab.held_call();
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    assert_eq!(lab.told(), [wake(), cancelled("cancelled")]);
    assert!(!lab.core.waits_for("8006"));
    assert_eq!(lab.hold_events(), ["held", "notified", "released", "notified"]);
    lab.empty();
}

#[test]
fn a_caller_that_gives_up_while_the_phone_is_being_woken() {
    let mut lab = asleep();
    lab.hold = Some(|ask| matches!(ask, Ask::Notify { .. }));
    let a = lab.held_call();
    lab.cancel(&a, "8006");
    lab.response(487, "INVITE");
    assert_eq!(lab.told(), []);
    lab.release();
    assert_eq!(lab.told(), [wake(), cancelled("cancelled")], "in this order, by the hold's lane");
    // The phone wakes all the same, and nobody calls it.
    lab.register("8006");
    lab.seconds(10);
    lab.response(200, "CANCEL");
    lab.quiet();
    lab.empty();
}

#[test]
fn a_caller_that_gives_up_while_the_hold_is_being_saved() {
    let mut lab = asleep();
    lab.hold = Some(|ask| matches!(ask, Ask::Save { .. } | Ask::Remove { .. }));
    let a = lab.call("8005", "8006");
    lab.cancel(&a, "8006");
    lab.response(487, "INVITE");
    lab.release();
    assert_eq!(lab.told(), []);
    lab.empty();
}

#[test]
fn who_wakes_and_declines_has_answered() {
    let mut lab = asleep();
    lab.held_call();
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 603, None);
    lab.request_to("ACK", "8006");
    lab.response(603, "INVITE");
    assert_eq!(lab.told(), [wake()], "the phone knows");
    lab.empty();
}

#[test]
fn another_target_answers_and_the_phone_need_not_wake() {
    let mut lab =
        Lab::plan(steps(&[("_80XX", vec![dial(&["PJSIP/8006", "PJSIP/8009"], None), Step::Hangup { cause: None }])]));
    lab.put(wakeable("8006", false));
    lab.register("8009");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request_to("INVITE", "8009");
    lab.response(180, "INVITE");
    let b = lab.connects(&mut a, &invite);
    assert_eq!(lab.told(), [wake(), cancelled("answered")]);
    lab.ends(&mut a, &b);
}

#[test]
fn without_the_store_nobody_is_held() {
    let mut lab = asleep();
    lab.hold = Some(|ask| matches!(ask, Ask::Save { .. }));
    lab.call("8005", "8006");
    lab.store_down = true;
    lab.release();
    let refused = lab.response(503, "INVITE");
    assert!(!field(&refused, Name::RetryAfter).is_empty());
    assert_eq!(lab.told(), []);
    lab.store_down = false;
    lab.empty();
}

#[test]
fn a_store_that_goes_ends_holds() {
    let mut lab = asleep();
    lab.held_call();
    lab.store_down = true;
    lab.seconds(5);
    lab.response(503, "INVITE");
    assert_eq!(lab.told(), [wake(), cancelled("store")]);
    lab.store_down = false;
    // What could not be removed is removed by who finds it.
    lab.records.clear();
    lab.owners.clear();
    lab.empty();
}

#[test]
fn a_hold_is_rung_or_given_up_by_command() {
    let mut lab = asleep();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let stale = lab.request_to("INVITE", "8006");
    let b = lab.callee(&stale);
    lab.answer(&b, &stale, 408, None);
    lab.request_to("ACK", "8006");
    lab.response(180, "INVITE");
    let id = lab.core.view_holds()[0]["id"].as_str().unwrap().to_owned();
    assert!(lab.core.has_hold(&id) && !lab.core.has_hold("another"));
    lab.input(Input::Ring("another"));
    lab.input(Input::Ring(&id));
    let invite = lab.request_to("INVITE", "8006");
    lab.input(Input::Ring(&id));
    lab.quiet();
    let again = lab.call("8009", "8006");
    let other = lab.request_to("INVITE", "8006");
    lab.answer(&b, &other, 408, None);
    lab.request_to("ACK", "8006");
    lab.response(180, "INVITE");
    let holds = lab.core.view_holds();
    let second = holds.as_array().unwrap().iter().find(|h| h["from"] == "8009").unwrap()["id"].clone();
    lab.input(Input::GiveUp(second.as_str().unwrap()));
    let gone = lab.response(480, "INVITE");
    assert!(String::from_utf8_lossy(&gone).contains(&again.call_id));
    lab.talks(&mut a, &invite);
}
