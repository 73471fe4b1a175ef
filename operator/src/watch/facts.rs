//! What an object of the API server is to us. Pure.

use super::raw::Raw;
use super::{Fact, Key, Known, ObjectKey, Seen};
use crate::apply::Live;
use crate::engine::Marks;
use crate::observe::Observed;
use crate::programmed;
use crate::status::CONDITIONS;
use api::conditions::Condition;
use api::{Kind, Resource, ResourceId, Spec};
use k8s_openapi::api::core::v1::{self as core, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DynamicObject, PartialObjectMeta};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The label that names the Pbx.
const INSTANCE: &str = "app.kubernetes.io/instance";

/// A resource of ours. One that is being deleted is there until it is gone: nothing waits for a finalizer of ours.
pub(super) fn resource(kind: Kind, raw: Raw) -> Option<(Key, Fact)> {
    let Raw { metadata, spec, mut status } = raw;
    let version = crate::apply::version(&metadata);
    let name = metadata.name?;
    let key = Key::Resource(ResourceId { kind, name: name.clone() });
    let spec = match kind {
        Kind::Pbx => serde_json::from_value(spec).map(Spec::Pbx),
        Kind::PbxEndpoint => serde_json::from_value(spec).map(Spec::Endpoint),
        Kind::Dialplan => serde_json::from_value(spec).map(Spec::Dialplan),
        Kind::Dispatcher => serde_json::from_value(spec).map(Spec::Dispatcher),
    };
    let spec = match spec {
        Ok(spec) => Arc::new(spec),
        Err(error) => return Some((key, Fact::Unreadable(error.to_string()))),
    };
    let created = metadata.creation_timestamp.as_ref().and_then(since_epoch);
    let resource = Resource { name, generation: metadata.generation.unwrap_or_default(), created, spec };
    // A status that somebody has spoilt is as none: it is written anew.
    let conditions = status.get_mut("conditions").map(Value::take);
    let mut conditions: Vec<Condition> =
        conditions.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default();
    conditions.retain(|condition| CONDITIONS.contains(&condition.kind.as_str()));
    let observed = Observed::read(kind, status);
    let uid = metadata.uid.unwrap_or_default();
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
    let fact = programmed::pod(&pod)?;
    let pbx = pod.metadata.labels.as_ref()?.get(INSTANCE)?.clone();
    let node = pod.status.as_ref().and_then(|status| status.host_ip.as_deref()?.parse().ok());
    let marks = Marks::of(pod.metadata.annotations.as_ref());
    Some((Key::Pod(fact.name.clone()), Fact::Pod(Seen { pod: fact, pbx, node, marks })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_resource_is_read_with_our_conditions_and_one_that_cannot_be_is_said_to_be_so() {
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "observedGeneration": 2, "lastTransitionTime": "1970-01-01T00:01:41Z",
                   "reason": kind, "message": ""})
        };
        let mut text = json!({
            "apiVersion": "kubepbx.io/v1alpha1", "kind": "PbxEndpoint",
            "metadata": {"name": "8005", "namespace": "tel", "uid": "u", "generation": 3, "resourceVersion": "7",
                         "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
                         "creationTimestamp": "1970-01-01T00:01:40Z"},
            "spec": {"context": "from-external"},
            "status": {"registered": true, "contacts": 2, "conditions": [condition("Stranger"), condition("Ready")]},
        });
        let (key, fact) = resource(Kind::PbxEndpoint, read(text.clone())).unwrap();
        assert_eq!(key, Key::Resource(ResourceId { kind: Kind::PbxEndpoint, name: "8005".into() }));
        let Fact::Resource(known) = fact else { panic!("{fact:?}") };
        assert_eq!((known.resource.generation, known.uid.as_str(), known.version), (3, "u", 7));
        assert_eq!(known.resource.created, Some(Duration::from_secs(100)));
        let Observed::Endpoint(registered) = &known.observed else { panic!("{:?}", known.observed) };
        assert_eq!((registered.registered, registered.contacts), (Some(true), Some(2)));
        let conditions: Vec<_> = known.conditions.iter().map(|c| (c.kind.as_str(), c.observed_generation)).collect();
        assert_eq!(conditions, [("Ready", 2)], "what others say is theirs");
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
        let Fact::Pod(seen) = fact else { panic!("{fact:?}") };
        assert_eq!((seen.pod.name.as_str(), seen.pbx.as_str()), ("main-router-x", "main"));
        assert_eq!((seen.node, seen.marks), (None, Marks::default()));
        text["status"] = json!({"hostIP": "192.0.2.7"});
        text["metadata"]["annotations"] = json!({"kubepbx.io/draining-since": "100"});
        let (_, Fact::Pod(seen)) = pod(read(text.clone())).unwrap() else { panic!() };
        let marks = Marks { draining: Some(Duration::from_secs(100)), condemned: false };
        assert_eq!((seen.node, seen.marks), (Some([192, 0, 2, 7].into()), marks));
        text["metadata"]["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/instance");
        assert!(pod(read(text)).is_none());
    }
}
