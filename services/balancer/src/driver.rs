//! The balancer with its sockets: UDP in batches, TCP connections, inside hops, peers, configuration and timers.
//!
//! Each shard is a task that owns its UDP sockets and its core. What reaches the process by one door (TCP, inside hops)
//! is given to the shard that is to have it over a bounded queue.

mod door;
mod shard;

use crate::config::{Config, advertised};
use crate::core::{Core, Input};
use crate::dispatcher::probe::Shown;
use crate::listen::{Listeners, Routes};
use crate::token::branch::Owner;
use anyhow::Context as _;
use contract::Transport;
use contract::config::{BalancerEntry, Snapshot, Version};
use contract::peers::Peer;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use runtime::transport::tcp::{Tcp, TcpEvent};
use runtime::transport::udp::{UdpOptions, UdpShard};
use runtime::{Deps, Metrics, Running};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// What a shard's queue holds.
enum Message {
    /// For its core.
    Input(Input),
    /// Somebody wants to see the dispatchers.
    Show(oneshot::Sender<Vec<Shown>>),
}

/// Time between two tries to bind an address that is in use.
const BIND_AGAIN: Duration = Duration::from_millis(100);

/// The ends of all shards' queues.
type Queues = Arc<Vec<mpsc::Sender<Message>>>;

/// A balancer whose sockets are bound and that does not serve yet.
pub struct Bound {
    config: Config,
    listeners: Listeners,
    addresses: Vec<(Transport, SocketAddr)>,
    /// By shard.
    udp: Vec<Vec<UdpShard>>,
    tcp: Tcp,
    events: mpsc::Receiver<TcpEvent>,
}

/// Binds and starts a balancer. Call it on a tokio runtime.
///
/// # Errors
/// An address that cannot be bound, or an advertised address that is none.
pub fn build(config: Config, deps: Deps<BalancerEntry>) -> anyhow::Result<Running> {
    Ok(Bound::bind(config, &deps.metrics)?.start(deps))
}

impl Bound {
    /// Binds all listeners. Call it on a tokio runtime.
    ///
    /// # Errors
    /// An address that cannot be bound, or an advertised address that is none.
    pub fn bind(config: Config, metrics: &Metrics) -> anyhow::Result<Self> {
        let advertise = config.advertise.as_deref().map(advertised).transpose()?;
        let shards = usize::from(config.shards.max(1));
        let (tcp, events) = Tcp::new(config.tcp, metrics);
        let mut udp: Vec<Vec<UdpShard>> = std::iter::repeat_with(Vec::new).take(shards).collect();
        let mut addresses = Vec::new();
        for (transport, addr) in &config.listeners {
            let context = || format!("cannot listen on {addr} ({})", transport.as_str());
            let mut actual = *addr;
            match transport {
                Transport::Tcp => actual = tcp.listen(*addr, config.udp.freebind).with_context(context)?,
                Transport::Udp => {
                    let options = UdpOptions { reuse_port: config.udp.reuse_port || shards > 1, ..config.udp };
                    for sockets in &mut udp {
                        let socket = UdpShard::bind(actual, options).with_context(context)?;
                        actual = socket.local_addr();
                        sockets.push(socket);
                    }
                }
            }
            addresses.push((*transport, actual));
        }
        let listeners = Listeners::new(addresses.clone(), advertise).local_to(config.local_networks.clone());
        Ok(Self { config, listeners, addresses, udp, tcp, events })
    }

    /// As [`Bound::bind`], but an address that is in use is tried again until `patience` is over: a process that was
    /// here before may still be about to go.
    ///
    /// # Errors
    /// As [`Bound::bind`]; a signal to go is not waited for.
    pub async fn bind_within(patience: Duration, config: Config, metrics: &Metrics) -> anyhow::Result<Self> {
        let until = tokio::time::Instant::now() + patience;
        let mut told = false;
        loop {
            match Self::bind(config.clone(), metrics) {
                Err(error) if is_in_use(&error) && tokio::time::Instant::now() < until => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(error = format!("{error:#}"), "waiting for the address");
                    }
                    tokio::time::sleep(BIND_AGAIN).await;
                }
                bound => return bound,
            }
        }
    }

    /// What is listened on, with the ports that were found.
    pub fn addresses(&self) -> &[(Transport, SocketAddr)] {
        &self.addresses
    }

    /// Starts to serve. Ready once the first configuration is applied.
    pub fn start(self, mut deps: Deps<BalancerEntry>) -> Running {
        let mut running = Running::new();
        let peer = Peer::new(contract::Service::Balancer, deps.process);
        let member = deps.mesh.join(peer);
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for _ in 0..self.udp.len() {
            let (sender, receiver) = mpsc::channel(self.config.queue.max(1));
            senders.push(sender);
            receivers.push(receiver);
        }
        let queues: Queues = Arc::new(senders);
        let snapshot = deps.source.snapshot();
        let (config, configured) = watch::channel(snapshot);
        let mut applied = Vec::new();
        for (index, (udp, queue)) in self.udp.into_iter().zip(receivers).enumerate() {
            let number = u16::try_from(index).unwrap_or(u16::MAX);
            let me = Owner { process: deps.process, shard: number };
            let (version, watched) = watch::channel(Version::default());
            applied.push(watched);
            let name = format!("balancer shard {number}");
            let shard = shard::Shard {
                core: Core::new(me, self.listeners.clone(), self.config.limits.clone()),
                me,
                udp,
                tcp: self.tcp.clone(),
                queue,
                queues: queues.clone(),
                member: member.handle(),
                peers: deps.mesh.peers(),
                configured: configured.clone(),
                applied: version,
                keys: deps.keys.clone(),
                clock: deps.clock,
                pulse: deps.health.pulse(&name),
                counters: shard::Shown::new(&deps.metrics),
            };
            running.spawn(&name, shard.run());
        }
        let lost = deps.metrics.reasons("balancer_queue_full", "Messages that found a shard's queue full, by source");
        running
            .spawn("balancer mesh", door::inside(member, queues.clone(), deps.keys.clone(), lost, deps.drain.clone()));
        running.spawn(
            "balancer tcp",
            door::tcp(self.events, self.tcp.clone(), queues.clone(), deps.process, self.listeners.clone()),
        );
        let unanswered = shard::unanswered(&deps.metrics);
        let drain = door::drain(self.tcp, deps.drain.clone(), self.config.close_a_second, unanswered);
        running.spawn_main("balancer drain", drain);
        let part = deps.health.part("balancer");
        running.spawn("balancer configuration", async move {
            loop {
                let snapshot = deps.source.snapshot();
                let version = snapshot.version;
                config.send_replace(snapshot);
                for shard in &mut applied {
                    // A shard that ended takes the service with it.
                    if shard.wait_for(|v| *v == version).await.is_err() {
                        return Ok(());
                    }
                }
                if version != Version::default() {
                    deps.source.ack(version);
                    part.ready();
                }
                deps.source.changed().await;
            }
        });
        running.view("dispatchers", move || {
            let queue = queues.first().cloned();
            async move {
                let (reply, shown) = oneshot::channel();
                let Some(queue) = queue else { return serde_json::Value::Null };
                if queue.send(Message::Show(reply)).await.is_err() {
                    return serde_json::Value::Null;
                }
                let shown = shown.await.unwrap_or_default();
                serde_json::to_value(shown).unwrap_or_default()
            }
        });
        running
    }
}

/// True where somebody else listens on an address.
fn is_in_use(error: &anyhow::Error) -> bool {
    let io = error.root_cause().downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
}

/// A snapshot, unless nothing was published yet.
fn published(snapshot: &Snapshot<BalancerEntry>) -> Option<&Snapshot<BalancerEntry>> {
    (snapshot.version != Version::default()).then_some(snapshot)
}

/// The system's routes, asked by connecting a UDP socket, which sends nothing.
struct SystemRoutes;

impl Routes for SystemRoutes {
    fn local_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let any: IpAddr = if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
        socket.connect((remote, 9)).ok()?;
        socket.local_addr().ok().map(|a| a.ip())
    }

    /// Any address of loopback, or one that an interface has. Where the system does not tell, it has it.
    fn has(&self, address: IpAddr) -> bool {
        let is = |storage: SockaddrStorage| {
            let v4 = storage.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|a| a.ip().into())) == Some(address)
        };
        address.is_loopback() || getifaddrs().map_or(true, |mut all| all.any(|i| i.address.is_some_and(is)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_this_machine_has() {
        for (address, has) in [("127.0.0.1", true), ("127.9.8.7", true), ("192.0.2.1", false)] {
            assert_eq!(SystemRoutes.has(address.parse().unwrap()), has, "{address}");
        }
    }
}
