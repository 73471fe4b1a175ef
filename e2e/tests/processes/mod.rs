//! The services as processes of their own: what a cluster runs, without the cluster.

mod command;
mod conferences;
mod relays;
mod routers;

use e2e::{FIRST_CALL, Installation, Member, Phone, SERVICES, eventually};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

fn of<'m>(members: &'m mut [Member], service: &str) -> &'m mut Member {
    members.iter_mut().find(|m| m.service == service).unwrap()
}

fn near(value: &Value, hz: f64) -> bool {
    value.as_f64().is_some_and(|heard| (heard - hz).abs() < 10.0)
}

/// 8006 is called by 8005: each hears the other's tone.
fn call(callee_at: SocketAddr, caller_at: SocketAddr) {
    let mut callee = Phone::answering(callee_at, "8006", &["--play", "tone:880"]).unwrap();
    let options = ["--to", "8006", "--play", "tone:440", "--seconds", "3"];
    let mut caller = Phone::start("call", caller_at, "8005", &options).unwrap();
    let (ok, heard) = caller.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 880.0), "{heard}");
    let (ok, heard) = callee.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 440.0), "{heard}");
    assert_eq!(heard["calls"][0]["ended_by_remote"], true);
}

fn registers(at: SocketAddr) {
    let (ok, report) = Phone::start("register", at, "8005", &[]).unwrap().report(SOON).unwrap();
    assert!(ok, "{report}");
}

/// A phone registers, and takes its contact away again: its endpoint has one at a time.
fn comes_and_goes(at: SocketAddr) {
    let mut phone = Phone::answering(at, "8005", &[]).unwrap();
    phone.process().signal("TERM").unwrap();
    let (_, report) = phone.report(SOON).unwrap();
    assert_eq!(report["registered"], 200, "{report}");
}

#[test]
fn two_phones_call_each_other_through_five_processes_which_then_drain() {
    let (pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    pbx.acquainted(&members, 5).unwrap();
    assert!(members.iter().all(|m| m.check("livez").unwrap()));
    let sip = of(&mut members, "balancer").sip;
    call(sip, sip);
    let idle = |m: &Member| m.view("calls").ok().filter(|calls| *calls == serde_json::json!([]));
    eventually("no call is left", SOON, || idle(of(&mut members, "router"))).unwrap();
    let packets = of(&mut members, "media").metric("kubepbx_media_packets_total").unwrap();
    assert!(packets > 200.0, "{packets} packets through the relay");
    registers(sip);
    let shown = of(&mut members, "registrar").view("registrations").unwrap();
    assert_eq!(shown["registrations"].as_array().map(Vec::len), Some(1), "{shown}");
    for service in SERVICES {
        of(&mut members, service).terminate().unwrap();
    }
}

#[test]
fn work_is_divided_among_processes_of_one_service() {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    members.extend(pbx.start(&["registrar", "router", "media"]).unwrap());
    pbx.acquainted(&members, 8).unwrap();
    let sip = of(&mut members, "balancer").sip;
    let mut callee = Phone::answering(sip, "8006", &["--calls", "16"]).unwrap();
    let options = ["--to", "8006", "--calls", "16", "--parallel", "4", "--seconds", "0.5"];
    let (ok, report) = Phone::start("call", sip, "8005", &options).unwrap().report(SOON * 2).unwrap();
    assert!(ok, "{report}");
    let (ok, report) = callee.report(SOON).unwrap();
    assert!(ok, "{report}");
    // One in 2^15 times all fall to one.
    for (service, metric) in [("router", "kubepbx_router_events_total"), ("media", "kubepbx_media_packets_total")] {
        for member in members.iter().filter(|m| m.service == service) {
            assert!(member.metric(metric).is_ok_and(|n| n > 0.0), "a {service} that did nothing");
        }
    }
}

#[test]
fn a_killed_registrar_is_not_noticed() {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    members.extend(pbx.start(&["registrar"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let sip = of(&mut members, "balancer").sip;
    comes_and_goes(sip);
    // One address of record, one registrar, as long as that lives.
    let served = |m: &Member| m.metric("kubepbx_registrar_events_total").is_ok_and(|n| n > 0.0);
    let holder = members.iter_mut().find(|m| m.service == "registrar" && served(m)).unwrap();
    holder.process.kill();
    for _ in 0..3 {
        comes_and_goes(sip);
    }
    members.retain_mut(|m| m.check("livez").unwrap());
    assert_eq!(members.len(), 5);
    pbx.acquainted(&members, 5).unwrap();
}

#[test]
fn phones_at_different_balancers_reach_each_other() {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    let first = of(&mut members, "balancer").sip;
    members.extend(pbx.start(&["balancer"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let second = members.last().unwrap().sip;
    call(first, second);
    call(second, first);
}

#[test]
fn what_runs_goes_on_without_operator_and_store_and_who_has_no_configuration_is_not_ready() {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    pbx.acquainted(&members, 5).unwrap();
    let sip = of(&mut members, "balancer").sip;
    drop(pbx.operator.take());
    call(sip, sip);
    let mut callee = Phone::answering(sip, "8006", &[]).unwrap();
    let mut caller = Phone::start("call", sip, "8005", &["--to", "8006", "--seconds", "6"]).unwrap();
    let up = |m: &Member| m.metric("kubepbx_router_calls").ok().filter(|calls| *calls == 1.0);
    eventually("the call is up", SOON, || up(of(&mut members, "router"))).unwrap();
    pbx.kill_store();
    let (ok, report) = caller.report(SOON).unwrap();
    assert!(ok, "{report}");
    let (ok, report) = callee.report(SOON * 2).unwrap();
    assert!(report["calls"][0]["ended_by_remote"] == true, "{ok} {report}");
    // It listens, but it takes no work and says so.
    let late = pbx.begin("router").unwrap();
    assert!(late.check("livez").unwrap() && !late.check("readyz").unwrap());
    assert!(of(&mut members, "router").check("readyz").unwrap(), "readiness is a latch");
}
