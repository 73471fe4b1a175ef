//! A bounded, deterministic run of the fuzz target for session descriptions over its seeds and mutations of them (`fuzz/`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use std::path::Path;

#[path = "../../../fuzz/shared/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/shared/sdp.rs"]
mod targets;

#[test]
fn session() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/sdp");
    mutate::run(&[&seeds], targets::WORDS, targets::session);
}
