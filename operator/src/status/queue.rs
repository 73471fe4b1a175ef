//! Which status is written next, and when. Pure.

use api::ResourceId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Statuses written a second, in all.
const RATE: u32 = 20;

/// Writes at a time.
const AT_A_TIME: usize = 8;

/// How long a write that failed rests.
const REST: Duration = Duration::from_secs(1);

/// A part of a status, with a field manager of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Conditions.
    Conditions,
    /// What was observed.
    Observed,
}

/// A namespace, a resource in it, and a part of its status.
pub type Place = (String, ResourceId, Aspect);

/// Resources whose status may have to be written, in the order in which they changed.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<Place>,
    known: BTreeSet<Place>,
    /// Being written; true: changed since.
    writing: BTreeMap<Place, bool>,
    resting: BTreeMap<Place, Duration>,
    /// When the next may be written.
    free: Duration,
}

impl Queue {
    /// A resource may have to be written.
    pub fn push(&mut self, place: Place) {
        if let Some(changed) = self.writing.get_mut(&place) {
            *changed = true;
        } else if self.known.insert(place.clone()) {
            self.waiting.push_back(place);
        }
    }

    /// Nothing is written any longer, but what is being written.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.known.clear();
        self.resting.clear();
        self.writing.values_mut().for_each(|changed| *changed = false);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.resting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next resource to look at. If it has to be written, say so by [`Queue::begin`].
    pub fn next(&mut self, now: Duration) -> Option<Place> {
        let rested: Vec<Place> =
            self.resting.iter().filter(|(_, until)| **until <= now).map(|(place, _)| place.clone()).collect();
        for place in rested {
            self.resting.remove(&place);
            self.push(place);
        }
        if self.writing.len() >= AT_A_TIME || self.free > now {
            return None;
        }
        // Parts of one status are written one after the other, in the order in which they were asked for.
        let at = self.waiting.iter().position(|place| !self.other_is_written(place))?;
        let place = self.waiting.remove(at)?;
        self.known.remove(&place);
        Some(place)
    }

    fn other_is_written(&self, (namespace, id, aspect): &Place) -> bool {
        let other = match aspect {
            Aspect::Conditions => Aspect::Observed,
            Aspect::Observed => Aspect::Conditions,
        };
        !self.writing.is_empty() && self.writing.contains_key(&(namespace.clone(), id.clone(), other))
    }

    /// It is being written.
    pub fn begin(&mut self, place: Place, now: Duration) {
        self.free = self.free.max(now) + Duration::from_secs(1) / RATE;
        self.writing.insert(place, false);
    }

    /// It has been written, or not.
    pub fn end(&mut self, place: Place, written: bool, now: Duration) {
        let changed = self.writing.remove(&place).unwrap_or_default();
        if !written {
            self.resting.insert(place, now + REST);
        } else if changed {
            self.push(place);
        }
    }

    /// When [`Queue::next`] may give something though nothing has changed.
    pub fn deadline(&self) -> Option<Duration> {
        let may = || self.waiting.iter().any(|place| !self.other_is_written(place));
        let free = (self.writing.len() < AT_A_TIME && may()).then_some(self.free);
        free.into_iter().chain(self.resting.values().copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Kind;

    const MS: Duration = Duration::from_millis(1);

    fn place(n: u32) -> Place {
        ("tel".into(), ResourceId { kind: Kind::PbxEndpoint, name: n.to_string() }, Aspect::Conditions)
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

    #[test]
    fn at_most_so_many_a_second() {
        let (mut queue, mut now) = (Queue::default(), MS * 10_000);
        (0..200).for_each(|n| queue.push(place(n)));
        assert_eq!(write(&mut queue, &mut now, MS * 10_001), 1, "the first at once");
        assert_eq!(write(&mut queue, &mut now, MS * 11_001), 20);
        assert_eq!(write(&mut queue, &mut now, MS * 14_001), 60);
        assert_eq!(queue.len(), 200 - 81);
        assert_eq!(queue.deadline(), Some(queue.free));
        queue.clear();
        assert!(queue.is_empty() && queue.deadline().is_none());
    }

    #[test]
    fn each_waits_once_and_one_that_changes_while_it_is_written_comes_again() {
        let (mut queue, now) = (Queue::default(), MS * 10_000);
        (0..3).for_each(|_| queue.push(place(1)));
        queue.push(place(2));
        assert_eq!(queue.len(), 2);
        let first = queue.next(now).unwrap();
        assert_eq!(first, place(1));
        queue.begin(first.clone(), now);
        queue.push(first.clone());
        assert_eq!(queue.len(), 1);
        queue.end(first.clone(), true, now);
        let later = now + MS * 50;
        assert_eq!((queue.next(later), queue.next(later), queue.next(later)), (Some(place(2)), Some(first), None));
    }

    #[test]
    fn parts_of_one_status_are_written_one_after_the_other() {
        let (mut queue, now) = (Queue::default(), MS * 10_000);
        let (conditions, (namespace, id, _)) = (place(1), place(1));
        let observed = (namespace, id, Aspect::Observed);
        queue.push(observed.clone());
        queue.push(conditions.clone());
        assert_eq!(queue.next(now), Some(observed.clone()));
        queue.begin(observed.clone(), now);
        let later = now + MS * 50;
        assert_eq!((queue.next(later), queue.deadline()), (None, None));
        queue.push(place(2));
        assert_eq!((queue.next(later), queue.next(later)), (Some(place(2)), None), "another one need not wait");
        queue.end(observed, true, later);
        assert_eq!(queue.deadline(), Some(later));
        assert_eq!(queue.next(later), Some(conditions));
    }

    #[test]
    fn a_failure_rests_and_no_more_than_a_few_are_on_their_way() {
        let (mut queue, now) = (Queue::default(), MS * 10_000);
        (0..20).for_each(|n| queue.push(place(n)));
        let mut begun = Vec::new();
        let mut later = now;
        while let Some(place) = queue.next(later) {
            queue.begin(place.clone(), later);
            begun.push(place);
            later += MS * 50;
        }
        assert_eq!((begun.len(), queue.deadline()), (AT_A_TIME, None));
        queue.clear();
        queue.end(begun[0].clone(), false, later);
        assert_eq!((queue.next(later), queue.deadline()), (None, Some(later + REST)));
        assert_eq!(queue.next(later + REST), Some(begun[0].clone()));
    }
}
