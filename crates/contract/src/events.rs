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
        /// The step's name as manifests write it: `dial`.
        app: String,
        /// What it is given, variables put in: `PJSIP/8006,30`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        data: String,
    },
    /// A contact of an endpoint is rung.
    Called {
        /// The endpoint.
        endpoint: String,
    },
    /// An endpoint that was to be rung has no contact that is live.
    Absent {
        /// The endpoint.
        endpoint: String,
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
    /// A leg will not answer.
    Refused {
        /// The endpoint.
        endpoint: String,
        /// The final status of its INVITE.
        status: u16,
    },
    /// An endpoint is asleep: the caller is held until it has registered.
    Held {
        /// The endpoint.
        endpoint: String,
        /// The hold's id.
        hold: String,
    },
    /// Whoever wakes the endpoint's phone was told of a hold.
    Notified {
        /// The endpoint.
        endpoint: String,
        /// The hold's id.
        hold: String,
        /// What was told: `wake` or `cancelled`.
        what: String,
    },
    /// Whoever wakes the endpoint's phone could not be told.
    NotNotified {
        /// The endpoint.
        endpoint: String,
        /// The hold's id.
        hold: String,
        /// Why, in words.
        reason: String,
        /// It is tried again.
        again: bool,
    },
    /// A phone of the endpoint has registered, and is rung.
    Woken {
        /// The endpoint.
        endpoint: String,
        /// The hold's id.
        hold: String,
    },
    /// A hold is over.
    Released {
        /// The endpoint.
        endpoint: String,
        /// The hold's id.
        hold: String,
        /// Why: `answered`, `refused`, `timeout`, `cancelled`, `command` or `store`.
        reason: String,
    },
    /// Its media goes to another relay.
    Moved {
        /// The relay's process.
        relay: String,
        /// Whether the former relay still forwards.
        planned: bool,
    },
    /// Another router went, and its call is here now.
    TakenOver {
        /// The router that has it now.
        router: String,
    },
    /// A call ended.
    Ended {
        /// Q.850 cause (HANGUPCAUSE).
        cause: u8,
        /// Why, in words.
        reason: String,
    },
}
