//! Audio is judged by its spectrum.

use anyhow::{Context, Result, ensure};
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use std::path::Path;

/// The bytes before the samples of a WAV file of 16-bit PCM.
const HEADER: usize = 44;

/// How many seconds of a recording are a tone of `hz` (within 20 Hz), in steps of a tenth.
pub fn seconds_of(recording: &Path, hz: f64) -> Result<f64> {
    let (samples, rate) = read(recording)?;
    let found = samples.chunks_exact(rate / 10).filter(|window| share_of(window, hz, rate) > 0.8).count();
    Ok(found as f64 / 10.0)
}

/// Samples of the first channel, and the rate.
fn read(recording: &Path) -> Result<(Vec<f64>, usize)> {
    let mut reader = hound::WavReader::open(recording).with_context(|| recording.display().to_string())?;
    let spec = reader.spec();
    let step = spec.channels as usize;
    let rate = spec.sample_rate as usize;
    if reader.len() == 0 {
        // A header that is written when the recording is closed, which may be a moment after the call's end.
        let bytes = std::fs::read(recording)?;
        let samples = bytes.get(HEADER..).unwrap_or_default().chunks_exact(2);
        let samples = samples.map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]]))).step_by(step);
        return Ok((samples.collect(), rate));
    }
    // A recording that is cut off by the phone's end has a header that says less; what can be read counts.
    let samples = reader.samples::<i16>().map_while(Result::ok).step_by(step).map(f64::from).collect();
    Ok((samples, rate))
}

/// The share (0..=1) of a recording's energy within 20 Hz of `hz`, over all of it in windows of a second, the median
/// window. Fails where there is less than `seconds` of it.
pub fn share(recording: &Path, hz: f64, seconds: f64) -> Result<f64> {
    let name = recording.display().to_string();
    let (samples, rate) = read(recording)?;
    let length = samples.len() as f64 / rate as f64;
    ensure!(length >= seconds, "{name}: {length:.1} s recorded, {seconds} s wanted");
    let mut shares: Vec<f64> = samples.chunks_exact(rate).map(|window| share_of(window, hz, rate)).collect();
    ensure!(!shares.is_empty(), "{name}: less than a second");
    shares.sort_by(f64::total_cmp);
    Ok(shares[shares.len() / 2])
}

/// The same of its last second alone.
pub fn last_share(recording: &Path, hz: f64) -> Result<f64> {
    let (samples, rate) = read(recording)?;
    let name = recording.display();
    let from = samples.len().checked_sub(rate).with_context(|| format!("{name}: less than a second"))?;
    Ok(share_of(&samples[from..], hz, rate))
}

fn share_of(window: &[f64], hz: f64, rate: usize) -> f64 {
    let mut bins: Vec<Complex<f64>> = window.iter().map(|s| Complex::new(*s, 0.0)).collect();
    FftPlanner::new().plan_fft_forward(bins.len()).process(&mut bins);
    let power: Vec<f64> = bins[1..bins.len() / 2].iter().map(|b| b.norm_sqr()).collect();
    let total: f64 = power.iter().sum();
    let width = rate as f64 / window.len() as f64;
    let near = |i: usize| (((i + 1) as f64) * width - hz).abs() <= 20.0;
    let found: f64 = power.iter().enumerate().filter(|(i, _)| near(*i)).map(|(_, p)| p).sum();
    // Silence has no tone: power below one step of 16 bits does not count.
    if total < window.len() as f64 { 0.0 } else { found / total }
}

/// Writes a WAV file of a tone: 8 kHz, mono.
pub fn write_tone(path: &Path, hz: f64, seconds: u32) -> Result<()> {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: 8000, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec)?;
    for i in 0..8000 * seconds {
        let angle = f64::from(i) / 8000.0 * hz * std::f64::consts::TAU;
        writer.write_sample((angle.sin() * 10_000.0) as i16)?;
    }
    Ok(writer.finalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_is_found_where_it_is_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.wav");
        write_tone(&file, 440.0, 3).unwrap();
        assert!(share(&file, 440.0, 2.5).unwrap() > 0.99);
        assert!(share(&file, 880.0, 2.5).unwrap() < 0.01);
        assert!(share(&file, 440.0, 3.5).is_err());
        // Its length is not written yet.
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[40..44].fill(0);
        std::fs::write(&file, &bytes).unwrap();
        assert!(share(&file, 440.0, 2.5).unwrap() > 0.99);
        write_tone(&file, 0.0, 3).unwrap();
        assert!(share(&file, 440.0, 2.5).unwrap() < 0.01);
    }
}
