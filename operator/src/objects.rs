//! All objects of a Pbx: those that [`crate::build`] makes, and the authorities that its pods trust.

use crate::build::{self, CA_CONFIG_MAP, Defaults, Facts, Installation};
use crate::engine::Owner;
use api::PbxSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use serde_json::json;

/// The key of the ConfigMap of the authorities.
const CA_KEY: &str = "ca.crt";

/// All objects of a Pbx; `trust` is what [`crate::tls::Tls::trust`] says.
pub fn all(
    defaults: &Defaults,
    namespace: &str,
    owner: &Owner,
    spec: &PbxSpec,
    facts: &Facts,
    trust: &str,
) -> Vec<DynamicObject> {
    let mut objects = build::build(&Installation {
        namespace: namespace.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        spec: spec.clone(),
        defaults: defaults.clone(),
        facts: facts.clone(),
    });
    objects.extend(authorities(namespace, owner, trust));
    objects
}

/// What makes an object go with its Pbx.
pub fn owner_reference(owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: api::crds::API_VERSION.to_owned(),
        kind: "Pbx".to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn authorities(namespace: &str, owner: &Owner, trust: &str) -> Option<DynamicObject> {
    let labels = json!({
        "app.kubernetes.io/name": "kubepbx",
        "app.kubernetes.io/instance": owner.name,
        "app.kubernetes.io/managed-by": "kubepbx-operator",
    });
    let object = json!({
        "apiVersion": <ConfigMap as k8s_openapi::Resource>::API_VERSION,
        "kind": <ConfigMap as k8s_openapi::Resource>::KIND,
        "metadata": {
            "name": CA_CONFIG_MAP, "namespace": namespace, "labels": labels, "ownerReferences": [owner_reference(owner)],
        },
        "data": {CA_KEY: trust},
    });
    serde_json::from_value(object).ok()
}
