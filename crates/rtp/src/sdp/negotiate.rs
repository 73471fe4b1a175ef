//! What of an offer goes on to an endpoint, and simple offers and answers of our own (RFC 3264).

use super::{Codec, Direction, Media, Session, net_address};
use std::net::SocketAddr;

/// No line that carries media would be left: 488 with a Warning (RFC 3261 21.4.26).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no codec in common")]
pub struct NoCommonCodec;

/// What of `session` an endpoint with the codecs `allowed` may be shown. Names are a manifest's or RTP's (`ulaw`,
/// `opus`, `h264`, `telephone-event`); order stays the offerer's.
///
/// - Formats of audio and video lines that are not allowed go, with their `rtpmap`, `fmtp` and `rtcp-fb`;
///   retransmissions (`rtx`) stay with the payload they repair.
/// - A line of which nothing but auxiliary formats (DTMF events, comfort noise) is left is rejected: port 0, in place.
/// - Lines of other kinds stay when one of their formats (`t38`) or their kind is allowed, else they are rejected.
///
/// Fails when audio was offered and none is left, or when nothing at all is. A description that offers nothing (no
/// media lines, or all with port 0) passes unchanged.
pub fn restrict(session: &Session, allowed: &[&str]) -> Result<Session, NoCommonCodec> {
    let mut out = session.clone();
    let may = |codec: &Codec| allowed.iter().any(|name| codec.is(name));
    for media in out.media.iter_mut().filter(|m| m.is_active()) {
        let keep = if media.is_rtp() {
            keep_codecs(media, may)
        } else {
            let named = |x: &str| allowed.iter().any(|a| a.eq_ignore_ascii_case(x));
            named(&media.kind) || media.formats.iter().any(|f| named(f))
        };
        if !keep {
            *media = media.rejected();
        }
    }
    let active =
        |s: &Session, kind: Option<&str>| s.media.iter().any(|m| m.is_active() && kind.is_none_or(|k| m.kind == k));
    let lost = |kind| active(session, kind) && !active(&out, kind);
    if lost(Some("audio")) || lost(None) { Err(NoCommonCodec) } else { Ok(out) }
}

/// Strips an RTP line to the allowed codecs; whether any that carries media is left.
fn keep_codecs(media: &mut Media, may: impl Fn(&Codec) -> bool) -> bool {
    let codecs = media.codecs();
    let kept: Vec<u8> = codecs.iter().filter(|c| may(c)).map(|c| c.payload).collect();
    let repairs = |c: &&Codec| {
        let apt = |f: &str| f.split(';').find_map(|p| p.trim().strip_prefix("apt=")?.trim().parse().ok());
        c.is("rtx") && c.fmtp.as_deref().and_then(apt).is_some_and(|apt: u8| kept.contains(&apt))
    };
    let repair: Vec<u8> = codecs.iter().filter(repairs).map(|c| c.payload).collect();
    if !codecs.iter().any(|c| kept.contains(&c.payload) && !c.is_auxiliary()) {
        return false;
    }
    media.retain_formats(|f| f.parse().is_ok_and(|p| kept.contains(&p) || repair.contains(&p)));
    true
}

/// An offer of one audio line at `local` with `codecs` in order of preference, sendrecv, 20 ms.
pub fn offer(local: SocketAddr, codecs: &[Codec], session_id: u64, version: u64) -> Session {
    let mut session = Session::new(local.ip(), session_id, version);
    session.media.push(audio_line(local.port(), "RTP/AVP", codecs, Direction::SendRecv));
    session
}

/// An answer to `offer`: the first active audio line that has one of `ours` is taken, at `local`; all others are
/// rejected in place. The codecs of the answer are the offer's that we have, in the offer's order and under its
/// payload types (RFC 3264 6.1). Direction mirrors the offer's; `rtcp-mux` is not accepted here: set the attribute
/// where one socket serves both.
pub fn answer(
    offer: &Session,
    local: SocketAddr,
    ours: &[Codec],
    session_id: u64,
    version: u64,
) -> Result<Session, NoCommonCodec> {
    let mut session = Session::new(local.ip(), session_id, version);
    let mut taken = false;
    for (i, media) in offer.media.iter().enumerate() {
        let mut common = Vec::new();
        if !taken && media.kind == "audio" && media.is_active() {
            common = media.codecs();
            common.retain(|c| ours.iter().any(|o| o.same_encoding(c)));
            for codec in common.iter_mut().filter(|c| c.is("telephone-event")) {
                codec.fmtp = ours.iter().find(|o| o.same_encoding(codec)).and_then(|o| o.fmtp.clone());
            }
        }
        if common.iter().any(|c| !c.is_auxiliary()) {
            let mut line = audio_line(local.port(), &media.protocol, &common, offer.direction(i).reverse());
            if let Some(mid) = media.attribute("mid") {
                line.set_attribute("mid", mid);
            }
            session.media.push(line);
            taken = true;
        } else {
            session.media.push(media.rejected());
        }
    }
    if taken { Ok(session) } else { Err(NoCommonCodec) }
}

fn audio_line(port: u16, protocol: &str, codecs: &[Codec], direction: Direction) -> Media {
    let mut media = Media {
        kind: "audio".to_owned(),
        port,
        count: None,
        protocol: protocol.to_owned(),
        formats: Vec::new(),
        lines: Vec::new(),
    };
    codecs.iter().for_each(|c| media.push_codec(c));
    media.set_attribute("ptime", "20");
    media.set_direction(direction);
    media
}

impl Media {
    /// States where RTCP is received: `a=rtcp:port`, with the address when `address` is given (RFC 3605).
    pub fn set_rtcp(&mut self, port: u16, address: Option<std::net::IpAddr>) {
        let value = match address {
            Some(a) => format!("{port} {}", net_address(a)),
            None => port.to_string(),
        };
        self.set_attribute("rtcp", &value);
    }
}
