//! extensions.conf: each context becomes a `Dialplan`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use dialplan::{Pattern, Target, Template};
use serde_json::{Map, Value, json};

use super::ini::{self, Setting};
use super::{Imported, Names, Note};
use api::manifests::Source;

/// Extensions that Asterisk runs by itself and nobody dials.
const SPECIAL: [&str; 8] = ["h", "i", "t", "T", "e", "o", "a", "fax"];

/// Reads the file.
pub(super) fn import(source: &Source) -> Imported {
    let mut notes = Vec::new();
    let sections = ini::read(source, &mut notes);
    let mut work = Work { file: &source.name, notes };
    // A context may be written in several pieces.
    let mut contexts: Vec<Context> = Vec::new();
    for section in &sections {
        if matches!(section.name.as_str(), "general" | "globals") {
            for setting in &section.settings {
                work.note(setting.line, format!("{}={}: not carried over", setting.key, setting.value));
            }
            continue;
        }
        let at = contexts.iter().position(|context| context.name == section.name).unwrap_or_else(|| {
            contexts.push(Context { name: section.name.clone(), line: section.line, ..Context::default() });
            contexts.len() - 1
        });
        if let Some(context) = contexts.get_mut(at) {
            section.settings.iter().for_each(|setting| work.setting(setting, context));
            // `same` does not reach over a section's beginning.
            context.current = None;
        }
    }
    let mut names = Names::default();
    let manifests = contexts.into_iter().filter_map(|context| work.context(context, &mut names)).collect();
    Imported { manifests, notes: work.notes }
}

#[derive(Default)]
struct Context {
    name: String,
    line: usize,
    includes: Vec<String>,
    /// In the order of their first lines.
    extensions: Vec<Extension>,
    /// Which extension `same` continues; none when that was not carried over.
    current: Option<usize>,
}

struct Extension {
    pattern: Pattern,
    /// By priority: the line and what is called.
    steps: BTreeMap<u32, (usize, String)>,
    last: u32,
}

struct Work<'a> {
    file: &'a str,
    notes: Vec<Note>,
}

impl Work<'_> {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push(Note { file: self.file.to_owned(), line, text: text.into() });
    }

    fn setting(&mut self, setting: &Setting, context: &mut Context) {
        match setting.key.as_str() {
            "exten" => {
                // Commas inside [...] of a pattern belong to it.
                let depth = |c: char, depth: &mut i32| {
                    *depth += i32::from(c == '[') - i32::from(c == ']');
                    c == ',' && *depth <= 0
                };
                let mut level = 0;
                let comma = setting.value.find(|c| depth(c, &mut level));
                let Some((text, rest)) = comma.map(|at| (&setting.value[..at], &setting.value[at + 1..])) else {
                    context.current = None;
                    self.note(setting.line, format!("exten => {}: not an extension with a priority", setting.value));
                    return;
                };
                context.current = self.extension(text.trim(), setting, context);
                if context.current.is_some() {
                    self.step(rest, setting, context);
                }
            }
            "same" if context.current.is_some() => self.step(&setting.value, setting, context),
            "same" => self.note(setting.line, format!("same => {}: its extension was not carried over", setting.value)),
            "include" => {
                let (name, times) = setting.value.split_once([',', '|']).unwrap_or((&setting.value, ""));
                if times.is_empty() {
                    context.includes.push(name.trim().to_owned());
                } else {
                    self.note(
                        setting.line,
                        format!("include => {}: including by time is not supported", setting.value),
                    );
                }
            }
            _ => self.note(setting.line, format!("{} => {}: not carried over", setting.key, setting.value)),
        }
    }

    /// The extension of a line `exten => TEXT,...`.
    fn extension(&mut self, text: &str, setting: &Setting, context: &mut Context) -> Option<usize> {
        if SPECIAL.contains(&text) {
            self.note(
                setting.line,
                format!("exten => {}: the special extension {text} is not run here", setting.value),
            );
            return None;
        }
        let pattern = match Pattern::parse(text) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.note(setting.line, format!("exten => {}: not carried over: {error}", setting.value));
                return None;
            }
        };
        let known = context.extensions.iter().position(|extension| extension.pattern == pattern);
        Some(known.unwrap_or_else(|| {
            if text == "s" {
                self.note(setting.line, "exten => s: runs only when s is dialled: here every call has a number");
            }
            context.extensions.push(Extension { pattern, steps: BTreeMap::new(), last: 0 });
            context.extensions.len() - 1
        }))
    }

    /// `PRIORITY[(label)],Application(arguments)`.
    fn step(&mut self, text: &str, setting: &Setting, context: &mut Context) {
        let Some(extension) = context.current.and_then(|at| context.extensions.get_mut(at)) else { return };
        let whole = format!("{} => {}", setting.key, setting.value);
        let Some((priority, call)) = text.split_once(',') else {
            self.note(setting.line, format!("{whole}: no application, not carried over"));
            return;
        };
        let (priority, label) = match priority.trim().split_once('(') {
            Some((priority, label)) => (priority.trim(), Some(label.trim_end_matches(')'))),
            None => (priority.trim(), None),
        };
        let number = match priority {
            "n" => Some(extension.last + 1),
            _ => match priority.strip_prefix("n+") {
                Some(more) => more.parse::<u32>().ok().and_then(|more| extension.last.checked_add(more)),
                None => priority.parse().ok().filter(|number| *number > 0),
            },
        };
        let Some(number) = number.filter(|number| *number <= 1_000_000) else {
            self.note(setting.line, format!("{whole}: the priority {priority} is not carried over"));
            return;
        };
        if let Some(label) = label {
            self.note(setting.line, format!("the label {label}: not carried over, no step goes to a label here"));
        }
        extension.last = number;
        match extension.steps.entry(number) {
            Entry::Vacant(free) => drop(free.insert((setting.line, call.trim().to_owned()))),
            Entry::Occupied(_) => {
                self.note(
                    setting.line,
                    format!("{whole}: the priority {number} stands here already, not carried over"),
                );
            }
        }
    }

    fn context(&mut self, context: Context, names: &mut Names) -> Option<Value> {
        let mut extensions = Vec::new();
        for extension in context.extensions {
            let mut steps = Vec::new();
            let mut next = 1;
            for (number, (line, call)) in extension.steps {
                // Asterisk goes from one priority to the next and ends at a gap.
                if number != next {
                    self.note(line, format!("{call}: is never reached: there is no priority {next} before it"));
                    continue;
                }
                next += 1;
                steps.extend(self.application(line, &call));
            }
            if !steps.is_empty() {
                extensions.push(json!({"pattern": extension.pattern.as_str(), "steps": steps}));
            }
        }
        if extensions.is_empty() && context.includes.is_empty() {
            self.note(context.line, format!("[{}]: nothing of it could be carried over, left out", context.name));
            return None;
        }
        let (metadata, own) = names.metadata(&context.name);
        let mut spec = Map::new();
        spec.extend(own.map(|name| ("name".to_owned(), name.into())));
        if !context.includes.is_empty() {
            spec.insert("includes".into(), context.includes.into());
        }
        spec.insert("extensions".into(), extensions.into());
        Some(json!({
            "apiVersion": api::crds::API_VERSION,
            "kind": "Dialplan",
            "metadata": metadata,
            "spec": spec,
        }))
    }

    /// The step of an application; none, with a note, when it has no form here.
    fn application(&mut self, line: usize, call: &str) -> Option<Value> {
        let (name, arguments) = match call.split_once('(') {
            Some((name, rest)) => (name.trim(), rest.trim_end().strip_suffix(')').unwrap_or(rest)),
            None => (call, ""),
        };
        let arguments = arguments.trim();
        match name.to_ascii_lowercase().as_str() {
            "noop" if arguments.is_empty() => Some(json!({"noOp": {}})),
            "noop" => self.template(line, call, arguments).map(|text| json!({"noOp": {"text": text}})),
            "answer" => {
                if !matches!(arguments, "" | "0") {
                    self.note(line, format!("{call}: the delay is not carried over"));
                }
                Some(json!({"answer": {}}))
            }
            "dial" => self.dial(line, call, arguments),
            "hangup" if arguments.is_empty() => Some(json!({"hangup": {}})),
            "hangup" => match arguments.parse::<u8>() {
                Ok(cause @ 1..=127) => Some(json!({"hangup": {"cause": cause}})),
                _ => {
                    self.note(line, format!("{call}: the cause {arguments} is not carried over: write its number"));
                    Some(json!({"hangup": {}}))
                }
            },
            "busy" | "congestion" => {
                let cause = if name.eq_ignore_ascii_case("busy") { 17 } else { 34 };
                self.note(line, format!("{call}: becomes a hangup with cause {cause}, at once"));
                Some(json!({"hangup": {"cause": cause}}))
            }
            "playback" => self.playback(line, call, arguments),
            "echo" => Some(json!({"echo": {}})),
            "musiconhold" if arguments.is_empty() => Some(json!({"musicOnHold": {}})),
            "confbridge" => self.room(line, call, arguments),
            _ => {
                self.note(line, format!("{call}: the application {name} is not supported, the step is left out"));
                None
            }
        }
    }

    fn template(&mut self, line: usize, call: &str, text: &str) -> Option<String> {
        match Template::parse(text) {
            Ok(_) => Some(text.to_owned()),
            Err(error) => {
                self.note(line, format!("{call}: not carried over: {error}"));
                None
            }
        }
    }

    fn dial(&mut self, line: usize, call: &str, arguments: &str) -> Option<Value> {
        let mut fields = arguments.split(',').map(str::trim);
        let targets = fields.next().unwrap_or_default();
        let timeout = fields.next().unwrap_or_default();
        for option in fields.filter(|option| !option.is_empty()) {
            self.note(line, format!("{call}: the option {option} is not carried over"));
        }
        let mut to = Vec::new();
        for target in targets.split('&') {
            let template = self.template(line, call, target)?;
            // A variable's value is not known; any name will do to see whether the form is.
            let trial = Template::parse(&template).and_then(|t| t.expand(&|_| Some("1".into())));
            match trial.and_then(|trial| Target::parse_list(&trial)) {
                Ok(_) => to.push(template),
                Err(error) => self.note(line, format!("{call}: {target} is not carried over: {}", error.kind)),
            }
        }
        if to.is_empty() {
            self.note(line, format!("{call}: nothing is left to dial, the step is left out"));
            return None;
        }
        let mut dial = json!({ "to": to });
        match (timeout, timeout.parse::<u32>()) {
            ("", _) => {}
            (_, Ok(seconds @ 1..=86_400)) => dial["timeout"] = format!("{seconds}s").into(),
            _ => self.note(line, format!("{call}: the timeout {timeout} is not carried over")),
        }
        Some(json!({ "dial": dial }))
    }

    /// A room by its name. Profiles stand in another file, which is not read.
    fn room(&mut self, line: usize, call: &str, arguments: &str) -> Option<Value> {
        let (name, profiles) = arguments.split_once(',').unwrap_or((arguments, ""));
        if profiles.split(',').any(|profile| !profile.trim().is_empty()) {
            self.note(
                line,
                format!("{call}: the profiles {profiles} are not carried over: set pin, admin, ... yourself"),
            );
        }
        self.template(line, call, name.trim()).map(|room| json!({"confBridge": {"room": room}}))
    }

    fn playback(&mut self, line: usize, call: &str, arguments: &str) -> Option<Value> {
        let (files, options) = arguments.split_once(',').unwrap_or((arguments, ""));
        if !options.trim().is_empty() {
            self.note(line, format!("{call}: the options {} are not carried over", options.trim()));
        }
        let mut prompts = Vec::new();
        for file in files.split('&').map(str::trim).filter(|file| !file.is_empty()) {
            let template = self.template(line, call, file)?;
            self.note(line, format!("{call}: needs {file} as a WAV file among the prompts"));
            prompts.push(template);
        }
        if prompts.is_empty() {
            self.note(line, format!("{call}: nothing to play, the step is left out"));
            return None;
        }
        Some(json!({"playback": {"prompts": prompts}}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> (Vec<Value>, Vec<String>) {
        let imported = import(&Source { name: "e".into(), text: text.into() });
        (imported.manifests, imported.notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn contexts_and_extensions() {
        let text = "[From_Out]\ninclude => in\nexten => _80XX,1,NoOp(to ${EXTEN})\n same => n,Dial(PJSIP/${EXTEN}&PJSIP/8000,20)\n same => n,Hangup(17)\n\
            exten => 900,1,Answer()\nexten => 900,2,Playback(hello)\nexten => 900,3,Echo\n[in]\nexten => _[1,2]X,1,Busy()\n[From_Out]\nexten => 901,1,Hangup\n";
        let (manifests, notes) = run(text);
        assert_eq!(
            manifests[0]["spec"],
            json!({"name": "From_Out", "includes": ["in"], "extensions": [
                {"pattern": "_80XX", "steps": [
                    {"noOp": {"text": "to ${EXTEN}"}},
                    {"dial": {"to": ["PJSIP/${EXTEN}", "PJSIP/8000"], "timeout": "20s"}},
                    {"hangup": {"cause": 17}}]},
                {"pattern": "900", "steps": [{"answer": {}}, {"playback": {"prompts": ["hello"]}}, {"echo": {}}]},
                {"pattern": "901", "steps": [{"hangup": {}}]}]})
        );
        assert_eq!(manifests[0]["metadata"]["name"], "from-out");
        let busy = json!([{"pattern": "_[1,2]X", "steps": [{"hangup": {"cause": 17}}]}]);
        assert_eq!(manifests[1]["spec"]["extensions"], busy);
        assert_eq!(notes.len(), 2, "{notes:#?}");
    }

    #[test]
    fn what_has_no_form_here_is_listed() {
        for (text, line, word) in [
            ("[general]\nstatic=yes\n", 2, "static=yes"),
            ("[globals]\nTRUNK=PJSIP/t\n", 2, "trunk=PJSIP/t"),
            ("[c]\nexten => 1,hint,PJSIP/1\n", 2, "priority hint"),
            ("[c]\nexten => 1,1,Queue(x)\n", 2, "Queue is not supported"),
            ("[c]\nexten => 1,1,Queue(x)\n", 1, "nothing of it"),
            ("[c]\nexten => 1,1(here),Answer()\n", 2, "label here"),
            ("[c]\nexten => h,1,Answer()\nsame => n,Hangup()\n", 2, "special extension h"),
            ("[c]\nexten => h,1,Answer()\nsame => n,Hangup()\n", 3, "was not carried over"),
            ("[c]\nexten => s,1,Answer()\n", 2, "only when s"),
            ("[c]\nexten => _1[,1,Answer()\n", 2, "not an extension"),
            ("[c]\nexten => _1./8005,1,Answer()\n", 2, "caller's number"),
            ("[c]\nexten => 1\n", 2, "not an extension"),
            ("[c]\nexten => 1,1\n", 2, "no application"),
            ("[c]\nexten => 1,1,Answer()\nexten => 1,3,Hangup()\n", 3, "never reached"),
            ("[c]\nexten => 1,1,Answer()\nexten => 1,1,Hangup()\n", 3, "already"),
            ("[c]\nexten => 1,1,Answer(500)\n", 2, "delay"),
            ("[c]\nexten => 1,1,Dial(SIP/1)\n", 2, "write PJSIP/NAME"),
            ("[c]\nexten => 1,1,Dial(PJSIP/${EXTEN:1}@trunk)\n", 2, "at a trunk"),
            ("[c]\nexten => 1,1,Dial(PJSIP/1,30,tT)\n", 2, "option tT"),
            ("[c]\nexten => 1,1,Dial(PJSIP/1,${X})\n", 2, "timeout ${X}"),
            ("[c]\nexten => 1,1,Dial(PJSIP/$[1+1])\n", 2, "expressions"),
            ("[c]\nexten => 1,1,Hangup(BUSY)\n", 2, "cause BUSY"),
            ("[c]\nexten => 1,1,Playback(hi,noanswer)\n", 2, "options noanswer"),
            ("[c]\ninclude => d,9:00-17:00,*,*,*\n", 2, "by time"),
            ("[c]\nswitch => Realtime\n", 2, "switch => Realtime"),
        ] {
            let (_, notes) = run(text);
            assert!(
                notes.iter().any(|n| n.starts_with(&format!("e:{line}: ")) && n.contains(word)),
                "{text}{notes:#?}"
            );
        }
    }
}
