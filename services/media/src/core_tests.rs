//! Whole calls in virtual time.

use super::*;
use contract::Now;
use contract::ng::{Command, Delete, Description, Query, Reply, Report, RtcpMux};
use rtp::packet::Packet;
use rtp::sdp::{Codec, Direction, Session};
use std::net::IpAddr;

/// Ports that are only numbers: slot n is port 30000 + 2n.
#[derive(Default)]
struct Fake {
    used: Vec<bool>,
    limit: usize,
}

impl Ports for Fake {
    fn bind(&mut self) -> Option<(usize, u16)> {
        if self.used.iter().filter(|u| **u).count() >= self.limit {
            return None;
        }
        let slot = self.used.iter().position(|u| !u).unwrap_or_else(|| {
            self.used.push(false);
            self.used.len() - 1
        });
        self.used[slot] = true;
        Some((slot, 30000 + slot as u16 * 2))
    }

    fn release(&mut self, slot: usize) {
        assert!(std::mem::take(&mut self.used[slot]), "released twice");
    }

    fn address_for(&mut self, peer: Option<IpAddr>) -> IpAddr {
        // Each network sees another of our addresses.
        let third = |p: IpAddr| if let IpAddr::V4(a) = p { a.octets()[0] } else { 6 };
        IpAddr::from([203, 0, 113, peer.map_or(0, third)])
    }

    fn inside(&mut self) -> IpAddr {
        IpAddr::from([10, 0, 0, 1])
    }
}

struct Relay {
    core: Core,
    ports: Fake,
    now: Duration,
}

const A: &str = "192.0.2.10:4000";
const B: &str = "198.51.100.20:5000";
const C: &str = "100.1.1.1:6000";

fn at(s: &str) -> SocketAddr {
    s.parse().unwrap()
}

fn sdp(at_: &str) -> Session {
    rtp::sdp::offer(at(at_), &[Codec::ulaw(), Codec::telephone_event(101)], 1, 1)
}

fn packet(payload_type: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    Packet::new(payload_type, 1, timestamp, 7, payload).to_vec()
}

fn rtcp() -> Vec<u8> {
    rtp::rtcp::to_vec(&[rtp::rtcp::Rtcp::ReceiverReport { ssrc: 1, reports: vec![] }])
}

impl Relay {
    fn new() -> Relay {
        let config = Config { max_calls: 3, ..Config::default() };
        Relay { core: Core::new(config), ports: Fake { limit: 100, ..Fake::default() }, now: Duration::from_secs(1) }
    }

    fn command(&mut self, command: Command) -> Reply {
        let now = Now { mono: self.now, wall: Duration::from_secs(1_700_000_000) + self.now };
        self.core.command(&command, now, &mut self.ports)
    }

    fn with(
        &mut self,
        answer: bool,
        from: &str,
        to: Option<&str>,
        sdp: &Session,
        change: impl Fn(&mut Description),
    ) -> Result<Session, String> {
        let mut d = Description::new("call", from, to, sdp.to_vec());
        d.owner = Some(format!("owner-of-{}", if answer { to.unwrap_or("?") } else { from }));
        change(&mut d);
        match self.command(if answer { Command::Answer(d) } else { Command::Offer(d) }) {
            Reply::Sdp(sdp) => Ok(Session::parse(&sdp).unwrap()),
            Reply::Error(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    fn offer(&mut self, from: &str, to: Option<&str>, sdp: &Session) -> Session {
        self.with(false, from, to, sdp, |_| ()).unwrap()
    }

    fn answer(&mut self, from: &str, to: &str, sdp: &Session) -> Session {
        self.with(true, from, Some(to), sdp, |_| ()).unwrap()
    }

    /// A and B joined; our ports towards each.
    fn joined(&mut self) -> (u16, u16) {
        let to_b = self.offer("a", Some("b"), &sdp(A)).media[0].port;
        let to_a = self.answer("a", "b", &sdp(B)).media[0].port;
        (to_a, to_b)
    }

    /// A packet to our `port`: out of which port of ours and where to.
    fn send(&mut self, port: u16, from: &str, bytes: &[u8]) -> Option<(u16, SocketAddr)> {
        let socket = SocketId { slot: usize::from(port - 30000) / 2, rtcp: port % 2 == 1 };
        let forward = self.core.packet(socket, at(from), bytes, self.now)?;
        Some((30000 + forward.socket.slot as u16 * 2 + u16::from(forward.socket.rtcp), forward.to))
    }

    fn audio(&mut self, port: u16, from: &str) -> Option<(u16, SocketAddr)> {
        self.send(port, from, &packet(0, 160, &[0xff; 160]))
    }

    /// Lets time pass, ticking when the core asks for it.
    fn pass(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(deadline) = self.core.deadline().filter(|d| *d <= end) {
            assert!(deadline > self.now, "time must go on");
            self.now = deadline;
            self.core.tick(self.now, &mut self.ports);
        }
        self.now = end;
    }

    fn events(&mut self) -> Vec<(String, Option<String>, MediaEventKind)> {
        let take = |e: Event| (e.owner.unwrap_or_default(), e.event.tag, e.event.kind);
        std::iter::from_fn(|| self.core.poll_event()).map(take).collect()
    }

    fn report(&mut self) -> Option<Report> {
        match self.command(Command::Query(Query { call_id: "call".into(), ..Query::default() })) {
            Reply::Report { report, .. } => report.map(|r| *r),
            _ => None,
        }
    }

    fn delete(&mut self, from: Option<&str>, to: Option<&str>, leg: bool) -> Reply {
        let (from_tag, to_tag) = (from.map(str::to_owned), to.map(str::to_owned));
        self.command(Command::Delete(Delete { call_id: "call".into(), from_tag, to_tag, leg, ..Delete::default() }))
    }

    fn in_use(&self) -> usize {
        self.ports.used.iter().filter(|u| **u).count()
    }
}

const S: Duration = Duration::from_secs(1);

#[test]
fn joins_two_legs_and_relays_both_ways() {
    let mut r = Relay::new();
    let to_b = r.with(false, "a", Some("b"), &sdp(A), |d| d.sent_to = Some(at(B).ip())).unwrap();
    let to_a = r.with(true, "a", Some("b"), &sdp(B), |d| d.sent_to = Some(at(A).ip())).unwrap();
    assert_eq!(
        to_b.rtp_address(0).unwrap().ip(),
        IpAddr::from([203, 0, 113, 198]),
        "B sees the address of its network"
    );
    assert_eq!(to_a.rtp_address(0).unwrap().ip(), IpAddr::from([203, 0, 113, 192]));
    assert_eq!(to_b.origin.address, "IN IP4 203.0.113.198");
    let (pa, pb) = (to_a.media[0].port, to_b.media[0].port);
    assert_ne!(pa, pb);
    assert_eq!(r.audio(pa, A), Some((pb, at(B))));
    assert_eq!(r.audio(pb, B), Some((pa, at(A))));
    assert_eq!(r.send(pa + 1, "192.0.2.10:4001", &rtcp()), Some((pb + 1, at("198.51.100.20:5001"))));
    let events = r.events();
    assert_eq!(events[0], ("owner-of-a".into(), Some("a".into()), MediaEventKind::Latched(at(A))));
    assert_eq!(events[1], ("owner-of-b".into(), Some("b".into()), MediaEventKind::Latched(at(B))));
    assert_eq!(events.len(), 2, "RTCP is not told");
    let report = r.report().unwrap();
    assert_eq!((report.rtp.packets, report.rtp.bytes, report.rtcp.packets), (2, 344, 1));
    assert_eq!(report.tags["a"].in_dialogue_with.as_deref(), Some("b"));
    assert_eq!(report.tags["a"].streams[0].last_packet, 1_700_000_001);
    assert_eq!(report.tags["b"].streams[1].local_port, pb + 1);
}

#[test]
fn replacing_the_far_leg_keeps_the_near_ports() {
    let mut r = Relay::new();
    let (pa, pb) = r.joined();
    let pc = r.offer("a", Some("c"), &sdp(A)).media[0].port;
    assert!(pc != pa && pc != pb);
    assert_eq!(r.audio(pa, A), Some((pb, at(B))), "until C has answered A talks to B");
    assert_eq!(r.audio(pc, C), None, "C's early media does not cut in");
    assert_eq!(r.answer("a", "c", &sdp(C)).media[0].port, pa, "A's port is the same");
    assert_eq!(r.audio(pa, A), Some((pc, at(C))));
    assert_eq!(r.audio(pb, B), None, "B is joined to nobody");
    assert_eq!(r.in_use(), 3);
    assert!(matches!(r.delete(Some("b"), None, true), Reply::Report { report: Some(_), .. }));
    assert_eq!(r.in_use(), 2, "only B's ports are free");
    assert_eq!(r.audio(pa, A), Some((pc, at(C))));
    // The near leg's own re-INVITE, from the other side: B's place as offerer is no matter.
    assert_eq!(r.offer("c", Some("a"), &sdp(C)).media[0].port, pa);
    assert_eq!(r.answer("c", "a", &sdp(A)).media[0].port, pc);
    assert_eq!(r.audio(pc, C), Some((pa, at(A))));
}

#[test]
fn early_media_flows_before_the_answer() {
    let mut r = Relay::new();
    let pb = r.offer("a", Some("b"), &sdp(A)).media[0].port;
    assert_eq!(r.audio(pb, B).map(|f| f.1), Some(at(A)));
    let pc = r.offer("a", Some("c"), &sdp(A)).media[0].port;
    r.answer("a", "b", &sdp(B));
    assert_eq!(r.audio(pc, C), None, "the losing branch is heard no more");
    assert!(r.audio(pb, B).is_some());
}

#[test]
fn private_addresses_are_not_sent_to_before_they_were_heard() {
    let nat = "192.0.2.99:7777";
    let mut r = Relay::new();
    let private = sdp("10.0.0.5:4000");
    let outside = |d: &mut Description| {
        d.outside = true;
        d.received_from = Some(at(nat).ip());
    };
    let pb = r.with(false, "a", Some("b"), &private, outside).unwrap().media[0].port;
    let pa = r.answer("a", "b", &sdp(B)).media[0].port;
    assert_eq!(r.audio(pb, B), None, "to nobody");
    assert_eq!(r.core.counters().dropped_nowhere, 1);
    assert!(r.audio(pa, nat).is_some());
    assert_eq!(r.audio(pb, B), Some((pa, at(nat))), "latched");
    assert_eq!(r.audio(pa, "203.0.113.66:1"), None, "nobody else from now on");
    assert_eq!(r.core.counters().dropped_source, 1);
    // A re-INVITE opens the leg: the phone has moved behind its NAT.
    r.pass(10 * S);
    r.with(false, "a", Some("b"), &private, outside).unwrap();
    r.answer("a", "b", &sdp(B));
    assert_eq!(r.audio(pb, B), Some((pa, at(nat))), "what was learned stays good meanwhile");
    assert!(r.audio(pa, "192.0.2.99:8888").is_some());
    assert_eq!(r.audio(pb, B), Some((pa, at("192.0.2.99:8888"))));
}

#[test]
fn asymmetric_legs_are_not_learned() {
    let mut r = Relay::new();
    let pb = r.with(false, "a", Some("b"), &sdp(A), |d| d.flags.asymmetric = true).unwrap().media[0].port;
    let pa = r.answer("a", "b", &sdp(B)).media[0].port;
    assert!(r.audio(pa, "192.0.2.11:1234").is_some());
    assert!(r.audio(pa, A).is_some());
    assert_eq!(r.audio(pb, B), Some((pa, at(A))));
    assert!(r.events().iter().all(|(_, tag, _)| tag.as_deref() == Some("b")));
}

#[test]
fn rtp_and_rtcp_on_one_port() {
    let mut muxed = sdp(A);
    muxed.media[0].set_attribute("rtcp-mux", "");
    let mut answer = sdp(B);
    answer.media[0].set_attribute("rtcp-mux", "");
    // flags of the offer, answer muxed: offered to B, accepted to A, where B's RTCP goes
    let table: &[(&[RtcpMux], bool, bool, bool)] = &[
        (&[], true, true, true),
        (&[], false, true, false),
        (&[RtcpMux::Demux], false, false, true),
        (&[RtcpMux::Accept], false, true, true),
        (&[RtcpMux::Reject], false, false, false),
    ];
    for (flags, b_accepts, offered, accepted) in table {
        let mut r = Relay::new();
        let to_b = r.with(false, "a", Some("b"), &muxed, |d| d.rtcp_mux = flags.to_vec()).unwrap();
        assert_eq!(to_b.media[0].rtcp_mux(), *offered, "{flags:?}");
        assert!(to_b.media[0].rtcp().is_some(), "a port of its own in case it is refused");
        let to_a = r.answer("a", "b", &if *b_accepts { answer.clone() } else { sdp(B) });
        assert_eq!(to_a.media[0].rtcp_mux(), *accepted, "{flags:?}");
        let (pa, pb) = (to_a.media[0].port, to_b.media[0].port);
        // B to A: to A's RTP port when A shares it.
        let from_b = r.send(pb + u16::from(!b_accepts), if *b_accepts { B } else { "198.51.100.20:5001" }, &rtcp());
        let want = if *accepted { (pa, at(A)) } else { (pa + 1, at("192.0.2.10:4000")) };
        assert_eq!(from_b.map(|f| f.0), Some(want.0), "{flags:?}");
        assert_eq!(from_b.map(|f| f.1.ip()), Some(want.1.ip()));
        // A to B.
        let from_a = r.send(pa + u16::from(!accepted), A, &rtcp());
        assert_eq!(from_a.map(|f| f.0), Some(pb + u16::from(!b_accepts)), "{flags:?}");
        assert_eq!(r.send(pa, A, &rtcp()).is_some(), *accepted, "RTCP on an RTP port only where agreed");
    }
}

#[test]
fn only_media_passes() {
    let mut r = Relay::new();
    let (pa, _) = r.joined();
    assert_eq!(r.send(pa, A, b"\x00\x01\x00\x00\x21\x12\xa4\x42"), None);
    assert_eq!(r.send(pa, A, b""), None);
    assert_eq!(r.send(pa + 1, A, &packet(0, 0, &[0; 160])), None, "RTP on an RTCP port");
    assert_eq!(r.core.counters().dropped_other, 3);
    assert!(r.events().is_empty(), "nothing was learned");
    assert_eq!(r.core.packet(SocketId { slot: 99, rtcp: false }, at(A), b"x", r.now), None);
}

#[test]
fn video_and_fax_lines_have_streams_of_their_own() {
    let text = format!(
        "{}m=video 4002 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\nm=image 4004 udptl t38\r\nm=audio 0 RTP/AVP 0\r\n",
        sdp(A)
    );
    let offer = Session::parse(text.as_bytes()).unwrap();
    let mut r = Relay::new();
    let to_b = r.offer("a", Some("b"), &offer);
    assert_eq!(to_b.media.iter().map(|m| m.port != 0).collect::<Vec<_>>(), [true, true, true, false]);
    let text = format!("{}m=video 0 RTP/AVP 97\r\nm=image 5004 udptl t38\r\nm=audio 0 RTP/AVP 0\r\n", sdp(B));
    let to_a = r.answer("a", "b", &Session::parse(text.as_bytes()).unwrap());
    assert_eq!(to_a.media.iter().map(|m| m.port != 0).collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!(
        r.send(to_a.media[2].port, "192.0.2.10:4004", b"\x00\x01fax"),
        Some((to_b.media[2].port, at("198.51.100.20:5004")))
    );
    r.delete(None, None, false);
    assert_eq!(r.in_use(), 0);
}

#[test]
fn a_call_ends_when_nobody_sends_and_not_before() {
    let mut r = Relay::new();
    let (pa, _) = r.joined();
    r.pass(50 * S);
    assert!(r.audio(pa, A).is_some());
    r.pass(59 * S);
    assert!(r.report().is_some(), "one leg that sends is enough");
    r.events();
    r.pass(2 * S);
    assert!(r.report().is_none());
    let events = r.events();
    let timeouts = events.iter().filter(|e| e.2 == MediaEventKind::SessionTimeout);
    assert_eq!(timeouts.map(|e| e.0.as_str()).collect::<Vec<_>>(), ["owner-of-a", "owner-of-b"], "each owner once");
    assert!(events.iter().any(|e| e.2 == MediaEventKind::Ended));
    assert_eq!((r.in_use(), r.core.counters().timeouts, r.core.counters().ports), (0, 1, 0));
    assert_eq!(r.core.deadline(), None);
}

#[test]
fn held_and_lone_calls_live_longer() {
    for hold in [true, false] {
        let mut r = Relay::new();
        if hold {
            r.joined();
            let mut held = sdp(A);
            held.set_direction(Direction::SendOnly);
            r.offer("a", Some("b"), &held);
            r.answer("a", "b", &sdp(B));
        } else {
            r.offer("a", Some("b"), &sdp(A));
        }
        r.pass(3598 * S);
        assert!(r.report().is_some());
        r.pass(3 * S);
        assert!(r.report().is_none());
    }
    let mut r = Relay::new();
    r.joined();
    let mut held = sdp(A);
    held.set_direction(Direction::SendOnly);
    r.offer("a", Some("b"), &held);
    r.answer("a", "b", &sdp(B));
    r.pass(100 * S);
    r.offer("a", Some("b"), &sdp(A));
    r.answer("a", "b", &sdp(B));
    r.pass(62 * S);
    assert!(r.report().is_none(), "resumed: the short limit counts again");
}

#[test]
fn a_leg_that_falls_silent_is_told_once_each_time() {
    let mut r = Relay::new();
    let (pa, pb) = r.joined();
    let silent = |r: &mut Relay| {
        r.events().into_iter().filter(|e| e.2 == MediaEventKind::Silent).map(|e| e.1.unwrap()).collect::<Vec<_>>()
    };
    r.audio(pa, A);
    r.audio(pb, B);
    for _ in 0..20 {
        r.audio(pb, B);
        r.pass(S);
    }
    assert_eq!(silent(&mut r), ["a"]);
    r.audio(pa, A);
    r.pass(5 * S);
    assert_eq!(silent(&mut r), [""; 0]);
    r.pass(8 * S);
    let mut both = silent(&mut r);
    both.sort();
    assert_eq!(both, ["a", "b"]);
}

#[test]
fn digits_are_told_once() {
    let mut r = Relay::new();
    let (pa, _) = r.joined();
    let mut sending = rtp::dtmf::Sending::new('#', 800, 160).unwrap();
    while let Some((payload, _)) = sending.next_payload() {
        assert!(r.send(pa, A, &packet(101, 5000, &payload)).is_some(), "and passed on");
    }
    let digits: Vec<_> = r.events().into_iter().filter(|e| matches!(e.2, MediaEventKind::Dtmf { .. })).collect();
    assert_eq!(digits, [("owner-of-a".into(), Some("a".into()), MediaEventKind::Dtmf { digit: '#', duration: 800 })]);
}

#[test]
fn a_foreign_clients_call() {
    let mut r = Relay::new();
    let branch = |name: &'static str| move |d: &mut Description| d.via_branch = Some(name.to_owned());
    let to_1 = r.with(false, "a", None, &sdp(A), branch("one")).unwrap().media[0].port;
    assert_eq!(r.with(false, "a", None, &sdp(A), branch("one")).unwrap().media[0].port, to_1, "the same branch again");
    let to_2 = r.with(false, "a", None, &sdp(A), branch("two")).unwrap().media[0].port;
    assert_ne!(to_1, to_2);
    let pa = r.with(true, "a", Some("b"), &sdp(B), branch("two")).unwrap().media[0].port;
    assert_eq!(r.audio(pa, A), Some((to_2, at(B))));
    // Beyond a proxy of theirs another branch of the fork answers on the same ports.
    assert_eq!(r.with(true, "a", Some("b2"), &sdp(C), branch("two")).unwrap().media[0].port, pa);
    assert_eq!(r.audio(pa, A), Some((to_2, at(C))));
    // The callee's BYE has the tags the other way round; the branch that never answered ends with the call.
    assert!(matches!(r.delete(Some("b2"), Some("a"), false), Reply::Report { report: Some(_), warning: None }));
    assert_eq!((r.in_use(), r.core.counters().calls, r.core.counters().legs), (0, 0, 0));
}

#[test]
fn deleting_by_branch_and_deleting_what_is_not_there() {
    let mut r = Relay::new();
    for name in ["one", "two"] {
        r.with(false, "a", None, &sdp(A), |d| d.via_branch = Some(name.to_owned())).unwrap();
    }
    let delete = |branch: &str| {
        let via_branch = Some(branch.to_owned());
        Command::Delete(Delete { call_id: "call".into(), from_tag: Some("a".into()), via_branch, ..Delete::default() })
    };
    r.command(delete("one"));
    assert_eq!(r.in_use(), 2);
    r.command(delete("two"));
    assert_eq!(r.in_use(), 0, "the last branch takes the call along");
    assert!(matches!(r.delete(None, None, false), Reply::Report { report: None, warning: Some(_) }));
    let fatal = Command::Delete(Delete { call_id: "call".into(), fatal: true, ..Delete::default() });
    assert_eq!(r.command(fatal), Reply::Error("unknown call-id".into()));
    r.joined();
    assert!(matches!(r.delete(Some("nobody"), None, false), Reply::Report { report: None, warning: Some(_) }));
    assert_eq!(r.in_use(), 2);
}

#[test]
fn a_three_leg_call_loses_one_leg_at_a_time() {
    let mut r = Relay::new();
    r.joined();
    r.offer("c", Some("d"), &sdp(C));
    r.answer("c", "d", &sdp("100.1.1.2:6000"));
    assert_eq!(r.in_use(), 4);
    r.delete(Some("c"), Some("d"), false);
    assert_eq!(r.in_use(), 3, "others are joined: only the leg named by to-tag goes");
    r.delete(Some("a"), Some("b"), false);
    assert_eq!(r.in_use(), 0, "nobody else is joined: the call ends");
}

#[test]
fn refusals_leave_nothing_behind() {
    let mut r = Relay::new();
    r.ports.limit = 3;
    let refuse = |r: &mut Relay, answer, from, to| r.with(answer, from, to, &sdp(A), |_| ()).unwrap_err();
    assert_eq!(refuse(&mut r, true, "a", Some("b")), "unknown call-id");
    assert_eq!(refuse(&mut r, false, "a", Some("a")), "from-tag and to-tag are the same");
    assert_eq!(r.core.counters().calls, 0);
    r.joined();
    assert_eq!(refuse(&mut r, false, "c", Some("d")), "no free media ports");
    assert_eq!((r.in_use(), r.core.counters().legs, r.core.counters().ports), (2, 2, 4));
    assert_eq!(refuse(&mut r, true, "b", Some("z")), "no offer was made to this leg");
    assert_eq!(refuse(&mut r, true, "z", Some("b")), "unknown from-tag");
    let bad = Description::new("x", "a", Some("b"), b"hello".to_vec());
    assert_eq!(r.command(Command::Offer(bad)), Reply::Error("failed to parse SDP".into()));
    r.ports.limit = 100;
    for n in 0..40 {
        let _ = r.with(false, "a", Some(&format!("t{n}")), &sdp(A), |_| ());
    }
    assert_eq!(r.core.counters().legs, 32, "legs are bounded");
    let call = |n: u32| Command::Offer(Description::new(&format!("other{n}"), "a", Some("b"), sdp(A).to_vec()));
    assert!(matches!(r.command(call(1)), Reply::Sdp(_)));
    assert!(matches!(r.command(call(2)), Reply::Sdp(_)));
    assert_eq!(r.command(call(3)), Reply::Error("too many calls".into()));
    r.core.set_draining(true);
    assert_eq!(r.command(call(4)), Reply::Error("draining: no new calls".into()));
    assert!(matches!(r.command(call(1)), Reply::Sdp(_)), "known calls go on");
    assert_eq!(r.command(Command::Ping), Reply::Pong);
    assert!(matches!(r.command(Command::List { limit: 2 }), Reply::Calls(c) if c.len() == 2));
    let mut ports = std::mem::take(&mut r.ports);
    r.core.shutdown(&mut ports);
    assert!(ports.used.iter().all(|u| !u));
    assert_eq!((r.core.counters().legs, r.core.counters().ports), (0, 0));
}

#[test]
fn descriptions_that_name_our_own_ports_make_no_loop() {
    let mut r = Relay::new();
    let (pa, pb) = r.joined();
    let advertised = |tag: &str, r: &Relay| {
        r.core.calls[0]
            .as_ref()
            .unwrap()
            .legs()
            .find(|(_, l)| l.tag.as_deref() == Some(tag))
            .unwrap()
            .1
            .advertised
            .unwrap()
    };
    let (ours_a, ours_b) =
        (SocketAddr::new(advertised("a", &r), pa).to_string(), SocketAddr::new(advertised("b", &r), pb).to_string());
    r.offer("a", Some("b"), &sdp(&ours_b));
    r.answer("a", "b", &sdp(&ours_a));
    assert_eq!(r.audio(pb, B), None, "nothing goes to ourselves");
    assert_eq!(r.audio(pa, &ours_b), None);
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any sequence of commands and packets: no panic, gauges agree with the ports in use, all is freed at the end.
        #[test]
        fn account_is_kept(steps in proptest::collection::vec((0u8..7, 0usize..4, 0usize..4, any::<u8>()), 1..60)) {
            let tags = ["a", "b", "c", "d"];
            let addresses = [A, B, C, "10.0.0.1:9"];
            let mut r = Relay::new();
            r.ports.limit = 6;
            for (step, x, y, z) in steps {
                let (from, to) = (tags[x], (z % 5 != 0).then_some(tags[y]));
                match step {
                    0 | 1 => drop(r.with(false, from, to, &sdp(addresses[y]), |d| d.outside = z % 2 == 0)),
                    2 => drop(r.with(true, from, Some(tags[y]), &sdp(addresses[x]), |_| ())),
                    3 => drop(r.delete(Some(from), to, z % 2 == 0)),
                    4 => drop(r.audio(30000 + u16::from(z % 14), addresses[x])),
                    5 => r.pass(S * u32::from(z)),
                    _ => drop(r.report()),
                }
                prop_assert_eq!(r.core.counters().ports, r.in_use() as u64 * 2);
                let legs: usize = r.core.calls.iter().flatten().map(|c| c.legs().count()).sum();
                prop_assert_eq!(r.core.counters().legs, legs as u64);
                for stream in r.core.streams.iter().flatten() {
                    prop_assert!(stream.peer.is_none_or(|p| r.core.streams[p].is_some()), "no stream points to a closed one");
                }
            }
            r.pass(S * 8000);
            prop_assert_eq!(r.in_use(), 0);
        }
    }
}

#[test]
fn who_takes_a_call_over_is_told_the_last_events_again_and_all_that_follow() {
    let mut r = Relay::new();
    let (pa, pb) = r.joined();
    r.audio(pa, A);
    r.pass(20 * S);
    r.audio(pb, B);
    r.pass(45 * S);
    r.events();
    let own =
        |call: &str| Command::Query(Query { call_id: call.into(), owner: Some("other".into()), ..Query::default() });
    assert_eq!(r.command(own("unknown")), Reply::Error("unknown call-id".into()));
    assert!(matches!(r.command(own("call")), Reply::Report { report: Some(_), .. }));
    let told = r.events();
    assert!(told.iter().all(|(owner, ..)| owner == "other"));
    let kinds: Vec<_> = told.into_iter().map(|(_, leg, kind)| (leg.unwrap(), kind)).collect();
    // What is older than a minute is no news.
    let silent = |leg: &str| (leg.to_owned(), MediaEventKind::Silent);
    assert_eq!(kinds, [silent("a"), ("b".into(), MediaEventKind::Latched(at(B))), silent("b")]);
    r.core.leave(r.now);
    assert_eq!(r.events(), [("other".into(), None, MediaEventKind::Draining)]);
}

#[test]
fn events_kept_for_who_takes_over_are_bounded() {
    let mut r = Relay::new();
    r.joined();
    (0..100).for_each(|_| r.core.leave(r.now));
    r.events();
    r.command(Command::Query(Query { call_id: "call".into(), owner: Some("x".into()), ..Query::default() }));
    assert_eq!(r.events().len(), MAX_RECENT);
}

#[test]
fn a_leg_that_our_router_knows_to_be_inside_is_shown_the_inside_address() {
    let mut r = Relay::new();
    let outside: Option<IpAddr> = Some("192.0.2.10".parse().unwrap());
    let to_b = r.with(false, "a", Some("b"), &sdp(A), |d| d.received_from = outside).unwrap();
    assert_eq!(to_b.connection(), Some([10, 0, 0, 1].into()));
    let to_a = r.with(true, "a", Some("b"), &sdp(B), |d| d.sent_to = outside).unwrap();
    assert_eq!(to_a.connection(), Some([203, 0, 113, 192].into()));
    // A foreign client says nothing of where legs are.
    let foreign = r.with(false, "c", Some("d"), &sdp(C), |d| (d.owner, d.received_from) = (None, outside)).unwrap();
    assert_eq!(foreign.connection(), Some([203, 0, 113, 192].into()));
}
