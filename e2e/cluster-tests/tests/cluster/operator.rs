//! The operator: repairs what others change, rests when there is nothing to do, and may be gone for a while.

use crate::calls::{first_call_example, talk};
use crate::command::said;
use crate::survival::UNNOTICED;
use anyhow::{Context, Result, ensure};
use cluster_tests::{Calls, Object, Space};
use e2e::eventually;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);
const MANAGED: &str = "app.kubernetes.io/managed-by=kubepbx-operator";
/// ServiceAccounts come back too, but with one that is deleted the tokens of its pods end: they go on with what they have
/// and are not followed up until kubelet renews them, within ten minutes.
const KINDS: [&str; 5] = ["Deployment", "DaemonSet", "Service", "PodDisruptionBudget", "NetworkPolicy"];

fn managed(space: &Space) -> Result<Vec<(&'static str, Object)>> {
    let mut all = Vec::new();
    for kind in KINDS {
        all.extend(space.list(kind, MANAGED)?.into_iter().map(|object| (kind, object)));
    }
    ensure!(!all.is_empty(), "the operator manages nothing");
    Ok(all)
}

#[test]
fn drift_is_repaired() -> Result<()> {
    Space::test("drift", |space| {
        first_call_example(space)?;
        // What is deleted is made again.
        for (kind, object) in managed(space)? {
            space.delete(kind, object.name(), None)?;
            space.until(kind, object.name(), "it is back", SOON, |again| again.uid() != object.uid())?;
        }
        // What is changed is changed back.
        space.patch("Deployment", "pbx-router", json!({"spec": {"replicas": 0}}))?;
        space.until("Deployment", "pbx-router", "two replicas again", SOON, |d| d.0["spec"]["replicas"] == 2)?;
        // A balancer that is to end drains for up to a minute before the next one has its port.
        space.settled(Duration::from_secs(150))?;
        space.wait("Pbx", "pbx", "Ready", Duration::from_secs(60))?;
        talk(space, "1")
    })
}

/// With `external` somebody else counts relays: what they were stays until that one says otherwise, and then that.
#[test]
fn replicas_that_others_count_are_left_alone() -> Result<()> {
    Space::test("external", |space| {
        first_call_example(space)?;
        let example = e2e::process::root().join("examples/autoscaling");
        for file in ["hpa-cpu.yaml", "hpa-sessions.yaml"] {
            let file = example.join(file).display().to_string();
            space.cluster.kubectl(&["apply", "--dry-run=server", "-n", &space.namespace, "-f", &file])?;
        }
        let external = json!({"spec": {"media": {"autoscaling": {"mode": "external"}}}});
        let generation = space.patch("Pbx", "pbx", external)?.0["metadata"]["generation"].clone();
        let applied =
            |object: &Object| object.condition("Ready").is_some_and(|ready| ready["observedGeneration"] == generation);
        space.until("Pbx", "pbx", "the mode is taken", SOON, applied)?;
        let replicas = |wanted: i64| move |relays: &Object| relays.0["spec"]["replicas"] == wanted;
        let fields = |relays: &Object| relays.0["metadata"]["managedFields"].to_string();
        space.until("Deployment", "pbx-media", "its replicas are no longer the operator's", SOON, |relays| {
            fields(relays).contains("kubepbx-replicas")
        })?;
        let relays = space.get("Deployment", "pbx-media")?.context("pbx-media")?;
        ensure!(replicas(2)(&relays), "they fell: {}", relays.0["spec"]["replicas"]);
        space.cluster.kubectl(&["scale", "deployment/pbx-media", "--replicas=3", "-n", &space.namespace])?;
        space.settled(Duration::from_secs(60))?;
        // A change of the Deployment by the operator says nothing of it either.
        space.patch("Pbx", "pbx", json!({"spec": {"services": {"media": {"labels": {"changed": "true"}}}}}))?;
        let changed = |relays: &Object| relays.0["spec"]["template"]["metadata"]["labels"]["changed"] == "true";
        let relays = space.until("Deployment", "pbx-media", "it is changed", Duration::from_secs(60), changed)?;
        ensure!(replicas(3)(&relays), "replicas were repaired: {}", relays.0["spec"]["replicas"]);
        space.settled(Duration::from_secs(90))?;
        // One that is marked counts no longer among those that take calls; calls go elsewhere, until the mark is gone.
        let shown = |relays: i64| {
            let limit = Duration::from_secs(20);
            space.until("Pbx", "pbx", &format!("{relays} relays"), limit, |pbx| pbx.0["status"]["relays"] == relays)
        };
        shown(3)?;
        let pods = space.pods("media")?;
        let marked = pods.first().context("a relay")?.name();
        let mark = |since: serde_json::Value| {
            space.patch("Pod", marked, json!({"metadata": {"annotations": {"kubepbx.io/draining-since": since}}}))
        };
        mark("1".into())?;
        shown(2)?;
        talk(space, "1")?;
        mark(serde_json::Value::Null)?;
        shown(3)?;
        let table = space.cluster.kubectl(&["get", "pbx", "-n", &space.namespace])?;
        ensure!(["PODS", "SESSIONS", "RELAYS", "READY"].iter().all(|head| table.contains(head)), "{table}");
        Ok(())
    })
}

/// Nothing is written while nothing changes.
#[test]
fn at_rest_nothing_is_written() -> Result<()> {
    Space::test("rest", |space| {
        first_call_example(space)?;
        space.settled(Duration::from_secs(60))?;
        let versions = || -> Result<BTreeMap<String, String>> {
            let mut all = managed(space)?;
            for kind in ["Pbx", "PbxEndpoint", "Dialplan", "Secret", "ConfigMap"] {
                all.extend(space.list(kind, "")?.into_iter().map(|object| (kind, object)));
            }
            let version = |o: &Object| o.0["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
            Ok(all.iter().map(|(kind, o)| (format!("{kind}/{}", o.name()), version(o))).collect())
        };
        let (mut before, mut since) = (versions()?, Instant::now());
        eventually("ten seconds without a write", Duration::from_secs(40), || {
            let now = versions().ok()?;
            if now != before {
                eprintln!("written: {:?}", now.iter().filter(|(k, v)| before.get(*k) != Some(v)).collect::<Vec<_>>());
                (before, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_secs(10)).then_some(())
        })
    })
}

/// Changes wait for an operator; calls do not.
#[test]
fn an_absent_operator_is_caught_up_with() -> Result<()> {
    Space::test("absent", |space| {
        first_call_example(space)?;
        space.patch("Deployment", "kubepbx-operator", json!({"spec": {"replicas": 0}}))?;
        eventually("the operator is gone", Duration::from_secs(40), || {
            space.list("Pod", "app.kubernetes.io/component=operator").ok()?.is_empty().then_some(())
        })?;
        let later = json!({
            "apiVersion": "kubepbx.io/v1alpha1", "kind": "PbxEndpoint", "metadata": {"name": "8007"},
            "spec": {"context": "from-external", "auth": {"username": "8007", "passwordSecretRef": {"name": "phones", "key": "8005"}}, "aor": {}}
        });
        space.apply_object(&later)?;
        talk(space, "2")?;
        let waiting = space.get("PbxEndpoint", "8007")?.context("8007")?;
        ensure!(waiting.condition("Programmed").is_none(), "live without an operator: {}", waiting.conditions());
        space.patch("Deployment", "kubepbx-operator", json!({"spec": {"replicas": 1}}))?;
        space.wait("PbxEndpoint", "8007", "Ready", Duration::from_secs(40))?;
        talk(space, "1")
    })
}

/// Epoch and number of the configuration that each pod has.
fn versions(space: &Space) -> Result<BTreeMap<String, (u64, u64)>> {
    let table = said(space, &["status"])?;
    let version = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let (epoch, n) = cells.get(4)?.split_once('.')?;
        Some((cells[1].to_owned(), (epoch.parse().ok()?, n.parse().ok()?)))
    };
    Ok(table.lines().filter_map(version).collect())
}

/// The leader is killed: another leads, what was valid stays live, and no process goes back to a version before its own.
#[test]
fn another_leads_when_the_leader_is_killed() -> Result<()> {
    Space::test("leader", |space| {
        first_call_example(space)?;
        space.helm("upgrade", &["operator: {replicas: 2}".into()])?;
        let holder = |lease: &Object| lease.0["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
        let lease =
            space.until("Lease", "kubepbx-operator", "somebody leads", SOON, |lease| !holder(lease).is_empty())?;
        let leader = holder(&lease);
        let pods = space.pods("operator")?;
        let pod = pods.iter().find(|pod| leader.contains(pod.name())).with_context(|| format!("no pod is {leader}"))?;
        let mut before = versions(space)?;
        let last = before.values().map(|(epoch, _)| *epoch).max();
        ensure!(before.len() > 5, "few processes say their version: {before:?}");
        let mut none_went_back = || -> Result<()> {
            for (pod, now) in versions(space)? {
                let was = before.insert(pod.clone(), now).unwrap_or_default();
                ensure!(now >= was, "{pod} went from {was:?} back to {now:?}");
            }
            Ok(())
        };
        space.delete("Pod", pod.name(), Some(0))?;
        none_went_back()?;
        space.until("Lease", "kubepbx-operator", "another leads", Duration::from_secs(60), |lease| {
            !holder(lease).is_empty() && holder(lease) != leader
        })?;
        none_went_back()?;
        space.patch("PbxEndpoint", "8005", json!({"spec": {"codecs": ["alaw", "ulaw"]}}))?;
        space.wait("PbxEndpoint", "8005", "Ready", Duration::from_secs(60))?;
        none_went_back()?;
        // Those whom the change did not concern too, each when it tries again.
        let follow = || {
            let now = versions(space).ok()?;
            now.values().all(|(epoch, _)| Some(*epoch) > last).then_some(())
        };
        eventually("all follow the new leader", Duration::from_secs(60), follow)?;
        none_went_back()?;
        talk(space, "1")
    })
}

/// The API server is killed and comes back: watches begin again, what was changed is live, calls did not notice.
#[test]
fn an_api_server_that_restarts_is_followed_again() -> Result<()> {
    Space::alone("api-restart", |space| {
        first_call_example(space)?;
        let calls = Calls::begin(space, 20)?;
        space.cluster.verb("restart-api", &[])?;
        space.patch("PbxEndpoint", "8005", json!({"spec": {"codecs": ["alaw", "ulaw"]}}))?;
        space.wait("PbxEndpoint", "8005", "Ready", Duration::from_secs(60))?;
        let figures = calls.end()?;
        eprintln!("API server restarted: {figures}");
        figures.all_kept(UNNOTICED)?;
        talk(space, "1")
    })
}
