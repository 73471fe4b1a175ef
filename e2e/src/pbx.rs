//! The PBX under test: `kubepbx serve` on loopback.

use crate::http;
use crate::process::{Process, eventually, free_port, kubepbx, root};
use anyhow::{Result, bail, ensure};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// The example of the README.
pub const FIRST_CALL: &str = "examples/first-call";

/// A PBX that runs. It is ended when this is dropped.
#[derive(Debug)]
pub struct Pbx {
    /// The process.
    pub process: Process,
    /// Its SIP address, UDP and TCP.
    pub sip: SocketAddr,
    /// Its HTTP address.
    pub http: SocketAddr,
    /// A folder of its own: manifests in `pbx`, state in `state`.
    pub dir: TempDir,
    options: Vec<String>,
}

impl Pbx {
    /// The PBX of `examples/first-call`, with these options more.
    pub fn first_call(options: &[&str]) -> Result<Self> {
        Self::start(folder()?, options)
    }

    /// The PBX of `examples/first-call` and of these manifests, with these options more.
    pub fn first_call_and(manifests: &str, options: &[&str]) -> Result<Self> {
        let dir = folder()?;
        std::fs::write(dir.path().join("pbx/more.yaml"), manifests)?;
        Self::start(dir, options)
    }

    /// The PBX of these manifests, with these options more.
    pub fn of(manifests: &str, options: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("pbx"))?;
        std::fs::write(dir.path().join("pbx/all.yaml"), manifests)?;
        Self::start(dir, options)
    }

    fn start(dir: TempDir, options: &[&str]) -> Result<Self> {
        let sip = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let process = serve(dir.path(), sip, http, &options)?;
        Ok(Self { process, sip, http, dir, options })
    }

    /// Ends it by SIGTERM and starts it again on the same addresses and the same state.
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.start_again()
    }

    /// Starts it again on the same addresses and the same state, after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        self.process = serve(self.dir.path(), self.sip, self.http, &self.options)?;
        Ok(())
    }

    /// SIGTERM, and waits for exit status 0.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait(Duration::from_secs(40))?;
        ensure!(status.success(), "serve ended with {status}:\n{}", self.process.stderr());
        Ok(())
    }

    /// The body of an HTTP GET.
    pub fn get(&self, path: &str) -> Result<String> {
        http::get(self.http, path)
    }

    /// A view as JSON: `registrations`, `calls`, `dispatchers`.
    pub fn view(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(&format!("/v1/{name}"))?)?)
    }

    /// The items of a view.
    pub fn items(&self, name: &str) -> Result<Vec<Value>> {
        match self.view(name)? {
            Value::Array(items) => Ok(items),
            Value::Object(mut map) => match map.remove(name) {
                Some(Value::Array(items)) => Ok(items),
                _ => bail!("/v1/{name} has no items"),
            },
            _ => bail!("/v1/{name} is no list"),
        }
    }

    /// The sum of a metric over its labels. Fails where it does not stand.
    pub fn metric(&self, name: &str) -> Result<f64> {
        http::metric(&self.get("/metrics")?, name)
    }

    /// Waits until so many contacts are registered.
    pub fn registered(&self, count: usize) -> Result<()> {
        eventually(&format!("{count} registrations"), Duration::from_secs(10), || {
            self.items("registrations").ok().filter(|items| items.len() == count)
        })
        .map(drop)
    }

    /// Waits until so many calls are up on both legs.
    pub fn talking(&self, count: usize) -> Result<()> {
        let up = |call: &Value| {
            let legs = call["legs"].as_array();
            legs.is_some_and(|legs| legs.len() == 2 && legs.iter().all(|leg| leg["state"] == "up"))
        };
        eventually(&format!("{count} calls are up"), Duration::from_secs(20), || {
            self.items("calls").ok().filter(|calls| calls.iter().filter(|call| up(call)).count() == count)
        })
        .map(drop)
    }

    /// Waits until the relay has no port open; its gauge follows within a moment.
    pub fn no_ports(&self) -> Result<()> {
        eventually("the relay's ports are free", Duration::from_secs(5), || {
            self.metric("kubepbx_media_ports").ok().filter(|ports| *ports == 0.0)
        })
        .map(drop)
    }

    /// Waits until no call is left, and no port of the relay.
    pub fn idle(&self) -> Result<()> {
        eventually("no call and no port is left", Duration::from_secs(10), || {
            let calls = self.items("calls").ok()?;
            let ports = self.metric("kubepbx_media_ports").ok()?;
            (calls.is_empty() && ports == 0.0).then_some(())
        })
    }
}

/// A folder with the manifests of `examples/first-call` in `pbx`.
pub fn folder() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let to = dir.path().join("pbx");
    std::fs::create_dir(&to)?;
    for file in std::fs::read_dir(root().join(FIRST_CALL))? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(dir)
}

fn serve(dir: &Path, sip: SocketAddr, http: SocketAddr, options: &[String]) -> Result<Process> {
    let mut process = Process::start(
        Command::new(kubepbx()?)
            .arg("serve")
            .arg(dir.join("pbx"))
            .args(["--sip", &sip.to_string(), "--http", &http.to_string()])
            .args(["--state".as_ref(), dir.join("state").as_os_str()])
            .args(options),
    )?;
    process.line("ready", Duration::from_secs(20))?;
    Ok(process)
}
