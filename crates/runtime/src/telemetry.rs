//! Logs of a process.

use tracing_subscriber::EnvFilter;

/// Writes logs to stderr, filtered by `filter` (`info`, `balancer=debug,info`), or by the environment variable
/// `KUBEPBX_LOG` where that is set. Fails when the filter does not parse or logs are already set up in this process.
pub fn init(filter: &str) -> anyhow::Result<()> {
    let filter = std::env::var("KUBEPBX_LOG").unwrap_or_else(|_| filter.to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|e| anyhow::anyhow!("log filter '{filter}': {e}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init()
        .map_err(|e| anyhow::anyhow!("logs cannot be set up: {e}"))
}
