//! libFuzzer target: `ng::datagram`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../shared/ng.rs"]
#[allow(dead_code, reason = "each target uses one function")]
mod ng;

fuzz_target!(|input: &[u8]| ng::datagram(input));
