//! Asterisk's configuration files: sections, templates, comments, includes.

use super::Note;
use api::manifests::Source;

/// A line `key = value`, `key => value` or `key += value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) line: usize,
}

/// A section that is no template, with what its templates say in front of what it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) settings: Vec<Setting>,
}

impl Section {
    /// The last value of a key: later ones win.
    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|setting| setting.key == key)
    }
}

/// Reads a file. Keys come in lower case. What cannot be read is noted.
pub(super) fn read(source: &Source, notes: &mut Vec<Note>) -> Vec<Section> {
    let mut sections: Vec<(Section, bool)> = Vec::new();
    let mut in_comment = false;
    for (at, raw) in source.text.lines().enumerate() {
        let line = at + 1;
        let mut note = |text: String| notes.push(Note { file: source.name.clone(), line, text });
        let text = uncomment(raw, &mut in_comment);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        if let Some(directive) = text.strip_prefix('#') {
            let name = directive.split_whitespace().next().unwrap_or_default();
            note(match name {
                "include" | "tryinclude" => format!("{text}: not read: import the files together, as one"),
                _ => format!("{text}: not run"),
            });
        } else if text.starts_with('[') {
            match header(text) {
                None => note(format!("{text}: not a section")),
                Some((name, options)) => begin(&mut sections, name, &options, line, &mut note),
            }
        } else {
            let Some((key, value)) = setting(text) else {
                note(format!("{text}: not a setting"));
                continue;
            };
            match sections.last_mut() {
                Some((section, _)) => section.settings.push(Setting { key, value, line }),
                None => note(format!("{text}: stands before the first section, not carried over")),
            }
        }
    }
    if in_comment {
        let line = source.text.lines().count();
        notes.push(Note { file: source.name.clone(), line, text: "a comment begun with ;-- is never ended".into() });
    }
    sections.into_iter().filter(|(_, template)| !template).map(|(section, _)| section).collect()
}

/// Opens a section with what its options say: `!` a template, `+` more of the one before, else names of templates.
fn begin(
    sections: &mut Vec<(Section, bool)>,
    name: String,
    options: &[String],
    line: usize,
    note: &mut dyn FnMut(String),
) {
    if options.iter().any(|option| option == "+") {
        // The settings that follow belong to it, so it goes to the end.
        match sections.iter().rposition(|(section, _)| section.name == name) {
            Some(at) => {
                let section = sections.remove(at);
                sections.push(section);
            }
            None => {
                note(format!("[{name}](+): there is no section of this name before it"));
                sections.push((Section { name, line, settings: Vec::new() }, false));
            }
        }
        return;
    }
    let mut settings = Vec::new();
    for template in options.iter().filter(|option| *option != "!") {
        match sections.iter().rev().find(|(section, _)| section.name == *template) {
            Some((section, _)) => settings.extend(section.settings.iter().cloned()),
            None => note(format!("[{name}]: there is no template {template} before it")),
        }
    }
    let template = options.iter().any(|option| option == "!");
    sections.push((Section { name, line, settings }, template));
}

/// `[name](options)`.
fn header(text: &str) -> Option<(String, Vec<String>)> {
    let (name, rest) = text.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim();
    let options = match rest.strip_prefix('(') {
        None => Vec::new(),
        Some(inside) => inside.split_once(')')?.0.split(',').map(|o| o.trim().to_owned()).collect(),
    };
    (!name.is_empty()).then(|| (name.trim().to_owned(), options))
}

fn setting(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let value = value.strip_prefix('>').unwrap_or(value);
    let key = key.trim().trim_end_matches('+').trim();
    (!key.is_empty()).then(|| (key.to_ascii_lowercase(), value.trim().to_owned()))
}

/// A line without its comments. `;` begins one unless a backslash stands before it; `;--` begins one that `--;` ends,
/// also lines later (`;---` is a plain one).
fn uncomment(line: &str, in_comment: &mut bool) -> String {
    let mut out = String::new();
    let mut rest = line;
    loop {
        if *in_comment {
            match rest.find("--;") {
                None => return out,
                Some(at) => {
                    *in_comment = false;
                    rest = &rest[at + 3..];
                }
            }
        }
        let Some(at) = rest.find(';') else {
            out.push_str(rest);
            return out;
        };
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('\\') {
            out.push_str(before);
            out.push(';');
            rest = &from[1..];
        } else {
            out.push_str(before);
            if !from.starts_with(";--") || from.starts_with(";---") {
                return out;
            }
            *in_comment = true;
            rest = &from[3..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Vec<Section>, Vec<String>) {
        let mut notes = Vec::new();
        let sections = read(&Source { name: "f".into(), text: text.into() }, &mut notes);
        (sections, notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn comments() {
        let text = "[a] ; one\nk = v;x\np=a\\;b ; c\n;-- k = no\nk = no --; q = r\n;--- plain\nz => 1 ;-- in --; 2\n";
        let (sections, notes) = parse(text);
        let settings: Vec<_> =
            sections[0].settings.iter().map(|s| (s.key.as_str(), s.value.as_str(), s.line)).collect();
        assert_eq!(settings, [("k", "v", 2), ("p", "a;b", 3), ("q", "r", 5), ("z", "1  2", 7)]);
        assert_eq!(notes, [""; 0]);
        assert_eq!(parse("[a]\n;-- open\nk=v\n").1, ["f:3: a comment begun with ;-- is never ended"]);
    }

    #[test]
    fn templates() {
        let text = "[base](!)\nallow = ulaw\nContext=in\n[more](!,base)\nallow=alaw\n[8005](more)\ncontext=own\n[8006](base,none)\n[8005](+)\nx=y\n";
        let (sections, notes) = parse(text);
        assert_eq!(sections.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["8006", "8005"]);
        let phone = &sections[1];
        assert_eq!((phone.get("context").unwrap().value.as_str(), phone.get("x").unwrap().line), ("own", 10));
        let allow: Vec<_> = phone.settings.iter().filter(|s| s.key == "allow").map(|s| s.value.as_str()).collect();
        assert_eq!(allow, ["ulaw", "alaw"]);
        assert_eq!(notes, ["f:8: [8006]: there is no template none before it"]);
    }

    #[test]
    fn what_cannot_be_read_is_noted() {
        let (_, notes) = parse("k=v\n#include \"x.conf\"\n#exec ls\n[a\n[b]\nnonsense\n[c](+)\n");
        let lines: Vec<_> = notes.iter().map(|note| note.split(':').nth(1).unwrap()).collect();
        assert_eq!(lines, ["1", "2", "3", "4", "6", "7"], "{notes:#?}");
    }
}
