//! A bounded, deterministic run of the fuzz target for NG datagrams over its seeds and mutations of them (`fuzz/`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use std::path::Path;

#[path = "../../../fuzz/shared/mutate.rs"]
mod mutate;
#[path = "../../../fuzz/shared/ng.rs"]
mod targets;

#[test]
fn datagram() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/ng");
    mutate::run(&[&seeds], targets::WORDS, targets::datagram);
}
