//! `kubepbx status`, `registrations`, `calls`, `log` and `hangup` by a kubeconfig, through the API server.

use crate::calls::first_call_example;
use anyhow::{Context, Result, ensure};
use cluster_tests::Space;
use e2e::process::kubepbx;
use e2e::{Phone, eventually};
use serde_json::Value;
use std::process::{Command, Output};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn run(space: &Space, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(kubepbx()?);
    command.args(args).args(["--namespace", &space.namespace]).env("KUBECONFIG", space.cluster.env("KUBECONFIG"));
    Ok(command.output()?)
}

/// What a command prints that ends well.
pub(crate) fn said(space: &Space, args: &[&str]) -> Result<String> {
    let Output { status, stdout, stderr } = run(space, args)?;
    ensure!(status.success(), "kubepbx {args:?}: {}", String::from_utf8_lossy(&stderr));
    Ok(String::from_utf8(stdout)?)
}

/// The id of the only call, once both its legs are up.
fn call(space: &Space) -> Result<String> {
    let mut last = String::new();
    let up = eventually("the call is listed", SOON, || {
        last = said(space, &["calls", "-o", "json"]).unwrap_or_else(|error| format!("{error:#}"));
        let read: Value = serde_json::from_str(&last).ok()?;
        let call = read["items"].as_array().filter(|items| items.len() == 1)?.first()?;
        let legs = call["legs"].as_array()?;
        let up = legs.len() == 2 && legs.iter().all(|leg| leg["state"] == "up");
        up.then(|| call["id"].as_str().unwrap_or_default().to_owned())
    });
    up.context(last)
}

#[test]
fn a_call_is_seen_and_ended_by_a_kubeconfig() -> Result<()> {
    Space::test("command", |space| {
        first_call_example(space)?;
        let (mut callee, mut caller) = space.cluster.outside(|| {
            let callee = Phone::answering(space.server(0), "8006", &[])?;
            let options = ["--to", "8006", "--seconds", "120"];
            Ok((callee, Phone::start("call", space.server(1), "8005", &options)?))
        })?;
        let id = call(space)?;

        let mut status = String::new();
        let well = eventually("all is well", SOON, || {
            status = said(space, &["status"]).unwrap_or_else(|error| format!("{error:#}"));
            let expected = format!("Pbx pbx in namespace {}: all is well\n", space.namespace);
            (status.starts_with(&expected) && status.contains("Calls:          1 (1 up)\n")).then_some(())
        });
        well.with_context(|| status.clone())?;
        // Pods with an address of their own, and those on HostNetwork, whose admin port is told by their peers.
        for component in ["balancer", "registrar", "router", "media", "conference"] {
            for pod in space.pods(component)? {
                let row = status.lines().find(|line| line.contains(&format!(" {} ", pod.name())));
                let row = row.with_context(|| format!("no {}:\n{status}", pod.name()))?;
                ensure!(row.starts_with(component) && row.contains(" serving "), "{row}");
            }
        }

        let registrations = said(space, &["registrations", "8006"])?;
        ensure!(registrations.lines().nth(1).is_some_and(|row| row.starts_with("8006 ")), "{registrations}");
        let calls = said(space, &["calls", "--endpoint", "8005", "-o", "wide"])?;
        let row = calls.lines().find(|row| row.starts_with(&id)).with_context(|| calls.clone())?;
        ensure!(row.contains(" 8005 ") && row.contains(" up ") && row.contains("pbx-router-"), "{row}");
        let none = run(space, &["dispatchers"])?;
        let none = (none.status.success(), String::from_utf8(none.stderr)?);
        ensure!(none.0 && none.1.starts_with("kubepbx: no dispatchers found"), "{none:?}");

        let missing = run(space, &["hangup", "ffffffff"])?;
        ensure!(missing.status.code() == Some(1), "{missing:?}");
        let done = said(space, &["hangup", &id])?;
        ensure!(done == format!("call \"{id}\" hung up\n"), "{done}");
        for phone in [&mut caller, &mut callee] {
            let (ok, report) = phone.report(SOON)?;
            ensure!(ok && report["calls"][0]["ended_by_remote"] == true, "{report}");
        }
        let log = said(space, &["log", "-vvv", "--call", &id])?;
        let said_so = |words: &str| log.lines().any(|line| line.ends_with(words));
        ensure!(said_so("-- Executing [8006@from-external:2] Dial(PJSIP/8006)"), "{log}");
        ensure!(said_so("-- PJSIP/8006 answered") && said_so("== Ended: hung up by command (cause 16)"), "{log}");
        Ok(())
    })
}
