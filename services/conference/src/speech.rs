//! What requests say of bodies and session timers, and what our 2xx says of us.

use rtp::sdp::Session;
use sip::build::Response;
use sip::{Message, Name};
use std::time::Duration;

/// Methods that we answer.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE";
/// Extensions that we do.
pub(crate) const SUPPORTED: &str = "timer";
/// The type of bodies that we read.
pub(crate) const SDP: &str = "application/sdp";
/// The shortest session interval taken (RFC 4028 5). Seconds.
const LEAST_INTERVAL: u32 = 90;

/// What a message carries.
pub(crate) enum Body {
    None,
    Sdp(Box<Session>),
    /// Of a kind that we do not read.
    Other,
    Broken,
}

pub(crate) fn body(message: &Message<'_>) -> Body {
    if message.body().is_empty() {
        return Body::None;
    }
    let kind = message.header(Name::ContentType).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(SDP) {
        return Body::Other;
    }
    Session::parse(message.body()).map_or(Body::Broken, |s| Body::Sdp(Box::new(s)))
}

/// The session interval that the peer keeps up itself (RFC 4028 9); `Err` tells the least we take. Where it wants us
/// to refresh, or cannot, there is no timer.
pub(crate) fn interval(message: &Message<'_>) -> Result<Option<u32>, u32> {
    let able = message.values(Name::Supported).any(|o| o.eq_ignore_ascii_case("timer"));
    let Some(value) = message.header(Name::SessionExpires).filter(|_| able) else { return Ok(None) };
    let (seconds, params) = value.split_once(';').unwrap_or((value, ""));
    let ours = params.split(';').any(|p| p.trim().eq_ignore_ascii_case("refresher=uas"));
    match seconds.trim().parse::<u32>() {
        Ok(seconds) if seconds < LEAST_INTERVAL => Err(LEAST_INTERVAL),
        Ok(seconds) if !ours => Ok(Some(seconds)),
        _ => Ok(None),
    }
}

/// When the side that does not refresh sends BYE (RFC 4028 10).
pub(crate) fn give_up_after(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds - (seconds / 3).min(32)))
}

/// What every 2xx of ours says of itself.
pub(crate) fn stated<'m, 'a>(response: Response<'m, 'a>, message: &Message<'_>, contact: &str) -> Response<'m, 'a> {
    let response =
        response.header(Name::Contact, contact).header(Name::Allow, ALLOW).header(Name::Supported, SUPPORTED);
    match interval(message) {
        Ok(Some(seconds)) => {
            response.header(Name::SessionExpires, format!("{seconds};refresher=uac")).header(Name::Require, SUPPORTED)
        }
        _ => response,
    }
}
