//! Cuts a byte stream into messages (RFC 3261 18.3) and keep-alives (RFC 5626 3.5.1), within bounds.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ParseError;
use crate::message::{MAX_HEAD, Message};

/// Bounds of one message on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest header in bytes.
    pub head: usize,
    /// The longest body in bytes.
    pub body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: MAX_HEAD, body: 256 * 1024 }
    }
}

/// What the stream carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A whole message, for [`Message::parse_stream`].
    Message(Bytes),
    /// Two CRLFs: to be answered by one.
    Ping,
    /// The CRLF that answers our ping.
    Pong,
}

/// Why a stream cannot be read on: it has to be closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameError {
    /// The fault.
    pub error: ParseError,
    /// The header that has it, if one could be cut out: a request is answered by way of
    /// [`Message::parse_head`] before the stream is closed.
    pub head: Option<Bytes>,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream: {}", self.error)
    }
}

impl std::error::Error for FrameError {}

/// The state of one stream. Give it bytes with [`Framer::push`], then call [`Framer::next`] until it is empty.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// No header end lies before this offset.
    scanned: usize,
    /// The length of the message whose header has been read.
    total: Option<usize>,
    /// Pings sent and not answered yet.
    pings: u32,
    limits: Limits,
    broken: Option<FrameError>,
}

impl Framer {
    /// A fresh stream with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A fresh stream with limits of one's own.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes bytes that were read. At most one read lies in the buffer beyond a message within the limits, as long
    /// as [`Framer::next`] is called until it has nothing more. A broken stream takes nothing.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.broken.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Two CRLFs were sent: a single CRLF from now on may be their answer.
    pub fn pinged(&mut self) {
        self.pings = self.pings.saturating_add(1);
    }

    /// How many bytes wait for the rest of their message.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// How many bytes the next search for a header's end will look at.
    #[must_use]
    pub fn unscanned(&self) -> usize {
        self.buffer.len() - self.scanned
    }

    /// The next message or keep-alive; none until more bytes come.
    ///
    /// # Errors
    /// The stream cannot be read on; every later call says the same.
    #[allow(clippy::should_implement_trait, reason = "it is fallible and no iterator: more may come later")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.total.is_none() && self.scanned == 0 {
            match *self.buffer {
                [b'\r', b'\n', b'\r', b'\n', ..] if self.pings == 0 => {
                    self.buffer.advance(4);
                    return Ok(Some(Frame::Ping));
                }
                [b'\r', b'\n', ..] if self.pings > 0 => {
                    self.pings -= 1;
                    self.buffer.advance(2);
                    return Ok(Some(Frame::Pong));
                }
                [] | [b'\r'] | [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return Ok(None),
                // A CRLF before the start line is ignored (RFC 3261 7.5).
                [b'\r', b'\n', ..] => self.buffer.advance(2),
                _ => {}
            }
        }
        let total = match self.total {
            Some(total) => total,
            None => match self.find_total() {
                Ok(Some(total)) => total,
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.broken = Some(error.clone());
                    self.buffer = BytesMut::new();
                    return Err(error);
                }
            },
        };
        if self.buffer.len() < total {
            return Ok(None);
        }
        self.total = None;
        self.scanned = 0;
        Ok(Some(Frame::Message(self.buffer.split_to(total).freeze())))
    }

    /// Looks for the end of the header in what has not been looked at, then reads the length from it.
    fn find_total(&mut self) -> Result<Option<usize>, FrameError> {
        let window = &self.buffer[self.scanned..];
        let Some(at) = memchr::memmem::find(window, b"\r\n\r\n") else {
            if self.buffer.len() > self.limits.head {
                return Err(FrameError { error: ParseError::HeadTooLarge, head: None });
            }
            // The four bytes may lie across two reads.
            self.scanned = self.buffer.len().saturating_sub(3);
            return Ok(None);
        };
        let head_len = self.scanned + at + 4;
        if head_len > self.limits.head {
            return Err(FrameError { error: ParseError::HeadTooLarge, head: None });
        }
        let head = &self.buffer[..head_len];
        let fault = |error| FrameError { error, head: Some(Bytes::copy_from_slice(head)) };
        let message = Message::parse_head(head).map_err(fault)?;
        let body = message.stream_length().map_err(fault)?;
        if body > self.limits.body {
            return Err(fault(ParseError::Length));
        }
        self.total = Some(head_len + body);
        Ok(self.total)
    }
}
