//! The conference's IO: the mesh, timers, for each leg a socket and its 20 ms clock, and the thread that mixes rooms.

use crate::core::{Core, Input, LegId, OpenError, Output, Settings};
use crate::owner::Owners;
use crate::program::Program;
use crate::prompt::{self, Part, PromptError, RATE};
use crate::requests::{self, Request};
use crate::room::Sound;
use crate::room::mixing::{Begin, Heard};
use crate::room::sounds::Sounds;
use crate::room::state::Act;
use crate::room::thread::{Mixer, Order};
use crate::stream::{Agreed, FRAME, Stream, Tick};
use contract::Service;
use contract::config::ConferenceEntry;
use contract::peers::{Peer, PeerState};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use rand::RngCore;
use runtime::mesh::Member;
use runtime::metrics::{self, Reason};
use runtime::source::Subscription;
use runtime::{Clock, Deps, Drain, Lookups, Running, entropy, timer};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How to run a conference service.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`Settings`].
    pub settings: Settings,
    /// Where legs receive RTP, and what SDP says. Ports are the kernel's.
    pub rtp_address: IpAddr,
    /// The folder that prompts are read from.
    pub sounds: PathBuf,
    /// The folder that recordings of rooms are written to.
    pub recordings: PathBuf,
    /// Silence before a prompt or a tone, so that nothing of it is lost while the far end sets up.
    pub lead: Duration,
    /// After the drain began and no leg is left, requests are still answered (503) for so long.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            rtp_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            sounds: PathBuf::from("sounds"),
            recordings: PathBuf::from("recordings"),
            lead: Duration::from_millis(100),
            linger: Duration::from_millis(500),
        }
    }
}

/// Keys and talk that wait for the core.
const HEARD: usize = 4096;

/// Joins the mesh and serves until drained.
///
/// # Errors
/// A sound of the folder's that cannot be read, or no thread to mix on.
pub fn build(config: Config, deps: Deps<ConferenceEntry>) -> anyhow::Result<Running> {
    let Deps { process, mesh, store, source, clock, drain, metrics, health, .. } = deps;
    let peers = mesh.peers();
    let member = mesh.join(Peer::new(Service::Conference, process));
    let (played, ends) = mpsc::channel(config.settings.limit.max(1));
    let sounds = Arc::new(Sounds::load(&config.sounds)?);
    let events = metrics.reasons("conference_events", "Legs answered, refused and ended, by event.");
    let (tell, heard) = mpsc::channel(HEARD);
    let lost = events.clone();
    // Keys that find no room were too many to be a person's.
    let mixer = Mixer::start(sounds.clone(), config.recordings.clone(), move |what| {
        if tell.try_send(what).is_err() {
            metrics::count(&lost, "overflow");
        }
    })?;
    let mut running = Running::new();
    let requests = requests::offer(&mut running);
    let owners = Owners::start(&mut running, process, store, peers);
    let driver = Driver {
        core: Core::new(process, config.settings.clone()),
        // Those that are opening are among the core's legs, or were cancelled a moment ago.
        opening: Lookups::new(config.settings.limit.saturating_mul(2).max(1)),
        config: Arc::new(config),
        member,
        source,
        clock,
        drain,
        legs: HashMap::new(),
        sounds,
        mixer,
        heard,
        requests,
        owners,
        rooms: HashMap::new(),
        tasks: JoinSet::new(),
        played,
        ends,
        events,
        load: metrics.gauge("conference_legs", "Legs now."),
        part: health.part("conference"),
        pulse: health.pulse("conference"),
    };
    running.spawn("conference", driver.run());
    Ok(running)
}

/// What a leg has before its sound starts, and after.
enum Media {
    /// Bound and loaded.
    Ready(Box<Opened>),
    /// Its task follows what is sent here and ends when that is dropped.
    Sounding(watch::Sender<Agreed>),
    /// The thread that mixes has its socket.
    Mixed,
}

struct Opened {
    socket: UdpSocket,
    program: Program,
    parts: Vec<Part>,
}

type Opening = (LegId, Result<Opened, OpenError>);

struct Driver {
    core: Core,
    config: Arc<Config>,
    member: Member,
    source: Subscription<ConferenceEntry>,
    clock: Clock,
    drain: Drain,
    opening: Lookups<Opening>,
    legs: HashMap<LegId, Media>,
    sounds: Arc<Sounds>,
    mixer: Mixer,
    heard: mpsc::Receiver<Heard>,
    requests: mpsc::Receiver<Request>,
    owners: Owners,
    /// Legs that hold a room here.
    rooms: HashMap<LegId, String>,
    tasks: JoinSet<()>,
    played: mpsc::Sender<LegId>,
    ends: mpsc::Receiver<LegId>,
    events: Family<Reason, Counter>,
    load: Gauge,
    part: runtime::health::Part,
    pulse: runtime::health::Pulse,
}

impl Driver {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut rng = entropy();
        let mut draining = false;
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        let end = tokio::time::sleep(Duration::MAX);
        tokio::pin!(end);
        self.source.ack(self.source.snapshot().version);
        self.part.ready();
        loop {
            let input = tokio::select! {
                message = self.member.recv() => match message {
                    Some(message) => Input::Message(message),
                    None => anyhow::bail!("another process has this one's name"),
                },
                (id, opened) = self.opening.next() => self.opened(id, opened),
                Some(id) = self.ends.recv() => Input::Played(id),
                Some(heard) = self.heard.recv() => match heard {
                    Heard::Digit(id, digit) => Input::Digit(id, digit),
                    Heard::Talking(id, talks) => Input::Talking(id, talks),
                },
                Some(request) = self.requests.recv() => requests::take(self.core.rooms(), request),
                // A task that panicked has dropped its socket; its leg ends by its caller or its timers.
                Some(_) = self.tasks.join_next() => Input::Tick,
                () = self.source.changed() => {
                    self.source.ack(self.source.snapshot().version);
                    Input::Tick
                }
                () = self.drain.draining(), if !draining => {
                    draining = true;
                    self.member.set_state(PeerState::Draining);
                    end.as_mut().reset(tokio::time::Instant::now() + self.config.linger);
                    Input::Drain
                }
                () = &mut end, if draining && self.core.is_empty() => return Ok(()),
                _ = beat.tick() => Input::Tick,
                () = timer::sleep_until_mono(self.clock, self.core.deadline()) => Input::Tick,
            };
            self.pulse.beat();
            self.core.handle(input, self.clock.now(), &mut rng);
            while let Some(output) = self.core.poll() {
                self.perform(output);
            }
            let legs = self.core.len();
            self.member.set_load(legs as u64);
            self.load.set(i64::try_from(legs).unwrap_or(i64::MAX));
        }
    }

    fn opened(&mut self, id: LegId, opened: Result<Opened, OpenError>) -> Input {
        let address = opened.and_then(|opened| {
            let address = opened.socket.local_addr().map_err(|_| OpenError::Failed)?;
            self.legs.insert(id, Media::Ready(Box::new(opened)));
            Ok(address)
        });
        Input::Opened(id, address)
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { to, bytes } => {
                if let Err(error) = self.member.send(to, bytes) {
                    tracing::debug!(%to, %error, "not sent");
                    metrics::count(&self.events, "unsent");
                }
            }
            Output::Count(what) => metrics::count(&self.events, what),
            Output::Open(id, program) => {
                let (config, sounds) = (self.config.clone(), self.sounds.clone());
                let claim = match &program {
                    Program::Room(options) => {
                        self.rooms.insert(id, options.name.clone());
                        Some(self.owners.claim(&options.name))
                    }
                    _ => None,
                };
                let opened = async move {
                    if let Some(claim) = claim
                        && !claim.await
                    {
                        return (id, Err(OpenError::Elsewhere));
                    }
                    (id, open(&config, &sounds, program).await)
                };
                if self.opening.push(opened).is_err() {
                    // The caller's own timer, or its CANCEL, ends this leg.
                    metrics::count(&self.events, "overflow");
                }
            }
            Output::Start(id, agreed) => {
                if let Some(Media::Ready(opened)) = self.legs.remove(&id) {
                    let Opened { socket, program, parts } = *opened;
                    if let Program::Room(options) = program {
                        return self.mix(id, socket, options.name, agreed);
                    }
                    let (changes, follow) = watch::channel(agreed.clone());
                    let stream = Stream::new(agreed, &program, parts, self.config.lead, &mut entropy());
                    self.tasks.spawn(sound(id, socket, stream, follow, self.played.clone()));
                    self.legs.insert(id, Media::Sounding(changes));
                }
            }
            Output::Update(id, agreed) => match self.legs.get(&id) {
                // A task that is gone needs no news.
                Some(Media::Sounding(changes)) => _ = changes.send(agreed),
                Some(Media::Mixed) => self.tell(Order::Update(id, Box::new(agreed))),
                Some(Media::Ready(_)) | None => {}
            },
            Output::Room(act) => match act {
                Act::Voice(id, voice) => self.tell(Order::Voice(id, voice)),
                Act::Play(id, sound) => self.tell(Order::Play(id, sound)),
                Act::Record(room, on) => {
                    self.tell(Order::Record(room, on.then(|| self.clock.now().wall.as_secs())));
                }
                // The core ends legs itself.
                Act::End(..) => {}
            },
            Output::Close(id) => {
                if let Some(room) = self.rooms.remove(&id) {
                    self.owners.release(&room);
                }
                if let Some(Media::Mixed) = self.legs.remove(&id) {
                    self.tell(Order::Remove(id));
                }
            }
        }
    }

    /// Gives a leg's socket to the thread that mixes.
    fn mix(&mut self, id: LegId, socket: UdpSocket, room: String, agreed: Agreed) {
        let mut rng = entropy();
        let begin = Begin { ssrc: rng.next_u32(), sequence: rng.next_u32() as u16, timestamp: rng.next_u32() };
        match socket.into_std() {
            Ok(socket) => {
                self.tell(Order::Insert { room, id, socket, agreed: Box::new(agreed), begin });
                self.legs.insert(id, Media::Mixed);
            }
            Err(error) => tracing::error!(leg = id.0, %error, "its socket cannot be mixed"),
        }
    }

    fn tell(&self, order: Order) {
        if !self.mixer.tell(order) {
            tracing::error!("the thread that mixes is gone");
            metrics::count(&self.events, "mixer_gone");
        }
    }
}

/// A socket and the prompts of a program.
async fn open(config: &Config, sounds: &Sounds, program: Program) -> Result<Opened, OpenError> {
    let parts = match &program {
        Program::Music => vec![Part::Samples(sounds.at(Sound::Music, RATE).to_vec())],
        Program::Play(prompts) => {
            let (folder, prompts) = (config.sounds.clone(), prompts.clone());
            let loaded = tokio::task::spawn_blocking(move || prompt::load(&folder, &prompts)).await;
            match loaded {
                Ok(Ok(parts)) => parts,
                Ok(Err(error @ PromptError::Missing(_))) => {
                    tracing::warn!(%error, folder = %config.sounds.display(), "not played");
                    return Err(OpenError::Missing);
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "not played");
                    return Err(OpenError::Failed);
                }
                Err(_) => return Err(OpenError::Failed),
            }
        }
        _ => Vec::new(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(config.rtp_address, 0)).await.map_err(|error| {
        tracing::error!(%error, address = %config.rtp_address, "no port for a leg");
        OpenError::Failed
    })?;
    Ok(Opened { socket, program, parts })
}

/// One leg's sound, until its leg is dropped.
async fn sound(
    id: LegId,
    socket: UdpSocket,
    mut stream: Stream,
    mut follow: watch::Receiver<Agreed>,
    played: mpsc::Sender<LegId>,
) {
    let mut buffer = vec![0; 2048];
    let mut clock = tokio::time::interval(FRAME);
    loop {
        tokio::select! {
            _ = clock.tick() => match stream.tick() {
                Tick::Packet(packet) => send(&socket, &stream, &packet).await,
                Tick::Nothing => {}
                // The channel holds one for every leg, so this waits for nobody.
                Tick::Ended => _ = played.send(id).await,
            },
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => {
                    let packet = buffer.get(..length).and_then(|datagram| stream.receive(datagram, from));
                    if let Some(packet) = packet {
                        send(&socket, &stream, &packet).await;
                    }
                }
                // The peer's port was closed for a moment (ICMP): nothing that ends a leg.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => tracing::debug!(leg = id.0, %error, "not received"),
            },
            changed = follow.changed() => match changed {
                Ok(()) => stream.update(follow.borrow_and_update().clone()),
                Err(_) => return,
            },
        }
    }
}

async fn send(socket: &UdpSocket, stream: &Stream, packet: &[u8]) {
    if let Some(remote) = stream.remote()
        && let Err(error) = socket.send_to(packet, remote).await
    {
        tracing::trace!(%error, "not sent");
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
