//! What an object of the API server is to us. Pure.

use super::{Fact, Key, Known, ObjectKey};
use crate::apply::Live;
use crate::programmed;
use api::{Kind, Resource, ResourceId, Spec};
use k8s_openapi::api::core::v1::{self as core, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DynamicObject, PartialObjectMeta};
use serde_json::Value;
use std::time::Duration;

/// The label that names the Pbx.
const INSTANCE: &str = "app.kubernetes.io/instance";

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

/// A pod of one of the services, the Pbx that it belongs to, and its node's address.
pub(super) fn pod(pod: core::Pod) -> Option<(Key, Fact)> {
    let fact = programmed::pod(&pod)?;
    let instance = pod.metadata.labels.as_ref()?.get(INSTANCE)?.clone();
    let node = pod.status.as_ref().and_then(|status| status.host_ip.as_deref()?.parse().ok());
    Some((Key::Pod(fact.name.clone()), Fact::Pod(fact, instance, node)))
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_pod_is_of_a_pbx() {
        let mut text = json!({"metadata": {"name": "main-router-x", "labels":
            {"app.kubernetes.io/component": "router", "app.kubernetes.io/instance": "main"}}});
        let (key, fact) = pod(read(text.clone())).unwrap();
        assert_eq!(key, Key::Pod("main-router-x".into()));
        assert!(matches!(fact, Fact::Pod(pod, of, None) if pod.name == "main-router-x" && of == "main"));
        text["metadata"]["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/instance");
        assert!(pod(read(text)).is_none());
    }
}
