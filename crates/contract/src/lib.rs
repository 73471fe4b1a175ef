//! What the processes of a PBX tell each other: configuration, peers, tokens, location, records, media control
//! and events. Types and pure functions only; sockets, stores and clocks live in `runtime` and in drivers.
//!
//! What goes over a wire or into a store carries a schema number; fields are only added, unknown ones are ignored.

pub mod clock;
pub mod config;
pub mod digest;
pub mod events;
pub mod flow;
pub mod hop;
pub mod key;
pub mod leg;
pub mod location;
pub mod media;
pub mod ng;
pub mod peers;
pub mod process;
pub mod records;
pub mod rendezvous;
pub mod stream;
pub mod webhook;

pub use clock::Now;
pub use flow::{Flow, Transport};
pub use key::{InstallationKey, KeyRing};
pub use process::{ProcessId, Service};
