//! What the operator counts and measures; shown with all else at `/metrics`.

use contract::Service;
use contract::config::Version;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use runtime::Metrics;
use runtime::metrics::{Counter, Gauge, Reason};
use runtime::stream::registry::Acks;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a pod has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Pod {
    namespace: String,
    service: String,
    pod: String,
}

/// Of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    queue: &'static str,
}

/// Of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Step {
    step: &'static str,
}

/// Of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// The operator's metrics. Clones count together.
#[derive(Debug, Clone)]
pub struct Measures {
    reconcile: Family<Step, Histogram, fn() -> Histogram>,
    live: Histogram,
    queues: Family<Queue, Gauge>,
    restarts: Family<Kind, Counter>,
    errors: Family<Reason, Counter>,
    leads: Gauge,
    version: Family<Pod, Gauge>,
    behind: Family<Pod, Gauge>,
    connected: Family<Pod, Gauge>,
}

/// From 10 µs to 20 s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 2.0, 22))
}

impl Measures {
    /// Registers them.
    pub fn new(metrics: &Metrics) -> Self {
        let steps = || Family::new_with_constructor(durations as fn() -> Histogram);
        Self {
            reconcile: metrics.metric("operator_step_seconds", "Duration of each step of a reconciliation", steps),
            live: metrics.seconds("operator_live_seconds", "From a change's arrival to its being live in every pod"),
            queues: metrics.gauges("operator_queue", "What waits in each queue"),
            restarts: metrics.counters("operator_watch_restarts", "Watches that had to be begun again"),
            errors: metrics.reasons("operator_api_errors", "Requests that the API server refused or did not answer"),
            leads: metrics.gauge("operator_leads", "1 while this process leads"),
            version: metrics.gauges("operator_pod_version", "Number of the version that a pod has in use"),
            behind: metrics.gauges("operator_pod_behind", "Versions that a pod has not acknowledged yet"),
            connected: metrics.gauges("operator_pod_connected", "1 while a pod follows its stream"),
        }
    }

    /// A step took this long: `compile`, `build`, `apply`, `publish`, `status`, or `reconcile` for all together.
    pub fn step(&self, step: &'static str, took: Duration) {
        self.reconcile.get_or_create(&Step { step }).observe(took.as_secs_f64());
    }

    /// What an object compiles to is live in every pod, so long after the change came.
    pub fn live(&self, lag: Duration) {
        self.live.observe(lag.as_secs_f64());
    }

    /// This much waits in a queue.
    pub fn queue(&self, queue: &'static str, waiting: usize) {
        self.queues.get_or_create(&Queue { queue }).set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// The watch of a kind was begun again.
    pub fn watch_restarted(&self, kind: &'static str) {
        self.restarts.get_or_create(&Kind { kind }).inc();
    }

    /// A request failed.
    pub fn api_error(&self, reason: &'static str) {
        runtime::metrics::count(&self.errors, reason);
    }

    /// Whether this process leads now.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }
}

/// Shows what each pod of a namespace has. A pod that is gone is shown no longer, nor one whose namespace is, once this is
/// dropped.
#[derive(Debug)]
pub struct Pods {
    measures: Measures,
    namespace: String,
    shown: BTreeSet<Pod>,
}

impl Pods {
    /// Shows nothing yet.
    pub fn new(measures: Measures, namespace: &str) -> Self {
        Self { measures, namespace: namespace.to_owned(), shown: BTreeSet::new() }
    }

    /// What processes have acknowledged, and what is published, by service.
    pub fn show(&mut self, acks: &Acks, published: &BTreeMap<Service, Version>) {
        let mut now = BTreeSet::new();
        for (service, followers) in acks {
            let head = published.get(service).copied().unwrap_or_default();
            for follower in followers.values() {
                let (namespace, pod) = (self.namespace.clone(), follower.pod.clone());
                let labels = Pod { namespace, service: service.as_str().to_owned(), pod };
                // Another epoch's numbers say nothing: all of this one is missing.
                let n = if follower.version.epoch == head.epoch { follower.version.n } else { 0 };
                let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
                self.measures.version.get_or_create(&labels).set(number(follower.version.n));
                self.measures.behind.get_or_create(&labels).set(number(head.n.saturating_sub(n)));
                self.measures.connected.get_or_create(&labels).set(i64::from(follower.connected));
                now.insert(labels);
            }
        }
        let gone = std::mem::replace(&mut self.shown, now);
        gone.difference(&self.shown).for_each(|labels| self.measures.hide(labels));
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        self.shown.iter().for_each(|labels| self.measures.hide(labels));
    }
}

impl Measures {
    fn hide(&self, labels: &Pod) {
        for family in [&self.version, &self.behind, &self.connected] {
            family.remove(labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Now, ProcessId};
    use runtime::stream::registry::{Follower, Followers};
    use std::sync::Arc;

    fn acks(of: &[(&str, u64, u64, bool)]) -> Acks {
        let follower = |(n, &(pod, epoch, version, connected)): (u64, &(&str, u64, u64, bool))| {
            let version = Version { epoch, n: version, hash: 0 };
            let follower = Follower { pod: pod.into(), version, error: None, since: Now::default(), connected };
            (ProcessId(n), follower)
        };
        let followers: Followers = (0..).zip(of).map(follower).collect();
        [(Service::Router, Arc::new(followers))].into()
    }

    #[test]
    fn pods_are_shown_while_they_are_there() {
        let metrics = Metrics::new();
        let mut pods = Pods::new(Measures::new(&metrics), "tel");
        let published = [(Service::Router, Version { epoch: 3, n: 9, hash: 0 })].into();
        pods.show(&acks(&[("r1", 3, 9, true), ("r2", 3, 7, false), ("r3", 2, 40, true)]), &published);
        let text = metrics.encode();
        for line in [
            "version{namespace=\"tel\",service=\"router\",pod=\"r1\"} 9",
            "behind{namespace=\"tel\",service=\"router\",pod=\"r1\"} 0",
            "behind{namespace=\"tel\",service=\"router\",pod=\"r2\"} 2",
            "connected{namespace=\"tel\",service=\"router\",pod=\"r2\"} 0",
            "behind{namespace=\"tel\",service=\"router\",pod=\"r3\"} 9",
        ] {
            assert!(text.contains(&format!("\nkubepbx_operator_pod_{line}\n")), "{line} in {text}");
        }
        pods.show(&acks(&[("r1", 3, 9, true)]), &published);
        let text = metrics.encode();
        assert!(text.contains("pod=\"r1\"") && !text.contains("pod=\"r2\"") && !text.contains("pod=\"r3\""), "{text}");
        drop(pods);
        assert!(!metrics.encode().contains("pod=\"r1\""));
    }

    #[test]
    fn each_step_has_a_histogram_that_can_tell_microseconds() {
        let metrics = Metrics::new();
        let measures = Measures::new(&metrics);
        measures.step("compile", Duration::from_micros(15));
        measures.live(Duration::from_millis(40));
        measures.queue("status", 7);
        let text = metrics.encode();
        assert!(text.contains("kubepbx_operator_step_seconds_bucket{le=\"0.00002\",step=\"compile\"} 1"), "{text}");
        assert!(text.contains("kubepbx_operator_live_seconds_bucket{le=\"0.064\"} 1"), "{text}");
        assert!(text.contains("kubepbx_operator_queue{queue=\"status\"} 7"), "{text}");
    }
}
