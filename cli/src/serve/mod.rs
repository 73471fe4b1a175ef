//! `kubepbx serve`: the five services in one process over a folder of manifests.

mod follow;
mod relay;
mod state;

use crate::files;
use anyhow::Context;
use api::Folder;
use clap::Args;
use contract::Transport;
use contract::config::RegistrarEntry;
use runtime::admin::{self, AdminState};
use runtime::source::MemorySource;
use runtime::store::memory::MemoryStore;
use runtime::{Deps, Drain, Environment, Running};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

use follow::Sources;
use relay::Relay;

/// Arguments of `kubepbx serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Manifests: files, or folders of files ending in .yaml, .yml or .json
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Where SIP is heard, over UDP and TCP
    #[arg(long, default_value = "0.0.0.0:5060")]
    sip: SocketAddr,
    /// Address of RTP sockets; the SIP address by default
    #[arg(long)]
    rtp_address: Option<IpAddr>,
    /// Ports of RTP
    #[arg(long, value_parser = media::config::port_range, default_value = "30000-39999")]
    rtp_ports: RangeInclusive<u16>,
    /// Where /livez, /readyz, /metrics and /v1/... are served
    #[arg(long, default_value = "127.0.0.1:8080")]
    http: SocketAddr,
    /// Address that phones are told (HOST or HOST:PORT); by default that of the route to each
    #[arg(long)]
    advertise: Option<String>,
    /// Folder for bindings and keys; none keeps nothing over a restart
    #[arg(long, value_name = "DIR|none")]
    state: Option<String>,
    /// Folder of WAV files for playback; the first folder served by default
    #[arg(long)]
    sounds: Option<PathBuf>,
    /// Folder that recordings of rooms are written to
    #[arg(long, value_name = "DIR", default_value = "recordings")]
    recordings: PathBuf,
    /// Seconds that calls have to end by themselves after SIGTERM
    #[arg(long, default_value_t = 30)]
    drain: u64,
    /// What is logged (KUBEPBX_LOG overrides): warn, info, router=debug,info, ...
    #[arg(long, default_value = "info")]
    log: String,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs) -> ExitCode {
    match serve(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubepbx serve: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The advertised host as an address for media, where it is one.
fn media_address(advertise: Option<&str>) -> Option<IpAddr> {
    let text = advertise?;
    let parsed = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|a| a.ip()));
    parsed.ok()
}

/// Hosts that phones register at beside the domains: where SIP is heard, unless that is anywhere, and what is advertised.
fn own_hosts(sip: SocketAddr, advertise: Option<&str>) -> Vec<String> {
    let bound = Some(sip.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
    let advertised = advertise.map(|text| match text.parse::<SocketAddr>() {
        Ok(address) => address.ip().to_string(),
        // A name, or an address alone: an IPv6 one is more than HOST:PORT.
        Err(_) => match text.rsplit_once(':') {
            Some((host, _)) if !host.contains(':') => host.to_owned(),
            _ => text.trim_start_matches('[').trim_end_matches(']').to_owned(),
        },
    });
    bound.into_iter().chain(advertised).collect()
}

/// What a service is given: a name of its own and what all share.
fn deps<E: Serialize + Clone + Send + Sync + 'static>(env: &Environment, source: &MemorySource<E>) -> Deps<E> {
    let process = runtime::entropy::process_id();
    env.deps(process, source.subscribe(process))
}

/// Where legs of the conference service have their media: on loopback, where the relay reaches it from.
fn beside(relay: IpAddr) -> IpAddr {
    match relay {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        // A socket that is bound to one address reaches only what is routed from it.
        ip => ip,
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    runtime::telemetry::init(&args.log)?;
    let mut folder = Folder::new(1);
    let (watcher, changed) = follow::watch(&args.paths)?;
    let update = folder.load(&files::read(&args.paths)?);
    follow::print(&update.problems);
    if update.keeps_out() {
        return Ok(ExitCode::FAILURE);
    }
    let sources = Sources::start(&folder);
    let entries = sources.registrar.snapshot();
    let endpoints = entries.entries.values().filter(|e| matches!(e.as_ref(), RegistrarEntry::Endpoint { .. })).count();

    let first = args.paths.first().context("no path")?;
    let env = match state::folder(args.state.as_deref(), first)? {
        Some(dir) => {
            let keys = runtime::keys::load_or_make(&dir)?;
            let store = MemoryStore::open(&dir)?;
            if let Some(notice) = store.notice() {
                eprintln!("{notice}");
            }
            Environment::new(Arc::new(store), keys)
        }
        None => Environment::in_memory(),
    };

    let rtp_address = args.rtp_address.unwrap_or(args.sip.ip());
    let config = media::Config {
        rtp_address,
        advertise: media_address(args.advertise.as_deref()),
        inside: Some(beside(rtp_address)),
        ports: args.rtp_ports.clone(),
        ..media::Config::default()
    };
    // The relay takes what it is asked for as long as calls go on: only the router drains.
    let relay_deps = Deps { drain: Drain::new(), ..deps(&env, &sources.media) };
    let (relay, handle) = media::serve(config, relay_deps).await.context("media")?;

    let mut config = registrar::Config::default();
    config.settings.own_hosts = own_hosts(args.sip, args.advertise.as_deref());
    let mut parts = vec![relay, registrar::build(config, deps(&env, &sources.registrar)).context("registrar")?];

    let sounds = args.sounds.clone().or_else(|| args.paths.iter().find(|p| p.is_dir()).cloned());
    let config = conference::Config {
        rtp_address: beside(rtp_address),
        sounds: sounds.unwrap_or_else(|| ".".into()),
        recordings: args.recordings.clone(),
        ..conference::Config::default()
    };
    parts.push(conference::build(config, deps(&env, &sources.conference)).context("conference")?);

    let drain_limit = Duration::from_secs(args.drain);
    let config = router::Config { drain_limit, ..router::Config::default() };
    parts.push(router::build(config, deps(&env, &sources.router), Arc::new(Relay(handle))).context("router")?);

    let listeners = vec![(Transport::Udp, args.sip), (Transport::Tcp, args.sip)];
    let config = balancer::Config { listeners, advertise: args.advertise.clone(), ..balancer::Config::default() };
    parts.push(balancer::build(config, deps(&env, &sources.balancer)).context("balancer")?);

    let mut own = Running::new();
    runtime::processes::views(&env, &mut own);
    let state = AdminState::new(env.health.clone(), env.metrics.clone()).of(&own);
    let state = parts.iter().fold(state, AdminState::of);
    let (http, server) = admin::serve(args.http, state).await.with_context(|| format!("http {}", args.http))?;
    own.spawn("http", server);

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    env.health.ready().await;
    println!("ready: {endpoints} endpoints, sip {} (udp, tcp), http {http}", args.sip);
    own.spawn("files", follow::follow(args.paths.clone(), folder, sources, changed));

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        failure = first_failure(&mut parts) => Some(failure),
        ended = own.join() => Some(ended.err().unwrap_or_else(|| anyhow::anyhow!("a task ended"))),
    };
    drop(watcher);
    if failed.is_none() {
        println!("draining: calls have {} s to end; a second signal ends them now", args.drain);
        env.drain.start();
        tokio::select! {
            _ = env.drain.finished_within(drain_limit + Duration::from_secs(2)) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
    for part in &mut parts {
        part.shutdown().await;
    }
    own.shutdown().await;
    match failed {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Waits for the first service that fails; one that ended well keeps it waiting.
async fn first_failure(parts: &mut [Running]) -> anyhow::Error {
    let all = parts.iter_mut().map(|part| {
        Box::pin(async move {
            match part.join().await {
                Err(error) => error,
                Ok(()) => std::future::pending().await,
            }
        })
    });
    futures::future::select_all(all).await.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_register_at_the_address_bound_and_at_the_one_advertised() {
        for (sip, advertise, hosts) in [
            ("0.0.0.0:5060", None, &[][..]),
            ("[::]:5060", Some("pbx.example"), &["pbx.example"]),
            ("127.0.0.1:5060", None, &["127.0.0.1"]),
            ("127.0.0.1:5060", Some("203.0.113.5:5070"), &["127.0.0.1", "203.0.113.5"]),
            ("[::1]:5060", Some("[2001:db8::1]:5070"), &["::1", "2001:db8::1"]),
            ("0.0.0.0:5060", Some("pbx.example:5070"), &["pbx.example"]),
            ("0.0.0.0:5060", Some("2001:db8::1"), &["2001:db8::1"]),
            ("0.0.0.0:5060", Some("[2001:db8::1]"), &["2001:db8::1"]),
        ] {
            assert_eq!(own_hosts(sip.parse().unwrap(), advertise), hosts, "{sip} {advertise:?}");
        }
    }
}
