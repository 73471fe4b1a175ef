//! The latch over a real compiler, in virtual time.

use super::*;
use api::{Change, Compiler, Held, Resource, Spec};
use contract::config::Version;
use contract::{Now, ProcessId};
use runtime::stream::registry::{Follower, Followers};
use serde_json::json;
use std::sync::Arc;

const MS: Duration = Duration::from_millis(1);

/// A namespace: what compiles, what runs, and the latch over both.
struct Site {
    compiler: Compiler,
    latch: Latch,
    pods: Vec<Pod>,
    acks: Acks,
    off: BTreeSet<Service>,
    now: Duration,
    epoch: u64,
}

fn resource_of(name: &str, spec: Spec) -> Change {
    Change::Put(Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(spec) })
}

/// Compiles to an entry for routers, and one for registrars when it may register.
fn phone(name: &str, context: &str) -> Change {
    resource_of(name, Spec::Endpoint(serde_json::from_value(json!({"context": context, "aor": {}})).unwrap()))
}

/// Compiles to an entry for routers alone.
fn trunk(name: &str, context: &str) -> Change {
    resource_of(name, Spec::Endpoint(serde_json::from_value(json!({"context": context})).unwrap()))
}

fn gone(name: &str) -> Change {
    Change::Delete(id(name))
}

fn id(name: &str) -> ResourceId {
    ResourceId { kind: Kind::PbxEndpoint, name: name.into() }
}

impl Site {
    fn new(epoch: u64) -> Self {
        let mut site = Self {
            compiler: Compiler::new(epoch, Held::default()),
            latch: Latch::new(epoch),
            pods: Vec::new(),
            acks: Acks::new(),
            off: BTreeSet::new(),
            now: Duration::ZERO,
            epoch,
        };
        for service in SERVICES {
            site.pod(service, service.as_str());
        }
        site
    }

    fn pod(&mut self, service: Service, name: &str) {
        self.pods.push(Pod { name: name.into(), service, ready: true, failing: false, leaving: false });
    }

    fn find(&mut self, name: &str) -> &mut Pod {
        self.pods.iter_mut().find(|pod| pod.name == name).unwrap()
    }

    fn change(&mut self, changes: impl IntoIterator<Item = Change>) {
        let delta = self.compiler.apply(changes);
        self.latch.changed(&delta, self.now);
    }

    fn version(&self, service: Service) -> Version {
        match service {
            Service::Balancer => self.compiler.balancer().version,
            Service::Registrar => self.compiler.registrar().version,
            Service::Router => self.compiler.router().version,
            Service::Media => self.compiler.media().version,
            Service::Conference => self.compiler.conference().version,
        }
    }

    fn acked(&mut self, service: Service, pod: &str, version: Version, error: Option<&str>) {
        let process = ProcessId(pod.bytes().fold(0, |sum, b| sum * 31 + u64::from(b)));
        let followers = self.acks.entry(service).or_default();
        let since = Now { mono: self.now, wall: self.now };
        let follower = Follower { pod: pod.into(), version, error: error.map(str::to_owned), since, connected: true };
        Followers::insert(Arc::make_mut(followers), process, follower);
    }

    /// The pod's process has what is published now.
    fn ack(&mut self, service: Service, pod: &str) {
        self.acked(service, pod, self.version(service), None);
    }

    fn ack_all(&mut self) {
        for Pod { name, service, .. } in self.pods.clone() {
            self.ack(service, &name);
        }
    }

    /// What is told of an object now; empty if nothing, `True` or reason and message otherwise.
    fn told(&mut self, name: &str) -> String {
        let facts = Facts { pods: &self.pods, acks: &self.acks, off: &self.off };
        match self.latch.settle(facts, self.now).remove(&id(name)) {
            None => String::new(),
            Some(Programmed::True) => "True".into(),
            Some(Programmed::False { reason, message }) => format!("{}: {message}", reason.as_str()),
        }
    }

    fn later(&mut self, by: Duration) -> &mut Self {
        self.now += by;
        self
    }
}

/// One thing that happens.
type Act = fn(&mut Site);

/// What happens to phone `a`, and what is told of it then.
const CASES: &[(&str, &[(Act, &str)])] = &[
    (
        "true once every process that counts has it, whichever comes last",
        &[
            (|s| s.pod(Service::Router, "router-2"), ""),
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack(Service::Router, "router"), ""),
            (|s| s.ack(Service::Registrar, "registrar"), ""),
            (|s| s.ack(Service::Router, "router-2"), "True"),
            (
                |s| {
                    s.later(QUIET * 9);
                },
                "",
            ),
        ],
    ),
    (
        "a process that is frozen is named within the time, and taken back after the thaw",
        &[
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (|s| s.change([phone("a", "y")]), ""),
            (|s| s.ack(Service::Registrar, "registrar"), ""),
            (
                |s| {
                    s.later(QUIET - MS);
                },
                "",
            ),
            (
                |s| {
                    s.later(MS);
                },
                "NotAcknowledged: not acknowledged by router",
            ),
            (
                |s| {
                    s.later(QUIET * 60);
                },
                "",
            ),
            (|s| s.find("router").failing = true, "NotAcknowledged: not acknowledged by router (not ready any longer)"),
            (|s| s.ack(Service::Router, "router"), "True"),
        ],
    ),
    (
        "a process that lost its stream is said to have",
        &[
            (|s| s.ack_all(), ""),
            (
                |s| {
                    let routers = Arc::make_mut(s.acks.get_mut(&Service::Router).unwrap());
                    routers.values_mut().for_each(|f| f.connected = false);
                },
                "",
            ),
            (|s| s.change([trunk("a", "x")]), ""),
            (
                |s| {
                    s.later(QUIET);
                },
                "NotAcknowledged: not acknowledged by router (has lost its stream)",
            ),
        ],
    ),
    (
        "an object that does not change keeps what it has while another waits for the same process",
        &[
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (|s| s.change([phone("b", "x")]), ""),
            (
                |s| {
                    s.later(QUIET);
                },
                "",
            ),
            (|s| assert!(s.told("b").is_empty() && s.latch.get(&id("b")).is_some_and(|p| *p != Programmed::True)), ""),
            (|s| assert_eq!(s.latch.get(&id("a")), Some(&Programmed::True)), ""),
        ],
    ),
    (
        "a generation that compiles to the same keeps what it has",
        &[
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (|s| s.change([phone("a", "x")]), ""),
            (
                |s| {
                    s.later(QUIET * 2);
                },
                "",
            ),
            (|s| assert_eq!(s.latch.get(&id("a")), Some(&Programmed::True)), ""),
        ],
    ),
    (
        "without a pod of a service that is concerned: NoPods, at once; others do not matter",
        &[
            (|s| s.pods.retain(|p| p.service != Service::Registrar && p.service != Service::Media), ""),
            (|s| s.change([phone("a", "x")]), "NoPods: no pod is ready: registrar"),
            (|s| s.ack_all(), ""),
            (|s| s.pods.clear(), "NoPods: no pod is ready: registrar, router"),
            (|s| s.pod(Service::Registrar, "r1"), "NoPods: no pod is ready: router"),
            (
                |s| s.pod(Service::Router, "r2"),
                "NotAcknowledged: not acknowledged by r1 (follows no stream), r2 (follows no stream)",
            ),
            (|s| s.ack_all(), "True"),
        ],
    ),
    (
        "a service that is to have no pods is not waited for, but somebody must have it",
        &[
            (|s| s.pods.retain(|p| p.service != Service::Registrar), ""),
            (
                |s| {
                    s.off.insert(Service::Registrar);
                },
                "",
            ),
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (
                |s| {
                    s.off.insert(Service::Router);
                },
                "",
            ),
            (|s| s.pods.clear(), ""),
            (|s| s.change([phone("a", "y")]), "NoPods: no service that should have it has pods"),
        ],
    ),
    (
        "pods that come and go flip nothing",
        &[
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (|s| s.pod(Service::Router, "router-2"), ""),
            (
                |s| {
                    s.later(QUIET * 2);
                },
                "",
            ),
            (|s| s.pods.clear(), ""),
            (
                |s| {
                    s.acks.clear();
                },
                "",
            ),
            (
                |s| {
                    s.later(QUIET * 2);
                },
                "",
            ),
            (|s| assert_eq!(s.latch.get(&id("a")), Some(&Programmed::True)), ""),
        ],
    ),
    (
        "a pod that was never ready does not count, nor one that is leaving",
        &[
            (|s| s.pod(Service::Router, "new"), ""),
            (|s| s.pod(Service::Router, "old"), ""),
            (|s| s.find("new").ready = false, ""),
            (|s| s.find("old").leaving = true, ""),
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack(Service::Router, "router"), ""),
            (|s| s.ack(Service::Registrar, "registrar"), "True"),
            // Once it is ready it does.
            (|s| s.find("new").ready = true, ""),
            (|s| s.change([phone("a", "y")]), ""),
            (|s| s.ack(Service::Router, "router"), ""),
            (|s| s.ack(Service::Registrar, "registrar"), ""),
            (
                |s| {
                    s.later(QUIET);
                },
                "NotAcknowledged: not acknowledged by new (follows no stream)",
            ),
            // It is deleted while it is waited for.
            (|s| s.find("new").leaving = true, "True"),
        ],
    ),
    (
        "what a process could not take is told at once with its reason, until it has it",
        &[
            (|s| s.change([trunk("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (|s| s.change([trunk("a", "y")]), ""),
            (
                |s| {
                    let v = Version { n: 1, ..s.version(Service::Router) };
                    s.acked(Service::Router, "router", v, Some("cannot read it"))
                },
                "Refused: pod router: cannot read it",
            ),
            (
                |s| {
                    s.later(QUIET * 3);
                },
                "",
            ),
            (|s| s.ack(Service::Router, "router"), "True"),
        ],
    ),
    (
        "an error about something else, or of a pod that does not count, does not concern it",
        &[
            (|s| s.pod(Service::Router, "new"), ""),
            (|s| s.find("new").ready = false, ""),
            (|s| s.acked(Service::Router, "new", Version::default(), Some("no")), ""),
            (|s| s.change([trunk("a", "x")]), ""),
            (
                |s| {
                    let v = s.version(Service::Router);
                    s.acked(Service::Router, "router", v, Some("a later one"))
                },
                "True",
            ),
        ],
    ),
    (
        "many pods are counted, not listed",
        &[
            (|s| s.pods.clear(), ""),
            (|s| (0..9).for_each(|n| s.pod(Service::Router, &format!("r{n}"))), ""),
            (|s| s.change([trunk("a", "x")]), ""),
            (
                |s| {
                    s.later(QUIET);
                },
                "NotAcknowledged: not acknowledged by r0 (follows no stream), r1 (follows no stream), r2 (follows no stream) and 6 more",
            ),
        ],
    ),
    (
        "what an object no longer compiles to is waited for too",
        &[
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            // It may not register any more: the registrar is to forget it.
            (|s| s.change([trunk("a", "x")]), ""),
            (|s| s.ack(Service::Router, "router"), ""),
            (
                |s| {
                    s.later(QUIET);
                },
                "NotAcknowledged: not acknowledged by registrar",
            ),
            (|s| s.ack(Service::Registrar, "registrar"), "True"),
        ],
    ),
    (
        "an object that is gone is forgotten",
        &[
            (|s| s.change([phone("a", "x")]), ""),
            (|s| s.change([gone("a")]), ""),
            (
                |s| {
                    s.later(QUIET * 2);
                },
                "",
            ),
            (|s| assert!(s.latch.objects.is_empty() && s.latch.open.is_empty()), ""),
        ],
    ),
    (
        "an acknowledgement of another epoch says nothing",
        &[
            (|s| s.change([trunk("a", "x")]), ""),
            (
                |s| {
                    let v = Version { epoch: s.epoch - 1, n: 900, hash: 0 };
                    s.acked(Service::Router, "router", v, None)
                },
                "",
            ),
            (
                |s| {
                    s.later(QUIET);
                },
                "NotAcknowledged: not acknowledged by router",
            ),
        ],
    ),
    (
        "a process that was restarted in its pod is judged, not the one before it",
        &[
            (|s| s.change([trunk("a", "x")]), ""),
            (|s| s.ack_all(), "True"),
            (|s| s.change([trunk("a", "y")]), ""),
            (
                |s| {
                    let v = s.version(Service::Router);
                    s.acked(Service::Router, "router", v, None)
                },
                "True",
            ),
            (|s| s.change([trunk("a", "z")]), ""),
            (
                |s| {
                    let followers = Arc::make_mut(s.acks.get_mut(&Service::Router).unwrap());
                    let version = Version { epoch: s.epoch, n: 900, hash: 0 };
                    let since = Now::default();
                    followers.insert(
                        ProcessId(1),
                        Follower { pod: "router".into(), version, error: None, since, connected: false },
                    );
                },
                "",
            ),
            (
                |s| {
                    s.later(QUIET);
                },
                "NotAcknowledged: not acknowledged by router",
            ),
        ],
    ),
];

#[test]
fn the_latch_in_each_case() {
    for (case, steps) in CASES {
        let mut site = Site::new(3);
        for (n, (act, want)) in steps.iter().enumerate() {
            act(&mut site);
            assert_eq!(site.told("a"), *want, "{case}: step {n}");
        }
    }
}

#[test]
fn under_the_next_leader_what_was_live_stays_so_unless_it_compiles_to_something_else() {
    let mut first = Site::new(3);
    first.change([phone("a", "x"), phone("b", "x"), phone("c", "x"), phone("d", "x")]);
    first.ack_all();
    assert_eq!(first.told("a"), "True");
    let mut next = Site::new(4);
    for name in ["a", "b", "c"] {
        next.latch.restore(id(name), first.latch.hash(&id(name)));
    }
    next.latch.restore(id("c"), None);
    // No process has come to the new leader yet.
    next.change([phone("a", "x"), phone("b", "changed"), phone("c", "x"), phone("d", "x")]);
    assert_eq!(next.told("a"), "True");
    next.later(QUIET).told("");
    let now = |site: &Site, name: &str| site.latch.get(&id(name)).cloned().unwrap();
    assert_eq!((now(&next, "a"), now(&next, "c")), (Programmed::True, Programmed::True));
    assert!(now(&next, "b") != Programmed::True && now(&next, "d") != Programmed::True);
    // From then on it is an object like any other.
    next.change([phone("a", "y")]);
    assert_eq!(next.latch.get(&id("a")), None, "not judged yet");
    next.ack_all();
    assert_eq!(next.told("a"), "True");
}

#[test]
fn the_deadline_is_when_silence_ends() {
    let mut site = Site::new(1);
    assert_eq!(site.latch.deadline(site.now), None);
    site.later(MS * 500).change([phone("a", "x")]);
    site.later(MS * 300).change([phone("b", "x")]);
    assert_eq!(site.told("a"), "");
    assert_eq!(site.latch.deadline(site.now), Some(MS * 500 + QUIET));
    site.now = MS * 500 + QUIET;
    assert!(site.told("a").starts_with("NotAcknowledged"));
    assert_eq!(site.latch.deadline(site.now), Some(MS * 800 + QUIET));
    site.ack_all();
    assert_eq!((site.told("a").as_str(), site.latch.deadline(site.now)), ("True", None));
}
