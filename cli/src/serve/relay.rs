//! The relay within this process: its control for the router, its events, its figures as metrics.

use contract::ProcessId;
use contract::config::{MediaEntry, Snapshot};
use contract::ng::{Command, Reply};
use futures::future::BoxFuture;
use media::MediaHandle;
use runtime::Metrics;
use runtime::media::{MediaControl, MediaError};
use runtime::mesh::Member;
use runtime::metrics::{Counter, Gauge};
use runtime::source::Subscription;
use std::collections::BTreeMap;
use std::time::Duration;

/// The in-process handle as what a router asks: the only relay there is.
pub struct Relay(pub MediaHandle);

impl MediaControl for Relay {
    fn request(&self, _relay: ProcessId, command: Command) -> BoxFuture<'_, Result<Reply, MediaError>> {
        Box::pin(async move { Ok(self.0.request(command).await) })
    }
}

/// Keeps `kubepbx_media_*` at what the relay counts (counters where the name ends in `_total`, else gauges), and its
/// load at its calls.
pub async fn measure(handle: MediaHandle, member: Member, metrics: Metrics) -> anyhow::Result<()> {
    let mut figures = BTreeMap::new();
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tick.tick().await;
        let counters = handle.counters();
        member.set_load(counters.calls);
        for (name, help, value) in counters.table() {
            figures.entry(name).or_insert_with(|| Figure::new(&metrics, name, help)).set(value);
        }
    }
}

/// One of the relay's figures as a metric.
enum Figure {
    Now(Gauge),
    /// A counter only goes up.
    Ever(Counter),
}

impl Figure {
    fn new(metrics: &Metrics, name: &str, help: &str) -> Self {
        match name.strip_suffix("_total") {
            Some(name) => Self::Ever(metrics.counter(&format!("media_{name}"), help)),
            None => Self::Now(metrics.gauge(&format!("media_{name}"), help)),
        }
    }

    fn set(&self, value: u64) {
        match self {
            Self::Now(gauge) => _ = gauge.set(i64::try_from(value).unwrap_or(i64::MAX)),
            Self::Ever(counter) => _ = counter.inc_by(value.saturating_sub(counter.get())),
        }
    }
}

/// How long a joined call, and a held or lone one, may be without packets: as the installation says, else the relay's
/// own limits.
pub fn timeouts(snapshot: &Snapshot<MediaEntry>) -> (Duration, Duration) {
    match snapshot.entries.values().next().map(AsRef::as_ref) {
        Some(MediaEntry::Pbx { timeout, held_timeout }) => {
            (Duration::from_secs((*timeout).into()), Duration::from_secs((*held_timeout).into()))
        }
        None => {
            let own = media::Config::default();
            (own.timeout, own.timeout_held)
        }
    }
}

/// Keeps the relay's settings at what is published, and acknowledges each version.
pub async fn follow(handle: MediaHandle, mut source: Subscription<MediaEntry>) -> anyhow::Result<()> {
    loop {
        let snapshot = source.snapshot();
        let (timeout, held) = timeouts(&snapshot);
        handle.set_timeouts(timeout, held);
        source.ack(snapshot.version);
        source.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::ng::Description;
    use runtime::source::MemorySource;

    /// What the compiler makes of a Pbx with these limits.
    fn entries(timeout: u32, n: u64) -> Snapshot<MediaEntry> {
        let manifest = format!(
            "apiVersion: kubepbx.io/v1alpha1\nkind: Pbx\nmetadata: {{name: main}}\nspec: {{media: {{timeout: {timeout}s}}}}\n"
        );
        let mut folder = api::Folder::new(n);
        let update = folder.load(&[api::Source { name: "pbx.yaml".into(), text: manifest }]);
        assert!(update.problems.is_empty(), "{:?}", update.problems);
        folder.compiler().media().clone()
    }

    #[tokio::test]
    async fn a_shorter_limit_ends_a_call_that_exists_and_is_acknowledged() {
        let config =
            media::Config { rtp_address: [127, 0, 0, 1].into(), ports: 24100..=24139, ..media::Config::default() };
        let mut relay = media::build(config).await.unwrap();
        let source = MemorySource::starting_at(entries(300, 1));
        let following = tokio::spawn(follow(relay.handle.clone(), source.subscribe(contract::ProcessId(1))));
        source.live(source.snapshot().version).await;
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let say = || Description::new("one", "a", Some("b"), sdp.as_bytes().to_vec());
        relay.handle.request(Command::Offer(say())).await;
        relay.handle.request(Command::Answer(say())).await;
        assert_eq!(relay.handle.counters().calls, 1);
        let short = entries(1, 2);
        let version = short.version;
        source.publish_snapshot(short).unwrap();
        tokio::time::timeout(Duration::from_secs(5), source.live(version)).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), relay.events.recv()).await.unwrap().unwrap();
        assert_eq!(ended.event.kind, contract::media::MediaEventKind::SessionTimeout);
        following.abort();
        relay.shutdown().await;
    }
}
