//! The token on NG between our own processes: it stands in the cookie, which every client chooses as it likes, so the
//! protocol stays as rtpengine defines it. A relay checks it before it reads anything else. It is good at one relay: what
//! somebody recorded on its way to one says nothing to another.

use super::request::{Command, MAX_COOKIE, Request, split_cookie};
use crate::key::{KeyRing, MAC_LEN};
use crate::process::ProcessId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const PURPOSE: &str = "ng";
/// What a sealed cookie begins with.
const MARK: &str = "K.";

/// A command for `relay` as a datagram whose cookie holds a token over that relay's name, `unique` (which no other request
/// in flight has: up to 64 characters without spaces and dots) and the command. Its reply has the same cookie.
pub fn seal(keys: &KeyRing, relay: ProcessId, unique: &str, command: Command) -> Request {
    let mut request = Request { cookie: Vec::new(), command };
    let body = request.to_vec();
    let key = keys.current();
    let mac = key.mac(PURPOSE, &[&relay.0.to_be_bytes(), unique.as_bytes(), body.get(1..).unwrap_or_default()]);
    let mut raw = vec![key.id];
    raw.extend(mac);
    request.cookie = format!("{MARK}{unique}.{}", URL_SAFE_NO_PAD.encode(raw)).into_bytes();
    request
}

/// True if one of our keys sealed this datagram for `relay`.
pub fn is_sealed(keys: &KeyRing, relay: ProcessId, datagram: &[u8]) -> bool {
    let opened = || {
        let (cookie, body) = split_cookie(datagram)?;
        let cookie = std::str::from_utf8(cookie).ok().filter(|c| c.len() <= MAX_COOKIE)?;
        let (unique, token) = cookie.strip_prefix(MARK)?.split_once('.')?;
        let raw = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&key, mac) = raw.split_first().filter(|(_, mac)| mac.len() == MAC_LEN)?;
        Some(keys.verify(key, PURPOSE, &[&relay.0.to_be_bytes(), unique.as_bytes(), body], mac))
    };
    opened().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstallationKey;
    use crate::ng::Query;

    #[test]
    fn a_token_is_good_for_its_relay_command_and_key_alone() {
        const RELAY: ProcessId = ProcessId(7);
        let is_sealed = |keys: &KeyRing, datagram: &[u8]| super::is_sealed(keys, RELAY, datagram);
        let keys = KeyRing::new(InstallationKey::new(2, [7; 32]));
        let query = |call: &str| Command::Query(Query { call_id: call.into(), ..Query::default() });
        let sealed = seal(&keys, RELAY, "17", query("one")).to_vec();
        assert!(is_sealed(&keys, &sealed));
        assert!(!super::is_sealed(&keys, ProcessId(8), &sealed), "another relay was sent it again");
        let read = Request::parse(&sealed).unwrap();
        assert_eq!(read.command, query("one"));
        // Another command behind the same cookie, and another number in it.
        let swapped = Request { cookie: read.cookie.clone(), command: query("two") }.to_vec();
        assert!(!is_sealed(&keys, &swapped));
        let renamed = String::from_utf8(sealed.clone()).unwrap().replacen("K.17.", "K.18.", 1);
        assert!(!is_sealed(&keys, renamed.as_bytes()));
        // While keys are rotated both are good; a stranger's never is.
        let rotated = KeyRing::new(InstallationKey::new(3, [8; 32])).accepting(InstallationKey::new(2, [7; 32]));
        assert!(is_sealed(&rotated, &sealed));
        assert!(!is_sealed(&KeyRing::new(InstallationKey::new(2, [8; 32])), &sealed));
        for plain in ["17 d7:command4:pinge", "K.17. d7:command4:pinge", "K. x", "", " ", "K.1.!! d"] {
            assert!(!is_sealed(&keys, plain.as_bytes()), "{plain}");
        }
    }
}
