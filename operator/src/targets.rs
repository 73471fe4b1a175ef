//! Where the metrics of processes are collected, told as Prometheus' HTTP service discovery wants it: `GET /v1/targets`.
//!
//! Pods on HostNetwork declare no ports: the kernel picks them, and the peers' records tell them, which the leader reads. A
//! standby sends to the leader.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use contract::Service;
use runtime::Clock;
use runtime::stream::server::Leader;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const PATH: &str = "/v1/targets";

/// While a new leader has not read every store it tells nothing, so that Prometheus keeps the targets that it has; for so
/// long at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process whose metrics are collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub at: SocketAddr,
    /// Its pod.
    pub pod: String,
    /// Its service.
    pub service: Service,
    /// Its Pbx.
    pub pbx: String,
    /// Whether the pod has its node's address.
    pub on_host: bool,
}

impl Target {
    /// Labels as a PodMonitor gives them, and one by which relabelling can tell what a PodMonitor does not find.
    fn group(&self, namespace: &str) -> Value {
        let service = self.service.as_str();
        json!({
            "targets": [self.at.to_string()],
            "labels": {
                "namespace": namespace,
                "pod": self.pod,
                "container": service,
                "app_kubernetes_io_component": service,
                "app_kubernetes_io_instance": self.pbx,
                "__meta_kubepbx_host_network": self.on_host.to_string(),
            },
        })
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Since when somebody leads, or nobody does.
    since: Duration,
    /// None: its store was not read yet.
    namespaces: BTreeMap<String, Option<Vec<Target>>>,
}

impl Known {
    fn groups(&self, now: Duration) -> Option<Value> {
        let unread = self.namespaces.is_empty() || self.namespaces.values().any(Option::is_none);
        if unread && now < self.since + PATIENCE {
            return None;
        }
        let of = |(namespace, targets): (&String, &Option<Vec<Target>>)| -> Vec<Value> {
            targets.iter().flatten().map(|target| target.group(namespace)).collect()
        };
        Some(self.namespaces.iter().flat_map(of).collect())
    }
}

/// The targets of all namespaces that this process leads in. Clones share them.
#[derive(Debug, Clone)]
pub struct Targets {
    known: Arc<Mutex<Known>>,
    clock: Clock,
}

impl Targets {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self { known: Arc::default(), clock }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process has begun to lead, or leads no longer: what was known is forgotten.
    pub fn begin(&self) {
        *self.known() = Known { since: self.clock.now().mono, ..Known::default() };
    }

    /// The targets of a namespace now; none: its store was not read yet.
    pub fn set(&self, namespace: &str, targets: Option<Vec<Target>>) {
        self.known().namespaces.insert(namespace.to_owned(), targets);
    }

    /// A namespace is led no longer.
    pub fn remove(&self, namespace: &str) {
        self.known().namespaces.remove(namespace);
    }
}

struct Shared {
    targets: Targets,
    leader: watch::Receiver<Leader>,
    port: u16,
}

/// What answers. Standbys reach the leader's at the same port.
pub fn routes(targets: Targets, leader: watch::Receiver<Leader>, port: u16) -> Router {
    Router::new().route(PATH, get(answer)).with_state(Arc::new(Shared { targets, leader, port }))
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    let leader = shared.leader.borrow().clone();
    let later = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    match leader {
        Leader::Nobody => later("nobody leads now\n"),
        Leader::There(url) => {
            let url: Option<Uri> = url.parse().ok();
            let Some(host) = url.as_ref().and_then(Uri::host) else { return later("the leader is not reached\n") };
            let to = format!("http://{host}:{}{PATH}", shared.port);
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response()
        }
        Leader::Here { .. } => {
            let groups = shared.targets.known().groups(shared.targets.clock.now().mono);
            groups.map_or_else(|| later("not every store was read yet\n"), |groups| Json(groups).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(pod: &str, at: &str, on_host: bool) -> Target {
        Target { at: at.parse().unwrap(), pod: pod.into(), service: Service::Balancer, pbx: "main".into(), on_host }
    }

    /// Status, where to ask instead, and what was said.
    async fn ask(targets: &Targets, leader: Leader) -> (StatusCode, Option<String>, String) {
        let shared = Shared { targets: targets.clone(), leader: watch::channel(leader).1, port: 9090 };
        let answer = answer(State(Arc::new(shared))).await;
        let to = answer.headers().get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        let kind = answer.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let status = answer.status();
        // Prometheus takes nothing else.
        assert!(status != StatusCode::OK || kind.as_deref() == Some("application/json"), "{kind:?}");
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, to, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_leader_answers_and_a_standby_sends_to_it() {
        let targets = Targets::new(Clock::new());
        targets.begin();
        targets.set("tel", Some(vec![target("main-balancer-x", "192.0.2.7:40123", true)]));
        let (status, _, said) = ask(&targets, Leader::Here { epoch: 3 }).await;
        let labels = json!({
            "namespace": "tel",
            "pod": "main-balancer-x",
            "container": "balancer",
            "app_kubernetes_io_component": "balancer",
            "app_kubernetes_io_instance": "main",
            "__meta_kubepbx_host_network": "true",
        });
        assert_eq!(status, StatusCode::OK);
        let groups: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(groups, json!([{"targets": ["192.0.2.7:40123"], "labels": labels}]));
        for (url, to) in [
            ("https://10.2.0.7:8443", "http://10.2.0.7:9090/v1/targets"),
            ("https://[fd00::7]:8443", "http://[fd00::7]:9090/v1/targets"),
        ] {
            let (status, location, _) = ask(&targets, Leader::There(url.into())).await;
            assert_eq!((status, location.as_deref()), (StatusCode::TEMPORARY_REDIRECT, Some(to)));
        }
        for leader in [Leader::Nobody, Leader::There("no URL".into())] {
            assert_eq!(ask(&targets, leader).await.0, StatusCode::SERVICE_UNAVAILABLE);
        }
    }

    #[test]
    fn a_new_leader_says_nothing_before_it_has_read_every_store_or_waited_for_it() {
        let (begun, soon) = (Duration::from_secs(100), Duration::from_secs(105));
        let mut known = Known { since: begun, ..Known::default() };
        let count = |known: &Known, now| known.groups(now).map(|groups| groups.as_array().unwrap().len());
        assert_eq!((count(&known, soon), count(&known, begun + PATIENCE)), (None, Some(0)));
        known
            .namespaces
            .insert("a".into(), Some(vec![target("x", "192.0.2.7:1", true), target("y", "10.0.0.1:2", false)]));
        known.namespaces.insert("b".into(), None);
        assert_eq!((count(&known, soon), count(&known, begun + PATIENCE)), (None, Some(2)));
        known.namespaces.insert("b".into(), Some(Vec::new()));
        assert_eq!(count(&known, soon), Some(2));
    }
}
