//! A call's way through the dialplan: where it stands, its variables and where it returns to.
//!
//! [`Walk::step`] runs one step and says what is to be done by an [`Action`]; whoever has the call does it, whatever time
//! that takes, and asks for the next. It is bounded: [`limits::BURST`] steps and [`limits::STEPS_A_SECOND`] more for each
//! second of the call. Its form on the wire has all but the steps, which are looked up again.

mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::{find, limits, may_grow};
use crate::{Caller, Cause, DialOptions, Extension, Facts, Prompt, Step, Target};

/// A call's way through the dialplan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Walk {
    context: String,
    exten: String,
    /// The index of the next step.
    step: usize,
    caller: Caller,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stack: Vec<Frame>,
    /// Unix seconds of its start.
    started: u64,
    /// Steps run.
    #[serde(default)]
    ran: u64,
    /// The caller is gone: it is in `h`.
    #[serde(default)]
    over: bool,
    /// The extension that it is in, once that was looked up.
    #[serde(skip)]
    here: Option<Extension>,
}

/// Where a gosub returns to, and the arguments that hold there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Frame {
    context: String,
    exten: String,
    step: usize,
    /// `ARG...` as they were.
    args: BTreeMap<String, String>,
}

/// A step that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Context, extension and number from 1: `from-external,8006,2`.
    pub at: String,
    /// The step's name; empty past the last step.
    pub app: &'static str,
    /// What it was given, variables put in.
    pub data: String,
    /// It was passed over: its condition did not hold.
    pub skipped: bool,
    /// What was wrong with it: it had no effect, or its condition counted as false.
    pub fault: Option<String>,
    /// What is to be done.
    pub action: Action,
}

/// What is to be done before the next step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Nothing.
    Next,
    /// A dial that cannot be made: it has failed, as if there were no such endpoint.
    Failed,
    /// Answer the caller, if it is not.
    Answer,
    /// Tell it that there is progress, if it is not answered.
    Progress,
    /// Tell it that it rings, if it is not answered.
    Ringing,
    /// Ring these and bridge the first that answers.
    Dial(Box<Dialled>),
    /// Play these; with `digits`, digits of an extension are taken meanwhile.
    Play {
        /// What.
        prompts: Vec<Prompt>,
        /// Whether digits count.
        digits: bool,
    },
    /// Wait for digits, so long for the first.
    WaitExten(Duration),
    /// Send the caller's sound back until it hangs up.
    Echo,
    /// Play 1004 Hz until it hangs up.
    Milliwatt,
    /// Wait.
    Wait(Duration),
    /// End the call: for this cause, else for that of the last dial, else normally. In `h`: it is over.
    End(Option<Cause>),
}

/// A dial, variables put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialled {
    /// Whom to ring.
    pub targets: Vec<Target>,
    /// How long at most.
    pub timeout: Option<Duration>,
    /// What callees see.
    pub caller: Caller,
    /// Header fields for them.
    pub headers: Vec<(String, String)>,
    /// The other options.
    pub options: DialOptions,
}

/// What digits come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// More may follow.
    More,
    /// They are an extension, or will never be one: [`Walk::enter`] goes there.
    Done,
}

/// How long to wait for the first digit of an extension, unless said otherwise.
const FIRST_DIGIT: Duration = Duration::from_secs(10);

impl Walk {
    /// A call to this extension; `wall` is the time since the UNIX epoch.
    pub fn new(context: impl Into<String>, exten: impl Into<String>, caller: Caller, wall: Duration) -> Self {
        Self {
            context: context.into(),
            exten: exten.into(),
            step: 0,
            caller,
            variables: BTreeMap::new(),
            headers: Vec::new(),
            stack: Vec::new(),
            started: wall.as_secs(),
            ran: 0,
            over: false,
            here: None,
        }
    }

    /// As a record of an earlier release has it: at this step (from 0), with no variables.
    #[must_use]
    pub fn at_step(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// The context that it is in.
    pub fn context(&self) -> &str {
        &self.context
    }

    /// The extension that it is in.
    pub fn exten(&self) -> &str {
        &self.exten
    }

    /// How many steps of the extension were begun: the number of the one that runs, from 1.
    pub fn priority(&self) -> usize {
        self.step
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The variables that were set.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The step that was begun last.
    pub fn current(&self) -> Option<&Step> {
        self.here.as_ref()?.steps.get(self.step.checked_sub(1)?)
    }

    /// The step that was begun last begins again.
    pub fn again(&mut self) {
        self.step = self.step.saturating_sub(1);
    }

    /// Looks up the extension that it is in; false if there is none.
    pub fn locate(&mut self, facts: &Facts<'_>) -> bool {
        self.here = extension(facts, &self.context, &self.exten);
        self.here.is_some()
    }

    /// What digits that the caller dialled come to.
    pub fn digits(&self, digits: &str, facts: &Facts<'_>) -> Digits {
        let grows = (facts.plan)(&self.context).is_some_and(|plan| may_grow(plan, digits, facts.plan));
        if grows && digits.len() < limits::EXTENSION { Digits::More } else { Digits::Done }
    }

    /// No more digits come: goes to the extension that they are, else to `i`, or for none at all to `t`. False: there is
    /// none of these.
    pub fn enter(&mut self, digits: &str, facts: &Facts<'_>) -> bool {
        match digits {
            "" => self.special("t", facts),
            digits => self.go(None, Some(digits), 0, facts) || self.invalid(digits, facts),
        }
    }

    /// The call has ended, for this cause among the facts: what follows are the steps of `h`. False: there are none.
    pub fn hang_up(&mut self, facts: &Facts<'_>) -> bool {
        let first = !std::mem::replace(&mut self.over, true);
        self.stack.clear();
        first && self.here.is_some() && self.special("h", facts)
    }

    fn invalid(&mut self, exten: &str, facts: &Facts<'_>) -> bool {
        self.set("INVALID_EXTEN", exten);
        self.special("i", facts)
    }

    fn special(&mut self, exten: &str, facts: &Facts<'_>) -> bool {
        self.go(None, Some(exten), 0, facts)
    }

    /// Goes to a step of an extension that exists; else stays.
    fn go(&mut self, context: Option<&str>, exten: Option<&str>, step: usize, facts: &Facts<'_>) -> bool {
        let context = context.unwrap_or(&self.context);
        let exten = exten.unwrap_or(&self.exten);
        let Some(found) = extension(facts, context, exten) else { return false };
        (self.context, self.exten) = (context.to_owned(), exten.to_owned());
        self.step = step;
        self.here = Some(found);
        true
    }

    /// Sets a variable, where there is room; false where not.
    fn set(&mut self, name: &str, value: &str) -> bool {
        let used: usize = self.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        let before = self.variables.get(name).map_or(0, |before| name.len() + before.len());
        let fits = used - before + name.len() + value.len() <= limits::VARIABLE_BYTES
            && (before > 0 || self.variables.len() < limits::VARIABLES);
        if fits {
            self.variables.insert(name.to_owned(), value.to_owned());
        }
        fits
    }
}

/// An extension as it is found in a context.
fn extension(facts: &Facts<'_>, context: &str, exten: &str) -> Option<Extension> {
    find((facts.plan)(context)?, exten, facts.plan).map(|found| found.extension.clone())
}
