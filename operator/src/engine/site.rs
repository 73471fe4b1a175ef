//! One namespace under its leader: what is to be done as things are now. No IO: it publishes to memory and gives [`Job`]s.

mod told;
mod trouble;

use super::relays::{Mark, Outcome, Relays};
use crate::apply::{self, Action, Done};
use crate::build::{self, KEYS_SECRET};
use crate::compile::{Namespace, Put};
use crate::events::Note;
use crate::held::Found;
use crate::observe::Registration;
use crate::programmed::{Facts, Latch, Pod, Programmed};
use crate::publish::Publisher;
use crate::scale::Settings;
use crate::status::{self, Cause, Queue};
use crate::watch::secrets::Fetched;
use crate::watch::{Fact, Key, Known, ObjectKey, Seen};
use api::{Kind, PbxSpec, ResourceId, SecretRef, Spec, State, Status};
use contract::{Now, Service};
use kube::api::DynamicObject;
use runtime::stream::registry::Acks;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use trouble::{off, trouble};

/// How long a node without a pod of a service counts as one with such: its pod may only be being replaced.
const REPLACED: Duration = Duration::from_secs(120);

/// How often what is held is looked for while something is.
const LOOK: Duration = Duration::from_secs(5);

/// What is not live yet is judged so soon after a change: at least, and for each resource.
const SOON: Duration = Duration::from_millis(2);
const SOON_EACH: Duration = Duration::from_micros(10);

/// Something to do for a namespace.
#[derive(Debug, PartialEq)]
pub enum Job {
    /// Fetch a Secret: [`Site::fetched`].
    Fetch(String),
    /// Apply or delete an object: [`Site::done`].
    Act(Action),
    /// Make the Secret of the keys, unless there is one: [`Site::keys`].
    Keys,
    /// Mark a pod by an annotation: [`Site::marked`].
    Mark(String, Mark),
    /// Keep what is held for the next leader, as the writing of this number: [`Site::stored`].
    Hold(Found, Owner),
}

/// The Pbx that owns what is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its metadata.name.
    pub name: String,
    /// Its metadata.uid.
    pub uid: String,
}

/// Builds the objects of a Pbx in a namespace.
pub type Build = dyn Fn(&str, &Owner, &PbxSpec, &build::Facts) -> Vec<DynamicObject> + Send + Sync;

/// What a [`Site`] works with.
pub struct Tools<'a> {
    /// What is served.
    pub publisher: &'a mut Publisher,
    /// Statuses that wait to be written.
    pub statuses: &'a mut Queue,
    /// What the pods are made from.
    pub build: &'a Build,
    /// The time.
    pub now: Now,
    /// Whether anything has changed; if not, it is only that something is due.
    pub changed: bool,
}

/// What a turn has done and wants done.
#[derive(Debug, Default)]
pub struct Turn {
    /// To be done.
    pub jobs: Vec<Job>,
    /// Changes that were compiled; none: nothing was.
    pub compiled: Option<usize>,
    /// The namespace is published anew: whoever followed its acknowledgements has to ask for them again.
    pub published_anew: bool,
    /// What people are told of the Pbx.
    pub notes: Vec<Note>,
    /// How long what became live everywhere took to be so, from when it was compiled.
    pub live: Vec<Duration>,
}

/// Whether what is held is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Yes,
    No,
    Storing,
    StoringOld,
}

/// One namespace.
#[derive(Debug)]
pub struct Site {
    name: String,
    resources: Namespace,
    objects: apply::Site,
    /// Objects that are being applied or deleted.
    acting: BTreeSet<ObjectKey>,
    pods: BTreeMap<String, Seen>,
    relays: Relays,
    latch: Option<Latch>,
    acks: Option<watch::Receiver<Arc<Acks>>>,
    /// The Pbx whose objects are desired.
    built: Option<(Owner, PbxSpec, build::Facts)>,
    /// Nodes of pods on their nodes' addresses, and when one was last seen there.
    nodes: BTreeMap<(Service, IpAddr), Duration>,
    making_keys: bool,
    /// What is held, and the number of the next writing.
    held: Found,
    stored: Stored,
    /// Resources that something keeps out, and when what is held was last looked for.
    unwell: BTreeSet<ResourceId>,
    looked: Option<Duration>,
    /// When what is open is to be judged.
    settle_at: Option<Duration>,
    /// When there may be something to do though nothing has changed.
    due: Option<Duration>,
    /// Who is registered, once the store has said so.
    registered: Option<BTreeMap<String, Registration>>,
    /// Where the metrics of each pod are collected, once the store has said so.
    metrics: Option<BTreeMap<String, SocketAddr>>,
    /// What is wrong with the Pbx's objects or pods.
    trouble: Option<(String, String)>,
    /// When what the Pbx shows was last written.
    figures_written: Option<Duration>,
}

impl Site {
    /// A namespace of which nothing is known.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            resources: Namespace::default(),
            objects: apply::Site::default(),
            acting: BTreeSet::new(),
            pods: BTreeMap::new(),
            relays: Relays::default(),
            latch: None,
            acks: None,
            built: None,
            nodes: BTreeMap::new(),
            making_keys: false,
            held: Found::default(),
            stored: Stored::Yes,
            unwell: BTreeSet::new(),
            looked: None,
            settle_at: None,
            due: None,
            registered: None,
            metrics: None,
            trouble: None,
            figures_written: None,
        }
    }

    /// Something is there, new or changed. Gives false if nothing follows from it.
    pub fn put(&mut self, key: Key, fact: Fact, statuses: &mut Queue) -> bool {
        match (key, fact) {
            (Key::Resource(id), Fact::Resource(known)) => match self.resources.put(*known) {
                Put::Changed => true,
                Put::Status => {
                    // An echo of our own write, which is as it should be; or somebody else's, which is not.
                    statuses.push((self.name.clone(), id), Cause::Conditions);
                    false
                }
                Put::Nothing => false,
            },
            (Key::Resource(id), Fact::Unreadable(why)) => {
                tracing::error!(namespace = self.name, %id, why, "this release cannot read it: it stays as it was");
                false
            }
            (Key::Secret(name), Fact::Secret(version)) => {
                self.resources.secrets.seen(&name, version);
                true
            }
            (Key::Object(key), Fact::Object(live)) => {
                self.objects.seen(key, live);
                true
            }
            (Key::Pod(name), Fact::Pod(seen)) => {
                let changed = self.pods.get(&name) != Some(&seen);
                self.pods.insert(name, seen);
                changed
            }
            _ => false,
        }
    }

    /// Something is gone.
    pub fn gone(&mut self, key: &Key, publisher: Option<&Publisher>) {
        match key {
            Key::Resource(id) => self.resources.gone(id),
            Key::Secret(name) => self.resources.secret_gone(name),
            Key::Object(key) => self.objects.gone(key),
            Key::Pod(name) => {
                let gone = self.pods.remove(name);
                if let (Some(gone), Some(publisher)) = (gone, publisher) {
                    publisher.forget(&self.name, gone.pod.service, name);
                }
            }
        }
    }

    /// Whether there is anything of ours.
    pub fn is_served(&self) -> bool {
        !self.resources.is_empty() || self.latch.is_some()
    }

    /// Whether this process leads here, and has begun.
    pub fn is_led(&self) -> bool {
        self.latch.is_some()
    }

    /// This process leads: everything is compiled anew, in versions of this epoch.
    pub fn begin(&mut self, epoch: u64, held: Found) {
        let mut latch = Latch::new(epoch);
        for (id, known) in self.resources.resources().filter(|(_, known)| status::was_live(known)) {
            tracing::trace!(namespace = self.name, %id, known.version, "live before");
            latch.restore(id.clone(), None);
        }
        self.latch = Some(latch);
        self.resources.begin(epoch, held.held.clone());
        (self.held, self.stored) = (held, Stored::Yes);
        (self.unwell, self.looked) = (BTreeSet::new(), None);
        (self.built, self.acks) = (None, None);
        self.acting.clear();
        self.making_keys = false;
    }

    /// This process leads no longer.
    pub fn end(&mut self) {
        (self.latch, self.acks, self.built, self.due) = (None, None, None, None);
        (self.registered, self.relays, self.figures_written) = (None, Relays::default(), None);
        self.metrics = None;
        self.resources.end();
    }

    /// What pods are made from beside the Pbx has changed.
    pub fn rebuild(&mut self) {
        self.built = None;
    }

    /// Does what can be done in memory and gives what else is to be done.
    pub fn turn(&mut self, tools: &mut Tools<'_>) -> Turn {
        let mut turn = Turn::default();
        if self.latch.is_none() {
            return turn;
        }
        turn.jobs.extend(self.resources.secrets.ask().into_iter().map(Job::Fetch));
        self.reach(tools.now.mono);
        self.compile(tools, &mut turn);
        if self.resources.compiler().is_none() {
            return turn;
        }
        self.order(tools.publisher);
        self.make(tools, &mut turn);
        let now = tools.now.mono;
        if tools.changed {
            // What is open is judged as a whole, so not at every change of many.
            let soon = SOON + SOON_EACH * u32::try_from(self.resources.len()).unwrap_or(u32::MAX);
            self.settle_at = Some(self.settle_at.map_or(now + soon, |at| at.min(now + soon)));
        }
        if self.settle_at.is_none_or(|at| at <= now) {
            self.settle_at = None;
            self.settle(tools, &mut turn);
        }
        let figures = self.show(tools.statuses, now);
        let latch = self.latch.as_ref().and_then(|latch| latch.deadline(now));
        let objects = self.objects.deadline().filter(|at| *at > now);
        let nodes = self.nodes.values().filter(|seen| **seen < now).map(|seen| *seen + REPLACED).min();
        let relays = self.relays.again().map(|wall| now + wall.saturating_sub(tools.now.wall) + SOON);
        let some = [latch, relays, objects, nodes, figures, self.settle_at];
        self.due = some.into_iter().flatten().min();
        turn
    }

    fn compile(&mut self, tools: &mut Tools<'_>, turn: &mut Turn) {
        let waiting = self.resources.waiting();
        let Some(delta) = self.resources.compile() else { return };
        turn.compiled = Some(waiting - self.resources.waiting());
        let Some(compiler) = self.resources.compiler() else { return };
        if let Some(latch) = &mut self.latch {
            latch.changed(&delta, tools.now.mono);
        }
        for (id, _) in delta.statuses.iter().filter(|(_, status)| status.is_some()) {
            tools.statuses.push((self.name.clone(), id.clone()), Cause::Conditions);
        }
        let pbx = self.resources.pbx().map(|(pbx, _)| pbx);
        match pbx {
            Some(pbx) => {
                if let Err(error) = tools.publisher.publish(&self.name, &pbx.resource.name, compiler, &delta) {
                    tracing::error!(namespace = self.name, ?error, "what was compiled cannot be published");
                }
                if self.acks.is_none() {
                    self.acks = tools.publisher.acks(&self.name);
                    turn.published_anew = self.acks.is_some();
                }
            }
            None => {
                tools.publisher.stop(&self.name);
                self.acks = None;
            }
        }
        // While all is well nothing is held, and need not be looked for in everything there is. What others contest may
        // change with its holder, who is well: that is looked for once in a while.
        let lately = self.looked.is_some_and(|at| tools.now.mono < at + LOOK);
        let mut look = !self.held.held.is_empty() && !lately;
        for (id, status) in &delta.statuses {
            let well = |s: &Status| s.findings.iter().all(|finding| !finding.reason.keeps_out());
            let is_unwell = status.as_ref().is_some_and(|status| !well(status));
            let was = if is_unwell { !self.unwell.insert(id.clone()) } else { self.unwell.remove(id) };
            look |= is_unwell || was;
        }
        if look {
            self.looked = Some(tools.now.mono);
            let held = compiler.held();
            if held != self.held.held {
                self.held.held = held;
                self.stored = match self.stored {
                    Stored::Yes | Stored::No => Stored::No,
                    Stored::Storing | Stored::StoringOld => Stored::StoringOld,
                };
            }
        }
    }

    /// Tells the pods that are marked to be emptied, and those that are so no longer.
    fn order(&self, publisher: &Publisher) {
        let marked = self.pods.values().filter(|seen| seen.marks.draining.is_some());
        publisher.drain(&self.name, marked.map(|seen| seen.pod.name.clone()).collect());
    }

    /// Builds what the Pbx asks for and gives what is to be applied of it.
    fn make(&mut self, tools: &mut Tools<'_>, turn: &mut Turn) {
        self.count_relays(tools.now.wall, turn);
        let facts = self.facts(tools.now.mono);
        match self.resources.pbx() {
            // What is held is not built: pods stay as they are.
            Some((pbx, State::Live)) => {
                if let Spec::Pbx(spec) = pbx.resource.spec.as_ref() {
                    let now = (owner_of(pbx), spec.clone(), facts);
                    if self.built.as_ref() != Some(&now) {
                        self.objects.desire(&now.0.uid, (tools.build)(&self.name, &now.0, spec, &now.2));
                        self.built = Some(now);
                    }
                }
                if !self.resources.secrets.is_there(KEYS_SECRET) && !std::mem::replace(&mut self.making_keys, true) {
                    turn.jobs.push(Job::Keys);
                }
            }
            Some(_) => {}
            // Its objects go with it: the garbage collector sees to that.
            None => {
                self.objects.desire("", Vec::new());
                self.built = None;
            }
        }
        if let Some((pbx, _)) = self.resources.pbx().filter(|_| self.stored == Stored::No) {
            self.stored = Stored::Storing;
            self.held.number += 1;
            turn.jobs.push(Job::Hold(self.held.clone(), owner_of(pbx)));
        }
        for action in self.objects.next(tools.now.mono) {
            if self.acting.insert(action.key().clone()) {
                turn.jobs.push(Job::Act(action));
            }
        }
        let trouble = trouble(&self.objects);
        if trouble != self.trouble {
            self.trouble = trouble;
            if let Some((pbx, _)) = self.resources.pbx() {
                tools.statuses.push((self.name.clone(), pbx.resource.id()), Cause::Conditions);
            }
        }
    }

    /// Decides how many relays there are to be.
    fn count_relays(&mut self, wall: Duration, turn: &mut Turn) {
        let Some((pbx, State::Live)) = self.resources.pbx() else { return };
        let Spec::Pbx(spec) = pbx.resource.spec.as_ref() else { return };
        let name = &pbx.resource.name;
        let ours = |seen: &&Seen| seen.pbx == *name && seen.pod.service == Service::Media && !seen.pod.leaving;
        let pods = self.pods.values().filter(ours).map(|seen| (seen.pod.name.as_str(), seen.marks));
        let tiers = self.objects.tiers();
        let media = tiers.iter().find(|(service, _)| *service == Service::Media);
        let replicas = media.and_then(|(_, live)| u32::try_from(live.as_ref()?.pods?.wanted).ok());
        let Outcome { marks, text, blind } = self.relays.decide(spec, pods, replicas, wall);
        turn.jobs.extend(marks.into_iter().map(|(pod, mark)| Job::Mark(pod, mark)));
        turn.notes.extend(text.map(|text| Note::normal("Scaled", text)));
        let blind = blind.map(|why| format!("media.autoscaling.cpu: {why}: sessions alone count"));
        turn.notes.extend(blind.map(|text| Note::warning("CpuUnknown", text)));
    }

    /// Tells the compiler where balancers are reached.
    fn reach(&mut self, now: Duration) {
        let nodes = self.nodes(now).remove(&Service::Balancer).unwrap_or_default();
        // Before anything is compiled the one there is: registrars are not to be without for a moment.
        let first = || self.resources.resources().map(|(_, known)| known).next();
        let pbx = self.resources.pbx().map(|(pbx, _)| pbx).or_else(first);
        let Some((pbx, Spec::Pbx(spec))) = pbx.map(|pbx| (pbx, pbx.resource.spec.as_ref())) else { return };
        let services = self.objects.hosts(&pbx.uid);
        let hosts = build::own_hosts(&self.name, &pbx.resource.name, spec, nodes.into_iter(), services);
        self.resources.reached_at(hosts);
    }

    /// What is seen in the cluster that objects depend on.
    fn facts(&mut self, now: Duration) -> build::Facts {
        let nodes = self.nodes(now);
        let (ingress, relays) = (self.objects.ingress(), self.relays.replicas());
        build::Facts { nodes, ingress, relays, ..build::Facts::default() }
    }

    /// The nodes of each service's pods.
    fn nodes(&mut self, now: Duration) -> BTreeMap<Service, BTreeSet<IpAddr>> {
        for seen in self.pods.values() {
            if let Some(node) = seen.node {
                self.nodes.insert((seen.pod.service, node), now);
            }
        }
        self.nodes.retain(|_, seen| now < *seen + REPLACED);
        let mut nodes = BTreeMap::<Service, BTreeSet<IpAddr>>::new();
        for (service, node) in self.nodes.keys() {
            nodes.entry(*service).or_default().insert(*node);
        }
        nodes
    }

    /// Judges what is live.
    fn settle(&mut self, tools: &mut Tools<'_>, turn: &mut Turn) {
        let Some(latch) = &mut self.latch else { return };
        let pbx = self.resources.pbx().map(|(pbx, _)| pbx.resource.name.as_str());
        let pods: Vec<Pod> =
            self.pods.values().filter(|seen| Some(seen.pbx.as_str()) == pbx).map(|seen| seen.pod.clone()).collect();
        let acks = self.acks.as_mut().map(|acks| acks.borrow_and_update().clone()).unwrap_or_default();
        let off = off(&self.objects);
        let facts = Facts { pods: &pods, acks: &acks, off: &off };
        for (id, programmed) in latch.settle(facts, tools.now.mono) {
            if programmed == Programmed::True {
                turn.live.extend(latch.since(&id).map(|since| tools.now.mono.saturating_sub(since)));
            }
            tools.statuses.push((self.name.clone(), id), Cause::Conditions);
        }
    }

    /// Whether [`Site::turn`] may do something by now.
    pub fn is_due(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// When [`Site::turn`] may do something though nothing has changed.
    pub fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// What processes have acknowledged, while this is published.
    pub fn acks(&self) -> Option<watch::Receiver<Arc<Acks>>> {
        self.acks.clone()
    }

    /// What came of fetching a Secret.
    pub fn fetched(&mut self, name: &str, fetched: Fetched) {
        self.resources.fetched(name, fetched);
    }

    /// What came of an action. Gives why it failed, if that is news.
    pub fn done(&mut self, key: ObjectKey, done: Done, now: Duration) -> Option<String> {
        self.acting.remove(&key);
        self.objects.done(key, done, now)
    }

    /// Whether the keys could be made.
    pub fn keys(&mut self, made: bool) {
        self.making_keys = made;
    }

    /// A pod was marked, or could not be.
    pub fn marked(&mut self, pod: &str) {
        self.relays.marked(pod);
    }

    /// Whether what is held could be stored.
    pub fn stored(&mut self, done: bool) {
        self.stored = if done && self.stored == Stored::Storing { Stored::Yes } else { Stored::No };
    }

    /// Where the store's URL stands, if it does, and that Secret's resource version; `default` where the Pbx says nothing.
    pub fn store(&self, default: &SecretRef) -> Option<(SecretRef, String)> {
        let (pbx, _) = self.resources.pbx()?;
        let Spec::Pbx(spec) = pbx.resource.spec.as_ref() else { return None };
        let at = spec.store.as_ref().map_or(default, |store| &store.secret_ref);
        let version = self.resources.secrets.version(&at.name)?.to_owned();
        Some((at.clone(), version))
    }

    /// The Pbx whose relays' CPU counts, if one does.
    pub fn measures_cpu(&self) -> Option<&str> {
        let (owner, spec, _) = self.built.as_ref()?;
        Settings::of(spec)?.cpu.map(|_| owner.name.as_str())
    }

    /// A resource.
    pub fn get(&self, id: &ResourceId) -> Option<&Known> {
        self.resources.get(id)
    }

    /// Every Pbx there is.
    pub fn pbxes(&self) -> impl Iterator<Item = Owner> {
        self.resources.resources().take_while(|(id, _)| id.kind == Kind::Pbx).map(|(_, known)| owner_of(known))
    }

    /// The Pbx whose objects are made.
    pub fn owner(&self) -> Option<&Owner> {
        self.built.as_ref().map(|(owner, ..)| owner)
    }

    /// Changes that wait to be compiled.
    pub fn waiting(&self) -> usize {
        self.resources.waiting()
    }
}

fn owner_of(pbx: &Known) -> Owner {
    Owner { name: pbx.resource.name.clone(), uid: pbx.uid.clone() }
}

#[cfg(test)]
mod tests;
