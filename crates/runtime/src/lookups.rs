//! Look-ups that a core asked for and that are under way: a bounded set of futures to select on.

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use std::future::Future;

/// Too many look-ups are under way: answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many look-ups under way")]
pub struct Overflow;

/// Futures under way, polled by whoever awaits [`Lookups::next`]; dropping the set cancels them.
pub struct Lookups<T> {
    running: FuturesUnordered<BoxFuture<'static, T>>,
    limit: usize,
}

impl<T> Lookups<T> {
    /// A set of at most `limit` futures.
    pub fn new(limit: usize) -> Self {
        Self { running: FuturesUnordered::new(), limit }
    }

    /// Adds a future, unless `limit` are under way.
    pub fn push(&mut self, future: impl Future<Output = T> + Send + 'static) -> Result<(), Overflow> {
        if self.running.len() >= self.limit {
            return Err(Overflow);
        }
        self.running.push(Box::pin(future));
        Ok(())
    }

    /// The next one that finishes; never returns while there is none, so it can stand in a `select!` unguarded.
    /// Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> T {
        match self.running.next().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// True if none is under way.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}

impl<T> std::fmt::Debug for Lookups<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lookups({} of {})", self.len(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_at_most_the_limit_and_returns_each_once() {
        let mut lookups = Lookups::new(2);
        assert_eq!(lookups.push(async { 1 }), Ok(()));
        assert_eq!(lookups.push(async { 2 }), Ok(()));
        assert_eq!(lookups.push(async { 3 }), Err(Overflow));
        let mut got = vec![lookups.next().await, lookups.next().await];
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        assert!(lookups.is_empty());
        let mut empty = Box::pin(lookups.next());
        assert!(futures::poll!(&mut empty).is_pending());
    }
}
