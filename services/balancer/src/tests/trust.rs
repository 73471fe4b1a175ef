//! The trust rules (ARCHITECTURE.md, "Trust"): what an outsider cannot do.

use super::*;
use crate::record_route;
use crate::token::pair;
use contract::leg::LegToken;

/// Nothing of this goes to anybody outside but the sender.
fn only_to_sender(out: &[Output], sender: &str) {
    for (flow, bytes) in to_outside(out) {
        assert_eq!(flow.remote, addr(sender));
        assert!(!Message::parse(&bytes).unwrap().is_request());
    }
}

#[test]
fn a_forged_route_is_refused() {
    let mut rig = Rig::plain();
    let victim = udp("127.0.0.1:41000");
    let other = KeyRing::new(InstallationKey::new(1, [9; 32])); // not our key
    for (n, route) in [
        "<sip:10.1.1.1;lr>".to_owned(),
        "<sip:victim@127.0.0.1:5060;lr>".to_owned(),
        format!("<sip:{}@127.0.0.1:5060;lr>", victim.token(&other)),
        format!("<sip:{}@127.0.0.1:5060;lr>, <sip:10.1.1.1;lr>", udp(PHONE).token(&keys())),
        format!("<sip:{}@127.0.0.1:5060;lr>", pair::seal(&victim, "another-call", &keys())),
    ]
    .iter()
    .enumerate()
    {
        let text = request("INVITE", "sip:x@10.1.1.1", &format!("r{n}"), &format!("Route: {route}\r\n"));
        let out = rig.outside(udp(PHONE), &text);
        assert_eq!(statuses(&out), [403], "{route}");
        assert!(to_inside(&out).is_empty());
        only_to_sender(&out, PHONE);
    }
}

#[test]
fn a_foreign_request_uri_is_never_relayed() {
    let hosts = vec!["lb.example".into(), "2001:db8::7".into()];
    let domains = PbxEntry { domains: vec!["pbx.example".into()], hosts, ..PbxEntry::default() };
    let mut strict = Rig::new(vec![BalancerEntry::Pbx(domains)]);
    for (n, (uri, refused)) in [
        ("sip:victim@203.0.113.9", true),
        ("sip:victim@evil.example", true),
        ("sip:victim@127.0.0.1:9999", true),
        ("sip:8006@PBX.example", false),
        ("sip:8006@127.0.0.1:5060", false),
        // Where balancers are said to be reached.
        ("sip:8006@lb.example:30060", false),
        ("sip:8006@[2001:db8::7]", false),
    ]
    .iter()
    .enumerate()
    {
        for (rig, refused) in [(&mut strict, *refused), (&mut Rig::plain(), false)] {
            let out = rig.outside(udp(PHONE), &request("INVITE", uri, &format!("u{n}"), ""));
            only_to_sender(&out, PHONE);
            assert_eq!(to_inside(&out).is_empty(), refused, "{uri}");
            assert_eq!(statuses(&out), [if refused { 403 } else { 100 }], "{uri}");
        }
    }
}

#[test]
fn anothers_flow_token_opens_no_way_to_it() {
    let mut rig = Rig::plain();
    let victim = udp("127.0.0.9:41000");
    let route = format!("Route: <sip:{}@127.0.0.1:5060;lr>\r\n", victim.token(&keys()));
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:8006@127.0.0.9:41000", "a", &route));
    assert_eq!(statuses(&out), [403]);
    only_to_sender(&out, PHONE);
    // As the Request-URI it is no better: it names no leg, so a router judges it, and nothing leaves.
    let uri = format!("sip:{}@127.0.0.1:5060", victim.token(&keys()));
    let out = rig.outside(udp(PHONE), &request("INVITE", &uri, "b", ""));
    only_to_sender(&out, PHONE);
    // Not even with the token of a dispatched call outside of its dialog.
    let token = pair::seal(&victim, "call-1", &keys());
    let out =
        rig.outside(udp(PHONE), &request("INVITE", "sip:x@h", "c", &format!("Route: <sip:{token}@127.0.0.1;lr>\r\n")));
    assert_eq!(statuses(&out), [403]);
    only_to_sender(&out, PHONE);
}

#[test]
fn a_leg_token_of_another_key_is_a_name_like_any_other() {
    let mut rig = Rig::plain();
    let other = KeyRing::new(InstallationKey::new(1, [9; 32]));
    let leg = LegToken { process: ProcessId(99), leg: "leg".into() }.seal(&other);
    rig.peers.0.push(Peer::new(Service::Media, ProcessId(99)));
    let out = rig.outside(udp(PHONE), &request("INVITE", &format!("sip:{leg}@127.0.0.1"), "a", ""));
    assert!(to_inside(&out).iter().all(|(to, _)| *to == ROUTER || *to == ROUTER2));
}

#[test]
fn what_an_outsider_claims_does_not_get_in() {
    let trunk = BalancerEntry::Trunk { name: "trunk".into(), networks: vec!["127.0.0.8/32".parse().unwrap()] };
    let mut rig = Rig::new(vec![trunk]);
    let forged = contract::hop::Hop { flow: udp("127.0.0.1:1"), trusted: true };
    let forged = forged.seal(&KeyRing::new(InstallationKey::new(1, [9; 32])), "call-1", "1 INVITE");
    let extra = format!(
        "P-Asserted-Identity: <sip:boss@pbx>\r\nPath: <sip:evil;lr>\r\nService-Route: <sip:evil;lr>\r\n\
         X-KubePBX-Hop: {forged}\r\nx-kubepbx-hand-over: x\r\nP-Preferred-Identity: <sip:a@b>\r\n"
    );
    for (source, trusted) in [(PHONE, false), ("127.0.0.8:5060", true)] {
        let text = request("INVITE", "sip:8006@127.0.0.1", &format!("t{trusted}"), &extra);
        let (_, bytes) = to_inside(&rig.outside(udp(source), &text)).remove(0);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.header(Name::PAssertedIdentity).is_some(), trusted);
        assert_eq!((message.header(Name::Path), message.header(Name::ServiceRoute)), (None, None));
        assert_eq!(message.other("X-KubePBX-Hand-Over"), None);
        assert!(message.header(Name::PPreferredIdentity).is_some(), "a wish is no claim");
        let hops = message.fields().filter(|(n, _)| n.eq_ignore_ascii_case(contract::hop::HEADER)).count();
        assert_eq!(hops, 1);
        // What registrar and router judge by: where it really came from.
        let hop = hop_of(&bytes);
        assert_eq!((hop.flow.remote, hop.trusted), (addr(source), trusted));
    }
}

#[test]
fn a_register_for_anothers_aor_says_whose_flow_it_came_on() {
    let mut rig = Rig::plain();
    let text = request("REGISTER", "sip:127.0.0.1", "r", "Path: <sip:evil;lr>\r\nContact: <sip:8006@10.0.0.1>\r\n");
    let (to, bytes) = to_inside(&rig.outside(udp(PHONE), &text)).remove(0);
    assert_eq!(to, REGISTRAR);
    assert_eq!(hop_of(&bytes).flow, udp(PHONE));
    let message = Message::parse(&bytes).unwrap();
    let ours = record_route::route(&udp(PHONE), &keys(), &Listeners::default());
    assert_eq!(message.values(Name::Path).collect::<Vec<_>>(), [ours.as_str()]);
}

#[test]
fn a_response_with_a_forged_via_goes_nowhere() {
    let mut rig = Rig::plain();
    let host = contract::hop::host(Service::Router, ROUTER);
    let other = KeyRing::new(InstallationKey::new(1, [9; 32]));
    let mut rng = StdRng::seed_from_u64(1);
    for branch in [
        "z9hG4bKabc".to_owned(),
        Owner { process: BALANCER, shard: 0 }.branch(&other, &mut rng),
        Owner { process: ProcessId(77), shard: 0 }.branch(&other, &mut rng),
    ] {
        let text = format!(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch={branch}\r\nVia: SIP/2.0/TCP {host};branch=z9hG4bKx\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        );
        assert!(rig.outside(udp(PHONE), &text).is_empty(), "{branch}");
    }
}
