//! The installation's keys: a file in the state folder, or a mounted Secret, which may change.

use crate::state;
use anyhow::Context;
use contract::{InstallationKey, KeyRing};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often a file that another writes is read. A kubelet takes up to two minutes to bring a changed Secret.
const LOOK: Duration = Duration::from_secs(5);

/// The file's name in the state folder.
pub const FILE: &str = "keys.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    schema: u32,
    current: StoredKey,
    /// Accepted already, to be the current one when all processes accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<StoredKey>,
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
    serde_json::to_vec_pretty(&Stored { schema: 1, current: made(1), next: None, previous: Vec::new() })
}

/// The text of a file after one more step of a rotation, and whether that ended it. The first step adds a new key, which
/// is accepted from then on; the second, when all processes have read that, makes it the current one and accepts the one
/// before, until the next rotation.
///
/// # Errors
/// A text that holds no keys.
pub fn rotate(text: &[u8]) -> anyhow::Result<(Vec<u8>, bool)> {
    let mut stored = stored(text)?;
    let ended = match stored.next.take() {
        None => {
            stored.next = Some(made(stored.current.id.checked_add(1).unwrap_or(1)));
            false
        }
        Some(next) => {
            stored.previous = vec![std::mem::replace(&mut stored.current, next)];
            true
        }
    };
    Ok((serde_json::to_vec_pretty(&stored)?, ended))
}

fn made(id: u8) -> StoredKey {
    StoredKey { id, key: to_hex(random().current().bytes()) }
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

/// Has `ring` follow the keys in `dir/keys.json`, which another writes: a mounted Secret. A file that is gone or cannot be
/// understood changes nothing. Goes on until it is dropped.
pub async fn follow(dir: PathBuf, ring: Arc<KeyRing>) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        tokio::time::sleep(LOOK).await;
        match reread(&dir, &ring) {
            Ok(()) => told = false,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(error = format!("{error:#}"), "the keys cannot be read: going on with those of before");
            }
            Err(_) => {}
        }
    }
}

fn reread(dir: &Path, ring: &KeyRing) -> anyhow::Result<()> {
    if ring.replace(&load(dir)?) {
        tracing::info!(keys = ?ring, "the installation's keys were rotated");
    }
    Ok(())
}

fn stored(text: &[u8]) -> anyhow::Result<Stored> {
    // The error of serde_json would quote the text, and the text is secret.
    let stored: Stored = serde_json::from_slice(text).map_err(|e| anyhow::anyhow!("line {}: not valid", e.line()))?;
    anyhow::ensure!(stored.schema == 1, "schema {} is not known", stored.schema);
    Ok(stored)
}

fn parse(text: &[u8]) -> anyhow::Result<KeyRing> {
    let stored = stored(text)?;
    let key = |k: &StoredKey| from_hex(&k.key).map(|b| InstallationKey::new(k.id, b)).context("not 64 hex digits");
    let mut ring = KeyRing::new(key(&stored.current)?);
    for other in stored.next.iter().chain(&stored.previous) {
        ring = ring.accepting(key(other)?);
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
        assert_eq!(ring.all().iter().map(|k| (k.id, k.bytes()[0])).collect::<Vec<_>>(), [(2, 0xab), (1, 0xcd)]);
    }

    #[test]
    fn a_rotation_takes_two_steps_and_those_that_are_a_step_apart_understand_one_another() {
        let mut texts = vec![fresh().unwrap()];
        for ended in [false, true, false, true] {
            let (text, done) = rotate(texts.last().unwrap()).unwrap();
            assert_eq!(done, ended);
            texts.push(text);
        }
        let rings: Vec<KeyRing> = texts.iter().map(|text| parse(text).unwrap()).collect();
        let understands = |reader: &KeyRing, writer: &KeyRing| {
            let key = writer.current();
            reader.verify(key.id, "flow", &[b"x"], &key.mac("flow", &[b"x"]))
        };
        for pair in rings.windows(2) {
            assert!(understands(&pair[0], &pair[1]) && understands(&pair[1], &pair[0]));
        }
        assert!(understands(&rings[3], &rings[0]), "what was sealed before lasts until the next rotation ends");
        assert!(!understands(&rings[4], &rings[0]) && !understands(&rings[0], &rings[2]));
        assert_eq!(rings.iter().map(|ring| ring.all().len()).collect::<Vec<_>>(), [1, 2, 2, 3, 2]);
        assert!(rotate(b"{}").is_err());
    }

    #[test]
    fn keys_that_are_mounted_are_read_again_and_a_broken_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let write = |text: &[u8]| fs::write(&path, text).unwrap();
        let first = fresh().unwrap();
        write(&first);
        let ring = load(dir.path()).unwrap();
        let now = |ring: &KeyRing| (ring.current().id, ring.all().len(), ring.generation());
        reread(dir.path(), &ring).unwrap();
        assert_eq!(now(&ring), (1, 1, 0));
        let announced = rotate(&first).unwrap().0;
        write(&announced);
        reread(dir.path(), &ring).unwrap();
        assert_eq!(now(&ring), (1, 2, 1));
        write(b"{");
        assert!(reread(dir.path(), &ring).is_err());
        fs::remove_file(&path).unwrap();
        assert!(reread(dir.path(), &ring).is_err());
        assert_eq!(now(&ring), (1, 2, 1));
        write(&rotate(&announced).unwrap().0);
        reread(dir.path(), &ring).unwrap();
        assert_eq!(now(&ring), (2, 2, 2));
    }
}
