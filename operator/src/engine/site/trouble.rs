//! What a Pbx lacks: of its objects and of the pods of its tiers. Pure.

use crate::SERVICES;
use crate::apply::{self, Live, Pods};
use contract::Service;
use std::collections::BTreeSet;

/// Services that are to have no pods.
pub(super) fn off(objects: &apply::Site) -> BTreeSet<Service> {
    let tiers = objects.tiers();
    let on = |service: &Service| {
        let tier = tiers.iter().find(|(tier, _)| tier == service);
        // What is not there yet, or is not known of yet, is to have some.
        tier.is_some_and(|(_, live)| live.and_then(|l| l.pods).is_none_or(|pods| !pods.current || pods.wanted > 0))
    };
    if tiers.is_empty() { BTreeSet::new() } else { SERVICES.into_iter().filter(|service| !on(service)).collect() }
}

/// What is wrong with the objects of a Pbx or their pods, in one word and for people.
pub(super) fn trouble(objects: &apply::Site) -> Option<(String, String)> {
    let failures: Vec<String> = objects.failures().map(|(key, why)| format!("{key}: {why}")).collect();
    if !failures.is_empty() {
        return Some(("ApplyFailed".into(), failures.join("; ")));
    }
    let wrong: Vec<String> = objects.tiers().into_iter().filter_map(|(service, live)| wrong(service, live)).collect();
    if !wrong.is_empty() {
        return Some(("PodsNotAvailable".into(), wrong.join("; ")));
    }
    (!objects.is_applied()).then(|| ("Applying".into(), "objects are being applied".into()))
}

/// What a tier lacks.
fn wrong(service: Service, live: Option<&Live>) -> Option<String> {
    let service = service.as_str();
    let Some(pods) = live.and_then(|live| live.pods) else { return Some(format!("{service}: not made yet")) };
    let Pods { wanted, updated, available, all, current } = pods;
    let what = match pods.at_strength() {
        true => return None,
        false if !current => "changed just now".to_owned(),
        false if updated < wanted => format!("{updated} of {wanted} pods are as they should be"),
        false if available < wanted => format!("{available} of {wanted} pods are available"),
        false => format!("{} pods of before are still there", all - wanted),
    };
    Some(format!("{service}: {what}"))
}
