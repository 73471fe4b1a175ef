//! `kubepbx serve`, and the services as processes of their own, with real phones: loopback, audio judged by its spectrum.

// A test that cannot go on fails; its helpers stand beside the test functions.
#![allow(clippy::unwrap_used)]

mod bulk;
mod callback;
mod calls;
mod command;
mod dispatcher;
mod failures;
mod hosts;
mod manifests;
mod network;
mod phone;
mod ping;
#[path = "../processes/mod.rs"]
mod processes;
mod rooms;
mod steps;
