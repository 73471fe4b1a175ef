//! Messages of our own services.

use super::context::{Context, Goal, Plan};
use super::outside::Refusal;
use super::{Core, Hop, Turn};
use crate::counters::Counter;
use crate::dispatcher::set;
use crate::{refuse, trust};
use bytes::Bytes;
use contract::{Flow, ProcessId};
use sip::transaction::Received;
use sip::uri::Uri;
use sip::{Message, Method, Name};
use std::net::{Ipv4Addr, SocketAddr};

impl Core {
    /// A message of a process that is no balancer.
    pub(super) fn inside(&mut self, turn: &mut Turn<'_>, bytes: Bytes, from: ProcessId) {
        let message = match Message::parse(&bytes) {
            Ok(message) => message,
            Err(_) => return self.counters.count(Counter::Unparsable),
        };
        if !message.is_request() {
            self.counters.count(Counter::InsideResponse);
            return self.response(turn, &message, &bytes, Hop::Inside(from), false);
        }
        self.counters.count(Counter::InsideRequest);
        let source = Hop::Inside(from);
        if message.method() == Some(Method::Ack) {
            return self.inside_ack(turn, &message, &bytes, from);
        }
        match self.transactions.receive(&message, &bytes, source, true, turn.now.mono) {
            Received::Request(server) => match self.judge_inside(turn, &message) {
                Ok(plan) => {
                    let invite = message.method() == Some(Method::Invite);
                    self.begin(turn, Context::new(server, bytes.clone(), source, invite, plan));
                }
                Err(refusal) => self.answer(turn, server, &refusal),
            },
            Received::Cancel { cancel, invite } => match invite.and_then(|s| self.contexts.of_server(s)) {
                Some(number) => {
                    self.answer(turn, cancel, &Refusal::plain(200));
                    self.cancel(turn, number, &message);
                }
                None => self.answer(turn, cancel, &Refusal::plain(481)),
            },
            Received::Overflow => {
                self.counters.count(Counter::Overflow);
                let retry = self.limits.retry_after.to_string();
                let headers = [(Name::RetryAfter, retry.as_str())];
                if let Some(bytes) = refuse::answer(&message, None, turn.view.keys, (503, None), &headers) {
                    self.send(source, bytes);
                }
            }
            _ => {}
        }
    }

    /// Where a request from inside goes: on the flow that its Route names by our token, else to the address in its
    /// Request-URI.
    pub(super) fn judge_inside(&self, turn: &Turn<'_>, request: &Message<'_>) -> Result<Plan, Refusal> {
        if matches!(request.max_forwards(), Some(Ok(0))) {
            return Err(Refusal::plain(483));
        }
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let own = trust::own_routes(request, nowhere, &self.listeners, turn.view.keys);
        let target = match own.flow.or(own.pair) {
            Some(flow) => flow,
            None => {
                // RFC 3261 16.6 item 6: the next hop is the first Route, if there is one, else the Request-URI.
                let next = request.values(Name::Route).nth(own.count);
                let next = next.and_then(|v| sip::header::NameAddr::parse(v).ok()).map(|a| a.uri);
                let uri = next.or(request.uri()).and_then(|u| Uri::parse(u).ok());
                let found = uri.and_then(|u| set::address(&u)).and_then(|(t, a)| self.flow_to(turn, t, a));
                found.ok_or_else(|| Refusal::new(404, "Unresolvable Destination"))?
            }
        };
        Ok(Plan { goal: Goal::Flow(target), popped: own.count, trusted: true })
    }

    /// A flow from here to an address. A connection has no number before it is made: 0 stands for any that leads there.
    pub(super) fn flow_to(&self, turn: &Turn<'_>, transport: contract::Transport, remote: SocketAddr) -> Option<Flow> {
        let local = self.listeners.source_for(transport, remote, turn.view.routes)?;
        Some(Flow { transport, process: self.me.process, connection: 0, local, remote })
    }
}
