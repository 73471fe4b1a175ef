//! Conferences that go under a caller with audio.

use super::{SOON, near, of};
use e2e::{Installation, Member, Phone, eventually};

const ECHO: &str = r#"
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
"#;

fn legs(member: &Member) -> f64 {
    member.metric("kubepbx_conference_legs").unwrap_or(0.0)
}

#[test]
fn a_killed_conferences_caller_stays_and_hears_itself_at_another() {
    let manifests = tempfile::tempdir().unwrap();
    std::fs::write(manifests.path().join("echo.yaml"), ECHO).unwrap();
    let (mut pbx, mut members) = Installation::whole(manifests.path().to_str().unwrap()).unwrap();
    members.extend(pbx.start(&["conference"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let sip = of(&mut members, "balancer").sip;
    let options = ["--to", "600", "--play", "tone:500", "--seconds", "12"];
    let mut caller = Phone::start("call", sip, "8005", &options).unwrap();
    let mut pair: Vec<&mut Member> = members.iter_mut().filter(|m| m.service == "conference").collect();
    // The answer's leg and the echo's may stand at different ones: the echo's stays.
    let echo = || (pair.iter().map(|m| legs(m)).sum::<f64>() == 1.0).then_some(());
    eventually("the echo alone has a leg", SOON, echo).unwrap();
    pair.sort_by_key(|m| legs(m) == 0.0);
    let before = pair[0].metric("kubepbx_conference_events_total").unwrap();
    assert!(before > 0.0);
    pair[0].process.kill();
    let again = || (legs(pair[1]) == 1.0).then_some(());
    eventually("the other conference has the caller", SOON, again).unwrap();
    let (ok, report) = caller.report(SOON * 2).unwrap();
    let call = &report["calls"][0];
    let gap = call["longest_gap_ms"].as_f64().unwrap();
    println!("a conference killed: the caller heard itself again after {gap:.0} ms");
    assert!(ok && near(&call["tone_hz"], 500.0) && call["ended_by_remote"] == false, "{report}");
    assert!(gap < 3500.0, "{gap}");
}
