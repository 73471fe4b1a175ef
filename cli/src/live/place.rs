//! Where processes are, and how their admin servers are reached: `kubepbx serve` by its URL, or the pods of a cluster.

use super::fleet::connect;
use anyhow::{Context, Result, bail, ensure};
use contract::Service;
use futures::future::{BoxFuture, join_all};
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Where `serve` is unless said otherwise.
pub const SERVE: &str = "http://127.0.0.1:8080";

/// A process whose admin server can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What people call it: its pod's name.
    pub name: String,
    /// Its service; `None`: all five.
    pub service: Option<Service>,
    /// The port of its admin server, on loopback of where it runs.
    pub port: u16,
}

impl Process {
    /// An error of this process among several.
    pub fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        match self.service {
            Some(_) => error.context(self.name.clone()),
            None => error,
        }
    }
}

/// A byte stream to an admin server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, and what is said of it, if anything, when it breaks.
pub struct Link {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// Why it broke.
    pub error: BoxFuture<'static, Option<String>>,
}

/// What is known of an installation beside what its processes say.
#[derive(Debug, Default)]
pub struct Objects {
    /// Pods of the services, as the API server has them.
    pub pods: Vec<Value>,
    /// Resources of kubepbx.io.
    pub resources: Vec<Value>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// Where processes are.
pub trait Place: Send + Sync {
    /// What it is called: `namespace pbx`, `http://127.0.0.1:8080`.
    fn name(&self) -> String;

    /// The processes that can be asked now.
    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>>>;

    /// Connects to the admin server of one.
    fn connect<'a>(&'a self, process: &'a Process) -> BoxFuture<'a, Result<Link>>;

    /// Pods and resources; `None` where there is no cluster.
    fn objects(&self) -> BoxFuture<'_, Result<Option<Objects>>>;
}

/// A `kubepbx serve`, or processes of services that were started by hand, by their URLs.
#[derive(Debug)]
pub struct Urls(Vec<Url>);

/// Where an admin server is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Url {
    host: String,
    port: u16,
}

impl Url {
    /// Reads `http://HOST:PORT`.
    fn parse(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| format!("--url {url}: write http://HOST:PORT"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        ensure!(!authority.contains(['/', '@', '?']), "--url: write http://HOST:PORT and no more");
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of an IPv6 address alone is in its brackets.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().with_context(|| format!("--url {url}: {port} is no port"))?)
            }
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            bail!("--url {url}: write http://HOST:PORT");
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

impl Urls {
    /// By URLs: `http://HOST:PORT` each.
    ///
    /// # Errors
    /// Anything else.
    pub fn new<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        urls.into_iter().map(Url::parse).collect::<Result<_>>().map(Self)
    }

    /// What runs at one of several: its service, where it is of one alone. One that does not say is asked for everything,
    /// and what becomes of that is seen then.
    async fn identify(&self, url: &Url) -> Process {
        let process = Process { name: url.to_string(), service: None, port: url.port };
        let said = async { connect(self, &process).await?.get("/v1/processes", Duration::ZERO).await };
        let services = said.await.ok().and_then(|said| said.as_array().cloned()).unwrap_or_default();
        let service = match services.as_slice() {
            [one] => Service::ALL.into_iter().find(|service| one["service"] == service.as_str()),
            _ => None,
        };
        Process { service, ..process }
    }
}

impl Place for Urls {
    fn name(&self) -> String {
        self.0.iter().map(Url::to_string).collect::<Vec<_>>().join(", ")
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>>> {
        Box::pin(async {
            if let [only] = self.0.as_slice() {
                return Ok(vec![Process { name: "serve".to_owned(), service: None, port: only.port }]);
            }
            Ok(join_all(self.0.iter().map(|url| self.identify(url))).await)
        })
    }

    fn connect<'a>(&'a self, process: &'a Process) -> BoxFuture<'a, Result<Link>> {
        Box::pin(async move {
            let named = self.0.iter().find(|url| url.to_string() == process.name);
            let url = named.or_else(|| self.0.first()).context("no URL")?;
            let stream = TcpStream::connect((url.host.as_str(), url.port)).await.with_context(|| {
                format!("nobody answers at {url}: is `kubepbx serve` running, or is there a kubeconfig to use?")
            })?;
            Ok(Link { stream: Box::new(stream), error: Box::pin(std::future::ready(None)) })
        })
    }

    fn objects(&self) -> BoxFuture<'_, Result<Option<Objects>>> {
        Box::pin(async { Ok(None) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_serve() {
        for (url, name) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://pbx.example/", "http://pbx.example:80"),
            ("http://[::1]:8081", "http://[::1]:8081"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(Urls::new([url]).unwrap().name(), name);
        }
        for bad in
            ["127.0.0.1:8080", "https://a:1", "http://", "http://:80", "http://a:b", "http://u:p@a:1", "http://a/v1"]
        {
            assert!(Urls::new(["http://a:1", bad]).is_err(), "{bad}");
        }
        assert_eq!(Urls::new(["http://a:1", "http://b:2"]).unwrap().name(), "http://a:1, http://b:2");
    }
}
