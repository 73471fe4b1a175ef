//! How phones reach balancers: the Service, and the address that they are told.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::{ExposureType, Listener, PbxSpec};
use contract::Service;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::{INSIDE, Installation, NG, PROBES};

/// The name of a listener's port: at most 15 characters.
fn port_name(listener: &Listener) -> String {
    format!("sip-{}-{}", listener.transport.as_str().to_lowercase(), listener.port)
}

/// The Service of the balancers. None on HostNetwork, where nothing stands between them and the phones.
pub(super) fn service(pbx: &Installation) -> Option<DynamicObject> {
    let exposure = &pbx.spec.services.balancer.exposure;
    let kind = match exposure.kind {
        ExposureType::HostNetwork => return None,
        ExposureType::LoadBalancer => "LoadBalancer",
        ExposureType::NodePort => "NodePort",
        ExposureType::ClusterIP => "ClusterIP",
    };
    let ports: Vec<Value> = pbx
        .spec
        .listeners
        .iter()
        .map(|listener| {
            let name = port_name(listener);
            let mut port = json!({
                "name": name,
                "protocol": listener.transport.as_str(),
                "port": listener.port,
                "targetPort": name,
            });
            if let Some(node_port) = exposure.node_port {
                port["nodePort"] = node_port.into();
            }
            port
        })
        .collect();
    let mut spec = json!({"type": kind, "selector": pbx.selector(Service::Balancer), "ports": ports});
    if exposure.kind != ExposureType::ClusterIP {
        // Phones' addresses are kept, and nothing is carried over to another node.
        spec["externalTrafficPolicy"] = "Local".into();
    }
    if let Some(class) = &exposure.load_balancer_class {
        spec["loadBalancerClass"] = class.clone().into();
    }
    let name = format!("{}-sip", pbx.name);
    let mut object = pbx.object("v1", "Service", name, Some(Service::Balancer), json!({"spec": spec}));
    object.metadata.annotations = exposure.annotations.clone().filter(|annotations| !annotations.is_empty());
    Some(object)
}

/// The ports of a pod that has an address of its own.
pub(super) fn container_ports(pbx: &Installation, service: Service) -> Value {
    let port =
        |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "containerPort": port});
    let mut ports = vec![port("inside", "TCP", INSIDE), port("metrics", "TCP", PROBES)];
    match service {
        Service::Balancer => {
            let sip = pbx.spec.listeners.iter();
            ports.extend(sip.map(|l| port(&port_name(l), l.transport.as_str(), l.port)));
        }
        Service::Media => ports.push(port("ng", "UDP", NG)),
        Service::Registrar | Service::Router | Service::Conference => {}
    }
    ports.into()
}

/// What balancers tell phones outside localNetworks, as HOST or HOST:PORT; none: the address of the route to each.
pub(super) fn advertised(pbx: &Installation) -> Option<String> {
    let exposure = &pbx.spec.services.balancer.exposure;
    let given = pbx.spec.external_address.clone();
    match exposure.kind {
        ExposureType::HostNetwork => given.or_else(|| {
            let first = pbx.spec.virtual_ip.as_ref()?.addresses.first()?;
            Some(first.split('/').next().unwrap_or_default().to_owned())
        }),
        ExposureType::LoadBalancer => given.or_else(|| pbx.facts.ingress.clone()),
        ExposureType::NodePort => {
            let address = given.unwrap_or_else(|| "$(NODE_IP)".into());
            let has_port = address.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
            match exposure.node_port.filter(|_| !has_port) {
                Some(port) => Some(format!("{address}:{port}")),
                None => Some(address),
            }
        }
        ExposureType::ClusterIP => given,
    }
}

/// Where phones reach balancers, as hosts without ports: what they may register at beside the domains. `services` are the
/// addresses and names that Services of the Pbx have.
pub fn own_hosts<'a>(
    namespace: &str,
    pbx: &str,
    spec: &PbxSpec,
    nodes: impl Iterator<Item = IpAddr>,
    services: impl Iterator<Item = &'a String>,
) -> BTreeSet<String> {
    let mut hosts: BTreeSet<String> = services.cloned().collect();
    hosts.extend(spec.external_address.as_deref().map(|address| host(address).to_owned()));
    let moving = spec.virtual_ip.iter().flat_map(|ip| &ip.addresses);
    hosts.extend(moving.filter_map(|address| Some(address.split('/').next()?.to_owned())));
    let kind = spec.services.balancer.exposure.kind;
    if matches!(kind, ExposureType::HostNetwork | ExposureType::NodePort) {
        hosts.extend(nodes.map(|node| node.to_string()));
    }
    if kind != ExposureType::HostNetwork {
        let name = format!("{pbx}-sip");
        let within = ["", ".svc", ".svc.cluster.local"].map(|zone| format!("{name}.{namespace}{zone}"));
        hosts.extend(within.into_iter().chain([name]));
    }
    hosts
}

/// HOST of HOST or HOST:PORT, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    if let Some((host, _)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    address.split_once(':').map_or(address, |(host, _)| host)
}

/// Whether a pod has to know its node's address, because phones are told it.
pub(super) fn tells_node(pbx: &Installation, service: Service) -> bool {
    let exposure = &pbx.spec.services.balancer.exposure;
    service == Service::Balancer && exposure.kind == ExposureType::NodePort && pbx.spec.external_address.is_none()
}
