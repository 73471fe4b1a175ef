//! One HTTPS connection to an operator, and requests on it.

use super::tls;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// A standby sends to the leader; more hops than this lead nowhere.
const HOPS: usize = 3;

/// The first bytes of an answer come within this.
const ANSWER: Duration = Duration::from_secs(15);

/// How an operator is reached and who one is there. The files are read anew for each connection, the token for each
/// request: both are replaced while a process runs.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// Whom to trust, as PEM.
    pub(super) ca: PathBuf,
    /// A service account's token.
    pub(super) token: PathBuf,
    /// How long to wait for a connection.
    pub(super) connect: Duration,
}

/// A connection; dropping it closes it.
pub(super) struct Connection {
    /// `https://host:port`.
    pub(super) base: String,
    host: HeaderValue,
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Door {
    /// Connects to the server of a URL; its path does not matter.
    pub(super) async fn connect(&self, url: &str) -> anyhow::Result<Connection> {
        match tokio::time::timeout(self.connect, self.open(url)).await {
            Ok(connection) => connection,
            Err(_) => bail!("{url}: no connection within {:?}", self.connect),
        }
    }

    async fn open(&self, url: &str) -> anyhow::Result<Connection> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        // A token goes over TLS or not at all.
        ensure!(uri.scheme_str() == Some("https"), "{url} does not begin with https://");
        let authority = uri.authority().with_context(|| format!("{url} has no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(443);
        let ca = tokio::fs::read(&self.ca).await.with_context(|| format!("{} cannot be read", self.ca.display()))?;
        let config = tls::client(&ca).with_context(|| self.ca.display().to_string())?;
        let stream = TcpStream::connect((host, port)).await.with_context(|| format!("{host}:{port}"))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream =
            TlsConnector::from(config).connect(name, stream).await.with_context(|| format!("TLS to {host}"))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to the operator ended");
            }
        });
        let base = format!("https://{authority}");
        Ok(Connection { base, host: HeaderValue::from_str(authority.as_str())?, sender, _driver: tasks })
    }

    /// Sends a request on a connection and gives the answer's head.
    pub(super) async fn send(
        &self,
        on: &mut Connection,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let token = tokio::fs::read_to_string(&self.token).await;
        let token = Zeroizing::new(token.with_context(|| format!("{} cannot be read", self.token.display()))?);
        let bearer = Zeroizing::new(format!("Bearer {}", token.trim()));
        let mut bearer = HeaderValue::from_str(&bearer).with_context(|| self.token.display().to_string())?;
        bearer.set_sensitive(true);
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, &on.host).header(AUTHORIZATION, bearer);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body))?;
        let answer = async {
            on.sender.ready().await?;
            on.sender.send_request(request).await
        };
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(answer) => Ok(answer?),
            Err(_) => bail!("no answer within {ANSWER:?}"),
        }
    }

    /// Asks for a path at a URL, and where that one sends to.
    pub(super) async fn get(&self, url: &str, path: &str) -> anyhow::Result<(Connection, Response<Incoming>)> {
        let mut url = url.to_owned();
        for _ in 0..=HOPS {
            let mut connection = self.connect(&url).await?;
            let answer = self.send(&mut connection, Method::GET, path, Bytes::new()).await?;
            if answer.status() != StatusCode::TEMPORARY_REDIRECT {
                return Ok((connection, answer));
            }
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            url = to.context("sent on to nowhere")?.to_owned();
        }
        bail!("sent on more than {HOPS} times")
    }
}

impl Connection {
    /// True once nothing more can be asked on it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}
