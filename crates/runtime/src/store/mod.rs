//! Stores: bindings, used nonces and records that outlive a process. The store knows no SIP.
//!
//! [`memory::MemoryStore`] serves one process and can keep bindings in a state folder; [`redis::RedisStore`] serves a
//! cluster. One suite of contract tests holds for both.

pub mod memory;
pub mod redis;

use bytes::Bytes;
use contract::ProcessId;
use contract::location::{Aor, Binding, Revision, StoreError};
use contract::peers::Peer;
use contract::records::{Key, Owner, Standing, Stored};
use futures::future::BoxFuture;
use tokio::sync::broadcast;

/// A store's answer, on its way.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Hints that wait for a slow follower before it is told that it missed some (`RecvError::Lagged`).
pub const HINTS: usize = 1024;

/// Peers that a store holds at most.
pub const PEERS: usize = 4096;

/// Something may have changed: read again. The store is the truth; a hint may be lost or come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AorHint {
    /// This AOR was written.
    Changed {
        /// The AOR.
        aor: String,
        /// The revision that the write made, also for a removal; rises with every write of any AOR.
        revision: Revision,
    },
    /// The connection to the store was lost and is back: any AOR may have changed.
    Missed,
}

/// What all processes of an installation share. Every call returns within a second: `Unavailable` if it has to.
pub trait Store: Send + Sync + 'static {
    /// The bindings of an AOR, expired ones among them; revision 0 and none if there are none.
    fn load<'a>(&'a self, aor: &'a str) -> Pending<'a, Aor>;

    /// Replaces the bindings of an AOR if its revision still is `revision` (0: none stored), else `Conflict`. No
    /// bindings removes the AOR. Publishes a hint. Returns the new revision, 0 after a removal. `now_unix` in seconds.
    fn swap<'a>(
        &'a self,
        aor: &'a str,
        revision: Revision,
        bindings: Vec<Binding>,
        now_unix: u64,
    ) -> Pending<'a, Revision>;

    /// Follows changes of AORs. Subscribe first, then read.
    fn hints(&self) -> broadcast::Receiver<AorHint>;

    /// At most `limit` AORs that have a binding past [`Binding::due_at`], the longest due first. What is due stays in this
    /// list until a swap removes it, or remembers the expired.
    fn expired(&self, now_unix: u64, limit: usize) -> Pending<'_, Vec<String>>;

    /// Notes the use of a nonce with this count: true if `nc` is higher than any used before with it (RFC 7616 3.4).
    /// Forgotten after `ttl_s` seconds without use; the nonce itself must be refused by then.
    fn use_nonce<'a>(&'a self, nonce: &'a str, nc: u32, ttl_s: u64, now_unix: u64) -> Pending<'a, bool>;

    /// All AORs that have bindings, in order of their names: for views.
    fn aors(&self) -> Pending<'_, Vec<(String, Aor)>>;

    /// Writes a record (kind `leg`, `call` or `bridge`; the value is JSON). `Conflict` if a higher epoch stands, or
    /// the same epoch of another process. The owner given here counts, not one within the value.
    fn save<'a>(&'a self, kind: &'a str, id: &'a str, owner: Owner, value: Bytes) -> Pending<'a, ()>;

    /// Removes a record under the same rule as `save`; one that is not there is removed already.
    fn remove<'a>(&'a self, kind: &'a str, id: &'a str, owner: Owner) -> Pending<'a, ()>;

    /// One record.
    fn record<'a>(&'a self, kind: &'a str, id: &'a str) -> Pending<'a, Option<(Owner, Bytes)>>;

    /// All records of a kind, in order of their ids.
    fn records<'a>(&'a self, kind: &'a str) -> Pending<'a, Vec<(String, Owner, Bytes)>>;

    /// Processes that own records, in order.
    fn owners(&self) -> Pending<'_, Vec<ProcessId>>;

    /// What a process owns, in order of kind and id.
    fn owned(&self, process: ProcessId) -> Pending<'_, Vec<Key>>;

    /// Takes records over as one: the owner of each becomes `to`, with its epoch raised by one. `Conflict`, and nothing
    /// changes, unless each is owned as given. Returns them as they now stand, in the order given.
    fn take<'a>(&'a self, records: &'a [Key], to: ProcessId) -> Pending<'a, Vec<Stored>>;

    /// Whether the store still holds what it held, and whether others took records from a process.
    fn standing(&self, process: ProcessId) -> Pending<'_, Standing>;

    /// Writes the record of a process over what stood there; it is gone `ttl_ms` from now, by the store's clock,
    /// unless it is written again.
    fn announce<'a>(&'a self, peer: &'a Peer, ttl_ms: u64) -> Pending<'a, ()>;

    /// Removes the record of a process at once; one that is not there is removed already.
    fn withdraw(&self, process: ProcessId) -> Pending<'_, ()>;

    /// The records of all processes that are there, in order of service and name; at most [`PEERS`].
    fn peers(&self) -> Pending<'_, Vec<Peer>>;
}

/// When the first of these bindings expires.
fn first_expiry(bindings: &[Binding]) -> Option<u64> {
    bindings.iter().map(Binding::due_at).min()
}

/// True if `owner` may write where `standing` stands.
fn may_write(owner: Owner, standing: Owner) -> bool {
    owner.epoch > standing.epoch || owner == standing
}
