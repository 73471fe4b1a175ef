//! The media service: an RTP relay driven by the NG protocol.
//!
//! [`core`] decides: calls, legs, where packets go, what was learned of a peer's address, when a call is idle. It owns no
//! socket and no clock. [`driver`] holds one thread a core, each with its own calls, sockets and epoll; nothing
//! asynchronous stands in the path of a packet.

mod address;
mod command;
pub mod config;
pub mod core;
pub mod driver;
mod ng;
mod ports;
mod rewrite;
pub mod service;
mod session;
mod stream;
mod sys;

pub use config::Config;
pub use driver::{BuildError, Event, MediaHandle, Running, build};
pub use service::serve;
pub use session::{Counters, Ports};
