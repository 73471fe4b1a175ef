//! A namespace with an installation of the chart, for one test.

use crate::cluster::Cluster;
use crate::evidence;
use crate::objects::{Object, resource};
use anyhow::{Context, Result, anyhow, bail, ensure};
use e2e::{Process, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams, PropagationPolicy,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// The chart's values, as YAML.
pub type Values = String;

/// The label of the namespaces that tests make.
const LABEL: &str = "kubepbx.io/e2e";
/// How long an installation may take to be ready.
const UP: Duration = Duration::from_secs(120);

/// Each installation of a run has a SIP port of its own on the nodes: what one leaves to drain is in nobody's way, and what
/// somebody has at 5060 is left alone.
static PORT: AtomicU16 = AtomicU16::new(15_060);

/// Tests go on beside each other, but for those that want the cluster for themselves.
static CLUSTER: RwLock<()> = RwLock::new(());

/// A namespace of a test.
pub struct Space {
    /// Where it is.
    pub cluster: &'static Cluster,
    /// Its name.
    pub namespace: String,
    /// Where its balancers hear SIP on each node.
    pub port: u16,
    began: Instant,
    capture: Option<Process>,
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "namespace {} on port {}", self.namespace, self.port)
    }
}

impl Space {
    /// Runs a test in a namespace of its own. On failure what there is to see is kept, and the error says where; in any
    /// case the installation is taken away. A packet that leaked is a failure.
    pub fn test(name: &str, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        // A test that failed leaves nothing behind that another would trip over.
        let _among_others = CLUSTER.read().unwrap_or_else(PoisonError::into_inner);
        Self::in_own_namespace(name, test)
    }

    /// The same for one that does to the cluster what others would notice, or measures what others would disturb: it runs
    /// alone.
    pub fn alone(name: &str, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let _nobody_else = CLUSTER.write().unwrap_or_else(PoisonError::into_inner);
        Self::in_own_namespace(name, test)
    }

    /// A second namespace within a test.
    pub fn beside(name: &str, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        Self::in_own_namespace(name, test)
    }

    fn in_own_namespace(name: &str, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        static CLEARED: OnceLock<Result<(), String>> = OnceLock::new();
        let cleared =
            CLEARED.get_or_init(|| Cluster::get().and_then(Self::leftovers).map_err(|error| format!("{error:#}")));
        cleared.as_ref().map_err(|error| anyhow!("{error}"))?;
        let mut space = Self::new(name)?;
        let result = test(&mut space).and_then(|()| {
            let leaks = space.cluster.leaks()?;
            ensure!(leaks == 0, "{leaks} packets with addresses of pods or Services were seen outside");
            Ok(())
        });
        let took = space.began.elapsed();
        let result = result.map_err(|error| {
            let folder = evidence::folder(name);
            let kept = evidence::collect(&space, &folder);
            let also = kept.err().map_or_else(String::new, |error| format!(" (not all of it: {error:#})"));
            error.context(format!("{name}: logs, events, objects and a capture are in {}{also}", folder.display()))
        });
        eprintln!("{name}: {} after {:.1} s", if result.is_ok() { "passed" } else { "failed" }, took.as_secs_f64());
        // Evidence first, and the test's own error before one of clearing up.
        result.and(space.clear())
    }

    /// An empty namespace.
    fn new(name: &str) -> Result<Self> {
        let cluster = Cluster::get()?;
        let namespace = format!("e2e-{name}");
        let port = PORT.fetch_add(10, Ordering::Relaxed);
        let mut space = Self { cluster, namespace, port, began: Instant::now(), capture: None };
        space.create_namespace()?;
        cluster.forget_leaks()?;
        let file = evidence::folder(name).join("phones.pcap");
        std::fs::create_dir_all(file.parent().context("a folder for the capture")?)?;
        let capture = cluster.outside(|| {
            let mut tcpdump = Command::new(e2e::process::tool("tcpdump")?);
            tcpdump.args(["-i", "any", "-U", "--immediate-mode", "-s", "2000", "-Z", "root", "-w"]).arg(&file);
            let mut capture = Process::start(&mut tcpdump)?;
            capture.line("listening on", Duration::from_secs(10))?;
            Ok(capture)
        })?;
        space.capture = Some(capture);
        Ok(space)
    }

    fn create_namespace(&self) -> Result<()> {
        // HostNetwork is more than `baseline` allows.
        let labels = json!({LABEL: "true", "pod-security.kubernetes.io/enforce": "privileged"});
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}});
        let object = serde_json::from_value(object)?;
        let api: Api<DynamicObject> = Api::all_with(self.cluster.client.clone(), &resource("Namespace"));
        self.cluster.run(async move { Ok(api.create(&PostParams::default(), &object).await.map(drop)?) })
    }

    /// Deletes the namespaces of earlier runs, and waits until they are gone.
    fn leftovers(cluster: &Cluster) -> Result<()> {
        let ended = || -> Result<bool> {
            let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource("Namespace"));
            let left = cluster.run(async move { Ok(api.list(&ListParams::default().labels(LABEL)).await?.items) })?;
            for name in left.iter().filter_map(|namespace| namespace.metadata.name.as_deref()) {
                delete_namespace(cluster, name)?;
            }
            Ok(left.is_empty())
        };
        eventually("namespaces of earlier runs end", UP, || ended().is_ok_and(|ended| ended).then_some(()))
    }

    /// Takes the installation away, and does not wait for the last of it.
    fn clear(mut self) -> Result<()> {
        // Kept on request, for a person to look at.
        if std::env::var_os("KEEP").is_some() {
            return Ok(());
        }
        drop(self.capture.take());
        let kept = evidence::folder(self.namespace.trim_start_matches("e2e-"));
        // A capture alone is of a test that passed.
        if std::fs::read_dir(&kept)?.count() == 1 {
            std::fs::remove_dir_all(&kept)?;
        }
        if self.cluster.helm(&["list", "-n", &self.namespace, "-q"])?.lines().any(|release| release == "pbx") {
            self.cluster.helm(&["uninstall", "pbx", "-n", &self.namespace])?;
        } else {
            // What was applied without Helm goes with the namespace, but for this.
            let name = format!("kubepbx-operator-{}", self.namespace);
            self.cluster.kubectl(&["delete", "clusterrole,clusterrolebinding", &name, "--ignore-not-found"])?;
        }
        delete_namespace(self.cluster, &self.namespace)
    }

    /// Installs the chart with a `Pbx` whose balancers are on every node, with more values, and waits until it is ready.
    pub fn install(&self, values: &[Values]) -> Result<()> {
        self.helm("install", values)?;
        self.wait("Pbx", "pbx", "Ready", UP)?;
        Ok(())
    }

    /// `helm install` or `upgrade` of the release `pbx`.
    pub fn helm(&self, verb: &str, values: &[Values]) -> Result<String> {
        self.helm_of(&e2e::process::root().join("charts/kubepbx"), verb, values)
    }

    /// The same of this chart.
    pub fn helm_of(&self, chart: &Path, verb: &str, values: &[Values]) -> Result<String> {
        let chart = chart.display().to_string();
        self.helm_with(&[verb, "pbx", &chart, "--wait", "--timeout", "120s"], values)
    }

    /// What is applied by those who have no Helm in their cluster.
    pub fn rendered(&self, values: &[Values]) -> Result<String> {
        let chart = e2e::process::root().join("charts/kubepbx").display().to_string();
        self.helm_with(&["template", "pbx", &chart, "--no-hooks"], values)
    }

    /// Runs helm in the namespace: a `Pbx` at this test's own port, one operator, and more values.
    fn helm_with(&self, args: &[&str], values: &[Values]) -> Result<String> {
        let dir = evidence::scratch()?;
        let own = format!(
            "operator: {{replicas: 1}}\npbx:\n  spec:\n    listeners:\n    - {{transport: UDP, port: {0}}}\n    - {{transport: TCP, port: {0}}}\n",
            self.port
        );
        let mut args: Vec<String> =
            args.iter().copied().chain(["--namespace", &self.namespace]).map(str::to_owned).collect();
        for (n, text) in [own].iter().chain(values).enumerate() {
            let file = dir.path().join(format!("{n}.yaml"));
            std::fs::write(&file, text)?;
            args.extend(["--values".to_owned(), file.display().to_string()]);
        }
        self.cluster.helm(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Where phones reach the balancer of a node, by the node's place in [`Cluster::nodes`].
    pub fn server(&self, node: usize) -> SocketAddr {
        let (_, address) = &self.cluster.nodes[node % self.cluster.nodes.len()];
        SocketAddr::new(*address, self.port)
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.cluster.client.clone(), &self.namespace, &resource(kind))
    }

    /// Applies every manifest of a file's or a folder's YAML, relative to the repository.
    pub fn apply_path(&self, path: &str) -> Result<()> {
        let path = e2e::process::root().join(path);
        for file in yaml_files(&path)? {
            self.apply(&std::fs::read_to_string(&file).with_context(|| file.display().to_string())?)?;
        }
        Ok(())
    }

    /// Applies YAML documents, server-side.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let object = Value::deserialize(document)?;
            if !object.is_null() {
                self.apply_object(&object)?;
            }
        }
        Ok(())
    }

    /// Applies one object, server-side.
    pub fn apply_object(&self, object: &Value) -> Result<Object> {
        let kind = object["kind"].as_str().context("an object without kind")?;
        let name = object["metadata"]["name"].as_str().context("an object without name")?.to_owned();
        let (api, patch) = (self.api(kind), Patch::Apply(object.clone()));
        self.cluster.run(async move {
            let applied = api.patch(&name, &PatchParams::apply("e2e").force(), &patch).await;
            Ok(Object(serde_json::to_value(applied.with_context(|| format!("applying {name}"))?)?))
        })
    }

    /// Merges a patch into an object.
    pub fn patch(&self, kind: &str, name: &str, patch: Value) -> Result<Object> {
        let (api, name) = (self.api(kind), name.to_owned());
        self.cluster.run(async move {
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
            Ok(Object(serde_json::to_value(patched.with_context(|| format!("patching {name}"))?)?))
        })
    }

    /// An object as it is now.
    pub fn get(&self, kind: &str, name: &str) -> Result<Option<Object>> {
        let (api, name) = (self.api(kind), name.to_owned());
        self.cluster
            .run(async move { Ok(api.get_opt(&name).await?.map(serde_json::to_value).transpose()?.map(Object)) })
    }

    /// All of a kind with these labels (`a=b,c=d`; empty: any).
    pub fn list(&self, kind: &str, labels: &str) -> Result<Vec<Object>> {
        let (api, params) = (self.api(kind), ListParams::default().labels(labels));
        self.cluster.run(async move {
            let items = api.list(&params).await?.items;
            items.into_iter().map(|item| Ok(Object(serde_json::to_value(item)?))).collect()
        })
    }

    /// Pods of a service, or `operator` or `redis`, that are not ending.
    pub fn pods(&self, component: &str) -> Result<Vec<Object>> {
        let mut pods = self.list("Pod", &format!("app.kubernetes.io/component={component}"))?;
        pods.retain(|pod| pod.0["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// Deletes an object; a pod with its own time to end unless `grace` says otherwise.
    pub fn delete(&self, kind: &str, name: &str, grace: Option<u32>) -> Result<()> {
        let (api, name) = (self.api(kind), name.to_owned());
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        let params = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..params };
        self.cluster.run(async move { Ok(api.delete(&name, &params).await.map(drop)?) })
    }

    /// Waits until an object's condition is True; the object. Fails saying what its conditions were.
    pub fn wait(&self, kind: &str, name: &str, condition: &str, limit: Duration) -> Result<Object> {
        self.until(kind, name, &format!("{condition}=True"), limit, |object| object.is(condition, "True"))
    }

    /// Waits until an object is as `so` wants it; the object. Fails saying what its conditions were.
    pub fn until(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        limit: Duration,
        so: impl Fn(&Object) -> bool,
    ) -> Result<Object> {
        let mut last = String::from("it is not there");
        let found = eventually(what, limit, || match self.get(kind, name) {
            Ok(Some(object)) => {
                last = object.conditions();
                so(&object).then_some(object)
            }
            Ok(None) => None,
            Err(error) => {
                last = format!("{error:#}");
                None
            }
        });
        found.with_context(|| format!("{kind} {name}: {last}"))
    }

    /// Sends a signal to the first container of a pod, past the kubelet.
    pub fn signal(&self, pod: &Object, signal: &str) -> Result<()> {
        let (Some(node), Some(container)) =
            (pod.node(), pod.0["status"]["containerStatuses"][0]["containerID"].as_str())
        else {
            bail!("{pod:?} does not run")
        };
        self.cluster.verb("signal", &[signal, node, container]).map(drop)
    }

    /// A metric, added up over the pods of a service that are ready; not for pods on HostNetwork.
    pub fn sum(&self, component: &str, metric: &str) -> Result<u64> {
        let mut sum = 0;
        for pod in self.pods(component)?.iter().filter(|pod| pod.is_ready_pod()) {
            sum += self.metric(pod, metric)?;
        }
        Ok(sum)
    }

    /// The same of one pod; `metric` may be followed by labels, as `/metrics` writes them.
    pub fn metric(&self, pod: &Object, metric: &str) -> Result<u64> {
        let path = format!("/api/v1/namespaces/{}/pods/{}:9090/proxy/metrics", self.namespace, pod.name());
        Ok(metric_sum(&self.raw(&path)?, metric))
    }

    /// Waits until routers have so many calls, not counting those on a node that cannot be reached.
    pub fn has_calls(&self, count: u64, unreachable: Option<&str>, limit: Duration) -> Result<()> {
        let calls = || -> Result<u64> {
            let pods = self.pods("router")?;
            let asked = pods.iter().filter(|pod| pod.is_ready_pod() && pod.node() != unreachable);
            asked.map(|pod| self.metric(pod, "kubepbx_router_calls")).sum()
        };
        let mut last = 0;
        let found = eventually("routers have all calls", limit, || {
            last = calls().ok()?;
            (last >= count).then_some(())
        });
        found.with_context(|| format!("routers have {last} of {count}"))
    }

    /// What the API server answers to a GET of this path.
    pub fn raw(&self, path: &str) -> Result<String> {
        let (client, request) = (self.cluster.client.clone(), http::Request::get(path).body(Vec::new())?);
        self.cluster.run(async move { Ok(client.request_text(request).await?) })
    }

    /// Waits until every Deployment, DaemonSet and StatefulSet of the installation has all its pods, of its newest template.
    pub fn settled(&self, limit: Duration) -> Result<()> {
        let mut last = String::new();
        let done = eventually("all pods are there", limit, || {
            let mut all = Vec::new();
            for kind in ["Deployment", "DaemonSet", "StatefulSet"] {
                all.extend(self.list(kind, "app.kubernetes.io/name=kubepbx").ok()?);
            }
            let waiting: Vec<&str> = all.iter().filter(|o| !o.is_settled()).map(Object::name).collect();
            last = waiting.join(", ");
            (!all.is_empty() && waiting.is_empty()).then_some(())
        });
        done.with_context(|| format!("not all there: {last}"))
    }

    /// What a container of a pod has logged; of its run before this one with `previous`.
    pub fn log(&self, pod: &str, container: &str, previous: bool) -> Result<String> {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let params = LogParams { container: Some(container.to_owned()), previous, ..LogParams::default() };
        let pod = pod.to_owned();
        self.cluster.run(async move { Ok(api.logs(&pod, &params).await?) })
    }
}

/// Asks for the end of a namespace; its pods have nothing to wait for.
fn delete_namespace(cluster: &Cluster, name: &str) -> Result<()> {
    let client = cluster.client.clone();
    let name = name.to_owned();
    cluster.run(async move {
        let pods: Api<DynamicObject> = Api::namespaced_with(client.clone(), &name, &resource("Pod"));
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await?;
        let api: Api<DynamicObject> = Api::all_with(client, &resource("Namespace"));
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    })
}

/// The values of a metric in the text of `/metrics`, added up over its labels.
fn metric_sum(text: &str, metric: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        let value = if let Some(labels) = rest.strip_prefix('{') { labels.split_once('}')?.1 } else { rest };
        value.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    });
    values.sum::<f64>() as u64
}

fn yaml_files(path: &Path) -> Result<Vec<std::path::PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_added_up_over_labels() {
        let text = "# HELP a_b Text.\na_b 2\na_b_total{reason=\"x y\"} 3\na_b_total{reason=\"z\"} 4 1700000000\n";
        assert_eq!((metric_sum(text, "a_b"), metric_sum(text, "a_b_total"), metric_sum(text, "c")), (2, 7, 0));
    }
}
