//! The core's timers, apart from those of transactions: one instant a timer, in order.

use crate::call::CallKey;
use crate::leg::LegKey;
use contract::ProcessId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A timer of a leg or call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A dial's timeout.
    Dial(CallKey),
    /// The plan goes on: a wait is over, no more digits come, or they have talked for as long as they may.
    Plan(CallKey),
    /// The caller is told again that it rings (RFC 3261 13.3.1.1).
    Progress(CallKey),
    /// The endpoints that it waits for are looked up again, or it has waited for too long.
    Hold(CallKey),
    /// Whoever wakes phones is told again what it did not take.
    Notice(u64),
    /// Our 2xx to an INVITE is sent again, or given up (RFC 3261 13.3.1.4).
    Resend(LegKey),
    /// A session is to be refreshed, or has expired (RFC 4028 10).
    Session(LegKey),
    /// A re-INVITE of ours is tried again after 491 (RFC 3261 14.1).
    Retry(LegKey),
    /// A CANCEL that was not taken is sent again.
    Cancel(LegKey),
    /// That a leg's 2xx has its ACK is written down, where nothing else was written meanwhile.
    Note(LegKey),
    /// A relay is asked whether it is there.
    Probe(ProcessId),
    /// A call's media is moved to another relay, which was not to be had before.
    Move(CallKey),
    /// A call's former relay is told that it is not needed any more.
    Leave(CallKey),
    /// A request that did not get outside is tried again.
    Astray(u64),
}

impl Timer {
    /// Those of a call.
    pub(crate) fn of_call(call: CallKey) -> [Self; 6] {
        [
            Self::Dial(call),
            Self::Plan(call),
            Self::Progress(call),
            Self::Hold(call),
            Self::Move(call),
            Self::Leave(call),
        ]
    }

    /// Those of a leg.
    pub(crate) fn of_leg(leg: LegKey) -> [Self; 5] {
        [Self::Resend(leg), Self::Session(leg), Self::Retry(leg), Self::Cancel(leg), Self::Note(leg)]
    }
}

/// Timers by instant and by name.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Duration, Timer)>,
    by_name: BTreeMap<Timer, Duration>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(crate) fn arm(&mut self, timer: Timer, at: Duration) {
        self.disarm(timer);
        self.by_time.insert((at, timer));
        self.by_name.insert(timer, at);
    }

    /// Takes a timer away.
    pub(crate) fn disarm(&mut self, timer: Timer) {
        if let Some(at) = self.by_name.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// True while it is set.
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.by_name.contains_key(&timer)
    }

    /// Moves a timer to this instant, unless it is due later.
    pub(crate) fn extend(&mut self, timer: Timer, at: Duration) {
        if self.by_name.get(&timer).is_none_or(|due| *due < at) {
            self.arm(timer, at);
        }
    }

    /// When the first is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the first that is due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        (at <= now).then(|| {
            self.disarm(timer);
            timer
        })
    }

    /// How many are set.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }
}
