//! What the schema of a `Pbx` cannot judge: addresses, quantities, labels, affinity and the Secret of the store.

use std::collections::BTreeMap;
use std::net::IpAddr;

use contract::Service;
use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use serde_json::Value;

use super::Reason;
use super::build::{Ref, Secrets, Work};
use crate::{Affinity, PbxSpec, SecretValue, Tier};

const SERVICES: [Service; 5] =
    [Service::Balancer, Service::Registrar, Service::Router, Service::Media, Service::Conference];

impl Work {
    /// Judges the spec of a `Pbx`.
    pub(super) fn pbx(&mut self, spec: &PbxSpec, secrets: &Secrets) {
        for (at, text) in spec.local_networks.iter().enumerate() {
            if network(text).is_none() {
                let message = format!("{text:?} is no network: write such as 10.0.0.0/8");
                self.found(format!("spec.localNetworks[{at}]"), Reason::InvalidValue, message);
            }
        }
        let media = &spec.services.media.exposure;
        if let Some(text) = media.external_address.as_ref().filter(|text| text.parse::<IpAddr>().is_err()) {
            let message = format!("{text:?} is no address: write such as 203.0.113.7, not a name");
            self.found("spec.services.media.exposure.externalAddress", Reason::InvalidValue, message);
        }
        let virtual_addresses = spec.virtual_ip.as_ref().map(|ip| ip.addresses.as_slice()).unwrap_or_default();
        let mut first = None;
        for (at, text) in virtual_addresses.iter().enumerate() {
            let path = format!("spec.virtualIP.addresses[{at}]");
            match network(text) {
                None => {
                    let message = format!("{text:?} is no address: write such as 192.168.1.4 or 192.168.1.4/24");
                    self.found(path, Reason::InvalidValue, message);
                }
                Some(net) if *first.get_or_insert(net.addr().is_ipv4()) != net.addr().is_ipv4() => {
                    let message = "IPv4 and IPv6 cannot move together: write addresses of one kind";
                    self.found(path, Reason::InvalidValue, message);
                }
                Some(_) => {}
            }
        }
        if let Some(store) = &spec.store {
            self.store(&store.secret_ref, secrets);
        }
        for service in SERVICES {
            self.tier(&format!("spec.services.{}", service.as_str()), spec.services.tier(service));
        }
    }

    fn store(&mut self, at: &crate::SecretRef, secrets: &Secrets) {
        self.references.push((Ref::Secret(at.name.clone()), "spec.store.secretRef.name".into()));
        let Some(secret) = secrets.get(&at.name) else {
            let message = format!("there is no Secret {:?}: write one with the key {:?}", at.name, at.key);
            self.found("spec.store.secretRef.name", Reason::SecretNotFound, message);
            return;
        };
        if secret.get(&at.key).map(SecretValue::password).is_none_or(<[u8]>::is_empty) {
            let message =
                format!("the Secret {:?} has nothing under the key {:?}: put the store's URL there", at.name, at.key);
            self.found("spec.store.secretRef.key", Reason::SecretKeyNotFound, message);
        }
    }

    fn tier(&mut self, path: &str, tier: &Tier) {
        if let Some(resources) = &tier.resources {
            for (field, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
                for (name, quantity) in quantities.iter().filter(|(_, quantity)| !quantity.is_valid()) {
                    let message = format!("\"{quantity}\" is no quantity: write such as 2, 500m or 128Mi");
                    self.found(format!("{path}.resources.{field}.{name}"), Reason::InvalidValue, message);
                }
            }
        }
        self.keys(&format!("{path}.labels"), &tier.labels, true);
        self.keys(&format!("{path}.nodeSelector"), &tier.node_selector, true);
        self.keys(&format!("{path}.annotations"), &tier.annotations, false);
        if let Some(affinity) = &tier.affinity {
            self.affinity(&format!("{path}.affinity"), affinity);
        }
    }

    /// Keys of labels and annotations, and, of labels, values.
    fn keys(&mut self, path: &str, map: &BTreeMap<String, String>, labels: bool) {
        for (key, value) in map {
            let path = format!("{path}.{key}");
            if !is_key(key) {
                let message =
                    format!("{key:?} is no key that Kubernetes allows: write such as team or example.org/team");
                self.found(path, Reason::InvalidValue, message);
            } else if labels && !(value.is_empty() || is_name(value)) {
                let message = format!(
                    "{value:?} is no value of a label: write letters, digits, -, _ and ., at most 63 characters"
                );
                self.found(path, Reason::InvalidValue, message);
            }
        }
    }

    /// The schema lets any object through here: the types of a Pod say what it may hold.
    fn affinity(&mut self, path: &str, given: &Affinity) {
        let given = serde_json::to_value(given).unwrap_or_default();
        match serde_json::from_value::<v1::Affinity>(given.clone()) {
            Err(error) => self.found(path, Reason::InvalidValue, format!("{error}: write it as a Pod's")),
            Ok(read) => {
                let read = serde_json::to_value(read).unwrap_or_default();
                if let Some(field) = lost(&given, &read) {
                    let message = format!("unknown field {field:?}: write it as a Pod's");
                    self.found(path, Reason::InvalidValue, message);
                }
            }
        }
    }
}

/// The first field, at any depth, that was not read.
fn lost(given: &Value, read: &Value) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(key, value)| match read.get(key) {
            Some(read) => lost(value, read),
            None => (!value.is_null()).then(|| key.clone()),
        }),
        (Value::Array(given), Value::Array(read)) => given.iter().zip(read).find_map(|(given, read)| lost(given, read)),
        _ => None,
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// A label's key: a name, with or without a domain before it.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => crate::manifests::is_dns_subdomain(domain) && is_name(name),
        None => is_name(key),
    }
}

/// 1 to 63 letters, digits, -, _ and ., with a letter or digit at both ends.
fn is_name(text: &str) -> bool {
    let ends = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inside = |c: &u8| c.is_ascii_alphanumeric() || b"-_.".contains(c);
    bytes.len() <= 63 && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(inside)
}

#[cfg(test)]
mod tests {
    use super::super::{Resource, Spec, build};
    use super::*;
    use serde_json::json;
    use std::sync::Arc;

    fn findings(spec: Value) -> Vec<String> {
        let spec = Spec::Pbx(serde_json::from_value(spec).unwrap());
        let resource = Resource { name: "pbx".into(), generation: 1, created: None, spec: Arc::new(spec) };
        let secrets = [("redis".to_owned(), [("url".to_owned(), SecretValue::new("redis://redis"))].into())].into();
        let candidate = build::candidate(&resource, &secrets, "kubepbx");
        assert_eq!(candidate.entries.is_none(), !candidate.findings.is_empty());
        candidate.findings.iter().map(|f| format!("{:?} {}: {}", f.reason, f.path, f.message)).collect()
    }

    #[test]
    fn what_the_schema_cannot_judge() {
        let router = |field: &str, value: Value| json!({"services": {"router": {field: value}}});
        let term = |term: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
        let key = |key: &str| term(json!({"matchExpressions": [{key: "a", "operator": "Exists"}]}));
        let virtual_ip = |addresses: Value| json!({"virtualIP": {"addresses": addresses, "interface": "eth0"}});
        for (spec, want) in [
            (json!({}), ""),
            (json!({"localNetworks": ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]}), ""),
            (json!({"localNetworks": ["10.0.0.0/33"]}), "InvalidValue spec.localNetworks[0]: \"10.0.0.0/33\" is no"),
            (
                json!({"services": {"media": {"exposure": {"externalAddress": "a.example.org"}}}}),
                "InvalidValue spec.services.media.exposure.externalAddress: \"a.example.org\" is no address",
            ),
            (virtual_ip(json!(["192.168.1.4/24", "192.168.1.5"])), ""),
            (virtual_ip(json!(["eth0"])), "InvalidValue spec.virtualIP.addresses[0]: \"eth0\" is no address"),
            (
                virtual_ip(json!(["192.168.1.4", "2001:db8::1"])),
                "InvalidValue spec.virtualIP.addresses[1]: IPv4 and IPv6 cannot move together",
            ),
            (json!({"store": {"secretRef": {"name": "redis", "key": "url"}}}), ""),
            (
                json!({"store": {"secretRef": {"name": "other", "key": "url"}}}),
                "SecretNotFound spec.store.secretRef.name: there is no Secret \"other\"",
            ),
            (
                json!({"store": {"secretRef": {"name": "redis", "key": "uri"}}}),
                "SecretKeyNotFound spec.store.secretRef.key: the Secret \"redis\" has nothing under the key \"uri\"",
            ),
            (router("resources", json!({"requests": {"cpu": 2, "memory": "1.5Gi"}})), ""),
            (
                router("resources", json!({"limits": {"memory": "1 GB"}})),
                "InvalidValue spec.services.router.resources.limits.memory: \"1 GB\" is no quantity",
            ),
            (router("labels", json!({"example.org/team": "a_b.c", "empty": ""})), ""),
            (
                router("labels", json!({"team": "a b"})),
                "InvalidValue spec.services.router.labels.team: \"a b\" is no value",
            ),
            (router("annotations", json!({"a": "any text"})), ""),
            (
                router("annotations", json!({"a b": ""})),
                "InvalidValue spec.services.router.annotations.a b: \"a b\" is no key",
            ),
            (
                router("nodeSelector", json!({"-a": ""})),
                "InvalidValue spec.services.router.nodeSelector.-a: \"-a\" is no key",
            ),
            (router("affinity", key("key")), ""),
            (router("affinity", key("kee")), "InvalidValue spec.services.router.affinity: "),
            (
                router("affinity", term(json!({"matchExpression": []}))),
                "unknown field \"matchExpression\": write it as",
            ),
        ] {
            let found = findings(spec.clone());
            match want {
                "" => assert_eq!(found, Vec::<String>::new(), "{spec}"),
                want => assert!(found.len() == 1 && found[0].contains(want), "{spec}: {found:?}"),
            }
        }
    }
}
