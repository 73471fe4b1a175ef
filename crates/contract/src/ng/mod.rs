//! Media control: rtpengine's NG protocol, for our own callers and for foreign ones.
//!
//! A message is `cookie SP dictionary`, the dictionary in bencode. Keys that nobody here knows are ignored. Spaces in
//! keys and flags may be written as hyphens. Our own additions are optional keys that begin with `kubepbx-`.
//!
//! How the router uses it: each leg has a tag of its own. `offer(from = A, to = B, sdp of A)` gives the description to
//! send to B, carrying the ports kept for B; `answer(from = A, to = B, sdp of B)` gives the one to send to A and joins
//! the two. A later offer from A with another `to` keeps A's ports: the far leg is replaced, the near one is not touched.
//! Without `to` an offer opens a pending leg that the answer names, as rtpengine defines it.

pub mod bencode;
mod reply;
mod request;
mod seal;

pub use reply::{Reply, Report, StreamReport, TagReport, Totals};
pub use request::{Command, Delete, Description, Flags, MAX_COOKIE, MAX_NAME, Query, Request, RequestError, RtcpMux};
pub use seal::{is_sealed, seal};

#[cfg(test)]
mod tests;
