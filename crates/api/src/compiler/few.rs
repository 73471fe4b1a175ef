//! A set that mostly has one member: a tree's smallest node has room for eleven.

/// A sorted list without repetition.
#[derive(Debug, Clone)]
pub(super) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Few<T> {
    pub(super) fn insert(&mut self, member: T) {
        if let Err(at) = self.0.binary_search(&member) {
            self.0.reserve_exact(1);
            self.0.insert(at, member);
        }
    }

    pub(super) fn remove(&mut self, member: &T) {
        if let Ok(at) = self.0.binary_search(member) {
            self.0.remove(at);
        }
    }
}

impl<T> Few<T> {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
