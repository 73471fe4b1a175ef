//! How many relays there are to be: by sessions, with CPU as the second signal. Pure, in wall time.
//!
//! Out at once. In by two steps, one relay at a time: the emptiest takes no new sessions (it is *draining*, which its pod
//! says, so that the next leader knows, and which is taken back when it is needed again); empty or past the limit it is
//! *condemned* (its pod has the lowest deletion cost), and only when that is seen do replicas go down by one, so that it is
//! this pod that goes.

use std::time::Duration;

use api::{AutoscalingMode, PbxSpec};
use contract::Service;

/// What the decisions follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Sessions that a relay is to have.
    pub target: u32,
    /// Sessions for which there is to be room beside those that are.
    pub warm: u32,
    /// At least so many relays.
    pub min: u32,
    /// At most so many.
    pub max: u32,
    /// The share of its requested CPU, in percent, that a relay is to use at most.
    pub cpu: Option<u32>,
    /// The CPU that a relay requests, in billionths of a core; 0 where [`Settings::cpu`] is none.
    pub request: u64,
    /// How long a relay that takes no new sessions may keep those that it has.
    pub limit: Duration,
    /// For how long there must be too many before one is drained.
    pub settle: Duration,
}

/// CPU within this share of its target, in percent, changes nothing.
const TOLERANCE: u64 = 10;

impl Settings {
    /// What a `Pbx` says; none where the operator is not to count relays.
    pub fn of(spec: &PbxSpec) -> Option<Self> {
        let scaling = &spec.media.autoscaling;
        let resources = spec.services.tier(Service::Media).resources.as_ref();
        let request = resources.and_then(|resources| resources.requests.get("cpu")?.nano()).unwrap_or_default();
        let cpu = scaling.cpu.filter(|cpu| *cpu > 0 && request > 0);
        (scaling.mode == AutoscalingMode::Sessions).then(|| Self {
            target: scaling.target.max(1),
            warm: scaling.warm,
            min: scaling.min,
            max: scaling.max.max(scaling.min),
            cpu,
            request: if cpu.is_some() { request } else { 0 },
            limit: spec.services.drain(Service::Media).get(),
            settle: scaling.stabilization.get(),
        })
    }
}

/// A relay's pod that is not being deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The pod.
    pub pod: String,
    /// Its sessions; none: it has not said yet, or no longer says.
    pub sessions: Option<u64>,
    /// The CPU that it uses, in percent of what it requests.
    pub cpu: Option<u32>,
    /// Since when it takes no new sessions, in wall time.
    pub draining: Option<Duration>,
    /// Its pod has the lowest deletion cost.
    pub condemned: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// How many relays there are to be that take new sessions.
    pub desired: u32,
    /// What the Deployment's replicas are to be.
    pub replicas: u32,
    /// The pod to be marked: it takes no new sessions from now on.
    pub drain: Option<String>,
    /// Pods whose mark is to be taken away: they are needed again.
    pub resume: Vec<String>,
    /// Pods to be given the lowest deletion cost.
    pub condemn: Vec<String>,
    /// How `desired` came about: the arithmetic, for status and events.
    pub text: String,
    /// When to decide again if nothing is heard before, in wall time.
    pub again: Option<Duration>,
}

/// Decides for one `Pbx`.
#[derive(Debug, Clone, Default)]
pub struct Scaler {
    /// Since when there are more relays than there need be.
    too_many: Option<Duration>,
}

impl Scaler {
    /// Decides. `replicas` is what the Deployment says now, `now` wall time.
    pub fn decide(&mut self, settings: &Settings, relays: &[Relay], replicas: u32, now: Duration) -> Decision {
        let (marked, serving): (Vec<&Relay>, Vec<&Relay>) = relays.iter().partition(|relay| relay.draining.is_some());
        let (desired, text) = desired(settings, &serving);
        // Pods that are not there yet count: the Deployment is about to make them. Those that a rollout has besides its
        // replicas do not, or it would never end.
        let staying = marked.iter().filter(|relay| !relay.condemned).count();
        let taking = replicas.saturating_sub(u32::try_from(staying).unwrap_or(u32::MAX));
        let current = replicas.saturating_sub(count(&marked)).max(count(&serving).min(taking));
        let mut decision = Decision { desired, text, ..Decision::default() };

        // Of those that are being emptied the fullest are at hand at once.
        let mut leaving: Vec<&Relay> = marked.iter().copied().filter(|relay| !relay.condemned).collect();
        leaving.sort_by_key(|relay| (relay.sessions, &relay.pod));
        for _ in current..desired {
            decision.resume.extend(leaving.pop().map(|relay| relay.pod.clone()));
        }
        for relay in &leaving {
            let end = relay.draining.unwrap_or_default().saturating_add(settings.limit);
            if relay.sessions == Some(0) || now >= end {
                decision.condemn.push(relay.pod.clone());
            } else {
                decision.again = earlier(decision.again, end);
            }
        }

        // Who has not said what it carries may carry much: nobody is sent away meanwhile.
        if desired >= current || serving.iter().any(|relay| relay.sessions.is_none()) {
            self.too_many = None;
        } else {
            let due = self.too_many.get_or_insert(now).saturating_add(settings.settle);
            if now < due {
                decision.again = earlier(decision.again, due);
            } else if marked.is_empty() {
                let emptiest = serving.iter().min_by_key(|relay| (relay.sessions, &relay.pod));
                decision.drain = emptiest.map(|relay| relay.pod.clone());
            }
        }

        let drained = u32::from(decision.drain.is_some());
        let serving = desired.max(current - drained.min(current));
        // What is condemned is in nobody's place: with more to be made it would be kept for one of these.
        let more = desired > current + u32::try_from(decision.resume.len()).unwrap_or(u32::MAX);
        let condemned = if more { marked.iter().filter(|relay| relay.condemned).count() } else { 0 };
        decision.replicas = serving + drained + count(&leaving) + u32::try_from(condemned).unwrap_or(u32::MAX);
        decision
    }
}

/// How many relays there are to be, and why.
fn desired(settings: &Settings, serving: &[&Relay]) -> (u32, String) {
    let Settings { target, warm, min, max, .. } = *settings;
    let active: u64 = serving.iter().filter_map(|relay| relay.sessions).sum();
    let by_sessions = (active + u64::from(warm)).div_ceil(u64::from(target.max(1)));
    let mut text = format!("({active} sessions + {warm} warm) / {target}: {by_sessions}");
    let mut want = by_sessions;
    let used: Vec<u64> = serving.iter().filter_map(|relay| relay.cpu.map(u64::from)).collect();
    if settings.cpu.is_some() && used.is_empty() && !serving.is_empty() {
        text.push_str(", CPU unknown");
    }
    if let Some(cpu) = settings.cpu.map(u64::from)
        && let relays @ 1.. = u64::try_from(used.len()).unwrap_or_default()
    {
        let total: u64 = used.iter().sum();
        let mean = total / relays;
        let near = mean.abs_diff(cpu) * 100 <= cpu * TOLERANCE;
        let by_cpu = if near { relays } else { total.div_ceil(cpu) };
        text.push_str(&format!(", CPU {mean}% of {relays} at {cpu}%: {by_cpu}"));
        want = want.max(by_cpu);
    }
    let desired = u32::try_from(want).unwrap_or(u32::MAX).clamp(min, max.max(min));
    let bound = if u64::from(desired) == want { String::new() } else { format!(", from {min} to {max}") };
    (desired, format!("{desired} relays: {text}{bound}"))
}

fn count(relays: &[&Relay]) -> u32 {
    u32::try_from(relays.len()).unwrap_or(u32::MAX)
}

fn earlier(one: Option<Duration>, other: Duration) -> Option<Duration> {
    Some(one.map_or(other, |one| one.min(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        target: 10,
        warm: 5,
        min: 1,
        max: 4,
        cpu: None,
        request: 0,
        limit: Duration::from_secs(60),
        settle: Duration::from_secs(30),
    };

    fn relay(pod: &str, sessions: u64) -> Relay {
        Relay { pod: pod.into(), sessions: Some(sessions), cpu: None, draining: None, condemned: false }
    }

    /// A cluster that does what is decided, a second after.
    struct World {
        scaler: Scaler,
        settings: Settings,
        relays: Vec<Relay>,
        replicas: u32,
        now: Duration,
        made: usize,
    }

    impl World {
        fn new() -> Self {
            let now = Duration::from_secs(1_000_000);
            let relays = vec![relay("m0", 0)];
            Self { scaler: Scaler::default(), settings: SETTINGS, relays, replicas: 1, now, made: 1 }
        }

        fn step(&mut self) -> Decision {
            let decision = self.scaler.decide(&self.settings, &self.relays, self.replicas, self.now);
            for relay in &mut self.relays {
                if decision.drain.as_ref() == Some(&relay.pod) {
                    relay.draining = Some(self.now);
                }
                if decision.resume.contains(&relay.pod) {
                    relay.draining = None;
                }
                relay.condemned |= decision.condemn.contains(&relay.pod);
            }
            self.replicas = decision.replicas;
            // The controller: the condemned go first, and what is missing is made.
            while self.relays.len() > self.replicas as usize {
                let condemned = self.relays.iter().position(|relay| relay.condemned);
                let at = condemned.expect("a relay goes that nobody condemned");
                self.relays.remove(at);
            }
            while self.relays.len() < self.replicas as usize {
                self.relays.push(relay(&format!("m{}", self.made), 0));
                self.made += 1;
            }
            self.now += Duration::from_secs(1);
            decision
        }

        /// A call goes where there are fewest, of those that take new ones.
        fn call(&mut self) {
            let taking = self.relays.iter_mut().filter(|relay| relay.draining.is_none());
            let sessions = taking.min_by_key(|relay| relay.sessions).and_then(|relay| relay.sessions.as_mut());
            *sessions.expect("somebody takes calls") += 1;
        }

        fn sessions(&self) -> u64 {
            self.relays.iter().filter_map(|relay| relay.sessions).sum()
        }
    }

    #[test]
    fn a_rollouts_pods_are_not_more_relays() {
        let mut scaler = Scaler::default();
        let now = Duration::from_secs(1_000_000);
        // Two replicas, and a third pod until one of the old ones goes.
        let surge = [relay("old-1", 4), relay("old-2", 4), relay("new-1", 0)];
        for _ in 0..3 {
            assert_eq!(scaler.decide(&SETTINGS, &surge, 2, now).replicas, 2);
        }
        // Nor while one is being emptied.
        let marked = Relay { draining: Some(now), ..relay("old-2", 4) };
        let surge = [relay("old-1", 4), marked, relay("new-1", 4), relay("new-2", 0)];
        assert_eq!(scaler.decide(&SETTINGS, &surge, 3, now).replicas, 3);
    }

    #[test]
    fn arithmetic() {
        let of = |sessions: &[u64], cpu: Option<(u32, &[u32])>| {
            let mut relays: Vec<Relay> = sessions.iter().map(|n| relay("m", *n)).collect();
            for (relay, cpu) in relays.iter_mut().zip(cpu.map(|(_, used)| used).unwrap_or_default()) {
                relay.cpu = Some(*cpu);
            }
            let settings = Settings { cpu: cpu.map(|(target, _)| target), ..SETTINGS };
            desired(&settings, &relays.iter().collect::<Vec<_>>())
        };
        for (sessions, cpu, want, text) in [
            (&[][..], None, 1, "1 relays: (0 sessions + 5 warm) / 10: 1"),
            (&[5], None, 1, "1 relays: (5 sessions + 5 warm) / 10: 1"),
            (&[6], None, 2, "2 relays: (6 sessions + 5 warm) / 10: 2"),
            (&[9, 9], None, 3, "3 relays: (18 sessions + 5 warm) / 10: 3"),
            (&[60], None, 4, "4 relays: (60 sessions + 5 warm) / 10: 7, from 1 to 4"),
            (
                &[1, 1],
                Some((70, &[140, 100][..])),
                4,
                "4 relays: (2 sessions + 5 warm) / 10: 1, CPU 120% of 2 at 70%: 4",
            ),
            (&[1, 1], Some((70, &[75, 73])), 2, "2 relays: (2 sessions + 5 warm) / 10: 1, CPU 74% of 2 at 70%: 2"),
            (&[9, 9], Some((70, &[10, 10])), 3, "3 relays: (18 sessions + 5 warm) / 10: 3, CPU 10% of 2 at 70%: 1"),
            // Nobody has said what it uses.
            (&[6], Some((70, &[])), 2, "2 relays: (6 sessions + 5 warm) / 10: 2, CPU unknown"),
        ] {
            assert_eq!(of(sessions, cpu), (want, text.to_owned()));
        }
    }

    #[test]
    fn out_at_once_and_in_one_by_one_with_no_call_lost() {
        let mut world = World::new();
        for calls in 1..=35 {
            world.call();
            world.step();
            let room = 10 * world.relays.len() as u64;
            assert!(room >= (calls + 5).min(40), "{calls} calls on {} relays", world.relays.len());
        }
        assert_eq!(world.relays.len(), 4);

        // They end, the last one on each relay much later: a relay goes when it is empty, and one at a time.
        let ends = world.now + Duration::from_secs(200);
        let mut seen = vec![4];
        for _ in 0..600 {
            for at in 0..world.relays.len() {
                let relay = &mut world.relays[at];
                let sessions = relay.sessions.unwrap();
                let last = relay.draining.is_none() && world.now < ends;
                if sessions > u64::from(last) {
                    relay.sessions = Some(sessions - 1);
                }
            }
            let before = world.sessions();
            world.step();
            assert_eq!(world.sessions(), before, "a relay went with its calls");
            assert!(world.relays.iter().filter(|relay| relay.draining.is_some()).count() <= 1);
            if seen.last() != Some(&world.relays.len()) {
                seen.push(world.relays.len());
            }
        }
        assert_eq!(seen, [4, 3, 2, 1]);
    }

    #[test]
    fn it_settles_first() {
        let mut world = World::new();
        world.relays = vec![relay("a", 3), relay("b", 1), relay("c", 1)];
        world.replicas = 3;
        let begin = world.now;
        let first = world.step();
        assert_eq!((first.drain, first.again), (None, Some(begin + SETTINGS.settle)));
        // A moment of need begins it anew.
        world.now = begin + Duration::from_secs(20);
        world.relays[0].sessions = Some(20);
        world.step();
        world.relays[0].sessions = Some(3);
        world.now = begin + Duration::from_secs(40);
        assert_eq!(world.step().again, Some(begin + Duration::from_secs(40) + SETTINGS.settle));
        world.now = begin + Duration::from_secs(69);
        assert_eq!(world.step().drain, None);
        // The emptiest; of two the first by name.
        assert_eq!(world.step().drain.as_deref(), Some("b"));
    }

    #[test]
    fn past_its_limit_a_relay_goes_with_the_calls_that_it_has() {
        let mut world = World::new();
        world.relays = vec![relay("a", 1), relay("b", 4)];
        world.replicas = 2;
        world.settings.settle = Duration::ZERO;
        let drained = world.now;
        assert_eq!(world.step().drain.as_deref(), Some("a"));
        let waiting = world.step();
        assert_eq!((waiting.condemn.len(), waiting.replicas, waiting.again), (0, 2, Some(drained + SETTINGS.limit)));
        world.now = drained + SETTINGS.limit;
        let condemned = world.step();
        // Replicas stay until the cost is seen on the pod.
        assert_eq!((condemned.condemn, condemned.replicas), (vec!["a".to_owned()], 2));
        assert_eq!(world.step().replicas, 1);
        assert_eq!(world.relays, [relay("b", 4)]);
    }

    #[test]
    fn a_new_leader_goes_on_and_drains_no_second() {
        let mut world = World::new();
        world.relays = vec![relay("a", 1), relay("b", 1), relay("c", 1)];
        world.replicas = 3;
        world.settings.settle = Duration::ZERO;
        assert_eq!(world.step().drain.as_deref(), Some("a"));
        world.scaler = Scaler::default();
        for _ in 0..10 {
            let decision = world.step();
            assert_eq!((decision.drain, decision.condemn.len(), decision.replicas), (None, 0, 3));
        }
        world.relays[0].sessions = Some(0);
        world.scaler = Scaler::default();
        assert_eq!(world.step().condemn, ["a"]);
        world.scaler = Scaler::default();
        assert_eq!(world.step().replicas, 2);
    }

    #[test]
    fn need_while_one_drains_takes_it_back_and_makes_what_is_missing_then() {
        let mut world = World::new();
        world.relays = vec![relay("a", 1), relay("b", 3)];
        world.replicas = 2;
        world.settings.settle = Duration::ZERO;
        assert_eq!(world.step().drain.as_deref(), Some("a"));
        world.relays[1].sessions = Some(9);
        let decision = world.step();
        assert_eq!((decision.desired, decision.replicas, decision.resume), (2, 2, vec!["a".to_owned()]));
        assert_eq!(world.relays, [relay("a", 1), relay("b", 9)]);
        // Of several the fullest; one that is condemned goes, and what is missing is made.
        let draining = |pod: &str, sessions, condemned| Relay {
            draining: Some(Duration::from_secs(1_000_000)),
            condemned,
            ..relay(pod, sessions)
        };
        let relays = [relay("a", 20), draining("b", 2, false), draining("c", 3, false), draining("d", 9, true)];
        let now = Duration::from_secs(1_000_001);
        let decision = Scaler::default().decide(&SETTINGS, &relays, 4, now);
        assert_eq!((decision.desired, decision.replicas, decision.resume), (3, 3, vec!["c".to_owned(), "b".into()]));
        let decision = Scaler::default().decide(&SETTINGS, &[relays[0].clone(), relays[3].clone()], 2, now);
        assert_eq!((decision.desired, decision.replicas, decision.resume.len()), (3, 4, 0));
    }

    #[test]
    fn a_pod_that_died_is_not_missed_by_the_count_and_one_that_is_silent_keeps_all() {
        let mut scaler = Scaler::default();
        let at = Duration::from_secs;
        // The Deployment is about to replace two of its four: they are not too many at once because they are not there.
        let relays = [relay("a", 1), relay("b", 1)];
        assert_eq!(scaler.decide(&SETTINGS, &relays, 4, at(10)).replicas, 4);
        let silent = [relay("a", 0), Relay { sessions: None, ..relay("b", 0) }];
        for second in 10..1000 {
            let decision = scaler.decide(&SETTINGS, &silent, 2, at(second));
            assert_eq!((decision.drain, decision.replicas), (None, 2));
        }
        // Condemned, its replica gone, its pod still there: nobody else goes in its place.
        let late = [relay("a", 1), relay("b", 1), Relay { draining: Some(at(0)), condemned: true, ..relay("c", 0) }];
        assert_eq!(Scaler::default().decide(&SETTINGS, &late, 2, at(2000)).replicas, 2);
    }

    #[test]
    fn settings_are_the_ones_of_the_pbx() {
        let mut spec = PbxSpec::default();
        let settings = Settings::of(&spec).unwrap();
        assert_eq!((settings.target, settings.warm, settings.min, settings.max), (200, 50, 2, 10));
        assert_eq!(settings.limit, Duration::from_secs(300));
        assert_eq!((settings.cpu, settings.request), (None, 0));
        spec.media.autoscaling.cpu = Some(70);
        assert_eq!(Settings::of(&spec).unwrap().cpu, None, "a share of nothing that is known");
        let resources = spec.services.media.tier.resources.get_or_insert_default();
        resources.requests.insert("cpu".into(), "500m".into());
        let settings = Settings::of(&spec).unwrap();
        assert_eq!((settings.cpu, settings.request), (Some(70), 500_000_000));
        for mode in [AutoscalingMode::Fixed, AutoscalingMode::External] {
            spec.media.autoscaling.mode = mode;
            assert_eq!(Settings::of(&spec), None);
        }
    }
}
