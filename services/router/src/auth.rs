//! Who may call: digest by HA1 (RFC 3261 22, RFC 7616, RFC 8760), with signed nonces that any process can check.

use crate::core::View;
use contract::Now;
use contract::config::EndpointEntry;
use contract::digest::{nonces, proves};
use contract::hop::Hop;
use rand::RngCore;
use sip::digest::{Algorithm, Challenge, Credentials, Freshness};
use sip::{Message, Name};
use std::time::Duration;

/// A nonce count to be taken before the request counts as authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NonceUse {
    pub(crate) nonce: String,
    pub(crate) nc: u32,
}

/// What to do about a request.
#[derive(Debug)]
pub(crate) enum Verdict<'d> {
    /// It is this endpoint's, if the nonce count turns out fresh.
    Pass(&'d EndpointEntry, Option<NonceUse>),
    /// Answer 401. Also for users that do not exist, so that nobody learns which do.
    Challenge {
        /// The password was right, the nonce too old.
        stale: bool,
    },
    /// Answer 403: authenticated, but as somebody else than From says.
    Spoofed,
    /// Answer 400.
    Malformed,
}

/// The values of `WWW-Authenticate`, one an algorithm, the preferred first (RFC 8760 2.4).
pub(crate) fn challenges(
    view: &View<'_>,
    algorithms: &[Algorithm],
    stale: bool,
    now: Now,
    rng: &mut dyn RngCore,
) -> Vec<String> {
    let nonce = nonces(view.keys).issue(now.wall, rng);
    let realm = &view.directory.pbx().realm;
    algorithms.iter().map(|a| Challenge::new(realm, &nonce, *a).stale(stale).to_string()).collect()
}

/// Judges a request that begins a dialog.
///
/// The digest's uri is not compared with the Request-URI: SIPp and some phones put the server there, proxies rewrite it,
/// and a nonce count is taken once only, so a captured response serves nobody.
pub(crate) fn judge<'d>(
    view: &View<'d>,
    request: &Message<'_>,
    hop: Option<&Hop>,
    now: Now,
    max_age: Duration,
) -> Verdict<'d> {
    let directory = view.directory;
    let Ok(from) = request.from() else { return Verdict::Malformed };
    let Ok(uri) = from.uri_parsed() else { return Verdict::Malformed };
    let from = uri.user_unescaped();
    let source = hop.map(|h| h.flow.remote.ip());
    let realm = &directory.pbx().realm;
    let credentials = request
        .headers(Name::Authorization)
        .filter_map(|value| Credentials::parse(value).ok())
        .find(|c| c.realm == realm.as_str());
    let endpoint = directory.identify(&from, source, credentials.as_ref().map(|c| c.username.as_ref()));
    if let Some(endpoint) = endpoint.filter(|e| e.auth.is_none()) {
        return Verdict::Pass(endpoint, None);
    }
    let again = Verdict::Challenge { stale: false };
    let Some(credentials) = credentials else { return again };
    // Whose password is it? From is believed only after that.
    let owner = directory.by_user(&credentials.username);
    let ha1 = owner.and_then(|e| e.auth.as_ref()).map(|a| &a.ha1);
    let method = request.method().map_or("", |m| m.as_str());
    let right = proves(&credentials, method, request.body(), ha1);
    let freshness = nonces(view.keys).check(&credentials.nonce, now.wall, max_age);
    let Some(owner) = owner.filter(|_| right && freshness != Freshness::Forged) else { return again };
    if freshness == Freshness::Stale {
        return Verdict::Challenge { stale: true };
    }
    match endpoint {
        Some(endpoint) if endpoint.name == owner.name => {
            // Without qop there is no count, and the nonce serves once.
            let nc = credentials.nonce_count().unwrap_or(1);
            Verdict::Pass(endpoint, Some(NonceUse { nonce: credentials.nonce.into_owned(), nc }))
        }
        _ => Verdict::Spoofed,
    }
}
