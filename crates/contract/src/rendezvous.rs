//! Weighted rendezvous hashing (highest random weight): everybody who knows the same members makes the same choice,
//! and a member that goes moves only what it had.

use crate::process::ProcessId;
use sha2::{Digest, Sha256};

/// Ranks one member for a key: the member with the highest score has the key. Zero weight never wins over a positive one.
pub fn score(key: &[u8], member: ProcessId, weight: f64) -> f64 {
    let mut hash = Sha256::new();
    hash.update(member.0.to_be_bytes());
    hash.update(key);
    let digest = hash.finalize();
    let mut head = [0u8; 8];
    head.copy_from_slice(&digest[..8]);
    // A uniform number in (0, 1): 53 bits and a half, so that ln() is finite.
    let unit = ((u64::from_be_bytes(head) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    if weight > 0.0 { -weight / unit.ln() } else { 0.0 }
}

/// The member that has `key`; `None` when there is none of positive weight.
pub fn choose(key: &[u8], members: impl IntoIterator<Item = (ProcessId, f64)>) -> Option<ProcessId> {
    members
        .into_iter()
        .filter(|(_, weight)| *weight > 0.0)
        .map(|(member, weight)| (score(key, member, weight), member))
        .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        .map(|(_, member)| member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_of_a_lost_member_move_and_weights_hold() {
        let all: Vec<_> = [(1, 1.0), (2, 1.0), (3, 2.0)].map(|(id, w)| (ProcessId(id), w)).to_vec();
        let mut had = [0u32; 4];
        for key in 0..8000u32 {
            let key = key.to_be_bytes();
            let first = choose(&key, all.iter().copied()).unwrap();
            had[first.0 as usize] += 1;
            let after = choose(&key, all.iter().copied().filter(|m| m.0 != ProcessId(2))).unwrap();
            if first != ProcessId(2) {
                assert_eq!(first, after);
            }
        }
        assert!((1800..2200).contains(&had[1]), "{had:?}");
        assert!((3700..4300).contains(&had[3]), "{had:?}");
        assert_eq!(choose(b"k", [(ProcessId(1), 0.0)]), None);
    }
}
