//! The suite of the `sip` crate, filed by RFC section and by property.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

mod answers;
mod common;
mod differential;
mod edits;
mod mutations;
mod print_parse;
mod rfc4475_3_1_1;
mod rfc4475_3_1_2;
mod rfc4475_3_2;
mod rfc4475_3_3;
mod rfc4475_3_4;
mod rfc5118_4;
mod streams;
mod uris;
