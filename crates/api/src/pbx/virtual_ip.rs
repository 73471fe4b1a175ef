//! An address that moves between nodes.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Addresses that one of the nodes with balancers holds, by VRRP (keepalived beside each balancer). When the balancer there
/// does not answer, or its node is gone, another takes them within 3 s.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIp {
    /// The addresses, all IPv4 or all IPv6, with the network's length where it matters: 192.168.1.4/24. Phones outside
    /// localNetworks are told the first one unless externalAddress says another.
    #[schemars(length(min = 1, max = 16), inner(length(min = 2, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<String>,

    /// The interface that gets them, such as eth0: the same at each node.
    #[schemars(length(min = 1, max = 15))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_.-]{1,15}$')").message("write the name of an interface, such as eth0"))]
    pub interface: String,

    /// VRRP's name for these addresses: others on the same nodes have another.
    #[serde(default = "router_id")]
    #[schemars(range(min = 1, max = 255))]
    pub virtual_router_id: u8,
}

fn router_id() -> u8 {
    51
}
