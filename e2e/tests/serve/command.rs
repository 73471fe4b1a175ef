//! `kubepbx status`, `registrations`, `calls`, `dispatchers`, `hangup` and `log` of a `serve` with a call up.

use e2e::process::kubepbx;
use e2e::{Pbx, Phone, Process};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn command(pbx: &Pbx, args: &[&str]) -> Command {
    let mut command = Command::new(kubepbx().unwrap());
    command.args(args).args(["--url", &format!("http://{}", pbx.http)]);
    command
}

/// What a command prints that ends well.
fn said(pbx: &Pbx, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(pbx, args).output().unwrap();
    assert!(status.success(), "{args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// What a command says on stderr that fails.
fn refused(pbx: &Pbx, args: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(pbx, args).output().unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{args:?}");
    String::from_utf8(stderr).unwrap()
}

/// The first call of the example, and a dispatcher that nothing refers to.
fn pbx() -> Pbx {
    let unused = "apiVersion: kubepbx.io/v1alpha1\nkind: Dispatcher\nmetadata: {name: carriers}\n\
                  spec: {destinations: [{uri: \"sip:127.0.0.1:9\"}]}\n";
    Pbx::first_call_and(unused, &[]).unwrap()
}

/// A call from 8005 to 8006 that goes on; the phones.
fn talking(pbx: &Pbx) -> (Phone, Phone) {
    let callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
    let caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006", "--seconds", "60"]).unwrap();
    pbx.talking(1).unwrap();
    (caller, callee)
}

/// Words of the line that begins so.
fn row(table: &str, begin: &str) -> Vec<String> {
    let line = table.lines().find(|line| line.starts_with(begin));
    assert!(line.is_some(), "no {begin}: {table}");
    line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn people_see_who_is_registered_and_who_talks_and_end_a_call() {
    let pbx = pbx();
    assert!(said(&pbx, &["status"]).contains(": all is well\n"));
    let none = command(&pbx, &["calls"]).output().unwrap();
    let none = (none.status.success(), String::from_utf8(none.stderr).unwrap());
    assert_eq!(none, (true, format!("kubepbx: no calls found in http://{}\n", pbx.http)));

    let mut log = Process::start(&mut command(&pbx, &["log", "-f", "-vvv"])).unwrap();
    let mut watch = Process::start(&mut command(&pbx, &["calls", "--watch"])).unwrap();
    let (mut caller, mut callee) = talking(&pbx);
    let id = pbx.items("calls").unwrap()[0]["id"].as_str().unwrap().to_owned();
    watch.line(" up ", SOON).unwrap();

    let status = said(&pbx, &["status"]);
    assert!(status.contains("Calls:          1 (1 up)\n"), "{status}");
    for service in ["balancer", "registrar", "router", "media", "conference"] {
        assert_eq!(row(&status, service)[1..5], ["serve", "yes", "serving", "1.1"], "{status}");
    }
    let registrations = said(&pbx, &["registrations", "8006"]);
    let registered = row(&registrations, "8006");
    assert!(registered[1].contains("sip:8006@127.0.0.1:") && registered.len() == 4, "{registrations}");
    assert_eq!(registrations.lines().count(), 2);

    let calls = said(&pbx, &["calls"]);
    assert_eq!(row(&calls, "ID"), ["ID", "FROM", "EXTEN", "TO", "STATE", "AGE"]);
    assert_eq!(row(&calls, &id)[1..5], ["8005", "8006", "8006", "up"], "{calls}");
    assert_eq!(said(&pbx, &["calls", "--endpoint", "8006"]), said(&pbx, &["calls", &id[..6]]));
    let json: Value = serde_json::from_str(&said(&pbx, &["calls", "-o", "json"])).unwrap();
    assert_eq!(json["items"][0]["id"], id.as_str(), "{json}");
    assert!(said(&pbx, &["calls", "-o", "yaml"]).contains(&format!("id: {id}\n")));
    assert_eq!(row(&said(&pbx, &["calls", "-o", "wide"]), &id)[8], "PCMU");
    let dispatchers = said(&pbx, &["dispatchers"]);
    assert_eq!(row(&dispatchers, "DISPATCHER")[..3], ["DISPATCHER", "DESTINATION", "STATE"]);
    assert!(dispatchers.lines().skip(1).all(|line| line.contains(" unused ")) && dispatchers.lines().count() > 1);

    assert_eq!(refused(&pbx, &["hangup", "ffff"]), "kubepbx: call \"ffff\" not found\n");
    assert_eq!(refused(&pbx, &["hangup", "--endpoint", "8009"]), "kubepbx: endpoint \"8009\" has no calls\n");
    assert_eq!(said(&pbx, &["hangup", &id[..8]]), format!("call \"{id}\" hung up\n"));
    for phone in [&mut caller, &mut callee] {
        let (ok, report) = phone.report(SOON).unwrap();
        assert!(ok && report["calls"][0]["ended_by_remote"] == true, "{report}");
    }
    pbx.idle().unwrap();
    assert!(refused(&pbx, &["hangup", &id]).contains("not found"));

    log.line("== Ended: hung up by command (cause 16)", SOON).unwrap();
    let lines = log.stdout();
    for (line, words) in lines.lines().zip([
        "== 8005 calls 8006 in from-external",
        "-- Executing [8006@from-external:1] NoOp()",
        "-- Executing [8006@from-external:2] Dial(PJSIP/8006)",
        "-- Called PJSIP/8006",
        "-- PJSIP/8006 is ringing",
        "-- PJSIP/8006 answered",
        "== Ended: hung up by command (cause 16)",
    ]) {
        assert!(line.ends_with(&format!(" {} {words}", &id[..8])), "{lines}");
    }
    watch.line(" gone ", SOON).unwrap();
    let seen = watch.stdout();
    assert!(row(&seen, "ID").len() == 6 && seen.lines().filter(|line| line.contains(" gone ")).count() == 1, "{seen}");
    // Without -f the log is what there was; what is asked for is chosen.
    assert_eq!(said(&pbx, &["log", "--call", &id]).lines().count(), 2);
    assert_eq!(said(&pbx, &["log", "-vvv", "--endpoint", "8006"]).lines().count(), 7);
    assert_eq!(said(&pbx, &["log", "-v", "--tail", "2"]).lines().count(), 2);
    assert_eq!(said(&pbx, &["log", "-vvv", "--endpoint", "8009"]), "");
}

#[test]
fn all_calls_are_ended_and_a_serve_that_is_not_there_is_an_error() {
    let mut pbx = pbx();
    assert_eq!(said(&pbx, &["hangup", "--all"]), "");
    let (mut caller, mut callee) = talking(&pbx);
    let hung_up = said(&pbx, &["hangup", "--all"]);
    assert!(hung_up.lines().count() == 1 && hung_up.ends_with("hung up\n"), "{hung_up}");
    assert!(caller.report(SOON).unwrap().0 && callee.report(SOON).unwrap().0);
    pbx.terminate().unwrap();
    for verb in ["status", "calls", "registrations", "dispatchers", "log"] {
        let error = refused(&pbx, &[verb]);
        assert!(error.starts_with("kubepbx: nobody answers at http://127.0.0.1:"), "{error}");
    }
}

#[test]
fn kubectl_finds_it_as_a_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let plugin = dir.path().join("kubectl-pbx");
    std::os::unix::fs::symlink(kubepbx().unwrap(), &plugin).unwrap();
    let help = Command::new(plugin).args(["calls", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("Usage: kubectl pbx calls [OPTIONS] [NAMES]..."), "{help}");
}
