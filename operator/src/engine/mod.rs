//! The operator's loop: takes what watchers see, lets each namespace decide, and does what it wants done.
//!
//! One task owns all state. What takes time (fetching a Secret, applying an object, writing a status) is a job of its own,
//! and what came of it returns here. Standbys take everything in and do nothing; whoever no longer leads drops its jobs.

mod observers;
mod relays;
mod site;

use crate::apply::{Applier, Done};
use crate::events::{self, Events, Note};
use crate::held::Found;
use crate::keep;
use crate::leader::claim::{Claim, Claims};
use crate::metrics::{Measures, Pods};
use crate::observe::News;
use crate::publish::Publisher;
use crate::status::{self, Content, Place, Queue};
use crate::targets::Targets;
use crate::watch::secrets::{self, Fetched};
use crate::watch::{Event, ObjectKey, Watch};
use api::SecretRef;
use kube::Client;
use observers::Observers;
pub use relays::{Mark, Marks};
use runtime::stream::registry::Registry;
use runtime::stream::server::Leader;
use runtime::{Clock, Health};
pub use site::{Build, Job, Owner, Site, Tools, Turn};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

/// Events of watchers that are taken before anything is done about them.
const AT_ONCE: usize = 1024;

/// The loop turns at least so often.
const BEAT: Duration = Duration::from_secs(2);

/// Secrets that are fetched at a time; more wait.
const FETCHES: usize = 16;

/// A job that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(15);

/// How long a Secret that could not be fetched, or keys that could not be made, rest.
const REST: Duration = Duration::from_secs(1);

/// What the operator works with.
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// The name of the installation, by which it claims namespaces.
    pub installation: String,
    /// What there is.
    pub watch: Watch,
    /// What is served to processes.
    pub registry: Registry,
    /// Who leads.
    pub leader: watch::Receiver<Leader>,
    /// What pods are made from.
    pub build: Box<Build>,
    /// Changes when `build` has changed.
    pub rebuild: watch::Receiver<String>,
    /// The Secret, in each namespace, and its key, that say where the store is.
    pub store: SecretRef,
    /// For people.
    pub events: Events,
    /// The operator's metrics.
    pub measures: Measures,
    /// Where those of processes are collected.
    pub targets: Targets,
    /// The process's health.
    pub health: Health,
}

/// What came of a job.
enum Finished {
    Held(String, Found),
    Stored(String, bool),
    Fetched(String, String, Fetched),
    Acted(String, ObjectKey, Done),
    Keys(String, bool),
    Marked(String, String),
    Written(Box<Writing>, Result<Option<u64>, String>),
}

/// What was to be written.
struct Writing {
    place: Place,
    uid: String,
    content: Content,
    /// What people are told once it is.
    notes: Vec<Note>,
}

/// Runs until `stop`.
pub async fn run(parts: Parts, stop: impl Future<Output = ()>) {
    let pulse = parts.health.pulse("operator");
    let (told, mut acks) = mpsc::channel(64);
    let (tell_news, mut news) = mpsc::channel(64);
    let mut engine = Engine {
        applier: Applier::new(parts.client.clone()),
        client: parts.client,
        installation: parts.installation,
        registry: parts.registry,
        build: parts.build,
        events: parts.events,
        measures: parts.measures,
        targets: parts.targets,
        clock: Clock::new(),
        synced: BTreeMap::new(),
        watchers: parts.watch.watchers,
        sites: BTreeMap::new(),
        dirty: BTreeSet::new(),
        term: None,
        statuses: Queue::default(),
        jobs: JoinSet::new(),
        fetches: Arc::new(Semaphore::new(FETCHES)),
        told,
        followers: JoinSet::new(),
        store: parts.store,
        news: tell_news,
    };
    let (mut watch, mut leader, mut rebuild) = (parts.watch, parts.leader, parts.rebuild);
    let ready = parts.health.part("watch");
    let mut seen = Vec::with_capacity(AT_ONCE);
    tokio::pin!(stop);
    loop {
        pulse.beat();
        let epoch = match &*leader.borrow_and_update() {
            Leader::Here { epoch } => Some(*epoch),
            Leader::Nobody | Leader::There(_) => None,
        };
        engine.lead(epoch);
        engine.turn();
        let next = engine.clock.instant(engine.deadline());
        tokio::select! {
            () = &mut stop => break,
            Ok(()) = leader.changed() => {}
            Ok(()) = rebuild.changed() => engine.rebuild(),
            count = watch.events.recv_many(&mut seen, AT_ONCE) => {
                if count == 0 {
                    tracing::error!("nothing is watched any longer");
                    break;
                }
                seen.drain(..).for_each(|event| engine.take(event));
                if engine.synced.values().filter(|n| **n >= watch.watchers).count() >= watch.parts {
                    ready.ready();
                }
            }
            Some(finished) = engine.jobs.join_next() => match finished {
                Ok(finished) => engine.finish(finished),
                Err(error) if error.is_cancelled() => {}
                Err(error) => tracing::error!(%error, "a job failed"),
            },
            Some(namespace) = acks.recv() => {
                engine.dirty.insert(namespace);
            }
            Some((namespace, news)) = news.recv() => engine.news(&namespace, news),
            () = tokio::time::sleep_until(next) => {}
        }
    }
    engine.lead(None);
}

/// What one leadership has.
struct Term {
    epoch: u64,
    publisher: Publisher,
    /// Namespaces whose beginning is under way.
    beginning: BTreeSet<String>,
    /// The claims of namespaces, and what was said of each last.
    claims: Claims,
    claimed: BTreeMap<String, Claim>,
    /// What is shown of each namespace's pods.
    shown: BTreeMap<String, Pods>,
    /// Who reads stores and CPU.
    observers: Observers,
}

struct Engine {
    client: Client,
    installation: String,
    applier: Applier,
    registry: Registry,
    build: Box<Build>,
    events: Events,
    measures: Measures,
    targets: Targets,
    clock: Clock,
    /// Watchers of a part of the scope that have told everything.
    synced: BTreeMap<Option<String>, usize>,
    watchers: usize,
    sites: BTreeMap<String, Site>,
    /// Namespaces that something has changed in.
    dirty: BTreeSet<String>,
    term: Option<Term>,
    statuses: Queue,
    jobs: JoinSet<Finished>,
    fetches: Arc<Semaphore>,
    told: mpsc::Sender<String>,
    followers: JoinSet<()>,
    store: SecretRef,
    news: mpsc::Sender<(String, News)>,
}

impl Engine {
    fn take(&mut self, event: Event) {
        match event {
            Event::Put { namespace, key, fact } => {
                let site = self.sites.entry(namespace.clone()).or_insert_with(|| Site::new(&namespace));
                if site.put(key, fact, &mut self.statuses) {
                    self.dirty.insert(namespace);
                }
            }
            Event::Gone { namespace, key } => {
                if let Some(site) = self.sites.get_mut(&namespace) {
                    site.gone(&key, self.term.as_ref().map(|term| &term.publisher));
                    self.dirty.insert(namespace);
                }
            }
            Event::Synced(part) => {
                *self.synced.entry(part).or_default() += 1;
                self.dirty.extend(self.sites.keys().cloned());
            }
        }
    }

    fn is_synced(&self, namespace: &str) -> bool {
        let synced = |part: &Option<String>| self.synced.get(part).is_some_and(|n| *n >= self.watchers);
        synced(&None) || synced(&Some(namespace.to_owned()))
    }

    /// What pods are made from has changed.
    fn rebuild(&mut self) {
        self.sites.values_mut().for_each(Site::rebuild);
        self.dirty.extend(self.sites.keys().cloned());
    }

    /// Leads in this epoch, or does not.
    fn lead(&mut self, epoch: Option<u64>) {
        if self.term.as_ref().map(|term| term.epoch) == epoch {
            return;
        }
        self.jobs.abort_all();
        self.followers.abort_all();
        self.statuses = Queue::default();
        self.sites.values_mut().for_each(Site::end);
        self.term = epoch.map(|epoch| Term {
            epoch,
            publisher: Publisher::new(self.registry.clone()),
            beginning: BTreeSet::new(),
            claims: Claims::new(self.client.clone(), &self.installation),
            claimed: BTreeMap::new(),
            shown: BTreeMap::new(),
            observers: Observers::new(self.client.clone(), self.clock, self.news.clone()),
        });
        self.measures.leads(self.term.is_some());
        self.targets.begin();
        self.dirty.extend(self.sites.keys().cloned());
    }

    /// Lets every namespace that has changed decide, and begins what it wants done.
    fn turn(&mut self) {
        let now = self.clock.now();
        let dirty = std::mem::take(&mut self.dirty);
        let due = self.sites.iter().filter(|(name, site)| site.is_due(now.mono) && !dirty.contains(*name));
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        dirty.iter().for_each(|namespace| self.turn_one(namespace, true));
        due.iter().for_each(|namespace| self.turn_one(namespace, false));
        self.write();
        let waiting: usize = self.sites.values().map(Site::waiting).sum();
        self.measures.queue("compile", waiting);
        self.measures.queue("status", self.statuses.len());
        self.measures.queue("jobs", self.jobs.len());
    }

    /// Whether a namespace is ours to write to; one that has anything of ours in it is claimed.
    fn claim(&mut self, namespace: &str) -> bool {
        let (Some(term), Some(site)) = (&mut self.term, self.sites.get(namespace)) else { return false };
        if !site.is_served() {
            return false;
        }
        let said = term.claimed.entry(namespace.to_owned()).or_insert_with(|| {
            let mut leads = term.claims.hold(namespace);
            let (told, namespace) = (self.told.clone(), namespace.to_owned());
            self.followers.spawn(async move {
                while leads.changed().await.is_ok() && told.send(namespace.clone()).await.is_ok() {}
            });
            Claim::Unknown
        });
        let claim = term.claims.claim(namespace);
        if claim != *said {
            if let Claim::Theirs(who) = &claim {
                tracing::warn!(namespace, who, "another operator serves it: it is left alone");
                let text = format!("the operator {who} serves this namespace: {} leaves it alone", self.installation);
                for owner in site.pbxes() {
                    self.events.pbx(namespace, &owner, Note::warning("ClaimedByAnother", text.clone()));
                }
            }
            said.clone_from(&claim);
        }
        claim == Claim::Ours
    }

    fn turn_one(&mut self, namespace: &str, changed: bool) {
        let ours = self.claim(namespace);
        let synced = self.is_synced(namespace);
        let (Some(term), Some(site)) = (&mut self.term, self.sites.get_mut(namespace)) else { return };
        if !ours {
            term.beginning.remove(namespace);
            if site.is_led() {
                site.end();
                term.observers.remove(namespace);
                term.shown.remove(namespace);
                term.publisher.stop(namespace);
                self.targets.remove(namespace);
            }
            return;
        }
        if !site.is_led() {
            if synced && term.beginning.insert(namespace.to_owned()) {
                let (client, namespace) = (self.client.clone(), namespace.to_owned());
                self.jobs.spawn(async move {
                    let found = keep::load(&client, &namespace).await;
                    Finished::Held(namespace, found)
                });
            }
            return;
        }
        let before = self.clock.now();
        let mut tools = Tools {
            publisher: &mut term.publisher,
            statuses: &mut self.statuses,
            build: &*self.build,
            now: before,
            changed,
        };
        let turn = site.turn(&mut tools);
        let took = self.clock.now().mono.saturating_sub(before.mono);
        self.measures.step(if turn.compiled.is_some() { "compile" } else { "settle" }, took);
        turn.live.iter().for_each(|lag| self.measures.live(*lag));
        self.targets.set(namespace, site.targets());
        if let Some(owner) = site.owner() {
            turn.notes.into_iter().for_each(|note| self.events.pbx(namespace, owner, note));
        }
        if let Some(acks) = site.acks() {
            let shown = term.shown.entry(namespace.to_owned());
            let shown = shown.or_insert_with(|| Pods::new(self.measures.clone(), namespace));
            shown.show(&acks.borrow(), &term.publisher.versions(namespace));
        }
        if let Some(mut acks) = site.acks().filter(|_| turn.published_anew) {
            let (told, namespace) = (self.told.clone(), namespace.to_owned());
            self.followers.spawn(async move {
                while acks.changed().await.is_ok() && told.send(namespace.clone()).await.is_ok() {}
            });
        }
        self.observe(namespace);
        for job in turn.jobs {
            self.begin(namespace, job);
        }
    }

    /// Has read what there is to be read for a namespace.
    fn observe(&mut self, namespace: &str) {
        let (Some(term), Some(site)) = (&mut self.term, self.sites.get(namespace)) else { return };
        term.observers.store(namespace, site.store(&self.store));
        term.observers.cpu(namespace, site.measures_cpu().map(str::to_owned));
    }

    fn news(&mut self, namespace: &str, news: News) {
        let Some(site) = self.sites.get_mut(namespace).filter(|site| site.is_led()) else { return };
        site.news(news, &mut self.statuses);
        self.dirty.insert(namespace.to_owned());
    }

    fn begin(&mut self, namespace: &str, job: Job) {
        let (client, namespace) = (self.client.clone(), namespace.to_owned());
        match job {
            Job::Fetch(name) => {
                let fetches = self.fetches.clone();
                self.jobs.spawn(async move {
                    // Never closed, so this cannot fail.
                    let _fetch = fetches.acquire().await;
                    let fetched = tokio::time::timeout(LIMIT, secrets::fetch(&client, &namespace, &name)).await;
                    let fetched = fetched.unwrap_or_else(|_| Fetched::Failed("no answer".into()));
                    if let Fetched::Failed(why) = &fetched {
                        tracing::warn!(namespace, name, why, "a Secret could not be fetched");
                        tokio::time::sleep(REST).await;
                    }
                    Finished::Fetched(namespace, name, fetched)
                });
            }
            Job::Act(action) => {
                let applier = self.applier.clone();
                self.jobs.spawn(async move {
                    let key = action.key().clone();
                    let done = tokio::time::timeout(LIMIT, applier.act(&namespace, action)).await;
                    let done = done.unwrap_or_else(|_| Done::Failed("the API server does not answer".into()));
                    Finished::Acted(namespace, key, done)
                });
            }
            Job::Mark(pod, mark) => {
                self.jobs.spawn(async move {
                    if let Err(error) = crate::apply::mark(&client, &namespace, &pod, mark).await {
                        tracing::warn!(namespace, pod, ?mark, error, "a pod could not be marked");
                        tokio::time::sleep(REST).await;
                    }
                    Finished::Marked(namespace, pod)
                });
            }
            Job::Keys => {
                self.jobs.spawn(async move {
                    let made = crate::keys::make(&client, &namespace).await;
                    if let Err(error) = &made {
                        tracing::warn!(namespace, error, "the installation's keys could not be made");
                        tokio::time::sleep(REST).await;
                    }
                    Finished::Keys(namespace, made.is_ok())
                });
            }
            Job::Hold(Found { number, held }, owner) => {
                self.jobs.spawn(async move {
                    let stored = keep::store(&client, &namespace, &owner, &held, number).await;
                    if let Err(error) = &stored {
                        tracing::warn!(namespace, error, "what is held could not be stored");
                        tokio::time::sleep(REST).await;
                    }
                    Finished::Stored(namespace, stored.is_ok())
                });
            }
        }
    }

    fn finish(&mut self, finished: Finished) {
        let now = self.clock.now().mono;
        match finished {
            Finished::Held(namespace, held) => {
                let (Some(term), Some(site)) = (&mut self.term, self.sites.get_mut(&namespace)) else { return };
                if term.beginning.remove(&namespace) {
                    site.begin(term.epoch, held);
                    self.dirty.insert(namespace);
                }
            }
            Finished::Fetched(namespace, name, fetched) => {
                if let Some(site) = self.sites.get_mut(&namespace) {
                    site.fetched(&name, fetched);
                    self.dirty.insert(namespace);
                }
            }
            Finished::Acted(namespace, key, done) => {
                let Some(site) = self.sites.get_mut(&namespace) else { return };
                if matches!(done, Done::Failed(_)) {
                    self.measures.api_error("apply");
                }
                if let Some(why) = site.done(key.clone(), done, now) {
                    tracing::warn!(namespace, %key, why, "an object could not be applied");
                    if let Some(owner) = site.owner() {
                        self.events.pbx(&namespace, owner, Note::warning("ApplyFailed", format!("{key}: {why}")));
                    }
                }
                self.dirty.insert(namespace);
            }
            Finished::Keys(namespace, made) => {
                if let Some(site) = self.sites.get_mut(&namespace) {
                    site.keys(made);
                    self.dirty.insert(namespace);
                }
            }
            Finished::Marked(namespace, pod) => {
                if let Some(site) = self.sites.get_mut(&namespace) {
                    site.marked(&pod);
                    self.dirty.insert(namespace);
                }
            }
            Finished::Written(writing, written) => {
                let Writing { place, uid, content, notes } = *writing;
                let (namespace, id) = &place;
                match &written {
                    Ok(Some(version)) => {
                        notes.into_iter().for_each(|note| self.events.tell(namespace, id, &uid, note));
                        if let Some(site) = self.sites.get_mut(namespace) {
                            site.written(id, *version, content, now);
                        }
                    }
                    Ok(None) => {}
                    Err(why) => {
                        self.measures.api_error("status");
                        tracing::warn!(namespace, %id, why, "a status could not be written");
                    }
                }
                self.statuses.end(place, written.is_ok(), now);
            }
            Finished::Stored(namespace, stored) => {
                if !stored {
                    self.measures.api_error("held");
                }
                if let Some(site) = self.sites.get_mut(&namespace) {
                    site.stored(stored);
                    self.dirty.insert(namespace);
                }
            }
        }
    }

    /// Writes the statuses that may be written now.
    fn write(&mut self) {
        let now = self.clock.now();
        while let Some(place) = self.statuses.next(now.mono) {
            let Some(site) = self.sites.get(&place.0) else { continue };
            let Some((uid, content)) = site.content(&place, now) else { continue };
            let before = site.get(&place.1).map(|known| known.conditions.as_slice()).unwrap_or_default();
            let notes = events::notes(before, &content.conditions);
            self.statuses.begin(place.clone(), now.mono);
            let writing = Box::new(Writing { place, uid, content, notes });
            let client = self.client.clone();
            self.jobs.spawn(async move {
                let (namespace, id) = &writing.place;
                let write = status::write(&client, namespace, id, &writing.uid, &writing.content);
                let written = tokio::time::timeout(LIMIT, write).await;
                let written = written.unwrap_or_else(|_| Err("the API server does not answer".into()));
                Finished::Written(writing, written)
            });
        }
    }

    fn deadline(&self) -> Duration {
        let now = self.clock.now().mono;
        let sites = self.sites.values().filter_map(Site::deadline);
        sites.chain(self.statuses.deadline()).chain([now + BEAT]).min().unwrap_or(now)
    }
}
