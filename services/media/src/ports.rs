//! Ports for media: which of the range are ours, and binding the next free pair.

use crate::config::Config;
use socket2::{Domain, Protocol, Socket, Type};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Kernel buffers of a media socket, in bytes: half a second of video at 4 Mbit/s.
const BUFFER: usize = 256 * 1024;

struct State {
    used: Vec<bool>,
    count: usize,
    next: usize,
}

/// The range's pairs, shared by the threads.
pub(crate) struct Pool {
    first: u16,
    state: Mutex<State>,
}

/// RTP and RTCP sockets of one stream.
pub(crate) struct Pair {
    pub(crate) rtp: UdpSocket,
    pub(crate) rtcp: UdpSocket,
    pub(crate) port: u16,
}

impl Pool {
    /// `None` when the range holds no pair.
    pub(crate) fn new(range: &RangeInclusive<u16>) -> Option<Pool> {
        let first = range.start().max(&2).checked_next_multiple_of(2)?;
        let pairs = (u32::from(*range.end()) + 1).checked_sub(first.into())? / 2;
        // Where to begin is random, so that a restarted relay does not give out ports that old calls still send to.
        let random = RandomState::new().build_hasher().finish() as usize;
        let state = State { used: vec![false; pairs as usize], count: 0, next: random.checked_rem(pairs as usize)? };
        Some(Pool { first, state: Mutex::new(state) })
    }

    /// Binds the next pair that nobody has; `None` when there is none.
    pub(crate) fn bind(&self, address: IpAddr) -> Option<Pair> {
        let mut tried = 0;
        loop {
            let at = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let total = state.used.len();
                if state.count == total || tried == total {
                    return None;
                }
                let at = state.next;
                state.next = (at + 1) % total;
                tried += 1;
                match state.used.get_mut(at) {
                    Some(used @ false) => *used = true,
                    _ => continue,
                }
                state.count += 1;
                at
            };
            let port = self.first + (at as u16) * 2;
            if let Ok((rtp, rtcp)) = open(SocketAddr::new(address, port))
                .and_then(|rtp| open(SocketAddr::new(address, port + 1)).map(|rtcp| (rtp, rtcp)))
            {
                return Some(Pair { rtp, rtcp, port });
            }
            // Another program has it.
            self.release(port);
        }
    }

    /// The pair is free again.
    pub(crate) fn release(&self, port: u16) {
        let at = usize::from(port.saturating_sub(self.first)) / 2;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = state.used.get_mut(at)
            && std::mem::take(used)
        {
            state.count -= 1;
        }
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `::` takes IPv4 too.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_nonblocking(true)?;
    // The kernel's bound may be lower; a smaller buffer is no reason to fail.
    let _ = socket.set_recv_buffer_size(BUFFER);
    let _ = socket.set_send_buffer_size(BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The address that `peer` is shown as ours.
pub(crate) fn address_for(config: &Config, peer: Option<IpAddr>) -> IpAddr {
    let peer = peer.map(|p| p.to_canonical());
    let local = peer.is_some_and(|p| config.local_networks.iter().any(|n| n.contains(&p)));
    if let Some(address) = config.advertise.filter(|_| !local) {
        return address;
    }
    if !config.rtp_address.is_unspecified() {
        return config.rtp_address;
    }
    peer.and_then(|p| route(p).ok()).unwrap_or(match config.rtp_address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    })
}

/// Our address on the route to a peer: connecting a datagram socket sends nothing and asks the kernel.
fn route(peer: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((peer, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn pairs_are_even_and_odd_within_the_range() {
        for (range, pairs) in
            [(40000..=40003, 2), (40001..=40004, 1), (40001..=40005, 2), (7..=7, 0), (40000..=40000, 0)]
        {
            let got = Pool::new(&range).map_or(0, |p| p.state.lock().unwrap().used.len());
            assert_eq!(got, pairs, "{range:?}");
        }
        let end = Pool::new(&(65534..=65535)).unwrap();
        assert_eq!(end.first, 65534);
    }

    #[test]
    fn taken_ports_are_skipped_and_the_end_is_told() {
        let pool = Pool::new(&(21200..=21205)).unwrap();
        let taken = UdpSocket::bind((LOCAL, 21203)).unwrap();
        let (a, b) = (pool.bind(LOCAL).unwrap(), pool.bind(LOCAL).unwrap());
        let mut ports = [a.port, b.port];
        ports.sort_unstable();
        assert_eq!(ports, [21200, 21204]);
        assert_eq!(a.rtcp.local_addr().unwrap().port(), a.port + 1);
        assert!(pool.bind(LOCAL).is_none());
        drop(taken);
        assert_eq!(pool.bind(LOCAL).map(|p| p.port), Some(21202));
        assert!(pool.bind(LOCAL).is_none(), "released by nobody yet");
        let port = a.port;
        drop(a);
        pool.release(port);
        pool.release(port);
        assert_eq!(pool.bind(LOCAL).map(|p| p.port), Some(port));
    }

    #[test]
    fn shows_each_peer_an_address_of_its_own() {
        let mut config = Config { local_networks: vec!["127.0.0.0/8".parse().unwrap()], ..Config::default() };
        let peer = |s: &str| Some(s.parse().unwrap());
        assert_eq!(address_for(&config, peer("127.0.0.9")), "127.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(address_for(&config, peer("::1")), "::1".parse::<IpAddr>().unwrap());
        assert_eq!(address_for(&config, None), LOCAL);
        config.advertise = peer("192.0.2.1");
        assert_eq!(address_for(&config, peer("198.51.100.1")), "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(address_for(&config, peer("127.0.0.9")), LOCAL, "a local network sees the route");
        config.rtp_address = "127.0.0.5".parse().unwrap();
        assert_eq!(address_for(&config, peer("127.0.0.9")), config.rtp_address);
    }
}
