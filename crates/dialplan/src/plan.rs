//! A context, and how an extension is found in it and in what it includes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Pattern, Step};

/// Bounds of everything a dialplan holds.
pub mod limits {
    /// Bytes of an extension or a pattern.
    pub const EXTENSION: usize = 80;
    /// Bytes of a text with `${...}` in it.
    pub const TEXT: usize = 1024;
    /// Bytes of a text after substitution.
    pub const EXPANDED: usize = 4096;
    /// Bytes of a context's or an endpoint's name.
    pub const NAME: usize = 253;
    /// Targets that one dial rings.
    pub const TARGETS: usize = 64;
    /// Prompts of one playback.
    pub const PROMPTS: usize = 64;
    /// Bytes of a room's name.
    pub const ROOM: usize = 128;
    /// Digits of a room's PIN.
    pub const PIN: usize = 32;
    /// Steps of an extension.
    pub const STEPS: usize = 256;
    /// Extensions of a context.
    pub const EXTENSIONS: usize = 4096;
    /// Contexts that one context includes.
    pub const INCLUDES: usize = 64;
    /// Contexts that are looked at for one extension.
    pub const VISITED: usize = 256;
}

/// One context. Its extensions stand in their order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Unchecked")]
pub struct Plan {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    includes: Vec<String>,
    extensions: Vec<Extension>,
}

/// A plan as it comes from a wire: order and bounds are not to be believed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unchecked {
    name: String,
    #[serde(default)]
    includes: Vec<String>,
    #[serde(default)]
    extensions: Vec<Extension>,
}

impl TryFrom<Unchecked> for Plan {
    type Error = Error;
    fn try_from(plan: Unchecked) -> Result<Self, Error> {
        Plan::new(plan.name, plan.includes, plan.extensions)
    }
}

/// A pattern and what runs when it matches. The steps are shared, so a call keeps those it began with while the
/// context changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Extension {
    /// What it matches.
    pub pattern: Pattern,
    /// What runs, in order.
    pub steps: Arc<[Step]>,
}

impl Extension {
    /// An extension of these steps.
    pub fn new(pattern: Pattern, steps: Vec<Step>) -> Self {
        Self { pattern, steps: steps.into() }
    }
}

impl Plan {
    /// A context of this name; checks bounds, steps and that no two patterns mean the same.
    ///
    /// # Errors
    /// The first fault, its path as in the `Dialplan` resource (`extensions[1].steps[0].dial.to[0]`).
    pub fn new(name: impl Into<String>, includes: Vec<String>, extensions: Vec<Extension>) -> Result<Self, Error> {
        let name = name.into();
        if name.is_empty() || name.len() > limits::NAME {
            return Err(Error::from(ErrorKind::Empty("the context's name", "1 to 253 bytes")).at("name"));
        }
        let too_many = |what, limit, place: &str| Err(Error::from(ErrorKind::TooMany { what, limit }).at(place));
        if includes.len() > limits::INCLUDES {
            return too_many("includes", limits::INCLUDES, "includes");
        }
        if extensions.len() > limits::EXTENSIONS {
            return too_many("extensions", limits::EXTENSIONS, "extensions");
        }
        for (at, extension) in extensions.iter().enumerate() {
            let place = format!("extensions[{at}].steps");
            if extension.steps.is_empty() {
                return Err(Error::from(ErrorKind::Empty("the list", "write at least one step")).at(place));
            }
            if extension.steps.len() > limits::STEPS {
                return too_many("steps", limits::STEPS, &place);
            }
            for (index, step) in extension.steps.iter().enumerate() {
                step.check().map_err(|e| e.at(format_args!("{place}[{index}]")))?;
            }
        }
        let mut indexed: Vec<(usize, Extension)> = extensions.into_iter().enumerate().collect();
        indexed.sort_by(|(_, left), (_, right)| left.pattern.cmp(&right.pattern));
        for pair in indexed.windows(2) {
            if let [(_, first), (at, second)] = pair
                && first.pattern == second.pattern
            {
                let (pattern, first) = (second.pattern.to_string(), first.pattern.to_string());
                let kind = ErrorKind::DuplicatePattern { pattern, first };
                return Err(Error::from(kind).at(format_args!("extensions[{at}].pattern")));
            }
        }
        Ok(Self { name, includes, extensions: indexed.into_iter().map(|(_, extension)| extension).collect() })
    }

    /// The context's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The contexts it includes, in order.
    pub fn includes(&self) -> &[String] {
        &self.includes
    }

    /// The extensions in their order of preference.
    pub fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    /// The extension of this context alone that is preferred for what was dialled.
    pub fn find(&self, exten: &str) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.pattern.matches(exten))
    }
}

/// What [`find`] found.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The context that holds the extension: the one asked for, or one that it includes.
    pub plan: &'a Plan,
    /// The extension.
    pub extension: &'a Extension,
}

/// Finds an extension in a context or in what it includes: the whole context first, then each include in order with its
/// own includes. A context is looked at once, so a circle ends; at most [`limits::VISITED`] are. An include that does not
/// exist is passed over.
pub fn find<'a>(start: &'a Plan, exten: &str, context: &dyn Fn(&str) -> Option<&'a Plan>) -> Option<Found<'a>> {
    let mut seen: Vec<&str> = Vec::new();
    let mut waiting = vec![start];
    while let Some(plan) = waiting.pop() {
        if seen.contains(&plan.name()) {
            continue;
        }
        if seen.len() == limits::VISITED {
            return None;
        }
        seen.push(plan.name());
        if let Some(extension) = plan.find(exten) {
            return Some(Found { plan, extension });
        }
        // Last in, first out: the first include, and all that it includes, goes before the second.
        waiting.extend(plan.includes().iter().rev().filter_map(|name| context(name)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dial, Template};

    fn extension(pattern: &str) -> Extension {
        Extension::new(Pattern::parse(pattern).unwrap(), vec![Step::Answer {}])
    }

    fn plan(name: &str, includes: &[&str], patterns: &[&str]) -> Plan {
        let includes = includes.iter().map(ToString::to_string).collect();
        Plan::new(name, includes, patterns.iter().map(|p| extension(p)).collect()).unwrap()
    }

    #[test]
    fn the_best_match_wins_whatever_the_order_written() {
        let plan = plan("a", &[], &["_80.", "_80XX", "_800X", "8005"]);
        for (exten, want) in
            [("8005", "8005"), ("8006", "_800X"), ("8016", "_80XX"), ("80166", "_80."), ("80", ""), ("9", "")]
        {
            assert_eq!(plan.find(exten).map_or("", |e| e.pattern.as_str()), want, "{exten}");
        }
    }

    #[test]
    fn includes_in_order_depth_first_and_circles_end() {
        let plans = [
            plan("a", &["b", "missing", "c"], &["1"]),
            plan("b", &["d", "a"], &["2"]),
            plan("c", &["a"], &["3", "4", "_5"]),
            plan("d", &["d"], &["4"]),
        ];
        let lookup = |name: &str| plans.iter().find(|p| p.name() == name);
        for (exten, want) in [("1", "a"), ("2", "b"), ("3", "c"), ("4", "d"), ("5", "c")] {
            let found = find(&plans[0], exten, &lookup).unwrap();
            assert_eq!(found.plan.name(), want, "{exten}");
        }
        assert!(find(&plans[0], "9", &lookup).is_none());
    }

    #[test]
    fn a_pattern_in_the_context_hides_an_exact_one_that_is_included() {
        let plans = [plan("a", &["b"], &["_."]), plan("b", &[], &["8005"])];
        let found = find(&plans[0], "8005", &|name| plans.iter().find(|p| p.name() == name)).unwrap();
        assert_eq!(found.plan.name(), "a");
    }

    #[test]
    fn faults_name_their_place() {
        let dial = Step::Dial(Dial { to: vec![Template::parse("SIP/1").unwrap()], timeout: None });
        let extensions =
            vec![extension("1"), Extension::new(Pattern::parse("2").unwrap(), vec![Step::Answer {}, dial])];
        let error = Plan::new("a", vec![], extensions).unwrap_err();
        assert_eq!(error.path, "extensions[1].steps[1].dial.to[0]");

        let error = Plan::new("a", vec![], vec![extension("_N"), extension("1"), extension("_[2-9]")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "extensions[2].pattern: pattern \"_[2-9]\" stands here a second time (first as \"_N\"): keep one"
        );
        let empty = Extension::new(Pattern::parse("1").unwrap(), vec![]);
        assert_eq!(Plan::new("a", vec![], vec![empty]).unwrap_err().path, "extensions[0].steps");
        assert!(Plan::new("", vec![], vec![]).is_err());
        assert!(Plan::new("a", vec!["b".into(); 65], vec![]).is_err());
    }

    #[test]
    fn the_form_on_the_wire() {
        let json = serde_json::json!({
            "name": "from-external",
            "includes": ["inside"],
            "extensions": [
                {"pattern": "_80XX", "steps": [
                    {"noOp": {"text": "to ${EXTEN}"}},
                    {"dial": {"to": ["PJSIP/${EXTEN}"], "timeout": 30000}},
                    {"playback": {"prompts": ["tone:440"]}},
                    {"hangup": {"cause": 17}}]},
                {"pattern": "8005", "steps": [{"answer": {}}, {"echo": {}}]}],
        });
        let plan: Plan = serde_json::from_value(json.clone()).unwrap();
        // What comes in is put in order, whatever the sender did.
        assert_eq!(plan.extensions()[0].pattern.as_str(), "8005");
        let again: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert_eq!(again, plan);
        let mut sorted = json;
        sorted["extensions"].as_array_mut().unwrap().reverse();
        assert_eq!(serde_json::to_value(&plan).unwrap(), sorted);
        let cause =
            serde_json::json!({"name": "a", "extensions": [{"pattern": "1", "steps": [{"hangup": {"cause": 0}}]}]});
        assert!(serde_json::from_value::<Plan>(cause).unwrap_err().to_string().contains("no Q.850 cause"));
    }
}
