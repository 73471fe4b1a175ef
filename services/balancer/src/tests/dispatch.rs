//! Dispatchers: whole calls through them.

use super::*;
use contract::config::{Algorithm, Destination, DispatcherEntry, Probe};
use sip::Method;
use sip::header::NameAddr;

const A: &str = "127.0.0.1:5071";
const B: &str = "127.0.0.1:5072";

fn dispatcher(extensions: &[&str]) -> BalancerEntry {
    let to = |remote: &str| Destination { uri: format!("sip:{remote}"), weight: 50 };
    BalancerEntry::Dispatcher(DispatcherEntry {
        name: "asterisk".into(),
        algorithm: Algorithm::RoundRobin,
        destinations: vec![to(A), to(B)],
        probe: Probe { interval_ms: 1000, timeout_ms: 500, failure_threshold: 3, success_threshold: 1 },
        unavailable: (404, "No destination dispatcher".into()),
        extensions: extensions.iter().map(|e| (*e).into()).collect(),
    })
}

/// The requests of a method that go outside.
fn sent(out: &[Output], method: Method<'_>) -> Vec<(Flow, Bytes)> {
    let is = |b: &Bytes| Message::parse(b).unwrap().method() == Some(method);
    to_outside(out).into_iter().filter(|(_, b)| is(b)).collect()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Time passes while these destinations answer their probes.
fn pass_answering(rig: &mut Rig, time: Duration, living: &[&str]) -> Vec<Output> {
    let end = rig.now.mono + time;
    let mut all = Vec::new();
    while let Some(due) = rig.core.deadline().filter(|d| *d <= end) {
        rig.now = rig.now.plus(due.saturating_sub(rig.now.mono));
        let out = rig.handle(Input::Tick);
        for (flow, probe) in sent(&out, Method::Options) {
            if living.iter().any(|l| addr(l) == flow.remote) {
                all.extend(rig.outside(flow, &text(&answer(&probe, 200, &[]))));
            }
        }
        all.extend(out);
    }
    rig.now = rig.now.plus(end.saturating_sub(rig.now.mono));
    all
}

#[test]
fn a_dispatched_call_stays_between_the_two_sides() {
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    let out = rig
        .outside(udp(PHONE), &request("INVITE", "sip:911@127.0.0.1", "a", "Contact: <sip:8005@127.0.0.1:40000>\r\n"));
    let (flow, bytes) = sent(&out, Method::Invite).remove(0);
    assert_eq!((flow.remote, flow.local), (addr(A), addr(VIP)));
    let invite = Message::parse(&bytes).unwrap();
    assert_eq!(invite.other(contract::hop::HEADER), None);
    let routes: Vec<String> = invite.values(Name::RecordRoute).map(str::to_owned).collect();
    assert_eq!(routes.len(), 2);
    let ok = answer(&bytes, 200, &[(Name::Contact, "<sip:911@10.9.9.9>")]);
    let out = rig.outside(flow, &text(&ok));
    assert_eq!(statuses(&out), [200]);
    assert_eq!(to_outside(&out)[0].0.remote, addr(PHONE));

    // The caller's route set is the reverse of Record-Route; the callee's the same order (RFC 3261 12.1).
    let set =
        |routes: &mut dyn Iterator<Item = &String>| routes.fold(String::new(), |s, r| format!("{s}Route: {r}\r\n"));
    let caller = set(&mut routes.iter().rev());
    let callee = set(&mut routes.iter());
    let tagged = |t: String| t.replace("@pbx>\r\nCall", "@pbx>;tag=t1\r\nCall");
    for (method, branch) in [("ACK", "k"), ("BYE", "b")] {
        let text = tagged(request(method, "sip:911@10.9.9.9", branch, &caller));
        let out = rig.outside(udp(PHONE), &text);
        let (to, bytes) = to_outside(&out).remove(0);
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((to.remote, message.header(Name::Route)), (addr(A), None), "{method}");
        assert_eq!(message.uri(), Some("sip:911@10.9.9.9"));
    }
    // A destination that records a route of its own finds it again, and nothing else is chosen by it.
    let routed = format!("{caller}Route: <sip:10.9.9.8;lr>\r\n");
    let out = rig.outside(udp(PHONE), &tagged(request("BYE", "sip:911@10.9.9.9", "r", &routed)));
    let (to, bytes) = to_outside(&out).remove(0);
    let route = Message::parse(&bytes).unwrap().header(Name::Route).map(str::to_owned);
    assert_eq!((to.remote, route.as_deref()), (addr(A), Some("<sip:10.9.9.8;lr>")));
    let bye = tagged(request("BYE", "sip:8005@127.0.0.1:40000", "z", &callee));
    let (to, _) = to_outside(&rig.outside(udp(A), &bye)).remove(0);
    assert_eq!(to.remote, addr(PHONE));
    // Within its Call-ID only.
    let stolen = tagged(request("BYE", "sip:911@10.9.9.9", "y", &caller)).replace("call-1", "call-2");
    assert_eq!(statuses(&rig.outside(udp(PHONE), &stolen)), [403]);
}

#[test]
fn tokens_stand_for_transports_that_differ() {
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    let text = request("INVITE", "sip:911@127.0.0.1", "a", "").replace("/UDP", "/TCP");
    let (_, bytes) = sent(&rig.outside(tcp(4, PHONE), &text), Method::Invite).remove(0);
    let message = Message::parse(&bytes).unwrap();
    let routes: Vec<_> = message.values(Name::RecordRoute).map(|r| NameAddr::parse(r).unwrap().uri).collect();
    assert!(!routes[0].contains("transport=") && routes[1].contains(";transport=tcp;"), "{routes:?}");
}

#[test]
fn a_busy_destination_gives_way_to_the_next_within_the_transaction() {
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    let first = sent(&rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", "a", "")), Method::Invite).remove(0);
    let out = rig.outside(first.0, &text(&answer(&first.1, 503, &[])));
    assert_eq!(statuses(&out), [0u16; 0], "the phone sees nothing of it");
    let second = sent(&out, Method::Invite).remove(0);
    assert_eq!(second.0.remote, addr(B));
    let branch = |b: &Bytes| Message::parse(b).unwrap().via().unwrap().branch().unwrap().to_owned();
    assert_ne!(branch(&first.1), branch(&second.1));
    // With nobody left it is told what the last one said.
    let out = rig.outside(second.0, &text(&answer(&second.1, 503, &[])));
    assert_eq!(statuses(&out), [503]);
    // A refusal of the callee's is no failure of the destination's.
    let first = sent(&rig.outside(udp(PHONE), &request("INVITE", "sip:912@h", "b", "")), Method::Invite).remove(0);
    let out = rig.outside(first.0, &text(&answer(&first.1, 486, &[])));
    assert_eq!((statuses(&out), sent(&out, Method::Invite).len()), (vec![486], 0));
}

#[test]
fn silence_gives_way_and_a_late_answer_is_cancelled() {
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", "a", ""));
    let first = sent(&out, Method::Invite).remove(0);
    let out = pass_answering(&mut rig, Duration::from_millis(4100), &[A, B]);
    let second = sent(&out, Method::Invite).into_iter().find(|(f, _)| f.remote == addr(B)).unwrap();
    let out = rig.outside(first.0, &text(&answer(&first.1, 180, &[])));
    assert_eq!((statuses(&out), sent(&out, Method::Cancel).len()), (vec![], 1));
    assert_eq!(statuses(&rig.outside(second.0, &text(&answer(&second.1, 180, &[])))), [180]);
    // With another replica silence may be a copy's: nothing is tried twice.
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    rig.peers.0.push(Peer::new(Service::Balancer, OTHER));
    rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", "a", ""));
    let out = pass_answering(&mut rig, Duration::from_millis(4100), &[A, B]);
    assert!(sent(&out, Method::Invite).iter().all(|(f, _)| f.remote == addr(A)));
}

#[test]
fn probes_take_destinations_out_and_bring_them_back() {
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    let state = |rig: &Rig| rig.core.destinations(rig.now).iter().map(|d| d.state).collect::<Vec<_>>();
    rig.handle(Input::Changed);
    // A call that waits for the one that goes down is taken on by the other.
    pass_answering(&mut rig, Duration::from_secs(1), &[A, B]);
    pass_answering(&mut rig, Duration::from_millis(1900), &[B]);
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", "w", ""));
    assert_eq!(sent(&out, Method::Invite)[0].0.remote, addr(A));
    let out = pass_answering(&mut rig, Duration::from_secs(3), &[B]);
    assert!(sent(&out, Method::Invite).iter().any(|(f, _)| f.remote == addr(B)));
    assert_eq!(state(&rig), ["down", "up"]);
    for n in 0..4 {
        let out = rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", &format!("n{n}"), ""));
        assert_eq!(sent(&out, Method::Invite)[0].0.remote, addr(B));
    }
    pass_answering(&mut rig, Duration::from_secs(5), &[]);
    assert_eq!(state(&rig), ["down", "down"]);
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", "none", ""));
    let (_, bytes) = to_outside(&out).remove(0);
    let none = Message::parse(&bytes).unwrap();
    assert_eq!((none.status(), none.reason()), (Some(404), Some("No destination dispatcher")));
    pass_answering(&mut rig, Duration::from_secs(2), &[A, B]);
    assert_eq!(state(&rig), ["up", "up"]);
}

#[test]
fn only_what_matches_is_dispatched_and_only_what_is_used_is_probed() {
    let mut rig = Rig::new(vec![dispatcher(&["_9."])]);
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:8006@h", "a", ""));
    assert_eq!((to_inside(&out).len(), sent(&out, Method::Invite).len()), (1, 0));
    let out = rig.outside(udp(PHONE), &request("REGISTER", "sip:911@h", "r", ""));
    assert_eq!(to_inside(&out).len(), 1, "registrations are our own");
    let mut rig = Rig::new(vec![dispatcher(&[])]);
    let out = rig.outside(udp(PHONE), &request("INVITE", "sip:911@h", "a", ""));
    assert_eq!(to_inside(&out).len(), 1);
    assert!(sent(&rig.pass(Duration::from_secs(5)), Method::Options).is_empty());
    assert_eq!(rig.core.destinations(rig.now)[0].state, "unused");
}
