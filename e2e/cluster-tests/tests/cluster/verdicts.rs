//! The table of verdicts (`crates/api/testdata/verdicts.yaml`), judged by the API server and the operator.

use crate::calls::{first_call_example, talk};
use anyhow::{Context, Result, bail, ensure};
use api::verdicts::{Case, Verdict, table};
use cluster_tests::{Object, Space};
use e2e::eventually;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// All processes follow another operator within this.
const FOLLOWS: Duration = Duration::from_secs(60);

#[test]
fn every_object_is_judged_as_the_table_says() -> Result<()> {
    Space::test("verdicts", |space| {
        // The table has a Pbx of its own.
        space.helm("install", &["pbx: {create: false}".into()])?;
        let mut wrong = Vec::new();
        let cases = table().map_err(anyhow::Error::msg)?;
        for case in &cases {
            // The table's notes are no annotations that a cluster would take.
            let mut object = case.object.clone();
            object["metadata"].as_object_mut().context("metadata")?.remove("annotations");
            let applied = space.apply_object(&object);
            if let Err(error) = judge(space, case, applied.map(drop)) {
                wrong.push(format!("{}: {error:#}", case.id));
            }
        }
        if !wrong.is_empty() {
            bail!("{} of {} judged otherwise:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        }
        Ok(())
    })
}

fn judge(space: &Space, case: &Case, applied: Result<()>) -> Result<()> {
    let (kind, name) = case.id.split_once('/').context("an id without kind")?;
    match (&case.verdict, applied) {
        (Verdict::Rejected { message, .. }, Err(error)) => {
            let said = format!("{error:#}");
            if said.contains(message) { Ok(()) } else { bail!("rejected, but not by {message:?}: {said}") }
        }
        (Verdict::Rejected { message, .. }, Ok(())) => bail!("taken, and not rejected by {message:?}"),
        (_, Err(error)) => Err(error.context("not taken")),
        // Its readiness is the business of other tests: the table is applied for what is said of objects.
        (Verdict::Good, Ok(())) if kind == "Secret" || kind == "Pbx" => Ok(()),
        (Verdict::Good, Ok(())) => {
            space.wait(kind, name, "Accepted", Duration::from_secs(5))?;
            space.wait(kind, name, "ResolvedRefs", Duration::from_secs(5)).map(drop)
        }
        (Verdict::False { condition, reason, message }, Ok(())) => {
            let so = |object: &Object| {
                object.condition(condition).is_some_and(|c| {
                    c["status"] == "False" && c["reason"] == reason.as_str() && c["message"] == message.as_str()
                })
            };
            space
                .until(kind, name, &format!("{condition}=False/{reason} {message:?}"), Duration::from_secs(5), so)
                .map(drop)
        }
    }
}

/// What was good and is changed to what is not goes on as it was, with other operators too; what is put right is live.
#[test]
fn what_was_good_stays_live() -> Result<()> {
    Space::test("held", |space| {
        first_call_example(space)?;
        let bad = [
            (
                "Dialplan",
                "from-external",
                json!({"spec": {"extensions": [{"pattern": "_[1-", "steps": [{"hangup": {}}]}]}}),
                "Accepted",
                "InvalidPattern",
            ),
            ("PbxEndpoint", "8006", json!({"spec": {"auth": {"username": "8005"}}}), "Accepted", "Conflict"),
        ];
        let good: Vec<_> = bad.iter().map(|(kind, name, ..)| space.get(kind, name)).collect::<Result<_>>()?;
        for (kind, name, patch, ..) in &bad {
            space.patch(kind, name, patch.clone())?;
        }
        let judged = || -> Result<()> {
            for (kind, name, _, condition, reason) in &bad {
                let so = |object: &Object| object.condition(condition).is_some_and(|c| c["reason"] == *reason);
                let object = space.until(kind, name, &format!("{condition}/{reason}"), SOON, so)?;
                // What is live is an older generation.
                ensure!(!object.is("Ready", "True"), "{}", object.conditions());
            }
            Ok(())
        };
        judged()?;
        talk(space, "1")?;
        let operators = space.pods("operator")?;
        for pod in &operators {
            space.delete("Pod", pod.name(), Some(0))?;
        }
        let another = || {
            let pods = space.pods("operator").ok()?;
            let others = pods.iter().filter(|pod| operators.iter().all(|gone| gone.uid() != pod.uid()));
            (others.filter(|pod| pod.is_ready_pod()).count() == operators.len()).then_some(())
        };
        eventually("other operators", Duration::from_secs(60), another)?;
        // A process that begins now has it from the new operator alone.
        let router = space.pods("router")?.into_iter().next().context("no router")?;
        space.delete("Pod", router.name(), Some(0))?;
        space.settled(Duration::from_secs(60))?;
        judged()?;
        talk(space, "1")?;
        for ((kind, name, ..), good) in bad.iter().zip(good) {
            let spec = good.with_context(|| format!("{kind} {name}"))?.0["spec"].clone();
            space.patch(kind, name, json!({"spec": spec}))?;
            // Whoever followed an operator that went without a word finds that out first.
            space.wait(kind, name, "Ready", FOLLOWS)?;
        }
        talk(space, "1")
    })
}
