//! The balancer as a pure state machine: transaction-stateful, dialog-stateless.
//!
//! A driver hands in what arrived and what failed with [`Core::handle`], takes what is to be sent with [`Core::poll`]
//! until there is nothing left, and comes back at [`Core::deadline`]. Requests from outside go to a service inside, or
//! to a dispatcher's destination; requests from inside go out on the flow that their Route names.

mod ack;
mod context;
mod forward;
mod inside;
mod outside;
mod response;
mod timers;

use crate::counters::{Counter, Counters};
use crate::dispatcher::probe::{Key, Probes, Shown};
use crate::handover;
use crate::listen::{Listeners, Routes};
use crate::setup::Setup;
use crate::token::branch::Owner;
use bytes::Bytes;
use context::Contexts;
use contract::config::{BalancerEntry, Snapshot};
use contract::hop::Inside;
use contract::peers::Peers;
use contract::{Flow, KeyRing, Now, ProcessId, Service, Transport};
use rand::RngCore;
use sip::transaction::{ClientId, Timers, Transactions};
use sip::{Message, ParseError};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// One end of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// A flow to the outside. TCP with connection 0: whichever connection leads to the flow's remote address, made if
    /// there is none.
    Outside(Flow),
    /// A process inside.
    Inside(ProcessId),
}

impl Hop {
    /// True where nothing has to be retransmitted.
    pub fn is_reliable(self) -> bool {
        match self {
            Hop::Outside(flow) => flow.transport.is_reliable(),
            Hop::Inside(_) => true,
        }
    }
}

/// How the connection of a client transaction is found when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Connection {
    /// By its number.
    Number(u64),
    /// By its far end: we make it, or made it.
    To(SocketAddr),
}

impl Connection {
    fn of(hop: Hop) -> Option<Self> {
        match hop {
            Hop::Outside(flow) if flow.transport == Transport::Udp => None,
            Hop::Outside(Flow { connection: 0, remote, .. }) => Some(Self::To(remote)),
            Hop::Outside(flow) => Some(Self::Number(flow.connection)),
            Hop::Inside(_) => None,
        }
    }
}

/// What the world looks like while one input is handled.
#[derive(Clone, Copy)]
pub struct View<'v> {
    /// The configuration; `None` until there is one.
    pub snapshot: Option<&'v Snapshot<BalancerEntry>>,
    /// Who else is there.
    pub peers: &'v Peers,
    /// The installation's keys.
    pub keys: &'v KeyRing,
    /// The routes of this machine.
    pub routes: &'v dyn Routes,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A datagram, or a message cut out of a stream.
    Outside {
        /// Its bytes.
        bytes: Bytes,
        /// Where it came from and where it arrived.
        flow: Flow,
    },
    /// A message of one of our own processes. From a balancer (or another shard of this one) it is a hand-over.
    Inside(Inside),
    /// A stream that cannot be read on: its request is answered if it can be.
    Broken {
        /// The header.
        head: Bytes,
        /// Where it came from.
        flow: Flow,
        /// What is wrong.
        fault: ParseError,
    },
    /// A connection is closed, or could not be made.
    FlowGone {
        /// Its number.
        connection: u64,
        /// Its far end, if we made it: what was sent without a number went there.
        made_to: Option<SocketAddr>,
    },
    /// What [`Core::poll`] gave could not be sent, or its connection not be made.
    SendFailed {
        /// What.
        bytes: Bytes,
    },
    /// A hand-over did not arrive: its owner is gone or its queue is full.
    HandOverFailed {
        /// What [`Output::HandOver`] held.
        bytes: Bytes,
    },
    /// The peers or the configuration changed.
    Changed,
    /// The deadline is reached.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send on a flow.
    SendOutside {
        /// The flow; see [`Hop::Outside`].
        flow: Flow,
        /// The message.
        bytes: Bytes,
    },
    /// Send to a process.
    SendInside {
        /// The process.
        to: ProcessId,
        /// The message.
        bytes: Bytes,
    },
    /// Give to the owner, which is another replica or another shard of this process.
    HandOver {
        /// The owner.
        to: Owner,
        /// The message as it came, wrapped: for [`Input::Inside`] from this process there.
        bytes: Bytes,
    },
}

/// Bounds and times of a core.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Timers of transactions.
    pub timers: Timers,
    /// Transactions at once; more are answered 503.
    pub transactions: usize,
    /// A request to which nothing came for so long goes to the next destination, if there is one.
    pub patience: Duration,
    /// Destinations that are tried for one request.
    pub attempts: usize,
    /// Seconds in the Retry-After of our 503.
    pub retry_after: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The balancer answers 100 itself, at once, as it knows what to write into the Via of its sender.
            timers: Timers { trying: None, ..Timers::default() },
            transactions: 200_000,
            patience: Duration::from_secs(4),
            attempts: 4,
            retry_after: 5,
        }
    }
}

/// What a client transaction is for.
#[derive(Debug, Clone)]
enum Use {
    /// A forwarded request: the context and the branch.
    Forward {
        /// The number of its context.
        context: u64,
        /// Our branch.
        branch: String,
        /// The connection that it went on.
        connection: Option<Connection>,
    },
    /// A CANCEL of ours; nothing depends on its answer.
    Cancel,
    /// A probe.
    Probe { key: Key, number: u64 },
}

/// One shard of a balancer.
pub struct Core {
    me: Owner,
    listeners: Listeners,
    limits: Limits,
    setup: Setup,
    transactions: Transactions<Hop>,
    contexts: Contexts,
    clients: HashMap<ClientId, Use>,
    /// Client transactions by connection, so that its end is found quickly.
    by_connection: HashMap<Connection, Vec<ClientId>>,
    probes: Probes,
    /// The peers of the last look.
    peers: Vec<ProcessId>,
    turns: HashMap<String, u64>,
    /// Whether this machine has an address, and until when that is taken for known.
    here: HashMap<IpAddr, (bool, Duration)>,
    counters: Counters,
    out: VecDeque<Output>,
}

/// What one input is handled with.
struct Turn<'t> {
    view: View<'t>,
    now: Now,
    rng: &'t mut dyn RngCore,
}

impl Core {
    /// A core that has heard nothing yet.
    pub fn new(me: Owner, listeners: Listeners, limits: Limits) -> Self {
        Self {
            me,
            listeners,
            setup: Setup::default(),
            transactions: Transactions::new(limits.timers, limits.transactions),
            contexts: Contexts::default(),
            clients: HashMap::new(),
            by_connection: HashMap::new(),
            probes: Probes::default(),
            peers: Vec::new(),
            turns: HashMap::new(),
            here: HashMap::new(),
            counters: Counters::default(),
            out: VecDeque::new(),
            limits,
        }
    }

    /// Takes one input. Then [`Core::poll`] until it gives none, then wait for the next input or [`Core::deadline`].
    pub fn handle(&mut self, view: &View<'_>, input: Input, now: Now, rng: &mut dyn RngCore) {
        self.configure(view, now);
        let mut turn = Turn { view: *view, now, rng };
        match input {
            Input::Outside { bytes, flow } => self.outside(&mut turn, bytes, flow, false),
            Input::Inside(message) if message.service == Service::Balancer => self.take_over(&mut turn, &message.bytes),
            Input::Inside(message) => self.inside(&mut turn, message.bytes, message.from),
            Input::Broken { head, flow, fault } => {
                if let Ok(message) = Message::parse_head(&head) {
                    self.malformed(&turn, &message, &flow, &fault);
                }
            }
            Input::FlowGone { connection, made_to } => {
                let keys = [Some(Connection::Number(connection)), made_to.map(Connection::To)];
                for key in keys.into_iter().flatten() {
                    for client in self.by_connection.remove(&key).unwrap_or_default() {
                        self.client_failed(&mut turn, client);
                    }
                }
            }
            Input::SendFailed { bytes } => self.send_failed(&mut turn, &bytes),
            Input::HandOverFailed { bytes } => self.hand_over_failed(&mut turn, &bytes),
            Input::Changed => self.peers_changed(&mut turn),
            Input::Tick => {}
        }
        self.settle(&mut turn);
    }

    /// The next thing to do, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        let times = [self.transactions.deadline(), self.probes.deadline(), self.contexts.deadline()];
        times.into_iter().flatten().min()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Transactions under way.
    pub fn load(&self) -> usize {
        self.transactions.len()
    }

    /// Requests without a final answer: what a process that goes has to stay for. Transactions that are there for
    /// copies of what was answered (RFC 3261 timers D, H, J, K) are not among them, nor are probes.
    pub fn unanswered(&self) -> usize {
        self.contexts.open()
    }

    /// The state of every destination.
    pub fn destinations(&self, now: Now) -> Vec<Shown> {
        self.probes.show(&self.setup.sets, now.mono)
    }

    fn configure(&mut self, view: &View<'_>, now: Now) {
        let Some(snapshot) = view.snapshot else { return };
        if self.setup.version != Some(snapshot.version) {
            self.setup = Setup::new(snapshot);
            self.probes.configure(&self.setup.sets, now.mono);
            self.turns.retain(|name, _| self.setup.sets.iter().any(|s| s.name == *name));
        }
    }

    fn send(&mut self, to: Hop, bytes: Bytes) {
        self.out.push_back(match to {
            Hop::Outside(flow) => Output::SendOutside { flow, bytes },
            Hop::Inside(to) => Output::SendInside { to, bytes },
        });
    }

    /// True while the owner's process is known to be there.
    fn is_alive(&self, turn: &Turn<'_>, owner: Owner) -> bool {
        owner.process == self.me.process || turn.view.peers.get(owner.process).is_some()
    }

    fn hand_over(&mut self, turn: &Turn<'_>, to: Owner, message: &Message<'_>, flow: &Flow) {
        self.counters.count(Counter::HandedOver);
        let bytes = handover::wrap(message, flow, to.shard, turn.view.keys);
        self.out.push_back(Output::HandOver { to, bytes });
    }

    fn take_over(&mut self, turn: &mut Turn<'_>, bytes: &Bytes) {
        let unwrapped = Message::parse_stream(bytes).ok().and_then(|m| handover::unwrap(&m, turn.view.keys));
        match unwrapped {
            Some((bytes, flow, shard)) if shard == self.me.shard => {
                self.counters.count(Counter::TakenOver);
                self.outside(turn, bytes, flow, true);
            }
            // One process has one door: the shard behind it passes on what is another's.
            Some((_, _, shard)) => {
                let to = Owner { process: self.me.process, shard };
                self.out.push_back(Output::HandOver { to, bytes: bytes.clone() });
            }
            None => self.counters.count(Counter::HandOverLost),
        }
    }

    /// The owner was not reached. A response goes on by its Via if the owner is gone; a request will be repeated by
    /// whoever sent it.
    fn hand_over_failed(&mut self, turn: &mut Turn<'_>, bytes: &Bytes) {
        self.counters.count(Counter::HandOverLost);
        let unwrapped = Message::parse_stream(bytes).ok().and_then(|m| handover::unwrap(&m, turn.view.keys));
        let Some((bytes, flow, _)) = unwrapped else { return };
        if let Ok(message) = Message::parse(&bytes)
            && !message.is_request()
        {
            self.forward_without_state(turn, &message, Hop::Outside(flow));
        }
    }
}
