//! The balancer service: the edge, where all SIP from outside enters and leaves.

pub mod core;
pub mod counters;
pub mod dispatcher;
pub mod handover;
pub mod listen;
pub mod options;
pub mod record_route;
pub mod refuse;
pub mod setup;
pub mod token;
pub mod trust;
pub mod via;
