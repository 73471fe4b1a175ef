//! Elections in virtual time, over an API server that is slow, loses answers and falls silent.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn candidate(name: &str) -> Candidate {
    Candidate::new("kubepbx", "kubepbx-operator", name, &format!("https://{name}:8443"))
}

/// What the API server does with Leases: writes succeed only on the version that they were made from.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    writes: u64,
}

impl Server {
    fn create(&mut self, lease: Lease) -> Result<Lease, Unwritten> {
        if self.lease.is_some() { Err(Unwritten::Conflict) } else { Ok(self.store(lease)) }
    }

    fn replace(&mut self, lease: Lease) -> Result<Lease, Unwritten> {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        match &self.lease {
            Some(old) if version(old) == version(&lease) => Ok(self.store(lease)),
            _ => Err(Unwritten::Conflict),
        }
    }

    fn store(&mut self, mut lease: Lease) -> Lease {
        self.writes += 1;
        lease.metadata.resource_version = Some(self.writes.to_string());
        self.lease = Some(lease.clone());
        lease
    }

    fn transitions(&self) -> u64 {
        self.lease.as_ref().map_or(0, transitions)
    }

    /// Lets a candidate do all that it wants to at this time, with an answer at once.
    fn settle(&mut self, election: &mut Election, now: Duration, above: u64) {
        loop {
            match election.next(now, now, above) {
                Step::Read => election.seen(self.lease.clone(), now),
                Step::Create(lease) => election.written(self.create(*lease), now),
                Step::Replace(lease) => election.written(self.replace(*lease), now),
                Step::Wait(until) => {
                    assert!(until > now);
                    return;
                }
            }
        }
    }
}

fn here(epoch: u64) -> Leader {
    Leader::Here { epoch }
}

fn there(name: &str) -> Leader {
    Leader::There(format!("https://{name}:8443"))
}

#[test]
fn the_first_leads_the_second_waits_and_has_it_at_once_when_it_is_given_up() {
    let mut server = Server::default();
    let (mut a, mut b) = (Election::new(candidate("a")), Election::new(candidate("b")));
    server.settle(&mut a, S, 0);
    server.settle(&mut b, S, 0);
    assert_eq!((a.leader(S), b.leader(S)), (here(1), there("a")));
    let lease = server.lease.clone().unwrap();
    assert_eq!(lease.metadata.annotations.unwrap()[URL], "https://a:8443");
    let acquired = lease.spec.unwrap().acquire_time;
    for second in 2..60 {
        server.settle(&mut a, S * second, 0);
        server.settle(&mut b, S * second, 0);
        assert_eq!((a.leader(S * second), b.leader(S * second)), (here(1), there("a")));
    }
    let spec = server.lease.clone().unwrap().spec.unwrap();
    assert_eq!((spec.acquire_time, spec.lease_transitions), (acquired, Some(1)));
    assert!(server.writes < 35, "a leader renews once a period: {}", server.writes);
    let lease = a.resign().unwrap();
    assert_eq!(a.leader(S * 60), Leader::Nobody);
    server.replace(lease).unwrap();
    server.settle(&mut b, S * 62, 0);
    assert_eq!(b.leader(S * 62), here(2));
    // Who gave it up and stands again does not take it back.
    server.settle(&mut a, S * 63, 0);
    assert_eq!((a.leader(S * 63), a.resign()), (there("b"), None));
}

#[test]
fn a_leader_that_is_cut_off_steps_down_before_another_is_elected() {
    let mut server = Server::default();
    let (mut a, mut b) = (Election::new(candidate("a")), Election::new(candidate("b")));
    server.settle(&mut a, S, 0);
    let (mut down, mut elected) = (None, None);
    for ms in (1000..20_000).step_by(50) {
        let now = MS * ms;
        if a.leader(now) != here(1) {
            down.get_or_insert(now);
        }
        // It asks and gets no answer; its monotonic clock is not that of the other.
        if a.next(now, now, 0) == Step::Read {
            a.unseen(now);
        } else {
            a.written(Err(Unwritten::Unknown), now);
        }
        server.settle(&mut b, now + S * 1000, 0);
        if b.leader(now + S * 1000) == here(2) {
            elected.get_or_insert(now);
        }
    }
    let (down, elected) = (down.unwrap(), elected.unwrap());
    assert!(down < S + candidate("a").term && down < elected, "{down:?} {elected:?}");
    assert!(elected <= S + candidate("a").term + candidate("a").period, "{elected:?}");
    // Back again, it follows.
    server.settle(&mut a, S * 30, 0);
    assert_eq!(a.leader(S * 30), there("b"));
}

#[test]
fn a_restart_within_the_term_waits_and_is_another_epoch() {
    let mut server = Server::default();
    let mut before = Election::new(candidate("pod_1"));
    server.settle(&mut before, S, 0);
    let mut after = Election::new(candidate("pod_2"));
    server.settle(&mut after, S * 2, 0);
    assert_eq!(after.leader(S * 2), there("pod_1"));
    server.settle(&mut after, S * 12, 0);
    assert_eq!(after.leader(S * 12), here(2));
}

#[test]
fn a_claim_is_its_installations_whichever_process_renews_it() {
    let mut server = Server::default();
    let claim = |of: &str| Election::new(Candidate { term: S * 300, period: S * 60, ..candidate(of) });
    let (mut first, mut next, mut other) = (claim("one"), claim("one"), claim("other"));
    server.settle(&mut first, S, 0);
    server.settle(&mut other, S, 0);
    server.settle(&mut next, S * 2, 0);
    assert_eq!((next.leader(S * 2), other.leader(S * 2)), (here(2), there("one")));
    for minute in 1..20 {
        server.settle(&mut next, S * 60 * minute, 0);
        server.settle(&mut other, S * 60 * minute, 0);
        assert_eq!(other.leader(S * 60 * minute), there("one"));
    }
    assert!(server.writes < 25, "{}", server.writes);
    // Nobody of the installation is there any longer.
    server.settle(&mut other, S * (60 * 19 + 301), 0);
    assert_eq!(other.leader(S * (60 * 19 + 301)), here(3));
}

#[test]
fn the_epoch_rises_above_what_processes_have_had_also_after_the_lease_was_deleted() {
    let mut server = Server::default();
    let mut a = Election::new(candidate("a"));
    server.settle(&mut a, S, 0);
    // A process says that it had epoch 7: the leader raises its own at once.
    server.settle(&mut a, S + MS, 7);
    assert_eq!((a.leader(S + MS), server.transitions()), (here(8), 8));
    server.settle(&mut a, S * 3, 7);
    assert_eq!(a.leader(S * 3), here(8));
    server.lease = None;
    server.settle(&mut a, S * 5, 7);
    assert_eq!((a.leader(S * 5), server.transitions()), (here(9), 9));
}

#[test]
fn a_write_whose_answer_was_lost_is_made_good() {
    let mut server = Server::default();
    let mut a = Election::new(candidate("a"));
    a.seen(None, S);
    let Step::Create(lease) = a.next(S, S, 0) else { panic!() };
    server.create(*lease).unwrap();
    a.written(Err(Unwritten::Unknown), S);
    assert_eq!(a.leader(S), Leader::Nobody, "what is not known to hold does not hold");
    server.settle(&mut a, S * 2, 0);
    assert_eq!((a.leader(S * 2), server.transitions()), (here(2), 2));
}

/// A request on its way: taken by the server at one time, answered at another, or never.
struct Flight {
    step: Step,
    taken: Duration,
    answered: Duration,
    answer: Option<Option<Result<Lease, Unwritten>>>,
    read: Option<Option<Lease>>,
}

/// One of the candidates of a simulation.
struct Node {
    election: Election,
    /// By how much its monotonic clock differs from the others'.
    offset: Duration,
    flight: Option<Flight>,
    /// Cut off or frozen until then.
    gone: Duration,
    name: u32,
}

impl Node {
    fn step(&mut self, server: &mut Server, now: Duration, rng: &mut StdRng) {
        let mine = now + self.offset;
        if let Some(flight) = &mut self.flight {
            if now >= flight.taken && flight.answer.is_none() {
                let written = match &flight.step {
                    Step::Read => {
                        flight.read = Some(server.lease.clone());
                        None
                    }
                    Step::Create(lease) => Some(server.create((**lease).clone())),
                    Step::Replace(lease) => Some(server.replace((**lease).clone())),
                    Step::Wait(_) => None,
                };
                flight.answer = Some(written);
            }
            if now < flight.answered {
                return;
            }
        }
        if let Some(flight) = self.flight.take() {
            let lost = rng.random_bool(0.1);
            match (flight.step, flight.answer.flatten()) {
                (Step::Read, _) if lost => self.election.unseen(mine),
                (Step::Read, _) => self.election.seen(flight.read.flatten(), mine),
                (_, Some(written)) if !lost => self.election.written(written, mine),
                _ => self.election.written(Err(Unwritten::Unknown), mine),
            }
        }
        match self.election.next(mine, now, 0) {
            Step::Wait(_) => {}
            step => {
                let taken = now + MS * rng.random_range(0..800);
                let answered = taken + MS * rng.random_range(0..800);
                self.flight = Some(Flight { step, taken, answered, answer: None, read: None });
            }
        }
    }
}

#[test]
fn there_are_never_two_leaders_and_epochs_only_rise() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut server = Server::default();
        let node = |name: u32, rng: &mut StdRng| Node {
            election: Election::new(candidate(&name.to_string())),
            offset: S * rng.random_range(0..1000),
            flight: None,
            gone: Duration::ZERO,
            name,
        };
        let mut nodes: Vec<Node> = (0..3).map(|n| node(n, &mut rng)).collect();
        let (mut last, mut led, mut names) = ((0, 0), Duration::ZERO, 3);
        for ms in (0..200_000).step_by(20) {
            let now = MS * ms;
            for node in &mut nodes {
                if rng.random_bool(0.0005) {
                    node.gone = now + S * rng.random_range(1..20);
                }
                if rng.random_bool(0.0002) {
                    names += 1;
                    let election = Election::new(candidate(&names.to_string()));
                    (node.election, node.flight, node.name) = (election, None, names);
                }
                if now >= node.gone {
                    node.step(&mut server, now, &mut rng);
                }
            }
            if rng.random_bool(0.0001) {
                let at = rng.random_range(0..nodes.len());
                if let Some(lease) = nodes[at].election.resign() {
                    _ = server.replace(lease);
                }
            }
            // Also those that are frozen or cut off ask their clock before they act.
            let leads = nodes.iter().filter_map(|node| match node.election.leader(now + node.offset) {
                Leader::Here { epoch } => Some((epoch, node.name)),
                _ => None,
            });
            let leads: Vec<_> = leads.collect();
            assert!(leads.len() <= 1, "seed {seed} at {now:?}: {leads:?}");
            if let Some(&(epoch, name)) = leads.first() {
                assert!(epoch > last.0 || (epoch, name) == last, "seed {seed}: {last:?} then {epoch} {name}");
                last = (epoch, name);
                led += MS * 20;
            }
        }
        assert!(led > S * 100, "seed {seed}: led only for {led:?}");
    }
}
