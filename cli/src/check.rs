//! `kubepbx check`: the cluster's judgement, offline.

use std::path::PathBuf;
use std::process::ExitCode;

use api::folder::Folder;

use crate::files;

/// Judges manifests (files or folders) as the API server and the operator would together. One line a problem on stderr,
/// `file:line: kind/name field: message`; success when there is none.
pub fn run(paths: &[PathBuf]) -> ExitCode {
    let files = match files::read(paths) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut folder = Folder::new(1);
    let update = folder.load(&files);
    update.problems.iter().for_each(|problem| eprintln!("{problem}"));
    if update.problems.is_empty() {
        println!("{} resources in {} files: good", folder.compiler().statuses().len(), files.len());
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
