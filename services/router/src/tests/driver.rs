//! The service as it runs: mesh, store, configuration and relay are real or stand at their interfaces; a balancer with
//! two phones is played over the mesh.

use super::lab::*;
use super::phones::*;
use crate::Config;
use bytes::Bytes;
use contract::config::RouterEntry;
use contract::location::Binding;
use contract::media::{MediaEvent, MediaEventKind};
use contract::ng::{Command, Reply};
use contract::peers::Peer;
use contract::{ProcessId, Service};
use futures::future::BoxFuture;
use runtime::media::{MediaControl, MediaError};
use runtime::mesh::Member;
use runtime::running::Done;
use runtime::source::Subscription;
use runtime::{Environment, Running};
use sip::Name;
use sip::message::Message;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A relay that gives descriptions back as they are, and remembers what it was told.
#[derive(Default)]
struct Relay(Mutex<Vec<Command>>);

impl MediaControl for Relay {
    fn request(&self, relay: ProcessId, command: Command) -> BoxFuture<'_, Result<Reply, MediaError>> {
        assert_eq!(relay, RELAY);
        if command != Command::Ping {
            self.0.lock().unwrap().push(command.clone());
        }
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(match command {
                Command::Offer(d) | Command::Answer(d) => Reply::Sdp(d.sdp),
                _ => Reply::Report { report: None, warning: None },
            })
        })
    }
}

struct Pbx {
    /// Makes messages; its own core is not used.
    lab: Lab,
    env: Environment,
    running: Running,
    balancer: Member,
    /// The relay's place in the mesh.
    media: Member,
    relay: Arc<Relay>,
    /// The router that it talks with.
    router: ProcessId,
    got: Vec<Bytes>,
}

impl Pbx {
    async fn start() -> Self {
        Self::start_with(Config::default()).await
    }

    async fn start_with(config: Config) -> Self {
        let lab = Lab::new();
        let env = Environment::new(Arc::new(runtime::store::memory::MemoryStore::new()), lab.keys.clone());
        let source: Subscription<RouterEntry> = Subscription::fixed(lab.entries.clone());
        let relay = Arc::new(Relay::default());
        let balancer = env.mesh.join(Peer::new(Service::Balancer, BALANCER));
        let media = env.mesh.join(Peer::new(Service::Media, RELAY));
        let running = crate::build(config, env.deps(ROUTER, source), relay.clone()).unwrap();
        let binding = Binding {
            contact: "sip:8006@127.0.0.1:8006".into(),
            call_id: "r".into(),
            cseq: 1,
            expires_at: u64::MAX / 2,
            since: 0,
            updated: 0,
            path: vec![format!("<sip:{}@{EDGE};lr>", lab.flow("8006").token(&lab.keys))],
            flow: Some(lab.flow("8006")),
            instance: None,
            reg_id: None,
            q: 1000,
            user_agent: None,
            push: None,
            forget_at: None,
        };
        env.store.swap("8006", 0, vec![binding], 1).await.unwrap();
        Self { lab, env, running, balancer, media, relay, router: ROUTER, got: Vec::new() }
    }

    fn send(&self, bytes: Bytes) {
        self.balancer.send(self.router, bytes).unwrap();
    }

    /// The next message that begins so.
    async fn get(&mut self, start: &str) -> Bytes {
        loop {
            if let Some(at) = self.got.iter().position(|b| b.starts_with(start.as_bytes())) {
                return self.got.remove(at);
            }
            let next = tokio::time::timeout(Duration::from_secs(5), self.balancer.recv()).await;
            let Ok(Some(inside)) = next else { panic!("no {start}; got {:?}", self.got) };
            assert_eq!((inside.from, inside.service), (self.router, Service::Router));
            self.got.push(inside.bytes);
        }
    }

    async fn view(&self) -> serde_json::Value {
        let view = self.running.views["calls"].clone();
        view().await
    }

    async fn talk(&mut self) -> (Phone, Phone) {
        let mut a = self.lab.phone("8005", "8006");
        let invite = self.lab.invite_bytes(&a, "8006", Some(&sdp(4000, "0 101")), |r| r);
        self.send(invite);
        let challenge = self.get("SIP/2.0 401").await;
        let credentials = Lab::credentials(&challenge, "8005", "secret8005", "8006");
        a.cseq += 1;
        let invite = self
            .lab
            .invite_bytes(&a, "8006", Some(&sdp(4000, "0 101")), |r| r.header(Name::Authorization, &credentials));
        a.branch = branch(&invite);
        self.send(invite);
        self.get("SIP/2.0 100").await;
        let invite = self.get("INVITE").await;
        let b = self.lab.callee(&invite);
        let ringing = self.lab.answer(&b, &invite, 180, None);
        self.send(ringing);
        self.get("SIP/2.0 180").await;
        let ok = self.lab.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        self.send(ok);
        self.get("ACK").await;
        let ok = self.get("SIP/2.0 200").await;
        Lab::joined(&mut a, &ok);
        let ack = self.lab.within(&mut a, "ACK", None);
        self.send(ack);
        (a, b)
    }

    async fn records(&self) -> usize {
        let mut all = 0;
        for kind in ["leg", "call", "bridge"] {
            all += self.env.store.records(kind).await.unwrap().len();
        }
        all
    }

    /// Waits until nothing is stored any more: removals follow the last message.
    async fn until_no_records(&self) {
        for _ in 0..500 {
            if self.records().await == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{} records are left", self.records().await);
    }
}

#[tokio::test]
async fn a_call_over_the_mesh_is_stored_shown_and_cleaned_up() {
    let mut pbx = Pbx::start().await;
    let (mut a, b) = pbx.talk().await;
    assert_eq!(pbx.records().await, 4);
    let view = pbx.view().await;
    assert_eq!((view[0]["from"].as_str(), view[0]["exten"].as_str()), (Some("8005"), Some("8006")), "{view}");
    let bye = pbx.lab.within(&mut a, "BYE", None);
    pbx.send(bye);
    pbx.get("SIP/2.0 200").await;
    let bye = pbx.get("BYE").await;
    let ok = pbx.lab.answer(&b, &bye, 200, None);
    pbx.send(ok);
    pbx.until_no_records().await;
    assert_eq!(pbx.view().await, serde_json::json!([]));
    let commands: Vec<_> = pbx.relay.0.lock().unwrap().iter().map(kind).collect();
    assert_eq!(commands, ["offer", "answer", "delete"]);
    let shown = pbx.running.views["events"].clone();
    let kinds: Vec<_> = shown().await.as_array().unwrap().iter().map(|e| e["kind"]["type"].clone()).collect();
    assert_eq!(kinds, ["started", "step", "step", "called", "ringing", "answered", "ended"]);
    let page = pbx.running.logs["events"].after("");
    assert_eq!((page.items.len(), page.next), (7, format!("{ROUTER}:7")));
}

#[tokio::test]
async fn a_call_is_hung_up_by_command() {
    let mut pbx = Pbx::start().await;
    let (_, b) = pbx.talk().await;
    let call = pbx.view().await[0]["id"].as_str().unwrap().to_owned();
    let hang_up = pbx.running.commands[&("calls".to_owned(), "hangup".to_owned())].clone();
    assert_eq!(hang_up("another".into()).await, Done::Unknown);
    assert_eq!(hang_up(call.clone()).await, Done::Done);
    for _ in 0..2 {
        let bye = pbx.get("BYE").await;
        assert!(field(&bye, Name::Reason).starts_with("Q.850;cause=16;"), "{bye:?}");
        let ok = pbx.lab.answer(&b, &bye, 200, None);
        pbx.send(ok);
    }
    pbx.until_no_records().await;
    assert_eq!(hang_up(call).await, Done::Unknown);
    let last = pbx.running.logs["events"].all().pop().unwrap();
    assert_eq!(last["kind"], serde_json::json!({"type": "ended", "cause": 16, "reason": "hung up by command"}));
}

#[tokio::test]
async fn the_relays_timeout_hangs_both_up() {
    let mut pbx = Pbx::start().await;
    pbx.talk().await;
    let call = pbx.view().await[0]["id"].as_str().unwrap().to_owned();
    let event = MediaEvent { seq: 1, call, tag: None, kind: MediaEventKind::SessionTimeout };
    pbx.media.handle().tell(ROUTER, event).unwrap();
    for _ in 0..2 {
        let bye = pbx.get("BYE").await;
        assert!(field(&bye, Name::Reason).starts_with("Q.850;cause=102"));
    }
    pbx.until_no_records().await;
}

#[tokio::test]
async fn a_drain_refuses_new_calls_and_ends_with_the_last() {
    let mut pbx = Pbx::start().await;
    let (mut a, b) = pbx.talk().await;
    pbx.env.drain.start();
    tokio::time::timeout(Duration::from_secs(5), async {
        while pbx.env.mesh.peers().borrow().serving(Service::Router).count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(pbx.env.drain.under_way(), 1);
    let other = pbx.lab.phone("8005", "8006");
    let invite = pbx.lab.invite_bytes(&other, "8006", None, |r| r);
    pbx.send(invite);
    let refused = pbx.get("SIP/2.0 503").await;
    assert!((5..=30).contains(&field(&refused, Name::RetryAfter).parse::<u32>().unwrap()));
    let bye = pbx.lab.within(&mut a, "BYE", None);
    pbx.send(bye);
    let bye = pbx.get("BYE").await;
    let ok = pbx.lab.answer(&b, &bye, 200, None);
    pbx.send(ok);
    tokio::time::timeout(Duration::from_secs(5), pbx.running.join()).await.unwrap().unwrap();
    assert_eq!(pbx.env.drain.under_way(), 0);
}

#[tokio::test]
async fn at_the_limit_of_a_drain_the_other_router_has_the_calls_at_once() {
    let config = Config { drain_limit: Duration::ZERO, linger: Duration::ZERO, ..Config::default() };
    let mut pbx = Pbx::start_with(config).await;
    let other = Environment { drain: runtime::Drain::new(), metrics: runtime::Metrics::new(), ..pbx.env.clone() };
    let source: Subscription<RouterEntry> = Subscription::fixed(pbx.lab.entries.clone());
    let heir = crate::build(Config::default(), other.deps(super::fleet::HEIR, source), pbx.relay.clone()).unwrap();
    let (mut a, b) = pbx.talk().await;
    assert_eq!(pbx.records().await, 4);
    pbx.env.drain.start();
    tokio::time::timeout(Duration::from_secs(5), pbx.running.join()).await.unwrap().unwrap();
    let view = heir.views["calls"].clone();
    let taken = async {
        while view().await.as_array().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_millis(500), taken).await.expect("at once, not after a peer record's time");
    assert!(pbx.got.iter().all(|bytes| !bytes.starts_with(b"BYE")), "{:?}", pbx.got);
    pbx.router = super::fleet::HEIR;
    let bye = pbx.lab.within(&mut a, "BYE", None);
    pbx.send(bye);
    pbx.get("SIP/2.0 200").await;
    let bye = pbx.get("BYE").await;
    let ok = pbx.lab.answer(&b, &bye, 200, None);
    pbx.send(ok);
    pbx.until_no_records().await;
}

#[tokio::test]
async fn another_balancer_carries_on_when_the_callees_is_gone() {
    let mut pbx = Pbx::start().await;
    let (mut a, _) = pbx.talk().await;
    // The callee's balancer leaves while the call stands; the caller comes by another.
    let other = ProcessId(0xdddd);
    let second = pbx.env.mesh.join(Peer::new(Service::Balancer, other));
    let first = std::mem::replace(&mut pbx.balancer, second);
    drop(first);
    let bye = pbx.lab.within(&mut a, "BYE", None);
    pbx.send(bye);
    pbx.get("SIP/2.0 200").await;
    // A balancer that serves carries the BYE: it knows what the flow token means.
    let bye = pbx.get("BYE").await;
    assert!(Message::parse_stream(&bye).unwrap().header(Name::Route).is_some());
    pbx.until_no_records().await;
}

fn kind(command: &Command) -> &'static str {
    match command {
        Command::Offer(_) => "offer",
        Command::Answer(_) => "answer",
        Command::Delete(_) => "delete",
        _ => "other",
    }
}
