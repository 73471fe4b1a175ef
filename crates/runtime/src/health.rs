//! Liveness and readiness of a process: loops that turn, and a latch of what had to be there once.

use crate::clock::Clock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A loop that has not turned for this long is dead.
pub const STALL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct Inner {
    /// Last turn of each loop, by name.
    pulses: Mutex<BTreeMap<String, Duration>>,
    /// What readiness waits for: true once there.
    parts: watch::Sender<BTreeMap<String, bool>>,
}

/// The health of one process. Readiness is a latch: first snapshot applied and sockets bound, then true until exit.
#[derive(Debug, Clone)]
pub struct Health {
    clock: Clock,
    inner: Arc<Inner>,
}

impl Health {
    /// Health without loops or parts: live and ready.
    pub fn new(clock: Clock) -> Self {
        Self { clock, inner: Arc::default() }
    }

    fn pulses(&self) -> MutexGuard<'_, BTreeMap<String, Duration>> {
        self.inner.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A loop whose turning counts as life. It must [`Pulse::beat`] at least every few seconds, also when idle.
    pub fn pulse(&self, name: &str) -> Pulse {
        let pulse = Pulse { health: self.clone(), name: name.to_owned() };
        pulse.beat();
        pulse
    }

    /// Names of loops that have not turned for [`STALL`].
    pub fn stalled(&self) -> Vec<String> {
        self.stalled_at(self.clock.now().mono)
    }

    fn stalled_at(&self, now: Duration) -> Vec<String> {
        let late = |at: &Duration| now.saturating_sub(*at) > STALL;
        self.pulses().iter().filter(|(_, at)| late(at)).map(|(name, _)| name.clone()).collect()
    }

    /// Something that readiness waits for, such as `balancer`.
    pub fn part(&self, name: &str) -> Part {
        self.inner.parts.send_modify(|parts| {
            parts.entry(name.to_owned()).or_insert(false);
        });
        Part { health: self.clone(), name: name.to_owned() }
    }

    /// What readiness still waits for.
    pub fn missing(&self) -> Vec<String> {
        self.inner.parts.borrow().iter().filter(|(_, ready)| !**ready).map(|(name, _)| name.clone()).collect()
    }

    /// Returns once every part is there.
    pub async fn ready(&self) {
        let mut parts = self.inner.parts.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = parts.wait_for(|parts| parts.values().all(|ready| *ready)).await;
    }
}

/// One loop's pulse; dropping it takes the loop off the list.
#[derive(Debug)]
pub struct Pulse {
    health: Health,
    name: String,
}

impl Pulse {
    /// The loop turned.
    pub fn beat(&self) {
        let now = self.health.clock.now().mono;
        self.health.pulses().insert(self.name.clone(), now);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.health.pulses().remove(&self.name);
    }
}

/// One part of readiness.
#[derive(Debug)]
pub struct Part {
    health: Health,
    name: String,
}

impl Part {
    /// It is there, until exit.
    pub fn ready(&self) {
        self.health.inner.parts.send_modify(|parts| {
            parts.insert(self.name.clone(), true);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_stops_is_named_and_readiness_latches() {
        let health = Health::new(Clock::new());
        let pulse = health.pulse("router");
        let (one, two) = (health.part("router"), health.part("balancer"));
        let begun = health.clock.now().mono;
        assert!(health.stalled_at(begun + STALL - Duration::from_secs(1)).is_empty());
        assert_eq!(health.stalled_at(begun + STALL + Duration::from_secs(1)), ["router"]);
        pulse.beat();
        assert!(health.stalled().is_empty());
        drop(pulse);
        assert!(health.stalled_at(begun + STALL * 2).is_empty());
        one.ready();
        assert_eq!(health.missing(), ["balancer"]);
        two.ready();
        health.ready().await;
        assert!(health.part("balancer").health.missing().is_empty());
    }
}
