//! What the latch wants to know of a pod, out of what the API server tells of it.

use super::{Pod, SERVICES};
use k8s_openapi::api::core::v1 as core;

/// The label that names a pod's service.
const COMPONENT: &str = "app.kubernetes.io/component";

/// A pod of one of the services; `None` for others.
///
/// A readiness that was lost counts as having been: it turned false after the container was started. One that was never
/// there turned false before that, when the pod was made or the container's predecessor ended.
pub fn pod(pod: &core::Pod) -> Option<Pod> {
    let component = pod.metadata.labels.as_ref()?.get(COMPONENT)?;
    let service = SERVICES.into_iter().find(|service| service.as_str() == component)?;
    let status = pod.status.as_ref();
    let ended = status.and_then(|s| s.phase.as_deref()).is_some_and(|p| matches!(p, "Succeeded" | "Failed"));
    let condition = status.and_then(|s| s.conditions.as_ref()?.iter().find(|c| c.type_ == "Ready"));
    let is_ready = condition.is_some_and(|c| c.status == "True");
    let turned = condition.and_then(|c| c.last_transition_time.as_ref());
    let started = status.and_then(|s| {
        let containers = s.container_statuses.as_ref()?;
        // A sidecar may be started again without the service.
        let own = containers.iter().find(|c| c.name == *component).or(containers.first())?;
        own.state.as_ref()?.running.as_ref()?.started_at.as_ref()
    });
    let was_ready = turned.zip(started).is_some_and(|(turned, started)| turned.0 > started.0);
    Some(Pod {
        name: pod.metadata.name.clone()?,
        service,
        ready: is_ready || was_ready,
        failing: was_ready && !is_ready,
        leaving: ended || pod.metadata.deletion_timestamp.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Service;
    use serde_json::json;

    const T: [&str; 3] = ["2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z", "2026-01-01T00:00:30Z"];

    /// A router's pod: ready or not since then, its container running since then.
    fn router(ready: &str, turned: &str, started: Option<&str>) -> core::Pod {
        let state = started.map_or(json!({"waiting": {}}), |at| json!({"running": {"startedAt": at}}));
        let sidecar = json!({"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 1,
            "state": {"running": {"startedAt": T[2]}}});
        let own =
            json!({"name": "router", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state});
        serde_json::from_value(json!({
            "metadata": {"name": "pbx-router-x", "labels": {COMPONENT: "router"}},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": turned}],
                "containerStatuses": [sidecar, own],
            },
        }))
        .unwrap()
    }

    fn told(pod_: &core::Pod) -> (bool, bool, bool) {
        let pod = pod(pod_).unwrap();
        assert_eq!((pod.name.as_str(), pod.service), ("pbx-router-x", Service::Router));
        (pod.ready, pod.failing, pod.leaving)
    }

    #[test]
    fn readiness_that_was_lost_is_told_from_one_that_never_was() {
        for (ready, turned, started, want) in [
            ("False", T[0], None, (false, false, false)),
            ("False", T[0], Some(T[1]), (false, false, false)),
            ("True", T[2], Some(T[1]), (true, false, false)),
            // Frozen, or its node is silent.
            ("False", T[2], Some(T[1]), (true, true, false)),
            ("Unknown", T[2], Some(T[1]), (true, true, false)),
            // Started again in its pod: its predecessor's end turned it, in that second or before.
            ("False", T[1], Some(T[1]), (false, false, false)),
            ("False", T[1], None, (false, false, false)),
        ] {
            assert_eq!(told(&router(ready, turned, started)), want, "{ready} {turned} {started:?}");
        }
    }

    #[test]
    fn pods_that_go_are_leaving_and_others_are_not_ours() {
        let mut going = router("True", T[2], Some(T[1]));
        going.metadata.deletion_timestamp = Some(serde_json::from_value(json!(T[2])).unwrap());
        assert_eq!(told(&going), (true, false, true));
        let mut ended = router("False", T[2], None);
        ended.status.as_mut().unwrap().phase = Some("Failed".into());
        assert_eq!(told(&ended), (false, false, true));
        let mut other = router("True", T[2], Some(T[1]));
        other.metadata.labels.as_mut().unwrap().insert(COMPONENT.into(), "redis".into());
        assert_eq!(pod(&other), None);
        assert_eq!(pod(&core::Pod::default()), None);
    }
}
