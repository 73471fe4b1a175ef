//! Responses: to their owner, and from there back the way the request came (RFC 3261 16.7).

use super::context::Goal;
use super::outside::Refusal;
use super::{Core, Hop, Turn, Use};
use crate::counters::Counter;
use crate::record_route::Length;
use crate::token::branch::Owner;
use crate::{trust, via};
use bytes::Bytes;
use contract::{Flow, hop};
use sip::edit::Edit;
use sip::header::Via;
use sip::transaction::{ClientId, Received};
use sip::uri::Host;
use sip::{Message, Name};

impl Core {
    /// A response from anywhere; `handed` if another replica got it and gave it to us.
    pub(super) fn response(
        &mut self,
        turn: &mut Turn<'_>,
        message: &Message<'_>,
        bytes: &Bytes,
        source: Hop,
        handed: bool,
    ) {
        let via = message.via().ok();
        let owner = via.as_ref().and_then(|v| Owner::of(v, turn.view.keys));
        let (Some(via), Some(owner)) = (via, owner) else {
            return self.counters.count(Counter::Stray);
        };
        if owner == self.me {
            return self.deliver(turn, message, bytes, source);
        }
        let alive = self.is_alive(turn, owner);
        let here = self.contexts.of_branch(via.branch().unwrap_or_default());
        if let Some((_, number)) = here {
            // A copy of the owner's request went through us. Its answer serves us as well as the owner.
            if let Some(context) = self.contexts.get_mut(number).filter(|_| alive) {
                context.owner = Some(owner);
            }
            self.deliver(turn, message, bytes, source);
        }
        match source {
            Hop::Outside(flow) if alive && !handed => self.hand_over(turn, owner, message, &flow),
            _ if !alive && here.is_none() => self.forward_without_state(turn, message, source),
            _ if here.is_none() => self.counters.count(Counter::Stray),
            _ => {}
        }
    }

    fn deliver(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, bytes: &Bytes, source: Hop) {
        // Before its ACK leaves.
        if self.contexts.has_orphans() && matches!(source, Hop::Inside(_)) {
            self.gone_on_with(message, source);
        }
        match self.transactions.receive(message, bytes, source, source.is_reliable(), turn.now.mono) {
            Received::Response(client) => match self.clients.get(&client).cloned() {
                Some(Use::Forward { context, .. }) => self.branch_answered(turn, context, client, message, source),
                Some(Use::Probe { key, number }) => {
                    if let Some(status) = message.status().filter(|s| *s >= 200)
                        && self.probes.answered(&key, number, status, turn.now.mono)
                    {
                        self.destination_down(turn, &key);
                    }
                }
                Some(Use::Cancel) | None => {}
            },
            // RFC 6026 8.3: what matches nothing was answered long ago, or never asked by us.
            Received::StrayResponse | Received::Invalid => self.counters.count(Counter::Stray),
            _ => {}
        }
    }

    /// A router answers a request whose own is gone: CANCEL and ACK go there from now on.
    fn gone_on_with(&mut self, message: &Message<'_>, source: Hop) {
        let Some(client) = self.transactions.client_of(message) else { return };
        let Some(Use::Forward { context: number, .. }) = self.clients.get(&client) else { return };
        let number = *number;
        if self.contexts.unorphan(number)
            && let Some(branch) = self.contexts.get_mut(number).and_then(|context| context.branch(client))
        {
            branch.to = source;
            self.transactions.set_client_hop(client, source);
        }
    }

    /// A response of one branch of a request.
    fn branch_answered(
        &mut self,
        turn: &mut Turn<'_>,
        number: u64,
        client: ClientId,
        message: &Message<'_>,
        source: Hop,
    ) {
        let status = message.status().unwrap_or_default();
        let Some(context) = self.contexts.get_mut(number) else { return };
        let (answered, cancelled) = (context.answered(), context.cancelled);
        context.held |= status < 200 && matches!(source, Hop::Inside(_)) && message.other(hop::HELD).is_some();
        let Some(branch) = context.branch(client) else { return };
        let abandoned = branch.abandoned;
        if status < 200 {
            branch.provisional = true;
            branch.early |= status > 100;
            if !abandoned {
                self.contexts.set_patience(number, None);
            }
            if cancelled || abandoned || answered {
                self.send_cancel(turn, number, client);
            }
            if status > 100 && !abandoned && !answered {
                self.pass(turn, number, message, source);
            }
            return;
        }
        branch.done = true;
        if status < 300 {
            // Every 2xx goes on (16.7 item 5): the caller ends the dialogs it does not want.
            self.pass(turn, number, message, source);
            return self.cancel_rest(turn, number);
        }
        if abandoned || answered {
            return;
        }
        let may_move = self.contexts.get_mut(number).is_some_and(|c| c.may_move());
        if status == 503 && may_move && self.has_next(turn, number) {
            let failure = self.stripped(turn, number, message, source);
            if let Some(context) = self.contexts.get_mut(number) {
                context.failure = failure;
            }
            return self.next(turn, number);
        }
        self.pass(turn, number, message, source);
    }

    /// Sends a response on to where the request came from.
    fn pass(&mut self, turn: &mut Turn<'_>, number: u64, message: &Message<'_>, source: Hop) {
        let Some(bytes) = self.stripped(turn, number, message, source) else { return };
        let Some(context) = self.contexts.get_mut(number) else { return };
        if message.status().is_some_and(|s| s >= 200) {
            let server = context.server;
            self.contexts.close(number);
            self.transactions.respond(server, bytes, turn.now.mono);
        } else {
            self.transactions.respond(context.server, bytes, turn.now.mono);
        }
    }

    /// A response without our Via and without what its sender may not say; `None` if no Via is left.
    fn stripped(&mut self, _turn: &Turn<'_>, number: u64, message: &Message<'_>, source: Hop) -> Option<Bytes> {
        self.contexts.get_mut(number)?;
        message.values(Name::Via).nth(1)?;
        Some(self.without_our_via(message, source))
    }

    fn without_our_via(&self, message: &Message<'_>, source: Hop) -> Bytes {
        let mut edit = Edit::new(message);
        edit.pop_top(Name::Via);
        match source {
            Hop::Outside(flow) => {
                let trusted = trust::is_trusted(flow.remote.ip(), &self.setup.trunks);
                trust::strip_outside(&mut edit, message, trusted);
            }
            Hop::Inside(_) => trust::strip_own(&mut edit, message),
        }
        edit.with_length(message).finish()
    }

    /// The owner of the transaction is gone: the response goes on by its next Via.
    pub(super) fn forward_without_state(&mut self, turn: &Turn<'_>, message: &Message<'_>, source: Hop) {
        let next = message.values(Name::Via).nth(1).and_then(|v| Via::parse(v).ok());
        let inside = next.and_then(|v| match v.host {
            Host::Name(name) => hop::process_of(name),
            _ => None,
        });
        let to = match (inside, next) {
            (Some(process), _) => turn.view.peers.get(process).map(|p| Hop::Inside(p.process)),
            (None, Some(via)) => via::next_hop(&via).and_then(|(transport, remote)| match source {
                // From the address that it came to: the request left from there.
                Hop::Outside(flow) if flow.transport == transport => {
                    Some(Hop::Outside(Flow { remote, connection: 0, ..self.own(flow) }))
                }
                _ => self.flow_to(turn, transport, remote).map(Hop::Outside),
            }),
            (None, None) => None,
        };
        let Some(to) = to else {
            return self.counters.count(Counter::Stray);
        };
        self.counters.count(Counter::Stateless);
        let bytes = self.without_our_via(message, source);
        self.send(to, bytes);
    }

    /// The sender cancelled a request: so are its branches, each as soon as it has answered anything (RFC 3261 9.1).
    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, number: u64, cancel: &Message<'_>) {
        let Some(context) = self.contexts.get_mut(number) else { return };
        if context.answered() {
            return;
        }
        context.cancelled = true;
        context.reasons = cancel.headers(Name::Reason).take(4).map(str::to_owned).collect();
        let server = context.server;
        if self.contexts.is_orphan(number) {
            // Nobody is there to be told. Whoever goes on with it is told as soon as it answers.
            return self.answer(turn, server, &Refusal::plain(487));
        }
        self.contexts.set_patience(number, None);
        self.cancel_rest(turn, number);
        let over = self.contexts.get_mut(number).is_some_and(|c| c.branches.iter().all(|b| b.done));
        if over {
            self.answer(turn, server, &Refusal::plain(487));
        }
    }

    /// Cancels every branch that has not ended.
    fn cancel_rest(&mut self, turn: &Turn<'_>, number: u64) {
        let Some(context) = self.contexts.get_mut(number) else { return };
        let open: Vec<_> = context.branches.iter().filter(|b| !b.done).map(|b| b.client).collect();
        for client in open {
            self.send_cancel(turn, number, client);
        }
    }

    /// Cancels a branch, if a 1xx has come; else that will.
    pub(super) fn send_cancel(&mut self, turn: &Turn<'_>, number: u64, client: ClientId) {
        if !self.transactions.may_cancel(client) {
            return;
        }
        let Some(context) = self.contexts.get_mut(number) else { return };
        let reasons: Vec<&str> = context.reasons.iter().map(String::as_str).collect();
        let bytes = self.transactions.cancel_with(client, &reasons);
        let hop = self.transactions.client_hop(client).copied();
        let (Some(bytes), Some(hop)) = (bytes, hop) else { return };
        // A CANCEL that is under way already is a duplicate and refused.
        if let Ok(id) = self.transactions.send(bytes, hop, hop.is_reliable(), turn.now.mono) {
            self.clients.insert(id, Use::Cancel);
        }
    }

    /// The request of this client transaction could not be sent, or whoever had it is gone.
    pub(super) fn client_failed(&mut self, turn: &mut Turn<'_>, client: ClientId) {
        self.transactions.transport_error(client, turn.now.mono);
    }

    /// A branch ended without an answer: by a failure to send, or (`timeout`) by silence.
    pub(super) fn branch_lost(&mut self, turn: &mut Turn<'_>, client: ClientId, timeout: bool) {
        let Some(Use::Forward { context: number, .. }) = self.clients.get(&client).cloned() else { return };
        let owner = self.contexts.get_mut(number).and_then(|c| c.owner);
        let copy = owner.is_some_and(|o| self.is_alive(turn, o));
        let Some(context) = self.contexts.get_mut(number) else { return };
        let Some(branch) = context.branch(client) else { return };
        branch.done = true;
        // A copy of what another replica owns: it hears the answer.
        if branch.abandoned || context.answered() || copy {
            return;
        }
        let (server, invite, cancelled) = (context.server, context.invite, context.cancelled);
        if cancelled {
            return self.answer(turn, server, &Refusal::plain(487));
        }
        let may_move = context.may_move();
        let goal = context.plan.goal.clone();
        let only_one = matches!(goal, Goal::Flow(_));
        let may_retry = self.may_lose_patience(turn, &goal);
        if timeout {
            self.counters.count(Counter::Timeout);
            if may_move && may_retry && self.has_next(turn, number) {
                self.next(turn, number);
            } else if invite {
                self.answer(turn, server, &Refusal::plain(408));
            } else {
                // Not answered: its sender has given up by now (RFC 4320 4.2).
                self.contexts.close(number);
            }
            return;
        }
        self.counters.count(Counter::SendFailed);
        if may_move || only_one {
            self.next(turn, number);
        } else {
            let retry = self.limits.retry_after.to_string();
            self.answer(turn, server, &Refusal::plain(503).with(Name::RetryAfter, retry));
        }
    }
}
