//! The configuration stream between the operator and a process: what stands on each line and what goes back.
//!
//! `GET /v1/stream/<service>?process=..&pod=..&epoch=..&n=..&hash=..` answers with one JSON object a line
//! (`application/x-ndjson`): first a snapshot, unless the version asked with is the current one, then deltas, and a ping at
//! least every [`PING`], which also says whether this process is to take nothing new. `POST /v1/acks` takes an [`Ack`]. A standby answers both with 307 and the leader's address.

use crate::config::{Delta, Snapshot, Version};
use crate::process::{ProcessId, Service};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The schema number of what this file describes.
pub const SCHEMA: u32 = 1;

/// The longest silence of a stream that lives.
pub const PING: Duration = Duration::from_secs(5);

/// An acknowledgement's body is at most this long, in bytes.
pub const MAX_ACK: usize = 16 * 1024;

/// The error in an acknowledgement is at most this long, in bytes.
pub const MAX_ERROR: usize = 1024;

/// Where acknowledgements are posted.
pub const ACKS: &str = "/v1/acks";

/// Where the stream of a service is asked for.
pub fn path(service: Service) -> String {
    format!("/v1/stream/{}", service.as_str())
}

/// Who asks for a stream, and which version it has: the query of the request. The default version asks for everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The process, as 16 hexadecimal digits.
    pub process: String,
    /// The pod it runs in; empty outside a cluster.
    #[serde(default)]
    pub pod: String,
    /// Of the version at hand.
    #[serde(default)]
    pub epoch: u64,
    /// Of the version at hand.
    #[serde(default)]
    pub n: u64,
    /// Of the version at hand.
    #[serde(default)]
    pub hash: u64,
}

impl Ask {
    /// The version at hand.
    pub fn version(&self) -> Version {
        Version { epoch: self.epoch, n: self.n, hash: self.hash }
    }

    /// As it stands behind the `?`.
    pub fn query(&self) -> String {
        let mut pod = String::with_capacity(self.pod.len());
        for byte in self.pod.bytes() {
            match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' => pod.push(char::from(byte)),
                other => pod.push_str(&format!("%{other:02X}")),
            }
        }
        let Self { process, epoch, n, hash, .. } = self;
        format!("process={process}&pod={pod}&epoch={epoch}&n={n}&hash={hash}")
    }
}

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
    /// On a ping: the process that is sent it is to take nothing new, until a ping says so no longer. Other lines say
    /// nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
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
        let frame = Frame::Ping(Version { epoch: 3, n: 4, hash: u64::MAX });
        let line = Line::<ConferenceEntry> { schema: SCHEMA, frame, drain: false };
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(text, r#"{"schema":1,"ping":{"epoch":3,"n":4,"hash":18446744073709551615}}"#);
        let more = text.replace("\"schema\":1", "\"schema\":1,\"later\":true");
        assert_eq!(serde_json::from_str::<Line<ConferenceEntry>>(&text).unwrap(), line);
        assert_eq!(serde_json::from_str::<Line<ConferenceEntry>>(&more).unwrap(), line);
        let text = serde_json::to_string(&Line { drain: true, ..line }).unwrap();
        assert_eq!(text, r#"{"schema":1,"ping":{"epoch":3,"n":4,"hash":18446744073709551615},"drain":true}"#);
    }
}
