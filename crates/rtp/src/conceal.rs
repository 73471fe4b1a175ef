//! Loss concealment: what was said last is said again by its pitch, softer and softer (after G.711 Appendix I).

/// Milliseconds kept to find a pitch in.
const HISTORY_MS: usize = 40;
/// Milliseconds of a lost stretch until nothing is left of it.
const FADE_MS: usize = 80;
/// Milliseconds over which what was made up goes over into what came.
const BLEND_MS: usize = 4;

/// One leg's concealment, at its codec's rate.
#[derive(Debug, Clone)]
pub struct Conceal {
    per_ms: usize,
    history: Vec<i16>,
    /// The period that is repeated, while frames are missing.
    period: Vec<i16>,
    /// Samples made up since the last that came.
    made: usize,
}

impl Conceal {
    /// Nothing heard yet. `rate` in Hz.
    pub fn new(rate: u32) -> Self {
        let per_ms = (rate / 1000).max(1) as usize;
        Self { per_ms, history: Vec::with_capacity(HISTORY_MS * per_ms), period: Vec::new(), made: 0 }
    }

    /// A frame came: its beginning goes over from what was made up.
    pub fn came(&mut self, frame: &mut [i16]) {
        if self.made > 0 {
            let blend = (BLEND_MS * self.per_ms).min(frame.len());
            for n in 0..blend {
                let made = i32::from(self.next());
                if let Some(sample) = frame.get_mut(n) {
                    let share = (n + 1) as i32;
                    *sample = ((i32::from(*sample) * share + made * (blend as i32 - share)) / blend as i32) as i16;
                }
            }
            self.made = 0;
            self.period.clear();
        }
        let most = HISTORY_MS * self.per_ms;
        let take = frame.len().min(most);
        let keep = most - take;
        let surplus = self.history.len().saturating_sub(keep);
        self.history.drain(..surplus);
        self.history.extend(frame.iter().skip(frame.len() - take));
    }

    /// A frame is missing: appends `samples` made up.
    pub fn missing(&mut self, samples: usize, out: &mut Vec<i16>) {
        if self.period.is_empty() {
            let pitch = self.pitch();
            let from = self.history.len().saturating_sub(pitch);
            self.period.extend(self.history.iter().skip(from));
        }
        for _ in 0..samples {
            let sample = self.next();
            out.push(sample);
        }
    }

    fn next(&mut self) -> i16 {
        let fade = FADE_MS * self.per_ms;
        let left = fade.saturating_sub(self.made);
        let at = if self.period.is_empty() { 0 } else { self.made % self.period.len() };
        self.made += 1;
        let sample = self.period.get(at).copied().unwrap_or(0);
        (i64::from(sample) * left as i64 / fade as i64) as i16
    }

    /// The shift, 2.5 to 15 ms, at which the end of the history is most like itself.
    fn pitch(&self) -> usize {
        let (least, most, window) = (self.per_ms * 5 / 2, self.per_ms * 15, self.per_ms * 20);
        let all = self.history.len();
        if all < window + most {
            return all.min(most);
        }
        let end = self.history.get(all - window..).unwrap_or_default();
        // Every second sample tells enough of a pitch.
        let likeness = |shift: usize| {
            let before = self.history.get(all - window - shift..all - shift).unwrap_or_default();
            let (mut both, mut energy) = (0i64, 1i64);
            for (a, b) in end.iter().zip(before).step_by(2) {
                both += i64::from(*a) * i64::from(*b);
                energy += i64::from(*b) * i64::from(*b);
            }
            both as f64 / (energy as f64).sqrt()
        };
        let scored = (least..=most).map(|shift| (shift, likeness(shift)));
        scored.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(most, |(shift, _)| shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{Generator, strongest};

    #[test]
    fn a_voice_goes_on_over_a_gap_and_fades() {
        for rate in [8000, 16_000] {
            let frame = rate as usize / 50;
            let said = Generator::new(&[200.0], rate, 10_000).samples(frame * 50);
            let mut conceal = Conceal::new(rate);
            let mut heard = Vec::new();
            for (n, part) in said.chunks(frame).enumerate() {
                if n % 10 == 7 {
                    conceal.missing(frame, &mut heard);
                } else {
                    let mut part = part.to_vec();
                    conceal.came(&mut part);
                    heard.extend(part);
                }
            }
            // Without concealment a tenth of the energy would be spread over the spectrum.
            let tone = strongest(&heard, rate).unwrap();
            assert!((tone.hz - 200.0).abs() < 3.0 && tone.share > 0.97, "{tone:?}");
            let mut tail = Vec::new();
            (0..5).for_each(|_| conceal.missing(frame, &mut tail));
            assert!(tail.iter().take(frame).any(|s| s.abs() > 5000));
            assert!(tail.iter().skip(4 * frame).all(|s| *s == 0));
        }
    }

    #[test]
    fn with_nothing_heard_there_is_silence() {
        let mut conceal = Conceal::new(8000);
        let mut out = Vec::new();
        conceal.missing(160, &mut out);
        assert_eq!(out, vec![0; 160]);
        let mut first = [1000; 160];
        conceal.came(&mut first);
        assert_eq!(first[159], 1000);
        conceal.missing(160, &mut out);
        assert!(out[160..].iter().any(|s| *s > 500));
    }
}
