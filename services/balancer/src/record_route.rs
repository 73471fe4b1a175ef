//! Record-Route and Path (RFC 3261 16.6 item 4, RFC 3327): the URIs by which a dialog and a binding find their flow.

use crate::listen::Listeners;
use crate::token::pair;
use contract::{Flow, KeyRing, Transport};
use sip::edit::Edit;
use sip::{Message, Method, Name};

/// The value of our Record-Route or Path for a flow: its token as the user, the advertised address as the host.
pub fn route(flow: &Flow, keys: &KeyRing, listeners: &Listeners) -> String {
    uri(&flow.token(keys), flow, listeners)
}

/// The value of our Record-Route for one side of a dispatched dialog.
pub fn paired(flow: &Flow, call_id: &str, keys: &KeyRing, listeners: &Listeners) -> String {
    uri(&pair::seal(flow, call_id, keys), flow, listeners)
}

fn uri(user: &str, flow: &Flow, listeners: &Listeners) -> String {
    let host = listeners.advertised(flow);
    match flow.transport {
        Transport::Udp => format!("<sip:{user}@{host};lr>"),
        other => format!("<sip:{user}@{host};transport={};lr>", other.as_param()),
    }
}

/// True for a request that may make a dialog: one of the methods that do, outside of any dialog.
pub fn forms_dialog(request: &Message<'_>) -> bool {
    matches!(request.method(), Some(Method::Invite | Method::Subscribe | Method::Refer | Method::Notify))
        && request.to().is_ok_and(|to| to.tag().is_none())
}

/// Gives a message that came without Content-Length (a datagram may) the one that it needs on a stream.
pub trait Length {
    /// Appends Content-Length where there is none.
    fn with_length(&mut self, message: &Message<'_>) -> &mut Self;
}

impl Length for Edit<'_, '_> {
    fn with_length(&mut self, message: &Message<'_>) -> &mut Self {
        if message.header(Name::ContentLength).is_none() {
            self.replace_number(Name::ContentLength, message.body().len() as u64);
        }
        self
    }
}
