//! Which addresses of a description may be sent to.

use std::net::{IpAddr, SocketAddr};

/// Whether an address means nothing beyond its own network: RFC 1918, RFC 6598, link-local, unique local, loopback.
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(a) => {
            let [x, y, ..] = a.octets();
            a.is_private() || a.is_loopback() || a.is_link_local() || (x == 100 && (64..128).contains(&y)) || x == 0
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unicast_link_local() || a.is_unique_local(),
    }
}

/// Whether a datagram may go to an address at all: not to none, not to many.
fn is_unicast(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(a) if a.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

/// Where packets go before a leg was heard from: to the described address; to nobody when that is private, the
/// signalling came from outside and from another address.
pub(crate) fn before_latch(described: SocketAddr, received_from: Option<IpAddr>, outside: bool) -> Option<SocketAddr> {
    let ip = described.ip().to_canonical();
    let same = received_from.is_some_and(|from| {
        let from = from.to_canonical();
        from == ip || (from.is_loopback() && ip.is_loopback())
    });
    (is_unicast(described) && (!outside || same || !is_private(ip))).then_some(described)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_latch_table() {
        // described, received from, outside, sent to
        let table = [
            ("192.0.2.1:4000", Some("192.0.2.1"), true, true),
            ("192.0.2.1:4000", Some("198.51.100.1"), true, true),
            ("10.0.0.5:4000", Some("198.51.100.1"), true, false),
            ("10.0.0.5:4000", Some("10.0.0.5"), true, true),
            ("10.0.0.5:4000", Some("198.51.100.1"), false, true),
            ("10.0.0.5:4000", None, true, false),
            ("100.64.0.1:4000", Some("198.51.100.1"), true, false),
            ("169.254.1.1:4000", Some("198.51.100.1"), true, false),
            ("127.0.0.1:4000", Some("198.51.100.1"), true, false),
            ("127.0.0.2:4000", Some("127.0.0.1"), true, true),
            ("[fd00::1]:4000", Some("2001:db8::1"), true, false),
            ("[fe80::1]:4000", Some("2001:db8::1"), true, false),
            ("[2001:db8::2]:4000", Some("2001:db8::1"), true, true),
            ("[::ffff:10.0.0.5]:4000", Some("198.51.100.1"), true, false),
            ("0.0.0.0:4000", Some("198.51.100.1"), false, false),
            ("224.0.0.5:4000", None, false, false),
            ("255.255.255.255:4000", None, false, false),
            ("192.0.2.1:0", None, false, false),
        ];
        for (described, from, outside, sent) in table {
            let from = from.map(|f| f.parse().unwrap());
            let got = before_latch(described.parse().unwrap(), from, outside);
            assert_eq!(got.is_some(), sent, "{described} {from:?} {outside}");
        }
    }
}
