//! Two installations in one cluster, and two operators for one.

use crate::calls::{first_call_example, first_call_phones, talk};
use crate::survival::UNNOTICED;
use anyhow::{Context, Result, ensure};
use cluster_tests::{Calls, Object, Space};
use e2e::{Phone, eventually};
use serde_json::json;
use std::time::Duration;

/// One operator serves both. Each answers its own phones, and knows nothing of the other's.
#[test]
fn two_pbxes_of_one_operator_do_not_see_each_other() -> Result<()> {
    Space::test("left", |left| {
        Space::beside("right", |right| {
            ensure!(right.port != left.port, "one port for both");
            left.install(&[format!("operator: {{namespaces: [{}, {}]}}", left.namespace, right.namespace)])?;
            right.install(&["operator: {create: false}".into()])?;
            ensure!(right.pods("operator")?.is_empty(), "the second has an operator of its own");
            first_call_phones(left)?;
            // Nobody is known there yet.
            let mut stranger = left.cluster.outside(|| Phone::start("register", right.server(0), "8005", &[]))?;
            let (registered, report) = stranger.report(Duration::from_secs(10))?;
            ensure!(!registered, "a phone of the other installation: {report}");
            first_call_phones(right)?;
            // 8006 is registered there, not here.
            let mut callee = left.cluster.outside(|| Phone::answering(right.server(0), "8006", &[]))?;
            let options = ["--to", "8006", "--seconds", "1"];
            let mut caller = left.cluster.outside(|| Phone::start("call", left.server(0), "8005", &options))?;
            let (called, report) = caller.report(Duration::from_secs(20))?;
            ensure!(!called, "a call went across: {report}");
            // It takes its contact away.
            callee.process().signal("TERM")?;
            callee.report(Duration::from_secs(10))?;
            talk(left, "1")?;
            talk(right, "1")
        })
    })
}

/// A second operator that is told to serve a namespace which another has claimed leaves it alone, and says so; calls go on.
#[test]
fn a_second_operator_leaves_a_claimed_namespace_alone() -> Result<()> {
    Space::alone("claimed", |space| {
        first_call_example(space)?;
        let calls = Calls::begin(space, 20)?;
        let holder = |lease: &Object| lease.0["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let claim = holder(&space.get("Lease", "kubepbx")?.context("no claim")?);
        Space::beside("second", |second| {
            // Its Role there has the name of the first one's: the second gets it by hand.
            second.helm("install", &["pbx: {create: false}".into()])?;
            let role = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "second"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "kubepbx-operator"},
                "subjects": [{"kind": "ServiceAccount", "name": "kubepbx-operator", "namespace": second.namespace}]
            });
            space.apply_object(&role)?;
            let arguments = second.get("Deployment", "kubepbx-operator")?.context("no operator")?;
            let mut arguments: Vec<String> =
                serde_json::from_value(arguments.0["spec"]["template"]["spec"]["containers"][0]["args"].clone())?;
            let watch = arguments.iter_mut().find(|argument| argument.starts_with("--watch="));
            watch.context("no --watch")?.push_str(&format!(",{}", space.namespace));
            let patch = json!([{
                "op": "replace", "path": "/spec/template/spec/containers/0/args", "value": arguments
            }]);
            let name = ["patch", "deployment", "kubepbx-operator", "-n", &second.namespace, "--type=json", "-p"];
            second.cluster.kubectl(&[&name[..], &[&patch.to_string()]].concat())?;
            second.settled(Duration::from_secs(60))?;
            let mut log = String::new();
            let said = eventually("it says whose the namespace is", Duration::from_secs(30), || {
                let pod = second.pods("operator").ok()?.into_iter().find(Object::is_ready_pod)?;
                log = second.log(pod.name(), "operator", false).ok()?;
                log.contains("another operator serves it").then_some(())
            });
            said.with_context(|| log.clone())?;
            let now = holder(&space.get("Lease", "kubepbx")?.context("no claim")?);
            ensure!(now == claim, "claimed by {now} instead of {claim}");
            space.patch("PbxEndpoint", "8005", json!({"spec": {"codecs": ["alaw", "ulaw"]}}))?;
            space.wait("PbxEndpoint", "8005", "Ready", Duration::from_secs(10)).map(drop)
        })?;
        let figures = calls.end()?;
        eprintln!("a second operator: {figures}");
        figures.all_kept(UNNOTICED)
    })
}
