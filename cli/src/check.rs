//! `kubepbx check`: the cluster's judgement, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use api::{Folder, Problem};

use crate::files;

/// Judges manifests (files or folders) as the API server and the operator would together. One line a problem on stderr,
/// `file:line: kind/name field: message`; success when there is none.
pub fn run(paths: &[PathBuf]) -> ExitCode {
    match judge(paths) {
        Ok((problems, good)) if problems.is_empty() => {
            println!("{good}");
            ExitCode::SUCCESS
        }
        Ok((problems, _)) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong, and what to say when nothing is.
fn judge(paths: &[PathBuf]) -> anyhow::Result<(Vec<Problem>, String)> {
    let files = files::read(paths)?;
    let mut folder = Folder::new(1);
    let problems = folder.load(&files).problems;
    Ok((problems, format!("{} resources in {} files: good", folder.compiler().statuses().len(), files.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::verdicts::{self, Verdict};

    #[test]
    fn the_table_of_verdicts() {
        let folder = tempfile::tempdir().unwrap();
        let table = verdicts::table().unwrap();
        let (good, bad): (Vec<_>, Vec<_>) = table.iter().partition(|case| case.verdict == Verdict::Good);
        for (number, case) in good.iter().enumerate() {
            std::fs::write(folder.path().join(format!("good-{number}.json")), case.object.to_string()).unwrap();
        }
        let judge = || judge(&[folder.path().to_owned()]).unwrap().0;
        assert_eq!(judge(), []);
        let file = folder.path().join("bad.json");
        for case in bad {
            std::fs::write(&file, case.object.to_string()).unwrap();
            let want = match &case.verdict {
                Verdict::Good => continue,
                Verdict::Rejected { field, message } => format!("bad.json:1: {} {field}: {message}", case.id),
                // A condition's message begins with the field.
                Verdict::False { message, .. } => format!("bad.json:1: {} {message}", case.id),
            };
            let said: Vec<_> = judge().iter().map(ToString::to_string).collect();
            assert!(said.len() == 1 && said[0].ends_with(&want), "{want}: {said:?}");
        }
    }
}
