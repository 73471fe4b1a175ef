//! Callers held until a phone that is asleep has registered.

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use crate::Limits;
use crate::io::{Ask, Input};
use bytes::Bytes;
use contract::config::{CallbackEntry, EndpointEntry, Secret, WebhookEntry};
use contract::events::CallEventKind;
use contract::location::{Binding, Push};
use contract::records::CallRecord;
use dialplan::Step;
use sip::Name;
use sip::message::Message;

/// An endpoint whose phone is woken.
fn wakeable(name: &str, always: bool) -> EndpointEntry {
    let webhook = WebhookEntry { url: "http://127.0.0.1:9/wake".into(), secret: Secret::new("s3cret") };
    EndpointEntry {
        callback: Some(CallbackEntry { hold_time: 90, always, webhook }),
        ..endpoint(name, &["ulaw", "alaw"])
    }
}

fn asleep() -> Lab {
    let mut lab = Lab::new();
    lab.put(wakeable("8006", false));
    lab
}

impl Lab {
    /// The phone registers (anew), and the store says so.
    fn wakes(&mut self, name: &str) {
        self.wakes_as(name, None);
    }

    fn wakes_as(&mut self, name: &str, instance: Option<&str>) {
        self.aors.entry(name.into()).or_default().bindings.retain(|b| b.instance.as_deref() != instance);
        let port = self.aors[name].bindings.len();
        self.register_at(name, &format!("sip:{name}@127.0.0.1:{}", 7000 + port));
        let (now, serial) = (self.now.unix(), self.unique("reg"));
        let binding = self.aors.get_mut(name).unwrap().bindings.last_mut().unwrap();
        binding.instance = instance.map(str::to_owned);
        binding.updated = now;
        binding.call_id = serial;
        assert!(self.core.waits_for(name));
        self.input(Input::Registered(name));
    }

    /// `type` and reason of what whoever wakes phones was told.
    fn told(&mut self) -> Vec<(String, String)> {
        let text = |notice: &serde_json::Value, name: &str| notice[name].as_str().unwrap_or_default().to_owned();
        std::mem::take(&mut self.notices).iter().map(|n| (text(n, "type"), text(n, "reason"))).collect()
    }

    fn held(&self) -> CallRecord {
        let record = self.records.iter().find(|((kind, _), _)| kind == "call").unwrap();
        serde_json::from_slice(record.1).unwrap()
    }

    /// The phone that rings answers, and both talk; then the caller hangs up and nothing is left.
    #[track_caller]
    fn talks(mut self, a: &mut Phone, invite: &Bytes) {
        let b = self.callee(invite);
        self.answer(&b, invite, 200, Some(&sdp(5000, "0 101")));
        self.request_to("ACK", &b.name);
        let ok = self.response(200, "INVITE");
        assert!(self.held().held.is_none());
        Lab::joined(a, &ok);
        self.within(a, "ACK", None);
        self.ends(a, &b);
    }

    /// The kinds of events that are about holds, by their names in JSON.
    fn hold_events(&self) -> Vec<String> {
        let name = |kind: &CallEventKind| serde_json::to_value(kind).unwrap()["type"].as_str().unwrap().to_owned();
        let of = ["held", "notified", "notNotified", "woken", "released"];
        self.events.iter().map(|e| name(&e.kind)).filter(|name| of.contains(&name.as_str())).collect()
    }
}

fn wake() -> (String, String) {
    ("wake".into(), String::new())
}

fn cancelled(why: &str) -> (String, String) {
    ("cancelled".into(), why.into())
}

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
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
    let a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
    let a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
        let b = lab.callee(&invite);
        lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
        lab.request_to("ACK", "8006");
        let ok = lab.response(200, "INVITE");
        Lab::joined(&mut a, &ok);
        lab.within(&mut a, "ACK", None);
        lab.ends(&mut a, &b);
    }
}

#[test]
fn a_contact_that_fails_once_woken_is_waited_for_again() {
    let mut lab = asleep();
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
    lab.wakes_as("8006", Some("<urn:uuid:1>"));
    let one = lab.request_to("INVITE", "8006");
    lab.wakes_as("8006", Some("<urn:uuid:2>"));
    let two = lab.request_to("INVITE", "8006");
    lab.wakes_as("8006", Some("<urn:uuid:1>"));
    lab.quiet();
    assert_eq!(lab.told(), [wake()]);
    let b = lab.callee(&one);
    lab.answer(&b, &one, 180, None);
    lab.talks_with_other(&mut a, &two, &b, &one);
}

impl Lab {
    #[track_caller]
    fn talks_with_other(mut self, a: &mut Phone, winner: &Bytes, loser: &Phone, rang: &Bytes) {
        let b = self.callee(winner);
        self.answer(&b, winner, 200, Some(&sdp(5000, "0 101")));
        self.request_to("ACK", &b.name);
        let cancel = self.request_to("CANCEL", &loser.name);
        assert!(field(&cancel, Name::Reason).contains("elsewhere"));
        self.answer(loser, &cancel, 200, None);
        self.answer(loser, rang, 487, None);
        self.request_to("ACK", &loser.name);
        let ok = self.response(200, "INVITE");
        assert_eq!(self.told(), [], "the phones know");
        Lab::joined(a, &ok);
        self.within(a, "ACK", None);
        self.ends(a, &b);
    }
}

#[test]
fn who_wakes_and_declines_has_answered() {
    let mut lab = asleep();
    lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
    let old = lab.request_to("INVITE", "8006");
    assert_eq!(lab.told(), [wake()]);
    let b = lab.callee(&old);
    lab.answer(&b, &old, 180, None);
    lab.wakes_as("8006", Some("<urn:uuid:2>"));
    let new = lab.take(|m| m.uri() == Some("sip:8006@127.0.0.1:7001"), "INVITE");
    lab.talks_with_other(&mut a, &new, &b, &old);
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
fn another_target_answers_and_the_phone_need_not_wake() {
    let mut lab =
        Lab::plan(steps(&[("_80XX", vec![dial(&["PJSIP/8006", "PJSIP/8009"], None), Step::Hangup { cause: None }])]));
    lab.put(wakeable("8006", false));
    lab.register("8009");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request_to("INVITE", "8009");
    lab.response(180, "INVITE");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8009");
    let ok = lab.response(200, "INVITE");
    assert_eq!(lab.told(), [wake(), cancelled("answered")]);
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.ends(&mut a, &b);
}

#[test]
fn both_call_each_other() {
    let mut lab = asleep();
    lab.put(wakeable("8005", false));
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
fn whoever_wakes_phones_hears_how_their_push_services_find_them() {
    let mut lab = asleep();
    lab.register("8006");
    let push = |prid: &str| Some(Push { provider: "fcm".into(), prid: Some(prid.into()), param: None });
    let expired = lab.aors.get_mut("8006").unwrap().bindings.pop().unwrap();
    for prid in ["a", "b", "a"] {
        let remembered = Binding { expires_at: 1, forget_at: Some(u64::MAX / 2), push: push(prid), ..expired.clone() };
        lab.aors.get_mut("8006").unwrap().bindings.push(remembered);
    }
    lab.call("8005", "8006");
    lab.response(180, "INVITE");
    lab.quiet();
    let want = serde_json::json!([{"provider": "fcm", "prid": "a"}, {"provider": "fcm", "prid": "b"}]);
    assert_eq!(lab.notices[0]["push"], want);
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
    lab.call("8005", "8006");
    lab.response(180, "INVITE");
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
fn whoever_wakes_phones_is_told_again_until_it_takes_it() {
    let mut lab = asleep();
    lab.receiver = Err("connection refused".into());
    lab.call("8005", "8006");
    lab.response(180, "INVITE");
    let mut ids = Vec::new();
    for (seconds, tries) in [(0, 1), (1, 2), (2, 3), (4, 4), (8, 5), (15, 6)] {
        lab.seconds(seconds);
        assert_eq!(lab.notices.len(), tries, "after {seconds} more");
        ids = lab.notices.iter().map(|n| n["id"].clone()).collect();
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "one id a hold");
    lab.receiver = Ok(503);
    lab.seconds(15);
    lab.receiver = Ok(200);
    lab.seconds(15);
    lab.seconds(15);
    assert_eq!(lab.notices.len(), 8, "taken");
    assert_eq!(lab.core.counters().notify_errors, 7);
    lab.notices.clear();
    // What the receiver finds wrong with it stays wrong.
    lab.receiver = Ok(400);
    lab.seconds(30);
    assert_eq!(lab.told(), [cancelled("timeout")]);
    lab.empty();
}

#[test]
fn no_more_are_held_than_there_is_room_for() {
    let limits = Limits { max_holds: 1, ..Limits::default() };
    let mut lab = Lab::with(limits, steps(&[("_80XX", vec![dial(&["PJSIP/${EXTEN}"], None)])]));
    lab.put(wakeable("8006", false));
    lab.call("8005", "8006");
    lab.response(180, "INVITE");
    lab.call("8007", "8006");
    lab.response(480, "INVITE");
    assert_eq!(lab.core.counters().overflow, 1);
    lab.seconds(90);
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

#[test]
fn a_caller_that_is_answered_is_held_too() {
    let plan = steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]);
    let mut lab = Lab::plan(plan);
    lab.put(wakeable("8006", false));
    let mut a = lab.call("8005", "100");
    let silence = super::steps::request(&mut lab, "INVITE");
    super::steps::answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 8 101")));
    super::steps::request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    assert_eq!(lab.told(), [wake()]);
    let held = lab.held().held.unwrap();
    assert!(held.invite.is_none() && held.waits.len() == 1);
    lab.seconds(60);
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    assert_eq!(lab.told(), [cancelled("cancelled")]);
    drop(invite);
}

/// 8005 is held for 8006 at a router that dies, and another goes on with it.
fn taken_over() -> (Lab, Phone, String) {
    let mut lab = asleep().fleet(&[HEIR]);
    let a = lab.call("8005", "8006");
    let first = lab.response(180, "INVITE");
    lab.seconds(30);
    let id = lab.notices[0]["id"].as_str().unwrap().to_owned();
    lab.notices.clear();
    lab.gone(HEIR);
    let again = lab.response(180, "INVITE");
    let tag = |bytes: &Bytes| Message::parse_stream(bytes).unwrap().to().unwrap().tag().unwrap().to_owned();
    assert_eq!(tag(&again), tag(&first));
    assert_eq!(field(&again, Name::Via), field(&first, Name::Via));
    assert!(String::from_utf8_lossy(&again).contains("X-KubePBX-Held"));
    (lab, a, id)
}

#[test]
fn another_router_goes_on_and_connects() {
    let (mut lab, mut a, id) = taken_over();
    assert_eq!(lab.owners.values().map(|o| (o.process, o.epoch)).collect::<Vec<_>>(), [(HEIR, 2)]);
    assert_eq!(lab.notices[0]["id"].as_str(), Some(id.as_str()), "whoever wakes phones sees one hold");
    assert_eq!(lab.core.counters().adopted, 1);
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    lab.talks(&mut a, &invite);
}

#[test]
fn another_router_holds_for_what_is_left_of_the_time() {
    let (mut lab, _, _) = taken_over();
    lab.seconds(58);
    assert!(lab.take_if(|m| m.status() == Some(480)).is_none());
    lab.seconds(3);
    lab.response(480, "INVITE");
    lab.wire.clear();
    lab.empty();
}

#[test]
fn another_router_takes_the_callers_cancel() {
    let (mut lab, a, _) = taken_over();
    lab.cancel(&a, "8006");
    lab.response(200, "CANCEL");
    lab.response(487, "INVITE");
    assert_eq!(lab.told(), [wake(), cancelled("cancelled")]);
    lab.empty();
}

#[test]
fn a_router_that_was_frozen_drops_what_another_holds_now() {
    let (mut lab, _, _) = taken_over();
    lab.peers.0.push(contract::peers::Peer::new(contract::Service::Router, ROUTER));
    lab.switch(ROUTER);
    lab.seconds(3);
    assert_eq!((lab.core.load().calls, lab.core.load().holds), (0, 0));
    assert!(lab.take_if(|m| m.status().is_some_and(|s| s >= 200)).is_none(), "without a word");
    assert_eq!(lab.told(), [wake()]);
}

#[test]
fn a_router_that_drains_leaves_its_holds_to_another() {
    let mut lab = asleep().fleet(&[HEIR]);
    let mut a = lab.call("8005", "8006");
    lab.response(180, "INVITE");
    lab.notices.clear();
    lab.draining = true;
    lab.input(Input::HangUp);
    lab.quiet();
    assert!(lab.core.is_idle());
    lab.draining = false;
    lab.gone(HEIR);
    lab.response(180, "INVITE");
    lab.wakes("8006");
    let invite = lab.request_to("INVITE", "8006");
    assert_eq!(lab.told(), [wake()]);
    lab.talks(&mut a, &invite);
}

#[test]
fn an_answered_caller_is_held_by_another_router_too() {
    let plan = steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]);
    let mut lab = Lab::plan(plan).fleet(&[HEIR]);
    lab.put(wakeable("8006", false));
    let mut a = lab.call("8005", "100");
    let silence = super::steps::request(&mut lab, "INVITE");
    super::steps::answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 8 101")));
    super::steps::request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    let id = lab.notices[0]["id"].clone();
    lab.seconds(50);
    lab.gone(HEIR);
    assert_eq!(lab.notices[1]["id"], id);
    lab.wakes("8006");
    lab.request_to("INVITE", "8006");
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn ten_thousand_are_held_in_less_than_200_mb() {
    let mut lab = asleep();
    let before = resident();
    for _ in 0..10_000 {
        lab.call("8005", "8006");
        lab.wire.clear();
        lab.notices.clear();
        lab.events.clear();
    }
    // With what the challenges leave behind for half a minute, and with what stands in the store.
    assert_eq!(lab.core.load().holds, 10_000);
    let used = resident().saturating_sub(before);
    println!("{} kB a held caller", used / 10_000 / 1024);
    assert!(used < 200_000_000, "{used}");
    lab.seconds(90);
    assert_eq!((lab.core.load().holds, lab.core.load().calls), (0, 0));
    lab.wire.clear();
    lab.empty();
}
