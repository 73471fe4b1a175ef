//! What time and failures bring: ends of transactions, patience, probes, peers that go.

use super::context::Goal;
use super::{Core, Hop, Turn, Use};
use crate::counters::Counter;
use crate::dispatcher::probe::{Due, Key};
use crate::via;
use sip::build;
use sip::transaction::{ClientId, Output as Done};
use sip::{Message, Method, Name};
use std::time::Duration;

/// A router that goes on with the calls of one that is gone has answered within this.
const SUCCESSION: Duration = Duration::from_secs(10);

impl Core {
    /// Does all that is due now.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        loop {
            while let Some(done) = self.transactions.poll(turn.now.mono) {
                match done {
                    Done::Transmit { to, bytes } => self.send(to, bytes),
                    Done::ClientTimeout(client) => self.branch_lost(turn, client, true),
                    Done::TransportFailed(client) => self.branch_lost(turn, client, false),
                    Done::TimerC(client) => {
                        if let Some(Use::Forward { context, .. }) = self.clients.get(&client).cloned() {
                            // A copy of what another replica owns has only to end; the owner has a timer C too.
                            let owner = self.contexts.get_mut(context).map(|c| c.owner);
                            if owner.is_none_or(|o| o.is_some_and(|o| self.is_alive(turn, o))) {
                                self.client_failed(turn, client);
                            } else {
                                self.send_cancel(turn, context, client);
                            }
                        }
                    }
                    Done::ClientDone(client) => self.client_done(client),
                    Done::ServerDone(server) => self.contexts.remove(server),
                    Done::NoAck(_) => self.counters.count(Counter::Timeout),
                }
            }
            if let Some(number) = self.contexts.impatient(turn.now.mono) {
                if self.contexts.unorphan(number) {
                    self.give_up(turn, number, |_| true);
                    continue;
                }
                let may_move = self.contexts.get_mut(number).is_some_and(|c| c.may_move());
                if may_move && self.has_next(turn, number) {
                    self.next(turn, number);
                }
            } else if !self.probe(turn) {
                return;
            }
        }
    }

    fn client_done(&mut self, client: ClientId) {
        if let Some(Use::Forward { branch, connection, .. }) = self.clients.remove(&client) {
            self.contexts.forget_branch(&branch);
            if let Some(connection) = connection
                && let Some(clients) = self.by_connection.get_mut(&connection)
            {
                clients.retain(|c| *c != client);
                if clients.is_empty() {
                    self.by_connection.remove(&connection);
                }
            }
        }
    }

    /// What was given to the driver did not go out.
    pub(super) fn send_failed(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) {
        let Ok(message) = Message::parse(bytes) else { return };
        if message.method() == Some(Method::Ack) {
            self.counters.count(Counter::SendFailed);
            return self.ack_failed(turn, &message);
        }
        let branch = message.via().ok().and_then(|v| v.branch()).unwrap_or_default();
        let client = self.contexts.of_branch(branch).map(|(client, _)| client);
        match client.filter(|_| message.is_request()) {
            Some(client) => self.client_failed(turn, client),
            None => self.counters.count(Counter::SendFailed),
        }
    }

    /// Requests at processes that are gone go elsewhere, or are given up.
    pub(super) fn peers_changed(&mut self, turn: &mut Turn<'_>) {
        // Peers say how loaded they are all the time: only one that is gone is a reason to look at every request.
        let now: Vec<_> = turn.view.peers.0.iter().map(|p| p.process).collect();
        let before = std::mem::replace(&mut self.peers, now);
        let lost: Vec<_> = before.into_iter().filter(|p| !self.peers.contains(p)).collect();
        if lost.is_empty() {
            return;
        }
        let gone = |to: Hop| matches!(to, Hop::Inside(p) if lost.contains(&p));
        let waiting = self.contexts.numbers(|c| c.branches.iter().any(|b| !b.done && gone(b.to)));
        for number in waiting {
            let held = self.contexts.get_mut(number).is_some_and(|c| c.held && !c.answered() && !c.cancelled);
            if held {
                self.contexts.orphan(number, turn.now.mono + SUCCESSION);
            } else {
                self.give_up(turn, number, gone);
            }
        }
    }

    /// The branches of a request that went to these hops have failed.
    fn give_up(&mut self, turn: &mut Turn<'_>, number: u64, gone: impl Fn(Hop) -> bool) {
        let Some(context) = self.contexts.get_mut(number) else { return };
        let clients: Vec<_> = context.branches.iter().filter(|b| !b.done && gone(b.to)).map(|b| b.client).collect();
        for client in clients {
            self.client_failed(turn, client);
        }
    }

    /// Requests that a destination has not answered go elsewhere when it goes down.
    pub(super) fn destination_down(&mut self, turn: &mut Turn<'_>, key: &Key) {
        let set = self.setup.set(&key.0);
        let Some(id) = set.and_then(|s| s.targets.iter().find(|t| t.uri == key.1)).map(|t| t.id) else { return };
        let waiting = self.contexts.numbers(|c| {
            matches!(&c.plan.goal, Goal::Set(name) if *name == key.0)
                && c.may_move()
                && c.branches.last().is_some_and(|b| b.id == id && !b.provisional && !b.done)
        });
        for number in waiting {
            if self.has_next(turn, number) {
                self.next(turn, number);
            }
        }
    }

    /// Sends one probe that is due; false if none is.
    fn probe(&mut self, turn: &mut Turn<'_>) -> bool {
        let (mut down, mut failed) = (Vec::new(), 0);
        let due = self.probes.poll(turn.now.mono, &mut down, &mut failed);
        for _ in 0..failed {
            self.counters.count(Counter::ProbeFailed);
        }
        for key in &down {
            self.destination_down(turn, key);
        }
        let Some(due) = due else { return !down.is_empty() };
        if self.send_probe(turn, &due).is_none() {
            self.counters.count(Counter::ProbeFailed);
            if self.probes.failed(&due.key, due.number, turn.now.mono) {
                self.destination_down(turn, &due.key);
            }
        }
        true
    }

    fn send_probe(&mut self, turn: &mut Turn<'_>, due: &Due) -> Option<()> {
        let target = self.setup.set(&due.key.0)?.targets.iter().find(|t| t.uri == due.key.1)?;
        let (transport, remote, uri) = (target.transport, target.remote, target.uri.clone());
        let flow = self.flow_to(turn, transport, remote)?;
        let branch = self.me.branch(turn.view.keys, turn.rng);
        let us = self.listeners.advertised(&flow);
        let (tag, call) = (turn.rng.next_u64(), turn.rng.next_u64());
        let options = build::request("OPTIONS", &uri)
            .header(Name::Via, via::outside(transport, &us, &branch, None))
            .header(Name::MaxForwards, "70")
            .header(Name::From, format!("<sip:dispatcher@{us}>;tag={tag:016x}"))
            .header(Name::To, format!("<{uri}>"))
            .header(Name::CallId, format!("{call:016x}{:016x}", turn.rng.next_u64()))
            .header(Name::CSeq, "1 OPTIONS")
            .header(Name::Contact, format!("<sip:{us}>"))
            .header(Name::Accept, "application/sdp")
            .finish();
        let hop = Hop::Outside(flow);
        let client = self.transactions.send(options, hop, hop.is_reliable(), turn.now.mono).ok()?;
        self.counters.count(Counter::Probe);
        self.clients.insert(client, Use::Probe { key: due.key.clone(), number: due.number });
        Some(())
    }
}
