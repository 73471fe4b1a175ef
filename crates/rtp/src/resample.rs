//! Resampling between the rates of codecs: a polyphase filter over a stream of frames, and whole recordings at once.

use std::collections::VecDeque;
use std::f64::consts::PI;

/// Reach of the filter to each side, in samples of the lower rate.
const REACH: usize = 8;
/// Phases of a stream at most: 44.1 to 48 kHz needs 160, 11.025 to 48 kHz 640.
const MOST_PHASES: u64 = 1024;

/// Changes the rate of a stream frame by frame. Its delay is [`REACH`] samples of the lower rate, 1 ms at 8 kHz.
#[derive(Debug, Clone)]
pub struct Resampler {
    /// Taps of each phase.
    phases: Vec<Vec<f32>>,
    /// Input samples that an output goes on by, in phases.
    step: usize,
    phase: usize,
    history: VecDeque<f32>,
    taps: usize,
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Windowed sinc at `x` input samples from its centre; `cutoff` in cycles an input sample.
fn kernel(x: f64, cutoff: f64, reach: f64) -> f64 {
    if x.abs() >= reach {
        return 0.0;
    }
    let sinc = if x == 0.0 { 2.0 * cutoff } else { (2.0 * PI * cutoff * x).sin() / (PI * x) };
    sinc * (0.5 + 0.5 * (PI * x / reach).cos())
}

impl Resampler {
    /// From one rate to another, in Hz. `None` when they are the same, when one is 0, or when their ratio is no small
    /// fraction.
    pub fn new(from: u32, to: u32) -> Option<Self> {
        if from == to || from == 0 || to == 0 {
            return None;
        }
        let common = gcd(from.into(), to.into());
        let (up, down) = (u64::from(to) / common, u64::from(from) / common);
        if up > MOST_PHASES || down > MOST_PHASES {
            return None;
        }
        let (wide, narrow) = (f64::from(from), f64::from(from.min(to)));
        let cutoff = 0.45 * narrow / wide;
        let reach = REACH as f64 * wide / narrow;
        let taps = (2.0 * reach).ceil() as usize;
        let phase = |p: u64| {
            let at = p as f64 / up as f64 + taps as f64 / 2.0 - 1.0;
            let raw: Vec<f64> = (0..taps).map(|t| kernel(t as f64 - at, cutoff, reach)).collect();
            // Each phase passes a constant as it is, so that none of them is heard.
            let sum: f64 = raw.iter().sum();
            raw.iter().map(|w| (w / sum) as f32).collect()
        };
        let phases = (0..up).map(phase).collect();
        let history = std::iter::repeat_n(0.0, taps - 1).collect();
        Some(Self { phases, step: down as usize, phase: 0, history, taps })
    }

    /// Appends what a frame becomes. Over a stream exactly `to / from` of its samples come out.
    pub fn process(&mut self, frame: &[i16], out: &mut Vec<i16>) {
        self.history.extend(frame.iter().map(|s| f32::from(*s)));
        let samples = self.history.make_contiguous();
        let mut start = 0;
        while let (Some(window), Some(taps)) = (samples.get(start..start + self.taps), self.phases.get(self.phase)) {
            let sum: f32 = window.iter().zip(taps).map(|(s, w)| s * w).sum();
            out.push(sum.round().clamp(-32768.0, 32767.0) as i16);
            self.phase += self.step;
            start += self.phase / self.phases.len();
            self.phase %= self.phases.len();
        }
        self.history.drain(..start.min(self.history.len()));
    }
}

/// A whole recording at another rate, without delay, any ratio: what the lower rate cannot carry does not fold back.
pub fn whole(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to || from == 0 || to == 0 {
        return samples.to_vec();
    }
    let (rate, wanted) = (f64::from(from), f64::from(to));
    let cutoff = 0.45 * rate.min(wanted) / rate;
    let reach = REACH as f64 * rate / rate.min(wanted);
    let count = (samples.len() as u64 * u64::from(to) / u64::from(from)) as usize;
    let one = |n: usize| {
        let centre = n as f64 * rate / wanted;
        let first = (centre - reach).ceil().max(0.0) as usize;
        let last = ((centre + reach).floor() as usize).min(samples.len().saturating_sub(1));
        let (mut sum, mut weight) = (0.0, 0.0);
        for (at, sample) in samples.iter().enumerate().take(last + 1).skip(first) {
            let w = kernel(at as f64 - centre, cutoff, reach);
            sum += w * f64::from(*sample);
            weight += w;
        }
        if weight > 0.0 { (sum / weight).round().clamp(-32768.0, 32767.0) as i16 } else { 0 }
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{Generator, goertzel, strongest};

    #[test]
    fn a_stream_keeps_its_tone_and_its_length_at_each_rate() {
        for (from, to) in [
            (8000, 16_000),
            (16_000, 8000),
            (8000, 48_000),
            (48_000, 8000),
            (16_000, 48_000),
            (48_000, 16_000),
            (44_100, 8000),
        ] {
            let mut stream = Resampler::new(from, to).unwrap();
            let mut out = Vec::new();
            let said = Generator::new(&[700.0], from, 12_000).samples(from as usize);
            said.chunks(from as usize / 50).for_each(|frame| stream.process(frame, &mut out));
            assert!(out.len().abs_diff(to as usize) <= 1, "{from} {to} {}", out.len());
            let tone = strongest(&out, to).unwrap();
            assert!((tone.hz - 700.0).abs() < 3.0 && tone.share > 0.97, "{from} {to} {tone:?}");
            assert!((tone.level - 12_000.0 / 2f64.sqrt()).abs() < 400.0, "{from} {to} {tone:?}");
        }
        assert!(Resampler::new(8000, 8000).is_none() && Resampler::new(0, 8000).is_none());
    }

    #[test]
    fn each_frame_gives_its_share() {
        let mut stream = Resampler::new(16_000, 8000).unwrap();
        for _ in 0..50 {
            let mut out = Vec::new();
            stream.process(&[500; 320], &mut out);
            assert_eq!(out.len(), 160);
        }
        let mut up = Resampler::new(8000, 16_000).unwrap();
        for n in 0..50 {
            let mut out = Vec::new();
            up.process(&[500; 160], &mut out);
            assert_eq!(out.len(), 320);
            assert!(n == 0 || out.iter().all(|s| *s == 500), "{out:?}");
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_gone() {
        let both = Generator::new(&[440.0, 6600.0], 16_000, 20_000).samples(16_000);
        let mut streamed = Vec::new();
        let mut stream = Resampler::new(16_000, 8000).unwrap();
        both.chunks(320).for_each(|f| stream.process(f, &mut streamed));
        for heard in [streamed, whole(&both, 16_000, 8000)] {
            assert!(goertzel(&heard, 8000, 1400.0) < 0.002);
            assert!(goertzel(&heard, 8000, 440.0) > 0.95);
        }
    }
}
