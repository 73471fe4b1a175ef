//! Whether relays are there: each that has calls of ours is asked twice a second. Two misses are a loss, one is enough
//! when its peer record is gone; a record alone says nothing against a relay that answers.

use crate::core::{Core, Then, Turn};
use crate::io::Ask;
use crate::timers::Timer;
use contract::ProcessId;
use contract::ng::Command;
use std::collections::btree_map::Entry;
use std::time::Duration;

/// How often a relay is asked; an answer that takes longer is a miss.
pub(crate) const PERIOD: Duration = Duration::from_millis(500);
/// Misses in a row that are a loss.
const MISSES: u32 = 2;

/// What is known of a relay by asking it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Probe {
    misses: u32,
    /// When it was last asked.
    asked: Duration,
}

impl Core {
    /// From now on a relay is asked, for as long as calls are on it.
    pub(crate) fn watch(&mut self, turn: &Turn<'_>, relay: ProcessId) {
        if let Entry::Vacant(place) = self.probes.entry(relay) {
            place.insert(Probe::default());
            self.timers.arm(Timer::Probe(relay), turn.now.mono + PERIOD);
        }
    }

    /// True if a relay is lost: nothing new goes there until it answers again.
    pub(crate) fn is_down(&self, relay: ProcessId) -> bool {
        self.probes.get(&relay).is_some_and(|probe| probe.misses >= MISSES)
    }

    /// It is time to ask a relay, or to let it be.
    pub(crate) fn probe(&mut self, turn: &Turn<'_>, relay: ProcessId) {
        let used = self.calls.values().any(|call| call.relay == Some(relay));
        // One that is lost but still named by its record is asked until either changes.
        let lost = self.is_down(relay) && turn.view.peers.get(relay).is_some();
        match self.probes.get_mut(&relay) {
            Some(probe) if used || lost => {
                probe.asked = turn.now.mono;
                self.ask(Ask::Media { relay, command: Command::Ping }, Then::Probed(relay));
            }
            _ => {
                self.probes.remove(&relay);
            }
        }
    }

    /// A relay answered, or did not.
    pub(crate) fn probed(&mut self, turn: &mut Turn<'_>, relay: ProcessId, answered: bool) {
        let recorded = turn.view.peers.get(relay).is_some();
        let Some(probe) = self.probes.get_mut(&relay) else { return };
        let was = probe.misses;
        probe.misses = match answered {
            true => 0,
            // Gone, and nobody says otherwise.
            false if !recorded => MISSES,
            false => (was + 1).min(MISSES),
        };
        let (misses, next) = (probe.misses, (probe.asked + PERIOD).max(turn.now.mono));
        self.timers.arm(Timer::Probe(relay), next);
        if misses < MISSES {
            return;
        }
        if was < MISSES {
            self.counters.relays_lost += 1;
            tracing::warn!(%relay, recorded, "the relay is lost");
        }
        self.relay_lost(turn, relay);
    }
}
