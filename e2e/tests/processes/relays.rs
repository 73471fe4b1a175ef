//! Relays that go under calls with audio: one is killed, one is told to end. The phones judge by what they hear.

use super::{SOON, near, of};
use e2e::{FIRST_CALL, Installation, Member, Phone, eventually};
use serde_json::Value;
use std::time::Duration;

/// The relays, the one with the call first.
fn relays(members: &mut [Member]) -> Vec<&mut Member> {
    let has_call = |m: &Member| m.metric("kubepbx_media_calls").is_ok_and(|calls| calls > 0.0);
    let mut relays: Vec<&mut Member> = members.iter_mut().filter(|m| m.service == "media").collect();
    eventually("a relay has the call", SOON, || relays.iter().any(|m| has_call(m)).then_some(())).unwrap();
    relays.sort_by_key(|m| !has_call(m));
    relays
}

/// Two relays, and a call of so many seconds through one of them that has audio.
fn talking(seconds: &str) -> (Installation, Vec<Member>, Phone, Phone) {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    members.extend(pbx.start(&["media"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let sip = of(&mut members, "balancer").sip;
    let callee = Phone::answering(sip, "8006", &["--play", "tone:880"]).unwrap();
    let options = ["--to", "8006", "--play", "tone:440", "--seconds", seconds];
    let caller = Phone::start("call", sip, "8005", &options).unwrap();
    let heard = |m: &Member| m.metric("kubepbx_media_packets_total").is_ok_and(|n| n > 100.0);
    eventually("audio passes", SOON, || members.iter().any(|m| m.service == "media" && heard(m)).then_some(()))
        .unwrap();
    (pbx, members, caller, callee)
}

/// What both phones say of the call, the caller first: it went on to its end, with these tones.
fn reports(caller: &mut Phone, callee: &mut Phone) -> [Value; 2] {
    [(caller, 880.0), (callee, 440.0)].map(|(phone, tone)| {
        let (ok, mut report): (bool, Value) = phone.report(SOON * 3).unwrap();
        assert!(ok && near(&report["calls"][0]["tone_hz"], tone), "{report}");
        report["calls"][0].take()
    })
}

/// The longest gap of audio of each, in ms.
fn gaps(calls: &[Value; 2]) -> [f64; 2] {
    calls.each_ref().map(|call| call["longest_gap_ms"].as_f64().unwrap())
}

#[test]
fn a_killed_relays_call_has_audio_again_within_three_seconds() {
    let (_pbx, mut members, mut caller, mut callee) = talking("10");
    let mut pair = relays(&mut members);
    pair[0].process.kill();
    let before = pair[1].metric("kubepbx_media_packets_total").unwrap();
    assert_eq!(before, 0.0, "the other relay has nothing yet");
    let gaps = gaps(&reports(&mut caller, &mut callee));
    println!("a relay killed: longest gap {:.0} ms at the caller, {:.0} ms at the callee", gaps[0], gaps[1]);
    assert!(gaps.iter().all(|gap| *gap < 3000.0), "{gaps:?}");
    assert!(pair[1].metric("kubepbx_media_packets_total").unwrap() > 300.0);
}

#[test]
fn a_relay_that_ends_hands_its_call_on_and_no_packet_is_lost() {
    // The limit of the drain is 20 s: at half of it the call is handed on.
    let (_pbx, mut members, mut caller, mut callee) = talking("25");
    let mut pair = relays(&mut members);
    pair[0].terminate().unwrap();
    let calls = reports(&mut caller, &mut callee);
    let gaps = gaps(&calls);
    let lost = calls.each_ref().map(|call| call["packets_lost"].as_i64().unwrap());
    println!(
        "a relay drained: {lost:?} packets lost; longest gap {:.0} ms at the caller, {:.0} ms at the callee",
        gaps[0], gaps[1]
    );
    assert_eq!(lost, [0, 0], "by sequence numbers, over the whole call");
    assert!(gaps.iter().all(|gap| *gap < 500.0), "{gaps:?}");
    assert!(pair[1].metric("kubepbx_media_packets_total").unwrap() > 300.0);
    let moved = || of(&mut members, "router").get("/metrics").ok();
    let metrics = eventually("figures of the router", Duration::from_secs(2), moved).unwrap();
    assert!(metrics.contains("reason=\"media_moved\""), "{metrics}");
}
