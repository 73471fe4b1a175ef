//! Requests that did not get outside: the balancer that they were to leave by was not reached, is gone without a word, or
//! no longer has the way to the phone (430, RFC 5626 11.5). They leave by another one. Where none has it they wait: an
//! address of a node that is gone is soon another node's, and a call is not over because a balancer is.

use crate::cause::Branch;
use crate::core::{Client, Core, Turn};
use crate::headers;
use crate::leg::{Exchange, LegKey, Phase};
use crate::timers::Timer;
use bytes::Bytes;
use contract::hop::Inside;
use contract::peers::PeerState;
use contract::{ProcessId, Service, Transport, rendezvous};
use sip::Name;
use sip::edit::Edit;
use sip::message::Message;
use sip::transaction::ClientId;
use std::time::Duration;

/// After all balancers were tried they are tried again.
const PERIOD: Duration = Duration::from_millis(250);
/// So long a request within a dialog is tried.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long an INVITE that makes a call: another balancer is in place of one that goes, and its caller hears nothing yet.
const PATIENCE_TO_RING: Duration = Duration::from_secs(5);
/// Requests that wait at once.
const WAITING: usize = 65_536;

/// What became of a request so far.
#[derive(Debug, Clone)]
pub(crate) struct Attempts {
    /// When it first went astray.
    since: Duration,
    /// The balancers that do not have its way, since all were tried last.
    tried: Vec<ProcessId>,
}

/// A request that waits to be sent again.
#[derive(Debug)]
pub(crate) struct Astray {
    client: Client,
    /// The transaction that it was sent in last.
    was: ClientId,
    request: Bytes,
    attempts: Attempts,
    /// When it is given up.
    until: Duration,
}

/// The leg whose request this is, if it can go another way.
fn leg_of(client: Client) -> Option<LegKey> {
    match client {
        Client::Invite(leg) | Client::Change(leg) | Client::Bye(leg) | Client::Info { to: leg, .. } => Some(leg),
        Client::Cancel(_) | Client::Stray => None,
    }
}

impl Core {
    /// Where a leg's requests go.
    pub(crate) fn hop_of(&self, turn: &Turn<'_>, leg: LegKey) -> Option<ProcessId> {
        let leg = self.legs.get(&leg)?;
        let dialog = leg.dialog.as_ref()?;
        let heard_by = leg.heard_by.filter(|by| turn.view.peers.get(*by).is_some());
        heard_by.or_else(|| headers::next_hop(turn.view, &dialog.route_set, &dialog.remote_target, &leg.id))
    }

    /// A balancer brought an answer of a leg's side: what that side is sent from now on leaves by it. Of an ACK nobody tells
    /// that it went astray.
    pub(crate) fn heard(&mut self, message: &Message<'_>, client: ClientId, inside: &Inside) {
        // 100 is of the balancer itself (RFC 3261 16.2).
        let of_its_side = inside.service == Service::Balancer && message.status().is_some_and(|status| status > 100);
        let leg = self.clients.get(&client).copied().and_then(leg_of).and_then(|leg| self.legs.get_mut(&leg));
        if let Some(leg) = leg.filter(|_| of_its_side) {
            leg.heard_by = Some(inside.from);
        }
    }

    /// Sends a request another way that did not get outside by `hop`; false if there is none: then it is as good as
    /// unanswered. `was` is its transaction, which means nothing any more after that.
    pub(crate) fn astray(&mut self, turn: &mut Turn<'_>, was: ClientId, request: &Bytes, hop: ProcessId) -> bool {
        let Some(client) = self.clients.get(&was).copied() else { return false };
        let is_balancer = turn.view.peers.get(hop).is_none_or(|peer| peer.service == Service::Balancer);
        let flow = leg_of(client).and_then(|leg| self.legs.get(&leg)).and_then(|leg| match &leg.dialog {
            Some(dialog) => headers::flow(turn.view, &dialog.route_set),
            None => {
                let request = Message::parse_stream(request).ok()?;
                let routes: Vec<String> = request.values(Name::Route).map(str::to_owned).collect();
                headers::flow(turn.view, &routes)
            }
        });
        let Some(flow) = flow.filter(|_| is_balancer) else { return false };
        let now = turn.now.mono;
        let mut attempts = self.attempts.remove(&was).unwrap_or(Attempts { since: now, tried: Vec::new() });
        attempts.tried.push(hop);
        // A connection that is gone does not come back; an address does.
        let patience = match client {
            Client::Invite(_) if flow.transport != Transport::Udp => Duration::ZERO,
            Client::Invite(_) => PATIENCE_TO_RING,
            _ => PATIENCE,
        };
        let until = attempts.since + patience;
        let astray = Astray { client, was, request: request.clone(), attempts, until };
        let next = self.another(turn, &astray);
        if next.is_none() && (now >= until || self.astray.len() >= WAITING) {
            return false;
        }
        self.clients.remove(&was);
        match next {
            Some(to) => self.send_again(turn, astray, to),
            None => self.wait(now, astray),
        }
        true
    }

    fn wait(&mut self, now: Duration, mut astray: Astray) {
        astray.attempts.tried.clear();
        let number = self.number();
        self.astray.insert(number, astray);
        self.timers.arm(Timer::Astray(number), now + PERIOD);
    }

    /// A request that waits is tried again.
    pub(crate) fn try_again(&mut self, turn: &mut Turn<'_>, number: u64) {
        let Some(astray) = self.astray.remove(&number) else { return };
        let cancelled = match astray.client {
            Client::Change(leg) => match self.legs.get(&leg).and_then(|l| l.exchange.as_ref()) {
                Some(Exchange::Asking(asking)) if asking.client == Some(astray.was) => asking.cancelled,
                _ => true,
            },
            Client::Invite(leg) => self.legs.get(&leg).is_none_or(|leg| leg.phase != Phase::Setup),
            client => leg_of(client).is_none_or(|leg| !self.legs.contains_key(&leg)),
        };
        match self.another(turn, &astray) {
            Some(to) if !cancelled => self.send_again(turn, astray, to),
            None if !cancelled && turn.now.mono < astray.until => self.wait(turn.now.mono, astray),
            _ => {
                self.clients.insert(astray.was, astray.client);
                match astray.client {
                    Client::Invite(leg) => self.branch_lost(turn, astray.was, leg, Branch::Absent),
                    _ => self.client_failed(turn, astray.was),
                }
            }
        }
    }

    /// The balancer to try next: the one that the leg's requests go to, else by rendezvous hash, of those not tried.
    fn another(&self, turn: &Turn<'_>, astray: &Astray) -> Option<ProcessId> {
        let leg = leg_of(astray.client)?;
        let untried = |process: &ProcessId| !astray.attempts.tried.contains(process);
        let usual = self.hop_of(turn, leg).filter(|p| turn.view.peers.get(*p).is_some());
        usual.filter(untried).or_else(|| {
            let leg = self.legs.get(&leg)?;
            let balancers = |state: PeerState| {
                let of = turn.view.peers.0.iter().filter(move |p| p.service == Service::Balancer && p.state == state);
                rendezvous::choose(leg.id.as_bytes(), of.filter(|p| untried(&p.process)).map(|p| (p.process, p.weight)))
            };
            balancers(PeerState::Serving).or_else(|| balancers(PeerState::Draining))
        })
    }

    /// A new transaction for the same request (RFC 3261 8.1.3.1: as after a 503): its CSeq was not seen by the phone.
    fn send_again(&mut self, turn: &mut Turn<'_>, astray: Astray, to: ProcessId) {
        let Astray { client, was, request, attempts, .. } = astray;
        let again = Message::parse_stream(&request).ok().map(|message| {
            let mut edit = Edit::new(&message);
            edit.pop_top(Name::Via).insert_top(Name::Via, turn.via());
            edit.finish()
        });
        let sent = again.and_then(|bytes| {
            let id = self.transactions.send(bytes.clone(), to, true, turn.now.mono).ok()?;
            Some((id, bytes))
        });
        let Some((id, bytes)) = sent else {
            self.counters.overflow += 1;
            self.clients.insert(was, client);
            return self.client_failed(turn, was);
        };
        self.counters.astray += 1;
        self.clients.insert(id, client);
        self.attempts.insert(id, attempts);
        match client {
            Client::Change(leg) => {
                if let Some(Exchange::Asking(asking)) = self.legs.get_mut(&leg).and_then(|l| l.exchange.as_mut()) {
                    asking.client = Some(id);
                }
            }
            Client::Invite(leg) => {
                if let Some(leg) = self.legs.get_mut(&leg) {
                    (leg.client, leg.invite, leg.next) = (Some(id), Some(bytes), Some(to));
                    leg.progressed = false;
                }
            }
            _ => {}
        }
    }

    /// Sends another way what was given to balancers that are gone since and did not even say that they have it.
    pub(crate) fn leave_the_gone(&mut self, turn: &mut Turn<'_>) {
        let gone = |core: &Self, id: &ClientId, client: Client| {
            let hop = *core.transactions.client_hop(*id)?;
            let unheard = match client {
                Client::Bye(_) | Client::Info { .. } => true,
                Client::Change(leg) => match core.legs.get(&leg)?.exchange.as_ref()? {
                    Exchange::Asking(asking) => asking.client == Some(*id) && !asking.progressed,
                    Exchange::Serving(_) => false,
                },
                _ => false,
            };
            (unheard && turn.view.peers.get(hop).is_none()).then_some(hop)
        };
        let lost: Vec<(ClientId, ProcessId)> =
            self.clients.iter().filter_map(|(id, client)| Some((*id, gone(self, id, *client)?))).collect();
        for (id, hop) in lost {
            self.unreached(turn, id, hop);
        }
    }

    /// A request of ours did not reach its process.
    pub(crate) fn unreached(&mut self, turn: &mut Turn<'_>, id: ClientId, hop: ProcessId) {
        let Some(request) = self.transactions.client_request(id).cloned() else { return };
        self.astray(turn, id, &request, hop);
        // Nobody answers it any more. What goes another way is not known by this any more.
        self.transactions.transport_error(id, turn.now.mono);
    }

    /// The request that this answers, and where it went.
    pub(crate) fn sent_for(&mut self, response: &Message<'_>) -> Option<(Bytes, ProcessId)> {
        let id = self.transactions.client_of(response)?;
        Some((self.transactions.client_request(id)?.clone(), *self.transactions.client_hop(id)?))
    }
}
