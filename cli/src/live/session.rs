//! A conversation with one admin server: HTTP/1.1 over whatever leads there.

use super::place::Link;
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::time::Duration;

/// The largest answer that is read.
const ANSWER: usize = 256 * 1024 * 1024;
/// What is not answered by then is given up.
const LIMIT: Duration = Duration::from_secs(15);
/// So long a broken connection may take to say why.
const EXCUSE: Duration = Duration::from_millis(500);

/// A connection that is asked one thing after the other.
pub struct Session {
    sender: SendRequest<Empty<Bytes>>,
    error: Option<BoxFuture<'static, Option<String>>>,
}

impl Session {
    /// Begins one.
    pub async fn open(link: Link) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(link.stream)).await?;
        // Ends with the sender, and its error is seen there.
        tokio::spawn(async move { _ = connection.await });
        Ok(Self { sender, error: Some(link.error) })
    }

    /// The JSON of a view. `wait` is how long the server may wait with its answer.
    pub async fn get(&mut self, path: &str, wait: Duration) -> Result<Value> {
        match self.ask(Method::GET, path, LIMIT + wait).await? {
            (StatusCode::OK, body) => serde_json::from_slice(&body).with_context(|| format!("GET {path}")),
            (status, body) => bail!("GET {path}: {status}: {}", said(&body)),
        }
    }

    /// Gives a command; false where there is nothing of this name.
    pub async fn post(&mut self, path: &str) -> Result<bool> {
        match self.ask(Method::POST, path, LIMIT).await? {
            (StatusCode::NO_CONTENT, _) => Ok(true),
            (StatusCode::NOT_FOUND, _) => Ok(false),
            (status, body) => bail!("{status}: {}", said(&body)),
        }
    }

    async fn ask(&mut self, method: Method, path: &str, limit: Duration) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder().method(method).uri(path).header("Host", "localhost").body(Empty::new())?;
        let exchange = async {
            self.sender.ready().await?;
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(|error| anyhow!("{error}"))?;
            anyhow::Ok((status, body.to_bytes()))
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.why(error).await),
            Err(_) => bail!("no answer within {} s", limit.as_secs()),
        }
    }

    /// What is known of why a connection broke.
    async fn why(&mut self, error: anyhow::Error) -> anyhow::Error {
        let Some(excuse) = self.error.take() else { return error };
        match tokio::time::timeout(EXCUSE, excuse).await {
            Ok(Some(excuse)) => error.context(excuse.trim().to_owned()),
            _ => error,
        }
    }
}

fn said(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().chars().take(200).collect()
}
