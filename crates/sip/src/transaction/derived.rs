//! Requests and responses that the layer makes itself from a message at hand.

use crate::build;
use crate::message::{Message, Name};
use bytes::Bytes;

/// ACK for a failure (17.1.1.3): To from the response.
pub(super) fn ack(invite: &Message<'_>, response: &Message<'_>) -> Option<Bytes> {
    derived(invite, "ACK", response.header(Name::To)?, &[])
}

/// CANCEL (9.1): everything from the INVITE.
pub(super) fn cancel(invite: &Message<'_>, reasons: &[&str]) -> Option<Bytes> {
    derived(invite, "CANCEL", invite.header(Name::To)?, reasons)
}

fn derived(invite: &Message<'_>, method: &str, to: &str, reasons: &[&str]) -> Option<Bytes> {
    let mut request = build::request(method, invite.uri()?).header(Name::Via, invite.values(Name::Via).next()?);
    for route in invite.headers(Name::Route) {
        request = request.header(Name::Route, route);
    }
    request = request
        .header(Name::MaxForwards, "70")
        .header(Name::From, invite.header(Name::From)?)
        .header(Name::To, to)
        .header(Name::CallId, invite.call_id().ok()?)
        .header(Name::CSeq, format!("{} {method}", invite.cseq().ok()?.number));
    for reason in reasons {
        request = request.header(Name::Reason, reason);
    }
    Some(request.finish())
}

/// 100 Trying (8.2.6.1): Timestamp copied, no To tag.
pub(super) fn trying(invite: &Message<'_>) -> Bytes {
    build::response(invite, 100, None, None).header_opt(Name::Timestamp, invite.header(Name::Timestamp)).finish()
}

/// 503 for a request that finds the table full, made without state: the To tag is derived from the request, so that every copy gets
/// the same answer (8.2.7). `retry_after` is in seconds. `None` for ACK, which is never answered, and for what is no request.
pub fn overloaded(request: &Message<'_>, retry_after: u32) -> Option<Bytes> {
    if request.method()?.as_str() == "ACK" {
        return None;
    }
    let branch = request.via().ok()?.branch().unwrap_or_default();
    let tag = format!("{:016x}", crate::proxy::stable_hash([branch, request.call_id().ok()?]));
    let response = build::response(request, 503, None, Some(&tag));
    Some(response.header(Name::RetryAfter, retry_after.to_string()).finish())
}
