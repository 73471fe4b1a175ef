//! Messages from files, and the judgement of a server on them.

use std::path::PathBuf;

use sip::intake::{self, Intake};
use sip::{Message, Name};

/// The folder of message files.
pub(crate) fn messages() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/messages"))
}

/// The bytes of a message file, by its path without `.dat`.
pub(crate) fn load(name: &str) -> Vec<u8> {
    let path = messages().join(format!("{name}.dat"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Text with LF as a message with CRLF.
pub(crate) fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// What a server does with a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// With this status, by an answer that the sender can match.
    Rejected(u16),
    Dropped,
}

/// Judges a datagram, and holds a refusal to what an answer must have.
pub(crate) fn judge(buf: &[u8]) -> Verdict {
    match intake::datagram(buf, "judge") {
        Intake::Message(_) => Verdict::Accepted,
        Intake::Dropped(_) => Verdict::Dropped,
        Intake::Refused { answer, .. } => {
            let repaired = intake::without_broken_lines(buf);
            let request = Message::parse_head(buf).or_else(|_| Message::parse_head(&repaired)).unwrap();
            let response = Message::parse(&answer).unwrap();
            // Folded lines may come back unfolded, of a repeated field the first counts.
            let flat = |v: &str| v.split_whitespace().collect::<Vec<_>>().join(" ");
            let vias = |m: &Message<'_>| m.headers(Name::Via).map(flat).collect::<Vec<_>>();
            assert_eq!(vias(&request), vias(&response), "Via of the answer");
            for name in [Name::From, Name::CallId, Name::CSeq] {
                assert_eq!(request.header(name).map(flat), response.header(name).map(flat), "{name} of the answer");
            }
            Verdict::Rejected(response.status().unwrap())
        }
    }
}

/// The body as text.
pub(crate) fn body_of<'a>(message: &Message<'a>) -> &'a str {
    std::str::from_utf8(message.body()).unwrap()
}
