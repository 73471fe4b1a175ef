//! OPTIONS to an own address (RFC 3261 11): the answer that probes look for.

use crate::listen::Listeners;
use sip::uri::Uri;
use sip::{Message, Method, Name};
use std::net::SocketAddr;

/// Headers of the 200: what the PBX behind us takes.
pub const CAPABILITIES: [(Name, &str); 4] = [
    (Name::Allow, "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, REGISTER"),
    (Name::Accept, "application/sdp"),
    (Name::Supported, "path"),
    (Name::AcceptLanguage, "en"),
];

/// True for an OPTIONS outside of any dialog whose Request-URI is an address of ours, whatever its user
/// (`sipsak -s sip:s@ADDRESS`).
pub fn is_for_us(request: &Message<'_>, uri: &Uri<'_>, local: SocketAddr, listeners: &Listeners) -> bool {
    request.method() == Some(Method::Options)
        && uri.is_sip()
        && request.to().is_ok_and(|to| to.tag().is_none())
        && listeners.is_own(&uri.host, uri.port, local)
}
