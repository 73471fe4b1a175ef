//! Tests of the transaction layer, filed by RFC section, in virtual time.

mod cancel;
mod client;
mod matching;
mod network;
mod random;
mod server;
mod table;

use super::*;
use crate::build;
use crate::message::Name;

pub(super) type Layer = Transactions<&'static str>;

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A request of Alice's with this branch, CSeq 1.
pub(super) fn request(method: &str, branch: &str) -> Bytes {
    build::request(method, "sip:bob@b.example")
        .header(Name::Via, format!("SIP/2.0/UDP a.example;branch={branch}"))
        .header(Name::MaxForwards, "70")
        .header(Name::From, "<sip:alice@a.example>;tag=a1")
        .header(Name::To, "<sip:bob@b.example>")
        .header(Name::CallId, "call-1")
        .header(Name::CSeq, format!("1 {method}"))
        .header(Name::Contact, "<sip:alice@192.0.2.1>")
        .finish()
}

/// The answer to a request; 100 has no tag.
pub(super) fn answer(request: &Bytes, status: u16) -> Bytes {
    answer_tagged(request, status, "b1")
}

pub(super) fn answer_tagged(request: &Bytes, status: u16, tag: &str) -> Bytes {
    let msg = Message::parse(request).unwrap();
    build::response(&msg, status, None, (status > 100).then_some(tag))
        .header(Name::Contact, "<sip:bob@192.0.2.2>")
        .finish()
}

pub(super) fn receive(layer: &mut Layer, bytes: &Bytes, reliable: bool, now: Duration) -> Received {
    layer.receive(&Message::parse(bytes).unwrap(), bytes, "peer", reliable, now)
}

pub(super) fn server_id(received: Received) -> ServerId {
    match received {
        Received::Request(id) => id,
        other => panic!("expected a request, got {other:?}"),
    }
}

/// One word for each output: method or status of what is sent, or the event.
pub(super) fn word(output: &Output<&'static str>) -> String {
    match output {
        Output::Transmit { bytes, .. } => {
            let msg = Message::parse(bytes).unwrap();
            msg.status().map_or_else(|| msg.method().unwrap().as_str().to_owned(), |s| s.to_string())
        }
        Output::ClientTimeout(_) => "timeout".into(),
        Output::TimerC(_) => "C".into(),
        Output::TransportFailed(_) => "failed".into(),
        Output::NoAck(_) => "noack".into(),
        Output::ClientDone(_) | Output::ServerDone(_) => "done".into(),
    }
}

pub(super) fn drain(layer: &mut Layer, now: Duration) -> Vec<String> {
    std::iter::from_fn(|| layer.poll(now)).map(|o| word(&o)).collect()
}

/// Lets time pass until `until`, stopping at each deadline: `ms:word` for each output.
pub(super) fn run(layer: &mut Layer, from: Duration, until: Duration) -> Vec<String> {
    let mut now = from;
    let mut log = Vec::new();
    loop {
        log.extend(drain(layer, now).into_iter().map(|w| format!("{}:{w}", now.as_millis())));
        match layer.deadline() {
            Some(next) if next <= until => {
                assert!(next > now, "a deadline that was polled stays in the past");
                now = next;
            }
            _ => return log,
        }
    }
}

pub(super) fn layer() -> Layer {
    Transactions::new(Timers::default(), 100)
}

pub(super) fn assert_empty(layer: &Layer) {
    assert_eq!(layer.len(), 0);
    assert!(layer.is_empty());
    assert_eq!(layer.schedule.len(), 0, "a timer was left");
    assert!(layer.clients.is_empty() && layer.servers.is_empty(), "a key was left");
    assert_eq!(layer.deadline(), None);
}
