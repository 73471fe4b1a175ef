//! Time as an argument.

use std::time::Duration;

/// The instant an input is handled at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic time since an arbitrary start of this process: for timers.
    pub mono: Duration,
    /// Time since the UNIX epoch: for what other processes or a later run will read (expiry, nonces).
    pub wall: Duration,
}

impl Now {
    /// Whole seconds since the UNIX epoch.
    pub fn unix(&self) -> u64 {
        self.wall.as_secs()
    }

    /// The instant `by` later on both clocks: what tests in virtual time step with.
    pub fn plus(self, by: Duration) -> Self {
        Self { mono: self.mono + by, wall: self.wall + by }
    }
}
