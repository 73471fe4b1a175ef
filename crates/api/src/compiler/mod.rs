//! The compiler: changes of resources and Secrets in; deltas for each kind of service and statuses out. Pure.
//!
//! Two things decide what is live besides the resources themselves. **Claims**: an endpoint's name and username, a
//! context's name, a dispatcher's name and patterns, and the place of the one `Pbx` belong to one resource each; a
//! contested one stays with its holder, else goes to the older resource, else by name. **Held**: what a resource last
//! compiled to stays live, with its claims, while the resource is invalid or has lost a contest.
//!
//! Both are state, so the compiler is a function of its inputs *and* of [`Held`], which is an output and, after a
//! restart, an input. Two properties are tested: where nothing is contested and nothing valid becomes invalid, any order
//! of changes gives what compiling all at once gives; and always, a compiler restored from [`Compiler::held`] and given
//! all inputs at once has the entries and the statuses of the one that lived through the changes.

mod build;
mod contest;
mod entries;
mod few;
mod finding;
mod input;
mod pbx;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::config::{BalancerEntry, ConferenceEntry, MediaEntry, RegistrarEntry, RouterEntry, Snapshot};
use serde::{Deserialize, Serialize};

use build::Candidate;
use contest::{Contender, Verdict};
use entries::{Entries, Outlet};
use few::Few;
pub use finding::{Finding, Reason, State, Status};
pub use input::{Change, Kind, Resource, ResourceId, Spec};

use crate::{PbxSpec, SecretValue};

/// What only one resource can have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Claim {
    /// The place of the namespace's `Pbx`.
    Pbx,
    /// A context's name.
    Context(String),
    /// An endpoint's name.
    Endpoint(String),
    /// A digest username.
    Username(String),
    /// A dispatcher's name.
    Dispatcher(String),
    /// A pattern of a dispatcher's match.
    Match(dialplan::Pattern),
}

/// Claims of one resource, which several tables share.
type Claims = Arc<BTreeSet<Claim>>;

/// What the compiler remembers that its inputs do not say; see the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The last good entries of resources that are invalid now or have lost a contest.
    resources: Vec<HeldResource>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct HeldResource {
    id: ResourceId,
    claims: Claims,
    /// None for a resource that compiles and is here only because it holds what others want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entries: Option<Entries>,
}

impl Held {
    /// True when nothing is held and nothing is contested: nothing needs to be stored.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

/// What changes made of the configuration. A service whose entries did not change has `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// For balancers.
    pub balancer: Option<contract::config::Delta<BalancerEntry>>,
    /// For registrars.
    pub registrar: Option<contract::config::Delta<RegistrarEntry>>,
    /// For routers.
    pub router: Option<contract::config::Delta<RouterEntry>>,
    /// For relays.
    pub media: Option<contract::config::Delta<MediaEntry>>,
    /// For conference services.
    pub conference: Option<contract::config::Delta<ConferenceEntry>>,
    /// Statuses that changed; `None` for a resource that is gone.
    pub statuses: BTreeMap<ResourceId, Option<Status>>,
}

impl Delta {
    /// True when neither an entry nor a status changed.
    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
    }
}

/// What a resource has live.
#[derive(Debug, Clone)]
struct Live {
    claims: Claims,
    /// None only between restoring and the first changes.
    entries: Option<Entries>,
}

/// The compiler of one namespace. See the module.
#[derive(Debug)]
pub struct Compiler {
    resources: BTreeMap<ResourceId, Resource>,
    secrets: BTreeMap<String, BTreeMap<String, SecretValue>>,
    candidates: BTreeMap<ResourceId, Candidate>,
    live: BTreeMap<ResourceId, Live>,
    lost: BTreeMap<ResourceId, Finding>,
    statuses: BTreeMap<ResourceId, Status>,
    /// Who wants or holds a claim, and under which claims a resource is filed there.
    interested: BTreeMap<Claim, Few<ResourceId>>,
    filed: BTreeMap<ResourceId, Claims>,
    /// Who refers to a Secret, a context or an endpoint.
    referring: BTreeMap<build::Ref, BTreeSet<ResourceId>>,
    realm: String,
    /// Where the balancers are reached.
    hosts: BTreeSet<String>,
    balancer: Outlet<BalancerEntry>,
    registrar: Outlet<RegistrarEntry>,
    router: Outlet<RouterEntry>,
    media: Outlet<MediaEntry>,
    conference: Outlet<ConferenceEntry>,
    /// Restored resources that the first changes must name, or they are dropped.
    restored: BTreeSet<ResourceId>,
}

impl Compiler {
    /// A compiler without resources. `epoch` is that of the versions it makes; `held` is what [`Compiler::held`] of the
    /// one before gave, or empty. The first [`Compiler::apply`] after must bring everything there is.
    pub fn new(epoch: u64, held: Held) -> Self {
        let mut this = Self {
            resources: BTreeMap::new(),
            secrets: BTreeMap::new(),
            candidates: BTreeMap::new(),
            live: BTreeMap::new(),
            lost: BTreeMap::new(),
            statuses: BTreeMap::new(),
            interested: BTreeMap::new(),
            filed: BTreeMap::new(),
            referring: BTreeMap::new(),
            realm: PbxSpec::default().realm,
            hosts: BTreeSet::new(),
            balancer: Outlet::new(epoch),
            registrar: Outlet::new(epoch),
            router: Outlet::new(epoch),
            media: Outlet::new(epoch),
            conference: Outlet::new(epoch),
            restored: BTreeSet::new(),
        };
        for HeldResource { id, claims, entries } in held.resources {
            this.live.insert(id.clone(), Live { claims, entries });
            this.file(&id);
            this.restored.insert(id);
        }
        this
    }

    /// Takes changes in, all at once, and gives what they made of the configuration.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Delta {
        let mut dirty: BTreeSet<ResourceId> = std::mem::take(&mut self.restored);
        let restored = dirty.clone();
        for change in changes {
            self.take(change, &mut dirty);
        }

        // The Pbx first: the hashes of all passwords depend on its realm.
        let first: BTreeSet<_> = dirty.iter().filter(|id| id.kind == Kind::Pbx).cloned().collect();
        let mut touched = self.settle(first);
        let realm = self.effective_realm();
        if realm != self.realm {
            self.realm = realm;
            dirty.extend(self.resources.keys().filter(|id| id.kind == Kind::PbxEndpoint).cloned());
        }
        let rest: BTreeSet<_> = dirty.into_iter().filter(|id| id.kind != Kind::Pbx).collect();
        touched.extend(self.settle(rest));

        let mut delta = Delta::default();
        self.publish(&touched, &restored, &mut delta);
        self.report(touched, &mut delta);
        delta
    }

    fn take(&mut self, change: Change, dirty: &mut BTreeSet<ResourceId>) {
        match change {
            Change::Put(resource) => {
                let id = resource.id();
                self.resources.insert(id.clone(), resource);
                dirty.insert(id);
            }
            Change::Delete(id) => {
                self.resources.remove(&id);
                dirty.insert(id);
            }
            Change::Secret { name, values } => {
                dirty.extend(self.referring.get(&build::Ref::Secret(name.clone())).into_iter().flatten().cloned());
                self.secrets.insert(name, values);
            }
            Change::SecretGone { name } => {
                self.secrets.remove(&name);
                dirty.extend(self.referring.get(&build::Ref::Secret(name)).into_iter().flatten().cloned());
            }
            // It joins what is live when that is published.
            Change::Hosts(hosts) => self.hosts = hosts,
        }
    }

    /// Compiles resources anew and settles who has what among them and all that their claims touch. Gives every resource
    /// whose status may have changed.
    fn settle(&mut self, dirty: BTreeSet<ResourceId>) -> BTreeSet<ResourceId> {
        // Who is near before the change counts too: a claim given up goes to somebody.
        let mut near = self.neighbours(&dirty);
        for id in &dirty {
            self.unrefer(id);
            match self.resources.get(id) {
                Some(resource) => {
                    let candidate = build::candidate(resource, &self.secrets, &self.realm);
                    for (reference, _) in &candidate.references {
                        self.referring.entry(reference.clone()).or_default().insert(id.clone());
                    }
                    self.candidates.insert(id.clone(), candidate);
                }
                None => {
                    self.candidates.remove(id);
                    self.live.remove(id);
                }
            }
            self.file(id);
        }
        near.extend(self.neighbours(&dirty));

        let contenders: Vec<Contender<'_>> = near
            .iter()
            .filter_map(|id| {
                let candidate = self.candidates.get(id)?;
                let created = self.resources.get(id)?.created;
                let wants = candidate.entries.is_some().then_some(candidate.claims.as_ref());
                Some(Contender { id, created, wants, holds: self.live.get(id).map(|live| live.claims.as_ref()) })
            })
            .collect();
        let verdicts = contest::settle(&contenders);
        for (id, verdict) in verdicts {
            self.lost.remove(&id);
            match verdict {
                Verdict::Has => {
                    if let Some(candidate) = self.candidates.get(&id) {
                        let claims = candidate.claims.clone();
                        self.live.insert(id.clone(), Live { claims, entries: candidate.entries.clone() });
                    }
                }
                Verdict::Lost { claim, winner } => {
                    let path = self.resources.get(&id).map(|resource| build::path(resource, &claim));
                    self.lost.insert(id.clone(), Finding::conflict(&id, path.unwrap_or_default(), &claim, &winner));
                }
                Verdict::Invalid => {}
            }
            // A holder that was restored without entries and does not compile has nothing to hold.
            if self.live.get(&id).is_some_and(|live| live.entries.is_none()) {
                self.live.remove(&id);
            }
            self.file(&id);
        }
        for id in near.iter().filter(|id| !self.candidates.contains_key(id)) {
            self.lost.remove(id);
        }
        near
    }

    /// These resources and all that share a claim with them, directly or through others.
    fn neighbours(&self, of: &BTreeSet<ResourceId>) -> BTreeSet<ResourceId> {
        let mut near = of.clone();
        let mut waiting: Vec<ResourceId> = of.iter().cloned().collect();
        while let Some(id) = waiting.pop() {
            for claim in self.filed.get(&id).into_iter().flat_map(|claims| claims.iter()) {
                for other in self.interested.get(claim).into_iter().flat_map(Few::iter) {
                    if near.insert(other.clone()) {
                        waiting.push(other.clone());
                    }
                }
            }
        }
        near
    }

    /// Files a resource under the claims that it wants and holds now.
    fn file(&mut self, id: &ResourceId) {
        let held = self.live.get(id).map(|live| &live.claims);
        let claims = match (held, self.candidates.get(id).map(|candidate| &candidate.claims)) {
            (Some(held), Some(wanted)) if held == wanted => held.clone(),
            (Some(held), Some(wanted)) => Arc::new(held.union(wanted).cloned().collect()),
            (held, wanted) => held.or(wanted).cloned().unwrap_or_default(),
        };
        for gone in self.filed.remove(id).unwrap_or_default().difference(&claims) {
            if let Some(who) = self.interested.get_mut(gone) {
                who.remove(id);
                if who.is_empty() {
                    self.interested.remove(gone);
                }
            }
        }
        for claim in claims.iter() {
            self.interested.entry(claim.clone()).or_default().insert(id.clone());
        }
        if !claims.is_empty() {
            self.filed.insert(id.clone(), claims);
        }
    }

    fn unrefer(&mut self, id: &ResourceId) {
        for (reference, _) in self.candidates.get(id).map(|c| c.references.as_slice()).unwrap_or_default() {
            if let Some(who) = self.referring.get_mut(reference) {
                who.remove(id);
                if who.is_empty() {
                    self.referring.remove(reference);
                }
            }
        }
    }

    fn effective_realm(&self) -> String {
        let live = self.live.keys().find(|id| id.kind == Kind::Pbx);
        // A held Pbx keeps the realm that its entries say, not that of a spec that did not compile.
        let entry = live.and_then(|id| self.live.get(id)?.entries.as_ref()?.realm());
        entry.map_or_else(|| PbxSpec::default().realm, str::to_owned)
    }

    /// Brings the outlets to what is live, for the resources touched.
    fn publish(&mut self, touched: &BTreeSet<ResourceId>, restored: &BTreeSet<ResourceId>, delta: &mut Delta) {
        // Where balancers are reached may have changed without it.
        let pbx = self.live.keys().find(|id| id.kind == Kind::Pbx).cloned();
        for id in touched.iter().chain(restored).chain(&pbx) {
            let entries = self.live.get(id).and_then(|live| live.entries.as_ref());
            self.set(&id.to_string(), entries.cloned().map(|entries| entries.reached_at(&self.hosts)));
        }
        // Without a Pbx the defaults hold, and services need not know that there is none.
        let implicit = pbx.is_none();
        self.set(IMPLICIT, implicit.then(|| build::pbx_entries(&PbxSpec::default())));
        delta.balancer = self.balancer.delta();
        delta.registrar = self.registrar.delta();
        delta.router = self.router.delta();
        delta.media = self.media.delta();
        delta.conference = self.conference.delta();
    }

    fn set(&mut self, key: &str, entries: Option<Entries>) {
        let entries = entries.unwrap_or_default();
        self.balancer.set(key, entries.balancer);
        self.registrar.set(key, entries.registrar);
        self.router.set(key, entries.router);
        self.media.set(key, entries.media);
        self.conference.set(key, entries.conference);
    }

    /// Makes statuses for the resources touched and for those that refer to what they claim.
    fn report(&mut self, mut touched: BTreeSet<ResourceId>, delta: &mut Delta) {
        let mut referrers = BTreeSet::new();
        for id in &touched {
            // What it claimed until now is in its former status.
            let before = self.statuses.get(id).map(|status| status.claims.clone()).unwrap_or_default();
            let now = self.live.get(id).map(|live| live.claims.clone()).unwrap_or_default();
            for claim in before.symmetric_difference(&now) {
                if let Some(reference) = build::Ref::to(claim) {
                    referrers.extend(self.referring.get(&reference).into_iter().flatten().cloned());
                }
            }
        }
        touched.extend(referrers);
        for id in touched {
            let status = self.status_of(&id);
            if status.as_ref() != self.statuses.get(&id) {
                match &status {
                    Some(status) => self.statuses.insert(id.clone(), status.clone()),
                    None => self.statuses.remove(&id),
                };
                delta.statuses.insert(id, status);
            }
        }
    }

    fn status_of(&self, id: &ResourceId) -> Option<Status> {
        let (resource, candidate) = (self.resources.get(id)?, self.candidates.get(id)?);
        let mut findings = candidate.findings.clone();
        findings.extend(self.lost.get(id).cloned());
        let valid = candidate.entries.is_some() && !self.lost.contains_key(id);
        for (reference, path) in &candidate.references {
            if let Some(claim) = reference.claim()
                && !self.holder_exists(&claim)
            {
                findings.push(Finding::dangling(id, path.clone(), reference));
            }
        }
        let live = self.live.get(id);
        let state = match live {
            Some(_) if valid => State::Live,
            Some(_) => State::Held,
            None => State::Out,
        };
        let claims = live.map(|live| live.claims.clone()).unwrap_or_default();
        Some(Status { generation: resource.generation, state, findings, claims })
    }

    fn holder_exists(&self, claim: &Claim) -> bool {
        let mut who = self.interested.get(claim).into_iter().flat_map(Few::iter);
        who.any(|id| self.live.get(id).is_some_and(|live| live.claims.contains(claim)))
    }

    /// What must outlive this compiler for its successor to judge alike; see the module.
    pub fn held(&self) -> Held {
        let contested = |claims: &BTreeSet<Claim>| {
            claims.iter().any(|claim| self.interested.get(claim).is_some_and(|who| who.len() > 1))
        };
        let resources = self.live.iter().filter_map(|(id, live)| {
            let held = self.statuses.get(id).is_some_and(|status| status.state == State::Held);
            let entries = held.then(|| live.entries.clone()).flatten();
            (held || contested(&live.claims)).then(|| HeldResource {
                id: id.clone(),
                claims: live.claims.clone(),
                entries,
            })
        });
        Held { resources: resources.collect() }
    }

    /// The status of every resource.
    pub fn statuses(&self) -> &BTreeMap<ResourceId, Status> {
        &self.statuses
    }

    /// All entries for balancers.
    pub fn balancer(&self) -> &Snapshot<BalancerEntry> {
        self.balancer.snapshot()
    }

    /// All entries for registrars.
    pub fn registrar(&self) -> &Snapshot<RegistrarEntry> {
        self.registrar.snapshot()
    }

    /// All entries for routers.
    pub fn router(&self) -> &Snapshot<RouterEntry> {
        self.router.snapshot()
    }

    /// All entries for relays.
    pub fn media(&self) -> &Snapshot<MediaEntry> {
        self.media.snapshot()
    }

    /// All entries for conference services.
    pub fn conference(&self) -> &Snapshot<ConferenceEntry> {
        self.conference.snapshot()
    }
}

/// The key of the entries that stand for a `Pbx` where there is none. No resource can have it: a name is not empty.
const IMPLICIT: &str = "Pbx/";

#[cfg(test)]
mod tests;
