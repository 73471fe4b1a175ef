//! Inside hops: SIP between our own processes, and the header that says where a request came from.
//!
//! A balancer that takes a request in from outside puts `X-KubePBX-Hop` into it: the flow it came on and how far its
//! sender is trusted, authenticated over Call-ID and CSeq. It removes any such header from outside. A service
//! believes nothing about the outside that does not stand there.

use crate::flow::Flow;
use crate::key::{KeyRing, MAC_LEN};
use crate::process::{ProcessId, Service};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The header's name.
pub const HEADER: &str = "X-KubePBX-Hop";

/// On a provisional answer to an INVITE: should the router that gave it go, another one goes on with the INVITE.
pub const HELD: &str = "X-KubePBX-Held";

/// Where a request from outside came from, told by the balancer to the service it chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The flow that it arrived on.
    pub flow: Flow,
    /// True if the source is a trusted trunk's: its P-Asserted-Identity was left in place.
    #[serde(default)]
    pub trusted: bool,
}

const PURPOSE: &str = "hop";

impl Hop {
    /// The header's value for the request with this Call-ID and CSeq value (`"1 INVITE"`).
    pub fn seal(&self, keys: &KeyRing, call_id: &str, cseq: &str) -> String {
        let current = keys.current();
        let mut raw = vec![current.id];
        raw.extend(serde_json::to_vec(self).unwrap_or_default());
        let mac = current.mac(PURPOSE, &[&raw, call_id.as_bytes(), cseq.as_bytes()]);
        raw.extend(mac);
        URL_SAFE_NO_PAD.encode(raw)
    }

    /// Reads the value back; `None` unless one of our keys sealed it for this very request.
    pub fn open(value: &str, keys: &KeyRing, call_id: &str, cseq: &str) -> Option<Self> {
        if value.len() > 1024 {
            return None;
        }
        let raw = URL_SAFE_NO_PAD.decode(value.trim()).ok()?;
        let (body, mac) = raw.split_at_checked(raw.len().checked_sub(MAC_LEN)?)?;
        let (&key, json) = body.split_first()?;
        let ok = keys.verify(key, PURPOSE, &[body, call_id.as_bytes(), cseq.as_bytes()], mac);
        ok.then(|| serde_json::from_slice(json).ok()).flatten()
    }
}

/// A whole SIP message on an inside hop (in memory within one process, TCP between processes).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// Who sent it.
    pub from: ProcessId,
    /// Its kind of service.
    pub service: Service,
    /// The message, exactly one.
    pub bytes: Bytes,
}

/// The host part that a process writes into the Vias of inside hops: a name that resolves nowhere (RFC 2606).
pub fn host(service: Service, process: ProcessId) -> String {
    format!("{process}.{}.invalid", service.as_str())
}

/// Reads [`host`] back.
pub fn process_of(host: &str) -> Option<ProcessId> {
    let (id, rest) = host.split_once('.')?;
    (id.len() == 16 && rest.ends_with(".invalid")).then(|| id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InstallationKey, Transport};

    #[test]
    fn a_hop_opens_only_for_its_request() {
        let keys = KeyRing::new(InstallationKey::new(3, [5; 32]));
        let flow = Flow {
            transport: Transport::Udp,
            process: ProcessId(4),
            connection: 0,
            local: "127.0.0.1:5060".parse().unwrap(),
            remote: "127.0.0.1:5070".parse().unwrap(),
        };
        let hop = Hop { flow, trusted: true };
        let value = hop.seal(&keys, "abc", "1 INVITE");
        assert_eq!(Hop::open(&value, &keys, "abc", "1 INVITE"), Some(hop));
        assert_eq!(Hop::open(&value, &keys, "abc", "2 INVITE"), None);
        assert_eq!(Hop::open("AAAA", &keys, "abc", "1 INVITE"), None);
        assert_eq!(process_of(&host(Service::Router, ProcessId(77))), Some(ProcessId(77)));
        assert_eq!(process_of("192.0.2.1"), None);
    }
}
