//! Many calls, one after the other and at once; a restart in between. Nothing is lost and nothing is left.

use e2e::{Pbx, Phone, eventually};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// Lets 8005 call 8006 so many times with these options; all must succeed.
fn calls(pbx: &Pbx, callee: &mut Phone, count: usize, options: &[&str]) -> serde_json::Value {
    let count = count.to_string();
    let fixed = ["--to", "8006", "--play", "tone:440", "--calls", &count];
    let mut caller = Phone::start("call", pbx.sip, "8005", &[&fixed, options].concat()).unwrap();
    let (ok, made) = caller.report(LONG).unwrap();
    assert!(ok && made["calls"].as_array().unwrap().len().to_string() == count, "{made}");
    let (ok, taken) = callee.report(LONG).unwrap();
    assert!(ok && taken["calls"].as_array().unwrap().len().to_string() == count, "{taken}");
    pbx.idle().unwrap();
    made
}

#[test]
fn a_thousand_calls_in_a_row_leave_nothing_behind() {
    let folder = e2e::process::root().join(e2e::FIRST_CALL);
    let files = std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
    let manifests = files.filter(|f| f.extension().is_some_and(|e| e == "yaml"));
    let texts: Vec<String> = manifests.map(|f| std::fs::read_to_string(f).unwrap()).collect();
    // A new phone takes the place of the one before it.
    let replacing = texts.join("\n---\n").replace("maxContacts: 1", "maxContacts: 1\n    removeExisting: true");
    let pbx = Pbx::of(&replacing, &["--log", "warn"]).unwrap();
    let mut memory = Vec::new();
    for _ in 0..3 {
        let mut callee = Phone::answering(pbx.sip, "8006", &["--calls", "1000"]).unwrap();
        calls(&pbx, &mut callee, 1000, &["--parallel", "8", "--seconds", "0"]);
        // Transactions wait for copies of requests for 32 s (RFC 3261 timers H and J), then they are gone.
        let empty = || {
            let left =
                ["balancer_transactions", "router_legs", "router_calls"].map(|n| pbx.metric(&format!("kubepbx_{n}")));
            left.into_iter().all(|value| value.is_ok_and(|v| v == 0.0)).then_some(())
        };
        eventually("no transaction, leg or call is left", Duration::from_secs(80), empty).unwrap();
        memory.push(pbx.process.memory().unwrap());
    }
    println!("memory after each 1,000 calls: {memory:?} kB");
    // What is kept on purpose (used nonces until they are too old, the last events) is some 1 kB a call; a leg or a
    // transaction that stays would show as ten times that.
    assert!(memory[2] < memory[1] + 4000, "memory grows: {memory:?} kB");
}

#[test]
fn two_hundred_calls_at_once_hear_each_other() {
    let pbx = Pbx::first_call(&["--log", "warn"]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--calls", "200", "--play", "tone:880"]).unwrap();
    let made = calls(&pbx, &mut callee, 200, &["--seconds", "6"]);
    let heard = made["calls"].as_array().unwrap();
    let deaf = heard.iter().filter(|c| c["tone_hz"].as_f64().is_none_or(|hz| (hz - 880.0).abs() > 10.0)).count();
    assert_eq!(deaf, 0, "calls that did not hear the callee");
    let sent: f64 = heard.iter().filter_map(|c| c["packets_received"].as_f64()).sum();
    let lost: f64 = heard.iter().filter_map(|c| c["packets_lost"].as_f64()).sum();
    println!("200 calls at once: {sent} packets heard, {lost} lost");
    assert!(lost <= sent / 100.0, "{lost} of {sent} packets lost");
}

#[test]
fn registrations_outlive_a_restart() {
    let mut pbx = Pbx::first_call(&[]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &["--play", "tone:880"]).unwrap();
    pbx.registered(1).unwrap();
    pbx.restart().unwrap();
    pbx.registered(1).unwrap();
    calls(&pbx, &mut callee, 1, &["--seconds", "1"]);
    // And after the end by force, as in a power cut a moment later.
    assert!(Phone::start("register", pbx.sip, "8006", &[]).unwrap().report(Duration::from_secs(10)).unwrap().0);
    pbx.process.kill();
    pbx.start_again().unwrap();
    assert_eq!(pbx.items("registrations").unwrap().len(), 1);
}
