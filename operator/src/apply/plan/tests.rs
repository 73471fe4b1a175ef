//! The plan against an API server in a few lines, in virtual time.

use super::*;
use crate::apply::live::Pods;
use serde_json::{Value, json};

const OWNER: &str = "pbx-uid";

fn object(kind: &str, name: &str, component: &str, image: &str) -> DynamicObject {
    let text = json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": {COMPONENT: component}},
        "spec": {"image": image},
    });
    serde_json::from_value(text).unwrap()
}

/// What is built: two tiers and an account of the one that is changed last.
fn built(image: &str) -> Vec<DynamicObject> {
    vec![
        object("ServiceAccount", "main-router", "router", "-"),
        object("Deployment", "main-router", "router", image),
        object("Deployment", "main-registrar", "registrar", image),
    ]
}

fn key(kind: &str, name: &str) -> ObjectKey {
    ObjectKey { kind: kind.into(), name: name.into() }
}

/// Says yes to everything.
#[derive(Default)]
struct Server {
    site: Site,
    now: Duration,
}

impl Server {
    fn new(image: &str) -> Self {
        let mut server = Self::default();
        server.site.desire(OWNER, built(image));
        server
    }

    fn live(hash: u64, kind: &str, available: bool) -> Live {
        let pods = Pods { wanted: 1, updated: 1, available: available.into(), all: 1, current: true };
        Live {
            uid: "u".into(),
            version: 1,
            owner: OWNER.into(),
            fields: Some(hash),
            leaving: false,
            pods: (kind == "Deployment").then_some(pods),
            ..Live::default()
        }
    }

    /// Does all that may be done and gives what it was.
    fn turn(&mut self) -> Vec<String> {
        let actions = self.site.next(self.now);
        let told = actions.iter().map(|action| match action {
            Action::Apply { key, .. } => key.to_string(),
            Action::Delete { key, .. } => format!("-{key}"),
        });
        let told = told.collect();
        for action in actions {
            match action {
                Action::Apply { key, object, hash } => {
                    let live = Self::live(hash ^ 1, &object.types.unwrap().kind, false);
                    self.site.done(key, Done::Applied { hash, live }, self.now);
                }
                Action::Delete { key, .. } => {
                    self.site.done(key.clone(), Done::Deleted, self.now);
                    self.site.gone(&key);
                }
            }
        }
        told
    }

    /// A workload's pods are all there.
    fn available(&mut self, name: &str) {
        let key = key("Deployment", name);
        let mut live = self.site.live[&key].clone();
        live.pods.as_mut().unwrap().available = 1;
        self.site.seen(key, live);
    }

    fn drift(&mut self, name: &ObjectKey) {
        let mut live = self.site.live[name].clone();
        live.fields = Some(0);
        self.site.seen(name.clone(), live);
    }
}

const ALL: [&str; 3] = ["Deployment/main-registrar", "Deployment/main-router", "ServiceAccount/main-router"];

#[test]
fn everything_is_made_at_once_and_then_nothing_is_written() {
    let mut server = Server::new("one");
    assert!(!server.site.is_applied());
    assert_eq!(server.turn(), ALL);
    assert!(server.turn().is_empty() && server.site.is_applied());
    server.site.desire(OWNER, built("one"));
    assert!(server.turn().is_empty());
    let tiers: Vec<_> = server.site.tiers().iter().map(|(service, _)| *service).collect();
    assert_eq!(tiers, [Service::Registrar, Service::Router]);
}

#[test]
fn a_change_goes_from_tier_to_tier_once_the_one_before_is_available() {
    let mut server = Server::new("one");
    server.turn();
    server.available("main-registrar");
    server.available("main-router");
    server.site.desire(OWNER, built("two"));
    assert_eq!(server.turn(), ["Deployment/main-registrar"]);
    assert!(server.turn().is_empty());
    server.available("main-registrar");
    assert_eq!(server.turn(), ["Deployment/main-router"]);
    assert!(server.turn().is_empty());
    // A tier that is not available holds up those behind it, not itself.
    server.site.desire(OWNER, built("three"));
    assert_eq!(server.turn(), ["Deployment/main-registrar"]);
    server.site.desire(OWNER, built("four"));
    assert_eq!(server.turn(), ["Deployment/main-registrar"]);
}

#[test]
fn a_restarted_operator_applies_each_once_and_in_turn() {
    let mut before = Server::new("one");
    before.turn();
    before.available("main-registrar");
    before.available("main-router");
    let mut after = Server::new("one");
    after.site.live = before.site.live;
    assert_eq!(after.turn(), ["Deployment/main-registrar", "ServiceAccount/main-router"]);
    after.available("main-registrar");
    assert_eq!(after.turn(), ["Deployment/main-router"]);
}

#[test]
fn drift_is_repaired_and_what_is_gone_is_made_again() {
    let mut server = Server::new("one");
    server.turn();
    server.available("main-registrar");
    server.available("main-router");
    server.drift(&key("ServiceAccount", "main-router"));
    assert_eq!(server.turn(), ["ServiceAccount/main-router"]);
    server.drift(&key("Deployment", "main-registrar"));
    server.drift(&key("Deployment", "main-router"));
    assert_eq!(server.turn(), ALL[..2], "at once, whatever the tiers are like");
    let registrar = key("Deployment", "main-registrar");
    let leaving = Live { leaving: true, ..server.site.live[&registrar].clone() };
    server.site.seen(registrar.clone(), leaving);
    assert!(server.turn().is_empty(), "it is made again once it is gone");
    server.site.gone(&registrar);
    assert_eq!(server.turn(), ["Deployment/main-registrar"]);
}

#[test]
fn what_was_on_its_way_when_a_write_was_answered_is_no_drift() {
    let mut server = Server::new("one");
    server.turn();
    let account = key("ServiceAccount", "main-router");
    let now = server.site.live[&account].clone();
    server.site.seen(account.clone(), Live { version: 0, fields: None, ..now.clone() });
    assert!(server.turn().is_empty());
    server.site.seen(account, Live { version: 2, fields: None, ..now });
    assert_eq!(server.turn(), ["ServiceAccount/main-router"]);
}

#[test]
fn only_what_the_pbx_owns_is_pruned_and_once() {
    let mut server = Server::new("one");
    server.turn();
    let foreign = Live { owner: "other".into(), ..Server::live(1, "Service", false) };
    server.site.seen(key("Service", "foreign"), foreign);
    server.site.seen(key("Service", "old"), Server::live(1, "Service", false));
    let mut fewer = built("one");
    fewer.remove(0);
    server.site.desire(OWNER, fewer);
    let told = server.turn();
    assert_eq!(told, ["-Service/old", "-ServiceAccount/main-router"]);
    assert!(server.turn().is_empty());
    // One that is being deleted is not deleted again.
    let leaving = Live { leaving: true, ..Server::live(1, "Service", false) };
    server.site.seen(key("Service", "old"), leaving);
    assert!(server.turn().is_empty());
    // Without a Pbx nothing is touched.
    let mut none = Site::default();
    none.seen(key("Service", "old"), Live { owner: String::new(), ..Server::live(1, "Service", false) });
    none.desire("", Vec::new());
    assert!(none.next(Duration::ZERO).is_empty());
}

#[test]
fn failures_rest_longer_each_time_and_hold_up_nothing_else() {
    let mut server = Server::new("one");
    let account = key("ServiceAccount", "main-router");
    let said = |server: &mut Server, why: &str| server.site.done(account.clone(), Done::Failed(why.into()), server.now);
    assert_eq!(said(&mut server, "forbidden"), Some("forbidden".into()));
    assert_eq!(server.turn(), ALL[..2]);
    assert_eq!(server.site.deadline(), Some(REST.0));
    server.now = REST.0;
    assert_eq!(server.site.next(server.now).len(), 1);
    assert_eq!(said(&mut server, "forbidden"), None, "it is no news");
    assert_eq!(server.site.deadline(), Some(REST.0 * 3));
    assert_eq!(server.site.failures().collect::<Vec<_>>(), [(&account, "forbidden")]);
    // What is built anew is tried at once.
    server.site.desire(OWNER, built("one"));
    assert_eq!(server.turn(), ["ServiceAccount/main-router"]);
    assert_eq!((server.site.deadline(), server.site.failures().count()), (None, 0));
}

#[test]
fn a_hash_depends_on_what_is_said_and_not_on_how() {
    let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": [1, 2], "d": null}}"#).unwrap();
    let two: Value = serde_json::from_str(r#"{"b": {"d": null, "c": [1, 2]}, "a": 1}"#).unwrap();
    assert_eq!(hash(&one), hash(&two));
    assert_ne!(hash(&one), hash(&json!({"a": 1, "b": {"c": [2, 1], "d": null}})));
}

#[test]
fn pods_that_others_count_are_no_drift() {
    let mut server = Server::new("one");
    server.turn();
    server.available("main-router");
    let router = key("Deployment", "main-router");
    let mut live = server.site.live[&router].clone();
    // Somebody else's field: what is ours is as it was.
    live.pods = live.pods.map(|pods| Pods { wanted: 7, ..pods });
    live.version += 1;
    server.site.seen(router, live);
    assert!(server.turn().is_empty() && server.site.is_applied());
}
