//! The operator will watch the resources of `kubepbx.io`, compile them with `api::Compiler`, build and apply pods and
//! services, publish deltas to processes and write statuses. It is not written yet: today the folder of
//! `kubepbx serve` is the only source of configuration.

pub mod build;
pub mod scale;
