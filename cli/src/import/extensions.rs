//! extensions.conf: each context becomes a `Dialplan`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use dialplan::{Assigned, Pattern, Target, Template};
use serde_json::{Map, Value, json};

use super::ini::{self, Setting};
use super::{Imported, Names, Note};
use api::manifests::Source;

/// Extensions that Asterisk runs by itself, and nothing here does.
const SPECIAL: [&str; 5] = ["T", "e", "o", "a", "fax"];

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

/// Steps after which nothing runs that has no label.
const LEAVING: [&str; 5] = ["busy", "congestion", "goto", "hangup", "return"];

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
    /// By priority.
    steps: BTreeMap<u32, Called>,
    last: u32,
}

/// What a line calls.
struct Called {
    line: usize,
    call: String,
    label: Option<String>,
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
        extension.last = number;
        match extension.steps.entry(number) {
            Entry::Vacant(free) => {
                let label = label.map(str::to_owned);
                free.insert(Called { line: setting.line, call: call.trim().to_owned(), label });
            }
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
            let mut left = false;
            for (number, Called { line, call, label }) in extension.steps {
                // Asterisk goes from one priority to the next and ends at a gap.
                if number != next {
                    self.note(line, format!("{call}: is never reached: there is no priority {next} before it"));
                    continue;
                }
                next += 1;
                if left && label.is_none() {
                    self.note(line, format!("{call}: is never reached: the step before it leaves"));
                    continue;
                }
                let Some(mut step) = self.application(line, &call) else {
                    if let Some(label) = label {
                        self.note(line, format!("the label {label} goes with its step"));
                    }
                    continue;
                };
                if let Some(label) = label {
                    step["label"] = label.into();
                }
                left = LEAVING.iter().any(|application| step.get(application).is_some());
                steps.push(step);
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
            "busy" => Some(json!({"busy": {}})),
            "congestion" => Some(json!({"congestion": {}})),
            "progress" => Some(json!({"progress": {}})),
            "ringing" => Some(json!({"ringing": {}})),
            "playback" => self.playback("playback", line, call, arguments),
            "background" => self.playback("background", line, call, arguments),
            "echo" => Some(json!({"echo": {}})),
            "milliwatt" => Some(json!({"milliwatt": {}})),
            "wait" => self.seconds(line, call, arguments).map(|time| json!({"wait": {"duration": time}})),
            "waitexten" if arguments.is_empty() => Some(json!({"waitExten": {}})),
            "waitexten" => self.seconds(line, call, arguments).map(|time| json!({"waitExten": {"timeout": time}})),
            "set" => self.set(line, call, arguments),
            "goto" => self.place(line, call, arguments).map(|place| json!({"goto": place})),
            "gosub" => self.gosub(line, call, arguments),
            "return" if arguments.is_empty() => Some(json!({"return": {}})),
            "return" => self.template(line, call, arguments).map(|value| json!({"return": {"value": value}})),
            "gotoif" | "execif" | "gosubif" | "gotoiftime" => {
                self.note(line, format!("{call}: left out: write its condition in CEL, by gotoIf or the step's when"));
                None
            }
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

    /// Seconds, with or without a fraction, as a duration.
    fn seconds(&mut self, line: usize, call: &str, text: &str) -> Option<String> {
        let time = text.parse::<f64>().ok().filter(|time| (0.0..=3600.0).contains(time));
        if time.is_none() {
            self.note(line, format!("{call}: {text} is no number of seconds up to 3600, the step is left out"));
        }
        time.map(|time| format!("{}ms", (time * 1000.0).round()))
    }

    fn set(&mut self, line: usize, call: &str, arguments: &str) -> Option<Value> {
        let Some((name, value)) = arguments.split_once('=') else {
            self.note(line, format!("{call}: not carried over: write NAME=value"));
            return None;
        };
        if let Err(error) = Assigned::parse(name.trim()) {
            self.note(line, format!("{call}: not carried over: {error}"));
            return None;
        }
        let value = self.template(line, call, value)?;
        Some(json!({"set": {"name": name.trim(), "value": value}}))
    }

    /// `[[context,]extension,]priority`.
    fn place(&mut self, line: usize, call: &str, text: &str) -> Option<Value> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let [rest @ .., priority] = parts.as_slice() else { return None };
        let names: &[&str] = match rest.len() {
            0 => &[],
            1 => &["extension"],
            2 => &["context", "extension"],
            _ => {
                self.note(line, format!("{call}: not carried over: more than a context, an extension and a priority"));
                return None;
            }
        };
        let mut place = Map::new();
        for (name, part) in names.iter().zip(rest) {
            place.insert((*name).to_owned(), self.template(line, call, part)?.into());
        }
        if priority.parse::<u32>().is_ok_and(|number| number > 1) {
            self.note(line, format!("{call}: counts steps: look whether {priority} is still the one that is meant"));
        }
        if *priority != "1" || place.is_empty() {
            place.insert("label".to_owned(), self.template(line, call, priority)?.into());
        }
        Some(place.into())
    }

    /// A place and what it is given: `context,s,1(a,b)`.
    fn gosub(&mut self, line: usize, call: &str, text: &str) -> Option<Value> {
        let (place, args) = match text.split_once('(').filter(|_| text.ends_with(')')) {
            Some((place, args)) => (place, args.trim_end_matches(')')),
            None => (text, ""),
        };
        let mut step = self.place(line, call, place)?;
        let args: Vec<&str> = args.split(',').map(str::trim).filter(|arg| !arg.is_empty()).collect();
        let args: Option<Vec<String>> = args.into_iter().map(|arg| self.template(line, call, arg)).collect();
        if let Some(args) = args.filter(|args| !args.is_empty()) {
            step["args"] = args.into();
        }
        Some(json!({"gosub": step}))
    }

    fn playback(&mut self, name: &str, line: usize, call: &str, arguments: &str) -> Option<Value> {
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
        Some(json!({name: {"prompts": prompts}}))
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
        let busy = json!([{"pattern": "_[1,2]X", "steps": [{"busy": {}}]}]);
        assert_eq!(manifests[1]["spec"]["extensions"], busy);
        assert_eq!(notes.len(), 1, "{notes:#?}");
    }

    #[test]
    fn control_flow_keeps_its_labels() {
        let text = "[c]\nexten => 1,1,Set(__LANG=de)\n same => n(top),Background(menu)\n same => n,WaitExten(2.5)\n\
            same => n,Goto(top)\n same => n(b),Goto(2,1)\n same => n(c),Goto(other,s,end)\n same => n(d),Gosub(sub,s,1(${EXTEN},b))\n\
            exten => h,1,Return(${LANG})\n";
        let (manifests, notes) = run(text);
        assert_eq!(
            manifests[0]["spec"]["extensions"],
            json!([
                {"pattern": "1", "steps": [
                    {"set": {"name": "__LANG", "value": "de"}},
                    {"label": "top", "background": {"prompts": ["menu"]}},
                    {"waitExten": {"timeout": "2500ms"}},
                    {"goto": {"label": "top"}},
                    {"label": "b", "goto": {"extension": "2"}},
                    {"label": "c", "goto": {"context": "other", "extension": "s", "label": "end"}},
                    {"label": "d", "gosub": {"context": "sub", "extension": "s", "args": ["${EXTEN}", "b"]}}]},
                {"pattern": "h", "steps": [{"return": {"value": "${LANG}"}}]}])
        );
        assert_eq!(notes.len(), 1, "{notes:#?}");
    }

    #[test]
    fn what_has_no_form_here_is_listed() {
        for (text, line, word) in [
            ("[general]\nstatic=yes\n", 2, "static=yes"),
            ("[globals]\nTRUNK=PJSIP/t\n", 2, "trunk=PJSIP/t"),
            ("[c]\nexten => 1,hint,PJSIP/1\n", 2, "priority hint"),
            ("[c]\nexten => 1,1,Queue(x)\n", 2, "Queue is not supported"),
            ("[c]\nexten => 1,1,Queue(x)\n", 1, "nothing of it"),
            ("[c]\nexten => 1,1(here),Queue(x)\n", 2, "label here"),
            ("[c]\nexten => o,1,Answer()\nsame => n,Hangup()\n", 2, "special extension o"),
            ("[c]\nexten => o,1,Answer()\nsame => n,Hangup()\n", 3, "was not carried over"),
            ("[c]\nexten => 1,1,Goto(2,1)\nsame => n,Hangup()\n", 3, "the step before it leaves"),
            ("[c]\nexten => 1,1,GotoIf($[1]?a:b)\n", 2, "in CEL"),
            ("[c]\nexten => 1,1,Set(A=$[1+1])\n", 2, "expressions"),
            ("[c]\nexten => 1,1,Set(DB(a/b)=1)\n", 2, "can be set"),
            ("[c]\nexten => 1,1,Wait(x)\n", 2, "no number of seconds"),
            ("[c]\nexten => 1,1,Goto(1,5)\n", 2, "counts steps"),
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
