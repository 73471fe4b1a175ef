//! One connection's task: reads and cuts, writes what waits, watches the clocks.

use super::{CloseReason, Connection, Shared, TcpEvent};
use bytes::{Bytes, BytesMut};
use sip::framer::{Frame, FrameError, Framer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

/// Bytes taken from the kernel at once.
const READ: usize = 16 * 1024;

/// Bytes given to the kernel at once.
const WRITE: usize = 64 * 1024;

/// After the last byte of ours, how long the peer may take to take it and close, before a reset may destroy it.
const LINGER: Duration = Duration::from_secs(2);

/// What waits to be sent.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) receiver: mpsc::Receiver<Bytes>,
    pub(super) waiting: Arc<AtomicUsize>,
}

/// When bytes last went either way, in milliseconds since the start.
struct Activity {
    start: Instant,
    last: AtomicU64,
}

impl Activity {
    fn touch(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

/// Serves a connection until it ends, and says so.
pub(super) async fn run(shared: Arc<Shared>, connection: Connection, stream: TcpStream, mut queue: Queue) {
    // Messages are written whole: waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let (mut reader, mut writer) = stream.into_split();
    let activity = Activity { start: Instant::now(), last: AtomicU64::new(0) };
    let mut stop = shared.stop.clone();
    let reason = if shared.events.send(TcpEvent::Opened(connection)).await.is_err() {
        CloseReason::Local
    } else {
        tokio::select! {
            read = read(&shared, connection, &mut reader, &activity) => match read {
                Ended::For(reason) => reason,
                Ended::Unreadable(fault) => {
                    let _ = shared.events.send(TcpEvent::Broken(connection, fault)).await;
                    // Time for an answer; what still comes is discarded.
                    let answered = write(&shared, &mut writer, &mut queue, &activity);
                    let _ = timeout(LINGER, answered).await;
                    CloseReason::Broken
                }
            },
            reason = write(&shared, &mut writer, &mut queue, &activity) => reason,
            // The last handle is gone.
            _ = stop.changed() => CloseReason::Local,
            () = shared.events.closed() => CloseReason::Local,
        }
    };
    shared.forget(connection.id);
    if matches!(reason, CloseReason::Local | CloseReason::Broken) && writer.shutdown().await.is_ok() {
        let _ = timeout(LINGER, discard(&mut reader)).await;
    }
    drop((reader, writer));
    shared.end(connection, reason).await;
}

enum Ended {
    For(CloseReason),
    Unreadable(FrameError),
}

async fn read(shared: &Shared, connection: Connection, reader: &mut OwnedReadHalf, activity: &Activity) -> Ended {
    let config = &shared.config;
    let mut framer = Framer::with_limits(config.limits);
    let mut buffer = BytesMut::with_capacity(READ);
    // The time by which the message that is arriving has to be whole.
    let mut due = (!connection.outbound).then(|| activity.start + config.message_timeout);
    loop {
        let idle = activity.last() + config.idle;
        buffer.clear();
        tokio::select! {
            // What has come counts before a clock does.
            biased;
            got = reader.read_buf(&mut buffer) => match got {
                Ok(0) => return Ended::For(CloseReason::Peer),
                Ok(_) => activity.touch(),
                Err(_) => return Ended::For(CloseReason::Error),
            },
            () = sleep_until(due.unwrap_or(idle)) => match due {
                Some(_) => return Ended::For(CloseReason::SlowMessage),
                // Something may have been sent in the meantime.
                None if activity.last() + config.idle <= Instant::now() => return Ended::For(CloseReason::Idle),
                None => continue,
            },
        }
        framer.push(&buffer);
        let mut whole = false;
        loop {
            match framer.next() {
                Ok(Some(Frame::Message(bytes))) => {
                    whole = true;
                    if shared.events.send(TcpEvent::Message(connection, bytes)).await.is_err() {
                        return Ended::For(CloseReason::Local);
                    }
                }
                Ok(Some(Frame::Ping)) => {
                    whole = true;
                    // A peer that does not take its answers needs no more of them.
                    let _ = shared.send(connection.id, Bytes::from_static(b"\r\n"));
                }
                Ok(Some(Frame::Pong)) => whole = true,
                Ok(None) => break,
                Err(fault) => return Ended::Unreadable(fault),
            }
        }
        due = match framer.buffered() {
            0 if whole || connection.outbound => None,
            // Nothing but line ends came: the clock goes on.
            0 => due,
            _ if whole => Some(Instant::now() + config.message_timeout),
            _ => due.or_else(|| Some(Instant::now() + config.message_timeout)),
        };
    }
}

/// Writes until the queue is closed and empty.
async fn write(shared: &Shared, writer: &mut OwnedWriteHalf, queue: &mut Queue, activity: &Activity) -> CloseReason {
    let mut buffer = BytesMut::new();
    while let Some(first) = queue.receiver.recv().await {
        let mut next = Some(first);
        while let Some(bytes) = next {
            buffer.extend_from_slice(&bytes);
            next = if buffer.len() < WRITE { queue.receiver.try_recv().ok() } else { None };
        }
        let len = buffer.len();
        while !buffer.is_empty() {
            match timeout(shared.config.write_timeout, writer.write_buf(&mut buffer)).await {
                Ok(Ok(1..)) => activity.touch(),
                Ok(_) => return CloseReason::Error,
                Err(_) => return CloseReason::SlowWrite,
            }
        }
        queue.waiting.fetch_sub(len, Ordering::Relaxed);
        // A long message is no reason to keep its room.
        if buffer.capacity() > 2 * WRITE {
            buffer = BytesMut::new();
        }
    }
    CloseReason::Local
}

async fn discard(reader: &mut OwnedReadHalf) {
    let mut buffer = [0; 4096];
    while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
}
