//! What the compiler takes in: plain types, filled by the operator or by a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{DialplanSpec, DispatcherSpec, PbxEndpointSpec, PbxSpec, SecretValue};

/// A kind of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `Pbx`.
    Pbx,
    /// `PbxEndpoint`.
    PbxEndpoint,
    /// `Dialplan`.
    Dialplan,
    /// `Dispatcher`.
    Dispatcher,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 4] = [Kind::Pbx, Kind::PbxEndpoint, Kind::Dialplan, Kind::Dispatcher];

    /// The kind as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Pbx => "Pbx",
            Kind::PbxEndpoint => "PbxEndpoint",
            Kind::Dialplan => "Dialplan",
            Kind::Dispatcher => "Dispatcher",
        }
    }
}

/// A resource's kind and metadata.name. Printed as `PbxEndpoint/8005`, which is also the key of its entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResourceId {
    /// Its kind.
    pub kind: Kind,
    /// Its metadata.name.
    pub name: String,
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

/// A resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// metadata.name.
    pub name: String,
    /// metadata.generation; 0 in a folder.
    pub generation: i64,
    /// metadata.creationTimestamp since the UNIX epoch; none in a folder, where nothing is older than another.
    pub created: Option<Duration>,
    /// Its spec.
    pub spec: Arc<Spec>,
}

impl Resource {
    /// Its kind and name.
    pub fn id(&self) -> ResourceId {
        let kind = match *self.spec {
            Spec::Pbx(_) => Kind::Pbx,
            Spec::Endpoint(_) => Kind::PbxEndpoint,
            Spec::Dialplan(_) => Kind::Dialplan,
            Spec::Dispatcher(_) => Kind::Dispatcher,
        };
        ResourceId { kind, name: self.name.clone() }
    }
}

/// The spec of a resource of any kind. It satisfies the schema; the compiler checks the rest.
#[derive(Debug, Clone, PartialEq)]
pub enum Spec {
    /// Of a `Pbx`.
    Pbx(PbxSpec),
    /// Of a `PbxEndpoint`.
    Endpoint(PbxEndpointSpec),
    /// Of a `Dialplan`.
    Dialplan(DialplanSpec),
    /// Of a `Dispatcher`.
    Dispatcher(DispatcherSpec),
}

/// One change of the compiler's inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A resource is new or has changed.
    Put(Resource),
    /// A resource is gone.
    Delete(ResourceId),
    /// A Secret is new or has changed: all its values.
    Secret {
        /// The Secret's name.
        name: String,
        /// Its values by key.
        values: BTreeMap<String, SecretValue>,
    },
    /// A Secret is gone.
    SecretGone {
        /// The Secret's name.
        name: String,
    },
    /// A fact: where the balancers are reached now, as hosts without ports. None until it is said.
    Hosts(BTreeSet<String>),
}
