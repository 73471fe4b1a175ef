//! Messages as the protocol's documentation writes them, and properties.

use super::bencode::{Error, MAX_BYTES, MAX_DEPTH, MAX_VALUES, Value};
use super::*;
use proptest::prelude::*;

#[test]
fn ping_as_documented() {
    let request = Request::parse(b"5323_1 d7:command4:pinge").unwrap();
    assert_eq!(request, Request { cookie: b"5323_1".to_vec(), command: Command::Ping });
    assert_eq!(Reply::Pong.to_vec(&request.cookie), b"5323_1 d6:result4:ponge");
    assert_eq!(request.to_vec(), b"5323_1 d7:command4:pinge");
}

#[test]
fn offer_as_documented() {
    let text = b"1 d7:command5:offer7:call-id15:cfBXzDSZqhYNcXM8:from-tag10:mS9rSAn0Cr3:sdp5:v=0\r\n10:via-branch13:5KiTRPZHH1nL6\
        5:flagsl13:trust addresse7:replacel6:origin18:session connectione14:address family3:IP613:received-froml3:IP411:10.65.31.43e\
        3:ICE5:force18:transport protocol9:RTP/SAVPF13:media address17:2001:d8::6f24:65b4:DTLS7:passivee";
    let request = Request::parse(text).unwrap();
    let Command::Offer(offer) = request.command else { panic!("{request:?}") };
    assert_eq!(offer.call_id, "cfBXzDSZqhYNcXM");
    assert_eq!(offer.from_tag, "mS9rSAn0Cr");
    assert_eq!(offer.to_tag, None);
    assert_eq!(offer.via_branch.as_deref(), Some("5KiTRPZHH1nL6"));
    assert_eq!(offer.sdp, b"v=0\r\n");
    assert_eq!(offer.received_from, Some("10.65.31.43".parse().unwrap()));
    assert_eq!(offer.media_address, Some("2001:d8::6f24:65b".parse().unwrap()));
    assert!(offer.replace_origin && !offer.outside && !offer.flags.sip_source_address);
}

#[test]
fn errors_name_their_reason_and_keep_the_cookie() {
    type Row<'a> = (&'a [u8], Option<&'a [u8]>, &'a str);
    let table: &[Row<'_>] = &[
        (b"", None, "no cookie"),
        (b" d7:command4:pinge", None, "no cookie"),
        (b"nospace", None, "no cookie"),
        (b"1 x", Some(b"1"), "malformed bencode at byte 0"),
        (b"1 de", Some(b"1"), "No \"command\" in message"),
        (b"1 d7:command9:dance", Some(b"1"), "malformed bencode at byte 10"),
        (b"1 d7:command5:dancee", Some(b"1"), "Unrecognized command"),
        (b"1 d7:command5:offere", Some(b"1"), "No sdp body in message"),
        (b"1 d7:command5:offer3:sdp0:e", Some(b"1"), "No call-id in message"),
        (b"1 d7:command5:query7:call-id0:e", Some(b"1"), "No call-id in message"),
        (b"1 d7:command6:answer3:sdp0:7:call-id1:a8:from-tag1:be", Some(b"1"), "No to-tag in message"),
        (b"1 d7:command6:delete7:call-idi1ee", Some(b"1"), "call-id is not a string"),
        (b"1 d7:command4:list5:limiti0ee", Some(b"1"), "limit must be above 0"),
    ];
    for (bytes, cookie, reason) in table {
        let error = Request::parse(bytes).unwrap_err();
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!((error.cookie.as_deref(), error.reason.as_str()), (*cookie, *reason), "{shown}");
    }
    let long = format!("1 d7:command5:query7:call-id600:{}e", "x".repeat(600));
    assert_eq!(Request::parse(long.as_bytes()).unwrap_err().reason, "call-id is longer than 512 bytes");
}

#[test]
fn commands_survive_the_wire() {
    let mut offer = Description::new("call", "a", Some("b"), b"v=0\r\n\xff".to_vec());
    offer.via_branch = Some("z9hG4bK1".to_owned());
    offer.received_from = Some("2001:db8::1".parse().unwrap());
    offer.media_address = Some("192.0.2.1".parse().unwrap());
    offer.flags.asymmetric = true;
    offer.flags.no_rtcp_attribute = true;
    offer.rtcp_mux = vec![RtcpMux::Demux, RtcpMux::Offer];
    offer.sent_to = Some("127.0.0.1".parse().unwrap());
    offer.advertise = Some("::1".parse().unwrap());
    offer.owner = Some("router-1".to_owned());
    offer.outside = true;
    let delete =
        Delete { call_id: "c".into(), from_tag: Some("a".into()), fatal: true, leg: true, ..Delete::default() };
    let query = Query { call_id: "c".into(), to_tag: Some("b".into()), from_tag: None, owner: Some("r".into()) };
    for command in [
        Command::Ping,
        Command::Offer(offer.clone()),
        Command::Answer(offer),
        Command::Delete(delete),
        Command::Query(query),
        Command::List { limit: 7 },
    ] {
        let request = Request { cookie: b"c00kie".to_vec(), command };
        assert_eq!(Request::parse(&request.to_vec()), Ok(request));
    }
}

#[test]
fn replies_survive_the_wire() {
    let stream = |index, rtcp, port| StreamReport {
        index,
        kind: "audio".into(),
        protocol: "RTP/AVP".into(),
        rtcp,
        muxed: index == 1,
        local_port: port,
        endpoint: Some("192.0.2.1:4000".parse().unwrap()),
        advertised: (!rtcp).then(|| "[2001:db8::1]:4000".parse().unwrap()),
        latched: rtcp,
        last_packet: 1_402_064_124,
        received: Totals { packets: 343, bytes: 56950, errors: 1 },
    };
    let mut report = Report { created: 1_402_064_111, last_signal: 1_402_064_116, ..Report::default() };
    report.rtp = Totals { packets: 705, bytes: 100_287, errors: 0 };
    let streams = vec![stream(0, false, 30018), stream(0, true, 30019), stream(1, false, 30020)];
    let tag = TagReport { created: 1, in_dialogue_with: Some("0f0d2e18".into()), streams };
    report.tags.insert("cs6kn1rloc".into(), tag);
    report.tags.insert(String::new(), TagReport::default());
    for reply in [
        Reply::Pong,
        Reply::Sdp(b"v=0".to_vec()),
        Reply::Error("no".into()),
        Reply::Calls(vec!["a".into(), "b".into()]),
        Reply::Report { report: None, warning: Some("unknown call".into()) },
        Reply::Report { report: Some(Box::new(report)), warning: None },
    ] {
        assert_eq!(Reply::parse(&reply.to_vec(b"x")), Some((b"x".to_vec(), reply)));
    }
    assert_eq!(Reply::parse(b"1 d6:result4:haha e"), None);
}

#[test]
fn bencode_is_bounded() {
    let deep = |n: usize| [vec![b'l'; n], vec![b'e'; n]].concat();
    assert!(Value::parse(&deep(MAX_DEPTH + 1)).is_ok());
    assert_eq!(Value::parse(&deep(MAX_DEPTH + 2)), Err(Error::TooLarge));
    let wide = |n: usize| [b"l".to_vec(), b"0:".repeat(n), b"e".to_vec()].concat();
    assert!(Value::parse(&wide(MAX_VALUES - 1)).is_ok());
    assert_eq!(Value::parse(&wide(MAX_VALUES)), Err(Error::TooLarge));
    assert_eq!(Value::parse(&vec![b'0'; MAX_BYTES + 1]), Err(Error::TooLarge));
    for bad in [
        "i1",
        "ie",
        "i+1e",
        "i1x",
        "-1:a",
        "5:abc",
        "99999999999999999999:a",
        "d1:ae",
        "di1e1:ae",
        "l",
        "1:a1:b",
        "i99999999999999999999e",
    ] {
        assert!(matches!(Value::parse(bad.as_bytes()), Err(Error::Malformed(_))), "{bad}");
    }
    assert_eq!(Value::parse(b"d1:bi-2e1:ai1ee\n").unwrap().to_vec(), b"d1:ai1e1:bi-2ee");
}

fn value() -> impl Strategy<Value = Value<'static>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..20).prop_map(std::borrow::Cow::Owned);
    let leaf = prop_oneof![any::<i64>().prop_map(Value::Int), bytes().prop_map(Value::Bytes)];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        let dict = proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 0..6), inner.clone(), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..6).prop_map(Value::List),
            dict.prop_map(|d| Value::Dict(d.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn bencode_parse_after_print_is_the_identity(value in value()) {
        let bytes = value.to_vec();
        prop_assert_eq!(Value::parse(&bytes), Ok(value));
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[0-9idle:a-c -]{0,60}") {
        let _ = (Request::parse(&bytes), Reply::parse(&bytes));
        let text = format!("1 d7:command5:offer{text}");
        let _ = (Request::parse(text.as_bytes()), Reply::parse(text.as_bytes()));
    }
}
