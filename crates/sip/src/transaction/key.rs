//! Matching: RFC 3261 17.1.3 (responses), 17.2.3 (requests), 9.2 (CANCEL).

use crate::header::Via;
use crate::message::Name;
use crate::message::{Message, Method};

/// What a branch of RFC 3261 begins with; without it the peer speaks RFC 2543.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Separates the parts of a key; no header value holds it.
const SEP: char = '\0';

/// Keys of server transactions. The scratch string is reused, so a look-up allocates nothing.
pub(super) struct RequestKey<'m, 'a> {
    msg: &'m Message<'a>,
    via: Via<'a>,
    legacy: bool,
}

/// Whether `branch` was made by RFC 3261's rules. More than the cookie must stand there.
pub fn is_unique_branch(branch: &str) -> bool {
    branch.len() > MAGIC_COOKIE.len()
        && branch.get(..MAGIC_COOKIE.len()).is_some_and(|start| start.eq_ignore_ascii_case(MAGIC_COOKIE))
}

impl<'m, 'a> RequestKey<'m, 'a> {
    /// `None` if the message lacks what every key needs.
    pub(super) fn of(msg: &'m Message<'a>) -> Option<Self> {
        let via = msg.via().ok()?;
        let legacy = !via.branch().is_some_and(is_unique_branch);
        Some(RequestKey { msg, via, legacy })
    }

    pub(super) fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// The key of the transaction whose request has this method. An ACK is looked up as INVITE. `to_tag` takes part for RFC 2543
    /// only: that of the request itself, or for the ACK that of the answer it acknowledges.
    pub(super) fn write(&self, method: &str, to_tag: Option<&str>, out: &mut String) -> Option<()> {
        out.clear();
        if !self.legacy {
            out.push_str(self.via.branch()?);
            out.push(SEP);
            out.extend(self.via.sent_by.chars().map(|c| c.to_ascii_lowercase()));
            out.push(SEP);
            out.push_str(method);
            return Some(());
        }
        let cseq = self.msg.cseq().ok()?;
        out.push(SEP);
        out.push_str(method);
        for part in [
            self.msg.uri()?,
            to_tag.unwrap_or_default(),
            self.msg.from().ok()?.tag().unwrap_or_default(),
            self.msg.call_id().ok()?,
            self.msg.values(Name::Via).next()?,
        ] {
            out.push(SEP);
            out.push_str(part);
        }
        out.push(SEP);
        push_number(cseq.number, out);
        Some(())
    }

    /// The To tag of the request.
    pub(super) fn to_tag(&self) -> Option<&'a str> {
        self.msg.to().ok()?.tag()
    }
}

/// The key of the client transaction that a response (or the request itself) belongs to: branch of the top Via and method of CSeq.
pub(super) fn client_key(msg: &Message<'_>, out: &mut String) -> Option<()> {
    out.clear();
    let via = msg.via().ok()?;
    out.push_str(via.branch()?);
    out.push(SEP);
    out.push_str(msg.cseq().ok()?.method.as_str());
    Some(())
}

/// The key of the INVITE that a CANCEL with this key cancels.
pub(super) fn cancelled_key(cancel: &str, out: &mut String) {
    out.clear();
    out.push_str(cancel.strip_suffix(Method::Cancel.as_str()).unwrap_or(cancel));
    out.push_str(Method::Invite.as_str());
}

fn push_number(n: u32, out: &mut String) {
    use std::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = write!(out, "{n}");
}
