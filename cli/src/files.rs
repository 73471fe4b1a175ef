//! Manifest files as the command line names them.

use anyhow::{Context, bail};
use api::manifests::Source;
use std::path::{Path, PathBuf};

/// Files larger than this are refused: no manifest is.
const MAX_BYTES: u64 = 16 << 20;

/// Reads files and, of folders, what ends in .yaml, .yml or .json (not in folders below), sorted by name, as
/// `kubectl apply -f` does. Fails when a path cannot be read or nothing is found at all.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    let mut files = Vec::new();
    for path in paths {
        let meta = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        if meta.is_dir() {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
                let entry = entry.with_context(|| path.display().to_string())?.path();
                if is_manifest(&entry) && entry.is_file() {
                    found.push(entry);
                }
            }
            found.sort();
            files.extend(found);
        } else {
            files.push(path.clone());
        }
    }
    if files.is_empty() {
        let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
        bail!("{}: no manifests (files ending in .yaml, .yml or .json)", names.join(", "));
    }
    files.iter().map(|file| read_one(file)).collect()
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
    !hidden && path.extension().is_some_and(|e| ["yaml", "yml", "json"].iter().any(|x| e == *x))
}

fn read_one(path: &Path) -> anyhow::Result<Source> {
    let name = path.display().to_string();
    let length = std::fs::metadata(path).with_context(|| name.clone())?.len();
    if length > MAX_BYTES {
        bail!("{name}: {length} bytes is more than a manifest can have");
    }
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    Ok(Source { name, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_manifests_sorted_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.txt", ".hidden.yaml"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        std::fs::create_dir(dir.path().join("d.yaml")).unwrap();
        let got: Vec<String> = read(&[dir.path().to_owned()]).unwrap().into_iter().map(|s| s.text).collect();
        assert_eq!(got, ["a.yml", "b.yaml"]);
        assert!(read(&[dir.path().join("none")]).unwrap_err().to_string().contains("none"));
        assert!(read(&[dir.path().join("d.yaml")]).unwrap_err().to_string().contains("no manifests"));
    }
}
