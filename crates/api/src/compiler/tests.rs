//! The compiler's properties over any sequence of changes, and the cases that they are made of.

use super::*;
use crate::{
    Aor, Auth, DialplanSpec, DispatcherSpec, Duration, Extension, Identify, Match, PbxEndpointSpec, SecretRef, Step,
};
use proptest::prelude::*;

fn endpoint(name: &str, username: &str, context: &str, secret: &str) -> Resource {
    let auth =
        Auth { username: username.into(), password_secret_ref: SecretRef { name: secret.into(), key: "k".into() } };
    let spec = PbxEndpointSpec {
        name: None,
        context: context.into(),
        auth: Some(auth),
        aor: Some(Aor::default()),
        codecs: vec![crate::Codec::Ulaw],
        caller_id: None,
        identify: None,
        identify_by: vec![crate::IdentifyBy::Username],
        trust_id_inbound: false,
        callback: None,
    };
    Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(Spec::Endpoint(spec)) }
}

fn context(name: &str, own: Option<&str>, pattern: &str) -> Resource {
    let steps = vec![Step { answer: Some(crate::Empty {}), ..Step::default() }];
    let spec = DialplanSpec {
        name: own.map(str::to_owned),
        includes: vec![],
        time_zone: None,
        extensions: vec![Extension { pattern: pattern.into(), steps }],
    };
    Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(Spec::Dialplan(spec)) }
}

fn dispatcher(name: &str, pattern: &str) -> Resource {
    let spec = DispatcherSpec {
        name: None,
        algorithm: crate::Algorithm::Weight,
        destinations: vec![crate::Destination { uri: "sip:192.0.2.1".into(), weight: 1 }],
        probe: crate::Probe::default(),
        unavailable: crate::Unavailable::default(),
        matches: Some(Match { extensions: vec![pattern.into()] }),
    };
    Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(Spec::Dispatcher(spec)) }
}

fn pbx(name: &str, realm: &str) -> Resource {
    let spec = PbxSpec { realm: realm.into(), domains: vec!["pbx.example.org".into()], ..PbxSpec::default() };
    Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(Spec::Pbx(spec)) }
}

fn secret(name: &str, value: &str) -> Change {
    Change::Secret { name: name.into(), values: [("k".to_owned(), SecretValue::new(value))].into() }
}

fn id(kind: Kind, name: &str) -> ResourceId {
    ResourceId { kind, name: name.into() }
}

fn compiler() -> Compiler {
    Compiler::new(1, Held::default())
}

fn state(compiler: &Compiler, kind: Kind, name: &str) -> State {
    compiler.statuses()[&id(kind, name)].state
}

#[test]
fn deltas_follow_on_one_another() {
    let mut compiler = compiler();
    let mut routers = compiler.router().clone();
    for change in [
        Change::Put(context("a", None, "1")),
        secret("s", "p"),
        Change::Put(endpoint("8005", "8005", "a", "s")),
        Change::Put(context("a", None, "2")),
        Change::Put(pbx("main", "other")),
        Change::Delete(id(Kind::PbxEndpoint, "8005")),
    ] {
        let delta = compiler.apply([change]);
        if let Some(delta) = delta.router {
            routers.apply(&delta).unwrap();
        }
        assert_eq!(&routers, compiler.router());
    }
    assert_eq!(routers.entries.keys().collect::<Vec<_>>(), ["Dialplan/a", "Pbx/main"]);
}

#[test]
fn the_realm_of_the_pbx_is_in_every_hash() {
    let mut compiler = compiler();
    compiler.apply([secret("s", "p"), Change::Put(endpoint("1", "u", "c", "s"))]);
    let hash = |compiler: &Compiler| match compiler.registrar().entries["PbxEndpoint/1"].as_ref() {
        RegistrarEntry::Endpoint { auth: Some(auth), .. } => auth.ha1.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hash(&compiler), crate::ha1("u", "kubepbx", b"p"));
    compiler.apply([Change::Put(pbx("main", "office"))]);
    assert_eq!(hash(&compiler), crate::ha1("u", "office", b"p"));
    assert!(!compiler.media().entries.contains_key(IMPLICIT));
    compiler.apply([Change::Delete(id(Kind::Pbx, "main"))]);
    assert_eq!(hash(&compiler), crate::ha1("u", "kubepbx", b"p"));
    assert!(compiler.media().entries.contains_key(IMPLICIT));
}

#[test]
fn registrars_and_balancers_know_where_they_are_reached_while_there_are_domains() {
    let mut compiler = compiler();
    let hosts = |compiler: &Compiler, key: &str| match compiler.registrar().entries[key].as_ref() {
        RegistrarEntry::Pbx(pbx) => pbx.hosts.clone(),
        other => panic!("{other:?}"),
    };
    let at = |hosts: &[&str]| Change::Hosts(hosts.iter().map(|host| (*host).to_owned()).collect());
    compiler.apply([at(&["192.0.2.7"]), Change::Put(pbx("main", "office"))]);
    assert_eq!(hosts(&compiler, "Pbx/main"), ["192.0.2.7"]);
    // A node more: nobody else hears of it.
    let delta = compiler.apply([at(&["192.0.2.7", "192.0.2.8"])]);
    assert!(
        delta.registrar.is_some() && delta.balancer.is_some() && delta.router.is_none() && delta.statuses.is_empty()
    );
    assert_eq!(hosts(&compiler, "Pbx/main"), ["192.0.2.7", "192.0.2.8"]);
    assert!(compiler.apply([at(&["192.0.2.7", "192.0.2.8"])]).is_empty());
    // Also while the Pbx is held.
    let mut broken = pbx("main", "office");
    let Spec::Pbx(spec) = Arc::make_mut(&mut broken.spec) else { panic!() };
    spec.local_networks = vec!["nowhere".into()];
    compiler.apply([Change::Put(broken)]);
    compiler.apply([at(&["192.0.2.9"])]);
    assert_eq!(
        (state(&compiler, Kind::Pbx, "main"), hosts(&compiler, "Pbx/main")),
        (State::Held, vec!["192.0.2.9".into()])
    );
    compiler.apply([Change::Delete(id(Kind::Pbx, "main"))]);
    assert!(hosts(&compiler, IMPLICIT).is_empty(), "every host is ours");
}

#[test]
fn a_second_pbx_waits() {
    let mut compiler = compiler();
    compiler.apply([Change::Put(pbx("b", "b"))]);
    compiler.apply([Change::Put(pbx("a", "a"))]);
    assert_eq!((state(&compiler, Kind::Pbx, "a"), state(&compiler, Kind::Pbx, "b")), (State::Out, State::Live));
    compiler.apply([Change::Delete(id(Kind::Pbx, "b"))]);
    assert_eq!(state(&compiler, Kind::Pbx, "a"), State::Live);
}

#[test]
fn what_becomes_invalid_is_held_with_its_claims() {
    let mut compiler = compiler();
    compiler.apply([secret("s", "p"), Change::Put(endpoint("1", "u", "c", "s"))]);
    let before = compiler.registrar().entries.clone();
    compiler.apply([Change::SecretGone { name: "s".into() }]);
    assert_eq!(state(&compiler, Kind::PbxEndpoint, "1"), State::Held);
    assert_eq!(compiler.registrar().entries, before);
    // Nobody can take its username meanwhile.
    compiler.apply([secret("t", "q"), Change::Put(endpoint("0", "u", "c", "t"))]);
    assert_eq!(state(&compiler, Kind::PbxEndpoint, "0"), State::Out);
    let finding = compiler.statuses()[&id(Kind::PbxEndpoint, "0")].findings[0].clone();
    assert_eq!((finding.reason, finding.path.as_str()), (Reason::Conflict, "spec.auth.username"));
    // Deleted, it is gone at once and the other one has it.
    compiler.apply([Change::Delete(id(Kind::PbxEndpoint, "1"))]);
    assert_eq!(state(&compiler, Kind::PbxEndpoint, "0"), State::Live);
    assert!(!compiler.registrar().entries.contains_key("PbxEndpoint/1"));
}

#[test]
fn a_held_context_survives_a_restart() {
    let mut old = compiler();
    old.apply([Change::Put(context("a", None, "1"))]);
    old.apply([Change::Put(context("a", None, "_bad["))]);
    let held: Held = serde_json::from_value(serde_json::to_value(old.held()).unwrap()).unwrap();
    let mut new = Compiler::new(2, held.clone());
    new.apply([Change::Put(context("a", None, "_bad["))]);
    assert_eq!(new.router().entries, old.router().entries);
    assert_eq!(state(&new, Kind::Dialplan, "a"), State::Held);
    // What was deleted while nobody watched does not come back.
    let mut new = Compiler::new(2, held);
    new.apply([]);
    assert!(!new.router().entries.contains_key("Dialplan/a"));
    assert!(new.held().is_empty());
}

#[test]
fn age_decides_before_names() {
    let mut compiler = compiler();
    let young = Resource { created: Some(std::time::Duration::from_secs(20)), ..context("a", Some("x"), "1") };
    let aged = Resource { created: Some(std::time::Duration::from_secs(10)), ..context("b", Some("x"), "2") };
    compiler.apply([Change::Put(young), Change::Put(aged)]);
    assert_eq!(
        (state(&compiler, Kind::Dialplan, "a"), state(&compiler, Kind::Dialplan, "b")),
        (State::Out, State::Live)
    );
}

#[test]
fn references_are_reported_and_forgotten() {
    let mut compiler = compiler();
    compiler.apply([secret("s", "p"), Change::Put(endpoint("1", "u", "c", "s"))]);
    let status = compiler.statuses()[&id(Kind::PbxEndpoint, "1")].clone();
    assert_eq!((status.state, status.findings[0].reason), (State::Live, Reason::ContextNotFound));
    let delta = compiler.apply([Change::Put(context("other", Some("c"), "1"))]);
    assert_eq!(delta.statuses[&id(Kind::PbxEndpoint, "1")].as_ref().unwrap().findings, []);
    let delta = compiler.apply([Change::Delete(id(Kind::Dialplan, "other"))]);
    assert_eq!(delta.statuses[&id(Kind::PbxEndpoint, "1")].as_ref().unwrap().findings, status.findings);
}

#[test]
fn a_trusted_trunk_reaches_the_balancer() {
    let mut compiler = compiler();
    let mut trunk = endpoint("trunk", "t", "c", "s");
    if let Spec::Endpoint(spec) = Arc::make_mut(&mut trunk.spec) {
        spec.auth = None;
        spec.aor = None;
        spec.trust_id_inbound = true;
        spec.identify = Some(Identify { networks: vec!["192.0.2.7".into(), "192.0.2.9/24".into()] });
    }
    compiler.apply([Change::Put(trunk)]);
    let networks = ["192.0.2.7/32", "192.0.2.0/24"].map(|network| network.parse().unwrap()).to_vec();
    let want = BalancerEntry::Trunk { name: "trunk".into(), networks };
    assert_eq!(compiler.balancer().entries["PbxEndpoint/trunk"].as_ref(), &want);
    assert!(!compiler.registrar().entries.contains_key("PbxEndpoint/trunk"));
}

#[test]
fn conditions_say_what_the_status_says() {
    let mut compiler = compiler();
    compiler.apply([Change::Put(endpoint("1", "u", "c", "s"))]);
    let mut conditions = Vec::new();
    let status = &compiler.statuses()[&id(Kind::PbxEndpoint, "1")];
    assert!(status.set_conditions(&mut conditions, std::time::Duration::from_secs(1)));
    let seen: Vec<_> = conditions.iter().map(|c| (c.kind.as_str(), c.reason.as_str())).collect();
    assert_eq!(seen, [("Accepted", "Accepted"), ("ResolvedRefs", "SecretNotFound")]);
}

#[test]
fn a_dispatcher_says_what_the_balancer_needs() {
    let mut compiler = compiler();
    let mut resource = dispatcher("asterisk", "_9.");
    if let Spec::Dispatcher(spec) = Arc::make_mut(&mut resource.spec) {
        spec.probe.interval = Duration::from_secs(2);
    }
    compiler.apply([Change::Put(resource), Change::Put(dispatcher("other", "_9."))]);
    match compiler.balancer().entries["Dispatcher/asterisk"].as_ref() {
        BalancerEntry::Dispatcher(entry) => {
            assert_eq!((entry.probe.interval_ms, entry.extensions.as_slice()), (2000, &["_9.".to_owned()][..]));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(state(&compiler, Kind::Dispatcher, "other"), State::Out);
}

/// Any changes over few names, so that resources contest, break, change and vanish a lot.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let age = prop::option::of(1u64..4);
    let aged = |resource: Resource, age: Option<u64>| {
        Change::Put(Resource { created: age.map(std::time::Duration::from_secs), ..resource })
    };
    let change = prop_oneof![
        4 => (name(), name(), name(), name(), age.clone())
            .prop_map(move |(n, u, c, s, age)| aged(endpoint(n, u, c, s), age)),
        4 => (name(), prop::option::of(name()), prop::sample::select(vec!["1", "_2X", "_bad["]), age.clone())
            .prop_map(move |(n, own, p, age)| aged(context(n, own, p), age)),
        2 => (name(), prop::sample::select(vec!["1", "_2X", "_2[0-9]", "_bad["]), age.clone())
            .prop_map(move |(n, p, age)| aged(dispatcher(n, p), age)),
        1 => (name(), name(), age).prop_map(move |(n, realm, age)| aged(pbx(n, realm), age)),
        1 => name().prop_map(|host| Change::Hosts([host.to_owned()].into())),
        2 => (name(), name()).prop_map(|(n, value)| secret(n, value)),
        1 => name().prop_map(|n| Change::SecretGone { name: n.into() }),
        3 => (prop::sample::select(Kind::ALL.to_vec()), name()).prop_map(|(kind, n)| Change::Delete(id(kind, n))),
    ];
    prop::collection::vec(change, 1..24)
}

/// The inputs that a sequence of changes leaves, as changes that bring them all at once.
fn inputs(changes: &[Change]) -> Vec<Change> {
    let mut last: BTreeMap<String, Change> = BTreeMap::new();
    for change in changes {
        let (key, there) = match change {
            Change::Put(resource) => (resource.id().to_string(), true),
            Change::Delete(id) => (id.to_string(), false),
            Change::Secret { name, .. } => (format!("Secret/{name}"), true),
            Change::SecretGone { name } => (format!("Secret/{name}"), false),
            Change::Hosts(_) => ("Hosts".to_owned(), true),
        };
        if there {
            last.insert(key, change.clone());
        } else {
            last.remove(&key);
        }
    }
    last.into_values().collect()
}

fn assert_alike(left: &Compiler, right: &Compiler) {
    assert_eq!(left.balancer().entries, right.balancer().entries);
    assert_eq!(left.registrar().entries, right.registrar().entries);
    assert_eq!(left.router().entries, right.router().entries);
    assert_eq!(left.media().entries, right.media().entries);
    assert_eq!(left.conference().entries, right.conference().entries);
    assert_eq!(left.statuses(), right.statuses());
    assert_eq!(left.router().version.hash, right.router().version.hash);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Always: a successor that is given what is held and all inputs at once, in whatever order, has the same.
    #[test]
    fn a_successor_judges_alike(changes in changes(), seed in any::<u64>()) {
        let mut lived = compiler();
        for change in changes.iter().cloned() {
            lived.apply([change]);
        }
        let mut all = inputs(&changes);
        shuffle(&mut all, seed);
        let held = serde_json::from_value(serde_json::to_value(lived.held()).unwrap()).unwrap();
        let mut successor = Compiler::new(2, held);
        successor.apply(all);
        assert_alike(&lived, &successor);
        prop_assert_eq!(lived.held(), successor.held());
    }

    /// Where nothing is contested and nothing that was valid becomes invalid, no order of changes matters and nothing is
    /// held: the outcome is that of compiling all at once.
    #[test]
    fn order_does_not_matter_without_contests(names in prop::collection::btree_set(0u8..12, 1..8), seed in any::<u64>(), batch in 1usize..5) {
        let mut all = vec![Change::Put(pbx("main", "office"))];
        for name in names {
            let name = format!("n{name}");
            all.push(secret(&name, &name));
            all.push(Change::Put(endpoint(&name, &name, &name, &name)));
            all.push(Change::Put(context(&name, None, "_8XX")));
            all.push(Change::Put(dispatcher(&name, &format!("_{}", name.replace('n', "7")))));
        }
        let mut fresh = compiler();
        fresh.apply(all.clone());
        shuffle(&mut all, seed);
        let mut lived = compiler();
        for batch in all.chunks(batch) {
            lived.apply(batch.to_vec());
        }
        assert_alike(&fresh, &lived);
        prop_assert!(lived.held().is_empty());
        prop_assert!(lived.statuses().values().all(|status| status.state == State::Live && status.findings.is_empty()));
    }

    /// The deltas, put one after the other onto an empty snapshot, are the snapshot; no claim is held twice; and changes
    /// that bring what is there already change nothing.
    #[test]
    fn deltas_add_up(changes in changes()) {
        let mut compiler = compiler();
        let mut routers = compiler.router().clone();
        let mut registrars = compiler.registrar().clone();
        let mut balancers = compiler.balancer().clone();
        for change in changes.iter().cloned() {
            let delta = compiler.apply([change]);
            delta.router.iter().for_each(|delta| routers.apply(delta).unwrap());
            delta.registrar.iter().for_each(|delta| registrars.apply(delta).unwrap());
            delta.balancer.iter().for_each(|delta| balancers.apply(delta).unwrap());
            let mut held = BTreeSet::new();
            for claim in compiler.live.values().flat_map(|live| live.claims.iter()) {
                prop_assert!(held.insert(claim.clone()), "{:?} is held twice", claim);
            }
        }
        prop_assert_eq!(&routers, compiler.router());
        prop_assert_eq!(&registrars, compiler.registrar());
        prop_assert_eq!(&balancers, compiler.balancer());
        prop_assert!(compiler.apply(inputs(&changes)).is_empty());
    }
}

fn shuffle(changes: &mut [Change], mut seed: u64) {
    for at in (1..changes.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        changes.swap(at, usize::try_from(seed >> 33).unwrap() % (at + 1));
    }
}
