//! What a Request-URI asks for.
//!
//! | URI | does |
//! | --- | --- |
//! | `sip:echo@...` | sends back what it hears |
//! | `sip:silence@...` | answers and says nothing |
//! | `sip:tone-HZ@...`, `sip:tone-HZ-MS@...` | a sine tone, without MS until the caller hangs up |
//! | `sip:play@...;prompt=A&B` | prompts one after the other, then BYE: `welcome.wav`, `tone:440,1000`, escaped as URIs want it |
//! | `sip:music@...` | music until the caller hangs up |
//! | `sip:room-NAME@...` | a room; its parameters stand in [`crate::room::options`] |
//! | `sip:play@...;file=A` or `;name=A` | one WAV file |

use crate::room::Options;
use dialplan::Prompt;
use sip::uri::{Uri, unescape};
use std::time::Duration;

/// Prompts in one request.
const MAX_PROMPTS: usize = 64;

/// What a leg hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Program {
    /// Its own sound.
    Echo,
    /// Nothing.
    Silence,
    /// A tone of so many hertz without end.
    Tone(u32),
    /// Prompts, once.
    Play(Vec<Prompt>),
    /// Music without end.
    Music,
    /// A room.
    Room(Box<Options>),
}

impl Program {
    /// Reads a Request-URI; `None` (404) when it names nothing that we do.
    pub fn of(uri: &str) -> Option<Self> {
        let uri = Uri::parse(uri).ok().filter(Uri::is_sip)?;
        let user = uri.user_unescaped();
        match user.as_ref() {
            "echo" => Some(Self::Echo),
            "silence" => Some(Self::Silence),
            "music" => Some(Self::Music),
            "play" => {
                let named = |name: &str| uri.params.get(name).flatten();
                let list = match named("prompt") {
                    Some(list) => list.split('&').take(MAX_PROMPTS + 1).collect::<Vec<_>>(),
                    None => vec![named("file").or_else(|| named("name"))?],
                };
                if list.len() > MAX_PROMPTS {
                    return None;
                }
                let prompts: Option<Vec<Prompt>> = list.iter().map(|p| Prompt::parse(&unescape(p)).ok()).collect();
                prompts.map(Self::Play)
            }
            user if user.starts_with("room-") => {
                let name = user.strip_prefix("room-")?;
                Options::of(name, &uri).map(|options| Self::Room(Box::new(options)))
            }
            user => {
                let (hertz, length) = match user.strip_prefix("tone-")?.split_once('-') {
                    Some((hertz, ms)) => (hertz, Some(ms.parse().ok().filter(|ms| *ms <= 3_600_000)?)),
                    None => (user.strip_prefix("tone-")?, None),
                };
                let hertz = hertz.parse().ok().filter(|hz| (20..=3400).contains(hz))?;
                Some(match length {
                    Some(ms) => Self::Play(vec![Prompt::Tone { hertz, duration: Duration::from_millis(ms) }]),
                    None => Self::Tone(hertz),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_program() {
        let tone = |hertz, ms| Prompt::Tone { hertz, duration: Duration::from_millis(ms) };
        let file = |name: &str| Prompt::File(name.into());
        for (uri, want) in [
            ("sip:echo@conference.invalid", Some(Program::Echo)),
            ("sip:silence@conference.invalid", Some(Program::Silence)),
            ("sip:music@h", Some(Program::Music)),
            ("sip:room-@h", None),
            ("sip:tone-440@h", Some(Program::Tone(440))),
            ("sip:tone-440-250@h", Some(Program::Play(vec![tone(440, 250)]))),
            ("sip:play@h;file=a", Some(Program::Play(vec![file("a.wav")]))),
            ("sip:play@h;name=dir/a.wav", Some(Program::Play(vec![file("dir/a.wav")]))),
            (
                "sip:play@h;prompt=tone:440%2C1000&a%20b%26c.wav",
                Some(Program::Play(vec![tone(440, 1000), file("a b&c.wav")])),
            ),
            ("sip:play@h", None),
            ("sip:play@h;prompt=..%2Fetc%2Fpasswd", None),
            ("sip:tone-4400@h", None),
            ("sip:tone-440-x@h", None),
            ("sip:tone-@h", None),
            ("sip:8006@h", None),
            ("tel:8006", None),
        ] {
            assert_eq!(Program::of(uri), want, "{uri}");
        }
        let many = vec!["a"; MAX_PROMPTS + 1].join("&");
        assert_eq!(Program::of(&format!("sip:play@h;prompt={many}")), None);
    }
}
