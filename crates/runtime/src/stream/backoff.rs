//! How long to wait before the next try: twice as long each time, with jitter, so that many do not come at once.

use rand::Rng;
use std::time::Duration;

/// Waits between two bounds.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, next: least }
    }

    /// After a success: begins anew.
    pub(super) fn reset(&mut self) {
        self.next = self.least;
    }

    /// After a failure: half to all of the present step, which then doubles.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let wait = self.next.mul_f64(rng.random_range(0.5..=1.0));
        self.next = (self.next * 2).min(self.most);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waits_double_up_to_the_bound_and_begin_anew() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next(&mut rng);
            assert!(wait >= ms(step / 2) && wait <= ms(step), "{step}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= ms(100));
    }
}
