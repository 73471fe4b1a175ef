//! The relay within this process: its control for the router, its events, its figures as metrics.

use contract::ng::{Command, Reply};
use futures::future::BoxFuture;
use media::MediaHandle;
use runtime::Metrics;
use runtime::media::{MediaControl, MediaError};
use std::collections::BTreeMap;
use std::time::Duration;

/// The in-process handle as what a router asks.
pub struct Relay(pub MediaHandle);

impl MediaControl for Relay {
    fn request(&self, command: Command) -> BoxFuture<'_, Result<Reply, MediaError>> {
        Box::pin(async move { Ok(self.0.request(command).await) })
    }
}

/// Keeps the gauges `kubepbx_media_*` at what the relay counts.
pub async fn measure(handle: MediaHandle, metrics: Metrics) -> anyhow::Result<()> {
    let mut gauges = BTreeMap::new();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        for (name, help, value) in handle.counters().table() {
            let gauge = gauges.entry(name).or_insert_with(|| metrics.gauge(name, help));
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}
