//! The rendered NetworkPolicies, evaluated as a cluster's network would: over every pair of places and every port that
//! matters, all that is not written here as an arrow is refused.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::*;

/// Somebody who sends or is sent to.
#[derive(Clone)]
struct Place {
    name: &'static str,
    namespace: &'static str,
    labels: BTreeMap<String, String>,
    ip: IpAddr,
    /// A pod with an address of its own: what policies bind and find by labels.
    pod: bool,
}

type Port = (&'static str, u16);

/// Which policies there are, of which namespace.
struct Firewall(Vec<NetworkPolicy>);

impl Firewall {
    fn allows(&self, from: &Place, to: &Place, port: Port) -> bool {
        let leaves = self.direction(from, "Egress", |policy| {
            let rules = policy.spec.iter().flat_map(|spec| spec.egress.iter().flatten());
            let mut rules = rules.map(|rule| (rule.to.as_deref(), rule.ports.as_deref()));
            rules.any(|(peers, ports)| admits(policy, peers, ports, to, port))
        });
        let enters = self.direction(to, "Ingress", |policy| {
            let rules = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten());
            let mut rules = rules.map(|rule| (rule.from.as_deref(), rule.ports.as_deref()));
            rules.any(|(peers, ports)| admits(policy, peers, ports, from, port))
        });
        leaves && enters
    }

    /// Whom no policy binds may do anything; who is bound needs one policy that says so.
    fn direction(&self, whose: &Place, kind: &str, says: impl Fn(&NetworkPolicy) -> bool) -> bool {
        let binding: Vec<&NetworkPolicy> = self
            .0
            .iter()
            .filter(|policy| whose.pod && policy.metadata.namespace.as_deref() == Some(whose.namespace))
            .filter(|policy| {
                let spec = policy.spec.as_ref().unwrap();
                let types = spec.policy_types.as_ref().unwrap();
                types.iter().any(|t| t == kind) && selects(spec.pod_selector.as_ref().unwrap(), &whose.labels)
            })
            .collect();
        binding.is_empty() || binding.into_iter().any(says)
    }
}

fn admits(
    policy: &NetworkPolicy,
    peers: Option<&[NetworkPolicyPeer]>,
    ports: Option<&[NetworkPolicyPort]>,
    other: &Place,
    port: Port,
) -> bool {
    let peer = match peers {
        None | Some([]) => true,
        Some(peers) => peers.iter().any(|peer| is_peer(policy, peer, other)),
    };
    let open = match ports {
        None | Some([]) => true,
        Some(ports) => ports.iter().any(|given| is_port(given, port)),
    };
    peer && open
}

fn is_peer(policy: &NetworkPolicy, peer: &NetworkPolicyPeer, other: &Place) -> bool {
    if let Some(block) = &peer.ip_block {
        assert!(block.except.is_none(), "the evaluator does not know except");
        return block.cidr.parse::<IpNet>().unwrap().contains(&other.ip);
    }
    let namespace = match &peer.namespace_selector {
        None => policy.metadata.namespace.as_deref() == Some(other.namespace),
        Some(selector) => {
            let name = ("kubernetes.io/metadata.name".to_owned(), other.namespace.to_owned());
            selects(selector, &[name].into())
        }
    };
    other.pod && namespace && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &other.labels))
}

fn is_port(given: &NetworkPolicyPort, (protocol, port): Port) -> bool {
    let first = given.port.as_ref().map(|first| match first {
        IntOrString::Int(first) => *first,
        IntOrString::String(name) => panic!("the evaluator does not know named ports: {name}"),
    });
    let last = given.end_port.or(first);
    let port = i32::from(port);
    given.protocol.as_deref().unwrap_or("TCP") == protocol
        && first.is_none_or(|first| first <= port)
        && last.is_none_or(|last| port <= last)
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    assert!(selector.match_expressions.is_none(), "the evaluator does not know expressions");
    selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value))
}

const HOPS: Port = ("TCP", 7000);
const METRICS: Port = ("TCP", 9090);
const ADMIN: Port = ("TCP", 9091);
const SIP: [Port; 2] = [("UDP", 5060), ("TCP", 5060)];
const NG: Port = ("UDP", 2223);
const RTP: [Port; 2] = [("UDP", 30_000), ("UDP", 39_999)];
/// Ports that the kernel picked, beyond those of relays.
const PICKED: [Port; 2] = [("UDP", 40_000), ("TCP", 40_000)];
const DNS: [Port; 2] = [("UDP", 53), ("TCP", 53)];
const STORE: Port = ("TCP", 6379);
const STREAM: Port = ("TCP", 8443);
const SSH: Port = ("TCP", 22);

fn ports() -> Vec<Port> {
    let mut all = vec![HOPS, METRICS, ADMIN, NG, STORE, STREAM, SSH];
    all.extend(SIP.into_iter().chain(RTP).chain(PICKED).chain(DNS));
    all
}

fn udp() -> Vec<Port> {
    ports().into_iter().filter(|(protocol, _)| *protocol == "UDP").collect()
}

fn tcp() -> Vec<Port> {
    ports().into_iter().filter(|(protocol, _)| *protocol == "TCP").collect()
}

const OURS: [&str; 5] = ["balancer", "registrar", "router", "media", "conference"];
/// Those who are bound by no policy of ours.
const OTHERS: [&str; 9] =
    ["operator", "redis", "dns", "prometheus", "neighbour", "their-router", "phone", "node-1", "node-3"];
/// Of these, the pods.
const PODS: [&str; 6] = ["operator", "redis", "dns", "prometheus", "neighbour", "their-router"];

fn places(pbx: &Installation) -> Vec<Place> {
    let component = |name: &str| -> BTreeMap<String, String> {
        serde_json::from_value(json!({
            "app.kubernetes.io/name": "kubepbx", "app.kubernetes.io/instance": "pbx", "app.kubernetes.io/component": name,
        }))
        .unwrap()
    };
    let mut last = 10;
    let mut pod = |name: &'static str, namespace: &'static str, labels: BTreeMap<String, String>| {
        last += 1;
        Place { name, namespace, labels, ip: IpAddr::from([10, 244, 0, last]), pod: true }
    };
    let mut places = vec![
        pod("operator", "kubepbx-system", component("operator")),
        pod("redis", "kubepbx-system", component("redis")),
        pod("dns", "kube-system", BTreeMap::new()),
        pod("prometheus", "monitoring", BTreeMap::new()),
        pod("neighbour", "phones", BTreeMap::new()),
        pod("their-router", "other-phones", component("router")),
    ];
    for service in SERVICES {
        let mut place = pod(service.as_str(), "phones", component(service.as_str()));
        if pbx.on_host(service) {
            place = Place { pod: false, ip: IpAddr::from([10, 89, 0, 2]), ..place };
        }
        places.push(place);
    }
    for (name, ip) in [("phone", [198, 51, 100, 7]), ("node-1", [10, 89, 0, 1]), ("node-3", [10, 89, 0, 3])] {
        places.push(Place { name, namespace: "", labels: BTreeMap::new(), ip: ip.into(), pod: false });
    }
    places
}

/// From whom, to whom, at which ports.
type Arrow<'a> = (&'a [&'a str], &'a [&'a str], Vec<Port>);

/// Asserts that just these arrows are open, of all between two places of which a policy binds one.
fn just(pbx: &Installation, arrows: &[Arrow<'_>]) {
    let policies = build(pbx).into_iter().filter(|object| object.types.as_ref().unwrap().kind == "NetworkPolicy");
    let firewall =
        Firewall(policies.map(|p| serde_json::from_value(serde_json::to_value(p).unwrap()).unwrap()).collect());
    let places = places(pbx);
    let bound = |place: &Place| OURS.contains(&place.name) && place.pod;
    let (mut open, mut refused) = (0, 0);
    let mut wrong = BTreeSet::new();
    for from in &places {
        for to in places.iter().filter(|to| bound(from) || bound(to)) {
            for port in ports() {
                let want = arrows.iter().any(|(whence, whither, at)| {
                    whence.contains(&from.name) && whither.contains(&to.name) && at.contains(&port)
                });
                if firewall.allows(from, to, port) != want {
                    wrong.insert(format!("{} -> {} {port:?}: is to be {want}", from.name, to.name));
                }
                *if want { &mut open } else { &mut refused } += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(open > 50 && refused > 500, "{open} open, {refused} refused: the table is not what it was");
}

#[test]
fn pods_with_addresses_of_their_own() {
    let all: Vec<&str> = OURS.into_iter().chain(OTHERS).collect();
    let from_pods: Vec<&str> = PODS.into_iter().chain(["balancer"]).collect();
    let to_media: Vec<&str> = OTHERS.into_iter().chain(["balancer", "media", "conference"]).collect();
    let sip = SIP.to_vec();
    let balancer_may = [ports()].concat();
    just(
        &installation(node_port()),
        &[
            // Inside hops.
            (&["balancer"], &["balancer", "registrar", "router"], vec![HOPS]),
            (&["registrar"], &["balancer"], vec![HOPS]),
            (&["router"], &["balancer", "router", "media", "conference"], vec![HOPS]),
            (&["media", "conference"], &["router"], vec![HOPS]),
            // Control of relays, and audio.
            (&["router"], &["media"], vec![NG]),
            (&to_media, &["media"], RTP.to_vec()),
            (&["media"], &["conference"], udp()),
            // The ways in: phones are anywhere.
            (&OTHERS, &["balancer"], sip.clone()),
            (&["balancer"], &["balancer"], sip),
            (&["media"], &["balancer"], vec![("UDP", 5060)]),
            (&["router"], &["balancer"], vec![("TCP", 5060)]),
            (&from_pods, &OURS, vec![METRICS]),
            (&["router"], &OURS, vec![METRICS]),
            // What all need.
            (&OURS, &OTHERS, [DNS.to_vec(), vec![STORE]].concat()),
            (&OURS, &["operator"], vec![STREAM]),
            // The ways out: to phones and destinations, and to webhooks, wherever.
            (&["balancer"], &OTHERS, balancer_may),
            (&["media"], &OTHERS, udp()),
            (&["router"], &OTHERS, tcp()),
        ],
    );
    assert_eq!(all.len(), places(&installation(node_port())).len());
}

#[test]
fn balancers_and_relays_on_their_nodes() {
    // They are on the nodes 1 and 2, and so is whoever else is there; node 3 has none.
    let hosts = ["balancer", "media", "node-1"];
    just(
        &installation(json!({})),
        &[
            (&hosts, &["registrar", "router"], vec![HOPS]),
            (&["router"], &["router", "conference"], vec![HOPS]),
            (&["conference"], &["router"], vec![HOPS]),
            // The kernel picks the ports of processes on nodes.
            (&["registrar", "router"], &hosts, tcp()),
            (&["router"], &hosts, udp()),
            (&["conference"], &hosts, RTP.to_vec()),
            (&hosts, &["conference"], udp()),
            (&PODS, &["registrar", "router", "conference"], vec![METRICS]),
            (&["router"], &["registrar", "router", "conference"], vec![METRICS]),
            // Webhooks are anywhere.
            (&["router"], &OTHERS, tcp()),
            (&["registrar", "router", "conference"], &OTHERS, [DNS.to_vec(), vec![STORE]].concat()),
            (&["registrar", "router", "conference"], &["balancer", "media"], [DNS.to_vec(), vec![STORE]].concat()),
            (&["registrar", "router", "conference"], &["operator"], vec![STREAM]),
        ],
    );
}

#[test]
fn the_port_of_the_store_is_the_one_that_its_url_says() {
    let mut pbx = installation(json!({}));
    pbx.facts.store_port = Some(6380);
    let policies = build(&pbx).into_iter().filter(|object| object.types.as_ref().unwrap().kind == "NetworkPolicy");
    for policy in policies {
        let rules = policy.data["spec"]["egress"].to_string();
        assert!(rules.contains("6380") && !rules.contains("6379"), "{rules}");
    }
}
