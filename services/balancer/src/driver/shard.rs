//! One shard: its sockets, its queue and its core, in one loop.

use super::{Message, Queues, SystemRoutes, published};
use crate::core::{Core, Input, Output, View};
use crate::counters::{Counter, Counters};
use crate::token::branch::Owner;
use bytes::Bytes;
use contract::config::{BalancerEntry, Snapshot, Version};
use contract::peers::Peers;
use contract::{Flow, KeyRing, Service, Transport, hop};
use futures::future::{BoxFuture, FutureExt as _};
use prometheus_client::metrics::counter::Counter as Metric;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rand::rngs::StdRng;
use runtime::health::Pulse;
use runtime::mesh::MemberHandle;
use runtime::metrics::Reason;
use runtime::transport::tcp::Tcp;
use runtime::transport::udp::{RecvBatch, SendBatch, UdpShard};
use runtime::{Clock, Metrics};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Datagrams that wait to be sent on one socket before they are.
const SEND_BATCH: usize = 256;
/// Queued messages taken in one turn of the loop.
const QUEUE_BATCH: usize = 64;
/// How often counters are shown and life is signalled, also when nothing happens.
const BEAT: Duration = Duration::from_secs(1);

/// Everything that one shard owns.
pub(super) struct Shard {
    pub(super) core: Core,
    pub(super) me: Owner,
    pub(super) udp: Vec<UdpShard>,
    pub(super) tcp: Tcp,
    pub(super) queue: mpsc::Receiver<Message>,
    pub(super) queues: Queues,
    pub(super) member: MemberHandle,
    pub(super) peers: watch::Receiver<Arc<Peers>>,
    pub(super) configured: watch::Receiver<Arc<Snapshot<BalancerEntry>>>,
    pub(super) applied: watch::Sender<Version>,
    pub(super) keys: Arc<KeyRing>,
    pub(super) clock: Clock,
    pub(super) pulse: Pulse,
    pub(super) counters: Shown,
}

/// Requests without a final answer, of all shards.
pub(super) fn unanswered(metrics: &Metrics) -> Gauge {
    metrics.gauge("balancer_unanswered", "Requests without a final answer at balancers")
}

/// Counters as metrics.
pub(super) struct Shown {
    messages: Family<Reason, Metric>,
    transactions: Gauge,
    unanswered: Gauge,
    before: Counters,
    /// What this shard added to the gauges.
    added: (i64, i64),
}

impl Shown {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            messages: metrics.reasons("balancer_events", "Messages and events at balancers, by what became of them"),
            transactions: metrics.gauge("balancer_transactions", "Transactions under way at balancers"),
            unanswered: unanswered(metrics),
            before: Counters::default(),
            added: (0, 0),
        }
    }

    fn show(&mut self, core: &Core) {
        for counter in Counter::ALL {
            let more = core.counters().get(*counter).wrapping_sub(self.before.get(*counter));
            if more > 0 {
                self.messages.get_or_create(&Reason { reason: counter.label() }).inc_by(more);
            }
        }
        self.before = core.counters().clone();
        // Several shards add up in one gauge.
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let now = (number(core.load()), number(core.unanswered()));
        let before = std::mem::replace(&mut self.added, now);
        self.transactions.inc_by(now.0.wrapping_sub(before.0));
        self.unanswered.inc_by(now.1.wrapping_sub(before.1));
    }
}

/// The sockets of a shard with what is under way on them.
struct Sockets {
    list: Vec<(UdpShard, SendBatch)>,
}

impl Sockets {
    /// The socket that is bound to this address, else the one bound to all.
    fn of(&mut self, local: SocketAddr) -> Option<&mut (UdpShard, SendBatch)> {
        let fits = |bound: SocketAddr| bound.port() == local.port() && bound.is_ipv4() == local.is_ipv4();
        let exact = self.list.iter().position(|(s, _)| s.local_addr() == local);
        let any = || self.list.iter().position(|(s, _)| fits(s.local_addr()) && s.local_addr().ip().is_unspecified());
        let at = exact.or_else(any)?;
        self.list.get_mut(at)
    }
}

/// What woke the loop.
enum Woken {
    Datagrams(usize, io::Result<()>),
    Queue(Option<Message>),
    Changed,
    Deadline,
    Beat,
}

impl Shard {
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let mut rng = runtime::entropy();
        let mut received: Vec<RecvBatch> = self.udp.iter().map(|_| RecvBatch::new()).collect();
        let list = std::mem::take(&mut self.udp).into_iter().map(|s| (s, SendBatch::new(SEND_BATCH))).collect();
        let mut sockets = Sockets { list };
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.step(Input::Changed, &mut rng);
        loop {
            self.flush(&mut sockets, &mut rng).await;
            let woken = {
                let any = any_datagrams(&sockets, &mut received);
                tokio::select! {
                    (at, result) = any => Woken::Datagrams(at, result),
                    message = self.queue.recv() => Woken::Queue(message),
                    Ok(()) = self.peers.changed() => Woken::Changed,
                    Ok(()) = self.configured.changed() => Woken::Changed,
                    () = runtime::timer::sleep_until_mono(self.clock, self.core.deadline()) => Woken::Deadline,
                    _ = beat.tick() => Woken::Beat,
                }
            };
            match woken {
                Woken::Datagrams(at, Ok(())) => {
                    let Some(batch) = received.get(at) else { continue };
                    for datagram in batch.iter().filter(|d| !d.truncated && d.remote.port() != 0) {
                        let flow = Flow {
                            transport: Transport::Udp,
                            process: self.me.process,
                            connection: 0,
                            local: datagram.local,
                            remote: datagram.remote,
                        };
                        let bytes = Bytes::copy_from_slice(datagram.bytes);
                        self.step(Input::Outside { bytes, flow }, &mut rng);
                    }
                }
                Woken::Datagrams(_, Err(error)) => {
                    tracing::warn!(%error, "a UDP socket gave an error");
                    // Not to spin, should it go on.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Woken::Queue(None) => return Ok(()),
                Woken::Queue(Some(message)) => {
                    self.take(message, &mut rng);
                    for _ in 1..QUEUE_BATCH {
                        let Ok(message) = self.queue.try_recv() else { break };
                        self.take(message, &mut rng);
                    }
                }
                Woken::Changed => self.step(Input::Changed, &mut rng),
                Woken::Deadline => self.step(Input::Tick, &mut rng),
                Woken::Beat => {
                    self.pulse.beat();
                    self.counters.show(&self.core);
                }
            }
        }
    }

    fn take(&mut self, message: Message, rng: &mut StdRng) {
        match message {
            Message::Input(input) => self.step(input, rng),
            // Whoever asked may have gone.
            Message::Show(reply) => _ = reply.send(self.core.destinations(self.clock.now())),
        }
    }

    fn step(&mut self, input: Input, rng: &mut StdRng) {
        let snapshot = self.configured.borrow_and_update().clone();
        let peers = self.peers.borrow_and_update().clone();
        let view = View { snapshot: published(&snapshot), peers: &peers, keys: &self.keys, routes: &SystemRoutes };
        self.core.handle(&view, input, self.clock.now(), rng);
        self.applied.send_if_modified(|v| std::mem::replace(v, snapshot.version) != snapshot.version);
    }

    /// Sends what the core gives, and tells it what could not be sent, until there is nothing left.
    async fn flush(&mut self, sockets: &mut Sockets, rng: &mut StdRng) {
        loop {
            let mut failed = Vec::new();
            while let Some(output) = self.core.poll() {
                match output {
                    Output::SendOutside { flow, bytes } if flow.transport == Transport::Udp => {
                        let Some((socket, batch)) = sockets.of(flow.local) else {
                            failed.push(Input::SendFailed { bytes });
                            continue;
                        };
                        if batch.push(bytes.clone(), flow.remote, Some(flow.local.ip())).is_err() {
                            send(socket, batch, &mut failed).await;
                            if batch.push(bytes.clone(), flow.remote, Some(flow.local.ip())).is_err() {
                                failed.push(Input::SendFailed { bytes });
                            }
                        }
                    }
                    Output::SendOutside { flow, bytes } => {
                        if self.send_tcp(&flow, bytes.clone()).is_none() {
                            failed.push(Input::SendFailed { bytes });
                        }
                    }
                    Output::SendInside { to, bytes } => {
                        if self.member.send(to, bytes.clone()).is_err() {
                            failed.push(Input::SendFailed { bytes });
                        }
                    }
                    Output::HandOver { to, bytes } => failed.extend(self.hand_over(to, bytes)),
                }
            }
            for (socket, batch) in &mut sockets.list {
                if !batch.is_empty() {
                    send(socket, batch, &mut failed).await;
                }
            }
            if failed.is_empty() {
                return;
            }
            for input in failed {
                self.step(input, rng);
            }
        }
    }

    fn send_tcp(&self, flow: &Flow, bytes: Bytes) -> Option<()> {
        if flow.connection != 0 {
            return self.tcp.send(flow.connection, bytes).ok();
        }
        if let Some(id) = self.tcp.find(flow.remote)
            && self.tcp.send(id, bytes.clone()).is_ok()
        {
            return Some(());
        }
        let local = Some(flow.local.ip()).filter(|ip| !ip.is_unspecified());
        let id = self.tcp.connect(flow.remote, local).ok()?;
        self.tcp.send(id, bytes).ok()
    }

    fn hand_over(&self, to: Owner, bytes: Bytes) -> Option<Input> {
        let sent = if to.process == self.me.process {
            let inside = hop::Inside { from: self.me.process, service: Service::Balancer, bytes: bytes.clone() };
            let queue = self.queues.get(usize::from(to.shard));
            queue.is_some_and(|q| q.try_send(Message::Input(Input::Inside(inside))).is_ok())
        } else {
            self.member.send(to.process, bytes.clone()).is_ok()
        };
        (!sent).then_some(Input::HandOverFailed { bytes })
    }
}

async fn send(socket: &UdpShard, batch: &mut SendBatch, failed: &mut Vec<Input>) {
    let report = socket.send(batch).await;
    if let Some(error) = &report.error {
        tracing::debug!(%error, refused = report.failed, "datagrams were not sent");
    }
    failed.extend(report.refused.into_iter().map(|(bytes, _)| Input::SendFailed { bytes }));
}

/// Waits until any socket has datagrams and receives them; never returns without sockets.
fn any_datagrams<'s>(sockets: &'s Sockets, received: &'s mut [RecvBatch]) -> BoxFuture<'s, (usize, io::Result<()>)> {
    let mut waits: Vec<BoxFuture<'s, io::Result<()>>> =
        sockets.list.iter().zip(received).map(|((socket, _), batch)| socket.recv(batch).boxed()).collect();
    match waits.len() {
        0 => std::future::pending().boxed(),
        1 => waits.remove(0).map(|result| (0, result)).boxed(),
        _ => futures::future::select_all(waits).map(|(result, at, _)| (at, result)).boxed(),
    }
}
