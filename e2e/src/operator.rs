//! The configuration stream of a folder of manifests, as an operator would serve it: over TLS, to processes of one PBX.

use crate::process::root;
use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use runtime::source::{MemorySource, Sources};
use runtime::stream::registry::Registry;
use runtime::stream::server::{Authorise, Denied, Identity, Leader, Server};
use runtime::stream::{listen, tls};
use runtime::{Clock, Metrics};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

const NAMESPACE: &str = "tel";
const PBX: &str = "pbx";

/// A stream that is served. It ends when this is dropped.
#[derive(Debug)]
pub struct Operator {
    /// Where.
    pub address: SocketAddr,
    /// Certificates and tokens.
    dir: PathBuf,
    _leader: watch::Sender<Leader>,
    _runtime: Runtime,
}

/// Takes tokens that say `namespace/account`.
struct Tokens;

impl Authorise for Tokens {
    fn authorise<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, Denied>> {
        let who = token.trim().split_once('/').map(|(namespace, account)| Identity {
            namespace: namespace.to_owned(),
            account: account.to_owned(),
            pod: None,
        });
        Box::pin(async move { who.ok_or_else(|| Denied::Invalid("not a token".into())) })
    }
}

impl Operator {
    /// Serves what the manifests in a folder of the repository compile to; keeps its certificate and the tokens in `dir`.
    pub fn of(folder: &str, dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for file in std::fs::read_dir(root().join(folder))? {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read_to_string(&path)?;
                files.push(api::Source { name: path.display().to_string(), text });
            }
        }
        let mut compiled = api::Folder::new(1);
        let update = compiled.load(&files);
        ensure!(!update.keeps_out(), "{folder}: {:?}", update.problems);
        let compiler = compiled.compiler();
        let sources = Sources {
            balancer: MemorySource::starting_at(compiler.balancer().clone()),
            registrar: MemorySource::starting_at(compiler.registrar().clone()),
            router: MemorySource::starting_at(compiler.router().clone()),
            media: MemorySource::starting_at(compiler.media().clone()),
            conference: MemorySource::starting_at(compiler.conference().clone()),
        };
        let clock = Clock::new();
        let registry = Registry::new(clock);
        registry.serve(NAMESPACE, PBX, &sources);

        let now = clock.now().wall;
        let authority = tls::Pair::authority(now)?;
        let serving = tls::Serving::new(&authority.issue(&["127.0.0.1".into()], now)?)?;
        std::fs::write(dir.join("ca.crt"), &authority.certificate)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (leader, leads) = watch::channel(Leader::Here { epoch: 1 });
        let app = Server::new(Arc::new(Tokens), registry, leads, Metrics::new()).router();
        let config = serving.config().context("TLS")?;
        runtime.spawn(listen::serve(listener, config, app));
        Ok(Self { address, dir: dir.to_owned(), _leader: leader, _runtime: runtime })
    }

    /// What a process of this service is told about it.
    pub fn flags(&self, service: &str) -> Result<Vec<String>> {
        let token = self.dir.join(format!("token-{service}"));
        std::fs::write(&token, format!("{NAMESPACE}/{PBX}-{service}"))?;
        let ca = self.dir.join("ca.crt");
        Ok(vec![
            format!("--operator=https://{}", self.address),
            format!("--ca={}", ca.display()),
            format!("--token={}", token.display()),
        ])
    }
}
