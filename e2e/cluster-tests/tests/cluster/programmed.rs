//! `Programmed` says what is live, and where not.

use crate::calls::{first_call_example, talk};
use anyhow::{Context, Result, ensure};
use cluster_tests::Space;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// A process that is frozen keeps what was changed meanwhile at False, by its pod's name, and only that.
#[test]
fn a_frozen_process_is_named_until_it_has_caught_up() -> Result<()> {
    Space::test("frozen", |space| {
        first_call_example(space)?;
        let pod = space.pods("router")?.into_iter().next().context("no router")?;
        space.signal(&pod, "STOP")?;
        let changed = space.patch(
            "Dialplan",
            "from-external",
            json!({"spec": {"extensions": [
                {"pattern": "_80XX", "steps": [{"answer": {}}, {"dial": {"to": ["PJSIP/${EXTEN}"]}}]}
            ]}}),
        );
        let named = changed.and_then(|_| {
            space.until("Dialplan", "from-external", "Programmed=False with the pod's name", SOON, |dialplan| {
                let condition = dialplan.condition("Programmed");
                let message = condition.and_then(|c| c["message"].as_str()).unwrap_or_default();
                dialplan.is("Programmed", "False") && message.contains(pod.name())
            })
        });
        let other = space.get("PbxEndpoint", "8005");
        space.signal(&pod, "CONT")?;
        named?;
        ensure!(
            other?.is_some_and(|endpoint| endpoint.is("Programmed", "True")),
            "what was not changed is no longer live"
        );
        space.wait("Dialplan", "from-external", "Programmed", SOON)?;
        talk(space, "1")
    })
}
