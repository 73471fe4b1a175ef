//! A PBX of processes on loopback: the services' own programs, a real redis-server, and the configuration stream.

use crate::http;
use crate::operator::Operator;
use crate::process::{Process, eventually, free_port, program, tool};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

/// What the keys of the store begin with.
const STORE: &str = "{kubepbx}:";

/// The programs of the five services.
pub const SERVICES: [&str; 5] = ["balancer", "registrar", "router", "media", "conference"];

/// The folder of its own, the store and the configuration stream, for any number of processes.
#[derive(Debug)]
pub struct Installation {
    dir: TempDir,
    store: Process,
    store_port: u16,
    /// The stream; may be taken away.
    pub operator: Option<Operator>,
    stream: Vec<(&'static str, Vec<String>)>,
    started: u16,
}

/// One process of a service. It is killed when this is dropped.
#[derive(Debug)]
pub struct Member {
    /// Its program.
    pub service: &'static str,
    /// The process.
    pub process: Process,
    /// Where its views are.
    pub http: SocketAddr,
    /// Where a balancer hears SIP.
    pub sip: SocketAddr,
    socket: PathBuf,
}

impl Installation {
    /// One with the manifests of a folder of the repository, without processes yet.
    pub fn of(folder: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let key = "5a".repeat(32);
        let keys = format!(r#"{{"schema":1,"current":{{"id":1,"key":"{key}"}},"previous":[]}}"#);
        std::fs::write(dir.path().join("keys.json"), keys)?;
        let operator = Operator::of(folder, dir.path())?;
        let mut stream = Vec::new();
        for service in SERVICES {
            stream.push((service, operator.flags(service)?));
        }
        let store_port = free_port();
        let store = redis(store_port, dir.path())?;
        Ok(Self { dir, store, store_port, operator: Some(operator), stream, started: 0 })
    }

    /// One with a process of each service, ready for phones.
    pub fn whole(folder: &str) -> Result<(Self, Vec<Member>)> {
        let mut installation = Self::of(folder)?;
        let members = installation.start(&SERVICES)?;
        Ok((installation, members))
    }

    /// Starts a process of each of these, and waits until all are ready.
    pub fn start(&mut self, services: &[&'static str]) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for service in services {
            members.push(self.begin(service)?);
        }
        for member in &mut members {
            member.ready()?;
        }
        Ok(members)
    }

    /// Starts a process, which need not get ready.
    pub fn begin(&mut self, service: &'static str) -> Result<Member> {
        self.started += 1;
        let pod = format!("{service}-{}", self.started);
        let socket = self.dir.path().join(format!("{pod}.sock"));
        let sip = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(program(service)?);
        let (_, stream) = self.stream.iter().find(|(s, _)| *s == service).context("no such service")?;
        command.args(stream);
        command.arg("--keys").arg(self.dir.path()).arg("--socket").arg(&socket);
        command.args(["--store", &format!("redis://127.0.0.1:{}", self.store_port), "--pod", &pod, "--drain", "20"]);
        command.args(["--address", "127.0.0.1", "--inside", "0", "--probes", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        match service {
            "balancer" => _ = command.args(["--sip", &sip.to_string()]),
            "media" => _ = command.args(["--ng", "0", "--rtp-address", "127.0.0.1", "--rtp-ports", "20000-29999"]),
            _ => {}
        }
        let mut process = Process::start(&mut command)?;
        let line = process.line("started", SOON)?;
        let http = line.split_whitespace().find_map(|w| w.strip_prefix("admin=")?.parse().ok());
        Ok(Member { service, process, http: http.with_context(|| line.clone())?, sip, socket })
    }

    /// Waits until each of these knows so many processes, itself included.
    pub fn acquainted<'m>(&self, members: impl IntoIterator<Item = &'m Member>, count: usize) -> Result<()> {
        for member in members {
            let known = || member.metric("kubepbx_peers").ok().filter(|n| *n == count as f64);
            eventually(&format!("{} knows {count} processes", member.service), SOON, known)?;
        }
        Ok(())
    }

    /// Ends the store at once; it keeps nothing.
    pub fn kill_store(&mut self) {
        self.store.kill();
    }

    /// Starts the store again, empty.
    pub fn restore_store(&mut self) -> Result<()> {
        self.store = redis(self.store_port, self.dir.path())?;
        Ok(())
    }

    /// How many records of a kind the store holds, by `redis-cli`.
    pub fn records(&self, kind: &str) -> Result<usize> {
        Ok(self.ask(&["HLEN", &format!("{STORE}records:{kind}")])?.parse()?)
    }

    /// True if the store holds bindings of an AOR.
    pub fn is_bound(&self, aor: &str) -> Result<bool> {
        Ok(self.ask(&["EXISTS", &format!("{STORE}aor:{aor}")])? == "1")
    }

    fn ask(&self, command: &[&str]) -> Result<String> {
        let output =
            Command::new(tool("redis-cli")?).args(["-p", &self.store_port.to_string()]).args(command).output()?;
        ensure!(output.status.success(), "redis-cli: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// A redis-server that takes connections and keeps nothing.
fn redis(port: u16, dir: &Path) -> Result<Process> {
    let mut command = Command::new(tool("redis-server")?);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(dir);
    let mut store = Process::start(&mut command)?;
    store.line("Ready to accept connections", SOON)?;
    Ok(store)
}

impl Member {
    /// Waits until it says that it is ready, as a kubelet would ask.
    pub fn ready(&mut self) -> Result<()> {
        let asked =
            eventually(&format!("{} is ready", self.service), SOON, || self.check("readyz").ok().filter(|ok| *ok));
        asked.map(drop).with_context(|| self.process.stderr())
    }

    /// Asks by its own program whether it is `livez` or `readyz`.
    pub fn check(&self, probe: &str) -> Result<bool> {
        let mut command = Command::new(program(self.service)?);
        let status = command.args(["--check", probe, "--socket"]).arg(&self.socket).output()?.status;
        Ok(status.success())
    }

    /// The body of an HTTP GET.
    pub fn get(&self, path: &str) -> Result<String> {
        http::get(self.http, path)
    }

    /// A view as JSON.
    pub fn view(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(&format!("/v1/{name}"))?)?)
    }

    /// The sum of a metric over its labels. Fails where it does not stand.
    pub fn metric(&self, name: &str) -> Result<f64> {
        http::metric(&self.get("/metrics")?, name)
    }

    /// SIGTERM, and waits for exit status 0.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait(Duration::from_secs(40))?;
        ensure!(status.success(), "{} ended with {status}:\n{}", self.service, self.process.stderr());
        ensure!(TcpStream::connect(self.http).is_err(), "{} still answers", self.service);
        Ok(())
    }
}
