//! Datagrams lost, reordered and doubled on the way: registrations and calls succeed all the same.

use anyhow::ensure;
use e2e::forwarder::{Badness, Forwarder};
use e2e::{Baresip, Pbx, Phone, netns, spectrum};
use std::time::Duration;

const PATIENT: Duration = Duration::from_secs(120);

#[test]
fn calls_succeed_over_a_network_that_loses_doubles_and_reorders() {
    let bad = Badness { lost: 10, doubled: 10, late: 20 };
    for seed in 1..=3 {
        let pbx = Pbx::first_call(&[]).unwrap();
        let network = Forwarder::start(pbx.sip, bad, seed).unwrap();
        let options = ["--calls", "5", "--play", "tone:880"];
        let mut callee = Phone::answering(network.address, "8006", &options).unwrap();
        let options = ["--to", "8006", "--calls", "5", "--parallel", "5", "--seconds", "1", "--play", "tone:440"];
        let mut caller = Phone::start("call", network.address, "8005", &options).unwrap();
        let (ok, heard) = caller.report(PATIENT).unwrap();
        assert!(ok, "seed {seed}: {heard}");
        let (ok, heard) = callee.report(PATIENT).unwrap();
        assert!(ok && heard["calls"].as_array().is_some_and(|calls| calls.len() == 5), "seed {seed}: {heard}");
        assert!(network.lost() > 0, "nothing was lost: the test shows nothing");
        pbx.idle().unwrap();
    }
}

#[test]
fn real_phones_call_while_datagrams_are_dropped() {
    let test = || {
        let pbx = Pbx::first_call(&[])?;
        netns::lose(pbx.sip.port(), 10)?;
        let mut caller = Baresip::start(pbx.sip, "8005", 440.0, 60)?;
        let mut callee = Baresip::start(pbx.sip, "8006", 880.0, 60)?;
        pbx.registered(2)?;
        for _ in 0..5 {
            caller.command("dial", "8006")?;
            caller.event("CALL_ESTABLISHED", PATIENT)?;
            callee.event("CALL_ESTABLISHED", PATIENT)?;
            std::thread::park_timeout(Duration::from_millis(1500));
            caller.command("hangup", "")?;
            callee.event("CALL_CLOSED", PATIENT)?;
        }
        pbx.idle()?;
        ensure!(netns::lost()? > 0, "nothing was lost: the test shows nothing");
        ensure!(spectrum::share(&callee.recording()?, 440.0, 1.0)? > 0.9, "the caller was not heard");
        Ok(())
    };
    netns::alone(test).unwrap();
}
