//! Balancers behind a Service: what the death of one costs the phones that it served.

use crate::calls::first_call_phones;
use crate::command::said;
use anyhow::{Context, Result, ensure};
use cluster_tests::{Object, Space};
use e2e::{Baresip, Phone, eventually};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const NODE_PORT: u16 = 30_560;
/// How often the phone registers, seconds.
const REGINT: u32 = 10;
/// What a phone cannot be called for at most: until it registers next, and some for the Service to forget the pod.
const AWAY: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_secs(15);

/// The balancer that has the registration of 8006 over this transport, once it is one that runs.
fn registered_by(space: &Space, transport: &str) -> Result<Object> {
    let mut last = String::new();
    let found = eventually("8006 is registered through a balancer that runs", AWAY, || {
        last = said(space, &["registrations", "-o", "json"]).unwrap_or_else(|error| format!("{error:#}"));
        let read: Value = serde_json::from_str(&last).ok()?;
        let mut rows = read["items"].as_array()?.iter();
        let row = rows.find(|row| row["aor"] == "8006" && row["transport"] == transport)?;
        let local: SocketAddr = row["local"].as_str()?.parse().ok()?;
        let mut pods = space.pods("balancer").ok()?.into_iter();
        pods.find(|pod| pod.0["status"]["podIP"] == local.ip().to_string())
    });
    found.with_context(|| last.clone())
}

/// Calls 8006 through a node, again each second until it answers; how long that took.
fn called(space: &Space, server: SocketAddr) -> Result<Duration> {
    let since = Instant::now();
    let options = ["--to", "8006", "--seconds", "1", "--hear", "tone:880", "--retry", "60"];
    let mut caller = space.cluster.outside(|| Phone::start("call", server, "8005", &options))?;
    let (called, report) = caller.report(Duration::from_secs(90))?;
    ensure!(called, "{report}");
    Ok(since.elapsed().saturating_sub(Duration::from_secs(1)))
}

/// A phone behind a Service is found again through another balancer as soon as it has registered, over UDP and TCP.
#[test]
fn a_phone_finds_another_balancer_behind_a_service() -> Result<()> {
    Space::test("service", |space| {
        let exposure = format!("exposure: {{type: NodePort, nodePort: {NODE_PORT}}}");
        // Two a node: a node's port leads to its own balancers alone.
        space.install(&[format!("pbx: {{spec: {{services: {{balancer: {{replicas: 4, {exposure}}}}}}}}}")])?;
        first_call_phones(space)?;
        space.patch(
            "PbxEndpoint",
            "8006",
            json!({"spec": {"aor": {"minimumExpiration": REGINT, "removeExisting": true}}}),
        )?;
        space.settled(SOON)?;
        let [near, far] = [0, 1].map(|node| SocketAddr::new(space.server(node).ip(), NODE_PORT));
        for transport in ["udp", "tcp"] {
            let phone = || Baresip::over(transport, space.cluster.phones, near, "8006", 880.0, REGINT);
            let mut phone = space.cluster.outside(phone)?;
            phone.registered(SOON)?;
            let pod = registered_by(space, transport)?;
            called(space, far)?;
            space.delete("Pod", pod.name(), Some(0))?;
            let away = called(space, far)?;
            eprintln!(
                "balancer deleted behind a Service, {transport}: callable again after {:.1} s",
                away.as_secs_f64()
            );
            ensure!(away < AWAY, "{transport}: callable again after {away:?}");
            ensure!(registered_by(space, transport)?.uid() != pod.uid(), "{transport}: registered where nobody is");
            space.settled(Duration::from_secs(60))?;
        }
        Ok(())
    })
}
