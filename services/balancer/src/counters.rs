//! What is counted. A core counts; the driver shows.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident $label:literal),+ $(,)?) => {
        /// One thing that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $doc])+ $name),+ }

        impl Counter {
            /// Every counter.
            pub const ALL: &'static [Counter] = &[$(Counter::$name),+];

            /// Its label in the metric.
            pub fn label(self) -> &'static str {
                match self { $(Counter::$name => $label),+ }
            }
        }
    };
}

counters! {
    /// Requests from outside.
    OutsideRequest "outside_request",
    /// Responses from outside.
    OutsideResponse "outside_response",
    /// Requests from inside.
    InsideRequest "inside_request",
    /// Responses from inside.
    InsideResponse "inside_response",
    /// Keep-alives: blank datagrams and STUN.
    Keepalive "keepalive",
    /// Dropped: not SIP, or broken beyond answering.
    Unparsable "unparsable",
    /// Answered 4xx: malformed.
    Malformed "malformed",
    /// Refused by the trust rules.
    Refused "refused",
    /// Dropped: responses to nothing that we sent.
    Stray "stray",
    /// Dropped: ACKs that belong to nothing known.
    StrayAck "stray_ack",
    /// Handed over to another replica or shard.
    HandedOver "handed_over",
    /// Taken over from another replica or shard.
    TakenOver "taken_over",
    /// Hand-overs that did not arrive.
    HandOverLost "hand_over_lost",
    /// Responses forwarded by their Via alone, because the owner is gone.
    Stateless "stateless",
    /// Refused: too many transactions.
    Overflow "overflow",
    /// Requests that found no destination.
    Unavailable "unavailable",
    /// Requests sent on to a next destination.
    Failover "failover",
    /// Requests to a flow that is gone.
    FlowFailed "flow_failed",
    /// Messages that could not be sent.
    SendFailed "send_failed",
    /// Transactions without a final answer in time.
    Timeout "timeout",
    /// Probes sent.
    Probe "probe",
    /// Probes that failed.
    ProbeFailed "probe_failed",
}

/// Counts since the start, one a [`Counter`].
#[derive(Debug, Clone, Default)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Counters {
    /// Counts one.
    pub fn count(&mut self, counter: Counter) {
        if let Some(n) = self.0.get_mut(counter as usize) {
            *n = n.wrapping_add(1);
        }
    }

    /// How often it was counted.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or_default()
    }
}
