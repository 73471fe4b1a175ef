//! Runs the dialplan: finds the extension in the endpoint's context and walks its steps.

use crate::call::{CallKey, Far};
use crate::cause;
use crate::core::{Core, Turn};
use crate::end::End;
use contract::events::CallEventKind;
use dialplan::{Cause, ConfBridge, Prompt, Room, Step};
use std::borrow::Cow;

/// A conference's hosts resolve nowhere: its requests go over the mesh.
const CONFERENCE: &str = "conference.invalid";

impl Core {
    /// The caller is known: its extension is looked up and run.
    pub(crate) fn start(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let directory = turn.view.directory;
        let plan = directory.plan(&call.context);
        let found = plan.and_then(|plan| dialplan::find(plan, &call.exten, &|name| directory.plan(name)));
        match found {
            Some(found) => {
                call.steps = found.extension.steps.clone();
                self.run(turn, key);
            }
            None => {
                tracing::info!(call = %call.id, context = %call.context, exten = %call.exten, "no such extension");
                self.finish(turn, key, Some(Cause::UNALLOCATED));
            }
        }
    }

    /// Runs steps until one takes time, or the call ends.
    pub(crate) fn run(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        loop {
            let Some(call) = self.calls.get_mut(&key) else { return };
            let Some(step) = call.steps.get(call.step).cloned() else {
                return self.finish(turn, key, None);
            };
            call.step += 1;
            let at = format!("{},{},{}", call.context, call.exten, call.step);
            let id = call.id.clone();
            let data = step.data(&|name| self.variable(key, name));
            let app = step.name().to_owned();
            tracing::debug!(call = %id, %at, %app, %data, "step");
            self.event(turn, &id, CallEventKind::Step { at, app, data });
            let answered = self.caller_is_up(key);
            match step {
                Step::Answer {} if answered => {}
                Step::Answer {} => {
                    return self.dial_conference(turn, key, Far::Answer, &format!("sip:silence@{CONFERENCE}"));
                }
                Step::Echo {} => return self.dial_conference(turn, key, Far::Play, &format!("sip:echo@{CONFERENCE}")),
                Step::MusicOnHold {} => {
                    return self.dial_conference(turn, key, Far::Play, &format!("sip:music@{CONFERENCE}"));
                }
                Step::ConfBridge(bridge) => match bridge.room(&|name| self.variable(key, name)) {
                    Ok(named) => return self.dial_conference(turn, key, Far::Play, &room(&bridge, &named)),
                    Err(error) => self.bad_step(key, &error),
                },
                Step::Hangup { cause } => return self.finish(turn, key, cause),
                Step::Dial(dial) => match dial.targets(&|name| self.variable(key, name)) {
                    Ok(targets) => return self.dial(turn, key, &targets, dial.timeout),
                    Err(error) => self.bad_step(key, &error),
                },
                Step::Playback(playback) => match playback.prompts(&|name| self.variable(key, name)) {
                    Ok(prompts) => return self.dial_conference(turn, key, Far::Play, &play(&prompts)),
                    Err(error) => self.bad_step(key, &error),
                },
                // NoOp, and steps that a newer compiler knows.
                _ => {}
            }
        }
    }

    /// A step that turned out to make no sense: the dialplan goes on, as if nobody could be reached.
    fn bad_step(&mut self, key: CallKey, error: &dialplan::Error) {
        if let Some(call) = self.calls.get_mut(&key) {
            tracing::warn!(call = %call.id, %error, "step skipped");
            call.outcome = Some(cause::aggregate(&[cause::Branch::Unknown]));
        }
    }

    /// A variable's value, by Asterisk's name.
    fn variable(&self, key: CallKey, name: &str) -> Option<Cow<'_, str>> {
        let call = self.calls.get(&key)?;
        Some(match name {
            "EXTEN" => Cow::Borrowed(call.exten.as_str()),
            "CONTEXT" => Cow::Borrowed(call.context.as_str()),
            "PRIORITY" => Cow::Owned(call.step.to_string()),
            "CALLERID(num)" | "CALLERIDNUM" => Cow::Borrowed(call.caller_number.as_str()),
            "CALLERID(name)" | "CALLERIDNAME" => Cow::Borrowed(call.caller_name.as_deref()?),
            "UNIQUEID" => Cow::Borrowed(call.id.as_str()),
            "DIALSTATUS" => Cow::Borrowed(call.outcome?.status.as_str()),
            "HANGUPCAUSE" => Cow::Owned(call.outcome?.cause.number().to_string()),
            _ => return None,
        })
    }

    /// The plan is at its end: a cause of its own, or else that of its last dial, or else normal clearing.
    pub(crate) fn finish(&mut self, turn: &mut Turn<'_>, key: CallKey, cause: Option<Cause>) {
        let Some(call) = self.calls.get(&key) else { return };
        let (cause, code) = match (cause, call.outcome) {
            (Some(cause), _) => (cause, cause.status()),
            (None, Some(outcome)) => (outcome.cause, outcome.code),
            (None, None) => (Cause::NORMAL, Cause::NORMAL.status()),
        };
        let fields = call.returned.clone();
        self.end(turn, key, End { code, cause, why: cause.text().to_owned(), fields, reason: None });
    }
}

/// The address that plays prompts, one after the other: `sip:play@conference.invalid;prompt=welcome.wav&tone:440,1000`,
/// what is not unreserved escaped.
fn play(prompts: &[Prompt]) -> String {
    let list: Vec<String> = prompts
        .iter()
        .map(|prompt| match prompt {
            Prompt::Tone { hertz, duration } => format!("tone:{hertz},{}", duration.as_millis()),
            Prompt::File(path) => path.clone(),
        })
        .map(|text| escape(&text))
        .collect();
    format!("sip:play@{CONFERENCE};prompt={}", list.join("&"))
}

/// The address of a room: `sip:room-100@conference.invalid;pin=1234;music`. The room knows its parameters by these names.
fn room(bridge: &ConfBridge, named: &Room) -> String {
    // In a user these two would begin something else.
    let name = escape(&named.name).replace(':', "%3A").replace('/', "%2F");
    let mut uri = format!("sip:room-{name}@{CONFERENCE}");
    let pins = [("pin", &named.pin), ("admin-pin", &named.admin_pin)];
    uri.extend(pins.into_iter().filter_map(|(key, pin)| Some(format!(";{key}={}", pin.as_ref()?))));
    let flags = [
        ("admin", bridge.admin),
        ("muted", bridge.start_muted),
        ("music", bridge.music_on_hold_when_empty),
        ("quiet", bridge.quiet),
        ("record", bridge.record_conference),
    ];
    uri.extend(flags.into_iter().filter(|(_, set)| *set).map(|(key, _)| format!(";{key}")));
    uri.extend(bridge.max_members.map(|most| format!(";max={most}")));
    uri.extend(bridge.max_duration.map(|longest| format!(";duration={}", longest.as_secs().max(1))));
    uri
}

/// Escapes what a URI's parameter may not hold (RFC 3261 25.1 pvalue), and `&`, which separates prompts.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_stand_in_one_parameter() {
        let prompts = ["tone:440", "a b&c.wav"].map(|p| Prompt::parse(p).unwrap());
        let uri = play(&prompts);
        assert_eq!(uri, "sip:play@conference.invalid;prompt=tone:440%2C1000&a%20b%26c.wav");
        assert!(sip::uri::Uri::parse(&uri).is_ok());
    }
}
