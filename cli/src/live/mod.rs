//! What runs, for people: `status`, `registrations`, `calls`, `dispatchers`, `hangup`, `log` and `route`, of a `kubepbx serve` or of
//! an installation in a cluster. One set of tables and one way to ask; only where processes are differs ([`place::Place`]).

mod age;
mod cluster;
mod explain;
mod fleet;
mod hangup;
mod lines;
mod list;
mod log;
mod place;
mod route;
mod rows;
mod session;
mod status;
mod table;

use anyhow::Result;
use clap::{Args, Subcommand};
use place::{Place, Urls};
use rows::Kind;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What can be seen, and done.
#[derive(Debug, Subcommand)]
pub enum LiveCommand {
    /// Show on one screen what runs, what it does, and what is wrong
    Status(status::StatusArgs),
    /// List who is registered
    Registrations(list::ListArgs),
    /// List calls
    Calls(list::ListArgs),
    /// List the destinations of dispatchers
    Dispatchers(list::ListArgs),
    /// End calls
    Hangup(hangup::HangupArgs),
    /// Show what happens to calls, as Asterisk's console does
    Log(log::LogArgs),
    /// Explain step by step what a call would do, without making it
    Route(route::RouteArgs),
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct Where {
    /// A `kubepbx serve`, by its --http; the default, with http://127.0.0.1:8080, where there is no kubeconfig. Given more
    /// than once: services that were started one by one, by their --admin
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// The namespace of the Pbx, in a cluster
    #[arg(short, long, conflicts_with = "url")]
    namespace: Option<String>,
    /// The context of the kubeconfig
    #[arg(long, conflicts_with = "url")]
    context: Option<String>,
    /// The kubeconfig
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    kubeconfig: Option<PathBuf>,
}

impl Where {
    /// Whether a place was named.
    fn is_given(&self) -> bool {
        !self.url.is_empty() || self.namespace.is_some() || self.context.is_some() || self.kubeconfig.is_some()
    }

    async fn open(self) -> Result<Arc<dyn Place>> {
        let cluster = self.namespace.is_some() || self.context.is_some() || self.kubeconfig.is_some();
        Ok(match self.url.as_slice() {
            [] if cluster || cluster::is_configured() => {
                Arc::new(cluster::Cluster::open(self.kubeconfig, self.context, self.namespace).await?)
            }
            [] => Arc::new(Urls::new([place::SERVE])?),
            urls => Arc::new(Urls::new(urls.iter().map(String::as_str))?),
        })
    }
}

/// Everything that there is to say was said already.
#[derive(Debug)]
struct Told;

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not all was done")
    }
}

impl std::error::Error for Told {}

/// Does what is asked for.
pub async fn run(command: LiveCommand) -> ExitCode {
    let done = match command {
        LiveCommand::Status(args) => status::run(args).await,
        LiveCommand::Registrations(args) => list::run(Kind::Registrations, args).await,
        LiveCommand::Calls(args) => list::run(Kind::Calls, args).await,
        LiveCommand::Dispatchers(args) => list::run(Kind::Dispatchers, args).await,
        LiveCommand::Hangup(args) => hangup::run(args).await,
        LiveCommand::Log(args) => log::run(args).await,
        LiveCommand::Route(args) => route::run(args).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has enough: `kubepbx calls | head`.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) if error.is::<Told>() => ExitCode::FAILURE,
        Err(error) => {
            warn(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints.
///
/// # Errors
/// Nobody reads any more.
fn out(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Says something on stderr.
fn warn(text: &str) {
    eprintln!("kubepbx: {text}");
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
