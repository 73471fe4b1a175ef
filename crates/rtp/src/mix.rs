//! Mixing: one sum of all, from which each takes its own again (mix-minus).

/// The sum of one frame. It holds no memory of frames before.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    total: Vec<i32>,
}

impl Sum {
    /// Begins a frame of `samples` samples in silence. Memory is asked for only when frames grow.
    pub fn clear(&mut self, samples: usize) {
        self.total.clear();
        self.total.resize(samples, 0);
    }

    /// Adds one speaker. 65,536 of them fit.
    pub fn add(&mut self, frame: &[i16]) {
        for (total, sample) in self.total.iter_mut().zip(frame) {
            *total += i32::from(*sample);
        }
    }

    /// What somebody who spoke `own` hears: all but that, limited to what a sample holds. `out` is overwritten; where
    /// `own` is shorter than the frame, nothing is taken away.
    pub fn minus(&self, own: &[i16], out: &mut [i16]) {
        let silent = self.total.len().saturating_sub(own.len());
        let own = own.iter().copied().chain(std::iter::repeat_n(0, silent));
        for ((out, total), own) in out.iter_mut().zip(&self.total).zip(own) {
            *out = limit(total - i32::from(own));
        }
    }

    /// What somebody hears who does not speak.
    pub fn all(&self, out: &mut [i16]) {
        for (out, total) in out.iter_mut().zip(&self.total) {
            *out = limit(*total);
        }
    }
}

fn limit(sum: i32) -> i16 {
    sum.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// Adds `frame` to `onto`, limited.
pub fn add(onto: &mut [i16], frame: &[i16]) {
    for (sample, more) in onto.iter_mut().zip(frame) {
        *sample = sample.saturating_add(*more);
    }
}

/// Makes samples louder or softer by whole steps of 3 dB, limited.
pub fn amplify(samples: &mut [i16], steps: i8) {
    if steps != 0 {
        let factor = (10f64.powf(f64::from(steps) * 0.15) * 4096.0) as i64;
        for sample in samples {
            *sample = ((i64::from(*sample) * factor) >> 12).clamp(-32768, 32767) as i16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{Generator, goertzel};
    use proptest::prelude::*;

    #[test]
    fn each_hears_the_others_and_not_itself() {
        let tones = [440.0, 880.0, 1320.0];
        let voices = tones.map(|hz| Generator::new(&[hz], 8000, 9000).samples(8000));
        let mut sum = Sum::default();
        sum.clear(8000);
        voices.iter().for_each(|v| sum.add(v));
        for (at, voice) in voices.iter().enumerate() {
            let mut heard = vec![0; 8000];
            sum.minus(voice, &mut heard);
            for (other, hz) in tones.iter().enumerate() {
                let share = goertzel(&heard, 8000, *hz);
                assert!(if other == at { share < 1e-6 } else { share > 0.49 }, "{at} {hz} {share}");
            }
        }
    }

    #[test]
    fn loudness_goes_by_3_db() {
        let mut samples = [1000, -1000, 30_000];
        amplify(&mut samples, 2);
        assert_eq!(samples, [1995, -1996, 32767]);
        amplify(&mut samples, -2);
        assert!((999..=1001).contains(&samples[0]), "{samples:?}");
    }

    proptest! {
        /// Whatever is said: the sum without one's own is that of the others, limited once at the end.
        #[test]
        fn minus_is_the_sum_of_the_others(voices in proptest::collection::vec(proptest::collection::vec(any::<i16>(), 4), 1..60)) {
            let mut sum = Sum::default();
            sum.clear(4);
            voices.iter().for_each(|v| sum.add(v));
            let (mut heard, mut all) = ([0i16; 4], [0i16; 4]);
            sum.minus(&voices[0], &mut heard);
            sum.all(&mut all);
            for i in 0..4 {
                let others: i64 = voices.iter().skip(1).map(|v| i64::from(v[i])).sum();
                prop_assert_eq!(i64::from(heard[i]), others.clamp(-32768, 32767));
                prop_assert_eq!(i64::from(all[i]), (others + i64::from(voices[0][i])).clamp(-32768, 32767));
            }
        }
    }
}
