//! Pods that die while calls with audio are up.

use crate::calls::{first_call_example, talk};
use anyhow::{Context, Result};
use cluster_tests::{Calls, Space};
use e2e::eventually;
use std::time::Duration;

const CALLS: usize = 50;
/// How long a leg may be without audio when what dies is not in its way: phones and pods share a small machine.
pub(crate) const UNNOTICED: f64 = 1500.0;
/// The same when its relay dies.
pub(crate) const MOVED: f64 = 3000.0;

/// One pod of a service goes while 50 calls are up; they go on, and can be ended, and new ones can be made.
fn survives(name: &str, component: &str, gap_ms: f64, kill: impl FnOnce(&Space, &str) -> Result<()>) -> Result<()> {
    Space::alone(name, |space| {
        first_call_example(space)?;
        let calls = Calls::begin(space, CALLS, 15)?;
        let pod = space.pods(component)?.into_iter().next().with_context(|| format!("no {component}"))?;
        kill(space, pod.name())?;
        let figures = calls.end()?;
        eprintln!("{name}: {figures}");
        figures.all_kept(gap_ms)?;
        space.settled(Duration::from_secs(60))?;
        talk(space, "1")
    })
}

fn killed(space: &Space, pod: &str) -> Result<()> {
    let pod = space.get("Pod", pod)?.context("the pod is gone already")?;
    space.signal(&pod, "KILL")
}

fn deleted(space: &Space, pod: &str) -> Result<()> {
    space.delete("Pod", pod, Some(0))
}

#[test]
fn balancer_killed() -> Result<()> {
    survives("balancer-killed", "balancer", UNNOTICED, killed)
}

#[test]
fn conference_deleted() -> Result<()> {
    survives("conference-deleted", "conference", UNNOTICED, deleted)
}

#[test]
fn media_deleted() -> Result<()> {
    survives("media-deleted", "media", MOVED, deleted)
}

#[test]
fn media_killed() -> Result<()> {
    survives("media-killed", "media", MOVED, killed)
}

#[test]
fn operator_deleted() -> Result<()> {
    survives("operator-deleted", "operator", UNNOTICED, deleted)
}

#[test]
fn redis_killed() -> Result<()> {
    survives("redis-killed", "redis", UNNOTICED, killed)
}

#[test]
fn registrar_killed() -> Result<()> {
    survives("registrar-killed", "registrar", UNNOTICED, killed)
}

#[test]
fn router_deleted() -> Result<()> {
    survives("router-deleted", "router", UNNOTICED, deleted)
}

/// It stands still until others have its calls, and finds that out by itself.
fn frozen(space: &Space, pod: &str) -> Result<()> {
    let pod = space.get("Pod", pod)?.context("the pod is gone already")?;
    let taken = "kubepbx_router_events_total{reason=\"taken_over\"}";
    let before = space.sum("router", taken)?;
    space.signal(&pod, "STOP")?;
    let others = || {
        let pods = space.pods("router").ok()?;
        let sums = pods.iter().filter(|other| other.name() != pod.name()).map(|other| space.metric(other, taken));
        Some(sums.sum::<Result<u64>>().ok()? > before)
    };
    let found = eventually("others have its calls", Duration::from_secs(10), || others()?.then_some(()));
    space.signal(&pod, "CONT")?;
    found
}

#[test]
fn router_frozen() -> Result<()> {
    survives("router-frozen", "router", UNNOTICED, frozen)
}

#[test]
fn router_killed() -> Result<()> {
    survives("router-killed", "router", UNNOTICED, killed)
}
