//! A seeded network for tests: loses, duplicates, delays and reorders, in virtual time. The same seed gives the same run.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

/// How bad the network is. Probabilities are 0.0 to 1.0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// Probability that a packet is lost.
    pub loss: f64,
    /// Probability that it arrives twice.
    pub duplicate: f64,
    /// Probability that it takes `reorder_by` longer, so that later ones overtake it.
    pub reorder: f64,
    /// How much longer.
    pub reorder_by: Duration,
    /// Shortest delay.
    pub delay: Duration,
    /// Random delay beyond it, evenly spread.
    pub jitter: Duration,
}

impl Conditions {
    /// Nothing lost, 1 ms.
    pub const PERFECT: Conditions = Conditions {
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        reorder_by: Duration::ZERO,
        delay: Duration::from_millis(1),
        jitter: Duration::ZERO,
    };

    /// A fifth lost, a tenth doubled, a fifth late by up to 700 ms (more than T1).
    pub const BAD: Conditions = Conditions {
        loss: 0.2,
        duplicate: 0.1,
        reorder: 0.2,
        reorder_by: Duration::from_millis(700),
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(40),
    };
}

/// A packet on its way. `A` is whatever the test addresses by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet<A> {
    /// Who sent it.
    pub from: A,
    /// Who gets it.
    pub to: A,
    /// The bytes.
    pub bytes: Bytes,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets given to [`Network::send`].
    pub sent: u64,
    /// Lost ones.
    pub lost: u64,
    /// Doubled ones.
    pub duplicated: u64,
    /// Late ones.
    pub reordered: u64,
    /// Packets given out by [`Network::receive`].
    pub delivered: u64,
}

/// The network between any number of parties.
#[derive(Debug)]
pub struct Network<A> {
    conditions: Conditions,
    rng: StdRng,
    flying: BTreeMap<Reverse<(Duration, u64)>, Packet<A>>,
    serial: u64,
    counts: Counts,
}

impl<A: Clone> Network<A> {
    /// An empty network.
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Network { conditions, rng, flying: BTreeMap::new(), serial: 0, counts: Counts::default() }
    }

    /// Changes the conditions for what is sent from now on.
    pub fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Puts a packet on its way at `now`.
    pub fn send(&mut self, from: A, to: A, bytes: Bytes, now: Duration) {
        self.counts.sent += 1;
        if self.chance(self.conditions.loss) {
            self.counts.lost += 1;
            return;
        }
        let copies = if self.chance(self.conditions.duplicate) { 2 } else { 1 };
        self.counts.duplicated += copies - 1;
        for _ in 0..copies {
            let mut delay = self.conditions.delay + self.conditions.jitter.mul_f64(self.rng.random::<f64>());
            if self.chance(self.conditions.reorder) {
                self.counts.reordered += 1;
                delay += self.conditions.reorder_by.mul_f64(self.rng.random::<f64>());
            }
            self.serial += 1;
            let packet = Packet { from: from.clone(), to: to.clone(), bytes: bytes.clone() };
            self.flying.insert(Reverse((now + delay, self.serial)), packet);
        }
    }

    /// The next packet that has arrived by `now`.
    pub fn receive(&mut self, now: Duration) -> Option<Packet<A>> {
        if self.deadline()? > now {
            return None;
        }
        self.counts.delivered += 1;
        self.flying.pop_last().map(|(_, packet)| packet)
    }

    /// When the next packet arrives.
    pub fn deadline(&self) -> Option<Duration> {
        self.flying.last_key_value().map(|(Reverse((when, _)), _)| *when)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random::<f64>() < probability
    }
}
