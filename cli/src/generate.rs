//! `kubepbx generate`: the CustomResourceDefinitions as files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// Change nothing: fail when a folder holds anything else
    #[arg(long)]
    check: bool,
    /// The folders, such as crds
    #[arg(required = true)]
    folders: Vec<PathBuf>,
}

/// Writes the definitions into each folder, or compares; files that are none of them are removed, or reported.
pub fn run(args: &GenerateArgs) -> ExitCode {
    let all = args.folders.iter().map(|folder| differences(folder, args.check)).collect::<anyhow::Result<Vec<_>>>();
    match all.map(|lists| lists.concat()) {
        Ok(differing) if args.check && !differing.is_empty() => {
            differing.iter().for_each(|file| eprintln!("{} is not what `make generate` writes", file.display()));
            ExitCode::FAILURE
        }
        Ok(differing) => {
            differing.iter().for_each(|file| println!("{}", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The files that differ from what is generated; unless only asked to check, they are put right.
fn differences(folder: &Path, check: bool) -> anyhow::Result<Vec<PathBuf>> {
    let wanted = api::crds::files()?;
    let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    if !check {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut differing = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(name));
        if !ours && path.extension().is_some_and(|extension| extension == "yaml") {
            if !check {
                std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
            differing.push(path);
        }
    }
    for (name, text) in &wanted {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).ok().as_ref() != Some(text) {
            if !check {
                std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            }
            differing.push(path);
        }
    }
    Ok(differing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_compares_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("crds");
        let written = differences(&folder, false).unwrap();
        assert_eq!(written.len(), 4);
        assert!(differences(&folder, true).unwrap().is_empty());
        std::fs::write(folder.join("old.yaml"), "x").unwrap();
        std::fs::write(&written[0], "edited").unwrap();
        assert_eq!(differences(&folder, true).unwrap().len(), 2);
        differences(&folder, false).unwrap();
        assert!(differences(&folder, true).unwrap().is_empty() && !folder.join("old.yaml").exists());
    }
}
