//! The admin server: /livez, /readyz, /metrics, views at /v1/<name>, logs that can be followed there, and commands.
//!
//! A command is a POST to /v1/<view>/<id>/<verb>. It is taken from loopback only, wherever else the server listens, and
//! from no browser: there a page of somebody else's could send it.

use crate::health::Health;
use crate::log::Follow;
use crate::metrics::Metrics;
use crate::running::{Commands, Done, Logs, Running, Views};
use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use axum::serve::{IncomingStream, Listener};
use serde::Deserialize;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};

/// A view or a command that takes longer is given up with 503.
const VIEW_LIMIT: Duration = Duration::from_secs(5);
/// Who follows a log waits for so long at most.
const WAIT_LIMIT: u64 = 30;

/// What the server shows.
#[derive(Clone)]
pub struct AdminState {
    /// Liveness and readiness.
    pub health: Health,
    /// Metrics.
    pub metrics: Metrics,
    views: Views,
    logs: Logs,
    commands: Commands,
    more: Router,
}

impl AdminState {
    /// Without views.
    pub fn new(health: Health, metrics: Metrics) -> Self {
        let (views, logs, commands) = (Views::new(), Logs::new(), Commands::new());
        Self { health, metrics, views, logs, commands, more: Router::new() }
    }

    /// With what answers in a way of its own: its path comes before a view of that name.
    pub fn with(mut self, routes: Router) -> Self {
        self.more = self.more.merge(routes);
        self
    }

    /// With what a service shows and can be told.
    pub fn of(mut self, running: &Running) -> Self {
        self.views.extend(running.views.clone());
        self.logs.extend(running.logs.clone());
        self.commands.extend(running.commands.clone());
        self
    }
}

/// Whether who asks is on this machine.
#[derive(Debug, Clone, Copy)]
pub struct OnLoopback(bool);

impl OnLoopback {
    fn is(address: IpAddr) -> Self {
        Self(address.to_canonical().is_loopback())
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for OnLoopback {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::is(stream.remote_addr().ip())
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for OnLoopback {
    fn connect_info(_: IncomingStream<'_, UnixListener>) -> Self {
        Self(true)
    }
}

/// Binds `addr` (port 0: any free one) and returns the address and a future that serves until it is dropped. Fails if
/// the address cannot be bound.
pub async fn serve(
    addr: SocketAddr,
    state: AdminState,
) -> io::Result<(SocketAddr, impl Future<Output = anyhow::Result<()>> + Send + 'static)> {
    let listener = TcpListener::bind(addr).await?;
    let local = listener.local_addr()?;
    Ok((local, on(listener, state)))
}

/// Serves on what is bound already.
pub async fn on<L>(listener: L, state: AdminState) -> anyhow::Result<()>
where
    L: Listener,
    L::Addr: Debug,
    OnLoopback: for<'a> Connected<IncomingStream<'a, L>>,
{
    let more = state.more.clone();
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1", get(names))
        .route("/v1/{view}", get(view))
        .route("/v1/{view}/{id}/{verb}", post(command))
        .with_state(Arc::new(state))
        .merge(more);
    Ok(axum::serve(listener, app.into_make_service_with_connect_info::<OnLoopback>()).await?)
}

async fn livez(State(state): State<Arc<AdminState>>) -> Response {
    verdict("ok", "loops that do not turn", &state.health.stalled())
}

async fn readyz(State(state): State<Arc<AdminState>>) -> Response {
    verdict("ok", "not ready", &state.health.missing())
}

fn verdict(good: &str, bad: &str, names: &[String]) -> Response {
    if names.is_empty() {
        format!("{good}\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{bad}: {}\n", names.join(", "))).into_response()
    }
}

async fn metrics(State(state): State<Arc<AdminState>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.encode()).into_response()
}

async fn names(State(state): State<Arc<AdminState>>) -> Response {
    Json(state.views.keys().collect::<Vec<_>>()).into_response()
}

/// From where a log is read on, and how many seconds may pass until there is something.
#[derive(Debug, Deserialize)]
struct Since {
    after: Option<String>,
    #[serde(default)]
    wait: u64,
}

async fn view(State(state): State<Arc<AdminState>>, Path(name): Path<String>, Query(from): Query<Since>) -> Response {
    if let (Some(log), Some(cursor)) = (state.logs.get(&name), &from.after) {
        let limit = Duration::from_secs(from.wait.min(WAIT_LIMIT));
        return Json(read(log.as_ref(), cursor, limit).await.json(&name)).into_response();
    }
    let Some(make) = state.views.get(&name) else {
        return (StatusCode::NOT_FOUND, "no such view; /v1 lists them\n").into_response();
    };
    match tokio::time::timeout(VIEW_LIMIT, make()).await {
        Ok(json) => Json(json).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the view took too long\n").into_response(),
    }
}

/// What came after the cursor, once there is something or the limit is over.
async fn read(log: &dyn Follow, cursor: &str, limit: Duration) -> crate::log::Page {
    // Before the first look: what is written after it wakes.
    let mut grown = log.grown();
    let page = log.after(cursor);
    if !page.items.is_empty() {
        return page;
    }
    match tokio::time::timeout(limit, grown.changed()).await {
        Ok(_) => log.after(cursor),
        Err(_) => page,
    }
}

async fn command(
    State(state): State<Arc<AdminState>>,
    ConnectInfo(OnLoopback(here)): ConnectInfo<OnLoopback>,
    Path((view, id, verb)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Response {
    if !here {
        return (StatusCode::FORBIDDEN, "commands are taken from loopback only\n").into_response();
    }
    if headers.contains_key(header::ORIGIN) {
        return (StatusCode::FORBIDDEN, "commands are not taken from web pages\n").into_response();
    }
    let Some(act) = state.commands.get(&(view, verb)) else {
        return (StatusCode::NOT_FOUND, "no such command\n").into_response();
    };
    let done = tokio::time::timeout(VIEW_LIMIT, act(id)).await.unwrap_or(Done::Gone);
    match done {
        Done::Done => StatusCode::NO_CONTENT.into_response(),
        Done::Unknown => (StatusCode::NOT_FOUND, "there is none of this id here\n").into_response(),
        Done::Gone => (StatusCode::SERVICE_UNAVAILABLE, "it was not done\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    #[tokio::test]
    async fn commands_are_taken_from_loopback_only() {
        let mut running = Running::new();
        running.command("calls", "hangup", |_| async { Done::Done });
        let state = Arc::new(AdminState::new(Health::new(Clock::new()), Metrics::new()).of(&running));
        for (from, status) in [
            ("127.0.0.1", StatusCode::NO_CONTENT),
            ("127.8.9.1", StatusCode::NO_CONTENT),
            ("::1", StatusCode::NO_CONTENT),
            ("::ffff:127.0.0.1", StatusCode::NO_CONTENT),
            ("192.0.2.1", StatusCode::FORBIDDEN),
            ("::ffff:192.0.2.1", StatusCode::FORBIDDEN),
            ("2001:db8::1", StatusCode::FORBIDDEN),
        ] {
            let here = OnLoopback::is(from.parse().unwrap());
            let path = Path(("calls".to_owned(), "a".to_owned(), "hangup".to_owned()));
            let answer = command(State(state.clone()), ConnectInfo(here), path, HeaderMap::new()).await;
            assert_eq!(answer.status(), status, "{from}");
        }
    }
}
