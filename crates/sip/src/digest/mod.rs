//! HTTP digest authentication as SIP uses it: RFC 7616 and RFC 8760, and RFC 2617 for peers that send no qop.
//!
//! Server side: [`Nonces::issue`] makes a stateless signed nonce, [`Challenge`] prints the header, [`Credentials::parse`] reads the
//! answer, [`Nonces::check`] and [`verify`] judge it. Client side: [`choose`] picks a challenge, [`answer`] builds the header value.
//! Deviations and what is left out: `docs/rfc/digest.md`.

mod challenge;
mod client;
mod credentials;
mod nonce;
mod params;
#[cfg(test)]
mod tests;

pub use challenge::{Challenge, challenges};
pub use client::{Secret, answer, choose};
pub use credentials::{Credentials, uri_matches, verify};
pub use nonce::{Freshness, Nonces};

use std::fmt;

/// Why an Authorization or WWW-Authenticate value could not be read. Answer 400 where it came in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The scheme is not Digest: another header field may hold one that is.
    #[error("authentication scheme is not Digest")]
    Scheme,
    /// The parameter list does not follow the grammar, or holds a parameter twice.
    #[error("malformed digest parameter list")]
    Malformed,
    /// A parameter that RFC 7616 requires is absent.
    #[error("digest parameter {0} is missing")]
    Missing(&'static str),
    /// The algorithm is one we do not have.
    #[error("digest algorithm is not supported")]
    Algorithm,
    /// The qop value is one we do not have, or its companions (nc, cnonce) are absent.
    #[error("digest qop is not supported or incomplete")]
    Qop,
}

/// The hash and its session variant (RFC 7616 3.3, RFC 8760 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Algorithm {
    /// `MD5`, also what an absent parameter means.
    #[default]
    Md5,
    /// `MD5-sess`.
    Md5Sess,
    /// `SHA-256`.
    Sha256,
    /// `SHA-256-sess`.
    Sha256Sess,
}

impl Algorithm {
    /// The token as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Md5 => "MD5",
            Algorithm::Md5Sess => "MD5-sess",
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha256Sess => "SHA-256-sess",
        }
    }

    /// Reads the token in any case; `None` for one we do not have (for example SHA-512-256).
    pub fn parse(token: &str) -> Option<Algorithm> {
        const ALL: [Algorithm; 4] = [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess];
        ALL.into_iter().find(|a| a.as_str().eq_ignore_ascii_case(token))
    }

    /// Whether HA1 is bound to nonce and cnonce (`-sess`).
    pub fn is_session(self) -> bool {
        matches!(self, Algorithm::Md5Sess | Algorithm::Sha256Sess)
    }

    /// The algorithm without `-sess`: what a stored HA1 is made with.
    pub fn base(self) -> Algorithm {
        match self {
            Algorithm::Md5 | Algorithm::Md5Sess => Algorithm::Md5,
            Algorithm::Sha256 | Algorithm::Sha256Sess => Algorithm::Sha256,
        }
    }

    /// Lower-case hex of the hash over `parts` joined by colons: the H(a:b:c) of RFC 7616 3.4.
    pub fn hash(self, parts: &[&[u8]]) -> String {
        fn run<D: sha2::Digest>(parts: &[&[u8]]) -> String {
            let mut hash = D::new();
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    hash.update(b":");
                }
                hash.update(part);
            }
            hex(&hash.finalize())
        }
        match self.base() {
            Algorithm::Sha256 | Algorithm::Sha256Sess => run::<sha2::Sha256>(parts),
            Algorithm::Md5 | Algorithm::Md5Sess => run::<md5::Md5>(parts),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Quality of protection (RFC 7616 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Qop {
    /// `auth`: method and URI are covered.
    Auth,
    /// `auth-int`: the body too. Checked when a client uses it; never offered by us, as a PBX rewrites SDP.
    AuthInt,
}

impl Qop {
    /// The token as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }

    /// Reads the token in any case.
    pub fn parse(token: &str) -> Option<Qop> {
        [Qop::Auth, Qop::AuthInt].into_iter().find(|q| q.as_str().eq_ignore_ascii_case(token))
    }
}

/// HA1 as it is stored: H(user ":" realm ":" password) in lower-case hex, by the base algorithm. The session part of `-sess` is
/// added by [`response`], so one stored HA1 serves both variants.
pub fn ha1(algorithm: Algorithm, user: &str, realm: &str, password: &str) -> String {
    algorithm.hash(&[user.as_bytes(), realm.as_bytes(), password.as_bytes()])
}

/// What the response is computed over (RFC 7616 3.4.1), all as on the wire after unquoting.
#[derive(Debug, Clone, Copy)]
pub struct ResponseInput<'a> {
    /// Hash to use.
    pub algorithm: Algorithm,
    /// The server's nonce.
    pub nonce: &'a str,
    /// The client's nonce; needed with qop and with `-sess`, else empty.
    pub cnonce: &'a str,
    /// The nonce count, eight hex digits; used with qop only.
    pub nc: &'a str,
    /// `None` is RFC 2069 compatibility: H(HA1:nonce:HA2).
    pub qop: Option<Qop>,
    /// The request's method.
    pub method: &'a str,
    /// The digest-uri, as the client wrote it.
    pub uri: &'a str,
    /// The request's body, used by auth-int only.
    pub body: &'a [u8],
}

/// The `response` parameter in lower-case hex. `ha1` is the stored form of [`ha1()`].
pub fn response(input: &ResponseInput<'_>, ha1: &str) -> String {
    let alg = input.algorithm;
    let session;
    let ha1 = if alg.is_session() {
        session = alg.hash(&[ha1.as_bytes(), input.nonce.as_bytes(), input.cnonce.as_bytes()]);
        session.as_str()
    } else {
        ha1
    };
    let (method, uri) = (input.method.as_bytes(), input.uri.as_bytes());
    let ha2 = match input.qop {
        Some(Qop::AuthInt) => alg.hash(&[method, uri, alg.hash(&[input.body]).as_bytes()]),
        _ => alg.hash(&[method, uri]),
    };
    match input.qop {
        None => alg.hash(&[ha1.as_bytes(), input.nonce.as_bytes(), ha2.as_bytes()]),
        Some(qop) => alg.hash(&[
            ha1.as_bytes(),
            input.nonce.as_bytes(),
            input.nc.as_bytes(),
            input.cnonce.as_bytes(),
            qop.as_str().as_bytes(),
            ha2.as_bytes(),
        ]),
    }
}

/// Compares without telling by time where two equally long strings differ.
pub(crate) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y));
    std::hint::black_box(difference) == 0
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        for nibble in [b >> 4, b & 15] {
            out.push(DIGITS.get(usize::from(nibble)).map_or('0', |d| char::from(*d)));
        }
    }
    out
}
