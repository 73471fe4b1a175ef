//! A dispatcher in front of real servers: shares by weight, probes, a server that comes and goes, one behind a proxy
//! that record-routes.

use e2e::process::{root, tool};
use e2e::sipp::{Plan, Sipp};
use e2e::{Pbx, Phone, Process, eventually, free_port};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const NONE_LEFT: &str = "No destination dispatcher";

/// A server of the example, which takes calls to `9...` from this machine and sends back what it hears.
fn far() -> Pbx {
    let manifests = std::fs::read_to_string(root().join("examples/dispatcher/server/server.yaml")).unwrap();
    // Numbers that begin with 91 ring a phone of its own.
    let more = "---\nkind: PbxEndpoint\napiVersion: kubepbx.io/v1alpha1\nmetadata: {name: \"far\"}\nspec: {context: none, aor: {}, \
                auth: {username: far, passwordSecretRef: {name: far, key: far}}}\n---\nkind: Secret\napiVersion: v1\n\
                metadata: {name: far}\nstringData: {far: far}\n---\nkind: Dialplan\napiVersion: kubepbx.io/v1alpha1\n\
                metadata: {name: none}\nspec: {extensions: [{pattern: _X., steps: [{hangup: {}}]}]}\n";
    let manifests = manifests
        .replace("  - pattern: _9.", "  - pattern: _91.\n    steps:\n    - dial: {to: [PJSIP/far]}\n  - pattern: _9.");
    Pbx::of(&format!("{manifests}\n{more}"), &["--rtp-ports", "12000-12999"]).unwrap()
}

/// The dispatcher of the example with these destinations, probed each second and out after one probe without answer.
fn set(destinations: &[(u16, u32)]) -> String {
    let example = std::fs::read_to_string(root().join("examples/dispatcher/dispatcher.yaml")).unwrap();
    let (head, rest) = example.split_once("  destinations:\n").unwrap();
    let rest = &rest[rest.find("  probe:").unwrap()..];
    assert!(rest.contains("failureThreshold: 3"));
    let one = |(port, weight): &(u16, u32)| format!("  - {{uri: \"sip:127.0.0.1:{port}\", weight: {weight}}}\n");
    let list: String = destinations.iter().map(one).collect();
    format!("{head}  destinations:\n{list}{}", rest.replace("failureThreshold: 3", "failureThreshold: 1"))
}

/// How many calls this server has taken.
fn taken(pbx: &Pbx) -> u32 {
    let text = pbx.get("/metrics").unwrap();
    let of = |line: &str| line.strip_prefix("kubepbx_router_events_total{reason=\"call\"} ")?.parse().ok();
    text.lines().find_map(of).unwrap_or(0)
}

/// What each server has taken, once all together have so many: their counters follow a moment later.
fn shares(servers: &[&Pbx], total: u32) -> Vec<u32> {
    let all = || {
        let each: Vec<u32> = servers.iter().map(|server| taken(server)).collect();
        (each.iter().sum::<u32>() == total).then_some(each)
    };
    eventually(&format!("{total} calls are counted"), SOON, all).unwrap()
}

/// So many calls in a row by 8005; the report of the phone.
fn calls(pbx: &Pbx, to: &str, count: u32) -> (bool, serde_json::Value) {
    let options = ["--to", to, "--calls", &count.to_string(), "--parallel", "10", "--seconds", "0.1"];
    Phone::start("call", pbx.sip, "8005", &options).unwrap().report(Duration::from_secs(60)).unwrap()
}

/// Waits until the view shows these states.
fn states(pbx: &Pbx, wanted: &[&str]) {
    let shown = || {
        let items = pbx.items("dispatchers").ok()?;
        let states: Vec<&str> = items.iter().filter_map(|item| item["state"].as_str()).collect();
        (states == wanted).then_some(())
    };
    eventually(&format!("destinations {wanted:?}"), Duration::from_secs(20), shown).unwrap();
}

#[test]
fn calls_are_shared_by_weight_and_a_change_of_weights_is_live() {
    let (one, two) = (far(), far());
    let manifest = |a, b| set(&[(one.sip.port(), a), (two.sip.port(), b)]);
    let pbx = Pbx::first_call_and(&manifest(50, 50), &[]).unwrap();
    states(&pbx, &["up", "up"]);
    assert!(calls(&pbx, "900", 60).0);
    let had = shares(&[&one, &two], 60);
    // Sixty fair coins are outside of this once in three million times.
    assert!((10..=50).contains(&had[0]), "{had:?}");

    std::fs::write(pbx.dir.path().join("pbx/more.yaml"), manifest(0, 100)).unwrap();
    let (mut total, mut had) = (60, had);
    eventually("the change is live", SOON, || {
        // No call is lost while weights change.
        assert!(calls(&pbx, "900", 10).0);
        total += 10;
        let now = shares(&[&one, &two], total);
        let before = std::mem::replace(&mut had, now);
        (had[0] == before[0]).then_some(())
    })
    .unwrap();
    assert!(calls(&pbx, "900", 20).0);
    assert_eq!(shares(&[&one, &two], total + 20), [had[0], had[1] + 20]);
}

#[test]
fn a_server_that_dies_gets_no_calls_until_it_is_back_and_without_any_left_callers_are_told() {
    let (mut one, mut two) = (far(), far());
    let pbx = Pbx::first_call_and(&set(&[(one.sip.port(), 50), (two.sip.port(), 50)]), &[]).unwrap();
    states(&pbx, &["up", "up"]);
    one.process.kill();
    states(&pbx, &["down", "up"]);
    assert!(calls(&pbx, "900", 20).0);
    shares(&[&two], 20);

    two.process.kill();
    states(&pbx, &["down", "down"]);
    let (ok, report) = calls(&pbx, "900", 1);
    assert!(!ok && report["calls"][0]["status"] == 404, "{report}");
    // The reason phrase as well: SIPp shows the whole answer where it expects another.
    let answer = Sipp::start("call", pbx.sip, "8005", Plan { to: "900", ..Plan::default() }).unwrap();
    let refused = answer.success(SOON).unwrap_err().to_string();
    assert!(refused.contains(&format!("404 {NONE_LEFT}")), "{refused}");

    one.start_again().unwrap();
    states(&pbx, &["up", "down"]);
    assert!(calls(&pbx, "900", 5).0);
    shares(&[&one], 5);
}

/// A Kamailio that record-routes and sends everything to this port; it prints each request that it relays.
fn kamailio(port: u16, to: u16) -> (Process, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        r#"#!KAMAILIO
debug=1
log_stderror=yes
fork=no
listen=udp:127.0.0.1:{port}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "siputils.so"
loadmodule "textops.so"
request_route {{
  xlog("L_ALERT", "relays $rm to-tag=$tt from $sp\n");
  if (has_totag()) {{
    if (!loose_route()) {{ sl_send_reply("404", "No route"); exit; }}
    t_relay();
    exit;
  }}
  if (is_method("OPTIONS")) {{ sl_send_reply("200", "OK"); exit; }}
  record_route();
  $du = "sip:127.0.0.1:{to}";
  t_relay();
}}
"#
    );
    let file = dir.path().join("kamailio.cfg");
    std::fs::write(&file, config).unwrap();
    let run = dir.path().join("run");
    std::fs::create_dir(&run).unwrap();
    let mut command = Command::new(tool("kamailio").unwrap());
    command.args(["-DD", "-E", "-m", "64", "-M", "8", "-f"]).arg(&file).arg("-Y").arg(&run);
    (Process::start(&mut command).unwrap(), dir)
}

#[test]
fn ack_and_bye_follow_the_routes_that_a_far_proxy_records() {
    let server = far();
    let port = free_port();
    let (proxy, _dir) = kamailio(port, server.sip.port());
    let pbx = Pbx::first_call_and(&set(&[(port, 1)]), &[]).unwrap();
    states(&pbx, &["up"]);
    let relayed = |method: &str| {
        let (out, marks) = (proxy.stderr(), [format!("relays {method} to-tag=<null>"), format!("relays {method} ")]);
        let all: Vec<&str> = out.lines().filter(|l| l.contains(&marks[1]) && !l.contains(&marks[0])).collect();
        all.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };

    // The caller hangs up.
    let (ok, report) = calls(&pbx, "900", 1);
    assert!(ok, "{report}\n{}", proxy.stderr());
    let both = || (relayed("ACK").len() == 1 && relayed("BYE").len() == 1).then_some(());
    eventually("ACK and BYE went by the proxy", SOON, both).unwrap();

    // The callee hangs up, behind the far server.
    let mut callee = Phone::answering(server.sip, "far", &["--seconds", "1"]).unwrap();
    let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "911", "--seconds", "30"]).unwrap();
    let (ok, report) = caller.report(Duration::from_secs(20)).unwrap();
    assert!(ok && report["calls"][0]["ended_by_remote"] == true, "{report}");
    assert!(callee.report(SOON).unwrap().0);
    let from_far = format!("from {}", server.sip.port());
    let byes = relayed("BYE");
    assert!(byes.len() == 2 && byes[1].contains(&from_far), "{byes:?}");
    assert_eq!(relayed("ACK").len(), 2);
    pbx.idle().unwrap();
    server.idle().unwrap();
}
