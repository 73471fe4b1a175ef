//! Routers that go under calls with audio: killed, drained to their limit, or frozen and thawed. The phones judge by what they hear and by how
//! their calls end; nobody has to send anything for a call to go on.

use super::{SOON, of};
use e2e::{FIRST_CALL, Installation, Member, Phone, eventually};
use serde_json::Value;
use std::time::{Duration, Instant};

const CALLS: usize = 10;

fn figure(member: &Member, name: &str) -> f64 {
    member.metric(name).unwrap_or(0.0)
}

fn calls(member: &Member) -> f64 {
    figure(member, "kubepbx_router_calls")
}

/// Its calls, as it shows them: figures are a second late.
fn shown(member: &Member) -> Vec<Value> {
    member.view("calls").ok().and_then(|calls| calls.as_array().cloned()).unwrap_or_default()
}

/// Two routers, and as many calls as [`CALLS`] with audio for so many seconds.
fn talking(seconds: &str, more: &[&'static str]) -> (Installation, Vec<Member>, Phone, Phone) {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    members.extend(pbx.start(&[&["router"], more].concat()).unwrap());
    let count = members.len();
    pbx.acquainted(&members, count).unwrap();
    let sip = of(&mut members, "balancer").sip;
    let number = CALLS.to_string();
    let callee = Phone::answering(sip, "8006", &["--calls", &number, "--play", "tone:880"]).unwrap();
    let options =
        ["--to", "8006", "--calls", &number, "--parallel", &number, "--play", "tone:440", "--seconds", seconds];
    let caller = Phone::start("call", sip, "8005", &options).unwrap();
    let all = || {
        let routers = members.iter().filter(|m| m.service == "router");
        (routers.map(calls).sum::<f64>() == CALLS as f64).then_some(())
    };
    eventually("all calls are up", SOON, all).unwrap();
    let stored = || {
        let routers = members.iter().filter(|m| m.service == "router");
        let all: Vec<Value> = routers.flat_map(shown).collect();
        (all.len() == CALLS && all.iter().all(|call| call["protected"] == true)).then_some(())
    };
    eventually("all calls are in the store", SOON, stored).unwrap();
    (pbx, members, caller, callee)
}

/// The routers, the one with more calls first.
fn routers(members: &mut [Member]) -> Vec<&mut Member> {
    let mut routers: Vec<&mut Member> = members.iter_mut().filter(|m| m.service == "router").collect();
    routers.sort_by_key(|m| std::cmp::Reverse(calls(m) as u64));
    routers
}

/// Both phones' reports: every call went on to the end that the caller chose. Returns the longest gap of audio, in ms.
fn reports(caller: &mut Phone, callee: &mut Phone) -> f64 {
    let mut longest = 0.0f64;
    for (phone, by_remote) in [(caller, false), (callee, true)] {
        let (ok, report) = phone.report(SOON * 4).unwrap();
        let calls = report["calls"].as_array().unwrap();
        assert!(ok && calls.len() == CALLS, "{report}");
        for call in calls {
            assert_eq!(call["ended_by_remote"], by_remote, "{call}");
            longest = longest.max(call["longest_gap_ms"].as_f64().unwrap());
        }
    }
    longest
}

#[test]
fn a_killed_routers_calls_go_on_at_the_other_and_end_as_their_callers_want() {
    let (_pbx, mut members, mut caller, mut callee) = talking("15", &[]);
    let mut pair = routers(&mut members);
    let before = (calls(pair[0]), calls(pair[1]));
    let at = Instant::now();
    pair[0].process.kill();
    let all = || (calls(pair[1]) == CALLS as f64).then(|| at.elapsed());
    let after = eventually("the other router has all calls", SOON, all).unwrap();
    let gap = reports(&mut caller, &mut callee);
    let done = || (calls(pair[1]) == 0.0).then_some(());
    eventually("no call is left", SOON, done).unwrap();
    println!(
        "a router killed: {} and {} calls before, {CALLS} at the other {:.1} s after, all ended by BYE; longest gap {gap:.0} ms",
        before.0,
        before.1,
        after.as_secs_f64()
    );
    assert!(after < Duration::from_secs(5) || cfg!(debug_assertions), "{after:?}");
    assert!(gap < 500.0, "audio never passes a router: {gap}");
}

#[test]
fn a_router_at_the_limit_of_its_drain_leaves_its_calls_to_the_other() {
    // The limit is 20 s.
    let (_pbx, mut members, mut caller, mut callee) = talking("32", &[]);
    let mut pair = routers(&mut members);
    let before = calls(pair[0]);
    assert!(before > 0.0);
    pair[0].terminate().unwrap();
    let at = Instant::now();
    let all = || (shown(pair[1]).len() == CALLS).then(|| at.elapsed());
    let after = eventually("the other router has all calls", SOON, all).unwrap();
    let gap = reports(&mut caller, &mut callee);
    let done = || (calls(pair[1]) == 0.0).then_some(());
    eventually("no call is left", SOON, done).unwrap();
    println!(
        "a router drained to its limit: its {before} calls at the other {:.1} s after its end; longest gap {gap:.0} ms",
        after.as_secs_f64()
    );
    assert!(after < Duration::from_secs(1), "long before its record would have lapsed: {after:?}");
    assert!(gap < 500.0, "{gap}");
}

#[test]
fn a_router_that_freezes_for_ten_seconds_and_thaws_does_nothing_twice() {
    let (_pbx, mut members, mut caller, mut callee) = talking("25", &[]);
    let pair = routers(&mut members);
    let before = calls(pair[0]);
    pair[0].process.signal("STOP").unwrap();
    let at = Instant::now();
    let all = || (calls(pair[1]) == CALLS as f64).then(|| at.elapsed());
    let after = eventually("the other router has all calls", SOON, all).unwrap();
    let thaw = || (at.elapsed() >= Duration::from_secs(10)).then_some(());
    eventually("ten seconds", SOON, thaw).unwrap();
    pair[0].process.signal("CONT").unwrap();
    let dropped = || (calls(pair[0]) == 0.0 && figure(pair[0], "kubepbx_router_legs") == 0.0).then_some(());
    eventually("the first has dropped what it lost", SOON, dropped).unwrap();
    assert_eq!(calls(pair[1]), CALLS as f64);
    let gap = reports(&mut caller, &mut callee);
    println!(
        "a router frozen for 10 s: {before} calls before, {CALLS} at the other {:.1} s after; longest gap {gap:.0} ms",
        after.as_secs_f64()
    );
    assert!(gap < 500.0, "{gap}");
    let done = || (calls(pair[1]) == 0.0).then_some(());
    eventually("no call is left", SOON, done).unwrap();
}

#[test]
fn what_rings_at_a_router_that_freezes_stops_ringing_when_it_thaws() {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    members.extend(pbx.start(&["router"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let sip = of(&mut members, "balancer").sip;
    let mut callee = Phone::answering(sip, "8006", &["--ring", "60"]).unwrap();
    let mut caller = Phone::start("call", sip, "8005", &["--to", "8006", "--seconds", "1"]).unwrap();
    let rings = |m: &&Member| shown(m).iter().any(|call| call["legs"][1]["state"] == "ringing");
    let ringing = || members.iter().find(|m| m.service == "router" && rings(m));
    let router = eventually("it rings", SOON, ringing).unwrap();
    router.process.signal("STOP").unwrap();
    let at = Instant::now();
    // Its balancer gives it up as soon as the router's peer record is gone.
    let (ok, report) = caller.report(SOON).unwrap();
    assert!(!ok && report["calls"][0]["status"] == 503, "{report}");
    let given_up = at.elapsed();
    let thaw = || (at.elapsed() >= Duration::from_secs(10)).then_some(());
    eventually("ten seconds", SOON, thaw).unwrap();
    router.process.signal("CONT").unwrap();
    let at = Instant::now();
    let (_, report) = callee.report(SOON).unwrap_or_else(|e| panic!("{e:#}\n{}", router.process.stderr()));
    let call = &report["calls"][0];
    assert!(call["status"] == 487 && call["ended_by_remote"] == true, "{report}");
    println!(
        "a router frozen while it rang: 503 to the caller after {:.1} s; the callee's phone was silent {:.1} s after the thaw",
        given_up.as_secs_f64(),
        at.elapsed().as_secs_f64()
    );
    eventually("no call is left", SOON, || shown(router).is_empty().then_some(())).unwrap();
}

#[test]
fn a_relay_killed_after_its_calls_router_is_replaced_by_who_took_over() {
    let (_pbx, mut members, mut caller, mut callee) = talking("25", &["media"]);
    let pair = routers(&mut members);
    pair[0].process.signal("KILL").unwrap();
    let all = || (calls(pair[1]) == CALLS as f64).then_some(());
    eventually("the other router has all calls", SOON, all).unwrap();
    let busiest = |m: &&mut Member| m.metric("kubepbx_media_calls").unwrap_or(0.0) as u64;
    let relay = members.iter_mut().filter(|m| m.service == "media").max_by_key(busiest).unwrap();
    let held = figure(relay, "kubepbx_media_calls");
    relay.process.kill();
    let gap = reports(&mut caller, &mut callee);
    println!("a router killed, then a relay with {held} calls: all went on; longest gap {gap:.0} ms");
    assert!(gap < 3000.0, "{gap}");
}

#[test]
fn a_store_that_comes_back_empty_is_filled_again_and_protects_again() {
    let (mut pbx, mut members, mut caller, mut callee) = talking("30", &[]);
    pbx.kill_store();
    let sip = of(&mut members, "balancer").sip;
    // Who is new is told to come again, at once.
    let at = Instant::now();
    let (ok, report) = Phone::start("register", sip, "8005", &[]).unwrap().report(SOON).unwrap();
    assert!(!ok, "{report}");
    let refused = at.elapsed();
    pbx.restore_store().unwrap();
    let pair = routers(&mut members);
    let written = || {
        let seen = figure(pair[0], "kubepbx_peers") >= 6.0;
        let (ok, report) = Phone::start("register", sip, "8005", &[]).unwrap().report(SOON).ok()?;
        (ok && seen).then_some(report)
    };
    eventually("the store is there again", SOON, written).unwrap();
    // The records are back: another router can be lost.
    let all = || pbx.records("leg").ok().filter(|legs| *legs == 2 * CALLS);
    eventually("all legs are in the store again", SOON, all).unwrap();
    let bound = || pbx.is_bound("8006").ok().filter(|there| *there);
    eventually("the callee is registered again, without having done anything", SOON, bound).unwrap();
    pair[0].process.signal("KILL").unwrap();
    let all = || (calls(pair[1]) == CALLS as f64).then_some(());
    eventually("the other router has all calls", SOON, all).unwrap();
    let gap = reports(&mut caller, &mut callee);
    println!(
        "a store killed and back empty, then a router killed: all calls went on; a REGISTER meanwhile was refused in {:.1} s; longest gap {gap:.0} ms",
        refused.as_secs_f64()
    );
    assert!(gap < 500.0, "{gap}");
}
