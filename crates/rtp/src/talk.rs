//! Who talks: the level of frames against the floor of their noise, with a hangover so that words do not break up.

/// Mean magnitude below which nobody talks, whatever the noise: about -52 dBm0.
const LEAST: u32 = 80;
/// Loud frames before it counts as talk: 60 ms.
const ATTACK: u8 = 3;
/// Quiet frames before it counts as silence: 500 ms.
const HANGOVER: u8 = 25;

/// One leg's talk detection, 20 ms a frame.
#[derive(Debug, Clone)]
pub struct Talk {
    /// Mean magnitude of the noise, times 16.
    floor: u32,
    run: u8,
    talking: bool,
}

impl Default for Talk {
    fn default() -> Self {
        Self { floor: LEAST * 16, run: 0, talking: false }
    }
}

impl Talk {
    /// A frame went by; whether it began or ended talk.
    pub fn frame(&mut self, samples: &[i16]) -> Option<bool> {
        let count = u32::try_from(samples.len()).unwrap_or(u32::MAX).max(1);
        let sum: u32 = samples.iter().map(|s| u32::from(s.unsigned_abs())).sum();
        let level = sum / count;
        let loud = level > LEAST && level * 16 > self.floor * 2;
        // The floor falls fast and rises slowly: to twice itself in five seconds of steady noise.
        self.floor = if level * 16 < self.floor {
            (self.floor * 7 + level * 16) / 8
        } else {
            (self.floor + self.floor / 256 + 1).min(level * 16)
        }
        .max(LEAST * 4);
        if loud == self.talking {
            self.run = 0;
            return None;
        }
        self.run += 1;
        if self.run < if self.talking { HANGOVER } else { ATTACK } {
            return None;
        }
        (self.talking, self.run) = (loud, 0);
        Some(loud)
    }

    /// Whether somebody talks now.
    pub fn talking(&self) -> bool {
        self.talking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::Generator;

    fn run(talk: &mut Talk, amplitude: i16, frames: usize) -> Vec<(usize, bool)> {
        let mut tone = Generator::new(&[300.0, 800.0], 8000, amplitude);
        (0..frames).filter_map(|n| talk.frame(&tone.samples(160)).map(|t| (n, t))).collect()
    }

    #[test]
    fn talk_begins_soon_and_ends_late() {
        let mut talk = Talk::default();
        assert_eq!(run(&mut talk, 60, 100), []);
        assert_eq!(run(&mut talk, 6000, 50), [(2, true)]);
        // A pause between words is not silence.
        assert_eq!(run(&mut talk, 60, 20), []);
        assert_eq!(run(&mut talk, 6000, 20), []);
        assert_eq!(run(&mut talk, 60, 50), [(24, false)]);
        assert!(!talk.talking());
    }

    #[test]
    fn one_click_is_no_talk() {
        let mut talk = Talk::default();
        assert_eq!(run(&mut talk, 20_000, 1), []);
        assert_eq!(run(&mut talk, 0, 50), []);
    }
}
