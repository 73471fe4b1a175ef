//! What is written of a resource, by what was written before and what holds now.

use super::*;
use crate::figures::Figures;
use crate::observe::Registration;
use crate::programmed::Reason;
use api::Kind;
use api::{Change, Compiler, Held, Resource, Spec};
use serde_json::json;
use std::sync::Arc;

const AT: Duration = Duration::from_secs(1_000);

fn dialplan(name: &str, generation: i64, pattern: &str) -> Change {
    let spec = json!({"extensions": [{"pattern": pattern, "steps": [{"answer": {}}]}]});
    let spec = Arc::new(Spec::Dialplan(serde_json::from_value(spec).unwrap()));
    Change::Put(Resource { name: name.into(), generation, created: None, spec })
}

/// The compiler's findings of a dialplan that was each of these in turn.
fn compiled(patterns: &[&str]) -> Status {
    let mut compiler = Compiler::new(1, Held::default());
    for (pattern, generation) in patterns.iter().zip(1..) {
        compiler.apply([dialplan("x", generation, pattern)]);
    }
    compiler.statuses()[&ResourceId { kind: Kind::Dialplan, name: "x".into() }].clone()
}

/// Conditions in short: type=status generation reason message.
fn short(conditions: &[Condition]) -> Vec<String> {
    let line = |c: &Condition| {
        format!("{}={:?} {} {} {}", c.kind, c.status, c.observed_generation, c.reason, c.message).trim_end().to_owned()
    };
    conditions.iter().map(line).collect()
}

fn verdict<'a>(compiled: &'a Status, programmed: Option<&'a Programmed>) -> Verdict<'a> {
    Verdict { compiled, programmed, pods: None }
}

fn not() -> Programmed {
    Programmed::False { reason: Reason::NotAcknowledged, message: "not acknowledged by main-router-x".into() }
}

#[test]
fn a_good_resource_is_ready_once_it_is_live_everywhere_and_then_rests() {
    let good = compiled(&["1"]);
    assert_eq!(plan(&[], verdict(&good, None), AT), None, "not before that is judged");
    let waiting = plan(&[], verdict(&good, Some(&not())), AT).unwrap();
    assert_eq!(
        short(&waiting),
        [
            "Accepted=True 1 Accepted",
            "ResolvedRefs=True 1 ResolvedRefs",
            "Programmed=False 1 NotAcknowledged not acknowledged by main-router-x",
            "Ready=False 1 NotAcknowledged Programmed: not acknowledged by main-router-x",
        ]
    );
    let live = plan(&waiting, verdict(&good, Some(&Programmed::True)), AT * 2).unwrap();
    assert_eq!(short(&live)[2..], ["Programmed=True 1 Programmed", "Ready=True 1 Ready"]);
    assert_eq!(live[0], waiting[0], "what did not flip keeps its time");
    assert_ne!(live[3].last_transition_time, waiting[3].last_transition_time);
    assert_eq!(plan(&live, verdict(&good, Some(&Programmed::True)), AT * 3).unwrap(), live);
    // A new generation that compiles to the same is written once, and no time moves.
    let same = compiled(&["1", "1"]);
    let renewed = plan(&live, verdict(&same, Some(&Programmed::True)), AT * 4).unwrap();
    assert!(renewed.iter().all(|c| c.observed_generation == 2 && c.status == ConditionStatus::True));
    assert!(renewed.iter().zip(&live).all(|(a, b)| a.last_transition_time == b.last_transition_time));
}

#[test]
fn what_is_held_says_of_which_generation_it_is_live_and_what_never_was_good_says_so() {
    let live = plan(&[], verdict(&compiled(&["1"]), Some(&Programmed::True)), AT).unwrap();
    let held = plan(&live, verdict(&compiled(&["1", "_"]), Some(&Programmed::True)), AT).unwrap();
    let lines = short(&held);
    assert!(lines[0].starts_with("Accepted=False 2 InvalidPattern spec.extensions[0].pattern: "), "{lines:?}");
    assert!(lines[0].ends_with("what was last good stays live"), "{lines:?}");
    assert_eq!(lines[2], "Programmed=True 1 Programmed");
    assert!(lines[3].starts_with("Ready=False 2 InvalidPattern Accepted: "), "{lines:?}");
    let out = plan(&[], verdict(&compiled(&["_"]), None), AT).unwrap();
    assert!(short(&out)[2].starts_with("Programmed=False 1 NotCompiled nothing of this generation is live"));
    // Held before it was ever judged: nothing is known of its being live.
    let held = plan(&[], verdict(&compiled(&["1", "_"]), None), AT).unwrap();
    assert!(short(&held)[2].starts_with("Programmed=False 2 NotCompiled"));
}

#[test]
fn a_pbx_is_ready_only_with_its_pods() {
    let good = compiled(&["1"]);
    let pods = ("RouterNotAvailable".to_owned(), "router: 1 of 2 pods available".to_owned());
    let verdict = Verdict { compiled: &good, programmed: Some(&Programmed::True), pods: Some(&pods) };
    let conditions = plan(&[], verdict, AT).unwrap();
    assert_eq!(short(&conditions)[3], "Ready=False 1 RouterNotAvailable router: 1 of 2 pods available");
    let ready = plan(&conditions, Verdict { pods: None, ..verdict }, AT).unwrap();
    assert_eq!(short(&ready)[3], "Ready=True 1 Ready");
}

#[test]
fn only_a_true_of_this_generation_says_that_it_was_live() {
    let known = |generation, conditions: &[Condition]| {
        let Change::Put(resource) = dialplan("x", generation, "1") else { unreachable!() };
        Known { resource, uid: "u".into(), version: 1, conditions: conditions.to_vec(), observed: Observed::default() }
    };
    let live = plan(&[], verdict(&compiled(&["1"]), Some(&Programmed::True)), AT).unwrap();
    assert!(was_live(&known(1, &live)) && !was_live(&known(2, &live)) && !was_live(&known(1, &[])));
    let not = plan(&live, verdict(&compiled(&["1"]), Some(&not())), AT).unwrap();
    assert!(!was_live(&known(1, &not)));
}

#[test]
fn a_status_says_all_that_is_ours_at_once() {
    let conditions = plan(&[], verdict(&compiled(&["1"]), Some(&Programmed::True)), AT).unwrap();
    let kinds: Vec<&str> = conditions.iter().map(|condition| condition.kind.as_str()).collect();
    assert_eq!(kinds, CONDITIONS);
    let status = |observed| serde_json::to_value(Content { conditions: conditions.clone(), observed }).unwrap();
    let observed = Registration::default().status();
    assert_eq!(status(observed), json!({"conditions": conditions, "registered": false, "contacts": 0}));
    let figures = Figures { sessions: Some(7), ..Figures::default() };
    assert_eq!(status(Observed::Pbx(figures.into())), json!({"conditions": conditions, "sessions": 7}));
    assert_eq!(status(Observed::Nothing), json!({"conditions": conditions}));
}
