//! What the operator may do: the least that it needs. The chart's Role and ClusterRole are held to this.

/// Resources of an API group, and what may be done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// API groups; `""` is the core.
    pub api_groups: &'static [&'static str],
    /// Resources and subresources.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

const fn rule(
    api_groups: &'static [&'static str],
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule { api_groups, resources, verbs }
}

/// In each namespace that is served: a Role there, or a ClusterRole when all are.
pub const SERVED: &[Rule] = &[
    rule(&["kubepbx.io"], &["pbxes", "pbxendpoints", "dialplans", "dispatchers"], &["get", "list", "watch"]),
    rule(
        &["kubepbx.io"],
        &["pbxes/status", "pbxendpoints/status", "dialplans/status", "dispatchers/status"],
        &["get", "patch"],
    ),
    // Owner references that block deletion ask for this where the API server checks them.
    rule(&["kubepbx.io"], &["pbxes/finalizers"], &["update"]),
    // Metadata of all; by name those referred to. Keys are made once; what is held comes and goes.
    rule(&[""], &["secrets"], &["get", "list", "watch", "create", "delete"]),
    rule(&[""], &["pods"], &["get", "list", "watch", "patch"]),
    rule(&[""], &["serviceaccounts", "configmaps", "services"], &["get", "list", "watch", "create", "patch", "delete"]),
    rule(&["apps"], &["deployments", "daemonsets"], &["get", "list", "watch", "create", "patch", "delete"]),
    rule(&["policy"], &["poddisruptionbudgets"], &["get", "list", "watch", "create", "patch", "delete"]),
    rule(&["networking.k8s.io"], &["networkpolicies"], &["get", "list", "watch", "create", "patch", "delete"]),
    rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update"]),
    rule(&["events.k8s.io"], &["events"], &["create", "patch"]),
    // The CPU of relays, where a Pbx scales by it.
    rule(&["metrics.k8s.io"], &["pods"], &["list"]),
];

/// In the operator's own namespace, also where that is not served: a Role there.
pub const OWN: &[Rule] = &[
    rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update"]),
    rule(&[""], &["secrets"], &["get", "create", "update"]),
];

/// In the whole cluster: a ClusterRole.
pub const CLUSTER: &[Rule] = &[rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"])];

/// All of it, by where it is needed.
pub fn rules() -> serde_json::Value {
    serde_json::json!({"served": SERVED, "own": OWN, "cluster": CLUSTER})
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;
    use std::collections::BTreeSet;

    /// What a set of rules allows, each as group/resource/verb.
    fn allowed(rules: &[Rule]) -> BTreeSet<String> {
        let mut out = BTreeSet::new();
        for rule in rules {
            for (group, resource) in rule.api_groups.iter().flat_map(|g| rule.resources.iter().map(move |r| (g, r))) {
                out.extend(rule.verbs.iter().map(|verb| format!("{group}/{resource}/{verb}")));
            }
        }
        out
    }

    #[test]
    fn all_that_is_watched_and_made_is_allowed_and_nothing_is_allowed_twice_or_at_large() {
        let served = allowed(SERVED);
        let allows = |group: &str, resource: &str, verbs: &[&str]| {
            verbs
                .iter()
                .for_each(|verb| assert!(served.contains(&format!("{group}/{resource}/{verb}")), "{resource} {verb}"));
        };
        for kind in Kind::ALL {
            let resource = crate::watch::resource(kind);
            allows(&resource.group, &resource.plural, &["list", "watch"]);
            allows(&resource.group, &format!("{}/status", resource.plural), &["patch"]);
        }
        for (_, resource) in crate::watch::made() {
            allows(&resource.group, &resource.plural, &["list", "watch", "create", "patch", "delete"]);
        }
        for rules in [SERVED, OWN, CLUSTER] {
            let verbs: usize = rules.iter().map(|r| r.api_groups.len() * r.resources.len() * r.verbs.len()).sum();
            assert_eq!(allowed(rules).len(), verbs);
            assert!(!allowed(rules).iter().any(|rule| rule.contains('*')));
        }
        // What would let it raise itself.
        for never in ["roles", "rolebindings", "clusterroles", "serviceaccounts/token", "pods/exec", "nodes"] {
            assert!(!served.iter().any(|rule| rule.contains(&format!("/{never}/"))), "{never}");
        }
    }
}
