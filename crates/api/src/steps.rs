//! The steps of a dialplan's extensions: a label, a condition, and one application each.

// The schema derive repeats each struct inside a function, where `pub` reaches nobody.
#![allow(unreachable_pub)]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// The applications, as a step names them.
pub const APPLICATIONS: [&str; 19] = [
    "answer",
    "background",
    "busy",
    "congestion",
    "dial",
    "echo",
    "gosub",
    "goto",
    "gotoIf",
    "hangup",
    "milliwatt",
    "noOp",
    "playback",
    "progress",
    "return",
    "ringing",
    "set",
    "wait",
    "waitExten",
];

/// That a step has exactly one of them.
fn exactly_one() -> Vec<BTreeMap<&'static str, [&'static str; 1]>> {
    APPLICATIONS.iter().map(|application| BTreeMap::from([("required", [*application])])).collect()
}

/// One step: exactly one application, with a label and a condition if need be.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = exactly_one()))]
pub struct Step {
    /// A name by which goto, gotoIf and gosub find this step within its extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub label: Option<String>,

    /// A condition in CEL: the step runs only if it holds, as by Asterisk's ExecIf. It may ask for caller.number, caller.name, extension,
    /// context, endpoint (who calls), headers['X-Name'], variables.NAME, answered, dialStatus, hangupCause, and of the
    /// context's time zone time.hour, minute, second, day, month, year, weekday (mon to sun), date (2026-12-24) and clock
    /// (09:05). What cannot be told, such as a header that is not there, is false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub when: Option<String>,

    /// Does nothing but show its text in the call's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_op: Option<NoOp>,

    /// Answers the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Empty>,

    /// Tells a caller that is not answered that there is progress (183).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Empty>,

    /// Tells a caller that is not answered that it rings (180).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ringing: Option<Empty>,

    /// Rings endpoints, all at once, and joins the caller with the first that answers. When nobody does, the next step
    /// runs with DIALSTATUS and HANGUPCAUSE set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dial: Option<Dial>,

    /// Ends the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hangup: Option<Hangup>,

    /// Ends the call as busy (cause 17, 486).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy: Option<Empty>,

    /// Ends the call for want of a way (cause 34, 503).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion: Option<Empty>,

    /// Answers, where nobody has, and plays prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub playback: Option<Playback>,

    /// Plays prompts as playback does, and takes the digits of an extension of this context meanwhile: the first stops the
    /// prompts, and the call goes to the extension that they make, or to i.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Playback>,

    /// Waits for the digits of an extension of this context, and goes there, or to i. Where none comes it goes to t.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_exten: Option<WaitExten>,

    /// Answers, where nobody has, and sends the caller's own sound back until the caller hangs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<Empty>,

    /// Answers, where nobody has, and plays a tone of 1004 Hz until the caller hangs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milliwatt: Option<Empty>,

    /// Does nothing for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,

    /// Sets a variable of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Set>,

    /// Goes on at another step, extension or context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goto: Option<Goto>,

    /// Goes on at one of two places by a condition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goto_if: Option<GotoIf>,

    /// Runs steps elsewhere until their return, and then the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gosub: Option<Gosub>,

    /// Goes back to after the gosub that led here.
    #[serde(default, rename = "return", skip_serializing_if = "Option::is_none")]
    pub give_back: Option<Return>,
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
#[serde(rename_all = "camelCase")]
pub struct Dial {
    /// Whom to ring: PJSIP/NAME, where ${EXTEN} and other variables are put in; several may be joined by &.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 1024)))]
    pub to: Vec<String>,

    /// How long it may ring, such as 30s. Without it 10 minutes, or until the caller gives up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,

    /// How long they may talk, such as 1h: then both are hung up (Asterisk's option L).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Duration>,

    /// Tells the caller at once that it rings, before any phone does (Asterisk's option r).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ring: bool,

    /// Either side may end the talk by pressing * (Asterisk's options h and H).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hangup_by_star: bool,

    /// When the callee hangs up, the next step runs instead of the call's end (Asterisk's option g).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continue_on_hangup: bool,

    /// Whom callees see: "Name" <number> or one of both; ${...} is put in. Without it the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub caller_id: Option<String>,

    /// Header fields for the callees, by name: private ones (X-...), Alert-Info, Call-Info, Subject, Priority, Organization,
    /// Diversion and Privacy; ${...} is put in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub headers: BTreeMap<String, String>,
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

/// Waits for digits.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct WaitExten {
    /// How long to wait for the first digit, such as 5s. Without it 10 s. Between digits it is 5 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
}

/// Does nothing for a while.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Wait {
    /// How long, such as 2s; at most 1h.
    pub duration: Duration,
}

/// Sets a variable of the call.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Set {
    /// What is set: a variable's name, which ${NAME} and variables.NAME ask for; CALLERID(num) or CALLERID(name), which
    /// callees see; or PJSIP_HEADER(add,X-NAME), a header field for callees.
    #[schemars(length(min = 1, max = 120))]
    pub name: String,

    /// What it is to be; ${...} is put in.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// A place to go to: what is not said is where the step stands. A context alone means its extension s.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Goto {
    /// The context; ${...} is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub context: Option<String>,

    /// The extension; ${...} is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub extension: Option<String>,

    /// The label of a step there, or its number from 1; without it the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub label: Option<String>,
}

/// Goes to one of two places.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct GotoIf {
    /// What decides: a condition in CEL, as of when.
    #[schemars(length(min = 1, max = 1024))]
    pub condition: String,

    /// Where to if it holds; without it the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Goto>,

    /// Where to if it does not; without it the next step.
    #[serde(default, rename = "else", skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Goto>,
}

/// Goes to a place, to return.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Gosub {
    /// The context; ${...} is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub context: Option<String>,

    /// The extension; ${...} is put in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub extension: Option<String>,

    /// The label of a step there, or its number from 1; without it the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub label: Option<String>,

    /// What ${ARG1}, ${ARG2}, ... are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 1024)))]
    pub args: Vec<String>,
}

/// Goes back.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
pub struct Return {
    /// What ${GOSUB_RETVAL} is then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_application_is_among_the_fields_and_no_other_field_is_one() {
        let schema = serde_json::to_value(schemars::schema_for!(Step)).unwrap();
        let fields = schema["properties"].as_object().unwrap().keys();
        let applications: Vec<&str> =
            fields.map(String::as_str).filter(|field| !matches!(*field, "label" | "when")).collect();
        let mut all = APPLICATIONS.to_vec();
        all.sort_unstable();
        let mut there = applications.clone();
        there.sort_unstable();
        assert_eq!(there, all);
        assert_eq!(schema["oneOf"].as_array().unwrap().len(), APPLICATIONS.len());
    }
}
