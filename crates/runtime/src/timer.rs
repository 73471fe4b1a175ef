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

    #[tokio::test]
    async fn sleeps_until_the_deadline_and_forever_without_one() {
        let clock = Clock::new();
        sleep_until_mono(clock, Some(Duration::from_millis(30))).await;
        assert!(clock.now().mono >= Duration::from_millis(30));
        let past = sleep_until_mono(clock, Some(Duration::ZERO));
        assert!(tokio::time::timeout(Duration::from_secs(5), past).await.is_ok());
        // A deadline past all that can be told is no panic.
        for never in [None, Some(Duration::MAX)] {
            let sleep = sleep_until_mono(clock, never);
            assert!(tokio::time::timeout(Duration::from_millis(30), sleep).await.is_err());
        }
    }
}
