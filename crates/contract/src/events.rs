//! Call events: what a log, a view or another service follows.

use serde::{Deserialize, Serialize};

/// One event of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallEvent {
    /// The call id.
    pub call: String,
    /// Unix milliseconds.
    pub at: u64,
    /// What happened.
    pub kind: CallEventKind,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum CallEventKind {
    /// A call began.
    Started {
        /// The calling endpoint.
        from: String,
        /// The extension dialled.
        exten: String,
        /// The context it runs in.
        context: String,
    },
    /// A step of the dialplan is run.
    Step {
        /// Context, extension and number: `from-external,8006,2`.
        at: String,
        /// The application as written.
        app: String,
    },
    /// A leg rings.
    Ringing {
        /// The endpoint.
        endpoint: String,
    },
    /// A leg answered.
    Answered {
        /// The endpoint.
        endpoint: String,
    },
    /// A call ended.
    Ended {
        /// Q.850 cause (HANGUPCAUSE).
        cause: u8,
        /// Why, in words.
        reason: String,
    },
}
