//! `${...}` substitution with Asterisk's slices.
//!
//! `${NAME}`, `${NAME:offset}` and `${NAME:offset:length}`; a negative offset counts from the end, a negative length
//! leaves off as many at the end. A variable that is not set is empty. A value put in is not looked at again, so what a
//! caller sends can never be expanded, and the result is bounded by [`limits::EXPANDED`].
//! Offsets count characters; Asterisk counts bytes, which is the same for what can be dialled.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Error, ErrorKind};

/// A text with `${...}` in it, read once. In JSON and YAML it is the text as written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable { name: String, offset: i64, length: Option<i64> },
}

impl Template {
    /// Reads a text. At most [`limits::TEXT`] bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Substitution`] for an unclosed or nested `${`, an expression `$[...]`, a dialplan function other than
    /// `CALLERID(num)` and `CALLERID(name)`, or an offset that is no number.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why| Error::from(ErrorKind::Substitution { text: text.chars().take(limits::TEXT).collect(), why });
        if text.len() > limits::TEXT {
            return Err(bad("longer than 1024 bytes"));
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if from.starts_with("$[") {
                return Err(bad("expressions $[...] are not supported"));
            }
            let Some(inner) = from.strip_prefix("${") else {
                plain.push('$');
                rest = &from[1..];
                continue;
            };
            let end = inner.find('}').ok_or_else(|| bad("'${' without '}'"))?;
            let (inside, after) = inner.split_at(end);
            if inside.contains("${") {
                return Err(bad("a '${' inside another is not supported"));
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(variable(inside).map_err(bad)?);
            rest = &after[1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole text when nothing is to be put in.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text before the first `${`.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The names of the variables in it, in order, with repetitions.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable { name, .. } => Some(name.as_str()),
        })
    }

    /// Puts the variables' values in. `value` gives `None` for one that is not set; that becomes empty.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`] when the result passes [`limits::EXPANDED`] bytes.
    pub fn expand<'v>(&self, value: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> Result<String, Error> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable { name, offset, length } => {
                    let value = value(name).unwrap_or_default();
                    out.push_str(slice(&value, *offset, *length));
                }
            }
            if out.len() > limits::EXPANDED {
                return Err(ErrorKind::TooLong { text: self.text.clone(), limit: limits::EXPANDED }.into());
            }
        }
        Ok(out)
    }
}

/// What stands between `${` and `}`.
fn variable(inside: &str) -> Result<Part, &'static str> {
    let mut fields = inside.split(':');
    let name = fields.next().unwrap_or_default();
    let plain = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if name.contains('(') {
        if !matches!(name, "CALLERID(num)" | "CALLERID(name)") {
            return Err("of the functions only CALLERID(num) and CALLERID(name) are supported");
        }
    } else if !plain(name) {
        return Err("a variable's name is letters, digits and '_', such as ${EXTEN}");
    }
    let number = |field: Option<&str>| match field {
        None => Ok(None),
        Some("") => Err("a number is missing after ':', such as ${EXTEN:1}"),
        Some(field) => field
            .parse::<i32>()
            .map(|n| Some(i64::from(n)))
            .map_err(|_| "offset and length are numbers, such as ${EXTEN:1:3}"),
    };
    let offset = number(fields.next())?.unwrap_or(0);
    let length = number(fields.next())?;
    if fields.next().is_some() {
        return Err("at most an offset and a length, such as ${EXTEN:1:3}");
    }
    Ok(Part::Variable { name: name.to_owned(), offset, length })
}

/// `${NAME:offset:length}` of a value, as Asterisk cuts it.
fn slice(value: &str, offset: i64, length: Option<i64>) -> &str {
    let count = i64::try_from(value.chars().count()).unwrap_or(i64::MAX);
    let start = if offset < 0 { (count + offset).max(0) } else { offset.min(count) };
    let end = match length {
        None => count,
        Some(length) if length < 0 => count + length,
        Some(length) => (start + length).min(count),
    };
    if end <= start {
        return "";
    }
    let byte = |chars: i64| {
        let chars = usize::try_from(chars).unwrap_or(0);
        value.char_indices().nth(chars).map_or(value.len(), |(at, _)| at)
    };
    &value[byte(start)..byte(end)]
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Template {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values<'v>(name: &str) -> Option<Cow<'v, str>> {
        match name {
            "EXTEN" => Some("12345".into()),
            "CALLERID(num)" => Some("8005".into()),
            "EVIL" => Some("${EXTEN}".into()),
            "NAME" => Some("Zoë".into()),
            _ => None,
        }
    }

    #[test]
    fn substitution_and_slices() {
        for (text, want) in [
            ("PJSIP/${EXTEN}", "PJSIP/12345"),
            ("${EXTEN}${EXTEN:4}", "123455"),
            ("${EXTEN:1}", "2345"),
            ("${EXTEN:-2}", "45"),
            ("${EXTEN:1:2}", "23"),
            ("${EXTEN:-3:2}", "34"),
            ("${EXTEN:0:-1}", "1234"),
            ("${EXTEN:1:-1}", "234"),
            ("${EXTEN:-9}", "12345"),
            ("${EXTEN:-9:2}", "12"),
            ("${EXTEN:5}", ""),
            ("${EXTEN:9:1}", ""),
            ("${EXTEN:2:0}", ""),
            ("${EXTEN:3:-2}", ""),
            ("${EXTEN:1:99}", "2345"),
            ("<${UNSET}>", "<>"),
            ("${CALLERID(num)}", "8005"),
            ("${EVIL}", "${EXTEN}"),
            ("a$b$", "a$b$"),
            ("${NAME:2}", "ë"),
            ("", ""),
        ] {
            assert_eq!(Template::parse(text).unwrap().expand(&values).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (text, why) in [
            ("${EXTEN", "without '}'"),
            ("${}", "letters, digits"),
            ("${1A}", "letters, digits"),
            ("${A${B}}", "inside another"),
            ("$[1+1]", "expressions"),
            ("${DB(a/b)}", "of the functions"),
            ("${EXTEN:x}", "are numbers"),
            ("${EXTEN:}", "is missing"),
            ("${EXTEN:1:2:3}", "at most"),
            (&"x".repeat(1025), "longer"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_result_is_bounded() {
        let long = |_: &str| Some("x".repeat(3000).into());
        let error = Template::parse("${A}${A}").unwrap().expand(&long).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::TooLong { .. }), "{error}");
    }

    #[test]
    fn literal_and_prefix() {
        assert_eq!(Template::parse("PJSIP/8005").unwrap().literal(), Some("PJSIP/8005"));
        let template = Template::parse("PJSIP/${A}-${B:1}").unwrap();
        assert_eq!((template.literal(), template.prefix()), (None, "PJSIP/"));
        assert_eq!(template.variables().collect::<Vec<_>>(), ["A", "B"]);
    }

    proptest! {
        #[test]
        fn a_slice_is_the_characters_it_names(value in "\\PC{0,12}", offset in -20i64..20, length in proptest::option::of(-20i64..20)) {
            let all: Vec<char> = value.chars().collect();
            let count = all.len() as i64;
            let start = if offset < 0 { (count + offset).max(0) } else { offset };
            let end = match length { None => count, Some(n) if n < 0 => count + n, Some(n) => start + n };
            let want: String = (0..count).filter(|at| *at >= start && *at < end).map(|at| all[at as usize]).collect();
            prop_assert_eq!(slice(&value, offset, length), want);
        }

        #[test]
        fn never_panics(text in "[${}:A-Z0-9\\-\\[(é]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.as_str(), text);
                let _ = template.expand(&values);
            }
        }
    }
}
