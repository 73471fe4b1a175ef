//! The clock: where drivers take the time that they hand to cores.

use contract::Now;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Monotonic time since it was made, and wall time. Cheap to copy.
///
/// Monotonic time follows tokio's clock, so a test that pauses tokio's time steps it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts at zero now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now. Wall time is zero if the machine's clock stands before 1970.
    pub fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }

    /// The instant for tokio's timers at which [`Now::mono`] will be `mono`. Past the representable future: a day from now.
    pub fn instant(&self, mono: Duration) -> Instant {
        self.start.checked_add(mono).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
