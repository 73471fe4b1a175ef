//! Golden files in `testdata/` (`UPDATE_GOLDEN=1` writes them; the difference is for a person to read), what holds for all of them, and who may speak with whom.

use std::net::IpAddr;
use std::path::Path;

use super::*;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Service as Svc, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;

mod examples;
mod firewall;

/// A `Pbx` of this spec, as the API server would hand it over, on a cluster with two nodes.
fn installation(spec: Value) -> Installation {
    let manifest = json!({
        "apiVersion": api::crds::API_VERSION, "kind": "Pbx", "metadata": {"name": "pbx"}, "spec": spec,
    });
    let text = serde_yaml::to_string(&manifest).unwrap();
    let read = api::manifests::Judge::default().parse(&api::Source { name: "t.yaml".into(), text });
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    let resource = read.manifests.into_iter().find_map(|manifest| match manifest.content {
        api::manifests::Content::Resource(resource) => Some(resource),
        _ => None,
    });
    let api::Spec::Pbx(spec) = resource.unwrap().spec.as_ref().clone() else { panic!("no Pbx") };
    let node = |last: u8| IpAddr::from([10, 89, 0, last]);
    Installation {
        namespace: "phones".into(),
        name: "pbx".into(),
        uid: "3f0e6ba2-6d3c-4a0c-9f6e-6a3f2f6b8a10".into(),
        spec,
        defaults: Defaults {
            registry: "docker.io/kubepbx".into(),
            tag: "0.1.0".into(),
            pull_policy: "IfNotPresent".into(),
            operator_url: "https://kubepbx-operator.kubepbx-system.svc:8443".into(),
            operator_namespace: "kubepbx-system".into(),
            store: SecretRef { name: "kubepbx-store".into(), key: "url".into() },
        },
        facts: Facts {
            nodes: [(Service::Balancer, [node(1), node(2)].into()), (Service::Media, [node(1), node(2)].into())].into(),
            ..Facts::default()
        },
    }
}

fn virtual_ip() -> Value {
    json!({"virtualIP": {"addresses": ["192.168.1.4/24"], "interface": "eth0"}})
}

fn node_port() -> Value {
    json!({"services": {
        "balancer": {"exposure": {"type": "NodePort", "nodePort": 30060}},
        "media": {"exposure": {"type": "PodIP"}},
    }})
}

fn load_balancer() -> Value {
    json!({"services": {"balancer": {"replicas": 3, "exposure": {"type": "LoadBalancer"}}}})
}

/// Every field that a `Pbx` has, with a value that is not its default.
fn everything() -> Value {
    let tier = json!({
        "resources": {"requests": {"cpu": 1, "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "drain": "2m",
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "telephony",
        "labels": {"team": "voice", "app.kubernetes.io/component": "not-this"},
        "annotations": {"example.org/owner": "voice"},
        "nodeSelector": {"voice": "true"},
        "tolerations": [{"key": "voice", "operator": "Equal", "value": "only", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "fast", "operator": "Exists"}]}},
        ]}},
        "topologySpread": [{"topologyKey": "rack", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}],
    });
    let with = |more: Value| {
        let mut tier = tier.clone();
        more.as_object().unwrap().iter().for_each(|(key, value)| tier[key] = value.clone());
        tier
    };
    json!({
        "domains": ["pbx.example.org"],
        "realm": "example",
        "listeners": [{"transport": "UDP", "port": 5080}, {"transport": "TCP", "port": 5080}, {"transport": "UDP", "port": 5062}],
        "externalAddress": "sip.example.org",
        "localNetworks": ["10.0.0.0/8", "2001:db8::/32"],
        "media": {
            "timeout": "2m",
            "heldTimeout": "2h",
            "ports": {"min": 20000, "max": 29999},
            "autoscaling": {"mode": "sessions", "target": 100, "warm": 20, "min": 3, "max": 30, "cpu": 70},
        },
        "store": {"secretRef": {"name": "redis", "key": "address"}},
        "image": {"registry": "registry.example.org/voice", "tag": "0.2.0"},
        "services": {
            "balancer": with(json!({
                "replicas": 4,
                "exposure": {
                    "type": "LoadBalancer",
                    "loadBalancerClass": "example.org/metal",
                    "annotations": {"example.org/pool": "voice"},
                },
            })),
            "registrar": with(json!({"replicas": 3})),
            "router": with(json!({"replicas": 5, "image": "registry.example.org/voice/router:0.2.1"})),
            "media": with(json!({"exposure": {"type": "PodIP", "externalAddress": "203.0.113.9"}})),
            "conference": with(json!({"replicas": 2})),
        },
    })
}

fn cases() -> Vec<(&'static str, Installation)> {
    let mut balanced = installation(load_balancer());
    balanced.facts.ingress = Some("203.0.113.10".into());
    let mut all = installation(everything());
    all.facts = Facts { relays: Some(7), store_port: Some(6380), ..all.facts };
    vec![
        ("default", installation(json!({}))),
        ("load-balancer", balanced),
        ("node-port", installation(node_port())),
        ("virtual-ip", installation(virtual_ip())),
        ("everything", all),
        ("external", installation(examples::example("pbx.yaml")["spec"].clone())),
    ]
}

#[test]
fn golden() {
    for (name, pbx) in cases() {
        let texts: Vec<_> = build(&pbx).iter().map(|object| serde_yaml::to_string(object).unwrap()).collect();
        let text = texts.join("---\n");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        let differs = golden.lines().zip(text.lines()).position(|(old, new)| old != new);
        assert!(golden == text, "{} differs at line {differs:?}", file.display());
    }
}

/// Reads an object by the types of the API and writes it again: what these do not know would be lost.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

#[test]
fn every_field_is_one_that_kubernetes_has() {
    for (name, pbx) in cases() {
        for object in build(&pbx) {
            let value = serde_json::to_value(&object).unwrap();
            let kind = object.types.unwrap().kind;
            let again = match kind.as_str() {
                "ConfigMap" => through::<ConfigMap>(&value),
                "DaemonSet" => through::<DaemonSet>(&value),
                "Deployment" => through::<Deployment>(&value),
                "NetworkPolicy" => through::<NetworkPolicy>(&value),
                "PodDisruptionBudget" => through::<PodDisruptionBudget>(&value),
                "Service" => through::<Svc>(&value),
                "ServiceAccount" => through::<ServiceAccount>(&value),
                kind => panic!("{kind}"),
            };
            assert_eq!(again.to_string(), value.to_string(), "{name}");
        }
    }
}

/// The API server leaves empty lists out, and what is applied would never be what is there.
#[test]
fn no_list_is_empty() {
    fn look(value: &Value, path: &str) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| look(value, &format!("{path}.{key}"))),
            Value::Array(items) => {
                assert!(!items.is_empty(), "{path}");
                items.iter().for_each(|item| look(item, path));
            }
            _ => {}
        }
    }
    for (_, pbx) in cases() {
        build(&pbx).iter().for_each(|object| look(&object.data, object.metadata.name.as_deref().unwrap()));
    }
}

/// The pod templates of all services, by kind and name.
fn templates(pbx: &Installation) -> BTreeMap<String, Value> {
    let workload = |object: &DynamicObject| Some(object.data.pointer("/spec/template")?.clone());
    build(pbx).iter().filter_map(|object| Some((object.metadata.name.clone()?, workload(object)?))).collect()
}

#[test]
fn what_can_change_live_is_in_no_template() {
    let before = templates(&installation(json!({})));
    assert_eq!(before.len(), 5);
    for live in [
        json!({"domains": ["pbx.example.org"]}),
        json!({"realm": "other"}),
        json!({"media": {"timeout": "5m", "heldTimeout": "5h"}}),
        json!({"media": {"autoscaling": {"target": 7, "min": 3, "max": 99}}}),
        json!({"services": {"router": {"replicas": 9}}}),
    ] {
        assert_eq!(templates(&installation(live.clone())), before, "{live}");
    }
    // Nor is what changes by itself: nodes that come and go, relays that are wanted.
    let mut pbx = installation(virtual_ip());
    let before = templates(&pbx);
    pbx.facts = Facts { relays: Some(9), ..Facts::default() };
    pbx.facts.nodes.entry(Service::Balancer).or_default().insert(IpAddr::from([10, 89, 0, 9]));
    assert_eq!(templates(&pbx), before);
}

#[test]
fn only_the_template_of_the_service_that_it_is_about_changes() {
    let before = templates(&installation(json!({})));
    for (spec, whose) in [
        (json!({"services": {"router": {"drain": "3m"}}}), vec!["pbx-router"]),
        (json!({"services": {"registrar": {"labels": {"a": "b"}}}}), vec!["pbx-registrar"]),
        (json!({"listeners": [{"transport": "UDP", "port": 5070}]}), vec!["pbx-balancer"]),
        (json!({"externalAddress": "203.0.113.1"}), vec!["pbx-balancer"]),
        (json!({"media": {"ports": {"min": 20000, "max": 20999}}}), vec!["pbx-media"]),
        (json!({"localNetworks": ["10.0.0.0/8"]}), vec!["pbx-balancer", "pbx-media"]),
    ] {
        let after = templates(&installation(spec));
        let changed: Vec<&str> =
            after.iter().filter(|(name, t)| before[*name] != **t).map(|(n, _)| n.as_str()).collect();
        assert_eq!(changed, whose);
    }
}

#[test]
fn pods_are_restricted() {
    for (name, pbx) in cases() {
        for (workload, template) in templates(&pbx) {
            let spec = &template["spec"];
            assert_eq!(spec["automountServiceAccountToken"], false, "{name} {workload}");
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in spec["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false);
                assert_eq!(context["readOnlyRootFilesystem"], true);
                assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
                let alone = container["name"] != "keepalived";
                assert_eq!(context["capabilities"].get("add").is_none(), alone, "{name} {workload}");
                assert_eq!(context.get("runAsUser").is_none(), alone);
            }
            // A port of a pod on HostNetwork would be one of the node, and keep a second pod away.
            let on_host = spec.get("hostNetwork").is_some();
            assert_eq!(spec["containers"][0].get("ports").is_none(), on_host);
        }
    }
}

#[test]
fn relays_are_counted_by_whom_the_pbx_says() {
    let replicas = |spec: Value, relays: Option<u32>| {
        let mut pbx = installation(spec);
        pbx.facts.relays = relays;
        let media = build(&pbx).into_iter().find(|object| {
            object.types.as_ref().is_some_and(|types| types.kind == "Deployment")
                && object.metadata.name.as_deref() == Some("pbx-media")
        });
        media.unwrap().data.pointer("/spec/replicas").and_then(Value::as_u64)
    };
    assert_eq!(replicas(json!({}), None), Some(2));
    assert_eq!(replicas(json!({}), Some(5)), Some(5));
    assert_eq!(replicas(json!({}), Some(50)), Some(10));
    assert_eq!(replicas(json!({"media": {"autoscaling": {"min": 6}}}), Some(5)), Some(6));
    assert_eq!(replicas(json!({"media": {"autoscaling": {"mode": "external"}}}), Some(5)), None);
    assert_eq!(replicas(json!({"media": {"autoscaling": {"mode": "fixed"}}}), Some(5)), Some(2));
    let fixed = json!({"media": {"autoscaling": {"mode": "fixed"}}, "services": {"media": {"replicas": 3}}});
    assert_eq!(replicas(fixed, None), Some(3));
}

#[test]
fn what_phones_are_told() {
    let told = |spec: Value, ingress: Option<&str>| {
        let mut pbx = installation(spec);
        pbx.facts.ingress = ingress.map(str::to_owned);
        network::advertised(&pbx)
    };
    let exposed = |exposure: Value, address: Option<&str>| {
        let mut spec = json!({"services": {"balancer": {"exposure": exposure}}});
        if let Some(address) = address {
            spec["externalAddress"] = address.into();
        }
        spec
    };
    let node = json!({"type": "NodePort", "nodePort": 30060});
    for (spec, ingress, want) in [
        (json!({}), None, None),
        (json!({"externalAddress": "203.0.113.1"}), None, Some("203.0.113.1")),
        (virtual_ip(), None, Some("192.168.1.4")),
        (exposed(json!({"type": "LoadBalancer"}), None), None, None),
        (exposed(json!({"type": "LoadBalancer"}), None), Some("203.0.113.2"), Some("203.0.113.2")),
        (
            exposed(json!({"type": "LoadBalancer"}), Some("sip.example.org")),
            Some("203.0.113.2"),
            Some("sip.example.org"),
        ),
        (exposed(node.clone(), None), None, Some("$(NODE_IP):30060")),
        (exposed(node.clone(), Some("203.0.113.3")), None, Some("203.0.113.3:30060")),
        (exposed(node.clone(), Some("203.0.113.3:5060")), None, Some("203.0.113.3:5060")),
        (exposed(node.clone(), Some("[2001:db8::1]")), None, Some("[2001:db8::1]:30060")),
        (exposed(node, Some("[2001:db8::1]:5060")), None, Some("[2001:db8::1]:5060")),
        (exposed(json!({"type": "ClusterIP"}), None), None, None),
    ] {
        assert_eq!(told(spec.clone(), ingress).as_deref(), want, "{spec}");
    }
}

#[test]
fn phones_may_register_at_what_balancers_are_reached_by() {
    let at = |spec: Value, services: &[&str]| {
        let pbx = installation(spec);
        let services: Vec<String> = services.iter().map(|host| (*host).to_owned()).collect();
        let nodes = pbx.facts.nodes[&Service::Balancer].iter().copied();
        own_hosts(&pbx.namespace, &pbx.name, &pbx.spec, nodes, services.iter()).into_iter().collect::<Vec<_>>()
    };
    let names = ["pbx-sip", "pbx-sip.phones", "pbx-sip.phones.svc", "pbx-sip.phones.svc.cluster.local"];
    let nodes = ["10.89.0.1", "10.89.0.2"];
    assert_eq!(at(json!({}), &[]), nodes);
    assert_eq!(at(virtual_ip(), &[]), [&nodes[..], &["192.168.1.4"]].concat());
    assert_eq!(at(node_port(), &["10.96.0.7"]), [&nodes[..], &["10.96.0.7"], &names].concat());
    assert_eq!(
        at(load_balancer(), &["203.0.113.2", "lb.example"]),
        [&["203.0.113.2", "lb.example"][..], &names].concat()
    );
    for (address, host) in [
        ("sip.example.org:5080", "sip.example.org"),
        ("[2001:db8::1]:5080", "2001:db8::1"),
        ("203.0.113.1", "203.0.113.1"),
    ] {
        assert!(at(json!({"externalAddress": address}), &[]).contains(&host.to_owned()), "{address}");
    }
}

#[test]
fn keepalived_waits_for_nodes_and_speaks_to_the_others() {
    let config = |nodes: &[u8]| {
        let mut pbx = installation(virtual_ip());
        let nodes = nodes.iter().map(|last| IpAddr::from([10, 89, 0, *last])).collect();
        pbx.facts.nodes.insert(Service::Balancer, nodes);
        let config =
            build(&pbx).into_iter().find(|object| object.types.as_ref().is_some_and(|t| t.kind == "ConfigMap"));
        config.and_then(|config| Some(config.data["data"]["keepalived.conf"].as_str()?.to_owned()))
    };
    assert_eq!(config(&[]), None);
    assert!(!config(&[1]).unwrap().contains("unicast"));
    let three = config(&[1, 2, 3]).unwrap();
    for line in ["@10.89.0.2 unicast_src_ip 10.89.0.2\n", "@^10.89.0.2 10.89.0.2\n", "@^10.89.0.3 10.89.0.3\n"] {
        assert!(three.contains(line), "{three}");
    }
}
