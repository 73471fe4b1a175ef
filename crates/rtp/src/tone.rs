//! Tones: made for tests and prompts, and found again in what was heard.

use std::f64::consts::TAU;

/// Makes sine tones, continuous over calls.
#[derive(Debug, Clone)]
pub struct Generator {
    /// Phase and step of each frequency, in turns.
    parts: Vec<(f64, f64)>,
    amplitude: f64,
}

impl Generator {
    /// The sum of `frequencies` (Hz) at sampling `rate` (Hz), peak `amplitude` (0..=32767) in all.
    pub fn new(frequencies: &[f64], rate: u32, amplitude: i16) -> Generator {
        let parts: Vec<_> = frequencies.iter().map(|f| (0.0, f / f64::from(rate.max(1)))).collect();
        let amplitude = f64::from(amplitude) / (parts.len().max(1) as f64);
        Generator { parts, amplitude }
    }

    /// The next `count` samples.
    pub fn samples(&mut self, count: usize) -> Vec<i16> {
        let mut one = || {
            let mut sum = 0.0;
            for (phase, step) in &mut self.parts {
                sum += (*phase * TAU).sin();
                *phase = (*phase + *step).fract();
            }
            (sum * self.amplitude).round() as i16
        };
        (0..count).map(|_| one()).collect()
    }
}

/// Share (0..=1) of the samples' energy at `frequency` (Hz), by Goertzel's algorithm: 1 for a pure tone, near 0 for
/// noise and for tones more than a few `rate / samples.len()` away.
pub fn goertzel(samples: &[i16], rate: u32, frequency: f64) -> f64 {
    let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    if energy == 0.0 || rate == 0 {
        return 0.0;
    }
    let coefficient = 2.0 * (TAU * frequency / f64::from(rate)).cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for sample in samples {
        let s0 = f64::from(*sample) + coefficient * s1 - s2;
        (s2, s1) = (s1, s0);
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    (2.0 * power / (energy * samples.len() as f64)).clamp(0.0, 1.0)
}

/// The strongest tone of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tone {
    /// Frequency in Hz, to about a tenth of a bin.
    pub hz: f64,
    /// Share of all energy that stands around it, 0..=1.
    pub share: f64,
    /// Root mean square of the whole recording, in sample units.
    pub level: f64,
}

/// Most samples a spectrum is made of.
const WINDOW: usize = 8192;

/// The strongest tone in `samples`, by the spectra of windows of up to 8192 samples added up. `None` when there are
/// fewer than 256 samples or all is silent.
pub fn strongest(samples: &[i16], rate: u32) -> Option<Tone> {
    if samples.len() < 256 || rate == 0 {
        return None;
    }
    let window = WINDOW.min(1 << (usize::BITS - 1 - samples.len().leading_zeros()));
    let mut sum = vec![0.0; window / 2];
    for part in samples.chunks_exact(window) {
        for (total, power) in sum.iter_mut().zip(spectrum(part)) {
            *total += power;
        }
    }
    // The two lowest bins hold the window's image of a constant.
    sum.iter_mut().take(2).for_each(|p| *p = 0.0);
    let all: f64 = sum.iter().sum();
    let (bin, peak) = sum.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    if all <= 0.0 || peak <= 0.0 {
        return None;
    }
    let at = |i: usize| sum.get(i).copied().unwrap_or(0.0).max(1e-30).ln();
    let (left, middle, right) = (at(bin.saturating_sub(1)), at(bin), at(bin + 1));
    let curve = left - 2.0 * middle + right;
    let offset = if curve.abs() > 1e-9 { (0.5 * (left - right) / curve).clamp(-0.5, 0.5) } else { 0.0 };
    let near: f64 = sum.iter().skip(bin.saturating_sub(3)).take(7).sum();
    let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
    Some(Tone {
        hz: (bin as f64 + offset) * f64::from(rate) / window as f64,
        share: near / all,
        level: (energy / samples.len() as f64).sqrt(),
    })
}

/// Powers of the bins 0..n/2 of a Hann window over `samples`, whose length is a power of two.
fn spectrum(samples: &[i16]) -> Vec<f64> {
    let n = samples.len();
    let hann = |i: usize| 0.5 - 0.5 * (TAU * i as f64 / n as f64).cos();
    let mut re: Vec<f64> = samples.iter().enumerate().map(|(i, s)| f64::from(*s) * hann(i)).collect();
    let mut im = vec![0.0; n];
    fft(&mut re, &mut im);
    re.iter().zip(&im).take(n / 2).map(|(r, i)| r * r + i * i).collect()
}

/// In-place radix-2 transform; lengths are the same power of two.
fn fft(re: &mut [f64], im: &mut [f64]) {
    let n = re.len();
    let bits = n.trailing_zeros();
    for i in 0..n {
        let j = i.reverse_bits() >> (usize::BITS - bits);
        if i < j {
            re.swap(i, j);
            im.swap(i, j);
        }
    }
    let mut half = 1;
    while half < n {
        let (step_sin, step_cos) = (-TAU / (2 * half) as f64).sin_cos();
        for start in (0..n).step_by(2 * half) {
            let (mut cos, mut sin) = (1.0, 0.0);
            for i in start..start + half {
                let j = i + half;
                let (r, m) = (re[j] * cos - im[j] * sin, re[j] * sin + im[j] * cos);
                (re[j], im[j]) = (re[i] - r, im[i] - m);
                (re[i], im[i]) = (re[i] + r, im[i] + m);
                (cos, sin) = (cos * step_cos - sin * step_sin, cos * step_sin + sin * step_cos);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::g711::Law;

    #[test]
    fn finds_the_tone_that_was_made() {
        for (hz, count) in [(300.0, 256), (440.0, 8000), (1004.0, 8192), (3400.0, 80_000), (697.0, 400)] {
            let heard = Law::Mu.decode(&Law::Mu.encode(&Generator::new(&[hz], 8000, 8000).samples(count)));
            let tone = strongest(&heard, 8000).unwrap();
            let bin = 8000.0 / (count.min(8192) as f64);
            assert!((tone.hz - hz).abs() < bin.max(0.5), "{hz}: {tone:?}");
            assert!(tone.share > 0.97, "{hz}: {tone:?}");
            assert!((tone.level / (8000.0 / 2f64.sqrt()) - 1.0).abs() < 0.05, "{tone:?}");
        }
    }

    #[test]
    fn noise_and_silence_are_no_tone() {
        assert_eq!(strongest(&[0; 8000], 8000), None);
        assert_eq!(strongest(&[9; 200], 8000), None);
        let mut x = 1u32;
        let noise: Vec<i16> = (0..16000)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 18) as i16 - 8192
            })
            .collect();
        assert!(strongest(&noise, 8000).unwrap().share < 0.1);
        assert!(goertzel(&noise, 8000, 1000.0) < 0.1);
    }

    #[test]
    fn goertzel_tells_tones_apart() {
        let both = Generator::new(&[697.0, 1209.0], 8000, 16000).samples(800);
        for (hz, low, high) in [(697.0, 0.4, 0.6), (1209.0, 0.4, 0.6), (941.0, 0.0, 0.02)] {
            let share = goertzel(&both, 8000, hz);
            assert!((low..=high).contains(&share), "{hz} {share}");
        }
        assert!(goertzel(&Generator::new(&[1000.0], 8000, 1000).samples(800), 8000, 1000.0) > 0.99);
        assert_eq!(goertzel(&[], 8000, 1000.0), 0.0);
    }

    #[test]
    fn a_tone_goes_on_over_calls() {
        let mut a = Generator::new(&[440.0], 8000, 10000);
        let pieces: Vec<i16> = (0..50).flat_map(|_| a.samples(160)).collect();
        assert_eq!(pieces, Generator::new(&[440.0], 8000, 10000).samples(8000));
    }
}
