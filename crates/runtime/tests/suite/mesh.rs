//! Two processes' meshes over loopback: what is sent arrives, what cannot arrive comes back, strangers are refused.

use crate::site::soon;
use bytes::Bytes;
use contract::media::{MediaEvent, MediaEventKind};
use contract::peers::{Peer, PeerState};
use contract::{InstallationKey, KeyRing, ProcessId, Service};
use runtime::mesh::{HopError, Member, Mesh, Parcel, Reach, Unsent};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const BALANCER: ProcessId = ProcessId(0xb);
const ROUTER: ProcessId = ProcessId(0xf);

/// One process: its mesh, its member, and the task that takes connections.
struct Process {
    mesh: Mesh,
    member: Member,
    taking: JoinHandle<anyhow::Result<()>>,
}

fn keys(byte: u8) -> Arc<KeyRing> {
    Arc::new(KeyRing::new(InstallationKey::new(1, [byte; 32])))
}

async fn process(service: Service, name: ProcessId, keys: Arc<KeyRing>, queue: usize) -> Process {
    let mesh = Mesh::with_queue(queue);
    let reach =
        Reach { address: "127.0.0.1:0".parse().unwrap(), keys, pod: format!("pod-{name}"), admin: None, metrics: None };
    let (_, taking) = mesh.listen(reach).await.unwrap();
    let taking = tokio::spawn(taking);
    let member = mesh.join(Peer::new(service, name));
    Process { mesh, member, taking }
}

impl Process {
    fn record(&self) -> Peer {
        self.mesh.local().remove(0)
    }

    /// Ends as a process that is killed.
    async fn kill(self) {
        self.taking.abort();
        _ = self.taking.await;
    }
}

async fn two() -> (Process, Process) {
    let one = process(Service::Balancer, BALANCER, keys(1), 4096).await;
    let two = process(Service::Router, ROUTER, keys(1), 4096).await;
    one.mesh.learn(vec![one.record(), two.record()]);
    two.mesh.learn(vec![one.record(), two.record()]);
    (one, two)
}

/// A record of a process at this address.
fn at(process: ProcessId, address: SocketAddr) -> Peer {
    Peer { address: address.to_string(), ..Peer::new(Service::Router, process) }
}

fn sip(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn back(to: ProcessId, text: &'static str) -> Unsent {
    Unsent { to, parcel: Parcel::Sip(sip(text)) }
}

#[tokio::test]
async fn messages_and_events_go_both_ways_in_order() {
    let (mut one, mut two) = two().await;
    let pod = two.mesh.peers().borrow().get(BALANCER).map(|p| p.pod.clone());
    assert_eq!(pod.as_deref(), Some("pod-000000000000000b"));
    for n in 0..1000 {
        one.member.send(ROUTER, Bytes::from(format!("there {n}"))).unwrap();
        two.member.send(BALANCER, Bytes::from(format!("back {n}"))).unwrap();
    }
    for n in 0..1000 {
        let got = soon(two.member.recv()).await.unwrap();
        assert_eq!((got.from, got.service), (BALANCER, Service::Balancer));
        assert_eq!(got.bytes, format!("there {n}"));
        let got = soon(one.member.recv()).await.unwrap();
        assert_eq!((got.from, got.service), (ROUTER, Service::Router));
        assert_eq!(got.bytes, format!("back {n}"));
    }
    let big = Bytes::from(vec![7; 300_000]);
    one.member.send(ROUTER, big.clone()).unwrap();
    assert_eq!(soon(two.member.recv()).await.unwrap().bytes, big);
    let event = MediaEvent { seq: 1, call: "c".into(), tag: Some("t".into()), kind: MediaEventKind::Ended };
    let mut events = two.member.events();
    one.member.handle().tell(ROUTER, event.clone()).unwrap();
    assert_eq!(soon(events.recv()).await.unwrap(), (BALANCER, event));
    one.mesh.flushed(Duration::from_secs(20)).await;
    assert!(one.member.unsent().try_recv().is_err());
}

#[tokio::test]
async fn an_answer_finds_its_way_before_the_record_does() {
    let one = process(Service::Balancer, BALANCER, keys(1), 16).await;
    let mut two = process(Service::Router, ROUTER, keys(1), 16).await;
    let mut one = one;
    one.mesh.learn(vec![two.record()]);
    assert_eq!(two.member.send(BALANCER, Bytes::new()), Err(HopError::Gone));
    one.member.send(ROUTER, sip("INVITE")).unwrap();
    let asked = soon(two.member.recv()).await.unwrap();
    // Nor does the news of others without it end the connection.
    two.mesh.learn(vec![two.record()]);
    two.member.send(asked.from, sip("200")).unwrap();
    assert_eq!(soon(one.member.recv()).await.unwrap().bytes, sip("200"));
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_what_was_sent_comes_back() {
    let mut one = process(Service::Balancer, BALANCER, keys(1), 16).await;
    let mut stranger = process(Service::Router, ROUTER, keys(2), 16).await;
    one.mesh.learn(vec![stranger.record()]);
    stranger.mesh.learn(vec![one.record()]);
    let (mut unsent, mut theirs) = (one.member.unsent(), stranger.member.unsent());
    one.member.send(ROUTER, sip("one")).unwrap();
    assert_eq!(soon(unsent.recv()).await.unwrap(), back(ROUTER, "one"));
    stranger.member.send(BALANCER, sip("two")).unwrap();
    assert_eq!(soon(theirs.recv()).await.unwrap(), back(BALANCER, "two"));
    assert!(one.member.try_recv().is_none() && stranger.member.try_recv().is_none());
}

#[tokio::test]
async fn a_process_that_is_not_there_gives_back_what_was_sent_to_it() {
    let mut one = process(Service::Balancer, BALANCER, keys(1), 16).await;
    let other = process(Service::Router, ProcessId(3), keys(1), 16).await;
    // A port that nobody listens on, and one that another process took over.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let taken = other.record().address.parse().unwrap();
    one.mesh.learn(vec![at(ROUTER, free), at(ProcessId(2), taken), other.record()]);
    let mut unsent = one.member.unsent();
    for to in [ROUTER, ProcessId(2)] {
        one.member.send(to, sip("x")).unwrap();
        assert_eq!(soon(unsent.recv()).await.unwrap(), back(to, "x"));
        // For a moment nobody tries again.
        assert_eq!(one.member.send(to, sip("y")), Err(HopError::Gone));
    }
    assert_eq!(one.member.send(ProcessId(99), sip("z")), Err(HopError::Gone));
}

#[tokio::test]
async fn what_a_killed_process_had_not_taken_comes_back() {
    let (mut one, mut two) = two().await;
    let mut unsent = one.member.unsent();
    one.member.send(ROUTER, sip("taken")).unwrap();
    soon(two.member.recv()).await.unwrap();
    one.mesh.flushed(Duration::from_secs(20)).await;
    two.kill().await;
    // Whether its end is known yet or not.
    if one.member.send(ROUTER, sip("late")).is_ok() {
        assert_eq!(soon(unsent.recv()).await.unwrap(), back(ROUTER, "late"));
    }
    assert!(unsent.try_recv().is_err(), "what was taken came back");
}

#[tokio::test]
async fn a_process_that_froze_gives_back_when_its_record_is_gone() {
    // One that proves who it is and then takes nothing: its only queue place is never emptied.
    let mut one = process(Service::Balancer, BALANCER, keys(1), 16).await;
    let two = process(Service::Router, ROUTER, keys(1), 1).await;
    one.mesh.learn(vec![one.record(), two.record()]);
    for text in ["one", "two", "three"] {
        one.member.send(ROUTER, sip(text)).unwrap();
    }
    let mut unsent = one.member.unsent();
    let mut draining = two.record();
    draining.state = PeerState::Draining;
    one.mesh.learn(vec![one.record(), draining]);
    assert!(unsent.try_recv().is_err());
    one.mesh.learn(vec![one.record()]);
    assert!(one.mesh.peers().borrow().get(ROUTER).is_none());
    let mut came = Vec::new();
    while came.last() != Some(&back(ROUTER, "three")) {
        came.push(soon(unsent.recv()).await.unwrap());
    }
    assert_eq!(one.member.send(ROUTER, sip("four")), Err(HopError::Gone));
}

#[tokio::test]
async fn what_waits_for_a_process_is_bounded() {
    const PLACES: usize = 8;
    let one = process(Service::Balancer, BALANCER, keys(1), PLACES).await;
    // It answers nothing, so nobody has proved anything yet.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.mesh.learn(vec![at(ROUTER, silent.local_addr().unwrap())]);
    let sent: Vec<_> = (0..PLACES + 3).map(|_| one.member.send(ROUTER, sip("x"))).collect();
    assert_eq!(sent.iter().filter(|s| s.is_ok()).count(), PLACES);
    assert_eq!(sent.last(), Some(&Err(HopError::Full)));
    assert_eq!(one.mesh.overflows(), 3);
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_too() {
    let one = process(Service::Balancer, BALANCER, keys(1), 4096).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.mesh.learn(vec![at(ROUTER, silent.local_addr().unwrap())]);
    let big = Bytes::from(vec![0; 1 << 20]);
    let sent = (0..100).take_while(|_| one.member.send(ROUTER, big.clone()).is_ok()).count();
    assert!((2..=16).contains(&sent), "{sent} MiB wait");
    assert_eq!(one.member.send(ROUTER, Bytes::from(vec![0; 5 << 20])), Err(HopError::Full));
}

#[tokio::test]
async fn processes_that_call_each_other_at_once_lose_nothing() {
    for _ in 0..20 {
        let (mut one, mut two) = two().await;
        one.member.send(ROUTER, sip("there")).unwrap();
        two.member.send(BALANCER, sip("back")).unwrap();
        assert_eq!(soon(two.member.recv()).await.unwrap().bytes, sip("there"));
        assert_eq!(soon(one.member.recv()).await.unwrap().bytes, sip("back"));
        one.member.send(ROUTER, sip("again")).unwrap();
        assert_eq!(soon(two.member.recv()).await.unwrap().bytes, sip("again"));
        two.kill().await;
    }
}
