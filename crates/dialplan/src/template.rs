//! `${...}` substitution with Asterisk's slices and functions.
//!
//! `${NAME}`, `${NAME:offset}` and `${NAME:offset:length}`; a negative offset counts from the end, a negative length
//! leaves off as many at the end. A variable that is not set is empty. One may stand within another: `${QUEUE_${EXTEN}}`,
//! `${EXTEN:${SKIP}}`. A value put in is not looked at again for `${`, so what a caller sends can never be expanded, and
//! the result is bounded by [`limits::EXPANDED`].
//! Offsets count characters; Asterisk counts bytes, which is the same for what can be dialled.
//!
//! | function | is |
//! | --- | --- |
//! | `CALLERID(num)`, `(name)`, `(all)` | who calls |
//! | `CHANNEL(name)`, `(endpoint)`, `(context)`, `(exten)`, `(state)`, `(uniqueid)`, `(channeltype)` | the caller's leg |
//! | `PJSIP_HEADER(read,NAME)`, `(read,NAME,N)` | the first or Nth header field of this name in the caller's INVITE |
//! | `LEN(text)` | how many characters a text has |

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
    Variable(Box<Variable>),
}

/// What stands between `${` and `}`.
#[derive(Clone, PartialEq, Eq)]
struct Variable {
    name: Vec<Part>,
    /// What a function is given.
    argument: Option<Vec<Part>>,
    offset: Option<Vec<Part>>,
    length: Option<Vec<Part>>,
}

type Lookup<'a, 'v> = &'a dyn Fn(&str) -> Option<Cow<'v, str>>;

impl Template {
    /// Reads a text. At most [`limits::TEXT`] bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Substitution`] for an unclosed `${`, an expression `$[...]`, a dialplan function that is none of
    /// those above, or an offset that is no number.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why| Error::from(ErrorKind::Substitution { text: text.chars().take(limits::TEXT).collect(), why });
        if text.len() > limits::TEXT {
            return Err(bad("longer than 1024 bytes"));
        }
        let mut rest = text;
        let parts = parts(&mut rest, &[], 0).map_err(bad)?;
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole text when nothing is to be put in.
    pub fn literal(&self) -> Option<&str> {
        literal(&self.parts)
    }

    /// The text before the first `${`.
    pub fn prefix(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Puts the variables' values in. `value` gives `None` for one that is not set; that becomes empty. Functions are
    /// asked for as they are written: `CALLERID(num)`.
    ///
    /// # Errors
    /// [`ErrorKind::TooLong`] when the result passes [`limits::EXPANDED`] bytes.
    pub fn expand<'v>(&self, value: &dyn Fn(&str) -> Option<Cow<'v, str>>) -> Result<String, Error> {
        let long = || ErrorKind::TooLong { text: self.text.clone(), limit: limits::EXPANDED }.into();
        expand(&self.parts, value).ok_or_else(long)
    }
}

fn literal(parts: &[Part]) -> Option<&str> {
    match parts {
        [] => Some(""),
        [Part::Text(text)] => Some(text),
        _ => None,
    }
}

/// Reads up to one of these characters, which stays unread, or to the end. Round brackets are counted where `)` is one.
fn parts(rest: &mut &str, until: &[char], depth: usize) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut open = 0usize;
    while let Some(c) = rest.chars().next() {
        if until.contains(&c) && !(c == ')' && open > 0) {
            break;
        }
        if rest.starts_with("$[") {
            return Err("expressions $[...] are not supported: write a condition with when");
        }
        if let Some(inner) = rest.strip_prefix("${") {
            if depth == limits::DEPTH {
                return Err("nested more than 16 deep");
            }
            *rest = inner;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(Box::new(variable(rest, depth + 1)?)));
            continue;
        }
        if until.contains(&')') {
            open = (open + usize::from(c == '(')).saturating_sub(usize::from(c == ')'));
        }
        plain.push(c);
        *rest = &rest[c.len_utf8()..];
    }
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

/// Reads what stands between `${` and `}`, with the `}`.
fn variable(rest: &mut &str, depth: usize) -> Result<Variable, &'static str> {
    let eat = |rest: &mut &str, c: char| match rest.strip_prefix(c) {
        Some(after) => {
            *rest = after;
            true
        }
        None => false,
    };
    let name = parts(rest, &['(', ':', '}'], depth)?;
    let mut argument = None;
    if eat(rest, '(') {
        argument = Some(parts(rest, &[')'], depth)?);
        if !eat(rest, ')') {
            return Err("'(' without ')'");
        }
    }
    let mut numbers = [None, None];
    for number in &mut numbers {
        if eat(rest, ':') {
            let parts = parts(rest, &[':', '}'], depth)?;
            match literal(&parts) {
                Some("") => return Err("a number is missing after ':', such as ${EXTEN:1}"),
                Some(text) if text.parse::<i32>().is_err() => {
                    return Err("offset and length are numbers, such as ${EXTEN:1:3}");
                }
                _ => *number = Some(parts),
            }
        }
    }
    if rest.starts_with(':') {
        return Err("at most an offset and a length, such as ${EXTEN:1:3}");
    }
    if !eat(rest, '}') {
        return Err(if rest.is_empty() { "'${' without '}'" } else { "after a function's ')' come ':' or '}'" });
    }
    if let Some(name) = literal(&name) {
        match &argument {
            None if !is_name(name) => {
                return Err("a variable's name is letters, digits and '_', such as ${EXTEN}");
            }
            Some(argument) => function(name, literal(argument))?,
            None => {}
        }
    }
    let [offset, length] = numbers;
    Ok(Variable { name, argument, offset, length })
}

/// Whether a variable may be named so.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= limits::EXTENSION
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What `CALLERID` and `CHANNEL` can be asked for.
const CALLERID: [&str; 3] = ["num", "name", "all"];
const CHANNEL: [&str; 7] = ["name", "endpoint", "context", "exten", "state", "uniqueid", "channeltype"];

/// Whether there is such a function, and with this argument where it is known.
fn function(name: &str, argument: Option<&str>) -> Result<(), &'static str> {
    let one_of = |all: &[&str]| argument.is_none_or(|argument| all.contains(&argument));
    match name {
        "CALLERID" if one_of(&CALLERID) => Ok(()),
        "CALLERID" => Err("of CALLERID there are num, name and all"),
        "CHANNEL" if one_of(&CHANNEL) => Ok(()),
        "CHANNEL" => Err("of CHANNEL there are name, endpoint, context, exten, state, uniqueid and channeltype"),
        "PJSIP_HEADER" => {
            let mut fields = argument.unwrap_or("read,X").split(',').map(str::trim);
            let read = fields.next() == Some("read") && fields.next().is_some_and(|name| !name.is_empty());
            let number = fields.next().is_none_or(|number| number.parse::<u8>().is_ok_and(|number| number > 0));
            match read && number && fields.next().is_none() {
                true => Ok(()),
                false => Err("a header field is read by PJSIP_HEADER(read,NAME) or PJSIP_HEADER(read,NAME,N)"),
            }
        }
        "LEN" => Ok(()),
        _ => Err("of the functions only CALLERID, CHANNEL, PJSIP_HEADER and LEN are supported"),
    }
}

/// `None` when it becomes too long.
fn expand(parts: &[Part], value: Lookup<'_, '_>) -> Option<String> {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Variable(variable) => {
                let name = expand(&variable.name, value)?;
                let found = match &variable.argument {
                    Some(argument) => {
                        let argument = expand(argument, value)?;
                        match name.as_str() {
                            "LEN" => Some(Cow::Owned(argument.chars().count().to_string())),
                            _ => value(&format!("{name}({argument})")),
                        }
                    }
                    None => value(&name),
                };
                let number = |parts: &Option<Vec<Part>>| match parts {
                    Some(parts) => Some(expand(parts, value)?.trim().parse::<i32>().ok().map(i64::from)),
                    None => Some(None),
                };
                let (offset, length) = (number(&variable.offset)?, number(&variable.length)?);
                out.push_str(slice(&found.unwrap_or_default(), offset.unwrap_or(0), length));
            }
        }
        if out.len() > limits::EXPANDED {
            return None;
        }
    }
    Some(out)
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
            "PART" => Some("EN".into()),
            "NAMED" => Some("EXTEN".into()),
            "TWO" => Some("2".into()),
            "KIND" => Some("num".into()),
            "PJSIP_HEADER(read,X-Account)" => Some("7".into()),
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
            ("${LEN(${EXTEN})}", "5"),
            ("${LEN(a(b)c)}", "5"),
            ("${LEN(${UNSET})}", "0"),
            ("${EXT${PART}}", "12345"),
            ("${${NAMED}:1:2}", "23"),
            ("${EXTEN:${TWO}}", "345"),
            ("${EXTEN:-${TWO}:1}", "4"),
            ("${EXTEN:${UNSET}}", "12345"),
            ("${CALLERID(${KIND}):2}", "05"),
            ("${PJSIP_HEADER(read,X-Account)}", "7"),
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
            ("${A${1}}", "letters, digits"),
            ("${LEN(${EXTEN)}", "letters, digits"),
            ("${LEN(${EXTEN}}", "without"),
            ("${CALLERID(dnid)}", "num, name and all"),
            ("${CHANNEL(rtcp)}", "of CHANNEL"),
            ("${PJSIP_HEADER(add,X-A)}", "is read by"),
            ("${PJSIP_HEADER(read,X-A,0)}", "is read by"),
            ("${CALLERID(num)x}", "after a function"),
            (&"${A".repeat(20), "deep"),
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
        fn never_panics(text in "[${}:A-Z0-9\\-\\[()é]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(template.as_str(), text);
                let _ = template.expand(&values);
            }
        }
    }
}
