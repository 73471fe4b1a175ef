//! What a relay holds: calls with their legs, and what it needs and tells.

use contract::media::MediaEvent;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

/// Most legs of one call.
pub(crate) const MAX_LEGS: usize = 32;
/// Events of a call that are kept for who takes it over.
pub(crate) const MAX_RECENT: usize = 16;
/// How long they are.
pub(crate) const RECENT: Duration = Duration::from_secs(60);

/// Where a stream's sockets come from: the driver binds, the core keeps account.
pub trait Ports {
    /// Binds an even port for RTP and the next for RTCP. `slot` names the pair from now on: small, free until
    /// [`Ports::release`]. `None` when the range is used up.
    fn bind(&mut self) -> Option<(usize, u16)>;

    /// Closes the pair in `slot`.
    fn release(&mut self, slot: usize);

    /// The address that `peer` is shown as ours.
    fn address_for(&mut self, peer: Option<IpAddr>) -> IpAddr;

    /// The address that legs within the installation are shown.
    fn inside(&mut self) -> IpAddr;
}

/// A socket: of which pair, and which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// The pair's slot.
    pub slot: usize,
    /// RTCP rather than RTP.
    pub rtcp: bool,
}

/// A media event on its way to who owns the leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The owning process, as `kubepbx-owner` named it.
    pub owner: Option<String>,
    /// What happened.
    pub event: MediaEvent,
}

/// Totals and gauges of a relay thread; sums over threads are the relay's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Calls now.
    pub calls: u64,
    /// Legs now.
    pub legs: u64,
    /// Ports in use now, two a stream.
    pub ports: u64,
    /// Calls ever.
    pub calls_total: u64,
    /// Packets passed on.
    pub packets: u64,
    /// Bytes passed on, UDP payload.
    pub bytes: u64,
    /// Packets dropped: not from the leg's source.
    pub dropped_source: u64,
    /// Packets dropped: nobody to send to.
    pub dropped_nowhere: u64,
    /// Packets dropped: not RTP or RTCP, or cut off.
    pub dropped_other: u64,
    /// Packets that the kernel refused to send.
    pub dropped_send: u64,
    /// Calls ended because nobody sent.
    pub timeouts: u64,
    /// Commands refused.
    pub refused: u64,
    /// Events dropped because nobody took them.
    pub events_dropped: u64,
}

impl Counters {
    /// Name, help and value of each, for metrics and JSON. Gauges are the first three.
    pub fn table(&self) -> [(&'static str, &'static str, u64); 13] {
        [
            ("calls", "Calls now", self.calls),
            ("legs", "Legs now", self.legs),
            ("ports", "Ports in use", self.ports),
            ("calls_total", "Calls ever", self.calls_total),
            ("packets_total", "Packets passed on", self.packets),
            ("bytes_total", "Bytes passed on", self.bytes),
            ("dropped_source_total", "Packets not from the leg's source", self.dropped_source),
            ("dropped_nowhere_total", "Packets with nobody to send to", self.dropped_nowhere),
            ("dropped_other_total", "Packets that are no media", self.dropped_other),
            ("dropped_send_total", "Packets the kernel refused", self.dropped_send),
            ("timeouts_total", "Calls ended because nobody sent", self.timeouts),
            ("refused_total", "Commands refused", self.refused),
            ("events_dropped_total", "Events nobody took", self.events_dropped),
        ]
    }

    /// Values only, in the table's order.
    pub(crate) fn values(&self) -> [u64; 13] {
        self.table().map(|(_, _, v)| v)
    }

    /// From values in the table's order.
    pub(crate) fn from_values(v: [u64; 13]) -> Counters {
        let [calls, legs, ports, calls_total, packets, bytes, ds, dn, d_other, d_send, timeouts, refused, events] = v;
        Counters {
            calls,
            legs,
            ports,
            calls_total,
            packets,
            bytes,
            dropped_source: ds,
            dropped_nowhere: dn,
            dropped_other: d_other,
            dropped_send: d_send,
            timeouts,
            refused,
            events_dropped: events,
        }
    }
}

/// One leg of a call.
#[derive(Debug)]
pub(crate) struct Leg {
    /// `None` until an answer names it.
    pub(crate) tag: Option<String>,
    /// The branch it was offered on, when it had no tag.
    pub(crate) branch: Option<String>,
    /// It was made without a tag: another answer may name it anew.
    pub(crate) pending: bool,
    /// The leg it was offered to or by.
    pub(crate) offerer: Option<usize>,
    /// The leg it is joined to.
    pub(crate) peer: Option<usize>,
    /// Streams by media line.
    pub(crate) streams: Vec<Option<usize>>,
    /// The process that gets its events.
    pub(crate) owner: Option<String>,
    /// It holds the call.
    pub(crate) held: bool,
    /// What it is shown as our address.
    pub(crate) advertised: Option<IpAddr>,
    /// Seconds since the UNIX epoch.
    pub(crate) created: u64,
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) legs: Vec<Option<Leg>>,
    /// Seconds since the UNIX epoch.
    pub(crate) created: u64,
    pub(crate) last_signal: u64,
    /// Monotonic time of the last command.
    pub(crate) touched: Duration,
    /// The next event's number.
    pub(crate) seq: u64,
    /// The last events and when they happened: who takes the call over is told them again.
    pub(crate) recent: VecDeque<(Duration, MediaEvent)>,
}

impl Call {
    pub(crate) fn legs(&self) -> impl Iterator<Item = (usize, &Leg)> {
        self.legs.iter().enumerate().filter_map(|(i, l)| l.as_ref().map(|l| (i, l)))
    }

    pub(crate) fn leg(&self, at: usize) -> Option<&Leg> {
        self.legs.get(at).and_then(Option::as_ref)
    }

    pub(crate) fn leg_mut(&mut self, at: usize) -> Option<&mut Leg> {
        self.legs.get_mut(at).and_then(Option::as_mut)
    }

    pub(crate) fn by_tag(&self, tag: &str) -> Option<usize> {
        self.legs().find(|(_, l)| l.tag.as_deref() == Some(tag)).map(|(i, _)| i)
    }

    /// Adds a leg; `None` when there are too many.
    pub(crate) fn add(&mut self, leg: Leg) -> Option<usize> {
        let at = match self.legs.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.legs.len() < MAX_LEGS => {
                self.legs.push(None);
                self.legs.len() - 1
            }
            None => return None,
        };
        *self.legs.get_mut(at)? = Some(leg);
        Some(at)
    }
}
