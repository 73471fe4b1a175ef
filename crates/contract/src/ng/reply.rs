//! Replies and the counters they carry.

use super::bencode::Value;
use super::request::split_cookie;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Counters of one packet stream, or of all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Packets received and passed on.
    pub packets: u64,
    /// Bytes of these, UDP payload.
    pub bytes: u64,
    /// Packets received and not passed on: wrong source, no destination, not RTP, or refused by the kernel.
    pub errors: u64,
}

impl Totals {
    /// Adds another's counts.
    pub fn add(&mut self, other: Totals) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.errors = self.errors.saturating_add(other.errors);
    }

    fn to_value(self) -> Value<'static> {
        let count = Value::count;
        Value::dict([("packets", count(self.packets)), ("bytes", count(self.bytes)), ("errors", count(self.errors))])
    }

    fn from_value(value: Option<&Value<'_>>) -> Totals {
        let count =
            |key| value.and_then(|v| v.get(key)).and_then(Value::as_int).map_or(0, |i| u64::try_from(i).unwrap_or(0));
        Totals { packets: count("packets"), bytes: count("bytes"), errors: count("errors") }
    }
}

/// One socket of a leg: RTP or RTCP of one media line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamReport {
    /// Media line, from 0 (the wire counts from 1).
    pub index: usize,
    /// `audio`, `video`, ...
    pub kind: String,
    /// `RTP/AVP`, ...
    pub protocol: String,
    /// RTCP rather than RTP.
    pub rtcp: bool,
    /// RTP and RTCP share the port.
    pub muxed: bool,
    /// Our port.
    pub local_port: u16,
    /// Where packets to this leg go, when that is known.
    pub endpoint: Option<SocketAddr>,
    /// What the leg's description said.
    pub advertised: Option<SocketAddr>,
    /// The endpoint was learned from a packet.
    pub latched: bool,
    /// When the last packet came, seconds since the UNIX epoch; 0 for never.
    pub last_packet: u64,
    /// What came from this leg.
    pub received: Totals,
}

/// One leg.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagReport {
    /// When its tag was first seen, seconds since the UNIX epoch.
    pub created: u64,
    /// The leg it is joined to.
    pub in_dialogue_with: Option<String>,
    /// Its streams, ordered by media line, RTP before RTCP.
    pub streams: Vec<StreamReport>,
}

/// A call's counters: the answer to `query`, and to `delete`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// When the call was made, seconds since the UNIX epoch.
    pub created: u64,
    /// The last offer, answer or delete, seconds since the UNIX epoch.
    pub last_signal: u64,
    /// Legs by tag; a pending one has the empty tag.
    pub tags: BTreeMap<String, TagReport>,
    /// All RTP.
    pub rtp: Totals,
    /// All RTCP.
    pub rtcp: Totals,
}

/// What a relay answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To `ping`.
    Pong,
    /// To `offer` and `answer`: the description for the other leg.
    Sdp(Vec<u8>),
    /// To `query` and `delete`. A delete of nothing has a warning and no report.
    Report {
        /// Counters.
        report: Option<Box<Report>>,
        /// What was odd about the command, in words.
        warning: Option<String>,
    },
    /// To `list`.
    Calls(Vec<String>),
    /// The command failed; the reason in words.
    Error(String),
}

impl Reply {
    /// The reply's bytes, under the request's cookie.
    pub fn to_vec(&self, cookie: &[u8]) -> Vec<u8> {
        let mut out = cookie.to_vec();
        out.push(b' ');
        self.to_value().write(&mut out);
        out
    }

    /// Reads a reply and its cookie; `None` when it is none.
    pub fn parse(bytes: &[u8]) -> Option<(Vec<u8>, Reply)> {
        let (cookie, rest) = split_cookie(bytes)?;
        let value = Value::parse(rest).ok()?;
        Some((cookie.to_vec(), Reply::from_value(&value)?))
    }

    fn from_value(value: &Value<'_>) -> Option<Reply> {
        let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(match value.get("result")?.as_str()? {
            "pong" => Reply::Pong,
            "error" => Reply::Error(text("error-reason").unwrap_or_default()),
            "load limit" => Reply::Error(text("message").unwrap_or_else(|| "load limit".to_owned())),
            "ok" => {
                if let Some(sdp) = value.get("sdp").and_then(Value::as_bytes) {
                    Reply::Sdp(sdp.to_vec())
                } else if let Some(calls) = value.get("calls") {
                    Reply::Calls(calls.as_list().iter().filter_map(Value::as_str).map(str::to_owned).collect())
                } else {
                    let report = value.get("tags").map(|tags| Box::new(report_from(value, tags)));
                    Reply::Report { report, warning: text("warning") }
                }
            }
            _ => return None,
        })
    }

    fn to_value(&self) -> Value<'_> {
        let mut pairs: Vec<(Cow<'_, [u8]>, Value<'_>)> = Vec::new();
        let mut put = |key: &'static str, value| pairs.push((Cow::Borrowed(key.as_bytes()), value));
        match self {
            Reply::Pong => put("result", Value::text("pong")),
            Reply::Error(reason) => {
                put("result", Value::text("error"));
                put("error-reason", Value::text(reason.as_str()));
            }
            Reply::Sdp(sdp) => {
                put("result", Value::text("ok"));
                put("sdp", Value::Bytes(Cow::Borrowed(sdp)));
            }
            Reply::Calls(calls) => {
                put("result", Value::text("ok"));
                put("calls", Value::List(calls.iter().map(|c| Value::text(c.as_str())).collect()));
            }
            Reply::Report { report, warning } => {
                put("result", Value::text("ok"));
                if let Some(warning) = warning {
                    put("warning", Value::text(warning.as_str()));
                }
                if let Some(report) = report {
                    put("created", Value::count(report.created));
                    put("last signal", Value::count(report.last_signal));
                    // The documentation names one, its example shows the other.
                    put("last_signal", Value::count(report.last_signal));
                    let totals = [("RTP", report.rtp.to_value()), ("RTCP", report.rtcp.to_value())];
                    put("totals", Value::dict(totals));
                    let tags = report.tags.iter().map(|(tag, t)| (Cow::Borrowed(tag.as_bytes()), tag_value(tag, t)));
                    put("tags", Value::Dict(tags.collect()));
                }
            }
        }
        Value::Dict(pairs)
    }
}

fn address_value(address: SocketAddr) -> Value<'static> {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    Value::dict([
        ("family", Value::text(family)),
        ("address", Value::text(address.ip().to_string())),
        ("port", Value::Int(address.port().into())),
    ])
}

fn address_from(value: &Value<'_>) -> Option<SocketAddr> {
    let port = u16::try_from(value.get("port")?.as_int()?).ok()?;
    Some(SocketAddr::new(value.get("address")?.as_str()?.parse().ok()?, port))
}

fn push<'a>(to: &mut Value<'a>, key: &'static str, value: Value<'a>) {
    if let Value::Dict(pairs) = to {
        pairs.push((Cow::Borrowed(key.as_bytes()), value));
    }
}

fn tag_value<'a>(tag: &'a str, report: &'a TagReport) -> Value<'a> {
    let mut medias = Vec::new();
    for streams in report.streams.chunk_by(|a, b| a.index == b.index) {
        let Some(first) = streams.first() else { continue };
        let mut flags = vec![Value::text("initialized")];
        if first.muxed {
            flags.push(Value::text("rtcp-mux"));
        }
        medias.push(Value::dict([
            ("index", Value::count(first.index as u64 + 1)),
            ("type", Value::text(first.kind.as_str())),
            ("protocol", Value::text(first.protocol.as_str())),
            ("flags", Value::List(flags)),
            ("streams", Value::List(streams.iter().map(stream_value).collect())),
        ]));
    }
    let mut out = Value::dict([
        ("created", Value::count(report.created)),
        ("tag", Value::text(tag)),
        ("medias", Value::List(medias)),
    ]);
    if let Some(other) = &report.in_dialogue_with {
        push(&mut out, "in dialogue with", Value::text(other.as_str()));
    }
    out
}

fn stream_value(stream: &StreamReport) -> Value<'_> {
    let mut flags = vec![Value::text(if stream.rtcp { "RTCP" } else { "RTP" })];
    if stream.endpoint.is_some() {
        flags.push(Value::text("filled"));
    }
    if stream.latched {
        flags.push(Value::text("confirmed"));
    }
    let mut out = Value::dict([
        ("local port", Value::Int(stream.local_port.into())),
        ("last packet", Value::count(stream.last_packet)),
        ("flags", Value::List(flags)),
        ("stats", stream.received.to_value()),
    ]);
    if let Some(address) = stream.endpoint {
        push(&mut out, "endpoint", address_value(address));
    }
    if let Some(address) = stream.advertised {
        push(&mut out, "advertised endpoint", address_value(address));
    }
    out
}

fn report_from(value: &Value<'_>, tags: &Value<'_>) -> Report {
    let number = |v: &Value<'_>, key| v.get(key).and_then(Value::as_int).map_or(0, |i| u64::try_from(i).unwrap_or(0));
    let text = |v: &Value<'_>, key| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let has =
        |v: &Value<'_>, word| v.get("flags").is_some_and(|f| f.as_list().iter().any(|x| x.as_str() == Some(word)));
    let mut report = Report {
        created: number(value, "created"),
        last_signal: number(value, "last signal"),
        rtp: Totals::from_value(value.get("totals").and_then(|t| t.get("RTP"))),
        rtcp: Totals::from_value(value.get("totals").and_then(|t| t.get("RTCP"))),
        tags: BTreeMap::new(),
    };
    for (tag, body) in tags.pairs() {
        let mut entry = TagReport {
            created: number(body, "created"),
            in_dialogue_with: body.get("in dialogue with").and_then(Value::as_str).map(str::to_owned),
            streams: Vec::new(),
        };
        for media in body.get("medias").map(Value::as_list).unwrap_or_default() {
            for stream in media.get("streams").map(Value::as_list).unwrap_or_default() {
                entry.streams.push(StreamReport {
                    index: usize::try_from(number(media, "index").saturating_sub(1)).unwrap_or(0),
                    kind: text(media, "type"),
                    protocol: text(media, "protocol"),
                    rtcp: has(stream, "RTCP"),
                    muxed: has(media, "rtcp-mux"),
                    local_port: u16::try_from(number(stream, "local port")).unwrap_or(0),
                    endpoint: stream.get("endpoint").and_then(address_from),
                    advertised: stream.get("advertised endpoint").and_then(address_from),
                    latched: has(stream, "confirmed"),
                    last_packet: number(stream, "last packet"),
                    received: Totals::from_value(stream.get("stats")),
                });
            }
        }
        report.tags.insert(String::from_utf8_lossy(tag).into_owned(), entry);
    }
    report
}
