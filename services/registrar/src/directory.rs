//! Who may register: the snapshot's entries, indexed by what a REGISTER names.

use contract::config::{AorEntry, Auth, PbxEntry, RegistrarEntry, Snapshot, Version};
use std::collections::HashMap;
use std::sync::Arc;

/// An endpoint that may have contacts.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Its name: the AOR's user.
    pub name: String,
    /// Authentication; without it nobody may register.
    pub auth: Option<Auth>,
    /// The AOR's rules.
    pub aor: AorEntry,
}

/// All endpoints of one version of the configuration.
#[derive(Debug, Default)]
pub struct Directory {
    /// Where it comes from.
    pub version: Version,
    /// The installation.
    pub pbx: PbxEntry,
    by_name: HashMap<String, Arc<Endpoint>>,
    by_user: HashMap<String, Arc<Endpoint>>,
}

impl Directory {
    /// Indexes a snapshot. Where two entries have one name or one username, the first by key holds it, as the
    /// compiler reports such a pair and publishes one of them.
    pub fn new(snapshot: &Snapshot<RegistrarEntry>) -> Self {
        let mut directory = Self { version: snapshot.version, ..Self::default() };
        for entry in snapshot.entries.values() {
            match entry.as_ref() {
                RegistrarEntry::Pbx(pbx) => directory.pbx = pbx.clone(),
                RegistrarEntry::Endpoint { name, auth, aor } => {
                    let endpoint = Arc::new(Endpoint { name: name.clone(), auth: auth.clone(), aor: aor.clone() });
                    if let Some(auth) = auth {
                        directory.by_user.entry(auth.username.clone()).or_insert_with(|| endpoint.clone());
                    }
                    directory.by_name.entry(name.clone()).or_insert(endpoint);
                }
            }
        }
        directory
    }

    /// True before any configuration came: nobody can be judged then.
    pub fn is_unset(&self) -> bool {
        self.version == Version::default() && self.by_name.is_empty()
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.by_name.get(name)
    }

    /// The endpoint that this digest username belongs to.
    pub fn user(&self, username: &str) -> Option<&Arc<Endpoint>> {
        self.by_user.get(username)
    }

    /// True if a To of this host (without port) can be ours; `own` are addresses and names that were not published.
    pub fn is_ours<'h>(&self, host: &str, mut own: impl Iterator<Item = &'h str>) -> bool {
        self.pbx.domains.is_empty()
            || self.pbx.domains.iter().chain(&self.pbx.hosts).any(|d| d.eq_ignore_ascii_case(host))
            || own.any(|o| o.eq_ignore_ascii_case(host))
    }
}
