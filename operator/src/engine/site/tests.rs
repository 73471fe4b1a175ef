//! A namespace in virtual time, its jobs done by hand.

use super::*;
use crate::SERVICES;
use crate::apply::{Live, Pods};
use crate::engine::Marks;
use crate::figures::EVERY;
use crate::observe::{News, Observed, Registration};
use crate::programmed;
use api::conditions::ConditionStatus;
use api::{Resource, SecretValue};
use contract::ProcessId;
use runtime::Clock;
use runtime::stream::registry::{Follower, Followers, Registry};
use serde_json::json;

const WALL: Duration = Duration::from_secs(1_000);

struct Rig {
    site: Site,
    registry: Registry,
    publisher: Publisher,
    statuses: Queue,
    now: Duration,
    version: u64,
}

/// One workload for each service.
fn made(_: &str, owner: &Owner, spec: &PbxSpec, _: &build::Facts) -> Vec<DynamicObject> {
    let workload = |service: Service| {
        let labels = json!({"app.kubernetes.io/component": service.as_str()});
        let name = format!("{}-{}", owner.name, service.as_str());
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
                            "spec": {"realm": spec.realm}});
        serde_json::from_value(object).unwrap()
    };
    SERVICES.into_iter().map(workload).collect()
}

impl Rig {
    fn new() -> Self {
        let registry = Registry::new(Clock::new());
        let (site, publisher) = (Site::new("tel"), Publisher::new(registry.clone()));
        Self { site, registry, publisher, statuses: Queue::default(), now: Duration::ZERO, version: 0 }
    }

    fn put(&mut self, name: &str, spec: Spec) {
        self.version += 1;
        let resource = Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(spec) };
        let id = resource.id();
        let generation = self.site.get(&id).map_or(0, |known| known.resource.generation) + 1;
        let known = Known {
            resource: Resource { generation, ..resource },
            uid: name.into(),
            version: self.version,
            conditions: self.site.get(&id).map(|known| known.conditions.clone()).unwrap_or_default(),
            observed: self.site.get(&id).map(|known| known.observed.clone()).unwrap_or_default(),
        };
        self.site.put(Key::Resource(id), Fact::Resource(Box::new(known)), &mut self.statuses);
    }

    fn pbx(&mut self, realm: &str) {
        self.put("main", Spec::Pbx(PbxSpec { realm: realm.into(), ..PbxSpec::default() }));
    }

    fn phone(&mut self, name: &str, context: &str) {
        let at = json!({"name": "phones", "key": name});
        let spec = json!({"context": context, "aor": {}, "auth": {"username": name, "passwordSecretRef": at}});
        self.put(name, Spec::Endpoint(serde_json::from_value(spec).unwrap()));
    }

    /// One that anybody may be, with a place to register if it has an `aor`.
    fn endpoint(&mut self, name: &str, aor: bool) {
        let spec = if aor { json!({"context": "x", "aor": {}}) } else { json!({"context": "x"}) };
        self.put(name, Spec::Endpoint(serde_json::from_value(spec).unwrap()));
    }

    fn context(&mut self, pattern: &str) {
        let spec = json!({"extensions": [{"pattern": pattern, "steps": [{"answer": {}}]}]});
        self.put("x", Spec::Dialplan(serde_json::from_value(spec).unwrap()));
    }

    fn secret(&mut self, version: &str) {
        self.site.put(Key::Secret("phones".into()), Fact::Secret(version.into()), &mut self.statuses);
    }

    fn turn_at(&mut self, changed: bool) -> Turn {
        let mut tools = Tools {
            publisher: &mut self.publisher,
            statuses: &mut self.statuses,
            build: &made,
            now: Now { mono: self.now, wall: WALL },
            changed,
        };
        self.site.turn(&mut tools)
    }

    /// Turns, and once more a moment later.
    fn turn(&mut self) -> Turn {
        let mut turn = self.turn_at(true);
        self.now += Duration::from_millis(10);
        let later = self.turn_at(false);
        turn.jobs.extend(later.jobs);
        turn.live.extend(later.live);
        turn.notes.extend(later.notes);
        turn
    }

    /// Turns and does everything until nothing is left; gives what was done.
    fn rest(&mut self) -> Vec<String> {
        let mut done = Vec::new();
        loop {
            let turn = self.turn();
            if turn.jobs.is_empty() {
                return done;
            }
            for job in turn.jobs {
                match job {
                    Job::Fetch(name) => {
                        done.push(format!("fetch {name}"));
                        let values = ["1", "2"].map(|n| (n.to_owned(), SecretValue::new(n)));
                        self.site.fetched(&name, Fetched::Values("1".into(), values.into()));
                    }
                    Job::Act(Action::Apply { key, hash, .. }) => {
                        done.push(format!("apply {}", key.name));
                        self.version += 1;
                        let pods = Pods { wanted: 1, updated: 1, available: 1, all: 1, current: true };
                        let (version, owner) = (self.version, "main".to_owned());
                        let live = Live {
                            uid: "u".into(),
                            version,
                            owner,
                            fields: Some(1),
                            leaving: false,
                            pods: Some(pods),
                            ..Live::default()
                        };
                        self.site.done(key, Done::Applied { hash, live }, self.now);
                    }
                    Job::Act(Action::Delete { key, .. }) => {
                        done.push(format!("delete {}", key.name));
                        self.site.done(key, Done::Deleted, self.now);
                    }
                    Job::Keys => {
                        done.push("keys".into());
                        self.site.keys(true);
                        self.site.put(Key::Secret(KEYS_SECRET.into()), Fact::Secret("9".into()), &mut self.statuses);
                    }
                    Job::Mark(pod, mark) => {
                        done.push(format!("mark {pod} {mark:?}"));
                        self.site.marked(&pod);
                    }
                    Job::Hold(found, _) => {
                        done.push(format!("hold {}", found.number));
                        self.site.stored(true);
                    }
                }
            }
        }
    }

    /// A ready pod for each service, whose process has what is published.
    fn pods(&mut self) {
        for service in SERVICES {
            let pod = Pod { name: service.as_str().into(), service, ready: true, failing: false, leaving: false };
            let key = Key::Pod(pod.name.clone());
            let seen = Seen { pod, pbx: "main".into(), node: None, marks: Marks::default() };
            self.site.put(key, Fact::Pod(seen), &mut self.statuses);
        }
        let compiler = self.site.resources.compiler().unwrap();
        let versions = [
            compiler.balancer().version,
            compiler.registrar().version,
            compiler.router().version,
            compiler.media().version,
            compiler.conference().version,
        ];
        let since = Now { mono: self.now, wall: WALL };
        let acks = SERVICES.into_iter().zip(versions).map(|(service, version)| {
            let pod = service.as_str().to_owned();
            let follower = Follower { pod, version, error: None, since, connected: true };
            (service, Arc::new(Followers::from([(ProcessId(1), follower)])))
        });
        let (tell, told) = watch::channel(Arc::new(acks.collect::<Acks>()));
        self.site.acks = Some(told);
        drop(tell);
    }

    /// Somebody marks a relay's pod, or takes the mark away.
    fn mark(&mut self, name: &str, draining: Option<Duration>) {
        let mut seen = self.site.pods[name].clone();
        seen.marks.draining = draining;
        self.site.put(Key::Pod(name.into()), Fact::Pod(seen), &mut self.statuses);
    }

    /// Writes all statuses that wait and gives those written, each as name, what Ready says and what was observed.
    fn write(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(place) = self.statuses.next(self.now) {
            let Some((_, content)) = self.site.content(&place, Now { mono: self.now, wall: WALL }) else { continue };
            self.statuses.begin(place.clone(), self.now);
            let ready = content.conditions.iter().find(|c| c.kind == "Ready").unwrap();
            let ready = if ready.status == ConditionStatus::True { "True" } else { &ready.reason };
            let observed = match &content.observed {
                Observed::Endpoint(registered) => format!(", has {}", registered.contacts.unwrap()),
                Observed::Pbx(figures) => {
                    let sessions = figures.sessions.map_or(String::new(), |n| format!(" {n} sessions"));
                    format!(", shows {} pods{sessions}", figures.pods.as_deref().unwrap_or("no"))
                }
                Observed::Nothing => String::new(),
            };
            out.push(format!("{} {ready}{observed}", place.1.name));
            self.version += 1;
            self.site.written(&place.1, self.version, content, self.now);
            self.statuses.end(place, true, self.now);
            self.now += Duration::from_millis(50);
        }
        out
    }
}

fn applied(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("apply main-{name}")).collect()
}

/// A namespace with a Pbx, a context and a phone, led and at rest.
fn led() -> Rig {
    let mut rig = Rig::new();
    rig.secret("1");
    rig.pbx("one");
    rig.phone("1", "x");
    rig.context("1");
    assert!(rig.turn().jobs.is_empty(), "nobody leads");
    rig.site.begin(3, Found::default());
    let done = rig.rest();
    let mut want = vec!["fetch phones".to_owned(), "keys".into()];
    want.extend(applied(&["balancer", "conference", "media", "registrar", "router"]));
    assert_eq!(done, want);
    rig
}

#[test]
fn whoever_leads_fetches_compiles_publishes_and_applies_and_then_rests() {
    let mut rig = led();
    assert!(rig.publisher.acks("tel").is_some());
    rig.pods();
    rig.turn();
    assert_eq!(rig.write(), ["main True, shows 5/5 pods", "x True", "1 True"]);
    assert!(rig.rest().is_empty() && rig.write().is_empty());
    assert_eq!((rig.site.deadline(), rig.site.waiting()), (None, 0));
    // The same again is no change.
    let version = rig.site.resources.compiler().unwrap().router().version;
    rig.site.end();
    assert!(rig.turn().jobs.is_empty());
    rig.site.begin(4, Found::default());
    assert_eq!(rig.rest(), ["fetch phones"]);
    let after = rig.site.resources.compiler().unwrap().router().version;
    assert_eq!((after.epoch, after.hash), (4, version.hash));
    assert!(rig.write().is_empty(), "what was live under the leader before stays so");
}

#[test]
fn who_is_registered_is_written_once_the_store_has_said_so_and_only_when_it_changes() {
    let mut rig = led();
    rig.write();
    let news = |rig: &mut Rig, news| rig.site.news(news, &mut rig.statuses);
    let one = |contacts| Registration { contacts, since: (contacts > 0).then_some(100) };
    news(&mut rig, News::All([("1".to_owned(), one(2)), ("stranger".to_owned(), one(1))].into()));
    rig.phone("2", "x");
    rig.turn();
    assert_eq!(rig.write(), ["1 NoPods, has 2", "2 NoPods, has 0"]);
    news(&mut rig, News::One("1".into(), one(2)));
    assert!(rig.write().is_empty());
    news(&mut rig, News::One("1".into(), one(0)));
    assert_eq!(rig.write(), ["1 NoPods, has 0"]);
    news(&mut rig, News::One("2".into(), one(1)));
    assert_eq!(rig.write(), ["2 NoPods, has 1"]);
    news(&mut rig, News::All(BTreeMap::new()));
    assert_eq!(rig.write(), ["2 NoPods, has 0"]);
    // What cannot register has nothing to say of it.
    rig.endpoint("2", false);
    rig.turn();
    assert_eq!(rig.write(), ["2 NoPods"]);
}

#[test]
fn a_hundred_endpoints_that_are_applied_cost_a_hundred_writes() {
    let mut rig = led();
    rig.pods();
    rig.turn();
    rig.site.news(News::All(BTreeMap::new()), &mut rig.statuses);
    rig.write();
    let mut written = Vec::new();
    for batch in 0..10 {
        (0..10).for_each(|n| rig.endpoint(&format!("e{batch}{n}"), true));
        rig.turn();
        // The statuses of the batch before; of this one nothing is said before pods had time to take it.
        written.extend(rig.write());
        assert_eq!(written.len(), batch * 10);
        rig.now += Duration::from_millis(200);
        rig.pods();
        rig.turn();
    }
    written.extend(rig.write());
    assert!(written.len() == 100 && written.iter().all(|one| one.ends_with(" True, has 0")), "{written:?}");
    let each: BTreeSet<&String> = written.iter().collect();
    assert_eq!(each.len(), 100);
    // They come back as they were written, and rest.
    for name in ["e00", "e99"] {
        let id = ResourceId { kind: Kind::PbxEndpoint, name: name.into() };
        let echo = rig.site.get(&id).unwrap().clone();
        assert!(!rig.site.put(Key::Resource(id), Fact::Resource(Box::new(echo)), &mut rig.statuses));
    }
    assert!(rig.rest().is_empty() && rig.write().is_empty() && rig.statuses.is_empty());
}

#[test]
fn what_an_earlier_leader_observed_stays_until_this_one_knows_better() {
    let mut rig = led();
    rig.pods();
    let two = Registration { contacts: 2, since: Some(100) };
    rig.site.news(News::All([("1".to_owned(), two)].into()), &mut rig.statuses);
    rig.site.news(News::Relays([("media".to_owned(), 25)].into()), &mut rig.statuses);
    rig.turn();
    assert_eq!(rig.write().len(), 3);
    rig.site.end();
    rig.site.begin(4, Found::default());
    rig.rest();
    assert!(rig.write().is_empty());
    // Other conditions take along what stands there.
    rig.pbx("two");
    rig.phone("1", "nowhere");
    rig.rest();
    rig.pods();
    rig.turn();
    let mut written = rig.write();
    written.sort();
    assert_eq!(written, ["1 ContextNotFound, has 2", "main True, shows 5/5 pods 25 sessions"]);
    rig.site.news(News::All(BTreeMap::new()), &mut rig.statuses);
    rig.site.news(News::Relays([("media".to_owned(), 24)].into()), &mut rig.statuses);
    rig.now += EVERY;
    rig.turn();
    let mut written = rig.write();
    written.sort();
    assert_eq!(written, ["1 ContextNotFound, has 0", "main True, shows 5/5 pods 24 sessions"]);
}

#[test]
fn a_pod_that_is_behind_is_named_and_only_of_what_changed() {
    let mut rig = led();
    rig.pods();
    rig.turn();
    rig.write();
    rig.context("2");
    rig.turn();
    assert!(rig.write().is_empty(), "not before it had time");
    assert!(rig.site.deadline().is_some());
    rig.now += programmed::QUIET;
    assert!(rig.site.is_due(rig.now));
    rig.turn();
    assert_eq!(rig.write(), ["x NotAcknowledged"]);
    rig.pods();
    rig.turn();
    assert_eq!(rig.write(), ["x True"]);
}

#[test]
fn what_is_held_is_kept_for_the_next_leader_and_is_live_under_it() {
    let mut rig = led();
    rig.pods();
    rig.turn();
    rig.write();
    rig.context("_");
    assert_eq!(rig.rest(), ["hold 1"]);
    assert_eq!(rig.write(), ["x InvalidPattern"]);
    let (held, entries) = (rig.site.held.clone(), rig.site.resources.compiler().unwrap().router().entries.clone());
    rig.site.end();
    rig.site.begin(4, held);
    assert_eq!(rig.rest(), ["fetch phones"]);
    assert_eq!(rig.site.resources.compiler().unwrap().router().entries, entries);
    rig.context("1");
    assert_eq!(rig.rest(), ["hold 2"]);
}

#[test]
fn a_change_of_the_pbx_rolls_and_without_one_nothing_is_made() {
    let mut rig = led();
    rig.pbx("two");
    assert_eq!(rig.rest(), applied(&["registrar", "conference", "media", "router", "balancer"]));
    rig.site.gone(&Key::Resource(ResourceId { kind: Kind::Pbx, name: "main".into() }), Some(&rig.publisher));
    assert!(rig.rest().is_empty());
    assert!(rig.publisher.acks("tel").is_none() && rig.site.owner().is_none());
    rig.write();
    let id = ResourceId { kind: Kind::PbxEndpoint, name: "1".into() };
    rig.now += programmed::QUIET;
    rig.turn();
    rig.write();
    let conditions = &rig.site.get(&id).unwrap().conditions;
    assert!(conditions.iter().any(|c| c.kind == "Programmed" && c.reason == "NoPods"), "{conditions:?}");
}

#[test]
fn metrics_are_collected_where_peers_say_of_pods_that_are_there() {
    let mut rig = led();
    rig.pods();
    assert_eq!(rig.site.targets(), None, "the store has not said so");
    let at = |address: &str| -> SocketAddr { address.parse().unwrap() };
    let told = [("router", "10.0.0.7:9090"), ("media", "192.0.2.7:40123"), ("gone", "10.0.0.8:9090")];
    let told = told.map(|(pod, address)| (pod.to_owned(), at(address)));
    rig.site.news(News::Metrics(told.into()), &mut rig.statuses);
    rig.site.pods.values_mut().for_each(|seen| seen.node = Some([192, 0, 2, 7].into()));
    let targets = rig.site.targets().unwrap();
    let shown = targets.iter().map(|t| (t.pod.as_str(), t.service, t.pbx.as_str(), t.at, t.on_host));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            ("media", Service::Media, "main", at("192.0.2.7:40123"), true),
            ("router", Service::Router, "main", at("10.0.0.7:9090"), false),
        ]
    );
    rig.site.end();
    assert_eq!(rig.site.targets(), None);
}

#[test]
fn the_sessions_that_relays_carry_are_counted() {
    let mut rig = led();
    rig.pods();
    rig.turn();
    // As many relays as the workload says it has, here one, until more are called for.
    assert_eq!(rig.site.built.as_ref().unwrap().2.relays, Some(1));
    rig.site.news(News::Relays([("media".to_owned(), 700)].into()), &mut rig.statuses);
    let turn = rig.turn();
    assert_eq!(rig.site.built.as_ref().unwrap().2.relays, Some(4));
    assert!(turn.notes.is_empty(), "the first number is no change");
    rig.site.news(News::Relays([("media".to_owned(), 900)].into()), &mut rig.statuses);
    let turn = rig.turn();
    assert_eq!(rig.site.built.as_ref().unwrap().2.relays, Some(5));
    assert_eq!(turn.notes.len(), 1);
}

#[test]
fn a_pbx_shows_pods_and_relays_at_once_and_sessions_seldom_or_with_its_conditions() {
    let mut rig = led();
    rig.pods();
    rig.turn();
    rig.write();
    let carry = |rig: &mut Rig, sessions| {
        rig.site.news(News::Relays([("media".to_owned(), sessions)].into()), &mut rig.statuses);
        rig.turn();
        rig.write()
    };
    assert_eq!(carry(&mut rig, 25), ["main True, shows 5/5 pods 25 sessions"]);
    assert!(carry(&mut rig, 26).is_empty() && carry(&mut rig, 27).is_empty());
    assert!(rig.site.deadline().is_some_and(|due| due <= rig.now + EVERY));
    rig.now += EVERY;
    assert!(rig.site.is_due(rig.now));
    rig.turn_at(false);
    assert_eq!(rig.write(), ["main True, shows 5/5 pods 27 sessions"]);
    rig.now += EVERY;
    rig.turn();
    assert!(rig.write().is_empty(), "at rest");
    // More relays are wanted, with the arithmetic; then one takes no new sessions.
    assert_eq!(carry(&mut rig, 900), ["main True, shows 5/5 pods 900 sessions"]);
    let id = ResourceId { kind: Kind::Pbx, name: "main".into() };
    let shown = |rig: &Rig| match &rig.site.get(&id).unwrap().observed {
        Observed::Pbx(figures) => figures.as_ref().clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((shown(&rig).relays, shown(&rig).desired_relays), (Some(1), Some(5)));
    assert_eq!(shown(&rig).scaling.unwrap(), "5 relays: (900 sessions + 50 warm) / 200: 5");
    // Conditions do not wait until sessions are due, and take them along.
    assert!(carry(&mut rig, 901).is_empty());
    let key = ObjectKey { kind: "Deployment".into(), name: "main-router".into() };
    rig.site.done(key, Done::Failed("forbidden".into()), rig.now);
    rig.turn();
    assert_eq!(rig.write(), ["main ApplyFailed, shows 5/5 pods 901 sessions"]);
    rig.mark("media", Some(WALL));
    rig.turn();
    assert_eq!(rig.write().len(), 1);
    assert_eq!(shown(&rig).relays, Some(0));
}

#[test]
fn registrars_hear_of_nodes_that_come_without_a_restart_of_pods() {
    let mut rig = led();
    let spec = PbxSpec { realm: "one".into(), domains: vec!["pbx.example.org".into()], ..PbxSpec::default() };
    rig.put("main", Spec::Pbx(spec));
    rig.rest();
    rig.pods();
    let hosts = |rig: &Rig| match rig.site.resources.compiler().unwrap().registrar().entries["Pbx/main"].as_ref() {
        contract::config::RegistrarEntry::Pbx(pbx) => pbx.hosts.clone(),
        other => panic!("{other:?}"),
    };
    assert!(hosts(&rig).is_empty());
    let mut seen = rig.site.pods["balancer"].clone();
    seen.node = Some([192, 0, 2, 7].into());
    rig.site.put(Key::Pod("balancer".into()), Fact::Pod(seen), &mut rig.statuses);
    let before = rig.site.resources.compiler().unwrap().registrar().version;
    assert!(rig.rest().is_empty(), "nothing is applied");
    assert_eq!(hosts(&rig), ["192.0.2.7"]);
    assert_eq!(rig.publisher.versions("tel")[&Service::Registrar].n, before.n + 1);
    // Its pod is gone, and for long: so is its address.
    rig.site.gone(&Key::Pod("balancer".into()), Some(&rig.publisher));
    rig.turn();
    assert_eq!(hosts(&rig), ["192.0.2.7"], "it may only be being replaced");
    rig.now += REPLACED;
    rig.turn_at(false);
    assert!(hosts(&rig).is_empty());
}

#[test]
fn a_marked_relay_is_told_to_take_nothing_new_until_the_mark_is_gone() {
    let mut rig = led();
    rig.pods();
    rig.turn();
    let told = |rig: &Rig| {
        let told = rig.registry.draining("tel").unwrap().borrow().clone();
        told.into_iter().collect::<Vec<_>>()
    };
    assert!(told(&rig).is_empty());
    rig.mark("media", Some(WALL));
    rig.turn();
    assert_eq!(told(&rig), ["media"]);
    // The next leader goes on with it from its first turn.
    rig.site.end();
    rig.publisher.stop("tel");
    rig.site.begin(4, Found::default());
    rig.rest();
    assert_eq!(told(&rig), ["media"]);
    rig.mark("media", None);
    rig.turn();
    assert!(told(&rig).is_empty());
}

#[test]
fn a_pbx_says_what_its_tiers_lack_and_what_could_not_be_applied() {
    let mut rig = led();
    let key = ObjectKey { kind: "Deployment".into(), name: "main-router".into() };
    let pods = Pods { wanted: 2, updated: 2, available: 1, all: 2, current: true };
    rig.version += 1;
    let live = Live {
        uid: "u".into(),
        version: rig.version,
        owner: "main".into(),
        fields: Some(1),
        leaving: false,
        pods: Some(pods),
        ..Live::default()
    };
    rig.site.put(Key::Object(key.clone()), Fact::Object(live), &mut rig.statuses);
    rig.turn();
    let want = Some(("PodsNotAvailable".to_owned(), "router: 1 of 2 pods are available".to_owned()));
    assert_eq!(rig.site.trouble, want);
    rig.site.done(key, Done::Failed("forbidden".into()), rig.now);
    rig.turn();
    let want = Some(("ApplyFailed".to_owned(), "Deployment/main-router: forbidden".to_owned()));
    assert_eq!(rig.site.trouble, want);
}
