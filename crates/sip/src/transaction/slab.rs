//! Slots with generations: an id that outlived its transaction finds nothing instead of a stranger.

/// A growing vector of reusable slots. Ids are `generation << 32 | index`.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// The slot an id names; also the key of the schedule.
pub(super) fn index_of(id: u64) -> u32 {
    (id & u64::from(u32::MAX)) as u32
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Slab { slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// `None` when 2^32 slots are in use.
    pub(super) fn insert(&mut self, value: T) -> Option<u64> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|i| *i != u32::MAX)?;
                self.slots.push(Slot { generation: 0, value: None });
                index
            }
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.value = Some(value);
        self.len += 1;
        Some(u64::from(slot.generation) << 32 | u64::from(index))
    }

    pub(super) fn get(&self, id: u64) -> Option<&T> {
        let slot = self.slots.get(index_of(id) as usize)?;
        if u64::from(slot.generation) == id >> 32 { slot.value.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let slot = self.slots.get_mut(index_of(id) as usize)?;
        if u64::from(slot.generation) == id >> 32 { slot.value.as_mut() } else { None }
    }

    /// The id that slot `index` has now.
    pub(super) fn id_at(&self, index: u32) -> Option<u64> {
        let slot = self.slots.get(index as usize)?;
        slot.value.as_ref().map(|_| u64::from(slot.generation) << 32 | u64::from(index))
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let slot = self.slots.get_mut(index_of(id) as usize)?;
        if u64::from(slot.generation) != id >> 32 {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index_of(id));
        self.len -= 1;
        Some(value)
    }
}
