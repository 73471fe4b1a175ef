//! Where `serve` keeps bindings and keys.

use anyhow::Context;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// The folder that `--state` names; `None` for `none`. Without the option, one below the user's state folder
/// (XDG_STATE_HOME, else ~/.local/state) that belongs to the first path served, so that two PBXs do not share one.
pub fn folder(option: Option<&str>, first_path: &Path) -> anyhow::Result<Option<PathBuf>> {
    match option {
        Some("none") => Ok(None),
        Some(dir) => Ok(Some(dir.into())),
        None => {
            let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
            let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
            let base = base.or_else(home).context("no HOME to keep state in: give --state DIR or --state none")?;
            let path = first_path.canonicalize().with_context(|| first_path.display().to_string())?;
            let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let hash: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
            Ok(Some(base.join("kubepbx").join(format!("{name}-{hash}"))))
        }
    }
}
