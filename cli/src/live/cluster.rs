//! The pods of an installation: found by their labels, their admin servers reached by port-forward, all by the rights of
//! whoever's kubeconfig it is.
//!
//! A pod that has an address of its own says in its spec at which port its admin server is. On HostNetwork the kernel
//! chose it, and the pod's peer record tells it: any other process shows that.

use super::fleet::connect;
use super::place::{Link, Objects, Place, Process};
use anyhow::{Context, Result};
use contract::Service;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Pods that the operator made.
const PODS: &str = "app.kubernetes.io/name=kubepbx,app.kubernetes.io/managed-by=kubepbx-operator";
/// Objects in one answer of the API server.
const PAGE: u32 = 500;
/// How long the API server may take.
const LIMIT: Duration = Duration::from_secs(15);
/// Kinds whose conditions are looked at, and their plurals.
const KINDS: [(&str, &str); 4] =
    [("Pbx", "pbxes"), ("PbxEndpoint", "pbxendpoints"), ("Dialplan", "dialplans"), ("Dispatcher", "dispatchers")];

/// An installation in a namespace of a cluster.
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// Whether there is a kubeconfig, or a pod's service account.
pub fn is_configured() -> bool {
    let file = || {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".kube/config").exists())
    };
    std::env::var_os("KUBECONFIG").is_some_and(|paths| !paths.is_empty())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || file().unwrap_or(false)
}

impl Cluster {
    /// By a kubeconfig (the named one, else KUBECONFIG's or the home folder's, else the pod's own account).
    ///
    /// # Errors
    /// No such file, context, or nothing that a client can be made of.
    pub async fn open(file: Option<PathBuf>, context: Option<String>, namespace: Option<String>) -> Result<Self> {
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let config = match file {
            Some(file) => {
                let read = Kubeconfig::read_from(&file).with_context(|| format!("kubeconfig {}", file.display()))?;
                Config::from_custom_kubeconfig(read, &options).await?
            }
            None => match Config::from_kubeconfig(&options).await {
                Ok(config) => config,
                Err(error) if options.context.is_some() => return Err(error.into()),
                Err(error) => Config::incluster().map_err(|_| error)?,
            },
        };
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// All objects of a kind, page by page.
    async fn list(&self, group: &str, version: &str, kind: &str, plural: &str, labels: &str) -> Result<Vec<Value>> {
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
        let mut params = ListParams::default().labels(labels).limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page =
                tokio::time::timeout(LIMIT, api.list(&params)).await.context("the API server does not answer")?;
            let page = page.with_context(|| format!("cannot list {plural} in namespace {}", self.namespace))?;
            for item in page.items {
                all.push(serde_json::to_value(item)?);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(all),
            }
        }
    }

    async fn pods(&self) -> Result<Vec<Value>> {
        let mut pods = self.list("", "v1", "Pod", "pods", PODS).await?;
        pods.retain(|pod| service(pod).is_some());
        Ok(pods)
    }

    /// The ports of admin servers that the kernel chose, by pod, as the first process knows them that answers.
    async fn told(&self, known: &[Process]) -> Vec<(String, u16)> {
        for process in known {
            let Ok(mut session) = connect(self, process).await else { continue };
            if let Ok(peers) = session.get("/v1/peers", Duration::ZERO).await {
                return ports(&peers);
            }
        }
        Vec::new()
    }
}

impl Place for Cluster {
    fn name(&self) -> String {
        format!("namespace {}", self.namespace)
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>>> {
        Box::pin(async {
            let pods = self.pods().await?;
            let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
            let (mut known, mut asked) = (Vec::new(), Vec::new());
            for pod in running {
                let process = Process { name: name(pod), service: service(pod), port: admin_port(pod).unwrap_or(0) };
                if process.port == 0 { asked.push(process) } else { known.push(process) }
            }
            if !asked.is_empty() {
                let told = self.told(&known).await;
                known.extend(asked.into_iter().filter_map(|process| {
                    let (_, port) = told.iter().find(|(pod, _)| *pod == process.name)?;
                    Some(Process { port: *port, ..process })
                }));
            }
            known.sort_by(|a, b| (a.service, &a.name).cmp(&(b.service, &b.name)));
            Ok(known)
        })
    }

    fn connect<'a>(&'a self, process: &'a Process) -> BoxFuture<'a, Result<Link>> {
        Box::pin(async move {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
            let ports = [process.port];
            let forward = pods.portforward(&process.name, &ports);
            let mut forward = tokio::time::timeout(LIMIT, forward)
                .await
                .context("the API server does not answer")?
                .with_context(|| format!("no port-forward to pod {}", process.name))?;
            let stream = forward.take_stream(process.port).context("no stream")?;
            let error = forward.take_error(process.port).context("no stream")?;
            Ok(Link { stream: Box::new(stream), error: Box::pin(error) })
        })
    }

    fn objects(&self) -> BoxFuture<'_, Result<Option<Objects>>> {
        Box::pin(async {
            let mut objects = Objects { pods: self.pods().await?, ..Objects::default() };
            for (kind, plural) in KINDS {
                match self.list("kubepbx.io", "v1alpha1", kind, plural, "").await {
                    Ok(mut items) => {
                        // Items of a list do not say their kind.
                        items.iter_mut().for_each(|item| item["kind"] = kind.into());
                        objects.resources.append(&mut items);
                    }
                    Err(error) => objects.unseen.push(format!("{error:#}")),
                }
            }
            Ok(Some(objects))
        })
    }
}

/// A pod's name.
pub fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// The service that a pod is of, by its label.
pub fn service(pod: &Value) -> Option<Service> {
    let component = pod["metadata"]["labels"]["app.kubernetes.io/component"].as_str()?;
    Service::ALL.into_iter().find(|service| service.as_str() == component)
}

/// The port of a pod's admin server by its spec; 0: the kernel chose it.
fn admin_port(pod: &Value) -> Option<u16> {
    let env = pod["spec"]["containers"][0]["env"].as_array()?;
    let admin = env.iter().find(|variable| variable["name"] == "KUBEPBX_ADMIN")?;
    admin["value"].as_str()?.rsplit_once(':')?.1.parse().ok()
}

/// Pods and the ports of their admin servers, by the peers' records.
fn ports(peers: &Value) -> Vec<(String, u16)> {
    let port = |peer: &Value| {
        let admin: std::net::SocketAddr = peer["admin"].as_str()?.parse().ok()?;
        Some((peer["pod"].as_str()?.to_owned(), admin.port()))
    };
    peers.as_array().into_iter().flatten().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_port_of_an_admin_server_stands_in_the_spec_or_in_the_peers_record() {
        let pod = |admin: &str| {
            json!({
                "metadata": {"name": "pbx-router-1", "labels": {"app.kubernetes.io/component": "router"}},
                "spec": {"containers": [{"env": [
                    {"name": "POD_NAME", "valueFrom": {}},
                    {"name": "KUBEPBX_ADMIN", "value": admin},
                ]}]},
            })
        };
        assert_eq!(admin_port(&pod("127.0.0.1:9091")), Some(9091));
        assert_eq!(admin_port(&pod("127.0.0.1:0")), Some(0));
        assert_eq!((admin_port(&json!({})), admin_port(&pod("x"))), (None, None));
        assert_eq!((service(&pod("")), service(&json!({}))), (Some(Service::Router), None));
        let peers = json!([
            {"service": "balancer", "process": 1, "pod": "pbx-balancer-1", "admin": "127.0.0.1:40123"},
            {"service": "router", "process": 2, "pod": "pbx-router-1"},
        ]);
        assert_eq!(ports(&peers), [("pbx-balancer-1".to_owned(), 40123)]);
    }
}
