//! Response processing (16.7): what goes on at once, and which final answer is the best of a fork.

use crate::build;
use crate::edit::Edit;
use crate::message::{Message, Name};
use bytes::Bytes;

/// Whether a response that came to us has a Via below ours: without, it was for us (16.7 item 3).
pub fn has_next_via(response: &Message<'_>) -> bool {
    response.values(Name::Via).nth(1).is_some()
}

/// What to do with a response of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Forward this response now (without our Via): 101 to 199, or any 2xx to INVITE.
    Forward,
    /// The same, and cancel all branches that are still open: the first 2xx.
    ForwardAndCancel,
    /// Keep it; cancel the open branches: a 6xx (item 5).
    Cancel,
    /// Keep it, or drop it (100).
    Wait,
}

/// The best final answer of all branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Best {
    /// The branch it came from; `None` for a 408 of our own.
    pub branch: Option<usize>,
    /// Its status, after 503 became 500.
    pub status: u16,
    /// The answer as received, if there was one.
    pub bytes: Option<Bytes>,
    /// WWW-Authenticate values of the other branches, to be added to a 401 or 407.
    pub www: Vec<String>,
    /// Proxy-Authenticate values of the other branches.
    pub proxy: Vec<String>,
}

#[derive(Debug, Clone)]
enum Branch {
    Open,
    Answered(u16, Bytes),
    /// Timed out or unreachable: counts as this status.
    Silent(u16),
    /// A 2xx was forwarded.
    Done,
}

/// The response context of one forwarded request (16.7), bounded by the number of its branches.
#[derive(Debug, Clone, Default)]
pub struct ResponseContext {
    branches: Vec<Branch>,
    answered: bool,
    /// 503 of a fork stays 503: for a proxy that has tried all its destinations and is itself overloaded (item 6).
    pub keep_503: bool,
    /// A 6xx came: no further branch is begun.
    refused: bool,
}

/// Challenges kept of other branches.
const MAX_CHALLENGES: usize = 16;

impl ResponseContext {
    /// No branch yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A branch was begun; its index. Serial forks add branches later.
    pub fn add_branch(&mut self) -> usize {
        self.branches.push(Branch::Open);
        self.branches.len() - 1
    }

    /// A response came on `branch`. `invite` is true for INVITE, of which each 2xx goes on.
    pub fn receive(&mut self, branch: usize, status: u16, bytes: &Bytes, invite: bool) -> Action {
        let first_2xx = !self.answered;
        let Some(slot) = self.branches.get_mut(branch) else {
            return Action::Wait;
        };
        match status {
            100 => Action::Wait,
            ..200 => match slot {
                Branch::Open if !self.answered => Action::Forward,
                _ => Action::Wait,
            },
            200..300 => {
                *slot = Branch::Done;
                self.answered = true;
                match (first_2xx, invite) {
                    (true, _) => Action::ForwardAndCancel,
                    (false, true) => Action::Forward,
                    (false, false) => Action::Wait,
                }
            }
            _ => {
                if matches!(slot, Branch::Open) {
                    *slot = Branch::Answered(status, bytes.clone());
                }
                if status >= 600 && !self.answered {
                    self.refused = true;
                    Action::Cancel
                } else {
                    Action::Wait
                }
            }
        }
    }

    /// The branch timed out (408) or could not be reached (503): item 8 and 16.9.
    pub fn failed(&mut self, branch: usize, status: u16) {
        if let Some(slot) = self.branches.get_mut(branch)
            && matches!(slot, Branch::Open)
        {
            *slot = Branch::Silent(status);
        }
    }

    /// Branches without a final answer: those to cancel.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.branches.iter().enumerate().filter(|(_, b)| matches!(b, Branch::Open)).map(|(i, _)| i)
    }

    /// Whether a 2xx was forwarded.
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whether a 6xx came, so that no further destination is tried.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// The best answer (item 6), once no branch is open and no 2xx went on; else `None`.
    pub fn best(&self) -> Option<Best> {
        if self.answered || self.branches.is_empty() || self.open().next().is_some() {
            return None;
        }
        let finals = self.branches.iter().enumerate().filter_map(|(i, b)| match b {
            Branch::Answered(status, bytes) => Some((i, *status, Some(bytes))),
            Branch::Silent(status) => Some((i, *status, None)),
            Branch::Open | Branch::Done => None,
        });
        let (branch, status, bytes) = finals.min_by_key(|(i, status, _)| (rank(*status), *i))?;
        let (mut www, mut proxy) = (Vec::new(), Vec::new());
        if matches!(status, 401 | 407) {
            for (i, other) in self.branches.iter().enumerate() {
                if let Branch::Answered(401 | 407, bytes) = other
                    && i != branch
                    && let Ok(msg) = Message::parse(bytes)
                {
                    www.extend(msg.headers(Name::WwwAuthenticate).map(str::to_owned));
                    proxy.extend(msg.headers(Name::ProxyAuthenticate).map(str::to_owned));
                }
            }
            www.truncate(MAX_CHALLENGES);
            proxy.truncate(MAX_CHALLENGES);
        }
        let status = if status == 503 && !self.keep_503 { 500 } else { status };
        let branch = bytes.is_some().then_some(branch);
        Some(Best { branch, status, bytes: bytes.cloned(), www, proxy })
    }
}

impl Best {
    /// The answer as it leaves: our Via popped, challenges of the other branches added (item 7). A 503 that became 500, and a branch
    /// that never answered, give an answer of our own to `request`, the request as received, with `to_tag`.
    pub fn response(&self, request: &Message<'_>, to_tag: &str) -> Bytes {
        if let Some(bytes) = &self.bytes
            && let Ok(msg) = Message::parse(bytes)
            && msg.status() == Some(self.status)
        {
            let mut edit = Edit::new(&msg);
            edit.pop_top(Name::Via);
            for value in &self.www {
                edit.append(Name::WwwAuthenticate, value.as_str());
            }
            for value in &self.proxy {
                edit.append(Name::ProxyAuthenticate, value.as_str());
            }
            return edit.finish();
        }
        build::response(request, self.status, None, Some(to_tag)).finish()
    }
}

/// Lower is better (16.7 item 6): 6xx before all; then the lowest class; in 4xx first what lets the caller help itself. 503 comes after
/// other 5xx, and 408 after other 4xx: a branch that was silent says least.
fn rank(status: u16) -> (u8, u8) {
    match status {
        600.. => (0, 0),
        401 | 407 => (4, 0),
        415 | 420 | 484 => (4, 1),
        408 | 487 => (4, 3),
        400..500 => (4, 2),
        503 => (5, 1),
        500..600 => (5, 0),
        _ => (3, 0),
    }
}
