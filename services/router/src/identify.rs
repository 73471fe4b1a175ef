//! Which endpoint a call is from: the configuration indexed for that question, and the answer.

use contract::config::{EndpointEntry, IdentifyBy, PbxEntry, RouterEntry, Snapshot};
use dialplan::Plan;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A snapshot, indexed by what calls ask for.
#[derive(Debug, Default)]
pub struct Directory {
    pbx: PbxEntry,
    endpoints: BTreeMap<String, Arc<RouterEntry>>,
    plans: BTreeMap<String, Arc<RouterEntry>>,
    /// Endpoint names by digest username.
    users: BTreeMap<String, String>,
    networks: Vec<(IpNet, String)>,
}

impl Directory {
    /// Indexes a snapshot.
    pub fn new(snapshot: &Snapshot<RouterEntry>) -> Self {
        let mut directory = Self::default();
        for entry in snapshot.entries.values() {
            match entry.as_ref() {
                RouterEntry::Pbx(pbx) => directory.pbx = pbx.clone(),
                RouterEntry::Context(plan) => {
                    directory.plans.insert(plan.name().to_owned(), entry.clone());
                }
                RouterEntry::Endpoint(endpoint) => {
                    if let Some(auth) = &endpoint.auth {
                        directory.users.insert(auth.username.clone(), endpoint.name.clone());
                    }
                    let networks = endpoint.networks.iter().map(|net| (*net, endpoint.name.clone()));
                    directory.networks.extend(networks);
                    directory.endpoints.insert(endpoint.name.clone(), entry.clone());
                }
            }
        }
        // The narrowest network that fits comes first.
        directory.networks.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        directory
    }

    /// What holds for the installation.
    pub fn pbx(&self) -> &PbxEntry {
        &self.pbx
    }

    /// The endpoint of this name.
    pub fn endpoint(&self, name: &str) -> Option<&EndpointEntry> {
        match self.endpoints.get(name)?.as_ref() {
            RouterEntry::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// The context of this name.
    pub fn plan(&self, name: &str) -> Option<&Plan> {
        match self.plans.get(name)?.as_ref() {
            RouterEntry::Context(plan) => Some(plan),
            _ => None,
        }
    }

    /// What a call would do, and nothing secret: `{"contexts": [...], "endpoints": [{name, context, callerId, trunk}]}`.
    pub fn view(&self) -> Value {
        let plans: Vec<&Plan> = self.plans.keys().filter_map(|name| self.plan(name)).collect();
        let endpoints = self.endpoints.keys().filter_map(|name| self.endpoint(name));
        let endpoints: Vec<Value> = endpoints
            .map(|e| json!({"name": e.name, "context": e.context, "callerId": e.caller_id, "trunk": e.auth.is_none()}))
            .collect();
        json!({"contexts": plans, "endpoints": endpoints})
    }

    /// The endpoint with this digest username.
    pub fn by_user(&self, username: &str) -> Option<&EndpointEntry> {
        self.endpoint(self.users.get(username)?)
    }

    /// The endpoint that a call is from. Each endpoint says by `identifyBy` what may find it, and in which order; of
    /// those found the one whose own order puts the finding first is taken, and of equals the source network's, then
    /// From's, then the digest username's (as Asterisk tries them).
    pub fn identify(&self, from: &str, source: Option<IpAddr>, username: Option<&str>) -> Option<&EndpointEntry> {
        let rank = |endpoint: &EndpointEntry, by| endpoint.identify_by.iter().position(|b| *b == by);
        let found = |endpoint: Option<_>, by| endpoint.and_then(|e| Some((rank(e, by)?, e)));
        let network = source.and_then(|ip| {
            let mut fits =
                self.networks.iter().filter(|(net, _)| net.contains(&ip)).filter_map(|(_, n)| self.endpoint(n));
            fits.find(|e| rank(e, IdentifyBy::Ip).is_some())
        });
        let candidates = [
            found(network, IdentifyBy::Ip),
            // Without a password a name proves nothing.
            found(self.endpoint(from).filter(|e| e.auth.is_some()), IdentifyBy::Username),
            found(username.and_then(|u| self.by_user(u)), IdentifyBy::AuthUsername),
        ];
        candidates.into_iter().flatten().min_by_key(|(rank, _)| *rank).map(|(_, endpoint)| endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::config::{Auth, Ha1};

    fn endpoint(name: &str, auth: bool, by: &[IdentifyBy], networks: &[&str]) -> RouterEntry {
        let ha1 = Ha1 { md5: String::new(), sha256: String::new() };
        RouterEntry::Endpoint(EndpointEntry {
            name: name.into(),
            context: "c".into(),
            auth: auth.then(|| Auth { username: format!("u{name}"), ha1 }),
            codecs: vec![],
            caller_id: None,
            identify_by: by.to_vec(),
            networks: networks.iter().map(|n| n.parse().unwrap()).collect(),
            callback: None,
        })
    }

    #[test]
    fn found_by_what_each_allows_in_its_order() {
        use IdentifyBy::{AuthUsername, Ip, Username};
        let entries = [
            endpoint("8005", true, &[Username, Ip], &[]),
            endpoint("8006", true, &[AuthUsername], &[]),
            endpoint("trunk", false, &[Ip], &["192.0.2.0/24"]),
            endpoint("office", true, &[Username, Ip], &["198.51.100.0/24"]),
            endpoint("desk", false, &[Username], &[]),
            endpoint("near", false, &[Ip], &["192.0.2.9/32"]),
        ];
        let mut snapshot = Snapshot::default();
        for (at, entry) in entries.into_iter().enumerate() {
            snapshot.entries.insert(at.to_string(), Arc::new(entry));
        }
        let directory = Directory::new(&snapshot);
        let view = directory.view();
        assert_eq!(view["endpoints"][0], json!({"name": "8005", "context": "c", "callerId": null, "trunk": false}));
        assert!(!view.to_string().contains("ha1"));
        for (from, source, user, want) in [
            ("8005", "203.0.113.1", None, Some("8005")),
            ("8006", "203.0.113.1", None, None),
            ("x", "203.0.113.1", Some("u8006"), Some("8006")),
            ("x", "203.0.113.1", Some("u8005"), None),
            ("555", "192.0.2.1", None, Some("trunk")),
            ("8005", "192.0.2.1", None, Some("trunk")),
            ("8005", "192.0.2.9", None, Some("near")),
            // Its network comes second for the office, From first for the phone in it.
            ("8005", "198.51.100.7", None, Some("8005")),
            ("x", "198.51.100.7", None, Some("office")),
            ("desk", "203.0.113.1", None, None),
        ] {
            let got = directory.identify(from, Some(source.parse().unwrap()), user).map(|e| e.name.as_str());
            assert_eq!(got, want, "{from} {source} {user:?}");
        }
    }
}
