//! Who has what, where several resources want the same.
//!
//! A claim that a live resource holds and still wants is nobody else's, and so is all that an invalid one holds. What is
//! free goes to the older, else by name. Who does not get all that it wants gets nothing new: it keeps what it held, so
//! others may lose by it in turn, and the round is run again. Then all is run again from what came out, until nothing
//! changes: what comes out is a fixed point, which is why a successor that knows the holders judges alike.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Claim, ResourceId};

/// A resource in the contest.
pub(super) struct Contender<'a> {
    pub(super) id: &'a ResourceId,
    pub(super) created: Option<Duration>,
    /// What it wants; none when it is invalid.
    pub(super) wants: Option<&'a BTreeSet<Claim>>,
    /// What it holds.
    pub(super) holds: Option<&'a BTreeSet<Claim>>,
}

/// What becomes of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has all that it wants.
    Has,
    /// It lost a claim; what it held stays with it.
    Lost { claim: Claim, winner: ResourceId },
    /// It is invalid; what it held stays with it.
    Invalid,
}

/// Settles a contest. The contenders are all that share claims with one another.
pub(super) fn settle(contenders: &[Contender<'_>]) -> BTreeMap<ResourceId, Verdict> {
    let mut order: Vec<&Contender<'_>> = contenders.iter().collect();
    order.sort_by_key(|c| (c.created, c.id));
    let mut holds: BTreeMap<&ResourceId, BTreeSet<&Claim>> =
        order.iter().filter_map(|c| Some((c.id, c.holds?.iter().collect()))).collect();
    // Who has what it wants once has it in every later round, so the rounds end.
    loop {
        let verdicts = round(&order, &holds);
        let mut next = holds.clone();
        for contender in &order {
            if let (Some(Verdict::Has), Some(wants)) = (verdicts.get(contender.id), contender.wants) {
                next.insert(contender.id, wants.iter().collect());
            }
        }
        if next == holds {
            return verdicts.into_iter().map(|(id, verdict)| (id.clone(), verdict)).collect();
        }
        holds = next;
    }
}

fn round<'a>(
    order: &[&Contender<'a>],
    holds: &BTreeMap<&'a ResourceId, BTreeSet<&'a Claim>>,
) -> BTreeMap<&'a ResourceId, Verdict> {
    let nothing = BTreeSet::new();
    // Those that stay with what they hold.
    let mut stuck: BTreeSet<&ResourceId> = order.iter().filter(|c| c.wants.is_none()).map(|c| c.id).collect();
    loop {
        let mut taken: BTreeMap<&Claim, &ResourceId> = BTreeMap::new();
        for contender in order {
            for claim in holds.get(contender.id).unwrap_or(&nothing) {
                if stuck.contains(contender.id) || contender.wants.is_some_and(|wants| wants.contains(*claim)) {
                    taken.entry(claim).or_insert(contender.id);
                }
            }
        }
        let mut verdicts = BTreeMap::new();
        let mut more = false;
        for contender in order {
            let Some(wants) = contender.wants else {
                verdicts.insert(contender.id, Verdict::Invalid);
                continue;
            };
            let foreign = wants.iter().find_map(|claim| {
                let winner = taken.get(claim).filter(|winner| **winner != contender.id)?;
                Some(Verdict::Lost { claim: claim.clone(), winner: (*winner).clone() })
            });
            match foreign {
                Some(lost) => {
                    more |= holds.contains_key(contender.id) && stuck.insert(contender.id);
                    verdicts.insert(contender.id, lost);
                }
                None => {
                    taken.extend(wants.iter().map(|claim| (claim, contender.id)));
                    verdicts.insert(contender.id, Verdict::Has);
                }
            }
        }
        if !more {
            return verdicts;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    type Row<'a> = (&'a str, u64, Option<&'a [&'a str]>, &'a [&'a str]);

    /// Rows are (name, created, wants, holds); the outcome is who wins, or the winner over it.
    fn run(rows: &[Row<'_>]) -> Vec<String> {
        let claim = |name: &&str| Claim::Username((*name).to_owned());
        let owned: Vec<_> = rows
            .iter()
            .map(|(name, created, wants, holds)| {
                let id = ResourceId { kind: Kind::PbxEndpoint, name: (*name).to_owned() };
                let wants = wants.map(|w| w.iter().map(claim).collect::<BTreeSet<_>>());
                let holds = holds.iter().map(claim).collect::<BTreeSet<_>>();
                (id, Duration::from_secs(*created), wants, (!holds.is_empty()).then_some(holds))
            })
            .collect();
        let contenders: Vec<_> = owned
            .iter()
            .map(|(id, created, wants, holds)| Contender {
                id,
                created: Some(*created),
                wants: wants.as_ref(),
                holds: holds.as_ref(),
            })
            .collect();
        let verdicts = settle(&contenders);
        owned
            .iter()
            .map(|(id, ..)| match &verdicts[id] {
                Verdict::Has => "has".to_owned(),
                Verdict::Invalid => "invalid".to_owned(),
                Verdict::Lost { winner, .. } => winner.name.clone(),
            })
            .collect()
    }

    #[test]
    fn free_claims_go_to_the_older_else_by_name() {
        assert_eq!(run(&[("a", 2, Some(&["x"]), &[]), ("b", 1, Some(&["x"]), &[])]), ["b", "has"]);
        assert_eq!(run(&[("b", 1, Some(&["x"]), &[]), ("a", 1, Some(&["x"]), &[])]), ["a", "has"]);
        // A loser takes nothing along.
        let rows: [Row<'_>; 3] =
            [("a", 1, Some(&["x"]), &[]), ("b", 2, Some(&["x", "y"]), &[]), ("c", 3, Some(&["y"]), &[])];
        assert_eq!(run(&rows), ["has", "a", "has"]);
    }

    #[test]
    fn a_holder_stays() {
        assert_eq!(run(&[("a", 1, Some(&["x"]), &[]), ("b", 2, Some(&["x"]), &["x"])]), ["b", "has"]);
        // Also while it gains something else, and while it is invalid.
        assert_eq!(run(&[("a", 1, Some(&["x"]), &[]), ("b", 2, Some(&["x", "y"]), &["x"])]), ["b", "has"]);
        assert_eq!(run(&[("a", 1, Some(&["x"]), &[]), ("b", 2, None, &["x"])]), ["b", "invalid"]);
        // And when it wants away but cannot.
        let rows: [Row<'_>; 3] =
            [("a", 1, Some(&["x"]), &[]), ("b", 2, Some(&["y"]), &["x"]), ("c", 3, Some(&["y"]), &["y"])];
        assert_eq!(run(&rows), ["b", "c", "has"]);
    }

    #[test]
    fn two_may_swap() {
        assert_eq!(run(&[("a", 1, Some(&["y"]), &["x"]), ("b", 2, Some(&["x"]), &["y"])]), ["has", "has"]);
    }

    #[test]
    fn what_is_given_up_is_free() {
        assert_eq!(run(&[("a", 1, Some(&["y"]), &["x"]), ("b", 2, Some(&["x"]), &[])]), ["has", "has"]);
    }
}
