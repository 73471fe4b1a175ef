//! Metrics: a thin wrapper over `prometheus-client` that prefixes names with `kubepbx_`.

use prometheus_client::encoding::{EncodeLabelSet, text};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
pub use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// One label `reason`, for families of refusals, drops and overflows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why, of a small fixed set.
    pub reason: &'static str,
}

struct Inner {
    registry: Registry,
    known: HashMap<String, Box<dyn Any + Send>>,
}

/// The metrics of one process. Asking twice for a name gives the same metric, so several runs of a service in one
/// process add up.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Mutex<Inner>>,
}

impl Metrics {
    /// An empty registry with the prefix `kubepbx`.
    pub fn new() -> Self {
        let inner = Inner { registry: Registry::with_prefix("kubepbx"), known: HashMap::new() };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// A metric of any kind under `kubepbx_<name>`, registered on first use. One name asked for with two types gives
    /// an unregistered one the second time.
    pub fn metric<M: Metric + Clone + Send>(&self, name: &str, help: &str, make: impl FnOnce() -> M) -> M {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.known.get(name) {
            return known.downcast_ref::<M>().cloned().unwrap_or_else(make);
        }
        let metric = make();
        // The registry ends each help text with a dot of its own.
        inner.registry.register(name, help.trim_end_matches('.'), metric.clone());
        inner.known.insert(name.to_owned(), Box::new(metric.clone()));
        metric
    }

    /// A counter: `kubepbx_<name>_total`. Give the name without `_total`.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.metric(name, help, Counter::default)
    }

    /// A gauge: `kubepbx_<name>`.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.metric(name, help, Gauge::default)
    }

    /// A histogram of seconds with buckets from 1 ms to about 30 s: `kubepbx_<name>`; end the name in `_seconds`.
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        let buckets = || prometheus_client::metrics::histogram::exponential_buckets(0.001, 2.0, 16);
        self.metric(name, help, || Histogram::new(buckets()))
    }

    /// Counters by labels: `kubepbx_<name>_total{...}`. Label values must come from a small fixed set.
    pub fn counters<L>(&self, name: &str, help: &str) -> Family<L, Counter>
    where
        L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static,
    {
        self.metric(name, help, Family::default)
    }

    /// Gauges by labels: `kubepbx_<name>{...}`. Label values must come from a small fixed set.
    pub fn gauges<L>(&self, name: &str, help: &str) -> Family<L, Gauge>
    where
        L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static,
    {
        self.metric(name, help, Family::default)
    }

    /// Counters by `reason`.
    pub fn reasons(&self, name: &str, help: &str) -> Family<Reason, Counter> {
        self.counters(name, help)
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string fails only if a metric's own encoding does; what was written until then is returned.
        if text::encode(&mut out, &inner.registry).is_err() {
            tracing::error!("a metric could not be encoded");
        }
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Adds one to the counter of a family with this reason.
pub fn count<C: MetricConstructor<Counter>>(family: &Family<Reason, Counter, C>, reason: &'static str) {
    family.get_or_create(&Reason { reason }).inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_prefixed_and_one_name_is_one_metric() {
        let metrics = Metrics::new();
        metrics.counter("calls", "Calls begun.").inc();
        metrics.counter("calls", "Calls begun.").inc();
        metrics.gauge("bindings", "Bindings held").set(7);
        count(&metrics.reasons("drops", "Dropped."), "queue_full");
        let text = metrics.encode();
        assert!(text.contains("kubepbx_calls_total 2\n"), "{text}");
        assert!(text.contains("kubepbx_bindings 7\n"), "{text}");
        assert!(text.contains("kubepbx_drops_total{reason=\"queue_full\"} 1\n"), "{text}");
        assert_eq!(text.matches("# HELP kubepbx_calls Calls begun.\n").count(), 1, "{text}");
        assert!(text.contains("# HELP kubepbx_bindings Bindings held.\n"), "{text}");
    }
}
