//! A virtual address: balancers on two nodes, of which one holds it.

use crate::calls::first_call_phones;
use crate::survival::{UNNOTICED, killed};
use anyhow::{Context, Result, bail, ensure};
use cluster_tests::{Calls, Object, Probe, Space};
use e2e::eventually;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Somebody answers at the address again within this.
const AWAY: Duration = Duration::from_secs(3);

/// A leg whose relay is on the node that is cut off is silent until the address is on the other one, and it was told.
const CUT: f64 = 5000.0;

/// From when routers have all calls until they are ended.
const HEARD: Duration = Duration::from_secs(5);

/// An address beside the nodes' that nobody has: in the same /24, the 200th.
fn free_address(space: &Space) -> Result<IpAddr> {
    ensure!(
        !space.cluster.env("NODES_NETWORK").is_empty(),
        "it is not known which addresses of the nodes' network are free"
    );
    let Some((_, IpAddr::V4(node))) = space.cluster.nodes.first() else { bail!("no node has an IPv4 address") };
    let [a, b, c, _] = node.octets();
    Ok(IpAddr::from([a, b, c, 200]))
}

/// The balancer whose node holds the address, once all others could take it.
fn holder(space: &Space) -> Result<Object> {
    eventually("one node holds the address, and the others wait for it", Duration::from_secs(20), || {
        let pods = space.pods("balancer").ok()?;
        let (mut masters, others): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is(space, pod, "MASTER"));
        let wait = masters.len() == 1 && others.iter().all(|pod| is(space, pod, "BACKUP"));
        masters.pop().filter(|_| wait)
    })
}

/// Whether this is the state that its keepalived entered last.
fn is(space: &Space, pod: &Object, state: &str) -> bool {
    let log = space.log(pod.name(), "keepalived", false).unwrap_or_default();
    let last = log.lines().rev().find_map(|line| Some(line.split_once("Entering ")?.1));
    last.is_some_and(|last| last.starts_with(state))
}

/// What becomes of the address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It stays, or goes to another node.
    MayStay,
    /// It goes to another node.
    Moves,
    /// It does, and from its node nothing else is heard either.
    MovesAlone,
}

/// Something befalls the holder while 50 calls are up that came by the address.
fn befalls(
    space: &Space,
    server: SocketAddr,
    what: &str,
    then: Then,
    gap_ms: f64,
    begin: impl FnOnce(&Object) -> Result<()>,
    end: impl FnOnce(&Object) -> Result<()>,
) -> Result<()> {
    let held = holder(space)?;
    let calls = Calls::begin_at(space, [server, server], 50)?;
    let probe = Probe::begin(space.cluster, server)?;
    begin(&held)?;
    let moved = if then == Then::MayStay { Ok(()) } else { another_holds(space, &held) };
    // Whoever has its calls has them all before they are ended, and what was silent is heard for as long as is judged.
    let silent = held.node().filter(|_| then == Then::MovesAlone);
    let up = space.has_calls(50, silent, Duration::from_secs(20));
    std::thread::park_timeout(HEARD);
    let (figures, seen) = (calls.end(), probe.end());
    end(&held)?;
    up?;
    let (figures, seen) = (figures?, seen?);
    eprintln!("virtual address, {what}: away for {:.1} s; {figures}", seen.gap.as_secs_f64());
    moved?;
    ensure!(seen.gap <= AWAY, "{what}: nobody answered at the address for {:?}", seen.gap);
    figures.all_kept(gap_ms)?;
    space.settled(Duration::from_secs(60))
}

fn another_holds(space: &Space, held: &Object) -> Result<()> {
    eventually("the other node holds the address", Duration::from_secs(10), || {
        let pods = space.pods("balancer").ok()?;
        pods.iter().any(|pod| pod.name() != held.name() && is(space, pod, "MASTER")).then_some(())
    })
}

#[test]
fn another_node_has_the_address_within_three_seconds() -> Result<()> {
    Space::alone("virtual-ip", |space| {
        let space = &*space;
        let address = free_address(space)?;
        let spec = format!("pbx: {{spec: {{virtualIP: {{addresses: [\"{address}/24\"], interface: eth0}}}}}}");
        space.install(&[spec])?;
        first_call_phones(space)?;
        let server = SocketAddr::new(address, space.port);
        let signal = |signal: &'static str| move |pod: &Object| space.signal(pod, signal);
        // Another container is in its place at once.
        befalls(space, server, "balancer killed", Then::MayStay, UNNOTICED, |pod| killed(space, pod), |_| Ok(()))?;
        befalls(space, server, "balancer frozen", Then::Moves, UNNOTICED, signal("STOP"), signal("CONT"))?;
        // The store is not to go with the node: that is another failure.
        let store = space.pods("redis")?;
        if store.iter().any(|pod| holder(space).is_ok_and(|held| held.node() == pod.node())) {
            let held = holder(space)?;
            space.signal(&held, "STOP")?;
            let moved = another_holds(space, &held);
            space.signal(&held, "CONT")?;
            moved?;
            space.settled(Duration::from_secs(60))?;
        }
        // With the node go a relay and a router.
        let held = holder(space)?;
        for service in ["media", "router"] {
            let there = space.pods(service)?.iter().any(|pod| pod.node() == held.node());
            ensure!(there, "no {service} runs on {:?}", held.node());
        }
        let verb = |verb: &'static str| {
            move |pod: &Object| space.cluster.verb(verb, &[pod.node().context("a node")?]).map(drop)
        };
        befalls(space, server, "node cut off", Then::MovesAlone, CUT, verb("cut"), verb("join"))
    })
}
