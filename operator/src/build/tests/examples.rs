//! The manifests of `examples/autoscaling`: each field is one that its kind has.

use super::{installation, through};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// A manifest of the example.
pub(super) fn example(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/autoscaling").join(file);
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The Deployment that is scaled is the one that the operator makes of the example's Pbx, and it leaves its replicas alone.
fn scales_the_relays(target: &Value) {
    let pbx = installation(example("pbx.yaml")["spec"].clone());
    let relays = super::build(&pbx).into_iter().find(|object| {
        object.metadata.name.as_deref() == target["name"].as_str()
            && object.types.as_ref().is_some_and(|types| types.kind == "Deployment")
    });
    let relays = relays.expect("a Deployment of that name");
    assert_eq!(relays.data.pointer("/spec/replicas"), None);
    assert_eq!((&target["apiVersion"], &target["kind"]), (&json!("apps/v1"), &json!("Deployment")));
    assert_eq!(relays.data.pointer("/spec/template/spec/containers/0/name"), Some(&json!("media")));
    assert!(relays.data.pointer("/spec/template/spec/containers/0/resources/requests/cpu").is_some());
}

#[test]
fn autoscalers_are_ones_that_kubernetes_takes() {
    for file in ["hpa-cpu.yaml", "hpa-sessions.yaml"] {
        let manifest = example(file);
        assert_eq!(through::<HorizontalPodAutoscaler>(&manifest), manifest, "{file}");
        assert_eq!(manifest["apiVersion"], "autoscaling/v2");
        scales_the_relays(&manifest["spec"]["scaleTargetRef"]);
    }
}

/// KEDA's ScaledObject as its documentation has it, as far as the example goes: what is not known is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScaledObject {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: Value,
    spec: ScaledObjectSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScaledObjectSpec {
    scale_target_ref: Value,
    min_replica_count: u32,
    max_replica_count: u32,
    #[serde(rename = "pollingInterval")]
    _polling_interval: u32,
    fallback: Fallback,
    advanced: Advanced,
    triggers: Vec<Trigger>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fallback {
    #[serde(rename = "failureThreshold")]
    _failure_threshold: u32,
    replicas: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Advanced {
    horizontal_pod_autoscaler_config: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    #[serde(rename = "type")]
    kind: String,
    metadata: Prometheus,
}

/// All values of a trigger's metadata are text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Prometheus {
    server_address: String,
    query: String,
    threshold: String,
}

#[test]
fn the_scaled_object_has_kedas_fields() {
    let read: ScaledObject = serde_json::from_value(example("keda.yaml")).unwrap();
    assert_eq!((read.api_version.as_str(), read.kind.as_str()), ("keda.sh/v1alpha1", "ScaledObject"));
    let spec = read.spec;
    scales_the_relays(&spec.scale_target_ref);
    assert!(spec.min_replica_count <= spec.fallback.replicas && spec.fallback.replicas <= spec.max_replica_count);
    let [trigger] = spec.triggers.as_slice() else { panic!("one trigger") };
    assert_eq!(trigger.kind, "prometheus");
    assert!(
        trigger.metadata.server_address.starts_with("http://")
            && trigger.metadata.query.contains("kubepbx_media_calls")
    );
    assert!(trigger.metadata.threshold.parse::<f64>().is_ok());
    // Its behaviour is that of a HorizontalPodAutoscaler.
    let behavior = spec.advanced.horizontal_pod_autoscaler_config["behavior"].clone();
    let mut autoscaler = example("hpa-cpu.yaml");
    autoscaler["spec"]["behavior"] = behavior;
    assert_eq!(through::<HorizontalPodAutoscaler>(&autoscaler), autoscaler);
}
