//! The router as a process of its own.

use anyhow::Context;
use clap::Parser;
use contract::config::RouterEntry;
use router::Config;
use runtime::Deps;
use runtime::ng::{NgClient, Timing};
use runtime::process::{self, Args, LINGER};
use std::process::ExitCode;
use std::sync::Arc;

/// The back-to-back user agent of a KubePBX: authenticates calls, runs the dialplan, owns dialogs.
#[derive(Debug, Parser)]
#[command(name = "router", version)]
struct Cli {
    #[command(flatten)]
    process: Args,
}

fn main() -> ExitCode {
    let Cli { process } = Cli::parse();
    let config = Config { drain_limit: process.drain_limit(), linger: LINGER, ..Config::default() };
    let address = process.address;
    process::run(process, async |deps: Deps<RouterEntry>| {
        let local = address.context("--address is missing")?;
        let relays = NgClient::bind(local, deps.keys.clone(), deps.mesh.peers(), Timing::default()).await?;
        router::build(config, deps, Arc::new(relays))
    })
}
