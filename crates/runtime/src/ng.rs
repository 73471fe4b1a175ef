//! NG over UDP: media control for relays in other processes. One socket for all of them; a command is sent again until
//! its reply comes, under one cookie that holds the installation's token, so the relay does it once.

use crate::media::{MediaControl, MediaError};
use contract::ng::{Command, Reply, seal};
use contract::peers::Peers;
use contract::{KeyRing, ProcessId};
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// Commands without a reply at once.
const MAX_WAITING: usize = 65_536;
/// Relays whose addresses are remembered.
const MAX_KNOWN: usize = 4096;

/// When a command is sent again, and when it is given up.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// After the first sending; doubled for each further one.
    pub again: Duration,
    /// After the first sending: no reply came in time.
    pub limit: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { again: Duration::from_millis(150), limit: Duration::from_secs(3) }
    }
}

/// The client. Dropping it closes its socket; commands under way have no reply then.
#[derive(Debug)]
pub struct NgClient {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    keys: Arc<KeyRing>,
    peers: watch::Receiver<Arc<Peers>>,
    timing: Timing,
    /// Where relays were last known to hear NG. A record that is gone says less than a relay that replies.
    known: Mutex<HashMap<ProcessId, SocketAddr>>,
    waiting: Mutex<HashMap<Vec<u8>, oneshot::Sender<Reply>>>,
    /// Begins every cookie of this client.
    prefix: ProcessId,
    next: AtomicU64,
}

impl NgClient {
    /// A client on any free port of `local`, which relays are reached from. `peers` says where relays hear NG.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(
        local: IpAddr,
        keys: Arc<KeyRing>,
        peers: watch::Receiver<Arc<Peers>>,
        timing: Timing,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: UdpSocket::bind((local, 0)).await?,
            keys,
            peers,
            timing,
            known: Mutex::default(),
            waiting: Mutex::default(),
            prefix: crate::entropy::process_id(),
            next: AtomicU64::new(0),
        });
        let reader = tokio::spawn(read(shared.clone()));
        Ok(Self { shared, reader })
    }
}

impl Drop for NgClient {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl MediaControl for NgClient {
    fn request(&self, relay: ProcessId, command: Command) -> BoxFuture<'_, Result<Reply, MediaError>> {
        Box::pin(self.shared.request(relay, command))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Where a relay hears NG: as its record says, else as it said last.
    fn address(&self, relay: ProcessId) -> Option<SocketAddr> {
        let peers = self.peers.borrow().clone();
        let mut known = lock(&self.known);
        match peers.get(relay).and_then(|p| p.ng) {
            Some(address) => {
                if known.len() >= MAX_KNOWN {
                    known.retain(|process, _| peers.get(*process).is_some());
                }
                known.insert(relay, address);
                Some(address)
            }
            None => known.get(&relay).copied(),
        }
    }

    async fn request(&self, relay: ProcessId, command: Command) -> Result<Reply, MediaError> {
        let to = self.address(relay).ok_or(MediaError::Unknown(relay))?;
        let unique = format!("{}{:x}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed));
        let request = seal(&self.keys, relay, &unique, command);
        let (tell, mut reply) = oneshot::channel();
        let _waiting = Waiting::new(&self.waiting, request.cookie.clone(), tell)?;
        let bytes = request.to_vec();
        let end = tokio::time::Instant::now() + self.timing.limit;
        let mut again = self.timing.again;
        loop {
            self.socket.send_to(&bytes, to).await.map_err(|e| MediaError::Unavailable(e.to_string()))?;
            let next = (tokio::time::Instant::now() + again).min(end);
            match tokio::time::timeout_at(next, &mut reply).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(_)) => return Err(MediaError::Unavailable("the client is closed".to_owned())),
                Err(_) if next == end => return Err(MediaError::Timeout),
                Err(_) => again *= 2,
            }
        }
    }
}

/// A command that waits for its reply; nobody waits once this is dropped.
struct Waiting<'a> {
    all: &'a Mutex<HashMap<Vec<u8>, oneshot::Sender<Reply>>>,
    cookie: Vec<u8>,
}

impl<'a> Waiting<'a> {
    fn new(
        all: &'a Mutex<HashMap<Vec<u8>, oneshot::Sender<Reply>>>,
        cookie: Vec<u8>,
        tell: oneshot::Sender<Reply>,
    ) -> Result<Self, MediaError> {
        let mut waiting = lock(all);
        if waiting.len() >= MAX_WAITING {
            return Err(MediaError::Unavailable("too many commands wait for replies".to_owned()));
        }
        waiting.insert(cookie.clone(), tell);
        drop(waiting);
        Ok(Self { all, cookie })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(self.all).remove(&self.cookie);
    }
}

/// Hands replies to who waits for them. A cookie holds a token, so it says enough of who replies: a relay with several
/// addresses may reply from another one.
async fn read(shared: Arc<Shared>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let length = match shared.socket.recv_from(&mut buffer).await {
            Ok((length, _)) => length,
            Err(error) => {
                // Something sent earlier could not be delivered; it is no reason to stop.
                tracing::debug!(%error, "ng receive");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let Some((cookie, reply)) = Reply::parse(buffer.get(..length).unwrap_or_default()) else { continue };
        if let Some(tell) = lock(&shared.waiting).remove(&cookie) {
            // Who asked may have given up.
            let _ = tell.send(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ng::{Request, is_sealed};
    use contract::peers::Peer;
    use contract::{InstallationKey, Service};
    use std::net::Ipv4Addr;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const RELAY: ProcessId = ProcessId(7);

    struct Bench {
        client: NgClient,
        relay: UdpSocket,
        peers: watch::Sender<Arc<Peers>>,
        keys: Arc<KeyRing>,
    }

    async fn bench(timing: Timing) -> Bench {
        let relay = UdpSocket::bind((LOCAL, 0)).await.unwrap();
        let peer = Peer { ng: Some(relay.local_addr().unwrap()), ..Peer::new(Service::Media, RELAY) };
        let peers = watch::Sender::new(Arc::new(Peers(vec![peer])));
        let keys = Arc::new(KeyRing::new(InstallationKey::new(1, [5; 32])));
        let client = NgClient::bind(LOCAL, keys.clone(), peers.subscribe(), timing).await.unwrap();
        Bench { client, relay, peers, keys }
    }

    impl Bench {
        /// The next datagram at the relay, its command, and who sent it.
        async fn next(&self) -> (Vec<u8>, Request, SocketAddr) {
            let mut buffer = [0; 2000];
            let (length, from) = self.relay.recv_from(&mut buffer).await.unwrap();
            let bytes = buffer[..length].to_vec();
            assert!(is_sealed(&self.keys, RELAY, &bytes));
            let request = Request::parse(&bytes).unwrap();
            (bytes, request, from)
        }
    }

    fn list(limit: usize) -> Command {
        Command::List { limit }
    }

    #[tokio::test]
    async fn replies_find_their_commands_in_any_order() {
        let bench = bench(Timing::default()).await;
        let served = async {
            let (_, one, from) = bench.next().await;
            let (_, two, _) = bench.next().await;
            // Nobody waits for this.
            bench.relay.send_to(&Reply::Pong.to_vec(b"other"), from).await.unwrap();
            for request in [two, one] {
                let Command::List { limit } = request.command else { panic!("{request:?}") };
                let reply = Reply::Calls(vec![limit.to_string()]).to_vec(&request.cookie);
                bench.relay.send_to(&reply, from).await.unwrap();
            }
        };
        let (one, two) = (bench.client.request(RELAY, list(1)), bench.client.request(RELAY, list(2)));
        let (one, two, ()) = tokio::join!(one, two, served);
        assert_eq!((one, two), (Ok(Reply::Calls(vec!["1".into()])), Ok(Reply::Calls(vec!["2".into()]))));
        assert!(lock(&bench.client.shared.waiting).is_empty());
    }

    #[tokio::test]
    async fn a_command_is_sent_again_as_it_was_until_its_reply_comes() {
        let bench = bench(Timing { again: Duration::from_millis(10), limit: Duration::from_secs(60) }).await;
        let served = async {
            let (first, ..) = bench.next().await;
            let (second, ..) = bench.next().await;
            let (third, request, from) = bench.next().await;
            assert_eq!((&first, &first), (&second, &third));
            bench.relay.send_to(&Reply::Pong.to_vec(&request.cookie), from).await.unwrap();
        };
        let (reply, ()) = tokio::join!(bench.client.request(RELAY, Command::Ping), served);
        assert_eq!(reply, Ok(Reply::Pong));
    }

    #[tokio::test]
    async fn a_relay_that_is_unknown_or_silent_is_told_apart() {
        let bench = bench(Timing { again: Duration::from_millis(5), limit: Duration::from_millis(30) }).await;
        let stranger = ProcessId(8);
        assert_eq!(bench.client.request(stranger, Command::Ping).await, Err(MediaError::Unknown(stranger)));
        assert_eq!(bench.client.request(RELAY, Command::Ping).await, Err(MediaError::Timeout));
        // Who gives up early leaves nothing behind either.
        drop(tokio::time::timeout(Duration::from_millis(1), bench.client.request(RELAY, Command::Ping)).await);
        assert!(lock(&bench.client.shared.waiting).is_empty());
    }

    #[tokio::test]
    async fn a_relay_whose_record_is_gone_is_still_asked_where_it_was() {
        let bench = bench(Timing::default()).await;
        let served = || async {
            let (_, request, from) = bench.next().await;
            bench.relay.send_to(&Reply::Pong.to_vec(&request.cookie), from).await.unwrap();
        };
        for _ in 0..2 {
            let (reply, ()) = tokio::join!(bench.client.request(RELAY, Command::Ping), served());
            assert_eq!(reply, Ok(Reply::Pong));
            bench.peers.send_replace(Arc::default());
        }
    }
}
