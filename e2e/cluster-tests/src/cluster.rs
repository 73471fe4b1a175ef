//! The cluster that is up, as `e2e/cluster/run env` tells it.

use anyhow::{Context, Result, anyhow, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sched::{CloneFlags, setns};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long any one request to the API server may take.
const REQUEST: Duration = Duration::from_secs(20);

/// A cluster, and where phones live.
pub struct Cluster {
    /// A client of its API server. Its futures belong into [`Cluster::run`].
    pub client: Client,
    /// Nodes that pods come to: name and the address at which phones reach them.
    pub nodes: Vec<(String, IpAddr)>,
    /// Phones' own address.
    pub phones: IpAddr,
    runtime: Runtime,
    /// The network namespace that phones live in; `None`: the machine's.
    network: Option<PathBuf>,
    env: BTreeMap<String, String>,
    verbs: BTreeSet<String>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cluster of {:?}", self.nodes)
    }
}

impl Cluster {
    /// The cluster; the same for all tests. Fails, saying what to run, where none is up.
    pub fn get() -> Result<&'static Self> {
        static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
        CLUSTER
            .get_or_init(|| Self::find().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    fn find() -> Result<Self> {
        // Built here, where the network is; phones only run it.
        e2e::process::kubepbx()?;
        let env = environment()?;
        let value = |key: &str| env.get(key).cloned().unwrap_or_default();
        // Another crate's choice of provider may stand already: it is as good.
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let kubeconfig = Kubeconfig::read_from(value("KUBECONFIG"))?;
        let client = runtime.block_on(async move {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            anyhow::Ok(Client::try_from(config)?)
        })?;
        let nodes = value("NODES")
            .split_whitespace()
            .map(|entry| {
                let (name, address) = entry.split_once('=').with_context(|| format!("NODES: {entry}"))?;
                Ok((name.to_owned(), address.parse()?))
            })
            .collect::<Result<Vec<_>>>()?;
        ensure!(!nodes.is_empty(), "the cluster has no nodes that phones could reach");
        let cluster = Self {
            client,
            nodes,
            phones: value("PHONES_ADDRESS").parse().context("PHONES_ADDRESS")?,
            runtime,
            network: network(&value("PHONES"))?,
            verbs: value("VERBS").split_whitespace().map(str::to_owned).collect(),
            env,
        };
        cluster.renew_definitions()?;
        Ok(cluster)
    }

    /// Helm installs definitions where there are none; those of an earlier run may be of another version.
    fn renew_definitions(&self) -> Result<()> {
        if self.kubectl(&["get", "crd", "-o", "name"])?.contains(".kubepbx.io") {
            let crds = e2e::process::root().join("charts/kubepbx/crds").display().to_string();
            self.apply_definitions(&crds)?;
        }
        Ok(())
    }

    /// Applies a folder of definitions as the chart's README says.
    pub fn apply_definitions(&self, folder: &str) -> Result<()> {
        self.kubectl(&["apply", "--server-side", "--field-manager=helm", "--force-conflicts", "-f", folder]).map(drop)
    }

    /// Runs a future that talks to the API server, on threads of the machine's own network.
    pub fn run<T: Send + 'static>(&self, future: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        let task = self.runtime.spawn(async move { tokio::time::timeout(REQUEST, future).await });
        self.runtime.block_on(task)?.context("the API server does not answer")?
    }

    /// Has a future go on beside everything else, for as long as it lasts.
    pub fn follow(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(future);
    }

    /// Does something where phones live: what it starts, and the sockets it opens, are outside the cluster.
    pub fn outside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let Some(network) = &self.network else { return act() };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(File::open(network)?, CloneFlags::CLONE_NEWNET).context("phones' network needs root")?;
                act()
            });
            thread.join().map_err(|_| anyhow!("what was done outside panicked"))?
        })
    }

    /// What a name of `run env` stands for; empty where the provider does not say.
    pub fn env(&self, name: &str) -> &str {
        self.env.get(name).map_or("", String::as_str)
    }

    /// Whether the provider has this verb beyond `up`, `load` and `down`.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.contains(verb)
    }

    /// `e2e/cluster/run VERB ARGS`; what it printed.
    pub fn verb(&self, verb: &str, args: &[&str]) -> Result<String> {
        run_verb(verb, args)
    }

    /// How many packets with addresses of pods or Services were seen outside since [`Cluster::forget_leaks`].
    pub fn leaks(&self) -> Result<u64> {
        if !self.can("leaks") {
            return Ok(0);
        }
        self.verb("leaks", &[])?.trim().parse().context("leaks")
    }

    /// Begins to count anew.
    pub fn forget_leaks(&self) -> Result<()> {
        if self.can("forget-leaks") {
            self.verb("forget-leaks", &[])?;
        }
        Ok(())
    }

    /// Runs helm; what it printed.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        self.program("HELM", args)
    }

    /// Runs kubectl; what it printed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.program("KUBECTL", args)
    }

    fn program(&self, name: &str, args: &[&str]) -> Result<String> {
        let out = Command::new(self.env(name)).args(args).env("KUBECONFIG", self.env("KUBECONFIG")).output();
        let out = out.with_context(|| format!("{name}: {}", self.env(name)))?;
        let (said, erred) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "{} {}:\n{said}{erred}", name.to_lowercase(), args.join(" "));
        Ok(said.into_owned())
    }
}

fn run_verb(verb: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(e2e::process::root().join("e2e/cluster/run")).arg(verb).args(args).output()?;
    ensure!(out.status.success(), "e2e/cluster/run {verb} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// `NAME=value` lines, the value in single quotes or bare.
fn environment() -> Result<BTreeMap<String, String>> {
    let text = run_verb("env", &[])?;
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.trim_matches('\'').to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// The network namespace that a command is run in by this prefix.
fn network(prefix: &str) -> Result<Option<PathBuf>> {
    let words: Vec<&str> = prefix.split_whitespace().collect();
    Ok(match words.as_slice() {
        [] => None,
        ["nsenter", net] if net.starts_with("--net=") => Some(net.trim_start_matches("--net=").into()),
        ["ip", "netns", "exec", name] => Some(PathBuf::from("/run/netns").join(name)),
        _ => bail!(
            "phones are to be started by `{prefix}`: only nsenter --net=FILE and ip netns exec NAME are understood"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_by_the_prefix() {
        assert_eq!(network("").unwrap(), None);
        assert_eq!(network("nsenter --net=/run/netns/a").unwrap(), Some("/run/netns/a".into()));
        assert_eq!(network("ip netns exec lab").unwrap(), Some("/run/netns/lab".into()));
        assert!(network("ssh elsewhere").is_err());
    }
}
