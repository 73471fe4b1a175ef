//! Edits of a received message by splicing: what is not edited passes through to the byte.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::IpAddr;

use bytes::Bytes;

use crate::build::push_clean;
use crate::message::{Message, Name};
use crate::scan::{trim, value_end};

/// How many splices are held without the heap.
const INLINE: usize = 16;

/// Text to be written.
#[derive(Debug, Clone)]
enum Text<'m> {
    Str(Cow<'m, str>),
    Number(u64),
    /// `;received=` and `;rport=`.
    Source(Option<IpAddr>, Option<u16>),
}

/// What a splice puts in place of its bytes.
#[derive(Debug, Clone)]
enum Put<'m> {
    /// Nothing.
    Cut,
    /// Text within a line.
    Text(Text<'m>),
    /// A whole field line.
    Line(Cow<'m, str>, Text<'m>),
}

/// One splice over `start..end` of the head.
#[derive(Debug, Clone)]
struct Splice<'m> {
    start: u32,
    end: u32,
    /// Order among splices that begin at one offset.
    rank: i16,
    /// The field it belongs to, if the library knows its name.
    name: Option<Name>,
    put: Put<'m>,
}

/// A list of edits to one message, written once. Values come without CR and LF: those are turned into blanks.
///
/// Every edit refers to the message as it was received; a later [`Edit::insert_top`] stands above an earlier one,
/// a later [`Edit::append`] below.
#[derive(Debug)]
pub struct Edit<'m, 'a> {
    message: &'m Message<'a>,
    first: [Option<Splice<'m>>; INLINE],
    more: Vec<Splice<'m>>,
    len: usize,
    body: Option<&'m [u8]>,
}

impl<'m, 'a> Edit<'m, 'a> {
    /// No edits yet.
    #[must_use]
    #[inline]
    pub fn new(message: &'m Message<'a>) -> Self {
        Self { message, first: [const { None }; INLINE], more: Vec::new(), len: 0, body: None }
    }

    /// Puts a new field line before the first field of that name; at the top of the header where there is none.
    #[inline]
    pub fn insert_top(&mut self, name: Name, value: impl Into<Cow<'m, str>>) -> &mut Self {
        let first = self.message.slots_of(name).next().map(|(_, slot)| usize::from(slot.line));
        let at = first.unwrap_or_else(|| self.message.fields_start());
        let rank = -1 - self.len as i16;
        let put = Put::Line(Cow::Borrowed(name.as_str()), Text::Str(value.into()));
        self.push(Splice { start: at as u32, end: at as u32, rank, name: Some(name), put })
    }

    /// Puts a new field line at the end of the header.
    pub fn append(&mut self, name: Name, value: impl Into<Cow<'m, str>>) -> &mut Self {
        self.append_line(Some(name), Cow::Borrowed(name.as_str()), Text::Str(value.into()))
    }

    /// Puts a new field line of any name at the end of the header.
    pub fn append_other(&mut self, name: impl Into<Cow<'m, str>>, value: impl Into<Cow<'m, str>>) -> &mut Self {
        let name = name.into();
        self.append_line(Name::parse(&name), name, Text::Str(value.into()))
    }

    fn append_line(&mut self, name: Option<Name>, text: Cow<'m, str>, value: Text<'m>) -> &mut Self {
        let at = self.message.fields_end() as u32;
        let rank = self.len as i16;
        self.push(Splice { start: at, end: at, rank, name, put: Put::Line(text, value) })
    }

    /// Removes every received field of that name.
    pub fn remove_all(&mut self, name: Name) -> &mut Self {
        let message = self.message;
        for (n, slot) in message.slots_of(name) {
            self.cut_line(n, slot.line, Some(name));
        }
        self
    }

    /// Removes every received field of that name, in any case.
    pub fn remove_all_other(&mut self, name: &str) -> &mut Self {
        if let Some(known) = Name::parse(name) {
            return self.remove_all(known);
        }
        let message = self.message;
        let mut from = 0;
        // The name's lifetime is the caller's, so the slots are found one by one.
        while let Some((n, line)) = message.slots_other(name).find(|(n, _)| *n >= from).map(|(n, s)| (n, s.line)) {
            self.cut_line(n, line, None);
            from = n + 1;
        }
        self
    }

    fn cut_line(&mut self, n: usize, line: u16, name: Option<Name>) {
        let end = self.message.line_end_of(n) as u32;
        self.push(Splice { start: u32::from(line), end, rank: i16::MAX - 1, name, put: Put::Cut });
    }

    /// Removes the first value of that name that no earlier call has removed; a field of one value goes with its line.
    pub fn pop_top(&mut self, name: Name) -> &mut Self {
        let message = self.message;
        for (n, slot) in message.slots_of(name) {
            let (mut start, end) = (usize::from(slot.value.0), usize::from(slot.value.1));
            loop {
                let comma = start + value_end(&message.head()[start..end]);
                let next = (comma + 1).min(end);
                if !self.covers(start as u32, slot.line) {
                    if comma >= end {
                        // The last value of its line takes the line with it, earlier ones having gone already.
                        self.cut_line(n, slot.line, Some(name));
                    } else {
                        let rest = &message.head()[next..end];
                        let to = next + (rest.len() - crate::scan::trim_start(rest).len());
                        let cut = Splice {
                            start: start as u32,
                            end: to as u32,
                            rank: i16::MAX - 1,
                            name: Some(name),
                            put: Put::Cut,
                        };
                        self.push(cut);
                    }
                    return self;
                }
                if comma >= end {
                    break;
                }
                let rest = &message.head()[next..end];
                start = next + (rest.len() - crate::scan::trim_start(rest).len());
            }
        }
        self
    }

    /// The value at `start`, or its whole line, is cut already.
    fn covers(&self, start: u32, line: u16) -> bool {
        self.splices()
            .any(|s| matches!(s.put, Put::Cut) && (s.start == start || s.start == u32::from(line) && s.end > start))
    }

    /// Replaces the first field's value and removes further fields of that name; appends the field where there is
    /// none. The name stays as it was written.
    #[inline]
    pub fn replace(&mut self, name: Name, value: impl Into<Cow<'m, str>>) -> &mut Self {
        self.replace_text(name, Text::Str(value.into()))
    }

    /// [`Edit::replace`] by a number, without a text of it.
    #[inline]
    pub fn replace_number(&mut self, name: Name, value: u64) -> &mut Self {
        self.replace_text(name, Text::Number(value))
    }

    fn replace_text(&mut self, name: Name, text: Text<'m>) -> &mut Self {
        self.forget(name);
        let message = self.message;
        let mut fields = message.slots_of(name);
        let Some((_, slot)) = fields.next() else {
            return self.append_line(Some(name), Cow::Borrowed(name.as_str()), text);
        };
        let (start, end) = (u32::from(slot.value.0), u32::from(slot.value.1));
        self.push(Splice { start, end, rank: 0, name: Some(name), put: Put::Text(text) });
        for (n, slot) in fields {
            self.cut_line(n, slot.line, Some(name));
        }
        self
    }

    /// Takes back earlier edits of that field, its insertions at the top excepted.
    fn forget(&mut self, name: Name) {
        let keep = |s: &Splice<'_>| s.name != Some(name) || s.rank < 0;
        for slot in &mut self.first {
            if slot.as_ref().is_some_and(|s| !keep(s)) {
                *slot = None;
            }
        }
        self.more.retain(keep);
    }

    /// Replaces the Request-URI; nothing in a response.
    pub fn set_uri(&mut self, uri: impl Into<Cow<'m, str>>) -> &mut Self {
        let (start, end) = self.message.uri_span();
        if end == 0 {
            return self;
        }
        for slot in &mut self.first {
            if slot.as_ref().is_some_and(|s| s.start == start as u32) {
                *slot = None;
            }
        }
        self.more.retain(|s| s.start != start as u32);
        let put = Put::Text(Text::Str(uri.into()));
        self.push(Splice { start: start as u32, end: end as u32, rank: 0, name: None, put })
    }

    /// Writes `received` and `rport` into the topmost Via as it was received, in place of those that stand there
    /// (RFC 3261 18.2.1, RFC 3581 4).
    pub fn via_received(&mut self, received: Option<IpAddr>, rport: Option<u16>) -> &mut Self {
        let message = self.message;
        let Some((_, slot)) = message.slots_of(Name::Via).next() else { return self };
        let start = usize::from(slot.value.0);
        let field = &message.head()[start..usize::from(slot.value.1)];
        let via = &field[..value_end(field)];
        let end = start + trim(via).len();
        // Walk over the parameters by their semicolons; a quoted string in a Via hides none that matters here.
        let mut at = via.find(';');
        while let Some(from) = at {
            let to = via[from + 1..].find(';').map_or(end - start, |next| from + 1 + next);
            let name = via[from + 1..to.max(from + 1)].split('=').next().unwrap_or_default();
            let name = trim(name);
            let gone = received.is_some() && name.eq_ignore_ascii_case("received")
                || rport.is_some() && name.eq_ignore_ascii_case("rport");
            if gone {
                let (start, end) = ((start + from) as u32, (start + to) as u32);
                self.push(Splice { start, end, rank: 0, name: None, put: Put::Cut });
            }
            at = (start + to < end).then_some(to);
        }
        let put = Put::Text(Text::Source(received, rport));
        self.push(Splice { start: end as u32, end: end as u32, rank: 0, name: None, put })
    }

    /// Replaces the body and its Content-Length. Content-Type becomes `content_type`; without one it stays, or goes
    /// if the body is empty.
    pub fn body(&mut self, content_type: Option<&'m str>, body: &'m [u8]) -> &mut Self {
        match content_type {
            Some(kind) => _ = self.replace(Name::ContentType, kind),
            None if body.is_empty() => _ = self.remove_all(Name::ContentType),
            None => {}
        }
        self.body = Some(body);
        self.replace_number(Name::ContentLength, body.len() as u64)
    }

    #[inline]
    fn push(&mut self, splice: Splice<'m>) -> &mut Self {
        self.len += 1;
        match self.first.iter_mut().find(|s| s.is_none()) {
            Some(free) => *free = Some(splice),
            None => self.more.push(splice),
        }
        self
    }

    fn splices(&self) -> impl Iterator<Item = &Splice<'m>> {
        self.first.iter().flatten().chain(&self.more)
    }

    /// Writes the edited message to the end of `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let head = self.message.head().as_bytes();
        let body = self.body.unwrap_or_else(|| self.message.body());
        let added: usize = self.splices().map(Splice::size).sum();
        out.reserve(head.len() + body.len() + added);
        let count = self.splices().count();
        let mut few = [0usize; INLINE];
        let mut many = Vec::new();
        let order: &mut [usize] = if self.more.is_empty() {
            let free = few.iter_mut().zip((0..INLINE).filter(|n| self.first[*n].is_some()));
            free.for_each(|(slot, n)| *slot = n);
            &mut few[..count]
        } else {
            many.extend((0..INLINE + self.more.len()).filter(|n| self.at(*n).is_some()));
            &mut many
        };
        order.sort_unstable_by_key(|n| self.at(*n).map(|s| (s.start, s.rank)));
        let mut done = 0;
        for splice in order.iter().filter_map(|n| self.at(*n)) {
            let (start, end) = (splice.start as usize, splice.end as usize);
            // What lies within a line that is cut goes with it.
            if start < done {
                continue;
            }
            out.extend_from_slice(&head[done..start]);
            splice.write(out);
            done = end;
        }
        out.extend_from_slice(&head[done..]);
        out.extend_from_slice(body);
    }

    fn at(&self, n: usize) -> Option<&Splice<'m>> {
        if n < INLINE { self.first[n].as_ref() } else { self.more.get(n - INLINE) }
    }

    /// The edited message.
    #[must_use]
    pub fn finish(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        Bytes::from(out)
    }
}

impl Splice<'_> {
    /// An upper bound of the bytes it adds.
    fn size(&self) -> usize {
        let text = |t: &Text<'_>| match t {
            Text::Str(s) => s.len(),
            Text::Number(_) => 20,
            Text::Source(..) => 72,
        };
        match &self.put {
            Put::Cut => 0,
            Put::Text(t) => text(t),
            Put::Line(name, t) => name.len() + text(t) + 4,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match &self.put {
            Put::Cut => {}
            Put::Text(text) => text.write(out),
            Put::Line(name, text) => {
                push_clean(out, name);
                out.extend_from_slice(b": ");
                text.write(out);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

impl Text<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        match self {
            Self::Str(text) => push_clean(out, text),
            Self::Number(n) => _ = write!(out, "{n}"),
            Self::Source(received, rport) => {
                if let Some(ip) = received {
                    _ = write!(out, ";received={ip}");
                }
                if let Some(port) = rport {
                    _ = write!(out, ";rport={port}");
                }
            }
        }
    }
}
