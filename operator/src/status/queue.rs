//! Which status is written next, and when. Pure.
//!
//! Namespaces take turns, so that none waits for what goes on in another. Within one, every other write is of what has
//! waited longest, so that nothing waits for ever; those between are of what changed last, conditions before all else, so
//! that who changes one resource does not wait for the thousands that somebody changed before.

use api::ResourceId;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

/// Statuses written a second, in all.
const RATE: u32 = 20;

/// Writes at a time.
const AT_A_TIME: usize = 8;

/// How long a write that failed rests.
const REST: Duration = Duration::from_secs(1);

/// A namespace, and a resource in it.
pub type Place = (String, ResourceId);

/// Why a status may have to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Something was observed.
    Observed,
    /// Its conditions may be others: somebody may wait for that.
    Conditions,
}

/// Resources whose status may have to be written.
#[derive(Debug, Default)]
pub struct Queue {
    /// By namespace; none is empty.
    waiting: BTreeMap<String, Waiting>,
    /// Numbers what comes.
    number: u64,
    /// The namespace that was written to last.
    last: String,
    /// Being written, and why it is to be looked at again.
    writing: BTreeMap<Place, Option<Cause>>,
    resting: BTreeMap<Place, Duration>,
    /// When the next may be written.
    free: Duration,
}

impl Queue {
    /// A resource may have to be written.
    pub fn push(&mut self, place: Place, cause: Cause) {
        if let Some(again) = self.writing.get_mut(&place) {
            *again = (*again).max(Some(cause));
            return;
        }
        let (namespace, id) = place;
        self.number += 1;
        self.waiting.entry(namespace).or_default().push(id, cause, self.number);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.places.len()).sum::<usize>() + self.resting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next resource to look at. If it has to be written, say so by [`Queue::begin`]; if not, it was nobody's turn.
    pub fn next(&mut self, now: Duration) -> Option<Place> {
        let rested: Vec<Place> =
            self.resting.iter().filter(|(_, until)| **until <= now).map(|(place, _)| place.clone()).collect();
        for place in rested {
            self.resting.remove(&place);
            self.push(place, Cause::Conditions);
        }
        if self.writing.len() >= AT_A_TIME || self.free > now {
            return None;
        }
        let after = self.waiting.range::<str, _>((Excluded(self.last.as_str()), Unbounded)).next();
        let (namespace, _) = after.or_else(|| self.waiting.first_key_value())?;
        let namespace = namespace.clone();
        let waiting = self.waiting.get_mut(&namespace)?;
        let id = waiting.pop()?;
        if waiting.places.is_empty() {
            self.waiting.remove(&namespace);
        }
        Some((namespace, id))
    }

    /// It is being written.
    pub fn begin(&mut self, place: Place, now: Duration) {
        self.free = self.free.max(now) + Duration::from_secs(1) / RATE;
        self.last.clone_from(&place.0);
        if let Some(waiting) = self.waiting.get_mut(&place.0) {
            waiting.newest = !waiting.newest;
        }
        self.writing.insert(place, None);
    }

    /// It has been written, or not.
    pub fn end(&mut self, place: Place, written: bool, now: Duration) {
        let again = self.writing.remove(&place).flatten();
        if !written {
            self.resting.insert(place, now + REST);
        } else if let Some(cause) = again {
            self.push(place, cause);
        }
    }

    /// When [`Queue::next`] may give something though nothing has changed.
    pub fn deadline(&self) -> Option<Duration> {
        let free = (self.writing.len() < AT_A_TIME && !self.waiting.is_empty()).then_some(self.free);
        free.into_iter().chain(self.resting.values().copied()).min()
    }
}

/// What waits in one namespace: each resource once, by why and in which order it came.
#[derive(Debug, Default)]
struct Waiting {
    places: BTreeMap<ResourceId, (Cause, u64)>,
    order: BTreeMap<(Cause, u64), ResourceId>,
    /// Whether it is the turn of what changed last.
    newest: bool,
}

impl Waiting {
    fn push(&mut self, id: ResourceId, cause: Cause, number: u64) {
        if let Some(before) = self.places.get(&id) {
            // All is observed anew once in a while: that is no reason to lose a place.
            if cause == Cause::Observed {
                return;
            }
            self.order.remove(before);
        }
        self.places.insert(id.clone(), (cause, number));
        self.order.insert((cause, number), id);
    }

    fn pop(&mut self) -> Option<ResourceId> {
        let oldest = || {
            let first = |cause| self.order.range((cause, 0)..=(cause, u64::MAX)).next();
            let both = [Cause::Observed, Cause::Conditions].into_iter().filter_map(first);
            both.min_by_key(|((_, number), _)| *number).map(|(at, _)| *at)
        };
        let newest = || self.order.last_key_value().map(|(at, _)| *at);
        let at = if self.newest { newest() } else { oldest() }?;
        let id = self.order.remove(&at)?;
        self.places.remove(&id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;

    const MS: Duration = Duration::from_millis(1);

    fn at(namespace: &str, name: impl ToString) -> Place {
        (namespace.into(), ResourceId { kind: Kind::PbxEndpoint, name: name.to_string() })
    }

    fn place(n: u32) -> Place {
        at("tel", n)
    }

    fn push(queue: &mut Queue, n: u32) {
        queue.push(place(n), Cause::Conditions);
    }

    /// Writes all that may be written, each done at once, until `end`; gives how many.
    fn write(queue: &mut Queue, now: &mut Duration, end: Duration) -> usize {
        let mut written = 0;
        while *now < end {
            while let Some(place) = queue.next(*now) {
                queue.begin(place.clone(), *now);
                queue.end(place, true, *now);
                written += 1;
            }
            *now += MS;
        }
        written
    }

    /// Writes this many, and gives what.
    fn written(queue: &mut Queue, now: &mut Duration, count: usize) -> Vec<String> {
        let mut out = Vec::new();
        for _ in 0..count {
            *now += MS * 50;
            let place = queue.next(*now).unwrap();
            queue.begin(place.clone(), *now);
            out.push(place.1.name.clone());
            queue.end(place, true, *now);
        }
        out
    }

    #[test]
    fn at_most_so_many_a_second() {
        let (mut queue, mut now) = (Queue::default(), MS * 10_000);
        (0..200).for_each(|n| push(&mut queue, n));
        assert_eq!(write(&mut queue, &mut now, MS * 10_001), 1, "the first at once");
        assert_eq!(write(&mut queue, &mut now, MS * 11_001), 20);
        assert_eq!(write(&mut queue, &mut now, MS * 14_001), 60);
        assert_eq!(queue.len(), 200 - 81);
        assert_eq!(queue.deadline(), Some(queue.free));
        assert_eq!(write(&mut queue, &mut now, MS * 60_000), 200 - 81);
        assert!(queue.is_empty() && queue.deadline().is_none());
    }

    #[test]
    fn each_waits_once_and_one_that_changes_while_it_is_written_comes_again() {
        let (mut queue, now) = (Queue::default(), MS * 10_000);
        (0..3).for_each(|_| push(&mut queue, 1));
        push(&mut queue, 2);
        assert_eq!(queue.len(), 2);
        let first = queue.next(now).unwrap();
        assert_eq!(first, place(1));
        queue.begin(first.clone(), now);
        queue.push(first.clone(), Cause::Conditions);
        queue.push(first.clone(), Cause::Observed);
        assert_eq!(queue.len(), 1);
        queue.end(first.clone(), true, now);
        let later = now + MS * 50;
        assert_eq!((queue.next(later), queue.next(later), queue.next(later)), (Some(first), Some(place(2)), None));
    }

    #[test]
    fn what_changed_last_takes_turns_with_what_has_waited_longest() {
        let (mut queue, mut now) = (Queue::default(), MS * 10_000);
        (0..1000).for_each(|n| push(&mut queue, n));
        assert_eq!(written(&mut queue, &mut now, 4), ["0", "999", "1", "998"]);
        // One is changed, for the first time or again.
        push(&mut queue, 5000);
        assert_eq!(written(&mut queue, &mut now, 2), ["2", "5000"]);
        push(&mut queue, 500);
        assert_eq!(written(&mut queue, &mut now, 2), ["3", "500"]);
        assert_eq!(queue.len(), 1001 - 8);
        // What need not be written is nobody's turn.
        now += MS * 50;
        assert_eq!((queue.next(now), queue.next(now)), (Some(place(4)), Some(place(5))));
        assert_eq!(written(&mut queue, &mut now, 2), ["6", "997"]);
    }

    #[test]
    fn conditions_come_before_what_is_observed_which_does_not_wait_for_ever() {
        let (mut queue, mut now) = (Queue::default(), MS * 10_000);
        (0..1000).for_each(|n| queue.push(place(n), Cause::Observed));
        push(&mut queue, 5000);
        queue.push(place(6000), Cause::Observed);
        assert_eq!(written(&mut queue, &mut now, 4), ["0", "5000", "1", "6000"]);
        // Observed again it stays where it is; with other conditions it comes to those.
        queue.push(place(2), Cause::Observed);
        push(&mut queue, 3);
        assert_eq!(written(&mut queue, &mut now, 3), ["2", "3", "4"]);
        assert_eq!(queue.len(), 1002 - 7);
    }

    #[test]
    fn no_namespace_waits_for_another() {
        let (mut queue, mut now) = (Queue::default(), MS * 10_000);
        (0..1000).for_each(|n| queue.push(at("many", n), Cause::Conditions));
        ["a", "b"].iter().for_each(|name| queue.push(at("few", name), Cause::Observed));
        queue.push(at("other", "c"), Cause::Observed);
        assert_eq!(written(&mut queue, &mut now, 6), ["a", "0", "c", "b", "999", "1"]);
    }

    #[test]
    fn a_failure_rests_and_no_more_than_a_few_are_on_their_way() {
        let (mut queue, now) = (Queue::default(), MS * 10_000);
        (0..8).for_each(|n| push(&mut queue, n));
        let mut begun = Vec::new();
        let mut later = now;
        while let Some(place) = queue.next(later) {
            queue.begin(place.clone(), later);
            begun.push(place);
            later += MS * 50;
        }
        push(&mut queue, 9);
        assert_eq!((begun.len(), queue.next(later), queue.deadline()), (AT_A_TIME, None, None));
        queue.end(begun[0].clone(), false, later);
        assert_eq!((queue.deadline(), queue.next(later)), (Some(queue.free), Some(place(9))));
        assert_eq!((queue.next(later), queue.deadline()), (None, Some(later + REST)));
        assert_eq!(queue.next(later + REST), Some(begun[0].clone()));
    }
}
