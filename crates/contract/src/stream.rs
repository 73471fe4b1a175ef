//! The configuration stream between the operator and a process: what stands on each line and what goes back.
//!
//! `GET /v1/stream/<service>?process=..&pod=..&epoch=..&n=..&hash=..` answers with one JSON object a line
//! (`application/x-ndjson`): first a snapshot, unless the version asked with is the current one, then deltas, and a ping at
//! least every [`PING`]. `POST /v1/acks` takes an [`Ack`]. A standby answers both with 307 and the leader's address.

use crate::config::{Delta, Snapshot, Version};
use crate::process::{ProcessId, Service};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The schema number of what this file describes.
pub const SCHEMA: u32 = 1;

/// The longest silence of a stream that lives.
pub const PING: Duration = Duration::from_secs(5);

/// What one line brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Frame<E> {
    /// All entries.
    Snapshot(Snapshot<E>),
    /// From the version before to the next.
    Delta(Delta<E>),
    /// Nothing new; this is the current version.
    Ping(Version),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line<E> {
    /// [`SCHEMA`]; a reader takes its own and the one before.
    pub schema: u32,
    /// What it brings.
    #[serde(flatten)]
    pub frame: Frame<E>,
}

/// What a process tells of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its service.
    pub service: Service,
    /// Its name.
    pub process: ProcessId,
    /// The pod it runs in.
    pub pod: String,
    /// The version that it has in use.
    pub version: Version,
    /// Why it did not take a later one, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConferenceEntry;

    #[test]
    fn a_line_reads_back_and_unknown_fields_are_ignored() {
        let line =
            Line::<ConferenceEntry> { schema: SCHEMA, frame: Frame::Ping(Version { epoch: 3, n: 4, hash: u64::MAX }) };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"schema":1,"ping":{"epoch":3,"n":4,"hash":18446744073709551615}}"#);
        let more = text.replace("\"schema\":1", "\"schema\":1,\"later\":true");
        assert_eq!(serde_json::from_str::<Line<ConferenceEntry>>(&text).unwrap(), line);
        assert_eq!(serde_json::from_str::<Line<ConferenceEntry>>(&more).unwrap(), line);
    }
}
