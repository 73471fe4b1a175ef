//! URIs: sip, sips (RFC 3261 19.1), tel (RFC 3966) and any other scheme, read in place.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::ParseError;
pub use crate::params::Params;
use crate::scan::number;

/// A URI's scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme<'a> {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`, whose number stands in [`Uri::user`].
    Tel,
    /// Any other, as written.
    Other(&'a str),
}

/// A host: a name or an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host<'a> {
    /// A domain name, as written; empty for a URI that has no host.
    Name(&'a str),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 reference, written in brackets.
    V6(Ipv6Addr),
}

impl<'a> Host<'a> {
    /// Parses a host as it stands in a URI or a sent-by: IPv6 in brackets.
    ///
    /// # Errors
    /// [`ParseError::Syntax`] for anything but a name or an address.
    #[inline]
    pub fn parse(s: &'a str) -> Result<Self, ParseError> {
        const BAD: ParseError = ParseError::Syntax("host");
        if let Some(inner) = s.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(BAD)?;
            return inner.parse().ok().or_else(|| three_colons(inner)).map(Self::V6).ok_or(BAD);
        }
        let bytes = s.as_bytes();
        if bytes.last().is_some_and(u8::is_ascii_digit)
            && let Some(v4) = dotted_quad(bytes)
        {
            return Ok(Self::V4(v4));
        }
        if bytes.is_empty() || !bytes.iter().all(|b| crate::scan::is_host_byte(*b)) || matches!(bytes[0], b'.' | b'-') {
            return Err(BAD);
        }
        Ok(Self::Name(s))
    }

    /// The address, if it is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Self::Name(_) => None,
            Self::V4(v4) => Some(v4.into()),
            Self::V6(v6) => Some(v6.into()),
        }
    }

    /// The same host: names in any case, addresses by value (RFC 3261 19.1.4).
    #[must_use]
    pub fn same(&self, other: &Host<'_>) -> bool {
        match (self, other) {
            (Self::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (a, b) => a.ip().is_some() && a.ip() == b.ip(),
        }
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(v4) => v4.fmt(f),
            Self::V6(v6) => write!(f, "[{v6}]"),
        }
    }
}

/// Four decimal octets without leading zeros, as the standard library reads them, in a third of its time.
#[inline]
fn dotted_quad(bytes: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut at = 0;
    for (n, octet) in octets.iter_mut().enumerate() {
        if n > 0 {
            if bytes.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let start = at;
        let mut value = 0u32;
        while at < bytes.len() && at - start < 3 && bytes[at].is_ascii_digit() {
            value = value * 10 + u32::from(bytes[at] - b'0');
            at += 1;
        }
        if at == start || value > 255 || at - start > 1 && bytes[start] == b'0' {
            return None;
        }
        *octet = value as u8;
    }
    (at == bytes.len()).then(|| octets.into())
}

/// `2001:db8:::192.0.2.1`: the grammar of RFC 3261 asks for a third colon before an IPv4 part, and RFC 5118 4.10
/// for tolerance of it there.
#[cold]
fn three_colons(s: &str) -> Option<Ipv6Addr> {
    let (before, after) = s.split_once(":::")?;
    after.parse::<Ipv4Addr>().ok()?;
    format!("{before}::{after}").parse().ok()
}

/// Splits `host[:port]`; the port of 0 is refused.
pub(crate) fn host_port(s: &str) -> Result<(Host<'_>, Option<u16>), ParseError> {
    let colon = match s.strip_prefix('[') {
        Some(_) => s.find(']').map(|end| end + 1).filter(|at| *at < s.len()),
        None => memchr::memchr(b':', s.as_bytes()),
    };
    let Some(at) = colon else { return Ok((Host::parse(s)?, None)) };
    let (host, port) = (crate::scan::trim(&s[..at]), crate::scan::trim_start(&s[at..]));
    let port = port.strip_prefix(':').ok_or(ParseError::Syntax("host"))?;
    let port = number(crate::scan::trim(port), 65535).filter(|p| *p > 0).ok_or(ParseError::Syntax("port"))?;
    Ok((Host::parse(host)?, Some(port as u16)))
}

/// A URI, its parts as written (still escaped).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    /// The scheme.
    pub scheme: Scheme<'a>,
    /// The user part; of a tel URI the number.
    pub user: Option<&'a str>,
    /// The password after the user.
    pub password: Option<&'a str>,
    /// The host; an empty name in a tel URI and in an unknown scheme.
    pub host: Host<'a>,
    /// The port, if written.
    pub port: Option<u16>,
    /// The parameters.
    pub params: Params<'a>,
    /// What follows `?`.
    pub headers: Option<&'a str>,
    /// The whole URI.
    pub raw: &'a str,
}

impl<'a> Uri<'a> {
    /// Parses a URI without angle brackets around it.
    ///
    /// # Errors
    /// [`ParseError::Uri`]. A URI of an unknown scheme is taken whole if it has no blanks, quotes or brackets.
    pub fn parse(raw: &'a str) -> Result<Self, ParseError> {
        let colon = memchr::memchr(b':', raw.as_bytes()).ok_or(ParseError::Uri)?;
        let (name, rest) = (&raw[..colon], &raw[colon + 1..]);
        let scheme = if name.eq_ignore_ascii_case("sip") {
            Scheme::Sip
        } else if name.eq_ignore_ascii_case("sips") {
            Scheme::Sips
        } else if name.eq_ignore_ascii_case("tel") {
            Scheme::Tel
        } else {
            Scheme::Other(name)
        };
        let mut uri = Uri {
            scheme,
            user: None,
            password: None,
            host: Host::Name(""),
            port: None,
            params: Params::default(),
            headers: None,
            raw,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.sip(rest)?,
            Scheme::Tel => uri.tel(rest)?,
            Scheme::Other(name) => {
                let good_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
                if !good_name || rest.is_empty() || !rest.bytes().all(is_uri_byte) || !escapes_good(rest) {
                    return Err(ParseError::Uri);
                }
            }
        }
        Ok(uri)
    }

    fn sip(&mut self, rest: &'a str) -> Result<(), ParseError> {
        if !escapes_good(rest) {
            return Err(ParseError::Uri);
        }
        // A user may hold ';' and '?', a host may not hold '@': the first '@' ends the user.
        let after = match memchr::memchr(b'@', rest.as_bytes()) {
            Some(at) => {
                let (user, password) = match rest[..at].split_once(':') {
                    Some((user, password)) => (user, Some(password)),
                    None => (&rest[..at], None),
                };
                let good_user = !user.is_empty() && user.bytes().all(|b| is_user_byte(b) || b == b'%');
                let good_password = password.is_none_or(|p| p.bytes().all(|b| is_password_byte(b) || b == b'%'));
                if !good_user || !good_password {
                    return Err(ParseError::Uri);
                }
                (self.user, self.password) = (Some(user), password);
                &rest[at + 1..]
            }
            None => rest,
        };
        let (after, headers) = match memchr::memchr(b'?', after.as_bytes()) {
            Some(at) => (&after[..at], Some(&after[at + 1..])),
            None => (after, None),
        };
        let host_end = memchr::memchr(b';', after.as_bytes()).unwrap_or(after.len());
        if after[..host_end].bytes().any(crate::scan::is_blank) {
            return Err(ParseError::Uri);
        }
        (self.host, self.port) = host_port(&after[..host_end]).map_err(|_| ParseError::Uri)?;
        self.params = uri_params(&after[host_end..])?;
        if let Some(headers) = headers {
            let good = |h: &str| {
                h.split_once('=').is_some_and(|(n, v)| {
                    !n.is_empty() && [n, v].iter().all(|s| s.bytes().all(|b| is_header_byte(b) || b == b'%'))
                })
            };
            if !headers.split('&').all(good) {
                return Err(ParseError::Uri);
            }
        }
        self.headers = headers;
        Ok(())
    }

    fn tel(&mut self, rest: &'a str) -> Result<(), ParseError> {
        let end = memchr::memchr(b';', rest.as_bytes()).unwrap_or(rest.len());
        let user = &rest[..end];
        let digits = user.strip_prefix('+').unwrap_or(user);
        let global = user.len() != digits.len();
        let good = |b: u8| {
            matches!(b, b'0'..=b'9' | b'-' | b'.' | b'(' | b')')
                || !global && matches!(b, b'a'..=b'f' | b'A'..=b'F' | b'*' | b'#')
        };
        if !digits.bytes().all(good) || !digits.bytes().any(|b| b.is_ascii_hexdigit() || matches!(b, b'*' | b'#')) {
            return Err(ParseError::Uri);
        }
        self.user = Some(user);
        self.params = uri_params(&rest[end..])?;
        Ok(())
    }

    /// The user with its escapes resolved; escapes that are not UTF-8 stay as they are. Empty without a user.
    #[must_use]
    pub fn user_unescaped(&self) -> Cow<'a, str> {
        unescape(self.user.unwrap_or_default())
    }

    /// A parameter's value with its escapes resolved, its name in any case: none if it is absent.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<Option<Cow<'a, str>>> {
        let raw = self.params.get(name).or_else(|| {
            // An escaped letter in a name is the letter (RFC 3261 19.1.4).
            let mut all = self.params.iter().filter(|(n, _)| n.contains('%'));
            all.find(|(n, _)| unescape(n).eq_ignore_ascii_case(name)).map(|(_, v)| v)
        })?;
        Some(raw.map(unescape))
    }

    /// `sip:` or `sips:`.
    #[must_use]
    pub fn is_sip(&self) -> bool {
        matches!(self.scheme, Scheme::Sip | Scheme::Sips)
    }

    /// Equal by RFC 3261 19.1.4 (for tel by RFC 3966 5, without its visual separators). Other schemes compare by
    /// their text.
    #[must_use]
    pub fn equivalent(&self, other: &Uri<'_>) -> bool {
        if self.raw == other.raw {
            return true;
        }
        match (self.scheme, other.scheme) {
            (Scheme::Sip, Scheme::Sip) | (Scheme::Sips, Scheme::Sips) => self.sip_equivalent(other),
            (Scheme::Tel, Scheme::Tel) => {
                let number = |user: Option<&str>| -> String {
                    let digits = user.unwrap_or_default().chars();
                    digits.filter(|c| !matches!(c, '-' | '.' | '(' | ')')).map(|c| c.to_ascii_lowercase()).collect()
                };
                let covers = |a: &Params<'_>, b: &Params<'_>| a.iter().all(|(n, v)| same_param(b.get(n), v));
                number(self.user) == number(other.user)
                    && covers(&self.params, &other.params)
                    && covers(&other.params, &self.params)
            }
            _ => false,
        }
    }

    fn sip_equivalent(&self, other: &Uri<'_>) -> bool {
        if self.user.is_some() != other.user.is_some()
            || self.user_unescaped() != other.user_unescaped()
            || self.password.map(unescape) != other.password.map(unescape)
            || !self.host.same(&other.host)
            || self.port != other.port
        {
            return false;
        }
        // A parameter in both must match; user, ttl, method, maddr and transport may not stand in one only.
        let covers = |a: &Uri<'_>, b: &Uri<'_>| {
            a.params.iter().all(|(name, value)| {
                let name = unescape(name);
                match b.param(&name) {
                    Some(found) => match (value.map(unescape), found) {
                        (Some(a), Some(b)) => a.eq_ignore_ascii_case(&b),
                        (None, None) => true,
                        _ => false,
                    },
                    None => {
                        let fixed = ["user", "ttl", "method", "maddr", "transport"];
                        !fixed.iter().any(|f| name.eq_ignore_ascii_case(f))
                    }
                }
            })
        };
        covers(self, other) && covers(other, self) && same_headers(self.headers, other.headers)
    }
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.raw)
    }
}

fn same_param(found: Option<Option<&str>>, value: Option<&str>) -> bool {
    match (found, value) {
        (Some(Some(a)), Some(b)) => a.eq_ignore_ascii_case(b),
        (Some(None), None) => true,
        _ => false,
    }
}

/// URI headers are never ignored and stand in any order (RFC 3261 19.1.4).
fn same_headers(a: Option<&str>, b: Option<&str>) -> bool {
    let list = |h: Option<&str>| {
        let mut all: Vec<(String, String)> = h
            .into_iter()
            .flat_map(|h| h.split('&'))
            .map(|h| h.split_once('=').unwrap_or((h, "")))
            .map(|(n, v)| (unescape(n).to_ascii_lowercase(), unescape(v).into_owned()))
            .collect();
        all.sort();
        all
    };
    a == b || list(a) == list(b)
}

fn uri_params(raw: &str) -> Result<Params<'_>, ParseError> {
    let good = |s: &str| !s.is_empty() && s.bytes().all(|b| is_param_byte(b) || b == b'%');
    if raw.is_empty() {
        return Ok(Params::default());
    }
    let params = Params::unchecked(raw);
    let all_good = raw[1..].split(';').all(|p| match p.split_once('=') {
        Some((name, value)) => good(name) && good(value),
        None => good(p),
    });
    if all_good { Ok(params) } else { Err(ParseError::Uri) }
}

fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
}

fn is_user_byte(b: u8) -> bool {
    // '#' is no user-unreserved but is dialled (`*21#`) and sent so by phones.
    is_unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b'#')
}

fn is_password_byte(b: u8) -> bool {
    is_unreserved(b) || matches!(b, b'&' | b'=' | b'+' | b'$' | b',')
}

fn is_param_byte(b: u8) -> bool {
    is_unreserved(b) || matches!(b, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$')
}

fn is_header_byte(b: u8) -> bool {
    is_unreserved(b) || matches!(b, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$')
}

fn is_uri_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"')
}

/// Every `%` is followed by two hexadecimal digits.
fn escapes_good(s: &str) -> bool {
    let bytes = s.as_bytes();
    memchr::memchr_iter(b'%', bytes)
        .all(|at| matches!(bytes.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// Resolves `%HH`. Text whose escapes are not UTF-8 or not well formed comes back as it is.
#[must_use]
pub fn unescape(s: &str) -> Cow<'_, str> {
    if !s.contains('%') {
        return Cow::Borrowed(s);
    }
    let bytes = s.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(b) = bytes.get(at) {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (b, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*b);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(s), Cow::Owned)
}

/// Escapes what may not stand in a user part as it is (RFC 3261 25.1, `user`).
#[must_use]
pub fn escape_user(s: &str) -> Cow<'_, str> {
    if s.bytes().all(|b| is_user_byte(b) && b != b'#') {
        return Cow::Borrowed(s);
    }
    let mut out = String::with_capacity(s.len() + 8);
    for b in s.bytes() {
        if is_user_byte(b) && b != b'#' {
            out.push(char::from(b));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(HEX[usize::from(b >> 4)]));
            out.push(char::from(HEX[usize::from(b & 15)]));
        }
    }
    Cow::Owned(out)
}
