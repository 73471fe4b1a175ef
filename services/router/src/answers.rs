//! What became of what was sent and asked: requests without an answer, messages that were not sent, answers of store
//! and relays.

use crate::core::{Client, Core, Then, Turn};
use crate::io::{Answer, AskId};
use bytes::Bytes;
use sip::Method;
use sip::message::Message;
use sip::transaction::ClientId;

impl Core {
    /// A request of ours had no answer in time, or could not be sent.
    pub(crate) fn client_failed(&mut self, turn: &mut Turn<'_>, id: ClientId) {
        let Some(client) = self.clients.get(&id).copied() else { return };
        match client {
            Client::Invite(leg) => self.branch_silent(turn, id, leg),
            Client::Change(leg) => self.change_failed(turn, id, leg, 408),
            Client::Info { from, server, to } => {
                self.close(id);
                self.info_done(turn, from, server, to, 408);
            }
            Client::Cancel(leg) if self.cancel_later(turn, leg) => _ = self.close(id),
            Client::Bye(leg) | Client::Cancel(leg) => {
                self.close(id);
                self.bury(leg);
            }
            Client::Stray => {
                self.close(id);
            }
        }
    }

    /// A transaction of ours is over: no further 2xx can come.
    pub(crate) fn client_done(&mut self, turn: &mut Turn<'_>, id: ClientId) {
        match self.clients.get(&id).copied() {
            Some(Client::Invite(leg)) if self.legs.get(&leg).is_none_or(|l| l.phase != crate::leg::Phase::Setup) => {
                self.close(id);
            }
            Some(Client::Change(leg)) if self.asking(leg, id) => self.change_failed(turn, id, leg, 408),
            Some(Client::Invite(leg)) => self.branch_silent(turn, id, leg),
            Some(Client::Bye(leg) | Client::Cancel(leg) | Client::Change(leg)) => {
                self.close(id);
                self.bury(leg);
            }
            Some(Client::Stray) => {
                self.close(id);
            }
            Some(Client::Info { from, server, to }) => {
                self.close(id);
                self.info_done(turn, from, server, to, 408);
            }
            None => {}
        }
    }

    /// A message did not reach its process. A request of ours goes another way, or is as good as unanswered; a response is
    /// asked for again.
    pub(crate) fn unsent(&mut self, turn: &mut Turn<'_>, bytes: &Bytes) {
        let Ok(message) = Message::parse_stream(bytes) else { return };
        let method = message.method();
        if message.is_request() && self.not_passed_on(turn, &message, bytes) {
            return;
        }
        if !message.is_request() || method == Some(Method::Ack) {
            return;
        }
        let found = self.clients.keys().copied().find(|id| self.transactions.client_request(*id) == Some(bytes));
        if let Some((id, hop)) = found.and_then(|id| Some((id, *self.transactions.client_hop(id)?))) {
            self.unreached(turn, id, hop);
        }
    }

    pub(crate) fn answered(&mut self, turn: &mut Turn<'_>, id: AskId, answer: Answer) {
        let Some(then) = self.asks.remove(&id) else { return };
        let command = self.commands.remove(&id);
        match (then, answer) {
            (Then::Nonce(call), Answer::Nonce(result)) => self.nonce_used(turn, call, result),
            (Then::Located { call, dial, endpoint }, Answer::Bindings(result)) => {
                self.located(turn, call, dial, &endpoint, result);
            }
            (Then::Reread { call, dial, endpoint }, Answer::Bindings(result)) => {
                self.reread(turn, call, dial, &endpoint, result);
            }
            (Then::Notified(number), Answer::Notified(result)) => self.notified(turn, number, result),
            (Then::Room { call, dial }, Answer::Record(result)) => self.room_found(turn, call, dial, result),
            (Then::Saved(group), Answer::Stored(result)) => self.saved(turn, group, result),
            (Then::Takeover(step), answer) => self.takeover_answered(turn, step, answer),
            (then, Answer::Sdp(Ok(sdp))) => self.described(turn, then, Ok(sdp)),
            (then, Answer::Sdp(Err(reason))) => self.undescribed(turn, then, command, true, reason),
            (then, Answer::NoRelay(reason)) => self.undescribed(turn, then, command, false, reason),
            // An answer of another kind than the question: the driver's fault. The timers of the call will end it.
            _ => self.counters.dropped += 1,
        }
    }
}
