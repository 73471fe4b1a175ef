//! The driver on loopback: real sockets, one mesh, a registrar and a router made here.

use crate::{Bound, Config};
use bytes::Bytes;
use contract::config::{
    Algorithm, BalancerEntry, Destination, DispatcherEntry, PbxEntry, Probe, Snapshot, Version, entry_hash,
};
use contract::leg::LegToken;
use contract::peers::Peer;
use contract::{ProcessId, Service, Transport};
use runtime::mesh::{Mesh, Reach};
use runtime::source::MemorySource;
use runtime::transport::udp::UdpOptions;
use runtime::{Environment, Running};
use sip::header::NameAddr;
use sip::{Message, Method, Name, build};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const REGISTRAR: ProcessId = ProcessId(20);
const ROUTER: ProcessId = ProcessId(10);

fn snapshot(entries: Vec<BalancerEntry>) -> Snapshot<BalancerEntry> {
    let entries: BTreeMap<_, _> =
        entries.into_iter().enumerate().map(|(n, e)| (format!("e/{n}"), Arc::new(e))).collect();
    let hash = entries.iter().fold(0u64, |h, (k, e)| h.wrapping_add(entry_hash(k, e.as_ref())));
    Snapshot { version: Version { epoch: 1, n: 1, hash }, entries }
}

/// Answers every request that reaches it: 200, INVITE with a leg token as its Contact. ACKs are dropped.
async fn serve(environment: Environment, service: Service, process: ProcessId) {
    let mut member = environment.mesh.join(Peer::new(service, process));
    while let Some(message) = member.recv().await {
        let request = Message::parse_stream(&message.bytes).unwrap();
        if !request.is_request() || request.method() == Some(Method::Ack) {
            continue;
        }
        let leg = LegToken { process, leg: "leg".into() }.seal(&environment.keys);
        let response = build::response(&request, 200, None, Some("s"))
            .record_route()
            .header(Name::Contact, format!("<sip:{leg}@127.0.0.1>"))
            .header_opt(Name::Path, request.header(Name::Path))
            .finish();
        member.send(message.from, response).unwrap();
    }
}

/// A balancer of an environment, with the address it got.
fn balancer(
    environment: &Environment,
    process: u64,
    config: Config,
    source: &MemorySource<BalancerEntry>,
) -> (Running, SocketAddr) {
    let bound = Bound::bind(config, &environment.metrics).unwrap();
    let address = bound.addresses()[0].1;
    let process = ProcessId(process);
    (bound.start(environment.deps(process, source.subscribe(process))), address)
}

fn listen(transport: Transport, address: &str) -> Config {
    Config { listeners: vec![(transport, address.parse().unwrap())], ..Config::default() }
}

fn request(method: &str, uri: &str, from: SocketAddr, branch: &str, extra: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {from};rport;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:8005@pbx>;tag=f\r\nTo: <sip:8006@pbx>\r\nCall-ID: c\r\nCSeq: 1 {method}\r\n{extra}Content-Length: 0\r\n\r\n"
    )
}

async fn ask(phone: &UdpSocket, to: SocketAddr, text: &str) -> Bytes {
    phone.send_to(text.as_bytes(), to).await.unwrap();
    let mut buffer = [0; 4096];
    loop {
        let (n, from) =
            timeout(Duration::from_secs(10), phone.recv_from(&mut buffer)).await.expect("an answer").unwrap();
        assert_eq!(from, to, "answered from the address asked on");
        let bytes = Bytes::copy_from_slice(&buffer[..n]);
        if Message::parse(&bytes).unwrap().status().is_some_and(|s| s >= 200) {
            return bytes;
        }
    }
}

fn status(bytes: &Bytes) -> u16 {
    Message::parse(bytes).unwrap().status().unwrap()
}

#[tokio::test]
async fn two_instances_on_one_address_serve_one_phone() {
    let environment = Environment::in_memory();
    let source = MemorySource::starting_at(snapshot(vec![BalancerEntry::Pbx(PbxEntry::default())]));
    let shared = |address: &str| Config {
        udp: UdpOptions { reuse_port: true, ..UdpOptions::default() },
        ..listen(Transport::Udp, address)
    };
    let (_one, address) = balancer(&environment, 1, shared("127.0.0.1:0"), &source);
    let (_two, same) = balancer(&environment, 2, shared(&address.to_string()), &source);
    assert_eq!(address, same);
    tokio::spawn(serve(environment.clone(), Service::Registrar, REGISTRAR));
    tokio::spawn(serve(environment.clone(), Service::Router, ROUTER));
    timeout(Duration::from_secs(10), environment.health.ready()).await.unwrap();
    // The kernel chooses between the two sockets by the phone's port.
    for n in 0..20 {
        let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let from = phone.local_addr().unwrap();
        let ok = ask(&phone, address, &request("REGISTER", "sip:127.0.0.1", from, &format!("r{n}"), "")).await;
        assert_eq!(status(&ok), 200);
        let ok = Message::parse(&ok).unwrap();
        let path = NameAddr::parse(ok.header(Name::Path).unwrap()).unwrap();
        assert_eq!(path.uri_parsed().unwrap().port, Some(address.port()));
        let ok = ask(&phone, address, &request("INVITE", "sip:8006@127.0.0.1", from, &format!("i{n}"), "")).await;
        let ok = Message::parse(&ok).unwrap();
        let target = NameAddr::parse(ok.header(Name::Contact).unwrap()).unwrap().uri;
        // In the dialog from another port, so perhaps by the other instance.
        let moved = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let route = format!("Route: {}\r\n", ok.header(Name::RecordRoute).unwrap());
        let bye = request("BYE", target, moved.local_addr().unwrap(), &format!("b{n}"), &route);
        assert_eq!(status(&ask(&moved, address, &bye.replace("8006@pbx>", "8006@pbx>;tag=s")).await), 200);
    }
}

#[tokio::test]
async fn a_router_calls_a_phone_over_udp_and_the_answer_returns() {
    let environment = Environment::in_memory();
    let source = MemorySource::starting_at(snapshot(vec![BalancerEntry::Pbx(PbxEntry::default())]));
    let (_one, address) = balancer(&environment, 1, listen(Transport::Udp, "0.0.0.0:0"), &source);
    let target = SocketAddr::new("127.0.0.5".parse().unwrap(), address.port());
    tokio::spawn(serve(environment.clone(), Service::Registrar, REGISTRAR));
    let mut router = environment.mesh.join(Peer::new(Service::Router, ROUTER));
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let from = phone.local_addr().unwrap();
    timeout(Duration::from_secs(10), environment.health.ready()).await.unwrap();
    let ok = ask(&phone, target, &request("REGISTER", "sip:127.0.0.5", from, "r", "")).await;
    let ok = Message::parse(&ok).unwrap();
    let path = ok.header(Name::Path).unwrap();
    assert!(path.contains("@127.0.0.5:"), "bound to all, it tells the address that was asked: {path}");
    let invite = build::request("INVITE", "sip:8006@10.0.0.1")
        .header(Name::Via, format!("SIP/2.0/TCP {};branch=z9hG4bKr", contract::hop::host(Service::Router, ROUTER)))
        .header(Name::From, "<sip:a@b>;tag=1")
        .header(Name::To, "<sip:c@d>")
        .header(Name::CallId, "b")
        .header(Name::CSeq, "1 INVITE")
        .header(Name::Route, path)
        .finish();
    router.send(ProcessId(1), invite).unwrap();
    let mut buffer = [0; 4096];
    let (n, source) = timeout(Duration::from_secs(10), phone.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(source, target);
    let ringing = build::response(&Message::parse(&buffer[..n]).unwrap(), 180, None, Some("t")).finish();
    phone.send_to(&ringing, target).await.unwrap();
    loop {
        let message = timeout(Duration::from_secs(10), router.recv()).await.unwrap().unwrap();
        if status(&message.bytes) == 180 {
            break;
        }
    }
    // Nobody's flow any more.
    let gone = contract::Flow {
        transport: Transport::Tcp,
        process: ProcessId(1),
        connection: 99,
        local: target,
        remote: from,
    };
    let text = request(
        "OPTIONS",
        "sip:8006@h",
        from,
        "g",
        &format!("Route: <sip:{}@h;lr>\r\n", gone.token(&environment.keys)),
    );
    router.send(ProcessId(1), Bytes::from(text.replace("/UDP", "/TCP"))).unwrap();
    let message = timeout(Duration::from_secs(10), router.recv()).await.unwrap().unwrap();
    assert_eq!(status(&message.bytes), 430);
}

#[tokio::test]
async fn tcp_phones_and_broken_streams_are_answered() {
    let environment = Environment::in_memory();
    let source = MemorySource::starting_at(snapshot(vec![BalancerEntry::Pbx(PbxEntry::default())]));
    let config = Config { shards: 2, ..listen(Transport::Tcp, "127.0.0.1:0") };
    let (_one, address) = balancer(&environment, 1, config, &source);
    tokio::spawn(serve(environment.clone(), Service::Router, ROUTER));
    timeout(Duration::from_secs(10), environment.health.ready()).await.unwrap();
    for n in 0..4 {
        let mut phone = TcpStream::connect(address).await.unwrap();
        let from = phone.local_addr().unwrap();
        let text = request("INVITE", "sip:8006@127.0.0.1", from, &format!("t{n}"), "").replace("/UDP", "/TCP");
        phone.write_all(text.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains("Contact: ") {
            let read = timeout(Duration::from_secs(10), phone.read_buf(&mut got)).await.unwrap().unwrap();
            assert!(read > 0);
        }
        let text = String::from_utf8(got).unwrap();
        assert!(text.starts_with("SIP/2.0 100") && text.contains(";transport=tcp;lr>"), "{text}");
    }
    let mut phone = TcpStream::connect(address).await.unwrap();
    let text =
        request("INVITE", "sip:8006@127.0.0.1", address, "x", "").replace("Content-Length: 0", "Content-Length: x");
    phone.write_all(text.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("SIP/2.0 400") {
        assert!(timeout(Duration::from_secs(10), phone.read_buf(&mut got)).await.unwrap().unwrap() > 0);
    }
}

#[tokio::test]
async fn destinations_are_probed_over_both_transports_and_shown() {
    let environment = Environment::in_memory();
    let asterisk = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unused = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let uris = [
        format!("sip:{}", asterisk.local_addr().unwrap()),
        format!("sip:{};transport=tcp", other.local_addr().unwrap()),
        format!("sip:{}", unused.local_addr().unwrap()),
    ];
    let source = MemorySource::starting_at(snapshot(vec![BalancerEntry::Dispatcher(DispatcherEntry {
        name: "asterisk".into(),
        algorithm: Algorithm::Weight,
        destinations: uris.iter().map(|u| Destination { uri: u.clone(), weight: 1 }).collect(),
        probe: Probe { interval_ms: 100, timeout_ms: 80, failure_threshold: 3, success_threshold: 1 },
        unavailable: (404, "No destination dispatcher".into()),
        extensions: vec!["_9.".into()],
    })]));
    let any = "127.0.0.1:0".parse().unwrap();
    let config = Config { listeners: vec![(Transport::Udp, any), (Transport::Tcp, any)], ..Config::default() };
    let (running, _) = balancer(&environment, 1, config, &source);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((n, from)) = asterisk.recv_from(&mut buffer).await {
            let ok = build::response(&Message::parse(&buffer[..n]).unwrap(), 200, None, Some("a")).finish();
            asterisk.send_to(&ok, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        let (mut stream, _) = other.accept().await.unwrap();
        let mut framer = sip::framer::Framer::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            framer.push(&buffer[..n]);
            while let Ok(Some(sip::framer::Frame::Message(bytes))) = framer.next() {
                let ok = build::response(&Message::parse(&bytes).unwrap(), 404, None, Some("a")).finish();
                stream.write_all(&ok).await.unwrap();
            }
        }
    });
    let view = running.views["dispatchers"].clone();
    let settled = async {
        loop {
            let shown = view().await;
            let field = |name: &str| -> Vec<serde_json::Value> {
                shown.as_array().into_iter().flatten().map(|d| d[name].clone()).collect()
            };
            if field("state") == ["up", "up", "down"]
                && field("status") == [200.into(), 404.into(), serde_json::Value::Null]
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), settled).await.expect("the dead one goes down, the others stay up");
}

#[tokio::test]
async fn a_taken_port_is_said_plainly() {
    let environment = Environment::in_memory();
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Bound::bind(listen(Transport::Udp, &address.to_string()), &environment.metrics).err().unwrap();
    assert!(format!("{error:#}").starts_with(&format!("cannot listen on {address} (UDP): ")), "{error:#}");
    // A process of its own waits until whoever has it goes; one that nobody has at all is no reason to wait.
    let patience = Duration::from_secs(60);
    let foreign = listen(Transport::Udp, "192.0.2.1:5060");
    assert!(Bound::bind_within(patience, foreign, &environment.metrics).await.is_err());
    let waits = Bound::bind_within(patience, listen(Transport::Udp, &address.to_string()), &environment.metrics);
    let mut waits = std::pin::pin!(waits);
    assert!(timeout(Duration::from_millis(300), &mut waits).await.is_err(), "it is still taken");
    drop(taken);
    assert_eq!(waits.await.unwrap().addresses(), [(Transport::Udp, address)]);
}

#[tokio::test]
async fn a_drain_waits_for_answers_and_not_for_copies_of_what_was_answered() {
    let environment = Environment::in_memory();
    let source = MemorySource::starting_at(snapshot(vec![BalancerEntry::Pbx(PbxEntry::default())]));
    let (mut running, address) = balancer(&environment, 1, listen(Transport::Udp, "127.0.0.1:0"), &source);
    tokio::spawn(serve(environment.clone(), Service::Registrar, REGISTRAR));
    // One router that rings, and answers when it is told to.
    let mut router = environment.mesh.join(Peer::new(Service::Router, ROUTER));
    timeout(Duration::from_secs(10), environment.health.ready()).await.unwrap();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let from = phone.local_addr().unwrap();
    assert_eq!(status(&ask(&phone, address, &request("REGISTER", "sip:127.0.0.1", from, "r", "")).await), 200);
    let invite = request("INVITE", "sip:8006@127.0.0.1", from, "i", "");
    phone.send_to(invite.as_bytes(), address).await.unwrap();
    let rings = timeout(Duration::from_secs(10), router.recv()).await.unwrap().unwrap();
    environment.drain.start();
    let stays = timeout(Duration::from_secs(6), running.join()).await;
    assert!(stays.is_err(), "an INVITE has no answer yet: {stays:?}");
    let busy = build::response(&Message::parse_stream(&rings.bytes).unwrap(), 486, None, Some("s")).finish();
    router.send(rings.from, busy).unwrap();
    // Timers H and J, 32 s, are not waited for.
    timeout(Duration::from_secs(10), running.join()).await.expect("it goes").unwrap();
}

#[tokio::test]
async fn what_a_process_elsewhere_does_not_take_goes_to_the_next() {
    let environment = Environment::in_memory();
    let elsewhere = Environment { mesh: Mesh::new(), ..environment.clone() };
    for one in [&environment, &elsewhere] {
        let address = "127.0.0.1:0".parse().unwrap();
        let reach = Reach { address, keys: one.keys.clone(), pod: String::new(), admin: None, metrics: None };
        tokio::spawn(one.mesh.listen(reach).await.unwrap().1);
    }
    tokio::spawn(serve(elsewhere.clone(), Service::Registrar, REGISTRAR));
    let mut there = elsewhere.mesh.peers();
    let known = there.wait_for(|peers| peers.get(REGISTRAR).is_some()).await.unwrap().0.clone();
    // Its record stands, and nobody is behind its address.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let dead = Peer { address: free.to_string(), ..Peer::new(Service::Registrar, ProcessId(21)) };
    environment.mesh.learn([known, vec![dead]].concat());
    let source = MemorySource::starting_at(snapshot(vec![BalancerEntry::Pbx(PbxEntry::default())]));
    let (_one, address) = balancer(&environment, 1, listen(Transport::Udp, "127.0.0.1:0"), &source);
    timeout(Duration::from_secs(10), environment.health.ready()).await.unwrap();
    let phone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let from = phone.local_addr().unwrap();
    for n in 0..16 {
        let text = request("REGISTER", "sip:127.0.0.1", from, &format!("r{n}"), "");
        let text =
            text.replace("Call-ID: c\r\n", &format!("Call-ID: c{n}\r\n")).replace("8006@", &format!("80{n:02}@"));
        assert_eq!(status(&ask(&phone, address, &text).await), 200, "{n}");
    }
    // Half of them were for the dead one: the first was given back, others were not even tried.
    let shown = || environment.metrics.encode();
    timeout(Duration::from_secs(10), async {
        while !shown().lines().any(|l| l.starts_with("kubepbx_balancer_events_total{reason=\"failover\"}")) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
