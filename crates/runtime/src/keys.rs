//! The installation's keys in the state folder.

use crate::state;
use anyhow::Context;
use contract::{InstallationKey, KeyRing};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The file's name in the state folder.
pub const FILE: &str = "keys.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    current: StoredKey,
    #[serde(default)]
    previous: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    id: u8,
    /// 64 hexadecimal digits.
    key: String,
}

/// A ring with one new random key.
pub fn random() -> KeyRing {
    let mut bytes = [0; 32];
    crate::entropy().fill_bytes(&mut bytes);
    KeyRing::new(InstallationKey::new(1, bytes))
}

/// The text of a file with one new random key.
///
/// # Errors
/// When it cannot be written as JSON, which its type rules out.
pub fn fresh() -> serde_json::Result<Vec<u8>> {
    let ring = random();
    let key = StoredKey { id: ring.current().id, key: to_hex(ring.current().bytes()) };
    serde_json::to_vec_pretty(&Stored { schema: 1, current: key, previous: Vec::new() })
}

/// The keys in `dir/keys.json`; made (mode 0600) if there is no such file. A file that cannot be understood is an
/// error and stays as it is: with other keys every phone's Path would be void.
pub fn load_or_make(dir: &Path) -> anyhow::Result<KeyRing> {
    state::make_dir(dir).with_context(|| format!("state folder {}", dir.display()))?;
    let path = dir.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let text = fresh()?;
            state::write_atomic(&path, &text).with_context(|| format!("{} cannot be written", path.display()))?;
            return parse(&text);
        }
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "keys were readable by others; mode set to 600");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    parse(&text).with_context(|| format!("{} holds no keys; move it away to have new ones made", path.display()))
}

/// The keys in `dir/keys.json`, which another made: a mounted Secret. Nothing is written.
pub fn load(dir: &Path) -> anyhow::Result<KeyRing> {
    let path = dir.join(FILE);
    let text = fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&text).with_context(|| format!("{} holds no keys", path.display()))
}

fn parse(text: &[u8]) -> anyhow::Result<KeyRing> {
    // The error of serde_json would quote the text, and the text is secret.
    let stored: Stored = serde_json::from_slice(text).map_err(|e| anyhow::anyhow!("line {}: not valid", e.line()))?;
    anyhow::ensure!(stored.schema == 1, "schema {} is not known", stored.schema);
    let key = |k: &StoredKey| from_hex(&k.key).map(|b| InstallationKey::new(k.id, b)).context("not 64 hex digits");
    let mut ring = KeyRing::new(key(&stored.current)?);
    for old in &stored.previous {
        ring = ring.accepting(key(old)?);
    }
    Ok(ring)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_restart_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let one = load_or_make(&state).unwrap();
        let path = state.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let read = load(&state).unwrap();
        assert_eq!(one.current().bytes(), read.current().bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(load(dir.path()).is_err() && !dir.path().join(FILE).exists());
        let two = load_or_make(&state).unwrap();
        assert_eq!(one.current().bytes(), two.current().bytes());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_ne!(random().current().bytes(), one.current().bytes());
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it_and_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for text in
            ["", "{", r#"{"schema":1,"current":{"id":1,"key":"zz"}}"#, r#"{"schema":9,"current":{"id":1,"key":""}}"#]
        {
            fs::write(&path, text).unwrap();
            let error = format!("{:#}", load_or_make(dir.path()).unwrap_err());
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn previous_keys_are_accepted() {
        let text = format!(
            r#"{{"schema":1,"current":{{"id":2,"key":"{}"}},"previous":[{{"id":1,"key":"{}"}}]}}"#,
            "ab".repeat(32),
            "cd".repeat(32)
        );
        let ring = parse(text.as_bytes()).unwrap();
        assert_eq!(ring.all().map(|k| (k.id, k.bytes()[0])).collect::<Vec<_>>(), [(2, 0xab), (1, 0xcd)]);
    }
}
