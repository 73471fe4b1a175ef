//! RFC 3261 17.2: server transactions.

use super::*;

#[test]
fn s17_2_1_100_is_sent_after_200_ms_unless_the_user_was_faster() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    server_id(receive(&mut layer, &invite, false, ms(0)));
    assert_eq!(receive(&mut layer, &invite, false, ms(100)), Received::Absorbed);
    assert_eq!(run(&mut layer, ms(100), ms(1000)), ["200:100"]);
    assert_eq!(receive(&mut layer, &invite, false, ms(1000)), Received::Absorbed);
    assert_eq!(drain(&mut layer, ms(1000)), ["100"]);

    let mut layer = super::layer();
    let id = server_id(receive(&mut layer, &invite, false, ms(0)));
    assert!(layer.respond(id, answer(&invite, 180), ms(50)));
    assert_eq!(run(&mut layer, ms(50), ms(1000)), ["50:180"]);
    assert_eq!(receive(&mut layer, &invite, false, ms(1000)), Received::Absorbed);
    assert_eq!(drain(&mut layer, ms(1000)), ["180"], "the last provisional is sent again");
}

#[test]
fn s17_2_1_failure_over_udp_is_repeated_until_the_ack() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = server_id(receive(&mut layer, &invite, false, ms(0)));
    assert_eq!(layer.server_answered(id), Some(false));
    assert!(layer.respond(id, answer(&invite, 486), ms(0)));
    assert_eq!(layer.server_answered(id), Some(true));
    assert!(!layer.respond(id, answer(&invite, 200), ms(0)), "one final answer only");
    assert!(!layer.respond(id, answer(&invite, 180), ms(0)));
    let log = run(&mut layer, ms(0), ms(9_000));
    assert_eq!(log, ["0:486", "500:486", "1500:486", "3500:486", "7500:486"]);
    assert_eq!(receive(&mut layer, &invite, false, ms(9_000)), Received::Absorbed);
    assert_eq!(drain(&mut layer, ms(9_000)), ["486"]);
    assert_eq!(receive(&mut layer, &request("ACK", "z9hG4bK1"), false, ms(9_100)), Received::AckAbsorbed);
    assert_eq!(receive(&mut layer, &request("ACK", "z9hG4bK1"), false, ms(9_200)), Received::AckAbsorbed);
    assert_eq!(receive(&mut layer, &invite, false, ms(9_300)), Received::Absorbed);
    assert_eq!(run(&mut layer, ms(9_300), ms(100_000)), ["14100:done"], "timer I, and no G any more");
    assert_empty(&layer);
}

#[test]
fn s17_2_1_failure_without_ack_is_told_after_timer_h() {
    for reliable in [false, true] {
        let mut layer = layer();
        let invite = request("INVITE", "z9hG4bK1");
        let id = server_id(receive(&mut layer, &invite, reliable, ms(0)));
        layer.respond(id, answer(&invite, 404), ms(0));
        let log = run(&mut layer, ms(0), ms(100_000));
        let sends: Vec<_> = log.iter().filter(|l| l.ends_with(":404")).cloned().collect();
        let all = ["0", "500", "1500", "3500", "7500", "11500", "15500", "19500", "23500", "27500", "31500"];
        let expected = if reliable { &all[..1] } else { &all[..] };
        assert_eq!(sends, expected.iter().map(|t| format!("{t}:404")).collect::<Vec<_>>());
        assert_eq!(log[log.len() - 2..], ["32000:noack", "32000:done"]);
        assert_empty(&layer);
    }
}

#[test]
fn s17_2_1_reliable_ack_ends_at_once() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = server_id(receive(&mut layer, &invite, true, ms(0)));
    layer.respond(id, answer(&invite, 404), ms(0));
    assert_eq!(receive(&mut layer, &request("ACK", "z9hG4bK1"), true, ms(10)), Received::AckAbsorbed);
    assert_eq!(drain(&mut layer, ms(10)), ["404", "done"]);
    assert_empty(&layer);
}

#[test]
fn rfc6026_accepted_absorbs_invites_passes_acks_and_lets_the_user_repeat() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = server_id(receive(&mut layer, &invite, false, ms(0)));
    assert!(layer.respond(id, answer(&invite, 200), ms(0)));
    assert_eq!(drain(&mut layer, ms(0)), ["200"]);
    assert_eq!(receive(&mut layer, &invite, false, ms(500)), Received::Absorbed);
    assert_eq!(drain(&mut layer, ms(500)), Vec::<String>::new(), "the dialog repeats the 2xx, not the layer");
    assert!(layer.respond(id, answer(&invite, 200), ms(600)));
    assert_eq!(drain(&mut layer, ms(600)), ["200"]);
    assert!(!layer.respond(id, answer(&invite, 486), ms(600)));
    // The ACK has a branch of its own; phones that reuse the INVITE's are understood.
    assert_eq!(receive(&mut layer, &request("ACK", "z9hG4bKother"), false, ms(700)), Received::Ack2xx);
    assert_eq!(receive(&mut layer, &request("ACK", "z9hG4bK1"), false, ms(700)), Received::Ack2xx);
    assert_eq!(run(&mut layer, ms(700), ms(100_000)), ["32000:done"]);
    assert_empty(&layer);
}

#[test]
fn s17_2_2_other_requests() {
    for (reliable, end) in [(false, Some("32300:done")), (true, None)] {
        let mut layer = layer();
        let bye = request("BYE", "z9hG4bK1");
        let id = server_id(receive(&mut layer, &bye, reliable, ms(0)));
        assert_eq!(receive(&mut layer, &bye, reliable, ms(100)), Received::Absorbed);
        assert_eq!(run(&mut layer, ms(100), ms(250)), Vec::<String>::new(), "no 100 to it");
        assert!(layer.respond(id, answer(&bye, 200), ms(300)));
        let Some(end) = end else {
            assert_eq!(drain(&mut layer, ms(300)), ["200", "done"]);
            assert_empty(&layer);
            continue;
        };
        assert_eq!(drain(&mut layer, ms(300)), ["200"]);
        assert_eq!(receive(&mut layer, &bye, reliable, ms(400)), Received::Absorbed);
        assert_eq!(drain(&mut layer, ms(400)), ["200"]);
        assert!(!layer.respond(id, answer(&bye, 500), ms(500)), "one final answer only");
        assert_eq!(run(&mut layer, ms(500), ms(100_000)), [end]);
        assert_empty(&layer);
    }
}

#[test]
fn s17_2_4_transport_error_ends_an_answered_transaction_only() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = server_id(receive(&mut layer, &invite, true, ms(0)));
    layer.respond(id, answer(&invite, 180), ms(0));
    layer.server_transport_error(id, ms(1));
    assert_eq!(layer.len(), 1);
    layer.set_server_hop(id, "again");
    layer.respond(id, answer(&invite, 486), ms(2));
    let last = std::iter::from_fn(|| layer.poll(ms(2))).last();
    assert!(matches!(last, Some(Output::Transmit { to: "again", .. })));
    layer.server_transport_error(id, ms(3));
    assert_eq!(drain(&mut layer, ms(3)), ["done"]);
    assert_empty(&layer);
}

#[test]
fn what_the_user_never_answers_does_not_stay() {
    let mut layer = layer();
    server_id(receive(&mut layer, &request("INVITE", "z9hG4bK1"), false, ms(0)));
    server_id(receive(&mut layer, &request("OPTIONS", "z9hG4bK2"), false, ms(0)));
    assert_eq!(run(&mut layer, ms(0), ms(10_000_000)), ["200:100", "32000:done", "600000:done"]);
    assert_empty(&layer);
}
