//! The store of a cluster: Redis, written to by small scripts that compare before they write.
//!
//! All keys begin with a prefix in braces, so that they stay on one node of a Redis cluster:
//! `aor:<aor>` hash of revision and bindings; `expiry` AORs sorted by first expiry; `revision` the last one given out;
//! `nonce:<nonce>` its highest count; records as [`records`] says;
//! `peer:<service>:<process>` a process's record, `peers` their names sorted by when they are gone; channel `changed`.

mod link;
mod peers;
mod records;

use super::{AorHint, HINTS, Pending, Store, first_expiry};
use bytes::Bytes;
use contract::ProcessId;
use contract::location::{Aor, Binding, Revision, StoreError};
use contract::peers::Peer;
use contract::records::{Key, Owner, Standing, Stored};
use futures::StreamExt;
use link::Link;
use redis::Script;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

/// After the channel of hints was lost: how long until it is tried again.
const RESUBSCRIBE: Duration = Duration::from_millis(250);

/// The channel of hints is asked for a sign of life this often, so that a dead connection is found.
const HINT_PING: Duration = Duration::from_secs(5);

/// AORs or records read at once in a listing.
const PAGE: usize = 500;

/// Compares the revision, writes bindings, index and revision, tells the followers. The revision also follows the
/// server's clock, so that it rises over a store that lost its contents. Answers nothing on conflict.
const SWAP: &str = r"
local had = redis.call('HGET', KEYS[1], 'revision') or '0'
if had ~= ARGV[1] then return false end
if had == '0' and ARGV[2] == '' then return '0' end
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local made = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[2], made)
redis.call('PUBLISH', ARGV[5], made .. ' ' .. ARGV[4])
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[3], ARGV[4])
  return '0'
end
redis.call('HSET', KEYS[1], 'revision', made, 'bindings', ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[4])
return made
";

const USE_NONCE: &str = r"
local had = redis.call('GET', KEYS[1])
if had and tonumber(had) >= tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
";

/// A store in Redis. Every round trip ends within 0.8 s; listings make one a page.
#[derive(Debug)]
pub struct RedisStore {
    link: Arc<Link>,
    prefix: String,
    hints: broadcast::Sender<AorHint>,
    follower: JoinHandle<()>,
    swap: Script,
    use_nonce: Script,
    write: Script,
    take: Script,
    standing: Script,
    announce: Script,
    peers: Script,
}

impl RedisStore {
    /// A store at `url` (`redis://[:password@]host:port/db`) whose keys begin with `{name}:`. Connects when first used
    /// and again whenever it has to, so a Redis that is not there yet is no error; a malformed address is. Call it on
    /// a tokio runtime: a task follows the hints until the store is dropped.
    pub fn new(url: &str, name: &str) -> Result<Self, StoreError> {
        let link = Arc::new(Link::new(url)?);
        let prefix = format!("{{{name}}}:");
        let hints = broadcast::Sender::new(HINTS);
        let follower = tokio::spawn(follow(link.clone(), format!("{prefix}changed"), hints.clone()));
        Ok(Self {
            link,
            prefix,
            hints,
            follower,
            swap: Script::new(SWAP),
            use_nonce: Script::new(USE_NONCE),
            write: Script::new(records::WRITE),
            take: Script::new(records::TAKE),
            standing: Script::new(records::STANDING),
            announce: Script::new(peers::ANNOUNCE),
            peers: Script::new(peers::PEERS),
        })
    }

    fn key(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    fn aor_key(&self, aor: &str) -> String {
        format!("{}aor:{aor}", self.prefix)
    }

    async fn load_aor(&self, aor: &str) -> Result<Aor, StoreError> {
        let mut get = redis::cmd("HMGET");
        get.arg(self.aor_key(aor)).arg("revision").arg("bindings");
        let (revision, bindings) = self.link.query(&get).await?;
        read_aor(aor, revision, bindings)
    }

    async fn swap_aor(&self, aor: &str, revision: Revision, bindings: &[Binding]) -> Result<Revision, StoreError> {
        let expiry = first_expiry(bindings);
        let json = match expiry {
            Some(_) => serde_json::to_string(bindings).map_err(|e| wrong(&format!("bindings of {aor}"), e))?,
            None => String::new(),
        };
        let mut call = self.swap.prepare_invoke();
        call.key(self.aor_key(aor)).key(self.key("revision")).key(self.key("expiry"));
        call.arg(revision.to_string()).arg(json).arg(expiry.unwrap_or(0)).arg(aor).arg(self.key("changed"));
        let made: Option<String> = self.link.invoke(&call).await?;
        let made = made.ok_or(StoreError::Conflict)?;
        made.parse().map_err(|e| wrong("the new revision", e))
    }

    /// One page after another of what `ZRANGE` gives, then their bindings in one round trip each.
    async fn all_aors(&self) -> Result<Vec<(String, Aor)>, StoreError> {
        let mut all = BTreeMap::new();
        let mut cursor = 0u64;
        loop {
            let mut scan = redis::cmd("ZSCAN");
            scan.arg(self.key("expiry")).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, names): (u64, Vec<(String, f64)>) = self.link.query(&scan).await?;
            let mut pipe = redis::pipe();
            for (name, _) in &names {
                pipe.cmd("HMGET").arg(self.aor_key(name)).arg("revision").arg("bindings");
            }
            if !names.is_empty() {
                let found: Vec<(Option<String>, Option<String>)> = self.link.pipeline(&pipe).await?;
                for ((name, _), (revision, bindings)) in names.into_iter().zip(found) {
                    let aor = read_aor(&name, revision, bindings)?;
                    // It may have been removed since it was listed.
                    if aor.revision != 0 {
                        all.insert(name, aor);
                    }
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(all.into_iter().collect());
            }
        }
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Passes hints on for good; after every new subscription says that some may have been missed.
async fn follow(link: Arc<Link>, channel: String, hints: broadcast::Sender<AorHint>) {
    let mut first = true;
    loop {
        match link.subscribe(&channel).await {
            Ok(pubsub) => {
                // Also the first time: a write may have gone before it. Nobody following is fine, here and below.
                if !std::mem::replace(&mut first, false) {
                    tracing::info!("store: following changes again");
                }
                let _ = hints.send(AorHint::Missed);
                let (mut sink, mut messages) = pubsub.split();
                loop {
                    let message = match tokio::time::timeout(HINT_PING, messages.next()).await {
                        Ok(Some(message)) => message,
                        Ok(None) => break,
                        // Quiet, or dead?
                        Err(_) => match tokio::time::timeout(link::LIMIT, sink.ping::<redis::Value>()).await {
                            Ok(Ok(_)) => continue,
                            _ => break,
                        },
                    };
                    if let Some(hint) = read_hint(message.get_payload_bytes()) {
                        let _ = hints.send(hint);
                    }
                }
                tracing::warn!("store: the channel of changes was lost");
            }
            Err(error) => tracing::debug!(%error, "store: changes cannot be followed"),
        }
        tokio::time::sleep(RESUBSCRIBE).await;
    }
}

fn read_hint(payload: &[u8]) -> Option<AorHint> {
    let (revision, aor) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
    Some(AorHint::Changed { aor: aor.to_owned(), revision: revision.parse().ok()? })
}

fn read_aor(name: &str, revision: Option<String>, bindings: Option<String>) -> Result<Aor, StoreError> {
    let (Some(revision), Some(bindings)) = (revision, bindings) else { return Ok(Aor::default()) };
    let revision = revision.parse().map_err(|e| wrong(&format!("revision of {name}"), e))?;
    let bindings = serde_json::from_str(&bindings).map_err(|e| wrong(&format!("bindings of {name}"), e))?;
    Ok(Aor { revision, bindings })
}

fn wrong(what: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{what} not understood: {error}"))
}

impl Store for RedisStore {
    fn load<'a>(&'a self, aor: &'a str) -> Pending<'a, Aor> {
        Box::pin(self.load_aor(aor))
    }

    fn swap<'a>(
        &'a self,
        aor: &'a str,
        revision: Revision,
        bindings: Vec<Binding>,
        _now_unix: u64,
    ) -> Pending<'a, Revision> {
        Box::pin(async move { self.swap_aor(aor, revision, &bindings).await })
    }

    fn hints(&self) -> broadcast::Receiver<AorHint> {
        self.hints.subscribe()
    }

    fn expired(&self, now_unix: u64, limit: usize) -> Pending<'_, Vec<String>> {
        let mut range = redis::cmd("ZRANGEBYSCORE");
        range.arg(self.key("expiry")).arg("-inf").arg(now_unix).arg("LIMIT").arg(0).arg(limit);
        Box::pin(async move { self.link.query(&range).await })
    }

    fn use_nonce<'a>(&'a self, nonce: &'a str, nc: u32, ttl_s: u64, _now_unix: u64) -> Pending<'a, bool> {
        Box::pin(async move {
            let mut call = self.use_nonce.prepare_invoke();
            call.key(self.key(&format!("nonce:{nonce}"))).arg(nc).arg(ttl_s.max(1));
            self.link.invoke(&call).await
        })
    }

    fn aors(&self) -> Pending<'_, Vec<(String, Aor)>> {
        Box::pin(self.all_aors())
    }

    fn save<'a>(&'a self, kind: &'a str, id: &'a str, owner: Owner, value: Bytes) -> Pending<'a, ()> {
        Box::pin(self.write_record(kind, id, owner, Some(value)))
    }

    fn remove<'a>(&'a self, kind: &'a str, id: &'a str, owner: Owner) -> Pending<'a, ()> {
        Box::pin(self.write_record(kind, id, owner, None))
    }

    fn record<'a>(&'a self, kind: &'a str, id: &'a str) -> Pending<'a, Option<(Owner, Bytes)>> {
        Box::pin(self.one_record(kind, id))
    }

    fn records<'a>(&'a self, kind: &'a str) -> Pending<'a, Vec<(String, Owner, Bytes)>> {
        Box::pin(self.all_records(kind))
    }

    fn owners(&self) -> Pending<'_, Vec<ProcessId>> {
        Box::pin(self.all_owners())
    }

    fn owned(&self, process: ProcessId) -> Pending<'_, Vec<Key>> {
        Box::pin(self.records_of(process))
    }

    fn take<'a>(&'a self, records: &'a [Key], to: ProcessId) -> Pending<'a, Vec<Stored>> {
        Box::pin(self.take_records(records, to))
    }

    fn standing(&self, process: ProcessId) -> Pending<'_, Standing> {
        Box::pin(self.standing_of(process))
    }

    fn announce<'a>(&'a self, peer: &'a Peer, ttl_ms: u64) -> Pending<'a, ()> {
        Box::pin(self.announce_peer(peer, ttl_ms))
    }

    fn withdraw(&self, process: ProcessId) -> Pending<'_, ()> {
        Box::pin(self.withdraw_peer(process))
    }

    fn peers(&self) -> Pending<'_, Vec<Peer>> {
        Box::pin(self.all_peers())
    }
}
