//! Requests on their way: which destination, and what is written into them (RFC 3261 16.6).

use super::context::{Branch, Context, Goal, Plan};
use super::outside::Refusal;
use super::{Connection, Core, Hop, Turn, Use};
use crate::counters::Counter;
use crate::dispatcher::algorithm;
use crate::record_route::{self, Length};
use crate::token::branch;
use crate::{refuse, trust, via};
use bytes::Bytes;
use contract::hop::Hop as HopHeader;
use contract::peers::{Peer, PeerState};
use contract::{Flow, ProcessId, Service, Transport, hop, rendezvous};
use sip::edit::Edit;
use sip::transaction::ServerId;
use sip::{Message, Method, Name};
use std::net::IpAddr;
use std::time::Duration;

/// What a request without Max-Forwards gets (RFC 3261 16.6 item 3).
const MAX_FORWARDS: u64 = 70;
/// So long it is taken for known whether this machine has an address.
const HERE: Duration = Duration::from_millis(100);
/// Addresses of which that is remembered.
const ADDRESSES: usize = 64;
/// At the end of our Via in an ACK that went to a second process.
const MOVED: &str = ";moved";

impl Core {
    /// Takes a new request: tells its sender that it is under way, and sends it on.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>, context: Context) {
        let (server, invite) = (context.server, context.invite);
        let number = self.contexts.insert(context);
        self.next(turn, number);
        let under_way = self.contexts.get_mut(number).is_some_and(|c| !c.answered());
        if invite && under_way {
            self.answer(turn, server, &Refusal::plain(100));
        }
    }

    /// Sends a request to its next destination; without one it is answered.
    pub(super) fn next(&mut self, turn: &mut Turn<'_>, number: u64) {
        self.contexts.set_patience(number, None);
        loop {
            let Some(context) = self.contexts.get_mut(number) else { return };
            if context.answered() {
                return;
            }
            let (plan, tried) = (context.plan.clone(), context.tried.clone());
            if tried.len() >= self.limits.attempts {
                break;
            }
            let Some((to, id)) = self.destination(turn, &plan, &tried, number) else { break };
            if !tried.is_empty() {
                self.counters.count(Counter::Failover);
            }
            let Some(context) = self.contexts.get_mut(number) else { return };
            context.tried.push(id);
            for branch in &mut context.branches {
                branch.abandoned = true;
            }
            if self.forward(turn, number, to, id).is_some() {
                if self.may_lose_patience(turn, &plan.goal) {
                    self.contexts.set_patience(number, Some(turn.now.mono + self.limits.patience));
                }
                return;
            }
        }
        self.exhausted(turn, number);
    }

    /// True if silence is a reason to try elsewhere. A process inside is known to be there as long as its record is. And
    /// with other replicas silence may mean that the request is a copy of one that went through another of them, and
    /// that the destination answers there: trying elsewhere would make a second call.
    pub(super) fn may_lose_patience(&self, turn: &Turn<'_>, goal: &Goal) -> bool {
        matches!(goal, Goal::Set(_)) && turn.view.peers.serving(Service::Balancer).count() < 2
    }

    /// True if there is a destination that was not tried.
    pub(super) fn has_next(&mut self, turn: &Turn<'_>, number: u64) -> bool {
        let Some(context) = self.contexts.get_mut(number) else { return false };
        let (plan, tried) = (context.plan.clone(), context.tried.clone());
        if tried.len() >= self.limits.attempts {
            return false;
        }
        match &plan.goal {
            Goal::Set(name) => !self.live(name, &tried).is_empty(),
            _ => self.destination(turn, &plan, &tried, number).is_some(),
        }
    }

    fn destination(&mut self, turn: &Turn<'_>, plan: &Plan, tried: &[u64], number: u64) -> Option<(Hop, u64)> {
        let peers = turn.view.peers;
        let inside = |p: ProcessId| (Hop::Inside(p), p.0);
        let choose = |service: Service, key: &[u8]| {
            let fresh =
                |p: &&Peer| p.state == PeerState::Serving && p.service == service && !tried.contains(&p.process.0);
            rendezvous::choose(key, peers.0.iter().filter(fresh).map(|p| (p.process, p.weight))).map(inside)
        };
        match &plan.goal {
            Goal::Service { service, key } => choose(*service, key.as_bytes()),
            Goal::Leg(leg) => match peers.get(leg.process) {
                // A draining owner goes on with what it has.
                Some(owner) if !tried.contains(&owner.process.0) => Some(inside(owner.process)),
                // Gone, or not reached though its record stands: whoever takes its legs over, or waits to.
                _ => choose(Service::Router, contract::leg::family(&leg.leg).as_bytes()),
            },
            Goal::Set(name) => {
                let request = self.contexts.get_mut(number)?.request.clone();
                let call_id = Message::parse(&request).ok()?.call_id().ok()?.to_owned();
                let (transport, remote, id) = {
                    let live = self.live(name, tried);
                    let set = self.setup.set(name)?;
                    let live: Vec<_> = set.targets.iter().filter(|t| live.contains(&t.id)).collect();
                    let turn = self.turns.entry(name.clone()).or_default();
                    let target = algorithm::pick(set.algorithm, &live, &call_id, turn)?;
                    (target.transport, target.remote, target.id)
                };
                Some((Hop::Outside(self.flow_to(turn, transport, remote)?), id))
            }
            Goal::Flow(flow) => {
                let reach = match flow.transport {
                    Transport::Udp => self.listeners.holds(flow) && self.is_here(turn, flow.local.ip()),
                    Transport::Tcp => flow.connection == 0 || flow.process == self.me.process,
                };
                (reach && tried.is_empty()).then_some((Hop::Outside(*flow), 0))
            }
        }
    }

    /// True if this machine has an address; asked of the system now and then.
    fn is_here(&mut self, turn: &Turn<'_>, address: IpAddr) -> bool {
        let now = turn.now.mono;
        if let Some((here, until)) = self.here.get(&address)
            && now < *until
        {
            return *here;
        }
        if self.here.len() >= ADDRESSES {
            self.here.clear();
        }
        let here = turn.view.routes.has(address);
        self.here.insert(address, (here, now + HERE));
        here
    }

    /// Ids of the destinations of a set that are up and were not tried.
    fn live(&self, name: &str, tried: &[u64]) -> Vec<u64> {
        let Some(set) = self.setup.set(name) else { return Vec::new() };
        let up = set.targets.iter().filter(|t| self.probes.is_up(name, &t.uri));
        up.map(|t| t.id).filter(|id| !tried.contains(id)).collect()
    }

    /// Nothing is left to try.
    fn exhausted(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(context) = self.contexts.get_mut(number) else { return };
        let server = context.server;
        if let Some(failure) = context.failure.take() {
            self.contexts.close(number);
            self.transactions.respond(server, failure, turn.now.mono);
            return;
        }
        let refusal = match context.plan.goal.clone() {
            Goal::Flow(_) => {
                self.counters.count(Counter::FlowFailed);
                Refusal::new(430, "Flow Failed")
            }
            Goal::Set(name) => {
                self.counters.count(Counter::Unavailable);
                match self.setup.set(&name) {
                    Some(set) => Refusal::new(set.unavailable.0, &set.unavailable.1),
                    None => Refusal::plain(503),
                }
            }
            Goal::Service { .. } | Goal::Leg(_) => {
                self.counters.count(Counter::Unavailable);
                Refusal::plain(503).with(Name::RetryAfter, self.limits.retry_after.to_string())
            }
        };
        self.answer(turn, server, &refusal);
    }

    /// Answers a request that has a transaction.
    pub(super) fn answer(&mut self, turn: &Turn<'_>, server: ServerId, refusal: &Refusal) {
        let number = self.contexts.of_server(server);
        if let Some(number) = number.filter(|_| refusal.status >= 200) {
            self.contexts.close(number);
        }
        let remote = number.and_then(|n| self.contexts.get_mut(n)).and_then(|context| match context.source {
            Hop::Outside(flow) => Some(flow.remote),
            Hop::Inside(_) => None,
        });
        let remote = remote.or_else(|| match self.transactions.server_hop(server) {
            Some(Hop::Outside(flow)) => Some(flow.remote),
            _ => None,
        });
        let Some(request) = self.transactions.server_request(server).cloned() else { return };
        let Ok(request) = Message::parse(&request) else { return };
        let headers: Vec<_> = refusal.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let status = (refusal.status, refusal.reason.as_deref());
        if let Some(bytes) = refuse::answer(&request, remote, turn.view.keys, status, &headers) {
            self.transactions.respond(server, bytes, turn.now.mono);
        }
    }

    /// Sends a request to one destination; `None` if the table of transactions is full.
    fn forward(&mut self, turn: &mut Turn<'_>, number: u64, to: Hop, id: u64) -> Option<()> {
        let context = self.contexts.get_mut(number)?;
        let (bytes, source, plan) = (context.request.clone(), context.source, context.plan.clone());
        let attempt = u8::try_from(context.branches.len()).unwrap_or(u8::MAX);
        let request = Message::parse(&bytes).ok()?;
        let (branch, via) = self.our_via(turn, &request, source, to, attempt)?;
        let forwarded = self.rewrite(turn, &request, source, to, &plan, via);
        // A copy that came with the original is absorbed before there is an answer to give it. Asked again, as over an
        // unreliable hop, the process says 100, and we do not take its silence for a failure.
        let may_be_copy = matches!((source, to), (Hop::Outside(_), Hop::Inside(_)))
            && request.method() == Some(Method::Invite)
            && turn.view.peers.serving(Service::Balancer).count() > 1;
        let reliable = to.is_reliable() && !may_be_copy;
        let client = self.transactions.send(forwarded, to, reliable, turn.now.mono).ok()?;
        let connection = Connection::of(to);
        self.clients.insert(client, Use::Forward { context: number, branch: branch.clone(), connection });
        if request.method() != Some(Method::Cancel) {
            self.contexts.note_branch(branch, client, number);
        }
        if let Some(connection) = connection {
            self.by_connection.entry(connection).or_default().push(client);
        }
        let branch = Branch { client, to, id, provisional: false, early: false, abandoned: false, done: false };
        self.contexts.get_mut(number)?.branches.push(branch);
        Some(())
    }

    /// Our branch and Via for a request.
    pub(super) fn our_via(
        &mut self,
        turn: &mut Turn<'_>,
        request: &Message<'_>,
        source: Hop,
        to: Hop,
        attempt: u8,
    ) -> Option<(String, String)> {
        let keys = turn.view.keys;
        let (branch, beside) = match source {
            Hop::Outside(_) => {
                let branch = branch::derive(request, keys, attempt)?;
                let beside = self.me.beside(keys, &branch);
                (branch, Some(beside))
            }
            Hop::Inside(_) => (self.me.branch(keys, turn.rng), None),
        };
        let via = match to {
            Hop::Outside(flow) => {
                via::outside(flow.transport, &self.listeners.advertised(&flow), &branch, beside.as_deref())
            }
            Hop::Inside(_) => via::inside(&branch, &beside.unwrap_or_else(|| self.me.beside(keys, &branch))),
        };
        Some((branch, via))
    }

    /// The request as it goes on: slices of what came, and what a proxy adds (RFC 3261 16.6) and removes: what an outsider
    /// may not say, and what only our own processes read.
    pub(super) fn rewrite(
        &self,
        turn: &Turn<'_>,
        request: &Message<'_>,
        source: Hop,
        to: Hop,
        plan: &Plan,
        via: String,
    ) -> Bytes {
        let keys = turn.view.keys;
        let call_id = request.call_id().unwrap_or_default();
        let forms_dialog = record_route::forms_dialog(request);
        let mut edit = Edit::new(request);
        for _ in 0..plan.popped {
            edit.pop_top(Name::Route);
        }
        match source {
            Hop::Outside(flow) => {
                trust::strip_outside(&mut edit, request, plan.trusted);
                if let Ok(top) = request.via() {
                    let (received, rport) = via::received(&top, flow.remote);
                    if received.is_some() || rport.is_some() {
                        edit.via_received(received, rport);
                    }
                }
            }
            Hop::Inside(_) => trust::strip_own(&mut edit, request),
        }
        match (source, to) {
            (Hop::Outside(flow), Hop::Inside(_)) => {
                if request.method() == Some(Method::Register) {
                    edit.insert_top(Name::Path, record_route::route(&flow, keys, &self.listeners));
                } else if forms_dialog {
                    edit.insert_top(Name::RecordRoute, record_route::route(&flow, keys, &self.listeners));
                }
                let cseq = request.header(Name::CSeq).unwrap_or_default();
                let header = HopHeader { flow, trusted: plan.trusted }.seal(keys, call_id, cseq);
                edit.append_other(hop::HEADER, header);
            }
            // Each side finds the other by the token of its flow, so there are two.
            (Hop::Outside(flow), Hop::Outside(target)) if forms_dialog => {
                let near = record_route::paired(&flow, call_id, keys, &self.listeners);
                let far = record_route::paired(&target, call_id, keys, &self.listeners);
                edit.insert_top(Name::RecordRoute, near).insert_top(Name::RecordRoute, far);
            }
            (Hop::Inside(_), Hop::Outside(target)) if forms_dialog => {
                edit.insert_top(Name::RecordRoute, record_route::route(&target, keys, &self.listeners));
            }
            _ => {}
        }
        let hops = match request.max_forwards() {
            Some(Ok(hops)) => u64::from(hops.saturating_sub(1)),
            _ => MAX_FORWARDS,
        };
        edit.replace_number(Name::MaxForwards, hops);
        edit.insert_top(Name::Via, via);
        edit.with_length(request).finish()
    }

    /// Sends a request on without a transaction: ACK of a 2xx.
    pub(super) fn forward_ack(&mut self, turn: &mut Turn<'_>, ack: &Message<'_>, source: Hop, plan: &Plan) {
        let Some((to, _)) = self.destination(turn, plan, &[], 0) else {
            return self.counters.count(Counter::StrayAck);
        };
        if let Some((_, via)) = self.our_via(turn, ack, source, to, 0) {
            let bytes = self.rewrite(turn, ack, source, to, plan, via);
            self.send(to, bytes);
        }
    }

    /// An ACK did not reach the owner of its leg: it goes on to who takes over, once. Its Via says that it did.
    pub(super) fn ack_failed(&mut self, turn: &Turn<'_>, ack: &Message<'_>) {
        let uri = ack.uri().and_then(|u| sip::uri::Uri::parse(u).ok());
        let leg = uri.and_then(|u| trust::leg(&u, turn.view.keys));
        let via = ack.values(Name::Via).next().unwrap_or_default();
        let again = leg.filter(|_| !via.ends_with(MOVED));
        let next = again.and_then(|leg| {
            let tried = [leg.process.0];
            self.destination(turn, &Plan { goal: Goal::Leg(leg), popped: 0, trusted: false }, &tried, 0)
        });
        let Some((to, _)) = next else {
            return self.counters.count(Counter::StrayAck);
        };
        let mut edit = Edit::new(ack);
        edit.pop_top(Name::Via).insert_top(Name::Via, format!("{via}{MOVED}"));
        self.send(to, edit.finish());
    }

    /// A flow of ours, as one that this process sends on itself.
    pub(super) fn own(&self, flow: Flow) -> Flow {
        Flow { process: self.me.process, ..flow }
    }
}
