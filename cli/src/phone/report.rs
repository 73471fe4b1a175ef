//! What the phone prints.

use super::audio::AudioReport;
use serde::Serialize;

/// One call. Times in milliseconds where the name says so.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CallReport {
    /// The final status of the INVITE (200 when answered).
    pub status: u16,
    /// From INVITE to the first 18x.
    pub ringing_ms: Option<f64>,
    /// From INVITE to the answer.
    pub setup_ms: Option<f64>,
    /// From INVITE to the end.
    pub seconds: f64,
    /// True if the other side ended it.
    pub ended_by_remote: bool,
    /// What was sent and heard.
    #[serde(flatten)]
    pub audio: Option<AudioReport>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Final status of the registration, where there was one.
    pub registered: Option<u16>,
    /// True if --patience ran out.
    pub gave_up: bool,
    /// The calls, in the order they ended.
    pub calls: Vec<CallReport>,
    #[serde(skip)]
    only_registers: bool,
}

impl Report {
    pub(crate) fn new(only_registers: bool) -> Self {
        Self { registered: None, gave_up: false, calls: Vec::new(), only_registers }
    }

    /// True if everything that was asked for happened.
    pub(crate) fn ok(&self) -> bool {
        let registered = self.registered.is_none_or(|status| status == 200);
        let called = self.only_registers || !self.calls.is_empty();
        !self.gave_up && registered && called && self.calls.iter().all(|c| c.status == 200 && c.setup_ms.is_some())
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
