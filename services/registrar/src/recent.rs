//! Requests answered lately. A phone's retransmission can come by way of another balancer, which does not know it
//! for one; its nonce count is then used already, and its answer must be the first one's.

use crate::reply::Reply;
use sip::{Message, Name};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long a retransmission can come: 64 * T1 (RFC 3261 17.1.2.2, timer F).
const KEEP: Duration = Duration::from_secs(32);

/// What is known of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// It is being worked on.
    UnderWay,
    /// It was answered so.
    Answered(Arc<Reply>),
}

/// Requests by key, at most `limit`; the oldest are forgotten first.
#[derive(Debug)]
pub struct Recent {
    known: HashMap<String, Known>,
    order: VecDeque<(Duration, String)>,
    limit: usize,
}

impl Recent {
    /// None yet.
    pub fn new(limit: usize) -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), limit }
    }

    /// What tells a phone's request from its others, whichever way it came: Call-ID, CSeq and the phone's own branch.
    pub fn key(message: &Message<'_>) -> String {
        let branch = message.values(Name::Via).last().and_then(|v| v.split_once("branch=")).map(|(_, b)| b);
        let part = |name| message.header(name).unwrap_or_default();
        format!("{}\n{}\n{}", part(Name::CallId), part(Name::CSeq), branch.unwrap_or_default())
    }

    /// Looks a request up, and remembers it as under way if it is new.
    pub fn begin(&mut self, key: &str, now: Duration) -> Option<Known> {
        while let Some((at, oldest)) = self.order.front() {
            if now < *at + KEEP && self.order.len() < self.limit {
                break;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
        if let Some(known) = self.known.get(key) {
            return Some(known.clone());
        }
        self.known.insert(key.to_owned(), Known::UnderWay);
        self.order.push_back((now, key.to_owned()));
        None
    }

    /// Its answer.
    pub fn answered(&mut self, key: &str, reply: Arc<Reply>) {
        if let Some(known) = self.known.get_mut(key) {
            *known = Known::Answered(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_for_half_a_minute_and_never_too_many() {
        let at = Duration::from_secs;
        let mut recent = Recent::new(3);
        let reply = Arc::new(Reply::new(200, "t".into()));
        assert_eq!(recent.begin("a", at(0)), None);
        assert_eq!(recent.begin("a", at(1)), Some(Known::UnderWay));
        recent.answered("a", reply.clone());
        assert_eq!(recent.begin("a", at(31)), Some(Known::Answered(reply)));
        assert_eq!(recent.begin("a", at(32)), None);
        for key in ["b", "c", "d", "e"] {
            assert_eq!(recent.begin(key, at(33)), None);
        }
        assert_eq!((recent.known.len(), recent.order.len()), (3, 3));
        assert_eq!(recent.begin("a", at(33)), None);
    }
}
