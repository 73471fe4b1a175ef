//! Conditions on a call: the part of CEL (Common Expression Language) that dialplans need.
//!
//! | what | how |
//! | --- | --- |
//! | values | `true`, `12`, `'text'` or `"text"` (`r'\d'` raw), `null`, `[1, 2]` |
//! | operators | `?:` `\|\|` `&&` `!` `==` `!=` `<` `<=` `>` `>=` `in` `+` `-` `*` `/` `%`, `a.b`, `a['b']` |
//! | methods | `startsWith`, `endsWith`, `contains`, `matches` (its pattern written out), `size` |
//! | functions | `size`, `int`, `string`, `has(a.b)` |
//!
//! What is not among these (macros such as `exists`, fractions, maps written out) is refused when the condition is read,
//! as is a name that no call has, so each evaluation ends after at most as many operations as the text has. An error at
//! run time (a header that is not there, a word compared with a number) makes the condition false, unless `&&` or `||`
//! are decided without it, as CEL has it.

mod eval;
mod parse;
mod value;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Error, ErrorKind};
use parse::Expression;
pub use value::Value;

/// The facts that a condition may ask for, by the name of its root.
pub const FACTS: [&str; 10] = [
    "answered",
    "caller",
    "context",
    "dialStatus",
    "endpoint",
    "extension",
    "hangupCause",
    "headers",
    "time",
    "variables",
];

/// A condition, read once. In JSON and YAML it is the text as written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    text: String,
    expression: Expression,
}

impl Condition {
    /// Reads a condition: at most [`limits::CONDITION`] bytes, nested at most [`limits::DEPTH`] deep.
    ///
    /// # Errors
    /// [`ErrorKind::Condition`] with what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |(at, why): (usize, String)| {
            let text = text.chars().take(limits::CONDITION).collect();
            Error::from(ErrorKind::Condition { text, at: at + 1, why })
        };
        if text.len() > limits::CONDITION {
            return Err(bad((limits::CONDITION, format!("longer than {} bytes", limits::CONDITION))));
        }
        let expression = parse::parse(text).map_err(bad)?;
        Ok(Self { text: text.to_owned(), expression })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it holds, `fact` giving the value of each root among [`FACTS`].
    ///
    /// # Errors
    /// Why it cannot be told: it counts as false.
    pub fn holds(&self, fact: &dyn Fn(&str) -> Value) -> Result<bool, String> {
        match eval::eval(&self.expression, fact)? {
            Value::Bool(holds) => Ok(holds),
            other => Err(format!("is {}, neither true nor false", other.kind())),
        }
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Condition {}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.text)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Condition {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.text
    }
}

#[cfg(test)]
mod tests;
