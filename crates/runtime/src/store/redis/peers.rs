//! Records of processes in Redis: each a key that Redis lets go by itself, and an index by which all are read at once.

use super::{RedisStore, wrong};
use crate::store;
use contract::location::StoreError;
use contract::peers::Peer;
use contract::{ProcessId, Service};

/// Writes a record and its place in the index; what the index holds of records that are gone is taken out.
pub(super) const ANNOUNCE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[3])
return 1
";

/// The records that are there, the last written first; at most so many.
pub(super) const PEERS: &str = r"
local found = {}
for _, name in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  local value = redis.call('GET', ARGV[2] .. name)
  if value then found[#found + 1] = value end
end
return found
";

fn name(service: Service, process: ProcessId) -> String {
    format!("{}:{process}", service.as_str())
}

impl RedisStore {
    pub(super) async fn announce_peer(&self, peer: &Peer, ttl_ms: u64) -> Result<(), StoreError> {
        let name = name(peer.service, peer.process);
        let value = serde_json::to_string(peer).map_err(|e| wrong(&format!("peer {name}"), e))?;
        let mut call = self.announce.prepare_invoke();
        call.key(self.key(&format!("peer:{name}"))).key(self.key("peers"));
        call.arg(value).arg(ttl_ms.max(1)).arg(name);
        self.link.invoke(&call).await
    }

    pub(super) async fn withdraw_peer(&self, process: ProcessId) -> Result<(), StoreError> {
        let names = Service::ALL.map(|service| name(service, process));
        let mut pipe = redis::pipe();
        pipe.cmd("DEL").arg(&names.each_ref().map(|name| self.key(&format!("peer:{name}")))).ignore();
        pipe.cmd("ZREM").arg(self.key("peers")).arg(&names).ignore();
        self.link.pipeline(&pipe).await
    }

    pub(super) async fn all_peers(&self) -> Result<Vec<Peer>, StoreError> {
        let mut call = self.peers.prepare_invoke();
        call.key(self.key("peers")).arg(store::PEERS).arg(self.key("peer:"));
        let values: Vec<Vec<u8>> = self.link.invoke(&call).await?;
        // One that a later release wrote and that cannot be read is nobody that this one could talk to.
        let mut peers: Vec<Peer> = values.iter().filter_map(|value| serde_json::from_slice(value).ok()).collect();
        peers.sort_by_key(|peer| (peer.service, peer.process));
        Ok(peers)
    }
}
