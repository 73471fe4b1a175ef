//! What a resource compiles to, and where the entries of all resources come together for one kind of service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::config::{
    BalancerEntry, ConferenceEntry, Delta, MediaEntry, PbxEntry, RegistrarEntry, RouterEntry, Snapshot, Version,
    entry_hash,
};
use serde::{Deserialize, Serialize};

/// What one resource compiles to. Clones share it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Entries {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) balancer: Option<Arc<BalancerEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registrar: Option<Arc<RegistrarEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) router: Option<Arc<RouterEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) media: Option<Arc<MediaEntry>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) conference: Option<Arc<ConferenceEntry>>,
}

impl Entries {
    /// The realm that a `Pbx`'s entries say.
    pub(super) fn realm(&self) -> Option<&str> {
        match self.registrar.as_deref() {
            Some(RegistrarEntry::Pbx(pbx)) => Some(&pbx.realm),
            _ => None,
        }
    }
}

impl Entries {
    /// With the hosts at which balancers are reached. Without domains every host is ours, and none is told.
    pub(super) fn reached_at(mut self, hosts: &BTreeSet<String>) -> Self {
        let told = |pbx: &PbxEntry| PbxEntry { hosts: hosts.iter().cloned().collect(), ..pbx.clone() };
        if let Some(RegistrarEntry::Pbx(pbx)) = self.registrar.as_deref()
            && !pbx.domains.is_empty()
        {
            self.registrar = Some(Arc::new(RegistrarEntry::Pbx(told(pbx))));
        }
        if let Some(BalancerEntry::Pbx(pbx)) = self.balancer.as_deref()
            && !pbx.domains.is_empty()
        {
            self.balancer = Some(Arc::new(BalancerEntry::Pbx(told(pbx))));
        }
        self
    }
}

/// The entries for one kind of service and what has changed since the last delta.
#[derive(Debug)]
pub(super) struct Outlet<E> {
    snapshot: Snapshot<E>,
    next: Delta<E>,
}

impl<E: Serialize + Clone + PartialEq> Outlet<E> {
    pub(super) fn new(epoch: u64) -> Self {
        let version = Version { epoch, n: 0, hash: 0 };
        let next = Delta { from: version, to: version, put: BTreeMap::new(), delete: Vec::new() };
        Self { snapshot: Snapshot { version, entries: BTreeMap::new() }, next }
    }

    pub(super) fn snapshot(&self) -> &Snapshot<E> {
        &self.snapshot
    }

    /// Says what stands under a key from now on; at most once a key between two deltas.
    pub(super) fn set(&mut self, key: &str, entry: Option<Arc<E>>) {
        let old = self.snapshot.entries.get(key);
        if old == entry.as_ref() {
            return;
        }
        let hash = &mut self.next.to.hash;
        if let Some(old) = old {
            *hash = hash.wrapping_sub(entry_hash(key, old.as_ref()));
        }
        match entry {
            Some(entry) => {
                *hash = hash.wrapping_add(entry_hash(key, entry.as_ref()));
                self.snapshot.entries.insert(key.to_owned(), entry.clone());
                self.next.put.insert(key.to_owned(), entry);
            }
            None => {
                self.snapshot.entries.remove(key);
                self.next.delete.push(key.to_owned());
            }
        }
    }

    /// What has changed since the last call, as the next version; `None` when nothing has.
    pub(super) fn delta(&mut self) -> Option<Delta<E>> {
        if self.next.put.is_empty() && self.next.delete.is_empty() {
            return None;
        }
        self.next.to.n += 1;
        let to = self.next.to;
        self.snapshot.version = to;
        Some(std::mem::replace(&mut self.next, Delta { from: to, to, put: BTreeMap::new(), delete: Vec::new() }))
    }
}
