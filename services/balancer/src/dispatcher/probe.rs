//! Probing: an OPTIONS at an interval, thresholds for down and up again. Pure: it is told what came back, and when.

use super::set::Set;
use contract::config::Probe;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A destination's key: its set's name and its URI.
pub type Key = (String, String);

/// What is known of one destination.
#[derive(Debug, Clone)]
struct State {
    probe: Probe,
    up: bool,
    failures: u32,
    successes: u32,
    /// When the next probe is due.
    next: Duration,
    /// The probe under way: its number and when it counts as failed.
    pending: Option<(u64, Duration)>,
    since: Duration,
    last: Option<u16>,
}

/// A destination as views show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The set's name.
    pub dispatcher: String,
    /// The destination.
    pub uri: String,
    /// `up`, `down`, or `unused` while nothing refers to the set, which is then not probed.
    pub state: &'static str,
    /// For how many seconds it has been in this state.
    pub seconds: u64,
    /// The status of the last answer to a probe.
    pub status: Option<u16>,
}

/// A probe to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The destination.
    pub key: Key,
    /// Names this probe when its answer comes.
    pub number: u64,
}

/// All probed destinations. Bounded by the configuration.
#[derive(Debug, Default)]
pub struct Probes {
    states: BTreeMap<Key, State>,
    count: u64,
}

impl Probes {
    /// Takes over a configuration: destinations that stay keep their state, new ones begin up and are probed at once.
    pub fn configure(&mut self, sets: &[Set], now: Duration) {
        let mut old = std::mem::take(&mut self.states);
        for set in sets.iter().filter(|s| s.is_referred_to()) {
            for target in &set.targets {
                let key = (set.name.clone(), target.uri.clone());
                let fresh = State {
                    probe: set.probe.clone(),
                    up: true,
                    failures: 0,
                    successes: 0,
                    next: now,
                    pending: None,
                    since: now,
                    last: None,
                };
                let kept = old.remove(&key).map(|s| State { probe: set.probe.clone(), ..s });
                self.states.insert(key, kept.unwrap_or(fresh));
            }
        }
    }

    /// True unless it is known to be down.
    pub fn is_up(&self, set: &str, uri: &str) -> bool {
        // A lookup by parts would need a borrowed key; sets are small and this is per call, not per packet.
        self.states.get(&(set.to_owned(), uri.to_owned())).is_none_or(|s| s.up)
    }

    /// The next probe to send, and those that failed by then; call until it gives none. `down` gets each destination
    /// that went down, `failed` counts failures.
    pub fn poll(&mut self, now: Duration, down: &mut Vec<Key>, failed: &mut u64) -> Option<Due> {
        for (key, state) in &mut self.states {
            if state.pending.is_some_and(|(_, until)| until <= now) {
                state.pending = None;
                *failed += 1;
                if state.failure(now) {
                    down.push(key.clone());
                }
            }
            if state.next <= now && state.pending.is_none() {
                self.count += 1;
                let timeout = Duration::from_millis(state.probe.timeout_ms.max(1));
                state.pending = Some((self.count, now + timeout));
                state.next = now + Duration::from_millis(state.probe.interval_ms.max(10));
                return Some(Due { key: key.clone(), number: self.count });
            }
        }
        None
    }

    /// The answer to a probe: any final status but those that say "not now" is a sign of life. An answer that comes too
    /// late is none. True if the destination went down by it.
    pub fn answered(&mut self, key: &Key, number: u64, status: u16, now: Duration) -> bool {
        let Some(state) = self.states.get_mut(key).filter(|s| s.pending.is_some_and(|(n, _)| n == number)) else {
            return false;
        };
        state.pending = None;
        state.last = Some(status);
        if matches!(status, 408 | 500 | 502..=504) { state.failure(now) } else { state.success(now) }
    }

    /// A probe could not be sent. True if the destination went down by it.
    pub fn failed(&mut self, key: &Key, number: u64, now: Duration) -> bool {
        let Some(state) = self.states.get_mut(key).filter(|s| s.pending.is_some_and(|(n, _)| n == number)) else {
            return false;
        };
        state.pending = None;
        state.failure(now)
    }

    /// When something is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.states.values().map(|s| s.pending.map_or(s.next, |(_, until)| until)).min()
    }

    /// Every destination of these sets.
    pub fn show(&self, sets: &[Set], now: Duration) -> Vec<Shown> {
        let mut all = Vec::new();
        for set in sets {
            for target in &set.targets {
                let state = self.states.get(&(set.name.clone(), target.uri.clone()));
                all.push(Shown {
                    dispatcher: set.name.clone(),
                    uri: target.uri.clone(),
                    state: state.map_or("unused", |s| if s.up { "up" } else { "down" }),
                    seconds: state.map_or(0, |s| now.saturating_sub(s.since).as_secs()),
                    status: state.and_then(|s| s.last),
                });
            }
        }
        all
    }
}

impl State {
    fn failure(&mut self, now: Duration) -> bool {
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let down = self.up && self.failures >= self.probe.failure_threshold.max(1);
        if down {
            (self.up, self.since) = (false, now);
        }
        down
    }

    fn success(&mut self, now: Duration) -> bool {
        self.failures = 0;
        self.successes = self.successes.saturating_add(1);
        if !self.up && self.successes >= self.probe.success_threshold.max(1) {
            (self.up, self.since) = (true, now);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::config::{Algorithm, Destination, DispatcherEntry};

    fn set(extensions: &[&str], uris: &[&str]) -> Set {
        Set::new(&DispatcherEntry {
            name: "asterisk".into(),
            algorithm: Algorithm::Weight,
            destinations: uris.iter().map(|u| Destination { uri: (*u).into(), weight: 1 }).collect(),
            probe: Probe { interval_ms: 1000, timeout_ms: 400, failure_threshold: 3, success_threshold: 2 },
            unavailable: (404, "No destination dispatcher".into()),
            extensions: extensions.iter().map(|e| (*e).into()).collect(),
        })
    }

    const A: &str = "sip:127.0.0.1:5071";

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn poll(probes: &mut Probes, now: u64) -> (Option<Due>, Vec<Key>) {
        let mut down = Vec::new();
        let due = probes.poll(ms(now), &mut down, &mut 0);
        (due, down)
    }

    #[test]
    fn three_silent_probes_take_it_down_and_two_answers_bring_it_back() {
        let sets = [set(&["_9."], &[A])];
        let mut probes = Probes::default();
        probes.configure(&sets, ms(0));
        for round in 0..3 {
            assert!(poll(&mut probes, round * 1000).0.is_some());
            assert_eq!(probes.deadline(), Some(ms(round * 1000 + 400)));
            assert!(probes.is_up("asterisk", A), "round {round}");
            let (none, down) = poll(&mut probes, round * 1000 + 400);
            assert!(none.is_none());
            assert_eq!(down.len(), usize::from(round == 2));
        }
        assert!(!probes.is_up("asterisk", A));
        for (round, up) in [(3, false), (4, true)] {
            let due = poll(&mut probes, round * 1000).0.unwrap();
            assert!(!probes.answered(&due.key, due.number, 404, ms(round * 1000 + 5)));
            assert_eq!(probes.is_up("asterisk", A), up);
        }
        assert_eq!(probes.show(&sets, ms(6000))[0].state, "up");
        assert_eq!(probes.show(&sets, ms(6005))[0].status, Some(404));
    }

    #[test]
    fn a_busy_answer_is_a_failure_and_a_late_one_none() {
        let mut probes = Probes::default();
        probes.configure(&[set(&["_9."], &[A])], ms(0));
        let first = poll(&mut probes, 0).0.unwrap();
        poll(&mut probes, 400);
        probes.answered(&first.key, first.number, 200, ms(450));
        for round in 1..3 {
            let due = poll(&mut probes, round * 1000).0.unwrap();
            let down = probes.answered(&due.key, due.number, 503, ms(round * 1000 + 1));
            assert_eq!(down, round == 2);
        }
    }

    #[test]
    fn only_what_is_referred_to_is_probed_and_state_outlives_a_change() {
        let mut probes = Probes::default();
        let unused = [set(&[], &[A])];
        probes.configure(&unused, ms(0));
        assert_eq!((poll(&mut probes, 0).0, probes.deadline()), (None, None));
        assert_eq!(probes.show(&unused, ms(0))[0].state, "unused");
        probes.configure(&[set(&["_9."], &[A])], ms(0));
        for round in 0..3 {
            poll(&mut probes, round * 1000);
            poll(&mut probes, round * 1000 + 400);
        }
        let more = [set(&["_9."], &[A, "sip:127.0.0.1:5072"])];
        probes.configure(&more, ms(3000));
        assert!(!probes.is_up("asterisk", A) && probes.is_up("asterisk", "sip:127.0.0.1:5072"));
        let states: Vec<_> = probes.show(&more, ms(3000)).into_iter().map(|s| s.state).collect();
        assert_eq!(states, ["down", "up"]);
    }
}
