//! `kubepbx import`: Asterisk's and Kamailio's configuration as manifests.
//!
//! Manifests go to stdout. What could not be carried over is listed on stderr with its file and line, so that nothing is
//! dropped silently; the result is judged as `kubepbx check` would, and what that finds is listed too.

mod dispatcher;
mod extensions;
mod ini;
mod pjsip;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use api::folder::Folder;
use api::manifests::Source;
use serde_json::{Value, json};

/// What to import.
#[derive(Debug, clap::Subcommand)]
pub enum ImportCommand {
    /// Phones, trunks and contexts of Asterisk
    Asterisk {
        /// pjsip.conf
        #[arg(long, value_name = "FILE")]
        pjsip: PathBuf,
        /// extensions.conf
        #[arg(long, value_name = "FILE")]
        extensions: PathBuf,
    },
    /// Destination sets of Kamailio
    Kamailio {
        /// dispatcher.list
        #[arg(long, value_name = "FILE")]
        dispatcher: PathBuf,
        /// Put the (first) set in front of all calls: write a match for every number
        #[arg(long)]
        front: bool,
    },
}

/// Reads the files, prints manifests on stdout and what was not carried over on stderr. Succeeds unless a file cannot be
/// read: what is lost is for the reader to judge.
pub fn run(from: ImportCommand) -> ExitCode {
    let imported = match from {
        ImportCommand::Asterisk { pjsip, extensions } => {
            read(&pjsip).and_then(|pjsip| Ok(asterisk(&pjsip, &read(&extensions)?)))
        }
        ImportCommand::Kamailio { dispatcher, front } => {
            read(&dispatcher).map(|source| finish(dispatcher::import(&source, front)))
        }
    };
    let (text, notes) = match imported {
        Ok(imported) => imported,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    notes.iter().for_each(|note| eprintln!("{note}"));
    print!("{text}");
    ExitCode::SUCCESS
}

fn read(path: &Path) -> anyhow::Result<Source> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| name.clone())?;
    // Old files are often Latin-1; a wrong letter in a comment is no reason to stop.
    Ok(Source { name, text: String::from_utf8_lossy(&bytes).into_owned() })
}

fn asterisk(pjsip: &Source, extensions: &Source) -> (String, Vec<Note>) {
    let mut imported = pjsip::import(pjsip);
    let contexts = extensions::import(extensions);
    imported.manifests.extend(contexts.manifests);
    imported.notes.extend(contexts.notes);
    finish(imported)
}

/// Manifests and what was not carried over.
#[derive(Debug, Default)]
struct Imported {
    manifests: Vec<Value>,
    notes: Vec<Note>,
}

/// Something to know about the import, with the line that it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    file: String,
    line: usize,
    text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// Writes the manifests out and judges them.
fn finish(imported: Imported) -> (String, Vec<Note>) {
    let Imported { manifests, mut notes } = imported;
    notes.sort();
    // A line of a template counts once, however many sections use it.
    notes.dedup();
    let mut text = String::new();
    for manifest in &manifests {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        // What json! made can always be written.
        text.push_str(&serde_yaml::to_string(manifest).unwrap_or_default());
    }
    let result = Source { name: "the manifests".into(), text };
    let found = Folder::new(1).load(std::slice::from_ref(&result)).problems;
    notes.extend(found.into_iter().map(|problem| Note {
        file: problem.file,
        line: usize::try_from(problem.line).unwrap_or(0),
        text: format!("{} {}: {}", problem.resource, problem.field, problem.message),
    }));
    (result.text, notes)
}

/// Finds names that Kubernetes allows, none twice.
#[derive(Debug, Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// metadata and, where the name itself is not allowed there, what goes to spec.name.
    fn metadata(&mut self, name: &str) -> (Value, Option<String>) {
        let legal = self.legal(name);
        let own = (legal != name).then(|| name.to_owned());
        (json!({ "name": legal }), own)
    }

    fn legal(&mut self, name: &str) -> String {
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
        let spelled: String = name.chars().take(240).map(letter).collect();
        let labels: Vec<&str> =
            spelled.split('.').map(|label| label.trim_matches('-')).filter(|l| !l.is_empty()).collect();
        let base = if labels.is_empty() { "unnamed".to_owned() } else { labels.join(".") };
        let numbered = (2..).map(|n| format!("{base}-{n}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|name| !self.0.contains(name)).unwrap_or(base);
        self.0.insert(free.clone());
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kubernetes_allows() {
        let mut names = Names::default();
        for (name, legal) in [
            ("8005", "8005"),
            ("Trunk_In", "trunk-in"),
            ("trunk-in", "trunk-in-2"),
            ("TRUNK.In", "trunk.in"),
            ("_x_", "x"),
            ("a..b", "a.b"),
            ("---", "unnamed"),
            ("é", "unnamed-2"),
        ] {
            let got = names.legal(name);
            assert_eq!(got, legal, "{name}");
            assert!(api::manifests::is_dns_subdomain(&got));
        }
        assert_eq!(names.metadata("8006"), (json!({"name": "8006"}), None));
        assert_eq!(names.metadata("Out"), (json!({"name": "out"}), Some("Out".into())));
    }

    fn example(name: &str) -> Source {
        read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/import").join(name)).unwrap()
    }

    /// The files of a hand-built call centre: two phones, one pattern.
    #[test]
    fn two_phones_and_a_pattern() {
        let pjsip = Source { name: "pjsip.conf".into(), text: SEED_PJSIP.into() };
        let extensions = "[from-external]\nexten => _80XX,1,NoOp()\nsame => n,Dial(PJSIP/${EXTEN})\n";
        let extensions = Source { name: "extensions.conf".into(), text: extensions.into() };
        let (text, notes) = asterisk(&pjsip, &extensions);
        let mut folder = Folder::new(1);
        let update = folder.load(&[Source { name: "out".into(), text: text.clone() }]);
        assert_eq!(update.problems, [], "{text}");
        let registrar = folder.compiler().registrar();
        assert!(
            registrar.entries.contains_key("PbxEndpoint/8005") && registrar.entries.contains_key("PbxEndpoint/8006")
        );
        let notes: Vec<String> = notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 2, "{notes:#?}");
        assert!(notes[0].contains("pjsip.conf:1:") && notes[0].contains("--sip 0.0.0.0:5061"), "{notes:#?}");
        assert!(notes[1].contains("pjsip.conf:11:") && notes[1].contains("transport"), "{notes:#?}");
    }

    const SEED_PJSIP: &str = "[transport-udp]\ntype=transport\nprotocol=udp\nbind=0.0.0.0:5061\n\n\
        [8005]\ntype=endpoint\ncontext=from-external\ndisallow=all\nallow=ulaw\ntransport=transport-udp\nauth=8005\naors=8005\n\n\
        [8005]\ntype=auth\nauth_type=userpass\npassword=secret5\nusername=8005\n\n[8005]\ntype=aor\nmax_contacts=1\n\n\
        [8006]\ntype=endpoint\ncontext=from-external\nauth=8006\naors=8006\nallow=alaw,ulaw\n\n\
        [8006]\ntype=auth\npassword=secret6\nusername=8006\n\n[8006]\ntype=aor\nmax_contacts=2\n";

    #[test]
    fn the_examples_are_good_after_import() {
        let (text, notes) = asterisk(&example("pjsip.conf"), &example("extensions.conf"));
        let problems = Folder::new(1).load(&[Source { name: "out".into(), text: text.clone() }]).problems;
        assert_eq!(problems, [], "{text}");
        // Whatever could not be carried over has a line in one of the two files.
        assert!(notes.iter().all(|note| note.line > 0 && note.file.contains("examples/import")), "{notes:#?}");

        for (front, entries) in [(false, 0), (true, 1)] {
            let (text, notes) = finish(dispatcher::import(&example("dispatcher.list"), front));
            assert_eq!(
                Folder::new(1).load(&[Source { name: "out".into(), text: text.clone() }]).problems,
                [],
                "{text}"
            );
            assert_eq!(text.matches("match:").count(), entries, "{text}");
            assert_eq!(notes.iter().any(|note| note.text.contains("takes no calls")), !front, "{notes:#?}");
        }
    }
}
