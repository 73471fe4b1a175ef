//! Structured header fields: addresses, Via, CSeq, Contact, read in place (RFC 3261 20, 25.1).

use std::borrow::Cow;
use std::net::IpAddr;

use crate::error::ParseError;
use crate::method::Method;
use crate::name::Name;
pub use crate::params::Params;
use crate::scan::{is_blank, is_token_byte, number, quoted_len, trim, trim_start};
pub use crate::uri::Host;
use crate::uri::{Uri, host_port};

/// An address with a display name and parameters: From, To, Contact, Route and their kin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The display name as written, quotes and escapes still in it.
    pub display: Option<&'a str>,
    /// The URI as written, without angle brackets.
    pub uri: &'a str,
    /// The field's parameters (not the URI's).
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Parses `"display" <uri>;params` or `uri;params`; the URI's own grammar is left to [`Self::uri_parsed`].
    ///
    /// # Errors
    /// [`ParseError::Syntax`] for unbalanced quotes and brackets, a display name that is neither quoted nor
    /// tokens, blanks in the URI, malformed parameters.
    #[inline]
    pub fn parse(s: &'a str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError::Syntax("address");
        let s = trim(s);
        let (display, rest) = if s.starts_with('"') {
            let end = quoted_len(s).ok_or(BAD)?;
            let rest = trim_start(&s[end..]);
            if !rest.starts_with('<') {
                return Err(BAD);
            }
            (Some(&s[..end]), rest)
        } else {
            match memchr::memchr2(b'<', b'"', s.as_bytes()) {
                Some(at) if s.as_bytes()[at] == b'<' => {
                    let display = trim(&s[..at]);
                    // Phones send names beyond ASCII without quotes; nothing else is let through.
                    let good = |b: u8| is_token_byte(b) || is_blank(b) || b >= 0x80;
                    if display.bytes().all(good) {
                        ((!display.is_empty()).then_some(display), &s[at..])
                    } else if s[..at].contains(';') {
                        (None, s)
                    } else {
                        return Err(BAD);
                    }
                }
                _ => (None, s),
            }
        };
        let (uri, params) = if let Some(inner) = rest.strip_prefix('<') {
            let end = memchr::memchr(b'>', inner.as_bytes()).ok_or(BAD)?;
            (&inner[..end], &inner[end + 1..])
        } else {
            // Without brackets a semicolon begins the field's parameters and '?' and ',' may not stand
            // in the URI (RFC 3261 20.10).
            let end = memchr::memchr(b';', rest.as_bytes()).unwrap_or(rest.len());
            let uri = trim(&rest[..end]);
            if memchr::memchr2(b'?', b',', uri.as_bytes()).is_some() {
                return Err(BAD);
            }
            (uri, &rest[end..])
        };
        // Without an early exit, so that the loop is vectorised.
        let bad =
            uri.bytes().fold(false, |bad, b| bad | (b <= b' ') | (b == b'<') | (b == b'>') | (b == b'"') | (b == 0x7f));
        if bad || uri.is_empty() {
            return Err(BAD);
        }
        Ok(Self { display, uri, params: Params::parse(params)? })
    }

    /// The URI, parsed.
    ///
    /// # Errors
    /// [`ParseError::Uri`].
    pub fn uri_parsed(&self) -> Result<Uri<'a>, ParseError> {
        Uri::parse(self.uri)
    }

    /// The tag; none if it is absent or has no value.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag").flatten()
    }

    /// The display name without quotes and escapes; empty if there is none.
    #[must_use]
    pub fn display_unquoted(&self) -> Cow<'a, str> {
        unquote(self.display.unwrap_or_default())
    }
}

/// Takes quotes and escapes away from a quoted string; other text comes back as it is.
#[must_use]
pub fn unquote(s: &str) -> Cow<'_, str> {
    if s.len() < 2 || quoted_len(s) != Some(s.len()) {
        return Cow::Borrowed(s);
    }
    let inner = &s[1..s.len() - 1];
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    Cow::Owned(out)
}

/// Puts text into quotes, quotes and backslashes in it escaped; CR and LF, which no quoted string holds, become
/// blanks.
#[must_use]
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\r' | '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// One value of Contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contact<'a> {
    /// `*`: all bindings (RFC 3261 10.2.2).
    Star,
    /// An address.
    Addr(NameAddr<'a>),
}

impl<'a> Contact<'a> {
    /// Parses one value.
    ///
    /// # Errors
    /// [`ParseError::Malformed`].
    pub fn parse(s: &'a str) -> Result<Self, ParseError> {
        if trim(s) == "*" {
            return Ok(Self::Star);
        }
        NameAddr::parse(s).map(Self::Addr).map_err(|e| e.of(Name::Contact))
    }
}

/// One value of Via (RFC 3261 20.42).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Via<'a> {
    /// The transport as written: `UDP`, `TCP`, `TLS`, `WS`, ...
    pub transport: &'a str,
    /// The host of sent-by.
    pub host: Host<'a>,
    /// Host and port as written.
    pub sent_by: &'a str,
    /// The port of sent-by, if written.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Parses one value.
    ///
    /// # Errors
    /// [`ParseError::Malformed`].
    #[inline]
    pub fn parse(s: &'a str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError::Malformed(Name::Via);
        let s = trim(s);
        let rest = match s.strip_prefix("SIP/2.0/") {
            Some(rest) => rest,
            None => {
                // Blanks may stand around both slashes, and the case is free.
                let (name, rest) = s.split_once('/').ok_or(BAD)?;
                let (version, rest) = rest.split_once('/').ok_or(BAD)?;
                if !trim(name).eq_ignore_ascii_case("SIP") || trim(version) != "2.0" {
                    return Err(BAD);
                }
                rest
            }
        };
        let rest = trim_start(rest);
        let transport_len = rest.bytes().take_while(|b| is_token_byte(*b)).count();
        let (transport, rest) = rest.split_at(transport_len);
        if transport.is_empty() || !rest.as_bytes().first().is_some_and(|b| is_blank(*b)) {
            return Err(BAD);
        }
        let end = memchr::memchr(b';', rest.as_bytes()).unwrap_or(rest.len());
        let sent_by = trim(&rest[..end]);
        let (host, port) = host_port(sent_by).map_err(|_| BAD)?;
        let params = Params::parse(&rest[end..]).map_err(|_| BAD)?;
        Ok(Self { transport, host, sent_by, port, params })
    }

    /// The branch.
    #[must_use]
    #[inline]
    pub fn branch(&self) -> Option<&'a str> {
        self.params.get("branch").flatten()
    }

    /// The address in `received`, with or without brackets around IPv6 (RFC 5118 4.5).
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        let value = self.params.get("received").flatten()?;
        value.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(value).parse().ok()
    }

    /// `rport` (RFC 3581): none if absent, `Some(None)` if it asks for the port. A value that is no port counts as
    /// asking.
    #[must_use]
    #[inline]
    pub fn rport(&self) -> Option<Option<u16>> {
        self.params.get("rport").map(|v| v.and_then(|v| number(v, 65535)).map(|p| p as u16))
    }
}

/// CSeq (RFC 3261 20.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The sequence number, below 2^31.
    pub number: u32,
    /// The method.
    pub method: Method<'a>,
}

impl<'a> CSeq<'a> {
    /// Parses the value.
    ///
    /// # Errors
    /// [`ParseError::Malformed`].
    #[inline]
    pub fn parse(s: &'a str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError::Malformed(Name::CSeq);
        let s = trim(s);
        let digits = s.bytes().take_while(u8::is_ascii_digit).count();
        let n = number(&s[..digits], (1 << 31) - 1).ok_or(BAD)?;
        let rest = &s[digits..];
        let method = trim_start(rest);
        if method.len() == rest.len() || method.is_empty() || !method.bytes().all(is_token_byte) {
            return Err(BAD);
        }
        Ok(Self { number: n as u32, method: Method::parse(method) })
    }
}
