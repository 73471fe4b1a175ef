//! The registrar in virtual time: real requests and answers, a store that answers when the test says so.

use super::*;
use crate::testing::{BALANCER, ME, Phone, flow, keys, snapshot};
use contract::peers::Peer;
use contract::{InstallationKey, Service, Transport};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sip::digest::Challenge;
use std::collections::BTreeMap;

#[path = "rotation_tests.rs"]
mod rotation;

/// A registrar, the store it looks things up in, and the time.
struct World {
    core: Core,
    now: Now,
    rng: StdRng,
    aors: BTreeMap<String, Aor>,
    nonces: BTreeMap<String, u32>,
    revision: u64,
    incarnation: u64,
    /// The store answers at once, not at all, or with an error.
    store: StoreMood,
    /// Somebody else writes the AOR before the next swap.
    intruder: Option<Binding>,
    sent: Vec<(ProcessId, Bytes)>,
}

#[derive(PartialEq)]
enum StoreMood {
    Answers,
    Silent,
    Fails,
}

impl World {
    fn new(domains: &[&str]) -> Self {
        let mut world = Self {
            core: Core::new(ME, Settings::default(), keys()),
            now: Now { mono: Duration::from_secs(5), wall: Duration::from_secs(1_700_000_000) },
            rng: StdRng::seed_from_u64(1),
            aors: BTreeMap::new(),
            nonces: BTreeMap::new(),
            revision: 0,
            incarnation: 1,
            store: StoreMood::Answers,
            intruder: None,
            sent: Vec::new(),
        };
        world.input(Input::Configured(Arc::new(Directory::new(&snapshot(domains)))));
        world.peers(&[(Service::Registrar, ME), (Service::Balancer, BALANCER)]);
        world
    }

    fn peers(&mut self, list: &[(Service, ProcessId)]) {
        let peer = |&(service, process)| Peer::new(service, process);
        self.input(Input::Peers(Arc::new(Peers(list.iter().map(peer).collect()))));
    }

    fn input(&mut self, input: Input) {
        self.core.handle(input, self.now, &mut self.rng);
        while let Some(output) = self.core.poll() {
            if let Some(answer) = self.perform(output) {
                self.core.handle(answer, self.now, &mut self.rng);
            }
        }
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        if let Output::Send { to, bytes } = output {
            self.sent.push((to, bytes));
            return None;
        }
        if self.store == StoreMood::Silent {
            return None;
        }
        let down = || StoreError::Unavailable("gone".into());
        let fails = self.store == StoreMood::Fails;
        Some(match output {
            Output::UseNonce(id, ..) if fails => Input::NonceUsed(id, Err(down())),
            Output::Load(id, _) if fails => Input::Loaded(id, Err(down())),
            Output::Swap(id, ..) if fails => Input::Swapped(id, Err(down())),
            Output::UseNonce(id, nonce, nc, _) => {
                let last = self.nonces.entry(nonce).or_default();
                let fresh = nc > *last;
                *last = nc.max(*last);
                Input::NonceUsed(id, Ok(fresh))
            }
            Output::Load(id, aor) => Input::Loaded(id, Ok(self.aors.get(&aor).cloned().unwrap_or_default())),
            Output::Swap(id, name, revision, bindings) => {
                if let Some(binding) = self.intruder.take() {
                    self.revision += 1;
                    self.aors.insert(name, Aor { revision: self.revision, bindings: vec![binding] });
                    return Some(Input::Swapped(id, Err(StoreError::Conflict)));
                }
                if self.aors.get(&name).map_or(0, |a| a.revision) != revision {
                    return Some(Input::Swapped(id, Err(StoreError::Conflict)));
                }
                self.revision += 1;
                self.aors.insert(name, Aor { revision: self.revision, bindings });
                Input::Swapped(id, Ok(self.revision))
            }
            Output::Standing if fails => Input::Standing(Err(down())),
            Output::Standing => Input::Standing(Ok(Standing { incarnation: self.incarnation, taken: 0 })),
            Output::FindExpired(limit) => {
                let unix = self.now.unix();
                let due = self.aors.iter().filter(|(_, a)| a.bindings.iter().any(|b| !b.is_live(unix)));
                Input::Expired(Ok(due.map(|(n, _)| n.clone()).take(limit).collect()))
            }
            Output::Send { .. } | Output::Count(_) => return None,
        })
    }

    /// Runs until `by` later, stopping at each deadline.
    fn pass(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(at) = self.core.deadline().filter(|d| *d <= end.mono) {
            self.now = self.now.plus(at.saturating_sub(self.now.mono));
            self.input(Input::Tick);
        }
        self.now = end;
    }

    fn deliver(&mut self, bytes: Bytes) {
        self.input(Input::Message(Inside { from: BALANCER, service: Service::Balancer, bytes }));
    }

    /// The one answer since the last look, with where it went.
    fn answer(&mut self) -> Option<Answer> {
        assert!(self.sent.len() <= 1, "{} answers", self.sent.len());
        self.sent.pop().map(|(to, bytes)| {
            assert_eq!(to, BALANCER);
            Answer(bytes)
        })
    }

    fn ask(&mut self, phone: &mut Phone, headers: &str) -> Answer {
        let request = phone.request(&keys(), headers);
        self.deliver(request);
        self.answer().expect("an answer")
    }

    /// Asks, and again with credentials if challenged.
    fn register(&mut self, phone: &mut Phone, headers: &str) -> Answer {
        let first = self.ask(phone, headers);
        if first.status() != 401 {
            return first;
        }
        phone.challenged(&first.message());
        self.ask(phone, headers)
    }

    fn contacts(&self, aor: &str) -> Vec<&str> {
        self.aors.get(aor).map(|a| a.bindings.iter().map(|b| b.contact.as_str()).collect()).unwrap_or_default()
    }
}

struct Answer(Bytes);

impl Answer {
    fn message(&self) -> Message<'_> {
        Message::parse_stream(&self.0).unwrap()
    }

    fn status(&self) -> u16 {
        self.message().status().unwrap()
    }

    fn header(&self, name: Name) -> String {
        self.message().header(name).unwrap_or_default().to_owned()
    }

    fn all(&self, name: Name) -> Vec<String> {
        self.message().values(name).map(str::to_owned).collect()
    }
}

const CONTACT: &str = "Contact: <sip:8005@127.0.0.1:5070>\r\n";

#[test]
fn a_phone_registers_asks_refreshes_and_leaves() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    let first = world.ask(&mut phone, CONTACT);
    assert_eq!(first.status(), 401);
    assert!(world.aors.is_empty());
    assert!(first.message().to().unwrap().tag().is_some());
    assert_eq!(first.message().headers(Name::Via).count(), 2);
    phone.challenged(&first.message());

    let ok = world.ask(&mut phone, "Contact: <sip:8005@127.0.0.1:5070>;expires=120;q=0.5\r\n");
    assert_eq!(ok.status(), 200);
    assert_eq!(ok.all(Name::Contact), ["<sip:8005@127.0.0.1:5070>;expires=120;q=0.500"]);
    assert_eq!(ok.header(Name::Date), "Tue, 14 Nov 2023 22:13:20 GMT");
    assert_eq!(ok.header(Name::Supported), "path");
    let token = format!("<sip:{}@127.0.0.1:5060;lr>", phone.flow.token(&keys()));
    assert_eq!(ok.all(Name::Path), std::slice::from_ref(&token));
    let stored = &world.aors["8005"].bindings[0];
    assert_eq!((stored.path.as_slice(), stored.flow), ([token].as_slice(), Some(phone.flow)));
    assert_eq!(stored.user_agent.as_deref(), Some("phone"));

    world.pass(Duration::from_secs(20));
    assert_eq!(world.ask(&mut phone, "").all(Name::Contact), ["<sip:8005@127.0.0.1:5070>;expires=100;q=0.500"]);
    let revision = world.aors["8005"].revision;
    assert_eq!(world.ask(&mut phone, CONTACT).all(Name::Contact), ["<sip:8005@127.0.0.1:5070>;expires=3600"]);
    assert!(world.aors["8005"].revision > revision);
    let gone = world.ask(&mut phone, "Contact: *\r\nExpires: 0\r\n");
    assert_eq!((gone.status(), gone.all(Name::Contact).len()), (200, 0));
    assert!(world.contacts("8005").is_empty());
}

#[test]
fn a_phone_that_is_woken_when_it_is_called_hears_that_it_is() {
    let mut world = World::new(&[]);
    let contact =
        |user: &str, rest: &str| format!("Contact: <sip:{user}@127.0.0.1:5070;pn-provider=fcm;pn-prid=x>{rest}\r\n");
    let mut phone = Phone::new("8006", "secret6");
    assert_eq!(world.register(&mut phone, &contact("8006", "")).all(Name::FeatureCaps), ["*;+sip.pns=\"fcm\""]);
    assert_eq!(world.ask(&mut phone, &contact("8006", ";expires=0")).all(Name::FeatureCaps), [""; 0]);
    for (contact, why) in
        [("sip:8006@127.0.0.1:5070", "it asks for nothing"), ("sip:8006@127.0.0.1;pn-provider=a%0d%0ab", "no name")]
    {
        let answer = world.ask(&mut phone, &format!("Contact: <{contact}>\r\n"));
        assert_eq!((answer.status(), answer.all(Name::FeatureCaps).len()), (200, 0), "{why}");
    }
    // Nobody is held for this one.
    let mut phone = Phone::new("8005", "secret5");
    assert_eq!(world.register(&mut phone, &contact("8005", "")).all(Name::FeatureCaps), [""; 0]);
}

#[test]
fn nobody_gets_in_without_the_password_nor_learns_who_exists() {
    let mut world = World::new(&[]);
    // (user, password, AOR): all look alike from outside.
    for (user, password, to) in [
        ("8005", "wrong", "8005"),
        ("8005", "", "8005"),
        ("nobody", "secret5", "nobody"),
        ("open", "", "open"),
        ("8005", "wrong", "nobody"),
    ] {
        let mut phone = Phone::new(user, password);
        phone.to = format!("<sip:{to}@127.0.0.1>");
        for _ in 0..3 {
            let answer = world.register(&mut phone, CONTACT);
            assert_eq!(answer.status(), 401, "{user}");
            assert!(!answer.header(Name::WwwAuthenticate).contains("stale"), "{user}");
            assert_eq!(answer.message().fields().filter(|(n, _)| *n == "WWW-Authenticate").count(), 1);
        }
    }
    assert!(world.aors.is_empty());
}

#[test]
fn an_aor_belongs_to_its_user() {
    let mut world = World::new(&["pbx.example"]);
    for (to, want) in [
        ("<sip:8006@pbx.example>", 403),
        ("<sip:8007@pbx.example>", 404),
        ("<tel:8005>", 404),
        ("<sip:8005@elsewhere.example>", 404),
        ("<sip:8005@PBX.example>", 200),
        ("<sip:80%305@pbx.example>", 200),
        // The address that the packet was sent to is ours.
        ("<sip:8005@127.0.0.1:5060>", 200),
        // So is where the balancers are said to be reached.
        ("<sip:8005@LB.example.org>", 200),
    ] {
        let mut phone = Phone::new("8005", "secret5");
        phone.to = to.into();
        assert_eq!(world.register(&mut phone, CONTACT).status(), want, "{to}");
    }
    assert!(world.contacts("8006").is_empty());
    // Without domains any host is.
    let mut phone = Phone::new("8005", "secret5");
    phone.to = "<sip:8005@elsewhere.example>".into();
    assert_eq!(World::new(&[]).register(&mut phone, CONTACT).status(), 200);
}

#[test]
fn sha_256_is_accepted_and_offered_where_it_is_set() {
    let mut world = World::new(&[]);
    let settings = Settings { algorithms: vec![Algorithm::Sha256, Algorithm::Md5], ..Settings::default() };
    world.core = Core::new(ME, settings, keys());
    world.input(Input::Configured(Arc::new(Directory::new(&snapshot(&[])))));
    let mut phone = Phone::new("8005", "secret5");
    let first = world.ask(&mut phone, CONTACT);
    let offered: Vec<_> =
        first.message().headers(Name::WwwAuthenticate).map(|v| Challenge::parse(v).unwrap()).collect();
    assert_eq!(offered.iter().map(|c| c.algorithm).collect::<Vec<_>>(), [Algorithm::Sha256, Algorithm::Md5]);
    for challenge in offered {
        let mut phone = Phone::new("8005", "secret5");
        phone.call_id = format!("{}", challenge.algorithm);
        phone.nc = if challenge.algorithm == Algorithm::Md5 { 1 } else { 0 };
        phone.challenge = Some(challenge);
        assert_eq!(world.ask(&mut phone, CONTACT).status(), 200);
    }
}

#[test]
fn a_nonce_count_serves_once_and_an_old_nonce_is_stale() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    assert_eq!(world.register(&mut phone, CONTACT).status(), 200);
    // Somebody replays the credentials in a request of his own.
    let mut thief = Phone::new("8005", "secret5");
    thief.call_id = "thief".into();
    thief.challenge = phone.challenge.clone();
    let answer = world.ask(&mut thief, "Contact: <sip:thief@127.0.0.1:6666>\r\n");
    assert_eq!(answer.status(), 401);
    assert!(answer.header(Name::WwwAuthenticate).contains("stale=true"));
    assert_eq!(world.contacts("8005"), ["sip:8005@127.0.0.1:5070"]);
    // The count goes on within the nonce's life and not after it.
    assert_eq!(world.ask(&mut phone, CONTACT).status(), 200);
    world.pass(Duration::from_secs(301));
    let answer = world.ask(&mut phone, CONTACT);
    assert_eq!(answer.status(), 401);
    assert!(answer.header(Name::WwwAuthenticate).contains("stale=true"));
    phone.challenged(&answer.message());
    assert_eq!(world.ask(&mut phone, CONTACT).status(), 200);
    // A nonce that is not ours is not stale, however right the response is.
    phone.challenge = Some(Challenge::new("kubepbx", "0123456789abcdef", Algorithm::Md5));
    let answer = world.ask(&mut phone, CONTACT);
    assert_eq!(answer.status(), 401);
    assert!(!answer.header(Name::WwwAuthenticate).contains("stale"));
}

#[test]
fn a_request_that_comes_twice_is_answered_twice_and_done_once() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    let first = world.ask(&mut phone, CONTACT);
    phone.challenged(&first.message());
    let request = phone.request(&keys(), CONTACT);
    // By way of another balancer: another branch on top.
    let again = String::from_utf8(request.to_vec()).unwrap().replace("z9hG4bKbalancer", "z9hG4bKother");
    world.deliver(request);
    let first = world.answer().unwrap();
    world.deliver(Bytes::from(again.clone()));
    let second = world.answer().unwrap();
    assert_eq!((first.status(), second.status()), (200, 200));
    assert!(second.message().via().unwrap().branch().unwrap().contains("other"));
    assert_eq!(first.message().to().unwrap().tag(), second.message().to().unwrap().tag());
    // While the first is still under way, the second waits for its answer.
    world.store = StoreMood::Silent;
    let request = phone.request(&keys(), CONTACT);
    world.deliver(request.clone());
    world.deliver(request);
    assert!(world.answer().is_none());
    assert_eq!(world.core.under_way(), 1);
}

#[test]
fn only_what_a_balancer_vouches_for_is_heard() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    let good = String::from_utf8(phone.request(&keys(), CONTACT).to_vec()).unwrap();
    let without: String = good.split_inclusive("\r\n").filter(|l| !l.starts_with(hop::HEADER)).collect();
    world.deliver(Bytes::from(without));
    assert_eq!(world.answer().unwrap().status(), 403);
    // Its seal is for one Call-ID and CSeq.
    world.deliver(Bytes::from(good.replace("call-8005", "call-other")));
    assert_eq!(world.answer().unwrap().status(), 403);
    let forged = phone.request(&KeyRing::new(InstallationKey::new(1, [8; 32])), CONTACT);
    world.deliver(forged);
    assert_eq!(world.answer().unwrap().status(), 403);
}

#[test]
fn other_requests_have_their_answers() {
    let mut world = World::new(&[]);
    for (method, headers, want) in [
        ("OPTIONS", "", Some(200)),
        ("INVITE", "Contact: <sip:a@h>\r\n", Some(405)),
        ("SUBSCRIBE", "Contact: <sip:a@h>\r\nEvent: reg\r\n", Some(405)),
        ("CANCEL", "", Some(481)),
        ("ACK", "", None),
        ("REGISTER", "Require: path, gruu, outbound\r\n", Some(420)),
        ("REGISTER", "Require: path\r\n", Some(401)),
        ("REGISTER", "Expires: x\r\n", Some(400)),
    ] {
        let mut phone = Phone::new("8005", "secret5");
        phone.method = method;
        let request = phone.request(&keys(), headers);
        world.deliver(request);
        let answer = world.answer();
        assert_eq!(answer.as_ref().map(Answer::status), want, "{method} {headers}");
        if let Some(answer) = answer.filter(|a| matches!(a.status(), 405 | 420)) {
            let told = if answer.status() == 405 { Name::Allow } else { Name::Unsupported };
            assert_eq!(answer.all(told).len(), 2, "{method}");
        }
    }
    world.deliver(Bytes::from_static(b"SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
    world.deliver(Bytes::from_static(b"\x00\xff noise"));
    assert!(world.answer().is_none());
}

#[test]
fn refusals_say_what_they_mean() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    assert_eq!(world.register(&mut phone, CONTACT).status(), 200);
    let brief = world.ask(&mut phone, "Contact: <sip:8005@127.0.0.1:5070>;expires=59\r\n");
    assert_eq!((brief.status(), brief.header(Name::MinExpires).as_str()), (423, "60"));
    let star = world.ask(&mut phone, "Contact: *\r\n");
    assert_eq!(star.status(), 400);
    let mut second = Phone::new("8005", "secret5");
    second.call_id = "another phone".replace(' ', "-");
    let full = world.register(&mut second, "Contact: <sip:8005@127.0.0.1:5099>\r\n");
    assert_eq!((full.status(), full.message().reason()), (403, Some("Too many contacts")));
    phone.cseq = 0;
    assert_eq!(world.ask(&mut phone, "Contact: <sip:8005@127.0.0.1:5070>;expires=0\r\n").status(), 500);
    assert_eq!(world.contacts("8005"), ["sip:8005@127.0.0.1:5070"]);
}

#[test]
fn a_contact_on_a_lost_connection_makes_room() {
    let mut world = World::new(&[]);
    let mut first = Phone::new("8005", "secret5");
    first.flow = flow(Transport::Tcp, ProcessId(77));
    world.peers(&[(Service::Registrar, ME), (Service::Balancer, BALANCER), (Service::Balancer, ProcessId(77))]);
    assert_eq!(world.register(&mut first, CONTACT).status(), 200);
    let mut second = Phone::new("8005", "secret5");
    second.call_id = "second".into();
    let contact = "Contact: <sip:8005@127.0.0.1:5099>\r\n";
    assert_eq!(world.register(&mut second, contact).status(), 403);
    world.peers(&[(Service::Registrar, ME), (Service::Balancer, BALANCER)]);
    assert_eq!(world.ask(&mut second, contact).status(), 200);
    assert_eq!(world.contacts("8005"), ["sip:8005@127.0.0.1:5099"]);
}

#[test]
fn when_somebody_else_writes_first_the_rules_run_again() {
    let mut world = World::new(&[]);
    let mut other = World::new(&[]);
    let mut rival = Phone::new("8005", "secret5");
    rival.call_id = "rival".into();
    assert_eq!(other.register(&mut rival, "Contact: <sip:8005@127.0.0.1:5099>\r\n").status(), 200);
    let binding = other.aors["8005"].bindings[0].clone();

    world.intruder = Some(binding.clone());
    let mut phone = Phone::new("8005", "secret5");
    assert_eq!(world.register(&mut phone, CONTACT).status(), 403);
    assert_eq!(world.contacts("8005"), ["sip:8005@127.0.0.1:5099"]);
    // The rival is the same phone: then it is replaced.
    world.aors.clear();
    world.intruder = Some(Binding { call_id: phone.call_id.clone(), cseq: 1, ..binding });
    assert_eq!(world.ask(&mut phone, CONTACT).status(), 200);
    assert_eq!(world.contacts("8005"), ["sip:8005@127.0.0.1:5070"]);
}

#[test]
fn without_a_store_phones_are_told_to_come_back_within_a_second() {
    let mut waits = Vec::new();
    for mood in [StoreMood::Fails, StoreMood::Silent] {
        let mut world = World::new(&[]);
        world.store = mood;
        for n in 0..20 {
            let mut phone = Phone::new("8005", "secret5");
            phone.call_id = format!("call-{n}");
            let first = world.ask(&mut phone, CONTACT);
            phone.challenged(&first.message());
            let request = phone.request(&keys(), CONTACT);
            world.deliver(request);
            world.pass(Duration::from_millis(999));
            let answer = world.answer().expect("within a second");
            assert_eq!(answer.status(), 503);
            waits.push(answer.header(Name::RetryAfter).parse::<u32>().unwrap());
        }
        assert_eq!(world.core.under_way(), 0);
        // It is back: the phone's next try is a new request.
        world.store = StoreMood::Answers;
        assert_eq!(world.register(&mut Phone::new("8005", "secret5"), CONTACT).status(), 200);
    }
    assert!(waits.iter().all(|w| (5..=30).contains(w)));
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 8, "not spread: {waits:?}");
}

#[test]
fn more_requests_than_fit_are_refused_and_none_is_kept() {
    let mut world = World::new(&[]);
    let settings = Settings { limit: 3, ..Settings::default() };
    world.core = Core::new(ME, settings, keys());
    world.input(Input::Configured(Arc::new(Directory::new(&snapshot(&[])))));
    world.store = StoreMood::Silent;
    let statuses: Vec<_> = (0..5)
        .map(|n| {
            let mut phone = Phone::new("8005", "secret5");
            phone.call_id = format!("call-{n}");
            let first = world.ask(&mut phone, CONTACT);
            phone.challenged(&first.message());
            let request = phone.request(&keys(), CONTACT);
            world.deliver(request);
            world.answer().map(|a| a.status())
        })
        .collect();
    assert_eq!(statuses, [None, None, None, Some(503), Some(503)]);
    assert_eq!(world.core.under_way(), 3);
    for _ in 0..3 {
        world.pass(Duration::from_millis(300));
    }
    assert_eq!((world.core.under_way(), world.sent.len()), (0, 3));
}

#[test]
fn expired_bindings_are_swept_by_one_registrar() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    assert_eq!(world.register(&mut phone, "Contact: <sip:8005@127.0.0.1:5070>;expires=60\r\n").status(), 200);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.contacts("8005").len(), 1);
    let revision = world.aors["8005"].revision;
    world.pass(Duration::from_secs(4));
    assert!(world.contacts("8005").is_empty());
    // A write, so whoever follows the AOR was told.
    assert!(world.aors["8005"].revision > revision);
    assert_eq!(world.core.under_way(), 0);

    // Of two registrars exactly one sweeps.
    let peers = [(Service::Registrar, ME), (Service::Registrar, ProcessId(9))];
    let list = Peers(peers.map(|(service, process)| Peer::new(service, process)).to_vec());
    let sweepers = peers.iter().filter(|(_, process)| sweep::is_mine(&list, *process)).count();
    assert_eq!(sweepers, 1);
}

#[test]
fn a_registrar_that_drains_or_knows_nothing_yet_passes_requests_on() {
    let mut world = World::new(&[]);
    world.input(Input::Drain);
    assert_eq!(world.ask(&mut Phone::new("8005", "secret5"), CONTACT).status(), 503);
    let mut world = World::new(&[]);
    world.core = Core::new(ME, Settings::default(), keys());
    assert_eq!(world.ask(&mut Phone::new("8005", "secret5"), CONTACT).status(), 503);
}

#[test]
fn noise_does_not_panic() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    let first = world.ask(&mut phone, CONTACT);
    phone.challenged(&first.message());
    let good = phone.request(&keys(), CONTACT);
    for _ in 0..20_000 {
        let mut bytes = good.to_vec();
        for _ in 0..world.rng.random_range(1..4) {
            let at = world.rng.random_range(0..bytes.len());
            bytes[at] = world.rng.random();
        }
        world.deliver(Bytes::from(bytes));
        world.sent.clear();
    }
    world.pass(Duration::from_secs(2));
    assert_eq!(world.core.under_way(), 0);
}

#[test]
fn a_store_that_comes_back_without_them_gets_the_bindings_again() {
    for (away, emptied) in [(false, true), (true, true), (true, false)] {
        let mut world = World::new(&[]);
        let mut phone = Phone::new("8005", "secret5");
        world.register(&mut phone, CONTACT);
        let mut other = Phone::new("8006", "secret6");
        world.register(&mut other, "Contact: <sip:8006@127.0.0.1:5070>\r\n");
        world.pass(Duration::from_secs(3));
        if away {
            world.store = StoreMood::Fails;
            world.pass(Duration::from_secs(3));
            world.store = StoreMood::Answers;
        }
        // Another registrar takes a registration before us.
        let taken = world.aors.remove("8006").unwrap();
        let lost = world.aors.remove("8005").unwrap();
        if emptied {
            world.incarnation += 1;
            world.revision += 10;
            world.aors.insert("8006".into(), Aor { revision: world.revision, ..taken });
        }
        world.pass(Duration::from_secs(3));
        assert_eq!(world.aors["8005"].bindings, lost.bindings, "{away} {emptied}");
        if emptied {
            assert_eq!(world.aors["8006"].revision + 1, world.aors["8005"].revision, "that one was left alone");
        }
        // It is what a phone can refresh and take away.
        world.register(&mut phone, "Contact: *\r\nExpires: 0\r\n");
        assert_eq!(world.contacts("8005"), [""; 0]);
        world.incarnation += 1;
        world.pass(Duration::from_secs(3));
        assert_eq!(world.contacts("8005"), [""; 0], "what was taken away stays away");
    }
}

#[test]
fn what_another_registrar_wrote_later_is_not_written_over() {
    let mut world = World::new(&[]);
    let mut phone = Phone::new("8005", "secret5");
    world.register(&mut phone, CONTACT);
    world.pass(Duration::from_secs(2));
    world.input(Input::Hint(AorHint::Changed { aor: "8005".into(), revision: world.revision + 5 }));
    world.aors.clear();
    world.incarnation += 1;
    world.pass(Duration::from_secs(3));
    assert!(world.aors.is_empty());
}
