//! The relay's decisions, without IO.
//!
//! The contract: [`Core::command`] and [`Core::packet`] take what came in with the time it came at, [`Core::tick`] is
//! called at [`Core::deadline`], and after any of them [`Core::poll_event`] until it is `None`. Sockets are made and
//! closed through [`Ports`], which the driver gives to each call.

use crate::config::Config;
use crate::session::{Call, Counters, Event, MAX_RECENT, Ports, RECENT, SocketId};
use crate::stream::{Path, Source, Stream};
use contract::media::{MediaEvent, MediaEventKind};
use rtp::packet::{Kind, Packet, kind};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// Most events that wait to be polled.
const MAX_EVENTS: usize = 4096;

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Out of this socket.
    pub socket: SocketId,
    /// To this address.
    pub to: SocketAddr,
}

/// Calls and their streams: one a thread.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) calls: Vec<Option<Call>>,
    pub(crate) by_id: HashMap<String, usize>,
    pub(crate) streams: Vec<Option<Stream>>,
    pub(crate) counters: Counters,
    events: VecDeque<Event>,
    next_tick: Option<Duration>,
    /// The time of the last input.
    pub(crate) now: Duration,
    /// New calls are refused.
    pub(crate) draining: bool,
}

impl Core {
    /// An empty relay.
    pub fn new(config: Config) -> Core {
        Core {
            config,
            calls: Vec::new(),
            by_id: HashMap::new(),
            streams: Vec::new(),
            counters: Counters::default(),
            events: VecDeque::new(),
            next_tick: None,
            now: Duration::ZERO,
            draining: false,
        }
    }

    /// Whether offers of calls that are not known yet are refused from now on.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// Limits for idle calls from now on, those that exist included.
    pub fn set_timeouts(&mut self, timeout: Duration, held: Duration, now: Duration) {
        if (self.config.timeout, self.config.timeout_held) != (timeout, held) {
            (self.config.timeout, self.config.timeout_held) = (timeout, held);
            // A shorter limit is looked at sooner than the old pace would.
            let next = now + self.pace();
            self.next_tick = self.next_tick.map(|t| t.min(next));
        }
    }

    /// Totals and gauges.
    pub fn counters(&self) -> Counters {
        Counters { calls: self.by_id.len() as u64, ..self.counters }
    }

    /// A packet was not sent: the kernel refused.
    pub fn send_failed(&mut self) {
        self.counters.dropped_send += 1;
    }

    /// A packet was longer than the driver's buffers.
    pub fn truncated(&mut self) {
        self.counters.dropped_other += 1;
    }

    /// A datagram came in on `socket`: where it goes, if anywhere.
    pub fn packet(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8], now: Duration) -> Option<Forward> {
        self.now = now;
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let loops = self.is_loop(socket.slot, from);
        let stream = self.streams.get_mut(socket.slot).and_then(Option::as_mut)?;
        // On a shared port the packet says what it is.
        let is_rtcp = match kind(bytes) {
            Kind::Rtcp if stream.strict => {
                if !socket.rtcp && !stream.muxed {
                    return self.drop_other(socket);
                }
                true
            }
            Kind::Other if stream.strict => return self.drop_other(socket),
            Kind::Rtp if stream.strict && socket.rtcp => return self.drop_other(socket),
            _ => socket.rtcp,
        };
        let path = if is_rtcp && socket.rtcp { &mut stream.rtcp } else { &mut stream.rtp };
        let mut latched = false;
        let known = if stream.asymmetric {
            true
        } else if loops {
            false
        } else {
            let source = path.judge(from, stream.received_from, now);
            latched = source == Source::Latched;
            source != Source::Stranger
        };
        if !known {
            path.received.errors += 1;
            self.counters.dropped_source += 1;
            return None;
        }
        path.last = Some(now);
        stream.silent = false;
        let (call, leg, peer, dtmf) = (stream.call, stream.leg, stream.peer, stream.dtmf);
        let target = peer.and_then(|p| self.streams.get(p).and_then(Option::as_ref)).map(|to| {
            let (through_rtcp, remote) = if is_rtcp { to.rtcp_way() } else { (false, to.rtp.remote) };
            (through_rtcp, remote, to.dtmf)
        });
        if latched && !is_rtcp {
            self.tell(call, Some(leg), MediaEventKind::Latched(from));
        }
        if !is_rtcp && bytes.len() <= rtp::packet::HEADER + 64 {
            self.digits(socket.slot, bytes, dtmf, target.and_then(|t| t.2));
        }
        let forward = match (peer, target) {
            (Some(slot), Some((rtcp, Some(to), _))) => Some(Forward { socket: SocketId { slot, rtcp }, to }),
            _ => None,
        };
        let length = bytes.len() as u64;
        let totals = self.path_mut(socket, is_rtcp).map(|p| &mut p.received)?;
        if forward.is_some() {
            totals.packets += 1;
            totals.bytes += length;
            self.counters.packets += 1;
            self.counters.bytes += length;
        } else {
            totals.errors += 1;
            self.counters.dropped_nowhere += 1;
        }
        forward
    }

    fn path_mut(&mut self, socket: SocketId, is_rtcp: bool) -> Option<&mut Path> {
        let stream = self.streams.get_mut(socket.slot).and_then(Option::as_mut)?;
        Some(if is_rtcp && socket.rtcp { &mut stream.rtcp } else { &mut stream.rtp })
    }

    fn drop_other(&mut self, socket: SocketId) -> Option<Forward> {
        if let Some(path) = self.path_mut(socket, socket.rtcp) {
            path.received.errors += 1;
        }
        self.counters.dropped_other += 1;
        None
    }

    /// Whether a packet comes from a socket of the same call: two descriptions that name our own ports would send one
    /// packet around for ever.
    fn is_loop(&self, slot: usize, from: SocketAddr) -> bool {
        let Some(stream) = self.streams.get(slot).and_then(Option::as_ref) else { return false };
        // The usual packet costs nothing here.
        if stream.rtp.is_latched() && stream.rtp.remote == Some(from) {
            return false;
        }
        self.calls.get(stream.call).and_then(Option::as_ref).is_some_and(|call| self.is_own(call, from))
    }

    /// Whether `address` is one of the call's own sockets.
    pub(crate) fn is_own(&self, call: &Call, address: SocketAddr) -> bool {
        call.legs().any(|(_, leg)| {
            leg.advertised == Some(address.ip())
                && leg.streams.iter().flatten().any(|s| {
                    let port = self.streams.get(*s).and_then(Option::as_ref).map(|s| s.port);
                    port.is_some_and(|p| p == address.port() || p.checked_add(1) == Some(address.port()))
                })
        })
    }

    /// DTMF events in either leg's numbering: the two usually agree.
    fn digits(&mut self, slot: usize, bytes: &[u8], own: Option<u8>, other: Option<u8>) {
        let Some(second) = bytes.get(1) else { return };
        let payload_type = Some(second & 0x7f);
        if payload_type != own && payload_type != other {
            return;
        }
        let Ok(packet) = Packet::parse(bytes) else { return };
        let Some(stream) = self.streams.get_mut(slot).and_then(Option::as_mut) else { return };
        if let Some(digit) = stream.digits.receive(packet.timestamp, packet.payload) {
            let (call, leg) = (stream.call, stream.leg);
            self.tell(call, Some(leg), MediaEventKind::Dtmf { digit: digit.digit, duration: digit.duration });
        }
    }

    /// Queues an event: about a leg to its owner, about the call to each owner once.
    pub(crate) fn tell(&mut self, call: usize, leg: Option<usize>, kind: MediaEventKind) {
        let Some(call) = self.calls.get_mut(call).and_then(Option::as_mut) else { return };
        let (mut owners, mut tag) = (Vec::new(), None);
        for (at, l) in call.legs().filter(|(at, _)| leg.is_none_or(|x| x == *at)) {
            if leg == Some(at) {
                tag = Some(l.tag.clone().unwrap_or_default());
            }
            if !owners.contains(&l.owner) {
                owners.push(l.owner.clone());
            }
        }
        // Someone owns the call: events about it are not told to nobody besides.
        if owners.len() > 1 {
            owners.retain(Option::is_some);
        }
        let event = MediaEvent { seq: call.seq, call: call.id.clone(), tag, kind };
        call.seq += 1;
        if call.recent.len() == MAX_RECENT {
            call.recent.pop_front();
        }
        call.recent.push_back((self.now, event.clone()));
        for owner in owners {
            self.queue(owner, event.clone());
        }
    }

    fn queue(&mut self, owner: Option<String>, event: MediaEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.counters.events_dropped += 1;
        }
        self.events.push_back(Event { owner, event });
    }

    /// A call has another owner, who is told again what the former one was told last: it may not have acted on it.
    pub(crate) fn own(&mut self, call: usize, owner: &str) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(call).and_then(Option::as_mut) else { return };
        for leg in call.legs.iter_mut().flatten() {
            leg.owner = Some(owner.to_owned());
        }
        call.recent.retain(|(at, _)| now.saturating_sub(*at) < RECENT);
        let recent: Vec<MediaEvent> = call.recent.iter().map(|(_, event)| event.clone()).collect();
        for event in recent {
            self.queue(Some(owner.to_owned()), event);
        }
    }

    /// Tells the owners of all calls that this relay goes down: they are to have them elsewhere.
    pub fn leave(&mut self, now: Duration) {
        self.now = now;
        for at in 0..self.calls.len() {
            self.tell(at, None, MediaEventKind::Draining);
        }
    }

    /// The next event to hand over.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Core::tick`] wants to be called next; `None` without calls.
    pub fn deadline(&self) -> Option<Duration> {
        self.next_tick.filter(|_| !self.by_id.is_empty())
    }

    /// How often idle calls are looked for: often enough for the shortest limit, once a second at most.
    fn pace(&self) -> Duration {
        let shortest = self.config.timeout.min(self.config.timeout_held).min(self.config.silence);
        (shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// A call exists: the clock runs.
    pub(crate) fn arm(&mut self, now: Duration) {
        if self.by_id.len() <= 1 || self.next_tick.is_none() {
            let next = now + self.pace();
            self.next_tick = Some(self.next_tick.filter(|t| *t > now).map_or(next, |t| t.min(next)));
        }
    }

    /// Ends calls that nobody sends on and tells legs that fell silent.
    pub fn tick(&mut self, now: Duration, ports: &mut dyn Ports) {
        if self.next_tick.is_none_or(|t| now < t) {
            return;
        }
        self.now = now;
        self.next_tick = Some(now + self.pace());
        let (mut idle, mut silent) = (Vec::new(), Vec::new());
        for (at, call) in self.calls.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|c| (i, c))) {
            let streams = || {
                let ids = call.legs().flat_map(|(_, l)| l.streams.iter().flatten());
                ids.filter_map(|s| self.streams.get(*s).and_then(Option::as_ref).map(|x| (*s, x)))
            };
            let last = streams().filter_map(|(_, s)| s.last()).max().unwrap_or_default().max(call.touched);
            let joined = call.legs().any(|(_, l)| l.peer.is_some());
            let held = call.legs().any(|(_, l)| l.held);
            let limit = if joined && !held { self.config.timeout } else { self.config.timeout_held };
            if now.saturating_sub(last) >= limit {
                idle.push(at);
                continue;
            }
            for (slot, s) in streams() {
                let quiet = s.last().is_some_and(|l| now.saturating_sub(l) >= self.config.silence);
                if quiet && !s.silent && !held && s.kind == "audio" {
                    silent.push((slot, at, s.leg));
                }
            }
        }
        for (slot, call, leg) in silent {
            if let Some(stream) = self.streams.get_mut(slot).and_then(Option::as_mut) {
                stream.silent = true;
            }
            self.tell(call, Some(leg), MediaEventKind::Silent);
        }
        for call in idle {
            self.counters.timeouts += 1;
            self.tell(call, None, MediaEventKind::SessionTimeout);
            self.end(call, ports);
        }
    }

    /// Ends a call: its ports are free again, its owners told.
    pub(crate) fn end(&mut self, at: usize, ports: &mut dyn Ports) {
        self.tell(at, None, MediaEventKind::Ended);
        let Some(call) = self.calls.get_mut(at).and_then(Option::take) else { return };
        self.by_id.remove(&call.id);
        for leg in call.legs.into_iter().flatten() {
            self.close(&leg.streams, ports);
            self.counters.legs = self.counters.legs.saturating_sub(1);
        }
    }

    /// Closes streams.
    pub(crate) fn close(&mut self, streams: &[Option<usize>], ports: &mut dyn Ports) {
        for slot in streams.iter().flatten() {
            if let Some(stream) = self.streams.get_mut(*slot).and_then(Option::take) {
                ports.release(*slot);
                self.counters.ports = self.counters.ports.saturating_sub(2);
                if let Some(peer) = stream.peer.and_then(|p| self.streams.get_mut(p)).and_then(Option::as_mut)
                    && peer.peer == Some(*slot)
                {
                    peer.peer = None;
                }
            }
        }
        // Early media may point here without being joined.
        for stream in self.streams.iter_mut().flatten() {
            if stream.peer.is_some_and(|p| streams.contains(&Some(p))) {
                stream.peer = None;
            }
        }
    }

    /// Ends everything.
    pub fn shutdown(&mut self, ports: &mut dyn Ports) {
        for at in 0..self.calls.len() {
            if self.calls.get(at).is_some_and(Option::is_some) {
                self.end(at, ports);
            }
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
