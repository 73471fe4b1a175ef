//! Shared harness of the tests on a cluster: the cluster that `e2e/cluster/run` has up, a namespace with an installation of
//! the chart for each test, and phones that live outside.
//!
//! Whatever fails leaves logs, events, objects and a capture in a folder that the message names. A test that passes has
//! leaked nothing: no packet from or to a pod's or a Service's address was seen outside.

pub mod cluster;
mod evidence;
pub mod load;
pub mod objects;
pub mod oracle;
pub mod probe;
pub mod space;

pub use cluster::Cluster;
pub use evidence::scratch;
pub use load::{Calls, Figures};
pub use objects::Object;
pub use oracle::Oracle;
pub use probe::{Probe, Seen};
pub use space::{Space, Values};
