//! Programs that tests start: found or failed, their output kept, ended by id.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A program of the system, by name. Fails saying what installs it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    found.with_context(|| format!("{name} is not installed: run `make tools`"))
}

/// The `kubepbx` command.
pub fn kubepbx() -> Result<PathBuf> {
    program("kubepbx")
}

/// A program of ours, built from the tree as it is now, beside this test on the same build tree.
pub fn program(name: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || -> Result<PathBuf> {
        let test = std::env::current_exe()?;
        let dir = test.parent().and_then(Path::parent).context("the test binary stands outside a target folder")?;
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--release", "--locked", "--quiet", "--workspace", "--bins"])
            .current_dir(root())
            .status()?;
        if !status.success() {
            bail!("the programs do not build");
        }
        Ok(dir.to_owned())
    };
    let built = BUILT.get_or_init(|| build().map_err(|e| format!("{e:#}"))).clone();
    built.map(|dir| dir.join(name)).map_err(anyhow::Error::msg)
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where ports of tests are: beside those of relays and those that the kernel gives to whoever asks for any.
const PORTS: std::ops::Range<u16> = 13_000..20_000;

/// A UDP and TCP port of loopback that is free, a multiple of four, with the three after it. Tests beside each other get
/// different ones.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let free = |p: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], p));
        UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok()
    };
    for _ in 0..PORTS.len() {
        let port = PORTS.start + NEXT.fetch_add(4, Ordering::Relaxed) % PORTS.len() as u16;
        if (port..port + 4).all(free) {
            return port;
        }
    }
    0
}

/// Asks every 20 ms until `found` gives something; fails after `limit`, saying what was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut found: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = found() {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("waited {limit:?} in vain: {what}");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[derive(Debug, Default)]
struct Output {
    text: Mutex<String>,
    grown: Condvar,
}

impl Output {
    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static) {
        let output = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                output.text().push_str(&String::from_utf8_lossy(&line));
                output.grown.notify_all();
                line.clear();
            }
        });
    }
}

/// A running program. It is ended when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: Arc<Output>,
    err: Arc<Output>,
}

impl Process {
    /// Starts a program; its output is collected.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        // A group of its own: what it forks (Kamailio's workers) ends with it.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        let (out, err) = (Arc::<Output>::default(), Arc::<Output>::default());
        out.collect(child.stdout.take().context("no stdout")?);
        err.collect(child.stderr.take().context("no stderr")?);
        Ok(Self { name, child, out, err })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed on stdout.
    pub fn stdout(&self) -> String {
        self.out.text().clone()
    }

    /// What it has printed on stderr.
    pub fn stderr(&self) -> String {
        self.err.text().clone()
    }

    /// Waits until a line of stdout (or stderr) holds `mark`, and returns the line. Fails with all output after
    /// `limit`, or when the program ends first.
    pub fn line(&mut self, mark: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait()?;
            for output in [&self.out, &self.err] {
                if let Some(line) = output.text().lines().find(|l| l.contains(mark)) {
                    return Ok(line.to_owned());
                }
            }
            if ended.is_some() && Instant::now() + Duration::from_millis(300) < end {
                // What it printed last may still be on its way through the pipe: one more look, then it is over.
                std::thread::park_timeout(Duration::from_millis(200));
                if !self.out.text().contains(mark) && !self.err.text().contains(mark) {
                    bail!("{} ended before it printed {mark:?}:\n{}{}", self.name, self.stdout(), self.stderr());
                }
                continue;
            }
            if Instant::now() > end {
                bail!("{} did not print {mark:?} in {limit:?}:\n{}{}", self.name, self.stdout(), self.stderr());
            }
            let text = self.out.text();
            drop(self.out.grown.wait_timeout(text, Duration::from_millis(20)));
        }
    }

    /// Waits until it ends; it is killed and an error returned after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let status = eventually(&format!("{name} ends"), limit, || self.child.try_wait().ok().flatten());
        if status.is_err() {
            self.kill();
            bail!("{name} did not end in {limit:?}:\n{}{}", self.stdout(), self.stderr());
        }
        status
    }

    /// Sends a signal by its name without SIG (`TERM`, `STOP`, ...).
    pub fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").args([format!("-{signal}"), self.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill -{signal} {}", self.id());
        Ok(())
    }

    /// Ends it and what it forked at once.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.id())]).stderr(Stdio::null()).status();
        _ = self.child.wait();
    }

    /// Resident memory in kB.
    pub fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
