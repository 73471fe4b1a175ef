//! Dialogs: RFC 3261 12, and what of 13 belongs to them.
//!
//! [`Dialog`] is plain data with public fields, so that it can be stored and taken over; it holds no timers. [`Fork`] keeps the
//! several dialogs of one INVITE, [`Retransmit2xx`] repeats a 2xx until the ACK, [`AckCache`] repeats the ACK for a repeated 2xx.

mod ack;
mod fork;
#[cfg(test)]
mod tests;

pub use ack::{AckCache, Repeat, Retransmit2xx};
pub use fork::{Fork, Forked};

use crate::build;
use crate::header::{Contact, NameAddr};
use crate::message::{Message, Method, Name};
use crate::uri::{Scheme, Uri};

/// More values in a Record-Route than any real path has.
const MAX_ROUTES: usize = 64;

/// What identifies a dialog at one end (12). A tag is empty where an RFC 2543 peer gave none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialogId {
    /// Call-ID, compared to the byte.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag.
    pub remote_tag: String,
}

impl DialogId {
    /// The dialog in which an arrived request stands: To is ours. `None` without Call-ID, From or To, or without a To tag (then it
    /// stands in no dialog).
    pub fn of_request(request: &Message<'_>) -> Option<DialogId> {
        Some(DialogId {
            call_id: request.call_id().ok()?.to_owned(),
            local_tag: request.to().ok()?.tag()?.to_owned(),
            remote_tag: request.from().ok()?.tag().unwrap_or_default().to_owned(),
        })
    }

    /// The dialog that an arrived response belongs to or makes: From is ours.
    pub fn of_response(response: &Message<'_>) -> Option<DialogId> {
        Some(DialogId {
            call_id: response.call_id().ok()?.to_owned(),
            local_tag: response.from().ok()?.tag().unwrap_or_default().to_owned(),
            remote_tag: response.to().ok()?.tag().unwrap_or_default().to_owned(),
        })
    }
}

/// Whether the dialog is early (made by 101 to 199) or confirmed (by 2xx).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Made by a provisional response.
    Early,
    /// Made or confirmed by a 2xx.
    Confirmed,
}

/// Who sent the request that made the dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We did.
    Uac,
    /// The peer did.
    Uas,
}

/// Why a message does not make or fit a dialog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// CSeq is lower than one before (12.2.2).
    #[error("CSeq {got} is lower than {expected}")]
    OutOfOrder {
        /// The lowest number that would do.
        expected: u32,
        /// The number that came.
        got: u32,
    },
    /// Call-ID or tags are not this dialog's.
    #[error("not of this dialog")]
    NotThisDialog,
    /// A dialog-forming request or 2xx without a usable Contact (12.1).
    #[error("Contact is missing or holds no URI")]
    Contact,
    /// A field that dialogs need is missing or malformed.
    #[error("{} is missing or malformed", .0.as_str())]
    Malformed(Name),
    /// The response makes no dialog: 100, a failure, or a provisional without a tag.
    #[error("response makes no dialog")]
    NoDialog,
}

impl DialogError {
    /// The status to answer a request with.
    pub fn status(&self) -> u16 {
        match self {
            DialogError::OutOfOrder { .. } => 500,
            DialogError::NotThisDialog => 481,
            DialogError::Contact | DialogError::Malformed(_) | DialogError::NoDialog => 400,
        }
    }
}

/// The state of a dialog at one end (12.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    /// Call-ID and tags.
    pub id: DialogId,
    /// Our From or To value, without tag.
    pub local_uri: String,
    /// The peer's From or To value, without tag.
    pub remote_uri: String,
    /// Our Contact value, as it stands in target refresh requests.
    pub local_contact: String,
    /// The peer's Contact URI: where requests go at the end of the route.
    pub remote_target: String,
    /// Route values in the order in which we write them (for the UAC the Record-Route reversed).
    pub route_set: Vec<String>,
    /// The CSeq number of our last request; 0 before the first.
    pub local_cseq: u32,
    /// The CSeq number of the peer's last request.
    pub remote_cseq: Option<u32>,
    /// The request that made the dialog had a `sips` Request-URI.
    pub secure: bool,
    /// Early or confirmed.
    pub state: State,
    /// Which end we are.
    pub role: Role,
}

impl Dialog {
    /// The callee's end (12.1.1): `request` arrived, we answer with `local_tag` and the Contact value `contact`. It begins as early;
    /// see [`Dialog::confirm_local`].
    ///
    /// # Errors
    /// The request has no usable Contact, From, To, Call-ID or CSeq.
    pub fn uas(request: &Message<'_>, local_tag: &str, contact: &str) -> Result<Dialog, DialogError> {
        let from = request.from().map_err(|_| DialogError::Malformed(Name::From))?;
        let to = request.to().map_err(|_| DialogError::Malformed(Name::To))?;
        Ok(Dialog {
            id: DialogId {
                call_id: call_id(request)?,
                local_tag: local_tag.to_owned(),
                remote_tag: from.tag().unwrap_or_default().to_owned(),
            },
            local_uri: without_tag(&to),
            remote_uri: without_tag(&from),
            local_contact: contact.to_owned(),
            remote_target: contact_uri(request).ok_or(DialogError::Contact)?,
            route_set: record_route(request)?,
            local_cseq: 0,
            remote_cseq: Some(cseq(request)?),
            secure: request.uri().is_some_and(is_sips),
            state: State::Early,
            role: Role::Uas,
        })
    }

    /// The caller's end (12.1.2): `response`, 101 to 299 with a To tag, came for our `request`. A provisional may lack Contact; then
    /// the Request-URI is the target until the 2xx. A 2xx without Contact is taken likewise, as such phones exist.
    ///
    /// # Errors
    /// The response makes no dialog, or either message lacks what a dialog needs.
    pub fn uac(request: &Message<'_>, response: &Message<'_>) -> Result<Dialog, DialogError> {
        let status = response.status().ok_or(DialogError::NoDialog)?;
        let to = response.to().map_err(|_| DialogError::Malformed(Name::To))?;
        if !(101..300).contains(&status) || (status < 200 && to.tag().is_none()) {
            return Err(DialogError::NoDialog);
        }
        let from = request.from().map_err(|_| DialogError::Malformed(Name::From))?;
        let target = contact_uri(response).or_else(|| request.uri().map(str::to_owned));
        let mut route_set = record_route(response)?;
        route_set.reverse();
        Ok(Dialog {
            id: DialogId {
                call_id: call_id(request)?,
                local_tag: from.tag().unwrap_or_default().to_owned(),
                remote_tag: to.tag().unwrap_or_default().to_owned(),
            },
            local_uri: without_tag(&from),
            remote_uri: without_tag(&to),
            local_contact: request.header(Name::Contact).unwrap_or_default().to_owned(),
            remote_target: target.ok_or(DialogError::Contact)?,
            route_set,
            local_cseq: cseq(request)?,
            remote_cseq: None,
            secure: request.uri().is_some_and(is_sips),
            state: if status < 200 { State::Early } else { State::Confirmed },
            role: Role::Uac,
        })
    }

    /// The caller's early dialog gets its 2xx (13.2.2.4): the route set is computed anew, the target taken from it.
    ///
    /// # Errors
    /// The response is not of this dialog, or its Record-Route is malformed.
    pub fn confirm(&mut self, response: &Message<'_>) -> Result<(), DialogError> {
        if DialogId::of_response(response).as_ref() != Some(&self.id) {
            return Err(DialogError::NotThisDialog);
        }
        if self.state == State::Early {
            let mut routes = record_route(response)?;
            routes.reverse();
            self.route_set = routes;
            self.state = State::Confirmed;
        }
        if let Some(target) = contact_uri(response) {
            self.remote_target = target;
        }
        Ok(())
    }

    /// The callee sent its 2xx.
    pub fn confirm_local(&mut self) {
        self.state = State::Confirmed;
    }

    /// A request arrived in the dialog: is it ours, and in order (12.2.2)? ACK and CANCEL bear the number of their INVITE and are not
    /// counted.
    ///
    /// # Errors
    /// Answer with [`DialogError::status`] (never an ACK).
    pub fn receive(&mut self, request: &Message<'_>) -> Result<(), DialogError> {
        if DialogId::of_request(request).as_ref() != Some(&self.id) {
            return Err(DialogError::NotThisDialog);
        }
        let got = cseq(request)?;
        if matches!(request.method(), Some(Method::Ack | Method::Cancel)) {
            return Ok(());
        }
        if let Some(last) = self.remote_cseq
            && got < last
        {
            return Err(DialogError::OutOfOrder { expected: last.saturating_add(1), got });
        }
        self.remote_cseq = Some(got);
        Ok(())
    }

    /// Takes the peer's Contact from a target refresh: a request accepted by [`Dialog::receive`], or a 2xx to ours (12.2.1.2,
    /// 12.2.2). True if the target changed. The route set never changes after confirmation.
    pub fn refresh_target(&mut self, msg: &Message<'_>) -> bool {
        let refreshes = match msg.status() {
            Some(status) => {
                (200..300).contains(&status) && msg.cseq().is_ok_and(|c| is_target_refresh(c.method.as_str()))
            }
            None => msg.method().is_some_and(|m| is_target_refresh(m.as_str())),
        };
        match contact_uri(msg) {
            Some(target) if refreshes && target != self.remote_target => {
                self.remote_target = target;
                true
            }
            _ => false,
        }
    }

    /// A request in the dialog (12.2.1.1), with the next CSeq number: Via, Route, Max-Forwards 70, From, To, Call-ID and CSeq, and
    /// for a target refresh our Contact. `via` is the whole Via value with its branch. Not for ACK and CANCEL.
    pub fn request(&mut self, method: &str, via: &str) -> build::Request {
        // 8.1.1.5: below 2^31. A dialog that made two thousand million requests starts over rather than stop.
        self.local_cseq = if self.local_cseq >= (1 << 31) - 1 { 1 } else { self.local_cseq + 1 };
        let request = self.bare(method, self.local_cseq, via);
        if is_target_refresh(method) && !self.local_contact.is_empty() {
            request.header(Name::Contact, &self.local_contact)
        } else {
            request
        }
    }

    /// The ACK for a 2xx (13.2.2.4): CSeq number of the INVITE, a branch of its own in `via`. The caller adds the INVITE's
    /// credentials, if it had any, and an answer if the 2xx held the offer.
    pub fn ack(&self, invite_cseq: u32, via: &str) -> build::Request {
        self.bare("ACK", invite_cseq, via)
    }

    fn bare(&self, method: &str, cseq: u32, via: &str) -> build::Request {
        let (uri, routes) = self.route();
        let mut request = build::request(method, uri).header(Name::Via, via);
        for route in routes {
            request = request.header(Name::Route, route);
        }
        request
            .header(Name::MaxForwards, "70")
            .header(Name::From, with_tag(&self.local_uri, &self.id.local_tag))
            .header(Name::To, with_tag(&self.remote_uri, &self.id.remote_tag))
            .header(Name::CallId, &self.id.call_id)
            .header(Name::CSeq, format!("{cseq} {method}"))
    }

    /// Request-URI and Route values of a request (12.2.1.1): the target and the route set, or behind a strict router its URI and the
    /// rest with the target last.
    pub fn route(&self) -> (&str, Vec<String>) {
        let Some((first, rest)) = self.route_set.split_first() else {
            return (&self.remote_target, Vec::new());
        };
        match NameAddr::parse(first) {
            Ok(strict) if !is_loose(strict.uri) => {
                let routes = rest.iter().cloned().chain([format!("<{}>", self.remote_target)]);
                (strict.uri, routes.collect())
            }
            _ => (&self.remote_target, self.route_set.clone()),
        }
    }

    /// The URI whose address the next request goes to (8.1.2): the first route, else the target.
    pub fn next_hop(&self) -> &str {
        match self.route_set.first().map(|r| NameAddr::parse(r)) {
            Some(Ok(route)) => route.uri,
            _ => &self.remote_target,
        }
    }
}

/// INVITE, UPDATE (RFC 3311), SUBSCRIBE and NOTIFY (RFC 6665), REFER (RFC 3515).
fn is_target_refresh(method: &str) -> bool {
    matches!(method, "INVITE" | "UPDATE" | "SUBSCRIBE" | "NOTIFY" | "REFER")
}

fn is_loose(uri: &str) -> bool {
    Uri::parse(uri).is_ok_and(|u| u.param("lr").is_some())
}

fn is_sips(uri: &str) -> bool {
    Uri::parse(uri).is_ok_and(|u| u.scheme == Scheme::Sips)
}

fn call_id(msg: &Message<'_>) -> Result<String, DialogError> {
    msg.call_id().map(str::to_owned).map_err(|_| DialogError::Malformed(Name::CallId))
}

fn cseq(msg: &Message<'_>) -> Result<u32, DialogError> {
    msg.cseq().map(|c| c.number).map_err(|_| DialogError::Malformed(Name::CSeq))
}

fn contact_uri(msg: &Message<'_>) -> Option<String> {
    match msg.contacts().next()? {
        Ok(Contact::Addr(addr)) => Some(addr.uri.to_owned()),
        _ => None,
    }
}

fn record_route(msg: &Message<'_>) -> Result<Vec<String>, DialogError> {
    let bad = DialogError::Malformed(Name::RecordRoute);
    let mut routes = Vec::new();
    for value in msg.values(Name::RecordRoute) {
        if routes.len() >= MAX_ROUTES || NameAddr::parse(value).is_err() {
            return Err(bad);
        }
        routes.push(value.to_owned());
    }
    Ok(routes)
}

/// A From or To value without its tag; always in angle brackets, so that parameters cannot move into the URI.
fn without_tag(addr: &NameAddr<'_>) -> String {
    let mut out = String::new();
    if let Some(display) = addr.display {
        out.push_str(display);
        out.push(' ');
    }
    out.push('<');
    out.push_str(addr.uri);
    out.push('>');
    for (name, value) in addr.params.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("tag")) {
        out.push(';');
        out.push_str(name);
        if let Some(value) = value {
            out.push('=');
            out.push_str(value);
        }
    }
    out
}

/// An RFC 2543 peer without tag gets none.
fn with_tag(value: &str, tag: &str) -> String {
    if tag.is_empty() { value.to_owned() } else { format!("{value};tag={tag}") }
}
