//! A process's side of the stream: follows the operator and feeds a subscription; what is acknowledged goes back.
//!
//! Without an operator everything goes on with what there is. After a loss it resumes at the version at hand; a gap or
//! another hash has everything sent again; an epoch that is over is not listened to.

use super::backoff::Backoff;
use super::http::{Connection, Door};
use super::lines::{News, Reader, Unfit};
use crate::metrics::{Counter, Gauge, Metrics};
use crate::source::{MemorySource, Subscription, Told};
use anyhow::{Context, anyhow, bail};
use bytes::{Buf, BytesMut};
use contract::ProcessId;
use contract::config::{Entry, Version};
use contract::stream::{ACKS, Ack, Ask, PING, SCHEMA, path};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::RETRY_AFTER;
use hyper::{Method, Response, StatusCode};
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;

/// A line is at most this long, in bytes: some 100,000 endpoints.
const MAX_LINE: usize = 64 * 1024 * 1024;

/// What is read of an answer that is no stream, in bytes.
const MAX_ANSWER: usize = 4096;

/// Lines that must fail to come before a stream counts as dead.
const PINGS: u32 = 3;

/// How patient a follower is.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The longest silence of a stream that lives; after three of it the connection is given up.
    pub ping: Duration,
    /// The wait after a first failure; it doubles with each.
    pub least: Duration,
    /// The longest wait between two tries.
    pub most: Duration,
    /// The longest that a connection may take to be made.
    pub connect: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            ping: PING,
            least: Duration::from_millis(100),
            most: Duration::from_secs(5),
            connect: Duration::from_secs(3),
        }
    }
}

/// Whom to follow, and as whom.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The operator's URL: `https://host:port`.
    pub operator: String,
    /// Whom to trust: certificates as PEM, read for each connection.
    pub ca: PathBuf,
    /// The service account's token, read for each request.
    pub token: PathBuf,
    /// This process.
    pub process: ProcessId,
    /// The pod it runs in.
    pub pod: String,
    /// How patient to be.
    pub timing: Timing,
    /// Where it is counted.
    pub metrics: Metrics,
}

/// Follows the configuration of the service that reads `E`, within this tokio runtime, until the subscription is dropped.
/// The subscription is empty at first: wait for [`Subscription::started`]. What is acknowledged on it goes to the operator.
pub fn follow<E: Entry>(follow: Follow) -> Subscription<E> {
    let source = MemorySource::new();
    let subscription = source.subscribe(follow.process);
    tokio::spawn(async move {
        let process = follow.process;
        let mut followed = source.acks();
        let follower = Follower::new(follow, source);
        tokio::select! {
            _ = followed.wait_for(|acks| !acks.contains_key(&process)) => {}
            () = follower.listen() => {}
            () = follower.answer() => {}
        }
    });
    subscription
}

/// Where the stream comes from now, and which of all that there were it is.
type Leader = Option<(String, u64)>;

struct Follower<E> {
    follow: Follow,
    door: Door,
    source: MemorySource<E>,
    leader: watch::Sender<Leader>,
    connected: Gauge,
    snapshots: Counter,
    losses: Counter,
}

/// What listening remembers from one stream to the next.
struct State {
    reader: Reader,
    /// Ask for everything: what is at hand cannot be gone on from.
    everything: bool,
    backoff: Backoff,
    /// How many streams there were.
    streams: u64,
    /// Whether the present loss was told.
    told: bool,
}

impl<E: Entry> Follower<E> {
    fn new(follow: Follow, source: MemorySource<E>) -> Self {
        let Follow { ca, token, timing, metrics, .. } = &follow;
        Self {
            door: Door { ca: ca.clone(), token: token.clone(), connect: timing.connect },
            source,
            leader: watch::Sender::new(None),
            connected: metrics.gauge("configuration_connected", "1 while a stream of configuration is open"),
            snapshots: metrics.counter("configuration_snapshots", "Whole snapshots of configuration received"),
            losses: metrics.counter("configuration_losses", "Streams of configuration that ended or were not given"),
            follow,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.follow.timing.least, self.follow.timing.most)
    }

    /// Keeps a stream open.
    async fn listen(&self) {
        let mut rng = crate::entropy();
        let mut state =
            State { reader: Reader::default(), everything: false, backoff: self.backoff(), streams: 0, told: false };
        loop {
            let mut least = Duration::ZERO;
            let why = self.stream(&mut state, &mut least).await;
            self.leader.send_replace(None);
            self.connected.set(0);
            self.losses.inc();
            let why = why.map_or_else(|error| format!("{error:#}"), |never| match never {});
            // Once a loss, however long it lasts.
            if !std::mem::replace(&mut state.told, true) {
                tracing::warn!(why, "no stream of configuration: going on with what there is");
            }
            let wait = state.backoff.next(&mut rng).max(least.min(self.follow.timing.most));
            tracing::debug!(why, ?wait, "the stream of configuration is asked for again");
            tokio::time::sleep(wait).await;
        }
    }

    /// Opens a stream and takes what it brings until it ends; then the error says why. `least` is how long the server
    /// wants to be left alone.
    async fn stream(&self, state: &mut State, least: &mut Duration) -> anyhow::Result<Infallible> {
        let has = if state.everything { Version::default() } else { state.reader.version() };
        let Version { epoch, n, hash } = has;
        let ask = Ask { process: self.follow.process.to_string(), pod: self.follow.pod.clone(), epoch, n, hash };
        let path = format!("{}?{}", path(E::SERVICE), ask.query());
        let (connection, answer) = self.door.get(&self.follow.operator, &path).await?;
        if answer.status() != StatusCode::OK {
            let seconds = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
            *least = Duration::from_secs(seconds.unwrap_or(0));
            return Err(refusal(answer).await);
        }
        state.streams += 1;
        self.leader.send_replace(Some((connection.base.clone(), state.streams)));
        self.connected.set(1);
        let (mut body, mut buffer, mut seen) = (answer.into_body(), BytesMut::new(), 0);
        loop {
            let frame = match tokio::time::timeout(self.follow.timing.ping * PINGS, body.frame()).await {
                Ok(frame) => frame.context("the operator ended the stream")??,
                Err(_) => bail!("nothing came for {:?}", self.follow.timing.ping * PINGS),
            };
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer[seen..].iter().position(|b| *b == b'\n') {
                let line = buffer.split_to(seen + end);
                buffer.advance(1);
                seen = 0;
                self.take(state, &line)?;
            }
            seen = buffer.len();
            if buffer.is_empty() {
                // Gives back what a snapshot needed.
                buffer = BytesMut::new();
            } else if seen > MAX_LINE {
                bail!("a line of more than {MAX_LINE} bytes");
            }
        }
    }

    /// Takes one line. An error ends the stream.
    fn take(&self, state: &mut State, line: &[u8]) -> anyhow::Result<()> {
        let taken = match state.reader.read::<E>(line) {
            Ok(News::Snapshot(snapshot)) => {
                self.snapshots.inc();
                state.everything = false;
                self.source.publish_snapshot(snapshot)
            }
            Ok(News::Delta(delta)) => self.source.publish_checked(delta),
            Ok(News::Ping { drain }) => {
                self.source.order_drain(drain);
                Ok(())
            }
            Err(Unfit::Refused(why)) => {
                tracing::warn!(why, "configuration not taken: going on with what there is");
                self.source.refuse(&why);
                state.everything = true;
                return Ok(());
            }
            Err(unfit) => {
                state.everything |= matches!(unfit, Unfit::Gap(_));
                return Err(unfit.into());
            }
        };
        if taken.is_err() {
            state.everything = true;
        }
        taken?;
        if !state.reader.is_behind() {
            state.backoff.reset();
            if std::mem::take(&mut state.told) {
                tracing::info!(epoch = state.reader.version().epoch, "the stream of configuration is back");
            }
        }
        Ok(())
    }

    /// Tells the leader what is acknowledged here: once a change and once a stream.
    async fn answer(&self) {
        let (mut acks, mut leader) = (self.source.acks(), self.leader.subscribe());
        let (mut backoff, mut rng) = (self.backoff(), crate::entropy());
        let mut connection = None;
        let mut last: Option<(u64, Told)> = None;
        loop {
            let told = acks.borrow_and_update().get(&self.follow.process).cloned().unwrap_or_default();
            let to = leader.borrow_and_update().clone();
            let due = to.filter(|(_, stream)| {
                told != Told::default() && last.as_ref().is_none_or(|(s, t)| s != stream || *t != told)
            });
            let Some((base, stream)) = due else {
                tokio::select! {
                    changed = acks.changed() => if changed.is_err() { return },
                    changed = leader.changed() => if changed.is_err() { return },
                }
                continue;
            };
            match self.post(&mut connection, &base, &told).await {
                Ok(()) => {
                    last = Some((stream, told));
                    backoff.reset();
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "an acknowledgement was not taken");
                    connection = None;
                    tokio::time::sleep(backoff.next(&mut rng)).await;
                }
            }
        }
    }

    async fn post(&self, connection: &mut Option<Connection>, base: &str, told: &Told) -> anyhow::Result<()> {
        let ack = Ack {
            schema: SCHEMA,
            service: E::SERVICE,
            process: self.follow.process,
            pod: self.follow.pod.clone(),
            version: told.version,
            error: told.error.clone(),
        };
        let on = match connection.take_if(|c| c.base == base && !c.is_closed()) {
            Some(kept) => connection.insert(kept),
            None => connection.insert(self.door.connect(base).await?),
        };
        let answer = self.door.send(on, Method::POST, ACKS, serde_json::to_vec(&ack)?.into()).await?;
        if !answer.status().is_success() {
            return Err(refusal(answer).await);
        }
        // Read to its end, or the connection cannot be used again.
        Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| anyhow!("{e}"))?;
        Ok(())
    }
}

/// What an answer that is no stream says.
async fn refusal(answer: Response<Incoming>) -> anyhow::Error {
    let status = answer.status();
    let text = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    anyhow!("{status}: {}", String::from_utf8_lossy(&text).trim())
}
