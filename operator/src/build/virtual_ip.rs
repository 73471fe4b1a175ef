//! keepalived beside each balancer on HostNetwork: addresses that one of the nodes holds (VRRPv3, RFC 5798).

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use api::{ListenerTransport, VirtualIp};
use contract::Service;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::Installation;

const FILE: &str = "keepalived.conf";
const FOLDER: &str = "/etc/keepalived";

fn name(pbx: &Installation) -> String {
    format!("{}-keepalived", pbx.name)
}

/// The ConfigMap with keepalived's configuration, one for all nodes: each takes the lines marked with its own address.
/// None without a virtual address, and before it is known where balancers run: their pods wait for it.
pub(super) fn config(pbx: &Installation) -> Option<DynamicObject> {
    let virtual_ip = pbx.spec.virtual_ip.as_ref()?;
    let nodes = pbx.facts.nodes.get(&Service::Balancer).filter(|nodes| !nodes.is_empty())?;
    let probed = pbx.spec.listeners.iter().find(|listener| listener.transport == ListenerTransport::Udp)?;
    let data = json!({"data": {FILE: render(virtual_ip, nodes, probed.port)}});
    Some(pbx.object("v1", "ConfigMap", name(pbx), Some(Service::Balancer), data))
}

/// A node that is gone is missed after 3 adverts and less than one more: 2 s. A balancer that answers neither of two probes,
/// one after the other, is found out 1.6 s after it stopped at most, and its node says at once that it gives the addresses up.
fn render(virtual_ip: &VirtualIp, nodes: &BTreeSet<IpAddr>, port: u16) -> String {
    let VirtualIp { addresses, interface, virtual_router_id } = virtual_ip;
    let mut unicast = String::new();
    // A node alone has nobody to speak to, and keepalived holds nothing without a peer unless it speaks to all.
    if nodes.len() > 1 {
        for node in nodes {
            let _ = writeln!(unicast, "@{node} unicast_src_ip {node}");
        }
        unicast.push_str("    unicast_peer {\n");
        for node in nodes {
            let _ = writeln!(unicast, "@^{node} {node}");
        }
        unicast.push_str("    }\n");
    }
    let addresses: String = addresses.iter().fold(String::new(), |mut lines, address| {
        let _ = writeln!(lines, "        {address}");
        lines
    });
    format!(
        "\
global_defs {{
    vrrp_version 3
    script_user root
    enable_script_security
}}
vrrp_script balancer {{
    script \"/kubepbx ping --quiet --timeout 300 --tries 2 sip:127.0.0.1:{port}\"
    interval 1
    timeout 1
    fall 1
    rise 2
}}
vrrp_instance kubepbx {{
    state BACKUP
    nopreempt
    interface {interface}
    virtual_router_id {virtual_router_id}
    priority 100
    advert_int 0.5
{unicast}    virtual_ipaddress {{
{addresses}    }}
    track_script {{
        balancer
    }}
}}
"
    )
}

/// Puts keepalived into a balancer's pod. Its configuration is read again when it changes, so that a node that comes or
/// goes restarts nothing.
pub(super) fn join(pbx: &Installation, pod: &mut Value) {
    if pbx.spec.virtual_ip.is_none() {
        return;
    }
    let file = format!("{FOLDER}/{FILE}");
    let container = json!({
        "name": "keepalived",
        "image": pbx.image("keepalived"),
        "imagePullPolicy": pbx.defaults.pull_policy,
        "command": ["/kubepbx", "supervise", "--file", file, "--"],
        "args": [
            "/usr/sbin/keepalived",
            "--dont-fork",
            "--log-console",
            "--vrrp",
            format!("--use-file={file}"),
            "--pid=/run/keepalived/keepalived.pid",
            "--vrrp_pid=/run/keepalived/vrrp.pid",
            "--config-id=$(POD_IP)",
        ],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumeMounts": [
            {"name": "keepalived", "mountPath": FOLDER, "readOnly": true},
            {"name": "run-keepalived", "mountPath": "/run/keepalived"},
        ],
        // It sends raw packets and sets addresses of the node. Before it runs its probe it drops groups, and where it may not
        // it takes the probe for passed.
        "securityContext": {
            "runAsNonRoot": false,
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_BROADCAST", "NET_RAW", "SETGID"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    let volumes = [
        json!({"name": "keepalived", "configMap": {"name": name(pbx)}}),
        json!({"name": "run-keepalived", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ];
    for (list, items) in [("containers", vec![container]), ("volumes", volumes.into())] {
        if let Some(list) = pod[list].as_array_mut() {
            list.extend(items);
        }
    }
}
