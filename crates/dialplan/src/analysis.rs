//! What can be seen of a context before any call: steps and extensions that nothing reaches, places that are not there,
//! circles that no time passes in. Only what is certain is a fault: what depends on a variable or a condition is not.

use std::collections::{BTreeMap, BTreeSet};

use crate::template::is_name;
use crate::{Error, ErrorKind, Extension, Goto, GotoIf, Step, Template};

/// Checks the extensions of a context in the order written; `includes`: it has extensions that are not here.
pub(crate) fn check(extensions: &[Extension], includes: bool) -> Result<(), Error> {
    for (at, extension) in extensions.iter().enumerate() {
        let place = format!("extensions[{at}]");
        if let Some(other) = extensions.iter().find(|other| extension.pattern.is_hidden_by(&other.pattern)) {
            let kind = ErrorKind::Unreachable(format!("{} takes all that it matches", other.pattern));
            return Err(Error::from(kind).at(format_args!("{place}.pattern")));
        }
        let in_steps = |error: Error| error.at(&place);
        labels(extension).map_err(in_steps)?;
        reachable(extension).map_err(in_steps)?;
        for (index, step) in extension.steps.iter().enumerate() {
            for (name, to) in places(step) {
                there(extensions, includes, extension, to)
                    .map_err(|error| error.at(format_args!("{place}.steps[{index}].{name}")))?;
            }
        }
    }
    circles(extensions)
}

fn labels(extension: &Extension) -> Result<(), Error> {
    for (label, index) in extension.labels.iter() {
        let bad =
            |why| Error::from(ErrorKind::Label { label: label.clone(), why }).at(format_args!("steps[{index}].label"));
        if !label.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) || label.is_empty() {
            return Err(bad("a label is letters, digits, '_', '-' and '.'"));
        }
        if label.bytes().all(|c| c.is_ascii_digit()) {
            return Err(bad("a number is the step of this number: begin with a letter"));
        }
    }
    Ok(())
}

/// Places that a step names, and by which field.
fn places(step: &Step) -> Vec<(&'static str, &Goto)> {
    match step {
        Step::Goto(to) => vec![("goto", to)],
        Step::GotoIf(GotoIf { then, otherwise, .. }) => {
            let both = [("gotoIf.then", then), ("gotoIf.else", otherwise)];
            both.into_iter().filter_map(|(name, to)| Some((name, to.as_ref()?))).collect()
        }
        Step::Gosub(gosub) => vec![("gosub", &gosub.to)],
        _ => Vec::new(),
    }
}

/// A step after one that always leaves runs only if it has a label, or if some step goes to it by its number.
fn reachable(extension: &Extension) -> Result<(), Error> {
    let labelled: BTreeSet<usize> = extension.labels.values().copied().collect();
    let numbered = extension.steps.iter().flat_map(places).any(|(_, to)| match &to.label {
        Some(label) => label.literal().is_none_or(|label| !is_name(label)),
        None => false,
    });
    let mut left: Option<usize> = None;
    for (index, step) in extension.steps.iter().enumerate() {
        if labelled.contains(&index) || numbered {
            left = None;
        }
        if let Some(left) = left {
            let before = extension.steps.get(left).map_or("", Step::name);
            let kind = ErrorKind::Unreachable(format!("{before} before it leaves, and it has no label"));
            return Err(Error::from(kind).at(format_args!("steps[{index}]")));
        }
        if step.leaves() && !extension.when.contains_key(&index) {
            left = Some(index);
        }
    }
    Ok(())
}

/// Whether a place within the context is there, where that can be known.
fn there(extensions: &[Extension], includes: bool, here: &Extension, to: &Goto) -> Result<(), Error> {
    if to.context.is_some() {
        return Ok(());
    }
    let target = match &to.extension {
        None => Some(here),
        Some(exten) => match exten.literal() {
            None => return Ok(()),
            Some(exten) => {
                let found = best(extensions, exten);
                if found.is_none() && !includes {
                    let hint = "write one, or the context that has it".to_owned();
                    let kind = ErrorKind::Nowhere { what: "extension", name: exten.to_owned(), hint };
                    return Err(Error::from(kind).at("extension"));
                }
                found
            }
        },
    };
    match (target, to.label.as_ref().and_then(Template::literal)) {
        (Some(target), Some(label)) if target.labelled(label).is_none() => {
            let known: Vec<&str> = target.labels.keys().map(String::as_str).collect();
            let hint = match known.as_slice() {
                [] => format!("no step of {} has one", target.pattern),
                known => format!("{} has {}", target.pattern, known.join(", ")),
            };
            Err(Error::from(ErrorKind::Nowhere { what: "label", name: label.to_owned(), hint }).at("label"))
        }
        _ => Ok(()),
    }
}

fn best<'a>(extensions: &'a [Extension], exten: &str) -> Option<&'a Extension> {
    extensions.iter().filter(|extension| extension.pattern.matches(exten)).min_by(|a, b| a.pattern.cmp(&b.pattern))
}

/// A circle of steps that always run, take no time and never leave it.
fn circles(extensions: &[Extension]) -> Result<(), Error> {
    let index: BTreeMap<*const Extension, usize> =
        extensions.iter().enumerate().map(|(at, extension)| (std::ptr::from_ref(extension), at)).collect();
    let place_of = |extension: &Extension| index.get(&std::ptr::from_ref(extension)).copied();
    // What follows for sure on a step, if it takes no time.
    let next = |(at, step): (usize, usize)| -> Option<(usize, usize)> {
        let extension = extensions.get(at)?;
        if extension.when.contains_key(&step) {
            return None;
        }
        match extension.steps.get(step)? {
            Step::NoOp { .. } | Step::Set { .. } | Step::Answer {} | Step::Progress {} | Step::Ringing {} => {
                Some((at, step + 1))
            }
            Step::Goto(to) if to.context.is_none() => {
                let target = match &to.extension {
                    None => extension,
                    Some(exten) => best(extensions, exten.literal()?)?,
                };
                let step = match &to.label {
                    None => 0,
                    Some(label) => target.labelled(label.literal()?)?,
                };
                Some((place_of(target)?, step))
            }
            _ => None,
        }
    };
    for (at, extension) in extensions.iter().enumerate() {
        for (step, _) in extension.steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Goto(_))) {
            let (start, mut now, mut seen) = ((at, step), (at, step), BTreeSet::new());
            while let Some(then) = next(now).filter(|then| seen.insert(*then)) {
                now = then;
                if now == start {
                    let kind = ErrorKind::EndlessLoop("write a wait, or a condition that ends it".to_owned());
                    return Err(Error::from(kind).at(format_args!("extensions[{at}].steps[{step}].goto")));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Condition, Pattern, Plan};
    use std::time::Duration;

    fn to(place: &str) -> Goto {
        let parts: Vec<Option<Template>> =
            place.split(',').map(|p| (!p.is_empty()).then(|| Template::parse(p).unwrap())).collect();
        Goto { context: parts[0].clone(), extension: parts[1].clone(), label: parts[2].clone() }
    }

    fn goto(place: &str) -> Step {
        Step::Goto(to(place))
    }

    /// A step with its label and condition.
    type Line = (&'static str, &'static str, Step);

    /// What is said of extensions: patterns and their steps.
    fn said(list: &[(&str, Vec<Line>)], includes: &[&str]) -> String {
        let extensions = list.iter().map(|(pattern, steps)| {
            let labels = steps.iter().enumerate().filter(|(_, s)| !s.0.is_empty());
            let when = steps.iter().enumerate().filter(|(_, s)| !s.1.is_empty());
            Extension::new(Pattern::parse(pattern).unwrap(), steps.iter().map(|s| s.2.clone()).collect()).marked(
                labels.map(|(at, s)| (s.0.to_owned(), at)).collect(),
                when.map(|(at, s)| (at, Condition::parse(s.1).unwrap())).collect(),
            )
        });
        let includes = includes.iter().map(|i| (*i).to_owned()).collect();
        Plan::new("c", includes, extensions.collect()).map_or_else(|e| e.to_string(), |_| String::new())
    }

    fn step(step: Step) -> Line {
        ("", "", step)
    }

    #[test]
    fn what_nothing_reaches() {
        let answer = || step(Step::Answer {});
        let text = said(&[("1", vec![step(Step::Busy {}), answer()])], &[]);
        assert!(text.starts_with("extensions[0].steps[1]: is never reached: busy before it leaves"), "{text}");
        let text = said(&[("1", vec![answer(), step(goto(",2,")), answer()]), ("2", vec![answer()])], &[]);
        assert!(text.starts_with("extensions[0].steps[2]: is never reached"), "{text}");
        for good in [
            vec![("", "answered", Step::Busy {}), answer()],
            vec![step(Step::Busy {}), ("here", "", Step::Answer {})],
            // Anything may be gone to by its number.
            vec![step(goto(",,3")), answer(), step(Step::Echo {})],
            vec![step(goto(",,${N}")), answer(), step(Step::Echo {})],
            vec![step(Step::Echo {}), answer()],
        ] {
            assert_eq!(said(&[("1", good.clone())], &[]), "", "{good:?}");
        }
        let text = said(&[("_8X", vec![answer()]), ("_8X!", vec![answer()])], &[]);
        assert_eq!(text, "extensions[0].pattern: is never reached: _8X! takes all that it matches");
    }

    #[test]
    fn what_is_not_there() {
        let one = |to: &str, includes: &[&str]| {
            let steps = vec![step(Step::Answer {}), ("end", "", Step::Echo {}), step(goto(to))];
            said(&[("1", steps), ("_2X", vec![("a", "", Step::Answer {})])], includes)
        };
        assert_eq!(one(",,ende", &[]), "extensions[0].steps[2].goto.label: there is no label \"ende\": 1 has end");
        assert_eq!(one(",25,b", &[]), "extensions[0].steps[2].goto.label: there is no label \"b\": _2X has a");
        assert!(one(",,9", &[]).contains("no label \"9\""));
        assert!(one(",3,", &[]).starts_with("extensions[0].steps[2].goto.extension: there is no extension \"3\""));
        for good in [",,end", ",25,a", ",25,1", "c,3,x", ",${X},x", ",25,${X}"] {
            assert_eq!(one(good, &[]), "", "{good}");
        }
        assert_eq!(one(",3,x", &["other"]), "");
        let branch = Step::GotoIf(GotoIf {
            condition: Condition::parse("answered").unwrap(),
            then: Some(to(",,a")),
            otherwise: Some(to(",,b")),
        });
        let text = said(&[("1", vec![step(branch), ("a", "", Step::Answer {})])], &[]);
        assert!(text.starts_with("extensions[0].steps[0].gotoIf.else.label"), "{text}");
    }

    #[test]
    fn circles_without_time() {
        let wait = Step::Wait { duration: Duration::from_secs(1) };
        let round = |middle: Line| {
            said(
                &[
                    ("1", vec![("top", "", Step::Answer {}), middle, step(goto(",2,"))]),
                    ("2", vec![step(goto(",1,top"))]),
                ],
                &[],
            )
        };
        let text = round(step(Step::NoOp { text: None }));
        assert!(text.starts_with("extensions[0].steps[2].goto: goes round for ever"), "{text}");
        assert_eq!(round(step(wait)), "");
        assert_eq!(round(("", "answered", Step::Hangup { cause: None })), "");
        assert!(said(&[("1", vec![step(goto(",1,"))])], &[]).contains("for ever"));
    }

    #[test]
    fn labels_are_names() {
        for (label, why) in [("12", "begin with a letter"), ("a b", "letters, digits")] {
            let text = said(&[("1", vec![(label, "", Step::Answer {})])], &[]);
            assert!(text.starts_with("extensions[0].steps[0].label: bad label") && text.contains(why), "{text}");
        }
    }
}
