//! Via (RFC 3261 18, RFC 3581): the ones we write, and where the answer to a received one goes.

use crate::listen::DEFAULT_PORT;
use crate::token::branch::OWNER_PARAM;
use contract::Transport;
use sip::header::Via;
use std::net::{IpAddr, SocketAddr};

/// The sent-by that all balancers share towards the inside: copies of a request that went through two replicas have to
/// look the same to the service that they reach (17.2.3). Answers come back by the hop, not by this name.
pub const INSIDE_HOST: &str = "balancer.invalid";

/// Our Via towards the outside. `owner` stands beside a derived branch.
pub fn outside(transport: Transport, advertised: &str, branch: &str, owner: Option<&str>) -> String {
    // `rport` costs nothing and makes a server behind our NAT answer to where we sent from.
    let rport = if transport.is_reliable() { "" } else { ";rport" };
    let transport = transport.as_str();
    match owner {
        Some(owner) => format!("SIP/2.0/{transport} {advertised}{rport};branch={branch};{OWNER_PARAM}={owner}"),
        None => format!("SIP/2.0/{transport} {advertised}{rport};branch={branch}"),
    }
}

/// Our Via towards the inside, where every hop is reliable.
pub fn inside(branch: &str, owner: &str) -> String {
    format!("SIP/2.0/TCP {INSIDE_HOST};branch={branch};{OWNER_PARAM}={owner}")
}

/// What is to be written into the Via of a request from `remote`: `received` and `rport`.
pub fn received(via: &Via<'_>, remote: SocketAddr) -> (Option<IpAddr>, Option<u16>) {
    let asked = via.rport().is_some();
    let same = via.host.ip() == Some(remote.ip()) && via.params.get("received").is_none();
    ((asked || !same).then_some(remote.ip()), asked.then_some(remote.port()))
}

/// Where the answer to a datagram goes (RFC 3261 18.2.2, RFC 3581 4). A sender that asks for no `rport` is answered at
/// the port of its sent-by, unless its sent-by shows that an address translator is in between.
pub fn answer_to(via: &Via<'_>, remote: SocketAddr) -> SocketAddr {
    let direct = via.rport().is_none() && via.host.ip() == Some(remote.ip());
    SocketAddr::new(remote.ip(), if direct { via.port.unwrap_or(DEFAULT_PORT) } else { remote.port() })
}

/// Where a response goes whose next Via is this one of the outside, for a process that kept no state of the request.
pub fn next_hop(via: &Via<'_>) -> Option<(Transport, SocketAddr)> {
    let transport = if via.transport.eq_ignore_ascii_case("UDP") {
        Transport::Udp
    } else if via.transport.eq_ignore_ascii_case("TCP") {
        Transport::Tcp
    } else {
        return None;
    };
    let ip = via.received().or(via.host.ip())?;
    let port = via.rport().flatten().or(via.port).unwrap_or(DEFAULT_PORT);
    Some((transport, SocketAddr::new(ip, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_where_the_rfcs_say() {
        let remote: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        for (via, received_want, rport_want, to) in [
            ("SIP/2.0/UDP 127.0.0.1:5070", None, None, "127.0.0.1:5070"),
            ("SIP/2.0/UDP 127.0.0.1", None, None, "127.0.0.1:5060"),
            ("SIP/2.0/UDP 127.0.0.1:5070;rport", Some("127.0.0.1"), Some(40000), "127.0.0.1:40000"),
            ("SIP/2.0/UDP 10.0.0.1:5070", Some("127.0.0.1"), None, "127.0.0.1:40000"),
            ("SIP/2.0/UDP phone.example:5070", Some("127.0.0.1"), None, "127.0.0.1:40000"),
            ("SIP/2.0/UDP 127.0.0.1:5070;received=9.9.9.9", Some("127.0.0.1"), None, "127.0.0.1:5070"),
        ] {
            let via = Via::parse(via).unwrap();
            assert_eq!(received(&via, remote), (received_want.map(|i| i.parse().unwrap()), rport_want), "{via:?}");
            assert_eq!(answer_to(&via, remote), to.parse().unwrap(), "{via:?}");
        }
    }

    #[test]
    fn without_state_the_via_itself_says_where_to() {
        for (via, want) in [
            ("SIP/2.0/UDP h.example:5070;received=127.0.0.1;rport=9", Some((Transport::Udp, "127.0.0.1:9"))),
            ("SIP/2.0/TCP 127.0.0.1:5070", Some((Transport::Tcp, "127.0.0.1:5070"))),
            ("SIP/2.0/UDP h.example", None),
            ("SIP/2.0/SCTP 127.0.0.1", None),
        ] {
            let want = want.map(|(t, a)| (t, a.parse().unwrap()));
            assert_eq!(next_hop(&Via::parse(via).unwrap()), want, "{via}");
        }
    }

    #[test]
    fn ours_parse() {
        let text = outside(Transport::Udp, "[::1]:5060", "z9hG4bKx", Some("o"));
        let via = Via::parse(&text).unwrap();
        assert_eq!((via.branch(), via.rport(), via.port), (Some("z9hG4bKx"), Some(None), Some(5060)));
        assert_eq!(Via::parse(&inside("z9hG4bKx", "o")).unwrap().sent_by, INSIDE_HOST);
    }
}
