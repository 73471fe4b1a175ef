//! The doors that a process has once: inside hops and TCP. Behind each stands the choice of the shard.

use super::{Message, Queues};
use crate::core::Input;
use crate::handover;
use crate::listen::{Listeners, NoRoutes};
use crate::token::branch::Owner;
use bytes::Bytes;
use contract::peers::PeerState;
use contract::{Flow, KeyRing, ProcessId, Service, Transport};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use runtime::Drain;
use runtime::mesh::{Member, Parcel};
use runtime::metrics::{Reason, count};
use runtime::transport::tcp::{Connection, Tcp, TcpEvent};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Seconds without work after which a drained balancer may go: the others know by then that it does.
const LINGER: u32 = 3;

/// Gives messages of other processes to shards: what belongs to a transaction to its owner, other requests by Call-ID. What
/// was sent to other processes and did not arrive goes back to the shard that sent it.
pub(super) async fn inside(
    mut member: Member,
    queues: Queues,
    keys: Arc<KeyRing>,
    lost: Family<Reason, Counter>,
    drain: Drain,
) -> anyhow::Result<()> {
    let mut unsent = member.unsent();
    let mut told = false;
    loop {
        let (shard, input) = tokio::select! {
            message = member.recv() => {
                let Some(message) = message else { anyhow::bail!("another process took this one's name") };
                (shard_of(&message.bytes, message.service, &keys, queues.len()), Input::Inside(message))
            }
            Some(unsent) = unsent.recv() => match unsent.parcel {
                Parcel::Sip(bytes) => failed(bytes, &keys, queues.len()),
                // Balancers tell of no media.
                Parcel::Event(_) => continue,
            },
            () = drain.draining(), if !told => {
                told = true;
                member.set_state(PeerState::Draining);
                continue;
            }
        };
        let Some(queue) = queues.get(shard) else { continue };
        if queue.try_send(Message::Input(input)).is_err() {
            count(&lost, "inside");
        }
    }
}

/// What could not be brought to another process, for the shard that sent it: a request bears its owner in our Via.
fn failed(bytes: Bytes, keys: &KeyRing, shards: usize) -> (usize, Input) {
    let message = sip::Message::parse_stream(&bytes).ok();
    if message.as_ref().is_some_and(|m| handover::unwrap(m, keys).is_some()) {
        return (0, Input::HandOverFailed { bytes });
    }
    let owner = message.and_then(|m| m.via().ok().and_then(|v| Owner::of(&v, keys)));
    let shard = owner.map_or(0, |o| usize::from(o.shard)) % shards.max(1);
    (shard, Input::SendFailed { bytes })
}

/// The shard that is to have a message from inside.
fn shard_of(bytes: &Bytes, service: Service, keys: &KeyRing, shards: usize) -> usize {
    if shards < 2 {
        return 0;
    }
    let Ok(message) = sip::Message::parse(bytes) else { return 0 };
    let named = if service == Service::Balancer {
        handover::unwrap(&message, keys).map(|(_, _, shard)| shard)
    } else if message.is_request() {
        None
    } else {
        message.via().ok().and_then(|v| Owner::of(&v, keys)).map(|o| o.shard)
    };
    match named {
        Some(shard) => usize::from(shard) % shards,
        // Of one call, so that a CANCEL finds its INVITE.
        None => {
            let call = message.call_id().unwrap_or_default();
            call.bytes().fold(0usize, |h, b| h.wrapping_mul(31).wrapping_add(usize::from(b))) % shards
        }
    }
}

/// Gives what comes on connections to shards, by connection. While a shard's queue is full nothing more is read.
pub(super) async fn tcp(
    mut events: mpsc::Receiver<TcpEvent>,
    tcp: Tcp,
    queues: Queues,
    process: ProcessId,
    listeners: Listeners,
) -> anyhow::Result<()> {
    while let Some(event) = events.recv().await {
        let (id, input) = match event {
            TcpEvent::Opened(_) => continue,
            TcpEvent::Message(connection, bytes) => {
                (connection.id, Input::Outside { bytes, flow: flow(connection, process, &listeners) })
            }
            TcpEvent::Broken(connection, fault) => match fault.head {
                Some(head) => {
                    let flow = flow(connection, process, &listeners);
                    (connection.id, Input::Broken { head, flow, fault: fault.error })
                }
                None => {
                    tcp.close(connection.id);
                    continue;
                }
            },
            TcpEvent::Closed(connection, _) => {
                let made_to = connection.outbound.then_some(connection.remote);
                for queue in queues.iter() {
                    let gone = Input::FlowGone { connection: connection.id, made_to };
                    if queue.send(Message::Input(gone)).await.is_err() {
                        return Ok(());
                    }
                }
                continue;
            }
        };
        let shard = usize::try_from(id).unwrap_or_default() % queues.len().max(1);
        let Some(queue) = queues.get(shard) else { continue };
        if queue.send(Message::Input(input)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// A connection as a flow. One that we made has a local port that nobody else can reach: the listener's stands for it.
fn flow(connection: Connection, process: ProcessId, listeners: &Listeners) -> Flow {
    let (transport, remote) = (Transport::Tcp, connection.remote);
    let mut local = connection.local;
    if connection.outbound
        && let Some(listener) = listeners.source_for(transport, remote, &NoRoutes)
    {
        local.set_port(listener.port());
    }
    Flow { transport, process, connection: connection.id, local, remote }
}

/// Closes connections a few a second once the drain has begun. UDP is served to the end: that is when, for `LINGER`, no
/// connection of a phone and no request without a final answer was left.
pub(super) async fn drain(tcp: Tcp, drain: Drain, a_second: usize, unanswered: Gauge) -> anyhow::Result<()> {
    drain.draining().await;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut idle = 0;
    while idle < LINGER {
        tick.tick().await;
        let phones: Vec<_> = tcp.connections().into_iter().filter(|c| !c.outbound).collect();
        idle = if phones.is_empty() && unanswered.get() == 0 { idle + 1 } else { 0 };
        for connection in phones.into_iter().take(a_second.max(1)) {
            tcp.close(connection.id);
        }
    }
    Ok(())
}
