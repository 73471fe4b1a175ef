//! Calls between real phones.

use e2e::sipp::Plan;
use e2e::{Baresip, Pbx, Phone, eventually, free_port, sipp::Sipp, spectrum};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Lets two phones talk: the only way is to let time pass.
fn talk(seconds: u64) {
    std::thread::park_timeout(Duration::from_secs(seconds));
}

fn two_baresips(hang_up_by_callee: bool) {
    let pbx = Pbx::first_call(&[]).unwrap();
    let mut caller = Baresip::start(pbx.sip, "8005", 440.0, 60).unwrap();
    let mut callee = Baresip::start(pbx.sip, "8006", 880.0, 60).unwrap();
    pbx.registered(2).unwrap();

    caller.command("dial", "8006").unwrap();
    caller.event("CALL_ESTABLISHED", SOON).unwrap();
    callee.event("CALL_ESTABLISHED", SOON).unwrap();
    assert_eq!(pbx.items("calls").unwrap().len(), 1);
    let ports = || pbx.metric("kubepbx_media_ports").ok().filter(|ports| *ports == 4.0);
    eventually("RTP and RTCP of two legs have ports", SOON, ports).unwrap();
    talk(11);
    let (first, second) = if hang_up_by_callee { (&mut callee, &mut caller) } else { (&mut caller, &mut callee) };
    first.command("hangup", "").unwrap();
    second.event("CALL_CLOSED", SOON).unwrap();
    pbx.idle().unwrap();

    for (phone, hz, own) in [(&caller, 880.0, 440.0), (&callee, 440.0, 880.0)] {
        let heard = phone.recording().unwrap();
        let share = spectrum::share(&heard, hz, 10.0).unwrap();
        assert!(share > 0.9, "{hz} Hz has {share} of what was heard in {}", heard.display());
        assert!(spectrum::share(&heard, own, 10.0).unwrap() < 0.05);
    }
}

#[test]
fn two_baresip_phones_hear_each_other_and_the_caller_hangs_up() {
    two_baresips(false);
}

#[test]
fn two_baresip_phones_hear_each_other_and_the_callee_hangs_up() {
    two_baresips(true);
}

/// Each help text ends with one dot, and what ends in `_total` is a counter (whose TYPE line has the name without it).
fn metrics_are_well_formed(text: &str) {
    let helps: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP ")).collect();
    assert!(helps.len() > 15, "{text}");
    for help in helps {
        assert!(help.ends_with('.') && !help.ends_with(".."), "{help}");
    }
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let totals: Vec<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()?.strip_suffix("_total")).collect();
    assert!(totals.contains(&"kubepbx_media_packets") && totals.contains(&"kubepbx_router_events"), "{text}");
    for name in totals {
        assert!(text.contains(&format!("# TYPE {name} counter\n")), "{name}_total is no counter:\n{text}");
    }
}

fn near(value: &serde_json::Value, hz: f64) -> bool {
    value.as_f64().is_some_and(|heard| (heard - hz).abs() < 10.0)
}

#[test]
fn two_kubepbx_phones_hear_each_other() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--play", "tone:880"]).unwrap();
    let mut caller =
        Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--play", "tone:440", "--seconds", "3"]).unwrap();
    let (ok, heard) = caller.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 880.0), "{heard}");
    let (ok, heard) = callee.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 440.0), "{heard}");
    assert_eq!(heard["calls"][0]["packets_lost"], 0, "{heard}");
    assert_eq!(heard["calls"][0]["ended_by_remote"], true);
    pbx.idle().unwrap();
    metrics_are_well_formed(&pbx.get("/metrics").unwrap());
}

#[test]
fn baresip_calls_a_kubepbx_phone() {
    let pbx = Pbx::first_call(&[]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--play", "tone:880", "--seconds", "4"]).unwrap();
    let mut caller = Baresip::start(pbx.sip, "8005", 440.0, 60).unwrap();
    pbx.registered(2).unwrap();
    caller.command("dial", "8006").unwrap();
    caller.event("CALL_CLOSED", SOON).unwrap();
    let (ok, heard) = callee.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 440.0), "{heard}");
    assert!(spectrum::share(&caller.recording().unwrap(), 880.0, 3.0).unwrap() > 0.9);
}

fn sipp_both_ways(transport: &'static str) {
    let pbx = Pbx::first_call(&[]).unwrap();
    // SIPp as callee: it echoes, so that the caller hears its own tone through the relay twice.
    let port = free_port();
    Sipp::register(pbx.sip, "8006", port, transport).unwrap();
    pbx.registered(1).unwrap();
    let answering = Sipp::start("answer", pbx.sip, "8006", Plan { port, transport, ..Plan::default() }).unwrap();
    let options = ["--to", "8006", "--play", "tone:700", "--seconds", "3"];
    let (ok, heard) = Phone::start("call", pbx.sip, "8005", &options).unwrap().report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 700.0), "{heard}");
    answering.success(SOON).unwrap();
    pbx.idle().unwrap();
}

#[test]
fn sipp_answers() {
    sipp_both_ways("u1");
}

#[test]
fn sipp_calls_with_digest() {
    for transport in ["u1", "t1"] {
        let pbx = Pbx::first_call(&[]).unwrap();
        let mut callee = Phone::answering(pbx.sip, "8006", &["--play", "tone:900"]).unwrap();
        let plan = Plan { talk: Duration::from_secs(3), transport, ..Plan::default() };
        Sipp::start("call", pbx.sip, "8005", plan).unwrap().success(Duration::from_secs(20)).unwrap();
        let (ok, heard) = callee.report(SOON).unwrap();
        assert!(ok && near(&heard["calls"][0]["tone_hz"], 900.0), "{transport}: {heard}");
        pbx.idle().unwrap();
    }
}
