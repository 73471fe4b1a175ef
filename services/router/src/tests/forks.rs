//! Forks: several phones ring, one wins.

use super::lab::*;
use super::phones::*;
use sip::Name;

const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

fn lab() -> Lab {
    let mut lab = Lab::plan(steps(&[("100", vec![dial(&["PJSIP/8006&PJSIP/8007", "PJSIP/8008"], Some(20))])]));
    for name in ["8006", "8007", "8008"] {
        lab.register(name);
    }
    lab
}

#[test]
fn the_first_answer_wins_and_the_others_learn_why() {
    let mut lab = lab();
    let mut a = lab.call("8005", "100");
    let invites = ["8006", "8007", "8008"].map(|name| lab.request_to("INVITE", name));
    // Each has an offer made for it, at ports of its own.
    let formats = invites.each_ref().map(|i| body(i).media[0].formats.join(" "));
    assert_eq!(formats, ["0 8 101", "8 101", "0 101"]);
    let ports: std::collections::BTreeSet<_> = invites.iter().map(|i| body(i).rtp_address(0)).collect();
    assert_eq!(ports.len(), 3);
    let phones = invites.each_ref().map(|i| lab.callee(i));
    lab.answer(&phones[0], &invites[0], 180, None);
    lab.response(180, "INVITE");
    lab.answer(&phones[1], &invites[1], 180, None);
    lab.quiet();
    // 8008 says nothing yet: its CANCEL must wait.
    lab.answer(&phones[1], &invites[1], 200, Some(&sdp(5000, "8")));
    lab.request_to("ACK", "8007");
    let ok = lab.response(200, "INVITE");
    let cancel = lab.request_to("CANCEL", "8006");
    assert_eq!(field(&cancel, Name::Reason), ELSEWHERE);
    lab.answer(&phones[0], &cancel, 200, None);
    lab.answer(&phones[0], &invites[0], 487, None);
    lab.request_to("ACK", "8006");
    lab.quiet();
    lab.answer(&phones[2], &invites[2], 180, None);
    let cancel = lab.request_to("CANCEL", "8008");
    assert_eq!(field(&cancel, Name::Reason), ELSEWHERE);
    // It answered at the same moment.
    lab.answer(&phones[2], &invites[2], 200, Some(&sdp(6000, "0")));
    lab.request_to("ACK", "8008");
    let bye = lab.request_to("BYE", "8008");
    lab.answer(&phones[2], &bye, 200, None);
    lab.quiet();
    assert_eq!(lab.relay.len(), 2, "the losers' ports are free");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    lab.within(&mut a, "BYE", None);
    lab.response(200, "BYE");
    let bye = lab.request_to("BYE", "8007");
    lab.answer(&phones[1], &bye, 200, None);
    lab.empty();
}

#[test]
fn two_answers_at_once() {
    let mut lab = lab();
    lab.call("8005", "100");
    let invites = ["8006", "8007", "8008"].map(|name| lab.request_to("INVITE", name));
    let phones = invites.each_ref().map(|i| lab.callee(i));
    lab.hold = Some(|ask| matches!(ask, crate::Ask::Media { .. }));
    lab.answer(&phones[0], &invites[0], 200, Some(&sdp(5000, "0")));
    lab.answer(&phones[1], &invites[1], 200, Some(&sdp(6000, "8")));
    lab.request_to("ACK", "8006");
    lab.request_to("ACK", "8007");
    lab.request_to("BYE", "8007");
    lab.release();
    lab.response(200, "INVITE");
    assert!(lab.take_if(|m| m.status() == Some(200)).is_none());
}

#[test]
fn everyone_refuses() {
    for (codes, want) in [
        ([486, 486, 486], 486),
        ([486, 480, 486], 480),
        ([486, 603, 480], 603),
        ([500, 486, 404], 486),
        ([503, 503, 503], 500),
    ] {
        let mut lab = lab();
        lab.call("8005", "100");
        for (name, code) in ["8006", "8007", "8008"].into_iter().zip(codes) {
            assert!(lab.take_if(|m| m.status().is_some_and(|s| s >= 200)).is_none());
            let invite = lab.request_to("INVITE", name);
            let phone = lab.callee(&invite);
            lab.answer(&phone, &invite, code, None);
            lab.request_to("ACK", name);
        }
        lab.response(want, "INVITE");
        lab.empty();
    }
}

#[test]
fn nobody_answers_in_time() {
    let mut lab = lab();
    lab.call("8005", "100");
    let invites = ["8006", "8007", "8008"].map(|name| lab.request_to("INVITE", name));
    let phones = invites.each_ref().map(|i| lab.callee(i));
    lab.answer(&phones[0], &invites[0], 180, None);
    lab.response(180, "INVITE");
    lab.answer(&phones[1], &invites[1], 486, None);
    lab.request("ACK");
    lab.seconds(19);
    lab.quiet();
    lab.seconds(1);
    lab.response(480, "INVITE");
    lab.request_to("CANCEL", "8006");
    lab.quiet();
    // Even if nothing ever comes back.
    lab.empty();
}

#[test]
fn all_contacts_of_an_endpoint_ring_if_they_are_live() {
    let mut lab = Lab::new();
    for n in 1..=4 {
        lab.register_at("8006", &format!("sip:8006@127.0.0.1:{}", 7000 + n));
    }
    let bindings = &mut lab.aors.get_mut("8006").unwrap().bindings;
    // Expired; a connection of a process that is gone; an address whose process is gone.
    bindings[1].expires_at = lab.now.unix();
    let flow = bindings[2].flow.as_mut().unwrap();
    (flow.transport, flow.process) = (contract::Transport::Tcp, contract::ProcessId(99));
    bindings[3].flow.as_mut().unwrap().process = contract::ProcessId(99);
    lab.call("8005", "8006");
    let mut rung = Vec::new();
    while let Some(invite) = lab.take_if(|m| m.method().is_some_and(|m| m.as_str() == "INVITE")) {
        rung.push(sip::Message::parse_stream(&invite).unwrap().uri().unwrap().to_owned());
    }
    assert_eq!(rung, ["sip:8006@127.0.0.1:7001", "sip:8006@127.0.0.1:7004"]);
}

#[test]
fn a_fork_is_bounded() {
    let mut lab = Lab::new();
    for n in 0..20 {
        lab.register_at("8006", &format!("sip:8006@127.0.0.1:{}", 7000 + n));
    }
    lab.call("8005", "8006");
    assert_eq!(lab.wire.len(), 16);
    assert_eq!(lab.core.counters().branches_dropped, 4);
}

#[test]
fn a_second_phone_behind_a_forking_proxy_is_hung_up() {
    let mut lab = Lab::new();
    lab.register("8006");
    lab.call("8005", "8006");
    let invite = lab.request("INVITE");
    let (one, two) = (lab.callee(&invite), lab.callee(&invite));
    lab.answer(&one, &invite, 200, Some(&sdp(5000, "0")));
    lab.request("ACK");
    lab.response(200, "INVITE");
    lab.answer(&two, &invite, 200, Some(&sdp(6000, "0")));
    let ack = lab.request("ACK");
    assert!(field(&ack, Name::To).ends_with(&two.tag));
    let bye = lab.request("BYE");
    assert!(field(&bye, Name::To).ends_with(&two.tag));
    lab.quiet();
    assert_eq!(lab.core.load().calls, 1);
}

#[test]
fn one_hears_early_media_of_one_branch_only() {
    let mut lab = lab();
    lab.call("8005", "100");
    let invites = ["8006", "8007", "8008"].map(|name| lab.request_to("INVITE", name));
    let phones = invites.each_ref().map(|i| lab.callee(i));
    lab.answer(&phones[0], &invites[0], 183, Some(&sdp(5000, "0")));
    let early = lab.response(183, "INVITE");
    lab.answer(&phones[1], &invites[1], 183, Some(&sdp(6000, "8")));
    lab.quiet();
    lab.answer(&phones[1], &invites[1], 200, Some(&sdp(6000, "8")));
    let ok = lab.response(200, "INVITE");
    assert_eq!(body(&early).media[0].formats, ["0"]);
    assert_eq!(body(&ok).media[0].formats, ["8"]);
    assert_eq!(body(&early).rtp_address(0), body(&ok).rtp_address(0), "the caller's ports stay");
    assert_eq!(body(&early).origin.version + 1, body(&ok).origin.version);
}
