//! Records that outlive a process: legs, calls and bridges. A leg is one dialog with its own negotiated SDP and relay
//! ports; a call runs the dialplan on a leg; a bridge joins legs.

use crate::process::ProcessId;
use serde::{Deserialize, Serialize};

/// The schema number of the records in this file.
pub const SCHEMA: u32 = 1;

/// Who owns a record, and how often it changed hands. A process that lost the epoch only forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The owning process.
    pub process: ProcessId,
    /// Raised by every takeover.
    pub epoch: u64,
}

/// A dialog as RFC 3261 12 has it, in a form to store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DialogRecord {
    /// Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The other side's tag.
    pub remote_tag: String,
    /// Our From/To value without tag.
    pub local_uri: String,
    /// Their From/To value without tag.
    pub remote_uri: String,
    /// Their Contact.
    pub remote_target: String,
    /// Route set, first hop first.
    pub route_set: Vec<String>,
    /// Our last CSeq.
    pub local_cseq: u32,
    /// Their last CSeq.
    pub remote_cseq: Option<u32>,
}

/// Which way a leg was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// They called us.
    Inbound,
    /// We called them.
    Outbound,
}

/// One leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegRecord {
    /// Schema number.
    pub schema: u32,
    /// Its id, unique in an installation: also its tag at the relay.
    pub id: String,
    /// The call id (RFC 7989 Session-ID) that every leg, NG call, log line and event of a call carries.
    pub call: String,
    /// Its owner.
    pub owner: Owner,
    /// Which way it was set up.
    pub direction: Direction,
    /// The endpoint it belongs to.
    pub endpoint: String,
    /// Its dialog.
    pub dialog: DialogRecord,
    /// What we last sent in SDP, and its o= version.
    pub local_sdp: String,
    /// What they last sent in SDP.
    pub remote_sdp: String,
    /// The bridge it is in.
    pub bridge: Option<String>,
    /// Unix seconds of its answer.
    pub answered_at: u64,
    /// The relay that has its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<ProcessId>,
}

/// One call: the dialplan running on a leg.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Schema number.
    pub schema: u32,
    /// The call id.
    pub id: String,
    /// Its owner.
    pub owner: Owner,
    /// The leg that the dialplan runs on.
    pub leg: String,
    /// Context, extension and step it stands at.
    pub context: String,
    /// The extension dialled.
    pub exten: String,
    /// Index of the step.
    pub step: usize,
    /// Unix seconds of its start.
    pub started_at: u64,
}

/// One bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRecord {
    /// Schema number.
    pub schema: u32,
    /// Its id.
    pub id: String,
    /// Its owner.
    pub owner: Owner,
    /// The legs it joins.
    pub legs: Vec<String>,
}
