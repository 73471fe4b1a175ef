//! The command for people, of services that were started one by one.

use super::{SOON, of};
use e2e::process::kubepbx;
use e2e::{FIRST_CALL, Installation, Member, Phone, Process, eventually};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// One in 2^15 times all of them fall to one router.
const CALLS: usize = 16;

fn command(members: &[Member], args: &[&str]) -> Command {
    let mut command = Command::new(kubepbx().unwrap());
    command.args(args);
    members.iter().for_each(|member| _ = command.args(["--url", &format!("http://{}", member.http)]));
    command
}

/// What a command prints that ends well.
fn said(members: &[Member], args: &[&str]) -> String {
    let output = command(members, args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn calls_of_two_routers_are_one_list_one_log_and_ended_where_they_are() {
    let (mut pbx, mut members) = Installation::whole(FIRST_CALL).unwrap();
    members.extend(pbx.start(&["router"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let sip = of(&mut members, "balancer").sip;
    let status = said(&members, &["status"]);
    assert!(status.contains(": all is well\n"), "{status}");
    assert_eq!(status.lines().filter(|line| line.starts_with("router ")).count(), 2, "{status}");

    let mut log = Process::start(&mut command(&members, &["log", "-f", "-vvv"])).unwrap();
    let number = CALLS.to_string();
    let mut callee = Phone::answering(sip, "8006", &["--calls", &number]).unwrap();
    let options = ["--to", "8006", "--calls", &number, "--parallel", &number, "--seconds", "60"];
    let mut caller = Phone::start("call", sip, "8005", &options).unwrap();
    let up = || {
        let json: Value = serde_json::from_str(&said(&members, &["calls", "-o", "json"])).unwrap();
        let items = json["items"].as_array().cloned()?;
        let up = |call: &Value| call["legs"].as_array().is_some_and(|legs| legs.iter().all(|leg| leg["state"] == "up"));
        (items.len() == CALLS && items.iter().all(up)).then_some(items)
    };
    let items = eventually("all calls are listed", SOON, up).unwrap();
    let at: BTreeSet<&str> = items.iter().filter_map(|call| call["at"].as_str()).collect();
    let routers: BTreeSet<String> =
        members.iter().filter(|m| m.service == "router").map(|m| format!("http://{}", m.http)).collect();
    assert!(at.iter().copied().eq(routers.iter().map(String::as_str)), "{at:?}");

    let ended = said(&members, &["hangup", "--all"]);
    assert_eq!(ended.lines().filter(|line| line.ends_with(" hung up")).count(), CALLS, "{ended}");
    for phone in [&mut caller, &mut callee] {
        let (ok, report) = phone.report(SOON).unwrap();
        assert!(ok && report["calls"].as_array().unwrap().iter().all(|c| c["ended_by_remote"] == true), "{report}");
    }
    let all = || (log.stdout().matches("== Ended: hung up by command").count() == CALLS).then(|| log.stdout());
    let lines = eventually("the log has all ends", SOON, all).unwrap();
    let times: Vec<&str> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(times.is_sorted() && times.len() == 7 * CALLS, "{lines}");

    // A process that is gone is said to be, and the rest is shown.
    members.iter_mut().rfind(|m| m.service == "router").unwrap().process.kill();
    let status = said(&members, &["status"]);
    assert!(
        status.contains("does not say how it is: nobody answers at") && status.contains("Calls:          0\n"),
        "{status}"
    );
    log.kill();
}
