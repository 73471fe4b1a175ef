//! Session descriptions (RFC 4566 / RFC 8866): parse, edit, print; offer and answer (RFC 3264).
//!
//! Lines that this crate does not know are kept, in their place. Media lines never change number or order.

mod attribute;
mod codec;
mod media;
mod negotiate;

pub use attribute::{Direction, Line};
pub use codec::Codec;
pub use media::Media;
pub use negotiate::{NoCommonCodec, answer, offer, restrict};

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Largest description that is parsed, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most lines in one description.
pub const MAX_LINES: usize = 2048;
/// Most media lines in one description.
pub const MAX_MEDIA: usize = 32;

/// Why a description was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// More than [`MAX_BYTES`], [`MAX_LINES`] or [`MAX_MEDIA`].
    #[error("session description is too large ({0})")]
    TooLarge(&'static str),
    /// The description does not open with `v=0`.
    #[error("session description does not open with v=0")]
    Version,
    /// A line is not `x=value`. The number counts from 1.
    #[error("line {0} of the session description is not of the form x=value")]
    Line(usize),
    /// No `o=` line, or one without its six fields.
    #[error("the o= line of the session description is missing or malformed")]
    Origin,
    /// A `c=` line that is not `nettype addrtype address`. The number counts from 1.
    #[error("line {0}: malformed c= line")]
    Connection(usize),
    /// An `m=` line without kind, port, protocol and format. The number counts from 1.
    #[error("line {0}: malformed m= line")]
    Media(usize),
}

/// The `o=` line: who made the description, and which edition of it this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// User name, `-` where there is none.
    pub username: String,
    /// Session id: digits, unique with the other fields but `version`.
    pub session_id: String,
    /// Edition: goes up by one whenever the description changes (RFC 3264 8).
    pub version: u64,
    /// `IN IP4 192.0.2.1` and the like.
    pub address: String,
}

impl Origin {
    fn parse(value: &str) -> Option<Origin> {
        let mut words = value.split_ascii_whitespace();
        let username = words.next()?.to_owned();
        let session_id = words.next()?.to_owned();
        let digits = words.next()?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        // More digits than a u64 holds are legal; nothing here needs their value but to go on from it.
        let version = digits.parse().unwrap_or(u64::MAX / 2);
        let (net, kind, host) = (words.next()?, words.next()?, words.next()?);
        words.next().is_none().then(|| Origin {
            username,
            session_id,
            version,
            address: format!("{net} {kind} {host}"),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.username, self.session_id, self.version, self.address)
    }
}

/// `IN IP4 addr` or `IN IP6 addr`: how an address stands in `o=`, `c=` and `a=rtcp`.
pub(crate) fn net_address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(a) => format!("IN IP4 {a}"),
        IpAddr::V6(a) => format!("IN IP6 {a}"),
    }
}

/// A `c=` value's host part, without a multicast TTL; `None` when it is a name, not an address.
pub(crate) fn connection_address(value: &str) -> Option<IpAddr> {
    let host = value.split_ascii_whitespace().nth(2)?;
    host.split('/').next()?.parse().ok()
}

/// A session description. Everything that was read is printed again, in its order; `Display` prints with CRLF.
///
/// ```
/// let sdp = rtp::sdp::Session::parse(b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
/// assert_eq!(sdp.rtp_address(0), Some("192.0.2.1:4000".parse().unwrap()));
/// assert_eq!(sdp.media[0].codecs()[0].name, "PCMU");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The `o=` line.
    pub origin: Origin,
    /// All other lines before the first `m=`, `v=` included, in order. `o=` stands at the place `origin_at`.
    pub lines: Vec<Line>,
    /// Media lines in order; the index is what answers match by (RFC 3264 6).
    pub media: Vec<Media>,
    origin_at: usize,
}

impl Session {
    /// Reads a description. LF alone is accepted as a line's end; empty lines are skipped. Bytes that are not UTF-8
    /// become replacement characters. `c=`, `m=` and `o=` are checked, attributes only when they are asked for.
    pub fn parse(bytes: &[u8]) -> Result<Session, ParseError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::TooLarge("bytes"));
        }
        let text = String::from_utf8_lossy(bytes);
        let (mut lines, mut media) = (Vec::new(), Vec::<Media>::new());
        let (mut origin, mut origin_at, mut count) = (None, 0, 0);
        for (number, raw) in text.split('\n').enumerate().map(|(i, l)| (i + 1, l.strip_suffix('\r').unwrap_or(l))) {
            if raw.is_empty() {
                continue;
            }
            count += 1;
            if count > MAX_LINES {
                return Err(ParseError::TooLarge("lines"));
            }
            let line = Line::parse(raw).ok_or(ParseError::Line(number))?;
            if count == 1 && (line.kind != 'v' || line.value.trim() != "0") {
                return Err(ParseError::Version);
            }
            if line.kind == 'c' && line.value.split_ascii_whitespace().count() != 3 {
                return Err(ParseError::Connection(number));
            }
            match (line.kind, media.last_mut()) {
                ('m', _) => {
                    if media.len() == MAX_MEDIA {
                        return Err(ParseError::TooLarge("media lines"));
                    }
                    media.push(Media::parse(&line.value).ok_or(ParseError::Media(number))?);
                }
                (_, Some(last)) => last.lines.push(line),
                ('o', None) => {
                    if origin.is_some() {
                        return Err(ParseError::Origin);
                    }
                    origin = Some(Origin::parse(&line.value).ok_or(ParseError::Origin)?);
                    origin_at = lines.len();
                }
                (_, None) => lines.push(line),
            }
        }
        if count == 0 {
            return Err(ParseError::Version);
        }
        Ok(Session { origin: origin.ok_or(ParseError::Origin)?, lines, media, origin_at })
    }

    /// A description with the mandatory lines and no media: `session_id` and `version` as RFC 3264 5 wants them.
    pub fn new(address: IpAddr, session_id: u64, version: u64) -> Session {
        let at = net_address(address);
        let line = |kind, value: &str| Line { kind, value: value.to_owned() };
        Session {
            origin: Origin {
                username: "-".to_owned(),
                session_id: session_id.to_string(),
                version,
                address: at.clone(),
            },
            lines: vec![line('v', "0"), line('s', "-"), line('c', &at), line('t', "0 0")],
            media: Vec::new(),
            origin_at: 1,
        }
    }

    /// The printed description.
    pub fn to_vec(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Raises the edition in `o=` by one (RFC 3264 8: every changed description).
    pub fn bump_version(&mut self) {
        self.origin.version = self.origin.version.saturating_add(1);
    }

    /// First session attribute `name`: `Some("")` for a flag without value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        attribute::find(&self.lines, name)
    }

    /// Removes all session attributes `name`.
    pub fn remove_attribute(&mut self, name: &str) {
        attribute::remove(&mut self.lines, name);
    }

    /// The session's `c=` address; `None` without one or when it is a name.
    pub fn connection(&self) -> Option<IpAddr> {
        self.lines.iter().find(|l| l.kind == 'c').and_then(|l| connection_address(&l.value))
    }

    /// The address media line `index` says it receives at: its own `c=`, else the session's.
    pub fn media_address(&self, index: usize) -> Option<IpAddr> {
        let media = self.media.get(index)?;
        if media.lines.iter().any(|l| l.kind == 'c') { media.connection() } else { self.connection() }
    }

    /// Where RTP of media line `index` goes. `None` when the line is rejected (port 0), absent, or names a host.
    pub fn rtp_address(&self, index: usize) -> Option<SocketAddr> {
        let port = self.media.get(index)?.port;
        (port != 0).then_some(())?;
        Some(SocketAddr::new(self.media_address(index)?, port))
    }

    /// Where RTCP of media line `index` goes: `a=rtcp` (RFC 3605), the RTP port when `a=rtcp-mux` stands
    /// (RFC 5761), else the port above.
    pub fn rtcp_address(&self, index: usize) -> Option<SocketAddr> {
        let rtp = self.rtp_address(index)?;
        let media = self.media.get(index)?;
        if media.rtcp_mux() {
            return Some(rtp);
        }
        match media.rtcp() {
            Some((port, address)) => Some(SocketAddr::new(address.unwrap_or(rtp.ip()), port)),
            None => Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?)),
        }
    }

    /// Direction of media line `index`: its own, else the session's, else sendrecv. An address of all zeros is the
    /// old way to hold (RFC 2543): the sender will not receive.
    pub fn direction(&self, index: usize) -> Direction {
        let stated = self
            .media
            .get(index)
            .and_then(|m| m.direction())
            .or_else(|| attribute::direction(&self.lines))
            .unwrap_or(Direction::SendRecv);
        match self.media_address(index) {
            Some(a) if a.is_unspecified() => stated.without_receiving(),
            _ => stated,
        }
    }

    /// Whether this side holds the call: no active audio line (any line, when there is no audio) would receive.
    pub fn is_hold(&self) -> bool {
        let active = |audio: bool| {
            (0..self.media.len())
                .filter(move |&i| self.media[i].is_active() && (!audio || self.media[i].kind == "audio"))
        };
        let audio = active(true).next().is_some();
        let mut lines = active(audio).peekable();
        lines.peek().is_some() && lines.all(|i| !self.direction(i).receives())
    }

    /// Index of the first audio line that is not rejected.
    pub fn audio(&self) -> Option<usize> {
        self.media.iter().position(|m| m.kind == "audio" && m.is_active())
    }

    /// Audio codecs of the first active audio line, in its order of preference; empty without one.
    pub fn audio_codecs(&self) -> Vec<Codec> {
        self.audio().and_then(|i| self.media.get(i)).map(Media::codecs).unwrap_or_default()
    }

    /// States one address for the whole description: in `o=`, in the session's `c=`, and nowhere else.
    /// A media line that was held by an address of zeros keeps its meaning as a direction.
    pub fn set_address(&mut self, address: IpAddr) {
        for i in 0..self.media.len() {
            let held = self.media_address(i).is_some_and(|a| a.is_unspecified());
            let direction = self.direction(i);
            if held && let Some(media) = self.media.get_mut(i) {
                media.set_direction(direction);
            }
        }
        let value = net_address(address);
        self.origin.address = value.clone();
        for media in &mut self.media {
            media.lines.retain(|l| l.kind != 'c');
        }
        match self.lines.iter_mut().find(|l| l.kind == 'c') {
            Some(line) => line.value = value,
            None => {
                // RFC 8866 5: c= stands after s=, i=, u=, e=, p= and before b=, t=.
                let at = self.lines.iter().position(|l| matches!(l.kind, 'b' | 't' | 'r' | 'z' | 'k' | 'a'));
                let at = at.unwrap_or(self.lines.len());
                self.lines.insert(at, Line { kind: 'c', value });
            }
        }
    }

    /// Sets the direction of every media line and drops the session's own.
    pub fn set_direction(&mut self, direction: Direction) {
        attribute::remove_directions(&mut self.lines);
        for media in self.media.iter_mut().filter(|m| m.is_active()) {
            media.set_direction(direction);
        }
    }

    /// Appends rejected copies of the lines that `offer` has and this answer lacks, so that number and order agree
    /// (RFC 3264 6), and cuts what is too much.
    pub fn conform_to(&mut self, offer: &Session) {
        self.media.truncate(offer.media.len());
        for media in offer.media.iter().skip(self.media.len()) {
            self.media.push(media.rejected());
        }
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in self.lines.iter().enumerate() {
            if i == self.origin_at {
                write!(f, "o={}\r\n", self.origin)?;
            }
            write!(f, "{line}\r\n")?;
        }
        if self.origin_at >= self.lines.len() {
            write!(f, "o={}\r\n", self.origin)?;
        }
        self.media.iter().try_for_each(|m| write!(f, "{m}"))
    }
}

#[cfg(test)]
mod tests;
