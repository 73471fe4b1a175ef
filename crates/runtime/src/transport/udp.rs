//! UDP in batches: many datagrams a system call, each with the local address that it was sent to, so that answers
//! leave from the address they were asked on (RFC 3261 18.2.2; RFC 3581 4).

mod sys;

use bytes::Bytes;
use socket2::Type;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Datagrams handled by one system call at most.
pub const BATCH: usize = 32;

/// The largest payload of a datagram.
pub const MAX_DATAGRAM: usize = 65_535;

/// How a socket is made.
#[derive(Debug, Clone, Copy)]
pub struct UdpOptions {
    /// Several sockets on one address share its traffic (SO_REUSEPORT): one a shard. All must set it.
    pub reuse_port: bool,
    /// Bind an address that this machine does not hold yet (IP_FREEBIND): a virtual address.
    pub freebind: bool,
    /// Bytes of receive buffer asked of the kernel, which may give less: what arrives while a shard is busy.
    pub receive_buffer: usize,
    /// Bytes of send buffer asked of the kernel, which may give less.
    pub send_buffer: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { reuse_port: false, freebind: false, receive_buffer: 4 << 20, send_buffer: 2 << 20 }
    }
}

/// One UDP socket, on the tokio runtime it was bound on.
#[derive(Debug)]
pub struct UdpShard {
    socket: AsyncFd<std::net::UdpSocket>,
    local: SocketAddr,
}

impl UdpShard {
    /// Binds `addr` (port 0: any free one; the unspecified address: all of that family).
    pub fn bind(addr: SocketAddr, options: UdpOptions) -> io::Result<Self> {
        let socket = super::bound(addr, Type::DGRAM, options.reuse_port, options.freebind)?;
        socket.set_recv_buffer_size(options.receive_buffer)?;
        socket.set_send_buffer_size(options.send_buffer)?;
        let socket = std::net::UdpSocket::from(socket);
        sys::ask_for_local_address(&socket, addr.is_ipv6())?;
        let local = socket.local_addr()?;
        Ok(Self { socket: sys::register(socket)?, local })
    }

    /// The address bound, with the port in use.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for datagrams and replaces the batch by those that are there, at least one. Safe to cancel.
    pub async fn recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        let local = self.local;
        self.socket.async_io(Interest::READABLE, |socket| sys::recv(socket, batch, local)).await
    }

    /// Sends all of the batch in order, then empties it. A datagram that the kernel refuses (no route, too long, a
    /// source address that is not ours) is skipped and counted. When cancelled, what was not sent stays in the batch.
    pub async fn send(&self, batch: &mut SendBatch) -> Sent {
        let mut report = Sent::default();
        while !batch.is_empty() {
            let result = self.socket.async_io(Interest::WRITABLE, |socket| sys::send(socket, &batch.waiting)).await;
            match result {
                Ok(n) => {
                    report.sent += n;
                    batch.waiting.drain(..n.min(batch.waiting.len()));
                }
                Err(error) => {
                    report.failed += 1;
                    report.error = Some(error);
                    let refused = batch.waiting.remove(0);
                    report.refused.push((refused.bytes, refused.to));
                }
            }
        }
        report
    }

    /// Sends one datagram: for what is rare. `from` is the source address, else the kernel chooses.
    pub async fn send_to(&self, bytes: Bytes, to: SocketAddr, from: Option<IpAddr>) -> io::Result<()> {
        let one = [Outgoing { bytes, to, from }];
        self.socket.async_io(Interest::WRITABLE, |socket| sys::send(socket, &one)).await.map(|_| ())
    }
}

/// What came of sending a batch.
#[derive(Debug, Default)]
pub struct Sent {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Datagrams that it refused.
    pub failed: usize,
    /// Those refused, with where they were to go: at most the batch.
    pub refused: Vec<(Bytes, SocketAddr)>,
    /// The last refusal.
    pub error: Option<io::Error>,
}

/// One received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Its payload.
    pub bytes: &'a [u8],
    /// Who sent it.
    pub remote: SocketAddr,
    /// The address of ours that it was sent to, also on a socket that is bound to all.
    pub local: SocketAddr,
    /// True if it was longer than the batch's slots and its end is lost.
    pub truncated: bool,
}

#[derive(Debug, Clone, Copy)]
struct Received {
    len: usize,
    remote: SocketAddr,
    local: SocketAddr,
    truncated: bool,
}

/// Room for received datagrams, made once and used again.
#[derive(Debug)]
pub struct RecvBatch {
    buffer: Box<[u8]>,
    slot: usize,
    received: Vec<Received>,
}

impl RecvBatch {
    /// Room for [`BATCH`] datagrams of any length.
    pub fn new() -> Self {
        Self::with_slots(BATCH, MAX_DATAGRAM)
    }

    /// Room for `count` datagrams (1 to [`BATCH`]) of `slot` bytes each.
    pub fn with_slots(count: usize, slot: usize) -> Self {
        let (count, slot) = (count.clamp(1, BATCH), slot.clamp(1, MAX_DATAGRAM));
        Self { buffer: vec![0; count * slot].into_boxed_slice(), slot, received: Vec::with_capacity(count) }
    }

    /// The datagrams of the last receive.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.buffer.chunks(self.slot).zip(&self.received).map(|(slot, r)| Datagram {
            bytes: slot.get(..r.len).unwrap_or_default(),
            remote: r.remote,
            local: r.local,
            truncated: r.truncated,
        })
    }

    /// How many were received.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// True before the first receive.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Clone)]
struct Outgoing {
    bytes: Bytes,
    to: SocketAddr,
    from: Option<IpAddr>,
}

/// The batch holds as many as it may: send it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the batch is full")]
pub struct BatchFull;

/// Datagrams to send, used again and again.
#[derive(Debug)]
pub struct SendBatch {
    waiting: Vec<Outgoing>,
    limit: usize,
}

impl SendBatch {
    /// An empty batch for at most `limit` datagrams.
    pub fn new(limit: usize) -> Self {
        Self { waiting: Vec::with_capacity(limit.min(BATCH)), limit }
    }

    /// Adds a datagram. `from` is the source address, as received in [`Datagram::local`]; else the kernel chooses.
    pub fn push(&mut self, bytes: Bytes, to: SocketAddr, from: Option<IpAddr>) -> Result<(), BatchFull> {
        if self.waiting.len() >= self.limit {
            return Err(BatchFull);
        }
        self.waiting.push(Outgoing { bytes, to, from });
        Ok(())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn pair(server: &str, client: &str) -> (UdpShard, UdpShard) {
        let bind = |addr: &str| UdpShard::bind(addr.parse().unwrap(), UdpOptions::default()).unwrap();
        (bind(server), bind(client))
    }

    async fn recv(shard: &UdpShard, batch: &mut RecvBatch) {
        tokio::time::timeout(Duration::from_secs(5), shard.recv(batch)).await.unwrap().unwrap();
    }

    /// A datagram asked on one of our addresses is answered from that address, though the socket is bound to all.
    async fn answers_from_the_address_it_was_asked_on(all: &str, client: &str, asked: &str) {
        let (server, client) = pair(all, client).await;
        let to = SocketAddr::new(asked.parse().unwrap(), server.local_addr().port());
        client.send_to(Bytes::from_static(b"OPTIONS"), to, None).await.unwrap();
        let mut batch = RecvBatch::new();
        recv(&server, &mut batch).await;
        let got = batch.iter().next().unwrap();
        assert_eq!((got.bytes, got.local, got.remote.port()), (&b"OPTIONS"[..], to, client.local_addr().port()));
        let mut out = SendBatch::new(8);
        out.push(Bytes::from_static(b"200"), got.remote, Some(got.local.ip())).unwrap();
        assert_eq!(server.send(&mut out).await.sent, 1);
        recv(&client, &mut batch).await;
        let answer = batch.iter().next().unwrap();
        assert_eq!((answer.bytes, answer.remote), (&b"200"[..], to));
    }

    #[tokio::test]
    async fn ipv4_answers_leave_from_the_address_asked() {
        answers_from_the_address_it_was_asked_on("0.0.0.0:0", "127.0.0.1:0", "127.0.0.77").await;
    }

    #[tokio::test]
    async fn ipv6_answers_leave_from_the_address_asked() {
        answers_from_the_address_it_was_asked_on("[::]:0", "[::1]:0", "::1").await;
    }

    #[tokio::test]
    async fn a_batch_larger_than_one_call_arrives_whole_and_refused_ones_are_counted() {
        let (server, client) = pair("127.0.0.1:0", "127.0.0.1:0").await;
        let mut out = SendBatch::new(100);
        for n in 0..100u8 {
            let from = (n == 40).then(|| "192.0.2.1".parse().unwrap());
            out.push(Bytes::from(vec![n; 1 + usize::from(n) * 20]), server.local_addr(), from).unwrap();
        }
        assert_eq!(out.push(Bytes::new(), server.local_addr(), None), Err(BatchFull));
        let report = client.send(&mut out).await;
        assert_eq!((report.sent, report.failed, out.len()), (99, 1, 0));
        assert!(report.error.is_some());
        let mut batch = RecvBatch::new();
        let mut seen = Vec::new();
        while seen.len() < 99 {
            recv(&server, &mut batch).await;
            assert!(batch.len() <= BATCH);
            for datagram in batch.iter() {
                assert_eq!(datagram.bytes.len(), 1 + usize::from(datagram.bytes[0]) * 20);
                seen.push(datagram.bytes[0]);
            }
        }
        assert_eq!(seen, (0..100).filter(|n| *n != 40).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn a_datagram_longer_than_the_slot_says_so() {
        let (server, client) = pair("127.0.0.1:0", "127.0.0.1:0").await;
        client.send_to(Bytes::from(vec![1; 101]), server.local_addr(), None).await.unwrap();
        client.send_to(Bytes::from(vec![2; 100]), server.local_addr(), None).await.unwrap();
        client.send_to(Bytes::new(), server.local_addr(), None).await.unwrap();
        let mut batch = RecvBatch::with_slots(4, 100);
        let mut got = Vec::new();
        while got.len() < 3 {
            recv(&server, &mut batch).await;
            got.extend(batch.iter().map(|d| (d.bytes.len(), d.truncated)));
        }
        assert_eq!(got, [(100, true), (100, false), (0, false)]);
    }

    #[tokio::test]
    async fn shards_share_a_port_only_when_they_say_so() {
        let share = UdpOptions { reuse_port: true, ..UdpOptions::default() };
        let one = UdpShard::bind("127.0.0.1:0".parse().unwrap(), share).unwrap();
        let two = UdpShard::bind(one.local_addr(), share).unwrap();
        assert_eq!(one.local_addr(), two.local_addr());
        let refused = UdpShard::bind(one.local_addr(), UdpOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // An address of a documentation network (RFC 5737) that no machine holds.
        let foreign: SocketAddr = "192.0.2.9:0".parse().unwrap();
        assert!(UdpShard::bind(foreign, UdpOptions::default()).is_err());
        let free = UdpOptions { freebind: true, ..UdpOptions::default() };
        assert_eq!(UdpShard::bind(foreign, free).unwrap().local_addr().ip(), foreign.ip());
    }
}
