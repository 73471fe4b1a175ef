//! The location service: which contacts an address of record has. The store that keeps it knows no SIP.

use crate::flow::Flow;
use serde::{Deserialize, Serialize};

/// Changes with every write of an AOR; 0 means that the store holds nothing for it.
pub type Revision = u64;

/// One registered contact of an AOR. Times are seconds since the UNIX epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The contact's URI as registered.
    pub contact: String,
    /// The Call-ID of the REGISTER that made it.
    pub call_id: String,
    /// The CSeq of the REGISTER that made it last.
    pub cseq: u32,
    /// When it expires.
    pub expires_at: u64,
    /// When it was first registered.
    pub since: u64,
    /// When it was last refreshed.
    #[serde(default)]
    pub updated: u64,
    /// Path values, topmost first (RFC 3327): the route set of requests to this contact.
    #[serde(default)]
    pub path: Vec<String>,
    /// The flow that it was registered on, when a balancer said so.
    #[serde(default)]
    pub flow: Option<Flow>,
    /// `+sip.instance` without quotes (RFC 5626).
    #[serde(default)]
    pub instance: Option<String>,
    /// `reg-id` (RFC 5626).
    #[serde(default)]
    pub reg_id: Option<u32>,
    /// `q` in thousandths, 1000 when absent.
    #[serde(default = "full_q")]
    pub q: u16,
    /// User-Agent of the phone.
    #[serde(default)]
    pub user_agent: Option<String>,
}

fn full_q() -> u16 {
    1000
}

impl Binding {
    /// True until it expires.
    pub fn is_live(&self, unix_now: u64) -> bool {
        self.expires_at > unix_now
    }
}

/// What a store holds for one AOR.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Aor {
    /// Its revision.
    pub revision: Revision,
    /// Its bindings, in the order they were written; expired ones may still be among them.
    pub bindings: Vec<Binding>,
}

/// Why a store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote first: load again and rerun the rule.
    #[error("the record was changed by somebody else")]
    Conflict,
    /// The store cannot be reached or answered wrongly: 503 towards SIP.
    #[error("store unavailable: {0}")]
    Unavailable(String),
}
