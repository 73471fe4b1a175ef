//! Every tier restarted under load.

use crate::calls::first_call_example;
use anyhow::{Context, Result, ensure};
use cluster_tests::{Calls, Space};
use e2e::Phone;
use serde_json::Value;
use std::time::Duration;

const TIERS: [(&str, &str); 5] = [
    ("deployment", "registrar"),
    ("deployment", "conference"),
    ("deployment", "media"),
    ("deployment", "router"),
    ("daemonset", "balancer"),
];

/// 50 calls with audio, and new ones all the while: none is lost, none refused.
#[test]
fn every_tier_restarts_under_calls() -> Result<()> {
    Space::alone("rollout", |space| {
        first_call_example(space)?;
        for (kind, tier) in TIERS {
            let calls = Calls::begin(space, 50)?;
            // About two new calls a second, until it is told to end.
            let mut caller = space.cluster.outside(|| {
                let options = ["--to", "8006", "--calls", "100000", "--parallel", "1", "--seconds", "0.5"];
                Phone::start("call", space.server(0), "8005", &options)
            })?;
            let name = format!("{kind}/pbx-{tier}");
            space.cluster.kubectl(&["rollout", "restart", &name, "-n", &space.namespace])?;
            space.cluster.kubectl(&["rollout", "status", &name, "-n", &space.namespace, "--timeout", "120s"])?;
            caller.process().signal("TERM")?;
            let (_, report) = caller.report(Duration::from_secs(60))?;
            let figures = calls.end()?;
            let mut statuses: Vec<&Value> =
                report["calls"].as_array().context("calls")?.iter().map(|c| &c["status"]).collect();
            eprintln!("rollout of {tier}: {figures}; new calls: {}", statuses.len());
            // The last one may not have been answered when its caller was told to end.
            let last = statuses.pop();
            ensure!(last.is_some_and(|status| status == 200 || status == 487), "the last new call: {last:?}");
            let all = statuses.len() > 5 && statuses.iter().all(|status| *status == 200);
            ensure!(all, "new calls during the rollout of {tier}: {statuses:?}");
            figures.all_kept(1500.0)?;
        }
        Ok(())
    })
}
