//! Records in Redis: `records:<kind>` hash of `<epoch> <process> <value>` by id; `owned:<process>` hash of epochs by
//! `<kind> <id>`, and `owners` the set of processes that have one; `taken:<process>` how many were taken from a process;
//! `incarnation` a number that is lost with everything else.

use super::{PAGE, RedisStore, wrong};
use bytes::Bytes;
use contract::ProcessId;
use contract::location::StoreError;
use contract::records::{Key, Owner, Standing, Stored};
use std::collections::BTreeMap;

/// Writes a record unless a higher epoch, or the same of another process, stands; without value removes it. The indices
/// follow.
pub(super) const WRITE: &str = r"
local prefix, kind, id, epoch, process, value = unpack(ARGV)
local name = kind .. ' ' .. id
local had = redis.call('HGET', KEYS[1], id)
if had then
  local standing, owner = string.match(had, '^(%d+) (%x+) ')
  if tonumber(standing) > tonumber(epoch) then return 0 end
  if tonumber(standing) == tonumber(epoch) and owner ~= process then return 0 end
  if owner ~= process or not value then
    redis.call('HDEL', prefix .. 'owned:' .. owner, name)
    if redis.call('EXISTS', prefix .. 'owned:' .. owner) == 0 then redis.call('SREM', KEYS[2], owner) end
  end
end
if value then
  redis.call('HSET', KEYS[1], id, epoch .. ' ' .. process .. ' ' .. value)
  redis.call('HSET', prefix .. 'owned:' .. process, name, epoch)
  redis.call('SADD', KEYS[2], process)
else
  redis.call('HDEL', KEYS[1], id)
end
return 1
";

/// Takes records over, all or none: `<kind> <id> <epoch> <process>` each. Answers with what stands then.
pub(super) const TAKE: &str = r"
local prefix, to, found = ARGV[1], ARGV[2], {}
for at = 3, #ARGV, 4 do
  local had = redis.call('HGET', prefix .. 'records:' .. ARGV[at], ARGV[at + 1])
  if not had then return false end
  local epoch, owner = string.match(had, '^(%d+) (%x+) ')
  if epoch ~= ARGV[at + 2] or owner ~= ARGV[at + 3] then return false end
  found[#found + 1] = had
end
for n, had in ipairs(found) do
  local at = 4 * n - 1
  local name = ARGV[at] .. ' ' .. ARGV[at + 1]
  local epoch, owner, value = string.match(had, '^(%d+) (%x+) ()')
  local raised = string.format('%.0f', epoch + 1)
  found[n] = raised .. ' ' .. to .. ' ' .. string.sub(had, value)
  redis.call('HSET', prefix .. 'records:' .. ARGV[at], ARGV[at + 1], found[n])
  redis.call('HDEL', prefix .. 'owned:' .. owner, name)
  if redis.call('EXISTS', prefix .. 'owned:' .. owner) == 0 then redis.call('SREM', KEYS[1], owner) end
  redis.call('HSET', prefix .. 'owned:' .. to, name, raised)
  redis.call('INCR', prefix .. 'taken:' .. owner)
  redis.call('EXPIRE', prefix .. 'taken:' .. owner, 86400)
  redis.call('SADD', KEYS[1], to)
end
return found
";

/// The number of the store's contents, made now if there is none, and how many records were taken.
pub(super) const STANDING: &str = r"
local incarnation = redis.call('GET', KEYS[1])
if not incarnation then
  local time = redis.call('TIME')
  incarnation = string.format('%.0f', time[1] * 1000000 + time[2])
  redis.call('SET', KEYS[1], incarnation)
end
return {incarnation, redis.call('GET', KEYS[2]) or '0'}
";

/// Reads `<epoch> <process> <value>`.
fn read_record(kind: &str, id: &str, raw: &[u8]) -> Result<(Owner, Bytes), StoreError> {
    let parsed = || {
        let mut parts = raw.splitn(3, |b| *b == b' ');
        let epoch = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let process = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        Some((Owner { process, epoch }, Bytes::copy_from_slice(parts.next()?)))
    };
    parsed().ok_or_else(|| wrong(&format!("{kind} {id}"), "no owner"))
}

impl RedisStore {
    fn records_key(&self, kind: &str) -> String {
        self.key(&format!("records:{kind}"))
    }

    pub(super) async fn one_record(&self, kind: &str, id: &str) -> Result<Option<(Owner, Bytes)>, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.records_key(kind)).arg(id);
        let raw: Option<Vec<u8>> = self.link.query(&get).await?;
        raw.map(|raw| read_record(kind, id, &raw)).transpose()
    }

    pub(super) async fn all_records(&self, kind: &str) -> Result<Vec<(String, Owner, Bytes)>, StoreError> {
        let pairs: BTreeMap<String, Vec<u8>> = self.scan(&self.records_key(kind)).await?;
        let read = |(id, raw): (String, Vec<u8>)| read_record(kind, &id, &raw).map(|(owner, value)| (id, owner, value));
        pairs.into_iter().map(read).collect()
    }

    /// All of a hash, a page a round trip.
    async fn scan<V: redis::FromRedisValue>(&self, key: &str) -> Result<BTreeMap<String, V>, StoreError> {
        let mut all = BTreeMap::new();
        let mut cursor = 0u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(key).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, page): (u64, Vec<(String, V)>) = self.link.query(&scan).await?;
            all.extend(page);
            cursor = next;
            if cursor == 0 {
                return Ok(all);
            }
        }
    }

    pub(super) async fn write_record(
        &self,
        kind: &str,
        id: &str,
        owner: Owner,
        value: Option<Bytes>,
    ) -> Result<(), StoreError> {
        let mut call = self.write.prepare_invoke();
        call.key(self.records_key(kind)).key(self.key("owners"));
        call.arg(&self.prefix).arg(kind).arg(id).arg(owner.epoch).arg(owner.process.to_string());
        if let Some(value) = &value {
            call.arg(&value[..]);
        }
        let done: bool = self.link.invoke(&call).await?;
        if done { Ok(()) } else { Err(StoreError::Conflict) }
    }

    pub(super) async fn all_owners(&self) -> Result<Vec<ProcessId>, StoreError> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(self.key("owners"));
        let names: Vec<String> = self.link.query(&members).await?;
        let mut owners: Vec<ProcessId> = names.iter().filter_map(|name| name.parse().ok()).collect();
        owners.sort_unstable();
        Ok(owners)
    }

    pub(super) async fn records_of(&self, process: ProcessId) -> Result<Vec<Key>, StoreError> {
        let pairs: BTreeMap<String, u64> = self.scan(&self.key(&format!("owned:{process}"))).await?;
        let key = |(name, epoch): (String, u64)| {
            let (kind, id) = name.split_once(' ')?;
            Some(Key { kind: kind.to_owned(), id: id.to_owned(), owner: Owner { process, epoch } })
        };
        Ok(pairs.into_iter().filter_map(key).collect())
    }

    pub(super) async fn take_records(&self, records: &[Key], to: ProcessId) -> Result<Vec<Stored>, StoreError> {
        let mut call = self.take.prepare_invoke();
        call.key(self.key("owners")).arg(&self.prefix).arg(to.to_string());
        for Key { kind, id, owner } in records {
            call.arg(kind).arg(id).arg(owner.epoch).arg(owner.process.to_string());
        }
        let found: Option<Vec<Vec<u8>>> = self.link.invoke(&call).await?;
        let found = found.ok_or(StoreError::Conflict)?;
        let stored = |(key, raw): (&Key, Vec<u8>)| {
            let (owner, value) = read_record(&key.kind, &key.id, &raw)?;
            Ok(Stored { key: Key { owner, ..key.clone() }, value })
        };
        records.iter().zip(found).map(stored).collect()
    }

    pub(super) async fn standing_of(&self, process: ProcessId) -> Result<Standing, StoreError> {
        let mut call = self.standing.prepare_invoke();
        call.key(self.key("incarnation")).key(self.key(&format!("taken:{process}")));
        let (incarnation, taken): (u64, u64) = self.link.invoke(&call).await?;
        Ok(Standing { incarnation, taken })
    }
}
