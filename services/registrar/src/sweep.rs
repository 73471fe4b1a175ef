//! Expiry: bindings past their time are removed, which publishes a hint, so that whoever follows an AOR learns of it.

use contract::location::Binding;
use contract::peers::Peers;
use contract::{ProcessId, Service};

/// AORs looked at in one round.
pub const BATCH: usize = 256;

/// True if this process sweeps: one registrar of all does, by rendezvous. Two that disagree for a moment do no harm,
/// as a write of the AOR is compared first.
pub fn is_mine(peers: &Peers, process: ProcessId) -> bool {
    peers.choose(Service::Registrar, b"sweep") == Some(process)
}

/// What is left without the expired; none if nothing is expired.
pub fn live(bindings: &[Binding], unix_now: u64) -> Option<Vec<Binding>> {
    let left: Vec<Binding> = bindings.iter().filter(|b| b.is_live(unix_now)).cloned().collect();
    (left.len() < bindings.len()).then_some(left)
}
