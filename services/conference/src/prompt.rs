//! Prompts: WAV files out of one folder, brought to 8 kHz mono. Reading is the driver's, on a thread for it.

use dialplan::Prompt;
use rtp::resample::whole;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Samples a second of all that is played.
pub const RATE: u32 = 8000;
/// A file that plays longer is refused.
const MAX_SECONDS: u32 = 1800;
/// A file of more bytes is not opened.
const MAX_BYTES: u64 = 256 << 20;

/// Why a prompt cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// No such file in the folder.
    #[error("no prompt {0}")]
    Missing(String),
    /// It is there, and is not a WAV file that we read.
    #[error("prompt {name}: {why}")]
    Unreadable {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// One part of what is played.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Recorded sound at 8 kHz.
    Samples(Vec<i16>),
    /// So many samples of a sine tone of so many hertz.
    Tone(u32, u64),
}

/// Loads prompts in order out of `folder`. Blocks.
pub fn load(folder: &Path, prompts: &[Prompt]) -> Result<Vec<Part>, PromptError> {
    let part = |prompt: &Prompt| match prompt {
        Prompt::Tone { hertz, duration } => {
            Ok(Part::Tone(*hertz, u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) / 10 * u64::from(RATE) / 100))
        }
        Prompt::File(name) => samples(folder, name).map(Part::Samples),
    };
    prompts.iter().map(part).collect()
}

/// The samples of one file out of `folder`. Blocks.
pub fn samples(folder: &Path, name: &str) -> Result<Vec<i16>, PromptError> {
    let path = find(folder, name)?;
    read(&path).map_err(|why| PromptError::Unreadable { name: name.to_owned(), why })
}

/// The file of this name. Whatever the name and whatever links the folder holds, what is opened lies within it.
fn find(folder: &Path, name: &str) -> Result<PathBuf, PromptError> {
    let missing = || PromptError::Missing(name.to_owned());
    let root = folder.canonicalize().map_err(|_| missing())?;
    let path = root.join(name).canonicalize().map_err(|_| missing())?;
    if path.starts_with(&root) && path.is_file() { Ok(path) } else { Err(missing()) }
}

fn read(path: &Path) -> Result<Vec<i16>, String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    if file.metadata().map_err(|e| e.to_string())?.len() > MAX_BYTES {
        return Err("larger than 256 MiB".into());
    }
    let mut wav = hound::WavReader::new(BufReader::new(file)).map_err(|e| e.to_string())?;
    let spec = wav.spec();
    if spec.sample_format != hound::SampleFormat::Int || spec.bits_per_sample != 16 {
        return Err("not 16-bit PCM".into());
    }
    if !(1..=2).contains(&spec.channels) || !(4000..=192_000).contains(&spec.sample_rate) {
        return Err("not mono or stereo at 4 to 192 kHz".into());
    }
    if wav.duration() / spec.sample_rate > MAX_SECONDS {
        return Err("longer than 30 minutes".into());
    }
    let samples: Vec<i16> = wav.samples::<i16>().collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mono = match spec.channels {
        2 => samples.chunks_exact(2).map(|p| ((i32::from(p[0]) + i32::from(p[1])) / 2) as i16).collect(),
        _ => samples,
    };
    Ok(whole(&mono, spec.sample_rate, RATE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtp::tone::{Generator, strongest};

    pub(crate) fn write_wav(path: &Path, rate: u32, channels: u16, frequencies: &[f64], seconds: f64) {
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut wav = hound::WavWriter::create(path, spec).unwrap();
        for sample in Generator::new(frequencies, rate, 12_000).samples((f64::from(rate) * seconds) as usize) {
            (0..channels).for_each(|_| wav.write_sample(sample).unwrap());
        }
        wav.finalize().unwrap();
    }

    #[test]
    fn any_rate_becomes_8_khz_with_its_tone_and_without_what_is_above() {
        let dir = tempfile::tempdir().unwrap();
        for (rate, channels) in [(8000, 1), (8000, 2), (16_000, 1), (44_100, 2), (48_000, 1), (11_025, 1), (6000, 1)] {
            let path = dir.path().join("t.wav");
            write_wav(&path, rate, channels, &[440.0], 1.0);
            let parts = load(dir.path(), &[Prompt::File("t.wav".into())]).unwrap();
            let [Part::Samples(samples)] = &parts[..] else { panic!("{parts:?}") };
            assert!(samples.len().abs_diff(8000) <= 1, "{rate}: {}", samples.len());
            let tone = strongest(samples, 8000).unwrap();
            assert!((tone.hz - 440.0).abs() < 2.0 && tone.share > 0.95, "{rate}: {tone:?}");
            assert!((tone.level - 12_000.0 / 2f64.sqrt()).abs() < 400.0, "{rate}: {tone:?}");
        }
    }

    #[test]
    fn a_name_does_not_leave_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, outside) = (dir.path().join("sounds"), dir.path().join("outside.wav"));
        std::fs::create_dir_all(folder.join("de")).unwrap();
        write_wav(&outside, 8000, 1, &[440.0], 0.1);
        write_wav(&folder.join("de/a.wav"), 8000, 1, &[440.0], 0.1);
        std::os::unix::fs::symlink(&outside, folder.join("link.wav")).unwrap();
        let absolute = outside.to_str().unwrap();
        let inside = folder.join("de/a.wav");
        for name in ["../outside.wav", "de/../../outside.wav", "link.wav", absolute, "none.wav", "de", ""] {
            let got = load(&folder, &[Prompt::File(name.into())]);
            assert!(matches!(got, Err(PromptError::Missing(_))), "{name}: {got:?}");
        }
        for name in ["de/a.wav", "./de/a.wav", inside.to_str().unwrap()] {
            assert!(load(&folder, &[Prompt::File(name.into())]).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_is_no_wav_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("noise.wav"), b"RIFF....not really").unwrap();
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 8,
            sample_format: hound::SampleFormat::Int,
        };
        hound::WavWriter::create(dir.path().join("eight.wav"), spec).unwrap().finalize().unwrap();
        for name in ["noise.wav", "eight.wav"] {
            let got = load(dir.path(), &[Prompt::File(name.into())]);
            assert!(matches!(got, Err(PromptError::Unreadable { .. })), "{name}: {got:?}");
        }
    }

    #[test]
    fn a_tone_lasts_as_long_as_it_says() {
        let tone = Prompt::Tone { hertz: 440, duration: std::time::Duration::from_millis(1000) };
        assert_eq!(load(Path::new("/nowhere"), &[tone]).unwrap(), [Part::Tone(440, 8000)]);
    }
}
