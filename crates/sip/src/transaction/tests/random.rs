//! Any interleaving of messages, answers, errors and time: nothing panics, and in the end nothing is left.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Receive { method: usize, branch: u8, legacy: bool, reliable: bool },
    ReceiveResponse { method: usize, branch: u8, status: u16 },
    Send { method: usize, branch: u8, reliable: bool },
    Respond { nth: usize, status: u16 },
    Cancel { nth: usize },
    TransportError { nth: usize },
    ServerTransportError { nth: usize },
    Wait { ms: u64, drain: bool },
}

const METHODS: [&str; 6] = ["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "FOO"];

fn status() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![100u16, 180, 183, 200, 202, 302, 401, 487, 503, 603, 699])
}

fn step() -> impl Strategy<Value = Step> {
    let method = 0..METHODS.len();
    prop_oneof![
        4 => (method.clone(), 0u8..4, any::<bool>(), any::<bool>())
            .prop_map(|(method, branch, legacy, reliable)| Step::Receive { method, branch, legacy, reliable }),
        3 => (method.clone(), 0u8..4, status())
            .prop_map(|(method, branch, status)| Step::ReceiveResponse { method, branch, status }),
        3 => (method, 0u8..4, any::<bool>()).prop_map(|(method, branch, reliable)| Step::Send { method, branch, reliable }),
        4 => (any::<usize>(), status()).prop_map(|(nth, status)| Step::Respond { nth, status }),
        1 => any::<usize>().prop_map(|nth| Step::Cancel { nth }),
        1 => any::<usize>().prop_map(|nth| Step::TransportError { nth }),
        1 => any::<usize>().prop_map(|nth| Step::ServerTransportError { nth }),
        4 => (0u64..40_000, any::<bool>()).prop_map(|(ms, drain)| Step::Wait { ms, drain }),
    ]
}

/// Checks the events: each id ends once, and nothing is told of it afterwards.
#[derive(Default)]
struct Ledger {
    clients: Vec<ClientId>,
    servers: Vec<ServerId>,
    done_clients: Vec<ClientId>,
    done_servers: Vec<ServerId>,
}

impl Ledger {
    fn drain(&mut self, layer: &mut Layer, now: Duration) {
        let mut outputs = 0;
        while let Some(output) = layer.poll(now) {
            outputs += 1;
            assert!(outputs < 10_000, "poll does not end");
            match output {
                Output::ClientDone(id) => {
                    assert!(self.clients.contains(&id) && !self.done_clients.contains(&id));
                    self.done_clients.push(id);
                }
                Output::ServerDone(id) => {
                    assert!(self.servers.contains(&id) && !self.done_servers.contains(&id));
                    self.done_servers.push(id);
                }
                Output::ClientTimeout(id) | Output::TimerC(id) | Output::TransportFailed(id) => {
                    assert!(self.clients.contains(&id) && !self.done_clients.contains(&id));
                }
                Output::NoAck(id) => assert!(self.servers.contains(&id) && !self.done_servers.contains(&id)),
                Output::Transmit { bytes, .. } => assert!(Message::parse(&bytes).is_ok()),
            }
        }
        assert!(layer.deadline().is_none_or(|d| d > now));
        assert_eq!(
            layer.len(),
            self.clients.len() + self.servers.len() - self.done_clients.len() - self.done_servers.len()
        );
    }
}

fn nth<T: Copy>(list: &[T], n: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list[n % list.len()]) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_interleavings_leave_an_empty_table(steps in prop::collection::vec(step(), 0..120), limit in 1usize..20) {
        let mut layer: Layer = Transactions::new(Timers::default(), limit);
        let mut ledger = Ledger::default();
        let mut now = Duration::ZERO;
        for step in steps {
            match step {
                Step::Receive { method, branch, legacy, reliable } => {
                    let cookie = if legacy { "" } else { "z9hG4bK" };
                    let bytes = request(METHODS[method], &format!("{cookie}{branch}"));
                    match receive(&mut layer, &bytes, reliable, now) {
                        Received::Request(id) => ledger.servers.push(id),
                        Received::Cancel { cancel, invite } => {
                            prop_assert!(invite.is_none_or(|i| ledger.servers.contains(&i)));
                            ledger.servers.push(cancel);
                        }
                        Received::Response(_) | Received::StrayResponse | Received::Invalid => prop_assert!(false),
                        _ => {}
                    }
                }
                Step::ReceiveResponse { method, branch, status } => {
                    let bytes = answer(&request(METHODS[method], &format!("z9hG4bK{branch}")), status);
                    match receive(&mut layer, &bytes, false, now) {
                        Received::Response(id) => prop_assert!(ledger.clients.contains(&id)),
                        Received::StrayResponse | Received::Absorbed => {}
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::Send { method, branch, reliable } => {
                    let bytes = request(METHODS[method], &format!("z9hG4bK{branch}"));
                    if let Ok(id) = layer.send(bytes, "peer", reliable, now) {
                        ledger.clients.push(id);
                    }
                }
                Step::Respond { nth: n, status } => {
                    if let Some(id) = nth(&ledger.servers, n)
                        && let Some(request) = layer.server_request(id).cloned()
                    {
                        layer.respond(id, answer(&request, status), now);
                    }
                }
                Step::Cancel { nth: n } => {
                    if let Some(id) = nth(&ledger.clients, n)
                        && let Some(cancel) = layer.cancel_of(id)
                        && let Ok(id) = layer.send(cancel, "peer", false, now)
                    {
                        ledger.clients.push(id);
                    }
                }
                Step::TransportError { nth: n } => {
                    if let Some(id) = nth(&ledger.clients, n) {
                        layer.transport_error(id, now);
                    }
                }
                Step::ServerTransportError { nth: n } => {
                    if let Some(id) = nth(&ledger.servers, n) {
                        layer.server_transport_error(id, now);
                    }
                }
                Step::Wait { ms: n, drain } => {
                    if drain {
                        ledger.drain(&mut layer, now);
                    }
                    now += ms(n);
                }
            }
            prop_assert!(layer.len() <= 2 * limit);
        }
        // Time passes. INVITEs that ring on are cancelled when timer C says so.
        for _ in 0..10_000 {
            while let Some(output) = layer.poll(now) {
                match output {
                    Output::TimerC(id) => {
                        let cancel = layer.cancel_of(id).expect("an INVITE without final answer");
                        if let Ok(id) = layer.send(cancel, "peer", true, now) {
                            ledger.clients.push(id);
                        }
                    }
                    Output::ClientDone(id) => ledger.done_clients.push(id),
                    Output::ServerDone(id) => ledger.done_servers.push(id),
                    _ => {}
                }
            }
            match layer.deadline() {
                Some(next) => now = next,
                None => break,
            }
        }
        assert_empty(&layer);
        ledger.done_clients.sort();
        ledger.clients.sort();
        prop_assert_eq!(ledger.done_clients, ledger.clients);
        ledger.done_servers.sort();
        ledger.servers.sort();
        prop_assert_eq!(ledger.done_servers, ledger.servers);
    }

    #[test]
    fn garbage_around_a_request_never_panics(at in 0usize..400, bytes in prop::collection::vec(any::<u8>(), 0..6)) {
        let mut layer = layer();
        let mut text = request("INVITE", "z9hG4bK1").to_vec();
        let at = at.min(text.len());
        text.splice(at..(at + bytes.len()).min(text.len()), bytes);
        let text = Bytes::from(text);
        if let Ok(msg) = Message::parse(&text) {
            let got = layer.receive(&msg, &text, "peer", false, ms(0));
            if let Received::Request(_) = got {
                run(&mut layer, ms(0), ms(700_000));
            }
            overloaded(&msg, 1);
        }
        assert_empty(&layer);
        let _ = layer.send(text, "peer", false, ms(0));
        run(&mut layer, ms(0), ms(700_000));
        assert_empty(&layer);
    }
}
