//! Digest authentication as every service of an installation does it: one ring of signed nonces, and stored hashes.

use crate::config::Ha1;
use crate::key::{InstallationKey, KeyRing, MAC_LEN};
use sip::digest::{Algorithm, Credentials, Nonces, verify};

const PURPOSE: &str = "digest nonce";

/// The installation's nonces: any process checks what another issued.
pub fn nonces(keys: &KeyRing) -> Nonces {
    let all = keys.all();
    let mut subkeys = all.iter().map(|key| subkey(key));
    // A ring has a current key.
    let current = subkeys.next().unwrap_or_default();
    subkeys.fold(Nonces::new(current), Nonces::with_previous)
}

/// Whether the credentials show knowledge of the password behind `ha1`. `None`, a user that does not exist or has no
/// password, costs the same work and is false, so that time tells nobody which users there are.
pub fn proves(credentials: &Credentials<'_>, method: &str, body: &[u8], ha1: Option<&Ha1>) -> bool {
    let hash = match (ha1, credentials.algorithm.base()) {
        (Some(ha1), Algorithm::Sha256 | Algorithm::Sha256Sess) => ha1.sha256.as_str(),
        (Some(ha1), Algorithm::Md5 | Algorithm::Md5Sess) => ha1.md5.as_str(),
        (None, Algorithm::Sha256 | Algorithm::Sha256Sess) => NOBODY_SHA256,
        (None, Algorithm::Md5 | Algorithm::Md5Sess) => NOBODY_MD5,
    };
    verify(credentials, method, body, hash) && ha1.is_some()
}

/// Stand in where there is no hash, at its length.
const NOBODY_MD5: &str = "--------------------------------";
const NOBODY_SHA256: &str = "----------------------------------------------------------------";

/// A key of its own for nonces, so that a nonce never is a MAC of anything else.
fn subkey(key: &InstallationKey) -> [u8; 32] {
    let mut out = [0; 32];
    for (n, chunk) in out.chunks_mut(MAC_LEN).enumerate() {
        let mac = key.mac(PURPOSE, &[&[n as u8]]);
        chunk.copy_from_slice(&mac[..chunk.len()]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use sip::digest::{Freshness, Qop, ResponseInput, ha1, response};
    use std::time::Duration;

    #[test]
    fn a_nonce_outlives_a_rotation_and_is_signed_by_a_key_of_its_own() {
        let (old, new) = (InstallationKey::new(1, [1; 32]), InstallationKey::new(2, [2; 32]));
        let (now, age) = (Duration::from_secs(1_700_000_000), Duration::from_secs(300));
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let nonce = nonces(&KeyRing::new(old.clone())).issue(now, &mut rng);
        let both = nonces(&KeyRing::new(new.clone()).accepting(old));
        assert_eq!(both.check(&nonce, now, age), Freshness::Fresh);
        assert_eq!(nonces(&KeyRing::new(new)).check(&nonce, now, age), Freshness::Forged);
        assert_eq!(
            Nonces::new([1; 32]).check(&nonce, now, age),
            Freshness::Forged,
            "not by the installation's key itself"
        );
    }

    #[test]
    fn each_algorithm_is_held_to_its_own_hash_and_nobody_proves_anything() {
        let hash = |a| ha1(a, "8005", "kubepbx", "secret");
        let stored = Ha1 { md5: hash(Algorithm::Md5), sha256: hash(Algorithm::Sha256) };
        for algorithm in [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess] {
            for (against, right) in [(hash(algorithm), true), (NOBODY_MD5.into(), false), (NOBODY_SHA256.into(), false)]
            {
                let input = ResponseInput {
                    algorithm,
                    nonce: "n",
                    cnonce: "c",
                    nc: "00000001",
                    qop: Some(Qop::Auth),
                    method: "REGISTER",
                    uri: "sip:pbx",
                    body: b"",
                };
                let value = format!(
                    "Digest username=\"8005\", realm=\"kubepbx\", nonce=\"n\", uri=\"sip:pbx\", response=\"{}\", algorithm={algorithm}, qop=auth, nc=00000001, cnonce=\"c\"",
                    response(&input, &against)
                );
                let credentials = Credentials::parse(&value).unwrap();
                assert_eq!(proves(&credentials, "REGISTER", b"", Some(&stored)), right, "{algorithm}");
                assert!(!proves(&credentials, "INVITE", b"", Some(&stored)));
                assert!(!proves(&credentials, "REGISTER", b"", None), "{algorithm} {against}");
            }
        }
    }
}
