//! Steps of the dialplan that need no second phone: answer, playback, echo, hangup with a cause.

use e2e::{Pbx, Phone, spectrum};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: phones}
stringData: {"8005": "8005"}
---
apiVersion: kubepbx.io/v1alpha1
kind: PbxEndpoint
metadata: {name: "8005"}
spec:
  context: steps
  auth: {username: "8005", passwordSecretRef: {name: phones, key: "8005"}}
  codecs: [ulaw, alaw]
---
apiVersion: kubepbx.io/v1alpha1
kind: Dialplan
metadata: {name: steps}
spec:
  extensions:
  - pattern: "600"
    steps:
    - answer: {}
    - echo: {}
  - pattern: "601"
    steps:
    - answer: {}
    - playback: {prompts: ["tone:600,2000", "welcome.wav"]}
    - hangup: {}
  - pattern: "602"
    steps:
    - hangup: {cause: 17}
"#;

#[test]
fn echo_returns_what_the_caller_sends() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    let options = ["--to", "600", "--play", "tone:500", "--seconds", "3"];
    let (ok, heard) = Phone::start("call", pbx.sip, "8005", &options).unwrap().report(SOON).unwrap();
    let hz = heard["calls"][0]["tone_hz"].as_f64().unwrap_or_default();
    assert!(ok && (hz - 500.0).abs() < 10.0, "{heard}");
    pbx.idle().unwrap();
}

#[test]
fn prompts_play_one_after_the_other_and_then_the_call_ends() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    spectrum::write_tone(&pbx.dir.path().join("pbx/welcome.wav"), 1000.0, 2).unwrap();
    let heard_file = pbx.dir.path().join("heard.wav");
    let options = ["--to", "601", "--seconds", "30", "--record", heard_file.to_str().unwrap()];
    let (ok, heard) = Phone::start("call", pbx.sip, "8005", &options).unwrap().report(SOON).unwrap();
    assert!(ok && heard["calls"][0]["ended_by_remote"] == true, "{heard}");
    let of = |hz| spectrum::seconds_of(&heard_file, hz).unwrap();
    assert!((1.5..2.5).contains(&of(600.0)), "{} s of 600 Hz", of(600.0));
    assert!((1.5..2.5).contains(&of(1000.0)), "{} s of 1000 Hz", of(1000.0));
    pbx.idle().unwrap();
}

#[test]
fn hangup_with_a_cause_is_answered_with_its_status() {
    let pbx = Pbx::of(MANIFESTS, &[]).unwrap();
    let (ok, heard) = Phone::start("call", pbx.sip, "8005", &["--to", "602"]).unwrap().report(SOON).unwrap();
    assert!(!ok && heard["calls"][0]["status"] == 486, "{heard}");
}
