//! Records that outlive a process: legs, calls and bridges. A leg is one dialog with its own negotiated SDP and relay
//! ports; a call runs the dialplan on a leg; a bridge joins legs.

use crate::process::ProcessId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The schema number of the records in this file.
pub const SCHEMA: u32 = 1;

/// Who owns a record, and how often it changed hands. A process that lost the epoch only forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Owner {
    /// The owning process.
    pub process: ProcessId,
    /// Raised by every takeover.
    pub epoch: u64,
}

impl Owner {
    /// The owner after `process` took the record over.
    pub fn taken_by(self, process: ProcessId) -> Self {
        Self { process, epoch: self.epoch.saturating_add(1) }
    }
}

/// The kind of a room's record: its id is the room's name, its owner the conference process that mixes it.
pub const ROOM: &str = "room";

/// A record's name, and who owns it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `leg`, `call`, `bridge` or `room`.
    pub kind: String,
    /// The record's id.
    pub id: String,
    /// Its owner.
    pub owner: Owner,
}

/// A record as a store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name and owner.
    pub key: Key,
    /// JSON.
    pub value: Bytes,
}

/// What a process should know of a store that it wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Another number after the store lost what it held.
    pub incarnation: u64,
    /// How many records others took from the process.
    pub taken: u64,
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

/// The session timer of a leg (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Seconds.
    pub interval: u64,
    /// We refresh; else they do.
    pub ours: bool,
    /// Unix seconds of the last refresh.
    pub since: u64,
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
    /// Unix seconds of this record: what is older than a transaction lasts is settled.
    #[serde(default)]
    pub saved_at: u64,
    /// Where its signalling comes from or goes to outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// Codecs of its endpoint; none allow all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codecs: Vec<String>,
    /// `remote_sdp` was an offer that `local_sdp` answered.
    #[serde(default)]
    pub said_offer: bool,
    /// The other side's Session-ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_session: Option<String>,
    /// Its session timer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionRecord>,
    /// The least session interval that it accepts, in seconds.
    #[serde(default)]
    pub min_se: u32,
    /// It takes UPDATE.
    #[serde(default)]
    pub allows_update: bool,
    /// CSeq number of our last INVITE on it: its 2xx may lack our ACK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<u32>,
    /// They have acknowledged our last 2xx to an INVITE of theirs, or there was none. Known a little after it came: where it
    /// is not, they are told again what that 2xx said.
    #[serde(default)]
    pub acked: bool,
    /// What it has to be told yet, by a re-INVITE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed: Option<String>,
    /// That is where its media moved: its relay had it last, and may not have been told of the other leg.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moving: bool,
    /// Our 2xx made an offer: the answer in the ACK is for this leg, whose 2xx waits for our ACK.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<String>,
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
    /// The calling endpoint.
    #[serde(default)]
    pub endpoint: String,
    /// The number that callees see.
    #[serde(default)]
    pub caller_number: String,
    /// The name that callees see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_name: Option<String>,
    /// What the far leg in its bridge is there for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub far: Option<Far>,
    /// Its step waits for callees that are asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldRecord>,
}

/// A call that is held until a callee is awake: what another router needs to go on waiting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRecord {
    /// The caller's INVITE, as long as it is unanswered; an answered caller's leg is a record of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<InviteRecord>,
    /// Whom it waits for.
    pub waits: Vec<WaitRecord>,
}

/// An INVITE that has no final answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRecord {
    /// The request as it was received, with all its Vias.
    pub request: String,
    /// The process that it came from and that its answers go to.
    pub from: ProcessId,
    /// The To-tag of its answers.
    pub to_tag: String,
}

/// One callee that is asleep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRecord {
    /// Names the hold to whoever wakes the callee.
    pub id: String,
    /// The endpoint.
    pub endpoint: String,
    /// Unix seconds of its begin.
    pub since: u64,
    /// Unix seconds of its end.
    pub until: u64,
    /// Registrations that do not count, since they were there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<SeenRecord>,
}

/// A registration as it was seen: another one of the same phone differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenRecord {
    /// The phone: its instance, or the contact's URI where it names none.
    pub phone: String,
    /// The contact's URI.
    pub contact: String,
    /// Call-ID of the REGISTER.
    pub call_id: String,
    /// Its CSeq.
    pub cseq: u32,
    /// Unix seconds of it.
    pub updated: u64,
}

/// Why a call has a far leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Far {
    /// The dial step: the call ends with it.
    Dial,
    /// The answer step: the plan goes on at once.
    Answer,
    /// Playback, echo, music or a room: the plan goes on when the far leg ends.
    Play,
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
