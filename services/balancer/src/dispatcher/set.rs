//! One dispatcher as it is used: patterns parsed, destinations resolved.

use contract::Transport;
use contract::config::{Algorithm, DispatcherEntry, Probe};
use dialplan::Pattern;
use sip::uri::Uri;
use std::net::SocketAddr;

/// Where a set sends: an address and how it is found again after a change of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URI as configured.
    pub uri: String,
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub remote: SocketAddr,
    /// Relative weight.
    pub weight: u32,
    /// Names the destination in hashes: the same in every process.
    pub id: u64,
}

/// A set of destinations.
#[derive(Debug, Clone)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// How it picks.
    pub algorithm: Algorithm,
    /// What is told when none is left.
    pub unavailable: (u16, String),
    /// How it is probed.
    pub probe: Probe,
    /// Its destinations. One whose URI cannot be used is left out (the compiler refuses it earlier).
    pub targets: Vec<Target>,
    patterns: Vec<Pattern>,
}

impl Set {
    /// Makes ready what an entry says.
    pub fn new(entry: &DispatcherEntry) -> Self {
        Self {
            name: entry.name.clone(),
            algorithm: entry.algorithm,
            unavailable: entry.unavailable.clone(),
            probe: entry.probe.clone(),
            targets: entry.destinations.iter().filter_map(|d| Target::new(&d.uri, d.weight)).collect(),
            patterns: entry.extensions.iter().filter_map(|p| Pattern::parse(p).ok()).collect(),
        }
    }

    /// The best pattern that takes this number.
    pub fn matches(&self, number: &str) -> Option<&Pattern> {
        self.patterns.iter().filter(|p| p.matches(number)).min()
    }

    /// True while something sends to it: only then it is probed.
    pub fn is_referred_to(&self) -> bool {
        !self.patterns.is_empty()
    }
}

impl Target {
    /// The destination of a SIP URI with a numeric host; `None` for any other.
    pub fn new(uri: &str, weight: u32) -> Option<Self> {
        let (transport, remote) = address(&Uri::parse(uri).ok()?)?;
        Some(Self { uri: uri.to_owned(), transport, remote, weight, id: fingerprint(uri) })
    }
}

/// Transport and address of a SIP URI with a numeric host (RFC 3263 4.1, 4.2 without DNS).
pub fn address(uri: &Uri<'_>) -> Option<(Transport, SocketAddr)> {
    if !matches!(uri.scheme, sip::uri::Scheme::Sip) {
        return None;
    }
    let transport = match uri.param("transport").flatten() {
        None => Transport::Udp,
        Some(t) if t.eq_ignore_ascii_case("udp") => Transport::Udp,
        Some(t) if t.eq_ignore_ascii_case("tcp") => Transport::Tcp,
        Some(_) => return None,
    };
    Some((transport, SocketAddr::new(uri.host.ip()?, uri.port.unwrap_or(crate::listen::DEFAULT_PORT))))
}

/// FNV-1a: a number for a text that is the same in every process and release.
fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_uris() {
        for (uri, want) in [
            ("sip:127.0.0.1", Some((Transport::Udp, "127.0.0.1:5060"))),
            ("sip:x@127.0.0.1:5071;transport=TCP", Some((Transport::Tcp, "127.0.0.1:5071"))),
            ("sip:[::1]:5071;transport=udp", Some((Transport::Udp, "[::1]:5071"))),
            ("sip:host.example", None),
            ("sip:127.0.0.1;transport=tls", None),
            ("sips:127.0.0.1", None),
            ("tel:1", None),
        ] {
            let want = want.map(|(t, a)| (t, a.parse().unwrap()));
            assert_eq!(address(&Uri::parse(uri).unwrap()), want, "{uri}");
        }
    }
}
