//! Two installations in one cluster.

use crate::calls::{first_call_example, talk};
use anyhow::{Result, ensure};
use cluster_tests::Space;
use e2e::Phone;
use std::time::Duration;

/// Each answers its own phones, and knows nothing of the other's.
#[test]
fn two_pbxes_do_not_see_each_other() -> Result<()> {
    Space::test("left", |left| {
        first_call_example(left)?;
        let port = left.port;
        Space::beside("right", |right| {
            ensure!(right.port != port, "one port for both");
            right.install(&[])?;
            // Nobody is known there yet.
            let mut stranger = left.cluster.outside(|| Phone::start("register", right.server(0), "8005", &[]))?;
            let (registered, report) = stranger.report(Duration::from_secs(10))?;
            ensure!(!registered, "a phone of the other installation: {report}");
            right.apply_path("examples/first-call")?;
            right.wait("PbxEndpoint", "8006", "Ready", Duration::from_secs(10))?;
            right.wait("Dialplan", "from-external", "Ready", Duration::from_secs(10))?;
            // 8006 is registered there, not here.
            let callee = left.cluster.outside(|| Phone::answering(right.server(0), "8006", &[]))?;
            let options = ["--to", "8006", "--seconds", "1"];
            let mut caller = left.cluster.outside(|| Phone::start("call", left.server(0), "8005", &options))?;
            let (called, report) = caller.report(Duration::from_secs(20))?;
            ensure!(!called, "a call went across: {report}");
            drop(callee);
            talk(left, "1")
        })
    })
}
