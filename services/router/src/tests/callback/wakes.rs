//! A phone that registers while a caller is held for it is rung.

use super::*;
use crate::io::{Ask, Input};
use sip::message::Message;

#[test]
fn the_caller_is_held_the_phone_woken_and_both_talk() {
    let mut lab = asleep();
    let mut a = lab.call("8005", "8006");
    let ringing = lab.response(180, "INVITE");
    assert!(String::from_utf8_lossy(&ringing).contains("X-KubePBX-Held: yes"), "another router would go on");
    let tag = Message::parse_stream(&ringing).unwrap().to().unwrap().tag().unwrap().to_owned();
    let record = lab.held();
    let held = record.held.clone().unwrap();
    assert_eq!(lab.records.len(), 1, "the INVITE stands in the call's record: {:?}", lab.records.keys());
    let invite = held.invite.unwrap();
    assert_eq!((invite.from, invite.to_tag), (BALANCER, tag.clone()));
    assert!(invite.request.starts_with("INVITE sip:8006@") && invite.request.contains("m=audio 4000"));
    let wait = &held.waits[0];
    assert_eq!((wait.endpoint.as_str(), wait.until - wait.since), ("8006", 90));
    let notice = &lab.notices[0];
    assert_eq!(notice["id"].as_str(), Some(wait.id.as_str()));
    assert_eq!(notice["from"]["number"], "8005");
    assert_eq!((notice["endpoint"].as_str(), notice["call"].as_str()), (Some("8006"), Some(record.id.as_str())));
    assert_eq!(lab.told(), [wake()]);
    assert_eq!(lab.core.view_holds()[0]["endpoint"], "8006");
    // Nobody on the way gives up.
    lab.seconds(59);
    lab.quiet();
    lab.seconds(2);
    assert!(String::from_utf8_lossy(&lab.response(180, "INVITE")).contains(&tag));
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    assert!(field(&invite, Name::Route).contains(&lab.flow("8006").token(&lab.keys)), "by its Path");
    // It refreshes its registration while it rings: it is not rung twice.
    lab.wakes("8006");
    lab.seconds(6);
    lab.quiet();
    assert_eq!(lab.hold_events(), ["held", "notified", "woken"]);
    lab.talks(&mut a, &invite);
}

#[test]
fn registrations_are_found_without_hints() {
    let mut lab = asleep();
    let mut a = lab.held_call();
    lab.register("8006");
    lab.seconds(4);
    lab.quiet();
    lab.seconds(1);
    let invite = lab.request_to("INVITE", "8006");
    lab.talks(&mut a, &invite);
}

#[test]
fn after_hints_were_missed_bindings_are_read_within_a_second() {
    let mut lab = asleep();
    let mut a = lab.held_call();
    lab.seconds(1);
    lab.register("8006");
    lab.input(Input::RegistrationsMissed);
    lab.seconds(1);
    let invite = lab.request_to("INVITE", "8006");
    lab.talks(&mut a, &invite);
}

#[test]
fn who_registers_before_anybody_looks_again_is_rung_and_not_woken() {
    let mut lab = asleep();
    // Between the first look and the store's word that the hold is in it.
    lab.hold = Some(|ask| matches!(ask, Ask::Save { .. }));
    let mut a = lab.call("8005", "8006");
    lab.quiet();
    lab.wakes("8006");
    lab.release();
    lab.response(180, "INVITE");
    let invite = lab.request_to("INVITE", "8006");
    assert_eq!(lab.told(), []);
    lab.talks(&mut a, &invite);
}

#[test]
fn a_stale_contact_is_tried_and_then_the_phone_is_woken() {
    for how in [408, 430, 404, 503, 0] {
        let mut lab = asleep();
        lab.register("8006");
        let mut a = lab.call("8005", "8006");
        let stale = lab.request_to("INVITE", "8006");
        assert_eq!(lab.told(), [], "{how}");
        match how {
            0 => lab.seconds(33),
            430 => {
                // No balancer has the flow.
                let mut next = Some(stale);
                for _ in 0..12 {
                    if let Some(invite) = next {
                        let b = lab.callee(&invite);
                        lab.answer(&b, &invite, how, None);
                    }
                    lab.seconds(1);
                    next = lab.take_if(|m| m.method().is_some_and(|m| m.as_str() == "INVITE"));
                }
            }
            _ => {
                let b = lab.callee(&stale);
                lab.answer(&b, &stale, how, None);
                lab.request_to("ACK", "8006");
            }
        }
        lab.response(180, "INVITE");
        assert_eq!(lab.told(), [wake()], "{how}");
        let seen = lab.held().held.unwrap().waits[0].seen.clone();
        assert_eq!((seen.len(), seen[0].contact.as_str()), (1, "sip:8006@127.0.0.1:8006"), "{how}");
        // The same registration does not count; the next one does.
        lab.input(Input::Registered("8006"));
        lab.seconds(10);
        assert!(lab.take_if(|m| m.method().is_some_and(|m| m.as_str() == "INVITE")).is_none(), "{how}");
        lab.wakes("8006");
        let invite = lab.take(|m| m.uri().is_some_and(|u| u == "sip:8006@127.0.0.1:7000"), "INVITE");
        lab.wire.clear();
        lab.talks(&mut a, &invite);
    }
}

#[test]
fn a_contact_that_fails_once_woken_is_waited_for_again() {
    let mut lab = asleep();
    let mut a = lab.held_call();
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 503, None);
    lab.request_to("ACK", "8006");
    lab.seconds(10);
    lab.quiet();
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    assert_eq!(lab.told(), [wake()], "woken once a hold");
    lab.talks(&mut a, &invite);
}

#[test]
fn two_phones_wake_and_both_ring() {
    let mut lab = asleep();
    let mut a = lab.held_call();
    lab.wakes_as("8006", Some("<urn:uuid:1>"));
    let one = lab.request_to("INVITE", "8006");
    lab.wakes_as("8006", Some("<urn:uuid:2>"));
    let two = lab.request_to("INVITE", "8006");
    lab.wakes_as("8006", Some("<urn:uuid:1>"));
    lab.quiet();
    assert_eq!(lab.told(), [wake()]);
    let b = lab.callee(&one);
    lab.answer(&b, &one, 180, None);
    lab.talks_elsewhere(&mut a, &two, &b, &one);
}

#[test]
fn a_phone_that_wakes_late_rings_for_as_long_as_any() {
    let mut lab = asleep();
    let mut a = lab.call("8005", "8006");
    lab.seconds(88);
    while lab.take_if(|m| m.status() == Some(180)).is_some() {}
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    lab.seconds(40);
    while lab.take_if(|m| m.status() == Some(180)).is_some() {}
    lab.quiet();
    assert_eq!(lab.core.load().holds, 0, "nobody else is waited for");
    assert_eq!(lab.told(), [wake()]);
    lab.talks(&mut a, &invite);
}

#[test]
fn one_that_is_awake_and_is_always_woken_rings_at_once() {
    let mut lab = Lab::new();
    lab.put(wakeable("8006", true));
    lab.register("8006");
    let mut a = lab.held_call();
    let old = lab.request_to("INVITE", "8006");
    assert_eq!(lab.told(), [wake()]);
    let b = lab.callee(&old);
    lab.answer(&b, &old, 180, None);
    lab.wakes_as("8006", Some("<urn:uuid:2>"));
    let new = lab.take(|m| m.uri() == Some("sip:8006@127.0.0.1:7001"), "INVITE");
    lab.talks_elsewhere(&mut a, &new, &b, &old);
}

#[test]
fn one_that_is_awake_is_not_woken() {
    let mut lab = asleep();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request_to("INVITE", "8006");
    assert_eq!((lab.told(), lab.core.load().holds), (vec![], 0));
    lab.talks(&mut a, &invite);
}

#[test]
fn both_call_each_other() {
    let mut lab = asleep();
    lab.put(wakeable("8005", false));
    let mut a = lab.held_call();
    let mut b = lab.call("8006", "8005");
    lab.response(180, "INVITE");
    assert_eq!((lab.core.load().holds, lab.told().len()), (2, 2));
    lab.wakes("8006");
    let to_b = lab.request_to("INVITE", "8006");
    lab.wakes("8005");
    let to_a = lab.request_to("INVITE", "8005");
    // One sees that the other calls, and is busy; the other answers.
    let at_a = lab.callee(&to_a);
    lab.answer(&at_a, &to_a, 486, None);
    lab.request_to("ACK", "8005");
    let busy = lab.response(486, "INVITE");
    assert!(String::from_utf8_lossy(&busy).contains(&b.call_id));
    b.cseq += 1;
    lab.talks(&mut a, &to_b);
}

#[test]
fn a_caller_that_is_answered_is_held_too() {
    let (mut lab, mut a) = answered(&[]);
    assert_eq!(lab.told(), [wake()]);
    let held = lab.held().held.unwrap();
    assert!(held.invite.is_none() && held.waits.len() == 1);
    lab.seconds(60);
    lab.wakes("8006");
    lab.request_to("INVITE", "8006");
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    assert_eq!(lab.told(), [cancelled("cancelled")]);
}
