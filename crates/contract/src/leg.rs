//! Leg tokens: the user part of a router's Contact. They name the leg and the process that made it, so that any
//! balancer can bring an in-dialog request to its owner, or to the one that took over.

use crate::key::{KeyRing, MAC_LEN};
use crate::process::ProcessId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What a leg token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegToken {
    /// The process (a router or conference) that made the leg.
    pub process: ProcessId,
    /// The leg's id: up to 32 bytes of ASCII.
    pub leg: String,
}

const PURPOSE: &str = "leg";

/// How many characters at the front of a leg's id it shares with all legs of its call.
const FAMILY: usize = 16;

/// The id of a new leg of this call: the front of the call's id, then `own`, which no other leg of the call has.
pub fn leg_id(call: &str, own: &str) -> String {
    format!("{}{own}", family(call))
}

/// What the survivors of a router divide its legs by: the same for a call's id and the ids of all its legs, so that the
/// two sides of a bridge come to one process.
pub fn family(id: &str) -> &str {
    id.get(..FAMILY).unwrap_or(id)
}

impl LegToken {
    /// The token: `L` and base64url, legal in a URI's user part.
    pub fn seal(&self, keys: &KeyRing) -> String {
        let current = keys.current();
        let mut raw = vec![current.id];
        raw.extend(self.process.0.to_be_bytes());
        raw.extend(self.leg.as_bytes());
        let mac = current.mac(PURPOSE, &[&raw]);
        raw.extend(mac);
        format!("L{}", URL_SAFE_NO_PAD.encode(raw))
    }

    /// Reads a token back; `None` unless one of our keys made it.
    pub fn open(token: &str, keys: &KeyRing) -> Option<Self> {
        let encoded = token.strip_prefix('L').filter(|t| t.len() <= 96)?;
        let raw = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let (body, mac) = raw.split_at_checked(raw.len().checked_sub(MAC_LEN)?)?;
        let (&key, rest) = body.split_first()?;
        let (process, leg) = rest.split_first_chunk::<8>()?;
        if !keys.verify(key, PURPOSE, &[body], mac) {
            return None;
        }
        let leg = std::str::from_utf8(leg).ok()?.to_owned();
        Some(Self { process: ProcessId(u64::from_be_bytes(*process)), leg })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstallationKey;

    #[test]
    fn legs_of_a_call_are_one_family_and_fit_a_token() {
        let call = "0123456789abcdef0011223344556677";
        let leg = leg_id(call, "8899aabbccddeeff");
        assert_eq!((leg.len(), family(&leg), family(call)), (32, "0123456789abcdef", "0123456789abcdef"));
        assert_eq!(family("leg-1"), "leg-1");
        let keys = KeyRing::new(InstallationKey::new(1, [1; 32]));
        let token = LegToken { process: ProcessId(9), leg };
        assert_eq!(LegToken::open(&token.seal(&keys), &keys), Some(token));
    }

    #[test]
    fn a_leg_token_reads_back_only_with_the_key() {
        let keys = KeyRing::new(InstallationKey::new(1, [1; 32]));
        let token = LegToken { process: ProcessId(9), leg: "0123456789abcdef".into() };
        assert_eq!(LegToken::open(&token.seal(&keys), &keys), Some(token.clone()));
        assert_eq!(LegToken::open(&token.seal(&keys), &KeyRing::new(InstallationKey::new(1, [2; 32]))), None);
        assert_eq!(LegToken::open("8006", &keys), None);
        assert_eq!(LegToken::open("L", &keys), None);
    }
}
