//! Authorization and Proxy-Authorization values (RFC 7616 3.4) and their judgement.

use super::{Algorithm, DigestError, Qop, ResponseInput, constant_time_eq, params, response};
use crate::uri::Uri;
use std::borrow::Cow;
use std::fmt;

/// The credentials of one header value. Strings are unquoted and unescaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The user, also when it came as `username*` (RFC 8187).
    pub username: Cow<'a, str>,
    /// The realm of the challenge.
    pub realm: Cow<'a, str>,
    /// The nonce of the challenge.
    pub nonce: Cow<'a, str>,
    /// The digest-uri as the client wrote it; see [`uri_matches`].
    pub uri: Cow<'a, str>,
    /// The response: hex, of the algorithm's length.
    pub response: Cow<'a, str>,
    /// The hash used; MD5 where the header does not say.
    pub algorithm: Algorithm,
    /// The client's nonce; present whenever `qop` is.
    pub cnonce: Option<Cow<'a, str>>,
    /// The opaque of the challenge.
    pub opaque: Option<Cow<'a, str>>,
    /// Quality of protection the client chose; `None` is RFC 2069.
    pub qop: Option<Qop>,
    /// The nonce count as written; present whenever `qop` is.
    pub nc: Option<Cow<'a, str>>,
}

impl<'a> Credentials<'a> {
    /// Reads a header value (`Digest username=...`).
    pub fn parse(value: &'a str) -> Result<Credentials<'a>, DigestError> {
        let (scheme, rest) = params::scheme(value).ok_or(DigestError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(DigestError::Scheme);
        }
        let (mut list, more) = params::list(rest)?;
        if !more.is_empty() {
            return Err(DigestError::Malformed);
        }
        let mut take = |name: &'static str| params::take(&mut list, name);
        let algorithm = match take("algorithm") {
            Some(a) => Algorithm::parse(&a).ok_or(DigestError::Algorithm)?,
            None => Algorithm::Md5,
        };
        let username = match (take("username"), take("username*")) {
            (Some(plain), None) => plain,
            (None, Some(extended)) => Cow::Owned(extended_value(&extended).ok_or(DigestError::Malformed)?),
            (None, None) => return Err(DigestError::Missing("username")),
            (Some(_), Some(_)) => return Err(DigestError::Malformed),
        };
        let qop = match take("qop") {
            Some(q) if q.is_empty() => None,
            Some(q) => Some(Qop::parse(&q).ok_or(DigestError::Qop)?),
            None => None,
        };
        let (cnonce, nc) = (take("cnonce"), take("nc"));
        let nc_legal = nc.as_ref().is_some_and(|n| n.len() == 8 && n.bytes().all(|b| b.is_ascii_hexdigit()));
        if qop.is_some() && (cnonce.is_none() || !nc_legal) || algorithm.is_session() && cnonce.is_none() {
            return Err(DigestError::Qop);
        }
        Ok(Credentials {
            username,
            realm: take("realm").ok_or(DigestError::Missing("realm"))?,
            nonce: take("nonce").ok_or(DigestError::Missing("nonce"))?,
            uri: take("uri").ok_or(DigestError::Missing("uri"))?,
            response: take("response").ok_or(DigestError::Missing("response"))?,
            opaque: take("opaque"),
            algorithm,
            cnonce,
            qop,
            nc,
        })
    }

    /// The nonce count as a number; `None` without qop (then the nonce can be used once only, as replay cannot be told).
    pub fn nonce_count(&self) -> Option<u32> {
        self.qop?;
        u32::from_str_radix(self.nc.as_deref()?, 16).ok()
    }
}

impl fmt::Debug for Credentials<'_> {
    /// Without the response, which serves a guess of the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .field("uri", &self.uri)
            .field("algorithm", &self.algorithm)
            .field("qop", &self.qop)
            .field("nc", &self.nc)
            .finish_non_exhaustive()
    }
}

/// Whether the response proves knowledge of `ha1` (lower-case hex, made by [`super::ha1`] with the same base algorithm). The nonce,
/// the realm and the digest-uri are the caller's to judge: [`super::Nonces::check`], [`uri_matches`]. Takes the same time wherever
/// the strings differ.
pub fn verify(credentials: &Credentials<'_>, method: &str, body: &[u8], ha1: &str) -> bool {
    let input = ResponseInput {
        algorithm: credentials.algorithm,
        nonce: &credentials.nonce,
        cnonce: credentials.cnonce.as_deref().unwrap_or_default(),
        nc: credentials.nc.as_deref().unwrap_or_default(),
        qop: credentials.qop,
        method,
        uri: &credentials.uri,
        body,
    };
    let expected = response(&input, ha1);
    constant_time_eq(expected.as_bytes(), credentials.response.to_ascii_lowercase().as_bytes())
}

/// Whether the digest-uri is meant for this Request-URI (RFC 7616 3.4.6, RFC 3261 22.4): equal as strings, equivalent by RFC 3261
/// 19.1.4, or the same scheme, user, host and port, since proxies on the way may add or drop parameters.
pub fn uri_matches(digest_uri: &str, request_uri: &str) -> bool {
    if digest_uri == request_uri {
        return true;
    }
    let (Ok(a), Ok(b)) = (Uri::parse(digest_uri), Uri::parse(request_uri)) else {
        return false;
    };
    let same_place =
        a.scheme == b.scheme && a.port == b.port && a.host.to_string().eq_ignore_ascii_case(&b.host.to_string());
    a.equivalent(&b) || a.is_sip() && same_place && a.user_unescaped() == b.user_unescaped()
}

/// `UTF-8''J%C3%A4s%C3%B8n` of RFC 8187 3.2; only UTF-8, as RFC 7616 4 asks.
fn extended_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("UTF-8") {
        return None;
    }
    let mut out = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let (high, low) = (char::from(bytes.next()?).to_digit(16)?, char::from(bytes.next()?).to_digit(16)?);
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}
