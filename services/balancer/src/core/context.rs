//! Response contexts (RFC 3261 16.6): what belongs to one received request until it is over.

use super::Hop;
use crate::token::branch::Owner;
use bytes::Bytes;
use contract::leg::LegToken;
use contract::{Flow, Service};
use sip::transaction::{ClientId, ServerId};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Where a request may go.
#[derive(Debug, Clone)]
pub(super) enum Goal {
    /// Any process of a service, by rendezvous on the key.
    Service { service: Service, key: String },
    /// The owner of a leg, or who took over.
    Leg(LegToken),
    /// A destination of the dispatcher with this name.
    Set(String),
    /// One flow.
    Flow(Flow),
}

/// What was found out about a request before it got a transaction.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) goal: Goal,
    /// Route values at the top that are ours.
    pub(super) popped: usize,
    /// The sender is a trusted trunk.
    pub(super) trusted: bool,
}

/// One destination that the request was sent to.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) client: ClientId,
    pub(super) to: Hop,
    /// The destination's id, as in [`Context::tried`].
    pub(super) id: u64,
    /// A 1xx came.
    pub(super) provisional: bool,
    /// Another destination has been tried since: only a 2xx still counts.
    pub(super) abandoned: bool,
    /// A 1xx other than 100 came: there may be an early dialog.
    pub(super) early: bool,
    /// A final answer came, or none can come any more.
    pub(super) done: bool,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) server: ServerId,
    pub(super) request: Bytes,
    pub(super) source: Hop,
    pub(super) invite: bool,
    pub(super) plan: Plan,
    /// Ids of destinations that were tried.
    pub(super) tried: Vec<u64>,
    pub(super) branches: Vec<Branch>,
    /// The last refusal that led to a next destination.
    pub(super) failure: Option<Bytes>,
    /// A final answer was passed on or given: see [`Contexts::close`].
    answered: bool,
    /// Its sender cancelled it.
    pub(super) cancelled: bool,
    /// This is a copy of a request that another replica owns.
    pub(super) owner: Option<Owner>,
    /// The router that has it holds the caller: should that go, another one goes on with it.
    pub(super) held: bool,
    /// Reason values of its CANCEL (RFC 3326).
    pub(super) reasons: Vec<String>,
    patience: Option<Duration>,
}

impl Context {
    pub(super) fn new(server: ServerId, request: Bytes, source: Hop, invite: bool, plan: Plan) -> Self {
        Self {
            server,
            request,
            source,
            invite,
            plan,
            tried: Vec::new(),
            branches: Vec::new(),
            failure: None,
            answered: false,
            cancelled: false,
            owner: None,
            held: false,
            reasons: Vec::new(),
            patience: None,
        }
    }

    /// The branch of this client transaction.
    pub(super) fn branch(&mut self, client: ClientId) -> Option<&mut Branch> {
        self.branches.iter_mut().find(|b| b.client == client)
    }

    /// A final answer was passed on or given.
    pub(super) fn answered(&self) -> bool {
        self.answered
    }

    /// True while the request may still go elsewhere: no early dialog, nobody has cancelled.
    pub(super) fn may_move(&self) -> bool {
        !self.answered && !self.cancelled && self.branches.last().is_none_or(|b| !b.early)
    }
}

/// All contexts, found by number, server transaction or branch. Bounded by the bound of transactions.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    all: HashMap<u64, Context>,
    by_server: HashMap<ServerId, u64>,
    by_branch: HashMap<String, (ClientId, u64)>,
    patience: BTreeSet<(Duration, u64)>,
    /// How many have no final answer.
    open: usize,
    /// Those that are held, by a router that is gone.
    orphans: BTreeSet<u64>,
    last: u64,
}

impl Contexts {
    pub(super) fn insert(&mut self, context: Context) -> u64 {
        self.last += 1;
        self.by_server.insert(context.server, self.last);
        self.open += 1;
        self.all.insert(self.last, context);
        self.last
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Context> {
        self.all.get_mut(&number)
    }

    /// A final answer was passed on or given: what is left of the request is there for copies of it.
    pub(super) fn close(&mut self, number: u64) {
        if let Some(context) = self.all.get_mut(&number)
            && !std::mem::replace(&mut context.answered, true)
        {
            self.open -= 1;
        }
        // A router may still go on with what its caller has cancelled, and is waited for all the same.
        if !self.is_orphan(number) {
            self.set_patience(number, None);
        }
    }

    /// Requests without a final answer.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn of_server(&self, server: ServerId) -> Option<u64> {
        self.by_server.get(&server).copied()
    }

    /// Ends the context of a server transaction.
    pub(super) fn remove(&mut self, server: ServerId) {
        let Some(number) = self.by_server.remove(&server) else { return };
        self.orphans.remove(&number);
        if let Some(context) = self.all.remove(&number) {
            self.open -= usize::from(!context.answered);
            if let Some(at) = context.patience {
                self.patience.remove(&(at, number));
            }
        }
    }

    /// The client transaction and context that a branch of ours belongs to here.
    pub(super) fn of_branch(&self, branch: &str) -> Option<(ClientId, u64)> {
        self.by_branch.get(branch).copied()
    }

    pub(super) fn note_branch(&mut self, branch: String, client: ClientId, number: u64) {
        self.by_branch.insert(branch, (client, number));
    }

    pub(super) fn forget_branch(&mut self, branch: &str) {
        self.by_branch.remove(branch);
    }

    /// Numbers of contexts for which this holds.
    pub(super) fn numbers(&self, holds: impl Fn(&Context) -> bool) -> Vec<u64> {
        self.all.iter().filter(|(_, c)| holds(c)).map(|(n, _)| *n).collect()
    }

    /// The router that held this request is gone: another one has until then to go on with it.
    pub(super) fn orphan(&mut self, number: u64, until: Duration) {
        self.orphans.insert(number);
        self.set_patience(number, Some(until));
    }

    /// True if a request waits for a router to go on with it.
    pub(super) fn is_orphan(&self, number: u64) -> bool {
        self.orphans.contains(&number)
    }

    /// True if any does.
    pub(super) fn has_orphans(&self) -> bool {
        !self.orphans.is_empty()
    }

    /// It waits no more; false if it did not.
    pub(super) fn unorphan(&mut self, number: u64) -> bool {
        let waited = self.orphans.remove(&number);
        if waited {
            self.set_patience(number, None);
        }
        waited
    }

    /// Sets or clears the time at which a context's next destination is tried.
    pub(super) fn set_patience(&mut self, number: u64, at: Option<Duration>) {
        let Some(context) = self.all.get_mut(&number) else { return };
        if let Some(old) = std::mem::replace(&mut context.patience, at) {
            self.patience.remove(&(old, number));
        }
        if let Some(at) = at {
            self.patience.insert((at, number));
        }
    }

    /// A context whose patience is over.
    pub(super) fn impatient(&mut self, now: Duration) -> Option<u64> {
        let (at, number) = *self.patience.first()?;
        if at > now {
            return None;
        }
        self.set_patience(number, None);
        // Not there any more: nothing to clear, so the set itself has to be.
        self.patience.remove(&(at, number));
        Some(number)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.patience.first().map(|(at, _)| *at)
    }
}
