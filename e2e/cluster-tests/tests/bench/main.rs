//! What a change costs on a real cluster: from `kubectl apply` to live in every pod, beside a bare watcher of the same run as
//! the floor; then ten thousand endpoints. Prints figures and judges none: the machine is whoever's it is.
//!
//! `ENDPOINTS=1000,10000` are how many there are in the first and in the second part.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;

use anyhow::{Context, Result};
use changes::Watcher;
use cluster_tests::Space;
use e2e::eventually;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Single changes that are measured.
const CHANGES: usize = 200;
/// Changes come no faster than statuses are written, twenty a second: what waits for others is not measured.
const APART: Duration = Duration::from_millis(100);
/// Ten thousand statuses at that pace, and some.
const ALL: Duration = Duration::from_secs(1200);
/// For how long requests are counted when nothing changes.
const REST: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let asked = std::env::var("ENDPOINTS").unwrap_or_else(|_| "1000,10000".to_owned());
    let (some, many) = asked.split_once(',').context("ENDPOINTS is two numbers: 1000,10000")?;
    let (some, many) = (some.parse()?, many.parse()?);
    Space::test("bench", |space| {
        space.install(&[])?;
        space.apply_path("examples/first-call")?;
        space.wait("Dialplan", "from-external", "Ready", Duration::from_secs(20))?;
        let watcher = Watcher::begin(space)?;
        let mut there = 0;
        for count in [some, many] {
            fill(space, there..count)?;
            there = count;
            single_changes(space, &watcher, there)?;
            memory(space)?;
        }
        rest(space)
    })
}

fn endpoint(n: usize) -> Value {
    json!({
        "apiVersion": "kubepbx.io/v1alpha1", "kind": "PbxEndpoint", "metadata": {"name": name(n)},
        "spec": {
            "context": "from-external", "codecs": ["ulaw"], "aor": {"maxContacts": 1},
            "auth": {"username": name(n), "passwordSecretRef": {"name": "phones", "key": "8005"}}
        }
    })
}

fn name(n: usize) -> String {
    format!("e{n:05}")
}

/// Applies endpoints, and waits until they are live, and until their statuses say so.
fn fill(space: &Space, which: std::ops::Range<usize>) -> Result<()> {
    let (before, count) = (space.sum("operator", LIVE)? as usize, which.len());
    let began = Instant::now();
    let (from, to) = (which.start, which.end);
    changes::apply_all(space, which.map(endpoint).collect())?;
    let applied = began.elapsed();
    eventually("all are live in every pod", ALL, || {
        (space.sum("operator", LIVE).ok()? as usize >= before + count).then_some(())
    })?;
    let live = began.elapsed();
    // The example has two of its own.
    let (wanted, mut last) = (to + 2, 0);
    let said = eventually("all are Programmed", ALL, || {
        let ready = |o: &&cluster_tests::Object| o.is("Programmed", "True");
        last = space.list("PbxEndpoint", "").ok()?.iter().filter(ready).count();
        std::thread::sleep(Duration::from_millis(500));
        (last >= wanted).then_some(())
    });
    said.with_context(|| format!("{last} of {wanted}"))?;
    println!(
        "{from} -> {to} endpoints: applied in {:.1} s, live in every pod after {:.1} s, all statuses after {:.1} s",
        applied.as_secs_f64(),
        live.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Objects that the operator has seen become live.
const LIVE: &str = "kubepbx_operator_live_seconds_count";
const SENT: &str = "kubepbx_stream_sent_bytes_total";

fn single_changes(space: &Space, watcher: &Watcher, there: usize) -> Result<()> {
    let pods = space.sum("operator", "kubepbx_operator_pod_connected")?.max(1);
    let sent = space.sum("operator", SENT)?;
    let (mut floors, mut lives) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let codecs = if n % 2 == 0 { json!(["alaw", "ulaw"]) } else { json!(["ulaw"]) };
        // Spread over all of them, each changed once or twice.
        let name = name(n / 2 * (there / (CHANGES / 2)).max(1));
        let began = Instant::now();
        let object = space.patch("PbxEndpoint", &name, json!({"spec": {"codecs": codecs}}))?;
        let generation = object.0["metadata"]["generation"].as_i64().context("a generation")?;
        let (seen, live) = watcher.wait(&name, generation, Duration::from_secs(20))?;
        floors.push(seen.saturating_duration_since(began));
        lives.push(live.saturating_duration_since(began));
        std::thread::sleep(APART.saturating_sub(began.elapsed()));
    }
    let bytes = space.sum("operator", SENT)? - sent;
    let (floor, live) = (Spread::of(floors), Spread::of(lives));
    println!("{there} endpoints, {CHANGES} single changes: seen by a bare watcher {floor}");
    println!(
        "{there} endpoints, {CHANGES} single changes: Programmed seen          {live}; {:.1} and {:.1} times the floor; {} bytes a pod a change",
        live.median / floor.median,
        live.p99 / floor.p99,
        bytes / pods / CHANGES as u64
    );
    Ok(())
}

/// Milliseconds.
struct Spread {
    median: f64,
    p99: f64,
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1000.0;
        Self { median: at(0.5), p99: at(0.99) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:.1} ms, p99 {:.1} ms", self.median, self.p99)
    }
}

/// What the operator's container takes, as its kubelet says.
fn memory(space: &Space) -> Result<()> {
    for pod in space.pods("operator")? {
        let node = pod.node().context("a node")?;
        let summary: Value = serde_json::from_str(&space.raw(&format!("/api/v1/nodes/{node}/proxy/stats/summary"))?)?;
        let pods = summary["pods"].as_array().into_iter().flatten();
        let ours =
            pods.filter(|p| p["podRef"]["name"] == pod.name() && p["podRef"]["namespace"] == space.namespace.as_str());
        let rss = ours.filter_map(|p| p["containers"][0]["memory"]["rssBytes"].as_u64()).sum::<u64>();
        println!("operator: {:.0} MB resident", rss as f64 / 1e6);
    }
    Ok(())
}

/// Requests for our resources while nothing changes: watches and leases are not among them.
fn rest(space: &Space) -> Result<()> {
    let requests = || -> Result<f64> {
        let text = space.raw("/metrics")?;
        let ours = |line: &&str| {
            line.starts_with("apiserver_request_total{")
                && line.contains("group=\"kubepbx.io\"")
                && !line.contains("verb=\"WATCH\"")
        };
        Ok(text.lines().filter(ours).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    };
    let before = requests()?;
    std::thread::sleep(REST);
    println!("at rest: {:.2} requests a second beside watches and leases", (requests()? - before) / REST.as_secs_f64());
    Ok(())
}
