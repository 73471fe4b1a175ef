//! Stateless signed nonces: any process that holds the key can check what another issued.
//!
//! A nonce is hex of: 6 bytes time (ms since the UNIX epoch), 8 bytes random, 12 bytes of HMAC-SHA-256 over a label
//! and the former. It proves that we issued it and when; that it is used once is the store's to hold (the nonce count).

use super::hex;
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;
use std::fmt;
use std::time::Duration;

const TIME: usize = 6;
const RANDOM: usize = 8;
const MAC: usize = 12;
const LABEL: &[u8] = b"digest nonce 1\0";
/// Clocks of two processes may differ this much before a nonce from the future counts as stale.
const SKEW: Duration = Duration::from_secs(30);

/// The judgement on a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Ours and young enough.
    Fresh,
    /// Ours and too old (or from the future): challenge again with `stale=true` if the response was right.
    Stale,
    /// Not ours: challenge again, without stale.
    Forged,
}

/// The key ring: issues with the current key, accepts also the previous ones, so that keys rotate without a challenge storm.
#[derive(Clone)]
pub struct Nonces {
    key: [u8; 32],
    previous: Vec<[u8; 32]>,
}

/// At most this many previous keys are kept.
const MAX_PREVIOUS: usize = 4;

impl Nonces {
    /// A ring of one key.
    pub fn new(key: [u8; 32]) -> Nonces {
        Nonces { key, previous: Vec::new() }
    }

    /// The same ring that also accepts `key`; the oldest beyond four is forgotten.
    pub fn with_previous(mut self, key: [u8; 32]) -> Nonces {
        self.previous.push(key);
        if self.previous.len() > MAX_PREVIOUS {
            self.previous.remove(0);
        }
        self
    }

    /// Makes `key` current; the former current one is accepted on.
    pub fn rotate(&mut self, key: [u8; 32]) {
        self.previous.push(std::mem::replace(&mut self.key, key));
        if self.previous.len() > MAX_PREVIOUS {
            self.previous.remove(0);
        }
    }

    /// A new nonce, 52 hex digits. `wall` is time since the UNIX epoch.
    pub fn issue(&self, wall: Duration, rng: &mut dyn RngCore) -> String {
        let mut bytes = [0u8; TIME + RANDOM + MAC];
        let millis = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
        let (signed, mac) = bytes.split_at_mut(TIME + RANDOM);
        let (time, random) = signed.split_at_mut(TIME);
        time.copy_from_slice(millis.split_at(8 - TIME).1);
        rng.fill_bytes(random);
        if let Some(m) = sign(&self.key, signed) {
            let full = m.finalize().into_bytes();
            mac.copy_from_slice(full.split_at(MAC).0);
        }
        hex(&bytes)
    }

    /// Judges a nonce that a client returned. `max_age` counts from issue.
    pub fn check(&self, nonce: &str, wall: Duration, max_age: Duration) -> Freshness {
        let Some(bytes) = unhex(nonce) else {
            return Freshness::Forged;
        };
        let (signed, mac) = bytes.split_at(TIME + RANDOM);
        let ours = |key: &[u8; 32]| sign(key, signed).is_some_and(|m| m.verify_truncated_left(mac).is_ok());
        if !ours(&self.key) && !self.previous.iter().any(ours) {
            return Freshness::Forged;
        }
        let millis = signed.iter().take(TIME).fold(0u64, |acc, b| acc << 8 | u64::from(*b));
        let issued = Duration::from_millis(millis);
        if wall.saturating_sub(issued) > max_age || issued > wall + SKEW { Freshness::Stale } else { Freshness::Fresh }
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonces({} keys)", 1 + self.previous.len())
    }
}

/// `None` cannot happen: HMAC takes a key of any length.
fn sign(key: &[u8; 32], signed: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).ok()?;
    mac.update(LABEL);
    mac.update(signed);
    Some(mac)
}

fn unhex(text: &str) -> Option<[u8; TIME + RANDOM + MAC]> {
    let mut out = [0u8; TIME + RANDOM + MAC];
    if text.len() != out.len() * 2 {
        return None;
    }
    let mut digits = text.bytes();
    for b in &mut out {
        let mut nibble = || match digits.next()? {
            d @ b'0'..=b'9' => Some(d - b'0'),
            // Upper case is not what we issued; refusing it keeps one nonce one string.
            d @ b'a'..=b'f' => Some(d - b'a' + 10),
            _ => None,
        };
        *b = nibble()? << 4 | nibble()?;
    }
    Some(out)
}
