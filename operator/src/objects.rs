//! All objects of a Pbx: those that `build` makes, and the authorities that its pods trust.

use crate::engine::Owner;
use api::PbxSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use serde_json::json;

/// The ConfigMap of the authorities, with one key [`CA_KEY`].
pub const CA: &str = "kubepbx-ca";

/// Its key.
pub const CA_KEY: &str = "ca.crt";

/// What pods are made from beside the Pbx.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where images are, such as `docker.io/kubepbx`.
    pub images: String,
    /// Their tag.
    pub tag: String,
    /// Where pods reach the operator.
    pub operator_url: String,
    /// The operator's namespace.
    pub operator_namespace: String,
    /// The Secret with the store's URL, where a Pbx names none.
    pub store_secret: String,
}

/// All objects of a Pbx; `trust` is what [`crate::tls::Tls::trust`] says.
pub fn all(settings: &Settings, namespace: &str, owner: &Owner, spec: &PbxSpec, trust: &str) -> Vec<DynamicObject> {
    let mut objects = Vec::new();
    objects.push(authorities(namespace, owner, trust));
    objects.into_iter().flatten().collect()
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
            "name": CA, "namespace": namespace, "labels": labels, "ownerReferences": [owner_reference(owner)],
        },
        "data": {CA_KEY: trust},
    });
    serde_json::from_value(object).ok()
}
