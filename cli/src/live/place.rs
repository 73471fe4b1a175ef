//! Where processes are, and how their admin servers are reached: `kubepbx serve` by its URL, or the pods of a cluster.

use anyhow::{Context, Result, bail, ensure};
use contract::Service;
use futures::future::BoxFuture;
use serde_json::Value;
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

/// One `kubepbx serve`.
#[derive(Debug)]
pub struct Serve {
    host: String,
    port: u16,
}

impl Serve {
    /// By its URL: `http://HOST:PORT`.
    ///
    /// # Errors
    /// Anything else.
    pub fn at(url: &str) -> Result<Self> {
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

impl Place for Serve {
    fn name(&self) -> String {
        match self.host.contains(':') {
            true => format!("http://[{}]:{}", self.host, self.port),
            false => format!("http://{}:{}", self.host, self.port),
        }
    }

    fn processes(&self) -> BoxFuture<'_, Result<Vec<Process>>> {
        let only = Process { name: "serve".to_owned(), service: None, port: self.port };
        Box::pin(async { Ok(vec![only]) })
    }

    fn connect<'a>(&'a self, process: &'a Process) -> BoxFuture<'a, Result<Link>> {
        Box::pin(async move {
            let stream = TcpStream::connect((self.host.as_str(), process.port)).await.with_context(|| {
                format!(
                    "nobody answers at {}: is `kubepbx serve` running, or is there a kubeconfig to use?",
                    self.name()
                )
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
            assert_eq!(Serve::at(url).unwrap().name(), name);
        }
        for bad in
            ["127.0.0.1:8080", "https://a:1", "http://", "http://:80", "http://a:b", "http://u:p@a:1", "http://a/v1"]
        {
            assert!(Serve::at(bad).is_err(), "{bad}");
        }
    }
}
