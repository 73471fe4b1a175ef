//! The core behind a bad network. Inside hops are reliable, so what can be lost end to end is what only the two ends
//! repeat: the 2xx to INVITE and its ACK (RFC 3261 13.2.2.4, 13.3.1.4). Everything may be late or come twice.

use super::lab::*;
use bytes::Bytes;
use sip::message::Message;
use sip::net_emulator::{Conditions, Network};
use sip::{Method, Name};
use std::time::Duration;

const PHONES: u8 = 0;
const CORE: u8 = 1;

/// Phones that do as RFC 3261 says, on a seeded network.
struct Bench {
    lab: Lab,
    lossy: Network<u8>,
    sound: Network<u8>,
    a: Phone,
    b: Option<Phone>,
    acked: bool,
    /// The callee's 2xx, repeated until its ACK, and when next.
    repeat: Option<(Bytes, Duration, Duration)>,
    /// When the caller hangs up.
    bye_at: Option<Duration>,
    byes: usize,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut lab = Lab::new();
        lab.register("8006");
        let a = lab.call("8005", "8006");
        let late = Conditions { loss: 0.0, ..Conditions::BAD };
        Self {
            lab,
            lossy: Network::new(seed, Conditions { loss: 0.4, ..Conditions::BAD }),
            sound: Network::new(seed, late),
            a,
            b: None,
            acked: false,
            repeat: None,
            bye_at: None,
            byes: 0,
        }
    }

    fn put(&mut self, to: u8, bytes: Bytes) {
        let message = Message::parse_stream(&bytes).unwrap();
        let end_to_end = message.method() == Some(Method::Ack)
            || message.status().is_some_and(|s| (200..300).contains(&s))
                && message.cseq().unwrap().method == Method::Invite;
        let network = if end_to_end { &mut self.lossy } else { &mut self.sound };
        network.send(1 - to, to, bytes, self.lab.now.mono);
    }

    /// What the phones do by answering went into the core; here it goes onto the network instead.
    fn phones(&mut self, bytes: Bytes) {
        let message = Message::parse_stream(&bytes).unwrap();
        let now = self.lab.now.mono;
        match (message.method(), message.status()) {
            (Some(Method::Invite), _) if self.b.is_none() => {
                let b = self.lab.callee(&bytes);
                let make = |status, body: Option<String>| {
                    let r = sip::build::response(&message, status, None, Some(&b.tag))
                        .header(Name::Contact, "<sip:8006@127.0.0.1:8006>");
                    body.map_or(r.clone(), |body| r.body("application/sdp", body)).finish()
                };
                let (ringing, ok) = (make(180, None), make(200, Some(sdp(5000, "0"))));
                self.b = Some(b);
                self.put(CORE, ringing);
                self.put(CORE, ok.clone());
                self.repeat = Some((ok, now + Duration::from_millis(500), Duration::from_millis(500)));
            }
            (Some(Method::Ack), _) => {
                self.acked = true;
                self.repeat = None;
            }
            (Some(Method::Bye), _) => {
                self.byes += 1;
                let ok = sip::build::response(&message, 200, None, None).finish();
                self.put(CORE, ok);
            }
            (None, Some(200)) if message.cseq().unwrap().method == Method::Invite => {
                Lab::joined(&mut self.a, &bytes);
                let ack = self.within("ACK");
                self.put(CORE, ack);
                self.bye_at.get_or_insert(now + Duration::from_secs(20));
            }
            _ => {}
        }
    }

    /// A request of the caller's, not sent yet.
    fn within(&mut self, method: &str) -> Bytes {
        if method != "ACK" {
            self.a.cseq += 1;
        }
        let branch = self.lab.unique("z9hG4bKw");
        sip::build::request(method, &self.a.target)
            .header(Name::Via, format!("SIP/2.0/TCP b.balancer.invalid;branch={branch}"))
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("{};tag={}", self.a.local, self.a.tag))
            .header(Name::To, format!("{};tag={}", self.a.remote, self.a.peer_tag))
            .header(Name::CallId, &self.a.call_id)
            .header(Name::CSeq, format!("{} {method}", self.a.cseq))
            .finish()
    }

    /// Runs for a while in steps of 10 ms.
    fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 100 {
            self.lab.advance(Duration::from_millis(10));
            while let Some((_, bytes)) = self.lab.wire.pop_front() {
                self.put(PHONES, bytes);
            }
            let now = self.lab.now.mono;
            if let Some((ok, at, interval)) = self.repeat.clone().filter(|(_, at, _)| *at <= now) {
                let next = (interval * 2).min(Duration::from_secs(4));
                self.repeat = Some((ok.clone(), at + next, next));
                self.put(CORE, ok);
            }
            if self.bye_at.is_some_and(|at| at <= now) {
                self.bye_at = Some(Duration::MAX);
                let bye = self.within("BYE");
                self.put(CORE, bye);
            }
            let late = |n: &mut Network<u8>| n.receive(now);
            while let Some(packet) = late(&mut self.lossy).or_else(|| late(&mut self.sound)) {
                if packet.to == CORE { self.lab.receive(packet.bytes) } else { self.phones(packet.bytes) }
            }
        }
    }
}

#[test]
fn calls_succeed_and_end_whatever_is_lost_late_or_doubled() {
    let mut lost = 0;
    for seed in 0..60 {
        let mut bench = Bench::new(seed);
        bench.run(15);
        assert!(bench.acked, "seed {seed}: the callee had no ACK");
        assert_eq!(bench.lab.core.load().calls, 1, "seed {seed}");
        assert!(bench.lab.core.view()[0]["legs"][0]["state"] == "up", "seed {seed}");
        bench.run(25);
        assert!(bench.byes >= 1, "seed {seed}: the callee had no BYE");
        assert_eq!(bench.lab.core.load().calls, 0, "seed {seed}");
        bench.run(5);
        bench.lab.wire.clear();
        lost += bench.lossy.counts().lost;
        bench.lab.empty();
    }
    assert!(lost > 100, "{lost}: the network was bad");
}
