//! The user part of the two Record-Route URIs of a dispatched dialog: a flow token bound to the dialog's Call-ID.
//!
//! Both sides of such a dialog are outside, so a request from outside must be able to choose the other one. A plain
//! flow token does not allow that: this one does, within its Call-ID and nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::key::MAC_LEN;
use contract::{Flow, KeyRing};

const PURPOSE: &str = "dispatched";

/// The token: that of the flow, a dot, and the key's number and MAC over both token and Call-ID.
pub fn seal(flow: &Flow, call_id: &str, keys: &KeyRing) -> String {
    let token = flow.token(keys);
    let current = keys.current();
    let mut raw = vec![current.id];
    raw.extend(current.mac(PURPOSE, &[token.as_bytes(), call_id.as_bytes()]));
    format!("{token}.{}", URL_SAFE_NO_PAD.encode(raw))
}

/// Reads a token back; `None` unless one of our keys made it for this Call-ID.
pub fn open(user: &str, call_id: &str, keys: &KeyRing) -> Option<Flow> {
    let (token, seal) = user.split_once('.')?;
    if seal.len() > 2 * (1 + MAC_LEN) {
        return None;
    }
    let raw = URL_SAFE_NO_PAD.decode(seal).ok()?;
    let (&key, mac) = raw.split_first()?;
    if !keys.verify(key, PURPOSE, &[token.as_bytes(), call_id.as_bytes()], mac) {
        return None;
    }
    Flow::from_token(token, keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{InstallationKey, ProcessId, Transport};

    #[test]
    fn a_pair_token_opens_only_within_its_call() {
        let keys = KeyRing::new(InstallationKey::new(1, [1; 32]));
        let flow = Flow {
            transport: Transport::Udp,
            process: ProcessId(1),
            connection: 0,
            local: "127.0.0.1:5060".parse().unwrap(),
            remote: "127.0.0.1:5071".parse().unwrap(),
        };
        let token = seal(&flow, "call", &keys);
        assert_eq!(open(&token, "call", &keys), Some(flow));
        assert_eq!(open(&token, "other", &keys), None);
        assert_eq!(open(&flow.token(&keys), "call", &keys), None);
        assert_eq!(open(&token, "call", &KeyRing::new(InstallationKey::new(1, [2; 32]))), None);
        assert_eq!(open(".", "call", &keys), None);
    }
}
