//! NetworkPolicies: who may speak with whom, and nobody else.
//!
//! They bind pods that have an address of their own. Pods on HostNetwork are beyond the reach of NetworkPolicies; others
//! know them by the addresses of their nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::ListenerTransport;
use contract::Service::{self, Balancer, Conference, Media, Registrar, Router};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::{INSIDE, Installation, NG, PROBES, SERVICES};

/// The port of the operator's stream.
const STREAM: u16 = 8443;
/// Redis' own port.
const STORE: u16 = 6379;

/// Pairs with inside hops between them (TCP): SIP, and events of media. Either side opens the connection.
const HOPS: [(Service, Service); 6] = [
    (Balancer, Balancer),
    (Balancer, Registrar),
    (Balancer, Router),
    (Router, Router),
    (Router, Conference),
    (Router, Media),
];

fn hops(one: Service, other: Service) -> bool {
    HOPS.contains(&(one, other)) || HOPS.contains(&(other, one))
}

/// The policy of a service's pods; none for those on HostNetwork, which it could not bind.
pub(super) fn policy(pbx: &Installation, service: Service) -> Option<DynamicObject> {
    if pbx.on_host(service) {
        return None;
    }
    let spec = json!({
        "podSelector": {"matchLabels": pbx.selector(service)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress(pbx, service),
        "egress": egress(pbx, service),
    });
    Some(pbx.object("networking.k8s.io/v1", "NetworkPolicy", pbx.of(service), Some(service), json!({"spec": spec})))
}

fn ingress(pbx: &Installation, service: Service) -> Vec<Value> {
    // Metrics and probes say nothing of calls; who collects them may be anywhere in the cluster.
    let mut rules = vec![json!({"from": [{"namespaceSelector": {}}], "ports": [port("TCP", PROBES)]})];
    let peers: Vec<Service> = SERVICES.into_iter().filter(|other| hops(service, *other)).collect();
    rules.extend(rule("from", who(pbx, &peers), vec![port("TCP", INSIDE)]));
    match service {
        Balancer => {
            let sip = pbx.spec.listeners.iter().map(|listener| port(listener.transport.as_str(), listener.port));
            rules.push(json!({"ports": sip.collect::<Vec<_>>()}));
        }
        Media => {
            let ports = pbx.spec.media.ports;
            rules.push(json!({"ports": [{"protocol": "UDP", "port": ports.min, "endPort": ports.max}]}));
            rules.extend(rule("from", who(pbx, &[Router]), vec![port("UDP", NG)]));
        }
        // The kernel picks the ports of its audio.
        Conference => rules.extend(rule("from", who(pbx, &[Media]), vec![json!({"protocol": "UDP"})])),
        Registrar | Router => {}
    }
    rules
}

fn egress(pbx: &Installation, service: Service) -> Vec<Value> {
    let operator = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": pbx.defaults.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kubepbx", "app.kubernetes.io/component": "operator"}},
    });
    let mut rules = vec![
        json!({"ports": [port("UDP", 53), port("TCP", 53)]}),
        json!({"to": [operator], "ports": [port("TCP", STREAM)]}),
        // The store may be anywhere, and its URL is a secret.
        json!({"ports": [port("TCP", pbx.facts.store_port.unwrap_or(STORE))]}),
    ];
    let peers: Vec<Service> = SERVICES.into_iter().filter(|other| hops(service, *other)).collect();
    let (host, own): (Vec<Service>, Vec<Service>) = peers.into_iter().partition(|peer| pbx.on_host(*peer));
    rules.extend(rule("to", who(pbx, &own), vec![port("TCP", INSIDE)]));
    // On a node the kernel picks the port.
    rules.extend(rule("to", who(pbx, &host), vec![json!({"protocol": "TCP"})]));
    let ng = if pbx.on_host(Media) { json!({"protocol": "UDP"}) } else { port("UDP", NG) };
    let rtp = pbx.spec.media.ports;
    match service {
        // Phones and destinations are anywhere, at any port.
        Balancer if tcp(pbx) => rules.push(json!({"ports": [{"protocol": "UDP"}, {"protocol": "TCP"}]})),
        Balancer | Media => rules.push(json!({"ports": [{"protocol": "UDP"}]})),
        Router => {
            rules.extend(rule("to", who(pbx, &[Media]), vec![ng]));
            // Webhooks are anywhere, at any port.
            rules.push(json!({"ports": [{"protocol": "TCP"}]}));
        }
        Conference => {
            let ports = vec![json!({"protocol": "UDP", "port": rtp.min, "endPort": rtp.max})];
            rules.extend(rule("to", who(pbx, &[Media]), ports));
        }
        Registrar => {}
    }
    rules
}

fn tcp(pbx: &Installation) -> bool {
    pbx.spec.listeners.iter().any(|listener| listener.transport == ListenerTransport::Tcp)
}

fn port(protocol: &str, port: u16) -> Value {
    json!({"protocol": protocol, "port": port})
}

/// A rule; none for nobody, since a rule without peers means everybody.
fn rule(direction: &str, peers: Vec<Value>, ports: Vec<Value>) -> Option<Value> {
    (!peers.is_empty()).then(|| json!({direction: peers, "ports": ports}))
}

/// The pods of services: by label, and on HostNetwork by the addresses of their nodes.
fn who(pbx: &Installation, services: &[Service]) -> Vec<Value> {
    let pods = services.iter().filter(|service| !pbx.on_host(**service));
    let nodes: BTreeSet<&IpAddr> = services
        .iter()
        .filter(|service| pbx.on_host(**service))
        .filter_map(|service| pbx.facts.nodes.get(service))
        .flatten()
        .collect();
    let block = |ip: &IpAddr| json!({"ipBlock": {"cidr": format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })}});
    let by_label = pods.map(|service| json!({"podSelector": {"matchLabels": pbx.selector(*service)}}));
    by_label.chain(nodes.into_iter().map(block)).collect()
}
