//! The phone's media: sends a tone or a file in 20 ms packets, counts, records and listens for a tone.

use super::ua::CallId;
use anyhow::{Context, bail, ensure};
use rand::Rng as _;
use rtp::g711::Law;
use rtp::packet::{Packet, Sender};
use rtp::stats::Receiver;
use rtp::tone::{Generator, strongest};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

const RATE: u32 = 8000;
/// Samples of a packet of 20 ms.
const FRAME: usize = 160;
const FRAME_TIME: Duration = Duration::from_millis(20);
/// How much is kept to hear a tone in: the last two seconds.
const HEARD: usize = 2 * RATE as usize;
/// How much `--record` keeps at most: an hour.
const RECORDED: usize = 3600 * RATE as usize;

/// What to send.
#[derive(Debug, Clone)]
pub enum Play {
    /// A tone of so many Hz.
    Tone(f64),
    /// Samples of a file, at 8 kHz, over and over.
    Samples(Arc<Vec<i16>>),
}

impl FromStr for Play {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.strip_prefix("tone:") {
            Some(hz) => {
                let hz: f64 = hz.parse().with_context(|| format!("{s}: tone:HZ takes a number"))?;
                ensure!((1.0..=4000.0).contains(&hz), "{s}: a tone has 1 to 4000 Hz");
                Ok(Play::Tone(hz))
            }
            None => Ok(Play::Samples(Arc::new(read_wav(Path::new(s))?))),
        }
    }
}

fn read_wav(path: &Path) -> anyhow::Result<Vec<i16>> {
    let name = path.display();
    let mut reader = hound::WavReader::open(path).with_context(|| format!("{name}"))?;
    let spec = reader.spec();
    if spec.sample_rate != RATE || spec.channels != 1 || spec.bits_per_sample != 16 {
        bail!("{name}: a WAV file of 8000 Hz, mono, 16 bits is needed");
    }
    let samples: Vec<i16> = reader.samples::<i16>().collect::<Result<_, _>>().with_context(|| format!("{name}"))?;
    ensure!(!samples.is_empty(), "{name}: no samples");
    Ok(samples)
}

/// What was sent and heard on one leg.
#[derive(Debug, Default, Serialize)]
pub(crate) struct AudioReport {
    pub packets_sent: u64,
    pub packets_received: u64,
    pub packets_lost: i64,
    pub jitter_ms: f64,
    /// The longest time without a packet between the first and the end.
    pub longest_gap_ms: f64,
    /// The strongest tone of the last two seconds before the end, if most of the power is in it; what did not come is silence.
    pub tone_hz: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Wait,
    Send { to: SocketAddr, law: Law, receives: bool },
    Stop,
}

/// A running media task.
pub(crate) struct Audio {
    order: watch::Sender<Order>,
}

impl Audio {
    /// Starts to listen on `socket`. The report goes to `finished` after [`Audio::stop`].
    pub(crate) fn start(
        call: CallId,
        socket: UdpSocket,
        play: Option<Play>,
        record: Option<PathBuf>,
        finished: mpsc::Sender<(CallId, AudioReport)>,
    ) -> Self {
        let (order, orders) = watch::channel(Order::Wait);
        tokio::spawn(async move {
            let mut heard = Heard::new(record.is_some());
            let clock = runtime::Clock::new();
            let sent = talk(&socket, play, orders, &mut heard, &clock).await;
            let report = heard.report(sent, clock.now().mono);
            if let Some(path) = record
                && let Err(error) = write_wav(&path, &heard.recording)
            {
                eprintln!("kubepbx phone: {}: {error:#}", path.display());
            }
            // The phone may be gone already; then nobody asks.
            _ = finished.send((call, report)).await;
        });
        Self { order }
    }

    /// Sends to `to` from now on with this payload type (0 or 8), or only listens where the other side does not receive.
    pub(crate) fn send_to(&self, to: SocketAddr, payload_type: u8, receives: bool) {
        let law = Law::of_payload_type(payload_type).unwrap_or(Law::Mu);
        self.order.send_replace(Order::Send { to, law, receives });
    }

    /// Ends the task.
    pub(crate) fn stop(&self) {
        self.order.send_replace(Order::Stop);
    }
}

/// Sends and receives until told to stop; returns how many packets were sent.
async fn talk(
    socket: &UdpSocket,
    play: Option<Play>,
    mut orders: watch::Receiver<Order>,
    heard: &mut Heard,
    clock: &runtime::Clock,
) -> u64 {
    let mut frames = Frames::new(play);
    let mut rng = runtime::entropy();
    let mut sender = Sender::new(rng.random(), rng.random(), rng.random());
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut order = Order::Wait;
    let mut sent = 0;
    let mut buffer = [0; 2048];
    loop {
        tokio::select! {
            changed = orders.changed() => {
                order = if changed.is_ok() { *orders.borrow_and_update() } else { Order::Stop };
                if order == Order::Stop {
                    return sent;
                }
            }
            _ = tick.tick() => {
                if let Order::Send { to, law, receives: true } = order {
                    let payload = law.encode(&frames.next());
                    let payload_type = if law == Law::A { 8 } else { 0 };
                    let packet = sender.next(payload_type, &payload, FRAME as u32);
                    sent += u64::from(socket.send_to(&packet, to).await.is_ok());
                }
            }
            got = socket.recv_from(&mut buffer) => {
                if let Ok((len, _)) = got
                    && let Ok(packet) = Packet::parse(&buffer[..len])
                {
                    heard.receive(&packet, clock.now().mono);
                }
            }
        }
    }
}

/// Where frames of 20 ms come from.
struct Frames {
    play: Option<Play>,
    tone: Option<Generator>,
    at: usize,
}

impl Frames {
    fn new(play: Option<Play>) -> Self {
        let tone = match &play {
            Some(Play::Tone(hz)) => Some(Generator::new(&[*hz], RATE, 8000)),
            _ => None,
        };
        Self { play, tone, at: 0 }
    }

    fn next(&mut self) -> Vec<i16> {
        if let Some(tone) = &mut self.tone {
            return tone.samples(FRAME);
        }
        match &self.play {
            Some(Play::Samples(samples)) => {
                let frame = samples.iter().copied().cycle().skip(self.at).take(FRAME).collect();
                self.at = (self.at + FRAME) % samples.len();
                frame
            }
            _ => vec![0; FRAME],
        }
    }
}

/// What came in.
struct Heard {
    ssrc: Option<u32>,
    stream: Receiver,
    /// Sums of streams that another SSRC has replaced.
    received: u64,
    lost: i64,
    gap: Duration,
    last: Option<Duration>,
    recent: Vec<i16>,
    records: bool,
    recording: Vec<i16>,
}

impl Heard {
    fn new(records: bool) -> Self {
        Self {
            ssrc: None,
            stream: Receiver::new(RATE),
            received: 0,
            lost: 0,
            gap: Duration::ZERO,
            last: None,
            recent: Vec::new(),
            records,
            recording: Vec::new(),
        }
    }

    fn receive(&mut self, packet: &Packet<'_>, now: Duration) {
        let Some(law) = Law::of_payload_type(packet.payload_type) else { return };
        if self.ssrc.is_some_and(|ssrc| ssrc != packet.ssrc) {
            self.received += self.stream.received();
            self.lost += self.stream.lost();
            self.stream = Receiver::new(RATE);
        }
        self.ssrc = Some(packet.ssrc);
        self.stream.receive(packet.sequence, packet.timestamp, now);
        self.gap = self.gap.max(now - self.last.unwrap_or(now));
        self.last = Some(now);
        let samples = law.decode(packet.payload);
        if self.records && self.recording.len() < RECORDED {
            self.recording.extend(&samples);
        }
        self.recent.extend(samples);
        if self.recent.len() > 2 * HEARD {
            self.recent.drain(..self.recent.len() - HEARD);
        }
    }

    /// What was heard until now, the end.
    fn report(&mut self, packets_sent: u64, now: Duration) -> AudioReport {
        let silent = now.saturating_sub(self.last.unwrap_or(now));
        // A packet is a frame late at its best.
        let missing = silent.saturating_sub(FRAME_TIME).as_millis() as usize * RATE as usize / 1000;
        self.recent.resize(self.recent.len() + missing.min(HEARD), 0);
        let recent = &self.recent[self.recent.len().saturating_sub(HEARD)..];
        AudioReport {
            packets_sent,
            packets_received: self.received + self.stream.received(),
            packets_lost: self.lost + self.stream.lost(),
            jitter_ms: self.stream.jitter_time().as_secs_f64() * 1000.0,
            longest_gap_ms: self.gap.max(silent).as_secs_f64() * 1000.0,
            tone_hz: strongest(recent, RATE).filter(|t| t.share > 0.5 && t.level > 100.0).map(|t| t.hz),
        }
    }
}

fn write_wav(path: &Path, samples: &[i16]) -> anyhow::Result<()> {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut writer = hound::WavWriter::create(path, spec)?;
    samples.iter().try_for_each(|s| writer.write_sample(*s))?;
    Ok(writer.finalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(path: &Path, rate: u32, channels: u16, samples: &[i16]) -> String {
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec).unwrap();
        samples.iter().for_each(|s| writer.write_sample(*s).unwrap());
        writer.finalize().unwrap();
        path.display().to_string()
    }

    /// A tone for `seconds`, and what is reported when nothing more came for `silent` seconds.
    fn heard(seconds: usize, silent: f64) -> AudioReport {
        let (mut heard, mut tone) = (Heard::new(false), Generator::new(&[440.0], RATE, 8000));
        let mut sender = Sender::new(1, 2, 3);
        for n in 0..seconds * 50 {
            let packet = sender.next(0, &Law::Mu.encode(&tone.samples(FRAME)), FRAME as u32);
            heard.receive(&Packet::parse(&packet).unwrap(), FRAME_TIME * n as u32);
        }
        heard.report(0, FRAME_TIME * (seconds * 50 - 1) as u32 + Duration::from_secs_f64(silent))
    }

    #[test]
    fn silence_to_the_end_is_a_gap_and_no_tone() {
        let to_the_end = heard(5, 0.02);
        assert!(to_the_end.longest_gap_ms < 21.0 && to_the_end.tone_hz.is_some_and(|hz| (hz - 440.0).abs() < 5.0));
        let fell_silent = heard(5, 3.0);
        assert!(fell_silent.longest_gap_ms > 2999.0 && fell_silent.tone_hz.is_none());
    }

    #[test]
    fn what_is_played_is_a_tone_or_a_file_of_telephone_quality() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        assert!(matches!("tone:440".parse(), Ok(Play::Tone(hz)) if hz == 440.0));
        assert!(matches!("tone:1".parse(), Ok(Play::Tone(_))));
        let good = wav(&file("good.wav"), 8000, 1, &[1, -2, 3]);
        let Ok(Play::Samples(samples)) = good.parse() else { panic!() };
        assert_eq!(*samples, [1, -2, 3]);
        for (bad, why) in [
            ("tone:".to_owned(), "takes a number"),
            ("tone:a".into(), "takes a number"),
            ("tone:NaN".into(), "1 to 4000"),
            ("tone:0".into(), "1 to 4000"),
            ("tone:4001".into(), "1 to 4000"),
            (file("absent.wav").display().to_string(), "absent.wav"),
            (wav(&file("fast.wav"), 44_100, 1, &[1]), "8000 Hz"),
            (wav(&file("stereo.wav"), 8000, 2, &[1, 1]), "mono"),
            (wav(&file("empty.wav"), 8000, 1, &[]), "no samples"),
        ] {
            let error = format!("{:#}", bad.parse::<Play>().unwrap_err());
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
