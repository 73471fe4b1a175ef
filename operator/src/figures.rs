//! What the status of a Pbx shows of its pods and sessions, and when that is worth a write. Pure.
//!
//! Pods and relays change by events, and are written when they do. Sessions change with every call: they are written with
//! those, and else every [`EVERY`] at most, so that a busy Pbx costs two writes a minute and one at rest none.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Other sessions alone are written so often at most.
pub const EVERY: Duration = Duration::from_secs(30);

/// What is shown. The fields are those of `api::PbxStatus`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Pods that are available, of those that there are to be: `11/12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// Sessions that relays carry; none: no store has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    /// Relays that take new sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relays: Option<u32>,
    /// How many the operator's autoscaling wants of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_relays: Option<u32>,
    /// How that came about: its arithmetic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<String>,
}

impl Figures {
    /// When these are to be written in place of what is there, which was written at `written` (none: by another leader).
    /// None: they need not be. The arithmetic alone is no reason: CPU is never twice the same.
    pub fn due(&self, there: Option<&Figures>, written: Option<Duration>, now: Duration) -> Option<Duration> {
        let Some(there) = there else { return Some(now) };
        let event = |f: &Figures| (f.pods.clone(), f.relays, f.desired_relays, f.scaling.is_some());
        if event(self) != event(there) || self.sessions.is_some() != there.sessions.is_some() {
            return Some(now);
        }
        let next = written.map_or(now, |written| (written + EVERY).max(now));
        (self.sessions != there.sessions).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(pods: &str, sessions: u64, relays: u32, text: &str) -> Figures {
        Figures {
            pods: Some(pods.into()),
            sessions: Some(sessions),
            relays: Some(relays),
            desired_relays: Some(relays),
            scaling: Some(text.into()),
        }
    }

    #[test]
    fn events_are_written_at_once_sessions_seldom_and_nothing_at_rest() {
        let s = Duration::from_secs;
        let there = figures("12/12", 25, 3, "a");
        assert_eq!(there.due(Some(&there), Some(s(100)), s(200)), None);
        assert_eq!(there.due(None, None, s(200)), Some(s(200)));
        let more = figures("12/12", 26, 3, "b");
        assert_eq!(more.due(Some(&there), Some(s(190)), s(200)), Some(s(220)));
        assert_eq!(more.due(Some(&there), Some(s(100)), s(200)), Some(s(200)));
        assert_eq!(more.due(Some(&there), None, s(200)), Some(s(200)), "another leader wrote it");
        for event in
            [figures("11/12", 25, 3, "a"), figures("12/12", 25, 4, "a"), Figures { scaling: None, ..there.clone() }]
        {
            assert_eq!(event.due(Some(&there), Some(s(199)), s(200)), Some(s(200)), "{event:?}");
        }
        assert_eq!(figures("12/12", 25, 3, "CPU 3%").due(Some(&there), Some(s(100)), s(200)), None);
    }

    #[test]
    fn they_are_the_fields_of_the_status() {
        let figures = serde_json::to_value(figures("1/2", 3, 4, "x")).unwrap();
        let mut status = figures.clone();
        status["conditions"] = serde_json::json!([]);
        let status: api::PbxStatus = serde_json::from_value(status).unwrap();
        let mut again = serde_json::to_value(status).unwrap();
        again.as_object_mut().unwrap().remove("conditions");
        assert_eq!(again, figures);
        assert_eq!(serde_json::to_value(Figures::default()).unwrap(), serde_json::json!({}));
    }
}
