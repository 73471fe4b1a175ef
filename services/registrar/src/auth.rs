//! Digest authentication of REGISTER (RFC 3261 22, RFC 7616, RFC 8760) from HA1s, without state of our own: nonces are
//! signed, so any replica checks what another issued; that a nonce count is used once is the store's to hold.

use crate::directory::{Directory, Endpoint};
use contract::{KeyRing, digest};
use rand::RngCore;
use sip::digest::{Algorithm, Challenge, Credentials, Freshness, Nonces};
use sip::{Message, Name};
use std::sync::Arc;
use std::time::Duration;

/// Values of Authorization that are looked at.
const MAX_CREDENTIALS: usize = 4;

/// The judgement on a request's credentials.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// None, wrong ones, or ones for a nonce that is too old (`stale`).
    Challenge {
        /// The response was right and only the nonce is too old: the phone need not ask its user.
        stale: bool,
    },
    /// The sender knows this endpoint's password. It still has to be held to the nonce count.
    Proven {
        /// Whose.
        endpoint: Arc<Endpoint>,
        /// The nonce used.
        nonce: String,
        /// Its count; 1 without qop, so that such a nonce serves once.
        nc: u32,
    },
}

/// What challenges are made with and judged by.
#[derive(Debug)]
pub struct Authenticator {
    nonces: Nonces,
    /// Of the keys that they are derived from.
    generation: u64,
    max_age: Duration,
    algorithms: Vec<Algorithm>,
}

impl Authenticator {
    /// By keys derived from the installation's. Nonces older than `max_age` are stale; `algorithms` are offered in
    /// this order (MD5 and SHA-256 are both accepted whatever is offered).
    pub fn new(keys: &KeyRing, max_age: Duration, algorithms: Vec<Algorithm>) -> Self {
        Self { nonces: digest::nonces(keys), generation: keys.generation(), max_age, algorithms }
    }

    /// The installation's keys may be others by now.
    pub fn follow(&mut self, keys: &KeyRing) {
        let generation = keys.generation();
        if generation != self.generation {
            (self.nonces, self.generation) = (digest::nonces(keys), generation);
        }
    }

    /// How long a nonce is good for.
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// WWW-Authenticate values with one fresh nonce, one an algorithm.
    pub fn challenges(&self, realm: &str, stale: bool, wall: Duration, rng: &mut dyn RngCore) -> Vec<String> {
        let nonce = self.nonces.issue(wall, rng);
        let challenge = |a: &Algorithm| Challenge::new(realm, nonce.as_str(), *a).stale(stale).to_string();
        self.algorithms.iter().map(challenge).collect()
    }

    /// Judges the request's Authorization for our realm. An unknown user costs the same work and gets the same answer
    /// as a wrong password.
    ///
    /// The digest-uri is not compared with the Request-URI: phones and proxies write one host in several ways, what a
    /// REGISTER touches is told by To and held to the user, and a repeated nonce count is refused.
    pub fn judge(&self, message: &Message<'_>, directory: &Directory, wall: Duration) -> Verdict {
        let mut stale = false;
        let realm = directory.pbx.realm.as_str();
        let all = message.headers(Name::Authorization).take(MAX_CREDENTIALS);
        for credentials in all.filter_map(|v| Credentials::parse(v).ok()).filter(|c| c.realm == realm) {
            let found = directory.user(&credentials.username);
            let auth = found.and_then(|e| e.auth.as_ref());
            let method = message.method().map(|m| m.as_str()).unwrap_or_default();
            let right = digest::proves(&credentials, method, message.body(), auth.map(|a| &a.ha1));
            let (Some(endpoint), true) = (found, right) else { continue };
            match self.nonces.check(&credentials.nonce, wall, self.max_age) {
                Freshness::Fresh => {
                    let nc = match credentials.qop {
                        Some(_) => credentials.nonce_count().unwrap_or(0),
                        None => 1,
                    };
                    let nonce = credentials.nonce.into_owned();
                    return Verdict::Proven { endpoint: endpoint.clone(), nonce, nc };
                }
                Freshness::Stale => stale = true,
                Freshness::Forged => {}
            }
        }
        Verdict::Challenge { stale }
    }
}
