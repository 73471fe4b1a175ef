//! RFC 3261 17.1: client transactions.

use super::*;

#[test]
fn s17_1_1_2_unanswered_invite_over_udp_is_sent_seven_times_then_times_out() {
    let mut layer = layer();
    layer.send(request("INVITE", "z9hG4bK1"), "peer", false, ms(0)).unwrap();
    let log = run(&mut layer, ms(0), ms(100_000));
    let sends = ["0", "500", "1500", "3500", "7500", "15500", "31500"].map(|t| format!("{t}:INVITE"));
    assert_eq!(log[..7], sends);
    assert_eq!(log[7..], ["32000:timeout", "32000:done"]);
    assert_empty(&layer);
}

#[test]
fn s17_1_1_2_unanswered_invite_over_tcp_is_sent_once() {
    let mut layer = layer();
    layer.send(request("INVITE", "z9hG4bK1"), "peer", true, ms(0)).unwrap();
    assert_eq!(run(&mut layer, ms(0), ms(100_000)), ["0:INVITE", "32000:timeout", "32000:done"]);
    assert_empty(&layer);
}

#[test]
fn s17_1_2_2_unanswered_request_backs_off_to_t2() {
    let mut layer = layer();
    layer.send(request("OPTIONS", "z9hG4bK1"), "peer", false, ms(0)).unwrap();
    let times: Vec<u64> =
        run(&mut layer, ms(0), ms(100_000)).iter().filter_map(|l| l.strip_suffix(":OPTIONS")?.parse().ok()).collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert_empty(&layer);
}

#[test]
fn s17_1_2_2_provisional_slows_to_t2_and_does_not_stop_timer_f() {
    let mut layer = layer();
    let options = request("OPTIONS", "z9hG4bK1");
    let id = layer.send(options.clone(), "peer", false, ms(0)).unwrap();
    drain(&mut layer, ms(0));
    assert_eq!(receive(&mut layer, &answer(&options, 183), false, ms(100)), Received::Response(id));
    let log = run(&mut layer, ms(100), ms(100_000));
    assert_eq!(log[..3], ["500:OPTIONS", "4500:OPTIONS", "8500:OPTIONS"]);
    assert_eq!(log[log.len() - 2..], ["32000:timeout", "32000:done"]);
}

/// What happens after the INVITE got its final answer, by status and transport.
#[test]
fn s17_1_1_2_final_answers_of_invite() {
    struct Case {
        status: u16,
        reliable: bool,
        first: &'static [&'static str],
        again: (Received, &'static [&'static str]),
        end: u64,
    }
    let absorbed = Received::Absorbed;
    let cases = [
        Case { status: 486, reliable: false, first: &["ACK"], again: (absorbed, &["ACK"]), end: 33_000 },
        Case { status: 302, reliable: false, first: &["ACK"], again: (absorbed, &["ACK"]), end: 33_000 },
        Case { status: 603, reliable: true, first: &["ACK", "done"], again: (Received::StrayResponse, &[]), end: 0 },
        // RFC 6026: each 2xx passes for 64*T1, over TCP too; the ACK is not the layer's.
        Case { status: 200, reliable: false, first: &[], again: (Received::Response(ClientId(0)), &[]), end: 33_000 },
        Case { status: 202, reliable: true, first: &[], again: (Received::Response(ClientId(0)), &[]), end: 33_000 },
    ];
    for case in cases {
        let mut layer = layer();
        let invite = request("INVITE", "z9hG4bK1");
        let id = layer.send(invite.clone(), "peer", case.reliable, ms(0)).unwrap();
        drain(&mut layer, ms(0));
        let (ringing, last) = (answer(&invite, 180), answer(&invite, case.status));
        assert_eq!(receive(&mut layer, &ringing, case.reliable, ms(100)), Received::Response(id));
        assert_eq!(run(&mut layer, ms(100), ms(900)), Vec::<String>::new(), "1xx stops timer A");
        assert_eq!(receive(&mut layer, &last, case.reliable, ms(1000)), Received::Response(id), "{}", case.status);
        assert_eq!(drain(&mut layer, ms(1000)), case.first, "{}", case.status);
        assert_eq!(receive(&mut layer, &last, case.reliable, ms(1500)), case.again.0, "{}", case.status);
        assert_eq!(drain(&mut layer, ms(1500)), case.again.1, "{}", case.status);
        if case.end > 0 {
            // A late provisional changes nothing.
            assert_eq!(receive(&mut layer, &ringing, case.reliable, ms(1600)), Received::Absorbed);
            assert_eq!(run(&mut layer, ms(1600), ms(100_000)), [format!("{}:done", case.end)]);
        }
        assert_empty(&layer);
    }
}

#[test]
fn s17_1_1_3_ack_takes_to_from_the_response_and_the_rest_from_the_invite() {
    let mut layer = layer();
    let invite = build::request("INVITE", "sip:bob@b.example;x=1")
        .header(Name::Via, "SIP/2.0/UDP a.example:5062;branch=z9hG4bKtop;rport")
        .header(Name::Via, "SIP/2.0/UDP below.example;branch=z9hG4bKbelow")
        .header(Name::Route, "<sip:p1.example;lr>")
        .header(Name::Route, "<sip:p2.example;lr>")
        .header(Name::From, "\"A, lice\" <sip:alice@a.example>;tag=a1")
        .header(Name::To, "<sip:bob@b.example>")
        .header(Name::CallId, "call-1")
        .header(Name::CSeq, "77 INVITE")
        .body("application/sdp", "v=0\r\n")
        .finish();
    layer.send(invite.clone(), "peer", false, ms(0)).unwrap();
    drain(&mut layer, ms(0));
    receive(&mut layer, &answer_tagged(&invite, 404, "zz"), false, ms(10));
    let Some(Output::Transmit { to: "peer", bytes }) = layer.poll(ms(10)) else { panic!("no ACK") };
    let ack = Message::parse_stream(&bytes).unwrap();
    assert_eq!((ack.method(), ack.uri()), (Some(Method::Ack), Some("sip:bob@b.example;x=1")));
    let vias: Vec<_> = ack.values(Name::Via).collect();
    assert_eq!(vias, ["SIP/2.0/UDP a.example:5062;branch=z9hG4bKtop;rport"]);
    assert_eq!(ack.values(Name::Route).collect::<Vec<_>>(), ["<sip:p1.example;lr>", "<sip:p2.example;lr>"]);
    assert_eq!(ack.header(Name::From), Some("\"A, lice\" <sip:alice@a.example>;tag=a1"));
    assert_eq!(ack.to().unwrap().tag(), Some("zz"));
    assert_eq!((ack.header(Name::CSeq), ack.call_id()), (Some("77 ACK"), Ok("call-1")));
    assert_eq!((ack.header(Name::MaxForwards), ack.body()), (Some("70"), &b""[..]));
}

#[test]
fn s17_1_2_2_final_answer_lingers_for_timer_k() {
    for (reliable, end) in [(false, Some("5100:done")), (true, None)] {
        let mut layer = layer();
        let bye = request("BYE", "z9hG4bK1");
        let id = layer.send(bye.clone(), "peer", reliable, ms(0)).unwrap();
        drain(&mut layer, ms(0));
        assert_eq!(receive(&mut layer, &answer(&bye, 200), reliable, ms(100)), Received::Response(id));
        match end {
            Some(end) => {
                assert_eq!(drain(&mut layer, ms(100)), Vec::<String>::new());
                assert_eq!(receive(&mut layer, &answer(&bye, 200), reliable, ms(200)), Received::Absorbed);
                assert_eq!(run(&mut layer, ms(200), ms(100_000)), [end]);
            }
            None => assert_eq!(drain(&mut layer, ms(100)), ["done"]),
        }
        assert_empty(&layer);
    }
}

#[test]
fn s16_6_timer_c_fires_and_is_begun_again_by_provisionals_but_not_by_100() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = layer.send(invite.clone(), "peer", true, ms(0)).unwrap();
    drain(&mut layer, ms(0));
    receive(&mut layer, &answer(&invite, 100), true, ms(0));
    receive(&mut layer, &answer(&invite, 180), true, ms(60_000));
    receive(&mut layer, &answer(&invite, 100), true, ms(90_000));
    assert_eq!(run(&mut layer, ms(90_000), ms(300_000)), ["241000:C"]);
    // The proxy cancels, and the callee is dead: 64*T1 later the branch is given up.
    let cancel = layer.cancel_of(id).unwrap();
    layer.send(cancel, "peer", true, ms(300_000)).unwrap();
    let log = run(&mut layer, ms(300_000), ms(900_000));
    assert_eq!(log, ["300000:CANCEL", "332000:timeout", "332000:done", "332000:timeout", "332000:done"]);
    assert_empty(&layer);
}

#[test]
fn s17_1_4_transport_error_is_told_and_ends_the_transaction() {
    let mut layer = layer();
    let id = layer.send(request("INVITE", "z9hG4bK1"), "peer", true, ms(0)).unwrap();
    layer.transport_error(id, ms(1));
    layer.transport_error(id, ms(1));
    assert_eq!(drain(&mut layer, ms(1)), ["INVITE", "failed", "done"]);
    assert_empty(&layer);
}

#[test]
fn what_has_no_client_transaction_is_refused() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    assert_eq!(layer.send(request("ACK", "z9hG4bK1"), "p", true, ms(0)), Err(SendError::Invalid));
    assert_eq!(layer.send(request("INVITE", "1"), "p", true, ms(0)), Err(SendError::Invalid));
    assert_eq!(layer.send(answer(&invite, 200), "p", true, ms(0)), Err(SendError::Invalid));
    assert_eq!(layer.send(Bytes::from_static(b"hello"), "p", true, ms(0)), Err(SendError::Invalid));
    layer.send(invite.clone(), "p", true, ms(0)).unwrap();
    assert_eq!(layer.send(invite, "p", true, ms(0)), Err(SendError::Duplicate));
    assert_eq!(layer.len(), 1);
}

#[test]
fn a_late_driver_sends_once_not_a_burst() {
    let mut layer = layer();
    layer.send(request("INVITE", "z9hG4bK1"), "peer", false, ms(0)).unwrap();
    drain(&mut layer, ms(0));
    assert_eq!(drain(&mut layer, ms(20_000)), ["INVITE"]);
    assert_eq!(drain(&mut layer, ms(1_000_000)), ["timeout", "done"]);
}
