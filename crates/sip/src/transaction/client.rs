//! Client transactions: RFC 3261 17.1.1 (INVITE, with RFC 6026 7.2) and 17.1.2.

use super::derived;
use super::timers::Timers;
use crate::message::Message;
use bytes::Bytes;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// INVITE: Calling. Others: Trying.
    Calling,
    Proceeding,
    /// INVITE only, RFC 6026: a 2xx came, further ones pass.
    Accepted,
    Completed,
}

#[derive(Debug)]
pub(super) struct Client<H> {
    pub(super) key: Box<str>,
    pub(super) request: Bytes,
    pub(super) to: H,
    pub(super) invite: bool,
    pub(super) state: State,
    reliable: bool,
    /// A CANCEL for this INVITE was sent.
    cancelled: bool,
    interval: Duration,
    /// Timers A and E.
    retransmit: Option<Duration>,
    /// Timers B, C, D, F, K, M.
    limit: Option<Duration>,
    ack: Option<Bytes>,
}

/// What a response leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OnResponse {
    /// Pass it up.
    pub(super) pass: bool,
    /// Send this ACK.
    pub(super) ack: Option<Bytes>,
    /// The transaction is over.
    pub(super) done: bool,
}

/// What a deadline leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OnTimer {
    Nothing,
    Retransmit,
    TimerC,
    /// B or F, or the limit after CANCEL: tell the user, then end.
    Timeout,
    /// D, K or M: end quietly.
    Done,
}

impl<H> Client<H> {
    pub(super) fn new(
        key: Box<str>,
        request: Bytes,
        to: H,
        invite: bool,
        reliable: bool,
        timers: &Timers,
        now: Duration,
    ) -> Self {
        Client {
            key,
            request,
            to,
            invite,
            reliable,
            state: State::Calling,
            cancelled: false,
            interval: timers.t1,
            retransmit: (!reliable).then(|| now + timers.t1),
            limit: Some(now + timers.transaction_limit()),
            ack: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        match (self.retransmit, self.limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whether CANCEL may be sent now (9.1: only after a provisional response), and makes sense.
    pub(super) fn may_cancel(&self) -> bool {
        self.invite && self.state == State::Proceeding
    }

    /// A CANCEL goes out: the final answer is waited for 64*T1 only (9.1).
    pub(super) fn note_cancel(&mut self, timers: &Timers, now: Duration) {
        if self.invite && matches!(self.state, State::Calling | State::Proceeding) && !self.cancelled {
            self.cancelled = true;
            self.limit = Some(now + timers.transaction_limit());
        }
    }

    pub(super) fn on_response(
        &mut self,
        status: u16,
        response: &Message<'_>,
        timers: &Timers,
        now: Duration,
    ) -> OnResponse {
        let (mut pass, mut ack, mut done) = (false, None, false);
        match (self.state, status) {
            (State::Calling | State::Proceeding, ..200) => {
                pass = true;
                let first = self.state == State::Calling;
                self.state = State::Proceeding;
                if self.invite {
                    self.retransmit = None;
                    // 16.6 item 11: 100 does not restart timer C.
                    if !self.cancelled && (first || status > 100) {
                        self.limit = timers.c.map(|c| now + c);
                    }
                } else if !self.reliable {
                    // E goes on at T2 from its next firing (17.1.2.2).
                    self.interval = timers.t2;
                }
            }
            (State::Calling | State::Proceeding, 200..300) if self.invite => {
                pass = true;
                self.state = State::Accepted;
                self.retransmit = None;
                self.limit = Some(now + timers.transaction_limit());
            }
            (State::Calling | State::Proceeding, _) => {
                pass = true;
                self.retransmit = None;
                self.state = State::Completed;
                let linger = if self.invite { timers.d } else { timers.t4 };
                self.limit = Some(now + linger);
                done = self.reliable;
                if self.invite {
                    self.ack = Message::parse(&self.request).ok().and_then(|invite| derived::ack(&invite, response));
                    ack = self.ack.clone();
                }
            }
            // RFC 6026 7.2: every 2xx passes; one more fork's answer may be among them.
            (State::Accepted, 200..300) => pass = true,
            (State::Completed, 300..) if self.invite => ack = self.ack.clone(),
            (State::Accepted | State::Completed, _) => {}
        }
        OnResponse { pass, ack, done }
    }

    pub(super) fn on_timer(&mut self, timers: &Timers, now: Duration) -> OnTimer {
        if self.limit.is_some_and(|l| l <= now) {
            return match self.state {
                State::Calling => OnTimer::Timeout,
                State::Proceeding if !self.invite || self.cancelled => OnTimer::Timeout,
                State::Proceeding => {
                    self.limit = timers.c.map(|c| now + c);
                    OnTimer::TimerC
                }
                State::Accepted | State::Completed => OnTimer::Done,
            };
        }
        if self.retransmit.is_none_or(|r| r > now) {
            return OnTimer::Nothing;
        }
        self.interval = match (self.invite, self.state) {
            (true, _) => self.interval.saturating_mul(2),
            (false, State::Calling) => self.interval.saturating_mul(2).min(timers.t2),
            (false, _) => timers.t2,
        };
        // From now, not from when it was due: a driver that was late sends once, not a burst.
        self.retransmit = Some(now + self.interval);
        OnTimer::Retransmit
    }
}
