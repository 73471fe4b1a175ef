//! The state folder: small files that survive a restart, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Makes the folder (mode 0700) unless it is there.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces `path` by `contents` with mode 0600: a temporary file beside it, synced, then renamed over it. After a
/// crash either the old or the new contents stand there.
pub fn write_atomic(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temp = path.with_extension("tmp");
    let _ = fs::remove_file(&temp);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    file.write_all(contents)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temp, path)?;
    // The rename itself is durable once the folder is synced.
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Renames a file that cannot be read to `<name>.corrupt-<n>`, the first n that is free, and returns that path.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    for n in 1..=10_000 {
        let aside = path.with_file_name(format!("{name}.corrupt-{n}"));
        if !aside.try_exists()? {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("too many set-aside copies of {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bindings.json");
        write_atomic(&path, b"one").unwrap();
        // A left-over of a crash does not stop the next write.
        fs::write(dir.path().join("bindings.tmp"), b"half").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn set_aside_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        for text in ["a", "b"] {
            fs::write(&path, text).unwrap();
            set_aside(&path).unwrap();
        }
        assert_eq!(fs::read(dir.path().join("f.corrupt-1")).unwrap(), b"a");
        assert_eq!(fs::read(dir.path().join("f.corrupt-2")).unwrap(), b"b");
        assert!(!path.exists());
    }
}
