//! What a room says of itself. Tones of our own, each replaced by a WAV file of the folder that has Asterisk's name.

use crate::prompt::{self, PromptError, RATE};
use rtp::resample::whole;
use rtp::tone::Generator;
use std::path::Path;
use std::sync::Arc;

/// One sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sound {
    /// Somebody came.
    Join,
    /// Somebody left.
    Leave,
    /// Key in the PIN.
    Pin,
    /// That was not it.
    Wrong,
    /// You are muted.
    Muted,
    /// You are heard again.
    Unmuted,
    /// The room is locked.
    Locked,
    /// The room is open.
    Unlocked,
    /// The keys that there are.
    Menu,
    /// While alone, over and over; also what `musicOnHold` plays.
    Music,
}

/// Name of the file; the tones otherwise, in Hz (0 is silence) and ms.
const ALL: [(Sound, &str, &[(u32, u32)]); 10] = [
    (Sound::Join, "confbridge-join", &[(660, 100), (990, 120)]),
    (Sound::Leave, "confbridge-leave", &[(990, 100), (660, 120)]),
    (Sound::Pin, "conf-getpin", &[(800, 150), (0, 80), (800, 150)]),
    (Sound::Wrong, "conf-invalidpin", &[(300, 300)]),
    (Sound::Muted, "conf-muted", &[(600, 80), (400, 120)]),
    (Sound::Unmuted, "conf-unmuted", &[(400, 80), (600, 120)]),
    (Sound::Locked, "conf-lockednow", &[(500, 80), (0, 40), (500, 80)]),
    (Sound::Unlocked, "conf-unlockednow", &[(700, 80), (0, 40), (700, 80)]),
    (Sound::Menu, "conf-usermenu", &[(700, 60), (0, 40), (900, 60)]),
    (
        Sound::Music,
        "moh",
        &[(262, 600), (330, 600), (392, 600), (523, 900), (0, 300), (392, 600), (330, 600), (294, 900), (0, 600)],
    ),
];

/// All sounds at each rate that rooms mix at.
#[derive(Debug, Clone)]
pub struct Sounds {
    narrow: Vec<(Sound, Arc<[i16]>)>,
    wide: Vec<(Sound, Arc<[i16]>)>,
}

/// The wider of the two rates.
const WIDE: u32 = 16_000;

impl Sounds {
    /// Our own, and what the folder has in their place. Blocks.
    ///
    /// # Errors
    /// A file that is there and cannot be read, with its reason: found when the service starts, not when it plays.
    pub fn load(folder: &Path) -> Result<Self, PromptError> {
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        for (sound, name, tones) in ALL {
            let samples = match prompt::samples(folder, &format!("{name}.wav")) {
                Ok(samples) => samples,
                Err(PromptError::Missing(_)) => made(tones),
                Err(unreadable) => return Err(unreadable),
            };
            wide.push((sound, whole(&samples, RATE, WIDE).into()));
            narrow.push((sound, samples.into()));
        }
        Ok(Self { narrow, wide })
    }

    /// Samples of a sound for a room that mixes at `rate`.
    pub fn at(&self, sound: Sound, rate: u32) -> Arc<[i16]> {
        let all = if rate == RATE { &self.narrow } else { &self.wide };
        all.iter().find(|(s, _)| *s == sound).map(|(_, samples)| samples.clone()).unwrap_or_default()
    }
}

/// Tones one after the other, each with soft ends.
fn made(tones: &[(u32, u32)]) -> Vec<i16> {
    let mut out = Vec::new();
    for (hertz, ms) in tones {
        let count = (ms * RATE / 1000) as usize;
        let mut tone = match hertz {
            0 => vec![0; count],
            hertz => Generator::new(&[f64::from(*hertz)], RATE, 5000).samples(count),
        };
        let edge = (count / 4).min(80);
        for n in 0..edge {
            for at in [n, count - 1 - n] {
                if let Some(sample) = tone.get_mut(at) {
                    *sample = (i32::from(*sample) * n as i32 / edge as i32) as i16;
                }
            }
        }
        out.extend(tone);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtp::tone::strongest;

    #[test]
    fn each_sound_is_there_at_both_rates_and_none_is_loud() {
        let sounds = Sounds::load(Path::new("/nowhere")).unwrap();
        for (sound, ..) in ALL {
            let (narrow, wide) = (sounds.at(sound, 8000), sounds.at(sound, 16_000));
            assert!(narrow.len() >= 1000 && wide.len() == 2 * narrow.len(), "{sound:?}");
            assert!(narrow.iter().all(|s| s.abs() <= 5000), "{sound:?}");
        }
    }

    #[test]
    fn a_file_takes_the_place_of_a_tone_and_a_bad_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 44_100,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut wav = hound::WavWriter::create(dir.path().join("confbridge-join.wav"), spec).unwrap();
        Generator::new(&[1700.0], 44_100, 9000).samples(44_100).iter().for_each(|s| wav.write_sample(*s).unwrap());
        wav.finalize().unwrap();
        let sounds = Sounds::load(dir.path()).unwrap();
        let tone = strongest(&sounds.at(Sound::Join, 16_000), 16_000).unwrap();
        assert!((tone.hz - 1700.0).abs() < 5.0 && tone.share > 0.9, "{tone:?}");
        std::fs::write(dir.path().join("conf-getpin.wav"), b"no wav").unwrap();
        let error = Sounds::load(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("prompt conf-getpin.wav: "), "{error}");
    }
}
