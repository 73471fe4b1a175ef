//! What a balancer is built from.

use crate::core::Limits;
use anyhow::{Context as _, bail};
use contract::Transport;
use ipnet::IpNet;
use runtime::transport::tcp::TcpConfig;
use runtime::transport::udp::UdpOptions;
use sip::uri::Host;
use std::net::SocketAddr;

/// Settings of one balancer process.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it listens on. Port 0 takes any free one; the unspecified address takes all addresses.
    pub listeners: Vec<(Transport, SocketAddr)>,
    /// `host` or `host:port` that stands in Via, Record-Route and Path instead of the local address of each flow.
    pub advertise: Option<String>,
    /// Networks whose hosts are told the local address all the same.
    pub local_networks: Vec<IpNet>,
    /// Shards: each has UDP sockets and a core of its own.
    pub shards: u16,
    /// Sockets as they are made; `freebind` binds addresses that this machine does not hold yet.
    pub udp: UdpOptions,
    /// Bounds of TCP connections.
    pub tcp: TcpConfig,
    /// Bounds and timers of the cores.
    pub limits: Limits,
    /// Messages that may wait for one shard.
    pub queue: usize,
    /// Connections that are closed a second while draining, so that phones come back elsewhere a few at a time.
    pub close_a_second: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            advertise: None,
            local_networks: Vec::new(),
            shards: 1,
            udp: UdpOptions::default(),
            tcp: TcpConfig::default(),
            limits: Limits::default(),
            queue: 4096,
            close_a_second: 20,
        }
    }
}

/// Reads `host[:port]`; IPv6 addresses stand in brackets, or bare without a port.
pub(crate) fn advertised(text: &str) -> anyhow::Result<(String, Option<u16>)> {
    let context = || format!("advertised address {text:?}: write HOST or HOST:PORT");
    if let Ok(ip) = text.parse::<std::net::Ipv6Addr>() {
        return Ok((format!("[{ip}]"), None));
    }
    let split = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
    let (host, port) = match split {
        Some((host, port)) => (host, Some(port.parse::<u16>().with_context(context)?)),
        None => (text, None),
    };
    if Host::parse(host).is_err() || port == Some(0) {
        bail!(context());
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_addresses() {
        for (text, want) in [
            ("192.0.2.1", Some(("192.0.2.1", None))),
            ("192.0.2.1:5070", Some(("192.0.2.1", Some(5070)))),
            ("pbx.example:5070", Some(("pbx.example", Some(5070)))),
            ("2001:db8::1", Some(("[2001:db8::1]", None))),
            ("[2001:db8::1]:5070", Some(("[2001:db8::1]", Some(5070)))),
            ("pbx.example:sip", None),
            ("pbx.example:0", None),
            ("a b", None),
            ("", None),
        ] {
            let got = advertised(text).ok();
            assert_eq!(got.as_ref().map(|(h, p)| (h.as_str(), *p)), want, "{text}");
        }
    }
}
