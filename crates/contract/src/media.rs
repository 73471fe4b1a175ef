//! Media events: what a relay tells the owner of a leg, sequenced so that a new owner can ask for what it missed.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaEvent {
    /// Rises by one for each event of a call.
    pub seq: u64,
    /// The NG call-id: the call id.
    pub call: String,
    /// The leg's tag, where it is about one leg.
    pub tag: Option<String>,
    /// What happened.
    pub kind: MediaEventKind,
}

/// What happened to a leg or call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MediaEventKind {
    /// The first packet came, from here.
    Latched(SocketAddr),
    /// Nothing came from the leg for a while.
    Silent,
    /// Neither leg sent for the configured time: the call ends.
    SessionTimeout,
    /// A digit of RFC 4733, its duration in timestamp units.
    Dtmf {
        /// `0-9*#A-D`.
        digit: char,
        /// In units of the RTP clock.
        duration: u16,
    },
    /// The session is gone.
    Ended,
    /// The relay goes down soon: the session is to be had elsewhere.
    Draining,
}
