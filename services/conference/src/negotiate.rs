//! SDP of a leg that we answer ourselves: one audio line, G.711, in rooms G.722 too, and DTMF events.

use crate::stream::Agreed;
use rtp::sdp::{self, Codec, NoCommonCodec, Session};
use std::net::SocketAddr;

/// The codecs that we speak, in order of preference: what is played is G.711, rooms take G.722 too.
pub fn codecs(room: bool) -> Vec<Codec> {
    let wide = room.then(|| Codec::new(9, "G722", 8000, 1));
    wide.into_iter().chain([Codec::ulaw(), Codec::alaw(), Codec::telephone_event(101)]).collect()
}

/// Our side of one leg's description: who we are in it and how often it changed.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where we receive.
    pub address: SocketAddr,
    session_id: u64,
    version: u64,
    room: bool,
}

impl Local {
    /// A leg that receives at `address`; `session_id` is a random number; `room` says that it is in one.
    pub fn new(address: SocketAddr, session_id: u64, room: bool) -> Self {
        // Within what peers hold in 63 bits.
        Self { address, session_id: session_id >> 2, version: 0, room }
    }

    /// An offer of all that we speak.
    pub fn offer(&mut self) -> Session {
        self.version += 1;
        let mut offer = sdp::offer(self.address, &codecs(self.room), self.session_id, self.version);
        self.tell_rtcp(&mut offer);
        offer
    }

    /// Answers an offer: the first plain RTP audio line with a codec of ours, the others rejected.
    pub fn answer(&mut self, offer: &Session) -> Result<(Session, Agreed), NoCommonCodec> {
        let mut plain = offer.clone();
        for media in plain.media.iter_mut().filter(|m| !matches!(m.protocol.as_str(), "RTP/AVP" | "RTP/AVPF")) {
            *media = media.rejected();
        }
        let mut answer = sdp::answer(&plain, self.address, &codecs(self.room), self.session_id, self.version + 1)?;
        let agreed = agreed(&answer, &plain, self.room)?;
        // In a room what comes has state: one codec, so that none is decoded by another's.
        if self.room
            && let Some(media) = answer.audio().and_then(|i| answer.media.get_mut(i))
        {
            media.retain_formats(|format| format.parse().is_ok_and(|payload| agreed.accepted.contains(&payload)));
        }
        self.version += 1;
        self.tell_rtcp(&mut answer);
        Ok((answer, agreed))
    }

    /// What an answer to our offer says.
    pub fn answered(&self, answer: &Session) -> Result<Agreed, NoCommonCodec> {
        agreed(answer, answer, self.room)
    }

    /// RTCP to our RTP port, where it is told apart and dropped: a port beside it would be somebody else's.
    fn tell_rtcp(&self, session: &mut Session) {
        if let Some(media) = session.audio().and_then(|i| session.media.get_mut(i)) {
            media.set_rtcp(self.address.port(), None);
        }
    }
}

/// `chosen` has the codecs agreed, `theirs` says where the peer receives.
fn agreed(chosen: &Session, theirs: &Session, room: bool) -> Result<Agreed, NoCommonCodec> {
    let line = chosen.audio().ok_or(NoCommonCodec)?;
    let usable = |c: &Codec| codecs(room).iter().any(|o| o.same_encoding(c));
    let mut all: Vec<Codec> = chosen.audio_codecs().into_iter().filter(usable).collect();
    let codec = all.iter().find(|c| !c.is_auxiliary()).ok_or(NoCommonCodec)?.clone();
    all.retain(|c| !room || *c == codec || c.is_auxiliary());
    let events = all.iter().find(|c| c.is("telephone-event")).map(|c| c.payload);
    let source = theirs.rtp_address(line).filter(|a| !a.ip().is_unspecified());
    let remote = source.filter(|_| theirs.direction(line).receives());
    Ok(Agreed { codec, events, accepted: all.iter().map(|c| c.payload).collect(), remote, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(lines: &str) -> Session {
        let text = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{lines}");
        Session::parse(text.as_bytes()).unwrap()
    }

    fn local() -> Local {
        Local::new("127.0.0.9:4000".parse().unwrap(), u64::MAX, false)
    }

    #[test]
    fn the_first_plain_audio_line_with_a_codec_of_ours_is_taken() {
        let offer = offer(
            "m=video 5000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=audio 5002 RTP/SAVP 0\r\n\
             m=audio 5004 RTP/AVP 9 8 97\r\na=rtpmap:97 telephone-event/8000\r\na=sendonly\r\nm=audio 5006 RTP/AVP 0\r\n",
        );
        let (answer, agreed) = local().answer(&offer).unwrap();
        assert_eq!(answer.media.iter().map(|m| m.port).collect::<Vec<_>>(), [0, 0, 4000, 0]);
        assert_eq!(agreed.accepted, [8, 97]);
        assert_eq!((agreed.codec, agreed.events), (Codec::alaw(), Some(97)));
        // It only sends: nothing goes there, and what comes from there is heard.
        assert_eq!((agreed.remote, agreed.source), (None, Some("127.0.0.1:5004".parse().unwrap())));
        assert!(!answer.direction(2).sends());
        assert_eq!(answer.rtcp_address(2), Some("127.0.0.9:4000".parse().unwrap()));
        assert_eq!(answer.media_address(2), Some("127.0.0.9".parse().unwrap()));
    }

    #[test]
    fn a_room_takes_one_codec_wide_ones_too() {
        let offer = offer("m=audio 5004 RTP/AVP 9 8 0 97\r\na=rtpmap:97 telephone-event/8000\r\n");
        let (answer, agreed) = Local::new("127.0.0.9:4000".parse().unwrap(), 1, true).answer(&offer).unwrap();
        assert_eq!(answer.media[0].formats, ["9", "97"]);
        assert_eq!((agreed.codec.name.as_str(), agreed.accepted), ("G722", vec![9, 97]));
    }

    #[test]
    fn nothing_in_common_is_said() {
        for lines in ["m=audio 5004 RTP/AVP 9\r\n", "m=audio 5004 RTP/SAVP 0\r\n", "m=audio 0 RTP/AVP 0\r\n", ""] {
            assert_eq!(local().answer(&offer(lines)).map(|_| ()), Err(NoCommonCodec), "{lines}");
        }
    }

    #[test]
    fn each_description_has_a_version_of_its_own_and_an_offer_can_be_answered() {
        let mut ours = local();
        let first = ours.offer();
        let (second, _) = ours.answer(&offer("m=audio 5004 RTP/AVP 0\r\n")).unwrap();
        assert_eq!(second.origin.session_id, first.origin.session_id);
        assert_eq!((first.origin.version, second.origin.version), (1, 2));
        let agreed = ours.answered(&offer("m=audio 6000 RTP/AVP 8\r\n")).unwrap();
        assert_eq!((agreed.codec, agreed.remote), (Codec::alaw(), Some("127.0.0.1:6000".parse().unwrap())));
        assert!(ours.answered(&offer("m=audio 0 RTP/AVP 8\r\n")).is_err());
        assert!(ours.answered(&offer("m=audio 6000 RTP/AVP 9\r\n")).is_err());
    }
}
