//! ACK: that of a failure ends a transaction here or at another replica, that of a 2xx goes on without one.

use super::context::{Goal, Plan};
use super::outside::answer_hop;
use super::{Core, Hop, Turn};
use crate::counters::Counter;
use crate::refuse;
use crate::token::branch::{self, Owner};
use bytes::Bytes;
use contract::{Flow, ProcessId, Service};
use sip::Message;
use sip::transaction::Received;

/// Replicas that are asked whether an ACK is theirs.
const ASKED: usize = 8;

impl Core {
    pub(super) fn outside_ack(
        &mut self,
        turn: &mut Turn<'_>,
        ack: &Message<'_>,
        bytes: &Bytes,
        flow: Flow,
        handed: bool,
    ) {
        let source = answer_hop(ack, &flow);
        match self.transactions.receive(ack, bytes, source, flow.transport.is_reliable(), turn.now.mono) {
            Received::Ack2xx => {}
            Received::AckAbsorbed => {
                // The INVITE is here, but if nothing was answered here the failure came from another replica.
                let copy = branch::derive(ack, turn.view.keys, 0).and_then(|b| self.contexts.of_branch(&b));
                let unanswered = copy.and_then(|(_, n)| self.contexts.get_mut(n)).is_some_and(|c| !c.answered());
                if unanswered && !handed {
                    self.offer(turn, ack, &flow);
                }
                return;
            }
            _ => return,
        }
        if refuse::is_our_ack(ack, turn.view.keys) {
            return;
        }
        match self.judge(turn, ack, &flow) {
            Ok(Plan { goal: Goal::Flow(target), .. }) if !handed && self.connection_owner(turn, &target).is_some() => {
                if let Some(owner) = self.connection_owner(turn, &target) {
                    self.hand_over(turn, owner, ack, &flow);
                }
            }
            Ok(plan) if matches!(plan.goal, Goal::Leg(_) | Goal::Flow(_)) => {
                self.forward_ack(turn, ack, Hop::Outside(flow), &plan);
            }
            // For a failure that another replica passed on: nothing in it says which.
            Ok(_) if !handed => self.offer(turn, ack, &flow),
            _ => self.counters.count(Counter::StrayAck),
        }
    }

    /// Gives an ACK to the other replicas; the one that waits for it takes it, the others drop it.
    fn offer(&mut self, turn: &Turn<'_>, ack: &Message<'_>, flow: &Flow) {
        let me = self.me.process;
        let serving = turn.view.peers.serving(Service::Balancer).map(|p| p.process);
        let others: Vec<_> = serving.filter(|p| *p != me).take(ASKED).collect();
        if others.is_empty() {
            self.counters.count(Counter::StrayAck);
        }
        for process in others {
            self.hand_over(turn, Owner { process, shard: 0 }, ack, flow);
        }
    }

    pub(super) fn inside_ack(&mut self, turn: &mut Turn<'_>, ack: &Message<'_>, bytes: &Bytes, from: ProcessId) {
        let source = Hop::Inside(from);
        if self.transactions.receive(ack, bytes, source, true, turn.now.mono) != Received::Ack2xx {
            return;
        }
        match self.judge_inside(turn, ack) {
            Ok(plan) => self.forward_ack(turn, ack, source, &plan),
            Err(_) => self.counters.count(Counter::StrayAck),
        }
    }
}
