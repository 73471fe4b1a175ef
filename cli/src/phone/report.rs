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
    /// The tone that each call has to have heard, in Hz.
    #[serde(skip)]
    hear: Option<f64>,
}

impl Report {
    pub(crate) fn new(only_registers: bool, hear: Option<f64>) -> Self {
        Self { registered: None, gave_up: false, calls: Vec::new(), only_registers, hear }
    }

    /// True if everything that was asked for happened.
    pub(crate) fn ok(&self) -> bool {
        let registered = self.registered.is_none_or(|status| status == 200);
        let called = self.only_registers || !self.calls.is_empty();
        !self.gave_up && registered && called && self.calls.iter().all(|c| self.went_well(c))
    }

    fn went_well(&self, call: &CallReport) -> bool {
        let heard = call.audio.as_ref().and_then(|audio| audio.tone_hz);
        let as_wished = self.hear.is_none_or(|hz| heard.is_some_and(|heard| (heard - hz).abs() <= hz / 50.0));
        call.status == 200 && call.setup_ms.is_some() && as_wished
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(status: u16, setup_ms: Option<f64>) -> CallReport {
        CallReport { status, setup_ms, ..CallReport::default() }
    }

    #[test]
    fn it_is_well_when_all_that_was_asked_for_happened() {
        let good = || call(200, Some(5.0));
        for (what, only_registers, registered, gave_up, calls, ok) in [
            ("a call", false, None, false, vec![good()], true),
            ("answered", false, Some(200), false, vec![good(), good()], true),
            ("registered", true, Some(200), false, vec![], true),
            ("no call came", false, Some(200), false, vec![], false),
            ("wrong password", true, Some(401), false, vec![], false),
            ("one of two busy", false, None, false, vec![good(), call(486, None)], false),
            ("cancelled before the answer", false, None, false, vec![call(200, None)], false),
            ("patience ran out", false, None, true, vec![good()], false),
        ] {
            let report = Report { registered, gave_up, calls, only_registers, hear: None };
            assert_eq!(report.ok(), ok, "{what}");
        }
    }

    #[test]
    fn a_tone_that_was_not_heard_is_a_failure_where_one_is_asked_for() {
        for (heard, ok) in [(Some(440.0), true), (Some(446.0), true), (Some(460.0), false), (None, false)] {
            let mut report = Report::new(false, Some(440.0));
            let audio = AudioReport { tone_hz: heard, ..AudioReport::default() };
            report.calls.push(CallReport { audio: Some(audio), ..call(200, Some(5.0)) });
            assert_eq!(report.ok(), ok, "{heard:?}");
        }
        let mut silent = Report::new(false, Some(440.0));
        silent.calls.push(call(200, Some(5.0)));
        assert!(!silent.ok());
    }

    #[test]
    fn scripts_find_one_flat_object_a_call() {
        let mut report = Report::new(false, None);
        let audio =
            AudioReport { packets_received: 500, packets_lost: 2, tone_hz: Some(440.0), ..AudioReport::default() };
        report.calls.push(CallReport { audio: Some(audio), ringing_ms: None, ..call(200, Some(12.5)) });
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        let expected = serde_json::json!({
            "registered": null, "gave_up": false,
            "calls": [{
                "status": 200, "ringing_ms": null, "setup_ms": 12.5, "seconds": 0.0, "ended_by_remote": false,
                "packets_sent": 0, "packets_received": 500, "packets_lost": 2, "jitter_ms": 0.0,
                "longest_gap_ms": 0.0, "tone_hz": 440.0
            }]
        });
        assert_eq!(json, expected);
    }
}
