//! The store of one process: in memory, its bindings kept in a state folder if one is given.

use super::{AorHint, HINTS, PEERS, Pending, Store, first_expiry, may_write};
use crate::state;
use anyhow::Context;
use bytes::Bytes;
use contract::location::{Aor, Binding, Revision, StoreError};
use contract::peers::Peer;
use contract::records::{Key, Owner, Standing, Stored};
use contract::{ProcessId, Service};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinHandle;

/// The file of bindings in the state folder.
pub const FILE: &str = "bindings.json";

/// A change is on disk this long after it, at the earliest.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How much a memory store holds at most; more is refused as unavailable.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// AORs with bindings.
    pub aors: usize,
    /// Records of all kinds.
    pub records: usize,
    /// Nonces; when full, the one closest to its end is forgotten.
    pub nonces: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { aors: 1_000_000, records: 1_000_000, nonces: 262_144 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct UsedNonce {
    nc: u32,
    forget_at: u64,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    schema: u32,
    revision: Revision,
    aors: BTreeMap<String, Aor>,
    #[serde(default)]
    nonces: BTreeMap<String, UsedNonce>,
}

#[derive(Debug, Default)]
struct Tables {
    /// The last revision given out.
    revision: Revision,
    aors: BTreeMap<String, Aor>,
    /// (first expiry, AOR).
    expiry: BTreeSet<(u64, String)>,
    nonces: HashMap<String, UsedNonce>,
    /// (forget at, nonce).
    nonce_ends: BTreeSet<(u64, String)>,
    records: BTreeMap<(String, String), (Owner, Bytes)>,
    /// How many records were taken from a process.
    taken: HashMap<ProcessId, u64>,
    /// With the time that they are gone.
    peers: BTreeMap<(Service, ProcessId), (tokio::time::Instant, Peer)>,
}

#[derive(Debug)]
struct Shared {
    tables: Mutex<Tables>,
    limits: Limits,
    hints: broadcast::Sender<AorHint>,
    /// Where bindings are kept.
    path: Option<PathBuf>,
    changed: Notify,
    /// Serialises writers of the file.
    writing: Mutex<()>,
}

/// The memory store. Dropping the one that was opened on a folder writes what is not yet written.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    notice: Option<String>,
    writer: Option<JoinHandle<()>>,
}

impl MemoryStore {
    /// A store that keeps nothing over a restart.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// The same with other limits.
    pub fn with_limits(limits: Limits) -> Self {
        Self { shared: Arc::new(Shared::new(Tables::default(), limits, None)), notice: None, writer: None }
    }

    /// A store whose bindings (and used nonces) are kept in `dir/bindings.json`; call it on a tokio runtime, where a
    /// task writes changes soon after they are made. A file that cannot be understood is set aside: see
    /// [`MemoryStore::notice`]. Fails if the folder cannot be read or written.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        state::make_dir(dir).with_context(|| format!("state folder {}", dir.display()))?;
        let path = dir.join(FILE);
        let mut notice = None;
        let tables = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Tables::default(),
            Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
            Ok(text) => match Tables::from_json(&text) {
                Ok(tables) => tables,
                Err(why) => {
                    let aside = state::set_aside(&path)
                        .with_context(|| format!("{} is damaged ({why}) and cannot be set aside", path.display()))?;
                    let text = format!(
                        "{} is damaged ({why}); it was set aside as {}, and phones have to register again",
                        path.display(),
                        aside.display()
                    );
                    tracing::error!("{text}");
                    notice = Some(text);
                    Tables::default()
                }
            },
        };
        let shared = Arc::new(Shared::new(tables, Limits::default(), Some(path)));
        shared.write()?;
        let writer = tokio::spawn(keep_written(shared.clone()));
        Ok(Self { shared, notice, writer: Some(writer) })
    }

    /// What a person should know about opening the folder: that a damaged file was set aside, and where it is.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Writes all to the folder now, if there is one.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.shared.write()
    }

    /// How many AORs have bindings.
    pub fn len(&self) -> usize {
        self.shared.tables().aors.len()
    }

    /// True if no AOR has bindings.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abort();
            if let Err(error) = self.shared.write() {
                tracing::error!("bindings are not saved: {error:#}");
            }
        }
    }
}

/// Writes the file after changes, never busy with it for more than a tenth of the time.
async fn keep_written(shared: Arc<Shared>) {
    let mut pause = DEBOUNCE;
    loop {
        shared.changed.notified().await;
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        let on_disk = shared.clone();
        match tokio::task::spawn_blocking(move || on_disk.write()).await {
            Ok(Ok(())) => pause = DEBOUNCE.max(begun.elapsed() * 10),
            Ok(Err(error)) => {
                tracing::error!("bindings are not saved, trying again: {error:#}");
                pause = Duration::from_secs(5);
                shared.changed.notify_one();
            }
            Err(_) => return,
        }
    }
}

impl Shared {
    fn new(tables: Tables, limits: Limits, path: Option<PathBuf>) -> Self {
        Self {
            tables: Mutex::new(tables),
            limits,
            hints: broadcast::Sender::new(HINTS),
            path,
            changed: Notify::new(),
            writing: Mutex::new(()),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.tables().to_json()?;
        state::write_atomic(path, &text).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn swap(&self, aor: &str, revision: Revision, bindings: Vec<Binding>) -> Result<Revision, StoreError> {
        let mut tables = self.tables();
        let had = tables.aors.get(aor);
        if had.map_or(0, |a| a.revision) != revision {
            return Err(StoreError::Conflict);
        }
        let old = had.and_then(|a| first_expiry(&a.bindings));
        if had.is_none() && bindings.is_empty() {
            return Ok(0);
        }
        if had.is_none() && tables.aors.len() >= self.limits.aors {
            return Err(StoreError::Unavailable(format!("{} AORs are the limit", self.limits.aors)));
        }
        tables.revision += 1;
        let made = tables.revision;
        if let Some(at) = old {
            tables.expiry.remove(&(at, aor.to_owned()));
        }
        let answer = match first_expiry(&bindings) {
            Some(at) => {
                tables.expiry.insert((at, aor.to_owned()));
                tables.aors.insert(aor.to_owned(), Aor { revision: made, bindings });
                made
            }
            None => {
                tables.aors.remove(aor);
                0
            }
        };
        drop(tables);
        self.changed.notify_one();
        // Nobody may be following.
        let _ = self.hints.send(AorHint::Changed { aor: aor.to_owned(), revision: made });
        Ok(answer)
    }

    fn use_nonce(&self, nonce: &str, nc: u32, ttl_s: u64, now: u64) -> bool {
        let mut tables = self.tables();
        tables.forget_nonces(now);
        let forget_at = now.saturating_add(ttl_s);
        match tables.nonces.get(nonce).copied() {
            Some(used) if nc <= used.nc => return false,
            Some(used) => {
                tables.nonce_ends.remove(&(used.forget_at, nonce.to_owned()));
            }
            None => {
                while tables.nonces.len() >= self.limits.nonces.max(1) {
                    let Some((_, first)) = tables.nonce_ends.pop_first() else { break };
                    tables.nonces.remove(&first);
                }
            }
        }
        tables.nonces.insert(nonce.to_owned(), UsedNonce { nc, forget_at });
        tables.nonce_ends.insert((forget_at, nonce.to_owned()));
        true
    }

    fn save(&self, kind: &str, id: &str, owner: Owner, value: Bytes) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let key = (kind.to_owned(), id.to_owned());
        match tables.records.get(&key) {
            Some((standing, _)) if !may_write(owner, *standing) => return Err(StoreError::Conflict),
            None if tables.records.len() >= self.limits.records => {
                return Err(StoreError::Unavailable(format!("{} records are the limit", self.limits.records)));
            }
            _ => {}
        }
        tables.records.insert(key, (owner, value));
        Ok(())
    }

    fn remove(&self, kind: &str, id: &str, owner: Owner) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let key = (kind.to_owned(), id.to_owned());
        if tables.records.get(&key).is_some_and(|(standing, _)| !may_write(owner, *standing)) {
            return Err(StoreError::Conflict);
        }
        tables.records.remove(&key);
        Ok(())
    }

    fn records(&self, kind: &str) -> Vec<(String, Owner, Bytes)> {
        let tables = self.tables();
        let from = (kind.to_owned(), String::new());
        let of_kind = tables.records.range(from..).take_while(|((k, _), _)| k == kind);
        of_kind.map(|((_, id), (owner, value))| (id.clone(), *owner, value.clone())).collect()
    }

    fn owners(&self) -> Vec<ProcessId> {
        let owners: BTreeSet<_> = self.tables().records.values().map(|(owner, _)| owner.process).collect();
        owners.into_iter().collect()
    }

    fn owned(&self, process: ProcessId) -> Vec<Key> {
        let tables = self.tables();
        let of = tables.records.iter().filter(|(_, (owner, _))| owner.process == process);
        of.map(|((kind, id), (owner, _))| Key { kind: kind.clone(), id: id.clone(), owner: *owner }).collect()
    }

    fn take(&self, records: &[Key], to: ProcessId) -> Result<Vec<Stored>, StoreError> {
        let mut tables = self.tables();
        let name = |key: &Key| (key.kind.clone(), key.id.clone());
        let stands = |key: &Key| tables.records.get(&name(key)).is_some_and(|(owner, _)| *owner == key.owner);
        if !records.iter().all(stands) {
            return Err(StoreError::Conflict);
        }
        let mut taken = Vec::with_capacity(records.len());
        for key in records {
            if let Some((owner, value)) = tables.records.get_mut(&name(key)) {
                *owner = key.owner.taken_by(to);
                taken.push(Stored { key: Key { owner: *owner, ..key.clone() }, value: value.clone() });
            }
            *tables.taken.entry(key.owner.process).or_default() += 1;
        }
        Ok(taken)
    }

    fn standing(&self, process: ProcessId) -> Standing {
        // Memory is lost only with the process.
        Standing { incarnation: 1, taken: self.tables().taken.get(&process).copied().unwrap_or(0) }
    }

    fn announce(&self, peer: &Peer, ttl_ms: u64) -> Result<(), StoreError> {
        let mut tables = self.tables();
        tables.forget_peers();
        let key = (peer.service, peer.process);
        if tables.peers.len() >= PEERS && !tables.peers.contains_key(&key) {
            return Err(StoreError::Unavailable(format!("{PEERS} peers are the limit")));
        }
        let gone = tokio::time::Instant::now() + Duration::from_millis(ttl_ms);
        tables.peers.insert(key, (gone, peer.clone()));
        Ok(())
    }

    fn peers(&self) -> Vec<Peer> {
        let mut tables = self.tables();
        tables.forget_peers();
        tables.peers.values().map(|(_, peer)| peer.clone()).collect()
    }
}

impl Tables {
    fn forget_peers(&mut self) {
        let now = tokio::time::Instant::now();
        self.peers.retain(|_, (gone, _)| *gone > now);
    }

    fn forget_nonces(&mut self, now: u64) {
        while self.nonce_ends.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, nonce)) = self.nonce_ends.pop_first() {
                self.nonces.remove(&nonce);
            }
        }
    }

    fn from_json(text: &[u8]) -> anyhow::Result<Self> {
        let file: File = serde_json::from_slice(text)?;
        anyhow::ensure!(file.schema == 1, "schema {} is not known", file.schema);
        let highest = file.aors.values().map(|a| a.revision).max().unwrap_or(0);
        Ok(Self {
            revision: file.revision.max(highest),
            expiry: file.aors.iter().filter_map(|(n, a)| Some((first_expiry(&a.bindings)?, n.clone()))).collect(),
            aors: file.aors,
            nonce_ends: file.nonces.iter().map(|(n, u)| (u.forget_at, n.clone())).collect(),
            nonces: file.nonces.into_iter().collect(),
            ..Self::default()
        })
    }

    fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Out<'a> {
            schema: u32,
            revision: Revision,
            aors: &'a BTreeMap<String, Aor>,
            nonces: &'a HashMap<String, UsedNonce>,
        }
        let out = Out { schema: 1, revision: self.revision, aors: &self.aors, nonces: &self.nonces };
        Ok(serde_json::to_vec(&out)?)
    }
}

/// An answer that is already there.
fn now<'a, T: Send + 'a>(answer: Result<T, StoreError>) -> Pending<'a, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, aor: &'a str) -> Pending<'a, Aor> {
        now(Ok(self.shared.tables().aors.get(aor).cloned().unwrap_or_default()))
    }

    fn swap<'a>(
        &'a self,
        aor: &'a str,
        revision: Revision,
        bindings: Vec<Binding>,
        _now_unix: u64,
    ) -> Pending<'a, Revision> {
        now(self.shared.swap(aor, revision, bindings))
    }

    fn hints(&self) -> broadcast::Receiver<AorHint> {
        self.shared.hints.subscribe()
    }

    fn expired(&self, now_unix: u64, limit: usize) -> Pending<'_, Vec<String>> {
        let tables = self.shared.tables();
        let due = tables.expiry.iter().take_while(|(at, _)| *at <= now_unix).take(limit);
        now(Ok(due.map(|(_, aor)| aor.clone()).collect()))
    }

    fn use_nonce<'a>(&'a self, nonce: &'a str, nc: u32, ttl_s: u64, now_unix: u64) -> Pending<'a, bool> {
        now(Ok(self.shared.use_nonce(nonce, nc, ttl_s, now_unix)))
    }

    fn aors(&self) -> Pending<'_, Vec<(String, Aor)>> {
        now(Ok(self.shared.tables().aors.iter().map(|(name, aor)| (name.clone(), aor.clone())).collect()))
    }

    fn save<'a>(&'a self, kind: &'a str, id: &'a str, owner: Owner, value: Bytes) -> Pending<'a, ()> {
        now(self.shared.save(kind, id, owner, value))
    }

    fn remove<'a>(&'a self, kind: &'a str, id: &'a str, owner: Owner) -> Pending<'a, ()> {
        now(self.shared.remove(kind, id, owner))
    }

    fn record<'a>(&'a self, kind: &'a str, id: &'a str) -> Pending<'a, Option<(Owner, Bytes)>> {
        now(Ok(self.shared.tables().records.get(&(kind.to_owned(), id.to_owned())).cloned()))
    }

    fn records<'a>(&'a self, kind: &'a str) -> Pending<'a, Vec<(String, Owner, Bytes)>> {
        now(Ok(self.shared.records(kind)))
    }

    fn owners(&self) -> Pending<'_, Vec<ProcessId>> {
        now(Ok(self.shared.owners()))
    }

    fn owned(&self, process: ProcessId) -> Pending<'_, Vec<Key>> {
        now(Ok(self.shared.owned(process)))
    }

    fn take<'a>(&'a self, records: &'a [Key], to: ProcessId) -> Pending<'a, Vec<Stored>> {
        now(self.shared.take(records, to))
    }

    fn standing(&self, process: ProcessId) -> Pending<'_, Standing> {
        now(Ok(self.shared.standing(process)))
    }

    fn announce<'a>(&'a self, peer: &'a Peer, ttl_ms: u64) -> Pending<'a, ()> {
        now(self.shared.announce(peer, ttl_ms))
    }

    fn withdraw(&self, process: ProcessId) -> Pending<'_, ()> {
        self.shared.tables().peers.retain(|(_, p), _| *p != process);
        now(Ok(()))
    }

    fn peers(&self) -> Pending<'_, Vec<Peer>> {
        now(Ok(self.shared.peers()))
    }
}
