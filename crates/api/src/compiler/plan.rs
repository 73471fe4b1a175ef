//! What a `Dialplan` compiles to, or why it does not.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use contract::config::RouterEntry;
use dialplan::{
    Assigned, Cause, Condition, Dial, DialOptions, Error, ErrorKind, Gosub, Goto, GotoIf, Pattern, Plan, Playback,
    Step, Target, Template, Zone,
};

use super::build::{Ref, Work};
use super::entries::Entries;
use super::{Claim, Reason};
use crate::DialplanSpec;

impl Work {
    pub(super) fn dialplan(&mut self, spec: &DialplanSpec) -> Option<Entries> {
        let name = self.name(spec.name.as_ref(), Claim::Context);
        for (at, include) in spec.includes.iter().enumerate() {
            self.references.push((Ref::Context(include.clone()), format!("spec.includes[{at}]")));
        }
        let zone = spec.time_zone.as_deref().map_or_else(|| Ok(Zone::default()), Zone::parse);
        if let Err(error) = &zone {
            self.found("spec.timeZone", Reason::InvalidValue, error.kind.to_string());
        }
        let mut extensions = Vec::new();
        for (at, extension) in spec.extensions.iter().enumerate() {
            extensions.extend(self.extension(extension, &format!("spec.extensions[{at}]")));
        }
        if !self.findings.is_empty() {
            return None;
        }
        match Plan::new(name, spec.includes.clone(), extensions) {
            Ok(plan) => {
                let plan = plan.in_zone(zone.unwrap_or_default());
                Some(Entries { router: Some(RouterEntry::Context(plan).into()), ..Entries::default() })
            }
            Err(error) => {
                self.dialplan_error("spec", &error);
                None
            }
        }
    }

    fn extension(&mut self, extension: &crate::Extension, place: &str) -> Option<dialplan::Extension> {
        let pattern = Pattern::parse(&extension.pattern);
        if let Err(error) = &pattern {
            self.dialplan_error(&format!("{place}.pattern"), error);
        }
        let (mut steps, mut labels, mut when) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for (index, step) in extension.steps.iter().enumerate() {
            let place = format!("{place}.steps[{index}]");
            if let Some(label) = &step.label {
                match labels.entry(label.clone()) {
                    Entry::Vacant(free) => _ = free.insert(index),
                    Entry::Occupied(_) => {
                        let kind =
                            ErrorKind::Label { label: label.clone(), why: "it stands here a second time: keep one" };
                        self.dialplan_error(&format!("{place}.label"), &kind.into());
                    }
                }
            }
            match step.when.as_deref().map(Condition::parse) {
                Some(Ok(condition)) => _ = when.insert(index, condition),
                Some(Err(error)) => self.dialplan_error(&format!("{place}.when"), &error),
                None => {}
            }
            match self.step(step, &place) {
                Ok(step) => steps.push(step),
                Err(error) => self.dialplan_error(&place, &error),
            }
        }
        Some(dialplan::Extension::new(pattern.ok()?, steps).marked(labels, when))
    }

    pub(super) fn dialplan_error(&mut self, place: &str, error: &Error) {
        let reason = match error.kind {
            ErrorKind::Pattern { .. } => Reason::InvalidPattern,
            ErrorKind::DuplicatePattern { .. } => Reason::DuplicatePattern,
            ErrorKind::Unreachable(_) => Reason::Unreachable,
            ErrorKind::EndlessLoop(_) => Reason::EndlessLoop,
            _ => Reason::InvalidStep,
        };
        let path = if error.path.is_empty() { place.to_owned() } else { format!("{place}.{}", error.path) };
        self.found(path, reason, error.kind.to_string());
    }

    fn step(&mut self, step: &crate::Step, place: &str) -> Result<Step, Error> {
        let step = application(step)?;
        step.check()?;
        match &step {
            Step::Dial(dial) => self.endpoints(dial, place),
            Step::Goto(to) => self.context(to, &format!("{place}.goto")),
            Step::Gosub(Gosub { to, .. }) => self.context(to, &format!("{place}.gosub")),
            Step::GotoIf(GotoIf { then, otherwise, .. }) => {
                for (to, name) in [(then, "then"), (otherwise, "else")] {
                    to.iter().for_each(|to| self.context(to, &format!("{place}.gotoIf.{name}")));
                }
            }
            _ => {}
        }
        Ok(step)
    }

    fn endpoints(&mut self, dial: &Dial, place: &str) {
        for (at, target) in dial.to.iter().enumerate() {
            let targets = target.literal().and_then(|literal| Target::parse_list(literal).ok());
            for target in targets.into_iter().flatten() {
                if let Target::Endpoint(name) = target {
                    self.references.push((Ref::Endpoint(name), format!("{place}.dial.to[{at}]")));
                }
            }
        }
    }

    fn context(&mut self, to: &Goto, place: &str) {
        if let [Some(context), ..] = to.literals() {
            self.references.push((Ref::Context(context.to_owned()), format!("{place}.context")));
        }
    }
}

fn template(text: &str, field: &str) -> Result<Template, Error> {
    Template::parse(text).map_err(|error| error.at(field))
}

fn optional(text: Option<&String>, field: &str) -> Result<Option<Template>, Error> {
    text.map(|text| template(text, field)).transpose()
}

fn list(texts: &[String], field: &str) -> Result<Vec<Template>, Error> {
    texts.iter().enumerate().map(|(at, text)| template(text, &format!("{field}[{at}]"))).collect()
}

/// The application of a step.
fn application(step: &crate::Step) -> Result<Step, Error> {
    Ok(match step {
        crate::Step { no_op: Some(no_op), .. } => Step::NoOp { text: optional(no_op.text.as_ref(), "noOp.text")? },
        crate::Step { answer: Some(_), .. } => Step::Answer {},
        crate::Step { progress: Some(_), .. } => Step::Progress {},
        crate::Step { ringing: Some(_), .. } => Step::Ringing {},
        crate::Step { dial: Some(dial), .. } => Step::Dial(self::dial(dial)?),
        crate::Step { hangup: Some(hangup), .. } => {
            let cause = hangup.cause.map(|cause| Cause::new(cause.into())).transpose();
            Step::Hangup { cause: cause.map_err(|error| error.at("hangup.cause"))? }
        }
        crate::Step { busy: Some(_), .. } => Step::Busy {},
        crate::Step { congestion: Some(_), .. } => Step::Congestion {},
        crate::Step { playback: Some(playback), .. } => {
            Step::Playback(Playback { prompts: list(&playback.prompts, "playback.prompts")? })
        }
        crate::Step { background: Some(playback), .. } => {
            Step::Background(Playback { prompts: list(&playback.prompts, "background.prompts")? })
        }
        crate::Step { wait_exten: Some(wait), .. } => {
            Step::WaitExten { timeout: wait.timeout.map(crate::Duration::get) }
        }
        crate::Step { echo: Some(_), .. } => Step::Echo {},
        crate::Step { milliwatt: Some(_), .. } => Step::Milliwatt {},
        crate::Step { wait: Some(wait), .. } => Step::Wait { duration: wait.duration.get() },
        crate::Step { set: Some(set), .. } => Step::Set {
            name: Assigned::parse(&set.name).map_err(|error| error.at("set.name"))?,
            value: template(&set.value, "set.value")?,
        },
        crate::Step { goto: Some(to), .. } => Step::Goto(self::goto(to, "goto")?),
        crate::Step { goto_if: Some(branch), .. } => {
            let place = |to: &Option<crate::Goto>, field| to.as_ref().map(|to| self::goto(to, field)).transpose();
            let condition = Condition::parse(&branch.condition).map_err(|error| error.at("gotoIf.condition"))?;
            let (then, otherwise) = (place(&branch.then, "gotoIf.then")?, place(&branch.otherwise, "gotoIf.else")?);
            Step::GotoIf(GotoIf { condition, then, otherwise })
        }
        crate::Step { gosub: Some(gosub), .. } => {
            let crate::Gosub { context, extension, label, args } = gosub.clone();
            let to = self::goto(&crate::Goto { context, extension, label }, "gosub")?;
            Step::Gosub(Gosub { to, args: list(&args, "gosub.args")? })
        }
        crate::Step { give_back: Some(back), .. } => {
            Step::Return { value: optional(back.value.as_ref(), "return.value")? }
        }
        // The schema asks for exactly one.
        _ => return Err(ErrorKind::Empty("the step", "write one application, such as answer: {}").into()),
    })
}

fn goto(to: &crate::Goto, field: &str) -> Result<Goto, Error> {
    Ok(Goto {
        context: optional(to.context.as_ref(), &format!("{field}.context"))?,
        extension: optional(to.extension.as_ref(), &format!("{field}.extension"))?,
        label: optional(to.label.as_ref(), &format!("{field}.label"))?,
    })
}

fn dial(dial: &crate::Dial) -> Result<Dial, Error> {
    let field = |(name, text): (&String, &String)| Ok((name.clone(), template(text, &format!("dial.headers.{name}"))?));
    Ok(Dial {
        to: list(&dial.to, "dial.to")?,
        timeout: dial.timeout.map(crate::Duration::get),
        options: DialOptions {
            limit: dial.limit.map(crate::Duration::get),
            ring: dial.ring,
            hangup_by_star: dial.hangup_by_star,
            go_on: dial.continue_on_hangup,
            caller_id: optional(dial.caller_id.as_ref(), "dial.callerId")?,
            headers: dial.headers.iter().map(field).collect::<Result<_, Error>>()?,
        },
    })
}
