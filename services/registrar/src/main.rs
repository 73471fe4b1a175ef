//! The registrar as a process of its own.

use clap::Parser;
use contract::config::RegistrarEntry;
use registrar::{Config, Settings};
use runtime::Deps;
use runtime::process::{self, Args, LINGER};
use std::process::ExitCode;

/// Answers REGISTER and keeps bindings, for a KubePBX.
#[derive(Debug, Parser)]
#[command(name = "registrar", version)]
struct Cli {
    #[command(flatten)]
    process: Args,
    /// Hosts that phones register at beside the domains: what the balancers are reached at
    #[arg(long, env = "KUBEPBX_OWN_HOSTS", value_name = "HOST", value_delimiter = ',')]
    own_host: Vec<String>,
}

fn main() -> ExitCode {
    let Cli { process, own_host: own_hosts } = Cli::parse();
    let config = Config { settings: Settings { own_hosts, ..Settings::default() }, linger: LINGER };
    process::run(process, async |deps: Deps<RegistrarEntry>| registrar::build(config, deps))
}
