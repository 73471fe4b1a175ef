//! Our own addresses: what we listen on, what we tell the outside, and what we send from.

use contract::{Flow, Transport};
use ipnet::IpNet;
use sip::uri::Host;
use std::net::{IpAddr, SocketAddr};

/// The port of a SIP URI or Via without one (RFC 3261 19.1.2).
pub const DEFAULT_PORT: u16 = 5060;

/// Finds the local address of the route to an outside one: asked only where a listener is bound to all addresses.
pub trait Routes {
    /// The address that the system would send from; `None` without a route.
    fn local_for(&self, remote: IpAddr) -> Option<IpAddr>;

    /// True if this machine has this address now: a virtual one is bound before it comes, and after it went.
    fn has(&self, _address: IpAddr) -> bool {
        true
    }
}

/// No routes are known: for listeners that are bound to one address each.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRoutes;

impl Routes for NoRoutes {
    fn local_for(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }
}

/// Listeners and the advertised address.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    list: Vec<(Transport, SocketAddr)>,
    /// Host as in a URI, and the port if one was given.
    advertise: Option<(String, Option<u16>)>,
    /// Networks that are told the local address all the same.
    local: Vec<IpNet>,
}

impl Listeners {
    /// Listeners with the ports that they really have, and what is told instead of the local address.
    pub fn new(list: Vec<(Transport, SocketAddr)>, advertise: Option<(String, Option<u16>)>) -> Self {
        Self { list, advertise, local: Vec::new() }
    }

    /// The same, but that these networks are told the local address.
    pub fn local_to(self, networks: Vec<IpNet>) -> Self {
        Self { local: networks, ..self }
    }

    /// Host and port that stand in our Via, Record-Route and Path towards the far end of a flow: our address there, or
    /// what is told to all who are not of a local network.
    pub fn advertised(&self, flow: &Flow) -> String {
        let remote = flow.remote.ip().to_canonical();
        match &self.advertise {
            Some((host, port)) if !self.local.iter().any(|n| n.contains(&remote)) => {
                format!("{host}:{}", port.unwrap_or(flow.local.port()))
            }
            _ => flow.local.to_string(),
        }
    }

    /// True if a URI or sent-by of this host and port means us; `local` is where the message that says so arrived.
    pub fn is_own(&self, host: &Host<'_>, port: Option<u16>, local: SocketAddr) -> bool {
        let port = port.unwrap_or(DEFAULT_PORT);
        if let Some((name, told)) = &self.advertise
            && Host::parse(name).is_ok_and(|h| h.same(host))
            && told.is_none_or(|p| p == port)
        {
            return true;
        }
        let Some(ip) = host.ip() else { return false };
        let addr = SocketAddr::new(ip, port);
        addr == local || self.list.iter().any(|(_, l)| *l == addr)
    }

    /// True if a process with these listeners can send on a UDP flow, where the machine has the flow's local address.
    pub fn holds(&self, flow: &Flow) -> bool {
        self.list.iter().any(|(transport, addr)| {
            *transport == flow.transport
                && addr.port() == flow.local.port()
                && addr.is_ipv4() == flow.local.is_ipv4()
                && (addr.ip().is_unspecified() || addr.ip() == flow.local.ip())
        })
    }

    /// The local address to send from towards an outside address by this transport.
    pub fn source_for(&self, transport: Transport, remote: SocketAddr, routes: &dyn Routes) -> Option<SocketAddr> {
        let fits = |l: &&(Transport, SocketAddr)| l.0 == transport && l.1.is_ipv4() == remote.is_ipv4();
        let candidates = || self.list.iter().filter(fits);
        let (first, second) = (candidates().next()?, candidates().nth(1));
        if second.is_none() && !first.1.ip().is_unspecified() {
            return Some(first.1);
        }
        let route = routes.local_for(remote.ip());
        let exact = candidates().find(|(_, l)| Some(l.ip()) == route);
        match (exact, candidates().find(|(_, l)| l.ip().is_unspecified())) {
            (Some((_, l)), _) => Some(*l),
            (None, Some((_, l))) => Some(SocketAddr::new(route?, l.port())),
            (None, None) => Some(first.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ProcessId;

    struct Fixed;
    impl Routes for Fixed {
        fn local_for(&self, _: IpAddr) -> Option<IpAddr> {
            "192.0.2.1".parse().ok()
        }
    }

    fn addr(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    #[test]
    fn own_addresses() {
        let bound = Listeners::new(vec![(Transport::Udp, addr("127.0.0.1:5060"))], None);
        let nat = Listeners::new(vec![(Transport::Udp, addr("0.0.0.0:5062"))], Some(("pbx.example".into(), None)));
        let local = addr("127.0.0.9:5062");
        for (listeners, host, port, want) in [
            (&bound, "127.0.0.1", None, true),
            (&bound, "127.0.0.1", Some(5061), false),
            (&bound, "127.0.0.2", None, false),
            (&nat, "PBX.example", None, true),
            (&nat, "127.0.0.9", Some(5062), true),
            (&nat, "127.0.0.9", None, false),
            (&nat, "0.0.0.0", None, false),
        ] {
            assert_eq!(listeners.is_own(&Host::parse(host).unwrap(), port, local), want, "{host} {port:?}");
        }
    }

    fn flow(local: &str) -> Flow {
        Flow {
            transport: Transport::Udp,
            process: ProcessId(1),
            connection: 0,
            local: addr(local),
            remote: addr("127.0.0.1:9"),
        }
    }

    #[test]
    fn the_outside_is_told_the_advertised_address_and_local_networks_ours() {
        let list = || vec![(Transport::Udp, addr("0.0.0.0:5062"))];
        let told = Some(("pbx.example".to_owned(), None));
        let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let (plain, nat) = (Listeners::new(list(), None), Listeners::new(list(), told).local_to(networks));
        for (remote, want) in [
            ("198.51.100.7:5060", "pbx.example:5062"),
            ("10.1.2.3:5060", "10.0.0.9:5062"),
            ("[::ffff:10.1.2.3]:5060", "10.0.0.9:5062"),
            ("[fd00::1]:5060", "10.0.0.9:5062"),
            ("[2001:db8::1]:5060", "pbx.example:5062"),
        ] {
            let flow = Flow { remote: addr(remote), ..flow("10.0.0.9:5062") };
            assert_eq!(nat.advertised(&flow), want, "{remote}");
            assert_eq!(plain.advertised(&flow), "10.0.0.9:5062");
        }
    }

    #[test]
    fn flows_held_and_sources_chosen() {
        let any = Listeners::new(vec![(Transport::Udp, addr("0.0.0.0:5060"))], None);
        let two = Listeners::new(
            vec![(Transport::Udp, addr("10.0.0.1:5060")), (Transport::Udp, addr("192.0.2.1:5070"))],
            None,
        );
        assert!(
            any.holds(&flow("10.1.1.1:5060")) && !any.holds(&flow("10.1.1.1:5061")) && !any.holds(&flow("[::1]:5060"))
        );
        assert!(two.holds(&flow("10.0.0.1:5060")) && !two.holds(&flow("10.0.0.2:5060")));
        let remote = addr("198.51.100.7:5060");
        assert_eq!(any.source_for(Transport::Udp, remote, &Fixed), Some(addr("192.0.2.1:5060")));
        assert_eq!(any.source_for(Transport::Udp, remote, &NoRoutes), None);
        assert_eq!(two.source_for(Transport::Udp, remote, &Fixed), Some(addr("192.0.2.1:5070")));
        assert_eq!(two.source_for(Transport::Udp, remote, &NoRoutes), Some(addr("10.0.0.1:5060")));
        assert_eq!(two.source_for(Transport::Tcp, remote, &Fixed), None);
    }
}
