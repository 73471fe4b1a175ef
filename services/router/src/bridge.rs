//! Bridges: what joins legs. A record of its own, so that a far leg is replaced while the near one goes on.

use crate::leg::LegKey;
use contract::records::{BridgeRecord, Owner, SCHEMA};

/// Names a bridge within the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BridgeKey(pub(crate) u64);

/// Two legs that hear each other.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    /// Its id in records.
    pub(crate) id: String,
    /// Its owner.
    pub(crate) owner: Owner,
    /// The near leg (the caller's) and the far one.
    pub(crate) legs: [LegKey; 2],
}

impl Bridge {
    /// The other leg.
    pub(crate) fn other(&self, leg: LegKey) -> LegKey {
        if self.legs[0] == leg { self.legs[1] } else { self.legs[0] }
    }

    /// The record; `ids` are the legs'.
    pub(crate) fn record(&self, ids: Vec<String>) -> BridgeRecord {
        BridgeRecord { schema: SCHEMA, id: self.id.clone(), owner: self.owner, legs: ids }
    }
}
