//! The client's side: choosing a challenge and answering it.

use super::params::quote;
use super::{Algorithm, Challenge, Qop, ResponseInput, challenges, ha1, response};
use std::fmt;

/// What the client knows of the user's secret.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// The password itself.
    Password(&'a str),
    /// The stored HA1 in hex, made for the challenge's realm and base algorithm.
    Ha1(&'a str),
}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The first challenge that we can answer, over all header fields of one name: the server lists its preference first (RFC 8760
/// 2.4). One that offers qop values but none we can answer (only auth-int) is passed over.
pub fn choose<'f>(fields: impl Iterator<Item = &'f str>) -> Option<Challenge> {
    fields.flat_map(challenges).filter_map(Result::ok).find(|c| !c.qop_offered || c.qop.contains(&Qop::Auth))
}

/// The value of Authorization or Proxy-Authorization. `uri` is the Request-URI, `cnonce` fresh random text without quotes, `nc`
/// counts the requests sent with this nonce from 1. qop is `auth` where the server offers one, else none (RFC 2069).
pub fn answer(
    challenge: &Challenge,
    user: &str,
    secret: Secret<'_>,
    method: &str,
    uri: &str,
    cnonce: &str,
    nc: u32,
) -> String {
    let made;
    let ha1 = match secret {
        Secret::Ha1(ha1) => ha1,
        Secret::Password(password) => {
            made = ha1(challenge.algorithm, user, &challenge.realm, password);
            made.as_str()
        }
    };
    let qop = challenge.qop_offered.then_some(Qop::Auth);
    let nc = format!("{nc:08x}");
    let input = ResponseInput {
        algorithm: challenge.algorithm,
        nonce: &challenge.nonce,
        cnonce,
        nc: &nc,
        qop,
        method,
        uri,
        body: b"",
    };
    let response = response(&input, ha1);

    let mut out = String::with_capacity(256);
    for (name, value) in [
        ("Digest username=", user),
        (", realm=", &challenge.realm),
        (", nonce=", &challenge.nonce),
        (", uri=", uri),
        (", response=", &response),
    ] {
        out.push_str(name);
        quote(value, &mut out);
    }
    // An absent parameter means MD5; old servers that do not know it are spared it.
    if challenge.algorithm != Algorithm::Md5 || qop.is_some() {
        out.push_str(", algorithm=");
        out.push_str(challenge.algorithm.as_str());
    }
    if qop.is_some() || challenge.algorithm.is_session() {
        out.push_str(", cnonce=");
        quote(cnonce, &mut out);
    }
    if let Some(qop) = qop {
        out.push_str(", qop=");
        out.push_str(qop.as_str());
        out.push_str(", nc=");
        out.push_str(&nc);
    }
    if let Some(opaque) = &challenge.opaque {
        out.push_str(", opaque=");
        quote(opaque, &mut out);
    }
    out
}
