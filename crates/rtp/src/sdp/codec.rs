//! Codecs as session descriptions name them: payload types, `rtpmap`, `fmtp` and the names of manifests.

use super::Media;

/// One codec of a media line.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Codec {
    /// RTP payload type, 0..=127.
    pub payload: u8,
    /// Encoding name as written: `PCMU`, `opus`, `telephone-event`.
    pub name: String,
    /// RTP clock rate in Hz (8000 for G.722, RFC 3551 4.5.2).
    pub rate: u32,
    /// Channels, 1 where not said.
    pub channels: u8,
    /// Format parameters, without the payload type.
    pub fmtp: Option<String>,
}

/// Static payload types (RFC 3551 6): type, name, clock rate, channels.
const STATIC: &[(u8, &str, u32, u8)] = &[
    (0, "PCMU", 8000, 1),
    (3, "GSM", 8000, 1),
    (4, "G723", 8000, 1),
    (5, "DVI4", 8000, 1),
    (6, "DVI4", 16000, 1),
    (7, "LPC", 8000, 1),
    (8, "PCMA", 8000, 1),
    (9, "G722", 8000, 1),
    (10, "L16", 44100, 2),
    (11, "L16", 44100, 1),
    (12, "QCELP", 8000, 1),
    (13, "CN", 8000, 1),
    (14, "MPA", 90000, 1),
    (15, "G728", 8000, 1),
    (16, "DVI4", 11025, 1),
    (17, "DVI4", 22050, 1),
    (18, "G729", 8000, 1),
    (25, "CelB", 90000, 1),
    (26, "JPEG", 90000, 1),
    (28, "nv", 90000, 1),
    (31, "H261", 90000, 1),
    (32, "MPV", 90000, 1),
    (33, "MP2T", 90000, 1),
    (34, "H263", 90000, 1),
];

/// Names of manifests (Asterisk's) beside those of RTP.
const ALIASES: &[(&str, &str)] = &[
    ("ulaw", "PCMU"),
    ("alaw", "PCMA"),
    ("slin", "L16"),
    ("g723", "G723"),
    ("g726", "G726-32"),
    ("h263p", "H263-1998"),
    ("dtmf", "telephone-event"),
];

impl Codec {
    /// A codec without format parameters.
    pub fn new(payload: u8, name: &str, rate: u32, channels: u8) -> Codec {
        Codec { payload, name: name.to_owned(), rate, channels, fmtp: None }
    }

    /// G.711 mu-law, payload type 0.
    pub fn ulaw() -> Codec {
        Codec::new(0, "PCMU", 8000, 1)
    }

    /// G.711 A-law, payload type 8.
    pub fn alaw() -> Codec {
        Codec::new(8, "PCMA", 8000, 1)
    }

    /// DTMF events 0-16 (RFC 4733) at 8 kHz under a dynamic payload type.
    pub fn telephone_event(payload: u8) -> Codec {
        Codec { fmtp: Some("0-16".to_owned()), ..Codec::new(payload, "telephone-event", 8000, 1) }
    }

    /// Whether `name` (a manifest's or RTP's, any case) means this codec: `ulaw` is `PCMU`.
    pub fn is(&self, name: &str) -> bool {
        let real = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map_or(name, |(_, real)| real);
        self.name.eq_ignore_ascii_case(real)
    }

    /// Whether this carries no speech by itself: events, comfort noise, redundancy.
    pub fn is_auxiliary(&self) -> bool {
        ["telephone-event", "CN", "red", "ulpfec", "rtx", "flexfec-03", "tone"]
            .iter()
            .any(|n| self.name.eq_ignore_ascii_case(n))
    }

    /// Same encoding, whatever its payload type: name, rate and channels agree.
    pub fn same_encoding(&self, other: &Codec) -> bool {
        self.name.eq_ignore_ascii_case(&other.name) && self.rate == other.rate && self.channels == other.channels
    }

    /// The value of `a=rtpmap`.
    pub fn rtpmap(&self) -> String {
        match self.channels {
            0 | 1 => format!("{} {}/{}", self.payload, self.name, self.rate),
            n => format!("{} {}/{}/{n}", self.payload, self.name, self.rate),
        }
    }
}

fn map(value: &str) -> Option<(u8, String, u32, u8)> {
    let (payload, encoding) = value.trim().split_once([' ', '\t'])?;
    let mut parts = encoding.trim().split('/');
    let name = parts.next().filter(|n| !n.is_empty())?;
    let rate = parts.next()?.trim().parse().ok()?;
    let channels = parts.next().map_or(Some(1), |c| c.trim().parse().ok())?;
    Some((payload.parse().ok().filter(|p| *p < 128)?, name.to_owned(), rate, channels))
}

pub(super) fn read(media: &Media) -> Vec<Codec> {
    let maps: Vec<_> = media.attributes("rtpmap").filter_map(map).collect();
    let parameters: Vec<(u8, &str)> = media
        .attributes("fmtp")
        .filter_map(|v| v.split_once(' '))
        .filter_map(|(p, v)| Some((p.parse().ok()?, v)))
        .collect();
    let codec = |format: &String| {
        let payload: u8 = format.parse().ok().filter(|p| *p < 128)?;
        let mapped = maps.iter().find(|m| m.0 == payload).map(|(p, n, r, c)| Codec::new(*p, n, *r, *c));
        let fixed = || STATIC.iter().find(|s| s.0 == payload).map(|&(p, n, r, c)| Codec::new(p, n, r, c));
        let mut codec = mapped.or_else(fixed)?;
        codec.fmtp = parameters.iter().find(|(p, _)| *p == payload).map(|(_, v)| (*v).to_owned());
        Some(codec)
    };
    media.formats.iter().filter_map(codec).collect()
}
