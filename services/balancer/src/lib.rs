//! The balancer service: the edge, where all SIP from outside enters and leaves.
//!
//! [`core::Core`] decides, [`driver`] does. Transaction-stateful and dialog-stateless: what has to last longer than a
//! transaction stands in tokens ([`token`], `contract::flow`, `contract::leg`) that phones and routers carry for us.

mod config;
pub mod core;
pub mod counters;
pub mod dispatcher;
pub mod driver;
pub mod handover;
pub mod listen;
pub mod options;
pub mod record_route;
pub mod refuse;
pub mod setup;
pub mod token;
pub mod trust;
pub mod via;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use driver::{Bound, build};
