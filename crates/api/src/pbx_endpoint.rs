//! `PbxEndpoint`: a phone or a trunk.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::duration::Duration;

/// A phone or a trunk, in Asterisk's words: its endpoint, auth, aor and identify sections in one.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "kubepbx.io",
    version = "v1alpha1",
    kind = "PbxEndpoint",
    namespaced,
    derive = "PartialEq",
    status = "PbxEndpointStatus",
    shortname = "pbxep",
    category = "kubepbx",
    doc = "A phone or a trunk, in Asterisk's words: its endpoint, auth, aor and identify sections in one.",
    printcolumn(name = "Context", type_ = "string", json_path = ".spec.context"),
    printcolumn(name = "Username", type_ = "string", json_path = ".spec.auth.username"),
    printcolumn(name = "Registered", type_ = "boolean", json_path = ".status.registered"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.auth) || (has(self.identify) && 'ip' in self.identifyBy)").message("nothing proves who calls: write auth, or identify.match with the networks it calls from and ip in identifyBy"),
    validation = Rule::new("!self.trustIdInbound || has(self.identify)").message("trustIdInbound needs the networks that are trusted: write identify.match"),
    validation = Rule::new("!has(self.callback) || has(self.aor)").message("callback waits until a phone registers: write aor, or aor: {} for its defaults")
)]
pub struct PbxEndpointSpec {
    /// The endpoint's name where Kubernetes does not allow it as metadata.name (such as Trunk_In): what phones register as,
    /// what dial steps name. Without it metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_.+!*~-]{1,253}$')").message("write letters, digits and _ . + ! * ~ - only"))]
    pub name: Option<String>,

    /// The context (a Dialplan's name) in which its calls run.
    #[schemars(length(min = 1, max = 253))]
    pub context: String,

    /// How it proves itself when it registers and calls. Without it only its source network does (identify).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,

    /// The rules of its address of record. Without it the endpoint cannot register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aor: Option<Aor>,

    /// Codecs in order of preference.
    #[serde(default = "codecs")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub codecs: Vec<Codec>,

    /// Who its calls say they are from: "Name" <number>, <number> or the number alone. Without it the endpoint's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(r#"self.matches('^("[^"<>]*" ?|[^"<>@]* )?<[A-Za-z0-9_.+!*~#-]+>$|^[A-Za-z0-9_.+!*~#-]+$')"#).message(r#"write "Name" <number>, <number> or the number alone"#))]
    pub caller_id: Option<String>,

    /// Source networks that identify it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identify: Option<Identify>,

    /// How a call is found to be this endpoint's, in the order tried.
    #[serde(default = "identify_by")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub identify_by: Vec<IdentifyBy>,

    /// Whether an identity that it asserts (P-Asserted-Identity) is believed: for trunks. Needs identify.
    #[serde(default)]
    pub trust_id_inbound: bool,

    /// How it is reached while its phone app is asleep: whoever dials it is held, the app is woken, and as soon as it has
    /// registered it rings. Without it a dial goes on at once when no phone is registered. Needs aor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
}

fn codecs() -> Vec<Codec> {
    vec![Codec::Ulaw, Codec::Alaw]
}

fn identify_by() -> Vec<IdentifyBy> {
    vec![IdentifyBy::Username, IdentifyBy::Ip]
}

/// A codec by Asterisk's name.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// G.711 mu-law.
    Ulaw,
    /// G.711 A-law.
    Alaw,
    /// G.722, wideband.
    G722,
    /// Opus.
    Opus,
}

impl Codec {
    /// The name, as manifests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Ulaw => "ulaw",
            Codec::Alaw => "alaw",
            Codec::G722 => "g722",
            Codec::Opus => "opus",
        }
    }
}

/// How an endpoint is found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum IdentifyBy {
    /// The user part of From is the endpoint's name.
    Username,
    /// The digest username is auth.username.
    AuthUsername,
    /// The source address is in identify.match.
    Ip,
}

/// Inbound authentication.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The digest username. One endpoint alone may have it.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[!#-9;-~]{1,128}$') && !self.contains('\\\\')").message("write printable ASCII characters without spaces, quotation marks, colons and backslashes"))]
    pub username: String,

    /// Where the password stands.
    pub password_secret_ref: SecretRef,
}

/// A key of a Secret in the same namespace.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, PartialEq, Eq)]
pub struct SecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The rules of an address of record. Times in seconds.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.minimumExpiration <= self.defaultExpiration && self.defaultExpiration <= self.maximumExpiration").message("write minimumExpiration <= defaultExpiration <= maximumExpiration"))]
pub struct Aor {
    /// So many phones may be registered at once.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_contacts: u32,

    /// When it is full, a new phone replaces the oldest instead of being refused.
    #[serde(default)]
    pub remove_existing: bool,

    /// A shorter expiry is refused with 423.
    #[serde(default = "minimum_expiration")]
    #[schemars(range(min = 1, max = 604_800))]
    pub minimum_expiration: u32,

    /// A longer expiry is cut to this.
    #[serde(default = "maximum_expiration")]
    #[schemars(range(min = 1, max = 604_800))]
    pub maximum_expiration: u32,

    /// The expiry of a phone that asks for none.
    #[serde(default = "default_expiration")]
    #[schemars(range(min = 1, max = 604_800))]
    pub default_expiration: u32,
}

impl Default for Aor {
    fn default() -> Self {
        Self {
            max_contacts: one(),
            remove_existing: false,
            minimum_expiration: minimum_expiration(),
            maximum_expiration: maximum_expiration(),
            default_expiration: default_expiration(),
        }
    }
}

fn one() -> u32 {
    1
}

fn minimum_expiration() -> u32 {
    60
}

fn maximum_expiration() -> u32 {
    7200
}

fn default_expiration() -> u32 {
    3600
}

/// Callers held until a phone is awake.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Callback {
    /// Who is told that the phone is to be woken.
    pub webhook: Webhook,

    /// When the phone is woken.
    #[serde(default)]
    pub wake: Wake,

    /// How long a caller is held. When the phone has not registered by then, the dialplan goes on with DIALSTATUS
    /// NOANSWER, and at its end the caller is answered 480. Proxies on the way give up after three minutes.
    #[serde(default = "hold_time")]
    #[x_kube(validation = Rule::new("self >= duration('1s') && self <= duration('170s')").message("write a duration from 1s to 170s, such as 90s"))]
    pub hold_time: Duration,
}

fn hold_time() -> Duration {
    Duration::from_secs(90)
}

/// When a phone is woken.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Wake {
    /// When no contact is registered, or none of those that are can be reached.
    #[default]
    Absent,
    /// Whenever it is dialled: what is registered rings at once, and what wakes rings too.
    Always,
}

/// An HTTP server that is told by POST, in JSON.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Where requests go, such as https://push.example.org/wake.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?([/?][!-~]*)?$')").message("write a URL that begins with http:// or https://, such as https://push.example.org/wake"))]
    pub url: String,

    /// The key that requests are signed by: X-KubePBX-Signature is sha256= and the HMAC-SHA-256 in hexadecimal of
    /// X-KubePBX-Timestamp, a full stop and the body.
    pub secret_ref: SecretRef,
}

/// Source networks.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Identify {
    /// Addresses and networks, such as 192.0.2.7 or 192.0.2.0/24.
    #[serde(rename = "match")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 2, max = 64)))]
    pub networks: Vec<String>,
}

/// What the operator found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PbxEndpointStatus {
    /// Accepted, ResolvedRefs, Programmed and Ready.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Whether a phone is registered as this endpoint. Left out while nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered: Option<bool>,

    /// How many contacts are registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contacts: Option<u32>,

    /// Since when: the oldest of its registrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub registered_since: Option<String>,
}
