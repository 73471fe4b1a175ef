//! Two balancers on one address, and a phone whose packets alternate between them, over networks good and bad.

use super::world::World;
use super::*;
use crate::counters::Counter;
use sip::net_emulator::Conditions;

const LONG: Duration = Duration::from_secs(60);

fn counted(world: &World, counter: Counter) -> u64 {
    world.rigs.iter().map(|r| r.core.counters().get(counter)).sum()
}

fn register(world: &mut World) {
    world.phone_sends("REGISTER", "sip:127.0.0.1", "reg", 1, "", "");
    assert!(world.run(LONG, |w| w.phone.final_status("REGISTER") == Some(401)), "{:?}", world.phone.heard);
    world.phone_sends("REGISTER", "sip:127.0.0.1", "reg", 2, "", "Authorization: Digest x\r\n");
    assert!(world.run(LONG, |w| w.phone.final_status("REGISTER") == Some(200)), "{:?}", world.phone.heard);
}

fn cancelled_call(world: &mut World) {
    world.phone_sends("INVITE", "sip:ring@127.0.0.1", "cancelled", 1, "", "");
    // A 180 may be lost and is not sent again; any 1xx allows a CANCEL.
    assert!(world.run(LONG, |w| w.phone.heard.iter().any(|(m, s)| m == "INVITE" && *s < 200)));
    world.phone_cancels();
    assert!(world.run(LONG, |w| w.phone.final_status("INVITE") == Some(487)), "{:?}", world.phone.heard);
    assert!(world.run(LONG, |w| w.phone.final_status("CANCEL") == Some(200)), "{:?}", world.phone.heard);
}

fn call(world: &mut World, id: &str) {
    world.phone.established = None;
    let (acks, byes) = (world.count("ACK"), world.count("BYE"));
    world.phone_sends("INVITE", "sip:answer@127.0.0.1", id, 1, "", "");
    assert!(world.run(LONG, |w| w.phone.established.is_some()), "{:?}", world.phone.heard);
    assert!(world.run(LONG, |w| w.count("ACK") > acks));
    let (target, tag, routes) = World::dialog(world.phone.established.as_ref().unwrap());
    world.phone_sends("BYE", &target, id, 2, &tag, &routes);
    let before = world.phone.heard.len();
    assert!(world.run(LONG, |w| w.phone.heard[before..].contains(&("BYE".into(), 200))), "{:?}", world.phone.heard);
    assert_eq!(world.count("BYE"), byes + 1);
}

/// Everything a phone does, and that each request reached a service once.
fn everything(seed: u64, conditions: Conditions) -> World {
    let mut world = World::new(seed, conditions, vec![BalancerEntry::Pbx(PbxEntry::default())]);
    register(&mut world);
    cancelled_call(&mut world);
    call(&mut world, "one");
    world.phone_sends("INVITE", "sip:busy@127.0.0.1", "busy", 1, "", "");
    assert!(world.run(LONG, |w| w.phone.has_heard("INVITE", 486)));
    call(&mut world, "two");
    world.run(Duration::from_secs(700), |_| false);
    assert_eq!(world.load(), 0, "seed {seed}: nothing is left");
    assert_eq!(world.phone.timeouts, 0, "seed {seed}");
    // A retransmission that came through the other replica is the same request to who serves it.
    for (method, times) in [("INVITE", 4), ("BYE", 2), ("CANCEL", 1)] {
        let logs: Vec<_> = world.services.iter().map(|s| &s.log).collect();
        assert_eq!(world.count(method), times, "seed {seed}: {method} {logs:?} {:?}", world.phone.heard);
    }
    world
}

#[test]
fn packets_that_alternate_make_whole_calls() {
    let world = everything(1, Conditions::PERFECT);
    assert_eq!(world.count("REGISTER"), 2);
    for rig in &world.rigs {
        assert!(rig.core.counters().get(Counter::OutsideRequest) > 4, "both had their share");
    }
    // The ACK of a refusal that went through the other one was handed to whoever waited for it.
    assert!(counted(&world, Counter::HandedOver) > 0);
    assert_eq!(counted(&world, Counter::Timeout), 0, "every refusal was acknowledged");
}

#[test]
fn packets_that_alternate_make_whole_calls_on_a_bad_network() {
    for seed in 0..40 {
        everything(seed, Conditions::BAD);
    }
}

#[test]
fn one_balancer_alone_does_the_same() {
    for seed in 0..10 {
        let mut world = World::new(seed, Conditions::BAD, vec![BalancerEntry::Pbx(PbxEntry::default())]);
        world.alternate = false;
        world.kill(1);
        register(&mut world);
        cancelled_call(&mut world);
        call(&mut world, "one");
    }
}

#[test]
fn a_cancel_through_the_other_replica_reaches_the_call() {
    let mut world = World::new(5, Conditions::PERFECT, vec![BalancerEntry::Pbx(PbxEntry::default())]);
    world.phone_sends("INVITE", "sip:ring@127.0.0.1", "c", 1, "", "");
    assert!(world.run(LONG, |w| w.phone.has_heard("INVITE", 180)));
    let invites = world.rigs[0].core.counters().get(Counter::OutsideRequest);
    assert_eq!(invites, 1, "the first one has the call");
    world.phone_cancels();
    assert!(world.run(LONG, |w| w.phone.final_status("INVITE") == Some(487)));
    assert_eq!(world.rigs[1].core.counters().get(Counter::OutsideRequest), 1, "the CANCEL went to the second");
    assert_eq!(world.count("CANCEL"), 1);
}

#[test]
fn a_copy_of_an_invite_does_not_end_the_call_it_is_a_copy_of() {
    let mut world = World::new(5, Conditions::PERFECT, vec![BalancerEntry::Pbx(PbxEntry::default())]);
    // The same INVITE reaches both.
    // `slow` says nothing of its own before 200 ms have passed.
    for user in ["ring", "slow"] {
        let text = request("INVITE", &format!("sip:{user}@127.0.0.1"), user, "").replace("call-1", user);
        for _ in 0..2 {
            world.net.send(addr(PHONE), addr(VIP), Bytes::from(text.clone()), Duration::from_secs(100));
        }
    }
    world.run(Duration::from_secs(170), |_| false);
    assert_eq!((world.count("INVITE"), world.count("CANCEL")), (2, 0));
    for rig in &world.rigs {
        assert_eq!(rig.core.counters().get(Counter::OutsideRequest), 2);
        assert_eq!(rig.core.counters().get(Counter::Timeout), 0);
    }
}

#[test]
fn a_call_outlives_the_balancer_that_made_it() {
    let mut world = World::new(9, Conditions::PERFECT, vec![BalancerEntry::Pbx(PbxEntry::default())]);
    world.phone_sends("INVITE", "sip:answer@127.0.0.1", "c", 1, "", "");
    assert!(world.run(LONG, |w| w.count("ACK") > 0));
    world.kill(0);
    let (target, tag, routes) = World::dialog(world.phone.established.as_ref().unwrap());
    world.phone_sends("BYE", &target, "c", 2, &tag, &routes);
    assert!(world.run(LONG, |w| w.phone.final_status("BYE") == Some(200)));
}

/// A router's INVITE to the phone by the first balancer; the phone's answers arrive at the second.
fn answered_at_the_other(kill: bool) -> (u16, usize) {
    let mut rigs = [Rig::plain(), Rig::plain()];
    for (rig, process) in rigs.iter_mut().zip([BALANCER, OTHER]) {
        let listeners = Listeners::new(vec![(Transport::Udp, addr(VIP))], None);
        rig.core = Core::new(Owner { process, shard: 0 }, listeners, Limits::default());
        rig.peers.0.push(Peer::new(Service::Balancer, OTHER));
    }
    let invite = format!(
        "INVITE sip:8006@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/TCP {};branch=z9hG4bKr\r\nFrom: <sip:a@b>;tag=r\r\nTo: <sip:c@d>\r\n\
         Call-ID: b\r\nCSeq: 5 INVITE\r\nRoute: <sip:{}@{VIP};lr>\r\nContent-Length: 0\r\n\r\n",
        contract::hop::host(Service::Router, ROUTER),
        udp(PHONE).token(&keys())
    );
    let (_, sent) = to_outside(&rigs[0].inside(ROUTER, invite)).remove(0);
    if kill {
        rigs[1].set_peers(BALANCER);
    }
    let ringing = answer(&sent, 183, &[]);
    let out = rigs[1].outside(Flow { process: OTHER, ..udp(PHONE) }, std::str::from_utf8(&ringing).unwrap());
    let mut handed = 0;
    let out = match out.as_slice() {
        [Output::HandOver { to, bytes }] => {
            assert_eq!(*to, Owner { process: BALANCER, shard: 0 });
            handed = 1;
            let inside = Inside { from: OTHER, service: Service::Balancer, bytes: bytes.clone() };
            rigs[0].handle(Input::Inside(inside))
        }
        _ => out,
    };
    let (to, bytes) = to_inside(&out).remove(0);
    assert_eq!(to, ROUTER);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.values(Name::Via).count(), 1);
    assert!(message.other(crate::handover::HEADER).is_none());
    (message.status().unwrap(), handed)
}

#[test]
fn a_response_goes_to_its_owner_or_on_without_one() {
    assert_eq!(answered_at_the_other(false), (183, 1));
    assert_eq!(answered_at_the_other(true), (183, 0));
}

#[test]
fn a_hand_over_that_fails_sends_the_response_on() {
    let mut rig = Rig::plain();
    rig.peers.0.push(Peer::new(Service::Balancer, OTHER));
    let branch = Owner { process: OTHER, shard: 0 }.branch(&keys(), &mut StdRng::seed_from_u64(1));
    let text = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {VIP};branch={branch}\r\nVia: SIP/2.0/TCP {};branch=z9hG4bKx\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
        contract::hop::host(Service::Router, ROUTER2)
    );
    let out = rig.outside(udp(PHONE), &text);
    let Output::HandOver { bytes, .. } = out[0].clone() else { panic!("{out:?}") };
    let out = rig.handle(Input::HandOverFailed { bytes });
    let (to, bytes) = to_inside(&out).remove(0);
    assert_eq!((to, Message::parse(&bytes).unwrap().values(Name::Via).count()), (ROUTER2, 1));
}

#[test]
fn what_is_another_shards_is_passed_on_within_the_process() {
    let mut rig = Rig::plain();
    let other = Owner { process: BALANCER, shard: 1 };
    let branch = other.branch(&keys(), &mut StdRng::seed_from_u64(1));
    let text = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {VIP};branch={branch}\r\nVia: SIP/2.0/TCP x.invalid;branch=z9hG4bKx\r\n\
         From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    );
    let out = rig.outside(udp(PHONE), &text);
    assert!(matches!(&out[..], [Output::HandOver { to, .. }] if *to == other), "{out:?}");
}
