//! Contract tests: one suite for every store, one for the source of configuration, and the admin server over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Helpers of tests are tests too.

mod admin;
mod mesh;
mod persistence;
mod redis_server;
mod site;
mod source;
mod store_contract;
mod store_loss;
mod stream;
mod stream_refusals;
