//! Drain: no new work is taken, what is under way is finished, then the process goes.

use std::time::Duration;
use tokio::sync::watch;

/// One drain that all parts of a process share. It starts once and never stops.
#[derive(Debug, Clone)]
pub struct Drain {
    draining: watch::Sender<bool>,
    guards: watch::Sender<usize>,
}

/// One piece of work under way (a call, a transaction): [`Drain::finished`] waits until all are dropped.
#[derive(Debug)]
pub struct DrainGuard {
    guards: watch::Sender<usize>,
}

impl Drain {
    /// A drain that has not started.
    pub fn new() -> Self {
        Self { draining: watch::Sender::new(false), guards: watch::Sender::new(0) }
    }

    /// Starts it. Starting again changes nothing.
    pub fn start(&self) {
        self.draining.send_if_modified(|started| !std::mem::replace(started, true));
    }

    /// True once started.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Returns once started. In a `select!` guard it by `if !draining`, as it goes on returning at once.
    pub async fn draining(&self) {
        let mut started = self.draining.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = started.wait_for(|s| *s).await;
    }

    /// Names a piece of work as under way. Given also while draining: what was promised is finished.
    pub fn guard(&self) -> DrainGuard {
        self.guards.send_modify(|n| *n += 1);
        DrainGuard { guards: self.guards.clone() }
    }

    /// How many guards are held.
    pub fn under_way(&self) -> usize {
        *self.guards.borrow()
    }

    /// Returns once started and nothing is under way.
    pub async fn finished(&self) {
        self.draining().await;
        let mut guards = self.guards.subscribe();
        let _ = guards.wait_for(|n| *n == 0).await;
    }

    /// [`Drain::finished`], but at most `limit` after the drain started: false if work was left.
    pub async fn finished_within(&self, limit: Duration) -> bool {
        self.draining().await;
        tokio::time::timeout(limit, self.finished()).await.is_ok()
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.guards.send_modify(|n| *n = n.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finishes_when_started_and_the_last_guard_is_gone() {
        let drain = Drain::new();
        let guard = drain.guard();
        let late = drain.clone();
        let waiter = tokio::spawn(async move {
            late.finished().await;
            late.under_way()
        });
        tokio::task::yield_now().await;
        assert!(!drain.is_draining() && !waiter.is_finished());
        drain.start();
        assert!(!drain.finished_within(Duration::from_millis(20)).await);
        assert!(!waiter.is_finished());
        drop(guard);
        assert_eq!(waiter.await.unwrap(), 0);
        assert!(drain.finished_within(Duration::from_secs(5)).await);
    }
}
