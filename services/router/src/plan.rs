//! Runs the dialplan: does what a call's walk through it says, and asks it for the next step when that is done.

use crate::call::{Call, CallKey, Far};
use crate::cause;
use crate::core::{Core, Turn};
use crate::end::End;
use crate::timers::Timer;
use contract::events::CallEventKind;
use dialplan::{Action, Cause, Facts, Prompt, Step, Taken, Walk};
use std::time::Duration;

/// A conference's hosts resolve nowhere: its requests go over the mesh.
const CONFERENCE: &str = "conference.invalid";

impl Core {
    /// The caller is known: its extension is looked up and run.
    pub(crate) fn start(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        if self.walk(turn, key, None, |walk, facts| walk.locate(facts)) == Some(false) {
            if let Some(Call { id, walk, .. }) = self.calls.get(&key) {
                tracing::info!(call = %id, context = walk.context(), exten = walk.exten(), "no such extension");
            }
            return self.finish(turn, key, Some(Cause::UNALLOCATED), None);
        }
        self.run(turn, key);
    }

    /// Asks a call's walk something, with what is known of the call.
    pub(crate) fn walk<T>(
        &mut self,
        turn: &Turn<'_>,
        key: CallKey,
        ended: Option<Cause>,
        ask: impl FnOnce(&mut Walk, &Facts<'_>) -> T,
    ) -> Option<T> {
        let answered = self.caller_is_up(key);
        let call = self.calls.get_mut(&key)?;
        let directory = turn.view.directory;
        let facts = Facts {
            plan: &|name| directory.plan(name),
            id: &call.id,
            endpoint: &call.endpoint,
            headers: &call.passed,
            outcome: call.outcome.map(|outcome| (outcome.status, outcome.cause)),
            ended,
            answered,
            wall: turn.now.wall,
        };
        Some(ask(&mut call.walk, &facts))
    }

    /// Runs steps until one takes time, or the call ends.
    pub(crate) fn run(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        loop {
            let Some(taken) = self.walk(turn, key, None, |walk, facts| walk.step(facts)) else { return };
            self.note(turn, key, &taken);
            let answered = self.caller_is_up(key);
            match taken.action {
                Action::Failed => {
                    if let Some(call) = self.calls.get_mut(&key) {
                        call.outcome = Some(cause::aggregate(&[cause::Branch::Unknown]));
                    }
                }
                Action::Answer if answered => {}
                Action::Answer => {
                    return self.dial_conference(turn, key, Far::Answer, &format!("sip:silence@{CONFERENCE}"));
                }
                Action::Progress if !answered => self.progress(turn, key, 183, None),
                Action::Ringing if !answered => self.progress(turn, key, 180, None),
                Action::Dial(dialled) => return self.dial(turn, key, *dialled),
                Action::Play { prompts, .. } => return self.dial_conference(turn, key, Far::Play, &play(&prompts)),
                Action::WaitExten(limit) => return self.plan_later(turn, key, limit),
                Action::Wait(limit) => return self.plan_later(turn, key, limit),
                Action::Echo => return self.dial_conference(turn, key, Far::Play, &format!("sip:echo@{CONFERENCE}")),
                Action::Milliwatt => {
                    return self.dial_conference(turn, key, Far::Play, &format!("sip:tone-1004@{CONFERENCE}"));
                }
                Action::End(cause) => return self.finish(turn, key, cause, taken.fault),
                // Nothing to do, and what a newer interpreter wants.
                _ => {}
            }
        }
    }

    /// What a step was goes to whoever follows calls; what was wrong with it, to the log.
    fn note(&mut self, turn: &mut Turn<'_>, key: CallKey, taken: &Taken) {
        let Some(call) = self.calls.get(&key) else { return };
        let (id, at, app, data) = (call.id.clone(), &taken.at, taken.app, &taken.data);
        if let Some(fault) = &taken.fault {
            self.counters.plan_faults += 1;
            tracing::warn!(call = %id, %at, app, %fault, "step");
        } else {
            tracing::debug!(call = %id, %at, app, %data, skipped = taken.skipped, "step");
        }
        if !app.is_empty() && !taken.skipped {
            self.event(turn, &id, CallEventKind::Step { at: at.clone(), app: app.to_owned(), data: data.clone() });
        }
    }

    /// The plan goes on after a while.
    pub(crate) fn plan_later(&mut self, turn: &Turn<'_>, key: CallKey, after: Duration) {
        self.timers.arm(Timer::Plan(key), turn.now.mono + after);
    }

    /// What the plan waited for is over.
    pub(crate) fn plan_due(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        match call.walk.current() {
            Some(Step::Background(_) | Step::WaitExten { .. }) => self.entered(turn, key),
            Some(Step::Dial(_)) => self.hang_up_far(turn, key, "they talked for as long as they may"),
            _ => self.run(turn, key),
        }
    }

    /// Those who talk may do so only for so long.
    pub(crate) fn limit_talk(&mut self, turn: &Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get(&key).filter(|call| call.far == Some(Far::Dial)) else { return };
        let Some(Step::Dial(dial)) = call.walk.current() else { return };
        if let Some(limit) = dial.options.limit {
            let since = call.bridge.and_then(|b| self.bridges.get(&b)).and_then(|b| self.legs.get(&b.other(call.leg)));
            let gone = since.map_or(0, |leg| turn.now.unix().saturating_sub(leg.answered_at));
            self.plan_later(turn, key, limit.saturating_sub(Duration::from_secs(gone)));
        }
    }

    /// A call that was another router's stands where it stood.
    pub(crate) fn find_step(&mut self, turn: &Turn<'_>, key: CallKey) {
        self.walk(turn, key, None, |walk, facts| walk.locate(facts));
        self.limit_talk(turn, key);
    }

    /// The far leg is hung up: the plan goes on where its dial wants that, else the call ends.
    pub(crate) fn hang_up_far(&mut self, turn: &mut Turn<'_>, key: CallKey, why: &str) {
        let Some(call) = self.calls.get(&key) else { return };
        let far = call.bridge.and_then(|b| self.bridges.get(&b)).map(|b| b.other(call.leg));
        match far.filter(|_| call.goes_on()) {
            Some(far) => self.far_left(turn, key, far),
            None => self.refuse(turn, key, 480, Cause::NORMAL, why, Vec::new()),
        }
    }

    /// The call ends for this cause: the steps of its extension `h` run, which nobody hears.
    pub(crate) fn run_hangup(&mut self, turn: &mut Turn<'_>, key: CallKey, cause: Cause) {
        let mut goes_on = self.walk(turn, key, Some(cause), |walk, facts| walk.hang_up(facts)).unwrap_or(false);
        while goes_on {
            let Some(taken) = self.walk(turn, key, Some(cause), |walk, facts| walk.step(facts)) else { return };
            self.note(turn, key, &taken);
            goes_on = !matches!(taken.action, Action::End(_));
        }
    }

    /// The plan is at its end: a cause of its own, or else that of its last dial, or else normal clearing.
    pub(crate) fn finish(&mut self, turn: &mut Turn<'_>, key: CallKey, cause: Option<Cause>, why: Option<String>) {
        let Some(call) = self.calls.get(&key) else { return };
        let (cause, code) = match (cause, call.outcome) {
            (Some(cause), _) => (cause, cause.status()),
            (None, Some(outcome)) => (outcome.cause, outcome.code),
            (None, None) => (Cause::NORMAL, Cause::NORMAL.status()),
        };
        let fields = call.returned.clone();
        let why = why.unwrap_or_else(|| cause.text().to_owned());
        self.end(turn, key, End { code, cause, why, fields, reason: None });
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
