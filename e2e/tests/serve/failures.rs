//! Calls that fail, and what each side is told.

use e2e::{Pbx, Phone};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

/// Calls `to` as 8005 and returns the final status; the call must not succeed.
fn refused(pbx: &Pbx, password: &str, to: &str) -> u64 {
    let mut caller = Phone::with_password("call", pbx.sip, "8005", password, &["--to", to]).unwrap();
    let (ok, report) = caller.report(SOON).unwrap();
    assert!(!ok && report["calls"][0]["setup_ms"].is_null(), "{report}");
    report["calls"][0]["status"].as_u64().unwrap()
}

#[test]
fn a_wrong_password_is_refused_again_and_again_and_never_calls() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
    for _ in 0..3 {
        let mut phone = Phone::with_password("register", pbx.sip, "8005", "wrong", &[]).unwrap();
        let (ok, report) = phone.report(SOON).unwrap();
        assert!(!ok && report["registered"] == 401, "{report}");
        assert_eq!(refused(&pbx, "wrong", "8006"), 401);
        assert_eq!(pbx.items("registrations").unwrap().len(), 1);
        assert!(pbx.items("calls").unwrap().is_empty());
    }
    // With its own password the same phone gets through, and this was the callee's first call.
    let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "0.2"]).unwrap();
    let (ok, report) = caller.report(SOON).unwrap();
    assert!(ok, "{report}");
    let (ok, report) = callee.report(SOON).unwrap();
    assert!(ok && report["calls"].as_array().is_some_and(|calls| calls.len() == 1), "{report}");
}

#[test]
fn who_is_not_there_cannot_be_called() {
    let pbx = Pbx::first_call(&[]).unwrap();
    assert_eq!(refused(&pbx, "8005", "8006"), 480, "8006 is not registered");
    assert_eq!(refused(&pbx, "8005", "8099"), 404, "the pattern has 8099, but there is no such endpoint");
    assert_eq!(refused(&pbx, "8005", "9999"), 404, "no pattern has 9999");
    pbx.idle().unwrap();
}

#[test]
fn a_call_that_is_given_up_stops_ringing() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--ring", "60"]).unwrap();
    let options = ["--to", "8006", "--cancel-after", "1"];
    let (_, report) = Phone::start("call", pbx.sip, "8005", &options).unwrap().report(SOON).unwrap();
    let call = &report["calls"][0];
    assert!(call["status"] == 487 && call["ringing_ms"].is_number() && call["setup_ms"].is_null(), "{report}");
    let (_, report) = callee.report(SOON).unwrap();
    let call = &report["calls"][0];
    assert!(call["status"] == 487 && call["ended_by_remote"] == true && call["setup_ms"].is_null(), "{report}");
    pbx.idle().unwrap();
    pbx.no_ports().unwrap();
}

/// The first call with an idle timeout of 2 s.
fn impatient() -> Pbx {
    let pbx = "apiVersion: kubepbx.io/v1alpha1\nkind: Pbx\nmetadata: {name: main}\nspec:\n  media: {timeout: 2s}\n";
    Pbx::first_call_and(pbx, &[]).unwrap()
}

#[test]
fn a_call_whose_phones_disappear_is_ended_by_the_idle_timeout() {
    let mut pbx = impatient();
    let mut callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
    let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "60"]).unwrap();
    pbx.talking(1).unwrap();
    e2e::eventually("ports are in use", SOON, || pbx.metric("kubepbx_media_ports").ok().filter(|n| *n > 0.0)).unwrap();
    // Both are silent, none says BYE: the call is as it was until the timeout.
    caller.process().kill();
    callee.process().kill();
    assert_eq!(pbx.items("calls").unwrap().len(), 1);
    pbx.idle().unwrap();
    pbx.no_ports().unwrap();
    let line = pbx.process.line("neither side sent media", SOON).unwrap();
    assert!(line.contains("ended"), "{line}");
    assert_eq!(pbx.metric("kubepbx_media_timeouts_total").unwrap(), 1.0);
}

#[test]
fn a_call_goes_on_while_one_side_sends() {
    let pbx = impatient();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--seconds", "5"]).unwrap();
    let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "60"]).unwrap();
    pbx.talking(1).unwrap();
    caller.process().kill();
    let (ok, report) = callee.report(SOON).unwrap();
    let seconds = report["calls"][0]["seconds"].as_f64();
    assert!(ok && report["calls"][0]["ended_by_remote"] == Value::Bool(false), "{report}");
    assert!(seconds.is_some_and(|s| s >= 5.0), "{report}");
    pbx.idle().unwrap();
}
