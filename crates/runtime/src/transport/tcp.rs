//! TCP connections cut into SIP messages. Everything is bounded: connections, those of one address, what waits to be
//! sent, and the time a message may take to arrive.
//!
//! One [`Tcp`] holds any number of listeners and connections; all events come out of one bounded channel. While that
//! is full nothing is read, so senders are slowed down by TCP itself.

mod connection;
#[cfg(test)]
mod tests;

use crate::metrics::{Metrics, Reason, count};
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sip::framer::{FrameError, Limits};
use socket2::Type;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};

/// Bounds of all connections of one [`Tcp`].
#[derive(Debug, Clone, Copy)]
pub struct TcpConfig {
    /// Connections at once, both ways.
    pub max_connections: usize,
    /// Accepted connections at once of one remote address, if bounded.
    pub max_per_address: Option<usize>,
    /// Messages that may wait to be sent on a connection.
    pub queue: usize,
    /// Bytes that may wait to be sent on a connection.
    pub queue_bytes: usize,
    /// Events that may wait for the driver.
    pub events: usize,
    /// A connection on which nothing came and nothing went for this long is closed.
    pub idle: Duration,
    /// From the first byte of a message to its last; also from accepting to the first message.
    pub message_timeout: Duration,
    /// How long a connection may take to be set up.
    pub connect_timeout: Duration,
    /// How long the peer may take nothing of what we send.
    pub write_timeout: Duration,
    /// Bounds of one message.
    pub limits: Limits,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_per_address: None,
            queue: 256,
            queue_bytes: 1 << 20,
            events: 4096,
            // Longer than the usual registration, so that a phone without keep-alives stays reachable.
            idle: Duration::from_secs(3_700),
            message_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            limits: Limits::default(),
        }
    }
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Its number: from 1, never given twice by one [`Tcp`].
    pub id: u64,
    /// Our address; unspecified before the connection is set up.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
    /// True if we opened it.
    pub outbound: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpEvent {
    /// A connection is set up. The first event of it.
    Opened(Connection),
    /// A whole message came. Keep-alives are answered here and do not show.
    Message(Connection, Bytes),
    /// The stream cannot be read on. Answer if there is a request to answer, then [`Tcp::close`] it; it is closed
    /// soon in any case.
    Broken(Connection, FrameError),
    /// It is gone, or could not be set up. The last event of it.
    Closed(Connection, CloseReason),
}

/// Why a connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// We closed it.
    Local,
    /// The peer closed it.
    Peer,
    /// Nothing happened for too long.
    Idle,
    /// A message took too long to arrive, or none came at all.
    SlowMessage,
    /// The peer took too long to take what we sent.
    SlowWrite,
    /// The stream could not be read as SIP.
    Broken,
    /// The connection was reset, or another error of the network.
    Error,
    /// It could not be set up, or not in time.
    ConnectFailed,
}

impl CloseReason {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Local => "local",
            CloseReason::Peer => "peer",
            CloseReason::Idle => "idle",
            CloseReason::SlowMessage => "slow_message",
            CloseReason::SlowWrite => "slow_write",
            CloseReason::Broken => "broken",
            CloseReason::Error => "error",
            CloseReason::ConnectFailed => "connect_failed",
        }
    }
}

/// Why bytes were not queued or a connection not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TcpError {
    /// No such connection any more.
    #[error("the connection is gone")]
    Gone,
    /// Too much waits to be sent on it.
    #[error("too much waits to be sent on the connection")]
    Full,
    /// There are as many connections as may be.
    #[error("too many connections")]
    TooMany,
}

/// What others may do with a connection while its task runs.
#[derive(Debug)]
struct Entry {
    connection: Connection,
    /// Dropping it closes the connection once what waits is sent.
    queue: mpsc::Sender<Bytes>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<u64, Entry>,
    /// Connections that we opened.
    opened: HashMap<SocketAddr, u64>,
    /// How many accepted connections an address has, until their tasks end.
    accepted: HashMap<IpAddr, usize>,
    /// Connections until their tasks end, closed ones among them.
    running: usize,
    last_id: u64,
}

#[derive(Debug)]
struct Shared {
    config: TcpConfig,
    table: Mutex<Table>,
    events: mpsc::Sender<TcpEvent>,
    connections: Gauge,
    closed: Family<Reason, Counter>,
    refused: Family<Reason, Counter>,
    /// Ends when the last [`Tcp`] is dropped.
    stop: watch::Receiver<()>,
}

/// A handle of listeners and connections. When the last clone is dropped all are closed.
#[derive(Debug, Clone)]
pub struct Tcp {
    shared: Arc<Shared>,
    _alive: Arc<watch::Sender<()>>,
}

impl Tcp {
    /// Without listeners yet, and the channel of its events. When the receiver is dropped all connections close.
    /// Use it on a tokio runtime: listeners and connections are tasks.
    pub fn new(config: TcpConfig, metrics: &Metrics) -> (Self, mpsc::Receiver<TcpEvent>) {
        let (events, receiver) = mpsc::channel(config.events.max(1));
        let (alive, stop) = watch::channel(());
        let shared = Shared {
            config,
            table: Mutex::default(),
            events,
            connections: metrics.gauge("tcp_connections", "TCP connections now"),
            closed: metrics.reasons("tcp_closed", "TCP connections closed, by reason"),
            refused: metrics.reasons("tcp_refused", "TCP connections or messages refused by a bound"),
            stop,
        };
        (Self { shared: Arc::new(shared), _alive: Arc::new(alive) }, receiver)
    }

    /// Listens on `addr` (port 0: any free one) and returns the address in use. `freebind` binds an address that this
    /// machine does not hold yet.
    pub fn listen(&self, addr: SocketAddr, freebind: bool) -> io::Result<SocketAddr> {
        let socket = super::bound(addr, Type::STREAM, false, freebind)?;
        socket.listen(1024)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = listener.local_addr()?;
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let mut stop = shared.stop.clone();
            tokio::select! {
                () = accept(&shared, &listener) => {}
                // An error, as nothing is ever sent: the last handle is gone.
                _ = stop.changed() => {}
                () = shared.events.closed() => {}
            }
        });
        Ok(local)
    }

    /// Begins a connection to `remote`, from `local` if given, and returns its number at once: what is sent on it
    /// waits until it is set up. [`TcpEvent::Opened`] or [`TcpEvent::Closed`] follows.
    pub fn connect(&self, remote: SocketAddr, local: Option<IpAddr>) -> Result<u64, TcpError> {
        let shared = &self.shared;
        let unknown: IpAddr = if remote.is_ipv6() { [0u16; 8].into() } else { [0u8; 4].into() };
        let ours = SocketAddr::new(local.unwrap_or(unknown), 0);
        let (mut connection, queue) = shared.add(remote, ours, true)?;
        let shared = shared.clone();
        tokio::spawn(async move {
            let limit = shared.config.connect_timeout;
            match tokio::time::timeout(limit, open(remote, local)).await {
                Ok(Ok(stream)) => {
                    connection.local = stream.local_addr().unwrap_or(ours);
                    shared.opened(connection);
                    connection::run(shared, connection, stream, queue).await;
                }
                _ => shared.end(connection, CloseReason::ConnectFailed).await,
            }
        });
        Ok(connection.id)
    }

    /// The connection that we opened to this address, if there is one.
    pub fn find(&self, remote: SocketAddr) -> Option<u64> {
        self.shared.table().opened.get(&remote).copied()
    }

    /// The connection of this number.
    pub fn get(&self, id: u64) -> Option<Connection> {
        self.shared.table().entries.get(&id).map(|e| e.connection)
    }

    /// All connections: to close them a few at a time while draining.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.table().entries.values().map(|e| e.connection).collect()
    }

    /// Queues a whole message for a connection; never waits.
    pub fn send(&self, id: u64, bytes: Bytes) -> Result<(), TcpError> {
        self.shared.send(id, bytes)
    }

    /// Closes a connection once what waits on it is sent. [`TcpEvent::Closed`] follows.
    pub fn close(&self, id: u64) {
        self.shared.forget(id);
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(
        &self,
        remote: SocketAddr,
        local: SocketAddr,
        outbound: bool,
    ) -> Result<(Connection, connection::Queue), TcpError> {
        let mut table = self.table();
        let mine = table.accepted.get(&remote.ip()).copied().unwrap_or(0);
        if table.running >= self.config.max_connections {
            count(&self.refused, "connections");
            return Err(TcpError::TooMany);
        }
        if !outbound && self.config.max_per_address.is_some_and(|max| mine >= max) {
            count(&self.refused, "connections_of_address");
            return Err(TcpError::TooMany);
        }
        table.last_id += 1;
        table.running += 1;
        let connection = Connection { id: table.last_id, local, remote, outbound };
        let (queue, receiver) = mpsc::channel(self.config.queue.max(1));
        let waiting = Arc::new(AtomicUsize::new(0));
        table.entries.insert(connection.id, Entry { connection, queue, waiting: waiting.clone() });
        if outbound {
            table.opened.insert(remote, connection.id);
        } else {
            table.accepted.insert(remote.ip(), mine + 1);
        }
        self.connections.inc();
        Ok((connection, connection::Queue { receiver, waiting }))
    }

    /// Notes our own address of a connection that is now set up.
    fn opened(&self, connection: Connection) {
        if let Some(entry) = self.table().entries.get_mut(&connection.id) {
            entry.connection = connection;
        }
    }

    fn send(&self, id: u64, bytes: Bytes) -> Result<(), TcpError> {
        let table = self.table();
        let entry = table.entries.get(&id).ok_or(TcpError::Gone)?;
        let len = bytes.len();
        // One message always fits, however long.
        let waiting = entry.waiting.fetch_add(len, Ordering::Relaxed);
        let sent = if waiting > 0 && waiting + len > self.config.queue_bytes {
            Err(TcpError::Full)
        } else {
            entry.queue.try_send(bytes).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => TcpError::Full,
                mpsc::error::TrySendError::Closed(_) => TcpError::Gone,
            })
        };
        if let Err(error) = sent {
            entry.waiting.fetch_sub(len, Ordering::Relaxed);
            if error == TcpError::Full {
                count(&self.refused, "queue");
            }
        }
        sent
    }

    /// Takes a connection out of reach; its task ends when what waits is sent.
    fn forget(&self, id: u64) {
        let mut table = self.table();
        if let Some(entry) = table.entries.remove(&id) {
            let remote = entry.connection.remote;
            if table.opened.get(&remote) == Some(&id) {
                table.opened.remove(&remote);
            }
        }
    }

    /// The end of a connection's task.
    async fn end(&self, connection: Connection, reason: CloseReason) {
        self.forget(connection.id);
        {
            let mut table = self.table();
            table.running = table.running.saturating_sub(1);
            let ip = connection.remote.ip();
            if let Some(n) = table.accepted.get_mut(&ip).filter(|_| !connection.outbound) {
                *n = n.saturating_sub(1);
                if *n == 0 {
                    table.accepted.remove(&ip);
                }
            }
        }
        self.connections.dec();
        count(&self.closed, reason.as_str());
        // Nobody listens any more when the driver is gone.
        let _ = self.events.send(TcpEvent::Closed(connection, reason)).await;
    }
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: the connection waits in the backlog meanwhile.
                tracing::warn!(%error, "a TCP connection was not accepted");
                count(&shared.refused, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Gone again already, or over a bound: dropping the stream closes it.
        let Ok(local) = stream.local_addr() else { continue };
        if let Ok((connection, queue)) = shared.add(remote, local, false) {
            tokio::spawn(connection::run(shared.clone(), connection, stream, queue));
        }
    }
}

async fn open(remote: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    if let Some(ip) = local {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    socket.connect(remote).await
}
