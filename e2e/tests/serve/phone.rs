//! `kubepbx phone` as a good neighbour: it takes its contact and its calls away when it ends.

use e2e::{Pbx, Phone, eventually};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_phone_that_answered_leaves_its_place_to_the_next() {
    // Its endpoint has one contact at a time.
    let pbx = Pbx::first_call(&[]).unwrap();
    for _ in 0..2 {
        let mut callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
        let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "1"]).unwrap();
        assert!(caller.report(SOON).unwrap().0);
        assert!(callee.report(SOON).unwrap().0);
        assert!(pbx.items("registrations").unwrap().is_empty());
    }
}

#[test]
fn a_signal_hangs_up_and_unregisters() {
    let pbx = Pbx::first_call(&[]).unwrap();
    for signal in ["TERM", "INT"] {
        let mut callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
        let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "60"]).unwrap();
        pbx.talking(1).unwrap();
        callee.process().signal(signal).unwrap();
        let (ok, report) = callee.report(SOON).unwrap();
        assert!(!ok && report["gave_up"] == true, "{report}");
        let (ok, report) = caller.report(SOON).unwrap();
        assert!(ok && report["calls"][0]["ended_by_remote"] == true, "{report}");
        assert!(pbx.items("registrations").unwrap().is_empty());
        pbx.idle().unwrap();
    }
}

#[test]
fn a_signal_while_it_rings_cancels_and_refuses() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let ringing = |pbx: &Pbx| {
        let calls = || pbx.items("calls").ok().filter(|calls| calls.len() == 1);
        eventually("a call rings", SOON, calls).map(drop)
    };
    let mut callee = Phone::answering(pbx.sip, "8006", &["--ring", "60"]).unwrap();
    let call = || Phone::start("call", pbx.sip, "8005", &["--to", "8006"]).unwrap();

    let mut caller = call();
    ringing(&pbx).unwrap();
    caller.process().signal("TERM").unwrap();
    let (ok, report) = caller.report(SOON).unwrap();
    assert!(!ok && report["calls"][0]["status"] == 487, "{report}");
    pbx.idle().unwrap();

    let mut callee_again = Phone::answering(pbx.sip, "8005", &["--ring", "60"]).unwrap();
    let mut caller = Phone::start("call", pbx.sip, "8006", &["--to", "8005"]).unwrap();
    ringing(&pbx).unwrap();
    callee_again.process().signal("TERM").unwrap();
    callee_again.report(SOON).unwrap();
    let (ok, report) = caller.report(SOON).unwrap();
    assert!(!ok && report["calls"][0]["status"] == 480, "{report}");
    callee.process().kill();
}
