//! What this registrar wrote and nobody has changed since: a store that comes back without it gets it again.
//!
//! An AOR's registrar is chosen by its name, so between them the registrars know what was registered since they began.
//! What another process wrote later is not ours to write: hints say so.

use crate::sweep;
use contract::location::{Aor, Binding, Revision};
use contract::records::Standing;
use runtime::store::AorHint;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How often the store is asked whether it still holds what it held.
pub const PERIOD: Duration = Duration::from_secs(1);
/// AORs looked at in a period.
pub const BATCH: usize = 500;

/// What was written.
#[derive(Debug)]
pub struct Written {
    aors: BTreeMap<String, Aor>,
    limit: usize,
    standing: Option<Standing>,
    lost: bool,
    queue: VecDeque<String>,
}

impl Written {
    /// Nothing yet; at most `limit` AORs are remembered.
    pub fn new(limit: usize) -> Self {
        Self { aors: BTreeMap::new(), limit, standing: None, lost: false, queue: VecDeque::new() }
    }

    /// These bindings stand in the store now; none are forgotten.
    pub fn wrote(&mut self, name: &str, revision: Revision, bindings: &[Binding]) {
        if bindings.is_empty() {
            self.aors.remove(name);
        } else if self.aors.len() < self.limit || self.aors.contains_key(name) {
            self.aors.insert(name.to_owned(), Aor { revision, bindings: bindings.to_vec() });
        }
    }

    /// Somebody may have written.
    pub fn hinted(&mut self, hint: &AorHint) {
        if let AorHint::Changed { aor, revision } = hint
            && self.aors.get(aor).is_some_and(|known| known.revision < *revision)
        {
            self.aors.remove(aor);
        }
    }

    /// The store says how it stands; `None` if it did not answer. After it was away or lost its contents, all that we
    /// know is looked at.
    pub fn stands(&mut self, standing: Option<Standing>) {
        let Some(standing) = standing else {
            self.lost = true;
            return;
        };
        let emptied = self.standing.replace(standing).is_some_and(|b| b.incarnation != standing.incarnation);
        if emptied || std::mem::take(&mut self.lost) {
            self.queue = self.aors.keys().cloned().collect();
        }
    }

    /// AORs to be looked at now, some at a time.
    pub fn due(&mut self) -> Vec<String> {
        self.queue.drain(..self.queue.len().min(BATCH)).collect()
    }

    /// What is to be written over what the store holds, if that is older than what we know.
    pub fn missing(&self, name: &str, stored: &Aor, unix: u64) -> Option<Vec<Binding>> {
        let known = self.aors.get(name).filter(|known| stored.revision < known.revision)?;
        let left = sweep::left(&known.bindings, unix).unwrap_or_else(|| known.bindings.clone());
        (!left.is_empty()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::binding;

    const NOW: u64 = 1_700_000_000;

    fn standing(incarnation: u64) -> Option<Standing> {
        Some(Standing { incarnation, taken: 0 })
    }

    #[test]
    fn what_the_store_lost_is_written_again_and_nothing_else() {
        let mut written = Written::new(3);
        written.stands(standing(1));
        let of = |name: &str, expires| vec![binding(name, expires)];
        written.wrote("a", 10, &of("a", NOW + 60));
        written.wrote("b", 11, &of("b", NOW - 1));
        written.wrote("c", 12, &of("c", NOW + 60));
        written.wrote("d", 13, &of("d", NOW + 60));
        // Another registrar wrote it later; our own write is hinted too.
        written.hinted(&AorHint::Changed { aor: "c".into(), revision: 14 });
        written.hinted(&AorHint::Changed { aor: "a".into(), revision: 10 });
        assert_eq!(written.due(), Vec::<String>::new());
        written.stands(standing(2));
        assert_eq!(written.due(), ["a", "b"]);
        let empty = Aor::default();
        assert_eq!(written.missing("a", &empty, NOW), Some(of("a", NOW + 60)));
        assert_eq!(written.missing("b", &empty, NOW), None, "it expired");
        assert_eq!(written.missing("c", &empty, NOW), None);
        let push = Some(contract::location::Push { provider: "fcm".into(), prid: None, param: None });
        written.wrote("e", 15, &[Binding { push, ..binding("e", NOW - 1) }]);
        assert!(written.missing("e", &empty, NOW).unwrap()[0].forget_at.is_some(), "its phone can be woken");
        written.wrote("e", 15, &[]);
        let newer = Aor { revision: 20, bindings: of("x", NOW + 9) };
        assert_eq!(written.missing("a", &newer, NOW), None, "somebody registered since");
        // Away and back with what it held a while ago.
        written.stands(None);
        written.stands(standing(2));
        assert_eq!(written.due(), ["a", "b"]);
        let older = Aor { revision: 9, bindings: of("x", NOW + 9) };
        assert_eq!(written.missing("a", &older, NOW), Some(of("a", NOW + 60)));
        written.wrote("a", 21, &[]);
        assert_eq!(written.missing("a", &empty, NOW), None, "it was taken away");
    }
}
