//! Calls through pods.

use anyhow::{Result, ensure};
use cluster_tests::Space;
use e2e::spectrum::share;
use e2e::{Baresip, Phone};
use serde_json::Value;
use std::time::Duration;

const LIVE: Duration = Duration::from_secs(10);

/// The two phones of examples/first-call, applied and live.
pub(crate) fn first_call_example(space: &Space) -> Result<()> {
    space.install(&[])?;
    first_call_phones(space)
}

/// The same on an installation that is there.
pub(crate) fn first_call_phones(space: &Space) -> Result<()> {
    space.apply_path("examples/first-call")?;
    first_call_is(space, "Ready", LIVE)
}

/// Waits until a condition of each of its resources is True.
pub(crate) fn first_call_is(space: &Space, condition: &str, limit: Duration) -> Result<()> {
    for (kind, name) in [("PbxEndpoint", "8005"), ("PbxEndpoint", "8006"), ("Dialplan", "from-external")] {
        space.wait(kind, name, condition, limit)?;
    }
    Ok(())
}

/// What a phone heard in its only call, Hz.
fn heard(report: &Value) -> f64 {
    report["calls"][0]["tone_hz"].as_f64().unwrap_or_default()
}

/// 8006 registers at one node; 8005 calls it through another. Each hears the other's tone.
pub(crate) fn talk(space: &Space, seconds: &str) -> Result<()> {
    let (mut callee, mut caller) = space.cluster.outside(|| {
        let callee = Phone::answering(space.server(0), "8006", &["--play", "tone:880"])?;
        let options = ["--to", "8006", "--play", "tone:440", "--seconds", seconds];
        Ok((callee, Phone::start("call", space.server(1), "8005", &options)?))
    })?;
    let (called, said) = caller.report(Duration::from_secs(30))?;
    ensure!(called, "the caller: {said}\n{}", caller.process().stderr());
    let (answered, report) = callee.report(Duration::from_secs(30))?;
    ensure!(answered, "the callee: {report}");
    ensure!((heard(&said) - 880.0).abs() < 10.0 && (heard(&report) - 440.0).abs() < 10.0, "{said}\n{report}");
    Ok(())
}

#[test]
fn first_call() -> Result<()> {
    Space::test("first-call", |space| {
        first_call_example(space)?;
        talk(space, "3")
    })
}

#[test]
fn two_baresips_call_through_two_nodes_and_hear_each_other() -> Result<()> {
    Space::test("baresip", |space| {
        first_call_example(space)?;
        let local = space.cluster.phones;
        let (mut caller, mut callee) = space.cluster.outside(|| {
            let caller = Baresip::at(local, space.server(0), "8005", 440.0, 600)?;
            Ok((caller, Baresip::at(local, space.server(1), "8006", 880.0, 600)?))
        })?;
        caller.registered(LIVE)?;
        callee.registered(LIVE)?;
        caller.command("dial", &format!("sip:8006@{}", space.server(0)))?;
        caller.event("CALL_ESTABLISHED", LIVE)?;
        let enough = || (caller.recorded() > 3.0 && callee.recorded() > 3.0).then_some(());
        e2e::eventually("three seconds of audio at both", LIVE, enough)?;
        caller.command("hangup", "")?;
        callee.event("CALL_CLOSED", LIVE)?;
        for (phone, hz) in [(&caller, 880.0), (&callee, 440.0)] {
            let share = share(&phone.recording()?, hz, 2.0)?;
            ensure!(share > 0.9, "{hz} Hz has {share} of what was heard");
        }
        Ok(())
    })
}

/// `helm test`: a call from inside the cluster, and nothing left of what it brought.
fn helm_test(space: &Space) -> Result<()> {
    let said = space.cluster.helm(&["test", "pbx", "-n", &space.namespace, "--timeout", "120s"])?;
    ensure!(said.contains("Succeeded"), "{said}");
    for kind in ["PbxEndpoint", "Dialplan"] {
        let left = space.list(kind, "")?;
        ensure!(left.is_empty(), "{left:?}");
    }
    Ok(())
}

#[test]
fn helm_test_makes_a_call() -> Result<()> {
    Space::test("helm-test", |space| {
        space.install(&[])?;
        helm_test(space)
    })
}

/// With the values that are for it, every pod of an installation, that of `helm test` too, is one that Pod Security
/// `restricted` admits.
#[test]
fn a_restricted_namespace_admits_every_pod() -> Result<()> {
    Space::test("restricted", |space| {
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        space.cluster.kubectl(&["label", "namespace", &space.namespace, enforce, "--overwrite"])?;
        // It is enforced: a pod that says nothing of its security is refused.
        let plain = ["run", "plain", "--image", "kubepbx/none", "-n", &space.namespace, "--dry-run=server"];
        let refused = space.cluster.kubectl(&plain).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains("violates PodSecurity \"restricted"), "a plain pod: {refused}");
        let values = e2e::process::root().join("charts/kubepbx/ci/restricted.yaml");
        space.install(&[std::fs::read_to_string(values)?])?;
        helm_test(space)
    })
}
