//! Tests of the whole core in virtual time, and of the driver on loopback.

mod dispatch;
mod driver;
mod failures;
mod flows;
mod replicas;
mod trust;
mod world;

use crate::core::{Core, Hop, Input, Limits, Output, View};
use crate::listen::{Listeners, Routes};
use crate::token::branch::Owner;
use bytes::Bytes;
use contract::config::{BalancerEntry, PbxEntry, Snapshot, Version};
use contract::hop::Inside;
use contract::peers::{Peer, PeerState, Peers};
use contract::{Flow, InstallationKey, KeyRing, Now, ProcessId, Service, Transport};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sip::{Message, Name};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const BALANCER: ProcessId = ProcessId(1);
const OTHER: ProcessId = ProcessId(2);
const ROUTER: ProcessId = ProcessId(10);
const ROUTER2: ProcessId = ProcessId(11);
const REGISTRAR: ProcessId = ProcessId(20);
const VIP: &str = "127.0.0.1:5060";
const PHONE: &str = "127.0.0.1:40000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn keys() -> KeyRing {
    KeyRing::new(InstallationKey::new(1, [7; 32]))
}

fn udp(remote: &str) -> Flow {
    Flow { transport: Transport::Udp, process: BALANCER, connection: 0, local: addr(VIP), remote: addr(remote) }
}

fn tcp(connection: u64, remote: &str) -> Flow {
    Flow { transport: Transport::Tcp, process: BALANCER, connection, local: addr(VIP), remote: addr(remote) }
}

fn snapshot(entries: Vec<BalancerEntry>) -> Snapshot<BalancerEntry> {
    let entries: BTreeMap<_, _> =
        entries.into_iter().enumerate().map(|(n, e)| (format!("e/{n}"), Arc::new(e))).collect();
    Snapshot { version: Version { epoch: 1, n: 1, hash: 1 }, entries }
}

/// A machine that may have lost its addresses.
#[derive(Default)]
struct Machine {
    bare: bool,
}

impl Routes for Machine {
    fn local_for(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }

    fn has(&self, _: IpAddr) -> bool {
        !self.bare
    }
}

/// One core with all around it, driven by hand.
struct Rig {
    machine: Machine,
    core: Core,
    peers: Peers,
    snapshot: Option<Snapshot<BalancerEntry>>,
    now: Now,
    rng: StdRng,
}

impl Rig {
    fn new(entries: Vec<BalancerEntry>) -> Self {
        let listeners = Listeners::new(vec![(Transport::Udp, addr(VIP)), (Transport::Tcp, addr(VIP))], None);
        let owner = Owner { process: BALANCER, shard: 0 };
        let all = [
            (Service::Balancer, BALANCER),
            (Service::Router, ROUTER),
            (Service::Router, ROUTER2),
            (Service::Registrar, REGISTRAR),
        ];
        Self {
            machine: Machine::default(),
            core: Core::new(owner, listeners, Limits::default()),
            peers: Peers(all.map(|(s, p)| Peer::new(s, p)).to_vec()),
            snapshot: Some(snapshot(entries)),
            now: Now { mono: Duration::from_secs(100), wall: Duration::from_secs(1_700_000_000) },
            rng: StdRng::seed_from_u64(3),
        }
    }

    fn plain() -> Self {
        Self::new(vec![BalancerEntry::Pbx(PbxEntry::default())])
    }

    fn handle(&mut self, input: Input) -> Vec<Output> {
        let keys = keys();
        let view = View { snapshot: self.snapshot.as_ref(), peers: &self.peers, keys: &keys, routes: &self.machine };
        self.core.handle(&view, input, self.now, &mut self.rng);
        std::iter::from_fn(|| self.core.poll()).collect()
    }

    fn outside(&mut self, flow: Flow, text: &str) -> Vec<Output> {
        self.handle(Input::Outside { bytes: Bytes::from(text.to_owned()), flow })
    }

    fn inside(&mut self, from: ProcessId, bytes: impl Into<Bytes>) -> Vec<Output> {
        let service = self.peers.get(from).map_or(Service::Router, |p| p.service);
        self.handle(Input::Inside(Inside { from, service, bytes: bytes.into() }))
    }

    /// Time passes; what becomes due is done when it is due.
    fn pass(&mut self, time: Duration) -> Vec<Output> {
        let end = self.now.mono + time;
        let mut out = Vec::new();
        while let Some(due) = self.core.deadline().filter(|d| *d <= end) {
            self.now = self.now.plus(due.saturating_sub(self.now.mono));
            out.extend(self.handle(Input::Tick));
        }
        self.now = self.now.plus(end - self.now.mono);
        out
    }

    fn set_peers(&mut self, gone: ProcessId) -> Vec<Output> {
        self.handle(Input::Changed);
        self.peers.0.retain(|p| p.process != gone);
        self.handle(Input::Changed)
    }
}

/// A request as a phone sends it.
fn request(method: &str, uri: &str, branch: &str, extra: &str) -> String {
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:40000;rport;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n\
         From: <sip:8005@pbx>;tag=f1\r\nTo: <sip:8006@pbx>\r\nCall-ID: call-1\r\nCSeq: 1 {method}\r\n{extra}\
         Content-Length: 0\r\n\r\n"
    )
}

/// Outputs that go inside, with who gets them.
fn to_inside(out: &[Output]) -> Vec<(ProcessId, Bytes)> {
    let inside = |o: &Output| match o {
        Output::SendInside { to, bytes } => Some((*to, bytes.clone())),
        _ => None,
    };
    out.iter().filter_map(inside).collect()
}

/// Outputs that go outside, with the flow.
fn to_outside(out: &[Output]) -> Vec<(Flow, Bytes)> {
    let outside = |o: &Output| match o {
        Output::SendOutside { flow, bytes } => Some((*flow, bytes.clone())),
        _ => None,
    };
    out.iter().filter_map(outside).collect()
}

/// Statuses of the responses among what goes outside.
fn statuses(out: &[Output]) -> Vec<u16> {
    to_outside(out).iter().filter_map(|(_, b)| Message::parse(b).unwrap().status()).collect()
}

/// A response to a forwarded request, as whoever got it makes it.
fn answer(request: &Bytes, status: u16, extra: &[(Name, &str)]) -> Bytes {
    let message = Message::parse(request).unwrap();
    let response = sip::build::response(&message, status, None, Some("t1")).record_route();
    extra.iter().fold(response, |r, (n, v)| r.header(*n, v)).finish()
}

fn hop_of(bytes: &Bytes) -> contract::hop::Hop {
    let message = Message::parse(bytes).unwrap();
    let value = message.other(contract::hop::HEADER).unwrap();
    let cseq = message.header(Name::CSeq).unwrap();
    contract::hop::Hop::open(value, &keys(), message.call_id().unwrap(), cseq).unwrap()
}

#[test]
fn an_inside_hop_is_reliable() {
    assert!(Hop::Inside(ROUTER).is_reliable() && Hop::Outside(tcp(1, PHONE)).is_reliable());
    assert!(!Hop::Outside(udp(PHONE)).is_reliable());
}
