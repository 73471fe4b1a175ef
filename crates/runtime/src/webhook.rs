//! Requests to webhooks: a signed POST of JSON, one connection each, so many at once.

use crate::stream::tls::provider;
use anyhow::{Context, bail};
use bytes::Bytes;
use contract::config::WebhookEntry;
use contract::webhook::{SIGNATURE, TIMESTAMP, sign};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore};
use tokio_rustls::TlsConnector;

/// Requests under way at once; others wait for their turn.
const AT_ONCE: usize = 64;
/// One request, from the look-up of the name to the head of the answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The client of all webhooks; clones share its limits.
#[derive(Clone)]
pub struct Webhooks {
    turns: Arc<Semaphore>,
    /// With the authorities of the system, read when the first `https:` is met.
    tls: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl Webhooks {
    /// One that has sent nothing yet.
    #[expect(clippy::new_without_default, reason = "there is no other way to make one")]
    pub fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), tls: Arc::default() }
    }

    /// Posts a JSON body, signed at this time (Unix seconds). The status of the answer, or in words why there is none.
    pub async fn post(&self, webhook: &WebhookEntry, body: Bytes, now: u64) -> Result<u16, String> {
        let Ok(_turn) = self.turns.acquire().await else { return Err("closed".into()) };
        match tokio::time::timeout(LIMIT, self.send(webhook, body, now)).await {
            Ok(result) => result.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
        }
    }

    async fn send(&self, webhook: &WebhookEntry, body: Bytes, now: u64) -> anyhow::Result<u16> {
        let uri: Uri = webhook.url.parse().context("no URL")?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("the URL begins with neither http:// nor https://"),
        };
        let authority = uri.authority().context("the URL names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "KubePBX")
            .header(CONNECTION, "close")
            .header(TIMESTAMP, now)
            .header(SIGNATURE, sign(webhook.secret.reveal(), now, &body))
            .body(Full::new(body))?;
        let stream = TcpStream::connect((host.as_str(), port)).await.with_context(|| format!("{host}:{port}"))?;
        stream.set_nodelay(true)?;
        if !secure {
            return exchange(stream, request).await;
        }
        let tls = self.tls.get_or_try_init(authorities).await?.clone();
        let name = ServerName::try_from(host.clone())?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.with_context(|| format!("TLS to {host}"))?;
        exchange(stream, request).await
    }
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Webhooks({} of {AT_ONCE} free)", self.turns.available_permits())
    }
}

/// Sends a request on a connection of its own; the status of the answer.
async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<u16>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => Ok(answer?.status().as_u16()),
        // A server that closes after its answer: the answer is there already.
        ended = &mut connection => {
            ended?;
            Ok(answer.await?.status().as_u16())
        }
    }
}

/// TLS that trusts whom the system trusts.
async fn authorities() -> anyhow::Result<Arc<ClientConfig>> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        bail!("this system trusts no authority: there are no certificates in its store");
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::config::Secret;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn entry(url: String) -> WebhookEntry {
        WebhookEntry { url, secret: Secret::new("s3cret") }
    }

    #[tokio::test]
    async fn a_signed_post_and_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut got, mut piece) = (Vec::new(), [0; 1024]);
            while !got.ends_with(b"{\"a\":1}") {
                let n = stream.read(&mut piece).await.unwrap();
                got.extend_from_slice(&piece[..n]);
            }
            stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            String::from_utf8(got).unwrap().to_lowercase()
        });
        let body = Bytes::from_static(br#"{"a":1}"#);
        let hooks = Webhooks::new();
        assert_eq!(hooks.post(&entry(format!("http://{at}/wake?x=1")), body.clone(), 1_700_000_000).await, Ok(202));
        let got = server.await.unwrap();
        assert!(got.starts_with("post /wake?x=1 http/1.1\r\n"), "{got}");
        let signed = sign(b"s3cret", 1_700_000_000, &body);
        for field in [
            format!("host: {at}"),
            "content-type: application/json".into(),
            "x-kubepbx-timestamp: 1700000000".into(),
            format!("x-kubepbx-signature: {signed}"),
        ] {
            assert!(got.contains(&format!("\r\n{field}\r\n")), "{field}: {got}");
        }
        // Nobody listens any more.
        assert!(hooks.post(&entry(format!("http://{at}/")), body, 1).await.unwrap_err().contains(&at.to_string()));
    }

    #[tokio::test]
    async fn a_server_whose_certificate_nobody_vouches_for_is_told_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
            )
            .unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await.is_err()
        });
        let result = Webhooks::new().post(&entry(format!("https://{at}/")), Bytes::new(), 1).await;
        assert!(result.unwrap_err().starts_with("TLS to 127.0.0.1"));
        assert!(server.await.unwrap());
    }
}
