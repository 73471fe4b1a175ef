//! What can be wrong with a message, and which answer that calls for.

use std::fmt;

use crate::name::Name;

/// Why a message, a URI or a header field was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseError {
    /// Nothing but line ends: a keep-alive (RFC 5626 3.5.1), not a message.
    Empty,
    /// The first line is neither a request line nor a status line of SIP.
    NotSip,
    /// The request line is SIP's but broken: more than one space, blanks in the URI (RFC 3261 7.1).
    StartLine,
    /// The version is not `SIP/2.0`.
    Version,
    /// The header is not UTF-8 (RFC 3261 25.1).
    NotUtf8,
    /// A line ends in a lone CR or LF, or the empty line after the header is absent.
    LineEnd,
    /// A header field line without a name and a colon.
    FieldLine,
    /// The header is longer than [`crate::message::MAX_HEAD`].
    HeadTooLarge,
    /// More header fields than [`crate::message::MAX_FIELDS`].
    TooManyFields,
    /// The body is shorter than Content-Length says, or longer than a stream may carry.
    Length,
    /// A mandatory header field is absent (RFC 3261 8.1.1).
    Missing(Name),
    /// A header field that may stand once stands more often.
    Repeated(Name),
    /// A header field does not follow its grammar or is out of its range.
    Malformed(Name),
    /// The method of CSeq is not that of the request line (RFC 3261 8.2.2).
    MethodMismatch,
    /// The Request-URI has a scheme other than sip, sips and tel (RFC 3261 8.2.2.1).
    Scheme,
    /// A URI does not follow its grammar (RFC 3261 19.1, RFC 3966).
    Uri,
    /// A value outside of any header field does not follow its grammar; the text names it.
    Syntax(&'static str),
}

impl ParseError {
    /// The status that answers a *request* with this fault (RFC 3261 8.2, 16.3); none where nothing can be
    /// answered. A response with any fault is dropped (RFC 3261 18.1.2), an ACK too.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Empty | Self::NotSip => None,
            Self::Version => Some(505),
            Self::Scheme => Some(416),
            Self::HeadTooLarge | Self::TooManyFields => Some(513),
            _ => Some(400),
        }
    }

    /// The same fault as one of the field `name`: what a value's own parser cannot know.
    pub(crate) fn of(self, name: Name) -> Self {
        match self {
            Self::Syntax(_) | Self::Uri => Self::Malformed(name),
            other => other,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty message"),
            Self::NotSip => f.write_str("not SIP"),
            Self::StartLine => f.write_str("malformed request line"),
            Self::Version => f.write_str("SIP version not supported"),
            Self::NotUtf8 => f.write_str("header is not UTF-8"),
            Self::LineEnd => f.write_str("header line without CRLF"),
            Self::FieldLine => f.write_str("malformed header line"),
            Self::HeadTooLarge => f.write_str("header too large"),
            Self::TooManyFields => f.write_str("too many header fields"),
            Self::Length => f.write_str("Content-Length does not fit the body"),
            Self::Missing(name) => write!(f, "missing {name}"),
            Self::Repeated(name) => write!(f, "repeated {name}"),
            Self::Malformed(name) => write!(f, "malformed {name}"),
            Self::MethodMismatch => f.write_str("CSeq method differs from request"),
            Self::Scheme => f.write_str("unsupported URI scheme"),
            Self::Uri => f.write_str("malformed URI"),
            Self::Syntax(what) => write!(f, "malformed {what}"),
        }
    }
}

impl std::error::Error for ParseError {}
