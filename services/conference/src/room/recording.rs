//! Recordings: frames go to a thread that writes the WAV file, so that no disk holds up the sound.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Frames that may wait for the disk: 5 s. What comes beyond is lost, and said once the file is closed.
const WAITING: usize = 250;

/// A recording under way. Dropping it closes the file.
#[derive(Debug)]
pub struct Recording {
    frames: SyncSender<Vec<i16>>,
    /// Samples a second of the file.
    pub rate: u32,
}

impl Recording {
    /// Begins one in `folder`, which is made where it is not there.
    pub fn start(folder: &Path, room: &str, unix: u64, rate: u32) -> std::io::Result<Self> {
        let (frames, come) = sync_channel(WAITING);
        let path = folder.join(file_name(room, unix));
        let folder = folder.to_owned();
        thread::Builder::new().name("recording".into()).spawn(move || match write(&folder, &path, rate, &come) {
            Ok(()) => tracing::info!(file = %path.display(), "recorded"),
            Err(error) => tracing::error!(file = %path.display(), %error, "not recorded"),
        })?;
        Ok(Self { frames, rate })
    }

    /// Takes a frame; false where it is lost.
    pub fn frame(&self, samples: Vec<i16>) -> bool {
        self.frames.try_send(samples).is_ok()
    }
}

/// `room-NAME-UNIX.wav`, of letters and digits of the name only: it may come from what somebody dialled.
fn file_name(room: &str, unix: u64) -> PathBuf {
    let name: String = room.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    PathBuf::from(format!("room-{name}-{unix}.wav"))
}

fn write(folder: &Path, path: &Path, rate: u32, frames: &Receiver<Vec<i16>>) -> Result<(), hound::Error> {
    std::fs::create_dir_all(folder)?;
    let spec =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut wav = hound::WavWriter::create(path, spec)?;
    for frame in frames {
        for sample in frame {
            wav.write_sample(sample)?;
        }
    }
    wav.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_the_folder() {
        assert_eq!(file_name("../a b", 7), PathBuf::from("room-___a_b-7.wav"));
    }
}
