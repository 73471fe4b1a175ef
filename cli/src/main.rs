//! The `kubepbx` command.

// Nothing outside imports a binary: `pub` says what a module gives to the others.
#![allow(unreachable_pub)]

mod check;
mod files;
mod generate;
mod import;
mod phone;
mod ping;
mod serve;
mod supervise;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
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
    /// Run a program, and send it SIGHUP when a file changes
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
    /// Write the CRDs
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
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
        Command::Supervise(args) => runtime.block_on(supervise::run(args)),
        Command::Generate(args) => runtime.block_on(generate::run(&args)),
    }
}
