//! Request validation (16.3).

use super::loops::{LoopKind, detect_loop, loop_hash};
use crate::build;
use crate::header::Via;
use crate::message::{Message, Method, Name};
use crate::uri::{Scheme, Uri};
use bytes::Bytes;

/// What the proxy can do.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'p> {
    /// Option tags that we understand in Proxy-Require, in any case.
    pub supported: &'p [&'p str],
    /// Whether `tel:` Request-URIs are routed; `sip:` and `sips:` always are.
    pub tel: bool,
}

impl Default for Policy<'_> {
    fn default() -> Self {
        Policy { supported: &[], tel: true }
    }
}

/// Why a request is not forwarded. An ACK that is refused is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// A field is malformed: 400, with the reason phrase.
    Malformed(&'static str),
    /// 416: a scheme that we do not route.
    Scheme,
    /// 420, with the option tags for Unsupported.
    Extension(Vec<&'a str>),
    /// 482: a loop.
    Loop,
    /// 483: Max-Forwards was 0. An OPTIONS may be answered as if it were for us.
    TooManyHops,
}

impl Refusal<'_> {
    /// The status to answer with.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Scheme => 416,
            Refusal::Extension(_) => 420,
            Refusal::Loop => 482,
            Refusal::TooManyHops => 483,
        }
    }

    /// The whole answer; `None` for ACK.
    pub fn response(&self, request: &Message<'_>, to_tag: &str) -> Option<Bytes> {
        if request.method()? == Method::Ack {
            return None;
        }
        let reason = match self {
            Refusal::Malformed(what) => Some(*what),
            _ => None,
        };
        let response = build::response(request, self.status(), reason, Some(to_tag));
        Some(match self {
            Refusal::Extension(tags) => response.header(Name::Unsupported, tags.join(", ")).finish(),
            _ => response.finish(),
        })
    }
}

/// Checks in the order of 16.3: syntax of what we use, scheme, Max-Forwards, loop, Proxy-Require. `is_ours` knows our own Via values.
///
/// # Errors
/// The refusal to answer with.
pub fn validate<'a>(
    request: &Message<'a>,
    policy: &Policy<'_>,
    is_ours: impl Fn(&Via<'_>) -> bool,
) -> Result<(), Refusal<'a>> {
    let uri = request.uri().ok_or(Refusal::Malformed("No Request-URI"))?;
    match Uri::parse(uri).map(|u| u.scheme) {
        Ok(Scheme::Sip | Scheme::Sips) => {}
        Ok(Scheme::Tel) if policy.tel => {}
        Ok(_) => return Err(Refusal::Scheme),
        Err(_) => return Err(Refusal::Malformed("Malformed Request-URI")),
    }
    match request.max_forwards() {
        Some(Ok(0)) => return Err(Refusal::TooManyHops),
        Some(Err(_)) => return Err(Refusal::Malformed("Malformed Max-Forwards")),
        Some(Ok(_)) | None => {}
    }
    // Hashing costs; only a request that has seen us can loop.
    let seen = request.values(Name::Via).filter_map(|v| Via::parse(v).ok()).any(|v| is_ours(&v));
    if seen && detect_loop(request, loop_hash(request), is_ours) == LoopKind::Loop {
        return Err(Refusal::Loop);
    }
    let known = |tag: &&str| policy.supported.iter().any(|s| s.eq_ignore_ascii_case(tag));
    let unknown: Vec<&'a str> = request.values(Name::ProxyRequire).filter(|t| !t.is_empty() && !known(t)).collect();
    // 16.3 item 5 and 20.29: ACK and CANCEL are not refused for an extension.
    let exempt = matches!(request.method(), Some(Method::Ack | Method::Cancel));
    if unknown.is_empty() || exempt { Ok(()) } else { Err(Refusal::Extension(unknown)) }
}
