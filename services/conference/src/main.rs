//! The conference service as a process of its own.

use clap::Parser;
use conference::Config;
use contract::config::ConferenceEntry;
use runtime::Deps;
use runtime::process::{self, Args, LINGER};
use std::path::PathBuf;
use std::process::ExitCode;

/// Answers calls with media of its own, for a KubePBX: echo, tones, prompts.
#[derive(Debug, Parser)]
#[command(name = "conference", version)]
struct Cli {
    #[command(flatten)]
    process: Args,
    /// Folder of WAV files for playback
    #[arg(long, env = "KUBEPBX_SOUNDS", value_name = "DIR", default_value = "/var/lib/kubepbx/sounds")]
    sounds: PathBuf,
    /// Folder that recordings of rooms are written to
    #[arg(long, env = "KUBEPBX_RECORDINGS", value_name = "DIR", default_value = "/var/lib/kubepbx/recordings")]
    recordings: PathBuf,
}

fn main() -> ExitCode {
    let Cli { process, sounds, recordings } = Cli::parse();
    let own = Config::default();
    // Relays reach it where other processes do; ports are the kernel's.
    let config =
        Config { rtp_address: process.address.unwrap_or(own.rtp_address), sounds, recordings, linger: LINGER, ..own };
    process::run(process, async |deps: Deps<ConferenceEntry>| conference::build(config, deps))
}
