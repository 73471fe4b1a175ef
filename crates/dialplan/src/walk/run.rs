//! Runs one step.

use std::collections::BTreeMap;

use super::{Action, Dialled, FIRST_DIGIT, Frame, Taken, Walk};
use crate::plan::limits;
use crate::{Assigned, Caller, Cause, Dial, Facts, Gosub, Goto, GotoIf, Playback, Step, Template};

/// What a step did: an action, or why it had no effect and what follows then.
type Done = Result<Action, (String, Action)>;

impl Walk {
    /// Runs the next step.
    pub fn step(&mut self, facts: &Facts<'_>) -> Taken {
        if self.here.is_none() && !self.locate(facts) {
            let (context, exten) = (&self.context, &self.exten);
            return self.stopped(format!("there is no extension {exten:?} in {context:?}"), Cause::UNALLOCATED);
        }
        let allowed = facts.wall.as_secs().saturating_sub(self.started).saturating_mul(limits::STEPS_A_SECOND);
        if self.ran >= limits::BURST + allowed {
            return self.stopped(format!("{} steps: an endless loop", self.ran), Cause::FAILURE);
        }
        self.ran += 1;
        let Some(here) = self.here.clone() else { return self.taken("", String::new(), Action::End(None)) };
        let Some(step) = here.steps.get(self.step) else {
            return self.taken("", String::new(), Action::End(None));
        };
        let index = self.step;
        self.step += 1;
        let data = step.data(&|name| self.value(facts, name));
        let mut taken = self.taken(step.name(), data, Action::Next);
        if let Some(condition) = here.when.get(&index) {
            let holds = condition.holds(&|name| self.fact(facts, name));
            taken.skipped = !matches!(holds, Ok(true));
            taken.fault = holds.err().map(|why| format!("the condition {condition:?} {why}"));
        } else if self.over && step.needs_caller() {
            taken.skipped = true;
            taken.fault = Some("the caller is gone".to_owned());
        }
        if taken.skipped {
            return taken;
        }
        match self.run(step, facts) {
            Ok(action) => taken.action = action,
            Err((fault, action)) => {
                taken.fault = Some(fault);
                taken.action = action;
            }
        }
        taken
    }

    fn taken(&self, app: &'static str, data: String, action: Action) -> Taken {
        let at = format!("{},{},{}", self.context, self.exten, self.step);
        Taken { at, app, data, skipped: false, fault: None, action }
    }

    fn stopped(&self, fault: String, cause: Cause) -> Taken {
        Taken { fault: Some(fault), ..self.taken("", String::new(), Action::End(Some(cause))) }
    }

    fn text(&self, template: &Template, facts: &Facts<'_>) -> Result<String, (String, Action)> {
        template.expand(&|name| self.value(facts, name)).map_err(|error| (error.to_string(), Action::Next))
    }

    fn run(&mut self, step: &Step, facts: &Facts<'_>) -> Done {
        Ok(match step {
            Step::NoOp { .. } => Action::Next,
            Step::Answer {} => Action::Answer,
            Step::Progress {} => Action::Progress,
            Step::Ringing {} => Action::Ringing,
            Step::Dial(dial) => Action::Dial(Box::new(self.dialled(dial, facts)?)),
            Step::Hangup { cause } => Action::End(*cause),
            Step::Busy {} => Action::End(Some(Cause::BUSY)),
            Step::Congestion {} => Action::End(Some(Cause::CONGESTION)),
            Step::Playback(playback) => self.play(playback, false, facts)?,
            Step::Background(playback) => self.play(playback, true, facts)?,
            Step::WaitExten { timeout } => Action::WaitExten(timeout.unwrap_or(FIRST_DIGIT)),
            Step::Echo {} => Action::Echo,
            Step::Milliwatt {} => Action::Milliwatt,
            Step::Wait { duration } => Action::Wait(*duration),
            Step::Set { name, value } => {
                let value = self.text(value, facts)?;
                self.assign(name, value)?;
                Action::Next
            }
            Step::Goto(to) => self.goto(to, facts)?,
            Step::GotoIf(GotoIf { condition, then, otherwise }) => {
                let holds = condition.holds(&|name| self.fact(facts, name));
                let to = if matches!(holds, Ok(true)) { then } else { otherwise };
                let action = to.as_ref().map_or(Ok(Action::Next), |to| self.goto(to, facts))?;
                match holds {
                    Ok(_) => action,
                    Err(why) => return Err((format!("the condition {condition:?} {why}"), action)),
                }
            }
            Step::Gosub(gosub) => self.gosub(gosub, facts)?,
            Step::Return { value } => {
                let value = value.as_ref().map(|value| self.text(value, facts)).transpose()?;
                self.give_back(value.as_deref().unwrap_or_default(), facts)?
            }
        })
    }

    fn dialled(&self, dial: &Dial, facts: &Facts<'_>) -> Result<Dialled, (String, Action)> {
        let value = |name: &str| self.value(facts, name);
        let targets = dial.targets(&value).map_err(|error| (error.to_string(), Action::Failed))?;
        let caller = match &dial.options.caller_id {
            None => self.caller.clone(),
            Some(text) => caller_id(&self.text(text, facts)?, &self.caller),
        };
        let mut headers = self.headers.clone();
        for (name, text) in &dial.options.headers {
            headers.push((name.clone(), one_line(self.text(text, facts)?)));
        }
        Ok(Dialled { targets, timeout: dial.timeout, caller, headers, options: dial.options.clone() })
    }

    fn play(&self, playback: &Playback, digits: bool, facts: &Facts<'_>) -> Done {
        let prompts = playback.prompts(&|name| self.value(facts, name));
        prompts.map(|prompts| Action::Play { prompts, digits }).map_err(|error| (error.to_string(), Action::Failed))
    }

    fn assign(&mut self, name: &Assigned, value: String) -> Result<(), (String, Action)> {
        let full = |what: &str| Err((format!("there is no room for more {what}"), Action::Next));
        match name {
            Assigned::CallerNumber => match one_line(value) {
                number if number.is_empty() => return Err(("a number is not empty".to_owned(), Action::Next)),
                number => self.caller.number = number,
            },
            Assigned::CallerName => self.caller.name = Some(one_line(value)).filter(|name| !name.is_empty()),
            Assigned::Header(_) if self.headers.len() >= limits::HEADERS => return full("header fields"),
            Assigned::Header(name) => self.headers.push((name.clone(), one_line(value))),
            Assigned::Variable(name) if !self.set(name, &value) => return full("variables"),
            Assigned::Variable(_) => {}
        }
        Ok(())
    }

    fn goto(&mut self, to: &Goto, facts: &Facts<'_>) -> Done {
        let text = |part: &Option<Template>| part.as_ref().map(|part| self.text(part, facts)).transpose();
        let (context, exten, label) = (text(&to.context)?, text(&to.extension)?, text(&to.label)?);
        let exten = exten.or_else(|| context.is_some().then(|| "s".to_owned()));
        let (was, step) = (self.here.clone(), self.step);
        let before = (self.context.clone(), self.exten.clone());
        if !self.go(context.as_deref(), exten.as_deref(), 0, facts) {
            let place =
                format!("{},{}", context.as_deref().unwrap_or(&before.0), exten.as_deref().unwrap_or(&before.1));
            let fault = format!("there is no extension {place}");
            if let Some(context) = context.filter(|context| (facts.plan)(context).is_some()) {
                self.context = context;
            }
            let found = self.invalid(exten.as_deref().unwrap_or_default(), facts);
            return Err((fault, if found { Action::Next } else { Action::End(Some(Cause::UNALLOCATED)) }));
        }
        let Some(label) = label else { return Ok(Action::Next) };
        match self.here.as_ref().and_then(|here| here.labelled(&label)) {
            Some(index) => {
                self.step = index;
                Ok(Action::Next)
            }
            None => {
                let fault = format!("there is no label {label:?} in {},{}", self.context, self.exten);
                (self.here, self.step) = (was, step);
                (self.context, self.exten) = before;
                Err((fault, Action::End(Some(Cause::FAILURE))))
            }
        }
    }

    fn gosub(&mut self, gosub: &Gosub, facts: &Facts<'_>) -> Done {
        if self.stack.len() >= limits::GOSUBS {
            let fault = format!("gosubs nested more than {} deep", limits::GOSUBS);
            return Err((fault, Action::End(Some(Cause::FAILURE))));
        }
        let given: Vec<String> = gosub.args.iter().map(|arg| self.text(arg, facts)).collect::<Result<_, _>>()?;
        let (context, exten, step) = (self.context.clone(), self.exten.clone(), self.step);
        let action = self.goto(&gosub.to, facts)?;
        let args = self.args();
        args.keys().for_each(|name| _ = self.variables.remove(name));
        let mut fits = self.set("ARGC", &given.len().to_string());
        for (at, value) in given.iter().enumerate() {
            fits &= self.set(&format!("ARG{}", at + 1), value);
        }
        self.stack.push(Frame { context, exten, step, args });
        if fits { Ok(action) } else { Err(("there is no room for the arguments".to_owned(), action)) }
    }

    /// `ARG1`, ... and `ARGC` as they are.
    fn args(&self) -> BTreeMap<String, String> {
        let is_arg = |name: &str| {
            name.strip_prefix("ARG").is_some_and(|rest| rest == "C" || rest.bytes().all(|c| c.is_ascii_digit()))
        };
        self.variables.iter().filter(|(name, _)| is_arg(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    fn give_back(&mut self, value: &str, facts: &Facts<'_>) -> Done {
        let Some(frame) = self.stack.pop() else {
            return Err(("a return without a gosub".to_owned(), Action::End(Some(Cause::FAILURE))));
        };
        let args = self.args();
        args.keys().for_each(|name| _ = self.variables.remove(name));
        self.variables.extend(frame.args);
        self.set("GOSUB_RETVAL", value);
        match self.go(Some(&frame.context), Some(&frame.exten), frame.step, facts) {
            true => Ok(Action::Next),
            false => {
                let fault = format!("{},{} is there no more", frame.context, frame.exten);
                Err((fault, Action::End(Some(Cause::UNALLOCATED))))
            }
        }
    }
}

/// What ends a line ends a header field: nothing of it passes.
fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) { text.chars().filter(|c| !c.is_control()).collect() } else { text }
}

/// `"Name" <number>`, a name, or a number alone, over what was known before.
fn caller_id(text: &str, before: &Caller) -> Caller {
    let text = one_line(text.trim().to_owned());
    let name = |name: &str| Some(name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty());
    match text.split_once('<') {
        Some((given, number)) => {
            let number = number.trim_end().trim_end_matches('>').trim();
            let number = if number.is_empty() { before.number.clone() } else { number.to_owned() };
            Caller { number, name: name(given) }
        }
        None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b)) => {
            Caller { number: text, name: before.name.clone() }
        }
        None => Caller { number: before.number.clone(), name: name(&text) },
    }
}
