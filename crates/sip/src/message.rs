//! A message over one buffer (RFC 3261 7): an index of its header fields, made in one pass without copying.
//!
//! [`Message::parse`] checks only what framing needs; a field's value is read when somebody asks for it.
//! [`Message::validate`] checks all that a server must refuse.

use crate::breaks::Breaks;
use crate::error::ParseError;
use crate::header::{CSeq, Contact, NameAddr, Via};
pub use crate::method::Method;
pub use crate::name::Name;
use crate::name::{COUNT, known_at};
pub use crate::scan::Values;
use crate::scan::{is_blank, is_token_byte, number, trim};

/// The longest header that is read, in bytes, start line and empty line included.
pub const MAX_HEAD: usize = u16::MAX as usize;
/// The most header fields that are read.
pub const MAX_FIELDS: usize = 256;
/// How many fields the index holds without the heap.
const INLINE: usize = 64;
/// The id of a field that has no [`Name`].
const OTHER: u8 = u8::MAX;

/// One header field line, as offsets into the head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    id: u8,
    name_len: u8,
    /// The line's first byte.
    pub(crate) line: u16,
    /// The value without blanks around it.
    pub(crate) value: (u16, u16),
}

impl Slot {
    const NONE: Self = Self { id: OTHER, name_len: 0, line: 0, value: (0, 0) };
}

/// How a body's length is found (RFC 3261 18.3).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Datagram,
    Stream,
    HeadOnly,
}

/// A parsed message; borrows the buffer and nothing else.
#[derive(Clone)]
pub struct Message<'a> {
    head: &'a str,
    raw: &'a [u8],
    /// Method and URI, or the reason phrase.
    first: &'a str,
    second: &'a str,
    /// The status of a response, 0 for a request.
    status: u16,
    /// The start line deviates from its grammar but can be answered.
    fault: Option<ParseError>,
    count: u16,
    /// For each name the number of its first slot plus one; 0 if there is none.
    index: [u16; COUNT],
    slots: [Slot; INLINE],
    more: Vec<Slot>,
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = self.head.lines().next().unwrap_or_default();
        f.debug_struct("Message").field("start", &line).field("fields", &self.count).finish_non_exhaustive()
    }
}

impl<'a> Message<'a> {
    /// Parses one datagram. CRLFs before the start line are skipped. A Content-Length below the rest of the
    /// datagram cuts the body there; without one the body is the rest (RFC 3261 18.3).
    ///
    /// # Errors
    /// What makes it impossible to say where its parts are. [`ParseError::status`] with [`Message::parse_head`]
    /// answer a request that is refused here.
    #[inline]
    pub fn parse(buf: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_as(buf, Framing::Datagram)
    }

    /// Parses one message that a [`crate::framer::Framer`] has cut out of a stream: Content-Length stands in it
    /// and is the body's length.
    ///
    /// # Errors
    /// As [`Message::parse`]; [`ParseError::Missing`] without Content-Length, [`ParseError::Length`] where it is
    /// not the length of the body.
    pub fn parse_stream(buf: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_as(buf, Framing::Stream)
    }

    /// Parses the header alone and takes no body, so that a request with a wrong Content-Length can be answered.
    ///
    /// # Errors
    /// As [`Message::parse`], but for the body.
    pub fn parse_head(buf: &'a [u8]) -> Result<Self, ParseError> {
        Self::parse_as(buf, Framing::HeadOnly)
    }

    #[inline]
    fn parse_as(buf: &'a [u8], framing: Framing) -> Result<Self, ParseError> {
        let mut buf = buf;
        while let [b'\r', b'\n', rest @ ..] = buf {
            buf = rest;
        }
        if buf.is_empty() {
            return Err(ParseError::Empty);
        }
        let mut message = Message {
            head: "",
            raw: buf,
            first: "",
            second: "",
            status: 0,
            fault: None,
            count: 0,
            index: [0; COUNT],
            slots: [Slot::NONE; INLINE],
            more: Vec::new(),
        };
        message.scan(buf)?;
        let rest = buf.len() - message.head.len();
        let body = match framing {
            Framing::HeadOnly => 0,
            Framing::Datagram => match message.length()? {
                Some(length) if length > rest => return Err(ParseError::Length),
                Some(length) => length,
                None => rest,
            },
            Framing::Stream => match message.stream_length()? {
                length if length == rest => length,
                _ => return Err(ParseError::Length),
            },
        };
        message.raw = &buf[..message.head.len() + body];
        Ok(message)
    }

    /// Finds the lines, names the fields, checks the encoding.
    #[inline]
    fn scan(&mut self, buf: &'a [u8]) -> Result<(), ParseError> {
        let limit = buf.len().min(MAX_HEAD);
        let bytes = &buf[..limit];
        let cut = if buf.len() > limit { ParseError::HeadTooLarge } else { ParseError::LineEnd };
        let mut breaks = Breaks::new(bytes);
        let start_end = line_end(bytes, &mut breaks, 0).map_err(|e| not_sip(bytes, e.unwrap_or(cut)))?;
        // The encoding is checked once for the whole head, below; the start line decides first whether this
        // is SIP at all.
        let mut line = start_end + 2;
        loop {
            match bytes.get(line) {
                None => return Err(not_sip(bytes, cut)),
                Some(b'\r') => {
                    if bytes.get(line + 1) != Some(&b'\n') {
                        return Err(not_sip(bytes, if line + 1 < limit { ParseError::LineEnd } else { cut }));
                    }
                    break;
                }
                Some(_) => {}
            }
            // The line's end first, over all its folds: the next line then waits for no name to be found.
            let mut end = line;
            loop {
                end = line_end(bytes, &mut breaks, end).map_err(|e| not_sip(bytes, e.unwrap_or(cut)))?;
                if !matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
                    break;
                }
                end += 2;
            }
            let next = end + 2;
            let known = bytes.get(line..).and_then(|b| b.first_chunk()).and_then(known_at);
            let (id, name_len, colon) = match known {
                Some((name, colon)) => (name as u8, colon, line + colon),
                None => name_at(bytes, line).ok_or_else(|| not_sip(bytes, ParseError::FieldLine))?,
            };
            let mut start = colon + 1;
            while start < end && is_blank(bytes[start]) {
                start += 1;
            }
            while end > start && is_blank(bytes[end - 1]) {
                end -= 1;
            }
            let slot = Slot { id, name_len: name_len as u8, line: line as u16, value: (start as u16, end as u16) };
            self.push(slot)?;
            line = next;
        }
        self.head = std::str::from_utf8(&bytes[..line + 2]).map_err(|_| not_sip(bytes, ParseError::NotUtf8))?;
        self.start_line(&self.head[..start_end])
    }

    #[inline]
    fn push(&mut self, slot: Slot) -> Result<(), ParseError> {
        let n = usize::from(self.count);
        if n < INLINE {
            self.slots[n] = slot;
        } else if n < MAX_FIELDS {
            self.more.push(slot);
        } else {
            return Err(ParseError::TooManyFields);
        }
        self.count += 1;
        if let Some(first) = self.index.get_mut(usize::from(slot.id))
            && *first == 0
        {
            *first = self.count;
        }
        Ok(())
    }

    /// Request line or status line (RFC 3261 7.1, 7.2). What is SIP but malformed is kept for the answer.
    fn start_line(&mut self, line: &'a str) -> Result<(), ParseError> {
        if is_version(line.get(..7).unwrap_or_default()) && line.as_bytes().get(7) == Some(&b' ') {
            let code = line.get(8..11).and_then(|c| number(c, 699)).filter(|c| *c >= 100);
            let after = line.get(11..).unwrap_or_default();
            let (Some(code), true) = (code, after.is_empty() || after.starts_with(' ')) else {
                return Err(ParseError::NotSip);
            };
            // No response is answered, so its version is as good a reason to drop it as any.
            if !line[..7].eq_ignore_ascii_case("SIP/2.0") {
                return Err(ParseError::NotSip);
            }
            self.status = code as u16;
            self.second = after.get(1..).unwrap_or_default();
            return Ok(());
        }
        let method_len = line.bytes().take_while(|b| is_token_byte(*b)).count();
        if method_len > 0
            && let Some(uri) = line.strip_suffix(" SIP/2.0").and_then(|l| l.get(method_len..)?.strip_prefix(' '))
        {
            // Without an early exit, so that the loop is vectorised.
            let bad = uri.bytes().fold(false, |bad, b| bad | (b <= b' ') | (b == b'<') | (b == b'>') | (b == b'"'));
            if !bad && !uri.is_empty() {
                (self.first, self.second) = (&line[..method_len], uri);
                return Ok(());
            }
        }
        let trimmed = trim(line);
        let version_at = trimmed.rfind([' ', '\t']).map_or(0, |at| at + 1);
        let version = &trimmed[version_at..];
        if method_len == 0 || method_len >= version_at || !is_version(version) {
            return Err(ParseError::NotSip);
        }
        let between = &trimmed[method_len..version_at];
        let uri = trim(between);
        if !between.starts_with([' ', '\t']) || uri.is_empty() {
            return Err(ParseError::NotSip);
        }
        (self.first, self.second) = (&line[..method_len], uri);
        let strict = between.len() == self.second.len() + 2
            && trimmed.len() == line.len()
            && between.starts_with(' ')
            && between.ends_with(' ')
            && !self.second.bytes().any(|b| is_blank(b) || matches!(b, b'<' | b'>' | b'"'));
        if !version.eq_ignore_ascii_case("SIP/2.0") {
            self.fault = Some(ParseError::Version);
        } else if !strict {
            self.fault = Some(ParseError::StartLine);
        }
        Ok(())
    }

    /// Content-Length, where it stands; several must agree.
    fn length(&self) -> Result<Option<usize>, ParseError> {
        let mut found = None;
        for value in self.headers(Name::ContentLength) {
            let length = number(value, u64::from(u32::MAX)).ok_or(ParseError::Malformed(Name::ContentLength))?;
            if found.replace(length).is_some_and(|earlier| earlier != length) {
                return Err(ParseError::Repeated(Name::ContentLength));
            }
        }
        Ok(found.map(|length| length as usize))
    }

    /// The bytes of the message: from its start line to the end of its body.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The bytes from the start line to the empty line, both included.
    #[must_use]
    pub fn head(&self) -> &'a str {
        self.head
    }

    /// A request, not a response.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.status == 0
    }

    /// The request line's method; none in a response.
    #[must_use]
    #[inline]
    pub fn method(&self) -> Option<Method<'a>> {
        self.is_request().then(|| Method::parse(self.first))
    }

    /// The Request-URI as written; none in a response.
    #[must_use]
    #[inline]
    pub fn uri(&self) -> Option<&'a str> {
        self.is_request().then_some(self.second)
    }

    /// The status, 100 to 699; none in a request.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        (self.status != 0).then_some(self.status)
    }

    /// The reason phrase, maybe empty; none in a request.
    #[must_use]
    pub fn reason(&self) -> Option<&'a str> {
        (self.status != 0).then_some(self.second)
    }

    /// The first field of that name: its value without blanks around it, folds still in it.
    #[must_use]
    #[inline]
    pub fn header(&self, name: Name) -> Option<&'a str> {
        let at = usize::from(*self.index.get(name as usize)?).checked_sub(1)?;
        Some(self.value(self.slot(at)))
    }

    /// Every field of that name, in order.
    #[inline]
    pub fn headers(&self, name: Name) -> impl Iterator<Item = &'a str> + use<'_, 'a> {
        self.slots_of(name).map(|(_, slot)| self.value(slot))
    }

    /// Every value of that name, over all its fields, comma lists split. Not for fields in which a comma is no
    /// separator (Date, WWW-Authenticate and its kin, RFC 3261 7.3.1).
    #[inline]
    pub fn values(&self, name: Name) -> impl Iterator<Item = &'a str> + use<'_, 'a> {
        self.headers(name).flat_map(Values::new)
    }

    /// Every field in order: its name as written and its value.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'_, 'a> {
        self.slots().map(|slot| (self.name_of(slot), self.value(slot)))
    }

    /// The first field whose name the library does not know, by its name in any case.
    #[must_use]
    pub fn other(&self, name: &str) -> Option<&'a str> {
        if let Some(known) = Name::parse(name) {
            return self.header(known);
        }
        self.slots().find(|s| s.id == OTHER && self.name_of(s).eq_ignore_ascii_case(name)).map(|s| self.value(s))
    }

    /// The body, empty if there is none.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.raw[self.head.len().min(self.raw.len())..]
    }

    /// The topmost Via.
    ///
    /// # Errors
    /// Missing or malformed.
    #[inline]
    pub fn via(&self) -> Result<Via<'a>, ParseError> {
        let field = self.header(Name::Via).ok_or(ParseError::Missing(Name::Via))?;
        let end = crate::scan::value_end(field);
        Via::parse(&field[..end])
    }

    /// CSeq.
    ///
    /// # Errors
    /// Missing or malformed.
    #[inline]
    pub fn cseq(&self) -> Result<CSeq<'a>, ParseError> {
        CSeq::parse(self.header(Name::CSeq).ok_or(ParseError::Missing(Name::CSeq))?)
    }

    /// Call-ID.
    ///
    /// # Errors
    /// Missing, empty, or with blanks in it.
    #[inline]
    pub fn call_id(&self) -> Result<&'a str, ParseError> {
        let value = self.header(Name::CallId).ok_or(ParseError::Missing(Name::CallId))?;
        if value.is_empty() || value.bytes().fold(false, |bad, b| bad | matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            return Err(ParseError::Malformed(Name::CallId));
        }
        Ok(value)
    }

    /// From.
    ///
    /// # Errors
    /// Missing or malformed.
    #[inline]
    pub fn from(&self) -> Result<NameAddr<'a>, ParseError> {
        self.address(Name::From)
    }

    /// To.
    ///
    /// # Errors
    /// Missing or malformed.
    #[inline]
    pub fn to(&self) -> Result<NameAddr<'a>, ParseError> {
        self.address(Name::To)
    }

    #[inline]
    fn address(&self, name: Name) -> Result<NameAddr<'a>, ParseError> {
        NameAddr::parse(self.header(name).ok_or(ParseError::Missing(name))?).map_err(|e| e.of(name))
    }

    /// Max-Forwards, 0 to 255 (RFC 3261 20.22).
    #[must_use]
    #[inline]
    pub fn max_forwards(&self) -> Option<Result<u8, ParseError>> {
        let value = self.header(Name::MaxForwards)?;
        Some(number(value, 255).map(|n| n as u8).ok_or(ParseError::Malformed(Name::MaxForwards)))
    }

    /// Every Contact.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Contact<'a>, ParseError>> + use<'_, 'a> {
        self.values(Name::Contact).map(Contact::parse)
    }

    /// Content-Length in bytes.
    #[must_use]
    pub fn content_length(&self) -> Option<Result<u32, ParseError>> {
        self.seconds(Name::ContentLength)
    }

    /// Expires in seconds.
    #[must_use]
    pub fn expires(&self) -> Option<Result<u32, ParseError>> {
        self.seconds(Name::Expires)
    }

    /// A field that is one number below 2^32 (RFC 3261 20.19, 20.23).
    fn seconds(&self, name: Name) -> Option<Result<u32, ParseError>> {
        let value = self.header(name)?;
        Some(number(value, u64::from(u32::MAX)).map(|n| n as u32).ok_or(ParseError::Malformed(name)))
    }

    /// Checks what RFC 3261 8.2 and 16.3 ask of a request, or 8.1.3 of a response; see [`crate::validate`].
    ///
    /// # Errors
    /// The first fault found; [`ParseError::status`] answers a request with it.
    pub fn validate(&self) -> Result<(), ParseError> {
        crate::validate::check(self)
    }

    /// The body's length on a stream, where Content-Length has to stand.
    pub(crate) fn stream_length(&self) -> Result<usize, ParseError> {
        self.length()?.ok_or(ParseError::Missing(Name::ContentLength))
    }

    /// What is wrong with the request line of a message that can be answered.
    pub(crate) fn fault(&self) -> Option<ParseError> {
        self.fault
    }

    /// How many fields of that name there are.
    pub(crate) fn count(&self, name: Name) -> usize {
        self.slots_of(name).count()
    }

    /// Offsets of method and Request-URI in the head; empty for a response.
    pub(crate) fn uri_span(&self) -> (usize, usize) {
        if self.status != 0 {
            return (0, 0);
        }
        let start = self.second.as_ptr() as usize - self.head.as_ptr() as usize;
        (start, start + self.second.len())
    }

    /// The offset of the first field line.
    pub(crate) fn fields_start(&self) -> usize {
        if self.count > 0 { usize::from(self.slot(0).line) } else { self.fields_end() }
    }

    /// The offset of the empty line.
    pub(crate) fn fields_end(&self) -> usize {
        self.head.len() - 2
    }

    /// Where the line after slot `n` begins.
    pub(crate) fn line_end_of(&self, n: usize) -> usize {
        if n + 1 < usize::from(self.count) { usize::from(self.slot(n + 1).line) } else { self.fields_end() }
    }

    /// The slots of that name with their numbers.
    #[inline]
    pub(crate) fn slots_of(&self, name: Name) -> impl Iterator<Item = (usize, &Slot)> + use<'_, 'a> {
        let first = self.index.get(name as usize).copied().unwrap_or(0);
        let (from, to) = if first == 0 { (0, 0) } else { (usize::from(first) - 1, usize::from(self.count)) };
        (from..to).map(|n| (n, self.slot(n))).filter(move |(_, slot)| slot.id == name as u8)
    }

    /// The slots whose name the library does not know and that is `name` in any case.
    pub(crate) fn slots_other<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (usize, &'s Slot)> {
        let all = self.slots().enumerate();
        all.filter(move |(_, s)| s.id == OTHER && self.name_of(s).eq_ignore_ascii_case(name))
    }

    #[inline]
    fn slot(&self, n: usize) -> &Slot {
        if n < INLINE { &self.slots[n] } else { self.more.get(n - INLINE).unwrap_or(&Slot::NONE) }
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().chain(self.more.iter()).take(usize::from(self.count))
    }

    #[inline]
    fn value(&self, slot: &Slot) -> &'a str {
        &self.head[usize::from(slot.value.0)..usize::from(slot.value.1)]
    }

    fn name_of(&self, slot: &Slot) -> &'a str {
        let line = usize::from(slot.line);
        &self.head[line..line + usize::from(slot.name_len)]
    }
}

/// A name of any kind with blanks before its colon: its id, its length, the colon's offset. None if it is too long.
fn name_at(bytes: &[u8], line: usize) -> Option<(u8, usize, usize)> {
    let name_len = bytes[line..].iter().take_while(|b| is_token_byte(**b)).count();
    let mut colon = line + name_len;
    while matches!(bytes.get(colon), Some(b' ' | b'\t')) {
        colon += 1;
    }
    if name_len == 0 || name_len > usize::from(u8::MAX) || bytes.get(colon) != Some(&b':') {
        return None;
    }
    let name = std::str::from_utf8(&bytes[line..line + name_len]).ok()?;
    Some((Name::parse(name).map_or(OTHER, |n| n as u8), name_len, colon))
}

/// The offset of the CR that ends the line that holds `from`: `Err(None)` if the buffer ends before,
/// `Err(Some(..))` at a lone CR or LF.
#[inline]
fn line_end(bytes: &[u8], breaks: &mut Breaks<'_>, from: usize) -> Result<usize, Option<ParseError>> {
    let at = breaks.next(from).ok_or(None)?;
    // An escaped CR or LF is no quoted-pair (RFC 3261 25.1), so there is no other legal place for one.
    if bytes[at] == b'\n' {
        return Err(Some(ParseError::LineEnd));
    }
    match bytes.get(at + 1) {
        Some(b'\n') => Ok(at),
        Some(_) => Err(Some(ParseError::LineEnd)),
        None => Err(None),
    }
}

/// A fault of something that does not begin as SIP is dropped, not answered.
#[cold]
fn not_sip(bytes: &[u8], fault: ParseError) -> ParseError {
    let line = bytes.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or_default();
    let line = line.trim_ascii();
    let is_sip = line.starts_with(b"SIP/") || line.len() > 8 && is_version_bytes(&line[line.len() - 7..]);
    if is_sip { fault } else { ParseError::NotSip }
}

fn is_version(s: &str) -> bool {
    is_version_bytes(s.as_bytes())
}

fn is_version_bytes(b: &[u8]) -> bool {
    matches!(b, [s, i, p, b'/', major, b'.', minor]
        if [*s, *i, *p].eq_ignore_ascii_case(b"SIP") && major.is_ascii_digit() && minor.is_ascii_digit())
}
