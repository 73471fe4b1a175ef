//! The sound of one leg, without sockets: packets in, packets out every 20 ms.

use crate::program::Program;
use crate::prompt::{Part, RATE};
use rand::{Rng, RngCore};
use rtp::g711::Law;
use rtp::packet::{Kind, Packet, Sender, kind};
use rtp::sdp::Codec;
use rtp::tone::Generator;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Time between two packets.
pub const FRAME: Duration = Duration::from_millis(20);
/// Samples in a packet.
pub const FRAME_SAMPLES: usize = (RATE / 50) as usize;
/// A tone's amplitude: -9 dB below full.
const AMPLITUDE: i16 = 11_500;

/// What SDP agreed.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    /// What is sent, under its payload type.
    pub codec: Codec,
    /// The payload type of DTMF events, where they were agreed.
    pub events: Option<u8>,
    /// All payload types that may come, DTMF events among them.
    pub accepted: Vec<u8>,
    /// Where to send; none while the peer does not listen (hold, or an address not known).
    pub remote: Option<SocketAddr>,
    /// The peer's address, held or not: packets from another host are not its.
    pub source: Option<SocketAddr>,
}

/// What a tick gives.
#[derive(Debug, PartialEq)]
pub enum Tick {
    /// A packet for [`Agreed::remote`].
    Packet(Vec<u8>),
    /// Nothing to send now.
    Nothing,
    /// The prompts are through. Comes once.
    Ended,
}

/// One leg's sound.
#[derive(Debug)]
pub struct Stream {
    agreed: Agreed,
    sender: Sender,
    sound: Sound,
    /// Frames of silence before the sound: the other side's buffers fill and nothing of a prompt is lost.
    lead: u32,
}

#[derive(Debug)]
enum Sound {
    Echo(Option<EchoSource>),
    Silence,
    Tone(Generator),
    Play {
        parts: VecDeque<Playing>,
        over: bool,
    },
    /// Over and over.
    Music(Arc<[i16]>, usize),
}

#[derive(Debug)]
enum Playing {
    Samples(Vec<i16>, usize),
    Tone(Generator, u64),
}

/// How what comes maps onto what goes, for one source of the peer.
#[derive(Debug, Clone, Copy)]
struct EchoSource {
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

impl Stream {
    /// The stream of a program; `parts` are its prompts, loaded; `lead` how long to be silent first.
    pub fn new(agreed: Agreed, program: &Program, parts: Vec<Part>, lead: Duration, rng: &mut dyn RngCore) -> Self {
        let tone = |hertz: u32| Generator::new(&[f64::from(hertz)], RATE, AMPLITUDE);
        let sound = match program {
            Program::Echo => Sound::Echo(None),
            Program::Silence => Sound::Silence,
            Program::Tone(hertz) => Sound::Tone(tone(*hertz)),
            Program::Music => {
                let samples: Vec<i16> = parts
                    .into_iter()
                    .flat_map(|part| match part {
                        Part::Samples(samples) => samples,
                        Part::Tone(..) => Vec::new(),
                    })
                    .collect();
                Sound::Music(samples.into(), 0)
            }
            Program::Room(_) => Sound::Silence,
            Program::Play(_) => {
                let playing = parts.into_iter().map(|part| match part {
                    Part::Samples(samples) => Playing::Samples(samples, 0),
                    Part::Tone(hertz, samples) => Playing::Tone(tone(hertz), samples),
                });
                Sound::Play { parts: playing.collect(), over: false }
            }
        };
        let lead = if matches!(program, Program::Echo) { 0 } else { (lead.as_millis() / FRAME.as_millis()) as u32 };
        Self { agreed, sender: Sender::new(rng.random(), rng.random(), rng.random()), sound, lead }
    }

    /// SDP agreed something else: a new address, codec or hold. The sound goes on.
    pub fn update(&mut self, agreed: Agreed) {
        self.agreed = agreed;
    }

    /// Where packets go now.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.agreed.remote
    }

    /// A datagram came; what is to be sent at once.
    pub fn receive(&mut self, datagram: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
        if self.agreed.source.is_some_and(|s| s.ip() != from.ip()) || kind(datagram) != Kind::Rtp {
            return None;
        }
        let packet = Packet::parse(datagram).ok()?;
        if !self.agreed.accepted.contains(&packet.payload_type) {
            return None;
        }
        let Sound::Echo(echo) = &mut self.sound else { return None };
        self.agreed.remote?;
        let source = match echo {
            Some(source) if source.ssrc == packet.ssrc => *source,
            // A new source begins where the last one ended; its gaps and its order stay as they are.
            _ => {
                let first = EchoSource {
                    ssrc: packet.ssrc,
                    sequence: self.sender.sequence.wrapping_sub(packet.sequence),
                    timestamp: self.sender.timestamp.wrapping_sub(packet.timestamp),
                };
                *echo = Some(first);
                first
            }
        };
        let out = Packet {
            ssrc: self.sender.ssrc,
            sequence: packet.sequence.wrapping_add(source.sequence),
            timestamp: packet.timestamp.wrapping_add(source.timestamp),
            csrc: &[],
            extension: None,
            ..packet
        };
        self.sender.sequence = out.sequence.wrapping_add(1);
        self.sender.timestamp = out.timestamp.wrapping_add(FRAME_SAMPLES as u32);
        Some(out.to_vec())
    }

    /// 20 ms went by. While the peer does not listen, time goes on and nothing is sent.
    pub fn tick(&mut self) -> Tick {
        if matches!(self.sound, Sound::Echo(_)) {
            return Tick::Nothing;
        }
        let frame = if self.lead > 0 {
            self.lead -= 1;
            Some(vec![0; FRAME_SAMPLES])
        } else {
            self.sound.frame()
        };
        match (frame, &mut self.sound) {
            (Some(frame), _) if self.agreed.remote.is_some() => {
                let law = if self.agreed.codec.is("PCMA") { Law::A } else { Law::Mu };
                let payload = law.encode(&frame);
                Tick::Packet(self.sender.next(self.agreed.codec.payload, &payload, FRAME_SAMPLES as u32))
            }
            (Some(_), _) => {
                self.sender.skip(FRAME_SAMPLES as u32);
                Tick::Nothing
            }
            (None, Sound::Play { over, .. }) => {
                if std::mem::replace(over, true) {
                    Tick::Nothing
                } else {
                    Tick::Ended
                }
            }
            (None, _) => Tick::Nothing,
        }
    }
}

impl Sound {
    /// The next 20 ms; none at the end. The last frame of the last prompt is filled up with silence.
    fn frame(&mut self) -> Option<Vec<i16>> {
        match self {
            Sound::Echo(_) => None,
            Sound::Silence => Some(vec![0; FRAME_SAMPLES]),
            Sound::Tone(tone) => Some(tone.samples(FRAME_SAMPLES)),
            Sound::Music(samples, at) => {
                let length = samples.len().max(1);
                let one = |n| samples.get((*at + n) % length).copied().unwrap_or(0);
                let frame = (0..FRAME_SAMPLES).map(one).collect();
                *at = (*at + FRAME_SAMPLES) % length;
                Some(frame)
            }
            Sound::Play { parts, .. } => {
                let mut frame = Vec::with_capacity(FRAME_SAMPLES);
                while let Some(part) = parts.front_mut() {
                    let room = FRAME_SAMPLES - frame.len();
                    match part {
                        Playing::Samples(samples, at) => {
                            let left = samples.get(*at..).unwrap_or_default();
                            frame.extend(left.iter().take(room));
                            *at += room.min(left.len());
                        }
                        Playing::Tone(tone, left) => {
                            let take = (*left).min(room as u64);
                            frame.extend(tone.samples(take as usize));
                            *left -= take;
                        }
                    }
                    if frame.len() == FRAME_SAMPLES {
                        return Some(frame);
                    }
                    parts.pop_front();
                }
                (!frame.is_empty()).then(|| {
                    frame.resize(FRAME_SAMPLES, 0);
                    frame
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn agreed(remote: Option<&str>) -> Agreed {
        let remote = remote.map(|r| r.parse().unwrap());
        Agreed { codec: Codec::ulaw(), events: Some(101), accepted: vec![0, 101], remote, source: remote }
    }

    fn stream(program: &Program, parts: Vec<Part>, lead: Duration) -> Stream {
        Stream::new(agreed(Some("127.0.0.1:4000")), program, parts, lead, &mut StdRng::seed_from_u64(3))
    }

    /// Ticks until the end (at most `most`): the samples, having checked the packets' order.
    fn heard(stream: &mut Stream, most: usize) -> (Vec<i16>, bool) {
        let (mut samples, mut last) = (Vec::new(), None::<(u16, u32)>);
        for _ in 0..most {
            match stream.tick() {
                Tick::Packet(bytes) => {
                    let packet = Packet::parse(&bytes).unwrap();
                    if let Some((sequence, timestamp)) = last {
                        assert_eq!(packet.sequence, sequence.wrapping_add(1));
                        assert_eq!(packet.timestamp, timestamp.wrapping_add(160));
                    }
                    last = Some((packet.sequence, packet.timestamp));
                    samples.extend(Law::Mu.decode(packet.payload));
                }
                Tick::Nothing => {}
                Tick::Ended => return (samples, true),
            }
        }
        (samples, false)
    }

    #[test]
    fn prompts_follow_one_another_without_a_gap_and_end_once() {
        let play = Program::Play(vec![]);
        let parts = vec![Part::Samples(vec![8000; 100]), Part::Tone(440, 120), Part::Samples(vec![-8000; 200])];
        let mut one = stream(&play, parts, Duration::from_millis(40));
        let (samples, ended) = heard(&mut one, 100);
        assert!(ended);
        assert_eq!(samples.len(), 2 * 160 + 3 * 160);
        assert!(samples[..320].iter().all(|s| *s == 0));
        assert!(samples[320..420].iter().all(|s| (7800..8200).contains(s)));
        assert!(samples[540..740].iter().all(|s| (-8200..-7800).contains(s)));
        assert!(samples[740..].iter().all(|s| *s == 0));
        assert_eq!((one.tick(), one.tick()), (Tick::Nothing, Tick::Nothing));
        assert_eq!(heard(&mut stream(&play, vec![], Duration::ZERO), 9), (vec![], true));
    }

    #[test]
    fn a_tone_is_that_tone_and_goes_on() {
        let (samples, ended) = heard(&mut stream(&Program::Tone(1000), vec![], Duration::ZERO), 200);
        assert!(!ended);
        let tone = rtp::tone::strongest(&samples, 8000).unwrap();
        assert!((tone.hz - 1000.0).abs() < 1.0 && tone.share > 0.98, "{tone:?}");
    }

    #[test]
    fn hold_keeps_the_clock_and_sends_nothing() {
        let mut one = stream(&Program::Play(vec![]), vec![Part::Tone(440, 10 * 160)], Duration::ZERO);
        let Tick::Packet(first) = one.tick() else { panic!() };
        one.update(agreed(None));
        assert_eq!([0; 4].map(|_| one.tick()), [0; 4].map(|_| Tick::Nothing));
        one.update(agreed(Some("127.0.0.1:5000")));
        let Tick::Packet(next) = one.tick() else { panic!() };
        let (first, next) = (Packet::parse(&first).unwrap(), Packet::parse(&next).unwrap());
        assert_eq!(next.timestamp, first.timestamp.wrapping_add(5 * 160));
        assert_eq!(next.sequence, first.sequence.wrapping_add(1));
        assert_eq!(heard(&mut one, 99).0.len(), 4 * 160);
    }

    #[test]
    fn echo_returns_what_came_in_its_order_as_a_source_of_its_own() {
        let mut echo = stream(&Program::Echo, vec![], Duration::from_secs(1));
        let peer = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(echo.tick(), Tick::Nothing);
        let mut offsets = Vec::new();
        let payload: Vec<u8> = (0..160).map(|n| n as u8).collect();
        // With a gap, out of order, over the wrap, a DTMF event among them.
        for (sequence, timestamp, pt) in [(65534u16, 1000u32, 0u8), (0, 1320, 0), (65535, 1160, 0), (1, 1320, 101)] {
            let packet = Packet { marker: pt == 101, ..Packet::new(pt, sequence, timestamp, 77, &payload) };
            let out = echo.receive(&packet.to_vec(), peer).unwrap();
            let out = Packet::parse(&out).unwrap();
            assert_eq!((out.payload, out.payload_type, out.marker), (&payload[..], pt, pt == 101));
            assert_ne!(out.ssrc, 77);
            offsets.push((out.sequence.wrapping_sub(sequence), out.timestamp.wrapping_sub(timestamp)));
        }
        assert!(offsets.iter().all(|o| *o == offsets[0]), "{offsets:?}");
        let good = Packet::new(0, 9, 9, 77, &payload).to_vec();
        assert!(echo.receive(&good, "127.0.0.2:4000".parse().unwrap()).is_none());
        assert!(echo.receive(&Packet::new(9, 9, 9, 77, &payload).to_vec(), peer).is_none());
        assert!(echo.receive(&[0x81, 200, 0, 1, 0, 0, 0, 0], peer).is_none());
        assert!(echo.receive(b"noise", peer).is_none());
        echo.update(agreed(None));
        assert!(echo.receive(&good, peer).is_none());
    }
}
