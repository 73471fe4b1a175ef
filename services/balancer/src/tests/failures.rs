//! Processes that go, flows that are gone, tables that are full.

use super::*;
use crate::counters::Counter;
use sip::Method;
use sip::transaction::Timers;

fn invite(branch: &str) -> String {
    request("INVITE", "sip:8006@127.0.0.1", branch, "")
}

fn to_flow(flow: &Flow, branch: &str) -> String {
    format!(
        "INVITE sip:8006@10.0.0.1:5070 SIP/2.0\r\nVia: SIP/2.0/TCP {};branch=z9hG4bK{branch}\r\nFrom: <sip:8005@pbx>;tag=r\r\n\
         To: <sip:8006@pbx>\r\nCall-ID: leg-b\r\nCSeq: 5 INVITE\r\nRoute: <sip:{}@127.0.0.1:5060;lr>\r\nContent-Length: 0\r\n\r\n",
        contract::hop::host(Service::Router, ROUTER),
        flow.token(&keys())
    )
}

fn inside_statuses(out: &[Output]) -> Vec<u16> {
    to_inside(out).iter().filter_map(|(_, b)| Message::parse(b).unwrap().status()).collect()
}

#[test]
fn a_router_that_drains_or_dies_is_replaced_within_the_transaction() {
    // 503, a failed send, and a record that is gone: each leads to the other router, unseen by the phone.
    for failure in 0..3 {
        let mut rig = Rig::plain();
        rig.handle(Input::Changed);
        let (first, bytes) = to_inside(&rig.outside(udp(PHONE), &invite("a"))).remove(0);
        let out = match failure {
            0 => rig.inside(first, answer(&bytes, 503, &[])),
            1 => rig.handle(Input::SendFailed { bytes }),
            _ => rig.set_peers(first),
        };
        assert_eq!(statuses(&out), [0u16; 0], "{failure}");
        let requests: Vec<_> = to_inside(&out)
            .into_iter()
            .filter(|(_, b)| Message::parse(b).unwrap().method() == Some(Method::Invite))
            .collect();
        let (second, bytes) = requests[0].clone();
        assert!(second != first && (second == ROUTER || second == ROUTER2), "{failure}");
        assert_eq!(statuses(&rig.inside(second, answer(&bytes, 200, &[]))), [200], "{failure}");
    }
}

#[test]
fn a_refusal_of_all_routers_reaches_the_phone_with_its_retry_after() {
    let mut rig = Rig::plain();
    let (first, bytes) = to_inside(&rig.outside(udp(PHONE), &invite("a"))).remove(0);
    let out = rig.inside(first, answer(&bytes, 503, &[(Name::RetryAfter, "17")]));
    let (second, bytes) = to_inside(&out).into_iter().find(|(p, _)| *p != first).unwrap();
    let out = rig.inside(second, answer(&bytes, 503, &[(Name::RetryAfter, "17")]));
    let (_, bytes) = to_outside(&out).remove(0);
    assert_eq!(Message::parse(&bytes).unwrap().header(Name::RetryAfter), Some("17"));
}

#[test]
fn without_any_router_the_answer_is_503() {
    let mut rig = Rig::plain();
    rig.peers.0.retain(|p| p.service != Service::Router);
    assert_eq!(statuses(&rig.outside(udp(PHONE), &invite("a"))), [503]);
}

#[test]
fn an_early_dialog_does_not_move() {
    let mut rig = Rig::plain();
    rig.handle(Input::Changed);
    let (first, bytes) = to_inside(&rig.outside(udp(PHONE), &invite("a"))).remove(0);
    rig.inside(first, answer(&bytes, 180, &[]));
    let out = rig.set_peers(first);
    assert_eq!((statuses(&out), to_inside(&out).len()), (vec![503], 0));
}

/// An INVITE that a router holds, and the router is gone: the other router, the INVITE as it went inside.
fn orphaned() -> (Rig, ProcessId, bytes::Bytes) {
    let mut rig = Rig::plain();
    rig.handle(Input::Changed);
    let (first, bytes) = to_inside(&rig.outside(udp(PHONE), &invite("a"))).remove(0);
    let held = answer(&bytes, 180, &[]);
    let held = String::from_utf8(held.to_vec()).unwrap().replace("\r\n\r\n", "\r\nX-KubePBX-Held: yes\r\n\r\n");
    let out = rig.inside(first, held);
    assert_eq!(statuses(&out), [180]);
    assert!(!String::from_utf8_lossy(&to_outside(&out)[0].1).contains("X-KubePBX"));
    let out = rig.set_peers(first);
    assert_eq!((statuses(&out), to_inside(&out).len()), (vec![], 0), "another router is waited for");
    (rig, if first == ROUTER { ROUTER2 } else { ROUTER }, bytes)
}

#[test]
fn what_a_router_held_that_is_gone_goes_on_at_the_one_that_answers() {
    for cancel in [false, true] {
        let (mut rig, heir, bytes) = orphaned();
        assert_eq!(statuses(&rig.inside(heir, answer(&bytes, 180, &[]))), [180]);
        if !cancel {
            // The failure's ACK is for who gave it.
            let out = rig.inside(heir, answer(&bytes, 480, &[]));
            assert_eq!(statuses(&out), [480]);
            let (to, ack) = to_inside(&out).remove(0);
            assert_eq!((to, Message::parse(&ack).unwrap().method()), (heir, Some(Method::Ack)));
            continue;
        }
        let out = rig.outside(udp(PHONE), &request("CANCEL", "sip:8006@127.0.0.1", "a", ""));
        let (to, cancel) = to_inside(&out).remove(0);
        assert_eq!((to, Message::parse(&cancel).unwrap().method()), (heir, Some(Method::Cancel)));
        assert_eq!(statuses(&rig.inside(heir, answer(&bytes, 487, &[]))), [487]);
    }
}

#[test]
fn who_cancels_while_nobody_has_its_call_is_answered_and_whoever_goes_on_is_told() {
    let (mut rig, heir, bytes) = orphaned();
    let out = rig.outside(udp(PHONE), &request("CANCEL", "sip:8006@127.0.0.1", "a", ""));
    assert_eq!((statuses(&out), to_inside(&out).len()), (vec![200, 487], 0));
    let out = rig.inside(heir, answer(&bytes, 180, &[]));
    let (to, cancel) = to_inside(&out).remove(0);
    assert_eq!((to, Message::parse(&cancel).unwrap().method()), (heir, Some(Method::Cancel)));
    assert_eq!(statuses(&out), [0u16; 0]);
}

#[test]
fn what_nobody_goes_on_with_is_answered_503() {
    let (mut rig, _, _) = orphaned();
    rig.pass(Duration::from_secs(9));
    assert_eq!(statuses(&rig.pass(Duration::from_secs(1))), [503]);
}

#[test]
fn flows_that_cannot_be_sent_on_fail() {
    let gone = |transport, process, connection, local: &str| Flow {
        transport,
        process,
        connection,
        local: addr(local),
        remote: addr(PHONE),
    };
    for (n, (flow, reached)) in [
        (gone(Transport::Udp, ProcessId(99), 0, VIP), true), // our address now, whoever had it
        (gone(Transport::Udp, BALANCER, 0, "127.0.0.2:5060"), false), // nobody's any more
        (gone(Transport::Tcp, ProcessId(99), 3, VIP), false), // only that process had the connection
        (gone(Transport::Tcp, BALANCER, 3, VIP), true),
    ]
    .into_iter()
    .enumerate()
    {
        let mut rig = Rig::plain();
        let out = rig.inside(ROUTER, to_flow(&flow, &format!("f{n}")));
        let want = if reached { 100 } else { 430 };
        assert_eq!((inside_statuses(&out), to_outside(&out).len()), (vec![want], usize::from(reached)), "{flow:?}");
    }
}

#[test]
fn a_virtual_address_is_sent_from_only_while_this_machine_has_it() {
    let mut rig = Rig::plain();
    let mut asked = 0;
    for (bare, want) in [(false, 100), (true, 430), (false, 100)] {
        rig.machine.bare = bare;
        rig.now = rig.now.plus(Duration::from_millis(100));
        asked += 1;
        let out = rig.inside(ROUTER, to_flow(&udp(PHONE), &format!("v{asked}")));
        assert_eq!((inside_statuses(&out), to_outside(&out).len()), (vec![want], usize::from(want == 100)));
    }
}

#[test]
fn a_connection_that_ends_fails_what_went_out_on_it() {
    for how in 0..2 {
        let mut rig = Rig::plain();
        let (_, bytes) = to_outside(&rig.inside(ROUTER, to_flow(&tcp(3, PHONE), "f"))).remove(0);
        let out = match how {
            0 => rig.handle(Input::FlowGone { connection: 3, made_to: None }),
            _ => rig.handle(Input::SendFailed { bytes }),
        };
        assert_eq!(inside_statuses(&out), [430], "{how}");
    }
    // One that has rung already is not told that it never could.
    let mut rig = Rig::plain();
    let (flow, bytes) = to_outside(&rig.inside(ROUTER, to_flow(&tcp(3, PHONE), "f"))).remove(0);
    rig.outside(flow, std::str::from_utf8(&answer(&bytes, 180, &[])).unwrap());
    let out = rig.handle(Input::FlowGone { connection: 3, made_to: None });
    assert_eq!(inside_statuses(&out), [430]);
}

#[test]
fn a_phone_that_never_answers_is_a_timeout_and_nothing_is_left() {
    let mut rig = Rig::plain();
    let out = rig.inside(ROUTER, to_flow(&udp(PHONE), "f"));
    assert_eq!(to_outside(&out).len(), 1);
    let out = rig.pass(Duration::from_secs(33));
    assert_eq!(inside_statuses(&out), [408]);
    assert_eq!(to_outside(&out).len(), 6, "timer A: 0.5, 1.5, 3.5, 7.5, 15.5, 31.5 s");
    rig.pass(Duration::from_secs(700));
    assert_eq!((rig.core.load(), rig.core.deadline()), (0, None));
}

#[test]
fn calls_leave_nothing_behind() {
    let mut rig = Rig::plain();
    for n in 0..50 {
        let (router, bytes) = to_inside(&rig.outside(udp(PHONE), &invite(&format!("n{n}")))).remove(0);
        let status = [200, 486, 404][n % 3];
        rig.inside(router, answer(&bytes, 180, &[]));
        assert_eq!(statuses(&rig.inside(router, answer(&bytes, status, &[]))), [status]);
    }
    rig.pass(Duration::from_secs(200));
    assert_eq!((rig.core.load(), rig.core.deadline()), (0, None));
}

#[test]
fn a_full_table_says_so_without_growing() {
    let mut rig = Rig::plain();
    let listeners = Listeners::new(vec![(Transport::Udp, addr(VIP))], None);
    let limits = Limits { transactions: 10, timers: Timers { trying: None, ..Timers::default() }, ..Limits::default() };
    rig.core = Core::new(Owner { process: BALANCER, shard: 0 }, listeners, limits);
    let refused: usize = (0..100)
        .map(|n| rig.outside(udp(PHONE), &invite(&format!("o{n}"))))
        .filter(|out| statuses(out).contains(&503))
        .count();
    assert!(refused >= 90, "{refused}");
    assert!(rig.core.load() <= 20);
}

#[test]
fn a_line_that_is_no_field_gets_400_where_the_rest_can_be_answered() {
    let counted = |rig: &Rig| {
        let of = |c| rig.core.counters().get(c);
        (of(Counter::Malformed), of(Counter::Unparsable))
    };
    let mut rig = Rig::plain();
    let register = request("REGISTER", "sip:pbx", "m1", "this is no field\r\n folded on: and on\r\nExpires: 60\r\n");
    let out = rig.outside(udp(PHONE), &register);
    assert_eq!(statuses(&out), [400]);
    let (flow, bytes) = to_outside(&out).remove(0);
    let answer = Message::parse(&bytes).unwrap();
    assert_eq!((flow.remote, answer.reason()), (addr(PHONE), Some("Bad Request (malformed header line)")));
    assert_eq!((answer.call_id(), answer.header(Name::CSeq)), (Ok("call-1"), Some("1 REGISTER")));
    assert!(to_inside(&out).is_empty());
    assert_eq!(counted(&rig), (1, 0));
    // Nothing answers an ACK or a response, nor what names no way back: they are counted.
    for text in [
        request("ACK", "sip:8006@pbx", "m2", "this is no field\r\n"),
        "SIP/2.0 200 OK\r\nno field\r\nVia: SIP/2.0/UDP 127.0.0.1\r\n\r\n".to_owned(),
        "REGISTER sip:pbx SIP/2.0\r\nVia\r\nTo: <sip:a@b>\r\n\r\n".to_owned(),
    ] {
        let out = rig.outside(udp(PHONE), &text);
        assert!(out.is_empty(), "{text}: {out:?}");
    }
    assert_eq!(counted(&rig), (2, 2));
}

/// An in-dialog request of a leg that this router made.
fn to_leg(method: &str, owner: ProcessId, leg: &str, branch: &str) -> String {
    let token = contract::leg::LegToken { process: owner, leg: leg.into() }.seal(&keys());
    let route = format!("Route: <sip:{}@127.0.0.1:5060;lr>\r\n", udp(PHONE).token(&keys()));
    request(method, &format!("sip:{token}@127.0.0.1"), branch, &route).replace("@pbx>\r\nCall", "@pbx>;tag=t\r\nCall")
}

const ROUTER3: ProcessId = ProcessId(12);

fn three() -> Rig {
    let mut rig = Rig::plain();
    rig.peers.0.push(Peer::new(Service::Router, ROUTER3));
    rig.handle(Input::Changed);
    rig
}

#[test]
fn requests_of_a_dead_routers_legs_go_where_its_survivors_divide_them() {
    let mut rig = three();
    rig.set_peers(ROUTER);
    let mut had = [0; 2];
    for n in 0..40 {
        let call = format!("{n:016x}0000000000000000");
        let heir = rig.peers.choose(Service::Router, contract::leg::family(&call).as_bytes()).unwrap();
        // Both sides of the call, whatever stands behind the family.
        for own in ["aaaa", "bbbb"] {
            let leg = contract::leg::leg_id(&call, own);
            let out = rig.outside(udp(PHONE), &to_leg("BYE", ROUTER, &leg, &format!("{n}{own}")));
            assert_eq!(to_inside(&out).remove(0).0, heir, "{leg}");
        }
        had[usize::from(heir == ROUTER3)] += 1;
    }
    assert!(had[0] > 8 && had[1] > 8, "{had:?}");
}

#[test]
fn an_owner_that_does_not_take_a_request_is_replaced_by_the_others_in_turn() {
    // Not reached, or 503 from one that is just going; its record stands all the while.
    for unsent in [true, false] {
        let mut rig = three();
        let fail = |rig: &mut Rig, to, bytes: Bytes| match unsent {
            true => rig.handle(Input::SendFailed { bytes }),
            false => rig.inside(to, answer(&bytes, 503, &[])),
        };
        let (mut to, mut bytes) = to_inside(&rig.outside(udp(PHONE), &to_leg("BYE", ROUTER, "leg-1", "b"))).remove(0);
        let mut seen = vec![to];
        for _ in 0..2 {
            let out = fail(&mut rig, to, bytes);
            assert_eq!(statuses(&out), [0u16; 0]);
            (to, bytes) = to_inside(&out).remove(0);
            seen.push(to);
        }
        assert_eq!(seen[0], ROUTER);
        seen.sort();
        assert_eq!(seen, [ROUTER, ROUTER2, ROUTER3]);
        let out = fail(&mut rig, to, bytes);
        assert_eq!((statuses(&out), to_inside(&out).len()), (vec![503], 0));
    }
}

#[test]
fn a_draining_owner_keeps_its_legs_and_gets_no_new_calls() {
    let mut rig = three();
    for router in [ROUTER2, ROUTER3] {
        rig.peers.0.iter_mut().find(|p| p.process == router).unwrap().state = PeerState::Draining;
    }
    let bye = to_leg("BYE", ROUTER2, "leg-1", "b");
    assert_eq!(to_inside(&rig.outside(udp(PHONE), &bye)).remove(0).0, ROUTER2);
    for n in 0..20 {
        let text = invite(&format!("n{n}")).replace("call-1", &format!("call-{n}"));
        assert_eq!(to_inside(&rig.outside(udp(PHONE), &text)).remove(0).0, ROUTER);
        let gone = to_leg("BYE", ProcessId(99), &format!("leg-{n}"), &format!("g{n}"));
        assert_eq!(to_inside(&rig.outside(udp(PHONE), &gone)).remove(0).0, ROUTER, "nor legs of the dead");
    }
}

#[test]
fn an_ack_that_did_not_reach_its_owner_goes_on_once() {
    let mut rig = three();
    let (to, bytes) = to_inside(&rig.outside(udp(PHONE), &to_leg("ACK", ROUTER, "leg-1", "k"))).remove(0);
    assert_eq!(to, ROUTER);
    let out = rig.handle(Input::SendFailed { bytes });
    let (to, bytes) = to_inside(&out).remove(0);
    let others = rig.peers.0.iter().filter(|p| p.service == Service::Router && p.process != ROUTER);
    let heir = contract::rendezvous::choose(b"leg-1", others.map(|p| (p.process, p.weight))).unwrap();
    assert_eq!((to, Message::parse(&bytes).unwrap().method()), (heir, Some(Method::Ack)));
    assert!(rig.handle(Input::SendFailed { bytes }).is_empty());
}

#[test]
fn a_registrar_that_drains_or_dies_is_replaced_within_the_transaction() {
    for failure in 0..3 {
        let mut rig = Rig::plain();
        rig.peers.0.push(Peer::new(Service::Registrar, ProcessId(21)));
        rig.handle(Input::Changed);
        let out = rig.outside(udp(PHONE), &request("REGISTER", "sip:127.0.0.1", "a", ""));
        let (first, bytes) = to_inside(&out).remove(0);
        let out = match failure {
            0 => rig.inside(first, answer(&bytes, 503, &[])),
            1 => rig.handle(Input::SendFailed { bytes }),
            _ => rig.set_peers(first),
        };
        let (second, bytes) = to_inside(&out).remove(0);
        assert!(second != first && [REGISTRAR, ProcessId(21)].contains(&second), "{failure}");
        assert_eq!(statuses(&rig.inside(second, answer(&bytes, 200, &[]))), [200], "{failure}");
    }
}
