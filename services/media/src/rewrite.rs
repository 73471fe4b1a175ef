//! A description made ours: our address and ports in place of the peer's.

use rtp::sdp::Session;
use std::net::IpAddr;

/// Attributes about ways around us, or that our ports do not honour.
const ICE: [&str; 7] =
    ["candidate", "end-of-candidates", "remote-candidates", "ice-ufrag", "ice-pwd", "ice-options", "ice-lite"];

/// What a media line becomes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Line {
    /// Our RTP port; `None` leaves the line rejected.
    pub(crate) port: Option<u16>,
    /// Write `a=rtcp-mux`.
    pub(crate) mux: bool,
    /// RTCP has a port of its own.
    pub(crate) rtcp: bool,
}

/// How `a=rtcp` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RtcpAttribute {
    Port,
    Full,
    None,
}

/// The description to send on: `lines` by media line. Bundles and ICE end here, RTP and RTCP ports are ours.
pub(crate) fn rewrite(from: &Session, address: IpAddr, lines: &[Line], rtcp: RtcpAttribute, origin: bool) -> Session {
    let mut out = from.clone();
    out.set_address(address);
    if !origin {
        out.origin.address.clone_from(&from.origin.address);
    }
    ICE.iter().for_each(|name| out.remove_attribute(name));
    out.remove_attribute("group");
    out.remove_attribute("rtcp-mux");
    for (i, media) in out.media.iter_mut().enumerate() {
        let line = lines.get(i).copied().unwrap_or_default();
        let Some(port) = line.port.filter(|_| media.is_active()) else {
            *media = media.rejected();
            continue;
        };
        media.port = port;
        media.count = None;
        ICE.iter().for_each(|name| media.remove_attribute(name));
        ["rtcp", "rtcp-mux", "rtcp-mux-only", "bundle-only"].iter().for_each(|name| media.remove_attribute(name));
        if media.is_rtp() && line.rtcp && rtcp != RtcpAttribute::None {
            media.set_rtcp(port.saturating_add(1), (rtcp == RtcpAttribute::Full).then_some(address));
        }
        if media.is_rtp() && line.mux {
            media.set_attribute("rtcp-mux", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_peer_is_left() {
        let text = "v=0\r\no=- 1 2 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\na=group:BUNDLE a v\r\na=ice-lite\r\n\
            m=audio 4000 RTP/AVP 0\r\nc=IN IP4 10.0.0.6\r\na=rtcp:4100 IN IP4 10.0.0.6\r\na=rtcp-mux\r\na=mid:a\r\na=candidate:1 1 udp 1 10.0.0.5 4000 typ host\r\n\
            m=video 0 RTP/AVP 97\r\na=mid:v\r\na=rtpmap:97 H264/90000\r\nm=image 5000 udptl t38\r\n";
        let sdp = Session::parse(text.as_bytes()).unwrap();
        let line = |port, mux| Line { port: Some(port), mux, rtcp: true };
        let lines = [line(30000, true), line(30002, false), line(30004, false)];
        let us = "192.0.2.1".parse().unwrap();
        let got = rewrite(&sdp, us, &lines, RtcpAttribute::Full, true).to_string();
        let want = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
            m=audio 30000 RTP/AVP 0\r\na=mid:a\r\na=rtcp:30001 IN IP4 192.0.2.1\r\na=rtcp-mux\r\n\
            m=video 0 RTP/AVP 97\r\na=mid:v\r\nm=image 30004 udptl t38\r\n";
        assert_eq!(got, want);
        let kept = rewrite(&sdp, us, &lines[..1], RtcpAttribute::None, false);
        assert_eq!(kept.origin.address, "IN IP4 10.0.0.5");
        assert_eq!((kept.media[0].attribute("rtcp"), kept.media[2].port), (None, 0));
    }
}
