//! `kubepbx phone` as a phone of the tests.

use crate::process::{Process, kubepbx};
use anyhow::{Context, Result};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// A phone that runs.
#[derive(Debug)]
pub struct Phone(Process);

impl Phone {
    /// Starts `kubepbx phone VERB` for this user, whose password is the user name, with these options more.
    pub fn start(verb: &str, server: SocketAddr, user: &str, options: &[&str]) -> Result<Self> {
        Self::with_password(verb, server, user, user, options)
    }

    /// The same with a password.
    pub fn with_password(verb: &str, server: SocketAddr, user: &str, password: &str, options: &[&str]) -> Result<Self> {
        let server = server.to_string();
        let fixed = ["--server", &server, "--user", user, "--password", password];
        Ok(Self(Process::start(Command::new(kubepbx()?).args(["phone", verb]).args(fixed).args(options))?))
    }

    /// A phone that answers, once it is registered.
    pub fn answering(server: SocketAddr, user: &str, options: &[&str]) -> Result<Self> {
        let mut phone = Self::start("answer", server, user, &[&["--announce", "phone is there"], options].concat())?;
        phone.0.line("phone is there", Duration::from_secs(10))?;
        Ok(phone)
    }

    /// Waits until it ends; whether it says that all went well, and its report.
    pub fn report(&mut self, limit: Duration) -> Result<(bool, Value)> {
        let status = self.0.wait(limit)?;
        // The pipe may be read a moment after the end.
        let line = self.0.line("{", Duration::from_secs(2))?;
        Ok((status.success(), serde_json::from_str(&line).context("the phone's report")?))
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}
