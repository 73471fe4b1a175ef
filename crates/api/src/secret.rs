//! Passwords: held in a type that neither prints them nor leaves them in memory, and the hashes that go out instead.

use std::fmt;

use contract::config::Ha1;
use md5::Md5;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A value of a Secret. Printing shows that it is there; dropping overwrites it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// Takes the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The password: the bytes without a line's end, which `kubectl create secret --from-file` brings along and nobody
    /// can type at a phone.
    pub(crate) fn password(&self) -> &[u8] {
        let bytes = self.0.strip_suffix(b"\n").unwrap_or(&self.0);
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(redacted)")
    }
}

/// The hashes of user, realm and password (RFC 7616 3.4.2), lower-case hexadecimal.
pub fn ha1(username: &str, realm: &str, password: &[u8]) -> Ha1 {
    let mut text = Zeroizing::new(format!("{username}:{realm}:").into_bytes());
    // Reserved first: growing would leave a copy of the password behind.
    text.reserve_exact(password.len());
    text.extend_from_slice(password);
    Ha1 { md5: hex(&Md5::digest(&*text)), sha256: hex(&Sha256::digest(&*text)) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_rfc_7616() {
        // RFC 2617 3.5 and RFC 7616 3.9.1 hash these; the values come from md5sum and sha256sum.
        let hashes = ha1("Mufasa", "testrealm@host.com", b"Circle Of Life");
        assert_eq!(hashes.md5, "939e7578ed9e3c518a452acee763bce9");
        let hashes = ha1("Mufasa", "http-auth@example.org", b"Circle of Life");
        assert_eq!(hashes.md5, "3d78807defe7de2157e2b0b6573a855f");
        assert_eq!(hashes.sha256, "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232");
    }

    #[test]
    fn a_line_end_is_no_part_of_a_password() {
        for text in ["8005", "8005\n", "8005\r\n"] {
            assert_eq!(SecretValue::new(text).password(), b"8005");
        }
        assert_eq!(format!("{:?}", SecretValue::new("8005")), "SecretValue(redacted)");
    }
}
