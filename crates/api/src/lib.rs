//! The resources of kubepbx.io and the compiler that turns them into configuration.
//!
//! One resource a file: [`Pbx`], [`PbxEndpoint`], [`Dialplan`], [`Dispatcher`]; their docstrings and rules become the
//! schemas in `crds/` ([`crds`]). [`Compiler`] takes changes of resources and Secrets and gives deltas for each kind of
//! service and a [`Status`] for each resource. [`manifests`] judges YAML as the API server would, with file and line, and
//! [`Folder`] keeps a set of files compiled while they change. Pure: no IO, no clock.

// A print column is an attribute of the same name each time; that is how the derive wants it.
#![allow(clippy::duplicated_attributes)]

pub mod compiler;
pub mod conditions;
pub mod crds;
mod dialplan;
mod dispatcher;
mod duration;
pub mod folder;
pub mod manifests;
mod pbx;
mod pbx_endpoint;
mod schema;
mod secret;
pub mod verdicts;
mod yaml;

pub use crate::compiler::{
    Change, Compiler, Delta, Finding, Held, Kind, Reason, Resource, ResourceId, Spec, State, Status,
};
pub use crate::dialplan::{
    ConfBridge, Dial, Dialplan, DialplanSpec, DialplanStatus, Empty, Extension, Hangup, NoOp, Playback, Step,
};
pub use crate::dispatcher::{
    Algorithm, Destination, Dispatcher, DispatcherSpec, DispatcherStatus, Match, Probe, Unavailable,
};
pub use crate::duration::Duration;
pub use crate::folder::{Folder, Update};
pub use crate::manifests::{Manifest, Problem, Source};
pub use crate::pbx::*;
pub use crate::pbx_endpoint::{
    Aor, Auth, Callback, Codec, Identify, IdentifyBy, PbxEndpoint, PbxEndpointSpec, PbxEndpointStatus, SecretRef, Wake,
    Webhook,
};
pub use crate::secret::{SecretValue, ha1};
