//! Relays come and go with the calls.

use crate::calls::{first_call_phones, talk};
use anyhow::{Context, Result, ensure};
use cluster_tests::{Calls, Object, Space};
use e2e::eventually;
use std::time::Duration;

/// Sessions that a relay is to have.
const TARGET: usize = 10;

fn relays(space: &Space) -> Result<Vec<Object>> {
    let mut pods = space.pods("media")?;
    pods.retain(Object::is_ready_pod);
    Ok(pods)
}

fn until(space: &Space, count: usize, limit: Duration) -> Result<()> {
    let mut last = 0;
    let found = eventually("so many relays", limit, || {
        last = relays(space).ok()?.len();
        (last == count).then_some(())
    });
    found.with_context(|| format!("{last} relays, not {count}"))
}

/// One relay becomes four, two a node, as calls grow; and one again when they end. None is lost.
#[test]
fn relays_follow_the_calls_out_and_in() -> Result<()> {
    Space::alone("scaling", |space| {
        let scaling = format!(
            "pbx: {{spec: {{services: {{media: {{drain: 5s}}}}, \
             media: {{autoscaling: {{target: {TARGET}, warm: 0, min: 1, max: 4, stabilization: 3s}}}}}}}}"
        );
        space.install(&[scaling])?;
        first_call_phones(space)?;
        until(space, 1, Duration::from_secs(60))?;
        let few = Calls::begin(space, TARGET)?;
        let many = Calls::more(space, 3 * TARGET - 5)?;
        until(space, 4, Duration::from_secs(20))?;
        for (node, _) in &space.cluster.nodes {
            let here = relays(space)?.iter().filter(|pod| pod.node() == Some(node.as_str())).count();
            ensure!(here == 2 || space.cluster.nodes.len() != 2, "{here} relays on {node}");
        }
        let events = space.list("Event", "")?;
        let why = events.iter().find_map(|event| event.0["note"].as_str().filter(|note| note.contains("sessions +")));
        eprintln!("scaling: {}", why.context("no event says why")?);
        let more = many.end()?;
        eprintln!("scaling, calls that were added: {more}");
        more.all_kept(1500.0)?;
        // What is left is at one relay in the end, whoever had it.
        until(space, 1, Duration::from_secs(45))?;
        let figures = few.end()?;
        eprintln!("scaling, calls from the first to the last: {figures}");
        figures.all_kept(1500.0)?;
        talk(space, "1")
    })
}
