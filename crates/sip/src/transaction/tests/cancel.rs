//! RFC 3261 9: CANCEL.

use super::*;

#[test]
fn s9_1_cancel_copies_the_invite_and_waits_for_a_provisional() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = layer.send(invite.clone(), "peer", false, ms(0)).unwrap();
    drain(&mut layer, ms(0));
    assert!(!layer.may_cancel(id));
    receive(&mut layer, &answer(&invite, 100), false, ms(10));
    assert!(layer.may_cancel(id));
    let bytes = layer.cancel_with(id, &["SIP;cause=200;text=\"Call completed elsewhere\""]).unwrap();
    let (cancel, sent) = (Message::parse_stream(&bytes).unwrap(), Message::parse(&invite).unwrap());
    assert_eq!((cancel.method(), cancel.uri()), (Some(Method::Cancel), sent.uri()));
    for name in [Name::Via, Name::From, Name::To, Name::CallId] {
        assert_eq!(cancel.header(name), sent.header(name), "{name:?}");
    }
    assert_eq!(cancel.header(Name::CSeq), Some("1 CANCEL"));
    assert_eq!(cancel.header(Name::Reason), Some("SIP;cause=200;text=\"Call completed elsewhere\""));
    assert_eq!(cancel.header(Name::Contact), None);
}

#[test]
fn s9_1_cancelled_invite_ends_with_487_or_after_64_t1() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = layer.send(invite.clone(), "peer", false, ms(0)).unwrap();
    receive(&mut layer, &answer(&invite, 180), false, ms(10));
    let bytes = layer.cancel_of(id).unwrap();
    let cancel = layer.send(bytes.clone(), "peer", false, ms(1000)).unwrap();
    assert_eq!(drain(&mut layer, ms(1000)), ["INVITE", "CANCEL"]);
    assert_eq!(receive(&mut layer, &answer(&bytes, 200), false, ms(1010)), Received::Response(cancel));
    // A provisional does not prolong the wait.
    assert_eq!(receive(&mut layer, &answer(&invite, 180), false, ms(5000)), Received::Response(id));
    let mut other = layer.cancel_of(id);
    assert!(other.take().is_some());
    assert_eq!(receive(&mut layer, &answer(&invite, 487), false, ms(5100)), Received::Response(id));
    assert_eq!(layer.cancel_of(id), None, "nothing left to cancel");
    assert_eq!(run(&mut layer, ms(5100), ms(100_000)), ["5100:ACK", "6010:done", "37100:done"]);
    assert_empty(&layer);

    let id = layer.send(invite.clone(), "peer", false, ms(100_000)).unwrap();
    receive(&mut layer, &answer(&invite, 180), false, ms(100_010));
    let bytes = layer.cancel_of(id).unwrap();
    layer.send(bytes.clone(), "peer", true, ms(101_000)).unwrap();
    receive(&mut layer, &answer(&bytes, 200), true, ms(101_010));
    drain(&mut layer, ms(101_010));
    assert_eq!(run(&mut layer, ms(101_010), ms(300_000)), ["133000:timeout", "133000:done"]);
    assert_empty(&layer);
}

#[test]
fn s9_1_crossing_2xx_wins_over_cancel() {
    let mut layer = layer();
    let invite = request("INVITE", "z9hG4bK1");
    let id = layer.send(invite.clone(), "peer", true, ms(0)).unwrap();
    receive(&mut layer, &answer(&invite, 180), true, ms(10));
    let cancel = layer.cancel_of(id).unwrap();
    layer.send(cancel.clone(), "peer", true, ms(20)).unwrap();
    assert_eq!(receive(&mut layer, &answer(&invite, 200), true, ms(30)), Received::Response(id));
    receive(&mut layer, &answer(&cancel, 200), true, ms(40));
    assert_eq!(run(&mut layer, ms(40), ms(100_000)), ["40:INVITE", "40:CANCEL", "40:done", "32030:done"]);
    assert_empty(&layer);
}
