//! Branches (RFC 3261 8.1.1.7) that say which process and shard owns the transaction, authenticated.
//!
//! A request from inside gets a random branch that holds its owner. A request from outside may reach us again through
//! another replica, so its branch is derived from the one received: the copy looks the same to whoever gets it and is
//! absorbed there. Its owner stands beside it, in a parameter of the Via, which takes no part in matching (17.2.3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::key::MAC_LEN;
use contract::{KeyRing, ProcessId};
use rand::RngCore;
use sip::header::Via;
use sip::{Message, Name};

/// What RFC 3261's branches begin with.
const COOKIE: &str = "z9hG4bK";
/// The parameter of a Via that names the owner of a derived branch.
pub const OWNER_PARAM: &str = "owner";
const PURPOSE: &str = "branch";
const DERIVED: &str = "derived-branch";
/// Key number, process, shard, nonce.
const RAW_LEN: usize = 1 + 8 + 2 + 8;

/// Who owns a transaction: one shard of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The process.
    pub process: ProcessId,
    /// The shard in it, from 0.
    pub shard: u16,
}

impl Owner {
    /// A new branch of this owner: unique, and forged by nobody without the key.
    pub fn branch(self, keys: &KeyRing, rng: &mut dyn RngCore) -> String {
        format!("{COOKIE}{}", self.seal(keys, rng.next_u64(), ""))
    }

    /// The value of [`OWNER_PARAM`] beside this derived branch.
    pub fn beside(self, keys: &KeyRing, branch: &str) -> String {
        self.seal(keys, 0, branch)
    }

    fn seal(self, keys: &KeyRing, nonce: u64, beside: &str) -> String {
        let current = keys.current();
        let mut raw = Vec::with_capacity(RAW_LEN + MAC_LEN);
        raw.push(current.id);
        raw.extend(self.process.0.to_be_bytes());
        raw.extend(self.shard.to_be_bytes());
        raw.extend(nonce.to_be_bytes());
        let mac = current.mac(PURPOSE, &[&raw, beside.as_bytes()]);
        raw.extend(mac);
        URL_SAFE_NO_PAD.encode(raw)
    }

    fn open(text: &str, keys: &KeyRing, beside: &str) -> Option<Self> {
        if text.len() != (RAW_LEN + MAC_LEN).div_ceil(3) * 4 - 2 {
            return None;
        }
        let mut buffer = [0u8; 64];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).ok()?;
        let (raw, mac) = buffer.get(..length)?.split_at_checked(RAW_LEN)?;
        let (&key, rest) = raw.split_first()?;
        let (process, rest) = rest.split_first_chunk::<8>()?;
        let (shard, _) = rest.split_first_chunk::<2>()?;
        keys.verify(key, PURPOSE, &[raw, beside.as_bytes()], mac)
            .then_some(Self { process: ProcessId(u64::from_be_bytes(*process)), shard: u16::from_be_bytes(*shard) })
    }

    /// The owner of the transaction that this Via is of; `None` unless the Via is one of ours.
    pub fn of(via: &Via<'_>, keys: &KeyRing) -> Option<Self> {
        let branch = via.branch()?;
        match via.params.get(OWNER_PARAM).flatten() {
            Some(owner) => Self::open(owner, keys, branch),
            None => Self::open(branch.strip_prefix(COOKIE)?, keys, ""),
        }
    }
}

/// The branch that follows from a received request: the same for its retransmission, its CANCEL and the ACK of its
/// failure, whichever replica derives it; another one for each `attempt` at a next destination.
pub fn derive(request: &Message<'_>, keys: &KeyRing, attempt: u8) -> Option<String> {
    let via = request.via().ok()?;
    let call_id = request.call_id().ok()?.as_bytes();
    let branch = via.branch().unwrap_or_default();
    let mac = if branch.len() > COOKIE.len() && branch.starts_with(COOKIE) {
        keys.current().mac(DERIVED, &[branch.as_bytes(), via.sent_by.as_bytes(), call_id, &[attempt]])
    } else {
        // RFC 2543: what names the transaction is spread over the header (17.2.3).
        let from = request.from().ok()?;
        let number = request.cseq().ok()?.number.to_be_bytes();
        let top = request.values(Name::Via).next()?.as_bytes();
        let tag = from.tag().unwrap_or_default().as_bytes();
        keys.current().mac(DERIVED, &[top, tag, &number, request.uri()?.as_bytes(), call_id, &[attempt]])
    };
    Some(format!("{COOKIE}d{}", URL_SAFE_NO_PAD.encode(mac)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::InstallationKey;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn ring(byte: u8) -> KeyRing {
        KeyRing::new(InstallationKey::new(1, [byte; 32]))
    }

    const OWNER: Owner = Owner { process: ProcessId(0xfeed_beef), shard: 3 };

    fn via(text: &str) -> Via<'_> {
        Via::parse(text).unwrap()
    }

    #[test]
    fn a_branch_names_its_owner_only_with_the_key() {
        let mut rng = StdRng::seed_from_u64(1);
        let (one, two) = (OWNER.branch(&ring(1), &mut rng), OWNER.branch(&ring(1), &mut rng));
        assert_ne!(one, two);
        let text = format!("SIP/2.0/UDP h;branch={one}");
        assert_eq!(Owner::of(&via(&text), &ring(1)), Some(OWNER));
        assert_eq!(Owner::of(&via(&text), &ring(2)), None);
        assert_eq!(Owner::of(&via("SIP/2.0/UDP h;branch=z9hG4bKabc"), &ring(1)), None);
        assert_eq!(Owner::of(&via("SIP/2.0/UDP h"), &ring(1)), None);
    }

    #[test]
    fn the_owner_beside_a_branch_belongs_to_that_branch() {
        let beside = OWNER.beside(&ring(1), "z9hG4bKone");
        let good = format!("SIP/2.0/TCP h;branch=z9hG4bKone;owner={beside}");
        assert_eq!(Owner::of(&via(&good), &ring(1)), Some(OWNER));
        let moved = format!("SIP/2.0/TCP h;branch=z9hG4bKtwo;owner={beside}");
        assert_eq!(Owner::of(&via(&moved), &ring(1)), None);
    }

    fn request(method: &str, branch: &str, to_tag: &str) -> String {
        format!(
            "{method} sip:8006@h SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070{branch}\r\nFrom: <sip:a@h>;tag=f\r\n\
             To: <sip:b@h>{to_tag}\r\nCall-ID: c1\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    #[test]
    fn cancel_and_ack_derive_what_their_invite_did() {
        for branch in [";branch=z9hG4bK77", ";branch=1", ""] {
            let derived = |method: &str, tag: &str, attempt| {
                let text = request(method, branch, tag);
                derive(&Message::parse(text.as_bytes()).unwrap(), &ring(1), attempt).unwrap()
            };
            let invite = derived("INVITE", "", 0);
            assert_eq!(invite, derived("CANCEL", "", 0), "{branch}");
            assert_eq!(invite, derived("ACK", ";tag=x", 0), "{branch}");
            assert_ne!(invite, derived("INVITE", "", 1), "{branch}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_nobodys(noise in "[A-Za-z0-9_-]{0,60}") {
            let text = format!("SIP/2.0/UDP h;branch=z9hG4bK{noise};owner=x{noise}");
            prop_assert_eq!(Owner::of(&via(&text), &ring(1)), None);
            let text = format!("SIP/2.0/UDP h;branch=z9hG4bK{noise}");
            prop_assert_eq!(Owner::of(&via(&text), &ring(1)), None);
        }
    }
}
