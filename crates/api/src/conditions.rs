//! Conditions of a resource: what `kubectl get`, `helm --wait` and kstatus look at.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition, as in the Kubernetes API conventions.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Accepted, ResolvedRefs, Programmed or Ready.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation of the resource that this is about.
    pub observed_generation: i64,
    /// When status last flipped.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// Whether a condition holds.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { ConditionStatus::True } else { ConditionStatus::False }
    }
}

/// Sets a condition in a list. Status, reason, message and generation are always renewed; the transition time moves only
/// when status flips, so that "for how long" stays true. `now` is the wall time since the UNIX epoch. True when anything
/// changed, that is when a write is worth it.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: impl Into<ConditionStatus>,
    reason: &str,
    message: &str,
    generation: i64,
    now: Duration,
) -> bool {
    let status = status.into();
    let old = conditions.iter_mut().find(|condition| condition.kind == kind);
    let last_transition_time = match &old {
        Some(old) if old.status == status => old.last_transition_time.clone(),
        _ => rfc3339(now),
    };
    let new = Condition {
        kind: kind.to_owned(),
        status,
        observed_generation: generation,
        last_transition_time,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    match old {
        Some(old) if *old == new => false,
        Some(old) => {
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// Wall time in whole seconds as `2026-11-23T21:52:46Z`.
pub fn rfc3339(wall: Duration) -> String {
    let seconds = wall.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years are counted from March, so that the leap day is the last one of a year; 719,468 days before 1970 began year 0.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_on_a_flip() {
        let mut list = Vec::new();
        let at = Duration::from_secs;
        assert!(set(&mut list, "Ready", false, "SecretNotFound", "no Secret phones", 1, at(100)));
        assert!(!set(&mut list, "Ready", false, "SecretNotFound", "no Secret phones", 1, at(200)));
        assert!(set(&mut list, "Ready", false, "Invalid", "bad pattern", 2, at(300)));
        assert_eq!(list[0].last_transition_time, "1970-01-01T00:01:40Z");
        assert_eq!((list[0].observed_generation, list[0].reason.as_str()), (2, "Invalid"));
        assert!(set(&mut list, "Ready", true, "Ready", "", 3, at(400)));
        assert_eq!(list[0].last_transition_time, "1970-01-01T00:06:40Z");
        assert!(set(&mut list, "Accepted", true, "Accepted", "", 3, at(400)));
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn wall_time() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), want);
        }
    }
}
