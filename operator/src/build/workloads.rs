//! What keeps the pods of a service: a DaemonSet or a Deployment, and its budget.

use api::AutoscalingMode;
use contract::Service;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::{Installation, pods};

/// Pods count as there only after the others know them, which the peers' records make so within this many seconds.
const KNOWN: u32 = 2;

/// A DaemonSet for balancers on HostNetwork, else a Deployment. One pod goes at once.
pub(super) fn workload(pbx: &Installation, service: Service) -> DynamicObject {
    let mut spec = json!({
        "selector": {"matchLabels": pbx.selector(service)},
        "minReadySeconds": KNOWN,
        "revisionHistoryLimit": 3,
        "template": pods::template(pbx, service),
    });
    let kind = if pbx.spec.services.replicas(service).is_some() {
        if let Some(replicas) = replicas(pbx, service) {
            spec["replicas"] = replicas.into();
        }
        spec["strategy"] = rolling(1, 0);
        "Deployment"
    } else {
        // Two on one node would want the same SIP port.
        spec["updateStrategy"] = rolling(0, 1);
        "DaemonSet"
    };
    pbx.object("apps/v1", kind, pbx.of(service), Some(service), json!({"spec": spec}))
}

fn rolling(surge: u32, unavailable: u32) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

/// How many pods there are to be; none where somebody else says so.
fn replicas(pbx: &Installation, service: Service) -> Option<u32> {
    let scaling = &pbx.spec.media.autoscaling;
    match (service, scaling.mode) {
        (Service::Media, AutoscalingMode::External) => None,
        (Service::Media, AutoscalingMode::Sessions) => {
            Some(pbx.facts.relays.unwrap_or(scaling.min).clamp(scaling.min, scaling.max))
        }
        _ => pbx.spec.services.replicas(service),
    }
}

/// One pod of a service may be evicted at once. None for a DaemonSet: its pods are not evicted, and a budget by what may be
/// missing asks for a scale, which it has not.
pub(super) fn budget(pbx: &Installation, service: Service) -> Option<DynamicObject> {
    pbx.spec.services.replicas(service)?;
    let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": pbx.selector(service)}});
    Some(pbx.object("policy/v1", "PodDisruptionBudget", pbx.of(service), Some(service), json!({"spec": spec})))
}
