//! An indexed binary heap: each slot has at most one deadline, and a changed or cancelled one leaves nothing behind.

use std::time::Duration;

const ABSENT: u32 = u32::MAX;

/// Deadlines by slot. All changes are O(log n); the earliest is O(1).
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: Vec<(Duration, u32)>,
    /// Where in `heap` a slot's entry stands, or `ABSENT`.
    position: Vec<u32>,
}

impl Schedule {
    /// The earliest deadline and its slot.
    pub(super) fn first(&self) -> Option<(Duration, u32)> {
        self.heap.first().copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Sets or clears the deadline of `slot`.
    pub(super) fn set(&mut self, slot: u32, when: Option<Duration>) {
        let index = slot as usize;
        if index >= self.position.len() {
            if when.is_none() {
                return;
            }
            self.position.resize(index + 1, ABSENT);
        }
        let at = self.position.get(index).copied().unwrap_or(ABSENT);
        match when {
            Some(when) if at == ABSENT => {
                self.heap.push((when, slot));
                self.up(self.heap.len() - 1);
            }
            Some(when) => {
                let at = at as usize;
                if let Some(entry) = self.heap.get_mut(at) {
                    entry.0 = when;
                }
                let at = self.up(at);
                self.down(at);
            }
            None if at == ABSENT => {}
            None => {
                let at = at as usize;
                self.heap.swap_remove(at);
                self.note(index, ABSENT);
                if at < self.heap.len() {
                    let at = self.up(at);
                    self.down(at);
                }
            }
        }
    }

    fn note(&mut self, slot: usize, at: u32) {
        if let Some(p) = self.position.get_mut(slot) {
            *p = at;
        }
    }

    fn key(&self, at: usize) -> Option<(Duration, u32)> {
        self.heap.get(at).copied()
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    fn settle(&mut self, at: usize) {
        if let Some((_, slot)) = self.key(at) {
            self.note(slot as usize, at as u32);
        }
    }

    fn up(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.key(at) >= self.key(parent) {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
        self.settle(at);
        at
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.key(child) < self.key(least) {
                    least = child;
                }
            }
            if least == at {
                self.settle(at);
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_as_a_sorted_map(steps in prop::collection::vec((0u32..24, prop::option::of(0u64..50)), 0..300)) {
            let mut schedule = Schedule::default();
            let mut model: BTreeMap<u32, Duration> = BTreeMap::new();
            for (slot, when) in steps {
                let when = when.map(Duration::from_millis);
                schedule.set(slot, when);
                match when {
                    Some(w) => { model.insert(slot, w); }
                    None => { model.remove(&slot); }
                }
                let first = model.iter().map(|(s, w)| (*w, *s)).min();
                prop_assert_eq!(schedule.first(), first);
                prop_assert_eq!(schedule.len(), model.len());
            }
            let mut last = Duration::ZERO;
            while let Some((when, slot)) = schedule.first() {
                prop_assert!(when >= last);
                last = when;
                schedule.set(slot, None);
            }
        }
    }
}
