//! Hand-over: what belongs to a transaction of another replica or shard goes there as it came, with the flow it came on.
//!
//! Balancers exchange nothing else, so a message from a balancer is a hand-over.

use crate::record_route::Length;
use bytes::Bytes;
use contract::{Flow, KeyRing};
use sip::Message;
use sip::edit::Edit;

/// The header that says where a handed-over message came from. Removed again by who takes it; from outside it is
/// removed as all of its prefix are.
pub const HEADER: &str = "X-KubePBX-Hand-Over";

/// The message with its flow and the shard that is to have it.
pub fn wrap(message: &Message<'_>, flow: &Flow, shard: u16, keys: &KeyRing) -> Bytes {
    let mut edit = Edit::new(message);
    edit.remove_all_other(HEADER).append_other(HEADER, format!("{};shard={shard}", flow.token(keys)));
    edit.with_length(message).finish()
}

/// The message as it came, the flow it came on and the shard it is for; `None` if no balancer of ours wrapped it.
pub fn unwrap(message: &Message<'_>, keys: &KeyRing) -> Option<(Bytes, Flow, u16)> {
    let (flow, shard) = message.other(HEADER)?.split_once(";shard=")?;
    let flow = Flow::from_token(flow, keys)?;
    let shard = shard.parse().ok()?;
    let mut edit = Edit::new(message);
    edit.remove_all_other(HEADER);
    Some((edit.finish(), flow, shard))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{InstallationKey, ProcessId, Transport};

    #[test]
    fn a_message_comes_out_as_it_went_in() {
        let keys = KeyRing::new(InstallationKey::new(1, [4; 32]));
        let flow = Flow {
            transport: Transport::Udp,
            process: ProcessId(1),
            connection: 0,
            local: "127.0.0.1:5060".parse().unwrap(),
            remote: "127.0.0.1:5071".parse().unwrap(),
        };
        let text =
            b"SIP/2.0 180  Odd   Reason\r\nv: SIP/2.0/UDP h;branch=z9hG4bKx\r\nX-Odd :  a\r\n b\r\nl: 3\r\n\r\nabc";
        let wrapped = wrap(&Message::parse(text).unwrap(), &flow, 2, &keys);
        let (bytes, from, shard) = unwrap(&Message::parse_stream(&wrapped).unwrap(), &keys).unwrap();
        assert_eq!((&bytes[..], from, shard), (&text[..], flow, 2));
        assert!(unwrap(&Message::parse(text).unwrap(), &keys).is_none());
        let other = KeyRing::new(InstallationKey::new(1, [5; 32]));
        assert!(unwrap(&Message::parse_stream(&wrapped).unwrap(), &other).is_none());
    }
}
