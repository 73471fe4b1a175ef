//! One source as lines, whatever its entries are: what one connection is sent.

use super::lines::{self, Pieces};
use crate::source::{MemorySource, Published, Start, Update};
use bytes::Bytes;
use contract::config::{Entry, Version};
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// A source of configuration to be streamed.
pub(super) trait Feed: Send + Sync {
    /// Its last version.
    fn version(&self) -> Version;
    /// The lines that bring one who has `version` to the last one and keep it there.
    fn open(&self, version: Version) -> Box<dyn Lines>;
}

/// The lines for one connection.
pub(super) trait Lines: Send {
    /// The next line or piece of one; `None` when there is no more, which should not be. Safe to cancel.
    fn next(&mut self) -> BoxFuture<'_, Option<(Kind, Bytes)>>;
    /// The version that the lines until now have made.
    fn version(&self) -> Version;
}

/// What a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Snapshot,
    Delta,
}

impl<E: Entry> Feed for MemorySource<E> {
    fn version(&self) -> Version {
        MemorySource::version(self)
    }

    fn open(&self, version: Version) -> Box<dyn Lines> {
        let (start, updates) = self.feed(version);
        let mut cursor = Cursor { source: self.clone(), updates, version, waiting: VecDeque::new(), whole: None };
        cursor.start(start);
        Box::new(cursor)
    }
}

struct Cursor<E> {
    source: MemorySource<E>,
    updates: broadcast::Receiver<Update<E>>,
    version: Version,
    /// Lines that can be sent at once; never more than a source keeps.
    waiting: VecDeque<Bytes>,
    whole: Option<Pieces<E>>,
}

impl<E: Entry> Cursor<E> {
    fn start(&mut self, start: Start<E>) {
        match start {
            Start::Deltas(deltas) => deltas.iter().for_each(|published| self.delta(published)),
            Start::Renamed(delta) => match lines::delta(&delta) {
                Ok(line) => {
                    self.version = delta.to;
                    self.waiting.push_back(line);
                }
                Err(error) => tracing::error!(%error, "a delta cannot be written"),
            },
            Start::Whole(snapshot) => {
                self.version = snapshot.version;
                self.whole = Some(Pieces::new(snapshot));
            }
        }
    }

    fn delta(&mut self, published: &Arc<Published<E>>) {
        let line = match published.line.get() {
            Some(line) => line.clone(),
            None => match lines::delta(&published.delta) {
                Ok(line) => published.line.get_or_init(|| line).clone(),
                // Not sent, so the next ping shows the gap.
                Err(error) => return tracing::error!(%error, "a delta cannot be written"),
            },
        };
        self.version = published.delta.to;
        self.waiting.push_back(line);
    }

    /// What can be sent without waiting.
    fn ready(&mut self) -> Option<(Kind, Bytes)> {
        if let Some(pieces) = &mut self.whole {
            match pieces.next() {
                Ok(Some(piece)) => return Some((Kind::Snapshot, piece)),
                Ok(None) => self.whole = None,
                Err(error) => {
                    tracing::error!(%error, "a snapshot cannot be written");
                    self.whole = None;
                }
            }
        }
        self.waiting.pop_front().map(|line| (Kind::Delta, line))
    }
}

impl<E: Entry> Lines for Cursor<E> {
    fn next(&mut self) -> BoxFuture<'_, Option<(Kind, Bytes)>> {
        Box::pin(async move {
            loop {
                if let Some(ready) = self.ready() {
                    return Some(ready);
                }
                match self.updates.recv().await {
                    Ok(Update::Delta(published)) => self.delta(&published),
                    Ok(Update::Snapshot(snapshot)) => self.start(Start::Whole(snapshot)),
                    Err(RecvError::Lagged(_)) => {
                        let (start, updates) = self.source.feed(self.version);
                        self.updates = updates;
                        self.start(start);
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        })
    }

    fn version(&self) -> Version {
        self.version
    }
}
