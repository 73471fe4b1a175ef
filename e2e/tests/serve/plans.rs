//! The dialplan's language with real phones: a menu by digits, conditions, limits, what callees see, and `kubepbx route`.

use e2e::process::kubepbx;
use e2e::{Baresip, Pbx, Phone, eventually, spectrum};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: phones}
stringData: {"8005": "8005", "8006": "8006"}
---
apiVersion: kubepbx.io/v1alpha1
kind: PbxEndpoint
metadata: {name: "8005"}
spec:
  context: office
  auth: {username: "8005", passwordSecretRef: {name: phones, key: "8005"}}
  aor: {}
  codecs: [ulaw, alaw]
---
apiVersion: kubepbx.io/v1alpha1
kind: PbxEndpoint
metadata: {name: "8006"}
spec:
  context: office
  auth: {username: "8006", passwordSecretRef: {name: phones, key: "8006"}}
  aor: {}
  codecs: [ulaw, alaw]
---
apiVersion: kubepbx.io/v1alpha1
kind: Dialplan
metadata: {name: office}
spec:
  timeZone: Europe/Berlin
  extensions:
  - pattern: "700"
    steps:
    - background: {prompts: ["tone:400,30000"]}
    - waitExten: {timeout: 3s}
  - pattern: "_[23]"
    steps:
    - noOp: {text: "entered ${EXTEN}"}
    - playback: {prompts: ["tone:1000,2000"]}
    - hangup: {}
  - pattern: i
    steps:
    - playback: {prompts: ["tone:600,1000"]}
    - goto: {extension: "700"}
  - pattern: "710"
    steps:
    - set: {name: TRIES, value: "1"}
    - label: again
      when: "variables.TRIES == '3'"
      goto: {label: end}
    - set: {name: TRIES, value: "3"}
    - goto: {label: again}
    - label: end
      when: "caller.number == '8005' && time.year > 2000"
      busy: {}
    - congestion: {}
  - pattern: "_80XX"
    steps:
    - dial: {to: ["PJSIP/${EXTEN}"], timeout: 20s, limit: 2s}
"#;

/// Waits for this text among the events of calls.
fn told(pbx: &Pbx, text: &str) {
    let there = || pbx.get("/v1/events").ok().filter(|events| events.contains(text));
    let waited = eventually(text, SOON, there);
    assert!(waited.is_ok(), "not told: {text}: {}", pbx.get("/v1/events").unwrap_or_default());
}

#[test]
fn digits_lead_through_a_menu() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    let mut phone = Baresip::start(pbx.sip, "8005", 880.0, 0).unwrap();
    phone.command("dial", "700").unwrap();
    phone.event("CALL_ESTABLISHED", SOON).unwrap();
    eventually("the menu is heard", SOON, || (phone.recorded() > 1.0).then_some(())).unwrap();
    // What is no extension leads to i and back to the menu; what is one stops it at once.
    phone.command("sndcode", "9").unwrap();
    told(&pbx, "tone:600,1000");
    eventually("the menu is heard again", SOON, || (phone.recorded() > 4.0).then_some(())).unwrap();
    phone.command("sndcode", "2").unwrap();
    told(&pbx, "entered 2");
    phone.event("CALL_CLOSED", SOON).unwrap();
    pbx.idle().unwrap();
    let heard = phone.recording().unwrap();
    let of = |hz| spectrum::seconds_of(&heard, hz).unwrap();
    assert!((0.5..1.3).contains(&of(600.0)), "{} s of 600 Hz", of(600.0));
    assert!((1.5..2.5).contains(&of(1000.0)), "{} s of 1000 Hz", of(1000.0));
    assert!(of(400.0) < 20.0, "{} s of the menu", of(400.0));
}

#[test]
fn conditions_and_labels_decide() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    for (user, status) in [("8005", 486), ("8006", 503)] {
        let (ok, heard) = Phone::start("call", pbx.sip, user, &["--to", "710"]).unwrap().report(SOON).unwrap();
        assert!(!ok && heard["calls"][0]["status"] == status, "{heard}");
    }
}

#[test]
fn a_talk_ends_at_its_limit() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    let mut callee = Phone::answering(pbx.sip, "8006", &[]).unwrap();
    let options = ["--to", "8006", "--seconds", "30"];
    let (ok, heard) = Phone::start("call", pbx.sip, "8005", &options).unwrap().report(SOON).unwrap();
    assert!(ok && heard["calls"][0]["ended_by_remote"] == true, "{heard}");
    assert!(callee.report(SOON).unwrap().0);
    told(&pbx, "they talked for as long as they may");
    pbx.idle().unwrap();
}

#[test]
fn what_a_call_would_do_is_explained() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    let url = format!("http://{}", pbx.http);
    let run = |args: &[&str]| {
        let output = Command::new(kubepbx().unwrap()).arg("route").args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    };
    let (ok, live) = run(&["--from", "8005", "710", "--url", &url]);
    assert!(ok && live.contains("ends: User busy (cause 17, 486)"), "{live}");
    let (ok, dial) = run(&["--from", "8005", "8006", "--url", &url]);
    assert!(ok && dial.contains("8006 is not registered"), "{dial}");
    let (ok, menu) = run(&["--from", "8005", "700", "--digits", "2", "--url", &url]);
    assert!(ok && menu.contains("digits 2: goes to office,2"), "{menu}");
    // A proposed file is laid over what runs, and does not touch it.
    let proposed = pbx.dir.path().join("proposed.yaml");
    let text = "apiVersion: kubepbx.io/v1alpha1\nkind: Dialplan\nmetadata: {name: office}\nspec:\n  extensions:\n  \
                - pattern: \"710\"\n    steps: [congestion: {}]\n";
    std::fs::write(&proposed, text).unwrap();
    let path = proposed.to_str().unwrap();
    let (ok, over) = run(&["--from", "8005", "710", path, "--url", &url]);
    assert!(ok && over.contains("(cause 34, 503)"), "{over}");
    let (ok, same) = run(&["--from", "8005", "710", "--url", &url]);
    assert!(ok && same == live, "{same}");
    let (ok, folder) = run(&["--from", "8005", "710", pbx.dir.path().join("pbx").to_str().unwrap()]);
    assert!(ok && folder == live, "{folder}");
    let (ok, unknown) = run(&["--from", "8005", "5", "--url", &url]);
    assert!(!ok && unknown.contains("there is no extension 5 in office: 404"), "{unknown}");
}
