//! Watching: what there is in the namespaces that are served, as plain facts in one bounded queue.
//!
//! Each kind has a watcher of its own for each scope (a namespace, or all of them). It remembers names and resource
//! versions, so that a list that begins anew tells only what changed meanwhile, and what is gone. Secrets come as metadata;
//! [`secrets`] fetches by name those that something refers to.

mod facts;
mod follow;
mod raw;
pub mod secrets;

use crate::apply::Live;
use crate::engine::Marks;
use crate::metrics::Measures;
use crate::observe::Observed;
use crate::programmed::Pod;
use api::conditions::Condition;
use api::{Dialplan, Dispatcher, Kind, Pbx, PbxEndpoint, Resource, ResourceId};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, PartialObjectMeta};
use kube::core::ApiResource;
use kube::{Client, runtime::watcher};
use std::fmt;
use std::net::IpAddr;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Facts that wait to be taken before watchers are held up.
const QUEUE: usize = 1024;

/// A watch is asked for anew after this, in seconds; one that is dead without saying so is found out as late.
const RENEWED: u32 = 60;

/// The label and value of what the operator makes.
pub const MANAGED: &str = "app.kubernetes.io/managed-by=kubepbx-operator";

/// The label and value of our pods.
const OURS: &str = "app.kubernetes.io/name=kubepbx";

/// Where resources are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// In every namespace.
    All,
    /// In these.
    Namespaces(Vec<String>),
}

impl Scope {
    /// Each part that is watched by itself; none: everything.
    fn parts(&self) -> Vec<Option<String>> {
        match self {
            Scope::All => vec![None],
            Scope::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    /// `all`, or namespaces with commas between them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Scope::All);
        }
        let mut names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        names.sort();
        names.dedup();
        let label = |name: &String| {
            let chars = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            chars && !name.is_empty() && name.len() <= 63
        };
        match names.iter().find(|name| !label(name)) {
            Some(name) => Err(format!("{name:?} is no namespace: write all, or names with commas between them")),
            None => Ok(Scope::Namespaces(names)),
        }
    }
}

/// What an object is called within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A resource of ours.
    Resource(ResourceId),
    /// A Secret.
    Secret(String),
    /// A pod of a service.
    Pod(String),
    /// What the operator makes.
    Object(ObjectKey),
}

/// Kind and name of an object that the operator makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind, such as `Deployment`.
    pub kind: String,
    /// Its metadata.name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A resource of ours, as the API server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// What the compiler takes.
    pub resource: Resource,
    /// Its metadata.uid.
    pub uid: String,
    /// Its metadata.resourceVersion, which only grows.
    pub version: u64,
    /// Its status.conditions.
    pub conditions: Vec<Condition>,
    /// What its status says was observed.
    pub observed: Observed,
}

/// A pod of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What the latch wants to know.
    pub pod: Pod,
    /// The Pbx that it belongs to.
    pub pbx: String,
    /// The address of its node.
    pub node: Option<IpAddr>,
    /// What its annotations say.
    pub marks: Marks,
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    /// A resource of ours.
    Resource(Box<Known>),
    /// A resource that this release cannot read: why. What it last said stays.
    Unreadable(String),
    /// A Secret's resource version.
    Secret(String),
    /// A pod of a service.
    Pod(Seen),
    /// An object that the operator makes.
    Object(Live),
}

/// One thing seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is there, new or changed.
    Put {
        /// Its namespace.
        namespace: String,
        /// What it is called.
        key: Key,
        /// What is known of it.
        fact: Fact,
    },
    /// It is gone.
    Gone {
        /// Its namespace.
        namespace: String,
        /// What it was called.
        key: Key,
    },
    /// One more watcher of this part of the scope has told all there is.
    Synced(Option<String>),
}

/// All watchers. Dropping it ends them.
#[derive(Debug)]
pub struct Watch {
    /// What they see, in order for each object.
    pub events: mpsc::Receiver<Event>,
    /// Watchers for each part of the scope: so many [`Event::Synced`] say that all there is was told.
    pub watchers: usize,
    /// Parts of the scope.
    pub parts: usize,
    _tasks: JoinSet<()>,
}

/// The kinds of objects that the operator makes and watches.
pub fn made() -> [(&'static str, ApiResource); 7] {
    [
        ("ServiceAccount", ApiResource::erase::<core::ServiceAccount>(&())),
        ("ConfigMap", ApiResource::erase::<core::ConfigMap>(&())),
        ("Service", ApiResource::erase::<core::Service>(&())),
        ("NetworkPolicy", ApiResource::erase::<NetworkPolicy>(&())),
        ("PodDisruptionBudget", ApiResource::erase::<PodDisruptionBudget>(&())),
        ("Deployment", ApiResource::erase::<Deployment>(&())),
        ("DaemonSet", ApiResource::erase::<DaemonSet>(&())),
    ]
}

/// The resource of a kind of ours.
pub fn resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Pbx => ApiResource::erase::<Pbx>(&()),
        Kind::PbxEndpoint => ApiResource::erase::<PbxEndpoint>(&()),
        Kind::Dialplan => ApiResource::erase::<Dialplan>(&()),
        Kind::Dispatcher => ApiResource::erase::<Dispatcher>(&()),
    }
}

/// Watches everything that matters in a scope.
pub fn watch(client: &Client, scope: &Scope, measures: &Measures) -> Watch {
    let (tell, events) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    let (mut watchers, parts) = (0, scope.parts());
    let count = parts.len();
    for part in parts {
        let (client, tell, measures) = (client.clone(), tell.clone(), measures.clone());
        let site = follow::Part { client, part, tell, measures };
        watchers = 0;
        // Small pages: what comes is larger by far than what is kept of it.
        let plain = watcher::Config::default().timeout(RENEWED).page_size(100);
        for kind in Kind::ALL {
            let api = site.dynamic(&resource(kind));
            tasks.spawn(site.clone().follow(kind.as_str(), api, plain.clone(), move |o| facts::resource(kind, o)));
            watchers += 1;
        }
        for (kind, resource) in made() {
            let (api, config) = (site.dynamic(&resource), plain.clone().labels(MANAGED));
            tasks.spawn(site.clone().follow(kind, api, config, move |o| facts::object(kind, o)));
            watchers += 1;
        }
        let secrets: Api<PartialObjectMeta<core::Secret>> = site.typed();
        tasks.spawn(site.clone().follow("Secret", secrets, plain.clone(), facts::secret));
        let pods: Api<core::Pod> = site.typed();
        tasks.spawn(site.clone().follow("Pod", pods, plain.labels(OURS), facts::pod));
        watchers += 2;
    }
    Watch { events, watchers, parts: count, _tasks: tasks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_all_or_names() {
        let names = |names: &[&str]| Ok(Scope::Namespaces(names.iter().map(|n| (*n).to_owned()).collect()));
        for (text, want) in [("all", Ok(Scope::All)), ("tel", names(&["tel"])), ("b, a,b", names(&["a", "b"]))] {
            assert_eq!(text.parse::<Scope>(), want);
        }
        for text in ["", "a,", "Tel", "a b"] {
            assert!(text.parse::<Scope>().unwrap_err().contains("write all"), "{text}");
        }
    }
}
