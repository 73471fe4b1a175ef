//! Calls: the dialplan running on a leg.

use crate::bridge::BridgeKey;
use crate::cause::{Branch, Outcome};
use crate::hold::{Hold, Seen};
use crate::leg::LegKey;
use contract::ProcessId;
pub(crate) use contract::records::Far;
use contract::records::{CallRecord, HeldRecord, Owner, SCHEMA, WaitRecord};
use dialplan::Step;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Names a call within the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallKey(pub(crate) u64);

/// What a conference is dialled for.
#[derive(Debug)]
pub(crate) struct Conference {
    pub(crate) uri: String,
    /// The room that is dialled: all who dial it are to land at one process.
    pub(crate) room: Option<String>,
    /// Conference processes that were asked, or are not to be.
    pub(crate) tried: Vec<ProcessId>,
}

/// A dial under way: everyone rings, the first that answers wins.
#[derive(Debug)]
pub(crate) struct Dialing {
    /// Tells this dial's look-ups from those of an earlier one.
    pub(crate) number: u64,
    pub(crate) far: Far,
    /// It is a conference that is dialled.
    pub(crate) conference: Option<Conference>,
    /// Look-ups unanswered.
    pub(crate) looking: usize,
    /// Branches under way.
    pub(crate) branches: Vec<LegKey>,
    /// How the others ended.
    pub(crate) ended: Vec<Branch>,
    /// The branch whose early media the caller hears.
    pub(crate) early: Option<LegKey>,
    /// The branch that answered and is being connected.
    pub(crate) winner: Option<LegKey>,
    /// The store did not answer for one of them.
    pub(crate) store_down: bool,
    /// How long a phone may ring.
    pub(crate) limit: Duration,
    /// Endpoints that it waits for, since they are asleep.
    pub(crate) holds: Vec<Hold>,
    /// Registrations of endpoints that can be woken, which were rung or are too old to be.
    pub(crate) seen: Vec<Seen>,
    /// Endpoints that it waits for no more.
    pub(crate) waited: Vec<String>,
}

/// A relay that a call's media moves away from while both still forward.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) relay: ProcessId,
    /// Ids of the legs that were not heard at the new one yet.
    pub(crate) legs: Vec<String>,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    /// The call id: 32 hexadecimal digits (RFC 7989).
    pub(crate) id: String,
    pub(crate) owner: Owner,
    /// The leg that the plan runs on.
    pub(crate) leg: LegKey,
    /// The calling endpoint.
    pub(crate) endpoint: String,
    /// Number and name that the callee sees, and `CALLERID(...)`.
    pub(crate) caller_number: String,
    pub(crate) caller_name: Option<String>,
    pub(crate) context: String,
    pub(crate) exten: String,
    pub(crate) steps: Arc<[Step]>,
    /// The next step.
    pub(crate) step: usize,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) dialing: Option<Dialing>,
    /// What the far leg in the bridge is there for.
    pub(crate) far: Option<Far>,
    /// The conference that it lost last: it is not asked again.
    pub(crate) shunned: Option<ProcessId>,
    pub(crate) bridge: Option<BridgeKey>,
    /// Hops left for the far legs.
    pub(crate) max_forwards: u8,
    /// Header fields for the far legs.
    pub(crate) passed: Vec<(String, String)>,
    /// Header fields of the callee's last answer, for the caller.
    pub(crate) returned: Vec<(String, String)>,
    /// The last provisional answer to the caller: status and description.
    pub(crate) progress: Option<(u16, Option<String>)>,
    pub(crate) started_at: u64,
    /// The relay that has its legs, once one was asked.
    pub(crate) relay: Option<ProcessId>,
    /// Relays that could not have them.
    pub(crate) refused: Vec<ProcessId>,
    /// A former relay that goes on until these legs are heard at the new one.
    pub(crate) leaving: Option<Leaving>,
    /// The last media events taken: who told each, and its number.
    pub(crate) heard: VecDeque<(ProcessId, u64)>,
    /// A record of it is or will be in the store.
    pub(crate) saved: bool,
    /// The store did not take its records: it will not outlive us.
    pub(crate) unprotected: bool,
    /// Holds of the router that had it before, to go on with.
    pub(crate) resumed: Vec<WaitRecord>,
    /// The plan waits for the caller's ACK, which carries what the next far leg is to be offered.
    pub(crate) paused: bool,
}

impl Call {
    /// Its record; `held`: what it waits for.
    pub(crate) fn record(&self, leg: String, held: Option<HeldRecord>) -> CallRecord {
        CallRecord {
            schema: SCHEMA,
            id: self.id.clone(),
            owner: self.owner,
            leg,
            context: self.context.clone(),
            exten: self.exten.clone(),
            step: self.step,
            started_at: self.started_at,
            endpoint: self.endpoint.clone(),
            caller_number: self.caller_number.clone(),
            caller_name: self.caller_name.clone(),
            far: self.far,
            held,
        }
    }
}
