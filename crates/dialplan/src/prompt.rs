//! What is played: tones and WAV files.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Error, ErrorKind, Template};

/// What the playback step plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Playback {
    /// Prompts in order; see [`Prompt::parse`].
    pub prompts: Vec<Template>,
}

impl Playback {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.prompts.is_empty() {
            let kind = ErrorKind::Empty("the list", "name at least one prompt, such as welcome.wav or tone:440,1000");
            return Err(Error::from(kind).at("prompts"));
        }
        if self.prompts.len() > limits::PROMPTS {
            return Err(Error::from(ErrorKind::TooMany { what: "prompts", limit: limits::PROMPTS }).at("prompts"));
        }
        for (at, prompt) in self.prompts.iter().enumerate() {
            if let Some(literal) = prompt.literal() {
                Prompt::parse(literal).map_err(|e| e.at(format_args!("prompts[{at}]")))?;
            }
        }
        Ok(())
    }

    /// The prompts with the variables put in.
    ///
    /// # Errors
    /// As [`Template::expand`] and [`Prompt::parse`], with the path `prompts[N]`.
    pub fn prompts<'v>(&self, value: &dyn Fn(&str) -> Option<std::borrow::Cow<'v, str>>) -> Result<Vec<Prompt>, Error> {
        let read = |(at, template): (usize, &Template)| {
            let prompt = template.expand(value).and_then(|text| Prompt::parse(&text));
            prompt.map_err(|e| e.at(format_args!("prompts[{at}]")))
        };
        self.prompts.iter().enumerate().map(read).collect()
    }
}

/// One thing to play.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Prompt {
    /// `tone:HZ` or `tone:HZ,MS`: a sine tone.
    Tone {
        /// Frequency in hertz, 20 to 3,400 (what a telephone line carries).
        hertz: u32,
        /// How long; 1 s where nothing is said. In JSON whole milliseconds.
        #[serde(with = "crate::millis::whole")]
        duration: Duration,
    },
    /// A WAV file by its path, relative to the folder of prompts unless it begins with `/`.
    File(String),
}

impl Prompt {
    /// Reads `tone:HZ`, `tone:HZ,MS` or a WAV file's path (without a `..` in it; `.wav` is understood).
    ///
    /// # Errors
    /// [`ErrorKind::Prompt`].
    pub fn parse(text: &str) -> Result<Prompt, Error> {
        let bad = |why| Error::from(ErrorKind::Prompt { prompt: text.chars().take(limits::TEXT).collect(), why });
        if let Some(tone) = text.strip_prefix("tone:") {
            let (hertz, ms) = tone.split_once(',').unwrap_or((tone, "1000"));
            let hertz = hertz.parse().ok().filter(|hz| (20..=3400).contains(hz));
            let hertz = hertz.ok_or_else(|| bad("a tone is 20 to 3400 Hz, such as tone:440"))?;
            let ms = ms.parse().ok().filter(|ms| (1..=3_600_000).contains(ms));
            let ms = ms.ok_or_else(|| bad("a tone lasts 1 to 3600000 ms, such as tone:440,1000"))?;
            return Ok(Prompt::Tone { hertz, duration: Duration::from_millis(ms) });
        }
        if text.is_empty() {
            return Err(bad("write the name of a WAV file or tone:HZ,MS"));
        }
        if text.contains("://") {
            return Err(bad("addresses are not supported: write the name of a WAV file or tone:HZ,MS"));
        }
        // A name can be put together from what a caller dialled.
        if text.len() > limits::TEXT || text.split(['/', '\\']).any(|part| part == "..") || text.contains('\0') {
            return Err(bad("a path without '..', at most 1024 bytes"));
        }
        Ok(Prompt::File(if text.to_ascii_lowercase().ends_with(".wav") {
            text.to_owned()
        } else {
            format!("{text}.wav")
        }))
    }
}
