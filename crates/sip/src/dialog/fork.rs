//! The dialogs that one INVITE of ours makes when it forks downstream (12.1.2, 13.2.2).

use super::{Dialog, DialogError, DialogId, State};
use crate::message::Message;

/// What a response did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// A new early dialog, at this index.
    Early(usize),
    /// A provisional of a dialog that is there, at this index.
    Progress(usize),
    /// The first 2xx of this dialog: send ACK. The first confirmed one is the call; a user agent ends the others with ACK and BYE.
    Confirmed(usize),
    /// A 2xx again: send the same ACK again.
    Repeated(usize),
    /// A provisional that makes no dialog (100, or without tag).
    None,
    /// A final failure: all early dialogs are over (and removed).
    Failed,
}

/// All dialogs of one INVITE, bounded.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    dialogs: Vec<Dialog>,
    limit: usize,
}

impl Fork {
    /// None yet; at most `limit` dialogs are kept, further provisionals make none, and a 2xx replaces the oldest early one.
    pub fn new(limit: usize) -> Self {
        Fork { dialogs: Vec::new(), limit: limit.max(1) }
    }

    /// A response to `invite`, the request as sent, came.
    ///
    /// # Errors
    /// As [`Dialog::uac`]; also when `limit` confirmed dialogs are there.
    pub fn receive(&mut self, invite: &Message<'_>, response: &Message<'_>) -> Result<Forked, DialogError> {
        let status = response.status().ok_or(DialogError::NoDialog)?;
        if status >= 300 {
            self.dialogs.retain(|d| d.state == State::Confirmed);
            return Ok(Forked::Failed);
        }
        let id = DialogId::of_response(response).ok_or(DialogError::NoDialog)?;
        if status == 100 || status < 200 && id.remote_tag.is_empty() {
            return Ok(Forked::None);
        }
        if let Some(index) = self.dialogs.iter().position(|d| d.id == id) {
            let Some(dialog) = self.dialogs.get_mut(index) else {
                return Ok(Forked::None);
            };
            return Ok(match (dialog.state, status) {
                (State::Early, 200..) => {
                    dialog.confirm(response)?;
                    Forked::Confirmed(index)
                }
                (State::Early, _) => Forked::Progress(index),
                (State::Confirmed, 200..) => Forked::Repeated(index),
                (State::Confirmed, _) => Forked::None,
            });
        }
        let dialog = Dialog::uac(invite, response)?;
        if self.dialogs.len() >= self.limit {
            if status < 200 {
                return Ok(Forked::None);
            }
            let early = self.dialogs.iter().position(|d| d.state == State::Early).ok_or(DialogError::NoDialog)?;
            self.dialogs.remove(early);
        }
        self.dialogs.push(dialog);
        let index = self.dialogs.len() - 1;
        Ok(if status < 200 { Forked::Early(index) } else { Forked::Confirmed(index) })
    }

    /// The dialogs, in order of their first response.
    pub fn dialogs(&self) -> &[Dialog] {
        &self.dialogs
    }

    /// One dialog, to send requests in it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Dialog> {
        self.dialogs.get_mut(index)
    }
}
