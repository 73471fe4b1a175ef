//! All shared IO: transports, stores, configuration source, peers, telemetry, admin and drain.
//!
//! Services are cores (pure) plus drivers; what drivers have in common stands here. A driver's loop selects over
//! [`mesh::Member::recv`], [`source::Subscription::changed`], the peers' watch, [`timer::sleep_until_mono`] of the
//! core's deadline and [`lookups::Lookups::next`] for finished look-ups.
//!
//! No statics: everything hangs off an [`deps::Environment`], so that two PBXs fit one process.

pub mod admin;
pub mod clock;
pub mod deps;
pub mod discovery;
pub mod drain;
pub mod entropy;
pub mod health;
pub mod keys;
pub mod log;
pub mod lookups;
pub mod media;
pub mod mesh;
pub mod metrics;
pub mod ng;
pub mod process;
pub mod processes;
pub mod running;
pub mod source;
pub mod state;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod timer;
pub mod transport;
pub mod webhook;

pub use clock::Clock;
pub use deps::{Deps, Environment};
pub use drain::Drain;
pub use entropy::entropy;
pub use health::Health;
pub use lookups::Lookups;
pub use metrics::Metrics;
pub use running::Running;
