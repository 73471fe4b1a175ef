//! rsip's typed headers, off the wire path: a message is brought into the form that rsip reads (no folds, no compact
//! names, one value a line), then rsip takes it.
//!
//! rsip refuses or misreads much legal SIP even so; the crate's suite lists where the two differ and who is right.

use rsip::headers::UntypedHeader;

use crate::message::{Message, Name};
use crate::scan::{Values, is_blank};

/// Fields in which rsip expects one value a line.
const SPLIT: [Name; 6] = [Name::Via, Name::Route, Name::RecordRoute, Name::Path, Name::ServiceRoute, Name::Contact];

/// A value on one line: each run of blanks that holds a fold becomes one space (RFC 3261 7.3.1), other blanks stay.
#[must_use]
pub fn unfold(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find(['\r', '\n']) {
        out.push_str(rest[..at].trim_end_matches(is_ascii_blank));
        out.push(' ');
        rest = rest[at..].trim_start_matches(is_ascii_blank);
    }
    out.push_str(rest);
    out
}

fn is_ascii_blank(c: char) -> bool {
    u8::try_from(c).is_ok_and(is_blank)
}

/// The message in the form that rsip reads; the body is unchanged.
#[must_use]
pub fn normalise(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.raw().len() + 64);
    let start = message.head().split("\r\n").next().unwrap_or_default();
    out.extend_from_slice(start.as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut line = |name: &str, value: &str| {
        let value = unfold(value);
        for part in [name, ": ", &value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    for (written, value) in message.fields() {
        match Name::parse(written) {
            Some(name) if SPLIT.contains(&name) => Values::new(value).for_each(|v| line(name.as_str(), v)),
            Some(name) => line(name.as_str(), value),
            None => line(written, value),
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(message.body());
    out
}

/// The message as rsip's.
///
/// # Errors
/// rsip's own.
pub fn message(message: &Message<'_>) -> Result<rsip::SipMessage, rsip::Error> {
    rsip::SipMessage::try_from(normalise(message))
}

/// One of rsip's headers, made from the first value of a field: `header::<rsip::headers::From>(&m, Name::From)`.
/// Its own `typed()` reads it further.
#[must_use]
pub fn header<'h, H: UntypedHeader<'h>>(message: &Message<'_>, name: Name) -> Option<H> {
    let first = if SPLIT.contains(&name) { message.values(name).next() } else { message.header(name) };
    first.map(|value| H::new(unfold(value)))
}
