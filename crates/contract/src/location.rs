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
    /// How its push service finds the phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<Push>,
    /// It has expired, and is remembered until then for the sake of `push`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_at: Option<u64>,
}

/// What a phone says of its push service (RFC 8599 4): parameters of its Contact's URI.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// `pn-provider`: `apns`, `fcm`, `webpush` or another.
    pub provider: String,
    /// `pn-prid`: who is to be woken, in the provider's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prid: Option<String>,
    /// `pn-param`: what the provider needs beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
}

fn full_q() -> u16 {
    1000
}

/// Seconds for which a phone is remembered that can be woken, after its registration has expired.
pub const REMEMBERED_FOR: u64 = 30 * 24 * 3600;

impl Binding {
    /// True until it expires.
    pub fn is_live(&self, unix_now: u64) -> bool {
        self.expires_at > unix_now
    }

    /// When it has to be looked at: it expires, or what is remembered of it is forgotten.
    pub fn due_at(&self) -> u64 {
        self.forget_at.unwrap_or(self.expires_at)
    }

    /// What is remembered of it once it has expired.
    pub fn remembered(&self, unix_now: u64) -> Option<Self> {
        let forget_at = self.forget_at.unwrap_or(self.expires_at.saturating_add(REMEMBERED_FOR));
        let remembered = self.push.is_some() && !self.is_live(unix_now) && forget_at > unix_now;
        remembered.then(|| Self { forget_at: Some(forget_at), ..self.clone() })
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
