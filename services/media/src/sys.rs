//! The kernel's calls that the standard library has no safe form of: epoll, eventfd, recvmmsg, sendmmsg, affinity.
#![allow(unsafe_code)] // The one module of this crate that needs it; every block says why it is sound.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A level-triggered epoll instance.
pub(crate) struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: no pointers; a returned descriptor is ours alone.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: `fd` is open and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd, events: vec![libc::epoll_event { events: 0, u64: 0 }; 256] })
    }

    /// Tells when `fd` is readable, under `token`. Closing the descriptor ends it.
    pub(crate) fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: `event` lives over the call, which copies it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) }).map(|_| ())
    }

    /// Waits until something is readable or `timeout` is over; puts the tokens into `out`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<u64>) -> io::Result<()> {
        out.clear();
        // Rounded up: waking before the deadline would spin.
        let ms = timeout.map_or(-1, |t| i32::try_from(t.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the buffer holds `room` events and lives over the call.
        let n = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), room, ms) };
        match check(n) {
            Ok(n) => {
                out.extend(self.events.iter().take(n as usize).map(|e| e.u64));
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(e) => Err(e),
        }
    }
}

/// Wakes a thread out of its epoll.
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers; a returned descriptor is ours alone.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `fd` is open and owned by nobody else.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(crate) fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the buffer is 8 bytes and lives over the call. A full counter wakes as well.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn drain(&self) {
        let mut count = [0u8; 8];
        // SAFETY: the buffer is 8 bytes and lives over the call.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// Keeps the calling thread on one core; whether that worked.
pub(crate) fn pin(core: usize) -> bool {
    // SAFETY: a cpu_set_t of zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    if core >= libc::CPU_SETSIZE as usize {
        return false;
    }
    // SAFETY: `core` is below the set's size; 0 means this thread; the set lives over the call.
    unsafe {
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set) == 0
    }
}

/// Datagrams taken in one call.
const BATCH: usize = 32;
/// Room for one datagram, in bytes: more than any Ethernet frame.
const ROOM: usize = 2048;

/// Buffers for receiving and sending many datagrams in one call. They stay where they are, on the heap.
pub(crate) struct Batch {
    data: Vec<[u8; ROOM]>,
    names: Vec<libc::sockaddr_storage>,
    lengths: Vec<(usize, bool)>,
    headers: Vec<libc::mmsghdr>,
    vectors: Vec<libc::iovec>,
}

fn empty_header() -> libc::mmsghdr {
    // SAFETY: a header of zeros has null pointers of length 0.
    unsafe { mem::zeroed() }
}

impl Batch {
    pub(crate) fn new() -> Batch {
        // SAFETY: a sockaddr_storage of zeros is a valid value (family 0).
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Batch {
            data: vec![[0; ROOM]; BATCH],
            names: vec![name; BATCH],
            lengths: Vec::with_capacity(BATCH),
            headers: (0..BATCH).map(|_| empty_header()).collect(),
            vectors: vec![none; BATCH],
        }
    }

    /// Takes what is there, at most a batch; the number taken, 0 when nothing is.
    pub(crate) fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        self.lengths.clear();
        let parts = self.data.iter_mut().zip(&mut self.names).zip(&mut self.vectors).zip(&mut self.headers);
        for (((data, name), vector), header) in parts {
            *vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: ROOM };
            *header = empty_header();
            header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to a name and to one vector, that to ROOM bytes; all are fields of self, which is
        // borrowed for the call, and none of the vectors is resized. The count is the number of headers.
        let n = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), BATCH as u32, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        match check(n) {
            Ok(n) => {
                let cut = |h: &libc::mmsghdr| h.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
                self.lengths.extend(self.headers.iter().take(n as usize).map(|h| (h.msg_len as usize, cut(h))));
                Ok(n as usize)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Source and bytes of datagram `at`; `None` when it was cut off or came from no internet address.
    pub(crate) fn get(&self, at: usize) -> Option<(SocketAddr, &[u8])> {
        let (length, cut) = *self.lengths.get(at)?;
        let bytes = self.data.get(at)?.get(..length).filter(|_| !cut)?;
        Some((address(self.names.get(at)?)?, bytes))
    }

    /// Sends received datagrams on, out of one socket: `(datagram, to)`. The number that the kernel took.
    pub(crate) fn send(&mut self, fd: RawFd, v6: bool, list: &[(usize, SocketAddr)]) -> usize {
        let mut sent = 0;
        for part in list.chunks(BATCH) {
            let mut count = 0;
            for (slot, (from, to)) in part.iter().enumerate() {
                let (Some(data), Some((length, _))) = (self.data.get_mut(*from), self.lengths.get(*from)) else {
                    continue;
                };
                let (Some(name), Some(vector), Some(header)) =
                    (self.names.get_mut(slot), self.vectors.get_mut(slot), self.headers.get_mut(slot))
                else {
                    continue;
                };
                *vector = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: *length };
                *header = empty_header();
                header.msg_hdr.msg_namelen = write_address(name, *to, v6);
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                count += 1;
            }
            let mut done = 0;
            while done < count {
                // SAFETY: headers done..count were filled just now and point into fields of self, which is borrowed.
                let n = unsafe {
                    libc::sendmmsg(fd, self.headers.as_mut_ptr().add(done), (count - done) as u32, libc::MSG_DONTWAIT)
                };
                match check(n) {
                    Ok(n) if n > 0 => {
                        done += n as usize;
                        sent += n as usize;
                    }
                    // The first one failed (unreachable, buffer full): the rest still go.
                    _ => done += 1,
                }
            }
        }
        sent
    }
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in stands at the start of the storage, which is large enough and
            // aligned for it.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// Writes an address for a socket of a family; IPv4 becomes a mapped address on an IPv6 socket.
fn write_address(name: &mut libc::sockaddr_storage, to: SocketAddr, v6: bool) -> libc::socklen_t {
    let ip = match to.ip() {
        IpAddr::V4(a) if v6 => IpAddr::V6(a.to_ipv6_mapped()),
        other => other,
    };
    match ip {
        IpAddr::V4(ip) => {
            // SAFETY: the storage is larger than a sockaddr_in and aligned for it; all its values are plain integers.
            let v4 = unsafe { &mut *std::ptr::from_mut(name).cast::<libc::sockaddr_in>() };
            v4.sin_family = libc::AF_INET as libc::sa_family_t;
            v4.sin_port = to.port().to_be();
            v4.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        IpAddr::V6(ip) => {
            // SAFETY: as above, with sockaddr_in6.
            let out = unsafe { &mut *std::ptr::from_mut(name).cast::<libc::sockaddr_in6>() };
            out.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            out.sin6_port = to.port().to_be();
            out.sin6_flowinfo = 0;
            out.sin6_addr.s6_addr = ip.octets();
            out.sin6_scope_id = if let SocketAddr::V6(a) = to { a.scope_id() } else { 0 };
            mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn many_datagrams_in_one_call() {
        for (host, v6) in [("127.0.0.1:0", false), ("[::1]:0", true), ("[::]:0", true)] {
            let relay = UdpSocket::bind(host).unwrap();
            let sender = UdpSocket::bind(if v6 && host != "[::]:0" { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
            let mut at = relay.local_addr().unwrap();
            if at.ip().is_unspecified() {
                at.set_ip("127.0.0.1".parse().unwrap());
            }
            (0..5u8).for_each(|i| assert!(sender.send_to(&vec![i; 100 + usize::from(i)], at).is_ok()));
            sender.send_to(&[9; 3000], at).unwrap();
            let mut batch = Batch::new();
            assert_eq!(batch.receive(relay.as_raw_fd()).unwrap(), 6);
            let from = sender.local_addr().unwrap();
            let list: Vec<_> = (0..5).map(|i| (i, from)).collect();
            for i in 0..5u8 {
                assert_eq!(batch.get(i.into()), Some((from, &vec![i; 100 + usize::from(i)][..])));
            }
            assert_eq!(batch.get(5), None, "cut off");
            assert_eq!(batch.send(relay.as_raw_fd(), v6, &list), 5);
            for i in 0..5u8 {
                let mut buffer = [0; 200];
                let (n, back) = sender.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..n], back), (&vec![i; 100 + usize::from(i)][..], at));
            }
            assert_eq!(batch.receive(relay.as_raw_fd()).unwrap(), 0);
        }
    }

    #[test]
    fn an_event_wakes_and_a_timeout_ends() {
        let (mut epoll, event) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add(event.fd(), 7).unwrap();
        let mut tokens = Vec::new();
        epoll.wait(Some(Duration::from_millis(1)), &mut tokens).unwrap();
        assert!(tokens.is_empty());
        event.wake();
        event.wake();
        epoll.wait(None, &mut tokens).unwrap();
        assert_eq!(tokens, [7]);
        event.drain();
        epoll.wait(Some(Duration::ZERO), &mut tokens).unwrap();
        assert!(tokens.is_empty());
    }
}
