//! Debian's SIPp as caller and callee, with digest. Its password is the user name. It echoes the RTP that it gets.

use crate::process::{Process, free_port, root, tool};
use anyhow::{Result, ensure};
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A SIPp that runs.
#[derive(Debug)]
pub struct Sipp {
    process: Process,
    dir: TempDir,
}

/// What a SIPp is to do, besides its scenario.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Its port; 0: a free one.
    pub port: u16,
    /// How many calls.
    pub calls: u32,
    /// At most so many at a time.
    pub at_once: u32,
    /// New calls a second.
    pub rate: u32,
    /// How long each talks.
    pub talk: Duration,
    /// Whom it calls.
    pub to: &'static str,
    /// The host in its own address of record; the server's address where it is `None`.
    pub host: Option<&'static str>,
    /// `u1` for UDP, `t1` for TCP.
    pub transport: &'static str,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            port: 0,
            calls: 1,
            at_once: 1,
            rate: 10,
            talk: Duration::from_secs(1),
            to: "8006",
            host: None,
            transport: "u1",
        }
    }
}

impl Sipp {
    /// Starts `e2e/scenarios/NAME.xml` as `user` against `server`.
    pub fn start(scenario: &str, server: SocketAddr, user: &str, plan: Plan) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = if plan.port == 0 { free_port() } else { plan.port };
        let media = free_port();
        let file = root().join("e2e/scenarios").join(format!("{scenario}.xml")).canonicalize()?;
        let process = Process::start(
            Command::new(tool("sipp")?)
                .current_dir(dir.path())
                .arg(server.to_string())
                .arg("-sf")
                .arg(file)
                .args([
                    "-s",
                    user,
                    "-au",
                    user,
                    "-ap",
                    user,
                    "-i",
                    "127.0.0.1",
                    "-p",
                    &port.to_string(),
                    "-mi",
                    "127.0.0.1",
                ])
                .args(["-key", "to", plan.to])
                .args(["-key", "host", &plan.host.map_or_else(|| server.to_string(), str::to_owned)])
                .args(["-mp", &media.to_string(), "-rtp_echo", "-t", plan.transport, "-nostdin", "-trace_err"])
                .args(["-m", &plan.calls.to_string(), "-l", &plan.at_once.to_string(), "-r", &plan.rate.to_string()])
                .args(["-d", &plan.talk.as_millis().to_string(), "-timeout", "300", "-timeout_error"]),
        )?;
        Ok(Self { process, dir })
    }

    /// Registers a contact at `port` for `user`.
    pub fn register(server: SocketAddr, user: &str, port: u16, transport: &'static str) -> Result<()> {
        Self::start("register", server, user, Plan { port, transport, ..Plan::default() })?
            .success(Duration::from_secs(20))
    }

    /// Waits until it ends, and fails unless all its calls succeeded.
    pub fn success(mut self, limit: Duration) -> Result<()> {
        let status = self.process.wait(limit)?;
        ensure!(status.success(), "SIPp ended with {status}:\n{}{}", self.errors(), self.process.stderr());
        Ok(())
    }

    /// What it wrote into its error file.
    fn errors(&self) -> String {
        let files = std::fs::read_dir(self.dir.path()).into_iter().flatten().filter_map(Result::ok);
        let errors = files.filter(|f| f.file_name().to_string_lossy().ends_with("_errors.log"));
        errors.filter_map(|f| std::fs::read_to_string(f.path()).ok()).collect()
    }
}
