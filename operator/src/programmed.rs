//! When an object is live: a latch. False until every process that counts has acknowledged what its generation compiled to,
//! then true until that changes. Pure.
//!
//! A process counts once it has been ready, until its pod is known to be going or gone; one that is frozen counts on, so
//! that a change that it did not take is not called live. Pods that come and go flip nothing: a new one is ready only after
//! it has acknowledged the current version.

mod pods;

use api::{Delta, Kind, ResourceId};
use contract::Service;
use contract::config::entry_hash;
pub use pods::pod;
use runtime::stream::registry::Acks;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// A change that is taken within this is not called outstanding meanwhile: nobody wants to read of it.
pub const QUIET: Duration = Duration::from_secs(1);

/// Pods that a message names; of more it says how many.
const NAMED: usize = 3;

const SERVICES: [Service; 5] =
    [Service::Balancer, Service::Registrar, Service::Router, Service::Media, Service::Conference];

/// Why an object is not live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A service that should have it has no process that counts.
    NoPods,
    /// Processes that count have not acknowledged it.
    NotAcknowledged,
    /// A process that counts could not take it.
    Refused,
}

impl Reason {
    /// The reason as conditions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NoPods => "NoPods",
            Reason::NotAcknowledged => "NotAcknowledged",
            Reason::Refused => "Refused",
        }
    }
}

/// Whether an object is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Programmed {
    /// Every process that counts has it.
    True,
    /// Some have not.
    False {
        /// Why, in one word.
        reason: Reason,
        /// Why, for people: names pods.
        message: String,
    },
}

/// A pod of a service, as Kubernetes tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its service.
    pub service: Service,
    /// Whether its container has been ready since it was started, whatever it is now.
    pub ready: bool,
    /// Whether it is ready no longer: its probe fails, or its node is silent.
    pub failing: bool,
    /// Whether it is being deleted, or has ended.
    pub leaving: bool,
}

/// What the latch judges by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The pods of the namespace's PBX.
    pub pods: &'a [Pod],
    /// What their processes have acknowledged.
    pub acks: &'a Acks,
    /// Services that are to have no pods: what only they would have is not waited for.
    pub off: &'a BTreeSet<Service>,
}

#[derive(Debug, Default)]
struct Object {
    /// For each service the n of the version that brought what the object compiles to now; 0: nothing of it is there.
    needed: [u64; SERVICES.len()],
    /// For each service the hash of the entry; 0: none.
    hashes: [u64; SERVICES.len()],
    /// Whether it was live under the leader before, and by which hash if that is known.
    restored: Option<Option<u64>>,
    live: bool,
    /// When what it compiles to last changed.
    changed: Duration,
    /// What was told of what it compiles to now.
    told: Option<Programmed>,
}

impl Object {
    fn hash(&self) -> u64 {
        let turned = self.hashes.iter().zip(0u32..).map(|(hash, n)| hash.rotate_left(n * 7));
        turned.fold(0, u64::wrapping_add)
    }
}

/// What is known of one service's processes, gathered once for all objects.
#[derive(Debug, Default)]
struct Tier {
    /// Those that count.
    pods: Vec<Counted>,
    off: bool,
}

#[derive(Debug)]
struct Counted {
    pod: String,
    /// What it has acknowledged in this epoch.
    n: u64,
    /// What kept it from more.
    error: Option<String>,
    /// What may be why, where it says nothing itself.
    why: Option<&'static str>,
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pod)?;
        self.why.map_or(Ok(()), |why| write!(f, " ({why})"))
    }
}

/// The latch of one namespace's objects under one leader.
#[derive(Debug)]
pub struct Latch {
    epoch: u64,
    objects: BTreeMap<ResourceId, Object>,
    /// Objects of which something may have to be told: those that are not live, and those that were restored.
    open: BTreeSet<ResourceId>,
}

impl Latch {
    /// A latch over a compiler of this epoch.
    pub fn new(epoch: u64) -> Self {
        Self { epoch, objects: BTreeMap::new(), open: BTreeSet::new() }
    }

    /// Before the first change: this object was live under the leader before, as its status says. It stays so if it compiles
    /// to what it did then: `hash` is what [`Latch::hash`] said; `None` takes that on trust.
    pub fn restore(&mut self, id: ResourceId, hash: Option<u64>) {
        self.objects.entry(id).or_default().restored = Some(hash);
    }

    /// What the compiler made of changes, and is published now.
    pub fn changed(&mut self, delta: &Delta, now: Duration) {
        let mut touched = BTreeSet::new();
        self.take(0, &delta.balancer, &mut touched);
        self.take(1, &delta.registrar, &mut touched);
        self.take(2, &delta.router, &mut touched);
        self.take(3, &delta.media, &mut touched);
        self.take(4, &delta.conference, &mut touched);
        for id in touched {
            let Some(object) = self.objects.get_mut(&id) else { continue };
            let hash = object.hash();
            object.live = object.restored.take().is_some_and(|was| was.is_none_or(|was| was == hash));
            (object.changed, object.told) = (now, None);
            self.open.insert(id);
        }
        for (id, _) in delta.statuses.iter().filter(|(_, status)| status.is_none()) {
            self.objects.remove(id);
            self.open.remove(id);
        }
    }

    fn take<E: Serialize>(
        &mut self,
        service: usize,
        delta: &Option<contract::config::Delta<E>>,
        touched: &mut BTreeSet<ResourceId>,
    ) {
        let Some(delta) = delta else { return };
        let put = delta.put.iter().map(|(key, entry)| (key, entry_hash(key, entry.as_ref())));
        for (key, hash) in put.chain(delta.delete.iter().map(|key| (key, 0))) {
            let Some(id) = resource(key) else { continue };
            let object = self.objects.entry(id.clone()).or_default();
            (object.needed[service], object.hashes[service]) = (delta.to.n, hash);
            touched.insert(id);
        }
    }

    /// Judges by these facts and gives what is to be told anew. An object that compiles to nothing is not judged.
    pub fn settle(&mut self, facts: Facts<'_>, now: Duration) -> BTreeMap<ResourceId, Programmed> {
        let tiers = SERVICES.map(|service| tier(service, self.epoch, facts));
        let (mut news, mut live) = (BTreeMap::new(), Vec::new());
        for id in &self.open {
            let Some(object) = self.objects.get_mut(id) else { continue };
            let verdict = if object.live { Programmed::True } else { judge(object, &tiers) };
            if verdict == Programmed::True {
                object.live = true;
                live.push(id.clone());
            }
            let waiting = matches!(&verdict, Programmed::False { reason: Reason::NotAcknowledged, .. });
            let quiet = waiting && object.told.is_none() && now < object.changed + QUIET;
            if quiet || object.told.as_ref() == Some(&verdict) {
                continue;
            }
            object.told = Some(verdict.clone());
            news.insert(id.clone(), verdict);
        }
        for id in live {
            self.open.remove(&id);
        }
        news
    }

    /// What was told of what an object compiles to now; `None` while that is not judged: then its condition stays as it is,
    /// with the generation that it is about.
    pub fn get(&self, id: &ResourceId) -> Option<&Programmed> {
        self.objects.get(id)?.told.as_ref()
    }

    /// When what an object compiles to last changed: how long it took to be live is counted from there.
    pub fn since(&self, id: &ResourceId) -> Option<Duration> {
        self.objects.get(id).map(|object| object.changed)
    }

    /// What an object compiles to, to be remembered for [`Latch::restore`].
    pub fn hash(&self, id: &ResourceId) -> Option<u64> {
        self.objects.get(id).map(Object::hash)
    }

    /// When [`Latch::settle`] may give something new though no fact has changed.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let quiet = self.open.iter().filter_map(|id| self.objects.get(id)).filter(|object| object.told.is_none());
        quiet.map(|object| object.changed + QUIET).filter(|end| *end > now).min()
    }
}

/// The resource that an entry's key names; none for what stands where there is no resource.
fn resource(key: &str) -> Option<ResourceId> {
    let (kind, name) = key.split_once('/').filter(|(_, name)| !name.is_empty())?;
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind)?;
    Some(ResourceId { kind, name: name.to_owned() })
}

fn tier(service: Service, epoch: u64, facts: Facts<'_>) -> Tier {
    let followers = facts.acks.get(&service);
    let counted = facts.pods.iter().filter(|pod| pod.service == service && pod.ready && !pod.leaving);
    let pods = counted.map(|pod| {
        let mine = followers.into_iter().flat_map(|f| f.values()).filter(|f| f.pod == pod.name);
        // Of several processes of a pod the one that came last; another epoch's n says nothing.
        let last = mine.max_by_key(|f| (f.connected, f.since.mono));
        let why = match last {
            _ if pod.failing => Some("not ready any longer"),
            None => Some("follows no stream"),
            Some(f) => (!f.connected).then_some("has lost its stream"),
        };
        let n = last.filter(|f| f.version.epoch == epoch).map_or(0, |f| f.version.n);
        Counted { pod: pod.name.clone(), n, error: last.and_then(|f| f.error.clone()), why }
    });
    Tier { pods: pods.collect(), off: facts.off.contains(&service) }
}

fn judge(object: &Object, tiers: &[Tier; SERVICES.len()]) -> Programmed {
    let concerned = || object.needed.iter().zip(tiers).zip(SERVICES).filter(|((needed, _), _)| **needed > 0);
    let behind = || {
        let pods = concerned().flat_map(|((needed, tier), _)| tier.pods.iter().map(move |pod| (*needed, pod)));
        pods.filter(|(needed, counted)| counted.n < *needed).map(|(_, counted)| counted)
    };
    let refused = behind().find_map(|counted| Some((&counted.pod, counted.error.as_ref()?)));
    if let Some((pod, error)) = refused {
        return not(Reason::Refused, format!("pod {pod}: {error}"));
    }
    let empty: Vec<&str> = concerned()
        .filter(|((_, tier), _)| tier.pods.is_empty() && !tier.off)
        .map(|(_, service)| service.as_str())
        .collect();
    if !empty.is_empty() {
        return not(Reason::NoPods, format!("no pod is ready: {}", empty.join(", ")));
    }
    if concerned().all(|((_, tier), _)| tier.pods.is_empty()) {
        return not(Reason::NoPods, "no service that should have it has pods".into());
    }
    let count = behind().count();
    if count == 0 {
        return Programmed::True;
    }
    let named: Vec<String> = behind().take(NAMED).map(Counted::to_string).collect();
    let mut message = format!("not acknowledged by {}", named.join(", "));
    if count > NAMED {
        message.push_str(&format!(" and {} more", count - NAMED));
    }
    not(Reason::NotAcknowledged, message)
}

fn not(reason: Reason, message: String) -> Programmed {
    Programmed::False { reason, message }
}

#[cfg(test)]
mod tests;
