//! RFC 3261 16, filed by section.

use super::*;
use crate::build;
use crate::edit::Edit;
use crate::header::Via;
use crate::message::{Message, Name};
use crate::uri::Uri;
use bytes::Bytes;

/// A request with what a test puts into it.
fn request(uri: &str, fields: &[(Name, &str)]) -> Bytes {
    let mut request = build::request("INVITE", uri).header(Name::Via, "SIP/2.0/UDP a.example;branch=z9hG4bKa");
    for (name, value) in fields {
        request = request.header(*name, value);
    }
    request
        .header(Name::From, "<sip:alice@a.example>;tag=a1")
        .header(Name::To, "<sip:bob@b.example>")
        .header(Name::CallId, "c1")
        .header(Name::CSeq, "5 INVITE")
        .finish()
}

fn not_ours(_: &Via<'_>) -> bool {
    false
}

#[test]
fn s16_3_validation() {
    let policy = Policy { supported: &["path", "gruu"], tel: false };
    let hops = |v| (Name::MaxForwards, v);
    type Case = (&'static str, Vec<(Name, &'static str)>, Option<u16>);
    let cases: Vec<Case> = vec![
        ("sip:b@b", vec![], None),
        ("sips:b@b", vec![hops("70")], None),
        ("sip:b@b", vec![hops("1")], None),
        ("sip:b@b", vec![hops("0")], Some(483)),
        ("sip:b@b", vec![hops("-1")], Some(400)),
        ("sip:b@b", vec![hops("999")], Some(400)),
        ("tel:+4930", vec![], Some(416)),
        ("nobody:x", vec![], Some(416)),
        ("soap.beep://192.0.2.103:3002", vec![], Some(416)),
        ("sip:", vec![], Some(400)),
        ("sip:b@b", vec![(Name::ProxyRequire, "PATH, gruu")], None),
        ("sip:b@b", vec![(Name::ProxyRequire, "path, nothing"), (Name::ProxyRequire, "more")], Some(420)),
        // Max-Forwards is judged before extensions, the scheme before both.
        ("sip:b@b", vec![hops("0"), (Name::ProxyRequire, "nothing")], Some(483)),
        ("nobody:x", vec![hops("0")], Some(416)),
    ];
    for (uri, fields, status) in cases {
        let bytes = request(uri, &fields);
        let msg = Message::parse(&bytes).unwrap();
        let refusal = validate(&msg, &policy, not_ours).err();
        assert_eq!(refusal.as_ref().map(Refusal::status), status, "{uri} {fields:?}");
        let Some(refusal) = refusal else { continue };
        let answer = refusal.response(&msg, "t").unwrap();
        let answer = Message::parse(&answer).unwrap();
        assert_eq!((answer.status(), answer.to().unwrap().tag()), (status, Some("t")));
        if status == Some(420) {
            assert_eq!(answer.header(Name::Unsupported), Some("nothing, more"));
        }
    }
    let bytes = request("tel:+4930", &[]);
    assert_eq!(validate(&Message::parse(&bytes).unwrap(), &Policy::default(), not_ours), Ok(()));
}

#[test]
fn s16_3_an_ack_is_never_refused_by_an_answer() {
    let bytes = request("sip:b@b", &[(Name::ProxyRequire, "nothing")]);
    let text = String::from_utf8(bytes.to_vec()).unwrap().replace("INVITE", "ACK");
    let ack = Message::parse(text.as_bytes()).unwrap();
    assert_eq!(validate(&ack, &Policy::default(), not_ours), Ok(()));
    assert_eq!(Refusal::TooManyHops.response(&ack, "t"), None);
}

#[test]
fn s16_3_loop_and_spiral() {
    let first = request("sip:b@b", &[]);
    let hash = loop_hash(&Message::parse(&first).unwrap());
    let ours = format!("SIP/2.0/UDP p.example;branch={}", with_loop_hash("unique7", hash));
    let other = format!("SIP/2.0/UDP q.example;branch={}", with_loop_hash("unique7", hash));
    let is_ours = |v: &Via<'_>| v.sent_by == "p.example";
    let kind = |bytes: &Bytes| {
        let msg = Message::parse(bytes).unwrap();
        detect_loop(&msg, loop_hash(&msg), is_ours)
    };
    assert_eq!(kind(&first), LoopKind::None);
    assert_eq!(kind(&request("sip:b@b", &[(Name::Via, &other)])), LoopKind::None);
    let looped = request("sip:b@b", &[(Name::Via, &other), (Name::Via, &ours), (Name::MaxForwards, "5")]);
    assert_eq!(kind(&looped), LoopKind::Loop);
    assert_eq!(
        validate(&Message::parse(&looped).unwrap(), &Policy::default(), is_ours),
        Err(Refusal::Loop),
        "{looped:?}"
    );
    // It comes back as something else: a spiral.
    for spiral in [
        request("sip:carol@b", &[(Name::Via, &ours)]),
        request("sip:b@b", &[(Name::Via, &ours), (Name::Route, "<sip:x;lr>")]),
        request("sip:b@b", &[(Name::Via, &ours), (Name::ProxyAuthorization, "Digest x=1")]),
    ] {
        assert_eq!(kind(&spiral), LoopKind::Spiral);
        assert_eq!(validate(&Message::parse(&spiral).unwrap(), &Policy::default(), is_ours), Ok(()));
    }
}

#[test]
fn loop_hash_tells_lists_apart() {
    let hash = |fields: &[(Name, &str)]| loop_hash(&Message::parse(&request("sip:b@b", fields)).unwrap());
    let route = hash(&[(Name::Route, "x")]);
    assert_ne!(route, hash(&[(Name::ProxyRequire, "x")]));
    assert_ne!(route, hash(&[]));
    assert_eq!(hash(&[]), hash(&[(Name::MaxForwards, "7"), (Name::Subject, "any")]));
    // The value itself must not change between releases: it stands in branches of others' processes.
    assert_eq!(stable_hash(["abc"]), {
        let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100000001b3);
        b"abc\0".iter().fold(0xcbf29ce484222325, |h, b| step(h, *b))
    });
}

#[test]
fn s16_4_preprocessing_and_16_6_forwarding() {
    struct Case {
        name: &'static str,
        uri: &'static str,
        routes: &'static [&'static str],
        strict_peer: bool,
        own: Option<&'static str>,
        second: Option<&'static str>,
        out_uri: &'static str,
        out_routes: &'static [&'static str],
        hop: &'static str,
    }
    let cases = [
        Case {
            name: "no route",
            uri: "sip:b@b",
            routes: &[],
            strict_peer: false,
            own: None,
            second: None,
            out_uri: "sip:b@b",
            out_routes: &[],
            hop: "sip:b@b",
        },
        Case {
            name: "loose: our value is popped",
            uri: "sip:b@b",
            routes: &["<sip:t1@us;lr>", "<sip:next;lr>"],
            strict_peer: false,
            own: Some("sip:t1@us;lr"),
            second: None,
            out_uri: "sip:b@b",
            out_routes: &["<sip:next;lr>"],
            hop: "sip:next;lr",
        },
        Case {
            name: "two values of ours, in one field",
            uri: "sip:b@b",
            routes: &["<sip:t1@us;lr>, <sip:t2@us;lr>"],
            strict_peer: false,
            own: Some("sip:t1@us;lr"),
            second: Some("sip:t2@us;lr"),
            out_uri: "sip:b@b",
            out_routes: &[],
            hop: "sip:b@b",
        },
        Case {
            name: "another's value comes first: nothing is popped",
            uri: "sip:b@b",
            routes: &["<sip:next;lr>", "<sip:t1@us;lr>"],
            strict_peer: false,
            own: None,
            second: None,
            out_uri: "sip:b@b",
            out_routes: &["<sip:next;lr>", "<sip:t1@us;lr>"],
            hop: "sip:next;lr",
        },
        Case {
            name: "a strict router before us",
            uri: "sip:t1@us;lr",
            routes: &["<sip:next;lr>", "<sip:b@b;x=1>"],
            strict_peer: true,
            own: Some("sip:t1@us;lr"),
            second: None,
            out_uri: "sip:b@b;x=1",
            out_routes: &["<sip:next;lr>"],
            hop: "sip:next;lr",
        },
        Case {
            name: "a strict router before us, we are last",
            uri: "sip:t1@us;lr",
            routes: &["<sip:b@b>"],
            strict_peer: true,
            own: Some("sip:t1@us;lr"),
            second: None,
            out_uri: "sip:b@b",
            out_routes: &[],
            hop: "sip:b@b",
        },
        Case {
            name: "a strict router before us, and a second value of ours",
            uri: "sip:t1@us;lr",
            routes: &["<sip:t2@us;lr>", "<sip:b@b>"],
            strict_peer: true,
            own: Some("sip:t1@us;lr"),
            second: Some("sip:t2@us;lr"),
            out_uri: "sip:b@b",
            out_routes: &[],
            hop: "sip:b@b",
        },
        Case {
            name: "for ourselves, no strict router: a plain address with a preloaded route",
            uri: "sip:s@us",
            routes: &["<sip:us;lr>"],
            strict_peer: false,
            own: Some("sip:us;lr"),
            second: None,
            out_uri: "sip:s@us",
            out_routes: &[],
            hop: "sip:s@us",
        },
        Case {
            name: "a strict router after us",
            uri: "sip:b@b",
            routes: &["<sip:t1@us;lr>", "<sip:strict>", "<sip:after;lr>"],
            strict_peer: false,
            own: Some("sip:t1@us;lr"),
            second: None,
            out_uri: "sip:strict",
            out_routes: &["<sip:after;lr>", "<sip:b@b>"],
            hop: "sip:strict",
        },
        Case {
            name: "strict routers on both sides",
            uri: "sip:t1@us;lr",
            routes: &["<sip:strict>", "<sip:b@b>"],
            strict_peer: true,
            own: Some("sip:t1@us;lr"),
            second: None,
            out_uri: "sip:strict",
            out_routes: &["<sip:b@b>"],
            hop: "sip:strict",
        },
    ];
    for case in cases {
        let fields: Vec<_> = case.routes.iter().map(|r| (Name::Route, *r)).collect();
        let bytes = request(case.uri, &fields);
        let msg = Message::parse(&bytes).unwrap();
        let info = preprocess(&msg, |u: &Uri<'_>| u.host.to_string() == "us").unwrap();
        assert_eq!(info.strict_peer, case.strict_peer, "{}", case.name);
        assert_eq!((info.own, info.own_second), (case.own, case.second), "{}", case.name);
        let out = forward(&msg, &info, info.uri);
        assert_eq!(out.next_hop, case.hop, "{}", case.name);
        let mut edit = Edit::new(&msg);
        out.apply(&msg, &mut edit);
        let sent = edit.finish();
        let sent = Message::parse(&sent).unwrap();
        assert_eq!(sent.uri(), Some(case.out_uri), "{}", case.name);
        assert_eq!(sent.values(Name::Route).collect::<Vec<_>>(), case.out_routes, "{}", case.name);
    }
}

#[test]
fn s16_6_record_route_value() {
    assert_eq!(record_route("192.0.2.1:5060", "UDP", None), "<sip:192.0.2.1:5060;lr>");
    assert_eq!(record_route("[2001:db8::1]", "TCP", Some("tok")), "<sip:tok@[2001:db8::1];transport=tcp;lr>");
    let value = record_route("us:5060", "WS", Some("t-1_2"));
    let parsed = crate::header::NameAddr::parse(&value).unwrap();
    assert!(parsed.uri_parsed().unwrap().param("lr").is_some(), "lr is the URI's");
}

/// Answers of branches in order of their arrival; `true` where INVITE.
fn context(answers: &[(usize, u16)], branches: usize, invite: bool) -> (ResponseContext, Vec<Action>) {
    let mut context = ResponseContext::new();
    for _ in 0..branches {
        context.add_branch();
    }
    let actions = answers.iter().map(|(b, s)| context.receive(*b, *s, &response(*s, *b), invite)).collect();
    (context, actions)
}

fn response(status: u16, branch: usize) -> Bytes {
    let bytes = request("sip:b@b", &[]);
    let msg = Message::parse(&bytes).unwrap();
    let below = build::response(&msg, status, None, Some(&format!("b{branch}")))
        .header_opt(Name::WwwAuthenticate, (status == 401).then(|| format!("Digest realm=\"r{branch}\", nonce=\"n\"")))
        .header_opt(
            Name::ProxyAuthenticate,
            (status == 407).then(|| format!("Digest realm=\"r{branch}\", nonce=\"n\"")),
        )
        .finish();
    let text = String::from_utf8(below.to_vec()).unwrap();
    Bytes::from(text.replacen("Via: ", "Via: SIP/2.0/UDP us;branch=z9hG4bKus\r\nVia: ", 1))
}

#[test]
fn s16_7_what_goes_on_at_once() {
    use Action::{Cancel, Forward, ForwardAndCancel, Wait};
    let (_, actions) =
        context(&[(0, 100), (0, 180), (1, 183), (0, 486), (0, 180), (1, 200), (2, 200), (2, 200)], 3, true);
    assert_eq!(actions, [Wait, Forward, Forward, Wait, Wait, ForwardAndCancel, Forward, Forward]);
    let (_, actions) = context(&[(0, 200), (1, 200)], 2, false);
    assert_eq!(actions, [ForwardAndCancel, Wait], "one answer only, but to INVITE");
    let (context, actions) = context(&[(0, 603), (1, 180), (9, 200)], 2, true);
    assert_eq!(actions, [Cancel, Forward, Wait]);
    assert!(context.is_refused() && context.open().eq([1]));
}

#[test]
fn s16_7_best_answer() {
    // (answers, 0 = silent: 408) -> (branch, status)
    type Chosen = Option<(Option<usize>, u16)>;
    let cases: [(&[u16], Chosen); 14] = [
        (&[486], Some((Some(0), 486))),
        (&[404, 486], Some((Some(0), 404))),
        (&[486, 603], Some((Some(1), 603))),
        (&[503, 486], Some((Some(1), 486))),
        (&[500, 302], Some((Some(1), 302))),
        (&[486, 302], Some((Some(1), 302))),
        (&[404, 407], Some((Some(1), 407))),
        (&[404, 484], Some((Some(1), 484))),
        (&[484, 401], Some((Some(1), 401))),
        (&[503], Some((Some(0), 500))),
        (&[503, 502], Some((Some(1), 502))),
        (&[0, 486], Some((Some(1), 486))),
        (&[0, 0], Some((None, 408))),
        (&[], None),
    ];
    for (answers, expected) in cases {
        let mut context = ResponseContext::new();
        for status in answers {
            let branch = context.add_branch();
            assert_eq!(context.best(), None, "a branch is open");
            match *status {
                0 => context.failed(branch, 408),
                s => _ = context.receive(branch, s, &response(s, branch), true),
            }
        }
        assert_eq!(context.best().map(|b| (b.branch, b.status)), expected, "{answers:?}");
    }
    let (context, _) = context(&[(0, 486), (1, 200)], 2, true);
    assert_eq!((context.best(), context.is_answered()), (None, true), "the 2xx went on");
}

#[test]
fn s16_7_challenges_are_gathered_and_our_via_is_popped() {
    let (context, _) = context(&[(0, 407), (1, 401), (2, 407), (3, 404)], 4, true);
    let request = request("sip:b@b", &[]);
    let request = Message::parse(&request).unwrap();
    let bytes = context.best().unwrap().response(&request, "ignored");
    let msg = Message::parse(&bytes).unwrap();
    assert_eq!((msg.status(), msg.to().unwrap().tag()), (Some(407), Some("b0")));
    assert!(!has_next_via(&msg) && has_next_via(&Message::parse(&response(200, 0)).unwrap()));
    assert_eq!(msg.via().unwrap().branch(), Some("z9hG4bKa"));
    let proxy: Vec<_> = msg.headers(Name::ProxyAuthenticate).collect();
    assert_eq!(proxy, ["Digest realm=\"r0\", nonce=\"n\"", "Digest realm=\"r2\", nonce=\"n\""]);
    let www: Vec<_> = msg.headers(Name::WwwAuthenticate).collect();
    assert_eq!(www, ["Digest realm=\"r1\", nonce=\"n\""]);
}

#[test]
fn s16_7_503_becomes_500_unless_kept() {
    let request = request("sip:b@b", &[]);
    let request = Message::parse(&request).unwrap();
    let (mut context, _) = context(&[(0, 503)], 1, true);
    let bytes = context.best().unwrap().response(&request, "us");
    let msg = Message::parse(&bytes).unwrap();
    assert_eq!(
        (msg.status(), msg.to().unwrap().tag(), msg.via().unwrap().branch()),
        (Some(500), Some("us"), Some("z9hG4bKa"))
    );
    context.keep_503 = true;
    let bytes = context.best().unwrap().response(&request, "us");
    assert_eq!(Message::parse(&bytes).unwrap().status(), Some(503));
}

#[test]
fn s16_11_stateless_branch_is_the_same_for_copies_cancel_and_ack() {
    let invite = request("sip:b@b", &[]);
    let text = String::from_utf8(invite.to_vec()).unwrap();
    let branch = |text: &str| stateless_branch(&Message::parse(text.as_bytes()).unwrap());
    let own = branch(&text);
    assert!(crate::transaction::is_unique_branch(&own));
    assert_eq!(branch(&text.replace("INVITE", "CANCEL")), own);
    assert_eq!(branch(&text.replace("INVITE", "ACK").replace("b.example>", "b.example>;tag=t")), own);
    assert_ne!(branch(&text.replace("branch=z9hG4bKa", "branch=z9hG4bKb")), own);
    assert_ne!(branch(&text.replace("UDP a.example", "UDP c.example")), own);
    let old = text.replace("z9hG4bKa", "1");
    assert_eq!(branch(&old.replace("INVITE", "CANCEL")), branch(&old));
    assert_ne!(branch(&old.replace("c1", "c2")), branch(&old));
}

#[test]
fn s16_10_ack_and_cancel_of_what_we_know_and_do_not_know() {
    use crate::transaction::{Timers, Transactions};
    use std::time::Duration;
    let mut layer: Transactions<u8> = Transactions::new(Timers::default(), 10);
    let mut step = |method: &str, branch: &str| {
        let text = String::from_utf8(request("sip:b@b", &[]).to_vec()).unwrap();
        let bytes = Bytes::from(text.replace("INVITE", method).replace("z9hG4bKa", branch));
        let received = layer.receive(&Message::parse(&bytes).unwrap(), &bytes, 1, false, Duration::ZERO);
        let next = disposition(received);
        if let Disposition::ForwardCancel(id) = next {
            layer.forget(id);
        }
        (next, layer.len())
    };
    let (Disposition::Process(first), 1) = step("INVITE", "z9hG4bK1") else { panic!() };
    assert_eq!(step("INVITE", "z9hG4bK1"), (Disposition::Nothing, 1));
    assert_eq!(step("ACK", "z9hG4bK2"), (Disposition::ForwardAck, 1));
    assert!(matches!(step("CANCEL", "z9hG4bK2"), (Disposition::ForwardCancel(_), 1)), "its transaction is forgotten");
    let (Disposition::CancelBranches { invite, .. }, 2) = step("CANCEL", "z9hG4bK1") else { panic!() };
    assert_eq!(invite, first);
    let stray = response(200, 0);
    let received = layer.receive(&Message::parse(&stray).unwrap(), &stray, 1, false, Duration::ZERO);
    assert_eq!(disposition(received), Disposition::ForwardResponse);
}
