//! Brings HTTPS requests to an axum router: a bounded number of connections, each with limits on what it may take.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Connections at a time; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 4096;

/// A handshake, or a request's head, that takes longer ends the connection; so does idleness between requests.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was sent is acknowledged by the other machine within this, or the connection is dead.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Serves until it is dropped; then all connections end.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, app: Router) -> io::Result<()> {
    let (acceptor, slots) = (TlsAcceptor::from(tls), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let mut connections = JoinSet::new();
    loop {
        // Never closed, so this cannot fail.
        let Ok(slot) = slots.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Of the connection that was to be, or of a limit that passes: wait a little, then go on.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, app) = (acceptor.clone(), app.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, acceptor, app).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, app: Router) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    let stream = tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await??;
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await?;
    Ok(())
}
