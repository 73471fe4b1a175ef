//! The relay as a process of its own.

use clap::Parser;
use contract::config::MediaEntry;
use ipnet::IpNet;
use media::Config;
use runtime::Deps;
use runtime::process::{self, Args};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::process::ExitCode;

/// The RTP relay of a KubePBX. Speaks the NG protocol to routers.
#[derive(Debug, Parser)]
#[command(name = "media", version)]
struct Cli {
    #[command(flatten)]
    process: Args,
    /// Address of RTP sockets; all by default, each peer being shown that of the route to it
    #[arg(long, env = "KUBEPBX_RTP_ADDRESS", value_name = "IP")]
    rtp_address: Option<IpAddr>,
    /// Ports of RTP; those that others hold are skipped
    #[arg(long, env = "KUBEPBX_RTP_PORTS", value_name = "FROM-TO", value_parser = media::config::port_range, default_value = "30000-39999")]
    rtp_ports: RangeInclusive<u16>,
    /// UDP port of NG; 0 takes any free one
    #[arg(long, env = "KUBEPBX_NG", value_name = "PORT", default_value_t = 2223)]
    ng: u16,
    /// Networks that NG is taken from without a token
    #[arg(long, env = "KUBEPBX_NG_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    ng_allow: Vec<IpNet>,
    /// Address that phones are told; by default that of the route to each
    #[arg(long, env = "KUBEPBX_ADVERTISE", value_name = "IP")]
    advertise: Option<IpAddr>,
    /// Networks whose phones are told the address of the route to them all the same
    #[arg(long, env = "KUBEPBX_LOCAL_NETWORKS", value_name = "CIDR", value_delimiter = ',')]
    local_network: Vec<IpNet>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let own = Config::default();
    let config = Config {
        ng: cli.process.address.map(|address| SocketAddr::new(address, cli.ng)),
        ng_allowed: cli.ng_allow,
        inside: cli.process.address,
        rtp_address: cli.rtp_address.unwrap_or(own.rtp_address),
        advertise: cli.advertise,
        local_networks: [own.local_networks, cli.local_network].concat(),
        ports: cli.rtp_ports,
        drain_limit: Some(cli.process.drain_limit()),
        ..Config::default()
    };
    process::run(cli.process, async |deps: Deps<MediaEntry>| {
        let config = Config { ng_keys: Some((deps.process, deps.keys.clone())), ..config };
        media::serve(config, deps).await.map(|(running, _)| running)
    })
}
