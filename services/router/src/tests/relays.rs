//! Relays that are lost, full or told to go: calls begin elsewhere, and those that talk are re-offered onto another.

use super::fleet::HEIR;
use super::lab::*;
use super::phones::*;
use crate::core::{Turn, View};
use crate::io::{Ask, Input};
use bytes::Bytes;
use contract::media::{MediaEvent, MediaEventKind};
use contract::ng::Command;
use contract::peers::{Peer, PeerState};
use contract::records::LegRecord;
use contract::{ProcessId, Service};
use rtp::sdp::{Direction, Session};
use std::time::Duration;

const OTHER: ProcessId = ProcessId(0xffff);
const SDP: &str = "application/sdp";

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Lab {
    /// A second relay appears.
    fn another(&mut self) {
        self.peers.0.push(Peer::new(Service::Media, OTHER));
    }

    fn tell(&mut self, relay: ProcessId, seq: u64, leg: Option<&str>, kind: MediaEventKind) {
        let call = self.core.view()[0]["id"].as_str().unwrap().to_owned();
        let event = MediaEvent { seq, call, tag: leg.map(str::to_owned), kind };
        self.input(Input::Media { relay, event: &event });
    }

    /// Ports that a relay has, by leg.
    fn ports(&self, relay: ProcessId) -> Vec<(String, u16)> {
        let there = self.relay.iter().filter(|((at, ..), _)| *at == relay);
        there.map(|((_, _, leg), port)| (leg.clone(), *port)).collect()
    }

    fn port_of(&self, relay: ProcessId, endpoint: &str) -> u16 {
        let call = &self.core.view()[0];
        let leg = call["legs"].as_array().unwrap().iter().find(|l| l["endpoint"] == endpoint).unwrap();
        self.ports(relay).into_iter().find(|(id, _)| leg["id"] == *id).unwrap().1
    }

    /// The re-INVITE that moves a phone's media; the phone agrees with `said`.
    #[track_caller]
    fn moves(&mut self, phone: &Phone, relay: ProcessId, said: &str) -> Session {
        let reinvite = self.request_to("INVITE", &phone.name);
        let told = body(&reinvite);
        assert_eq!(told.media[0].port, self.port_of(relay, &phone.name));
        self.answer(phone, &reinvite, 200, Some(said));
        self.request_to("ACK", &phone.name);
        told
    }

    /// The caller hangs up, and nothing is left.
    #[track_caller]
    fn over(mut self, a: &mut Phone, b: &Phone) {
        self.revive();
        self.within(a, "BYE", None);
        self.response(200, "BYE");
        let bye = self.request_to("BYE", "8006");
        self.answer(b, &bye, 200, None);
        self.quiet();
        self.empty();
    }

    /// Relays that were gone are there again, with nothing.
    fn revive(&mut self) {
        let silent = std::mem::take(&mut self.silent);
        self.relay.retain(|(at, ..), _| !silent.contains(at));
    }

    fn leg_records(&self) -> Vec<LegRecord> {
        let legs = self.records.iter().filter(|((kind, _), _)| kind == "leg");
        legs.map(|(_, value)| serde_json::from_slice(value).unwrap()).collect()
    }
}

#[test]
fn a_lost_relays_call_is_re_offered_onto_another_within_a_second() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    let before = lab.leg_records();
    lab.another();
    lab.silent.insert(RELAY);
    // One miss is none.
    lab.advance(millis(600));
    lab.quiet();
    lab.advance(millis(400));
    for (phone, said, formats) in
        [(&a, sdp(4000, "0 8 101"), &["0", "101"][..]), (&b, sdp(5000, "0 101"), &["0", "8", "101"])]
    {
        let told = lab.moves(phone, OTHER, &said);
        assert_eq!(told.media[0].formats, formats, "the same payload types");
        assert_eq!((told.origin.version, told.media.len(), told.direction(0)), (2, 1, Direction::SendRecv));
        let leg = before.iter().find(|l| l.endpoint == phone.name).unwrap();
        let old = Session::parse(leg.local_sdp.as_bytes()).unwrap();
        assert_eq!((old.origin.session_id, 1), (told.origin.session_id, old.origin.version));
        assert_ne!(old.media[0].port, told.media[0].port);
    }
    lab.quiet();
    assert!(lab.leg_records().iter().all(|l| l.relay == Some(OTHER)));
    for leg in lab.leg_records() {
        assert_eq!(Session::parse(leg.local_sdp.as_bytes()).unwrap().origin.version, 2);
    }
    // The session timer and everything else go on, and the lost one is not chosen while its record stands.
    lab.seconds(5);
    lab.quiet();
    assert_eq!(lab.core.counters().moves, 1);
    lab.peers.0.retain(|p| p.process != RELAY);
    lab.over(&mut a, &b);
}

#[test]
fn a_call_on_hold_stays_on_hold() {
    let mut lab = Lab::new();
    let (mut a, mut b) = lab.talk();
    let hold = format!("{}a=sendonly\r\n", sdp(5000, "0 101").replace("phone 1 1", "phone 1 2"));
    let held = format!("{}a=recvonly\r\n", sdp(4000, "0 101"));
    lab.within(&mut b, "INVITE", Some((SDP, &hold)));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8005");
    lab.answer(&a, &reinvite, 200, Some(&held));
    lab.request_to("ACK", "8005");
    lab.response(200, "INVITE");
    lab.within(&mut b, "ACK", None);
    lab.another();
    lab.silent.insert(RELAY);
    lab.seconds(1);
    assert_eq!(lab.moves(&a, OTHER, &held).direction(0), Direction::SendOnly);
    assert_eq!(lab.moves(&b, OTHER, &hold).direction(0), Direction::RecvOnly);
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn a_record_that_is_gone_makes_one_miss_enough_but_says_nothing_against_answers() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.another();
    lab.peers.0.retain(|p| p.process != RELAY);
    lab.seconds(10);
    lab.quiet();
    lab.silent.insert(RELAY);
    lab.advance(millis(500));
    lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.over(&mut a, &b);
}

#[test]
fn glare_and_a_busy_phone_are_told_again() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.another();
    lab.silent.insert(RELAY);
    lab.seconds(1);
    for (phone, status) in [(&a, 491), (&b, 500)] {
        let reinvite = lab.request_to("INVITE", &phone.name);
        lab.answer(phone, &reinvite, status, None);
        lab.request_to("ACK", &phone.name);
    }
    lab.quiet();
    // We did not make the caller's Call-ID: at most two seconds.
    lab.seconds(2);
    let told = lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    assert_eq!(told.origin.version, 3);
    // The callee's phone has something to say itself meanwhile: ours waits its turn, and 491 from it lasts longer.
    let reinvite = lab.request_to("INVITE", "8006");
    lab.answer(&b, &reinvite, 491, None);
    lab.request_to("ACK", "8006");
    lab.seconds(2);
    lab.quiet();
    lab.seconds(2);
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn a_change_that_is_under_way_ends_first() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    let hold = format!("{}a=sendonly\r\n", sdp(4000, "0 101").replace("phone 1 1", "phone 1 2"));
    let held = format!("{}a=recvonly\r\n", sdp(5000, "0 101"));
    lab.within(&mut a, "INVITE", Some((SDP, &hold)));
    lab.response(100, "INVITE");
    let reinvite = lab.request_to("INVITE", "8006");
    lab.another();
    lab.silent.insert(RELAY);
    lab.seconds(1);
    lab.quiet();
    lab.answer(&b, &reinvite, 200, Some(&held));
    lab.request_to("ACK", "8006");
    // The answer names the new relay at once; the callee was told the old one.
    let ok = body(&lab.response(200, "INVITE"));
    assert_eq!((ok.media[0].port, ok.direction(0)), (lab.port_of(OTHER, "8005"), Direction::RecvOnly));
    lab.within(&mut a, "ACK", None);
    lab.seconds(1);
    assert_eq!(lab.moves(&b, OTHER, &held).direction(0), Direction::SendOnly);
    lab.moves(&a, OTHER, &hold);
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn a_relay_that_is_lost_while_it_rings_costs_a_re_invite() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 183, Some(&sdp(5000, "0 101")));
    let early = body(&lab.response(183, "INVITE")).media[0].port;
    lab.another();
    lab.silent.insert(RELAY);
    lab.seconds(1);
    lab.quiet();
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    let ok = lab.response(200, "INVITE");
    let port = body(&ok).media[0].port;
    assert_eq!(port, lab.port_of(OTHER, "8005"));
    assert_ne!(port, early);
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    // The caller may go by what it heard first: it is told in words that it must obey.
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    assert!(lab.moves(&a, OTHER, &sdp(4000, "0 101")).origin.version > body(&ok).origin.version);
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn an_answer_that_finds_its_relay_gone_goes_to_another() {
    let mut lab = Lab::new();
    lab.register("8006");
    let mut a = lab.call("8005", "8006");
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.another();
    lab.silent.insert(RELAY);
    // Before any probe.
    lab.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
    lab.request_to("ACK", "8006");
    let ok = lab.response(200, "INVITE");
    assert_eq!(body(&ok).media[0].port, lab.port_of(OTHER, "8005"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn a_new_call_begins_at_a_relay_that_takes_it() {
    for silent in [false, true] {
        let mut lab = Lab::new();
        lab.another();
        // Whichever is chosen first.
        lab.full.extend([RELAY, OTHER]);
        lab.register("8006");
        lab.call("8005", "8006");
        lab.response(500, "INVITE");
        lab.wire.clear();
        for (bad, good) in [(RELAY, OTHER), (OTHER, RELAY)] {
            lab.full = [bad].into();
            lab.silent = silent.then_some(bad).into_iter().collect();
            let (mut a, b) = lab.talk();
            assert_eq!((lab.ports(good).len(), lab.ports(bad).len()), (2, 0));
            assert!(lab.leg_records().iter().all(|l| l.relay == Some(good)));
            lab.seconds(1);
            lab.quiet();
            lab.within(&mut a, "BYE", None);
            lab.response(200, "BYE");
            let bye = lab.request_to("BYE", "8006");
            lab.answer(&b, &bye, 200, None);
        }
        lab.silent.clear();
        lab.empty();
    }
}

#[test]
fn a_planned_move_keeps_the_former_relay_until_both_are_heard() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    // Nowhere to go: the call stays where it is.
    lab.tell(RELAY, 1, None, MediaEventKind::Draining);
    lab.quiet();
    lab.another();
    lab.peers.0.iter_mut().filter(|p| p.process == RELAY).for_each(|p| p.state = PeerState::Draining);
    lab.tell(RELAY, 2, None, MediaEventKind::Draining);
    lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    assert_eq!((lab.ports(RELAY).len(), lab.ports(OTHER).len()), (2, 2));
    let legs: Vec<String> = lab.ports(OTHER).into_iter().map(|(leg, _)| leg).collect();
    let from = "127.0.0.1:4000".parse().unwrap();
    lab.tell(OTHER, 0, Some(&legs[0]), MediaEventKind::Latched(from));
    // Told again, and by another: neither is the other leg.
    lab.tell(OTHER, 0, Some(&legs[1]), MediaEventKind::Latched(from));
    lab.tell(RELAY, 9, Some(&legs[1]), MediaEventKind::Latched(from));
    assert_eq!(lab.ports(RELAY).len(), 2);
    lab.tell(OTHER, 1, Some(&legs[1]), MediaEventKind::Latched(from));
    assert_eq!(lab.ports(RELAY).len(), 0);
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn a_former_relay_is_left_in_the_end_though_nobody_is_heard() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.another();
    lab.tell(RELAY, 1, None, MediaEventKind::Draining);
    lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.seconds(31);
    assert_eq!(lab.ports(RELAY).len(), 2);
    lab.seconds(2);
    assert_eq!(lab.ports(RELAY).len(), 0);
    lab.over(&mut a, &b);
}

#[test]
fn what_a_former_relay_tells_counts_no_more() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.another();
    // The relay ended the session by itself.
    lab.tell(RELAY, 3, None, MediaEventKind::Ended);
    lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.tell(RELAY, 4, None, MediaEventKind::SessionTimeout);
    lab.quiet();
    lab.tell(OTHER, 0, None, MediaEventKind::SessionTimeout);
    for phone in [&mut a, &mut { b }] {
        let bye = lab.request_to("BYE", &phone.name);
        lab.answer(phone, &bye, 200, None);
    }
    lab.empty();
}

#[test]
fn without_another_relay_a_call_waits_for_one() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    lab.silent.insert(RELAY);
    lab.seconds(3);
    lab.peers.0.retain(|p| p.process != RELAY);
    lab.seconds(3);
    lab.quiet();
    lab.another();
    lab.full.insert(OTHER);
    lab.seconds(3);
    lab.quiet();
    lab.full.clear();
    lab.seconds(2);
    lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.quiet();
    lab.over(&mut a, &b);
}

#[test]
fn a_move_that_a_phone_refuses_for_good_ends_the_call() {
    let mut lab = Lab::new();
    let (a, b) = lab.talk();
    lab.another();
    lab.silent.insert(RELAY);
    lab.seconds(1);
    let reinvite = lab.request_to("INVITE", "8005");
    lab.answer(&a, &reinvite, 488, None);
    lab.request_to("ACK", "8005");
    assert_eq!(lab.ended().0, 58);
    let crossed: Bytes = lab.request_to("INVITE", "8006");
    for phone in [&a, &b] {
        let bye = lab.request_to("BYE", &phone.name);
        lab.answer(phone, &bye, 200, None);
    }
    lab.answer(&b, &crossed, 487, None);
    lab.request_to("ACK", "8006");
    lab.revive();
    lab.empty();
}

#[test]
fn who_takes_a_call_over_claims_its_media() {
    let mut lab = Lab::new();
    let (mut a, b) = lab.talk();
    let key = *lab.core.calls.keys().next().unwrap();
    let claim = |lab: &mut Lab| {
        let view = View { directory: &lab.directory, peers: &lab.peers, keys: &lab.keys, me: ROUTER, draining: false };
        let turn = Turn { view: &view, now: lab.now, rng: &mut lab.rng };
        lab.core.claim_media(&turn, key);
        lab.input(Input::Tick);
    };
    claim(&mut lab);
    assert_eq!(lab.claims, [(RELAY, ROUTER.to_string())]);
    lab.quiet();
    // The relay lost it meanwhile.
    lab.another();
    lab.relay.clear();
    claim(&mut lab);
    lab.moves(&a, OTHER, &sdp(4000, "0 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.over(&mut a, &b);
}

/// Whoever moved the call is gone before the second leg was placed.
#[test]
fn a_move_that_its_router_did_not_finish_is_finished_by_the_next() {
    let mut lab = Lab::new().fleet(&[HEIR]);
    let (mut a, b) = lab.talk();
    lab.another();
    lab.silent.insert(RELAY);
    // The offer is placed, the answer is not.
    lab.hold = Some(|ask| matches!(ask, Ask::Media { command: Command::Answer(_), .. }));
    lab.advance(millis(600));
    lab.advance(millis(400));
    let told = lab.lines();
    assert!(matches!(told.as_slice(), [one] if one.starts_with("INVITE sip:8006@")), "{told:?}");
    lab.wire.clear();
    (lab.hold, lab.held) = (None, Default::default());
    lab.gone(HEIR);
    // Of the re-INVITE that nobody will hear the answer of.
    lab.request_to("ACK", "8006");
    lab.seconds(3);
    lab.moves(&a, OTHER, &sdp(4000, "0 8 101"));
    lab.moves(&b, OTHER, &sdp(5000, "0 101"));
    lab.seconds(5);
    lab.over(&mut a, &b);
}
