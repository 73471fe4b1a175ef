//! How phones reach balancers and relays.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where SIP is heard: on each node with HostNetwork, else at a Service.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// By which transport.
    pub transport: ListenerTransport,

    /// At which port.
    #[schemars(range(min = 1024, max = 65_535))]
    pub port: u16,
}

/// A transport of SIP.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum ListenerTransport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl ListenerTransport {
    /// The transport as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            ListenerTransport::Udp => "UDP",
            ListenerTransport::Tcp => "TCP",
        }
    }
}

/// How phones reach the balancers.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'NodePort' || has(self.nodePort)").message("write nodePort: the port on each node, such as 30060"),
    validation = Rule::new("self.type == 'NodePort' || !has(self.nodePort)").message("nodePort goes with type: NodePort: leave it out"),
    validation = Rule::new("self.type == 'LoadBalancer' || !has(self.loadBalancerClass)").message("loadBalancerClass goes with type: LoadBalancer: leave it out"),
    validation = Rule::new("self.type != 'HostNetwork' || !has(self.annotations)").message("there is no Service with type: HostNetwork: write annotations of pods beside exposure")
)]
pub struct Exposure {
    /// The way in.
    #[serde(default, rename = "type")]
    pub kind: ExposureType,

    /// With NodePort: the port on each node, for all listeners. It is what phones are told, together with the node's address
    /// or externalAddress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub node_port: Option<u16>,

    /// With LoadBalancer: who is to bring the address. Without it the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,

    /// Annotations of the Service, such as a cloud's settings of its load balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// The way to the balancers.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExposureType {
    /// One balancer a node (of those that nodeSelector names), on the node's own addresses: nothing stands between it and
    /// the phones.
    #[default]
    HostNetwork,
    /// Behind a Service of this type; phones' addresses are kept (externalTrafficPolicy: Local).
    LoadBalancer,
    /// Behind a Service of this type, at nodePort of each node that runs a balancer.
    NodePort,
    /// Behind a Service of this type: for phones in the cluster, or a way in of one's own.
    ClusterIP,
}

/// How phones reach the relays. RTP goes to the relay itself, never through a Service.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MediaExposure {
    /// The way in.
    #[serde(default, rename = "type")]
    pub kind: MediaExposureType,

    /// The address that phones outside localNetworks are told: the outside of a NAT that forwards all of media.ports one to
    /// one; the network of pods belongs to localNetworks then. Without it the address of the route to the phone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 45))]
    pub external_address: Option<String>,
}

/// The way to the relays.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MediaExposureType {
    /// On the addresses of the nodes that run one; several share a node.
    #[default]
    HostNetwork,
    /// On pods' own addresses, where phones have a route to them.
    PodIP,
}
