//! What whoever wakes phones is told.

use super::*;
use contract::location::{Binding, Push};

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
    lab.held_call();
    lab.quiet();
    let want = serde_json::json!([{"provider": "fcm", "prid": "a"}, {"provider": "fcm", "prid": "b"}]);
    assert_eq!(lab.notices[0]["push"], want);
}

#[test]
fn whoever_wakes_phones_is_told_again_until_it_takes_it() {
    let mut lab = asleep();
    lab.receiver = Err("connection refused".into());
    lab.held_call();
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
