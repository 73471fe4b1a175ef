//! WWW-Authenticate and Proxy-Authenticate values (RFC 7616 3.3).

use super::params::{self, Param};
use super::{Algorithm, DigestError, Qop};
use std::fmt;

/// A Digest challenge, owned: a client keeps it to answer further requests with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Protection space, shown to people and part of HA1.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// Hash to use; MD5 where the header does not say.
    pub algorithm: Algorithm,
    /// Offered qop values that we know, in order. Empty on the wire (RFC 2069) is `None` of [`Challenge::qop_offered`].
    pub qop: Vec<Qop>,
    /// Whether a qop parameter stood there at all: with one, a client may not answer without.
    pub qop_offered: bool,
    /// The nonce was too old, the password right: answer again without asking the user.
    pub stale: bool,
    /// To be returned unchanged.
    pub opaque: Option<String>,
}

impl Challenge {
    /// A challenge with qop `auth`, not stale, no opaque.
    pub fn new(realm: impl Into<String>, nonce: impl Into<String>, algorithm: Algorithm) -> Challenge {
        let (realm, nonce) = (realm.into(), nonce.into());
        Challenge { realm, nonce, algorithm, qop: vec![Qop::Auth], qop_offered: true, stale: false, opaque: None }
    }

    /// The same with `stale` set.
    pub fn stale(mut self, stale: bool) -> Challenge {
        self.stale = stale;
        self
    }

    /// Reads one header value that holds one challenge (`Digest realm=...`).
    pub fn parse(value: &str) -> Result<Challenge, DigestError> {
        challenges(value).next().unwrap_or(Err(DigestError::Malformed))
    }

    fn from_params(mut params: Vec<Param<'_>>) -> Result<Challenge, DigestError> {
        let algorithm = match params::take(&mut params, "algorithm") {
            Some(a) => Algorithm::parse(&a).ok_or(DigestError::Algorithm)?,
            None => Algorithm::Md5,
        };
        let qop_list = params::take(&mut params, "qop");
        let qop = qop_list.iter().flat_map(|l| l.split(',')).filter_map(|t| Qop::parse(t.trim())).collect();
        Ok(Challenge {
            realm: params::take(&mut params, "realm").ok_or(DigestError::Missing("realm"))?.into_owned(),
            nonce: params::take(&mut params, "nonce").ok_or(DigestError::Missing("nonce"))?.into_owned(),
            algorithm,
            qop,
            // qop="" is written by some peers that mean none.
            qop_offered: qop_list.is_some_and(|l| !l.trim().is_empty()),
            stale: params::take(&mut params, "stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            opaque: params::take(&mut params, "opaque").map(|o| o.into_owned()),
        })
    }
}

/// All challenges of one header field in order. SIP wants one a field (RFC 3261 7.3.1); several are read too. An entry that is not
/// Digest or cannot be used is an `Err`, and reading goes on where the next one begins.
pub fn challenges(field: &str) -> impl Iterator<Item = Result<Challenge, DigestError>> {
    let mut rest = field;
    std::iter::from_fn(move || {
        if rest.trim().is_empty() {
            return None;
        }
        let Some((scheme, params)) = params::scheme(rest) else {
            rest = "";
            return Some(Err(DigestError::Malformed));
        };
        match params::list(params) {
            Ok((params, more)) => {
                rest = more;
                if scheme.eq_ignore_ascii_case("Digest") {
                    Some(Challenge::from_params(params))
                } else {
                    Some(Err(DigestError::Scheme))
                }
            }
            Err(e) => {
                rest = "";
                Some(Err(e))
            }
        }
    })
}

impl fmt::Display for Challenge {
    /// The header value; algorithm and stale unquoted, the rest quoted, as RFC 7616 3.3 asks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::from("Digest realm=");
        params::quote(&self.realm, &mut out);
        out.push_str(", nonce=");
        params::quote(&self.nonce, &mut out);
        if let Some(opaque) = &self.opaque {
            out.push_str(", opaque=");
            params::quote(opaque, &mut out);
        }
        if self.stale {
            out.push_str(", stale=true");
        }
        out.push_str(", algorithm=");
        out.push_str(self.algorithm.as_str());
        if !self.qop.is_empty() {
            let list: Vec<&str> = self.qop.iter().map(|q| q.as_str()).collect();
            out.push_str(", qop=");
            params::quote(&list.join(","), &mut out);
        }
        f.write_str(&out)
    }
}
