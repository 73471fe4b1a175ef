//! The HTTP side of the stream: who asks is authenticated, a standby sends to the leader, the leader serves its registry.

use super::feed::Kind;
use super::lines;
use super::registry::{Opened, Refusal, Registry};
use crate::metrics::{Counter, Metrics, Reason};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use contract::ProcessId;
use contract::process::Service;
use contract::stream::{ACKS, Ack, Ask, MAX_ACK, PING, SCHEMA};
use futures::future::BoxFuture;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A token is at most this long, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// Authentication that takes longer is given up with 503.
const AUTHENTICATION: Duration = Duration::from_secs(10);

/// Who a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The namespace of the service account.
    pub namespace: String,
    /// The service account's name.
    pub account: String,
    /// The pod that the token is bound to, if it is bound to one.
    pub pod: Option<String>,
}

/// Why a token stands for nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is not valid: 401.
    #[error("{0}")]
    Invalid(String),
    /// Nobody can say now: 503.
    #[error("{0}")]
    Unavailable(String),
}

/// Tells who a bearer token stands for.
pub trait Authorise: Send + Sync + 'static {
    /// The bearer of the token, or why there is none.
    fn authorise<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Denied>>;
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Leader {
    /// Nobody that is known.
    #[default]
    Nobody,
    /// This process.
    Here {
        /// How often leadership has changed hands: the epoch of what it publishes.
        epoch: u64,
    },
    /// Another, reached at this URL, such as `https://10.2.0.7:8443`.
    There(String),
}

/// What the router answers from.
#[derive(Clone)]
pub struct Server {
    /// Says who asks.
    pub authorise: Arc<dyn Authorise>,
    /// What is served.
    pub registry: Registry,
    /// Who leads.
    pub leader: watch::Receiver<Leader>,
    /// The longest silence of a stream: [`PING`].
    pub ping: Duration,
    /// What was sent, and what was refused.
    pub metrics: Metrics,
}

impl Server {
    /// A server with the usual silence.
    pub fn new(
        authorise: Arc<dyn Authorise>,
        registry: Registry,
        leader: watch::Receiver<Leader>,
        metrics: Metrics,
    ) -> Self {
        Self { authorise, registry, leader, ping: PING, metrics }
    }

    /// The routes below `/v1`.
    pub fn router(self) -> Router {
        let counts = Counts::new(&self.metrics);
        Router::new()
            .route("/v1/stream/{service}", get(stream))
            .route(ACKS, post(ack))
            .layer(DefaultBodyLimit::max(MAX_ACK))
            .with_state(Arc::new(Shared { server: self, counts }))
    }
}

struct Shared {
    server: Server,
    counts: Counts,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone)]
struct Counts {
    bytes: Family<KindLabel, Counter>,
    refused: Family<Reason, Counter>,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        Self {
            bytes: metrics.counters("stream_sent_bytes", "Bytes of configuration sent, before TLS"),
            refused: metrics.reasons("stream_refused", "Requests for streams and acknowledgements refused"),
        }
    }

    fn sent(&self, kind: &'static str, bytes: &Bytes) {
        self.bytes.get_or_create(&KindLabel { kind }).inc_by(bytes.len() as u64);
    }
}

/// An answer that is not what was asked for.
struct Refused {
    status: StatusCode,
    reason: &'static str,
    message: String,
    /// Where to ask instead.
    location: Option<String>,
}

impl Refused {
    fn new(status: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { status, reason, message: message.into(), location: None }
    }

    fn answer(self, counts: &Counts) -> Response {
        counts.refused.get_or_create(&Reason { reason: self.reason }).inc();
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
        }
        if let Some(Ok(location)) = self.location.map(TryInto::try_into) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let (status, reason) = match refusal {
            Refusal::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Refusal::Later(_) => (StatusCode::SERVICE_UNAVAILABLE, "later"),
            Refusal::Unknown(_) => (StatusCode::CONFLICT, "unknown process"),
        };
        Self::new(status, reason, refusal.to_string())
    }
}

impl From<Denied> for Refused {
    fn from(denied: Denied) -> Self {
        let (status, reason) = match denied {
            Denied::Invalid(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Denied::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "authentication"),
        };
        Self::new(status, reason, denied.to_string())
    }
}

impl Shared {
    /// The epoch in which this process leads; unless it does, where to go.
    fn leads(&self, uri: &Uri) -> Result<u64, Refused> {
        match &*self.server.leader.borrow() {
            Leader::Here { epoch } => Ok(*epoch),
            Leader::Nobody => Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "no leader", "nobody leads now")),
            Leader::There(url) => {
                let to = format!("{}{}", url.trim_end_matches('/'), uri.path_and_query().map_or("/", |p| p.as_str()));
                let mut refused = Refused::new(StatusCode::TEMPORARY_REDIRECT, "not the leader", &to);
                refused.location = Some(to);
                Err(refused)
            }
        }
    }

    async fn who(&self, headers: &HeaderMap) -> Result<Identity, Refused> {
        let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = token.map(|(_, token)| token.trim()).filter(|t| !t.is_empty() && t.len() <= MAX_TOKEN);
        let token = token.ok_or_else(|| Denied::Invalid("a bearer token is needed".into()))?;
        match tokio::time::timeout(AUTHENTICATION, self.server.authorise.authorise(token)).await {
            Ok(who) => Ok(who?),
            Err(_) => Err(Denied::Unavailable("the token's review took too long".into()).into()),
        }
    }

    async fn open(
        &self,
        service: &str,
        query: Result<Query<Ask>, impl std::fmt::Display>,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Response, Refused> {
        self.leads(uri)?;
        let service: StrDeserializer<'_, ValueError> = service.into_deserializer();
        let service = Service::deserialize(service)
            .map_err(|_| Refused::new(StatusCode::NOT_FOUND, "unknown service", "no such service"))?;
        let bad = |message: String| Refused::new(StatusCode::BAD_REQUEST, "malformed", message);
        let Query(ask) = query.map_err(|e| bad(e.to_string()))?;
        let process: ProcessId = ask.process.parse().map_err(|_| bad("process: not hexadecimal".into()))?;
        let who = self.who(headers).await?;
        let leader = Leader::Here { epoch: self.leads(uri)? };
        let opened = self.server.registry.open(&who, service, process, &ask)?;
        let body = Streaming {
            opened,
            leader,
            leads: self.server.leader.clone(),
            drain: false,
            ping: self.server.ping,
            counts: self.counts.clone(),
        };
        let body = futures::stream::unfold(body, |mut body| async move {
            let piece = body.next().await?;
            Some((Ok::<_, Infallible>(piece), body))
        });
        Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response())
    }

    async fn ack(&self, headers: &HeaderMap, uri: &Uri, body: &Bytes) -> Result<StatusCode, Refused> {
        self.leads(uri)?;
        let who = self.who(headers).await?;
        let bad = |message: &str| Refused::new(StatusCode::BAD_REQUEST, "malformed", message);
        let ack: Ack = serde_json::from_slice(body).map_err(|_| bad("not an acknowledgement"))?;
        if ack.schema != SCHEMA {
            return Err(bad("a schema that is not known"));
        }
        self.server.registry.ack(&who, ack)?;
        Ok(StatusCode::NO_CONTENT)
    }
}

async fn stream(
    State(shared): State<Arc<Shared>>,
    Path(service): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Query<Ask>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match shared.open(&service, query, &headers, &uri).await {
        Ok(response) => response,
        Err(refused) => refused.answer(&shared.counts),
    }
}

async fn ack(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    match shared.ack(&headers, &uri, &body).await {
        Ok(status) => status.into_response(),
        Err(refused) => refused.answer(&shared.counts),
    }
}

/// Returns when something else holds of a pod than it was told.
async fn ordered(draining: &mut watch::Receiver<BTreeSet<String>>, pod: &str, told: bool) {
    if draining.wait_for(|pods| pods.contains(pod) != told).await.is_err() {
        // Nothing is served any longer: the stream is about to end.
        std::future::pending().await
    }
}

/// The body of one stream.
struct Streaming {
    opened: Opened,
    /// Who led when it began.
    leader: Leader,
    leads: watch::Receiver<Leader>,
    /// What the last ping said of the pod.
    drain: bool,
    ping: Duration,
    counts: Counts,
}

impl Streaming {
    /// The next bytes; `None` when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        let piece = tokio::select! {
            biased;
            _ = &mut self.opened.end => return None,
            // Whoever no longer leads, or does so in another epoch, says nothing more.
            _ = self.leads.wait_for(|leader| *leader != self.leader) => return None,
            piece = self.opened.lines.next() => Some(piece?),
            // Only when all lines at hand are sent: a snapshot's are pieces of one.
            () = ordered(&mut self.opened.draining, &self.opened.pod, self.drain) => None,
            () = tokio::time::sleep(self.ping) => None,
        };
        let Some((kind, bytes)) = piece else { return self.pinged() };
        self.counts.sent(if kind == Kind::Snapshot { "snapshot" } else { "delta" }, &bytes);
        Some(bytes)
    }

    /// A ping, which says what holds now.
    fn pinged(&mut self) -> Option<Bytes> {
        self.drain = self.opened.draining.borrow_and_update().contains(&self.opened.pod);
        let line = lines::ping(self.opened.lines.version(), self.drain).ok()?;
        self.counts.sent("ping", &line);
        Some(line)
    }
}
