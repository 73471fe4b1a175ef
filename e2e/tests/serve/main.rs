//! `kubepbx serve` with real phones: one process, loopback, audio judged by its spectrum.

// A test that cannot go on fails; its helpers stand beside the test functions.
#![allow(clippy::unwrap_used)]

mod bulk;
mod calls;
mod dispatcher;
mod failures;
mod hosts;
mod manifests;
mod network;
mod phone;
mod ping;
mod steps;
