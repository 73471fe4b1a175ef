//! The relay within this process, as the router asks it.

use contract::ProcessId;
use contract::ng::{Command, Reply};
use futures::future::BoxFuture;
use media::MediaHandle;
use runtime::media::{MediaControl, MediaError};

/// The in-process handle: the only relay there is.
pub struct Relay(pub MediaHandle);

impl MediaControl for Relay {
    fn request(&self, _relay: ProcessId, command: Command) -> BoxFuture<'_, Result<Reply, MediaError>> {
        Box::pin(async move { Ok(self.0.request(command).await) })
    }
}
