//! One service as a process of its own: flags and environment, keys, store, configuration stream, mesh, peers, probes,
//! views, and the drain on SIGTERM. A service's `main` gives [`run`] what it builds.

use crate::admin::{self, AdminState};
use crate::deps::{Deps, Environment};
use crate::mesh::Reach;
use crate::running::Running;
use crate::store::redis::RedisStore;
use crate::stream::client::{Follow, Timing, follow};
use crate::{discovery, entropy, keys, processes, telemetry};
use anyhow::Context as _;
use clap::ValueEnum;
use contract::config::Entry;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};

/// A service that is drained answers for so long, until all others know that it takes nothing new.
pub const LINGER: Duration = Duration::from_secs(2);

/// A probe is answered within this, or it failed.
const PROBE: Duration = Duration::from_secs(2);

/// What every service is told at its start. Flags come before environment variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The operator that configuration comes from: https://HOST:PORT
    #[arg(long, env = "KUBEPBX_OPERATOR", value_name = "URL", required_unless_present = "check")]
    pub operator: Option<String>,
    /// Certificates of the authority that the operator is known by, as PEM; read for each connection
    #[arg(long, env = "KUBEPBX_CA", value_name = "FILE", default_value = "/var/run/kubepbx/ca/ca.crt")]
    pub ca: PathBuf,
    /// The service account's token for the operator; read for each request
    #[arg(long, env = "KUBEPBX_TOKEN", value_name = "FILE", default_value = "/var/run/kubepbx/token/token")]
    pub token: PathBuf,
    /// Folder with the installation's keys in keys.json
    #[arg(long, env = "KUBEPBX_KEYS", value_name = "DIR", default_value = "/var/run/kubepbx/keys")]
    pub keys: PathBuf,
    /// The store: redis://[[USER]:PASSWORD@]HOST:PORT[/DB]
    #[arg(long, env = "KUBEPBX_STORE", value_name = "URL", hide_env_values = true, required_unless_present = "check")]
    pub store: Option<String>,
    /// What the store's keys begin with: PBXes that share a store have different ones
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "kubepbx")]
    pub namespace: String,
    /// The pod that this process runs in
    #[arg(long, env = "POD_NAME", value_name = "NAME", default_value = "")]
    pub pod: String,
    /// Where other processes reach this one
    #[arg(long, env = "POD_IP", value_name = "IP", required_unless_present = "check")]
    pub address: Option<IpAddr>,
    /// TCP port of inside hops; 0 takes any free one
    #[arg(long, env = "KUBEPBX_INSIDE", value_name = "PORT", default_value_t = 7000)]
    pub inside: u16,
    /// Where /livez, /readyz and /metrics are served; port 0 takes any free one
    #[arg(long, env = "KUBEPBX_PROBES", value_name = "ADDR:PORT", default_value = "0.0.0.0:9090")]
    pub probes: SocketAddr,
    /// Where the views below /v1 are served too: on loopback
    #[arg(long, env = "KUBEPBX_ADMIN", value_name = "ADDR:PORT", default_value = "127.0.0.1:9091")]
    pub admin: SocketAddr,
    /// Unix socket that --check asks at
    #[arg(long, env = "KUBEPBX_SOCKET", value_name = "FILE", default_value = "/run/kubepbx/probes.sock")]
    pub socket: PathBuf,
    /// Seconds that what is under way has to end by itself after SIGTERM
    #[arg(long, env = "KUBEPBX_DRAIN", value_name = "SECONDS", default_value_t = 3600)]
    pub drain: u64,
    /// What is logged: warn, info, router=debug,info, ...
    #[arg(long, env = "KUBEPBX_LOG", default_value = "info")]
    pub log: String,
    /// Asks the process that runs beside for its health, says it by the exit code and ends
    #[arg(long, value_name = "PROBE")]
    pub check: Option<Check>,
}

impl Args {
    /// How long what is under way has to end after SIGTERM.
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain)
    }
}

/// What can be asked of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// Its loops turn.
    Livez,
    /// It was ready once.
    Readyz,
}

/// Runs the service that reads entries `E`: `build` is called once, on a tokio runtime, when the first configuration is
/// at hand. Returns when SIGTERM or SIGINT was obeyed, or when the service failed.
pub fn run<E, F>(args: Args, build: F) -> ExitCode
where
    E: Entry,
    F: AsyncFnOnce(Deps<E>) -> anyhow::Result<Running>,
{
    let done = match args.check {
        Some(check) => ask(&args.socket, check),
        None => begin(args, build),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error:#}", E::SERVICE.as_str());
            ExitCode::FAILURE
        }
    }
}

fn begin<E: Entry>(args: Args, build: impl AsyncFnOnce(Deps<E>) -> anyhow::Result<Running>) -> anyhow::Result<()> {
    telemetry::init(&args.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(serve(args, build));
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

/// Asks by the socket; an answer other than 200 is the error.
fn ask(socket: &Path, check: Check) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(PROBE))?;
    stream.set_write_timeout(Some(PROBE))?;
    let path = match check {
        Check::Livez => "livez",
        Check::Readyz => "readyz",
    };
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).context("no answer")?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    anyhow::ensure!(status == "200", "{body}");
    Ok(())
}

/// Where others collect what is served at `probes`, by the address at which they reach this process; none on loopback.
fn collected_at(probes: SocketAddr, address: IpAddr) -> Option<SocketAddr> {
    let at = if probes.ip().is_unspecified() { address } else { probes.ip() };
    (!probes.ip().is_loopback()).then_some(SocketAddr::new(at, probes.port()))
}

/// A socket for probes in place of one that an earlier run in this pod left.
fn probes_socket(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

async fn serve<E: Entry>(
    args: Args,
    build: impl AsyncFnOnce(Deps<E>) -> anyhow::Result<Running>,
) -> anyhow::Result<()> {
    let limit = args.drain_limit();
    let (operator, url) = (args.operator.context("--operator is missing")?, args.store.context("--store is missing")?);
    let address = args.address.context("--address is missing")?;
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let process = entropy::process_id();
    let environment = Environment::new(Arc::new(RedisStore::new(&url, &args.namespace)?), keys::load(&args.keys)?);
    let Environment { mesh, store, drain, metrics, health, .. } = environment.clone();
    let started = health.part("configuration");

    let mut own = Running::new();
    let probes = || AdminState::new(health.clone(), metrics.clone());
    let (told, server) =
        admin::serve(args.probes, probes()).await.with_context(|| format!("probes {}", args.probes))?;
    own.spawn("probes", server);
    match probes_socket(&args.socket) {
        Ok(listener) => own.spawn("probes socket", admin::on(listener, probes())),
        Err(error) => tracing::warn!(socket = %args.socket.display(), %error, "--check will find nobody"),
    }
    let views = TcpListener::bind(args.admin).await.with_context(|| format!("admin {}", args.admin))?;
    let reach = Reach {
        address: SocketAddr::new(address, args.inside),
        keys: environment.keys.clone(),
        pod: args.pod.clone(),
        admin: Some(views.local_addr()?),
        metrics: collected_at(told, address),
    };
    let (inside, taking) = mesh.listen(reach).await.with_context(|| format!("inside {address}:{}", args.inside))?;
    own.spawn("mesh", taking);
    own.spawn("discovery", discovery::run(environment.clone()));
    own.spawn("keys", keys::follow(args.keys, environment.keys.clone()));
    let service = E::SERVICE.as_str();
    tracing::info!(service, %process, pod = args.pod, %inside, probes = %told, admin = %views.local_addr()?, "started");

    let mut source = follow::<E>(Follow {
        operator,
        ca: args.ca,
        token: args.token,
        process,
        pod: args.pod,
        timing: Timing::default(),
        metrics: metrics.clone(),
    });
    tokio::select! {
        () = source.started() => {}
        () = signals.any() => return Ok(()),
        ended = own.join() => return ended,
    }
    let mut running = build(environment.deps(process, source)).await?;
    processes::views(&environment, &mut own);
    own.spawn("admin", admin::on(views, probes().of(&own).of(&running)));
    started.ready();

    let ended = tokio::select! {
        ended = running.join() => ended.and_then(|()| anyhow::bail!("it ended unasked")),
        ended = own.join() => ended,
        () = signals.any() => {
            tracing::info!(?limit, "draining");
            drain.start();
            tokio::select! {
                ended = running.join() => ended,
                ended = own.join() => ended,
                () = tokio::time::sleep(limit + LINGER) => {
                    tracing::warn!("the limit is over: what is left ends now");
                    Ok(())
                }
                () = signals.any() => Ok(()),
            }
        }
    };
    discovery::withdraw(&store, process).await;
    mesh.flushed(Duration::from_secs(1)).await;
    running.shutdown().await;
    own.shutdown().await;
    // A round that was under way may have written it anew.
    discovery::withdraw(&store, process).await;
    _ = std::fs::remove_file(&args.socket);
    tracing::info!(service, "ended");
    ended
}

/// What asks for the end.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, Health, Metrics};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        process: Args,
    }

    #[test]
    fn a_check_needs_nothing_else_and_a_start_needs_operator_store_and_address() {
        assert_eq!(Cli::try_parse_from(["x", "--check", "livez"]).unwrap().process.check, Some(Check::Livez));
        let all = ["--operator=https://op:8443", "--store=redis://s:6379", "--address=10.0.0.7"];
        let args = Cli::try_parse_from(["x"].into_iter().chain(all)).unwrap().process;
        assert_eq!((args.inside, args.admin.to_string()), (7000, "127.0.0.1:9091".to_owned()));
        for left_out in 0..all.len() {
            let some = all.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, flag)| *flag);
            assert!(Cli::try_parse_from(["x"].into_iter().chain(some)).is_err(), "{}", all[left_out]);
        }
    }

    #[test]
    fn metrics_are_collected_where_others_reach_them() {
        let at = |probes: &str| {
            let at = collected_at(probes.parse().unwrap(), "192.0.2.7".parse().unwrap());
            at.map_or_else(|| "nowhere".to_owned(), |at| at.to_string())
        };
        assert_eq!(at("0.0.0.0:40123"), "192.0.2.7:40123");
        assert_eq!(at("[::]:40123"), "192.0.2.7:40123");
        assert_eq!(at("192.0.2.8:9090"), "192.0.2.8:9090");
        assert_eq!(at("127.0.0.1:9090"), "nowhere");
    }

    #[tokio::test]
    async fn a_check_says_what_the_process_says_and_a_socket_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("probes.sock");
        drop(probes_socket(&path).unwrap());
        assert!(ask(&path, Check::Livez).is_err(), "nobody answers");
        let health = Health::new(Clock::new());
        let part = health.part("router");
        let state = AdminState::new(health, Metrics::new());
        let serving = tokio::spawn(admin::on(probes_socket(&path).unwrap(), state));
        let check = |check| {
            let path = path.clone();
            tokio::task::spawn_blocking(move || ask(&path, check))
        };
        check(Check::Livez).await.unwrap().unwrap();
        assert_eq!(check(Check::Readyz).await.unwrap().unwrap_err().to_string(), "not ready: router");
        part.ready();
        check(Check::Readyz).await.unwrap().unwrap();
        serving.abort();
    }
}
