//! What an object of the API server is to us. Pure.

use super::{Fact, Key, Known, ObjectKey};
use crate::apply::Live;
use crate::programmed::Pod;
use api::{Kind, Resource, ResourceId, Spec};
use k8s_openapi::api::core::v1::{self as core, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DynamicObject, PartialObjectMeta};
use serde_json::Value;
use std::time::Duration;

/// The label that names the Pbx.
const INSTANCE: &str = "app.kubernetes.io/instance";

/// The label that names the service.
const COMPONENT: &str = "app.kubernetes.io/component";

/// A resource of ours. One that is being deleted is there until it is gone: nothing waits for a finalizer of ours.
pub(super) fn resource(kind: Kind, mut object: DynamicObject) -> Option<(Key, Fact)> {
    let name = object.metadata.name.take()?;
    let key = Key::Resource(ResourceId { kind, name: name.clone() });
    let spec = object.data.get_mut("spec").map(Value::take).unwrap_or_default();
    let spec = match kind {
        Kind::Pbx => serde_json::from_value(spec).map(Spec::Pbx),
        Kind::PbxEndpoint => serde_json::from_value(spec).map(Spec::Endpoint),
        Kind::Dialplan => serde_json::from_value(spec).map(Spec::Dialplan),
        Kind::Dispatcher => serde_json::from_value(spec).map(Spec::Dispatcher),
    };
    let spec = match spec {
        Ok(spec) => Box::new(spec),
        Err(error) => return Some((key, Fact::Unreadable(error.to_string()))),
    };
    let resource = Resource {
        name,
        generation: object.metadata.generation.unwrap_or_default(),
        created: object.metadata.creation_timestamp.as_ref().and_then(since_epoch),
        spec,
    };
    let conditions = object.data.pointer_mut("/status/conditions").map(Value::take);
    let conditions = conditions.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
    let observed = object.data.get_mut("status").map(Value::take);
    let observed = observed.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default();
    let (uid, version) = (object.metadata.uid.take().unwrap_or_default(), crate::apply::version(&object.metadata));
    Some((key, Fact::Resource(Box::new(Known { resource, uid, version, conditions, observed }))))
}

fn since_epoch(time: &Time) -> Option<Duration> {
    u64::try_from(time.0.as_second()).ok().map(Duration::from_secs)
}

/// A Secret: only that it is there, and in which version.
pub(super) fn secret(object: PartialObjectMeta<Secret>) -> Option<(Key, Fact)> {
    let ObjectMeta { name, resource_version, .. } = object.metadata;
    Some((Key::Secret(name?), Fact::Secret(resource_version?)))
}

/// What the operator makes.
pub(super) fn object(kind: &str, object: DynamicObject) -> Option<(Key, Fact)> {
    let name = object.metadata.name.clone()?;
    let key = ObjectKey { kind: kind.to_owned(), name };
    Some((Key::Object(key), Fact::Object(Live::of(kind, &object))))
}

/// A pod of one of the services.
pub(super) fn pod(pod: core::Pod) -> Option<(Key, Fact)> {
    let name = pod.metadata.name?;
    let labels = pod.metadata.labels.unwrap_or_default();
    let component = labels.get(COMPONENT)?;
    let service = crate::SERVICES.into_iter().find(|service| service.as_str() == component)?;
    let instance = labels.get(INSTANCE)?.clone();
    let status = pod.status.unwrap_or_default();
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let leaving = ended || pod.metadata.deletion_timestamp.is_some();
    let ready = has_been_ready(&status);
    let failing = ready && !is_true(&status, "Ready");
    let fact = Pod { name: name.clone(), service, ready, failing, leaving };
    Some((Key::Pod(name), Fact::Pod(fact, instance)))
}

fn is_true(status: &core::PodStatus, condition: &str) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == condition && c.status == "True")
}

/// Whether the containers that run now have been ready since they were started: they are, or they were until after then.
fn has_been_ready(status: &core::PodStatus) -> bool {
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "ContainersReady");
    let Some(condition) = condition else { return false };
    if condition.status == "True" {
        return true;
    }
    let running = status.container_statuses.iter().flatten().map(|container| {
        let state = container.state.as_ref()?.running.as_ref()?;
        state.started_at.as_ref().map(|time| time.0)
    });
    // None: one that does not run.
    let started: Option<Vec<_>> = running.collect();
    let latest = started.and_then(|times| times.into_iter().max());
    let changed = condition.last_transition_time.as_ref().map(|time| time.0);
    matches!((changed, latest), (Some(changed), Some(latest)) if changed > latest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::Service;
    use serde_json::json;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_resource_is_read_with_its_conditions_and_one_that_cannot_be_is_said_to_be_so() {
        let mut text = json!({
            "apiVersion": "kubepbx.io/v1alpha1", "kind": "PbxEndpoint",
            "metadata": {"name": "8005", "namespace": "tel", "uid": "u", "generation": 3, "resourceVersion": "7",
                         "creationTimestamp": "1970-01-01T00:01:40Z"},
            "spec": {"context": "from-external"},
            "status": {"registered": true, "contacts": 2, "conditions": [{"type": "Ready", "status": "True", "observedGeneration": 2,
                       "lastTransitionTime": "1970-01-01T00:01:41Z", "reason": "Ready", "message": ""}]},
        });
        let (key, fact) = resource(Kind::PbxEndpoint, read(text.clone())).unwrap();
        assert_eq!(key, Key::Resource(ResourceId { kind: Kind::PbxEndpoint, name: "8005".into() }));
        let Fact::Resource(known) = fact else { panic!("{fact:?}") };
        assert_eq!((known.resource.generation, known.uid.as_str(), known.version), (3, "u", 7));
        assert_eq!(known.resource.created, Some(Duration::from_secs(100)));
        assert_eq!((known.observed.registered, known.observed.contacts), (Some(true), Some(2)));
        assert_eq!((known.conditions.len(), known.conditions[0].observed_generation), (1, 2));
        text["spec"] = json!({"context": 5});
        let (_, fact) = resource(Kind::PbxEndpoint, read(text)).unwrap();
        assert!(matches!(fact, Fact::Unreadable(why) if why.contains("invalid type")));
    }

    #[test]
    fn readiness_is_a_latch_of_the_containers_that_run_now() {
        let pod_at = |ready: &str, changed: u32, started: Option<u32>| -> core::PodStatus {
            let state = started.map_or(
                json!({"waiting": {"reason": "CrashLoopBackOff"}}),
                |s| json!({"running": {"startedAt": format!("2026-01-01T00:00:{s:02}Z")}}),
            );
            read(json!({
                "conditions": [{"type": "ContainersReady", "status": ready,
                                "lastTransitionTime": format!("2026-01-01T00:00:{changed:02}Z")}],
                "containerStatuses": [{"name": "router", "image": "i", "imageID": "", "ready": ready == "True",
                                       "restartCount": 0, "state": state}],
            }))
        };
        for (status, want, why) in [
            (pod_at("True", 20, Some(10)), true, "it is ready"),
            (pod_at("False", 5, Some(10)), false, "it never was"),
            (pod_at("False", 30, Some(10)), true, "it was, and its probe fails now"),
            (pod_at("False", 30, Some(31)), false, "it was, before it was restarted in place"),
            (pod_at("False", 30, None), false, "it was, and does not run"),
            (core::PodStatus::default(), false, "it has not been scheduled"),
        ] {
            assert_eq!(has_been_ready(&status), want, "{why}");
        }
    }

    #[test]
    fn a_pod_is_of_a_service_and_of_a_pbx() {
        let mut text = json!({"metadata": {"name": "main-router-x", "labels":
            {"app.kubernetes.io/component": "router", "app.kubernetes.io/instance": "main"}}});
        let (key, fact) = pod(read(text.clone())).unwrap();
        assert_eq!(key, Key::Pod("main-router-x".into()));
        let want = Pod { name: "main-router-x".into(), service: Service::Router, ready: false, failing: false, leaving: false };
        assert_eq!(fact, Fact::Pod(want, "main".into()));
        text["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(matches!(pod(read(text.clone())), Some((_, Fact::Pod(Pod { leaving: true, .. }, _)))));
        text["metadata"]["labels"]["app.kubernetes.io/component"] = json!("operator");
        assert!(pod(read(text)).is_none());
    }
}
