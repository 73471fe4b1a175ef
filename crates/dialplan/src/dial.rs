//! The dial step: whom it rings, for how long, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::millis::optional as millis;
use crate::{Error, ErrorKind, Template};

/// What the dial step rings and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dial {
    /// Targets as Asterisk writes them (`PJSIP/8006`); after substitution each may name several, joined by `&`.
    pub to: Vec<Template>,
    /// How long it may ring; without it the router's ring limit, 10 minutes. In JSON whole milliseconds.
    #[serde(default, with = "millis", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How it is done beside that.
    #[serde(flatten)]
    pub options: DialOptions,
}

/// Options of a dial: Asterisk's, by names that say what they do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DialOptions {
    /// How long they may talk (`L`); then both are hung up. In JSON whole milliseconds.
    #[serde(default, with = "millis", skip_serializing_if = "Option::is_none")]
    pub limit: Option<Duration>,
    /// The caller is told at once that it rings (`r`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ring: bool,
    /// Either side ends the bridge by `*` (`hH`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hangup_by_star: bool,
    /// When the callee hangs up, the plan goes on with the caller (`g`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub go_on: bool,
    /// What callees see instead of the caller's: `"Name" <number>` or one of both (`f`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_id: Option<Template>,
    /// Header fields for the callees, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
}

impl Dial {
    pub(crate) fn check(&self) -> Result<(), Error> {
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
        if self.options.headers.len() > limits::HEADERS {
            let kind = ErrorKind::TooMany { what: "header fields", limit: limits::HEADERS };
            return Err(Error::from(kind).at("headers"));
        }
        match self.options.headers.keys().find(|name| !is_field(name)) {
            Some(name) => Err(Error::from(ErrorKind::Header(name.clone())).at("headers")),
            None => Ok(()),
        }
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

/// Whether a header field may be added to what callees get: a private one (`X-...`) that is none of our own, `Alert-Info`,
/// `Call-Info`, `Subject`, `Priority`, `Organization`, `Diversion` or `Privacy`.
pub(crate) fn is_field(name: &str) -> bool {
    const KNOWN: [&str; 7] = ["Alert-Info", "Call-Info", "Subject", "Priority", "Organization", "Diversion", "Privacy"];
    let token = name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let private = starts("X-") && name.len() > 2 && !starts("X-KubePBX");
    token && name.len() <= 64 && (private || KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)))
}
