//! Webhooks: requests of ours to servers of others. They are signed, so that the server knows who asks and when.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The header field of the signature.
pub const SIGNATURE: &str = "X-KubePBX-Signature";

/// The header field of the time that is signed too: Unix seconds. A server that refuses what is minutes old is safe from
/// requests played to it again.
pub const TIMESTAMP: &str = "X-KubePBX-Timestamp";

/// The signature of a body sent at this time: `sha256=` and HMAC-SHA-256, in hexadecimal, of the time, a full stop and the
/// body.
pub fn sign(secret: &[u8], timestamp: u64, body: &[u8]) -> String {
    let mut text = String::from("sha256=");
    // A key of any length is accepted by HMAC, so this never fails.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) {
        mac.update(format!("{timestamp}.").as_bytes());
        mac.update(body);
        text.extend(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_others_compute() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac s3cret
        let signed = sign(b"s3cret", 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(signed, "sha256=1698a50bc74d1ff1db85c4e0a5297c2ad9fdba245d5737cdb789e4cc6e098940");
        assert_ne!(signed, sign(b"s3cret", 1_700_000_001, br#"{"a":1}"#));
    }
}
