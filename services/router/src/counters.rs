//! What the core counts.

/// Counts since the start, and what is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Calls begun.
    pub calls: u64,
    /// Of these, answered.
    pub answered: u64,
    /// INVITEs challenged.
    pub challenged: u64,
    /// Authenticated INVITEs with somebody else's From.
    pub spoofed: u64,
    /// Refused for lack of room.
    pub overflow: u64,
    /// Branches left out of a fork that was too wide.
    pub branches_dropped: u64,
    /// Calls answered while the store did not take their records.
    pub unprotected: u64,
    /// Relay commands that failed.
    pub media_errors: u64,
    /// Calls that ended because neither side sent media.
    pub media_timeouts: u64,
    /// Relays lost.
    pub relays_lost: u64,
    /// Times that a call's media moved to another relay.
    pub moves: u64,
    /// Calls taken over from routers that are gone.
    pub adopted: u64,
    /// Calls that other routers took, dropped here.
    pub lost: u64,
    /// Calls left to other routers at the limit of a drain.
    pub left: u64,
    /// Requests passed on to the router that has their leg.
    pub forwarded: u64,
    /// Requests sent by another balancer, since one was not reached or had no way to the phone.
    pub astray: u64,
    /// Callers held for an endpoint that was asleep.
    pub held: u64,
    /// Of these holds, how many rang a phone that woke.
    pub woken: u64,
    /// Requests to whoever wakes phones that failed.
    pub notify_errors: u64,
    /// Steps of dialplans that had no effect, and conditions that could not be told.
    pub plan_faults: u64,
    /// Messages that could not be read or belonged to nothing.
    pub dropped: u64,
}

/// How much state there is: all zero when no call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Calls.
    pub calls: usize,
    /// Legs, ending ones included.
    pub legs: usize,
    /// Bridges.
    pub bridges: usize,
    /// Holds: one a callee that a call waits for.
    pub holds: usize,
    /// Questions unanswered.
    pub asks: usize,
    /// Timers set.
    pub timers: usize,
    /// Transactions, lingering ones included.
    pub transactions: usize,
    /// Entries of indices.
    pub indices: usize,
}
