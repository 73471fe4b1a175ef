//! Where steps go: goto, gotoIf, gosub and return.

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Condition, Error, ErrorKind, Template};

/// A place in the dialplan. What is not said is where the step stands; with a context and no extension it is `s`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Goto {
    /// The context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Template>,
    /// The extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<Template>,
    /// The label of a step, or its number from 1; without it the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Template>,
}

/// Goes to one of two places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GotoIf {
    /// What decides.
    pub condition: Condition,
    /// Where to when it holds; without it the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Goto>,
    /// Where to when it does not; without it the next step.
    #[serde(default, rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Goto>,
}

/// Goes to a place, to return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gosub {
    /// Where to.
    #[serde(flatten)]
    pub to: Goto,
    /// `ARG1`, `ARG2`, ... there; `ARGC` is how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Template>,
}

impl Goto {
    /// The literal texts of it: `None` for what has a variable in it or is not said.
    pub fn literals(&self) -> [Option<&str>; 3] {
        [&self.context, &self.extension, &self.label].map(|part| part.as_ref().and_then(Template::literal))
    }

    /// As Asterisk writes it: `context,extension,label`.
    pub(crate) fn write(&self, text: &dyn Fn(&Template) -> String) -> String {
        let parts = [&self.context, &self.extension, &self.label];
        parts.into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.context.is_none() && self.extension.is_none() && self.label.is_none() {
            return Err(ErrorKind::Empty("the place", "write a label, an extension or a context").into());
        }
        let parts = [("context", &self.context), ("extension", &self.extension), ("label", &self.label)];
        match parts.into_iter().find(|(_, part)| part.as_ref().is_some_and(|part| part.as_str().is_empty())) {
            Some((name, _)) => Err(Error::from(ErrorKind::Empty("the text", "leave the field out")).at(name)),
            None => Ok(()),
        }
    }
}

impl GotoIf {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.then.is_none() && self.otherwise.is_none() {
            return Err(ErrorKind::Empty("the step", "write then, else or both").into());
        }
        for (place, to) in [("then", &self.then), ("else", &self.otherwise)] {
            if let Some(to) = to {
                to.check().map_err(|e| e.at(place))?;
            }
        }
        Ok(())
    }
}

impl Gosub {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.args.len() > limits::ARGS {
            let kind = ErrorKind::TooMany { what: "arguments", limit: limits::ARGS };
            return Err(Error::from(kind).at("args"));
        }
        self.to.check()
    }
}
