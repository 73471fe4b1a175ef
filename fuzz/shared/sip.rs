//! What holds for any input of the SIP parsers, beyond that none of them panics.

use std::net::{IpAddr, Ipv6Addr};

use sip::digest::{Challenge, Credentials, Secret, answer, challenges, choose, ha1, verify};
use sip::edit::Edit;
use sip::framer::{Frame, FrameError, Framer, Limits};
use sip::header::{CSeq, Contact, NameAddr, Params, Via, quote, unquote};
use sip::intake::{self, Intake};
use sip::uri::{Uri, escape_user};
use sip::{Message, Name, build};

/// Words that mean something in SIP.
pub(crate) const WORDS: &[&str] = &[
    "\r\n",
    "\r\n ",
    "\r\n\r\n",
    "\r",
    "\n",
    ";",
    ",",
    "\"",
    "\\",
    "<",
    ">",
    "=",
    ":",
    "@",
    "%",
    "%00",
    "[",
    "]",
    "[::1]",
    "::ffff:1.2.3.4",
    ":::",
    "*",
    "?",
    "&",
    ";lr",
    ";tag=",
    ";branch=z9hG4bK",
    ";rport",
    ";received=",
    "sip:",
    "sips:",
    "tel:+1",
    "SIP/2.0",
    " SIP/2.0\r\n",
    "SIP/2.0 200 OK\r\n",
    "INVITE",
    "ACK",
    "CSeq: 1 INVITE\r\n",
    "Via: ",
    "v:",
    "l: 0\r\n",
    "Content-Length: ",
    "Content-Length: 99999999999\r\n",
    "-1",
    "4294967296",
    "65536",
    "2147483648",
    "\u{feff}",
    "\0",
    "\u{7f}",
    "Route: <sip:a;lr>,\r\n <sip:b>\r\n",
    "m: *\r\n",
    "\t",
    " ",
    "Digest ",
    "Basic ",
    "nc=00000001",
    "qop=auth-int",
    "algorithm=SHA-256-sess",
    "username*=UTF-8''",
    "cnonce=\"\"",
];

/// A datagram.
pub(crate) fn message(input: &[u8]) {
    match intake::datagram(input, "fuzz") {
        Intake::Message(m) => {
            // What was judged good is good in every part that the judgement covers.
            assert!(m.via().is_ok() && m.cseq().is_ok() && m.call_id().is_ok());
            assert!(m.from().is_ok_and(|a| a.uri_parsed().is_ok()) && m.to().is_ok_and(|a| a.uri_parsed().is_ok()));
        }
        Intake::Refused { error, answer } => {
            let answer = Message::parse_stream(&answer).expect("a refusal is a message");
            assert_eq!(answer.status(), error.status());
        }
        Intake::Dropped(_) => {}
    }
    let Ok(m) = Message::parse(input) else { return };
    let raw = m.raw();
    assert!(raw.len() >= m.head().len() && raw.ends_with(m.body()) && raw.len() == m.head().len() + m.body().len());
    // The message alone says the same as it did within its datagram.
    let again = Message::parse(raw).expect("a message by itself");
    assert!(m.fields().eq(again.fields()) && m.body() == again.body() && m.uri() == again.uri());
    walk(&m);
    edits(&m);
}

/// Calls everything that reads on demand.
fn walk(m: &Message<'_>) {
    assert_ne!(m.is_request(), m.status().is_some());
    for name in Name::all() {
        assert_eq!(m.headers(*name).next(), m.header(*name));
        assert!(m.values(*name).count() >= m.headers(*name).count());
    }
    for (name, value) in m.fields() {
        assert_eq!(sip::typed::unfold(value).find(['\r', '\n']), None);
        assert!(m.other(name).is_some());
    }
    let _ = (m.method(), m.reason(), m.max_forwards(), m.expires(), m.content_length(), m.contacts().count());
    let _ = (m.via().map(|v| (v.branch(), v.received(), v.rport())), m.cseq(), m.call_id(), m.from(), m.to());
    let _ = sip::typed::normalise(m);
    let _ = build::response(m, 486, None, Some("t")).record_route().finish();
}

/// Edits give a message that has the edits and all the rest.
fn edits(m: &Message<'_>) {
    assert_eq!(&Edit::new(m).finish()[..], m.raw());
    let mut edit = Edit::new(m);
    edit.insert_top(Name::Via, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKfuzz")
        .replace_number(Name::MaxForwards, 9)
        .pop_top(Name::Route)
        .pop_top(Name::Route)
        .remove_all(Name::Subject)
        .append_other("X-Fuzz", "1")
        .via_received(Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), Some(5060))
        .set_uri("sip:fuzz@192.0.2.1");
    let out = edit.finish();
    let edited = Message::parse(&out).or_else(|_| Message::parse_head(&out)).expect("an edited message");
    assert_eq!(edited.via().map(|v| v.branch()), Ok(Some("z9hG4bKfuzz")));
    assert_eq!(edited.max_forwards(), Some(Ok(9)));
    assert!(edited.other("X-Fuzz").is_some());
    assert_eq!(edited.header(Name::Subject), None);
    assert_eq!(edited.is_request().then_some("sip:fuzz@192.0.2.1"), edited.uri());
    let routes = m.values(Name::Route).count();
    assert_eq!(edited.values(Name::Route).count(), routes.saturating_sub(2));
    let rest = |m: &Message<'_>| -> Vec<(String, String)> {
        let touched = [Name::Via, Name::MaxForwards, Name::Route, Name::Subject];
        m.fields()
            .filter(|(n, _)| Name::parse(n).is_none_or(|n| !touched.contains(&n)) && !n.eq_ignore_ascii_case("x-fuzz"))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect()
    };
    assert_eq!(rest(m), rest(&edited));
}

/// A stream: however it is cut, the same frames.
pub(crate) fn stream(input: &[u8]) {
    let limits = Limits { head: 4096, body: 4096 };
    let frames = |size: usize| {
        let mut framer = Framer::with_limits(limits);
        let mut frames: Vec<Result<Frame, FrameError>> = Vec::new();
        for piece in input.chunks(size) {
            framer.push(piece);
            loop {
                match framer.next() {
                    Ok(Some(frame)) => frames.push(Ok(frame)),
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(framer.buffered(), 0);
                        frames.push(Err(error));
                        return frames;
                    }
                }
            }
            assert!(framer.buffered() <= limits.head + limits.body + size);
        }
        frames
    };
    let whole = frames(input.len().max(1));
    for frame in whole.iter().flatten() {
        if let Frame::Message(bytes) = frame {
            Message::parse_stream(bytes).expect("a framed message");
        }
    }
    // The fault of a header that is too long shows at another byte when it comes in pieces; the frames before do not.
    let kept = |f: Vec<Result<Frame, FrameError>>| f.into_iter().map_while(Result::ok).collect::<Vec<_>>();
    assert_eq!(kept(whole), kept(frames(7)));
}

/// Text, if it is.
fn text(input: &[u8]) -> &str {
    std::str::from_utf8(input).unwrap_or_default()
}

/// A URI.
pub(crate) fn uri(input: &[u8]) {
    let Ok(uri) = Uri::parse(text(input)) else { return };
    assert!(uri.equivalent(&uri), "{uri}");
    for (name, _) in uri.params.iter() {
        let first = uri.params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
        assert_eq!(uri.params.get(name), first);
    }
    if uri.is_sip() {
        // The parts, printed, are the URI again.
        let user = uri.user.map(|u| format!("{u}{}@", uri.password.map(|p| format!(":{p}")).unwrap_or_default()));
        let port = uri.port.map(|p| format!(":{p}")).unwrap_or_default();
        let headers = uri.headers.map(|h| format!("?{h}")).unwrap_or_default();
        let printed = format!("sip:{}{}{port}{}{headers}", user.unwrap_or_default(), uri.host, uri.params.as_str());
        let again = Uri::parse(&printed).expect("printed");
        assert_eq!((again.user, again.password, again.port), (uri.user, uri.password, uri.port));
        assert!(again.host.same(&uri.host) && again.params == uri.params && again.headers == uri.headers);
        let user = uri.user_unescaped();
        if !user.contains('%') {
            let escaped = format!("sip:{}@a", escape_user(&user));
            assert!(user.is_empty() || Uri::parse(&escaped).expect("escaped").user_unescaped() == user);
        }
    }
}

/// From, To, Route and their kin, and Contact.
pub(crate) fn address(input: &[u8]) {
    let text = text(input);
    let _ = Contact::parse(text);
    if let Ok(address) = NameAddr::parse(text) {
        assert!(!address.uri.is_empty() && !address.uri.contains([' ', '<', '>', '"']));
        let _ = (address.uri_parsed(), address.tag());
        let name = address.display_unquoted();
        if !name.contains(['\r', '\n']) {
            assert_eq!(unquote(&quote(&name)), name);
        }
    }
    params(text);
}

fn params(text: &str) {
    if let Ok(params) = Params::parse(text) {
        for (name, value) in params.iter() {
            let first = params.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v);
            assert!(!name.is_empty() && params.get(name) == first);
            assert!(value.is_none_or(|v| !v.is_empty()));
        }
    }
}

/// Via.
pub(crate) fn via(input: &[u8]) {
    if let Ok(via) = Via::parse(text(input)) {
        assert!(!via.transport.is_empty() && !via.sent_by.is_empty());
        let _ = (via.branch(), via.received(), via.rport());
    }
}

/// CSeq.
pub(crate) fn cseq(input: &[u8]) {
    if let Ok(cseq) = CSeq::parse(text(input)) {
        let printed = format!("{} {}", cseq.number, cseq.method);
        assert_eq!(CSeq::parse(&printed), Ok(cseq));
    }
}

/// Challenges and credentials.
pub(crate) fn digest(input: &[u8]) {
    let value = text(input);
    // A fold or control character within quotes is read as it stands and printed as a blank.
    let plain = !value.contains(char::is_control);
    for challenge in challenges(value).flatten().filter(|c| plain && c.qop_offered != c.qop.is_empty()) {
        let printed = challenge.to_string();
        assert_eq!(Challenge::parse(&printed), Ok(challenge), "{printed}");
    }
    if let Some(challenge) = choose([value].into_iter()).filter(|_| plain) {
        // What a client of ours answers, a server of ours takes.
        let answer = answer(&challenge, "a\"b", Secret::Password("secret"), "REGISTER", "sip:pbx", "c", 7);
        let credentials = Credentials::parse(&answer).expect("our own answer");
        let hash = ha1(challenge.algorithm.base(), "a\"b", &challenge.realm, "secret");
        assert!(verify(&credentials, "REGISTER", b"", &hash), "{answer}");
    }
    if let Ok(credentials) = Credentials::parse(value) {
        assert!(credentials.qop.is_none() || credentials.cnonce.is_some() && credentials.nonce_count().is_some());
        let hash = ha1(credentials.algorithm.base(), &credentials.username, &credentials.realm, "secret");
        assert!(!verify(&credentials, "REGISTER", b"", &hash), "nobody guessed that");
    }
}
