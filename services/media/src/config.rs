//! What a relay is told at its start.

use contract::{KeyRing, ProcessId};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// A relay's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where NG is heard over UDP; `None` for the in-process handle alone.
    pub ng: Option<SocketAddr>,
    /// Networks whose NG messages are answered without a token; others are dropped and counted. Loopback by default.
    pub ng_allowed: Vec<IpNet>,
    /// Messages with a token by one of these keys, made for the relay of this name, are answered wherever they come from.
    pub ng_keys: Option<(ProcessId, Arc<KeyRing>)>,
    /// Address that media sockets bind to. `0.0.0.0` shows each peer the address of the route to it; `::` takes IPv4 too.
    pub rtp_address: IpAddr,
    /// Address shown in descriptions to peers outside `local_networks`.
    pub advertise: Option<IpAddr>,
    /// Address shown to legs that never leave the installation; without it these are as others.
    pub inside: Option<IpAddr>,
    /// Networks whose peers are shown the address of the route to them, whatever `advertise` says.
    pub local_networks: Vec<IpNet>,
    /// Ports for media: RTP on even ones, RTCP on the next. Ports that others hold are skipped.
    pub ports: RangeInclusive<u16>,
    /// Threads, each with its own calls; 0 for one a core.
    pub threads: usize,
    /// A call ends when none of its legs sent for this long and none is on hold.
    pub timeout: Duration,
    /// The same for calls on hold and for legs that are joined to none.
    pub timeout_held: Duration,
    /// A leg that sent, and did not for this long, is told as silent.
    pub silence: Duration,
    /// How long calls may go on after a drain began; before that is over their owners are told to have them elsewhere.
    pub drain_limit: Option<Duration>,
    /// Most calls a thread; further offers are refused.
    pub max_calls: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ng: None,
            ng_allowed: loopback(),
            ng_keys: None,
            rtp_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            advertise: None,
            inside: None,
            local_networks: loopback(),
            ports: 30000..=39999,
            threads: 0,
            timeout: Duration::from_secs(60),
            timeout_held: Duration::from_secs(3600),
            silence: Duration::from_secs(10),
            drain_limit: None,
            max_calls: 10_000,
        }
    }
}

/// Reads a range of ports, FROM-TO. The error is a sentence for a person.
pub fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').ok_or("write FROM-TO")?;
    let port = |s: &str| s.trim().parse::<u16>().map_err(|_| format!("{s:?} is not a port"));
    let (from, to) = (port(from)?, port(to)?);
    if from == 0 || to <= from {
        return Err("write FROM-TO, FROM at least 1 and TO above it".into());
    }
    Ok(from..=to)
}

fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].iter().filter_map(|n| n.parse().ok()).collect()
}
