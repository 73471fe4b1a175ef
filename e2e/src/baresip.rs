//! Debian's baresip as a phone of the tests: it plays a tone from a file, records what it hears, and is driven by its
//! control connection.

use crate::process::{Process, eventually, free_port, tool};
use crate::spectrum::write_tone;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A baresip that runs. It is ended when this is dropped.
#[derive(Debug)]
pub struct Baresip {
    process: Process,
    dir: TempDir,
    control: TcpStream,
    input: Vec<u8>,
    events: Vec<Value>,
    response: Option<Value>,
}

impl Baresip {
    /// Starts one for this user, whose password is the user name, that sends a tone of `hz` and answers by itself.
    /// It registers every `regint` seconds; 0 never.
    pub fn start(server: SocketAddr, user: &str, hz: f64, regint: u32) -> Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST.into(), server, user, hz, regint)
    }

    /// The same at another address of its machine than loopback.
    pub fn at(local: IpAddr, server: SocketAddr, user: &str, hz: f64, regint: u32) -> Result<Self> {
        Self::over("udp", local, server, user, hz, regint)
    }

    /// The same over `udp` or `tcp`.
    pub fn over(transport: &str, local: IpAddr, server: SocketAddr, user: &str, hz: f64, regint: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        write_tone(&path("tone.wav"), hz, 300)?;
        let (sip, control_port) = (free_port(), free_port());
        let account = format!(
            "<sip:{user}@{server};transport={transport}>;auth_user={user};auth_pass={user};regint={regint};audio_codecs=PCMU/8000/1;answermode=auto\n"
        );
        std::fs::write(path("accounts"), account)?;
        std::fs::write(path("contacts"), "")?;
        let here = dir.path().display();
        let config = format!(
            "sip_listen {local}:{sip}\nnet_interface {local}\nctrl_tcp_listen 127.0.0.1:{control_port}\n\
             audio_source aufile,{here}/tone.wav\naudio_player aubridge,nil\naudio_alert aubridge,alert\n\
             ausrc_srate 8000\nauplay_srate 8000\nsnd_path {here}\nmodule_path /usr/lib/baresip/modules\n\
             module g711.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\n\
             module_tmp account.so\nmodule_app menu.so\nmodule_app ctrl_tcp.so\n"
        );
        std::fs::write(path("config"), config)?;
        let mut process = Process::start(Command::new(tool("baresip")?).arg("-f").arg(dir.path()))?;
        process.line("baresip is ready", Duration::from_secs(10))?;
        let control = eventually("baresip's control port", Duration::from_secs(5), || {
            TcpStream::connect(("127.0.0.1", control_port)).ok()
        })?;
        control.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(Self { process, dir, control, input: Vec::new(), events: Vec::new(), response: None })
    }

    /// Gives a command: `dial`, `hangup`, `hold`, `resume`, ...; what it says to that.
    pub fn command(&mut self, command: &str, params: &str) -> Result<String> {
        let text = json!({"command": command, "params": params}).to_string();
        self.response = None;
        write!(self.control, "{}:{text},", text.len())?;
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.response.take() {
                Some(said) if said["ok"] == true => return Ok(said["data"].as_str().unwrap_or_default().to_owned()),
                Some(said) => bail!("baresip does not take {command} {params}: {said}"),
                None if Instant::now() > end => bail!("baresip says nothing to {command} {params}"),
                None => _ = self.read()?,
            }
        }
    }

    /// Waits until it is registered. What happened before it was heard is no event.
    pub fn registered(&mut self, limit: Duration) -> Result<()> {
        let mut last = String::new();
        let done = eventually("baresip is registered", limit, || {
            last = self.command("reginfo", "").ok()?;
            last.contains("OK ").then_some(())
        });
        done.context(last)
    }

    /// RTP packets that its call has received. It counts anew for each source.
    pub fn packets(&mut self) -> Result<u64> {
        let said = self.command("audio_debug", "")?;
        let counts = said.split("rcvd=").skip(1).filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// Waits for an event of this type (`CALL_ESTABLISHED`, `CALL_CLOSED`, ...) that was not yet waited
    /// for, and returns it.
    pub fn event(&mut self, kind: &str, limit: Duration) -> Result<Value> {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = self.events.iter().position(|e| e["type"] == kind) {
                return Ok(self.events.drain(..=at).next_back().unwrap_or_default());
            }
            if Instant::now() > end {
                let seen: Vec<_> = self.events.iter().map(|e| e["type"].to_string()).collect();
                bail!("baresip had no {kind} in {limit:?}, but {seen:?}:\n{}", self.process.stdout());
            }
            self.read()?;
        }
    }

    /// The events that came and were not waited for; they are forgotten.
    pub fn other_events(&mut self) -> Result<Vec<Value>> {
        while self.read()? {}
        Ok(std::mem::take(&mut self.events))
    }

    /// Reads what has come on the control connection: netstrings of JSON. False: nothing came for a moment.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        match self.control.read(&mut buffer) {
            Ok(0) => bail!("baresip is gone:\n{}", self.process.stdout()),
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(e) => return Err(e.into()),
        }
        while let Some(colon) = self.input.iter().position(|b| *b == b':') {
            let length: usize = std::str::from_utf8(&self.input[..colon])?.parse().context("netstring")?;
            let end = colon + 1 + length;
            if self.input.len() <= end {
                break;
            }
            let value: Value = serde_json::from_slice(&self.input[colon + 1..end])?;
            if value["event"] == true {
                self.events.push(value);
            } else if value["response"] == true {
                self.response = Some(value);
            }
            self.input.drain(..=end);
        }
        Ok(true)
    }

    /// How much of its last call it has recorded, in seconds: 8,000 samples of 16 bits each. The head of a recording is
    /// written when the call ends: until then its length tells.
    pub fn recorded(&self) -> f64 {
        let length = self.recording().and_then(|file| Ok(file.metadata()?.len()));
        length.map_or(0.0, |bytes| bytes as f64 / 16_000.0)
    }

    /// The file that holds what it heard in its last call.
    pub fn recording(&self) -> Result<PathBuf> {
        let files = std::fs::read_dir(self.dir.path())?.filter_map(|file| Some(file.ok()?.path()));
        let heard = files.filter(|file| file.to_string_lossy().ends_with("-dec.wav"));
        // One that is not there to be asked is none.
        let last = heard.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file))).max();
        let (_, file) = last.with_context(|| format!("baresip recorded nothing:\n{}", self.process.stdout()))?;
        Ok(file)
    }
}
