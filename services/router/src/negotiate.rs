//! Session descriptions: what of one leg's description the other may see, and what each leg is told (RFC 3264).

use rtp::sdp::{self, Session};
use sip::{Message, Name};

/// The value of `Warning` beside 488 (RFC 3261 20.43).
pub(crate) const NO_COMMON_CODEC: &str = "305 kubepbx \"Incompatible media format: no codec in common\"";

/// DTMF events go with every codec.
const EVENTS: &str = "telephone-event";

/// Why a body is no description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Of another type: 415.
    Type,
    /// Unreadable: 400.
    Malformed,
}

/// The description that a message carries, alone or as a part of `multipart/*` (RFC 5621 3.1).
pub(crate) fn body(message: &Message<'_>) -> Result<Option<String>, BodyError> {
    let body = message.body();
    if body.is_empty() {
        return Ok(None);
    }
    let kind = message.header(Name::ContentType).ok_or(BodyError::Type)?;
    let media = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let part = if media == "application/sdp" {
        body
    } else if media.starts_with("multipart/") {
        part(kind, body).ok_or(BodyError::Type)?
    } else {
        return Err(BodyError::Type);
    };
    let session = Session::parse(part).map_err(|_| BodyError::Malformed)?;
    Ok(Some(session.to_string()))
}

/// The first `application/sdp` part (RFC 2046 5.1.1).
fn part<'b>(kind: &str, body: &'b [u8]) -> Option<&'b [u8]> {
    let boundary = kind.split(';').find_map(|p| p.trim().strip_prefix("boundary="))?.trim_matches('"');
    let delimiter = format!("--{boundary}");
    let find = |from: usize, what: &[u8]| {
        body.get(from..)?.windows(what.len().max(1)).position(|w| w == what).map(|at| at + from)
    };
    let mut at = find(0, delimiter.as_bytes())?;
    for _ in 0..16 {
        let start = at + delimiter.len();
        let end = find(start, delimiter.as_bytes())?;
        let section = body.get(start..end)?;
        let head = section.windows(4).position(|w| w == b"\r\n\r\n")?;
        let fields = String::from_utf8_lossy(section.get(..head)?).to_ascii_lowercase();
        if fields.lines().any(|l| l.starts_with("content-type:") && l.contains("application/sdp")) {
            return section.get(head + 4..);
        }
        at = end;
    }
    None
}

/// What of a description may be shown between two endpoints, by the codecs of each; an empty list allows all. `None`:
/// nothing is left.
pub(crate) fn restrict(description: &str, lists: &[&[String]]) -> Option<String> {
    let mut session = Session::parse(description.as_bytes()).ok()?;
    for list in lists.iter().filter(|l| !l.is_empty()) {
        let allowed: Vec<&str> = list.iter().map(String::as_str).chain([EVENTS]).collect();
        session = sdp::restrict(&session, &allowed).ok()?;
    }
    Some(session.to_string())
}

/// The description with the codec first that `agreed` has first, so that a new far leg picks what the near one speaks.
pub(crate) fn prefer(description: &str, agreed: &str) -> String {
    let parse = |text: &str| Session::parse(text.as_bytes()).ok();
    let (Some(mut session), Some(agreed)) = (parse(description), parse(agreed)) else { return description.to_owned() };
    let (codecs, wanted) = (session.audio_codecs(), agreed.audio_codecs());
    let found = wanted.first().and_then(|w| codecs.iter().find(|c| c.same_encoding(w)));
    if let (Some(codec), Some(at)) = (found, session.audio())
        && let Some(media) = session.media.get_mut(at)
    {
        let format = codec.payload.to_string();
        media.formats.sort_by_key(|f| *f != format);
    }
    session.to_string()
}

/// True if a leg that was told `told` need not be told `new`: the same lines are in use, each with the same first codec
/// and direction.
pub(crate) fn agrees(told: &str, new: &str) -> bool {
    let parse = |text: &str| Session::parse(text.as_bytes()).ok();
    let (Some(told), Some(new)) = (parse(told), parse(new)) else { return false };
    let line = |s: &Session, at: usize| {
        let media = s.media.get(at)?;
        let codec = media.codecs().into_iter().next().map(|c| (c.payload, c.name.to_ascii_lowercase()));
        Some((media.kind.clone(), media.is_active(), codec.filter(|_| media.is_active()), s.direction(at)))
    };
    let lines = told.media.len().max(new.media.len());
    (0..lines).all(|at| line(&told, at) == line(&new, at)) && address(&told) == address(&new)
}

/// The description with the addresses and ports of `place`, a description of the same lines.
pub(crate) fn relocate(description: &str, place: &str) -> String {
    let parse = |text: &str| Session::parse(text.as_bytes()).ok();
    let (Some(mut session), Some(place)) = (parse(description), parse(place)) else { return description.to_owned() };
    if let Some(address) = (0..place.media.len()).find_map(|at| place.rtp_address(at)) {
        session.set_address(address.ip());
    }
    for (media, new) in session.media.iter_mut().zip(&place.media) {
        if !media.is_active() || !new.is_active() {
            continue;
        }
        media.port = new.port;
        media.remove_attribute("rtcp");
        if let Some((port, address)) = new.rtcp() {
            media.set_rtcp(port, address);
        }
    }
    session.to_string()
}

/// True if both descriptions have the same addresses and ports.
pub(crate) fn same_place(one: &str, other: &str) -> bool {
    let parse = |text: &str| Session::parse(text.as_bytes()).ok();
    matches!((parse(one), parse(other)), (Some(one), Some(other)) if address(&one) == address(&other))
}

/// Addresses and ports of all lines.
fn address(session: &Session) -> Vec<Option<std::net::SocketAddr>> {
    (0..session.media.len()).map(|at| session.rtp_address(at)).collect()
}

/// An answer that rejects every line: for an offer that nobody wants any more.
pub(crate) fn reject(offer: &str) -> String {
    let mut answer = Session::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 1, 1);
    if let Ok(offer) = Session::parse(offer.as_bytes()) {
        answer.conform_to(&offer);
    }
    answer.to_string()
}

/// Lines of an answer follow the offer's in number and order, whatever the answerer did.
pub(crate) fn conform(answer: &str, offer: &str) -> String {
    match (Session::parse(answer.as_bytes()), Session::parse(offer.as_bytes())) {
        (Ok(mut answer), Ok(offer)) => {
            answer.conform_to(&offer);
            answer.to_string()
        }
        _ => answer.to_owned(),
    }
}

/// The name of the first audio codec, for views.
pub(crate) fn codec(description: &str) -> Option<String> {
    Some(Session::parse(description.as_bytes()).ok()?.audio_codecs().into_iter().next()?.name)
}

/// What a leg is told: descriptions under one `o=` of ours whose version rises when something changed (RFC 3264 8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Told {
    text: String,
    id: u64,
    version: u64,
}

impl Told {
    /// Nothing yet, under this id of `o=`.
    pub(crate) fn new(id: u64) -> Self {
        // Ids and versions stay below 2^62: some phones read them as signed.
        Self { text: String::new(), id: id >> 2, version: 0 }
    }

    /// What another process told last: its session id and version go on.
    pub(crate) fn resume(text: &str) -> Option<Self> {
        let session = Session::parse(text.as_bytes()).ok()?;
        let id = session.origin.session_id.parse().ok()?;
        Some(Self { text: text.to_owned(), id, version: session.origin.version })
    }

    /// The last description; empty before the first.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// They refused the last one: what they know is this again. The version goes on.
    pub(crate) fn revert(&mut self, text: &str) {
        text.clone_into(&mut self.text);
    }

    /// As [`Told::tell`], as something new whatever was told before.
    pub(crate) fn renew(&mut self, description: &str) -> String {
        self.text.clear();
        self.tell(description)
    }

    /// The same description under our `o=`; it counts as told.
    pub(crate) fn tell(&mut self, description: &str) -> String {
        let Ok(mut session) = Session::parse(description.as_bytes()) else { return description.to_owned() };
        session.origin.username = "-".into();
        session.origin.session_id = self.id.to_string();
        session.origin.version = self.version;
        let text = session.to_string();
        if text != self.text {
            self.version += 1;
            session.origin.version = self.version;
            self.text = session.to_string();
        }
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=x 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8 0 101\r\n\
        a=rtpmap:101 telephone-event/8000\r\nm=video 4002 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n";

    fn list(codecs: &[&str]) -> Vec<String> {
        codecs.iter().map(|c| (*c).to_owned()).collect()
    }

    fn ports(text: &str) -> Vec<(u16, String)> {
        Session::parse(text.as_bytes()).unwrap().media.iter().map(|m| (m.port, m.formats.join(" "))).collect()
    }

    #[test]
    fn lines_stay_in_number_and_order() {
        let (audio, both) = (list(&["ulaw", "alaw"]), list(&["ulaw", "h264"]));
        let got = restrict(OFFER, &[&audio, &both]).unwrap();
        assert_eq!(ports(&got), [(4000, "0 101".into()), (0, "97".into())]);
        assert_eq!(ports(&restrict(OFFER, &[&both, &both]).unwrap())[1], (4002, "97".into()));
        assert_eq!(ports(&restrict(OFFER, &[&[], &audio]).unwrap())[0], (4000, "8 0 101".into()));
        assert_eq!(restrict(OFFER, &[&both, &list(&["g722"])]), None);
    }

    #[test]
    fn versions_rise_only_with_a_change() {
        let mut told = Told::new(400);
        let first = told.tell(OFFER);
        assert!(first.contains("o=- 100 1 IN IP4"), "{first}");
        assert_eq!(told.tell(&OFFER.replace("o=x 1 1", "o=y 7 9")), first);
        assert!(told.tell(&OFFER.replace("4000", "4004")).contains("o=- 100 2 "));
        told.revert(&first);
        assert!(told.tell(OFFER).contains("o=- 100 3 "));
    }

    #[test]
    fn a_new_far_leg_agrees_when_the_codec_stays() {
        assert!(agrees(OFFER, &OFFER.replace("8 0 101", "8 101")));
        assert!(!agrees(OFFER, &OFFER.replace("8 0 101", "0 101")));
        assert!(!agrees(OFFER, &format!("{OFFER}a=inactive\r\n")));
        assert!(!agrees(OFFER, &OFFER.replace("4000", "4008")));
        assert_eq!(ports(&prefer(OFFER, &OFFER.replace("8 0 101", "0 8")))[0].1, "0 8 101");
    }

    #[test]
    fn a_description_is_found_in_a_multipart_body() {
        let head = "INFO sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 INFO\r\n";
        let read = |kind: &str, text: &str| {
            let message = format!("{head}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            body(&Message::parse(message.as_bytes()).unwrap())
        };
        assert!(read("Application/SDP;x=y", OFFER).unwrap().is_some());
        let parts = format!(
            "--b1\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b1\r\nContent-Type: application/sdp\r\n\r\n{OFFER}\r\n--b1--\r\n"
        );
        assert_eq!(read("multipart/mixed;boundary=\"b1\"", &parts).unwrap(), read("application/sdp", OFFER).unwrap());
        assert_eq!(read("text/plain", "x"), Err(BodyError::Type));
        assert_eq!(read("application/sdp", "x"), Err(BodyError::Malformed));
        assert_eq!(read("multipart/mixed", "x"), Err(BodyError::Type));
    }
}
