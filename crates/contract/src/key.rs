//! The installation's key: what flow tokens, branches, nonces and hops are authenticated by.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a truncated MAC in a token.
pub const MAC_LEN: usize = 12;

/// One key of 32 random bytes, with the small number that tokens name it by. Redacted in `Debug`, zeroed when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct InstallationKey {
    /// Names the key in tokens, so that a rotation with overlap knows which one to check with.
    pub id: u8,
    bytes: [u8; 32],
}

impl InstallationKey {
    /// A key of these bytes.
    pub fn new(id: u8, bytes: [u8; 32]) -> Self {
        Self { id, bytes }
    }

    /// The raw bytes, for what derives from the key (nonces) or keeps it (the state folder).
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// HMAC-SHA-256, truncated, over `parts` with their lengths, under a purpose that separates uses of one key.
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; MAC_LEN] {
        let mut out = [0; MAC_LEN];
        // A key of any length is accepted by HMAC, so this never fails.
        if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.bytes) {
            for part in std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()) {
                mac.update(&(part.len() as u64).to_be_bytes());
                mac.update(part);
            }
            out.copy_from_slice(&mac.finalize().into_bytes()[..MAC_LEN]);
        }
        out
    }
}

impl fmt::Debug for InstallationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstallationKey({}, redacted)", self.id)
    }
}

/// The current key and those that are accepted beside it while keys are rotated. It can be replaced while it is in use:
/// who makes something by the current key takes that once, and names it by the same.
pub struct KeyRing {
    keys: RwLock<Arc<Keys>>,
}

#[derive(Debug, Clone)]
struct Keys {
    current: Arc<InstallationKey>,
    accepted: Vec<Arc<InstallationKey>>,
    /// How often they were replaced.
    generation: u64,
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &Arc<InstallationKey>> {
        std::iter::once(&self.current).chain(&self.accepted)
    }
}

impl KeyRing {
    /// A ring with one key.
    pub fn new(current: InstallationKey) -> Self {
        Self::of(Keys { current: Arc::new(current), accepted: Vec::new(), generation: 0 })
    }

    fn of(keys: Keys) -> Self {
        Self { keys: RwLock::new(Arc::new(keys)) }
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same ring that also accepts `key`.
    pub fn accepting(self, key: InstallationKey) -> Self {
        let mut keys = self.keys().as_ref().clone();
        keys.accepted.push(Arc::new(key));
        Self::of(keys)
    }

    /// Has the keys of another ring from now on; false if they are the same.
    pub fn replace(&self, other: &KeyRing) -> bool {
        let new = other.keys();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let said = |key: &Arc<InstallationKey>| (key.id, key.bytes);
        let changed = keys.all().map(said).ne(new.all().map(said));
        if changed {
            *keys = Arc::new(Keys { generation: keys.generation + 1, ..new.as_ref().clone() });
        }
        changed
    }

    /// Another number after each replacement: what was derived from the keys is to be derived anew.
    pub fn generation(&self) -> u64 {
        self.keys().generation
    }

    /// The key that new tokens are made with.
    pub fn current(&self) -> Arc<InstallationKey> {
        self.keys().current.clone()
    }

    /// All accepted keys, the current one first.
    pub fn all(&self) -> Vec<Arc<InstallationKey>> {
        self.keys().all().cloned().collect()
    }

    /// True if `mac` is that of `parts` under the key with this number. Compared in constant time.
    pub fn verify(&self, id: u8, purpose: &str, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.keys().all().filter(|k| k.id == id).any(|k| same(&k.mac(purpose, parts), mac))
    }
}

impl Clone for KeyRing {
    /// A ring of the keys of now: it is not replaced with this one.
    fn clone(&self) -> Self {
        Self::of(self.keys().as_ref().clone())
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.keys().all().map(|key| key.id).collect();
        write!(f, "KeyRing({ids:?}, redacted)")
    }
}

/// Constant-time comparison.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |d, (x, y)| d | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_binds_key_purpose_and_the_borders_of_parts() {
        let ring = KeyRing::new(InstallationKey::new(2, [1; 32])).accepting(InstallationKey::new(1, [9; 32]));
        let mac = ring.current().mac("flow", &[b"ab", b"c"]);
        assert!(ring.verify(2, "flow", &[b"ab", b"c"], &mac));
        assert!(!ring.verify(2, "flow", &[b"a", b"bc"], &mac));
        assert!(!ring.verify(2, "hop", &[b"ab", b"c"], &mac));
        assert!(!ring.verify(1, "flow", &[b"ab", b"c"], &mac));
        assert!(!ring.verify(2, "flow", &[b"ab", b"c"], &mac[..4]));
        let old = InstallationKey::new(1, [9; 32]).mac("flow", &[b"x"]);
        assert!(ring.verify(1, "flow", &[b"x"], &old));
        assert_eq!(format!("{ring:?}"), "KeyRing([2, 1], redacted)");
    }

    #[test]
    fn a_ring_is_replaced_under_who_uses_it() {
        let (old, new) = (InstallationKey::new(1, [1; 32]), InstallationKey::new(2, [2; 32]));
        let ring = KeyRing::new(old.clone());
        let mac = ring.current().mac("flow", &[b"x"]);
        assert!(!ring.replace(&KeyRing::new(old.clone())), "the same");
        assert!(ring.replace(&KeyRing::new(old.clone()).accepting(new.clone())));
        assert_eq!((ring.current().id, ring.generation()), (1, 1));
        assert!(ring.replace(&KeyRing::new(new.clone()).accepting(old)));
        assert_eq!((ring.current().id, ring.generation()), (2, 2));
        assert!(ring.verify(1, "flow", &[b"x"], &mac));
        assert!(ring.replace(&KeyRing::new(new)));
        assert!(!ring.verify(1, "flow", &[b"x"], &mac));
    }
}
