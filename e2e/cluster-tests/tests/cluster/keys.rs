//! Keys that are rotated under calls.

use crate::calls::{first_call_example, talk};
use crate::survival::UNNOTICED;
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cluster_tests::{Calls, Space};
use e2e::{Phone, eventually};
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// The Secret of an installation's keys, and its file.
const SECRET: (&str, &str) = ("kubepbx-keys", "keys.json");
const SERVICES: [&str; 5] = ["balancer", "conference", "media", "registrar", "router"];
/// What a process says when it has read other keys.
const ROTATED: &str = "the installation's keys were rotated";
/// A kubelet may take a minute to bring a changed Secret, and looks for it again only then.
const BROUGHT: Duration = Duration::from_secs(150);

/// How often each pod has read other keys.
fn rotations(space: &Space) -> Result<BTreeMap<String, usize>> {
    let mut all = BTreeMap::new();
    for service in SERVICES {
        for pod in space.pods(service)? {
            let log = space.log(pod.name(), service, false)?;
            all.insert(pod.name().to_owned(), log.matches(ROTATED).count());
        }
    }
    Ok(all)
}

/// One more step of a rotation as a person takes it: the Secret's file through `kubepbx generate --keys`.
fn step(space: &Space) -> Result<()> {
    let secret = space.get("Secret", SECRET.0)?.context("no keys")?;
    let text = secret.0["data"][SECRET.1].as_str().context("no file of keys")?;
    let dir = cluster_tests::scratch()?;
    let file = dir.path().join(SECRET.1);
    std::fs::write(&file, BASE64_STANDARD.decode(text)?)?;
    let output = Command::new(e2e::process::kubepbx()?)
        .args(["generate", "--keys"])
        .stdin(std::fs::File::open(&file)?)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    space.patch("Secret", SECRET.0, json!({"data": {SECRET.1: BASE64_STANDARD.encode(output.stdout)}}))?;
    Ok(())
}

/// Both steps of a rotation while calls are up and a phone is registered: no process restarts, calls go on and are ended in
/// order, and the phone that registered under the old key is called under the new one.
#[test]
fn keys_are_rotated_under_calls() -> Result<()> {
    Space::test("keys", |space| {
        first_call_example(space)?;
        let before = rotations(space)?;
        ensure!(before.values().all(|times| *times == 0), "{before:?}");
        let calls = Calls::begin(space, 4)?;
        for taken in 1..=2 {
            step(space)?;
            let mut last = BTreeMap::new();
            eventually("every pod has read the keys", BROUGHT, || {
                last = rotations(space).ok()?;
                last.values().all(|times| *times == taken).then_some(())
            })
            .with_context(|| format!("step {taken}: {last:?}"))?;
            ensure!(last.keys().eq(before.keys()), "pods are not those of before: {last:?}, {before:?}");
            // To the phone that registered under the first key.
            let options = ["--to", "8006", "--seconds", "5"];
            let mut caller = space.cluster.outside(|| Phone::start("call", space.server(0), "8005", &options))?;
            let (called, report) = caller.report(Duration::from_secs(30))?;
            ensure!(called, "a call after step {taken}: {report}");
        }
        let figures = calls.end()?;
        eprintln!("keys rotated: {figures}");
        figures.all_kept(UNNOTICED)?;
        talk(space, "1")
    })
}
