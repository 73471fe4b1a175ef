//! A media line with what stands under it.

use super::{Codec, Direction, Line, attribute, codec, connection_address};
use std::fmt;
use std::net::IpAddr;

/// `m=kind port protocol formats...` and the lines under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image`, `application`, ...
    pub kind: String,
    /// Transport port; 0 rejects or ends the line.
    pub port: u16,
    /// The count after the port (`49170/2`), hardly ever there.
    pub count: Option<u16>,
    /// `RTP/AVP`, `RTP/SAVP`, `UDP/TLS/RTP/SAVPF`, `udptl`, ...
    pub protocol: String,
    /// Formats: for RTP protocols payload types in order of preference.
    pub formats: Vec<String>,
    /// Lines below, in order.
    pub lines: Vec<Line>,
}

impl Media {
    pub(crate) fn parse(value: &str) -> Option<Media> {
        let mut words = value.split_ascii_whitespace();
        let kind = words.next()?.to_owned();
        let port = words.next()?;
        let (port, count) = match port.split_once('/') {
            Some((port, count)) => (port.parse().ok()?, Some(count.parse().ok()?)),
            None => (port.parse().ok()?, None),
        };
        let protocol = words.next()?.to_owned();
        let formats: Vec<String> = words.map(str::to_owned).collect();
        (!formats.is_empty()).then_some(Media { kind, port, count, protocol, formats, lines: Vec::new() })
    }

    /// Whether the line is in use (port other than 0).
    pub fn is_active(&self) -> bool {
        self.port != 0
    }

    /// Whether formats are RTP payload types.
    pub fn is_rtp(&self) -> bool {
        self.protocol.split('/').any(|p| p.eq_ignore_ascii_case("rtp"))
    }

    /// The line's own `c=` address; `None` without one or when it is a name.
    pub fn connection(&self) -> Option<IpAddr> {
        self.lines.iter().find(|l| l.kind == 'c').and_then(|l| connection_address(&l.value))
    }

    /// First attribute `name`: `Some("")` for a flag without value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        attribute::find(&self.lines, name)
    }

    /// Values of all attributes `name`, in order.
    pub fn attributes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(Line::as_attribute).filter(move |(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Makes `name` stand once with `value` (empty: a flag): at the place of the first, else at the end.
    pub fn set_attribute(&mut self, name: &str, value: &str) {
        let new = Line::attribute(name, value);
        match self.lines.iter().position(|l| l.is(name)) {
            Some(at) => {
                let mut seen = 0;
                self.lines.retain(|l| !l.is(name) || std::mem::replace(&mut seen, 1) == 0);
                if let Some(line) = self.lines.get_mut(at) {
                    *line = new;
                }
            }
            None => self.lines.push(new),
        }
    }

    /// Removes all attributes `name`.
    pub fn remove_attribute(&mut self, name: &str) {
        attribute::remove(&mut self.lines, name);
    }

    /// The line's own direction attribute; see [`super::Session::direction`] for what holds.
    pub fn direction(&self) -> Option<Direction> {
        attribute::direction(&self.lines)
    }

    /// States the line's direction.
    pub fn set_direction(&mut self, direction: Direction) {
        attribute::remove_directions(&mut self.lines);
        self.lines.push(Line::attribute(direction.as_str(), ""));
    }

    /// Whether RTP and RTCP share the port (RFC 5761).
    pub fn rtcp_mux(&self) -> bool {
        self.attribute("rtcp-mux").is_some()
    }

    /// `a=rtcp` (RFC 3605): port, and address when the line has one.
    pub fn rtcp(&self) -> Option<(u16, Option<IpAddr>)> {
        let mut words = self.attribute("rtcp")?.split_ascii_whitespace();
        let port = words.next()?.parse().ok()?;
        Some((port, words.nth(2).and_then(|a| a.parse().ok())))
    }

    /// Milliseconds a packet, as `a=ptime` wishes; `None` when absent or nonsense.
    pub fn ptime(&self) -> Option<u32> {
        self.attribute("ptime")?.trim().parse().ok().filter(|ms| (1..=1000).contains(ms))
    }

    /// Codecs of an RTP line in order of preference; a dynamic payload type without `a=rtpmap` is left out.
    pub fn codecs(&self) -> Vec<Codec> {
        if self.is_rtp() { codec::read(self) } else { Vec::new() }
    }

    /// Keeps the formats that `keep` wants, with their `rtpmap`, `fmtp` and `rtcp-fb` lines; others go.
    pub fn retain_formats(&mut self, keep: impl Fn(&str) -> bool) {
        self.formats.retain(|f| keep(f));
        self.lines.retain(|l| match l.as_attribute() {
            Some(("rtpmap" | "fmtp" | "rtcp-fb", value)) => {
                let format = value.split([' ', '\t']).next().unwrap_or("");
                format == "*" || keep(format)
            }
            _ => true,
        });
    }

    /// Appends a codec with its `rtpmap` and `fmtp`.
    pub fn push_codec(&mut self, codec: &Codec) {
        self.formats.push(codec.payload.to_string());
        self.lines.push(Line::attribute("rtpmap", &codec.rtpmap()));
        if let Some(fmtp) = &codec.fmtp {
            self.lines.push(Line::attribute("fmtp", &format!("{} {fmtp}", codec.payload)));
        }
    }

    /// The line as an answer that rejects it (RFC 3264 6): port 0, same kind, protocol and formats, `mid` kept.
    pub fn rejected(&self) -> Media {
        let mut out = Media { port: 0, count: None, lines: Vec::new(), ..self.clone() };
        out.lines.extend(self.lines.iter().filter(|l| l.is("mid")).cloned());
        out
    }
}

impl fmt::Display for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={} {}", self.kind, self.port)?;
        if let Some(count) = self.count {
            write!(f, "/{count}")?;
        }
        write!(f, " {}", self.protocol)?;
        self.formats.iter().try_for_each(|x| write!(f, " {x}"))?;
        f.write_str("\r\n")?;
        self.lines.iter().try_for_each(|l| write!(f, "{l}\r\n"))
    }
}
