//! The steps of an extension: one application each.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dial::is_field;
use crate::limits;
use crate::template::is_name;
use crate::{Cause, Dial, Error, ErrorKind, Gosub, Goto, GotoIf, Playback, Template};

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
    /// Tells a caller that is not answered that there is progress (183).
    Progress {},
    /// Tells a caller that is not answered that it rings (180).
    Ringing {},
    /// Rings targets, all at once; the first that answers is bridged with the caller. When the bridge ends, the call
    /// ends; when nobody answers, the next step runs with `DIALSTATUS` and `HANGUPCAUSE` set.
    Dial(Dial),
    /// Ends the call.
    Hangup {
        /// Why; without it the cause of the last dial, or else normal clearing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
    },
    /// Ends the call: busy (cause 17).
    Busy {},
    /// Ends the call: no circuit available (cause 34).
    Congestion {},
    /// Answers, where nobody has, and plays prompts one after the other.
    Playback(Playback),
    /// The same, and takes digits of an extension meanwhile: the first one stops the prompts.
    Background(Playback),
    /// Waits for the digits of an extension, and goes there; to `i` where there is none, to `t` when nothing comes.
    WaitExten {
        /// How long to wait for the first digit; without it 10 s.
        #[serde(default, with = "crate::millis::optional", skip_serializing_if = "Option::is_none")]
        timeout: Option<Duration>,
    },
    /// Answers, where nobody has, and sends the caller's own sound back until the caller hangs up.
    Echo {},
    /// Answers, where nobody has, and plays a tone of 1004 Hz until the caller hangs up.
    Milliwatt {},
    /// Does nothing for a while.
    Wait {
        /// How long. In JSON whole milliseconds.
        #[serde(with = "crate::millis::whole")]
        duration: Duration,
    },
    /// Sets a variable of the call, or what a function stands for.
    Set {
        /// `NAME`, `CALLERID(num)`, `CALLERID(name)` or `PJSIP_HEADER(add,NAME)`.
        name: Assigned,
        /// What it is to be.
        value: Template,
    },
    /// Goes on elsewhere.
    Goto(Goto),
    /// Goes on elsewhere by a condition.
    GotoIf(GotoIf),
    /// Runs steps elsewhere until their return.
    Gosub(Gosub),
    /// Goes back to after the last gosub.
    Return {
        /// `GOSUB_RETVAL` there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Template>,
    },
}

/// What `set` sets. In JSON and YAML it is the text as Asterisk writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Assigned {
    /// A variable. `_NAME` and `__NAME` set the variable `NAME`: here one call has one set of variables, which all that it
    /// makes shares.
    Variable(String),
    /// `CALLERID(num)`: the number that callees see.
    CallerNumber,
    /// `CALLERID(name)`: the name that callees see.
    CallerName,
    /// `PJSIP_HEADER(add,NAME)`: a header field for callees.
    Header(String),
}

impl Assigned {
    /// Reads what is set.
    ///
    /// # Errors
    /// [`ErrorKind::Assigned`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why| Error::from(ErrorKind::Assigned { name: text.chars().take(limits::TEXT).collect(), why });
        if let Some(header) = text.strip_prefix("PJSIP_HEADER(").and_then(|rest| rest.strip_suffix(')')) {
            let name = header.strip_prefix("add,").map(str::trim);
            let name = name.ok_or_else(|| bad("a header field is set by PJSIP_HEADER(add,NAME)"))?;
            let bad =
                || bad("only private header fields (X-...) and those such as Alert-Info and Subject may be added");
            return is_field(name).then(|| Assigned::Header(name.to_owned())).ok_or_else(bad);
        }
        match text {
            "CALLERID(num)" => Ok(Assigned::CallerNumber),
            "CALLERID(name)" => Ok(Assigned::CallerName),
            _ if text.contains('(') => {
                Err(bad("of the functions CALLERID(num), CALLERID(name) and PJSIP_HEADER can be set"))
            }
            _ => {
                let name = text.strip_prefix("__").or_else(|| text.strip_prefix('_')).unwrap_or(text);
                let bad = || bad("a variable's name is letters, digits and '_'");
                is_name(name).then(|| Assigned::Variable(name.to_owned())).ok_or_else(bad)
            }
        }
    }
}

impl TryFrom<String> for Assigned {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Assigned> for String {
    fn from(assigned: Assigned) -> Self {
        match assigned {
            Assigned::Variable(name) => name,
            Assigned::CallerNumber => "CALLERID(num)".to_owned(),
            Assigned::CallerName => "CALLERID(name)".to_owned(),
            Assigned::Header(name) => format!("PJSIP_HEADER(add,{name})"),
        }
    }
}

impl Step {
    /// The step's name as manifests write it, such as `noOp`.
    pub fn name(&self) -> &'static str {
        match self {
            Step::NoOp { .. } => "noOp",
            Step::Answer {} => "answer",
            Step::Progress {} => "progress",
            Step::Ringing {} => "ringing",
            Step::Dial(_) => "dial",
            Step::Hangup { .. } => "hangup",
            Step::Busy {} => "busy",
            Step::Congestion {} => "congestion",
            Step::Playback(_) => "playback",
            Step::Background(_) => "background",
            Step::WaitExten { .. } => "waitExten",
            Step::Echo {} => "echo",
            Step::Milliwatt {} => "milliwatt",
            Step::Wait { .. } => "wait",
            Step::Set { .. } => "set",
            Step::Goto(_) => "goto",
            Step::GotoIf(_) => "gotoIf",
            Step::Gosub(_) => "gosub",
            Step::Return { .. } => "return",
        }
    }

    /// What the step is given, as Asterisk writes it, with the variables put in: `PJSIP/8006,30`. Empty where it takes
    /// nothing. A text that grows too long by its variables stands as it was written.
    pub fn data<'v>(&self, value: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> String {
        let text = |t: &Template| t.expand(value).unwrap_or_else(|_| t.as_str().to_owned());
        let list = |templates: &[Template]| templates.iter().map(text).collect::<Vec<_>>().join("&");
        let place = |to: &Option<Goto>| to.as_ref().map(|to| to.write(&text)).unwrap_or_default();
        let seconds = |limit: Duration| limit.as_secs_f64().to_string();
        match self {
            Step::NoOp { text: given } => given.as_ref().map(text).unwrap_or_default(),
            Step::Dial(Dial { to, timeout: None, .. }) => list(to),
            Step::Dial(Dial { to, timeout: Some(limit), .. }) => format!("{},{}", list(to), seconds(*limit)),
            Step::Hangup { cause } => cause.map(|cause| cause.number().to_string()).unwrap_or_default(),
            Step::Playback(playback) | Step::Background(playback) => list(&playback.prompts),
            Step::WaitExten { timeout } => timeout.map(seconds).unwrap_or_default(),
            Step::Wait { duration } => seconds(*duration),
            Step::Set { name, value } => format!("{}={}", String::from(name.clone()), text(value)),
            Step::Goto(to) => to.write(&text),
            Step::GotoIf(GotoIf { condition, then, otherwise }) => {
                format!("{condition}?{}:{}", place(then), place(otherwise))
            }
            Step::Gosub(Gosub { to, args }) if args.is_empty() => to.write(&text),
            Step::Gosub(Gosub { to, args }) => {
                format!("{}({})", to.write(&text), args.iter().map(text).collect::<Vec<_>>().join(","))
            }
            Step::Return { value } => value.as_ref().map(text).unwrap_or_default(),
            Step::Answer {} | Step::Progress {} | Step::Ringing {} | Step::Busy {} => String::new(),
            Step::Congestion {} | Step::Echo {} | Step::Milliwatt {} => String::new(),
        }
    }

    /// Checks what can be known before a call: lists within bounds, targets and prompts that hold no variable.
    ///
    /// # Errors
    /// The first fault, its path beginning with the step's name.
    pub fn check(&self) -> Result<(), Error> {
        let checked = match self {
            Step::Dial(dial) => dial.check(),
            Step::Playback(playback) | Step::Background(playback) => playback.check(),
            Step::Goto(to) => to.check(),
            Step::GotoIf(to) => to.check(),
            Step::Gosub(to) => to.check(),
            Step::Wait { duration } if *duration > limits::WAIT => Err(ErrorKind::TooLate(limits::WAIT).into()),
            _ => Ok(()),
        };
        checked.map_err(|e| e.at(self.name()))
    }

    /// True if nothing after it runs unless something else goes there.
    pub(crate) fn leaves(&self) -> bool {
        match self {
            Step::Hangup { .. } | Step::Busy {} | Step::Congestion {} | Step::Goto(_) | Step::Return { .. } => true,
            Step::GotoIf(GotoIf { then, otherwise, .. }) => then.is_some() && otherwise.is_some(),
            _ => false,
        }
    }

    /// True if it needs somebody to hear or say something: it is passed over once the caller is gone.
    pub(crate) fn needs_caller(&self) -> bool {
        !matches!(
            self,
            Step::NoOp { .. }
                | Step::Set { .. }
                | Step::Goto(_)
                | Step::GotoIf(_)
                | Step::Gosub(_)
                | Step::Return { .. }
                | Step::Hangup { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DialOptions, Prompt, Target};

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
            Step::Dial(Dial { to, timeout: None, options: DialOptions::default() }).check().map_err(|e| e.to_string())
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
        let dial = Dial { to, timeout: None, options: DialOptions::default() };
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
                Step::Dial(Dial {
                    to: list(&["PJSIP/${EXTEN}", "PJSIP/9"]),
                    timeout: seconds(30),
                    options: DialOptions::default(),
                }),
                "PJSIP/8006&PJSIP/9,30",
            ),
            (Step::Dial(Dial { to: list(&["PJSIP/9"]), timeout: None, options: DialOptions::default() }), "PJSIP/9"),
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
