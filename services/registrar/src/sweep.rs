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

/// What is left when the expired are gone, or remembered, if their phones can be woken; none if nothing is due.
pub fn left(bindings: &[Binding], unix_now: u64) -> Option<Vec<Binding>> {
    let due = bindings.iter().any(|b| b.due_at() <= unix_now);
    let left = |b: &Binding| if b.is_live(unix_now) { Some(b.clone()) } else { b.remembered(unix_now) };
    due.then(|| bindings.iter().filter_map(left).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binding;
    use contract::location::{Push, REMEMBERED_FOR};

    #[test]
    fn the_expired_go_and_who_can_be_woken_goes_later() {
        let push = Some(Push { provider: "fcm".into(), prid: Some("x".into()), param: None });
        let all = [binding("a", 100), Binding { push, ..binding("b", 100) }, binding("c", 300)];
        assert_eq!(left(&all, 99), None);
        let after = left(&all, 100).unwrap();
        let users: Vec<_> = after.iter().map(|b| (&b.contact[4..5], b.forget_at)).collect();
        assert_eq!(users, [("b", Some(100 + REMEMBERED_FOR)), ("c", None)]);
        assert_eq!(left(&after, 299), None, "it is not looked at until it has to be");
        assert_eq!(left(&after, 300).unwrap().len(), 1);
        assert_eq!(left(&after, 100 + REMEMBERED_FOR).unwrap().len(), 0);
    }
}
