//! What the compiler says about a resource.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::build::Ref;
use super::{Claim, Claims, ResourceId};
use crate::conditions::{self, Condition};

/// Why something is found wrong: the `reason` of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// A value that the schema cannot judge is wrong: a network, a URI, a reference to a variable.
    InvalidValue,
    /// An extension pattern cannot be read.
    InvalidPattern,
    /// A step cannot be run: a dial target, a prompt, a substitution, a condition or a place in it is wrong.
    InvalidStep,
    /// Two extensions of one context have the same pattern.
    DuplicatePattern,
    /// A step or an extension that nothing ever runs.
    Unreachable,
    /// Steps that go round for ever, with none among them that takes time.
    EndlessLoop,
    /// A name, a username, a context or a dispatcher's pattern belongs to another resource; or there is a `Pbx` already.
    Conflict,
    /// The Secret referred to does not exist.
    SecretNotFound,
    /// The Secret referred to has no such key, or nothing under it.
    SecretKeyNotFound,
    /// A context referred to does not exist. What refers to it is live all the same.
    ContextNotFound,
    /// An endpoint referred to does not exist. What refers to it is live all the same.
    EndpointNotFound,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 11] = [
        Reason::InvalidValue,
        Reason::InvalidPattern,
        Reason::InvalidStep,
        Reason::DuplicatePattern,
        Reason::Unreachable,
        Reason::EndlessLoop,
        Reason::Conflict,
        Reason::SecretNotFound,
        Reason::SecretKeyNotFound,
        Reason::ContextNotFound,
        Reason::EndpointNotFound,
    ];

    /// The reason as conditions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::InvalidValue => "InvalidValue",
            Reason::InvalidPattern => "InvalidPattern",
            Reason::InvalidStep => "InvalidStep",
            Reason::DuplicatePattern => "DuplicatePattern",
            Reason::Unreachable => "Unreachable",
            Reason::EndlessLoop => "EndlessLoop",
            Reason::Conflict => "Conflict",
            Reason::SecretNotFound => "SecretNotFound",
            Reason::SecretKeyNotFound => "SecretKeyNotFound",
            Reason::ContextNotFound => "ContextNotFound",
            Reason::EndpointNotFound => "EndpointNotFound",
        }
    }

    /// True when the resource does not become live by it; false when it is live and only something that it names is not.
    pub fn keeps_out(self) -> bool {
        !matches!(self, Reason::ContextNotFound | Reason::EndpointNotFound)
    }

    /// Whether it belongs to the condition `ResolvedRefs` rather than to `Accepted`.
    fn is_reference(self) -> bool {
        use Reason::{ContextNotFound, EndpointNotFound, SecretKeyNotFound, SecretNotFound};
        matches!(self, SecretNotFound | SecretKeyNotFound | ContextNotFound | EndpointNotFound)
    }
}

/// One thing found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The resource.
    pub resource: ResourceId,
    /// The field, such as `spec.extensions[1].steps[0].dial.to[0]`.
    pub path: String,
    /// Why, in one word.
    pub reason: Reason,
    /// Why, for people: says what to write instead.
    pub message: String,
}

impl Finding {
    pub(super) fn new(id: &ResourceId, path: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self { resource: id.clone(), path: path.into(), reason, message: message.into() }
    }

    pub(super) fn conflict(id: &ResourceId, path: String, claim: &Claim, winner: &ResourceId) -> Self {
        let message = match claim {
            Claim::Pbx => format!("{winner} is this namespace's Pbx already: a namespace has one"),
            Claim::Context(name) => {
                format!("the context {name:?} is defined twice: {winner} has it, choose another name")
            }
            Claim::Endpoint(name) => {
                format!("the endpoint {name:?} is defined twice: {winner} has it, choose another name")
            }
            Claim::Username(name) => format!("the username {name:?} belongs to {winner}: choose another"),
            Claim::Dispatcher(name) => {
                format!("the dispatcher {name:?} is defined twice: {winner} has it, choose another name")
            }
            Claim::Match(pattern) => {
                format!("the pattern \"{pattern}\" belongs to the match of {winner}: choose another")
            }
        };
        Self::new(id, path, Reason::Conflict, message)
    }

    pub(super) fn dangling(id: &ResourceId, path: String, reference: &Ref) -> Self {
        let (reason, message) = match reference {
            Ref::Context(name) => {
                (Reason::ContextNotFound, format!("there is no context {name:?}: write a Dialplan of this name"))
            }
            Ref::Endpoint(name) => {
                (Reason::EndpointNotFound, format!("there is no endpoint {name:?}: write a PbxEndpoint of this name"))
            }
            Ref::Secret(name) => (Reason::SecretNotFound, format!("there is no Secret {name:?}")),
        };
        Self::new(id, path, reason, message)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.resource, self.path, self.message)
    }
}

/// Whether a resource is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// What it says now is live.
    Live,
    /// What it last said that was good is live.
    Held,
    /// Nothing of it is live.
    Out,
}

/// What is known of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The generation that this is about.
    pub generation: i64,
    /// Whether it is live.
    pub state: State,
    /// What is wrong with it; none: all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What it holds alone.
    #[serde(skip)]
    pub(super) claims: Claims,
}

impl Status {
    /// Sets the conditions `Accepted` and `ResolvedRefs`; `now` is wall time since the UNIX epoch. True when either changed.
    pub fn set_conditions(&self, conditions: &mut Vec<Condition>, now: Duration) -> bool {
        let mut changed = false;
        for (kind, references) in [("Accepted", false), ("ResolvedRefs", true)] {
            let found: Vec<_> = self.findings.iter().filter(|f| f.reason.is_reference() == references).collect();
            let reason = found.first().map_or(kind, |finding| finding.reason.as_str());
            let mut message = found.iter().map(|f| format!("{}: {}", f.path, f.message)).collect::<Vec<_>>().join("; ");
            if !found.is_empty() && self.state == State::Held {
                message.push_str("; what was last good stays live");
            }
            changed |= conditions::set(conditions, kind, found.is_empty(), reason, &message, self.generation, now);
        }
        changed
    }
}
