//! NG over UDP, for callers in other processes.

use crate::driver::MediaHandle;
use contract::ng::{Reply, Request, is_sealed};
use contract::{KeyRing, ProcessId};
use ipnet::IpNet;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

/// How long a reply is kept for retransmissions of its request.
const KEEP: Duration = Duration::from_secs(30);
/// Most replies that are kept.
const MAX_KEPT: usize = 4096;

type Key = (SocketAddr, Vec<u8>);

/// Replies by source and cookie: a retransmitted request is not carried out twice.
#[derive(Default)]
struct Answered {
    replies: HashMap<Key, Vec<u8>>,
    order: VecDeque<(Instant, Key)>,
}

impl Answered {
    fn get(&self, key: &Key) -> Option<&Vec<u8>> {
        self.replies.get(key)
    }

    fn put(&mut self, key: Key, reply: Vec<u8>, now: Instant) {
        while self.order.len() >= MAX_KEPT || self.order.front().is_some_and(|(t, _)| now.duration_since(*t) > KEEP) {
            if let Some((_, old)) = self.order.pop_front() {
                self.replies.remove(&old);
            }
        }
        self.order.push_back((now, key.clone()));
        self.replies.insert(key, reply);
    }
}

/// Whose messages are answered.
pub(crate) struct Trust {
    /// Networks that need no token.
    pub(crate) allowed: Vec<IpNet>,
    /// This relay's name, and the keys of tokens for it that are good from anywhere.
    pub(crate) keys: Option<(ProcessId, Arc<KeyRing>)>,
}

impl Trust {
    fn admits(&self, from: SocketAddr, datagram: &[u8]) -> bool {
        let ip = from.ip().to_canonical();
        let sealed = || self.keys.as_ref().is_some_and(|(relay, keys)| is_sealed(keys, *relay, datagram));
        self.allowed.iter().any(|n| n.contains(&ip)) || sealed()
    }
}

/// Answers NG until it is dropped.
pub(crate) async fn serve(socket: UdpSocket, trust: Trust, handle: MediaHandle) {
    let mut buffer = vec![0; 65_536];
    let mut answered = Answered::default();
    let mut refused = 0u64;
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(got) => got,
            Err(e) => {
                // An earlier reply that could not be delivered is told here; it is no reason to stop.
                tracing::debug!(error = %e, "ng receive");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        if !trust.admits(from, bytes) {
            refused += 1;
            tracing::warn!(%from, refused, "ng message without a token from a network that is not allowed");
            continue;
        }
        let (cookie, reply) = match Request::parse(bytes) {
            Ok(request) => {
                let key = (from, request.cookie);
                if let Some(reply) = answered.get(&key) {
                    let _ = socket.send_to(reply, from).await;
                    continue;
                }
                (key.1, handle.request(request.command).await)
            }
            Err(error) => match error.cookie {
                Some(cookie) => (cookie, Reply::Error(error.reason)),
                None => continue,
            },
        };
        let bytes = reply.to_vec(&cookie);
        if let Err(e) = socket.send_to(&bytes, from).await {
            tracing::warn!(%from, error = %e, "ng reply not sent");
        }
        answered.put((from, cookie), bytes, Instant::now());
    }
}
