//! The balancer as a process of its own.

use balancer::Config;
use clap::Parser;
use contract::Transport;
use contract::config::BalancerEntry;
use ipnet::IpNet;
use runtime::Deps;
use runtime::process::{self, Args};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// A pod that was deleted without grace leaves its address on the node a moment later than its name in the cluster; the
/// back-off of kubelet is longer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The edge of a KubePBX: all SIP from outside enters and leaves here.
#[derive(Debug, Parser)]
#[command(name = "balancer", version)]
struct Cli {
    #[command(flatten)]
    process: Args,
    /// Where SIP is heard, given once or more: ADDR:PORT for UDP and TCP, udp:ADDR:PORT or tcp:ADDR:PORT for one
    #[arg(long, env = "KUBEPBX_SIP", value_name = "ADDR:PORT", value_delimiter = ',', default_value = "0.0.0.0:5060")]
    sip: Vec<Listen>,
    /// Address that phones are told: HOST or HOST:PORT; by default that of the route to each
    #[arg(long, env = "KUBEPBX_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,
    /// Networks whose phones are told the address of the route to them all the same
    #[arg(long, env = "KUBEPBX_LOCAL_NETWORKS", value_name = "CIDR", value_delimiter = ',')]
    local_network: Vec<IpNet>,
}

/// An address, and the transports there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listen(Vec<(Transport, SocketAddr)>);

impl std::str::FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (transports, address) = match text.split_once(':') {
            Some(("udp", address)) => (vec![Transport::Udp], address),
            Some(("tcp", address)) => (vec![Transport::Tcp], address),
            _ => (vec![Transport::Udp, Transport::Tcp], text),
        };
        let address: SocketAddr = address.parse().map_err(|_| "write ADDR:PORT, udp:ADDR:PORT or tcp:ADDR:PORT")?;
        Ok(Self(transports.into_iter().map(|t| (t, address)).collect()))
    }
}

fn main() -> ExitCode {
    let Cli { process, sip, advertise, local_network: local_networks } = Cli::parse();
    let listeners = sip.into_iter().flat_map(|listen| listen.0).collect();
    let config = Config { listeners, advertise, local_networks, ..Config::default() };
    process::run(process, async |deps: Deps<BalancerEntry>| {
        Ok(balancer::Bound::bind_within(PATIENCE, config, &deps.metrics).await?.start(deps))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read() {
        let at = |a: &str| a.parse::<SocketAddr>().unwrap();
        let read = |text: &str| text.parse::<Listen>().map(|l| l.0).ok();
        let (udp, tcp) = (Transport::Udp, Transport::Tcp);
        assert_eq!(read("0.0.0.0:5060"), Some(vec![(udp, at("0.0.0.0:5060")), (tcp, at("0.0.0.0:5060"))]));
        assert_eq!(read("udp:[::]:5061"), Some(vec![(udp, at("[::]:5061"))]));
        assert_eq!(read("tcp:127.0.0.1:0"), Some(vec![(tcp, at("127.0.0.1:0"))]));
        assert_eq!(read("[::1]:5060").map(|l| l.len()), Some(2));
        for bad in ["", "udp:", "sctp:127.0.0.1:5060", "127.0.0.1", "udp:5060"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
