//! The `kubepbx` command.

// Nothing outside imports a binary: `pub` says what a module gives to the others.
#![allow(unreachable_pub)]

mod check;
mod files;
mod generate;
mod import;
mod live;
mod phone;
mod ping;
mod serve;
mod supervise;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The phone system for Kubernetes, and for one machine
#[derive(Debug, Parser)]
#[command(name = "kubepbx", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all five services in one process over manifests
    Serve(serve::ServeArgs),
    /// Judge manifests as the cluster would, offline
    Check {
        /// Files or folders
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Turn Asterisk's or Kamailio's configuration into manifests
    Import {
        #[command(subcommand)]
        from: import::ImportCommand,
    },
    /// A test phone for any SIP server
    Phone {
        #[command(subcommand)]
        command: phone::PhoneCommand,
    },
    /// Probe a SIP server by OPTIONS
    Ping(ping::PingArgs),
    #[command(flatten)]
    Live(live::LiveCommand),
    /// Run a program, and send it SIGHUP when a file changes
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
    /// Write the CRDs
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

/// What usage is to say that people type: kubectl runs an executable of the name kubectl-pbx as `kubectl pbx`.
fn typed(program: Option<&OsStr>) -> &'static str {
    let is_plugin = program.and_then(|path| Path::new(path).file_name()).is_some_and(|name| name == "kubectl-pbx");
    if is_plugin { "kubectl pbx" } else { "kubepbx" }
}

fn main() -> ExitCode {
    let command = Cli::command().bin_name(typed(std::env::args_os().next().as_deref()));
    let cli = match Cli::from_arg_matches(&command.get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kubepbx: {error}");
            return ExitCode::FAILURE;
        }
    };
    match cli.command {
        Command::Serve(args) => runtime.block_on(serve::run(args)),
        Command::Check { paths } => check::run(&paths),
        Command::Import { from } => import::run(from),
        Command::Phone { command } => runtime.block_on(phone::run(command)),
        Command::Ping(args) => runtime.block_on(ping::run(args)),
        Command::Live(command) => runtime.block_on(live::run(command)),
        Command::Supervise(args) => runtime.block_on(supervise::run(args)),
        Command::Generate(args) => runtime.block_on(generate::run(&args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_says_what_is_typed() {
        for (program, name) in [
            (Some("/usr/local/bin/kubectl-pbx"), "kubectl pbx"),
            (Some("target/release/kubepbx"), "kubepbx"),
            (None, "kubepbx"),
        ] {
            assert_eq!(typed(program.map(OsStr::new)), name);
        }
        let mut plugin = Cli::command().bin_name("kubectl pbx");
        let failure = plugin.try_get_matches_from_mut(["/bin/kubectl-pbx", "calls", "--what"]).unwrap_err().to_string();
        assert!(failure.contains("Usage: kubectl pbx calls"), "{failure}");
        Cli::command().debug_assert();
    }
}
