//! Answers to REGISTER: what is said, apart from the request it is said to.

use bytes::Bytes;
use contract::location::{Binding, Push};
use sip::build;
use sip::{Message, Name};
use std::fmt::Write as _;
use std::time::Duration;

/// Methods that a registrar answers.
pub const ALLOW: &str = "REGISTER, OPTIONS";
/// Extensions that it does (RFC 3327).
pub const SUPPORTED: &str = "path";

/// An answer, kept so that a request that comes twice is answered twice alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Reason phrase; none: the standard one.
    pub reason: Option<String>,
    /// Header fields beyond those copied from the request.
    pub headers: Vec<(Name, String)>,
    /// The tag To gets.
    pub to_tag: String,
}

impl Reply {
    /// Without further header fields.
    pub fn new(status: u16, to_tag: String) -> Self {
        Self { status, reason: None, headers: Vec::new(), to_tag }
    }

    /// With this reason phrase.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// With one more header field.
    pub fn header(mut self, name: Name, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 200 with the bindings, their remaining seconds and the request's own Path (RFC 3261 10.3 step 8, RFC 3327 5.3).
    pub fn registered(to_tag: String, bindings: &[Binding], path: &[String], wall: Duration) -> Self {
        let mut reply = Self::new(200, to_tag);
        for binding in bindings.iter().filter(|b| b.is_live(wall.as_secs())) {
            reply.headers.push((Name::Contact, contact(binding, wall.as_secs())));
        }
        for value in path {
            reply.headers.push((Name::Path, value.clone()));
        }
        reply.header(Name::Supported, SUPPORTED).header(Name::Date, http_date(wall.as_secs()))
    }

    /// Says of which push services phones are woken: those by which they asked to be (RFC 8599).
    pub fn waking<'p>(self, pushes: impl Iterator<Item = &'p Push>) -> Self {
        let mut said: Vec<&str> = Vec::new();
        // Names of services are words; what is none may be anything.
        let is_pns = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        for Push { provider, .. } in pushes.filter(|push| is_pns(&push.provider)) {
            if !said.contains(&provider.as_str()) {
                said.push(provider);
            }
        }
        let name = |reply: Self, of: &str| reply.header(Name::FeatureCaps, format!("*;+sip.pns=\"{of}\""));
        said.into_iter().fold(self, name)
    }

    /// The bytes of this answer to `request`.
    pub fn to(&self, request: &Message<'_>) -> Bytes {
        let start = build::response(request, self.status, self.reason.as_deref(), Some(&self.to_tag));
        self.headers.iter().fold(start, |r, (name, value)| r.header(*name, value)).finish()
    }
}

fn contact(binding: &Binding, now: u64) -> String {
    let mut out = format!("<{}>;expires={}", binding.contact, binding.expires_at.saturating_sub(now));
    // Writing to a string cannot fail.
    if binding.q < 1000 {
        let _ = write!(out, ";q=0.{:03}", binding.q);
    }
    if let Some(instance) = &binding.instance {
        let _ = write!(out, ";+sip.instance={}", sip::header::quote(instance));
    }
    if let Some(reg_id) = binding.reg_id {
        let _ = write!(out, ";reg-id={reg_id}");
    }
    out
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 3261 20.17) of seconds since the UNIX epoch.
pub fn http_date(unix: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let weekday = DAYS[(days % 7) as usize];
    let leap = |y: u64| y.is_multiple_of(4) && !y.is_multiple_of(100) || y.is_multiple_of(400);
    // Whole cycles of 400 years at once, so that no input makes this long.
    let (mut year, mut day) = (1970 + days / 146_097 * 400, days % 146_097);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let month = MONTHS.get(month).copied().unwrap_or_default();
    format!("{weekday}, {:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_as_the_rfc_writes_them() {
        for (unix, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix), want);
        }
    }
}
