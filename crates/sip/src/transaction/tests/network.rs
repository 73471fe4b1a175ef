//! Whole calls between two user agents over a network that loses, doubles and reorders, seed by seed.

use super::*;
use crate::dialog::{AckCache, Dialog, Fork, Forked, Repeat, Retransmit2xx};
use crate::net_emulator::{Conditions, Counts, Network};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// 180, 200 after 2 s, BYE by the caller after the ACK.
    Answered,
    /// 180, then 486.
    Busy,
    /// 180, and the caller cancels after 3 s.
    Cancelled,
}

/// What both ends saw.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    invites: u32,
    finals: Vec<u16>,
    acked: u32,
    byes: u32,
    bye_answers: Vec<u16>,
    cancels: u32,
    trouble: Vec<String>,
}

struct Call {
    scenario: Scenario,
    network: Network<&'static str>,
    a: Layer,
    b: Layer,
    seen: Seen,
    // The caller.
    invite: Bytes,
    invite_id: ClientId,
    fork: Fork,
    acks: AckCache<&'static str>,
    bye: Option<ClientId>,
    cancel_at: Option<Duration>,
    branch: u32,
    // The callee.
    ringing: Option<(ServerId, Duration)>,
    repeat: Option<Retransmit2xx>,
    callee: Option<Dialog>,
}

impl Call {
    fn new(scenario: Scenario, seed: u64, conditions: Conditions) -> Call {
        let timers = Timers::default();
        let mut a = Transactions::new(timers, 16);
        let invite = request("INVITE", "z9hG4bKinvite");
        let invite_id = a.send(invite.clone(), "b", false, ms(0)).unwrap();
        Call {
            scenario,
            network: Network::new(seed, conditions),
            a,
            b: Transactions::new(timers, 16),
            seen: Seen::default(),
            invite,
            invite_id,
            fork: Fork::new(4),
            acks: AckCache::new(&timers, 4),
            bye: None,
            cancel_at: (scenario == Scenario::Cancelled).then_some(ms(3000)),
            branch: 0,
            ringing: None,
            repeat: None,
            callee: None,
        }
    }

    fn via(&mut self) -> String {
        self.branch += 1;
        format!("SIP/2.0/UDP a.example;branch=z9hG4bKa{}", self.branch)
    }

    fn caller_receives(&mut self, bytes: &Bytes, now: Duration) {
        let msg = Message::parse(bytes).unwrap();
        let received = self.a.receive(&msg, bytes, "b", false, now);
        let status = msg.status().unwrap();
        let is_invite = msg.cseq().unwrap().method == Method::Invite;
        match received {
            Received::Response(id) if is_invite => {
                assert_eq!(id, self.invite_id);
                let invite = self.invite.clone();
                let forked = self.fork.receive(&Message::parse(&invite).unwrap(), &msg).unwrap();
                if status >= 200 && !matches!(forked, Forked::Repeated(_)) {
                    self.seen.finals.push(status);
                }
                match forked {
                    Forked::Confirmed(index) => {
                        let via = self.via();
                        let dialog = self.fork.get_mut(index).unwrap();
                        let ack = dialog.ack(1, &via).finish();
                        self.acks.sent(dialog.id.clone(), 1, "b", ack.clone(), now);
                        self.network.send("a", "b", ack, now);
                        let via = self.via();
                        let bye = self.fork.get_mut(index).unwrap().request("BYE", &via).finish();
                        self.bye = Some(self.a.send(bye, "b", false, now).unwrap());
                    }
                    Forked::Repeated(_) => {
                        let (to, ack) = self.acks.repeat(&msg, now).expect("the ACK is kept as long as 2xx pass");
                        self.network.send("a", to, ack, now);
                    }
                    _ => {}
                }
            }
            Received::Response(id) if Some(id) == self.bye && status >= 200 => self.seen.bye_answers.push(status),
            Received::Response(_) | Received::Absorbed => {}
            // After its transaction ended; a 2xx is ACKed again even then, if it is remembered.
            Received::StrayResponse => {
                if let Some((to, ack)) = self.acks.repeat(&msg, now) {
                    self.network.send("a", to, ack, now);
                }
            }
            other => panic!("caller: {other:?}"),
        }
    }

    fn callee_receives(&mut self, bytes: &Bytes, now: Duration) {
        let msg = Message::parse(bytes).unwrap();
        match self.b.receive(&msg, bytes, "a", false, now) {
            Received::Request(id) if msg.method() == Some(Method::Invite) => {
                self.seen.invites += 1;
                self.callee = Some(Dialog::uas(&msg, "b1", "<sip:bob@192.0.2.2>").unwrap());
                assert!(self.b.respond(id, answer(bytes, 180), now));
                self.ringing = Some((id, now + ms(2000)));
            }
            Received::Request(id) => {
                assert_eq!(msg.method(), Some(Method::Bye));
                self.seen.byes += 1;
                self.callee.as_mut().unwrap().receive(&msg).unwrap();
                // A BYE that overtook the ACK ends the repetition as well.
                if let Some(repeat) = &mut self.repeat {
                    repeat.acked();
                }
                assert!(self.b.respond(id, answer(bytes, 200), now));
            }
            Received::Ack2xx => {
                self.callee.as_mut().unwrap().receive(&msg).unwrap();
                let repeat = self.repeat.as_mut().unwrap();
                self.seen.acked += u32::from(!repeat.is_over());
                repeat.acked();
            }
            Received::AckAbsorbed => self.seen.acked = 1,
            Received::Cancel { cancel, invite } => {
                self.seen.cancels += 1;
                assert!(self.b.respond(cancel, answer(bytes, 200), now));
                if let Some(invite) = invite.filter(|i| self.b.server_answered(*i) == Some(false)) {
                    let request = self.b.server_request(invite).unwrap().clone();
                    assert!(self.b.respond(invite, answer(&request, 487), now));
                    self.ringing = None;
                }
            }
            Received::Absorbed => {}
            other => panic!("callee: {other:?}"),
        }
    }

    fn users(&mut self, now: Duration) {
        if self.cancel_at.is_some_and(|t| t <= now) && self.a.may_cancel(self.invite_id) {
            self.cancel_at = None;
            let cancel = self.a.cancel_of(self.invite_id).unwrap();
            self.a.send(cancel, "b", false, now).unwrap();
        }
        if let Some((id, at)) = self.ringing
            && at <= now
            && self.scenario != Scenario::Cancelled
        {
            self.ringing = None;
            let status = if self.scenario == Scenario::Busy { 486 } else { 200 };
            let response = answer(&self.invite, status);
            assert!(self.b.respond(id, response.clone(), now));
            if status == 200 {
                self.callee.as_mut().unwrap().confirm_local();
                self.repeat = Some(Retransmit2xx::new(response, now));
            }
        }
        match self.repeat.as_mut().and_then(|r| r.poll(now)) {
            Some(Repeat::Send(bytes)) => self.network.send("b", "a", bytes, now),
            Some(Repeat::GiveUp) => self.seen.trouble.push("no ACK for the 2xx".into()),
            None => {}
        }
    }

    /// Until nothing is left to happen.
    fn run(self) -> (Seen, Duration) {
        let (seen, end, _) = self.run_counted();
        (seen, end)
    }

    fn run_counted(mut self) -> (Seen, Duration, Counts) {
        let mut now = ms(0);
        for _ in 0..100_000 {
            self.users(now);
            while let Some(output) = self.a.poll(now) {
                self.output("a", output, now);
            }
            while let Some(output) = self.b.poll(now) {
                self.output("b", output, now);
            }
            while let Some(packet) = self.network.receive(now) {
                if packet.to == "a" {
                    self.caller_receives(&packet.bytes, now);
                } else {
                    self.callee_receives(&packet.bytes, now);
                }
            }
            let cancel = self.cancel_at.filter(|t| *t > now);
            let next = [
                self.network.deadline(),
                self.a.deadline(),
                self.b.deadline(),
                self.repeat.as_ref().and_then(|r| r.deadline()),
                self.ringing.filter(|_| self.scenario != Scenario::Cancelled).map(|r| r.1),
                cancel,
            ];
            match next.into_iter().flatten().min() {
                Some(next) => now = next.max(now),
                None => {
                    assert_empty(&self.a);
                    assert_empty(&self.b);
                    return (self.seen, now, self.network.counts());
                }
            }
        }
        panic!("the call never ends: {:?}", self.seen);
    }

    fn output(&mut self, at: &'static str, output: Output<&'static str>, now: Duration) {
        match output {
            Output::Transmit { to: _, bytes } => {
                let to = if at == "a" { "b" } else { "a" };
                self.network.send(at, to, bytes, now);
            }
            Output::ClientDone(_) | Output::ServerDone(_) => {}
            other => self.seen.trouble.push(format!("{at}: {}", word(&other))),
        }
    }
}

#[test]
fn calls_succeed_on_a_perfect_network_in_the_expected_time() {
    let (seen, _) = Call::new(Scenario::Answered, 0, Conditions::PERFECT).run();
    let expected = Seen { invites: 1, finals: vec![200], acked: 1, byes: 1, bye_answers: vec![200], ..Seen::default() };
    assert_eq!(seen, expected);
}

#[test]
fn calls_survive_loss_duplication_and_reordering() {
    let mut total = Counts::default();
    for seed in 0..300 {
        for scenario in [Scenario::Answered, Scenario::Busy, Scenario::Cancelled] {
            let mut bad = Conditions::BAD;
            bad.loss = 0.1;
            let (seen, _, counts) = Call::new(scenario, seed, bad).run_counted();
            assert_eq!(seen.trouble, Vec::<String>::new(), "{scenario:?} seed {seed}");
            assert_eq!(seen.invites, 1, "{scenario:?} seed {seed}: one transaction however often it was sent");
            let finals: &[u16] = match scenario {
                Scenario::Answered => &[200],
                Scenario::Busy => &[486],
                Scenario::Cancelled => &[487],
            };
            assert_eq!(seen.finals, finals, "{scenario:?} seed {seed}");
            if scenario == Scenario::Answered {
                assert_eq!((seen.byes, &seen.bye_answers[..]), (1, &[200][..]), "seed {seed}");
            } else {
                assert_eq!(seen.acked, 1, "{scenario:?} seed {seed}");
            }
            total.lost += counts.lost;
            total.duplicated += counts.duplicated;
            total.reordered += counts.reordered;
        }
    }
    assert!(total.lost > 500 && total.duplicated > 500 && total.reordered > 1000, "the network did nothing: {total:?}");
}

#[test]
fn a_dead_network_times_out_and_leaves_nothing() {
    let dead = Conditions { loss: 1.0, ..Conditions::PERFECT };
    let (seen, end) = Call::new(Scenario::Answered, 1, dead).run();
    assert_eq!((seen.trouble, end), (vec!["a: timeout".to_owned()], ms(32_000)));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| Call::new(Scenario::Answered, seed, Conditions::BAD).run();
    assert_eq!(run(5), run(5));
    assert_ne!((0..8).map(|s| run(s).1).max(), (0..8).map(|s| run(s).1).min());
}
