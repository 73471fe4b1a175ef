//! The relay over real sockets on loopback.

use super::*;
use contract::KeyRing;
use contract::media::MediaEventKind;
use contract::ng::{Delete, Description, Query, Request};
use rtp::sdp::{Codec, Session};
use std::net::UdpSocket;
use std::ops::RangeInclusive;

/// Ranges of tests lie below the kernel's ephemeral ports, which every test's other sockets take.
fn config(ports: RangeInclusive<u16>) -> Config {
    Config { rtp_address: "127.0.0.1".parse().unwrap(), ports, threads: 2, ..Config::default() }
}

/// A phone's two sockets.
struct Phone {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    sdp: Vec<u8>,
}

fn wait(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 2000];
    socket.recv_from(&mut buffer).ok().map(|(n, from)| (buffer[..n].to_vec(), from))
}

impl Phone {
    fn new(host: &str) -> Phone {
        let open = || {
            let socket = UdpSocket::bind((host, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        };
        let (rtp, rtcp) = (open(), open());
        let mut sdp = rtp::sdp::offer(rtp.local_addr().unwrap(), &[Codec::ulaw()], 1, 1);
        sdp.media[0].set_rtcp(rtcp.local_addr().unwrap().port(), None);
        Phone { rtp, rtcp, sdp: sdp.to_vec() }
    }

    fn at(&self) -> SocketAddr {
        self.rtp.local_addr().unwrap()
    }

    fn send(&self, n: u16, to: SocketAddr) -> Vec<u8> {
        let packet = rtp::packet::Packet::new(0, n, u32::from(n) * 160, 1, &[n as u8; 160]).to_vec();
        self.rtp.send_to(&packet, to).unwrap();
        packet
    }
}

fn place(reply: Reply) -> SocketAddr {
    let Reply::Sdp(sdp) = reply else { panic!("{reply:?}") };
    Session::parse(&sdp).unwrap().rtp_address(0).unwrap()
}

fn description(call: &str, sdp: &[u8]) -> Description {
    Description {
        received_from: Some("127.0.0.1".parse().unwrap()),
        ..Description::new(call, "a", Some("b"), sdp.to_vec())
    }
}

/// Where A and B send to.
async fn connect(handle: &MediaHandle, call: &str, a: &Phone, b: &Phone) -> (SocketAddr, SocketAddr) {
    let to_b = place(handle.request(Command::Offer(description(call, &a.sdp))).await);
    let to_a = place(handle.request(Command::Answer(description(call, &b.sdp))).await);
    (to_a, to_b)
}

fn delete(call: &str) -> Command {
    Command::Delete(Delete { call_id: call.to_owned(), ..Delete::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_rtp_and_rtcp_both_ways_and_frees_its_ports() {
    let mut relay = build(config(22000..=22099)).await.unwrap();
    let (a, b) = (Phone::new("127.0.0.1"), Phone::new("127.0.0.1"));
    let (to_a, to_b) = connect(&relay.handle, "one", &a, &b).await;
    for n in 0..20 {
        let packet = a.send(n, to_a);
        assert_eq!(wait(&b.rtp), Some((packet, to_b)), "B hears its own relay port");
        let packet = b.send(n, to_b);
        assert_eq!(wait(&a.rtp), Some((packet, to_a)));
    }
    let report = rtp::rtcp::to_vec(&[rtp::rtcp::Rtcp::Bye(vec![1])]);
    let above = |at: SocketAddr| SocketAddr::new(at.ip(), at.port() + 1);
    a.rtcp.send_to(&report, above(to_a)).unwrap();
    assert_eq!(wait(&b.rtcp), Some((report, above(to_b))));
    let latched: Vec<_> =
        [relay.events.recv().await, relay.events.recv().await].into_iter().flatten().map(|e| e.event.kind).collect();
    assert_eq!(latched, [MediaEventKind::Latched(a.at()), MediaEventKind::Latched(b.at())]);
    let Reply::Report { report: Some(report), .. } = relay.handle.request(delete("one")).await else { panic!() };
    assert_eq!((report.rtp.packets, report.rtcp.packets), (40, 1));
    let counters = relay.handle.counters();
    assert_eq!((counters.calls, counters.ports, counters.packets), (0, 0, 41));
    for port in [to_a, above(to_a), to_b, above(to_b)] {
        UdpSocket::bind(port).unwrap();
    }
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_behind_nat_is_learned_and_learned_again() {
    let relay = build(config(22100..=22199)).await.unwrap();
    let (nat, moved, b) = (Phone::new("127.0.0.1"), Phone::new("127.0.0.1"), Phone::new("127.0.0.1"));
    let text = String::from_utf8(nat.sdp.clone()).unwrap().replace("127.0.0.1", "10.9.9.9");
    let offer = Description { outside: true, ..description("nat", text.as_bytes()) };
    let to_b = place(relay.handle.request(Command::Offer(offer.clone())).await);
    let to_nat = place(relay.handle.request(Command::Answer(description("nat", &b.sdp))).await);
    b.send(1, to_b);
    let packet = nat.send(2, to_nat);
    assert_eq!(wait(&b.rtp).unwrap().0, packet);
    let packet = b.send(3, to_b);
    assert_eq!(wait(&nat.rtp).unwrap().0, packet, "the one sent before is gone: nobody was known");
    moved.send(4, to_nat);
    let packet = nat.send(5, to_nat);
    assert_eq!(wait(&b.rtp).unwrap().0, packet, "a stranger's packet is not passed on");
    relay.handle.request(Command::Offer(offer)).await;
    relay.handle.request(Command::Answer(description("nat", &b.sdp))).await;
    let packet = moved.send(6, to_nat);
    assert_eq!(wait(&b.rtp).unwrap().0, packet, "the next description opens the leg");
    let packet = b.send(7, to_b);
    assert_eq!(wait(&moved.rtp).unwrap().0, packet);
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_calls_at_once_over_both_families() {
    for (host, bind, ports) in [("127.0.0.1", "0.0.0.0", 22200..=23099), ("::1", "::", 23100..=23999)] {
        let mut config = config(ports);
        config.rtp_address = bind.parse().unwrap();
        let relay = build(config).await.unwrap();
        let mut calls = Vec::new();
        for n in 0..200 {
            let (a, b) = (Phone::new(host), Phone::new(host));
            let name = format!("call-{n}");
            let peer = Some(host.parse().unwrap());
            let say = |sdp: &[u8]| Description { received_from: peer, sent_to: peer, ..description(&name, sdp) };
            let to_b = place(relay.handle.request(Command::Offer(say(&a.sdp))).await);
            let to_a = place(relay.handle.request(Command::Answer(say(&b.sdp))).await);
            assert_eq!(to_a.ip(), host.parse::<IpAddr>().unwrap(), "the address of the route");
            calls.push((name, a, b, to_a, to_b));
        }
        assert_eq!((relay.handle.counters().calls, relay.handle.counters().ports), (200, 800));
        for n in 0..3 {
            for (_, a, b, to_a, to_b) in &calls {
                a.send(n, *to_a);
                b.send(n, *to_b);
            }
            for (_, a, b, to_a, to_b) in &calls {
                assert_eq!(wait(&b.rtp).map(|p| p.1), Some(*to_b));
                assert_eq!(wait(&a.rtp).map(|p| p.1), Some(*to_a));
            }
        }
        for (name, ..) in &calls {
            relay.handle.request(delete(name)).await;
        }
        let counters = relay.handle.counters();
        assert_eq!((counters.calls, counters.legs, counters.ports, counters.packets), (0, 0, 0, 1200));
        relay.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_over_udp() {
    let mut config = config(24000..=24003);
    config.ng = Some("127.0.0.1:0".parse().unwrap());
    let relay = build(config).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.connect(relay.ng.unwrap()).unwrap();
    let ask = |bytes: &[u8]| {
        client.send(bytes).unwrap();
        wait(&client).unwrap().0
    };
    assert_eq!(ask(b"5323_1 d7:command4:pinge"), b"5323_1 d6:result4:ponge");
    assert_eq!(ask(b"7 d7:command4:foo e"), b"7 d12:error-reason20:Unrecognized command6:result5:errore");
    let a = Phone::new("127.0.0.1");
    let offer = |cookie: &str, call: &str| {
        let sdp = String::from_utf8(a.sdp.clone()).unwrap();
        format!(
            "{cookie} d7:call-id{}:{call}7:command5:offer5:flagsl13:trust addresse8:from-tag10:mS9rSAn0Cr13:received froml3:IP49:127.0.0.1e7:replacel6:origin18:session connectione3:sdp{}:{sdp}e",
            call.len(),
            sdp.len()
        )
    };
    let first = ask(offer("c1", "one").as_bytes());
    assert!(first.starts_with(b"c1 d6:result2:ok3:sdp"), "{}", String::from_utf8_lossy(&first));
    assert_eq!(ask(offer("c1", "one").as_bytes()), first, "a retransmission gets the same reply");
    let full = ask(offer("c2", "two").as_bytes());
    assert_eq!(Reply::parse(&full), Some((b"c2".to_vec(), Reply::Error("no free media ports".into()))));
    let (_, reply) = Reply::parse(&ask(&Request {
        cookie: b"q".to_vec(),
        command: Command::Query(Query { call_id: "one".into(), ..Query::default() }),
    }
    .to_vec()))
    .unwrap();
    let Reply::Report { report: Some(report), .. } = reply else { panic!("{reply:?}") };
    assert_eq!(report.tags.keys().collect::<Vec<_>>(), ["", "mS9rSAn0Cr"]);
    let gone = ask(b"d d7:call-id3:one7:command6:delete8:from-tag10:mS9rSAn0Cre");
    assert!(matches!(Reply::parse(&gone), Some((_, Reply::Report { report: Some(_), .. }))));
    assert_eq!(relay.handle.counters().ports, 0);
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ng_is_for_allowed_networks_only() {
    let mut config = config(24010..=24013);
    config.ng = Some("127.0.0.1:0".parse().unwrap());
    config.ng_allowed = vec!["127.0.0.2/32".parse().unwrap()];
    let relay = build(config).await.unwrap();
    let ask = |host: &str, wait_ms| {
        let client = UdpSocket::bind((host, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(wait_ms))).unwrap();
        client.send_to(b"1 d7:command4:pinge", relay.ng.unwrap()).unwrap();
        wait(&client)
    };
    // The refused one is asked first: when the second is answered, the first was dropped.
    let refused = UdpSocket::bind("127.0.0.1:0").unwrap();
    refused.set_nonblocking(true).unwrap();
    refused.send_to(b"1 d7:command4:pinge", relay.ng.unwrap()).unwrap();
    assert!(ask("127.0.0.2", 5000).is_some());
    assert!(wait(&refused).is_none());
    relay.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_call_ends_and_shutdown_closes_everything() {
    let mut config = config(24020..=24039);
    config.timeout = Duration::from_millis(100);
    let mut relay = build(config).await.unwrap();
    let (a, b) = (Phone::new("127.0.0.1"), Phone::new("127.0.0.1"));
    let offer = Description { owner: Some("router-7".into()), ..description("idle", &a.sdp) };
    relay.handle.request(Command::Offer(offer)).await;
    relay.handle.request(Command::Answer(description("idle", &b.sdp))).await;
    let event = tokio::time::timeout(Duration::from_secs(5), relay.events.recv()).await.unwrap().unwrap();
    assert_eq!((event.owner.as_deref(), event.event.kind), (Some("router-7"), MediaEventKind::SessionTimeout));
    let event = relay.events.recv().await.unwrap();
    assert_eq!((event.event.kind, event.event.seq), (MediaEventKind::Ended, 1));
    assert_eq!(relay.handle.request(Command::List { limit: 9 }).await, Reply::Calls(vec![]));
    let (to_a, to_b) = connect(&relay.handle, "open", &a, &b).await;
    relay.handle.set_draining(true);
    let refused = relay.handle.request(Command::Offer(description("new", &a.sdp))).await;
    assert_eq!(refused, Reply::Error("draining: no new calls".into()));
    let handle = relay.handle.clone();
    relay.shutdown().await;
    for port in [to_a, to_b] {
        UdpSocket::bind(port).unwrap();
    }
    assert!(matches!(handle.request(Command::Ping).await, Reply::Error(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_change_hold_for_calls_of_every_thread() {
    let mut relay = build(config(24050..=24089)).await.unwrap();
    let (a, b) = (Phone::new("127.0.0.1"), Phone::new("127.0.0.1"));
    // Eight calls: by chance of 1 in 128 they are all of one thread, which the test then merely does not show.
    for n in 0..8 {
        connect(&relay.handle, &format!("call-{n}"), &a, &b).await;
    }
    relay.handle.set_timeouts(Duration::from_millis(50), Duration::from_secs(3600));
    for _ in 0..8 {
        let ended = async { while relay.events.recv().await.unwrap().event.kind != MediaEventKind::Ended {} };
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    }
    assert_eq!((relay.handle.counters().calls, relay.handle.counters().timeouts), (0, 8));
    relay.shutdown().await;
}

#[tokio::test]
async fn a_range_without_a_pair_and_a_taken_ng_port_are_told() {
    assert!(matches!(build(config(24041..=24041)).await, Err(BuildError::NoPorts)));
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = config(24042..=24049);
    config.ng = Some(taken.local_addr().unwrap());
    assert!(matches!(build(config).await, Err(BuildError::Ng(..))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_ours_is_good_from_any_network_at_the_relay_that_it_names() {
    let (relay_name, other) = (contract::ProcessId(1), contract::ProcessId(2));
    let keys = KeyRing::new(contract::InstallationKey::new(1, [3; 32]));
    let mut config = config(24012..=24015);
    config.ng = Some("127.0.0.1:0".parse().unwrap());
    config.ng_allowed = vec!["127.0.0.2/32".parse().unwrap()];
    config.ng_keys = Some((relay_name, Arc::new(keys.clone())));
    let relay = build(config).await.unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.connect(relay.ng.unwrap()).unwrap();
    let stranger = KeyRing::new(contract::InstallationKey::new(1, [4; 32]));
    client.send(b"1 d7:command4:pinge").unwrap();
    client.send(&contract::ng::seal(&stranger, relay_name, "2", Command::Ping).to_vec()).unwrap();
    client.send(&contract::ng::seal(&keys, other, "3", Command::Ping).to_vec()).unwrap();
    let sealed = contract::ng::seal(&keys, relay_name, "4", Command::Ping);
    client.send(&sealed.to_vec()).unwrap();
    // The first answer is to the fourth.
    assert_eq!(Reply::parse(&wait(&client).unwrap().0), Some((sealed.cookie, Reply::Pong)));
    relay.shutdown().await;
}
