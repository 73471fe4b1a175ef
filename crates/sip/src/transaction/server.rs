//! Server transactions: RFC 3261 17.2.1 (INVITE, with RFC 6026 7.1) and 17.2.2.

use super::derived;
use super::timers::Timers;
use crate::message::Message;
use bytes::Bytes;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing sent yet. (For INVITE the RFC calls this Proceeding too.)
    Trying,
    Proceeding,
    /// INVITE only, RFC 6026: a 2xx was sent.
    Accepted,
    Completed,
    /// INVITE only: the failure was acknowledged.
    Confirmed,
}

#[derive(Debug)]
pub(super) struct Server<H> {
    pub(super) key: Box<str>,
    /// RFC 2543 peers only: the key under which the ACK for our failure comes.
    pub(super) ack_key: Option<Box<str>>,
    pub(super) request: Bytes,
    pub(super) from: H,
    pub(super) invite: bool,
    pub(super) legacy: bool,
    pub(super) state: State,
    reliable: bool,
    interval: Duration,
    /// Timer G, or when 100 is due.
    retransmit: Option<Duration>,
    /// Timers H, I, J, L, or when an unanswered request is given up.
    limit: Option<Duration>,
    pub(super) last: Option<Bytes>,
}

/// What the arrival of an ACK means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnAck {
    /// It acknowledges our failure. `true`: the transaction is over.
    Absorbed(bool),
    /// It acknowledges a 2xx and belongs to the dialog.
    Dialog,
}

/// What a deadline leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnTimer {
    Nothing,
    /// Send the last response (again).
    Transmit(Bytes),
    /// H: tell the user, then end.
    NoAck,
    Done,
}

impl<H> Server<H> {
    #[allow(clippy::too_many_arguments, reason = "plain construction, in one place")]
    pub(super) fn new(
        key: Box<str>,
        request: Bytes,
        from: H,
        invite: bool,
        legacy: bool,
        reliable: bool,
        timers: &Timers,
        now: Duration,
    ) -> Self {
        let limit = if invite { timers.abandon } else { timers.transaction_limit() };
        Server {
            key,
            ack_key: None,
            request,
            from,
            invite,
            legacy,
            state: State::Trying,
            reliable,
            interval: timers.t1,
            retransmit: timers.trying.filter(|_| invite).map(|t| now + t),
            limit: Some(now + limit),
            last: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match (self.retransmit, self.limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// A copy of the request came: what to send again.
    pub(super) fn on_retransmission(&self, timers: &Timers) -> Option<Bytes> {
        match self.state {
            // The answer went by another edge, and the one that brought this copy waits for it.
            State::Accepted | State::Confirmed if timers.linger => self.last.clone(),
            State::Proceeding | State::Completed => self.last.clone(),
            // Trying has nothing; in Accepted the user re-sends its 2xx itself (RFC 6026 7.1); Confirmed needs nothing.
            State::Trying | State::Accepted | State::Confirmed => None,
        }
    }

    pub(super) fn on_ack(&mut self, timers: &Timers, now: Duration) -> OnAck {
        match self.state {
            State::Completed => {
                self.state = State::Confirmed;
                self.retransmit = None;
                self.limit = Some(now + if timers.linger { timers.transaction_limit() } else { timers.t4 });
                OnAck::Absorbed(self.reliable && !timers.linger)
            }
            State::Accepted => OnAck::Dialog,
            State::Trying | State::Proceeding | State::Confirmed => OnAck::Absorbed(false),
        }
    }

    /// The user answers. `None`: not in this state. `Some(done)`: transmit, and whether the transaction is over.
    pub(super) fn respond(&mut self, status: u16, response: Bytes, timers: &Timers, now: Duration) -> Option<bool> {
        match (self.state, status) {
            (State::Trying | State::Proceeding, ..200) => {
                self.state = State::Proceeding;
                self.retransmit = None;
                if self.invite {
                    self.limit = Some(now + timers.abandon);
                }
            }
            (State::Trying | State::Proceeding, 200..300) if self.invite => {
                self.state = State::Accepted;
                self.retransmit = None;
                self.limit = Some(now + timers.transaction_limit());
            }
            (State::Trying | State::Proceeding, _) => {
                self.state = State::Completed;
                self.retransmit = (self.invite && !self.reliable).then(|| now + self.interval);
                self.limit = Some(now + timers.transaction_limit());
                self.last = Some(response);
                return Some(!self.invite && self.reliable && !timers.linger);
            }
            (State::Accepted, 200..300) => {}
            (State::Accepted | State::Completed | State::Confirmed, _) => return None,
        }
        self.last = Some(response);
        Some(false)
    }

    pub(super) fn on_timer(&mut self, timers: &Timers, now: Duration) -> OnTimer {
        if self.limit.is_some_and(|l| l <= now) {
            let no_ack = self.invite && self.state == State::Completed;
            return if no_ack { OnTimer::NoAck } else { OnTimer::Done };
        }
        if self.retransmit.is_none_or(|r| r > now) {
            return OnTimer::Nothing;
        }
        if self.state == State::Trying {
            self.retransmit = None;
            self.state = State::Proceeding;
            self.last = Message::parse(&self.request).ok().map(|m| derived::trying(&m));
        } else {
            self.interval = self.interval.saturating_mul(2).min(timers.t2);
            self.retransmit = Some(now + self.interval);
        }
        self.last.clone().map_or(OnTimer::Nothing, OnTimer::Transmit)
    }
}
