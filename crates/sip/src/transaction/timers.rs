//! The timers of RFC 3261 17 and table 4, RFC 6026 and the proxy's timer C.

use std::time::Duration;

/// Timer values. `Default` is what RFC 3261 gives; tests set shorter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Round-trip estimate: the first retransmission interval (A, E, G), and a 64th of B, F, H, J, L, M.
    pub t1: Duration,
    /// Longest interval of non-INVITE requests and INVITE answers.
    pub t2: Duration,
    /// Longest time a message stays in the network (I, K).
    pub t4: Duration,
    /// How long a client INVITE transaction waits for repeated failures over an unreliable transport (D, at least 32 s).
    pub d: Duration,
    /// Timer C (16.6 item 11): the time without a final answer after which [`super::Output::TimerC`] tells the proxy to cancel;
    /// begun again by each 101 to 199. `None` switches it off (a user agent has its own idea of how long to ring).
    pub c: Option<Duration>,
    /// After this time an INVITE that nobody has answered is answered 100 by the layer (17.2.1). `None` switches it off.
    pub trying: Option<Duration>,
    /// An INVITE that the user left without any response this long is given up, and so is any other request after 64*T1 (no answer
    /// to it is of use by then, RFC 4320): nothing stays in the table forever.
    pub abandon: Duration,
    /// Timers I and J last 64*T1 over any transport. The RFC ends them at once over a reliable one, as a connection brings no copies,
    /// and I after T4 over others; behind several edges a copy may come by another one, long after the answer and the edge's ACK; it is
    /// then answered as it was.
    pub linger: bool,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            d: Duration::from_secs(32),
            c: Some(Duration::from_secs(181)),
            trying: Some(Duration::from_millis(200)),
            abandon: Duration::from_secs(600),
            linger: false,
        }
    }
}

impl Timers {
    /// 64*T1: timers B, F, H, J, L and M.
    pub fn transaction_limit(&self) -> Duration {
        self.t1.saturating_mul(64)
    }

    /// An interval of nothing would make `poll` spin.
    pub(super) fn sane(mut self) -> Self {
        let least = Duration::from_millis(1);
        self.t1 = self.t1.max(least);
        self.t2 = self.t2.max(self.t1);
        self.c = self.c.map(|c| c.max(least));
        self.abandon = self.abandon.max(least);
        self
    }
}
