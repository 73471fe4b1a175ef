//! A log of the last things that happened, read by cursor: whoever writes never waits, whoever reads too slowly misses some
//! and is told how many.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What stands in a log, for readers who need not know what it is of.
pub trait Follow: Send + Sync {
    /// All of it as JSON, oldest first.
    fn all(&self) -> Vec<Value>;

    /// What came after a cursor; all of it, where the cursor is empty or of another run of the process.
    fn after(&self, cursor: &str) -> Page;

    /// Changes whenever something is written.
    fn grown(&self) -> watch::Receiver<u64>;
}

/// What came after a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The cursor to go on from.
    pub next: String,
    /// How many came after the cursor too, and are forgotten.
    pub lost: u64,
    /// As JSON, oldest first.
    pub items: Vec<Value>,
}

impl Page {
    /// `{"next": CURSOR, "lost": N, "<name>": [...]}`
    pub fn json(self, name: &str) -> Value {
        json!({"next": self.next, "lost": self.lost, name: self.items})
    }
}

#[derive(Debug)]
struct Inner<T> {
    /// Tells cursors of this log from those of another run.
    run: String,
    limit: usize,
    /// How many were written before the first that is kept, and those.
    kept: Mutex<(u64, VecDeque<Arc<T>>)>,
    written: watch::Sender<u64>,
}

/// The log. Clones write to the same.
#[derive(Debug)]
pub struct Log<T>(Arc<Inner<T>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Log<T> {
    /// An empty log that keeps the last `limit`. `run` is unique to this run of the process and holds no colon.
    pub fn new(run: impl ToString, limit: usize) -> Self {
        let kept = Mutex::new((0, VecDeque::new()));
        Self(Arc::new(Inner { run: run.to_string(), limit: limit.max(1), kept, written: watch::Sender::new(0) }))
    }

    fn kept(&self) -> MutexGuard<'_, (u64, VecDeque<Arc<T>>)> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one; the oldest is forgotten where there are too many.
    pub fn write(&self, item: T) {
        let mut kept = self.kept();
        if kept.1.len() == self.0.limit {
            kept.1.pop_front();
            kept.0 += 1;
        }
        kept.1.push_back(Arc::new(item));
        drop(kept);
        self.0.written.send_modify(|written| *written += 1);
    }
}

impl<T: Serialize + Send + Sync> Follow for Log<T> {
    fn all(&self) -> Vec<Value> {
        self.after("").items
    }

    fn after(&self, cursor: &str) -> Page {
        let of_this_run = cursor.split_once(':').filter(|(run, _)| *run == self.0.run);
        let asked: u64 = of_this_run.and_then(|(_, n)| n.parse().ok()).unwrap_or(0);
        // What is read is made into JSON without the lock, which the writer needs.
        let (first, items) = {
            let kept = self.kept();
            let skip = usize::try_from(asked.saturating_sub(kept.0)).unwrap_or(usize::MAX);
            (kept.0, kept.1.iter().skip(skip).cloned().collect::<Vec<_>>())
        };
        let from = asked.max(first);
        let items: Vec<Value> = items.iter().map(|item| json!(item.as_ref())).collect();
        let next = format!("{}:{}", self.0.run, from + items.len() as u64);
        Page { next, lost: first.saturating_sub(asked), items }
    }

    fn grown(&self) -> watch::Receiver<u64> {
        self.0.written.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_from_its_cursor_and_is_told_what_it_missed() {
        let log = Log::new("a", 3);
        assert_eq!(log.after(""), Page { next: "a:0".into(), lost: 0, items: vec![] });
        (1..=3).for_each(|n| log.write(n));
        let page = log.after("");
        assert_eq!(page, Page { next: "a:3".into(), lost: 0, items: vec![json!(1), json!(2), json!(3)] });
        assert_eq!(log.after("a:2").items, [json!(3)]);
        assert!(log.after("a:3").items.is_empty());
        (4..=8).for_each(|n| log.write(n));
        assert_eq!(log.all(), [json!(6), json!(7), json!(8)]);
        let page = log.after(&page.next);
        assert_eq!(page, Page { next: "a:8".into(), lost: 2, items: vec![json!(6), json!(7), json!(8)] });
        // A cursor of another run, a forged one, one of the future.
        assert_eq!(log.after("b:8"), Page { next: "a:8".into(), lost: 5, items: page.items.clone() });
        assert_eq!(log.after("x").lost, 5);
        assert!(log.after("a:99999999999999999999").items.len() == 3 && log.after("a:9").items.is_empty());
        assert_eq!(page.json("events"), json!({"next": "a:8", "lost": 2, "events": [6, 7, 8]}));
    }

    #[tokio::test]
    async fn a_reader_is_woken_by_what_is_written() {
        let log = Log::new("a", 3);
        let mut grown = log.grown();
        log.clone().write("x");
        grown.changed().await.unwrap();
        assert_eq!(log.all(), [json!("x")]);
    }
}
