//! `Dialplan`: one context.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::duration::Duration;

/// One context of the dialplan: what it includes and its extensions.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "kubepbx.io",
    version = "v1alpha1",
    kind = "Dialplan",
    namespaced,
    derive = "PartialEq",
    status = "DialplanStatus",
    shortname = "dp",
    category = "kubepbx",
    doc = "One context of the dialplan: what it includes and its extensions.",
    printcolumn(name = "Includes", type_ = "string", json_path = ".spec.includes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DialplanSpec {
    /// The context's name where Kubernetes does not allow it as metadata.name. Without it metadata.name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]{1,253}$')").message("write printable ASCII characters without spaces"))]
    pub name: Option<String>,

    /// Contexts that are searched after this one, in order, each with what it includes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub includes: Vec<String>,

    /// The extensions. Of those that match, the best wins wherever it stands: an exact one before patterns, among patterns
    /// the one with the smaller set at the first position that differs.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub extensions: Vec<Extension>,
}

/// What is dialled and what runs then.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// An extension such as 8005, or after _ a pattern: X is 0-9, Z 1-9, N 2-9, [15-7] one of a set, . one or more and
    /// ! none or more of anything.
    #[schemars(length(min = 1, max = 80))]
    pub pattern: String,

    /// What runs, in order. After the last step the call is hung up.
    #[schemars(length(min = 1, max = 256))]
    pub steps: Vec<Step>,
}

/// One step: exactly one application.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Step {
    /// Does nothing but show its text in the call's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_op: Option<NoOp>,

    /// Answers the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Empty>,

    /// Rings endpoints, all at once, and joins the caller with the first that answers. When nobody does, the next step
    /// runs with DIALSTATUS and HANGUPCAUSE set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial: Option<Dial>,

    /// Ends the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hangup: Option<Hangup>,

    /// Answers, where nobody has, and plays prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback: Option<Playback>,

    /// Answers, where nobody has, and sends the caller's own sound back until the caller hangs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<Empty>,

    /// Answers, where nobody has, and plays music until the caller hangs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub music_on_hold: Option<Empty>,

    /// Answers, where nobody has, and joins a room, in which all hear one another. The next step runs when the caller
    /// leaves it by *8, is sent away or is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf_bridge: Option<ConfBridge>,
}

/// Nothing to set: write {}.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
pub struct Empty {}

/// Does nothing.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct NoOp {
    /// What to show in the call's log; ${...} is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub text: Option<String>,
}

/// Rings endpoints.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Dial {
    /// Whom to ring: PJSIP/NAME, where ${EXTEN} and other variables are put in; several may be joined by &.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 1024)))]
    pub to: Vec<String>,

    /// How long it may ring, such as 30s. Without it 10 minutes, or until the caller gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Ends the call.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Hangup {
    /// Why, as a Q.850 cause: 16 normal, 17 busy, 21 rejected, ... Without it the cause of the last dial, else 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 127))]
    pub cause: Option<u32>,
}

/// Plays prompts.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Playback {
    /// What to play, one after the other: the name of a WAV file, or tone:HZ,MS.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 1024)))]
    pub prompts: Vec<String>,
}

/// Joins a room.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfBridge {
    /// The room's name; ${EXTEN} and other variables are put in.
    #[schemars(length(min = 1, max = 1024))]
    pub room: String,

    /// Digits that a member keys in, with # at the end, before it is let in; ${...} is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub pin: Option<String>,

    /// Digits that let a member in as an admin, who may lock the room by *2 and send away who came last by *3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub admin_pin: Option<String>,

    /// Is an admin and keys in no PIN.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,

    /// Comes in muted; *1 unmutes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_muted: bool,

    /// Hears music while alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub music_on_hold_when_empty: bool,

    /// No sounds when somebody comes or leaves. This and what follows counts for the room as its first member has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,

    /// Members at most; who comes then finds it busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_members: Option<u32>,

    /// How long the room lasts, such as 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Duration>,

    /// The room is recorded, to a WAV file in the conference's folder of recordings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record_conference: bool,
}

/// What the operator found.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DialplanStatus {
    /// Accepted, ResolvedRefs, Programmed and Ready.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
