//! What an endpoint costs the operator: bytes that stay allocated for each of 10,000, compiled, published, with its status
//! written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code, reason = "helpers of tests are tests")]

use api::{PbxSpec, Resource, SecretValue, Spec};
use contract::Now;
use operator::build;
use operator::engine::{Build, Job, Owner, Site, Tools};
use operator::held::Found;
use operator::publish::Publisher;
use operator::status::Queue;
use operator::watch::secrets::Fetched;
use operator::watch::{Fact, Key, Known};
use runtime::Clock;
use runtime::stream::registry::Registry;
use serde_json::json;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const ENDPOINTS: usize = 10_000;

/// The goal is 150 MB for all of the operator at 10,000 endpoints, with what the allocator keeps.
const MOST: usize = 7 * 1024;

/// The system's allocator, counting what is allocated now.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
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

/// Prints what each step has added for an endpoint, and gives it.
fn step(what: &str, before: &mut usize) -> usize {
    let now = LIVE.load(Ordering::Relaxed);
    let each = now.saturating_sub(*before) / ENDPOINTS;
    println!("{what}: {each} bytes an endpoint");
    *before = now;
    each
}

fn known(n: usize) -> Known {
    let name = format!("phone-{n:05}");
    let auth = json!({"username": name, "passwordSecretRef": {"name": "phones", "key": name}});
    let spec = json!({"context": "from-phones", "auth": auth, "aor": {"maxContacts": 1}, "codecs": ["ulaw", "alaw"]});
    let spec = Spec::Endpoint(serde_json::from_value(spec).unwrap()).into();
    Known {
        resource: Resource { name, generation: 1, created: Some(Duration::from_secs(1)), spec },
        uid: format!("3f0e6ba2-6d3c-4a0c-9f6e-{n:012}"),
        version: 1,
        conditions: Vec::new(),
        observed: Default::default(),
    }
}

struct Rig {
    site: Site,
    publisher: Publisher,
    statuses: Queue,
    now: Now,
}

impl Rig {
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
}

#[test]
fn ten_thousand_endpoints_fit() {
    let site = Site::new("tel");
    let publisher = Publisher::new(Registry::new(Clock::new()));
    let now = Now { mono: Duration::from_secs(10), wall: Duration::from_secs(1_000_000) };
    let mut rig = Rig { site, publisher, statuses: Queue::default(), now };
    let passwords =
        (0..ENDPOINTS).map(|n| (format!("phone-{n:05}"), SecretValue::new(format!("secret-{n}")))).collect();
    let begin = LIVE.load(Ordering::Relaxed);
    let mut before = begin;

    let pbx = Known {
        resource: Resource {
            name: "main".into(),
            generation: 1,
            created: None,
            spec: Spec::Pbx(PbxSpec::default()).into(),
        },
        ..known(0)
    };
    for known in std::iter::once(pbx).chain((0..ENDPOINTS).map(known)) {
        let key = Key::Resource(known.resource.id());
        rig.site.put(key, Fact::Resource(Box::new(known)), &mut rig.statuses);
    }
    step("known", &mut before);

    rig.site.put(Key::Secret("phones".into()), Fact::Secret("1".into()), &mut rig.statuses);
    rig.site.begin(1, Found::default());
    assert!(rig.turn().contains(&Job::Fetch("phones".into())));
    rig.site.fetched("phones", Fetched::Values("1".into(), passwords));
    rig.turn();
    rig.turn();
    step("compiled and published", &mut before);

    let mut written = 0;
    loop {
        rig.now.mono += Duration::from_millis(50);
        let Some(place) = rig.statuses.next(rig.now.mono) else { break };
        let Some((_, content)) = rig.site.content(&place, rig.now) else { continue };
        rig.statuses.begin(place.clone(), rig.now.mono);
        rig.site.written(&place.1, 2, content, rig.now.mono);
        rig.statuses.end(place, true, rig.now.mono);
        written += 1;
    }
    assert!(written >= ENDPOINTS, "{written} statuses");
    step("statuses written", &mut before);

    // Also what the allocator keeps of what was needed meanwhile.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS")).for_each(|l| println!("{l}"));
    let each = step("all", &mut { begin });
    assert!(each < MOST, "{each} bytes an endpoint");
}
