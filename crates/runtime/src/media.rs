//! Media control as a router sees it: NG commands to a relay, wherever that runs.

use contract::ProcessId;
use contract::ng::{Command, Reply};
use futures::future::BoxFuture;

/// Why a relay gave no reply. A refusal is a reply: [`Reply::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// No peer record told where this relay hears NG.
    #[error("relay {0} is not known")]
    Unknown(ProcessId),
    /// The command could not be sent.
    #[error("the relay cannot be asked: {0}")]
    Unavailable(String),
    /// No reply in time, after the retransmissions.
    #[error("the relay did not reply in time")]
    Timeout,
}

/// The control of relays: implemented by media's in-process handle and by an NG client over UDP.
pub trait MediaControl: Send + Sync + 'static {
    /// Sends a command to a relay and waits for its reply, at most a few seconds. Dropping the future may leave the
    /// command done.
    fn request(&self, relay: ProcessId, command: Command) -> BoxFuture<'_, Result<Reply, MediaError>>;
}
