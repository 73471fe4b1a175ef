//! Events (events.k8s.io): what a person wants told. What is repeated counts up one event, and more than a few a second are
//! left out: an event is a hint, a condition is the truth.

use crate::engine::Owner;
use crate::watch::resource;
use api::conditions::{Condition, ConditionStatus};
use api::{Kind, ResourceId};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::time::Duration;
use tokio::sync::mpsc;

/// Events that wait to be sent; more are left out.
const QUEUE: usize = 64;

/// The time between two.
const PACE: Duration = Duration::from_millis(100);

/// A note is at most this long, in bytes.
const MAX_NOTE: usize = 1000;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    warning: bool,
    reason: String,
    text: String,
}

impl Note {
    /// Something that a person should look at.
    pub fn warning(reason: &str, text: impl Into<String>) -> Self {
        Self { warning: true, reason: reason.to_owned(), text: text.into() }
    }

    /// Something that a person may want to know.
    pub fn normal(reason: &str, text: impl Into<String>) -> Self {
        Self { warning: false, reason: reason.to_owned(), text: text.into() }
    }
}

/// Tells people.
#[derive(Debug, Clone)]
pub struct Events {
    queue: mpsc::Sender<(ObjectReference, Note)>,
}

impl Events {
    /// Sends them in the name of this pod until dropped.
    pub fn new(client: Client, pod: &str) -> Self {
        let reporter = Reporter { controller: "kubepbx.io/operator".into(), instance: Some(pod.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let (queue, mut waiting) = mpsc::channel::<(ObjectReference, Note)>(QUEUE);
        tokio::spawn(async move {
            while let Some((about, note)) = waiting.recv().await {
                let event = Event {
                    type_: if note.warning { EventType::Warning } else { EventType::Normal },
                    reason: note.reason,
                    note: Some(cut(note.text)),
                    action: "Reconcile".into(),
                    secondary: None,
                };
                if let Err(error) = recorder.publish(&event, &about).await {
                    tracing::debug!(%error, "an event could not be sent");
                }
                tokio::time::sleep(PACE).await;
            }
        });
        Self { queue }
    }

    /// About a Pbx.
    pub fn pbx(&self, namespace: &str, owner: &Owner, note: Note) {
        let id = ResourceId { kind: Kind::Pbx, name: owner.name.clone() };
        self.tell(namespace, &id, &owner.uid, note);
    }

    /// About a resource.
    pub fn tell(&self, namespace: &str, id: &ResourceId, uid: &str, note: Note) {
        let kind = resource(id.kind);
        let about = ObjectReference {
            api_version: Some(kind.api_version),
            kind: Some(kind.kind),
            name: Some(id.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        // Full: left out.
        let _ = self.queue.try_send((about, note));
    }
}

/// What of a change of conditions is told. That something is not live yet is not: every object says so for a while, and a
/// Pbx without its pods says it of itself.
pub fn notes(old: &[Condition], new: &[Condition]) -> Vec<Note> {
    let before = |kind: &str| old.iter().find(|condition| condition.kind == kind);
    let mut out = Vec::new();
    for condition in new.iter().filter(|condition| condition.kind != "Ready") {
        let told = before(&condition.kind).map(|c| (c.status, &c.reason, &c.message));
        let now = (condition.status, &condition.reason, &condition.message);
        let waits = matches!(condition.reason.as_str(), "NotCompiled" | "NoPods" | "NotAcknowledged");
        let wrong = condition.status == ConditionStatus::False && !waits;
        if wrong && told != Some(now) {
            out.push(Note::warning(&condition.reason, condition.message.clone()));
        }
    }
    let ready = |list: &[Condition]| list.iter().find(|c| c.kind == "Ready").map(|c| c.status);
    if ready(old) == Some(ConditionStatus::False) && ready(new) == Some(ConditionStatus::True) {
        out.push(Note::normal("Ready", "valid, resolved and live everywhere"));
    }
    out
}

/// No longer than a note may be.
fn cut(mut text: String) -> String {
    if text.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
        Condition {
            kind: kind.into(),
            status,
            observed_generation: 1,
            last_transition_time: String::new(),
            reason: reason.into(),
            message: format!("{reason} it is"),
        }
    }

    #[test]
    fn what_is_wrong_is_told_once_and_that_all_is_well_again() {
        use ConditionStatus::{False, True};
        let bad = [condition("Accepted", False, "Conflict"), condition("Ready", False, "Conflict")];
        let good = [condition("Accepted", True, "Accepted"), condition("Ready", True, "Ready")];
        assert_eq!(notes(&[], &bad), [Note::warning("Conflict", "Conflict it is")]);
        assert_eq!(notes(&bad, &bad), []);
        assert_eq!(notes(&bad, &good).len(), 1);
        assert_eq!(notes(&[], &good), [], "that it is as it should be is no news");
        let out = [condition("Programmed", False, "NotCompiled")];
        assert_eq!(notes(&[], &out), [], "why is told by what kept it out");
        assert_eq!(notes(&[], &[condition("Programmed", False, "NoPods")]), []);
        assert_eq!(notes(&[], &[condition("Programmed", False, "Refused")]).len(), 1);
    }

    #[test]
    fn a_note_is_cut_between_characters() {
        let text = cut("ü".repeat(MAX_NOTE));
        assert!(text.len() <= MAX_NOTE && text.ends_with("ü..."));
        assert_eq!(cut("short".into()), "short");
    }
}
