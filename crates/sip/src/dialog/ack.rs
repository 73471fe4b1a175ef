//! The 2xx and its ACK: both are end to end, so both ends repeat them themselves (13.2.2.4, 13.3.1.4).

use super::DialogId;
use crate::message::Message;
use crate::transaction::Timers;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;

/// What [`Retransmit2xx::poll`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repeat {
    /// Send the 2xx again (also over reliable transports: a later hop may lose it).
    Send(Bytes),
    /// No ACK came in 64*T1: end the session with BYE. Comes once.
    GiveUp,
}

/// The callee's retransmission of a 2xx to INVITE until the ACK: first after T1, doubling to T2, for 64*T1.
#[derive(Debug, Clone)]
pub struct Retransmit2xx {
    bytes: Bytes,
    interval: Duration,
    longest: Duration,
    next: Duration,
    end: Duration,
    over: bool,
}

impl Retransmit2xx {
    /// The 2xx was sent at `now`; default timers.
    pub fn new(bytes: Bytes, now: Duration) -> Self {
        Self::with_timers(bytes, &Timers::default(), now)
    }

    /// The same with other timers.
    pub fn with_timers(bytes: Bytes, timers: &Timers, now: Duration) -> Self {
        let t1 = timers.t1.max(Duration::from_millis(1));
        let longest = timers.t2.max(t1);
        Retransmit2xx { bytes, interval: t1, longest, next: now + t1, end: now + t1 * 64, over: false }
    }

    /// The ACK came.
    pub fn acked(&mut self) {
        self.over = true;
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// When to poll next; `None` when over.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.over).then(|| self.next.min(self.end))
    }

    /// What is due at `now`.
    pub fn poll(&mut self, now: Duration) -> Option<Repeat> {
        if self.over {
            return None;
        }
        if now >= self.end {
            self.over = true;
            return Some(Repeat::GiveUp);
        }
        if now < self.next {
            return None;
        }
        self.interval = (self.interval * 2).min(self.longest);
        self.next = now + self.interval;
        Some(Repeat::Send(self.bytes.clone()))
    }
}

/// The caller's ACKs, kept for 64*T1 so that each repeated 2xx gets the same ACK again. Bounded: the oldest goes first.
#[derive(Debug, Clone)]
pub struct AckCache<H> {
    entries: VecDeque<Sent<H>>,
    limit: usize,
    keep: Duration,
}

#[derive(Debug, Clone)]
struct Sent<H> {
    id: DialogId,
    cseq: u32,
    to: H,
    ack: Bytes,
    until: Duration,
}

impl<H: Clone> AckCache<H> {
    /// Keeps at most `limit` ACKs.
    pub fn new(timers: &Timers, limit: usize) -> Self {
        AckCache { entries: VecDeque::new(), limit: limit.max(1), keep: timers.transaction_limit() }
    }

    /// An ACK was sent to `to` for the INVITE with number `cseq` of this dialog.
    pub fn sent(&mut self, id: DialogId, cseq: u32, to: H, ack: Bytes, now: Duration) {
        self.expire(now);
        self.entries.retain(|s| s.cseq != cseq || s.id != id);
        while self.entries.len() >= self.limit {
            self.entries.pop_front();
        }
        self.entries.push_back(Sent { id, cseq, to, ack, until: now + self.keep });
    }

    /// The ACK to send again for this 2xx; `None` if it is the first of its dialog (or the ACK is long forgotten).
    pub fn repeat(&mut self, response: &Message<'_>, now: Duration) -> Option<(H, Bytes)> {
        self.expire(now);
        let cseq = response.cseq().ok().filter(|c| c.method.as_str() == "INVITE")?.number;
        let id = DialogId::of_response(response)?;
        let sent = self.entries.iter().find(|s| s.cseq == cseq && s.id == id)?;
        Some((sent.to.clone(), sent.ack.clone()))
    }

    /// How many ACKs are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets what is older than 64*T1. Also done by the other calls; an idle owner may call it to free memory.
    pub fn expire(&mut self, now: Duration) {
        while self.entries.front().is_some_and(|s| s.until <= now) {
            self.entries.pop_front();
        }
    }
}
