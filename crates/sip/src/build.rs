//! Messages of our own making: requests, and responses to a request (RFC 3261 8.1.1, 8.2.6).

use std::io::Write as _;

use bytes::Bytes;

use crate::message::{Message, Name};
use crate::status::reason_phrase;

/// Appends text to a line; CR and LF become blanks, so that no value can end its line.
pub(crate) fn push_clean(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    if memchr::memchr2(b'\r', b'\n', bytes).is_none() {
        out.extend_from_slice(bytes);
    } else {
        out.extend(bytes.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
    }
}

/// The header lines and the body that both kinds of message share.
#[derive(Debug, Clone, Default)]
struct Parts {
    head: Vec<u8>,
    content_type: Option<String>,
    body: Bytes,
}

impl Parts {
    fn line(&mut self, name: &str, value: &str) {
        push_clean(&mut self.head, name);
        self.head.extend_from_slice(b": ");
        push_clean(&mut self.head, value);
        self.head.extend_from_slice(b"\r\n");
    }

    fn header(&mut self, name: Name, value: &str) {
        match name {
            // Content-Length is made from the body.
            Name::ContentLength => {}
            Name::ContentType => self.content_type = Some(value.to_owned()),
            name => self.line(name.as_str(), value),
        }
    }

    fn other(&mut self, name: &str, value: &str) {
        match Name::parse(name) {
            Some(known @ (Name::ContentLength | Name::ContentType)) => self.header(known, value),
            _ => self.line(name, value),
        }
    }

    fn finish(mut self) -> Bytes {
        if let Some(kind) = self.content_type.take() {
            self.line(Name::ContentType.as_str(), &kind);
        }
        // Writing to a Vec cannot fail.
        _ = write!(self.head, "Content-Length: {}\r\n\r\n", self.body.len());
        self.head.extend_from_slice(&self.body);
        Bytes::from(self.head)
    }
}

/// A request under construction. Fields stand in the order in which they are added; Content-Length comes by itself.
#[derive(Debug, Clone)]
pub struct Request(Parts);

/// A response under construction.
#[derive(Debug, Clone)]
pub struct Response<'m, 'a> {
    request: &'m Message<'a>,
    parts: Parts,
}

/// Begins a request.
#[must_use]
pub fn request(method: &str, uri: &str) -> Request {
    let mut parts = Parts { head: Vec::with_capacity(512), ..Parts::default() };
    push_clean(&mut parts.head, method);
    parts.head.push(b' ');
    push_clean(&mut parts.head, uri);
    parts.head.extend_from_slice(b" SIP/2.0\r\n");
    Request(parts)
}

/// Begins a response: Via, From, To, Call-ID and CSeq are the request's (RFC 3261 8.2.6.2), `to_tag` is added
/// where To has no tag yet. Without a `reason` the standard phrase is used. Timestamp is copied into a 100.
#[must_use]
pub fn response<'m, 'a>(
    request: &'m Message<'a>,
    status: u16,
    reason: Option<&str>,
    to_tag: Option<&str>,
) -> Response<'m, 'a> {
    let mut parts = Parts { head: Vec::with_capacity(512), ..Parts::default() };
    _ = write!(parts.head, "SIP/2.0 {status} ");
    push_clean(&mut parts.head, reason.unwrap_or_else(|| reason_phrase(status)));
    parts.head.extend_from_slice(b"\r\n");
    for via in request.headers(Name::Via) {
        parts.line(Name::Via.as_str(), via);
    }
    for name in [Name::From, Name::To, Name::CallId, Name::CSeq] {
        let Some(value) = request.header(name) else { continue };
        let tagged = name != Name::To || request.to().is_ok_and(|to| to.tag().is_some());
        match to_tag.filter(|_| !tagged) {
            Some(tag) => parts.line(name.as_str(), &format!("{value};tag={tag}")),
            None => parts.line(name.as_str(), value),
        }
    }
    if status == 100
        && let Some(stamp) = request.header(Name::Timestamp)
    {
        parts.line(Name::Timestamp.as_str(), stamp);
    }
    Response { request, parts }
}

impl Request {
    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: Name, value: impl AsRef<str>) -> Self {
        self.0.header(name, value.as_ref());
        self
    }

    /// Adds a field if there is a value.
    #[must_use]
    pub fn header_opt(self, name: Name, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// Adds a field of any name.
    #[must_use]
    pub fn other(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.0.other(name, value.as_ref());
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.0.content_type = Some(content_type.to_owned());
        self.0.body = body.into();
        self
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.0.finish()
    }
}

impl Response<'_, '_> {
    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: Name, value: impl AsRef<str>) -> Self {
        self.parts.header(name, value.as_ref());
        self
    }

    /// Adds a field if there is a value.
    #[must_use]
    pub fn header_opt(self, name: Name, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// Adds a field of any name.
    #[must_use]
    pub fn other(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.parts.other(name, value.as_ref());
        self
    }

    /// Copies the request's Record-Route fields, as a response that makes a dialog must (RFC 3261 12.1.1).
    #[must_use]
    pub fn record_route(mut self) -> Self {
        for route in self.request.headers(Name::RecordRoute) {
            self.parts.line(Name::RecordRoute.as_str(), route);
        }
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.parts.content_type = Some(content_type.to_owned());
        self.parts.body = body.into();
        self
    }

    /// The bytes.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.parts.finish()
    }
}
