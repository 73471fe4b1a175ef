//! Compiling: the resources of one namespace, what has changed of them, and the compiler that takes it. Pure.
//!
//! Changes wait in a queue that has a place for each resource and Secret, so that however often one changes it waits once.
//! A resource whose Secret is being fetched waits for that, and the first compilation for everything: to a compiler that has
//! not been told of a Secret it is missing.

use crate::watch::Known;
use crate::watch::secrets::{Fetched, Secrets, Values};
use api::{Change, Compiler, Delta, Held, Kind, Resource, ResourceId, Spec, State};
use std::collections::{BTreeMap, BTreeSet};

/// What is new of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is to be compiled.
    Changed,
    /// Only its status is another one: that of a write of ours, or somebody else's.
    Status,
    /// Nothing that matters.
    Nothing,
}

/// One namespace.
#[derive(Debug, Default)]
pub struct Namespace {
    resources: BTreeMap<ResourceId, Known>,
    /// The Secrets that resources refer to.
    pub secrets: Secrets,
    /// Which resources refer to a Secret.
    refer: BTreeMap<String, BTreeSet<ResourceId>>,
    /// Endpoints by the names that they register as.
    named: BTreeMap<String, Vec<ResourceId>>,
    queue: BTreeSet<ResourceId>,
    values: BTreeMap<String, Option<Values>>,
    /// Where balancers are reached, and whether the compiler is to be told.
    hosts: BTreeSet<String>,
    hosts_changed: bool,
    compiler: Option<Compiler>,
    /// Whether the compiler has been told of everything once.
    begun: bool,
}

impl Namespace {
    /// A resource is there, new or changed. What is older than what is known is left out: it was on its way when the
    /// answer to a write came.
    pub fn put(&mut self, known: Known) -> Put {
        let id = known.resource.id();
        let old = self.resources.get(&id);
        if old.is_some_and(|old| old.uid == known.uid && old.version > known.version) {
            return Put::Nothing;
        }
        // A new object of an old name may have the old generation.
        let changed = old.is_none_or(|old| old.uid != known.uid || old.resource != known.resource);
        let status = old.is_some_and(|old| old.conditions != known.conditions || old.observed != known.observed);
        if changed {
            let before = old.map(|old| secrets(&old.resource.spec)).unwrap_or_default();
            let now = secrets(&known.resource.spec);
            before.difference(&now).for_each(|name| self.unrefer(name, &id));
            for name in now.difference(&before) {
                self.secrets.want(name);
                self.refer.entry(name.clone()).or_default().insert(id.clone());
            }
            if let Some(name) = self.resources.get(&id).and_then(|old| endpoint(&old.resource)).map(str::to_owned) {
                self.unname(&name, &id);
            }
            if let Some(name) = endpoint(&known.resource) {
                let who = self.named.entry(name.to_owned()).or_default();
                if !who.contains(&id) {
                    // Mostly it is the only one.
                    who.reserve_exact(1);
                    who.push(id.clone());
                }
            }
        }
        self.resources.insert(id.clone(), known);
        if changed {
            self.queue.insert(id);
        }
        match (changed, status) {
            (true, _) => Put::Changed,
            (false, true) => Put::Status,
            (false, false) => Put::Nothing,
        }
    }

    /// A resource is gone.
    pub fn gone(&mut self, id: &ResourceId) {
        if let Some(old) = self.resources.remove(id) {
            secrets(&old.resource.spec).iter().for_each(|name| self.unrefer(name, id));
            endpoint(&old.resource).into_iter().for_each(|name| self.unname(name, id));
            self.queue.insert(id.clone());
        }
    }

    fn unname(&mut self, name: &str, id: &ResourceId) {
        let Some(who) = self.named.get_mut(name) else { return };
        who.retain(|other| other != id);
        if who.is_empty() {
            self.named.remove(name);
        }
    }

    /// All names that endpoints register as.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.named.keys()
    }

    /// The endpoints that register as this.
    pub fn endpoints(&self, name: &str) -> impl Iterator<Item = &ResourceId> {
        self.named.get(name).into_iter().flatten()
    }

    fn unrefer(&mut self, name: &str, id: &ResourceId) {
        let Some(who) = self.refer.get_mut(name) else { return };
        who.remove(id);
        if who.is_empty() {
            self.refer.remove(name);
            self.secrets.drop(name);
            self.values.remove(name);
        }
    }

    /// A Secret is gone.
    pub fn secret_gone(&mut self, name: &str) {
        if self.secrets.gone(name) {
            self.values.insert(name.to_owned(), None);
        }
    }

    /// What came of fetching a Secret.
    pub fn fetched(&mut self, name: &str, fetched: Fetched) {
        if let Some(values) = self.secrets.fetched(name, fetched) {
            self.values.insert(name.to_owned(), values);
        }
    }

    /// Where balancers are reached now.
    pub fn reached_at(&mut self, hosts: BTreeSet<String>) {
        self.hosts_changed |= self.hosts != hosts;
        self.hosts = hosts;
    }

    /// Begins with a new compiler, whose versions are of this epoch.
    pub fn begin(&mut self, epoch: u64, held: Held) {
        self.compiler = Some(Compiler::new(epoch, held));
        self.begun = false;
        self.values.clear();
        self.hosts_changed = true;
        self.secrets.forget();
        self.queue = self.resources.keys().cloned().collect();
    }

    /// Compiles no longer.
    pub fn end(&mut self) {
        self.compiler = None;
        self.values.clear();
        self.hosts_changed = false;
        self.queue.clear();
    }

    /// How many changes wait.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.values.len() + usize::from(self.hosts_changed)
    }

    /// Compiles what may be compiled now; `None` if that is nothing. All watchers must have told of everything.
    pub fn compile(&mut self) -> Option<Delta> {
        let compiler = self.compiler.as_mut()?;
        let secrets = &self.secrets;
        if !self.begun && secrets.any_pending() {
            return None;
        }
        let pending = |id: &ResourceId| {
            let spec = self.resources.get(id).map(|known| &known.resource.spec);
            spec.is_some_and(|spec| self::secrets(spec).iter().any(|name| secrets.is_pending(name)))
        };
        let (wait, ready): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(|id| self.begun && pending(id));
        self.queue = wait;
        let mut changes: Vec<Change> = std::mem::take(&mut self.values)
            .into_iter()
            .map(|(name, values)| match values {
                Some(values) => Change::Secret { name, values },
                None => Change::SecretGone { name },
            })
            .collect();
        changes.extend(std::mem::take(&mut self.hosts_changed).then(|| Change::Hosts(self.hosts.clone())));
        changes.extend(ready.into_iter().map(|id| match self.resources.get(&id) {
            Some(known) => Change::Put(known.resource.clone()),
            None => Change::Delete(id),
        }));
        if changes.is_empty() && self.begun {
            return None;
        }
        self.begun = true;
        Some(compiler.apply(changes))
    }

    /// The compiler, once it has been told of everything.
    pub fn compiler(&self) -> Option<&Compiler> {
        self.compiler.as_ref().filter(|_| self.begun)
    }

    /// A resource.
    pub fn get(&self, id: &ResourceId) -> Option<&Known> {
        self.resources.get(id)
    }

    /// A resource, to note what was written to it.
    pub fn get_mut(&mut self, id: &ResourceId) -> Option<&mut Known> {
        self.resources.get_mut(id)
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// All resources.
    pub fn resources(&self) -> impl Iterator<Item = (&ResourceId, &Known)> {
        self.resources.iter()
    }

    /// The Pbx that has the namespace's place, and whether what it says now is live.
    pub fn pbx(&self) -> Option<(&Known, State)> {
        let statuses = self.compiler()?.statuses();
        // Kinds stand in order, and this one is the first.
        let all = self.resources.iter().take_while(|(id, _)| id.kind == Kind::Pbx);
        let mut states = all.filter_map(|(id, known)| Some((known, statuses.get(id)?.state)));
        states.find(|(_, state)| *state != State::Out)
    }
}

/// The name that an endpoint registers as; none for what cannot register.
pub fn endpoint(resource: &Resource) -> Option<&str> {
    match resource.spec.as_ref() {
        Spec::Endpoint(spec) if spec.aor.is_some() => Some(spec.name.as_deref().unwrap_or(&resource.name)),
        _ => None,
    }
}

/// The Secrets that a spec compiles from.
fn secrets(spec: &Spec) -> BTreeSet<String> {
    let (one, other) = match spec {
        Spec::Endpoint(endpoint) => {
            let key = endpoint.callback.as_ref().map(|callback| &callback.webhook.secret_ref.name);
            (endpoint.auth.as_ref().map(|auth| &auth.password_secret_ref.name), key)
        }
        Spec::Pbx(pbx) => (pbx.store.as_ref().map(|store| &store.secret_ref.name), None),
        Spec::Dialplan(_) | Spec::Dispatcher(_) => (None, None),
    };
    one.into_iter().chain(other).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::SecretValue;
    use serde_json::json;
    use std::sync::Arc;

    fn phone(name: &str, generation: i64, secret: &str) -> Known {
        let spec = json!({"context": "x", "auth": {"username": name,
            "passwordSecretRef": {"name": secret, "key": name}}});
        let spec = Arc::new(Spec::Endpoint(serde_json::from_value(spec).unwrap()));
        let resource = Resource { name: name.into(), generation, created: None, spec };
        Known {
            resource,
            uid: name.into(),
            version: generation.unsigned_abs(),
            conditions: Vec::new(),
            observed: Default::default(),
        }
    }

    fn pbx(name: &str, created: u64) -> Known {
        let created = Some(std::time::Duration::from_secs(created));
        let spec = Arc::new(Spec::Pbx(api::PbxSpec::default()));
        let resource = Resource { name: name.into(), generation: 1, created, spec };
        Known { resource, uid: name.into(), version: 1, conditions: Vec::new(), observed: Default::default() }
    }

    fn id(name: &str) -> ResourceId {
        ResourceId { kind: Kind::PbxEndpoint, name: name.into() }
    }

    fn values(names: &[&str], version: &str) -> Fetched {
        let values = names.iter().map(|n| ((*n).to_owned(), SecretValue::new(*n))).collect();
        Fetched::Values(version.into(), values)
    }

    /// What is live of phones.
    fn live(namespace: &Namespace) -> Vec<String> {
        let statuses = namespace.compiler().unwrap().statuses().iter();
        statuses.filter(|(_, status)| status.state == State::Live).map(|(id, _)| id.name.clone()).collect()
    }

    #[test]
    fn the_first_compilation_waits_for_all_secrets_and_a_later_one_only_for_its_own() {
        let mut namespace = Namespace::default();
        namespace.secrets.seen("phones", "1".into());
        namespace.put(phone("1", 1, "phones"));
        namespace.put(phone("2", 1, "missing"));
        assert!(namespace.compile().is_none(), "nobody leads");
        namespace.begin(3, Held::default());
        assert_eq!(namespace.secrets.ask(), ["phones"]);
        assert!(namespace.compile().is_none() && namespace.compiler().is_none());
        namespace.fetched("phones", values(&["1", "3"], "1"));
        let delta = namespace.compile().unwrap();
        assert_eq!((delta.statuses.len(), live(&namespace)), (2, vec!["1".to_owned()]));
        assert_eq!(namespace.compiler().unwrap().router().version.epoch, 3);
        // One that waits for its Secret holds up no other.
        namespace.secrets.seen("more", "1".into());
        namespace.put(phone("4", 1, "more"));
        namespace.put(phone("3", 1, "phones"));
        assert_eq!(namespace.compile().unwrap().statuses.len(), 1);
        assert_eq!((live(&namespace), namespace.waiting()), (vec!["1".to_owned(), "3".into()], 1));
        assert!(namespace.compile().is_none());
        assert_eq!(namespace.secrets.ask(), ["more"]);
        namespace.fetched("more", values(&["4"], "1"));
        assert_eq!(namespace.compile().unwrap().statuses.len(), 1);
        assert_eq!((live(&namespace).len(), namespace.waiting()), (3, 0));
    }

    #[test]
    fn what_changes_often_waits_once_and_a_status_is_no_change() {
        let mut namespace = Namespace::default();
        namespace.begin(1, Held::default());
        namespace.compile();
        for generation in 1..10 {
            assert_eq!(namespace.put(phone("1", generation, "phones")), Put::Changed);
        }
        assert_eq!(namespace.put(phone("1", 3, "phones")), Put::Nothing, "older than what is known");
        assert_eq!(namespace.waiting(), 1);
        let delta = namespace.compile().unwrap();
        assert_eq!(delta.statuses[&id("1")].as_ref().unwrap().generation, 9);
        assert_eq!(namespace.put(Known { version: 10, ..phone("1", 9, "phones") }), Put::Nothing);
        let observed = crate::observe::Registration::default().status();
        assert_eq!(namespace.put(Known { version: 10, observed, ..phone("1", 9, "phones") }), Put::Status);
        assert!(namespace.compile().is_none());
        namespace.put(Known { uid: "another".into(), version: 11, ..phone("1", 9, "phones") });
        assert!(namespace.compile().is_some());
        namespace.gone(&id("1"));
        assert_eq!(namespace.compile().unwrap().statuses[&id("1")], None);
    }

    #[test]
    fn a_rotated_secret_and_one_that_is_gone_reach_the_compiler() {
        let mut namespace = Namespace::default();
        namespace.secrets.seen("phones", "1".into());
        namespace.put(phone("1", 1, "phones"));
        namespace.begin(1, Held::default());
        namespace.secrets.ask();
        namespace.fetched("phones", values(&["1"], "1"));
        namespace.compile();
        namespace.secrets.seen("phones", "2".into());
        assert_eq!(namespace.secrets.ask(), ["phones"]);
        namespace.fetched("phones", Fetched::Values("2".into(), [("1".into(), SecretValue::new("new"))].into()));
        let delta = namespace.compile().unwrap();
        assert!(delta.router.is_some() && delta.statuses.is_empty());
        namespace.secret_gone("phones");
        let delta = namespace.compile().unwrap();
        assert_eq!(delta.statuses[&id("1")].as_ref().unwrap().state, State::Held);
        assert!(delta.router.is_none());
    }

    #[test]
    fn where_balancers_are_reached_is_told_when_it_changes_and_to_each_compiler() {
        let mut namespace = Namespace::default();
        let mut known = pbx("main", 100);
        let Spec::Pbx(spec) = Arc::make_mut(&mut known.resource.spec) else { panic!() };
        spec.domains = vec!["pbx.example.org".into()];
        namespace.put(known);
        let hosts = |namespace: &Namespace| match namespace.compiler().unwrap().registrar().entries["Pbx/main"].as_ref()
        {
            contract::config::RegistrarEntry::Pbx(pbx) => pbx.hosts.clone(),
            other => panic!("{other:?}"),
        };
        let at = |host: &str| BTreeSet::from([host.to_owned()]);
        namespace.reached_at(at("192.0.2.7"));
        for epoch in [1, 2] {
            namespace.begin(epoch, Held::default());
            namespace.compile();
            assert_eq!(hosts(&namespace), ["192.0.2.7"]);
        }
        namespace.reached_at(at("192.0.2.7"));
        assert!(namespace.compile().is_none());
        namespace.reached_at(at("192.0.2.8"));
        assert!(namespace.compile().is_some_and(|delta| delta.registrar.is_some() && delta.router.is_none()));
        assert_eq!(hosts(&namespace), ["192.0.2.8"]);
    }

    #[test]
    fn the_place_of_the_pbx_is_one_and_a_new_leader_begins_with_everything() {
        let mut namespace = Namespace::default();
        namespace.put(pbx("young", 200));
        namespace.put(pbx("old", 100));
        assert!(namespace.pbx().is_none());
        namespace.begin(1, Held::default());
        namespace.compile();
        let name = |n: &Namespace| n.pbx().map(|(known, state)| (known.resource.name.clone(), state));
        assert_eq!(name(&namespace), Some(("old".into(), State::Live)));
        namespace.end();
        assert_eq!((name(&namespace), namespace.waiting()), (None, 0));
        namespace.begin(2, Held::default());
        // Both, and where balancers are reached.
        assert_eq!(namespace.waiting(), 3);
        namespace.compile();
        assert_eq!(name(&namespace), Some(("old".into(), State::Live)));
    }
}
