//! The operator: watches the resources of `kubepbx.io`, compiles them with `api::Compiler`, builds and applies pods and
//! services, publishes deltas to processes and writes statuses.
//!
//! [`leader`] elects the one that does so; [`publish`] serves what was compiled to the processes that [`review`] knows, under
//! the certificate that [`tls`] made; [`programmed`] decides when an object is live everywhere. [`held`] is what the next leader must
//! know beside the resources. [`engine`] is the loop: it takes what [`watch`] sees, has [`compile`] compile it, and does what
//! [`apply`] and [`status`] decide over the objects that [`build`] makes. [`targets`] tells Prometheus what it cannot see.

pub mod apply;
pub mod build;
pub mod compile;
pub mod cpu;
pub mod engine;
pub mod events;
pub mod figures;
pub mod held;
pub mod keep;
pub mod keys;
pub mod leader;
pub mod metrics;
pub mod objects;
pub mod observe;
pub mod programmed;
pub mod publish;
pub mod rbac;
pub mod review;
pub mod scale;
pub mod status;
pub mod targets;
pub mod tls;
pub mod watch;

/// The five services.
const SERVICES: [contract::Service; 5] = [
    contract::Service::Balancer,
    contract::Service::Registrar,
    contract::Service::Router,
    contract::Service::Media,
    contract::Service::Conference,
];
