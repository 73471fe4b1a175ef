//! Parameters of URIs and header fields (`;name=value`, RFC 3261 25.1), read in place.

use crate::error::ParseError;
use crate::scan::{self, quoted_len, trim};

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
    pub fn parse(raw: &'a str) -> Result<Self, ParseError> {
        let raw = trim(raw);
        if raw.is_empty() {
            return Ok(Self { raw });
        }
        if !raw.starts_with(';') {
            return Err(ParseError::Syntax("parameter"));
        }
        let params = Self { raw };
        for (name, value) in params.iter() {
            let good = scan::is_token(name)
                && value.is_none_or(|v| {
                    if v.starts_with('"') {
                        quoted_len(v) == Some(v.len())
                    } else {
                        !v.is_empty()
                            && v.bytes().all(|b| !scan::is_blank(b) && !matches!(b, b'"' | b'<' | b'>' | b','))
                    }
                });
            if !good {
                return Err(ParseError::Syntax("parameter"));
            }
        }
        Ok(params)
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
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
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
        while let Some(b) = bytes.get(at) {
            match b {
                b';' => break,
                b'=' if equals.is_none() => equals = Some(at),
                b'"' => at += quoted_len(&rest[at..]).unwrap_or(bytes.len() - at) - 1,
                _ => {}
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
