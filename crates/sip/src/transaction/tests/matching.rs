//! RFC 3261 17.1.3 and 17.2.3: which message belongs to which transaction.

use super::*;

/// A request text with holes filled, so that each part of a key can differ.
fn legacy(method: &str, change: &[(&str, &str)]) -> Bytes {
    let mut text = format!(
        "{method} sip:bob@b.example SIP/2.0\r\nVia: SIP/2.0/UDP a.example;branch=1\r\nFrom: <sip:a@a.example>;tag=a1\r\n\
         To: <sip:bob@b.example>\r\nCall-ID: c1\r\nCSeq: 7 {method}\r\nMax-Forwards: 70\r\nContact: <sip:a@a>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    for (from, to) in change {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    Bytes::from(text)
}

#[test]
fn s17_2_3_branch_sent_by_and_method_decide() {
    let base = "SIP/2.0/UDP A.example;branch=z9hG4bKx";
    // (Via, method, is it a retransmission of an OPTIONS with `base`)
    let cases = [
        (base, "OPTIONS", true),
        ("SIP/2.0/UDP a.EXAMPLE;rport;branch=z9hG4bKx", "OPTIONS", true),
        ("SIP/2.0/UDP a.example:5061;branch=z9hG4bKx", "OPTIONS", false),
        ("SIP/2.0/UDP other.example;branch=z9hG4bKx", "OPTIONS", false),
        ("SIP/2.0/UDP a.example;branch=z9hG4bKy", "OPTIONS", false),
        (base, "INFO", false),
    ];
    for (via, method, same) in cases {
        let mut layer = layer();
        let first = legacy("OPTIONS", &[("SIP/2.0/UDP a.example;branch=1", base)]);
        server_id(receive(&mut layer, &first, false, ms(0)));
        let second = legacy(method, &[("SIP/2.0/UDP a.example;branch=1", via), ("Call-ID: c1", "Call-ID: ignored")]);
        let got = receive(&mut layer, &second, false, ms(1));
        assert_eq!(got == Received::Absorbed, same, "{via} {method}: {got:?}");
        assert_eq!(layer.len(), if same { 1 } else { 2 });
    }
}

#[test]
fn s17_2_3_rfc2543_requests_match_by_their_fields() {
    let cases: [(&[(&str, &str)], bool); 8] = [
        (&[], true),
        (&[("Max-Forwards: 70", "Max-Forwards: 69")], true),
        (&[("INVITE sip:bob@b.example", "INVITE sip:carol@b.example")], false),
        (&[("tag=a1", "tag=a2")], false),
        (&[("To: <sip:bob@b.example>", "To: <sip:bob@b.example>;tag=t")], false),
        (&[("Call-ID: c1", "Call-ID: c2")], false),
        (&[("CSeq: 7", "CSeq: 8")], false),
        (&[("branch=1", "branch=2")], false),
    ];
    for (change, same) in cases {
        let mut layer = layer();
        server_id(receive(&mut layer, &legacy("INVITE", &[]), false, ms(0)));
        let got = receive(&mut layer, &legacy("INVITE", change), false, ms(1));
        assert_eq!(got == Received::Absorbed, same, "{change:?}: {got:?}");
    }
}

#[test]
fn s17_2_3_rfc2543_ack_matches_by_the_to_tag_of_our_answer() {
    let invite = legacy("INVITE", &[]);
    let ack = |tag: &str| legacy("ACK", &[("To: <sip:bob@b.example>", &format!("To: <sip:bob@b.example>;tag={tag}"))]);
    let mut layer = layer();
    let id = server_id(receive(&mut layer, &invite, false, ms(0)));
    assert!(layer.respond(id, answer_tagged(&invite, 486, "b7"), ms(1)));
    assert_eq!(receive(&mut layer, &ack("other"), false, ms(2)), Received::Ack2xx);
    assert_eq!(receive(&mut layer, &ack("b7"), false, ms(2)), Received::AckAbsorbed);
    assert_eq!(run(&mut layer, ms(2), ms(60_000)), ["2:486", "5002:done"]);
    assert_empty(&layer);

    // The ACK of a 2xx belongs to the dialog.
    let id = server_id(receive(&mut layer, &invite, false, ms(60_000)));
    layer.respond(id, answer_tagged(&invite, 200, "b8"), ms(60_001));
    assert_eq!(receive(&mut layer, &ack("b8"), false, ms(60_002)), Received::Ack2xx);
}

#[test]
fn s9_2_cancel_finds_its_invite_also_of_rfc2543_peers() {
    for change in [&[][..], &[("branch=1", "branch=z9hG4bK77")][..]] {
        let mut layer = layer();
        let invite = server_id(receive(&mut layer, &legacy("INVITE", change), false, ms(0)));
        let cancel = legacy("CANCEL", change);
        match receive(&mut layer, &cancel, false, ms(1)) {
            Received::Cancel { cancel: id, invite: found } => {
                assert_eq!(found, Some(invite));
                layer.respond(id, answer(&cancel, 200), ms(2));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(receive(&mut layer, &cancel, false, ms(3)), Received::Absorbed);
        assert_eq!(drain(&mut layer, ms(3)), ["200", "200"]);
    }
    let mut layer = layer();
    let got = receive(&mut layer, &legacy("CANCEL", &[]), false, ms(0));
    assert!(matches!(got, Received::Cancel { invite: None, .. }), "{got:?}");
}

#[test]
fn s17_1_3_responses_match_by_branch_and_cseq_method() {
    let cases = [
        ("branch=z9hG4bKx", "CSeq: 1 OPTIONS", true),
        ("branch=z9hG4bKy", "CSeq: 1 OPTIONS", false),
        ("branch=z9hG4bKx", "CSeq: 1 INVITE", false),
    ];
    for (branch, cseq, matches) in cases {
        let mut layer = layer();
        let id = layer.send(request("OPTIONS", "z9hG4bKx"), "peer", false, ms(0)).unwrap();
        let text = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a.example;{branch}\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>;tag=2\r\n\
             Call-ID: call-1\r\n{cseq}\r\nContent-Length: 0\r\n\r\n"
        );
        let got = receive(&mut layer, &Bytes::from(text), false, ms(1));
        assert_eq!(got, if matches { Received::Response(id) } else { Received::StrayResponse });
    }
}

#[test]
fn what_cannot_be_matched_is_invalid() {
    for change in [
        ("CSeq: 7 OPTIONS", "CSeq: 7 INVITE"),
        ("CSeq: 7 OPTIONS", "CSeq: x OPTIONS"),
        ("Via: SIP/2.0/UDP a.example;branch=1\r\n", ""),
        ("Call-ID: c1\r\n", ""),
        ("From: <sip:a@a.example>;tag=a1\r\n", ""),
    ] {
        let mut layer = layer();
        let bytes = legacy("OPTIONS", &[change]);
        assert_eq!(receive(&mut layer, &bytes, false, ms(0)), Received::Invalid, "{change:?}");
        assert_empty(&layer);
    }
    let mut layer = layer();
    let response = Bytes::from_static(b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(receive(&mut layer, &response, false, ms(0)), Received::Invalid);
}

#[test]
fn ids_of_ended_transactions_find_nothing() {
    let mut layer = layer();
    let old = server_id(receive(&mut layer, &request("BYE", "z9hG4bK1"), true, ms(0)));
    assert!(layer.respond(old, answer(&request("BYE", "z9hG4bK1"), 200), ms(0)));
    let new = server_id(receive(&mut layer, &request("BYE", "z9hG4bK2"), true, ms(0)));
    assert_ne!(old, new);
    assert!(layer.server_request(old).is_none() && layer.server_hop(old).is_none());
    assert!(!layer.respond(old, answer(&request("BYE", "z9hG4bK1"), 200), ms(0)));
    assert_eq!(layer.server_request(new), Some(&request("BYE", "z9hG4bK2")));
}
