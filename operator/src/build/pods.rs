//! The pods of a service.

use api::{Resources, Tier};
use contract::Service;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::{AUDIENCE, CA_CONFIG_MAP, INSIDE, Installation, KEYS_SECRET, NG, PROBES, network, virtual_ip};

/// Whom the programs run as: nobody in particular.
const USER: u32 = 65_532;
/// After the drain limit a process has this many seconds more to end.
const GRACE: u64 = 30;

/// The account of a service: a name for the operator to know it by, without rights in the API.
pub(super) fn account(pbx: &Installation, service: Service) -> DynamicObject {
    let rest = json!({"automountServiceAccountToken": false});
    pbx.object("v1", "ServiceAccount", pbx.of(service), Some(service), rest)
}

/// The template of a service's pods.
pub(super) fn template(pbx: &Installation, service: Service) -> Value {
    let tier = pbx.spec.services.tier(service);
    let drain = pbx.spec.services.drain(service).get().as_secs();
    let mut labels = tier.labels.clone();
    labels.extend(pbx.labels(Some(service)));
    let mut spec = json!({
        "serviceAccountName": pbx.of(service),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": drain + GRACE,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(pbx, service, drain)],
        "volumes": volumes(),
    });
    // One a node: there is nothing to spread.
    if pbx.spec.services.replicas(service).is_some() {
        spread(pbx, service, tier, &mut spec);
    }
    if pbx.on_host(service) {
        spec["hostNetwork"] = true.into();
        spec["dnsPolicy"] = "ClusterFirstWithHostNet".into();
    }
    place(tier, &mut spec);
    if service == Service::Balancer {
        virtual_ip::join(pbx, &mut spec);
    }
    let mut metadata = json!({"labels": labels});
    if !tier.annotations.is_empty() {
        metadata["annotations"] = json!(tier.annotations);
    }
    json!({"metadata": metadata, "spec": spec})
}

/// Where the pods may run and what they need for it.
fn place(tier: &Tier, spec: &mut Value) {
    let mut set = |key: &str, value: Value, given: bool| {
        if given {
            spec[key] = value;
        }
    };
    set("imagePullSecrets", json!(tier.image_pull_secrets), !tier.image_pull_secrets.is_empty());
    set("priorityClassName", json!(tier.priority_class_name), tier.priority_class_name.is_some());
    set("nodeSelector", json!(tier.node_selector), !tier.node_selector.is_empty());
    set("tolerations", json!(tier.tolerations), !tier.tolerations.is_empty());
    set("affinity", json!(tier.affinity), tier.affinity.is_some());
}

/// Spread over nodes and zones unless the tier says how. Zones are sought by affinity: of two constraints the second would
/// undo the first where nodes have no zone. Only pods of the same template are counted, or a rollout would be spread around
/// those that go.
fn spread(pbx: &Installation, service: Service, tier: &Tier, spec: &mut Value) {
    let pods = json!({"matchLabels": pbx.selector(service)});
    let constraint = |key: &str, skew: u32, unsatisfiable: Value| {
        json!({
            "topologyKey": key,
            "maxSkew": skew,
            "whenUnsatisfiable": unsatisfiable,
            "labelSelector": pods,
            "matchLabelKeys": ["pod-template-hash"],
        })
    };
    let given = tier.topology_spread.iter();
    let mut constraints: Vec<Value> =
        given.map(|s| constraint(&s.topology_key, s.max_skew, json!(s.when_unsatisfiable))).collect();
    if constraints.is_empty() {
        constraints.push(constraint("kubernetes.io/hostname", 1, "ScheduleAnyway".into()));
        let term = json!({
            "topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": pods,
            "matchLabelKeys": ["pod-template-hash"],
        });
        let apart = json!([{"weight": 100, "podAffinityTerm": term}]);
        spec["affinity"] = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": apart}});
    }
    spec["topologySpreadConstraints"] = constraints.into();
}

fn container(pbx: &Installation, service: Service, drain: u64) -> Value {
    let tier = pbx.spec.services.tier(service);
    let image = tier.image.clone().unwrap_or_else(|| pbx.image(service.as_str()));
    let mut container = json!({
        "name": service.as_str(),
        "image": image,
        "imagePullPolicy": pbx.defaults.pull_policy,
        "env": environment(pbx, service, drain),
        "volumeMounts": [
            {"name": "ca", "mountPath": "/var/run/kubepbx/ca", "readOnly": true},
            {"name": "token", "mountPath": "/var/run/kubepbx/token", "readOnly": true},
            {"name": "keys", "mountPath": "/var/run/kubepbx/keys", "readOnly": true},
            {"name": "run", "mountPath": "/run/kubepbx"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        // Readiness is a latch in the process: it is awaited with haste, and then asked for seldom, since each question
        // is a process. What fails then is a probe too slow, not a pod to be taken out.
        "startupProbe": probe(service, "readyz", 1, 600),
        "readinessProbe": probe(service, "readyz", 60, 10),
        "livenessProbe": probe(service, "livez", 10, 6),
        "resources": resources(tier.resources.as_ref(), service),
    });
    let args = args(pbx, service);
    if !args.is_empty() {
        container["args"] = args.into();
    }
    if !pbx.on_host(service) {
        container["ports"] = network::container_ports(pbx, service);
    }
    container
}

fn probe(service: Service, what: &str, period: u32, failures: u32) -> Value {
    json!({
        "exec": {"command": [format!("/{}", service.as_str()), "--check", what]},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}

/// What a service is given of a node unless the tier says otherwise: enough to start with, and no limit.
fn resources(given: Option<&Resources>, service: Service) -> Value {
    let default = || {
        let cpu = if service == Service::Media { "250m" } else { "100m" };
        json!({"requests": {"cpu": cpu, "memory": "64Mi"}})
    };
    given.map_or_else(default, |given| json!(given))
}

fn environment(pbx: &Installation, service: Service, drain: u64) -> Value {
    let own = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let is = |name: &str, value: String| json!({"name": name, "value": value});
    let store = pbx.spec.store.as_ref().map_or(&pbx.defaults.store, |store| &store.secret_ref);
    // On HostNetwork several processes share a node: the kernel picks their ports, and the peers' records tell them.
    let port = |port: u16| if pbx.on_host(service) { 0 } else { port };
    let mut list = vec![
        own("POD_NAME", "metadata.name"),
        own("POD_NAMESPACE", "metadata.namespace"),
        own("POD_IP", "status.podIP"),
    ];
    if network::tells_node(pbx, service) {
        list.push(own("NODE_IP", "status.hostIP"));
    }
    list.extend([
        is("KUBEPBX_OPERATOR", pbx.defaults.operator_url.clone()),
        json!({"name": "KUBEPBX_STORE", "valueFrom": {"secretKeyRef": {"name": store.name, "key": store.key}}}),
        is("KUBEPBX_INSIDE", port(INSIDE).to_string()),
        is("KUBEPBX_PROBES", format!("0.0.0.0:{}", port(PROBES))),
        is("KUBEPBX_ADMIN", format!("127.0.0.1:{}", port(9091))),
        is("KUBEPBX_DRAIN", drain.to_string()),
    ]);
    list.into()
}

fn args(pbx: &Installation, service: Service) -> Vec<String> {
    let mut args = Vec::new();
    let mut say = |flag: &str, value: String| args.push(format!("--{flag}={value}"));
    let local = pbx.spec.local_networks.iter();
    match service {
        Service::Balancer => {
            for listener in &pbx.spec.listeners {
                let transport = listener.transport.as_str().to_lowercase();
                say("sip", format!("{transport}:0.0.0.0:{}", listener.port));
            }
            network::advertised(pbx).into_iter().for_each(|address| say("advertise", address));
            local.for_each(|network| say("local-network", network.clone()));
        }
        Service::Media => {
            let ports = pbx.spec.media.ports;
            say("rtp-ports", format!("{}-{}", ports.min, ports.max));
            say("ng", if pbx.on_host(service) { 0 } else { NG }.to_string());
            let address = pbx.spec.services.media.exposure.external_address.clone();
            address.into_iter().for_each(|address| say("advertise", address));
            local.for_each(|network| say("local-network", network.clone()));
        }
        Service::Registrar | Service::Router | Service::Conference => {}
    }
    args
}

fn volumes() -> Value {
    // The shortest that there is. A token ends with its account; one that was deleted and made again has another uid, and
    // kubelet brings a token for that when the old one has lived four fifths of its time.
    let token = json!({"path": "token", "audience": AUDIENCE, "expirationSeconds": 600});
    let volume = |name: &str, kind: &str, what: Value| {
        let mut volume = Map::new();
        volume.insert("name".into(), name.into());
        volume.insert(kind.into(), what);
        Value::Object(volume)
    };
    json!([
        volume("ca", "configMap", json!({"name": CA_CONFIG_MAP})),
        volume("token", "projected", json!({"sources": [{"serviceAccountToken": token}]})),
        volume("keys", "secret", json!({"secretName": KEYS_SECRET})),
        volume("run", "emptyDir", json!({"medium": "Memory", "sizeLimit": "1Mi"})),
    ])
}
