//! One resource, by itself: what it claims, what it refers to, and what it compiles to or why it does not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use contract::config::{
    Algorithm, AorEntry, Auth, BalancerEntry, CallbackEntry, ConferenceEntry, Destination, DispatcherEntry,
    EndpointEntry, IdentifyBy, MediaEntry, PbxEntry, Probe, RegistrarEntry, RouterEntry, Secret, WebhookEntry,
};
use dialplan::{Cause, ErrorKind, Pattern, Plan, Target, Template};
use ipnet::IpNet;

use super::entries::Entries;
use super::{Claim, Claims, Finding, Reason, Resource, ResourceId, Spec};
use crate::{DialplanSpec, DispatcherSpec, PbxEndpointSpec, PbxSpec, SecretValue, ha1};

/// What a resource refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ref {
    Secret(String),
    Context(String),
    Endpoint(String),
}

impl Ref {
    /// The claim that must be held for the reference to hold; none for Secrets, which are no resources of ours.
    pub(super) fn claim(&self) -> Option<Claim> {
        match self {
            Ref::Secret(_) => None,
            Ref::Context(name) => Some(Claim::Context(name.clone())),
            Ref::Endpoint(name) => Some(Claim::Endpoint(name.clone())),
        }
    }

    /// The reference that a claim can answer.
    pub(super) fn to(claim: &Claim) -> Option<Ref> {
        match claim {
            Claim::Context(name) => Some(Ref::Context(name.clone())),
            Claim::Endpoint(name) => Some(Ref::Endpoint(name.clone())),
            _ => None,
        }
    }
}

/// A resource compiled by itself.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// What it wants alone; [`path`] says which field says so.
    pub(super) claims: Claims,
    /// What it refers to, and the field that says so.
    pub(super) references: Vec<(Ref, String)>,
    /// None when it is invalid; then `findings` says why.
    pub(super) entries: Option<Entries>,
    pub(super) findings: Vec<Finding>,
}

pub(super) type Secrets = BTreeMap<String, BTreeMap<String, SecretValue>>;

/// Compiles a resource by itself.
pub(super) fn candidate(resource: &Resource, secrets: &Secrets, realm: &str) -> Candidate {
    let (mut work, entries) = compiled(resource, secrets, realm);
    work.references.shrink_to_fit();
    let claims = Arc::new(work.claims.into_keys().collect());
    Candidate { claims, references: work.references, entries, findings: work.findings }
}

/// The field by which a resource makes a claim. Asked for seldom, it is not kept.
pub(super) fn path(resource: &Resource, claim: &Claim) -> String {
    compiled(resource, &Secrets::new(), "").0.claims.remove(claim).unwrap_or_default()
}

fn compiled(resource: &Resource, secrets: &Secrets, realm: &str) -> (Work, Option<Entries>) {
    let mut work = Work { id: resource.id(), claims: BTreeMap::new(), references: Vec::new(), findings: Vec::new() };
    let entries = match resource.spec.as_ref() {
        Spec::Pbx(spec) => {
            work.claims.insert(Claim::Pbx, "metadata.name".into());
            work.pbx(spec, secrets);
            Some(pbx_entries(spec))
        }
        Spec::Endpoint(spec) => work.endpoint(spec, secrets, realm),
        Spec::Dialplan(spec) => work.dialplan(spec),
        Spec::Dispatcher(spec) => work.dispatcher(spec),
    };
    let entries = entries.filter(|_| work.findings.is_empty());
    (work, entries)
}

/// What a `Pbx` compiles to.
pub(super) fn pbx_entries(spec: &PbxSpec) -> Entries {
    let pbx = PbxEntry { domains: spec.domains.clone(), realm: spec.realm.clone(), hosts: Vec::new() };
    let seconds = |duration: crate::Duration| u32::try_from(duration.get().as_secs()).unwrap_or(u32::MAX).max(1);
    Entries {
        balancer: Some(BalancerEntry::Pbx(pbx.clone()).into()),
        registrar: Some(RegistrarEntry::Pbx(pbx.clone()).into()),
        router: Some(RouterEntry::Pbx(pbx.clone()).into()),
        media: Some(
            MediaEntry::Pbx { timeout: seconds(spec.media.timeout), held_timeout: seconds(spec.media.held_timeout) }
                .into(),
        ),
        conference: Some(ConferenceEntry::Pbx(pbx).into()),
    }
}

pub(super) struct Work {
    id: ResourceId,
    claims: BTreeMap<Claim, String>,
    pub(super) references: Vec<(Ref, String)>,
    findings: Vec<Finding>,
}

impl Work {
    pub(super) fn found(&mut self, path: impl Into<String>, reason: Reason, message: impl Into<String>) {
        self.findings.push(Finding::new(&self.id, path, reason, message));
    }

    /// The name that others use, claimed.
    fn name(&mut self, given: Option<&String>, claim: fn(String) -> Claim) -> String {
        let (name, path) = match given {
            Some(name) => (name.clone(), "spec.name"),
            None => (self.id.name.clone(), "metadata.name"),
        };
        self.claims.insert(claim(name.clone()), path.into());
        name
    }

    fn endpoint(&mut self, spec: &PbxEndpointSpec, secrets: &Secrets, realm: &str) -> Option<Entries> {
        let name = self.name(spec.name.as_ref(), Claim::Endpoint);
        self.references.push((Ref::Context(spec.context.clone()), "spec.context".into()));
        let auth = spec.auth.as_ref().and_then(|auth| self.auth(auth, secrets, realm));
        let networks = spec.identify.as_ref().map(|identify| self.networks(&identify.networks)).unwrap_or_default();
        let callback = spec.callback.as_ref().and_then(|callback| self.callback(callback, secrets));
        let trunk = spec
            .trust_id_inbound
            .then(|| BalancerEntry::Trunk { name: name.clone(), networks: networks.clone() }.into());
        let registrar = spec.aor.as_ref().map(|aor| {
            let aor = AorEntry {
                max_contacts: aor.max_contacts,
                remove_existing: aor.remove_existing,
                minimum_expiration: aor.minimum_expiration,
                maximum_expiration: aor.maximum_expiration,
                default_expiration: aor.default_expiration,
            };
            RegistrarEntry::Endpoint { name: name.clone(), auth: auth.clone(), aor }.into()
        });
        let router = RouterEntry::Endpoint(EndpointEntry {
            name,
            context: spec.context.clone(),
            auth,
            codecs: spec.codecs.iter().map(|codec| codec.as_str().to_owned()).collect(),
            caller_id: spec.caller_id.clone(),
            identify_by: spec
                .identify_by
                .iter()
                .map(|by| match by {
                    crate::IdentifyBy::Username => IdentifyBy::Username,
                    crate::IdentifyBy::AuthUsername => IdentifyBy::AuthUsername,
                    crate::IdentifyBy::Ip => IdentifyBy::Ip,
                })
                .collect(),
            networks,
            callback,
        });
        Some(Entries { balancer: trunk, registrar, router: Some(router.into()), ..Entries::default() })
    }

    fn auth(&mut self, auth: &crate::Auth, secrets: &Secrets, realm: &str) -> Option<Auth> {
        self.claims.insert(Claim::Username(auth.username.clone()), "spec.auth.username".into());
        let password = self.secret(&auth.password_secret_ref, "spec.auth.passwordSecretRef", "password", secrets)?;
        Some(Auth { username: auth.username.clone(), ha1: ha1(&auth.username, realm, password) })
    }

    /// What stands under a key of a Secret; `what` it is.
    fn secret<'s>(&mut self, at: &crate::SecretRef, path: &str, what: &str, secrets: &'s Secrets) -> Option<&'s [u8]> {
        self.references.push((Ref::Secret(at.name.clone()), format!("{path}.name")));
        let Some(secret) = secrets.get(&at.name) else {
            let message = format!("there is no Secret {:?}: write one with the key {:?}", at.name, at.key);
            self.found(format!("{path}.name"), Reason::SecretNotFound, message);
            return None;
        };
        let value = secret.get(&at.key).map(SecretValue::password).filter(|value| !value.is_empty());
        if value.is_none() {
            let message =
                format!("the Secret {:?} has nothing under the key {:?}: put the {what} there", at.name, at.key);
            self.found(format!("{path}.key"), Reason::SecretKeyNotFound, message);
        }
        value
    }

    fn callback(&mut self, callback: &crate::Callback, secrets: &Secrets) -> Option<CallbackEntry> {
        let at = "spec.callback.webhook.secretRef";
        let key = self.secret(&callback.webhook.secret_ref, at, "key", secrets)?;
        let Ok(key) = std::str::from_utf8(key) else {
            let message = "the key is no text: write printable characters, such as those of `openssl rand -hex 32`";
            self.found(format!("{at}.key"), Reason::InvalidValue, message);
            return None;
        };
        Some(CallbackEntry {
            hold_time: u32::try_from(callback.hold_time.get().as_secs()).unwrap_or(u32::MAX),
            always: callback.wake == crate::Wake::Always,
            webhook: WebhookEntry { url: callback.webhook.url.clone(), secret: Secret::new(key) },
        })
    }

    fn networks(&mut self, texts: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (at, text) in texts.iter().enumerate() {
            let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            match network {
                Some(network) => networks.push(network.trunc()),
                None => {
                    let message = format!("{text:?} is no address or network: write such as 192.0.2.7 or 192.0.2.0/24");
                    self.found(format!("spec.identify.match[{at}]"), Reason::InvalidValue, message);
                }
            }
        }
        networks
    }

    fn dialplan(&mut self, spec: &DialplanSpec) -> Option<Entries> {
        let name = self.name(spec.name.as_ref(), Claim::Context);
        for (at, include) in spec.includes.iter().enumerate() {
            self.references.push((Ref::Context(include.clone()), format!("spec.includes[{at}]")));
        }
        let mut extensions = Vec::new();
        for (at, extension) in spec.extensions.iter().enumerate() {
            let place = format!("spec.extensions[{at}]");
            let pattern = match Pattern::parse(&extension.pattern) {
                Ok(pattern) => Some(pattern),
                Err(error) => {
                    self.dialplan_error(&format!("{place}.pattern"), &error);
                    None
                }
            };
            let mut steps = Vec::new();
            for (index, step) in extension.steps.iter().enumerate() {
                let place = format!("{place}.steps[{index}]");
                match self.step(step, &place) {
                    Ok(step) => steps.push(step),
                    Err(error) => self.dialplan_error(&place, &error),
                }
            }
            extensions.extend(pattern.map(|pattern| dialplan::Extension::new(pattern, steps)));
        }
        if !self.findings.is_empty() {
            return None;
        }
        match Plan::new(name, spec.includes.clone(), extensions) {
            Ok(plan) => Some(Entries { router: Some(RouterEntry::Context(plan).into()), ..Entries::default() }),
            Err(error) => {
                self.dialplan_error("spec", &error);
                None
            }
        }
    }

    fn dialplan_error(&mut self, place: &str, error: &dialplan::Error) {
        let reason = match error.kind {
            ErrorKind::Pattern { .. } => Reason::InvalidPattern,
            ErrorKind::DuplicatePattern { .. } => Reason::DuplicatePattern,
            _ => Reason::InvalidStep,
        };
        let path = if error.path.is_empty() { place.to_owned() } else { format!("{place}.{}", error.path) };
        self.found(path, reason, error.kind.to_string());
    }

    fn step(&mut self, step: &crate::Step, place: &str) -> Result<dialplan::Step, dialplan::Error> {
        let templates = |texts: &[String], field: &str| -> Result<Vec<Template>, dialplan::Error> {
            let read = |(at, text): (usize, &String)| {
                Template::parse(text).map_err(|error| error.at(format_args!("{field}[{at}]")))
            };
            texts.iter().enumerate().map(read).collect()
        };
        let step = match step {
            crate::Step { no_op: Some(no_op), .. } => {
                let text = no_op.text.as_deref().map(Template::parse).transpose();
                dialplan::Step::NoOp { text: text.map_err(|error| error.at("noOp.text"))? }
            }
            crate::Step { answer: Some(_), .. } => dialplan::Step::Answer {},
            crate::Step { dial: Some(dial), .. } => dialplan::Step::Dial(dialplan::Dial {
                to: templates(&dial.to, "dial.to")?,
                timeout: dial.timeout.map(crate::Duration::get),
            }),
            crate::Step { hangup: Some(hangup), .. } => {
                let cause = hangup.cause.map(|cause| Cause::new(cause.into())).transpose();
                dialplan::Step::Hangup { cause: cause.map_err(|error| error.at("hangup.cause"))? }
            }
            crate::Step { playback: Some(playback), .. } => dialplan::Step::Playback(dialplan::Playback {
                prompts: templates(&playback.prompts, "playback.prompts")?,
            }),
            crate::Step { echo: Some(_), .. } => dialplan::Step::Echo {},
            crate::Step { music_on_hold: Some(_), .. } => dialplan::Step::MusicOnHold {},
            crate::Step { conf_bridge: Some(bridge), .. } => {
                let template = |text: &str, field: &str| Template::parse(text).map_err(|error| error.at(field));
                let optional =
                    |text: &Option<String>, field: &str| text.as_deref().map(|text| template(text, field)).transpose();
                dialplan::Step::ConfBridge(dialplan::ConfBridge {
                    room: template(&bridge.room, "confBridge.room")?,
                    pin: optional(&bridge.pin, "confBridge.pin")?,
                    admin_pin: optional(&bridge.admin_pin, "confBridge.adminPin")?,
                    admin: bridge.admin,
                    start_muted: bridge.start_muted,
                    music_on_hold_when_empty: bridge.music_on_hold_when_empty,
                    quiet: bridge.quiet,
                    max_members: bridge.max_members,
                    max_duration: bridge.max_duration.map(crate::Duration::get),
                    record_conference: bridge.record_conference,
                })
            }
            // The schema asks for exactly one.
            _ => return Err(ErrorKind::Empty("the step", "write one application, such as answer: {}").into()),
        };
        step.check()?;
        if let dialplan::Step::Dial(dial) = &step {
            for (at, target) in dial.to.iter().enumerate() {
                let targets = target.literal().and_then(|literal| Target::parse_list(literal).ok());
                for target in targets.into_iter().flatten() {
                    if let Target::Endpoint(name) = target {
                        self.references.push((Ref::Endpoint(name), format!("{place}.dial.to[{at}]")));
                    }
                }
            }
        }
        Ok(step)
    }

    fn dispatcher(&mut self, spec: &DispatcherSpec) -> Option<Entries> {
        let name = self.name(spec.name.as_ref(), Claim::Dispatcher);
        let patterns = spec.matches.as_ref().map(|matches| matches.extensions.as_slice()).unwrap_or_default();
        for (at, text) in patterns.iter().enumerate() {
            let path = format!("spec.match.extensions[{at}]");
            match Pattern::parse(text) {
                Err(error) => self.dialplan_error(&path, &error),
                Ok(pattern) => {
                    if self.claims.contains_key(&Claim::Match(pattern.clone())) {
                        let message = format!("the pattern {text:?} stands here a second time: keep one");
                        self.found(path, Reason::DuplicatePattern, message);
                    } else {
                        self.claims.insert(Claim::Match(pattern), path);
                    }
                }
            }
        }
        for (at, destination) in spec.destinations.iter().enumerate() {
            if let Err(why) = check_uri(&destination.uri) {
                let message = format!("{:?}: {why}", destination.uri);
                self.found(format!("spec.destinations[{at}].uri"), Reason::InvalidValue, message);
            }
        }
        let entry = DispatcherEntry {
            name,
            algorithm: match spec.algorithm {
                crate::Algorithm::Weight => Algorithm::Weight,
                crate::Algorithm::RoundRobin => Algorithm::RoundRobin,
                crate::Algorithm::HashCallId => Algorithm::HashCallId,
            },
            destinations: spec
                .destinations
                .iter()
                .map(|destination| Destination { uri: destination.uri.clone(), weight: destination.weight })
                .collect(),
            probe: Probe {
                interval_ms: spec.probe.interval.as_millis(),
                timeout_ms: spec.probe.timeout.as_millis(),
                failure_threshold: spec.probe.failure_threshold,
                success_threshold: spec.probe.success_threshold,
            },
            unavailable: (spec.unavailable.status, spec.unavailable.reason.clone()),
            extensions: patterns.to_vec(),
        };
        Some(Entries { balancer: Some(BalancerEntry::Dispatcher(entry).into()), ..Entries::default() })
    }
}

/// A destination's URI: `sip:` and a numeric host, with or without a port and `;transport=`.
fn check_uri(uri: &str) -> Result<(), &'static str> {
    let rest = uri.strip_prefix("sip:").ok_or("write a URI that begins with sip:")?;
    let mut parts = rest.split(';');
    let host = parts.next().unwrap_or_default();
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let numeric = match bracketed {
        Some(inside) => matches!(inside.parse(), Ok(IpAddr::V6(_))),
        None => matches!(host.parse(), Ok(IpAddr::V4(_))) || host.parse::<SocketAddr>().is_ok_and(|at| at.port() != 0),
    };
    if !numeric {
        return Err("write an address as the host, such as sip:192.0.2.1:5060 or sip:[2001:db8::1]:5060");
    }
    for parameter in parts {
        if !matches!(parameter, "transport=udp" | "transport=tcp") {
            return Err("of the parameters only transport=udp and transport=tcp are supported");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_uri;

    #[test]
    fn destinations() {
        for good in [
            "sip:192.0.2.1",
            "sip:192.0.2.1:5071",
            "sip:[2001:db8::1]",
            "sip:[2001:db8::1]:5060",
            "sip:192.0.2.1;transport=tcp",
        ] {
            assert_eq!(check_uri(good), Ok(()), "{good}");
        }
        for bad in [
            "192.0.2.1",
            "sips:192.0.2.1",
            "sip:pbx.example.org",
            "sip:user@192.0.2.1",
            "sip:192.0.2.1:0",
            "sip:192.0.2.1:99999",
            "sip:2001:db8::1",
            "sip:192.0.2.1;lr",
            "sip:192.0.2.1?x=y",
            "sip:",
        ] {
            assert!(check_uri(bad).is_err(), "{bad}");
        }
    }
}
