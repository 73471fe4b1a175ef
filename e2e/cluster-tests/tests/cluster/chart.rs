//! The chart itself: what it renders, and its life from install to uninstall.

use crate::calls::{first_call_example, first_call_is, first_call_phones, talk};
use anyhow::{Context, Result, bail, ensure};
use cluster_tests::{Calls, Cluster, Space};
use e2e::eventually;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CHART: &str = "charts/kubepbx";

fn chart() -> String {
    e2e::process::root().join(CHART).display().to_string()
}

/// CRDs of the Prometheus operator, as far as it takes to have such objects judged.
const MONITORING: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
"metadata": {"name": "PLURAL.monitoring.coreos.com"}, "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced",
"names": {"kind": "KIND", "plural": "PLURAL"}, "versions": [{"name": "VERSION", "served": true, "storage": true,
"schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}"#;

/// Every object of every values file is one that the API server would take.
#[test]
fn every_rendered_object_passes_the_api_server() -> Result<()> {
    Space::test("rendered", |space| {
        let dir = e2e::process::root().join(CHART);
        let scratch = cluster_tests::scratch()?;
        let apply = |name: &str, text: &str, options: &[&str]| -> Result<()> {
            let file = scratch.path().join(name);
            std::fs::write(&file, text)?;
            let file = file.display().to_string();
            let fixed = ["apply", "--server-side", "-f", &file];
            space.cluster.kubectl(&[&fixed, options].concat()).map(drop).with_context(|| name.to_owned())
        };
        space.cluster.apply_definitions(&dir.join("crds").display().to_string())?;
        let monitoring = [
            ("PodMonitor", "podmonitors", "v1"),
            ("PrometheusRule", "prometheusrules", "v1"),
            ("ScrapeConfig", "scrapeconfigs", "v1alpha1"),
        ];
        for (kind, plural, version) in monitoring {
            let text = MONITORING.replace("KIND", kind).replace("PLURAL", plural).replace("VERSION", version);
            apply(plural, &text, &[])?;
            let name = format!("crd/{plural}.monitoring.coreos.com");
            space.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &name])?;
        }
        let mut files = vec![dir.join("values.yaml")];
        files.extend(std::fs::read_dir(dir.join("ci"))?.filter_map(|file| Some(file.ok()?.path())));
        ensure!(files.len() > 3, "values files: {files:?}");
        for values in files {
            let values = values.display().to_string();
            space.cluster.helm(&["lint", "--strict", &chart(), "--values", &values])?;
            let fixed = ["template", "pbx", &chart(), "-n", &space.namespace, "--values", &values];
            // Hooks too, but for what they refer to of each other there is nothing to judge.
            let rendered = space.cluster.helm(&fixed)?;
            apply("rendered.yaml", &rendered, &["--dry-run=server"]).with_context(|| values.clone())?;
        }
        for (_, plural, _) in monitoring {
            space.cluster.kubectl(&["delete", "crd", &format!("{plural}.monitoring.coreos.com")])?;
        }
        Ok(())
    })
}

/// The rules of the rendered role of this kind and name.
fn rules(rendered: &str, kind: &str, name: &str) -> Result<Value> {
    for document in serde_yaml::Deserializer::from_str(rendered) {
        let object = Value::deserialize(document)?;
        if object["kind"] == kind && object["metadata"]["name"] == name {
            return Ok(object["rules"].clone());
        }
    }
    bail!("no {kind} {name} is rendered")
}

/// No more and no less than `operator --rbac` says.
#[test]
fn the_operators_rights_are_what_it_needs() -> Result<()> {
    let cluster = Cluster::get()?;
    let operator = e2e::process::kubepbx()?.with_file_name("operator");
    let out = Command::new(&operator).arg("--rbac").output().context("images/build builds the operator")?;
    let needed: Value = serde_json::from_slice(&out.stdout)?;
    let own = cluster.helm(&["template", "pbx", &chart(), "-n", "voice"])?;
    let all =
        cluster.helm(&["template", "pbx", &chart(), "-n", "voice", "--set-json", r#"operator.namespaces=["*"]"#])?;
    for rendered in [&own, &all] {
        ensure!(rules(rendered, "Role", "kubepbx-operator-own")? == needed["own"], "its own namespace");
    }
    ensure!(rules(&own, "ClusterRole", "kubepbx-operator-voice")? == needed["cluster"], "the cluster");
    ensure!(rules(&own, "Role", "kubepbx-operator")? == needed["served"], "a namespace that is served");
    let list = |what: &str| needed[what].as_array().cloned().unwrap_or_default();
    let both: Value = [list("cluster"), list("served")].concat().into();
    ensure!(rules(&all, "ClusterRole", "kubepbx-operator-voice")? == both, "all namespaces");
    ensure!(rules(&all, "Role", "kubepbx-operator").is_err(), "a Role beside the ClusterRole");
    Ok(())
}

/// Who applied the versions of each definition.
fn managers(space: &Space) -> Result<Vec<(String, Vec<String>)>> {
    let text = space.cluster.kubectl(&["get", "crd", "-o", "json", "--show-managed-fields"])?;
    let all: Value = serde_json::from_str(&text)?;
    let ours = all["items"].as_array().into_iter().flatten().filter(|crd| crd["spec"]["group"] == "kubepbx.io");
    let of = |crd: &Value| {
        let fields = crd["metadata"]["managedFields"].as_array().into_iter().flatten();
        let owners = fields.filter(|entry| !entry["fieldsV1"]["f:spec"]["f:versions"].is_null());
        let name = |entry: &Value| entry["manager"].as_str().unwrap_or_default().to_owned();
        (crd["metadata"]["name"].as_str().unwrap_or_default().to_owned(), owners.map(name).collect())
    };
    Ok(ours.map(of).collect())
}

/// A copy of the chart as another release has it: its definitions differ.
fn another_release(folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("kubepbx");
    let status = Command::new("cp").arg("-r").arg(chart()).arg(&copy).status()?;
    ensure!(status.success(), "cp: {status}");
    for file in std::fs::read_dir(copy.join("crds"))? {
        let path = file?.path();
        let mut text = std::fs::read_to_string(&path)?;
        let (key, quoted) = ("description: ", "description: '");
        let at = text.find(key).with_context(|| path.display().to_string())?;
        let key = if text[at..].starts_with(quoted) { quoted } else { key };
        text.insert_str(at + key.len(), "In another release, ");
        std::fs::write(&path, text)?;
    }
    Ok(copy)
}

const TIERS: [&str; 5] = ["registrar", "conference", "media", "router", "balancer"];

/// Waits until all pods of the services have this label `release`, and are ready.
fn of_release(space: &Space, release: Option<&str>) -> Result<()> {
    let mut last = String::new();
    let all = eventually("every tier is of the release", Duration::from_secs(240), || {
        for tier in TIERS {
            let pods = space.pods(tier).ok()?;
            let old = pods.iter().find(|pod| pod.0["metadata"]["labels"]["release"].as_str() != release);
            last = old.map_or_else(|| format!("no {tier}"), |pod| pod.name().to_owned());
            if old.is_some() || pods.is_empty() {
                return None;
            }
        }
        Some(())
    });
    all.with_context(|| last)?;
    space.settled(Duration::from_secs(60))
}

/// What an uninstall may leave: what the namespace has by itself, the example's Secret, and what the notes name.
const LEFT: [&str; 7] = [
    "ServiceAccount/default",
    "ConfigMap/kube-root-ca.crt",
    "Secret/phones",
    "Secret/kubepbx-keys",
    "Secret/kubepbx-operator-tls",
    "Lease/kubepbx",
    "Lease/kubepbx-operator",
];

/// Waits until nothing else is left.
fn nothing_is_left(space: &Space) -> Result<()> {
    let left = || -> Result<Vec<String>> {
        let mut left = Vec::new();
        for kind in [
            "Pbx",
            "Pod",
            "Deployment",
            "DaemonSet",
            "StatefulSet",
            "Service",
            "ServiceAccount",
            "Secret",
            "ConfigMap",
            "Role",
            "RoleBinding",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Job",
            "Lease",
        ] {
            left.extend(space.list(kind, "")?.iter().map(|object| format!("{kind}/{}", object.name())));
        }
        let cluster = space.cluster.kubectl(&["get", "clusterroles,clusterrolebindings", "-o", "name"])?;
        let ours = cluster.lines().filter(|name| name.ends_with(&format!("-{}", space.namespace)));
        left.extend(ours.map(str::to_owned));
        left.retain(|name| !LEFT.contains(&name.as_str()));
        Ok(left)
    };
    let mut last = Vec::new();
    let gone = eventually("nothing is left", Duration::from_secs(60), || {
        last = left().ok()?;
        last.is_empty().then_some(())
    });
    gone.with_context(|| format!("left: {last:?}"))
}

/// From install to uninstall and another release's install, with calls up over upgrade and rollback; what is left
/// meanwhile is what the notes say.
#[test]
fn install_upgrade_rollback_uninstall() -> Result<()> {
    Space::alone("life", |space| {
        // As on a cluster that has never seen it.
        let names = ["pbxes", "pbxendpoints", "dialplans", "dispatchers"].map(|plural| format!("{plural}.kubepbx.io"));
        let names = names.each_ref().map(String::as_str);
        space.cluster.kubectl(&[&["delete", "crd", "--ignore-not-found"][..], &names].concat())?;
        first_call_example(space)?;
        let calls = Calls::begin(space, 10)?;
        // Every pod is another one then, tier by tier.
        let second = TIERS.map(|tier| format!("{tier}: {{labels: {{release: second}}}}")).join(", ");
        space.helm("upgrade", &[format!("operator: {{log: debug}}\npbx: {{spec: {{services: {{{second}}}}}}}")])?;
        of_release(space, Some("second"))?;
        let managers = managers(space)?;
        let only_helm = managers.iter().all(|(_, managers)| *managers == ["helm"]);
        ensure!(managers.len() == names.len() && only_helm, "who applied the definitions: {managers:?}");
        space.cluster.helm(&["rollback", "pbx", "1", "-n", &space.namespace, "--wait", "--timeout", "120s"])?;
        of_release(space, None)?;
        let figures = calls.end()?;
        eprintln!("upgrade and rollback: {figures}");
        figures.all_kept(3000.0)?;
        talk(space, "1")?;
        space.cluster.helm(&["uninstall", "pbx", "-n", &space.namespace, "--wait", "--timeout", "120s"])?;
        nothing_is_left(space)?;
        let scratch = cluster_tests::scratch()?;
        space.helm_of(&another_release(scratch.path())?, "install", &[])?;
        space.wait("Pbx", "pbx", "Ready", Duration::from_secs(120))?;
        first_call_is(space, "Ready", Duration::from_secs(30))?;
        let definition = space.cluster.kubectl(&["get", "crd", names[0], "-o", "yaml"])?;
        ensure!(definition.contains("In another release, "), "the definitions are not those of the release");
        talk(space, "2")?;
        space.cluster.apply_definitions(&e2e::process::root().join(CHART).join("crds").display().to_string())
    })
}

/// What is there of the objects in a file, but for what others write to them as they live.
fn as_applied(space: &Space, file: &str) -> Result<Vec<Value>> {
    let text =
        space.cluster.kubectl(&["get", "-n", &space.namespace, "-f", file, "-o", "json", "--show-managed-fields"])?;
    let mut objects = serde_json::from_str::<Value>(&text)?["items"].take();
    let objects = objects.as_array_mut().context("no list")?;
    for object in objects.iter_mut() {
        let (object, mut changes) = (object.as_object_mut().context("no object")?, Vec::new());
        if object.remove("status").is_some() {
            changes = vec!["resourceVersion", "managedFields"];
        }
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut).context("no metadata")?;
        changes.into_iter().for_each(|field| _ = metadata.remove(field));
    }
    Ok(std::mem::take(objects))
}

/// The way without Helm in the cluster, as the chart's README tells it: definitions first, then what is rendered; a call;
/// the same once more changes nothing; and away again.
#[test]
fn applied_without_helm() -> Result<()> {
    Space::test("without-helm", |space| {
        let crds = e2e::process::root().join(CHART).join("crds").display().to_string();
        space.cluster.apply_definitions(&crds)?;
        space.cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &crds])?;
        let values = ["redis: {password: of-this-test}".to_owned()];
        let rendered = space.rendered(&values)?;
        ensure!(rendered == space.rendered(&values)?, "what is rendered twice differs");
        let scratch = cluster_tests::scratch()?;
        let file = scratch.path().join("pbx.yaml");
        std::fs::write(&file, &rendered)?;
        let file = file.display().to_string();
        let namespace = space.namespace.clone();
        let apply = || space.cluster.kubectl(&["apply", "--server-side", "-n", &namespace, "-f", &file]);
        apply()?;
        let ready = ["wait", "--for=condition=Ready", "--timeout=120s", "-n", &namespace, "pbx/pbx"];
        space.cluster.kubectl(&ready)?;
        first_call_phones(space)?;
        talk(space, "1")?;
        space.settled(Duration::from_secs(60))?;
        let before = as_applied(space, &file)?;
        ensure!(before.len() > 10, "{} objects are rendered", before.len());
        apply()?;
        ensure!(as_applied(space, &file)? == before, "the same once more has changed something");
        talk(space, "1")?;
        space.cluster.kubectl(&["delete", "-n", &namespace, "-f", &file, "--timeout=120s"])?;
        nothing_is_left(space)
    })
}

/// Where pods declare no ports, the operator says where their metrics are, and that is where they are.
#[test]
fn prometheus_is_told_of_pods_on_host_network() -> Result<()> {
    Space::test("targets", |space| {
        space.install(&[])?;
        let namespace = format!("/api/v1/namespaces/{}", space.namespace);
        let path = format!("{namespace}/services/kubepbx-operator:metrics/proxy/v1/targets");
        let services =
            [("balancer", true), ("media", true), ("registrar", false), ("router", false), ("conference", false)];
        for (service, on_host) in services {
            for pod in space.pods(service)? {
                let mut last = String::new();
                let told = eventually("it is told of", Duration::from_secs(15), || {
                    last = space.raw(&path).unwrap_or_else(|error| format!("{error:#}"));
                    let groups: Vec<Value> = serde_json::from_str(&last).ok()?;
                    groups.into_iter().find(|group| group["labels"]["pod"] == pod.name())
                });
                let group = told.with_context(|| format!("{}: {last}", pod.name()))?;
                let labels = json!({
                    "namespace": space.namespace,
                    "pod": pod.name(),
                    "container": service,
                    "app_kubernetes_io_component": service,
                    "app_kubernetes_io_instance": "pbx",
                    "__meta_kubepbx_host_network": on_host.to_string(),
                });
                ensure!(group["labels"] == labels, "{group}");
                let at: SocketAddr = group["targets"][0].as_str().context("no target")?.parse()?;
                ensure!(pod.0["status"]["podIP"] == at.ip().to_string(), "{group}");
                let metrics = space.raw(&format!("{namespace}/pods/{}:{}/proxy/metrics", pod.name(), at.port()))?;
                ensure!(metrics.contains("\nkubepbx_peers "), "{}: {metrics}", pod.name());
            }
        }
        Ok(())
    })
}
