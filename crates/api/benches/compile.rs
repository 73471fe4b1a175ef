//! What one change costs: an endpoint among 10,000 is compiled anew. Printed as a ratio to a floor of the same run: one
//! among 10, which costs the same if the compiler touches only what a change touches.

use std::hint::black_box;
use std::sync::Arc;

use api::{Change, Compiler, Held, PbxEndpointSpec, Resource, Spec};
use criterion::{Criterion, criterion_group, criterion_main};

/// The goal for one change among 10,000, in nanoseconds.
const GOAL: f64 = 5e6;

fn endpoint(n: usize, context: &str) -> Option<Change> {
    let spec = serde_json::json!({"context": context, "aor": {"maxContacts": 1}, "codecs": ["ulaw"]});
    let spec = Arc::new(Spec::Endpoint(serde_json::from_value::<PbxEndpointSpec>(spec).ok()?));
    Some(Change::Put(Resource { name: n.to_string(), generation: 1, created: None, spec }))
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    for (name, count) in [("floor: one of 10", 10), ("one of 10,000", 10_000)] {
        let mut compiler = Compiler::new(1, Held::default());
        compiler.apply((0..count).filter_map(|n| endpoint(n, "from-phones")));
        assert_eq!(compiler.statuses().len(), count);
        let mut n = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                // Another one each time, and in each round another context, so that each is a change.
                let context = if (n / count) % 2 == 0 { "from-elsewhere" } else { "from-phones" };
                let delta = compiler.apply(endpoint(n % count, context));
                n += 1;
                assert!(delta.router.is_some());
                black_box(delta)
            });
        });
    }
    group.finish();
}

/// Prints each mean as a ratio to the floor.
fn ratios(_: &mut Criterion) {
    let folder = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let mean = |name: &str| -> Option<f64> {
        let dirs = [format!("{folder}/criterion/compile"), format!("../../{folder}/criterion/compile")];
        let text = dirs.iter().find_map(|d| std::fs::read_to_string(format!("{d}/{name}/new/estimates.json")).ok())?;
        let at = text.find("\"point_estimate\":")? + "\"point_estimate\":".len();
        text[at..].split([',', '}']).next()?.trim().parse().ok()
    };
    match (mean("floor_ one of 10"), mean("one of 10,000")) {
        (Some(floor), Some(ns)) => println!(
            "one endpoint changed of 10,000: {:.1} us, {:.2} of the floor ({:.1} us), {:.4} of the goal",
            ns / 1e3,
            ns / floor,
            floor / 1e3,
            ns / GOAL
        ),
        _ => println!("no estimates were kept"),
    }
}

criterion_group!(benches, compile, ratios);
criterion_main!(benches);
