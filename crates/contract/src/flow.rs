//! Flows and their tokens: the way back to a phone, in a form that it can carry for us but not forge.
//!
//! A token stands as the user part of our Path and Record-Route URIs (RFC 3327, RFC 5626 5.2 "flow token").

use crate::key::{KeyRing, MAC_LEN};
use crate::process::ProcessId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A SIP transport towards the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams (RFC 3261 18).
    Udp,
    /// Streams (RFC 3261 18).
    Tcp,
}

impl Transport {
    /// As in a Via: `UDP`, `TCP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }

    /// As in a URI's transport parameter: `udp`, `tcp`.
    pub fn as_param(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        }
    }

    /// True where the transport retransmits by itself.
    pub fn is_reliable(self) -> bool {
        !matches!(self, Transport::Udp)
    }
}

/// The way back to a phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The transport.
    pub transport: Transport,
    /// The balancer process that holds the connection or received the datagram.
    pub process: ProcessId,
    /// The connection in that process; 0 for UDP.
    pub connection: u64,
    /// Our address as the phone sees it on our socket (what its packets were sent to), without NAT of our own.
    pub local: SocketAddr,
    /// The phone's address as we see it.
    pub remote: SocketAddr,
}

const SCHEMA: u8 = 1;
const PURPOSE: &str = "flow";

impl Flow {
    /// The token of this flow: base64url without padding, at most 100 characters, legal in a URI's user part.
    pub fn token(&self, keys: &KeyRing) -> String {
        let current = keys.current();
        let mut raw = Vec::with_capacity(72);
        raw.push(SCHEMA);
        raw.push(current.id);
        raw.push(match self.transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
        });
        raw.extend(self.process.0.to_be_bytes());
        raw.extend(self.connection.to_be_bytes());
        put_addr(&mut raw, self.local);
        put_addr(&mut raw, self.remote);
        let mac = current.mac(PURPOSE, &[&raw]);
        raw.extend(mac);
        URL_SAFE_NO_PAD.encode(raw)
    }

    /// Reads a token back; `None` unless one of our keys made it.
    pub fn from_token(token: &str, keys: &KeyRing) -> Option<Self> {
        if token.len() > 128 {
            return None;
        }
        let raw = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, mac) = raw.split_at_checked(raw.len().checked_sub(MAC_LEN)?)?;
        let (&[schema, key, transport], rest) = body.split_first_chunk::<3>()?;
        if schema != SCHEMA || !keys.verify(key, PURPOSE, &[body], mac) {
            return None;
        }
        let (process, rest) = rest.split_first_chunk::<8>()?;
        let (connection, rest) = rest.split_first_chunk::<8>()?;
        let (local, rest) = take_addr(rest)?;
        let (remote, rest) = take_addr(rest)?;
        rest.is_empty().then_some(())?;
        Some(Self {
            transport: match transport {
                0 => Transport::Udp,
                1 => Transport::Tcp,
                _ => return None,
            },
            process: ProcessId(u64::from_be_bytes(*process)),
            connection: u64::from_be_bytes(*connection),
            local,
            remote,
        })
    }
}

fn put_addr(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.extend(addr.port().to_be_bytes());
}

fn take_addr(raw: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (&family, rest) = raw.split_first()?;
    let (ip, rest) = match family {
        4 => {
            let (octets, rest) = rest.split_first_chunk::<4>()?;
            (IpAddr::from(Ipv4Addr::from(*octets)), rest)
        }
        6 => {
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            (IpAddr::from(Ipv6Addr::from(*octets)), rest)
        }
        _ => return None,
    };
    let (port, rest) = rest.split_first_chunk::<2>()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::InstallationKey;
    use proptest::prelude::*;

    fn ring() -> KeyRing {
        KeyRing::new(InstallationKey::new(1, [7; 32]))
    }

    fn flow(local: &str, remote: &str) -> Flow {
        Flow {
            transport: Transport::Tcp,
            process: ProcessId(u64::MAX),
            connection: 12,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    #[test]
    fn a_token_reads_back_and_fits_a_user_part() {
        for f in [flow("10.0.0.1:5060", "127.0.0.1:65535"), flow("[::1]:5060", "[2001:db8::1]:1")] {
            let token = f.token(&ring());
            assert!(token.len() <= 100, "{}", token.len());
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            assert_eq!(Flow::from_token(&token, &ring()), Some(f));
            assert_eq!(Flow::from_token(&token, &KeyRing::new(InstallationKey::new(1, [8; 32]))), None);
        }
    }

    proptest! {
        #[test]
        fn a_changed_token_is_no_token(at in 0usize..70, by in 1u8..=255) {
            let mut raw = URL_SAFE_NO_PAD.decode(flow("10.0.0.1:5060", "[::1]:9").token(&ring())).unwrap();
            let at = at % raw.len();
            raw[at] ^= by;
            prop_assert_eq!(Flow::from_token(&URL_SAFE_NO_PAD.encode(raw), &ring()), None);
        }

        #[test]
        fn noise_never_panics(noise in "[A-Za-z0-9_-]{0,140}") {
            prop_assert_eq!(Flow::from_token(&noise, &ring()), None);
        }
    }
}
