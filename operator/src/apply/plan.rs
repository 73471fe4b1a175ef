//! What to apply and delete next in one namespace. Pure.

use super::live::{Live, hash};
use crate::watch::ObjectKey;
use contract::Service;
use kube::api::DynamicObject;
use std::collections::BTreeMap;
use std::time::Duration;

/// The label that names the service.
const COMPONENT: &str = "app.kubernetes.io/component";

/// The order in which tiers are changed.
pub const TIERS: [Service; 5] =
    [Service::Registrar, Service::Conference, Service::Media, Service::Router, Service::Balancer];

/// How long a failure rests before it is tried again: at first, and at most.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Apply this object.
    Apply {
        /// What it is called.
        key: ObjectKey,
        /// It.
        object: Box<DynamicObject>,
        /// Its hash, to be given back.
        hash: u64,
    },
    /// Delete what is no longer built.
    Delete {
        /// What it is called.
        key: ObjectKey,
        /// Its uid.
        uid: String,
    },
}

impl Action {
    /// What it is done to.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Action::Apply { key, .. } | Action::Delete { key, .. } => key,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Done {
    /// It is applied, and is this now.
    Applied {
        /// The hash of what was applied.
        hash: u64,
        /// What is there.
        live: Live,
    },
    /// It is deleted, or was.
    Deleted,
    /// It was not done: why.
    Failed(String),
}

#[derive(Debug)]
struct Desired {
    object: Box<DynamicObject>,
    hash: u64,
    tier: Option<usize>,
}

/// What was applied of an object: its hash, and then that of our fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Applied {
    hash: u64,
    fields: Option<u64>,
}

#[derive(Debug)]
struct Failure {
    until: Duration,
    rest: Duration,
    why: String,
}

/// The objects of one namespace's Pbx.
#[derive(Debug, Default)]
pub struct Site {
    /// The uid of the Pbx, which owns what is ours.
    owner: String,
    desired: BTreeMap<ObjectKey, Desired>,
    live: BTreeMap<ObjectKey, Live>,
    applied: BTreeMap<ObjectKey, Applied>,
    failed: BTreeMap<ObjectKey, Failure>,
}

impl Site {
    /// What is built for the Pbx of this uid now. An object without kind or name is left out.
    pub fn desire(&mut self, owner: &str, objects: Vec<DynamicObject>) {
        if self.owner != owner {
            *self = Self { owner: owner.to_owned(), live: std::mem::take(&mut self.live), ..Self::default() };
        }
        let desired = objects.into_iter().filter_map(|object| {
            let key = ObjectKey { kind: object.types.as_ref()?.kind.clone(), name: object.metadata.name.clone()? };
            let workload = matches!(key.kind.as_str(), "Deployment" | "DaemonSet");
            let component = object.metadata.labels.as_ref().and_then(|labels| labels.get(COMPONENT)).cloned();
            let tier = TIERS.iter().position(|tier| workload && Some(tier.as_str()) == component.as_deref());
            let hash = hash(&object);
            Some((key, Desired { object: Box::new(object), hash, tier }))
        });
        self.desired = desired.collect();
        self.applied.retain(|key, _| self.desired.contains_key(key));
        // What failed may not fail as it is now.
        self.failed.retain(|key, failure| {
            failure.until = Duration::ZERO;
            self.desired.contains_key(key)
        });
    }

    /// An object is there, new or changed. What is older than what is known is left out: it was on its way when the
    /// answer to a write came.
    pub fn seen(&mut self, key: ObjectKey, live: Live) {
        let newer = self.live.get(&key).is_none_or(|old| old.uid != live.uid || old.version <= live.version);
        if newer {
            self.live.insert(key, live);
        }
    }

    /// An object is gone.
    pub fn gone(&mut self, key: &ObjectKey) {
        self.live.remove(key);
    }

    /// All that may be done now.
    pub fn next(&self, now: Duration) -> Vec<Action> {
        let rests = |key: &ObjectKey| self.failed.get(key).is_some_and(|failure| now < failure.until);
        let mut out = Vec::new();
        let mut gate = TIERS.len();
        for (key, desired) in &self.desired {
            if let Some(tier) = desired.tier.filter(|_| !self.is_settled(key)) {
                gate = gate.min(tier);
            }
        }
        for (key, desired) in &self.desired {
            // Only changes wait for their turn: a workload that is not there yet takes nothing from anybody, and drift is
            // no change of ours.
            let drifted = self.applied.get(key).is_some_and(|applied| applied.hash == desired.hash);
            let waits = desired.tier.is_some_and(|tier| tier > gate) && self.live.contains_key(key) && !drifted;
            if self.differs(key) && !waits && !rests(key) {
                let (key, object, hash) = (key.clone(), desired.object.clone(), desired.hash);
                out.push(Action::Apply { key, object, hash });
            }
        }
        let ours = |live: &Live| !self.owner.is_empty() && live.owner == self.owner && !live.leaving;
        let unwanted = self.live.iter().filter(|(key, live)| !self.desired.contains_key(key) && ours(live));
        let deletes = unwanted.filter(|(key, _)| !rests(key));
        out.extend(deletes.map(|(key, live)| Action::Delete { key: key.clone(), uid: live.uid.clone() }));
        out
    }

    /// What came of an action. Gives why it failed, if that is news.
    pub fn done(&mut self, key: ObjectKey, done: Done, now: Duration) -> Option<String> {
        match done {
            Done::Applied { hash, live } => {
                self.failed.remove(&key);
                self.applied.insert(key.clone(), Applied { hash, fields: live.fields });
                self.seen(key, live);
                None
            }
            Done::Deleted => {
                self.failed.remove(&key);
                if let Some(live) = self.live.get_mut(&key) {
                    live.leaving = true;
                }
                None
            }
            Done::Failed(why) => {
                let old = self.failed.remove(&key);
                let rest = old.as_ref().map_or(REST.0, |old| (old.rest * 2).min(REST.1));
                let news = old.is_none_or(|old| old.why != why);
                self.failed.insert(key, Failure { until: now + rest, rest, why: why.clone() });
                news.then_some(why)
            }
        }
    }

    /// When something that failed is to be tried again.
    pub fn deadline(&self) -> Option<Duration> {
        self.failed.values().map(|failure| failure.until).min()
    }

    /// What could not be done, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&ObjectKey, &str)> {
        self.failed.iter().map(|(key, failure)| (key, failure.why.as_str()))
    }

    /// Each tier that should be there, in the order of change, with what is known of its workload.
    pub fn tiers(&self) -> Vec<(Service, Option<&Live>)> {
        let mut tiers: Vec<_> =
            self.desired.iter().filter_map(|(key, d)| Some((d.tier?, self.live.get(key)))).collect();
        tiers.sort_by_key(|(tier, _)| *tier);
        tiers.into_iter().filter_map(|(tier, live)| Some((*TIERS.get(tier)?, live))).collect()
    }

    /// The address or name that a Service of ours was given by a load balancer.
    pub fn ingress(&self) -> Option<String> {
        self.desired.keys().find_map(|key| self.live.get(key)?.ingress.clone())
    }

    /// All addresses and names of Services that the Pbx of this uid owns.
    pub fn hosts(&self, owner: &str) -> impl Iterator<Item = &String> {
        self.live.values().filter(move |live| live.owner == owner).flat_map(|live| &live.hosts)
    }

    /// True once everything is applied that should be.
    pub fn is_applied(&self) -> bool {
        self.desired.keys().all(|key| !self.differs(key))
    }

    fn differs(&self, key: &ObjectKey) -> bool {
        let Some(desired) = self.desired.get(key) else { return false };
        let live = self.live.get(key);
        let there = live.is_some_and(|live| !live.leaving);
        let applied = Applied { hash: desired.hash, fields: live.and_then(|live| live.fields) };
        // One that is being deleted is made again once it is gone.
        live.is_none() || there && self.applied.get(key) != Some(&applied)
    }

    /// Applied, and all its pods are there.
    fn is_settled(&self, key: &ObjectKey) -> bool {
        let pods = self.live.get(key).and_then(|live| live.pods);
        !self.differs(key) && pods.is_none_or(|pods| pods.at_strength())
    }
}

#[cfg(test)]
mod tests;
