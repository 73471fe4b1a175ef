//! libFuzzer target: `sip::digest`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../shared/sip.rs"]
#[allow(dead_code, reason = "each target uses one function")]
mod sip;

fuzz_target!(|input: &[u8]| sip::digest(input));
