//! The table of verdicts (`crates/api/testdata/verdicts.yaml`), judged by the API server and the operator.

use anyhow::{Context, Result, bail};
use api::verdicts::{Case, Verdict, table};
use cluster_tests::Space;
use std::time::Duration;

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
            let so = |object: &cluster_tests::Object| {
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
