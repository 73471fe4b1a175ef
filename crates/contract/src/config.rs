//! Configuration as it reaches a process: entries, snapshots, deltas and versions (ARCHITECTURE.md, "How configuration flows").
//!
//! An entry is what one resource compiles to for one kind of service. Services know nothing of Kubernetes: an entry
//! holds plain values, HA1s instead of passwords.

use crate::process::Service;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What one resource compiles to for one kind of service.
pub trait Entry: Serialize + DeserializeOwned + Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The service that reads it.
    const SERVICE: Service;
}

impl Entry for BalancerEntry {
    const SERVICE: Service = Service::Balancer;
}

impl Entry for RegistrarEntry {
    const SERVICE: Service = Service::Registrar;
}

impl Entry for RouterEntry {
    const SERVICE: Service = Service::Router;
}

impl Entry for MediaEntry {
    const SERVICE: Service = Service::Media;
}

impl Entry for ConferenceEntry {
    const SERVICE: Service = Service::Conference;
}

/// (epoch, n, hash): which configuration a process has. A process never goes back an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Version {
    /// Raised when the source of configuration changes hands.
    pub epoch: u64,
    /// Raised by each delta.
    pub n: u64,
    /// Order-free hash of all entries.
    pub hash: u64,
}

/// All entries of a version for one kind of service, by `<kind>/<name>` of the resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot<E> {
    /// Its version.
    pub version: Version,
    /// The entries.
    pub entries: BTreeMap<String, Arc<E>>,
}

impl<E> Default for Snapshot<E> {
    fn default() -> Self {
        Self { version: Version::default(), entries: BTreeMap::new() }
    }
}

/// From one version to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delta<E> {
    /// The version that it applies to.
    pub from: Version,
    /// The version that it makes.
    pub to: Version,
    /// Entries that are new or changed.
    pub put: BTreeMap<String, Arc<E>>,
    /// Keys that are gone.
    pub delete: Vec<String>,
}

/// Why a delta was not applied: the whole snapshot must be sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It does not follow on the version at hand.
    #[error("delta from another version")]
    Gap,
    /// The entries that it makes have another hash.
    #[error("entries do not have the hash that the version says")]
    Hash,
}

impl<E: Serialize + Clone> Snapshot<E> {
    /// Applies a delta in place; on error nothing has changed.
    pub fn apply(&mut self, delta: &Delta<E>) -> Result<(), DeltaError> {
        if !self.precedes(delta) {
            return Err(DeltaError::Gap);
        }
        let mut hash = self.version.hash;
        for key in delta.delete.iter().chain(delta.put.keys()) {
            if let Some(old) = self.entries.get(key) {
                hash = hash.wrapping_sub(entry_hash(key, old.as_ref()));
            }
        }
        for (key, entry) in &delta.put {
            hash = hash.wrapping_add(entry_hash(key, entry.as_ref()));
        }
        if hash != delta.to.hash {
            return Err(DeltaError::Hash);
        }
        self.follow(delta)
    }
}

impl<E> Snapshot<E> {
    /// Applies a delta whose hash has been checked before: by who published it, or over the text that was received, which
    /// may hold more than this release reads. On error nothing has changed.
    pub fn follow(&mut self, delta: &Delta<E>) -> Result<(), DeltaError> {
        if !self.precedes(delta) {
            return Err(DeltaError::Gap);
        }
        for key in &delta.delete {
            self.entries.remove(key);
        }
        self.entries.extend(delta.put.iter().map(|(k, e)| (k.clone(), e.clone())));
        self.version = delta.to;
        Ok(())
    }

    fn precedes(&self, delta: &Delta<E>) -> bool {
        delta.from == self.version && delta.to.epoch >= self.version.epoch
    }
}

/// The hash of one entry; a version's hash is the wrapping sum of them, so it does not depend on order.
pub fn entry_hash<E: Serialize>(key: &str, entry: &E) -> u64 {
    text_hash(key, &serde_json::to_vec(entry).unwrap_or_default())
}

/// The hash of an entry by the JSON that its publisher wrote. A reader one release older checks this one: what it would
/// write itself lacks the fields that it does not know.
pub fn text_hash(key: &str, json: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    hash.update(json);
    let digest = hash.finalize();
    let mut head = [0u8; 8];
    head.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(head)
}

/// The hashes of one user's password: what leaves the compiler instead of it (RFC 7616 3.4.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ha1 {
    /// MD5(user:realm:password), lower-case hexadecimal.
    pub md5: String,
    /// SHA-256(user:realm:password), lower-case hexadecimal.
    pub sha256: String,
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(redacted)")
    }
}

/// Inbound authentication of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// The digest username.
    pub username: String,
    /// Hashes of the password, for the installation's realm.
    pub ha1: Ha1,
}

/// What holds for the whole installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PbxEntry {
    /// Hosts that are ours in AORs; empty: any.
    pub domains: Vec<String>,
    /// The digest realm.
    pub realm: String,
    /// Hosts that are ours beside the domains: where the balancers are reached. For registrars and balancers, and where there
    /// are domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

impl Default for PbxEntry {
    fn default() -> Self {
        Self { domains: Vec::new(), realm: "kubepbx".into(), hosts: Vec::new() }
    }
}

/// Bounds of a registrar for one AOR (Asterisk: aor section). Seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AorEntry {
    /// At most so many bindings; more are refused, or replace the oldest with `remove_existing`.
    pub max_contacts: u32,
    /// New contacts replace the oldest when full.
    pub remove_existing: bool,
    /// Shorter expiries are refused with 423.
    pub minimum_expiration: u32,
    /// Longer ones are cut to this.
    pub maximum_expiration: u32,
    /// Used when the phone asks for none.
    pub default_expiration: u32,
}

/// Entries of registrars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RegistrarEntry {
    /// The installation.
    Pbx(PbxEntry),
    /// An endpoint that may register.
    Endpoint {
        /// Its name: the AOR's user.
        name: String,
        /// Authentication; without it nobody may register.
        auth: Option<Auth>,
        /// The AOR's rules.
        aor: AorEntry,
    },
}

/// How a call's endpoint is found, in the order tried (Asterisk: identify_by).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentifyBy {
    /// The user part of From.
    Username,
    /// The digest username.
    AuthUsername,
    /// The source network.
    Ip,
}

/// A password or key that has to go out as it is, to the one service that uses it. Redacted in `Debug`, zeroed when
/// dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its bytes, to use them.
    pub fn reveal(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Who is told that a phone is to be woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookEntry {
    /// `http:` or `https:`.
    pub url: String,
    /// What requests are signed by (HMAC-SHA-256).
    pub secret: Secret,
}

/// How callers reach an endpoint whose phone may be asleep: they are held until it is awake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackEntry {
    /// Seconds that a caller is held at most.
    pub hold_time: u32,
    /// The phone is woken even if a contact of it is live.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Who wakes it.
    pub webhook: WebhookEntry,
}

/// An endpoint as routers know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointEntry {
    /// Its name.
    pub name: String,
    /// The context its calls run in.
    pub context: String,
    /// Authentication of its calls; none: only `Ip` identifies it, and it is not challenged.
    pub auth: Option<Auth>,
    /// Codecs in order of preference, by Asterisk's names (`ulaw`, `alaw`, `g722`, `opus`).
    pub codecs: Vec<String>,
    /// `"Name" <number>`: what its From is to say.
    pub caller_id: Option<String>,
    /// How it is identified.
    pub identify_by: Vec<IdentifyBy>,
    /// Networks it may call from (Asterisk: identify match).
    pub networks: Vec<IpNet>,
    /// Callers are held while its phone is asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<CallbackEntry>,
}

/// Entries of routers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouterEntry {
    /// The installation.
    Pbx(PbxEntry),
    /// An endpoint.
    Endpoint(EndpointEntry),
    /// A context, by its name.
    Context(dialplan::Plan),
}

/// How a dispatcher picks among live destinations (Kamailio's number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Algorithm {
    /// By relative weight (9).
    Weight,
    /// In turn (4).
    RoundRobin,
    /// By hash of the Call-ID (0).
    HashCallId,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// A SIP URI with a numeric host.
    pub uri: String,
    /// Relative weight.
    pub weight: u32,
}

/// How destinations are probed. Milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Between two OPTIONS.
    pub interval_ms: u64,
    /// Without an answer for so long, one failed.
    pub timeout_ms: u64,
    /// So many failures in a row: down.
    pub failure_threshold: u32,
    /// So many successes in a row: up again.
    pub success_threshold: u32,
}

/// A set of destinations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatcherEntry {
    /// Its name.
    pub name: String,
    /// How it picks.
    pub algorithm: Algorithm,
    /// Its destinations.
    pub destinations: Vec<Destination>,
    /// How they are probed.
    pub probe: Probe,
    /// Status and reason when none is left.
    pub unavailable: (u16, String),
    /// Asterisk patterns of dialled numbers that it takes; empty: nothing refers to it and it is not probed.
    pub extensions: Vec<String>,
}

/// Entries of balancers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BalancerEntry {
    /// The installation.
    Pbx(PbxEntry),
    /// Networks of a trusted trunk: what they assert is left in place.
    Trunk {
        /// The endpoint's name.
        name: String,
        /// Its networks.
        networks: Vec<IpNet>,
    },
    /// A set of destinations.
    Dispatcher(DispatcherEntry),
}

/// Entries of relays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MediaEntry {
    /// The installation's media settings. Seconds.
    Pbx {
        /// A call ends when neither leg sent for so long and neither is on hold.
        timeout: u32,
        /// The same for held and lone legs.
        held_timeout: u32,
    },
}

/// Entries of conference services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConferenceEntry {
    /// The installation.
    Pbx(PbxEntry),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u32) -> Arc<BalancerEntry> {
        Arc::new(BalancerEntry::Trunk { name: n.to_string(), networks: vec![] })
    }

    fn version(n: u64, entries: &BTreeMap<String, Arc<BalancerEntry>>) -> Version {
        let hash = entries.iter().fold(0u64, |h, (k, e)| h.wrapping_add(entry_hash(k, e.as_ref())));
        Version { epoch: 1, n, hash }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("s3cret");
        assert_eq!((format!("{secret:?}").as_str(), secret.reveal()), ("Secret(redacted)", &b"s3cret"[..]));
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"s3cret\"");
    }

    #[test]
    fn deltas_follow_on_one_another_or_are_refused_whole() {
        let mut snapshot =
            Snapshot::<BalancerEntry> { version: Version { epoch: 1, n: 0, hash: 0 }, ..Default::default() };
        let mut want = BTreeMap::from([("t/1".to_owned(), entry(1)), ("t/2".to_owned(), entry(2))]);
        let first = Delta { from: snapshot.version, to: version(1, &want), put: want.clone(), delete: vec![] };
        snapshot.apply(&first).unwrap();
        assert_eq!(snapshot.apply(&first), Err(DeltaError::Gap));
        want.remove("t/1");
        want.insert("t/2".into(), entry(9));
        let put = BTreeMap::from([("t/2".to_owned(), entry(9))]);
        let second = Delta { from: snapshot.version, to: version(2, &want), put, delete: vec!["t/1".into()] };
        let before = snapshot.clone();
        let mut wrong = second.clone();
        wrong.put.insert("t/3".into(), entry(3));
        assert_eq!(snapshot.apply(&wrong), Err(DeltaError::Hash));
        assert_eq!(snapshot, before);
        snapshot.apply(&second).unwrap();
        assert_eq!(snapshot.entries, want);
    }
}
