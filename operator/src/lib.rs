//! The operator: watches the resources of `kubepbx.io`, compiles them with `api::Compiler`, builds and applies pods and
//! services, publishes deltas to processes and writes statuses.
//!
//! [`leader`] elects the one that does so; [`publish`] serves what was compiled to the processes that [`review`] knows, under
//! the certificate that [`tls`] made; [`programmed`] decides when an object is live everywhere. [`held`] is what the next leader must
//! know beside the resources.

pub mod held;
pub mod leader;
pub mod metrics;
pub mod programmed;
pub mod publish;
pub mod review;
pub mod tls;
