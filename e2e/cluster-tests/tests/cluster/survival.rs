//! Pods that die while calls with audio are up.

use crate::calls::{first_call_example, talk};
use anyhow::{Context, Result};
use cluster_tests::{Calls, Object, Oracle, Space};
use e2e::eventually;
use std::time::{Duration, Instant};

/// Calls that are up when something dies, and how many of them are baresip's.
const CALLS: usize = 50;
const BARESIPS: usize = 4;
/// How long a leg may be without audio when what dies is not in its way: phones and pods share a small machine.
pub(crate) const UNNOTICED: f64 = 1500.0;
/// The same when its relay dies.
pub(crate) const MOVED: f64 = 3000.0;
/// Another is in a pod's place after this.
const BACK: Duration = Duration::from_secs(90);

/// What befalls a pod.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Its process dies by SIGKILL; the container is restarted in place.
    Killed,
    /// It is deleted without time to end.
    Deleted,
    /// Its process stands still for ten seconds, long after others have taken its calls.
    Frozen,
    /// It is a router that is killed; for a minute nobody sends anything but audio; then a relay is killed.
    ThenItsRelay,
}

/// All that die, one after the other, on one installation.
const FATES: [(&str, Fate); 16] = [
    // First: registrars fill an empty store again with what was registered since they began.
    ("redis", Fate::Killed),
    ("redis", Fate::Deleted),
    ("balancer", Fate::Killed),
    ("balancer", Fate::Deleted),
    ("registrar", Fate::Killed),
    ("registrar", Fate::Deleted),
    ("router", Fate::Killed),
    ("router", Fate::Deleted),
    ("router", Fate::Frozen),
    ("media", Fate::Killed),
    ("media", Fate::Deleted),
    ("conference", Fate::Killed),
    ("conference", Fate::Deleted),
    ("operator", Fate::Killed),
    ("operator", Fate::Deleted),
    ("router", Fate::ThenItsRelay),
];

/// Any pod dies while 50 calls are up: they go on, can be held, resumed and ended, and new ones can be made.
#[test]
fn whatever_dies_calls_go_on() -> Result<()> {
    Space::alone("survival", |space| {
        first_call_example(space)?;
        let mut oracle = Oracle::begin(space, BARESIPS)?;
        for (component, fate) in FATES {
            let what = format!("{component}, {fate:?}");
            survives(space, &mut oracle, component, fate).with_context(|| what.clone())?;
        }
        talk(space, "1")
    })
}

fn survives(space: &Space, oracle: &mut Oracle, component: &str, fate: Fate) -> Result<()> {
    oracle.dial()?;
    let calls = Calls::begin(space, CALLS - BARESIPS)?;
    let pod = one(space, component)?;
    match fate {
        Fate::Killed => killed(space, &pod)?,
        Fate::Deleted => deleted(space, component, &pod)?,
        Fate::Frozen => frozen(space, &pod)?,
        Fate::ThenItsRelay => {
            killed(space, &pod)?;
            std::thread::park_timeout(Duration::from_secs(60));
            killed(space, &one(space, "media")?)?;
        }
    }
    // Whoever took calls over has them all.
    space.has_calls(CALLS as u64, None, Duration::from_secs(20))?;
    let judged = oracle.judge();
    let figures = calls.end()?;
    eprintln!("survival: {component}, {fate:?}: {figures}");
    judged?;
    let relay = component == "media" || matches!(fate, Fate::ThenItsRelay);
    figures.all_kept(if relay { MOVED } else { UNNOTICED })
}

/// That which was restarted least often: kubelet makes others wait.
fn one(space: &Space, component: &str) -> Result<Object> {
    space.pods(component)?.into_iter().min_by_key(restarts).with_context(|| format!("no {component}"))
}

fn restarts(pod: &Object) -> Option<u64> {
    pod.0["status"]["containerStatuses"][0]["restartCount"].as_u64()
}

/// Its container is restarted in place, and all is as it was.
pub(crate) fn killed(space: &Space, pod: &Object) -> Result<()> {
    // What was asked for a while ago does not know of an earlier restart.
    let before = space.get("Pod", pod.name())?.as_ref().and_then(restarts);
    space.signal(pod, "KILL")?;
    space.until("Pod", pod.name(), "its container is restarted", BACK, |pod| restarts(pod) > before)?;
    space.settled(BACK)
}

/// Another is in its place, and all is as it was.
fn deleted(space: &Space, component: &str, pod: &Object) -> Result<()> {
    let ready = |without: &str| -> Result<usize> {
        let pods = space.pods(component)?;
        Ok(pods.iter().filter(|pod| pod.is_ready_pod() && pod.uid() != without).count())
    };
    let before = ready("")?;
    space.delete("Pod", pod.name(), Some(0))?;
    eventually("another is in its place", BACK, || (ready(pod.uid()).ok()? >= before).then_some(()))?;
    space.settled(BACK)
}

/// It finds out by itself that others have its calls.
fn frozen(space: &Space, pod: &Object) -> Result<()> {
    let taken = "kubepbx_router_events_total{reason=\"taken_over\"}";
    let before = space.sum("router", taken)?;
    space.signal(pod, "STOP")?;
    let since = Instant::now();
    let others = || {
        let pods = space.pods("router").ok()?;
        let sums = pods.iter().filter(|other| other.name() != pod.name()).map(|other| space.metric(other, taken));
        Some(sums.sum::<Result<u64>>().ok()? > before)
    };
    let found = eventually("others have its calls", Duration::from_secs(9), || others()?.then_some(()));
    std::thread::park_timeout(Duration::from_secs(10).saturating_sub(since.elapsed()));
    space.signal(pod, "CONT")?;
    found?;
    space.settled(BACK)
}
