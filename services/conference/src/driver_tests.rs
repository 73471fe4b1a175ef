//! The conference as it runs: SIP over a mesh, RTP over loopback, sound judged by its spectrum.

use super::*;
use crate::core::ENDED;
use crate::core::tests::{Caller, ME, ROUTER};
use bytes::Bytes;
use contract::config::Snapshot;
use rtp::g711::Law;
use rtp::packet::{Packet, Sender};
use rtp::sdp::Session;
use rtp::tone::{Generator, strongest};
use runtime::Environment;
use sip::{Message, Method};
use std::path::Path;
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(10);

struct Site {
    environment: Environment,
    router: Member,
    running: Running,
}

/// A leg of the test's: its socket and where the conference receives.
struct Leg {
    caller: Caller,
    socket: UdpSocket,
    remote: SocketAddr,
}

impl Site {
    fn start(sounds: &Path) -> Self {
        let environment = Environment::in_memory();
        let router = environment.mesh.join(Peer::new(Service::Router, ROUTER));
        let config = Config {
            sounds: sounds.into(),
            recordings: sounds.join("recordings"),
            lead: Duration::ZERO,
            linger: Duration::from_millis(50),
            ..Config::default()
        };
        let deps = environment.deps(ME, Subscription::fixed(Snapshot::default()));
        let running = build(config, deps).unwrap();
        Self { environment, router, running }
    }

    async fn ask(&mut self, request: Bytes) -> Bytes {
        self.router.send(ME, request).unwrap();
        timeout(LIMIT, self.router.recv()).await.expect("an answer in time").unwrap().bytes
    }

    /// Calls; the leg, or the status of a refusal.
    async fn call(&mut self, uri: &str, formats: &str) -> Result<Leg, u16> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut caller = Caller::new(uri);
        caller.rtp = socket.local_addr().unwrap().to_string();
        let offer = caller.sdp(formats);
        let invite = caller.request("INVITE", "", &offer);
        let answer = self.ask(invite).await;
        let message = Message::parse_stream(&answer).unwrap();
        if message.status() != Some(200) {
            return Err(message.status().unwrap());
        }
        caller.established(&message);
        let remote = Session::parse(message.body()).unwrap().rtp_address(0).unwrap();
        let ack = caller.request("ACK", "", "");
        self.router.send(ME, ack).unwrap();
        Ok(Leg { caller, socket, remote })
    }

    async fn legs(&self, want: u64) {
        let mut peers = self.environment.mesh.peers();
        timeout(LIMIT, peers.wait_for(|p| p.get(ME).is_some_and(|p| p.load == want))).await.expect("legs").unwrap();
    }
}

impl Leg {
    /// What comes until `count` packets were there or it is silent for half a second; how long it took.
    async fn hear(&self, count: usize, law: Law) -> (Vec<i16>, Duration) {
        let (mut samples, mut buffer) = (Vec::new(), [0; 2048]);
        let mut first = None;
        let mut last = Instant::now();
        for _ in 0..count {
            let got = timeout(Duration::from_millis(500), self.socket.recv_from(&mut buffer)).await;
            let Ok(Ok((length, from))) = got else { break };
            assert_eq!(from, self.remote);
            last = Instant::now();
            first.get_or_insert(last);
            let packet = Packet::parse(&buffer[..length]).unwrap();
            assert_eq!(Law::of_payload_type(packet.payload_type), Some(law));
            samples.extend(law.decode(packet.payload));
        }
        (samples, first.map_or(Duration::ZERO, |f| last - f))
    }
}

fn write_wav(path: &Path, hertz: f64, rate: u32) {
    let spec =
        hound::WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: hound::SampleFormat::Int };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    Generator::new(&[hertz], rate, 10_000)
        .samples(rate as usize / 2)
        .iter()
        .for_each(|s| wav.write_sample(*s).unwrap());
    wav.finalize().unwrap();
}

#[tokio::test]
async fn prompts_are_heard_in_full_and_then_it_hangs_up() {
    let dir = tempfile::tempdir().unwrap();
    write_wav(&dir.path().join("welcome.wav"), 700.0, 16_000);
    let mut site = Site::start(dir.path());
    let uri = "sip:play@conference.invalid;prompt=welcome&tone:1200%2C500";
    let leg = site.call(uri, "8 0\r\n").await.unwrap();
    site.legs(1).await;
    let (samples, took) = leg.hear(100, Law::A).await;
    assert_eq!(samples.len(), 8000, "half a second each");
    assert!((Duration::from_millis(900)..Duration::from_millis(1400)).contains(&took), "{took:?}");
    for (part, want) in [(&samples[..4000], 700.0), (&samples[4000..], 1200.0)] {
        let tone = strongest(part, 8000).unwrap();
        assert!((tone.hz - want).abs() < 3.0 && tone.share > 0.9, "{want}: {tone:?}");
    }
    let bye = timeout(LIMIT, site.router.recv()).await.expect("BYE").unwrap().bytes;
    let bye = Message::parse_stream(&bye).unwrap();
    assert_eq!((bye.method(), bye.other(ENDED)), (Some(Method::Bye), Some("completed")));
    site.router.send(ME, Caller::ok(&bye)).unwrap();
    site.legs(0).await;
    // Its port is free again.
    UdpSocket::bind(leg.remote).await.unwrap();
}

#[tokio::test]
async fn a_tone_goes_on_until_the_caller_hangs_up() {
    let mut site = Site::start(Path::new("/nowhere"));
    let mut leg = site.call("sip:tone-440@conference.invalid", "0\r\n").await.unwrap();
    let (samples, _) = leg.hear(60, Law::Mu).await;
    assert_eq!(samples.len(), 60 * 160);
    let tone = strongest(&samples, 8000).unwrap();
    assert!((tone.hz - 440.0).abs() < 2.0 && tone.share > 0.95 && tone.level > 5000.0, "{tone:?}");
    let bye = leg.caller.request("BYE", "", "");
    assert!(site.ask(bye).await.starts_with(b"SIP/2.0 200"));
    site.legs(0).await;
    UdpSocket::bind(leg.remote).await.unwrap();
}

#[tokio::test]
async fn echo_returns_what_was_sent() {
    let mut site = Site::start(Path::new("/nowhere"));
    let leg = site.call("sip:echo@conference.invalid", "0\r\n").await.unwrap();
    site.legs(1).await;
    let said = Generator::new(&[950.0], 8000, 9000).samples(50 * 160);
    let mut sender = Sender::new(7, 65_530, 12_345);
    let mut heard = Vec::new();
    for frame in said.chunks(160) {
        leg.socket.send_to(&sender.next(0, &Law::Mu.encode(frame), 160), leg.remote).await.unwrap();
        heard.extend(leg.hear(1, Law::Mu).await.0);
    }
    let want: Vec<i16> = said.chunks(160).flat_map(|f| Law::Mu.decode(&Law::Mu.encode(f))).collect();
    assert_eq!(heard, want);
    // A stranger is not answered, and nobody is told what he said.
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    stranger.send_to(&sender.next(0, &[0; 160], 160), leg.remote).await.unwrap();
    assert!(leg.hear(1, Law::Mu).await.0.is_empty());
}

#[tokio::test]
async fn a_room_of_three_codecs_is_heard_and_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::start(dir.path());
    let mut legs = Vec::new();
    for (n, (format, hz)) in [(0u8, 440.0), (8, 880.0), (9, 1320.0)].into_iter().enumerate() {
        // Calls differ by their address.
        let uri = format!("sip:room-100@conference.invalid;quiet;record;n={}", "x".repeat(n + 1));
        let leg = site.call(&uri, &format!("{format}\r\n")).await.unwrap();
        let codec = rtp::codec::of(&rtp::sdp::Codec::new(format, ["PCMU", "PCMA", "G722"][n], 8000, 1)).unwrap();
        let tone = Generator::new(&[hz], codec.rate(), 8000);
        legs.push((leg, codec, tone, Sender::new(n as u32, 1, 1), format, Vec::new()));
    }
    site.legs(3).await;
    let mut clock = tokio::time::interval(Duration::from_millis(20));
    let mut buffer = [0; 2048];
    for _ in 0..100 {
        clock.tick().await;
        for (leg, codec, tone, sender, format, heard) in &mut legs {
            let mut payload = Vec::new();
            codec.encode(&tone.samples(codec.rate() as usize / 50), &mut payload);
            leg.socket.send_to(&sender.next(*format, &payload, 160), leg.remote).await.unwrap();
            while let Ok((length, _)) = leg.socket.try_recv_from(&mut buffer) {
                codec.decode(Packet::parse(&buffer[..length]).unwrap().payload, heard);
            }
        }
    }
    let share = |samples: &[i16], rate, hz| rtp::tone::goertzel(&samples[samples.len() / 2..], rate, hz);
    for (at, (_, codec, _, _, _, heard)) in legs.iter().enumerate() {
        for (other, hz) in [440.0, 880.0, 1320.0].into_iter().enumerate() {
            let share = share(heard, codec.rate(), hz);
            assert!(if other == at { share < 0.01 } else { share > 0.3 }, "{at} {hz}: {share}");
        }
    }
    for (leg, ..) in &mut legs {
        let bye = leg.caller.request("BYE", "", "");
        assert!(site.ask(bye).await.starts_with(b"SIP/2.0 200"));
    }
    site.legs(0).await;
    // The thread that writes it closes the file a moment later.
    let recorded = async {
        loop {
            let files = std::fs::read_dir(dir.path().join("recordings")).into_iter().flatten().flatten();
            let open = |file: std::fs::DirEntry| hound::WavReader::open(file.path()).ok().filter(|wav| wav.len() > 0);
            if let Some(wav) = files.filter_map(open).next() {
                return wav;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut wav = timeout(LIMIT, recorded).await.expect("a recording");
    let rate = wav.spec().sample_rate;
    let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
    let half = samples.len() / 2;
    for hz in [440.0, 880.0, 1320.0] {
        let share = rtp::tone::goertzel(&samples[half..half + rate as usize / 2], rate, hz);
        assert!(share > 0.2, "{hz}: {share}");
    }
}

#[tokio::test]
async fn hold_silences_and_a_new_address_is_followed() {
    let mut site = Site::start(Path::new("/nowhere"));
    let mut leg = site.call("sip:tone-440@conference.invalid", "0\r\n").await.unwrap();
    assert_eq!(leg.hear(5, Law::Mu).await.0.len(), 5 * 160);
    let hold = leg.caller.sdp("0\r\na=sendonly\r\n");
    let hold = leg.caller.request("UPDATE", "", &hold);
    assert!(site.ask(hold).await.starts_with(b"SIP/2.0 200"));
    // What was on its way may still come.
    let rest = leg.hear(1000, Law::Mu).await.0.len() / 160;
    assert!(rest < 10, "{rest} packets on hold");
    leg.socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    leg.caller.rtp = leg.socket.local_addr().unwrap().to_string();
    let back = leg.caller.sdp("0\r\n");
    let back = leg.caller.request("UPDATE", "", &back);
    assert!(site.ask(back).await.starts_with(b"SIP/2.0 200"));
    assert_eq!(leg.hear(10, Law::Mu).await.0.len(), 10 * 160);
}

#[tokio::test]
async fn refusals_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("bad.wav"), b"no wav").unwrap();
    let mut site = Site::start(dir.path());
    for (uri, formats, want) in [
        ("sip:play@h;file=none", "0\r\n", 404),
        ("sip:play@h;prompt=tone:440&none", "0\r\n", 404),
        ("sip:play@h;file=%2Fetc%2Fhostname", "0\r\n", 404),
        ("sip:play@h;file=bad", "0\r\n", 500),
        ("sip:nobody@h", "0\r\n", 404),
        ("sip:echo@h", "9\r\n", 488),
    ] {
        assert_eq!(site.call(uri, formats).await.err(), Some(want), "{uri}");
    }
    site.legs(0).await;
}

#[tokio::test]
async fn draining_waits_for_the_last_leg() {
    let mut site = Site::start(Path::new("/nowhere"));
    let mut leg = site.call("sip:silence@conference.invalid", "0\r\n").await.unwrap();
    let (samples, _) = leg.hear(3, Law::Mu).await;
    assert_eq!(samples, vec![0; 480]);
    site.environment.drain.start();
    let mut peers = site.environment.mesh.peers();
    let draining = peers.wait_for(|p| p.serving(Service::Conference).next().is_none());
    timeout(LIMIT, draining).await.expect("drains").unwrap();
    assert_eq!(site.call("sip:echo@h", "0\r\n").await.err(), Some(503));
    assert_eq!(leg.hear(3, Law::Mu).await.0.len(), 480);
    let bye = leg.caller.request("BYE", "", "");
    assert!(site.ask(bye).await.starts_with(b"SIP/2.0 200"));
    timeout(LIMIT, site.running.join()).await.expect("ends").unwrap();
}
