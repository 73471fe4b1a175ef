//! The admin server: /livez, /readyz, /metrics and views at /v1/<name>.

use crate::health::Health;
use crate::metrics::Metrics;
use crate::running::Views;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::serve::Listener;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// A view that takes longer is given up with 503.
const VIEW_LIMIT: Duration = Duration::from_secs(5);

/// What the server shows.
#[derive(Clone)]
pub struct AdminState {
    /// Liveness and readiness.
    pub health: Health,
    /// Metrics.
    pub metrics: Metrics,
    /// Views of all services: merge their [`crate::Running::views`].
    pub views: Views,
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
{
    let app = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1", get(names))
        .route("/v1/{view}", get(view))
        .with_state(Arc::new(state));
    Ok(axum::serve(listener, app).await?)
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

async fn view(State(state): State<Arc<AdminState>>, Path(name): Path<String>) -> Response {
    let Some(make) = state.views.get(&name) else {
        return (StatusCode::NOT_FOUND, "no such view; /v1 lists them\n").into_response();
    };
    match tokio::time::timeout(VIEW_LIMIT, make()).await {
        Ok(json) => Json(json).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the view took too long\n").into_response(),
    }
}
