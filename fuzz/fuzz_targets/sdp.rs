//! libFuzzer target: `sdp::session`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../shared/sdp.rs"]
#[allow(dead_code, reason = "each target uses one function")]
mod sdp;

fuzz_target!(|input: &[u8]| sdp::session(input));
