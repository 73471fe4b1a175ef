//! RFC 3261 12 and 13, filed by section.

use super::*;
use crate::transaction::Timers;
use bytes::Bytes;
use std::time::Duration;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn invite() -> Bytes {
    build::request("INVITE", "sip:bob@b.example")
        .header(Name::Via, "SIP/2.0/UDP a.example;branch=z9hG4bK1")
        .header(Name::From, "\"Alice; <x>\" <sip:alice@a.example;user=phone>;x=1;tag=a1")
        .header(Name::To, "sip:bob@b.example")
        .header(Name::CallId, "call-1")
        .header(Name::CSeq, "314 INVITE")
        .header(Name::Contact, "<sip:alice@192.0.2.1:5062;ob>;+sip.instance=\"x\"")
        .header(Name::RecordRoute, "<sip:p2.example;lr>, <sip:p1.example;lr>")
        .finish()
}

/// Bob's answer. `routes` in the order of the response; an empty `contact` leaves it out.
fn answer(status: u16, tag: &str, contact: &str, routes: &[&str]) -> Bytes {
    let invite = invite();
    let msg = Message::parse(&invite).unwrap();
    let mut response = build::response(&msg, status, None, (!tag.is_empty()).then_some(tag));
    for route in routes {
        response = response.header(Name::RecordRoute, route);
    }
    response.header_opt(Name::Contact, (!contact.is_empty()).then_some(contact)).finish()
}

fn uac(bytes: &Bytes) -> Result<Dialog, DialogError> {
    Dialog::uac(&Message::parse(&invite()).unwrap(), &Message::parse(bytes).unwrap())
}

/// A request of Bob's in the dialog of `invite()`.
fn in_dialog(method: &str, cseq: u32, contact: &str) -> Bytes {
    build::request(method, "sip:alice@192.0.2.1")
        .header(Name::Via, "SIP/2.0/UDP b.example;branch=z9hG4bK9")
        .header(Name::From, "<sip:bob@b.example>;tag=b1")
        .header(Name::To, "<sip:alice@a.example>;tag=a1")
        .header(Name::CallId, "call-1")
        .header(Name::CSeq, format!("{cseq} {method}"))
        .header_opt(Name::Contact, (!contact.is_empty()).then_some(contact))
        .finish()
}

fn lines(bytes: &Bytes, name: Name) -> Vec<String> {
    Message::parse(bytes).unwrap().values(name).map(str::to_owned).collect()
}

#[test]
fn s12_1_1_callee() {
    let bytes = invite();
    let dialog = Dialog::uas(&Message::parse(&bytes).unwrap(), "b1", "<sip:bob@192.0.2.2>").unwrap();
    let id = DialogId { call_id: "call-1".into(), local_tag: "b1".into(), remote_tag: "a1".into() };
    let expected = Dialog {
        id,
        local_uri: "<sip:bob@b.example>".into(),
        remote_uri: "\"Alice; <x>\" <sip:alice@a.example;user=phone>;x=1".into(),
        local_contact: "<sip:bob@192.0.2.2>".into(),
        remote_target: "sip:alice@192.0.2.1:5062;ob".into(),
        route_set: vec!["<sip:p2.example;lr>".into(), "<sip:p1.example;lr>".into()],
        local_cseq: 0,
        remote_cseq: Some(314),
        secure: false,
        state: State::Early,
        role: Role::Uas,
    };
    assert_eq!(dialog, expected);
}

#[test]
fn s12_1_2_caller_reverses_the_route() {
    let routes = ["<sip:p2.example;lr>", "<sip:p1.example;lr>"];
    let dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &routes)).unwrap();
    assert_eq!(dialog.route_set, ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]);
    assert_eq!((dialog.remote_target.as_str(), dialog.state), ("sip:bob@192.0.2.2", State::Confirmed));
    assert_eq!((dialog.local_cseq, dialog.remote_cseq, dialog.role), (314, None, Role::Uac));
    assert_eq!((dialog.id.local_tag.as_str(), dialog.id.remote_tag.as_str()), ("a1", "b1"));
    assert_eq!(dialog.local_contact, "<sip:alice@192.0.2.1:5062;ob>;+sip.instance=\"x\"");
}

#[test]
fn s12_1_what_makes_no_dialog() {
    let contact = "<sip:bob@192.0.2.2>";
    assert_eq!(uac(&answer(100, "", contact, &[])), Err(DialogError::NoDialog));
    assert_eq!(uac(&answer(180, "", contact, &[])), Err(DialogError::NoDialog));
    assert_eq!(uac(&answer(486, "b1", contact, &[])), Err(DialogError::NoDialog));
    // RFC 2543 callees give no tag; early answers may lack Contact.
    assert_eq!(uac(&answer(200, "", contact, &[])).unwrap().id.remote_tag, "");
    assert_eq!(uac(&answer(180, "b1", "", &[])).unwrap().remote_target, "sip:bob@b.example");

    let bytes = in_dialog("INVITE", 1, "");
    let error = Dialog::uas(&Message::parse(&bytes).unwrap(), "t", "c").unwrap_err();
    assert_eq!((error, error.status()), (DialogError::Contact, 400));
}

#[test]
fn s12_2_1_1_loose_route() {
    let routes = ["<sip:p2.example;lr>", "<sip:p1.example;lr=on>"];
    let mut dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &routes)).unwrap();
    let bytes = dialog.request("BYE", "SIP/2.0/UDP a.example;branch=z9hG4bK2").finish();
    let bye = Message::parse(&bytes).unwrap();
    assert_eq!((bye.method(), bye.uri()), (Some(Method::Bye), Some("sip:bob@192.0.2.2")));
    assert_eq!(lines(&bytes, Name::Route), ["<sip:p1.example;lr=on>", "<sip:p2.example;lr>"]);
    assert_eq!(bye.header(Name::From), Some("\"Alice; <x>\" <sip:alice@a.example;user=phone>;x=1;tag=a1"));
    assert_eq!(bye.header(Name::To), Some("<sip:bob@b.example>;tag=b1"));
    assert_eq!((bye.header(Name::CSeq), bye.header(Name::CallId)), (Some("315 BYE"), Some("call-1")));
    assert_eq!((bye.header(Name::MaxForwards), bye.header(Name::Contact)), (Some("70"), None));
    assert_eq!(dialog.next_hop(), "sip:p1.example;lr=on");
    bye.validate().unwrap();

    let again = dialog.request("INVITE", "SIP/2.0/UDP a.example;branch=z9hG4bK3").finish();
    let again = Message::parse(&again).unwrap();
    assert_eq!(again.header(Name::CSeq), Some("316 INVITE"));
    assert_eq!(again.header(Name::Contact), Some("<sip:alice@192.0.2.1:5062;ob>;+sip.instance=\"x\""));
}

#[test]
fn s12_2_1_1_strict_route() {
    let routes = ["<sip:p2.example;lr>", "<sip:p1.example>"];
    let mut dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &routes)).unwrap();
    let bytes = dialog.request("BYE", "SIP/2.0/UDP a;branch=z9hG4bK2").finish();
    assert_eq!(Message::parse(&bytes).unwrap().uri(), Some("sip:p1.example"));
    assert_eq!(lines(&bytes, Name::Route), ["<sip:p2.example;lr>", "<sip:bob@192.0.2.2>"]);
    assert_eq!(dialog.next_hop(), "sip:p1.example");
}

#[test]
fn s12_2_1_1_without_route_and_without_tag() {
    let mut dialog = uac(&answer(200, "", "<sip:bob@192.0.2.2>", &[])).unwrap();
    let bytes = dialog.request("BYE", "SIP/2.0/UDP a;branch=z9hG4bK2").finish();
    assert_eq!(lines(&bytes, Name::Route), Vec::<String>::new());
    assert_eq!(Message::parse(&bytes).unwrap().header(Name::To), Some("<sip:bob@b.example>"));
    assert_eq!(dialog.next_hop(), "sip:bob@192.0.2.2");
}

#[test]
fn s12_2_2_order_of_requests() {
    let mut dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &[])).unwrap();
    let mut receive = |method: &str, cseq| dialog.receive(&Message::parse(&in_dialog(method, cseq, "")).unwrap());
    assert_eq!(receive("INFO", 7), Ok(()), "the first number is any");
    assert_eq!(receive("INFO", 9), Ok(()), "gaps are legal");
    let error = receive("INFO", 8).unwrap_err();
    assert_eq!((error, error.status()), (DialogError::OutOfOrder { expected: 10, got: 8 }, 500));
    assert_eq!(receive("ACK", 7), Ok(()), "an ACK bears its INVITE's number");
    assert_eq!(receive("BYE", 10), Ok(()));
    assert_eq!(dialog.remote_cseq, Some(10));

    let stranger = in_dialog("BYE", 11, "");
    for (from, to) in [("tag=b1", "tag=b2"), ("tag=a1", "tag=a2"), ("call-1", "call-2"), (";tag=a1", "")] {
        let text = String::from_utf8(stranger.to_vec()).unwrap().replace(from, to);
        let error = dialog.receive(&Message::parse(text.as_bytes()).unwrap()).unwrap_err();
        assert_eq!((error, error.status()), (DialogError::NotThisDialog, 481), "{from}");
    }
}

#[test]
fn s12_2_target_refresh() {
    let mut dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &["<sip:p;lr>"])).unwrap();
    let mut refresh = |bytes: &Bytes| dialog.refresh_target(&Message::parse(bytes).unwrap());
    assert!(!refresh(&in_dialog("INFO", 1, "<sip:bob@192.0.2.9>")), "INFO refreshes nothing");
    assert!(!refresh(&in_dialog("INVITE", 1, "")));
    assert!(refresh(&in_dialog("INVITE", 1, "<sip:bob@192.0.2.3>")));
    assert!(!refresh(&in_dialog("UPDATE", 2, "<sip:bob@192.0.2.3>")), "the same again is no change");
    assert!(!refresh(&answer(180, "b1", "<sip:bob@192.0.2.4>", &[])), "only a 2xx does");
    assert!(refresh(&answer(200, "b1", "<sip:bob@192.0.2.4>", &["<sip:other;lr>"])));
    assert_eq!(dialog.remote_target, "sip:bob@192.0.2.4");
    assert_eq!(dialog.route_set, ["<sip:p;lr>"], "the route set stays");
}

#[test]
fn s13_2_2_4_ack_has_the_number_of_the_invite() {
    let dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &["<sip:p1;lr>"])).unwrap();
    let bytes = dialog.ack(314, "SIP/2.0/UDP a;branch=z9hG4bKack").finish();
    let ack = Message::parse(&bytes).unwrap();
    assert_eq!((ack.header(Name::CSeq), ack.uri()), (Some("314 ACK"), Some("sip:bob@192.0.2.2")));
    assert_eq!(ack.via().unwrap().branch(), Some("z9hG4bKack"));
    assert_eq!(lines(&bytes, Name::Route), ["<sip:p1;lr>"]);
}

#[test]
fn s13_2_2_4_several_dialogs_from_one_invite() {
    let request = invite();
    let request = Message::parse(&request).unwrap();
    let mut fork = Fork::new(2);
    let receive = |fork: &mut Fork, status, tag: &str| {
        let bytes = answer(status, tag, &format!("<sip:{tag}@192.0.2.2>"), &[&format!("<sip:{tag}{status};lr>")]);
        fork.receive(&request, &Message::parse(&bytes).unwrap())
    };
    assert_eq!(receive(&mut fork, 100, ""), Ok(Forked::None));
    assert_eq!(receive(&mut fork, 180, "b1"), Ok(Forked::Early(0)));
    assert_eq!(receive(&mut fork, 180, "b2"), Ok(Forked::Early(1)));
    assert_eq!(receive(&mut fork, 183, "b1"), Ok(Forked::Progress(0)));
    assert_eq!(receive(&mut fork, 180, "b3"), Ok(Forked::None), "no more than two");
    assert_eq!(receive(&mut fork, 200, "b2"), Ok(Forked::Confirmed(1)));
    assert_eq!(fork.dialogs()[1].route_set, ["<sip:b2200;lr>"], "the route set is that of the 2xx");
    assert_eq!(receive(&mut fork, 200, "b2"), Ok(Forked::Repeated(1)));
    // Another fork answered too: it takes the place of the early one, and gets ACK and BYE from the user.
    assert_eq!(receive(&mut fork, 200, "b3"), Ok(Forked::Confirmed(1)));
    let tags: Vec<_> = fork.dialogs().iter().map(|d| d.id.remote_tag.as_str()).collect();
    assert_eq!(tags, ["b2", "b3"]);
    assert_eq!(receive(&mut fork, 200, "b4"), Err(DialogError::NoDialog), "full of confirmed ones");

    let mut fork = Fork::new(2);
    receive(&mut fork, 180, "b1").unwrap();
    assert_eq!(receive(&mut fork, 486, "b1"), Ok(Forked::Failed));
    assert!(fork.dialogs().is_empty());
}

#[test]
fn s13_3_1_4_2xx_is_repeated_until_the_ack() {
    let bytes = Bytes::from_static(b"200");
    let run = |acked_at: u64| {
        let mut repeat = Retransmit2xx::new(bytes.clone(), ms(1000));
        let mut log = Vec::new();
        while let Some(at) = repeat.deadline() {
            if at > ms(acked_at) {
                repeat.acked();
            }
            match repeat.poll(at) {
                Some(Repeat::Send(b)) => {
                    assert_eq!(b, bytes);
                    log.push(at.as_millis() as u64 - 1000);
                }
                Some(Repeat::GiveUp) => log.push(0),
                None => {}
            }
        }
        assert_eq!(repeat.poll(ms(1_000_000)), None);
        log
    };
    assert_eq!(run(3000), [500, 1500]);
    assert_eq!(run(u64::MAX), [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500, 0]);
}

#[test]
fn s13_2_2_4_ack_is_sent_again_for_each_repeated_2xx() {
    let timers = Timers::default();
    let mut cache = AckCache::new(&timers, 2);
    let response = |tag: &str| answer(200, tag, "<sip:bob@192.0.2.2>", &[]);
    let id = |tag: &str| DialogId::of_response(&Message::parse(&response(tag)).unwrap()).unwrap();
    let repeat =
        |cache: &mut AckCache<u8>, tag: &str, now| cache.repeat(&Message::parse(&response(tag)).unwrap(), ms(now));
    assert_eq!(repeat(&mut cache, "b1", 0), None, "the first 2xx");
    cache.sent(id("b1"), 314, 1, Bytes::from_static(b"ACK1"), ms(0));
    cache.sent(id("b2"), 313, 2, Bytes::from_static(b"ACK2"), ms(10));
    assert_eq!(repeat(&mut cache, "b1", 100), Some((1, Bytes::from_static(b"ACK1"))));
    assert_eq!(repeat(&mut cache, "b2", 100), None, "the ACK of another INVITE in the dialog");
    cache.sent(id("b2"), 314, 2, Bytes::from_static(b"ACK3"), ms(20));
    assert_eq!((cache.len(), repeat(&mut cache, "b1", 100)), (2, None), "bounded: the oldest went");
    assert_eq!(repeat(&mut cache, "b2", 32_019), Some((2, Bytes::from_static(b"ACK3"))));
    assert_eq!((repeat(&mut cache, "b2", 32_020), cache.is_empty()), (None, true));
}

#[test]
fn secure_and_bounds() {
    let bytes = String::from_utf8(invite().to_vec()).unwrap();
    let sips = bytes.replace("INVITE sip:", "INVITE sips:");
    assert!(Dialog::uas(&Message::parse(sips.as_bytes()).unwrap(), "t", "c").unwrap().secure);
    let many = format!("<sip:p1.example;lr>{}", ", <sip:p;lr>".repeat(70));
    let many = bytes.replace("<sip:p1.example;lr>", &many);
    let error = Dialog::uas(&Message::parse(many.as_bytes()).unwrap(), "t", "c").unwrap_err();
    assert_eq!(error, DialogError::Malformed(Name::RecordRoute));

    let mut dialog = uac(&answer(200, "b1", "<sip:bob@192.0.2.2>", &[])).unwrap();
    dialog.local_cseq = (1 << 31) - 1;
    let bytes = dialog.request("INFO", "SIP/2.0/UDP a;branch=z9hG4bK2").finish();
    assert_eq!(Message::parse(&bytes).unwrap().cseq().unwrap().number, 1);
}
