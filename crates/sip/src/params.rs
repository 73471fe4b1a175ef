//! Parameters of URIs and header fields (`;name=value`, RFC 3261 25.1), read in place.

use crate::error::ParseError;
use crate::scan::{is_blank, is_stop, is_token_byte, is_value_byte, quoted_len, trim};

/// The parameters after a value, as written: empty, or `;a=b;c`. Blanks around `;` and `=` are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a> {
    raw: &'a str,
}

impl<'a> Params<'a> {
    /// Checks the grammar: each parameter has a name; quotes are closed and only around a whole value.
    ///
    /// # Errors
    /// [`ParseError::Syntax`] for anything but parameters.
    #[inline]
    pub fn parse(raw: &'a str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError::Syntax("parameter");
        let raw = trim(raw);
        let bytes = raw.as_bytes();
        let skip = |mut at: usize, class: fn(u8) -> bool| {
            while at < bytes.len() && class(bytes[at]) {
                at += 1;
            }
            at
        };
        let mut at = 0;
        while at < bytes.len() {
            if bytes[at] != b';' {
                return Err(BAD);
            }
            let start = skip(at + 1, is_blank);
            at = skip(start, is_token_byte);
            if at == start {
                return Err(BAD);
            }
            at = skip(at, is_blank);
            if bytes.get(at) == Some(&b'=') {
                let start = skip(at + 1, is_blank);
                at = match bytes.get(start) {
                    Some(b'"') => start + quoted_len(&raw[start..]).ok_or(BAD)?,
                    _ => skip(start, is_value_byte),
                };
                if at == start {
                    return Err(BAD);
                }
                at = skip(at, is_blank);
            }
        }
        Ok(Self { raw })
    }

    /// Takes text that is known to be parameters of a URI.
    pub(crate) fn unchecked(raw: &'a str) -> Self {
        Self { raw }
    }

    /// The parameters as written, the first `;` included; empty if there are none.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.raw
    }

    /// No parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The value of a parameter, its name in any case: none if it is absent, `Some(None)` if it stands without
    /// a value. A quoted value comes with its quotes.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<Option<&'a str>> {
        let bytes = self.raw.as_bytes();
        let (name, mut at) = (name.as_bytes(), 0);
        while at < bytes.len() {
            at += usize::from(bytes[at] == b';');
            while at < bytes.len() && is_blank(bytes[at]) {
                at += 1;
            }
            let past = at + name.len();
            if bytes.get(at..past).is_some_and(|n| n.eq_ignore_ascii_case(name)) {
                let mut next = past;
                while bytes.get(next).is_some_and(|b| is_blank(*b)) {
                    next += 1;
                }
                match bytes.get(next) {
                    None | Some(b';') => return Some(None),
                    Some(b'=') => return Some(Some(self.value_at(next + 1))),
                    Some(_) => {}
                }
            }
            // Names and flags are short: a loop over bytes is done before a search over words has begun.
            while at < bytes.len() && bytes[at] != b';' {
                at += if bytes[at] == b'"' { quoted_len(&self.raw[at..]).unwrap_or(bytes.len()) } else { 1 };
            }
        }
        None
    }

    /// The value that begins at `at` and ends at the semicolon that stands in no quotes, without blanks around it.
    #[inline]
    fn value_at(&self, at: usize) -> &'a str {
        let bytes = self.raw.as_bytes();
        let mut end = at;
        while let Some(n) = bytes.get(end..).and_then(|rest| memchr::memchr2(b';', b'"', rest)) {
            if bytes[end + n] == b';' {
                return trim(&self.raw[at..end + n]);
            }
            end += n + quoted_len(&self.raw[end + n..]).unwrap_or(bytes.len());
        }
        trim(&self.raw[at..])
    }

    /// Every parameter in order.
    #[must_use]
    #[inline]
    pub fn iter(&self) -> ParamsIter<'a> {
        ParamsIter { rest: self.raw }
    }
}

impl<'a> IntoIterator for Params<'a> {
    type Item = (&'a str, Option<&'a str>);
    type IntoIter = ParamsIter<'a>;

    fn into_iter(self) -> ParamsIter<'a> {
        self.iter()
    }
}

/// Walks over parameters.
#[derive(Debug, Clone)]
pub struct ParamsIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for ParamsIter<'a> {
    type Item = (&'a str, Option<&'a str>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.strip_prefix(';').unwrap_or(self.rest);
        if self.rest.is_empty() {
            return None;
        }
        let bytes = rest.as_bytes();
        let mut at = 0;
        let mut equals = None;
        while at < bytes.len() {
            let b = bytes[at];
            if is_stop(b) {
                match b {
                    b';' => break,
                    b'=' if equals.is_none() => equals = Some(at),
                    b'"' => at += quoted_len(&rest[at..]).unwrap_or(bytes.len() - at) - 1,
                    _ => {}
                }
            }
            at += 1;
        }
        self.rest = &rest[at..];
        let param = &rest[..at];
        Some(match equals {
            Some(eq) => (trim(&param[..eq]), Some(trim(&param[eq + 1..]))),
            None => (trim(param), None),
        })
    }
}
