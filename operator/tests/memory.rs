//! What the operator takes for 10,000 endpoints: watched, compiled, published, with their registrations known and their
//! statuses written, and then each of them changed. Prints bytes for each step and judges them by the goal.
//!
//! The API server is one on loopback that lists as a real one does. Streams to pods are not there: each has what its socket
//! takes in at a time, a few dozen kilobytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code, reason = "helpers of tests are tests")]

use api::{PbxSpec, Resource, SecretValue, Spec};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
use contract::Now;
use operator::build;
use operator::engine::{Build, Job, Owner, Site, Tools};
use operator::held::Found;
use operator::metrics::Measures;
use operator::observe::{News, Registration};
use operator::publish::Publisher;
use operator::status::Queue;
use operator::watch::secrets::Fetched;
use operator::watch::{self, Event, Fact, Key, Known, Scope, Watch};
use runtime::stream::registry::Registry;
use runtime::{Clock, Metrics};
use serde_json::{Value, json};
use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ENDPOINTS: usize = 10_000;

/// The goal for all of the operator, in bytes.
const GOAL: usize = 150_000_000;

/// What stays allocated for an endpoint.
const MOST: usize = 8 * 1024;

/// The system's allocator, counting what is allocated now, and the most that was.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Prints what there is for an endpoint after a step, and the most that there was until then.
fn step(what: &str, begin: usize) -> usize {
    let each = LIVE.load(Ordering::Relaxed).saturating_sub(begin) / ENDPOINTS;
    let peak = PEAK.load(Ordering::Relaxed) as f64 / 1e6;
    println!("{what}: {each} bytes an endpoint; {peak:.0} MB at most");
    each
}

fn name(n: usize) -> String {
    format!("phone-{n:05}")
}

fn spec(n: usize, codecs: &[&str]) -> Value {
    let auth = json!({"username": name(n), "passwordSecretRef": {"name": "phones", "key": name(n)}});
    json!({"context": "from-phones", "auth": auth, "aor": {"maxContacts": 1}, "codecs": codecs})
}

/// An endpoint as the API server has it.
fn object(n: usize) -> Value {
    let fields = json!({"f:spec": {"f:aor": {"f:maxContacts": {}}, "f:auth": {"f:passwordSecretRef": {"f:key": {}, "f:name": {}},
        "f:username": {}}, "f:codecs": {}, "f:context": {}}});
    let managed = json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "kubepbx.io/v1alpha1",
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    let metadata = json!({"name": name(n), "namespace": "tel", "uid": format!("3f0e6ba2-6d3c-4a0c-9f6e-{n:012}"),
        "generation": 1, "resourceVersion": (n + 1).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": managed});
    json!({"apiVersion": "kubepbx.io/v1alpha1", "kind": "PbxEndpoint", "metadata": metadata, "spec": spec(n, &["ulaw", "alaw"])})
}

/// Lists endpoints in pages, and nothing else; a watch has no news.
async fn list(Path(path): Path<String>, Query(query): Query<BTreeMap<String, String>>) -> Body {
    if query.get("watch").is_some_and(|watch| watch == "true") {
        return Body::from_stream(futures::stream::pending::<Result<Bytes, Infallible>>());
    }
    let number = |key: &str| query.get(key).and_then(|n| n.parse::<usize>().ok());
    let from = number("continue").unwrap_or_default();
    let to = number("limit").map_or(ENDPOINTS, |limit| ENDPOINTS.min(from + limit));
    let (items, next) = if path.ends_with("/pbxendpoints") {
        ((from..to).map(object).collect(), (to < ENDPOINTS).then(|| to.to_string()))
    } else {
        (Vec::new(), None)
    };
    let metadata = json!({"resourceVersion": "20000", "continue": next.unwrap_or_default()});
    Body::from(json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}).to_string())
}

/// Watches by such an API server.
async fn watches() -> Watch {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().route("/{*path}", axum::routing::get(list));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let client = kube::Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
    watch::watch(&client, &Scope::Namespaces(vec!["tel".into()]), &Measures::new(&Metrics::new()))
}

struct Rig {
    site: Site,
    publisher: Publisher,
    statuses: Queue,
    now: Now,
}

impl Rig {
    fn put(&mut self, key: Key, fact: Fact) {
        self.site.put(key, fact, &mut self.statuses);
    }

    fn turn(&mut self) -> Vec<Job> {
        let build: Box<Build> = Box::new(|_, _: &Owner, _: &PbxSpec, _: &build::Facts| Vec::new());
        let mut tools = Tools {
            publisher: &mut self.publisher,
            statuses: &mut self.statuses,
            build: &*build,
            now: self.now,
            changed: true,
        };
        let jobs = self.site.turn(&mut tools).jobs;
        self.now.mono += Duration::from_secs(2);
        jobs
    }

    /// Writes all statuses that wait, and gives how many.
    fn write(&mut self) -> usize {
        let mut written = 0;
        while let Some(place) = self.statuses.next(self.now.mono) {
            let Some((_, content)) = self.site.content(&place, self.now) else { continue };
            self.statuses.begin(place.clone(), self.now.mono);
            self.site.written(&place.1, 30_000, content, self.now.mono);
            self.statuses.end(place, true, self.now.mono);
            self.now.mono += Duration::from_millis(50);
            written += 1;
        }
        written
    }
}

#[tokio::test]
async fn ten_thousand_endpoints_fit() {
    let site = Site::new("tel");
    let publisher = Publisher::new(Registry::new(Clock::new()));
    let now = Now { mono: Duration::from_secs(10), wall: Duration::from_secs(1_000_000) };
    let mut rig = Rig { site, publisher, statuses: Queue::default(), now };
    let begin = LIVE.load(Ordering::Relaxed);

    let mut watch = watches().await;
    let mut synced = 0;
    while synced < watch.watchers {
        match watch.events.recv().await.unwrap() {
            Event::Put { key, fact, .. } => rig.put(key, fact),
            Event::Gone { .. } => panic!("nothing is gone"),
            Event::Synced(_) => synced += 1,
        }
    }
    let spec_of_pbx = Spec::Pbx(PbxSpec::default()).into();
    let pbx = Known {
        resource: Resource { name: "main".into(), generation: 1, created: None, spec: spec_of_pbx },
        uid: "u".into(),
        version: 1,
        conditions: Vec::new(),
        observed: Default::default(),
    };
    rig.put(Key::Resource(pbx.resource.id()), Fact::Resource(Box::new(pbx)));
    step("watched and known", begin);

    rig.put(Key::Secret("phones".into()), Fact::Secret("1".into()));
    rig.site.begin(1, Found::default());
    assert!(rig.turn().contains(&Job::Fetch("phones".into())));
    let passwords = (0..ENDPOINTS).map(|n| (name(n), SecretValue::new(format!("secret-{n}"))));
    rig.site.fetched("phones", Fetched::Values("1".into(), passwords.collect()));
    rig.turn();
    let registration = Registration { contacts: 1, since: Some(1_000_000) };
    rig.site.news(News::All((0..ENDPOINTS).map(|n| (name(n), registration)).collect()), &mut rig.statuses);
    rig.turn();
    assert_eq!(rig.statuses.len(), ENDPOINTS + 1);
    step("compiled and published, with registrations; statuses wait", begin);
    assert_eq!(rig.write(), ENDPOINTS + 1, "one write each, and the Pbx's");
    step("statuses written", begin);

    // Some at a time, as a watch brings them.
    for n in 0..ENDPOINTS {
        let id = api::ResourceId { kind: api::Kind::PbxEndpoint, name: name(n) };
        let mut known = rig.site.get(&id).unwrap().clone();
        known.version += 1;
        known.resource.generation += 1;
        known.resource.spec = Arc::new(Spec::Endpoint(serde_json::from_value(spec(n, &["alaw"])).unwrap()));
        rig.put(Key::Resource(id), Fact::Resource(Box::new(known)));
        if n % 100 == 99 {
            rig.turn();
        }
    }
    rig.turn();
    step("each of them changed; statuses wait", begin);
    assert_eq!(rig.write(), ENDPOINTS);
    let each = step("statuses written", begin);

    // Also what the allocator keeps of what was needed meanwhile.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS")).for_each(|l| println!("{l}"));
    assert!(each < MOST, "{each} bytes an endpoint");
    let peak = PEAK.load(Ordering::Relaxed);
    assert!(peak < GOAL, "{peak} bytes at most");
}
