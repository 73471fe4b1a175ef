//! Threads, sockets and clocks of the relay.

use crate::config::Config;
use crate::core::{Core, Forward};
use crate::ng;
use crate::ports::{Pair, Pool, address_for};
use crate::session::{Counters, Ports, SocketId};
use crate::sys::{Batch, Epoll, EventFd, pin};
use contract::Now;
use contract::ng::{Command, Reply};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{mpsc, oneshot};

pub use crate::session::Event;

/// Commands that wait for one thread.
const INBOX: usize = 1024;
/// Events that wait to be taken.
const EVENTS: usize = 8192;
/// The token of a thread's own eventfd.
const WAKE: u64 = u64::MAX;

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The port range holds no even port with the odd one after it.
    #[error("the media port range holds no pair of ports")]
    NoPorts,
    /// The NG address could not be bound.
    #[error("cannot listen for NG on {0}: {1}")]
    Ng(SocketAddr, io::Error),
    /// The kernel refused a thread or a descriptor.
    #[error("cannot start a media thread: {0}")]
    Thread(#[from] io::Error),
}

struct Order {
    command: Command,
    reply: oneshot::Sender<Reply>,
}

/// One thread, seen from outside.
struct Shard {
    inbox: mpsc::Sender<Order>,
    wake: EventFd,
    stop: AtomicBool,
    drain: AtomicBool,
    /// Owners are to be told once that their calls should go.
    leave: AtomicBool,
    /// Limits for idle calls, ms: joined, then held and lone. Read when the thread is woken.
    timeouts: [AtomicU64; 2],
    counters: [AtomicU64; 13],
}

/// Carries commands to the relay from within the process. Cheap to clone.
#[derive(Clone)]
pub struct MediaHandle {
    shards: Arc<[Arc<Shard>]>,
    hasher: RandomState,
}

impl MediaHandle {
    /// Carries a command out. When the relay has been shut down the reply is an error.
    pub async fn request(&self, command: Command) -> Reply {
        let shard = match &command {
            Command::Ping => 0,
            Command::Offer(d) | Command::Answer(d) => self.shard_of(&d.call_id),
            Command::Delete(d) => self.shard_of(&d.call_id),
            Command::Query(q) => self.shard_of(&q.call_id),
            Command::List { limit } => return self.list(*limit).await,
        };
        self.ask(shard, command).await
    }

    fn shard_of(&self, call: &str) -> usize {
        (self.hasher.hash_one(call) as usize).checked_rem(self.shards.len()).unwrap_or(0)
    }

    async fn ask(&self, shard: usize, command: Command) -> Reply {
        let gone = || Reply::Error("the relay is shut down".to_owned());
        let Some(shard) = self.shards.get(shard) else { return gone() };
        let (reply, answer) = oneshot::channel();
        if shard.inbox.send(Order { command, reply }).await.is_err() {
            return gone();
        }
        shard.wake.wake();
        answer.await.unwrap_or_else(|_| gone())
    }

    async fn list(&self, limit: usize) -> Reply {
        let mut calls = Vec::new();
        for shard in 0..self.shards.len() {
            match self.ask(shard, Command::List { limit }).await {
                Reply::Calls(some) => calls.extend(some),
                other => return other,
            }
        }
        calls.truncate(limit);
        Reply::Calls(calls)
    }

    /// Totals and gauges of all threads, as of their last wake-up.
    pub fn counters(&self) -> Counters {
        let mut sum = [0u64; 13];
        for shard in self.shards.iter() {
            for (total, one) in sum.iter_mut().zip(&shard.counters) {
                *total += one.load(Ordering::Relaxed);
            }
        }
        Counters::from_values(sum)
    }

    /// Whether new calls are refused from now on; those that are known go on.
    pub fn set_draining(&self, draining: bool) {
        for shard in self.shards.iter() {
            shard.drain.store(draining, Ordering::Release);
            shard.wake.wake();
        }
    }

    /// Tells the owners of all calls to have them elsewhere.
    pub fn leave(&self) {
        for shard in self.shards.iter() {
            shard.leave.store(true, Ordering::Release);
            shard.wake.wake();
        }
    }

    /// Sets how long a joined call, and a held or lone one, may be without packets; for calls that exist too.
    /// Whole milliseconds.
    pub fn set_timeouts(&self, timeout: Duration, held: Duration) {
        for shard in self.shards.iter() {
            for (place, limit) in shard.timeouts.iter().zip([timeout, held]) {
                place.store(millis(limit), Ordering::Release);
            }
            shard.wake.wake();
        }
    }

    fn stop(&self) {
        for shard in self.shards.iter() {
            shard.stop.store(true, Ordering::Release);
            shard.wake.wake();
        }
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

impl std::fmt::Debug for MediaHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaHandle").field("threads", &self.shards.len()).finish()
    }
}

/// A relay at work. Dropping it ends its calls and closes its ports.
#[derive(Debug)]
pub struct Running {
    /// For commands from this process.
    pub handle: MediaHandle,
    /// Media events. When nobody takes them they are dropped and counted.
    pub events: mpsc::Receiver<Event>,
    /// Where NG is heard, when it is: the port is told here if 0 was asked for.
    pub ng: Option<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    server: Option<tokio::task::JoinHandle<()>>,
}

impl Running {
    /// Ends all calls, closes all ports and waits until that is done.
    pub async fn shutdown(mut self) {
        self.handle.stop();
        if let Some(server) = self.server.take() {
            server.abort();
            // Waits until its socket is closed.
            let _ = server.await;
        }
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).all(|r| r.is_ok()));
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a media thread ended by panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(server) = self.server.take() {
            server.abort();
        }
    }
}

/// Starts a relay: its threads, and NG over UDP where `config` has it. Needs a tokio runtime for the latter.
pub async fn build(config: Config) -> Result<Running, BuildError> {
    let pool = Arc::new(Pool::new(&config.ports).ok_or(BuildError::NoPorts)?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = if config.threads == 0 { cores } else { config.threads.min(256) };
    let (tell, events) = mpsc::channel(EVENTS);
    let start = Instant::now();
    let mut shards = Vec::new();
    let mut workers = Vec::new();
    for at in 0..count {
        let (inbox, orders) = mpsc::channel(INBOX);
        let shard = Arc::new(Shard {
            inbox,
            wake: EventFd::new()?,
            stop: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            timeouts: [config.timeout, config.timeout_held].map(|t| AtomicU64::new(millis(t))),
            counters: std::array::from_fn(|_| AtomicU64::new(0)),
        });
        let epoll = Epoll::new()?;
        epoll.add(shard.wake.fd(), WAKE)?;
        let sockets = Sockets { config: config.clone(), pool: pool.clone(), epoll, pairs: Vec::new() };
        let core = Core::new(config.clone());
        workers.push(Worker {
            at,
            cores,
            core,
            sockets,
            orders,
            tell: tell.clone(),
            shard: shard.clone(),
            start,
            lost: 0,
        });
        shards.push(shard);
    }
    let handle = MediaHandle { shards: shards.into(), hasher: RandomState::new() };
    let (mut ng, mut server) = (None, None);
    if let Some(address) = config.ng {
        let socket = tokio::net::UdpSocket::bind(address).await.map_err(|e| BuildError::Ng(address, e))?;
        ng = Some(socket.local_addr()?);
        let trust = ng::Trust { allowed: config.ng_allowed.clone(), keys: config.ng_keys.clone() };
        server = Some(tokio::spawn(ng::serve(socket, trust, handle.clone())));
    }
    let mut running = Running { handle, events, ng, threads: Vec::new(), server };
    for worker in workers {
        let name = format!("media-{}", worker.at);
        running.threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
    }
    Ok(running)
}

/// A thread's sockets.
struct Sockets {
    config: Config,
    pool: Arc<Pool>,
    epoll: Epoll,
    pairs: Vec<Option<Pair>>,
}

impl Sockets {
    fn fd(&self, socket: SocketId) -> Option<i32> {
        let pair = self.pairs.get(socket.slot).and_then(Option::as_ref)?;
        Some(if socket.rtcp { pair.rtcp.as_raw_fd() } else { pair.rtp.as_raw_fd() })
    }
}

impl Ports for Sockets {
    fn bind(&mut self) -> Option<(usize, u16)> {
        let pair = self.pool.bind(self.config.rtp_address)?;
        let port = pair.port;
        let slot = self.pairs.iter().position(Option::is_none).unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let token = slot as u64 * 2;
        let added =
            self.epoll.add(pair.rtp.as_raw_fd(), token).and_then(|()| self.epoll.add(pair.rtcp.as_raw_fd(), token + 1));
        if let Err(error) = added {
            tracing::error!(%error, "a media socket cannot be watched");
            drop(pair);
            self.pool.release(port);
            return None;
        }
        *self.pairs.get_mut(slot)? = Some(pair);
        Some((slot, port))
    }

    fn release(&mut self, slot: usize) {
        if let Some(pair) = self.pairs.get_mut(slot).and_then(Option::take) {
            let port = pair.port;
            // Closed before the pool may give the port out again.
            drop(pair);
            self.pool.release(port);
        }
    }

    fn address_for(&mut self, peer: Option<IpAddr>) -> IpAddr {
        address_for(&self.config, peer)
    }

    fn inside(&mut self) -> IpAddr {
        self.config.inside.unwrap_or_else(|| address_for(&self.config, None))
    }
}

struct Worker {
    at: usize,
    cores: usize,
    core: Core,
    sockets: Sockets,
    orders: mpsc::Receiver<Order>,
    tell: mpsc::Sender<Event>,
    shard: Arc<Shard>,
    start: Instant,
    /// Events that nobody took.
    lost: u64,
}

impl Worker {
    fn run(mut self) {
        if self.cores > 1 && !pin(self.at % self.cores) {
            tracing::debug!(thread = self.at, "not pinned to a core");
        }
        let mut batch = Batch::new();
        let (mut tokens, mut out) = (Vec::new(), Vec::new());
        loop {
            let timeout = self.core.deadline().map(|d| d.saturating_sub(self.start.elapsed()));
            if let Err(error) = self.sockets.epoll.wait(timeout, &mut tokens) {
                tracing::error!(%error, "epoll failed; the media thread ends");
                break;
            }
            let now = self.start.elapsed();
            for token in &tokens {
                if *token == WAKE {
                    self.shard.wake.drain();
                    let [timeout, held] =
                        self.shard.timeouts.each_ref().map(|t| Duration::from_millis(t.load(Ordering::Acquire)));
                    self.core.set_timeouts(timeout, held, now);
                    self.orders();
                    if self.shard.leave.swap(false, Ordering::AcqRel) {
                        self.core.leave(now);
                    }
                } else {
                    let socket = SocketId { slot: (*token / 2) as usize, rtcp: *token % 2 == 1 };
                    self.receive(socket, &mut batch, &mut out, now);
                }
            }
            self.core.tick(now, &mut self.sockets);
            self.hand_over();
            if self.shard.stop.load(Ordering::Acquire) {
                break;
            }
        }
        self.core.shutdown(&mut self.sockets);
        self.hand_over();
    }

    fn hand_over(&mut self) {
        // Who hears of an end finds it counted.
        self.publish();
        let lost = self.lost;
        while let Some(event) = self.core.poll_event() {
            self.lost += u64::from(self.tell.try_send(event).is_err());
        }
        if self.lost > lost {
            self.publish();
        }
    }

    fn publish(&self) {
        let mut counters = self.core.counters();
        counters.events_dropped += self.lost;
        for (place, value) in self.shard.counters.iter().zip(counters.values()) {
            place.store(value, Ordering::Relaxed);
        }
    }

    fn orders(&mut self) {
        while let Ok(order) = self.orders.try_recv() {
            // Looked at for each: who drains and then asks is answered as drained.
            self.core.set_draining(self.shard.drain.load(Ordering::Acquire));
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let now = Now { mono: self.start.elapsed(), wall };
            let reply = self.core.command(&order.command, now, &mut self.sockets);
            // Who asks next sees what this one did.
            self.publish();
            let _ = order.reply.send(reply);
        }
    }

    /// Takes what is on a socket and sends it on, in runs that leave by the same socket.
    fn receive(&mut self, from: SocketId, batch: &mut Batch, out: &mut Vec<(usize, SocketAddr)>, now: Duration) {
        let Some(fd) = self.sockets.fd(from) else { return };
        // An error is one that an earlier packet caused at the far end (port unreachable); reading it clears it.
        let Ok(count) = batch.receive(fd) else { return };
        let mut through: Option<SocketId> = None;
        out.clear();
        for at in 0..count {
            let forward = match batch.get(at) {
                Some((source, bytes)) => self.core.packet(from, source, bytes, now),
                None => {
                    self.core.truncated();
                    None
                }
            };
            let Some(Forward { socket, to }) = forward else { continue };
            if through.is_some_and(|t| t != socket) {
                self.flush(through, batch, out);
            }
            through = Some(socket);
            out.push((at, to));
        }
        self.flush(through, batch, out);
    }

    fn flush(&mut self, through: Option<SocketId>, batch: &mut Batch, out: &mut Vec<(usize, SocketAddr)>) {
        let Some(fd) = through.filter(|_| !out.is_empty()).and_then(|t| self.sockets.fd(t)) else { return };
        let sent = batch.send(fd, self.sockets.config.rtp_address.is_ipv6(), out);
        (sent..out.len()).for_each(|_| self.core.send_failed());
        out.clear();
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
