//! Statuses: the conditions of every resource and what was observed of it, written by server-side apply and only when they differ.
//!
//! [`plan`] decides which conditions stand in one, [`Queue`] which is next: the operator writes at most twenty statuses a
//! second in all, each resource waits once however often it changes, and what is written is what holds then.

mod queue;

use crate::apply::text;
use crate::observe::Observed;
use crate::programmed::Programmed;
use crate::watch::{Known, resource};
use api::conditions::{self, Condition, ConditionStatus};
use api::{ResourceId, State, Status};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
pub use queue::{Cause, Place, Queue};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// The field manager of statuses.
const MANAGER: &str = "kubepbx-status";

/// The conditions that are ours; what others say of a resource stays theirs.
pub const CONDITIONS: [&str; 4] = ["Accepted", "ResolvedRefs", "Programmed", "Ready"];

/// All that the operator says in a status. A field that is not said any longer is taken away.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Content {
    /// All its conditions.
    pub conditions: Vec<Condition>,
    /// What was observed.
    #[serde(flatten)]
    pub observed: Observed,
}

/// What holds of a resource now.
#[derive(Debug, Clone, Copy)]
pub struct Verdict<'a> {
    /// What the compiler found.
    pub compiled: &'a Status,
    /// Whether it is live everywhere; none while that is not judged.
    pub programmed: Option<&'a Programmed>,
    /// For the Pbx: what is not as it should be with its objects and pods, in one word and for people; none: all is well.
    pub pods: Option<&'a (String, String)>,
}

/// The conditions that are to stand where `old` do. `now` is wall time since the UNIX epoch.
///
/// None: nothing is written of a generation before it is judged whether it is live. What is held keeps `Programmed` as it
/// was when the generation that it is about was live.
pub fn plan(old: &[Condition], verdict: Verdict<'_>, now: Duration) -> Option<Vec<Condition>> {
    let Verdict { compiled, programmed, pods } = verdict;
    let generation = compiled.generation;
    let mut new = old.to_vec();
    compiled.set_conditions(&mut new, now);
    match (compiled.state, programmed) {
        (State::Live, None) => return None,
        (State::Live, Some(Programmed::True)) => {
            conditions::set(&mut new, "Programmed", true, "Programmed", "", generation, now);
        }
        (State::Live, Some(Programmed::False { reason, message })) => {
            conditions::set(&mut new, "Programmed", false, reason.as_str(), message, generation, now);
        }
        (State::Held, _) if old.iter().any(|condition| condition.kind == "Programmed") => {}
        (State::Held | State::Out, _) => {
            let message = "nothing of this generation is live: Accepted and ResolvedRefs say why";
            conditions::set(&mut new, "Programmed", false, "NotCompiled", message, generation, now);
        }
    }
    let blocking = ["Accepted", "ResolvedRefs", "Programmed"].iter().find_map(|kind| {
        let condition = new.iter().find(|condition| condition.kind == *kind)?;
        let holds = condition.status == ConditionStatus::True && condition.observed_generation == generation;
        (!holds).then(|| (condition.reason.clone(), format!("{kind}: {}", condition.message)))
    });
    let blocking = blocking.or_else(|| pods.cloned());
    let (reason, message) = blocking.clone().unwrap_or_else(|| ("Ready".into(), String::new()));
    conditions::set(&mut new, "Ready", blocking.is_none(), &reason, &message, generation, now);
    Some(new)
}

/// Writes a status. Gives the resource version that this has made.
///
/// # Errors
/// What the API server said; an object that is gone, or is another one by now, is none.
pub async fn write(
    client: &Client,
    namespace: &str,
    id: &ResourceId,
    uid: &str,
    content: &Content,
) -> Result<Option<u64>, String> {
    let kind = resource(id.kind);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let patch = json!({
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": id.name, "uid": uid},
        "status": content,
    });
    match api.patch_status(&id.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await {
        Ok(object) => Ok(Some(crate::apply::version(&object.metadata))),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(text(&error)),
    }
}

/// Whether a resource was live under a leader before, as its conditions say.
pub fn was_live(known: &Known) -> bool {
    let programmed = known.conditions.iter().find(|condition| condition.kind == "Programmed");
    programmed.is_some_and(|condition| {
        condition.status == ConditionStatus::True && condition.observed_generation == known.resource.generation
    })
}

#[cfg(test)]
mod tests;
