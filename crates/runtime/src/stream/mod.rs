//! The configuration stream between the operator and a process (`contract::stream`), both ends of it.
//!
//! [`registry`] holds what is served, by namespace and service, and what processes have acknowledged; [`server`] answers
//! requests from it and [`listen`] brings them in over TLS. [`client::follow`] feeds a process's subscription. [`tls`] makes
//! and loads the certificates of both.

mod backoff;
pub mod client;
mod feed;
mod http;
mod lines;
pub mod listen;
pub mod registry;
pub mod server;
pub mod tls;
