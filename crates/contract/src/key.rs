//! The installation's key: what flow tokens, branches, nonces and hops are authenticated by.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
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

/// The current key and those still accepted during a rotation.
#[derive(Debug, Clone)]
pub struct KeyRing {
    current: InstallationKey,
    previous: Vec<InstallationKey>,
}

impl KeyRing {
    /// A ring with one key.
    pub fn new(current: InstallationKey) -> Self {
        Self { current, previous: Vec::new() }
    }

    /// The same ring that also accepts `key`.
    pub fn accepting(mut self, key: InstallationKey) -> Self {
        self.previous.push(key);
        self
    }

    /// The key that new tokens are made with.
    pub fn current(&self) -> &InstallationKey {
        &self.current
    }

    /// All accepted keys, the current one first.
    pub fn all(&self) -> impl Iterator<Item = &InstallationKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// True if `mac` is that of `parts` under the key with this number. Compared in constant time.
    pub fn verify(&self, id: u8, purpose: &str, parts: &[&[u8]], mac: &[u8]) -> bool {
        self.all().filter(|k| k.id == id).any(|k| same(&k.mac(purpose, parts), mac))
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
        assert!(!format!("{ring:?}").contains("1, 1"));
    }
}
