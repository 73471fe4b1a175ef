//! The table is bounded and forgets.

use super::*;

#[test]
fn full_table_turns_requests_away_but_takes_the_cancel_that_frees_it() {
    let mut layer: Layer = Transactions::new(Timers::default(), 2);
    let invite = request("INVITE", "z9hG4bK1");
    server_id(receive(&mut layer, &invite, false, ms(0)));
    server_id(receive(&mut layer, &request("INVITE", "z9hG4bK2"), false, ms(0)));
    let third = request("INVITE", "z9hG4bK3");
    assert_eq!(receive(&mut layer, &third, false, ms(0)), Received::Overflow);
    assert_eq!(receive(&mut layer, &request("CANCEL", "z9hG4bK9"), false, ms(0)), Received::Overflow);
    let cancel = receive(&mut layer, &request("CANCEL", "z9hG4bK1"), false, ms(0));
    assert!(matches!(cancel, Received::Cancel { invite: Some(_), .. }));
    assert_eq!(layer.send(request("BYE", "z9hG4bK4"), "p", false, ms(0)), Err(SendError::Overflow));
    assert_eq!((layer.len(), layer.overflows()), (3, 3));
    // A retransmission of what is in the table is no new entry.
    assert_eq!(receive(&mut layer, &invite, false, ms(0)), Received::Absorbed);
}

#[test]
fn overloaded_answers_each_copy_alike_and_never_an_ack() {
    let invite = request("INVITE", "z9hG4bK1");
    let msg = Message::parse(&invite).unwrap();
    let first = overloaded(&msg, 7).unwrap();
    assert_eq!(overloaded(&msg, 7), Some(first.clone()));
    let refusal = Message::parse_stream(&first).unwrap();
    assert_eq!((refusal.status(), refusal.header(Name::RetryAfter)), (Some(503), Some("7")));
    assert!(refusal.to().unwrap().tag().is_some());
    assert_eq!(refusal.via().unwrap().branch(), Some("z9hG4bK1"));
    let other = overloaded(&Message::parse(&request("INVITE", "z9hG4bK2")).unwrap(), 7).unwrap();
    assert_ne!(Message::parse(&other).unwrap().to().unwrap().tag(), refusal.to().unwrap().tag());
    assert_eq!(overloaded(&Message::parse(&request("ACK", "z9hG4bK1")).unwrap(), 7), None);
    assert_eq!(overloaded(&refusal, 7), None);
}

#[test]
fn a_peer_cannot_grow_the_output_queue() {
    let mut layer: Layer = Transactions::new(Timers::default(), 4);
    let invite = request("INVITE", "z9hG4bK1");
    let id = server_id(receive(&mut layer, &invite, false, ms(0)));
    layer.respond(id, answer(&invite, 180), ms(0));
    for _ in 0..10_000 {
        receive(&mut layer, &invite, false, ms(1));
    }
    assert!(drain(&mut layer, ms(1)).len() <= 1024 + 4 + 1);
    assert!(layer.overflows() > 8000);
}

#[test]
fn a_hundred_thousand_transactions_leave_nothing() {
    let mut layer: Layer = Transactions::new(Timers::default(), 1000);
    for n in 0..100_000u64 {
        let now = ms(n);
        let bye = request("BYE", &format!("z9hG4bK{n}"));
        let id = server_id(receive(&mut layer, &bye, true, now));
        layer.respond(id, answer(&bye, 200), now);
        assert_eq!(drain(&mut layer, now), ["200", "done"]);
    }
    assert_empty(&layer);
    assert_eq!(layer.overflows(), 0);
}

#[test]
fn timers_of_zero_do_not_spin() {
    let zero = Duration::ZERO;
    let timers = Timers {
        t1: zero,
        t2: zero,
        t4: zero,
        d: zero,
        c: Some(zero),
        trying: Some(zero),
        abandon: zero,
        linger: false,
    };
    let mut layer: Layer = Transactions::new(timers, 10);
    layer.send(request("INVITE", "z9hG4bK1"), "p", false, ms(0)).unwrap();
    layer.send(request("OPTIONS", "z9hG4bK2"), "p", false, ms(0)).unwrap();
    receive(&mut layer, &request("INVITE", "z9hG4bK3"), false, ms(0));
    assert!(drain(&mut layer, ms(0)).len() < 10);
    run(&mut layer, ms(0), ms(1000));
    assert_empty(&layer);
}
