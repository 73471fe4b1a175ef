//! RFC 3261 18.3 and 7.5, RFC 5626 3.5.1: messages and keep-alives on a stream, within bounds.

use sip::framer::{Frame, Framer, Limits};
use sip::{Message, Name, ParseError};

use crate::common::{crlf, load};

fn message(call_id: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "OPTIONS sip:a@example.com SIP/2.0\nVia: SIP/2.0/TCP a;branch=z9hG4bK1\nf: <sip:a@a>;tag=1\nt: <sip:b@b>\ni: {call_id}\nCSeq: 1 OPTIONS\nl: {}\n\n",
        body.len()
    );
    let mut bytes = crlf(&head);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// Every frame that bytes give when they come in pieces of `size`.
fn frames(bytes: &[u8], size: usize) -> Vec<Frame> {
    let mut framer = Framer::new();
    let mut seen = Vec::new();
    for piece in bytes.chunks(size) {
        framer.push(piece);
        while let Some(frame) = framer.next().unwrap() {
            seen.push(frame);
        }
    }
    assert_eq!(framer.buffered(), 0);
    seen
}

#[test]
fn any_cut_gives_the_same_messages() {
    let (a, b) = (message("1", ""), message("2", "body\r\n\r\nwith an empty line"));
    let stream = [&a[..], b"\r\n\r\n", &b, b"\r\n\r\n", &a, &b].concat();
    let expected = [
        Frame::Message(a.clone().into()),
        Frame::Ping,
        Frame::Message(b.clone().into()),
        Frame::Ping,
        Frame::Message(a.into()),
        Frame::Message(b.into()),
    ];
    for size in 1..stream.len() {
        assert_eq!(frames(&stream, size), expected, "pieces of {size}");
    }
}

#[test]
fn the_torture_messages_come_through() {
    for name in ["wsinv", "longreq", "mpart01", "esc01"] {
        let bytes = load(&format!("rfc4475/{name}"));
        for size in [1, 7, 4096] {
            let seen = frames(&bytes, size);
            assert_eq!(seen, [Frame::Message(bytes.clone().into())], "{name}");
            assert!(Message::parse_stream(&bytes).is_ok());
        }
    }
}

#[test]
fn a_line_end_before_the_start_line_is_ignored() {
    let a = message("1", "");
    let stream = [b"\r\n", &a[..]].concat();
    assert_eq!(frames(&stream, 1), [Frame::Message(a.into())]);
}

#[test]
fn pong_only_after_our_ping() {
    let mut framer = Framer::new();
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(None), "it may become a ping yet");
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(Some(Frame::Ping)));
    framer.pinged();
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(Some(Frame::Pong)));
    assert_eq!(framer.next(), Ok(None));
}

#[test]
fn bounds() {
    let limits = Limits { head: 300, body: 10 };
    let mut framer = Framer::with_limits(limits);
    framer.push(&message("1", "0123456789"));
    assert!(matches!(framer.next(), Ok(Some(Frame::Message(_)))));
    framer.push(&message("1", "0123456789a"));
    assert_eq!(framer.next().unwrap_err().error, ParseError::Length);
    let mut framer = Framer::with_limits(limits);
    framer.push(&[b'a'; 301]);
    let error = framer.next().unwrap_err();
    assert_eq!(error.error, ParseError::HeadTooLarge);
    // Broken for good, and it holds nothing.
    framer.push(&message("1", ""));
    assert_eq!(framer.next(), Err(error));
    assert_eq!(framer.buffered(), 0);
}

#[test]
fn without_a_length_a_stream_cannot_go_on() {
    let mut framer = Framer::new();
    framer.push(&crlf("OPTIONS sip:a SIP/2.0\nVia: SIP/2.0/TCP a\n\n"));
    let error = framer.next().unwrap_err();
    assert_eq!(error.error, ParseError::Missing(Name::ContentLength));
    assert!(error.head.is_some());
}

/// A header that comes byte by byte is searched once, not once a byte: 60,000 bytes take no 60,000 searches of them.
#[test]
fn slow_header_is_not_searched_again() {
    let pad = "X-Pad: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".repeat(250);
    let text = format!("OPTIONS sip:a SIP/2.0\r\n{}{pad}l: 0\r\n\r\n", "Via: SIP/2.0/TCP a\r\n");
    let mut framer = Framer::new();
    let mut cost = 0u64;
    for byte in text.as_bytes() {
        framer.push(std::slice::from_ref(byte));
        cost += u64::from(framer.unscanned() as u32);
        if framer.next().unwrap().is_some() {
            assert!(cost < 10 * text.len() as u64, "{cost} bytes looked at for {}", text.len());
            return;
        }
    }
    panic!("no message");
}
