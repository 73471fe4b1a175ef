//! The first judgement on received bytes: a message, a refusal with its answer, or nothing (RFC 3261 8.2, 16.3, 18.3).

use bytes::Bytes;

use crate::build;
use crate::error::ParseError;
use crate::message::{Message, Method};
use crate::scan::is_token_byte;

/// What received bytes are.
#[derive(Debug)]
pub enum Intake<'a> {
    /// A well-formed message.
    Message(Box<Message<'a>>),
    /// A request that is refused: the answer goes back to where it came from, without a transaction.
    Refused {
        /// The fault.
        error: ParseError,
        /// The answer, its reason phrase naming the fault.
        answer: Bytes,
    },
    /// Nothing that could be answered: no SIP, a broken response, a broken ACK.
    Dropped(ParseError),
}

/// Judges one datagram. `to_tag` is put into a refusal; the same request must get the same tag when it comes again
/// (RFC 3261 8.2.7).
#[must_use]
pub fn datagram<'a>(buf: &'a [u8], to_tag: &str) -> Intake<'a> {
    judge(buf, Message::parse(buf), to_tag)
}

/// Judges one message that a [`crate::framer::Framer`] has cut out of a stream.
#[must_use]
pub fn stream<'a>(buf: &'a [u8], to_tag: &str) -> Intake<'a> {
    judge(buf, Message::parse_stream(buf), to_tag)
}

fn judge<'a>(buf: &'a [u8], parsed: Result<Message<'a>, ParseError>, to_tag: &str) -> Intake<'a> {
    let error = match parsed {
        Ok(message) => match message.validate() {
            Ok(()) => return Intake::Message(Box::new(message)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    match refuse(buf, error, to_tag) {
        Some(answer) => Intake::Refused { error, answer },
        None => Intake::Dropped(error),
    }
}

/// The answer to a request that has the fault `error`; none where nothing can be answered. A request without a
/// readable topmost Via has no way back and is not answered.
#[must_use]
pub fn refuse(buf: &[u8], error: ParseError, to_tag: &str) -> Option<Bytes> {
    let status = error.status()?;
    let repaired = (error == ParseError::FieldLine).then(|| without_broken_lines(buf));
    let request = Message::parse_head(repaired.as_deref().unwrap_or(buf)).ok()?;
    if request.method()? == Method::Ack || request.header(crate::Name::Via).is_none() {
        return None;
    }
    let reason = format!("{} ({error})", crate::status::reason_phrase(status));
    Some(build::response(&request, status, Some(&reason), Some(to_tag)).finish())
}

/// The header without the lines that are no fields (no name, no colon): what is left to make a 400 of. One broken line
/// of many should not leave a phone without a word.
#[must_use]
pub fn without_broken_lines(buf: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(buf.len());
    let (mut rest, mut first, mut keep) = (buf, true, true);
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let (line, after) = rest.split_at(end + 2);
        let folded = matches!(line.first(), Some(b' ' | b'\t'));
        if end == 0 && out.is_empty() {
            // Line ends before the message.
        } else if end == 0 {
            out.extend_from_slice(line);
            break;
        } else {
            keep = first || if folded { keep } else { is_field(line) };
            first = false;
            if keep {
                out.extend_from_slice(line);
            }
        }
        rest = after;
    }
    out
}

/// A name, blanks perhaps, and a colon.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|b| is_token_byte(**b)).count();
    let colon = line.iter().skip(name).find(|b| !matches!(b, b' ' | b'\t'));
    name > 0 && colon == Some(&b':')
}
