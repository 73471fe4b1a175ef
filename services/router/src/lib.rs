//! The router: a back-to-back user agent. It authenticates calls, runs the dialplan on them and owns their dialogs.
//!
//! [`core::Core`] decides, [`driver`] does. A call is a leg (one dialog with a caller), the dialplan running on it, and
//! as many legs to callees as it takes; a bridge joins two. What of the RFCs is done: `docs/rfc/router.md`.

mod adopt;
mod answers;
mod astray;
mod auth;
mod bridge;
mod call;
mod cause;
mod change;
mod conference;
mod connect;
pub mod core;
mod counters;
mod dial;
mod digits;
mod driver;
mod elsewhere;
mod end;
mod headers;
mod hold;
pub mod identify;
mod invite;
pub mod io;
mod leave;
mod leg;
mod media;
mod moves;
mod negotiate;
mod plan;
mod probe;
mod progress;
mod relay;
mod resume;
mod save;
mod session;
mod takeover;
#[cfg(test)]
mod tests;
mod timers;
mod views;
mod wake;

pub use crate::core::{Core, Counters, Load, View};
pub use driver::build;
pub use identify::Directory;
pub use io::{Answer, Ask, AskId, Input, Output};

use sip::digest::Algorithm;
use std::time::Duration;

/// Bounds and times of the core.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls at once; more get 503.
    pub max_calls: usize,
    /// Legs at once, ringing and ending ones included; more get 503.
    pub max_legs: usize,
    /// Transactions at once; more get 503.
    pub max_transactions: usize,
    /// Callees that calls wait for at once, since they are asleep; more count as unreachable.
    pub max_holds: usize,
    /// Contacts that one dial rings; more are left out and counted.
    pub max_branches: usize,
    /// How long a dial without a timeout of its own rings at most.
    pub ring_limit: Duration,
    /// How old a nonce may be.
    pub nonce_age: Duration,
    /// Digest algorithms that are offered, the preferred first. Answers by any that we have are taken. MD5 alone unless
    /// said otherwise: Debian's baresip 1.0 gives up when it finds another beside it, against RFC 8760 2.4.
    pub algorithms: Vec<Algorithm>,
    /// The session interval that we ask for (RFC 4028).
    pub session_interval: Duration,
    /// The least that we take (RFC 4028 5: not below 90 s).
    pub session_min: Duration,
    /// Transaction timers.
    pub timers: sip::transaction::Timers,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_calls: 20_000,
            max_legs: 100_000,
            max_transactions: 400_000,
            max_holds: 20_000,
            max_branches: 16,
            ring_limit: Duration::from_secs(600),
            nonce_age: Duration::from_secs(300),
            algorithms: vec![Algorithm::Md5],
            session_interval: Duration::from_secs(1800),
            session_min: Duration::from_secs(90),
            // A copy of a request may come late, by another balancer.
            timers: sip::transaction::Timers { c: None, linger: true, ..sip::transaction::Timers::default() },
        }
    }
}

/// How the service is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// The core's bounds and times.
    pub limits: Limits,
    /// How long a store or relay may take to answer before it counts as gone.
    pub ask_timeout: Duration,
    /// How long a notification may take, with its wait for others.
    pub notify_timeout: Duration,
    /// Questions under way at once.
    pub max_asks: usize,
    /// When drained, what is left after this is hung up.
    pub drain_limit: Duration,
    /// After the drain began and no call is left, requests are still answered (503) for so long, so that the balancers
    /// learn of it first.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            ask_timeout: Duration::from_secs(1),
            notify_timeout: Duration::from_secs(15),
            max_asks: 65_536,
            drain_limit: Duration::from_secs(3600),
            linger: Duration::from_millis(500),
        }
    }
}
