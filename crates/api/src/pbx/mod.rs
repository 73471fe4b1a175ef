//! `Pbx`: the installation of a namespace.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod exposure;
mod media;
mod pods;
mod services;
mod virtual_ip;

use crate::SecretRef;
use crate::conditions::Condition;

pub use exposure::{Exposure, ExposureType, Listener, ListenerTransport, MediaExposure, MediaExposureType};
pub use media::{Autoscaling, AutoscalingMode, PbxMedia, PortRange};
pub use pods::{
    Affinity, PullSecret, Quantity, Resources, Spread, TaintEffect, Tier, Toleration, TolerationOperator, Unsatisfiable,
};
pub use services::{BalancerTier, MediaTier, Services};
pub use virtual_ip::VirtualIp;

/// The installation of a namespace: what holds for all its endpoints. One a namespace; without one the defaults hold.
/// In a cluster the operator makes pods of it. `kubepbx serve` reads domains, realm and the timeouts of media; the rest
/// has no meaning there and is left alone.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "kubepbx.io",
    version = "v1alpha1",
    kind = "Pbx",
    plural = "pbxes",
    namespaced,
    derive = "PartialEq",
    status = "PbxStatus",
    category = "kubepbx",
    doc = "The installation of a namespace: what holds for all its endpoints, and the five services that run it.",
    printcolumn(name = "Pods", type_ = "string", json_path = ".status.pods"),
    printcolumn(name = "Sessions", type_ = "integer", json_path = ".status.sessions"),
    printcolumn(name = "Relays", type_ = "integer", json_path = ".status.relays"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Realm", type_ = "string", json_path = ".spec.realm", priority = 1),
    printcolumn(name = "Scaling", type_ = "string", json_path = ".status.scaling", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.virtualIP) || self.services.balancer.exposure.type == 'HostNetwork'").message("a virtual address is held by balancers on HostNetwork: leave virtualIP or services.balancer.exposure out"),
    validation = Rule::new("!has(self.virtualIP) || self.listeners.exists(l, l.transport == 'UDP')").message("with virtualIP balancers are probed by UDP: write a listener for it"),
    validation = Rule::new("self.media.autoscaling.mode == 'fixed' || !has(self.services.media.replicas)").message("autoscaling counts the relays: write media.autoscaling.min, or its mode: fixed beside services.media.replicas"),
    validation = Rule::new("!has(self.media.autoscaling.cpu) || (has(self.services.media.resources) && has(self.services.media.resources.requests) && 'cpu' in self.services.media.resources.requests)").message("media.autoscaling.cpu is a share of what a relay requests: write services.media.resources.requests.cpu too"),
    validation = Rule::new("self.services.balancer.exposure.type != 'NodePort' || self.listeners.all(a, self.listeners.exists_one(b, b.transport == a.transport))").message("NodePort has one port for each transport: write one listener for UDP and one for TCP at most, or expose by LoadBalancer")
)]
pub struct PbxSpec {
    /// Host names that are this PBX's own in addresses of record (the part after @ that phones register with). Empty: any.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(d, d.matches('^[A-Za-z0-9:.-]{1,253}$'))").message("write host names or addresses alone, such as pbx.example.org, without sip: or a port"))]
    pub domains: Vec<String>,

    /// The digest realm: what phones show beside the password prompt, part of every password's hash, independent of addresses.
    #[serde(default = "realm")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[ !#-~]{1,128}$') && !self.contains('\\\\')").message("write printable ASCII characters without quotation marks and backslashes"))]
    pub realm: String,

    /// Where SIP is heard.
    #[serde(default = "listeners")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["transport", "port"]))]
    pub listeners: Vec<Listener>,

    /// Where phones outside localNetworks reach the balancers when that is not the address that these see themselves: a
    /// virtual address, a load balancer's, the outside of a NAT. HOST or HOST:PORT. Without it: the address of the load
    /// balancer, of the node with NodePort, and of the route to the phone with HostNetwork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260))]
    #[x_kube(validation = Rule::new(r"self.matches('^([A-Za-z0-9]([A-Za-z0-9.-]{0,252})|\\[[0-9A-Fa-f:.]{2,45}\\])(:[0-9]{1,5})?$')").message("write HOST or HOST:PORT, such as 203.0.113.7 or sip.example.org:5080; an IPv6 address in brackets"))]
    pub external_address: Option<String>,

    /// Networks, such as 10.0.0.0/8, whose phones reach balancers and relays at the addresses that these see themselves:
    /// there externalAddress is not told (Asterisk: local_net).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub local_networks: Vec<String>,

    /// What relays do.
    #[serde(default)]
    pub media: PbxMedia,

    /// The store of registrations and calls. Without it the one that the operator was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<Store>,

    /// An address that is always at one of the nodes with a balancer that works, on bare metal.
    #[serde(default, rename = "virtualIP", skip_serializing_if = "Option::is_none")]
    pub virtual_ip: Option<VirtualIp>,

    /// Where images come from.
    #[serde(default)]
    pub image: Image,

    // Most of its size, and every resource has room for the largest.
    /// The pods of the five services.
    #[serde(default)]
    pub services: Box<Services>,
}

impl Default for PbxSpec {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            realm: realm(),
            listeners: listeners(),
            external_address: None,
            local_networks: Vec::new(),
            media: PbxMedia::default(),
            store: None,
            virtual_ip: None,
            image: Image::default(),
            services: Box::default(),
        }
    }
}

fn realm() -> String {
    "kubepbx".into()
}

fn listeners() -> Vec<Listener> {
    let at = |transport| Listener { transport, port: 5060 };
    vec![at(ListenerTransport::Udp), at(ListenerTransport::Tcp)]
}

/// The store of registrations and calls: a Redis.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// Where its URL stands: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE].
    pub secret_ref: SecretRef,
}

/// Where images come from: REGISTRY/PROGRAM:TAG, PROGRAM being balancer, registrar, router, media, conference or keepalived.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Registry and path before the program's name, such as registry.example.org/kubepbx. Without it the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9][a-zA-Z0-9._:/-]*[a-zA-Z0-9]$')").message("write registry and path alone, such as registry.example.org/kubepbx"))]
    pub registry: Option<String>,

    /// The release, such as 0.1.0. Without it the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$')").message("write a tag, such as 0.1.0"))]
    pub tag: Option<String>,
}

/// What the operator found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PbxStatus {
    /// Accepted, ResolvedRefs, Programmed and Ready.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Pods of the five services that are available, of those that there are to be, such as 11/12.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,

    /// Sessions (calls with media) that relays carry: written twice a minute at most, and when the figures beside it change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,

    /// Relays that take new sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relays: Option<u32>,

    /// How many autoscaling by sessions wants of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_relays: Option<u32>,

    /// How that came about, such as 3 relays: (25 sessions + 0 warm) / 10: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<String>,
}
