//! How many relays a Pbx is to have: what [`crate::scale`] decides by, and what follows from it. No IO.

use crate::scale::{Relay, Scaler, Settings};
use api::PbxSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The annotation of a relay's pod that says since when it is to be emptied, in seconds since the UNIX epoch.
pub(super) const DRAINING: &str = "kubepbx.io/draining-since";

/// The annotation by which a Deployment chooses whose turn it is to go.
pub(super) const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The cost of a pod that goes first.
pub(super) const CONDEMNED: &str = "-1000000";

/// What a pod's annotations say of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// Since when it is to be emptied.
    pub draining: Option<Duration>,
    /// Whether it goes first.
    pub condemned: bool,
}

impl Marks {
    /// As annotations say.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Self {
        let get = |key: &str| annotations.and_then(|all| all.get(key));
        Self {
            draining: get(DRAINING).and_then(|since| since.parse().ok()).map(Duration::from_secs),
            condemned: get(COST).is_some_and(|cost| cost == CONDEMNED),
        }
    }
}

/// What a pod is to be marked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is to be emptied, since this wall time.
    Draining(Duration),
    /// It goes first.
    Condemned,
}

impl Mark {
    /// The annotation.
    pub fn annotation(self) -> (&'static str, String) {
        match self {
            Mark::Draining(since) => (DRAINING, since.as_secs().to_string()),
            Mark::Condemned => (COST, CONDEMNED.to_owned()),
        }
    }
}

/// What is new of the relays.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Pods to be marked.
    pub(super) marks: Vec<(String, Mark)>,
    /// What a person is told: how another number of relays came about.
    pub(super) text: Option<String>,
}

/// The relays of one Pbx.
#[derive(Debug, Default)]
pub(super) struct Relays {
    /// Sessions by pod, once relays have said so.
    sessions: Option<BTreeMap<String, u64>>,
    scaler: Scaler,
    replicas: Option<u32>,
    desired: Option<u32>,
    again: Option<Duration>,
    marking: BTreeSet<String>,
}

impl Relays {
    /// What relays say that they carry.
    pub(super) fn news(&mut self, sessions: BTreeMap<String, u64>) {
        self.sessions = Some(sessions);
    }

    /// Decides anew. `pods` are the relays' that are not being deleted; `replicas` is what the Deployment says, if it is
    /// there; `wall` the time since the UNIX epoch.
    pub(super) fn decide<'a>(
        &mut self,
        spec: &PbxSpec,
        pods: impl Iterator<Item = (&'a str, Marks)>,
        replicas: Option<u32>,
        wall: Duration,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let (Some(settings), Some(sessions), Some(replicas)) = (Settings::of(spec), &self.sessions, replicas) else {
            // Until something is known it stays as it is.
            (self.replicas, self.again) = (replicas, None);
            return outcome;
        };
        let relays: Vec<Relay> = pods
            .map(|(pod, marks)| Relay {
                pod: pod.to_owned(),
                sessions: sessions.get(pod).copied(),
                cpu: None,
                draining: marks.draining,
                condemned: marks.condemned,
            })
            .collect();
        let decision = self.scaler.decide(&settings, &relays, replicas, wall);
        self.marking.retain(|pod| relays.iter().any(|relay| relay.pod == *pod));
        let drain = decision.drain.into_iter().map(|pod| (pod, Mark::Draining(wall)));
        let condemn = decision.condemn.into_iter().map(|pod| (pod, Mark::Condemned));
        outcome.marks = drain.chain(condemn).filter(|(pod, _)| self.marking.insert(pod.clone())).collect();
        if self.desired.replace(decision.desired).is_some_and(|before| before != decision.desired) {
            outcome.text = Some(decision.text);
        }
        (self.replicas, self.again) = (Some(decision.replicas), decision.again);
        outcome
    }

    /// A pod was marked, or could not be.
    pub(super) fn marked(&mut self, pod: &str) {
        self.marking.remove(pod);
    }

    /// What the Deployment's replicas are to be; none: as the Pbx says.
    pub(super) fn replicas(&self) -> Option<u32> {
        self.replicas
    }

    /// When to decide again though nothing has changed, in wall time.
    pub(super) fn again(&self) -> Option<Duration> {
        self.again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Duration = Duration::from_secs(1_000_000);

    /// Ten sessions a relay and none to spare, from one relay to four.
    fn spec() -> PbxSpec {
        let mut spec = PbxSpec::default();
        let scaling = &mut spec.media.autoscaling;
        (scaling.target, scaling.warm, scaling.min, scaling.max) = (10, 0, 1, 4);
        spec
    }

    fn sessions(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(pod, n)| ((*pod).to_owned(), *n)).collect()
    }

    fn fresh<'a>(pods: &'a [&'a str]) -> impl Iterator<Item = (&'a str, Marks)> {
        pods.iter().map(|pod| (*pod, Marks::default()))
    }

    #[test]
    fn until_relays_have_said_what_they_carry_they_are_as_many_as_they_are() {
        let mut relays = Relays::default();
        assert_eq!(relays.decide(&spec(), fresh(&["a", "b", "c"]), Some(3), WALL), Outcome::default());
        assert_eq!(relays.replicas(), Some(3));
        assert_eq!(relays.decide(&spec(), fresh(&[]), None, WALL), Outcome::default());
        assert_eq!(relays.replicas(), None);
    }

    #[test]
    fn sessions_call_for_relays_at_once_and_the_arithmetic_is_told_of_a_change() {
        let mut relays = Relays::default();
        relays.news(sessions(&[("a", 5)]));
        assert_eq!(relays.decide(&spec(), fresh(&["a"]), Some(1), WALL), Outcome::default());
        assert_eq!(relays.replicas(), Some(1));
        relays.news(sessions(&[("a", 25)]));
        let outcome = relays.decide(&spec(), fresh(&["a"]), Some(1), WALL);
        assert_eq!(relays.replicas(), Some(3));
        assert!(outcome.text.is_some_and(|text| text.starts_with("3 relays: (25 sessions + 0 warm) / 10: 3")));
        assert!(relays.decide(&spec(), fresh(&["a"]), Some(3), WALL).text.is_none());
    }

    #[test]
    fn the_emptiest_is_marked_once_and_condemned_when_it_is_empty() {
        let mut relays = Relays::default();
        relays.news(sessions(&[("a", 5), ("b", 1)]));
        relays.decide(&spec(), fresh(&["a", "b"]), Some(2), WALL);
        let again = relays.again().unwrap();
        let outcome = relays.decide(&spec(), fresh(&["a", "b"]), Some(2), again);
        assert_eq!(outcome.marks, [("b".to_owned(), Mark::Draining(again))]);
        assert!(relays.decide(&spec(), fresh(&["a", "b"]), Some(2), again).marks.is_empty(), "it is being marked");
        relays.marked("b");
        let (key, value) = outcome.marks[0].1.annotation();
        let marks = Marks::of(Some(&[(key.to_owned(), value)].into()));
        assert_eq!(marks, Marks { draining: Some(again), condemned: false });
        relays.news(sessions(&[("a", 6), ("b", 0)]));
        let pods = || [("a", Marks::default()), ("b", marks)].into_iter();
        let outcome = relays.decide(&spec(), pods(), Some(2), again);
        assert_eq!((outcome.marks, relays.replicas()), (vec![("b".to_owned(), Mark::Condemned)], Some(2)));
        let (key, value) = Mark::Condemned.annotation();
        assert!(Marks::of(Some(&[(key.to_owned(), value)].into())).condemned);
        let gone = Marks { condemned: true, ..marks };
        relays.decide(&spec(), [("a", Marks::default()), ("b", gone)].into_iter(), Some(2), again);
        assert_eq!(relays.replicas(), Some(1));
    }
}
