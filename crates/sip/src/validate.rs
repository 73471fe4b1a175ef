//! What a server checks before it acts on a message (RFC 3261 8.1.1, 8.2, 16.3).

use crate::error::ParseError;
use crate::header::{Contact, NameAddr, Via};
use crate::message::{Message, Method, Name};
use crate::scan::{is_token_byte, number};
use crate::uri::{Scheme, Uri};

/// Fields that may stand once (RFC 3261 7.3.1, 20).
const SINGLE: [Name; 12] = [
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::MaxForwards,
    Name::ContentType,
    Name::Expires,
    Name::Event,
    Name::SessionExpires,
    Name::ReferTo,
    Name::Replaces,
    Name::RAck,
];

/// Fields that hold a number below 2^32.
const NUMBERS: [Name; 4] = [Name::Expires, Name::MinExpires, Name::RSeq, Name::ContentLength];

/// Checks a message; the first fault is returned.
pub(crate) fn check(message: &Message<'_>) -> Result<(), ParseError> {
    if let Some(fault) = message.fault() {
        return Err(fault);
    }
    for name in SINGLE {
        if message.count(name) > 1 {
            return Err(ParseError::Repeated(name));
        }
    }
    let cseq = message.cseq()?;
    message.call_id()?;
    for (name, address) in [(Name::From, message.from()), (Name::To, message.to())] {
        // A URI of another scheme stands there legally; only a SIP or tel one can be judged.
        address?.uri_parsed().map_err(|e| e.of(name))?;
    }
    vias(message)?;
    if let Some(hops) = message.max_forwards() {
        hops?;
    }
    for name in NUMBERS {
        if message.headers(name).any(|v| number(v, u64::from(u32::MAX)).is_none()) {
            return Err(ParseError::Malformed(name));
        }
    }
    for name in [Name::Route, Name::RecordRoute, Name::Path, Name::ServiceRoute] {
        for value in message.values(name) {
            let address = NameAddr::parse(value).map_err(|e| e.of(name))?;
            address.uri_parsed().map_err(|e| e.of(name))?;
        }
    }
    contacts(message)?;
    if let Some(kind) = message.header(Name::ContentType)
        && !is_media_type(kind)
    {
        return Err(ParseError::Malformed(Name::ContentType));
    }
    match message.method() {
        Some(method) => request(message, method, cseq.method),
        None => Ok(()),
    }
}

fn request(message: &Message<'_>, method: Method<'_>, cseq: Method<'_>) -> Result<(), ParseError> {
    if method != cseq {
        return Err(ParseError::MethodMismatch);
    }
    let uri = Uri::parse(message.uri().unwrap_or_default()).map_err(|_| ParseError::StartLine)?;
    if matches!(uri.scheme, Scheme::Other(_)) {
        return Err(ParseError::Scheme);
    }
    // Headers may not stand in a Request-URI (RFC 3261 19.1.1).
    if uri.headers.is_some() {
        return Err(ParseError::StartLine);
    }
    Ok(())
}

fn vias(message: &Message<'_>) -> Result<(), ParseError> {
    let mut any = false;
    for value in message.values(Name::Via) {
        Via::parse(value)?;
        any = true;
    }
    if any { Ok(()) } else { Err(ParseError::Missing(Name::Via)) }
}

fn contacts(message: &Message<'_>) -> Result<(), ParseError> {
    const BAD: ParseError = ParseError::Malformed(Name::Contact);
    let mut star = false;
    let mut addresses = 0;
    // An empty Contact is met in OPTIONS of probes: no value, no fault.
    for value in message.values(Name::Contact).filter(|v| !v.is_empty()) {
        match Contact::parse(value)? {
            Contact::Star => star = true,
            Contact::Addr(address) => {
                addresses += 1;
                address.uri_parsed().map_err(|_| BAD)?;
            }
        }
    }
    if star && (addresses > 0 || message.method().is_some_and(|m| m != Method::Register)) {
        return Err(BAD);
    }
    Ok(())
}

/// `type/subtype` and perhaps parameters.
fn is_media_type(value: &str) -> bool {
    let kind = value.split(';').next().unwrap_or_default();
    let token = |s: &str| {
        let s = crate::scan::trim(s);
        !s.is_empty() && s.bytes().all(is_token_byte)
    };
    kind.split_once('/').is_some_and(|(a, b)| token(a) && token(b))
}
