//! How many relays a Pbx is to have: what [`crate::scale`] decides by, and what follows from it. No IO.

use crate::cpu::Used;
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
    /// It is not, any longer: it takes new sessions.
    Serving,
    /// It goes first.
    Condemned,
}

impl Mark {
    /// The annotation, and what it is to say; none: it is to be gone.
    pub fn annotation(self) -> (&'static str, Option<String>) {
        match self {
            Mark::Draining(since) => (DRAINING, Some(since.as_secs().to_string())),
            Mark::Serving => (DRAINING, None),
            Mark::Condemned => (COST, Some(CONDEMNED.to_owned())),
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
    /// Why CPU does not count though it should, once.
    pub(super) blind: Option<String>,
}

/// The relays of one Pbx.
#[derive(Debug, Default)]
pub(super) struct Relays {
    /// Sessions by pod, once relays have said so.
    sessions: Option<BTreeMap<String, u64>>,
    /// The CPU that they use, by pod, once that was asked for; or why nobody says so, and whether that was told.
    cpu: Option<Used>,
    blind: Option<String>,
    scaler: Scaler,
    replicas: Option<u32>,
    /// How many are to take new sessions, and why.
    decision: Option<(u32, String)>,
    again: Option<Duration>,
    marking: BTreeSet<String>,
}

impl Relays {
    /// What relays say that they carry.
    pub(super) fn news(&mut self, sessions: BTreeMap<String, u64>) {
        self.sessions = Some(sessions);
    }

    /// The CPU that relays use.
    pub(super) fn cpu(&mut self, used: Used) {
        self.cpu = Some(used);
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
            (self.replicas, self.again, self.decision) = (replicas, None, None);
            return outcome;
        };
        if settings.cpu.is_none() {
            self.cpu = None;
        }
        let blind = self.cpu.as_ref().and_then(|used| used.as_ref().err()).cloned();
        outcome.blind = blind.clone().filter(|_| blind != self.blind);
        self.blind = blind;
        let used = self.cpu.as_ref().and_then(|used| used.as_ref().ok());
        let share = |pod: &str| used?.get(pod)?.saturating_mul(100).checked_div(settings.request);
        let relays: Vec<Relay> = pods
            .map(|(pod, marks)| Relay {
                pod: pod.to_owned(),
                sessions: sessions.get(pod).copied(),
                cpu: share(pod).map(|percent| u32::try_from(percent).unwrap_or(u32::MAX)),
                draining: marks.draining,
                condemned: marks.condemned,
            })
            .collect();
        let decision = self.scaler.decide(&settings, &relays, replicas, wall);
        self.marking.retain(|pod| relays.iter().any(|relay| relay.pod == *pod));
        let drain = decision.drain.into_iter().map(|pod| (pod, Mark::Draining(wall)));
        let resume = decision.resume.into_iter().map(|pod| (pod, Mark::Serving));
        let condemn = decision.condemn.into_iter().map(|pod| (pod, Mark::Condemned));
        outcome.marks =
            drain.chain(resume).chain(condemn).filter(|(pod, _)| self.marking.insert(pod.clone())).collect();
        if self.decision.as_ref().is_some_and(|(before, _)| *before != decision.desired) {
            outcome.text = Some(decision.text.clone());
        }
        self.decision = Some((decision.desired, decision.text));
        (self.replicas, self.again) = (Some(decision.replicas), decision.again);
        outcome
    }

    /// Sessions that all relays carry; none: they have not said so.
    pub(super) fn sessions(&self) -> Option<u64> {
        self.sessions.as_ref().map(|sessions| sessions.values().sum())
    }

    /// How many relays are to take new sessions, and why; none while nobody counts.
    pub(super) fn decision(&self) -> Option<(u32, &str)> {
        self.decision.as_ref().map(|(desired, text)| (*desired, text.as_str()))
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
        let marks = Marks::of(Some(&[(key.to_owned(), value.unwrap())].into()));
        assert_eq!(marks, Marks { draining: Some(again), condemned: false });
        // Needed again before it is empty: the mark is taken away.
        relays.news(sessions(&[("a", 11), ("b", 1)]));
        let outcome = relays.decide(&spec(), [("a", Marks::default()), ("b", marks)].into_iter(), Some(2), again);
        assert_eq!((outcome.marks, relays.replicas()), (vec![("b".to_owned(), Mark::Serving)], Some(2)));
        assert_eq!(Mark::Serving.annotation(), (key, None));
        relays.marked("b");
        relays.news(sessions(&[("a", 6), ("b", 0)]));
        let pods = || [("a", Marks::default()), ("b", marks)].into_iter();
        let outcome = relays.decide(&spec(), pods(), Some(2), again);
        assert_eq!((outcome.marks, relays.replicas()), (vec![("b".to_owned(), Mark::Condemned)], Some(2)));
        let (key, value) = Mark::Condemned.annotation();
        assert!(Marks::of(Some(&[(key.to_owned(), value.unwrap())].into())).condemned);
        let gone = Marks { condemned: true, ..marks };
        relays.decide(&spec(), [("a", Marks::default()), ("b", gone)].into_iter(), Some(2), again);
        assert_eq!(relays.replicas(), Some(1));
    }

    #[test]
    fn cpu_counts_where_it_is_known_and_that_it_is_not_is_told_once() {
        let mut spec = spec();
        spec.media.autoscaling.cpu = Some(50);
        let resources = spec.services.media.tier.resources.get_or_insert_default();
        resources.requests.insert("cpu".into(), "100m".into());
        let mut relays = Relays::default();
        relays.news(sessions(&[("a", 5), ("b", 5)]));
        let decide = |relays: &mut Relays| relays.decide(&spec, fresh(&["a", "b"]), Some(2), WALL);
        assert_eq!(decide(&mut relays).blind, None, "nobody was asked yet");
        for told in [Some("no metrics".to_owned()), None] {
            relays.cpu(Err("no metrics".into()));
            assert_eq!(decide(&mut relays).blind, told);
            let text = "1 relays: (10 sessions + 0 warm) / 10: 1, CPU unknown";
            assert_eq!(relays.decision(), Some((1, text)));
        }
        // 80% and 90% of what they request.
        relays.cpu(Ok([("a".to_owned(), 80_000_000), ("b".to_owned(), 90_000_000), ("x".into(), 1)].into()));
        assert_eq!(decide(&mut relays).blind, None);
        let text = "4 relays: (10 sessions + 0 warm) / 10: 1, CPU 85% of 2 at 50%: 4";
        assert_eq!(relays.decision(), Some((4, text)));
        relays.cpu(Err("no metrics".into()));
        assert_eq!(decide(&mut relays).blind.as_deref(), Some("no metrics"), "again");
        spec.media.autoscaling.cpu = None;
        relays.decide(&spec, fresh(&["a", "b"]), Some(2), WALL);
        assert_eq!(relays.decision(), Some((1, "1 relays: (10 sessions + 0 warm) / 10: 1")));
    }
}
