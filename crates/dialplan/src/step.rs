//! The steps of an extension: one application each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Cause, ConfBridge, Error, ErrorKind, Template};

/// One application that the router runs. Steps run in order; after the last one the call is hung up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Step {
    /// Does nothing; the text, when there is one, appears in the call's log.
    NoOp {
        /// What to log.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<Template>,
    },
    /// Answers the caller. Nothing happens when the call is answered already.
    Answer {},
    /// Rings targets, all at once; the first that answers is bridged with the caller. When the bridge ends, the call
    /// ends; when nobody answers, the next step runs with `DIALSTATUS` and `HANGUPCAUSE` set.
    Dial(Dial),
    /// Ends the call.
    Hangup {
        /// Why; without it the cause of the last dial, or else normal clearing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
    },
    /// Answers, where nobody has, and plays prompts one after the other.
    Playback(Playback),
    /// Answers, where nobody has, and sends the caller's own sound back until the caller hangs up.
    Echo {},
    /// Answers, where nobody has, and plays music until the caller hangs up.
    MusicOnHold {},
    /// Answers, where nobody has, and joins a room; the next step runs when the caller leaves it by a key, is sent away,
    /// or is not let in.
    ConfBridge(ConfBridge),
}

impl Step {
    /// The step's name as manifests write it, such as `noOp`.
    pub fn name(&self) -> &'static str {
        match self {
            Step::NoOp { .. } => "noOp",
            Step::Answer {} => "answer",
            Step::Dial(_) => "dial",
            Step::Hangup { .. } => "hangup",
            Step::Playback(_) => "playback",
            Step::Echo {} => "echo",
            Step::MusicOnHold {} => "musicOnHold",
            Step::ConfBridge(_) => "confBridge",
        }
    }

    /// What the step is given, as Asterisk writes it, with the variables put in: `PJSIP/8006,30`. Empty where it takes
    /// nothing. A text that grows too long by its variables stands as it was written.
    pub fn data<'v>(&self, value: &dyn Fn(&str) -> Option<std::borrow::Cow<'v, str>>) -> String {
        let text = |t: &Template| t.expand(value).unwrap_or_else(|_| t.as_str().to_owned());
        let list = |templates: &[Template]| templates.iter().map(text).collect::<Vec<_>>().join("&");
        match self {
            Step::NoOp { text: given } => given.as_ref().map(text).unwrap_or_default(),
            Step::Dial(Dial { to, timeout: None }) => list(to),
            Step::Dial(Dial { to, timeout: Some(limit) }) => format!("{},{}", list(to), limit.as_secs_f64()),
            Step::Hangup { cause } => cause.map(|cause| cause.number().to_string()).unwrap_or_default(),
            Step::Playback(playback) => list(&playback.prompts),
            Step::ConfBridge(bridge) => text(&bridge.room),
            Step::Answer {} | Step::Echo {} | Step::MusicOnHold {} => String::new(),
        }
    }

    /// Checks what can be known before a call: lists within bounds, targets and prompts that hold no variable.
    ///
    /// # Errors
    /// The first fault, its path beginning with the step's name.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Step::Dial(dial) => dial.check().map_err(|e| e.at("dial")),
            Step::Playback(playback) => playback.check().map_err(|e| e.at("playback")),
            Step::ConfBridge(bridge) => bridge.check().map_err(|e| e.at("confBridge")),
            Step::NoOp { .. } | Step::Answer {} | Step::Hangup { .. } | Step::Echo {} | Step::MusicOnHold {} => Ok(()),
        }
    }
}

/// What the dial step rings and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dial {
    /// Targets as Asterisk writes them (`PJSIP/8006`); after substitution each may name several, joined by `&`.
    pub to: Vec<Template>,
    /// How long it may ring; without it the router's ring limit, 10 minutes. In JSON whole milliseconds.
    #[serde(default, with = "millis", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

impl Dial {
    fn check(&self) -> Result<(), Error> {
        if self.to.is_empty() {
            return Err(
                Error::from(ErrorKind::Empty("the list", "name at least one target, such as PJSIP/8006")).at("to")
            );
        }
        if self.to.len() > limits::TARGETS {
            return Err(Error::from(ErrorKind::TooMany { what: "targets", limit: limits::TARGETS }).at("to"));
        }
        for (at, target) in self.to.iter().enumerate() {
            Target::check(target).map_err(|e| e.at(format_args!("to[{at}]")))?;
        }
        Ok(())
    }

    /// The targets with the variables put in, repetitions left out, at most [`limits::TARGETS`].
    ///
    /// # Errors
    /// As [`Template::expand`] and [`Target::parse_list`], with the path `to[N]`.
    pub fn targets<'v>(&self, value: &dyn Fn(&str) -> Option<std::borrow::Cow<'v, str>>) -> Result<Vec<Target>, Error> {
        let mut all = Vec::new();
        for (at, template) in self.to.iter().enumerate() {
            let list = template.expand(value).and_then(|text| Target::parse_list(&text));
            for target in list.map_err(|e| e.at(format_args!("to[{at}]")))? {
                if !all.contains(&target) {
                    all.push(target);
                }
            }
        }
        if all.len() > limits::TARGETS {
            return Err(Error::from(ErrorKind::TooMany { what: "targets", limit: limits::TARGETS }).at("to"));
        }
        Ok(all)
    }
}

/// Whom to ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Target {
    /// `PJSIP/NAME`: every live contact of the endpoint of this name.
    Endpoint(String),
}

impl Target {
    /// Reads targets joined by `&`, after substitution.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] for another technology, an empty name, `PJSIP/NUMBER@TRUNK` or `PJSIP/NAME/sip:...`.
    pub fn parse_list(text: &str) -> Result<Vec<Target>, Error> {
        let list: Vec<_> = text.split('&').take(limits::TARGETS + 1).map(Self::parse).collect::<Result<_, _>>()?;
        if list.len() > limits::TARGETS {
            return Err(ErrorKind::TooMany { what: "targets", limit: limits::TARGETS }.into());
        }
        Ok(list)
    }

    fn parse(text: &str) -> Result<Target, Error> {
        let bad = |why| Error::from(ErrorKind::Target { target: text.chars().take(limits::TEXT).collect(), why });
        let Some(name) = technology(text) else {
            return Err(bad("write PJSIP/NAME"));
        };
        if name.is_empty() {
            return Err(bad("no endpoint is named: write PJSIP/NAME"));
        }
        if name.contains('/') {
            return Err(bad("an address of its own (PJSIP/NAME/sip:...) is not supported: write PJSIP/NAME"));
        }
        if name.contains('@') {
            return Err(bad("a number at a trunk (PJSIP/NUMBER@TRUNK) is not supported: write PJSIP/NAME"));
        }
        if name.len() > limits::NAME {
            return Err(bad("the endpoint's name is longer than 253 bytes"));
        }
        if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad("an endpoint's name holds no spaces"));
        }
        Ok(Target::Endpoint(name.to_owned()))
    }

    /// What can be known of a target before its variables are.
    fn check(template: &Template) -> Result<(), Error> {
        let text = template.as_str();
        if let Some(literal) = template.literal() {
            return Self::parse_list(literal).map(drop);
        }
        let bad = |why| Err(Error::from(ErrorKind::Target { target: text.to_owned(), why }));
        // With nothing before the first variable the technology may come from it; otherwise it must stand here.
        let prefix = template.prefix();
        if !prefix.is_empty() && technology(prefix).is_none() {
            return bad("write PJSIP/NAME");
        }
        if text.contains('@') {
            return bad("a number at a trunk (PJSIP/NUMBER@TRUNK) is not supported: write PJSIP/NAME");
        }
        Ok(())
    }
}

/// What follows `PJSIP/`, in any case of letters as Asterisk takes it.
fn technology(text: &str) -> Option<&str> {
    let (technology, name) = text.split_once('/')?;
    technology.eq_ignore_ascii_case("PJSIP").then_some(name)
}

/// What the playback step plays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Playback {
    /// Prompts in order; see [`Prompt::parse`].
    pub prompts: Vec<Template>,
}

impl Playback {
    fn check(&self) -> Result<(), Error> {
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
        #[serde(with = "millis_whole")]
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

/// Optional durations as whole milliseconds.
pub(crate) mod millis {
    use super::{Deserialize, Duration, Serialize};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

/// Durations as whole milliseconds.
mod millis_whole {
    use super::{Deserialize, Duration};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> Target {
        Target::Endpoint(name.into())
    }

    #[test]
    fn targets_read() {
        assert_eq!(Target::parse_list("PJSIP/8006").unwrap(), [endpoint("8006")]);
        assert_eq!(Target::parse_list("pjsip/a&PJSIP/b").unwrap(), [endpoint("a"), endpoint("b")]);
        for (text, why) in [
            ("SIP/8006", "write PJSIP/NAME"),
            ("8006", "write PJSIP/NAME"),
            ("PJSIP/", "no endpoint"),
            ("PJSIP/1&", "write PJSIP/NAME"),
            ("PJSIP/555@trunk", "at a trunk"),
            ("PJSIP/trunk/sip:1@h", "address of its own"),
            ("PJSIP/a b", "no spaces"),
        ] {
            let error = Target::parse_list(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Target::parse_list(&["PJSIP/1"; 65].join("&")).is_err());
    }

    #[test]
    fn a_step_is_checked_before_any_call() {
        let dial = |to: &[&str]| {
            let to = to.iter().map(|t| Template::parse(t).unwrap()).collect();
            Step::Dial(Dial { to, timeout: None }).check().map_err(|e| e.to_string())
        };
        assert_eq!(dial(&["PJSIP/${EXTEN}", "${TARGET}"]), Ok(()));
        assert!(dial(&["PJSIP/1", "SIP/${EXTEN}"]).unwrap_err().starts_with("dial.to[1]: bad dial target"));
        assert!(dial(&["PJSIP/${EXTEN}@trunk"]).unwrap_err().contains("at a trunk"));
        assert!(dial(&[]).unwrap_err().starts_with("dial.to: the list is empty"));
        let step = Step::Playback(Playback { prompts: vec![Template::parse("tone:9").unwrap()] });
        assert!(step.check().unwrap_err().to_string().starts_with("playback.prompts[0]: bad prompt"));
    }

    #[test]
    fn targets_of_a_call() {
        let to = ["PJSIP/${EXTEN}", "PJSIP/${EXTEN}&PJSIP/9"].map(|t| Template::parse(t).unwrap()).to_vec();
        let dial = Dial { to, timeout: None };
        let targets = dial.targets(&|_| Some("8006".into())).unwrap();
        assert_eq!(targets, [endpoint("8006"), endpoint("9")]);
        let error = dial.targets(&|_| None).unwrap_err().to_string();
        assert!(error.starts_with("to[0]: bad dial target"), "{error}");
    }

    #[test]
    fn what_a_step_is_given_is_written_as_asterisk_does() {
        let template = |text: &str| Template::parse(text).unwrap();
        let list = |texts: &[&str]| texts.iter().map(|t| template(t)).collect::<Vec<_>>();
        let seconds = |n| Some(Duration::from_secs(n));
        for (step, data) in [
            (Step::NoOp { text: Some(template("to ${EXTEN}")) }, "to 8006"),
            (Step::NoOp { text: None }, ""),
            (Step::Answer {}, ""),
            (
                Step::Dial(Dial { to: list(&["PJSIP/${EXTEN}", "PJSIP/9"]), timeout: seconds(30) }),
                "PJSIP/8006&PJSIP/9,30",
            ),
            (Step::Dial(Dial { to: list(&["PJSIP/9"]), timeout: None }), "PJSIP/9"),
            (Step::Hangup { cause: Cause::new(17).ok() }, "17"),
            (Step::Playback(Playback { prompts: list(&["a.wav", "tone:440"]) }), "a.wav&tone:440"),
        ] {
            assert_eq!(step.data(&|_| Some("8006".into())), data, "{step:?}");
        }
    }

    #[test]
    fn prompts_read() {
        let tone = |hertz, ms| Prompt::Tone { hertz, duration: Duration::from_millis(ms) };
        assert_eq!(Prompt::parse("tone:440").unwrap(), tone(440, 1000));
        assert_eq!(Prompt::parse("tone:1000,250").unwrap(), tone(1000, 250));
        assert_eq!(Prompt::parse("welcome").unwrap(), Prompt::File("welcome.wav".into()));
        assert_eq!(Prompt::parse("/srv/a.WAV").unwrap(), Prompt::File("/srv/a.WAV".into()));
        for bad in ["", "tone:", "tone:1", "tone:440,0", "tone:440,x", "../a.wav", "a/../b", "https://x/y.wav"] {
            assert!(Prompt::parse(bad).is_err(), "{bad}");
        }
    }
}
