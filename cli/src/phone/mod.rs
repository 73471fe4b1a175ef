//! `kubepbx phone`: a test phone over our own `sip` and `rtp`, for any SIP server.
//!
//! Prints one JSON object: how each call was set up, packets, loss, jitter, the longest gap, and the tone that it heard.
//! Exit status 0 when all calls (or the registration) succeeded, else 1. A phone that answers takes its contact away when
//! it ends. SIGINT and SIGTERM hang up first; a second one ends it at once.

mod audio;
mod report;
mod ua;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rand::RngCore;
use rtp::sdp::{Codec, Session};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use audio::{Audio, AudioReport, Play};
use report::{CallReport, Report};
use ua::{Account, CallId, Out, Ua};

/// What the phone does.
#[derive(Debug, Subcommand)]
pub enum PhoneCommand {
    /// Call --to and talk for --seconds
    Call(PhoneArgs),
    /// Register, answer --calls calls, unregister and end when they are over
    Answer(PhoneArgs),
    /// Register and leave; the binding stays until it expires
    Register(PhoneArgs),
}

/// Arguments of `kubepbx phone`.
#[derive(Debug, Clone, Args)]
pub struct PhoneArgs {
    /// The PBX: HOST:PORT
    #[arg(long)]
    server: String,
    /// User of the account
    #[arg(long)]
    user: String,
    /// Its password
    #[arg(long, default_value = "")]
    password: String,
    /// Whom to call
    #[arg(long)]
    to: Option<String>,
    /// What to send: tone:HZ or a WAV file (silence when absent)
    #[arg(long)]
    play: Option<Play>,
    /// Fail unless each call heard this tone: tone:HZ
    #[arg(long)]
    hear: Option<Play>,
    /// Begin again, each second, for at most so many seconds while it fails: what it calls may still be coming up
    #[arg(long)]
    retry: Option<f64>,
    /// Record what was heard into this WAV file (of the first call)
    #[arg(long)]
    record: Option<PathBuf>,
    /// How long to talk; answer: hang up after so long, 0 waits for the other side
    #[arg(long)]
    seconds: Option<f64>,
    /// answer: ring for so long before answering
    #[arg(long, default_value_t = 0.0)]
    ring: f64,
    /// call: give it up by CANCEL when nobody has answered after so many seconds
    #[arg(long)]
    cancel_after: Option<f64>,
    /// How many calls
    #[arg(long, default_value_t = 1)]
    calls: usize,
    /// At most so many at a time
    #[arg(long)]
    parallel: Option<usize>,
    /// Give up (answer: waiting for calls) after so many seconds
    #[arg(long, default_value_t = 300.0)]
    patience: f64,
    /// Expires of the registration, seconds
    #[arg(long, default_value_t = 3600)]
    expires: u32,
    /// Print this line on stderr once registered, for scripts that wait for it
    #[arg(long)]
    announce: Option<String>,
}

/// What we can speak.
fn codecs() -> [Codec; 3] {
    [Codec::ulaw(), Codec::alaw(), Codec::telephone_event(101)]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Call,
    Answer,
    Register,
}

/// Runs the phone.
pub async fn run(command: PhoneCommand) -> ExitCode {
    let (mode, args) = match command {
        PhoneCommand::Call(args) => (Mode::Call, args),
        PhoneCommand::Answer(args) => (Mode::Answer, args),
        PhoneCommand::Register(args) => (Mode::Register, args),
    };
    let end = args.retry.map(|seconds| tokio::time::Instant::now() + Duration::from_secs_f64(seconds));
    let mut done = drive(mode, args.clone()).await;
    while !done.as_ref().is_ok_and(Report::ok) && end.is_some_and(|end| tokio::time::Instant::now() < end) {
        match &done {
            Ok(report) if report.gave_up => break,
            Ok(report) => eprintln!("{}", report.to_json()),
            Err(error) => eprintln!("kubepbx phone: {error:#}"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        done = drive(mode, args.clone()).await;
    }
    match done {
        Ok(report) => {
            println!("{}", report.to_json());
            if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("kubepbx phone: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Call {
    audio: Option<Audio>,
    report: CallReport,
    started: Duration,
    hang_up_at: Option<Duration>,
    /// Rings until then: when, our session, and the caller's offer.
    rings: Option<(Duration, Session, Option<Box<Session>>)>,
}

struct Phone {
    ua: Ua,
    args: PhoneArgs,
    mode: Mode,
    local: IpAddr,
    calls: HashMap<CallId, Call>,
    report: Report,
    begun: usize,
    finished: mpsc::Sender<(CallId, AudioReport)>,
    /// Calls whose audio is being counted up.
    closing: HashMap<CallId, CallReport>,
    /// Asked to end before all was done: calls have until then to be hung up.
    stopping: Option<Duration>,
}

/// How long what ends a call or a registration is sent again at most.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// The address that packets to `to` leave from.
async fn route_to(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let probe = UdpSocket::bind((any, 0)).await?;
    probe.connect(to).await.with_context(|| format!("no route to {to}"))?;
    let local = probe.local_addr()?.ip();
    drop(probe);
    Ok(UdpSocket::bind((local, 0)).await?)
}

async fn drive(mode: Mode, args: PhoneArgs) -> anyhow::Result<Report> {
    if mode == Mode::Call && args.to.is_none() {
        bail!("call needs --to");
    }
    let clock = runtime::Clock::new();
    let mut rng = runtime::entropy();
    let hear = match args.hear {
        None => None,
        Some(Play::Tone(hz)) => Some(hz),
        Some(Play::Samples(_)) => bail!("--hear takes a tone: tone:HZ"),
    };
    let server = match tokio::net::lookup_host(&args.server).await.with_context(|| args.server.clone())?.next() {
        Some(server) => server,
        None => bail!("{} has no address", args.server),
    };
    let socket = route_to(server).await?;
    let local = socket.local_addr()?;
    let account =
        Account { server, user: args.user.clone(), password: args.password.clone(), local, expires: args.expires };
    let (finished, mut audio_done) = mpsc::channel(args.calls.max(1));
    let mut phone = Phone {
        ua: Ua::new(account, &mut rng),
        mode,
        local: local.ip(),
        calls: HashMap::new(),
        report: Report::new(mode == Mode::Register, hear),
        begun: 0,
        finished,
        closing: HashMap::new(),
        stopping: None,
        args,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if mode != Mode::Call {
        phone.ua.register(clock.now().mono, &mut rng);
    }
    let patience = clock.now().mono + Duration::from_secs_f64(phone.args.patience);
    let mut buffer = vec![0; 65_535];
    loop {
        let now = clock.now().mono;
        phone.begin_calls(now, &mut rng).await?;
        phone.hang_up_due(now, &mut rng);
        phone.answer_due(now);
        while let Some(out) = phone.ua.poll(now) {
            phone.act(out, &socket, now).await?;
        }
        if phone.is_over() || phone.stopping.is_some_and(|limit| now >= limit) {
            if mode == Mode::Answer && phone.report.registered == Some(200) {
                phone.ua.unregister(now, &mut rng);
            }
            tokio::select! {
                () = linger(&mut phone.ua, &socket, &clock, &mut rng) => {}
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            return Ok(phone.report);
        }
        if now >= patience && phone.stopping.is_none() {
            phone.stop(now, &mut rng);
            continue;
        }
        let due = phone.calls.values().flat_map(|c| [c.hang_up_at, c.rings.as_ref().map(|(at, ..)| *at)]).flatten();
        let end = phone.stopping.unwrap_or(patience);
        let until = due.chain(phone.ua.deadline()).chain([end]).min().unwrap_or(end);
        tokio::select! {
            _ = terminate.recv() => phone.stop(clock.now().mono, &mut rng),
            _ = interrupt.recv() => phone.stop(clock.now().mono, &mut rng),
            () = tokio::time::sleep_until(clock.instant(until)) => {}
            Some((call, audio)) = audio_done.recv() => phone.count(call, audio),
            got = socket.recv_from(&mut buffer) => {
                if let Ok((len, from)) = got {
                    phone.ua.receive(&buffer[..len], from, clock.now().mono, &mut rng);
                }
            }
        }
    }
}

/// Stays for half a second, and until our last request is answered (at most [`LAST_WORDS`]), so that what was lost is sent
/// again.
async fn linger(ua: &mut Ua, socket: &UdpSocket, clock: &runtime::Clock, rng: &mut dyn RngCore) {
    let start = clock.now().mono;
    let (least, most) = (start + Duration::from_millis(500), start + LAST_WORDS);
    let mut buffer = vec![0; 65_535];
    loop {
        let now = clock.now().mono;
        let end = if ua.is_settled() { least } else { most };
        if now >= end {
            return;
        }
        while let Some(out) = ua.poll(now) {
            if let Out::Send(to, bytes) = out {
                _ = socket.send_to(&bytes, to).await;
            }
        }
        let until = ua.deadline().map_or(end, |d| d.clamp(now, end));
        tokio::select! {
            () = tokio::time::sleep_until(clock.instant(until)) => {}
            got = socket.recv_from(&mut buffer) => {
                if let Ok((len, from)) = got {
                    ua.receive(&buffer[..len], from, clock.now().mono, rng);
                }
            }
        }
    }
}

impl Phone {
    /// Calls under way, counting those whose audio is still being counted up.
    fn active(&self) -> usize {
        self.calls.len() + self.closing.len()
    }

    /// Hangs up whatever is up; a second time it waits for nothing more.
    fn stop(&mut self, now: Duration, rng: &mut dyn RngCore) {
        self.report.gave_up = true;
        self.stopping = Some(if self.stopping.is_some() { now } else { now + LAST_WORDS });
        for call in self.calls.values_mut() {
            (call.hang_up_at, call.rings) = (Some(now), None);
        }
        self.hang_up_due(now, rng);
    }

    fn is_over(&self) -> bool {
        if self.stopping.is_some() && self.active() == 0 {
            return true;
        }
        match self.mode {
            Mode::Register => self.report.registered.is_some(),
            Mode::Call => self.begun == self.args.calls && self.active() == 0,
            Mode::Answer => {
                let refused = self.report.registered.is_some_and(|status| status != 200);
                refused || (self.report.calls.len() >= self.args.calls && self.active() == 0)
            }
        }
    }

    async fn begin_calls(&mut self, now: Duration, rng: &mut dyn RngCore) -> anyhow::Result<()> {
        let parallel = self.args.parallel.unwrap_or(self.args.calls);
        let calling = self.mode == Mode::Call && self.stopping.is_none();
        while calling && self.begun < self.args.calls && self.active() < parallel {
            let socket = UdpSocket::bind((self.local, 0)).await?;
            let offer = rtp::sdp::offer(socket.local_addr()?, &codecs(), rng.next_u64() >> 2, 1);
            let to = self.args.to.clone().unwrap_or_default();
            let call = self.ua.call(&to, offer, now, rng);
            self.add(call, socket, now);
        }
        Ok(())
    }

    fn add(&mut self, call: CallId, socket: UdpSocket, now: Duration) {
        let record = self.args.record.clone().filter(|_| self.begun == 0);
        self.begun += 1;
        let audio = Audio::start(call, socket, self.args.play.clone(), record, self.finished.clone());
        let patient = self.args.cancel_after.filter(|_| self.mode == Mode::Call);
        let hang_up_at = patient.map(|seconds| now + Duration::from_secs_f64(seconds));
        let report = CallReport::default();
        self.calls.insert(call, Call { audio: Some(audio), report, started: now, hang_up_at, rings: None });
    }

    fn answer_due(&mut self, now: Duration) {
        let due = |call: &Call| call.rings.as_ref().is_some_and(|(at, ..)| *at <= now);
        let ids: Vec<CallId> = self.calls.iter().filter(|(_, call)| due(call)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some((_, answer, offer)) = self.calls.get_mut(&id).and_then(|call| call.rings.take()) {
                self.ua.answer(id, answer, now);
                self.media(id, offer.as_deref());
            }
        }
    }

    fn hang_up_due(&mut self, now: Duration, rng: &mut dyn RngCore) {
        for (id, call) in &mut self.calls {
            if call.hang_up_at.is_some_and(|at| at <= now) {
                call.hang_up_at = None;
                self.ua.hang_up(*id, now, rng);
            }
        }
    }

    async fn act(&mut self, out: Out, socket: &UdpSocket, now: Duration) -> anyhow::Result<()> {
        match out {
            Out::Send(to, bytes) => {
                // A refusal by ICMP is a lost packet: the transaction sends again or times out.
                _ = socket.send_to(&bytes, to).await;
            }
            Out::Registered(status) => {
                self.report.registered = Some(status);
                if let Some(line) = self.args.announce.as_ref().filter(|_| status == 200) {
                    eprintln!("{line}");
                }
            }
            Out::Incoming(call, offer) => {
                let media = UdpSocket::bind((self.local, 0)).await?;
                let address = media.local_addr()?;
                let answer = match &offer {
                    Some(offer) => rtp::sdp::answer(offer, address, &codecs(), call as u64 + 1, 1).ok(),
                    None => Some(rtp::sdp::offer(address, &codecs(), call as u64 + 1, 1)),
                };
                match answer {
                    Some(answer) => {
                        self.add(call, media, now);
                        let at = now + Duration::from_secs_f64(self.args.ring);
                        if let Some(call) = self.calls.get_mut(&call) {
                            call.rings = Some((at, answer, offer));
                        }
                        self.answer_due(now);
                    }
                    None => self.ua.refuse(call, 488, now),
                }
            }
            Out::Ringing(call) => {
                if let Some(call) = self.calls.get_mut(&call) {
                    call.report.ringing_ms.get_or_insert((now - call.started).as_secs_f64() * 1000.0);
                }
            }
            Out::Answered(id) => {
                if let Some(call) = self.calls.get_mut(&id) {
                    call.report.setup_ms = Some((now - call.started).as_secs_f64() * 1000.0);
                    let seconds = self.args.seconds.or((self.mode == Mode::Call).then_some(3.0)).filter(|s| *s > 0.0);
                    let none = (self.mode == Mode::Call).then_some(Duration::ZERO);
                    call.hang_up_at = seconds.map(Duration::from_secs_f64).or(none).map(|after| now + after);
                }
            }
            Out::Media(call, session) => self.media(call, Some(&session)),
            Out::Ended { call: id, status, remote } => {
                if let Some(mut call) = self.calls.remove(&id) {
                    call.report.status = status;
                    call.report.ended_by_remote = remote;
                    call.report.seconds = (now - call.started).as_secs_f64();
                    match call.audio.take() {
                        Some(audio) => {
                            audio.stop();
                            self.closing.insert(id, call.report);
                        }
                        None => self.report.calls.push(call.report),
                    }
                }
            }
        }
        Ok(())
    }

    /// Points a call's audio to where the other side receives.
    fn media(&mut self, call: CallId, session: Option<&Session>) {
        let (Some(call), Some(session)) = (self.calls.get_mut(&call), session) else { return };
        let Some(at) = session.audio() else { return };
        let codec = session.audio_codecs().into_iter().find(|c| c.is("ulaw") || c.is("alaw"));
        if let (Some(to), Some(codec), Some(audio)) = (session.rtp_address(at), codec, &call.audio) {
            audio.send_to(to, codec.payload, session.direction(at).receives());
        }
    }

    fn count(&mut self, call: CallId, audio: AudioReport) {
        if let Some(mut report) = self.closing.remove(&call) {
            report.audio = Some(audio);
            self.report.calls.push(report);
        }
    }
}
