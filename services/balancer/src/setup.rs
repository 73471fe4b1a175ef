//! The snapshot, made ready for use once a version.

use crate::dispatcher::set::Set;
use contract::config::{BalancerEntry, Snapshot, Version};
use dialplan::Pattern;
use ipnet::IpNet;

/// What holds until the next version.
#[derive(Debug, Default)]
pub struct Setup {
    /// The version that it was made from; `None` before the first snapshot.
    pub version: Option<Version>,
    /// Hosts that are ours, where balancers are reached among them; empty: any.
    pub domains: Vec<String>,
    /// Networks of trusted trunks.
    pub trunks: Vec<IpNet>,
    /// Dispatchers, by name.
    pub sets: Vec<Set>,
}

impl Setup {
    /// Reads a snapshot.
    pub fn new(snapshot: &Snapshot<BalancerEntry>) -> Self {
        let mut setup = Self { version: Some(snapshot.version), ..Self::default() };
        for entry in snapshot.entries.values() {
            match entry.as_ref() {
                BalancerEntry::Pbx(pbx) => setup.domains = [pbx.domains.as_slice(), &pbx.hosts].concat(),
                BalancerEntry::Trunk { networks, .. } => setup.trunks.extend(networks),
                BalancerEntry::Dispatcher(entry) => setup.sets.push(Set::new(entry)),
            }
        }
        setup
    }

    /// The set with this name.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|s| s.name == name)
    }

    /// The dispatcher that takes a number: the one with the best pattern, between equals the first by name.
    pub fn set_for(&self, number: &str) -> Option<&Set> {
        let found = self.sets.iter().filter_map(|s| s.matches(number).map(|p| (p, s)));
        let best = found.reduce(|best: (&Pattern, &Set), other| if other.0 < best.0 { other } else { best });
        best.map(|(_, set)| set)
    }
}
