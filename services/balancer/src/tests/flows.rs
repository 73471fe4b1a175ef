//! The ordinary ways of requests and responses.

use super::*;
use contract::leg::LegToken;
use sip::header::{NameAddr, Via};
use sip::uri::Uri;

#[test]
fn an_invite_goes_to_its_router_and_the_answers_come_back() {
    let mut rig = Rig::plain();
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:8006@127.0.0.1", "a", "X-Odd:  kept \r\n"));
    let inside = to_inside(&out);
    assert_eq!(inside.len(), 1);
    assert_eq!(Some(inside[0].0), rig.peers.choose(Service::Router, b"call-1"));
    assert_eq!(statuses(&out), [100]);
    let trying = to_outside(&out).remove(0).1;
    let via = Message::parse(&trying).unwrap();
    assert_eq!(via.via().unwrap().rport(), Some(Some(40000)));

    let forwarded = Message::parse(&inside[0].1).unwrap();
    let vias: Vec<Via<'_>> = forwarded.values(Name::Via).map(|v| Via::parse(v).unwrap()).collect();
    assert_eq!(vias.len(), 2);
    assert_eq!(Owner::of(&vias[0], &keys()), Some(Owner { process: BALANCER, shard: 0 }));
    assert_eq!((vias[1].received(), vias[1].rport()), (Some([127, 0, 0, 1].into()), Some(Some(40000))));
    assert_eq!(forwarded.max_forwards(), Some(Ok(69)));
    let route = NameAddr::parse(forwarded.header(Name::RecordRoute).unwrap()).unwrap();
    let route = Uri::parse(route.uri).unwrap();
    assert_eq!(Flow::from_token(route.user.unwrap(), &keys()), Some(udp(PHONE)));
    assert_eq!(route.port, Some(5060));
    assert_eq!(hop_of(&inside[0].1), contract::hop::Hop { flow: udp(PHONE), trusted: false });
    // What is not understood passes to the byte.
    assert!(inside[0].1.windows(16).any(|w| w == b"X-Odd:  kept \r\nC"));

    // A retransmission is absorbed, and answered with what was answered last.
    let again = rig.outside(udp(PHONE), &request("INVITE", "sip:8006@127.0.0.1", "a", "X-Odd:  kept \r\n"));
    assert_eq!((to_inside(&again).len(), statuses(&again)), (0, vec![100]));

    let ringing = rig.inside(inside[0].0, answer(&inside[0].1, 180, &[]));
    assert_eq!(statuses(&ringing), [180]);
    let ok = rig.inside(inside[0].0, answer(&inside[0].1, 200, &[]));
    let (flow, bytes) = to_outside(&ok).remove(0);
    assert_eq!((flow.local, flow.remote), (addr(VIP), addr(PHONE)));
    let ok = Message::parse(&bytes).unwrap();
    assert_eq!((ok.status(), ok.values(Name::Via).count()), (Some(200), 1));
    assert!(ok.header(Name::RecordRoute).is_some());
}

#[test]
fn register_goes_to_the_aors_registrar_with_path() {
    let mut rig = Rig::plain();
    rig.peers.0.push(Peer::new(Service::Registrar, ProcessId(21)));
    let to = rig.peers.choose(Service::Registrar, b"8006").unwrap();
    for branch in ["a", "b", "c"] {
        let out = rig.outside(udp(PHONE), &request("REGISTER", "sip:127.0.0.1", branch, ""));
        let (process, bytes) = to_inside(&out).remove(0);
        assert_eq!(process, to);
        let message = Message::parse(&bytes).unwrap();
        let path = NameAddr::parse(message.header(Name::Path).unwrap()).unwrap();
        assert_eq!(Flow::from_token(Uri::parse(path.uri).unwrap().user.unwrap(), &keys()), Some(udp(PHONE)));
        assert_eq!(message.header(Name::RecordRoute), None);
        assert_eq!(statuses(&out), [0u16; 0], "only an INVITE gets 100");
    }
}

#[test]
fn requests_in_a_dialog_go_to_the_legs_owner_or_who_took_over() {
    let mut rig = Rig::plain();
    for (owner, other) in [(ROUTER, ROUTER2), (ROUTER2, ROUTER)] {
        let mut rig = Rig::plain();
        let leg = LegToken { process: owner, leg: "leg-1".into() }.seal(&keys());
        let token = udp(PHONE).token(&keys());
        let route = format!("Route: <sip:{token}@127.0.0.1:5060;lr>\r\n");
        let bye = request("BYE", &format!("sip:{leg}@127.0.0.1"), "b", &route)
            .replace("@pbx>\r\nCall", "@pbx>;tag=t\r\nCall");
        let (to, bytes) = to_inside(&rig.outside(udp(PHONE), &bye)).remove(0);
        assert_eq!(to, owner);
        assert_eq!(Message::parse(&bytes).unwrap().header(Name::Route), None);
        // An ACK goes the same way without a transaction.
        let ack = request("ACK", &format!("sip:{leg}@127.0.0.1"), "k", &route)
            .replace("@pbx>\r\nCall", "@pbx>;tag=t\r\nCall");
        assert_eq!(to_inside(&rig.outside(udp(PHONE), &ack)).remove(0).0, owner);
        // A phone whose address was changed by its translator is still heard: the leg's token says enough.
        let moved = rig.outside(udp("127.0.0.7:9"), &bye.replace("z9hG4bKb", "z9hG4bKc"));
        assert_eq!(to_inside(&moved).remove(0).0, owner);
        rig.set_peers(owner);
        let after = rig.outside(udp(PHONE), &bye.replace("z9hG4bKb", "z9hG4bKd"));
        assert_eq!(to_inside(&after).remove(0).0, other);
    }
    assert!(rig.handle(Input::Tick).is_empty());
}

/// An INVITE of a router to a phone on this flow.
fn to_phone(flow: &Flow, extra: &str) -> String {
    let token = flow.token(&keys());
    format!(
        "INVITE sip:8006@10.0.0.1:5070 SIP/2.0\r\nVia: SIP/2.0/TCP {};branch=z9hG4bKr1\r\nMax-Forwards: 60\r\n\
         From: <sip:8005@pbx>;tag=r\r\nTo: <sip:8006@pbx>\r\nCall-ID: leg-b\r\nCSeq: 5 INVITE\r\n\
         Route: <sip:{token}@127.0.0.1:5060;lr>\r\nX-KubePBX-Call: secret\r\n{extra}Content-Length: 0\r\n\r\n",
        contract::hop::host(Service::Router, ROUTER)
    )
}

#[test]
fn a_router_reaches_a_phone_by_its_flow() {
    for flow in [udp(PHONE), tcp(7, PHONE)] {
        let mut rig = Rig::plain();
        let out = rig.inside(ROUTER, to_phone(&flow, "P-Asserted-Identity: <sip:8005@pbx>\r\n"));
        let (to, bytes) = to_outside(&out).remove(0);
        assert_eq!(to, flow);
        let invite = Message::parse(&bytes).unwrap();
        assert_eq!(invite.header(Name::Route), None);
        assert_eq!(invite.other("X-KubePBX-Call"), None);
        assert!(invite.header(Name::PAssertedIdentity).is_some(), "what the inside asserts is its own");
        assert_eq!(invite.uri(), Some("sip:8006@10.0.0.1:5070"));
        let top = invite.via().unwrap();
        assert_eq!((top.transport, top.sent_by), (flow.transport.as_str(), VIP));
        let route = NameAddr::parse(invite.header(Name::RecordRoute).unwrap()).unwrap();
        assert_eq!(Flow::from_token(Uri::parse(route.uri).unwrap().user.unwrap(), &keys()), Some(flow));
        // The router hears at once that it is under way, and then what the phone says.
        let trying = to_inside(&out).remove(0);
        assert_eq!((trying.0, Message::parse(&trying.1).unwrap().status()), (ROUTER, Some(100)));
        let back = rig.outside(flow, std::str::from_utf8(&answer(&bytes, 180, &[])).unwrap());
        let (process, ringing) = to_inside(&back).remove(0);
        assert_eq!((process, Message::parse(&ringing).unwrap().status()), (ROUTER, Some(180)));
        assert_eq!(Message::parse(&ringing).unwrap().values(Name::Via).count(), 1);
    }
}

#[test]
fn a_cancel_waits_for_a_provisional_and_keeps_its_reason() {
    let mut rig = Rig::plain();
    let invite = to_phone(&udp(PHONE), "");
    let sent = to_outside(&rig.inside(ROUTER, invite.clone())).remove(0).1;
    let cancel = invite
        .replace("INVITE", "CANCEL")
        .replace("X-KubePBX-Call: secret", "Reason: SIP;cause=200;text=\"Call completed elsewhere\"");
    let out = rig.inside(ROUTER, cancel);
    assert_eq!(to_outside(&out).len(), 0, "nothing was heard of the phone yet");
    assert_eq!(Message::parse(&to_inside(&out)[0].1).unwrap().status(), Some(200));
    let out = rig.outside(udp(PHONE), std::str::from_utf8(&answer(&sent, 180, &[])).unwrap());
    let (_, cancel) = to_outside(&out).remove(0);
    let cancel = Message::parse(&cancel).unwrap();
    assert_eq!(cancel.method(), Some(sip::Method::Cancel));
    assert_eq!(cancel.header(Name::Reason), Some("SIP;cause=200;text=\"Call completed elsewhere\""));
    assert_eq!(cancel.via().unwrap().branch(), Message::parse(&sent).unwrap().via().unwrap().branch());
    let out = rig.outside(udp(PHONE), std::str::from_utf8(&answer(&sent, 487, &[])).unwrap());
    assert_eq!(Message::parse(&to_inside(&out)[0].1).unwrap().status(), Some(487));
    // Our own ACK of the failure.
    let ack = to_outside(&out).remove(0).1;
    assert_eq!(Message::parse(&ack).unwrap().method(), Some(sip::Method::Ack));
}

#[test]
fn a_phone_cancels() {
    let mut rig = Rig::plain();
    let invite = request("INVITE", "sip:8006@127.0.0.1", "a", "");
    let (router, sent) = to_inside(&rig.outside(udp(PHONE), &invite)).remove(0);
    rig.inside(router, answer(&sent, 180, &[]));
    let out = rig.outside(udp(PHONE), &request("CANCEL", "sip:8006@127.0.0.1", "a", ""));
    assert_eq!(statuses(&out), [200]);
    let cancel = to_inside(&out).remove(0);
    assert_eq!((cancel.0, Message::parse(&cancel.1).unwrap().method()), (router, Some(sip::Method::Cancel)));
    let out = rig.inside(router, answer(&sent, 487, &[]));
    assert_eq!(statuses(&out), [487]);
    let ack = request("ACK", "sip:8006@127.0.0.1", "a", "").replace("@pbx>\r\nCall", "@pbx>;tag=t1\r\nCall");
    assert!(rig.outside(udp(PHONE), &ack).is_empty());
    assert_eq!(statuses(&rig.pass(Duration::from_secs(40))), [0u16; 0], "acknowledged: not sent again");
}

#[test]
fn options_to_ourselves_say_whether_we_are_ready() {
    let mut rig = Rig::plain();
    let ready = rig.snapshot.take();
    let probe = request("OPTIONS", "sip:s@127.0.0.1:5060", "o", "");
    let out = rig.outside(udp(PHONE), &probe);
    assert_eq!(statuses(&out), [503]);
    let message = to_outside(&out).remove(0).1;
    assert!(Message::parse(&message).unwrap().header(Name::RetryAfter).is_some());
    let invite = request("INVITE", "sip:8006@127.0.0.1", "i", "");
    assert_eq!(statuses(&rig.outside(udp(PHONE), &invite)), [503]);
    rig.snapshot = ready;
    let out = rig.outside(udp(PHONE), &probe);
    assert_eq!(statuses(&out), [200]);
    let message = to_outside(&out).remove(0).1;
    let message = Message::parse(&message).unwrap();
    assert_eq!(message.header(Name::Allow), Some("INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, REGISTER"));
    assert!(message.to().unwrap().tag().is_some());
    // A neighbour's drain is not ours.
    for (process, status) in [(ProcessId(77), 200), (BALANCER, 503)] {
        rig.peers.0.retain(|p| p.process != process);
        rig.peers.0.push(Peer { state: PeerState::Draining, ..Peer::new(Service::Balancer, process) });
        let probe = request("OPTIONS", "sip:s@127.0.0.1:5060", &format!("drain{status}"), "");
        assert_eq!(statuses(&rig.outside(udp(PHONE), &probe)), [status], "{process:?} drains");
    }
    // Somebody else's OPTIONS is not ours to answer.
    let out = rig.outside(udp(PHONE), &request("OPTIONS", "sip:8006@pbx.example", "p", ""));
    assert_eq!(to_inside(&out).len(), 1);
}

#[test]
fn answers_leave_from_the_address_asked_on() {
    let mut rig = Rig::plain();
    let flow = Flow { local: addr("127.0.0.9:5060"), ..udp(PHONE) };
    let out = rig.outside(flow, &request("OPTIONS", "sip:127.0.0.9", "o", ""));
    assert_eq!(to_outside(&out)[0].0.local, addr("127.0.0.9:5060"));
    assert_eq!(statuses(&out), [200]);
}

#[test]
fn what_cannot_be_read_is_answered_or_dropped() {
    let mut rig = Rig::plain();
    for (text, want) in [
        (request("INVITE", "sip:8006@127.0.0.1", "a", "").replace("CSeq: 1 INVITE", "CSeq: 1 BYE"), vec![400]),
        (request("INVITE", "sip:8006@127.0.0.1", "b", "").replace("Length: 0", "Length: 999"), vec![400]),
        (request("INVITE", "sip:8006@127.0.0.1", "c", "").replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia"), vec![505]),
        (request("INVITE", "http:x", "d", ""), vec![416]),
        (request("INVITE", "sip:8006@127.0.0.1", "e", "").replace("Forwards: 70", "Forwards: 0"), vec![483]),
        (request("INVITE", "sip:8006@127.0.0.1", "f", "Proxy-Require: foo\r\n"), vec![420]),
        (request("ACK", "sip:8006@127.0.0.1", "g", "").replace("Length: 0", "Length: 999"), vec![]),
        ("SIP/2.0 200 OK\r\nVia: x\r\n\r\n".into(), vec![]),
        ("\r\n\r\n".into(), vec![]),
        (String::new(), vec![]),
        ("\u{0}\u{1}\u{0}\u{0}!\u{12}stun".into(), vec![]),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n".into(), vec![]),
    ] {
        let out = rig.outside(udp(PHONE), &text);
        assert_eq!(statuses(&out), want, "{text}");
        assert!(to_inside(&out).is_empty(), "{text}");
    }
    assert_eq!(rig.core.load(), 0, "none of it costs state");
}

#[test]
fn a_strict_routers_request_is_put_right() {
    let mut rig = Rig::plain();
    let leg = LegToken { process: ROUTER2, leg: "leg-1".into() }.seal(&keys());
    let token = udp(PHONE).token(&keys());
    let bye =
        request("BYE", &format!("sip:{token}@127.0.0.1:5060;lr"), "b", &format!("Route: <sip:{leg}@127.0.0.1>\r\n"))
            .replace("@pbx>\r\nCall", "@pbx>;tag=t\r\nCall");
    let (to, bytes) = to_inside(&rig.outside(udp(PHONE), &bye)).remove(0);
    assert_eq!(to, ROUTER2);
    let bye = Message::parse(&bytes).unwrap();
    assert_eq!((bye.uri(), bye.header(Name::Route)), (Some(format!("sip:{leg}@127.0.0.1").as_str()), None));
}

#[test]
fn an_advertised_address_stands_in_what_we_write() {
    let mut rig = Rig::plain();
    let advertise = Some(("pbx.example".to_owned(), Some(5090)));
    let listeners = Listeners::new(vec![(Transport::Udp, addr("0.0.0.0:5060"))], advertise);
    rig.core = Core::new(Owner { process: BALANCER, shard: 0 }, listeners, Limits::default());
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:8006@pbx.example:5090", "a", ""));
    let (_, bytes) = to_inside(&out).remove(0);
    assert!(Message::parse(&bytes).unwrap().header(Name::RecordRoute).unwrap().contains("@pbx.example:5090;lr"));
    let out = rig.inside(ROUTER, to_phone(&udp(PHONE), ""));
    let (_, bytes) = to_outside(&out).remove(0);
    assert_eq!(Message::parse(&bytes).unwrap().via().unwrap().sent_by, "pbx.example:5090");
}
