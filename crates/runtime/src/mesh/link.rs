//! Connections to processes elsewhere: one kept a pair, made when the first message is to go, used both ways.
//!
//! What is sent is kept until the other end says that it took it. When a connection cannot be made, is lost, or its
//! process is known to be gone, all that was not taken is told back to its sender.

use super::wire::{self, Ends, Frame};
use super::{HopError, Inbox, Parcel, Shared, Unsent};
use bytes::BytesMut;
use contract::hop::Inside;
use contract::{ProcessId, Service};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Connecting and proving who one is takes at most this long.
const CONNECT: Duration = Duration::from_secs(2);
/// After a failure nobody tries the same process for this long.
const PAUSE: Duration = Duration::from_millis(250);
/// The other end takes something of what is written within this.
const WRITE: Duration = Duration::from_secs(5);
/// What was sent reaches the other machine within this, or the connection is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// Bytes that wait on one connection, or were not taken yet.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// Parcels written and not taken yet.
const WINDOW: usize = 4096;
/// Parcels written at once.
const BATCH: usize = 64;
/// Connections at once on which the other end has not proved yet who it is.
const STRANGERS: usize = 256;

/// The sending end of a connection. Dropping it ends the connection.
#[derive(Debug)]
struct Link {
    queue: mpsc::Sender<Parcel>,
    /// Bytes that are queued or not taken yet.
    waiting: Arc<AtomicUsize>,
    /// Tells one connection of a pair from the next.
    id: u64,
    /// We made it.
    dialled: bool,
    /// Dropped to end the connection.
    end: oneshot::Sender<()>,
    /// The same for one that the other end made while we made this.
    also: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
enum Slot {
    Open(Link),
    /// It could not be reached: nobody tries before then.
    Shut(Instant),
}

/// The task's end of a [`Link`].
struct Work {
    queue: Option<mpsc::Receiver<Parcel>>,
    waiting: Arc<AtomicUsize>,
    id: u64,
    end: oneshot::Receiver<()>,
}

/// All connections, and where processes are reached.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By the process here and the process there.
    slots: HashMap<(ProcessId, ProcessId), Slot>,
    pub(super) addresses: HashMap<ProcessId, SocketAddr>,
    last: u64,
}

impl Links {
    fn link(&mut self, queue: usize, dialled: bool) -> (Link, Work) {
        self.last += 1;
        let id = self.last;
        let (sender, receiver) = mpsc::channel(queue);
        let (end, ended) = oneshot::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let link = Link { queue: sender, waiting: waiting.clone(), id, dialled, end, also: None };
        (link, Work { queue: Some(receiver), waiting, id, end: ended })
    }

    /// Ends the connections that `gone` says of by the processes here and there.
    pub(super) fn cut(&mut self, gone: impl Fn(ProcessId, ProcessId) -> bool) {
        self.slots.retain(|(here, there), _| !gone(*here, *there));
    }

    /// The connection of this name is over: the process is left alone for a while.
    fn close(&mut self, ends: (ProcessId, ProcessId), id: u64) {
        if matches!(self.slots.get(&ends), Some(Slot::Open(link)) if link.id == id) {
            self.slots.remove(&ends);
            if self.addresses.contains_key(&ends.1) {
                self.slots.insert(ends, Slot::Shut(Instant::now() + PAUSE));
            }
        }
    }

    /// True while something waits or was not taken.
    pub(super) fn busy(&self) -> bool {
        let waits = |slot: &Slot| matches!(slot, Slot::Open(l) if l.waiting.load(Ordering::Relaxed) > 0);
        self.slots.values().any(waits)
    }
}

impl Link {
    fn push(&self, parcel: Parcel) -> Result<(), mpsc::error::TrySendError<Parcel>> {
        let size = parcel.size();
        if self.waiting.fetch_add(size, Ordering::Relaxed) + size > MAX_BYTES {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            return Err(mpsc::error::TrySendError::Full(parcel));
        }
        self.queue.try_send(parcel).inspect_err(|_| {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
        })
    }
}

/// Queues a parcel for a process elsewhere, on a connection that is made now if there is none.
pub(super) fn send(
    shared: &Arc<Shared>,
    from: (ProcessId, Service),
    to: ProcessId,
    parcel: Parcel,
) -> Result<(), HopError> {
    use mpsc::error::TrySendError::{Closed, Full};
    if parcel.size() >= wire::MAX_FRAME {
        return Err(HopError::Full);
    }
    let ends = (from.0, to);
    let mut links = shared.links();
    let parcel = match links.slots.get(&ends) {
        Some(Slot::Open(link)) => match link.push(parcel) {
            Ok(()) => return Ok(()),
            Err(Full(_)) => return Err(HopError::Full),
            // Its task is about to end.
            Err(Closed(parcel)) => parcel,
        },
        Some(Slot::Shut(until)) if Instant::now() < *until => return Err(HopError::Gone),
        _ => parcel,
    };
    let address = *links.addresses.get(&to).ok_or(HopError::Gone)?;
    let (link, work) = links.link(shared.queue, true);
    // A queue without anything in it takes one.
    link.push(parcel).map_err(|_| HopError::Full)?;
    links.slots.insert(ends, Slot::Open(link));
    drop(links);
    let shared = Arc::downgrade(shared);
    tokio::spawn(dialled(shared, from, to, address, work));
    Ok(())
}

/// A connection that we make.
async fn dialled(shared: Weak<Shared>, from: (ProcessId, Service), to: ProcessId, address: SocketAddr, mut work: Work) {
    let Some(keys) = shared.upgrade().and_then(|s| s.outside.get().map(|o| o.keys.clone())) else { return };
    let met = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        let mut stream = socket.connect(address).await?;
        prepare(&stream)?;
        let ends = wire::dial(&mut stream, &keys, from, to).await?;
        Ok::<_, io::Error>((stream, ends))
    };
    let met = tokio::select! {
        met = timeout(CONNECT, met) => met.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        _ = &mut work.end => Err(io::ErrorKind::Interrupted.into()),
    };
    match met {
        Ok((stream, ends)) => run(shared, stream, ends, work).await,
        Err(error) => {
            tracing::debug!(%to, %address, %error, "not reached");
            finish(&shared, (from.0, to), work, VecDeque::new());
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(UNACKNOWLEDGED).with_interval(UNACKNOWLEDGED))
}

/// Takes connections until it is dropped; then those that were taken end.
pub(super) async fn accept(shared: Weak<Shared>, listener: TcpListener) -> anyhow::Result<()> {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = strangers.clone().acquire_owned().await else { return Ok(()) };
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an inside connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let shared = shared.clone();
        connections.spawn(async move {
            let Some(here) = shared.upgrade() else { return };
            let Some(keys) = here.outside.get().map(|o| o.keys.clone()) else { return };
            let met = async {
                prepare(&stream)?;
                wire::accept(&mut stream, &keys, |process| here.inboxes.load().get(&process).map(|i| i.service)).await
            };
            let met = timeout(CONNECT, met).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            drop(place);
            match met {
                Ok(ends) => {
                    let work = here.take_in(ends);
                    drop(here);
                    run(shared, stream, ends, work).await;
                }
                Err(error) => {
                    let from = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        here.strangers.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(from, %error, "an inside connection was refused");
                    } else {
                        tracing::debug!(from, %error, "an inside connection ended before it began");
                    }
                }
            }
        });
    }
}

impl Shared {
    /// A connection that the other end made: the way back too, unless we have made one ourselves.
    fn take_in(&self, ends: Ends) -> Work {
        let mut links = self.links();
        let (link, mut work) = links.link(self.queue, false);
        match links.slots.get_mut(&(ends.local, ends.remote)) {
            // Both have made one at once: each sends on its own.
            Some(Slot::Open(open)) if open.dialled => {
                work.queue = None;
                open.also = Some(link.end);
            }
            // It would not make another if it had not lost the last.
            _ => _ = links.slots.insert((ends.local, ends.remote), Slot::Open(link)),
        }
        work
    }
}

/// What was written on a connection.
struct Written {
    queue: Option<mpsc::Receiver<Parcel>>,
    /// Not taken yet, oldest first.
    unacked: VecDeque<Parcel>,
    /// How many were taken.
    acked: u64,
    waiting: Arc<AtomicUsize>,
}

impl Written {
    /// The other end has taken `count` in all.
    fn prune(&mut self, count: u64) {
        while self.acked < count {
            let Some(parcel) = self.unacked.pop_front() else { return };
            self.acked += 1;
            self.waiting.fetch_sub(parcel.size(), Ordering::Relaxed);
        }
    }

    /// Writes what is queued, and tells what was taken, until that fails.
    async fn write(
        &mut self,
        mut stream: impl AsyncWrite + Unpin,
        mut taken: watch::Receiver<u64>,
        mut acked: watch::Receiver<u64>,
    ) -> io::Result<()> {
        let (mut batch, mut out, mut told) = (Vec::with_capacity(BATCH), BytesMut::new(), 0);
        loop {
            let room = self.unacked.len() < WINDOW;
            let queued = async {
                match &mut self.queue {
                    Some(queue) if room => queue.recv_many(&mut batch, BATCH).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                count = queued => if count == 0 { return Ok(()) },
                Ok(()) = taken.changed() => {}
                Ok(()) = acked.changed() => {}
            }
            self.prune(*acked.borrow_and_update());
            for parcel in batch.drain(..) {
                let (kind, body) = wire::body(&parcel);
                wire::put(&mut out, kind, &body);
                self.unacked.push_back(parcel);
            }
            let count = *taken.borrow_and_update();
            if count != std::mem::replace(&mut told, count) {
                wire::put_ack(&mut out, count);
            }
            if !out.is_empty() {
                timeout(WRITE, stream.write_all(&out)).await.map_err(|_| io::ErrorKind::TimedOut)??;
                out.clear();
            }
        }
    }
}

/// Uses a connection until it is over.
async fn run(shared: Weak<Shared>, stream: TcpStream, ends: Ends, work: Work) {
    let (reader, writer) = stream.into_split();
    let (taken, told) = watch::channel(0);
    let (acked, heard) = watch::channel(0);
    let Work { queue, waiting, id, mut end } = work;
    let mut written = Written { queue, unacked: VecDeque::new(), acked: 0, waiting: waiting.clone() };
    let why = tokio::select! {
        over = written.write(writer, told, heard) => over,
        over = read(&shared, reader, ends, &taken, &acked) => over,
        _ = &mut end => Ok(()),
    };
    written.prune(*acked.borrow());
    tracing::debug!(remote = %ends.remote, service = ends.service.as_str(), ?why, "an inside connection ended");
    let work = Work { queue: written.queue, waiting, id, end };
    finish(&shared, (ends.local, ends.remote), work, written.unacked);
}

/// The connection is over: whatever was not taken is told back.
fn finish(shared: &Weak<Shared>, ends: (ProcessId, ProcessId), work: Work, mut left: VecDeque<Parcel>) {
    let Some(shared) = shared.upgrade() else { return };
    // From here on nothing more is queued.
    shared.links().close(ends, work.id);
    if let Some(mut queue) = work.queue {
        while let Ok(parcel) = queue.try_recv() {
            left.push_back(parcel);
        }
    }
    let (here, to) = ends;
    let Some(inbox) = shared.inboxes.load().get(&here).cloned() else { return };
    for parcel in left {
        shared.unsent(&inbox, Unsent { to, parcel });
    }
}

/// Hands on what comes until the other end closes. What is handed on was taken; while a process's queue is full nothing
/// is read.
async fn read(
    shared: &Weak<Shared>,
    mut stream: impl AsyncRead + Unpin,
    ends: Ends,
    taken: &watch::Sender<u64>,
    acked: &watch::Sender<u64>,
) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::NotConnected);
    let (mut buffer, mut count) = (BytesMut::with_capacity(16 * 1024), 0);
    loop {
        while let Some(frame) = wire::take(&mut buffer)? {
            let inbox = || shared.upgrade()?.inboxes.load().get(&ends.local).cloned();
            match frame {
                Frame::Ack(all) => {
                    acked.send_replace(all);
                    continue;
                }
                Frame::Parcel(Parcel::Sip(bytes)) => {
                    let Inbox { messages, .. } = inbox().ok_or_else(gone)?;
                    let inside = Inside { from: ends.remote, service: ends.service, bytes };
                    messages.send(inside).await.map_err(|_| gone())?;
                }
                Frame::Parcel(Parcel::Event(event)) => {
                    let Inbox { events, .. } = inbox().ok_or_else(gone)?;
                    events.send((ends.remote, event)).await.map_err(|_| gone())?;
                }
                Frame::Unknown => {}
            }
            count += 1;
            taken.send_replace(count);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
