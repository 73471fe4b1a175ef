//! Timers that fit a core's `deadline()`.

use crate::clock::Clock;
use std::time::Duration;

/// Returns when the clock's monotonic time reaches `deadline`; at once if that is past, never if there is none.
/// Made anew on every turn of a driver's `select!`: it holds nothing.
pub async fn sleep_until_mono(clock: Clock, deadline: Option<Duration>) {
    match deadline {
        Some(mono) => tokio::time::sleep_until(clock.instant(mono)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sleeps_until_the_deadline_and_forever_without_one() {
        let clock = Clock::new();
        sleep_until_mono(clock, Some(Duration::from_secs(32))).await;
        assert_eq!(clock.now().mono.as_secs(), 32);
        sleep_until_mono(clock, Some(Duration::from_secs(1))).await;
        assert_eq!(clock.now().mono.as_secs(), 32);
        let never = tokio::time::timeout(Duration::from_secs(3600), sleep_until_mono(clock, None)).await;
        assert!(never.is_err());
    }
}
