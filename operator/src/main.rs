//! The operator as a process: flags, TLS, election, probes, and the loop between them.

use anyhow::Context;
use api::SecretRef;
use clap::Parser;
use kube::Client;
use operator::build::Defaults;
use operator::engine::{self, Parts};
use operator::events::Events;
use operator::leader::{self, Candidate};
use operator::metrics::Measures;
use operator::review::Reviews;
use operator::targets::{self, Targets};
use operator::tls::Tls;
use operator::watch::{self, Scope};
use operator::{objects, rbac};
use runtime::admin::{self, AdminState};
use runtime::stream::listen;
use runtime::stream::registry::Registry;
use runtime::stream::server::{Leader, Server};
use runtime::{Clock, Health, Metrics, Running};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The Lease of the election.
const LEASE: &str = "kubepbx-operator";

/// Turns the resources of kubepbx.io into pods and into the configuration of what runs in them.
#[derive(Debug, Parser)]
#[command(name = "operator", version)]
struct Args {
    /// The operator's own namespace: its Lease and its authority stand there
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Namespaces that are served, with commas between them, or all; its own by default
    #[arg(long, env = "KUBEPBX_WATCH", value_name = "NS,NS|all")]
    watch: Option<Scope>,
    /// Where processes come for their configuration
    #[arg(long, env = "KUBEPBX_LISTEN", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// Where /livez, /readyz, /metrics and /v1/targets are served
    #[arg(long, env = "KUBEPBX_PROBES", default_value = "0.0.0.0:9090")]
    probes: SocketAddr,
    /// Where images of pods are
    #[arg(long, env = "KUBEPBX_IMAGES", default_value = "docker.io/kubepbx")]
    images: String,
    /// Their tag
    #[arg(long, env = "KUBEPBX_TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// When nodes pull images: IfNotPresent, Always or Never
    #[arg(long, env = "KUBEPBX_PULL_POLICY", default_value = "IfNotPresent")]
    pull_policy: String,
    /// The Secret, in each namespace, whose key `url` says where the store is
    #[arg(long, env = "KUBEPBX_STORE_SECRET", default_value = "kubepbx-store")]
    store_secret: String,
    /// Where pods reach the operator; https://kubepbx-operator.NAMESPACE.svc:8443 by default
    #[arg(long, env = "KUBEPBX_URL")]
    url: Option<String>,
    /// This pod's name
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pod: String,
    /// This pod's address: standbys send to the leader by it
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Print what the operator may do, as JSON, and end
    #[arg(long)]
    rbac: bool,
    /// What is logged: warn, info, operator=debug,info, ... (KUBEPBX_LOG overrides)
    #[arg(long, default_value = "info")]
    log: String,
}

impl Args {
    fn scope(&self) -> Scope {
        self.watch.clone().unwrap_or_else(|| Scope::Namespaces(vec![self.namespace.clone()]))
    }

    fn defaults(&self) -> Defaults {
        let url = || format!("https://kubepbx-operator.{}.svc:8443", self.namespace);
        Defaults {
            registry: self.images.trim_end_matches('/').to_owned(),
            tag: self.tag.clone(),
            pull_policy: self.pull_policy.clone(),
            operator_url: self.url.clone().unwrap_or_else(url),
            operator_namespace: self.namespace.clone(),
            store: SecretRef { name: self.store_secret.clone(), key: "url".to_owned() },
        }
    }

    /// What the serving certificate is for.
    fn names(&self) -> Vec<String> {
        let service = format!("kubepbx-operator.{}.svc", self.namespace);
        vec![service.clone(), format!("{service}.cluster.local"), "localhost".into(), self.address.to_string()]
    }

    /// Where the leader is reached by name of its address.
    fn own_url(&self, listen: SocketAddr) -> String {
        format!("https://{}", SocketAddr::new(self.address, listen.port()))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the operator cannot go on");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    if args.rbac {
        println!("{}", serde_json::to_string_pretty(&rbac::rules())?);
        return Ok(());
    }
    runtime::telemetry::init(&args.log)?;
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let (metrics, health) = (Metrics::new(), Health::new(Clock::new()));
    let mut tasks = Running::new();
    let (tell, leads) = tokio::sync::watch::channel(Leader::Nobody);
    let targets = Targets::new(Clock::new());
    let told = targets::routes(targets.clone(), leads.clone(), args.probes.port());
    let state = AdminState::new(health.clone(), metrics.clone()).with(told);
    let (_, probes) = admin::serve(args.probes, state).await.with_context(|| format!("probes {}", args.probes))?;
    tasks.spawn("probes", probes);
    let serves = health.part("stream");
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("listen {}", args.listen))?;
    let listen = listener.local_addr()?;
    let client = Client::try_default().await.context("no way to the API server")?;
    let started = Tls::start(client.clone(), &args.namespace, args.names());
    let (tls, serving) = tokio::select! {
        started = started => started,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let trust = tls.trust();
    tasks.spawn("tls", async move {
        tls.keep().await;
        Ok(())
    });

    let registry = Registry::new(Clock::new());
    let reviews = Arc::new(Reviews::new(client.clone()));
    let server = Server::new(reviews, registry.clone(), leads.clone(), metrics.clone());
    let serve = listen::serve(listener, serving.config()?, server.router());
    tasks.spawn("stream", async move { Ok(serve.await?) });
    serves.ready();

    let identity = format!("{}_{}", args.pod, runtime::entropy::process_id());
    let candidate = Candidate::new(&args.namespace, LEASE, &identity, &args.own_url(listen));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let wait = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        // An error says that nobody is left who could stop us: the process ends.
        let _ = stopped.wait_for(|stop| *stop).await;
        // Leadership is given up at once.
        true
    };
    let ahead = registry.ahead();
    let elected = tokio::spawn(leader::run(client.clone(), candidate, ahead, tell, wait(stopped.clone())));

    let (defaults, measures, current) = (args.defaults(), Measures::new(&metrics), trust.clone());
    let parts = Parts {
        client: client.clone(),
        installation: format!("{}/{LEASE}", args.namespace),
        watch: watch::watch(&client, &args.scope(), &measures),
        registry,
        leader: leads,
        store: defaults.store.clone(),
        build: Box::new(move |namespace, owner, spec, facts| {
            objects::all(&defaults, namespace, owner, spec, facts, &current.borrow())
        }),
        rebuild: trust,
        events: Events::new(client, &args.pod),
        measures,
        targets,
        health,
    };
    let mut engine = tokio::spawn(engine::run(parts, async move { _ = wait(stopped).await }));
    tracing::info!(%listen, probes = %args.probes, scope = ?args.scope(), "the operator runs");

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.join() => Some(ended.err().unwrap_or_else(|| anyhow::anyhow!("a task ended"))),
        ended = &mut engine => {
            ended.context("the loop")?;
            anyhow::bail!("the loop ended");
        }
    };
    // Nothing is written from here on; then the Lease is given up, so that another leads at once.
    stop.send_replace(true);
    engine.await.context("the loop")?;
    elected.await.context("the election")?;
    failed.map_or(Ok(()), Err)
}
