//! The sound of rooms, 20 ms at a time: what came is taken from ports, decoded, summed, and each gets the sum without
//! its own. Ports are given, so that a test or a bench can be one.

use super::recording::Recording;
use super::sounds::{Sound, Sounds};
use crate::core::LegId;
use crate::stream::Agreed;
use rtp::codec::{self, Codec};
use rtp::conceal::Conceal;
use rtp::dtmf::Receiving;
use rtp::jitter::{Buffer, Config, Frame};
use rtp::mix::{Sum, add, amplify};
use rtp::packet::{Kind, Packet, kind};
use rtp::resample::Resampler;
use rtp::talk::Talk;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// Datagrams that are taken from a port in a frame's time. More are the kernel's to drop.
const BURST: usize = 8;
/// Sounds that wait for a leg.
const QUEUE: usize = 8;
/// RTP clock units of 20 ms: G.711's and G.722's clocks are 8 kHz.
const CLOCK: u32 = 160;
/// Frames without an event's packet after which a digit whose end was lost is told.
const DIGIT_LOST: u8 = 5;

/// Where a leg's packets come from and go.
pub trait Port {
    /// Takes a datagram, if one is there: its length and source.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)>;
    /// Sends one; what cannot be sent is lost.
    fn send(&mut self, packet: &[u8], to: SocketAddr);
}

/// What a member may do and hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Voice {
    /// Hears the room and is heard. False while the PIN is keyed in.
    pub joined: bool,
    /// Is not heard.
    pub muted: bool,
    /// Hears nothing of the room.
    pub deaf: bool,
    /// Hears music.
    pub music: bool,
    /// Loudness of what is heard, in steps of 3 dB.
    pub hear: i8,
    /// Loudness of what is said, in steps of 3 dB.
    pub talk: i8,
}

/// What a frame brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A key.
    Digit(LegId, char),
    /// Began or ended to talk.
    Talking(LegId, bool),
}

/// One leg's media.
struct Leg<P> {
    id: LegId,
    port: P,
    agreed: Agreed,
    codec: Box<dyn Codec>,
    voice: Voice,
    jitter: Buffer,
    conceal: Conceal,
    talk: Talk,
    digits: Receiving,
    /// Frames since an event's packet while a digit is under way.
    event_age: Option<u8>,
    /// Who sends: a new source begins anew.
    ssrc: Option<u32>,
    /// Decoded and not yet mixed, at the codec's rate.
    decoded: Vec<i16>,
    /// This frame at the room's rate; empty in silence.
    spoken: Vec<i16>,
    to_room: Option<Resampler>,
    from_room: Option<Resampler>,
    playing: VecDeque<(Arc<[i16]>, usize)>,
    music_at: usize,
    sequence: u16,
    timestamp: u32,
    own_ssrc: u32,
    began: bool,
}

/// A room's legs.
struct Room<P> {
    name: String,
    rate: u32,
    legs: Vec<Leg<P>>,
    recording: Option<(Recording, Option<Resampler>)>,
}

/// All rooms of a thread.
pub struct Mixing<P> {
    rooms: Vec<Room<P>>,
    sounds: Arc<Sounds>,
    sum: Sum,
    frame: Vec<i16>,
    coded: Vec<i16>,
    packet: Vec<u8>,
    buffer: Vec<u8>,
    /// Frames of recordings that were lost.
    pub lost: u64,
}

/// Numbers that a sender begins with (RFC 3550 5.1).
#[derive(Debug, Clone, Copy)]
pub struct Begin {
    /// Synchronisation source.
    pub ssrc: u32,
    /// First sequence number.
    pub sequence: u16,
    /// First timestamp.
    pub timestamp: u32,
}

impl<P: Port> Mixing<P> {
    /// No rooms yet.
    pub fn new(sounds: Arc<Sounds>) -> Self {
        Self {
            rooms: Vec::new(),
            sounds,
            sum: Sum::default(),
            frame: Vec::new(),
            coded: Vec::new(),
            packet: Vec::new(),
            buffer: vec![0; 2048],
            lost: 0,
        }
    }

    /// True without legs.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// A leg comes into a room, in silence until [`Mixing::set_voice`] says otherwise.
    pub fn insert(&mut self, room: &str, id: LegId, port: P, agreed: Agreed, begin: Begin) {
        let Some(codec) = codec::of(&agreed.codec) else { return };
        let at = match self.rooms.iter().position(|r| r.name == room) {
            Some(at) => at,
            None => {
                self.rooms.push(Room { name: room.to_owned(), rate: 8000, legs: Vec::new(), recording: None });
                self.rooms.len() - 1
            }
        };
        let Some(room) = self.rooms.get_mut(at) else { return };
        room.legs.push(Leg {
            id,
            port,
            conceal: Conceal::new(codec.rate()),
            codec,
            agreed,
            voice: Voice::default(),
            jitter: Buffer::new(Config::default()),
            talk: Talk::default(),
            digits: Receiving::new(),
            event_age: None,
            ssrc: None,
            decoded: Vec::new(),
            spoken: Vec::new(),
            to_room: None,
            from_room: None,
            playing: VecDeque::new(),
            music_at: 0,
            sequence: begin.sequence,
            timestamp: begin.timestamp,
            own_ssrc: begin.ssrc,
            began: false,
        });
        room.retune();
    }

    /// A leg goes; its room with the last one.
    pub fn remove(&mut self, id: LegId) {
        for room in &mut self.rooms {
            room.legs.retain(|leg| leg.id != id);
            room.retune();
        }
        self.rooms.retain(|room| !room.legs.is_empty());
    }

    /// SDP agreed something else.
    pub fn update(&mut self, id: LegId, agreed: Agreed) {
        let Some(room) = self.room_of(id) else { return };
        let Some(leg) = room.legs.iter_mut().find(|leg| leg.id == id) else { return };
        if agreed.codec != leg.agreed.codec
            && let Some(codec) = codec::of(&agreed.codec)
        {
            leg.conceal = Conceal::new(codec.rate());
            leg.codec = codec;
            leg.decoded.clear();
            leg.jitter = Buffer::new(Config::default());
            (leg.to_room, leg.from_room) = (None, None);
        }
        leg.agreed = agreed;
        room.retune();
    }

    /// What a leg may do and hears, from the next frame on.
    pub fn set_voice(&mut self, id: LegId, voice: Voice) {
        if let Some(leg) = self.leg(id) {
            if voice.music && !leg.voice.music {
                leg.music_at = 0;
            }
            leg.voice = voice;
        }
    }

    /// Plays a sound to one leg, after those that it hears already.
    pub fn play(&mut self, id: LegId, sound: Sound) {
        let sounds = self.sounds.clone();
        let Some(room) = self.room_of(id) else { return };
        let samples = sounds.at(sound, room.rate);
        if let Some(leg) = room.legs.iter_mut().find(|leg| leg.id == id)
            && leg.playing.len() < QUEUE
        {
            leg.playing.push_back((samples, 0));
        }
    }

    /// The room's rate, for who would record it.
    pub fn rate(&self, room: &str) -> Option<u32> {
        self.rooms.iter().find(|r| r.name == room).map(|r| r.rate)
    }

    /// Begins or ends the recording of a room.
    pub fn record(&mut self, room: &str, recording: Option<Recording>) {
        if let Some(room) = self.rooms.iter_mut().find(|r| r.name == room) {
            room.recording = recording.map(|r| (r, None));
            room.retune();
        }
    }

    fn room_of(&mut self, id: LegId) -> Option<&mut Room<P>> {
        self.rooms.iter_mut().find(|room| room.legs.iter().any(|leg| leg.id == id))
    }

    fn leg(&mut self, id: LegId) -> Option<&mut Leg<P>> {
        self.rooms.iter_mut().flat_map(|room| &mut room.legs).find(|leg| leg.id == id)
    }

    /// 20 ms went by.
    pub fn tick(&mut self, heard: &mut Vec<Heard>) {
        let Self { rooms, sounds, sum, frame, coded, packet, buffer, lost } = self;
        for room in rooms {
            let samples = (room.rate / 50) as usize;
            sum.clear(samples);
            frame.resize(samples, 0);
            for leg in &mut room.legs {
                leg.take(buffer, heard);
                leg.speak(samples, heard);
                sum.add(&leg.spoken);
            }
            for leg in &mut room.legs {
                leg.hear(sum, frame, sounds, room.rate);
                leg.send(frame, coded, packet);
            }
            if let Some((recording, resampler)) = &mut room.recording {
                sum.all(frame);
                let samples = match resampler {
                    None => frame.clone(),
                    Some(resampler) => {
                        let mut out = Vec::with_capacity(frame.len() * 2);
                        resampler.process(frame, &mut out);
                        out
                    }
                };
                *lost += u64::from(!recording.frame(samples));
            }
        }
    }
}

impl<P> Room<P> {
    /// The room mixes at the highest rate that one of its legs can hear.
    fn retune(&mut self) {
        let rate = self.legs.iter().map(|leg| leg.codec.rate()).max().unwrap_or(8000);
        let changed = std::mem::replace(&mut self.rate, rate) != rate;
        for leg in &mut self.legs {
            let own = leg.codec.rate();
            if changed || (own != rate && leg.to_room.is_none()) {
                leg.to_room = Resampler::new(own, rate);
                leg.from_room = Resampler::new(rate, own);
                // Samples of another rate would be heard at another pitch.
                if changed {
                    leg.playing.clear();
                    leg.music_at = 0;
                }
            }
        }
        if let Some((recording, resampler)) = &mut self.recording
            && (changed || resampler.is_none())
        {
            *resampler = Resampler::new(rate, recording.rate);
        }
    }
}

impl<P: Port> Leg<P> {
    /// Takes what came.
    fn take(&mut self, buffer: &mut [u8], heard: &mut Vec<Heard>) {
        for _ in 0..BURST {
            let Some((length, from)) = self.port.receive(buffer) else { break };
            let datagram = buffer.get(..length).unwrap_or_default();
            if self.agreed.source.is_some_and(|s| s.ip() != from.ip()) || kind(datagram) != Kind::Rtp {
                continue;
            }
            let Ok(packet) = Packet::parse(datagram) else { continue };
            if self.agreed.events == Some(packet.payload_type) {
                self.event_age = Some(0);
                let digit = self.digits.receive(packet.timestamp, packet.payload);
                heard.extend(digit.map(|d| Heard::Digit(self.id, d.digit)));
            } else if packet.payload_type == self.agreed.codec.payload {
                if self.ssrc.replace(packet.ssrc).is_some_and(|known| known != packet.ssrc) {
                    self.jitter = Buffer::new(Config::default());
                }
                self.jitter.push(packet.sequence, packet.payload);
            }
        }
        if let Some(age) = &mut self.event_age {
            *age += 1;
            if *age > DIGIT_LOST {
                self.event_age = None;
                heard.extend(self.digits.flush().map(|d| Heard::Digit(self.id, d.digit)));
            }
        }
    }

    /// Makes this frame's samples at the room's rate.
    fn speak(&mut self, samples: usize, heard: &mut Vec<Heard>) {
        self.spoken.clear();
        let need = (self.codec.rate() / 50) as usize;
        while self.decoded.len() < need {
            match self.jitter.pop() {
                Frame::Payload(payload) => {
                    let from = self.decoded.len();
                    self.codec.decode(&payload, &mut self.decoded);
                    if self.decoded.len() == from {
                        break;
                    }
                    self.conceal.came(self.decoded.get_mut(from..).unwrap_or_default());
                }
                Frame::Missing => self.conceal.missing(need, &mut self.decoded),
                Frame::Waiting => break,
            }
        }
        if self.decoded.is_empty() {
            heard.extend(self.talk.frame(&[]).map(|talks| Heard::Talking(self.id, talks)));
            return;
        }
        // The rest of a longer packet waits for the next frame; what is short of a frame is filled up with silence.
        if self.decoded.len() < need {
            self.decoded.resize(need, 0);
        }
        let frame = self.decoded.get(..need).unwrap_or_default();
        heard.extend(self.talk.frame(frame).map(|talks| Heard::Talking(self.id, talks)));
        if self.voice.joined && !self.voice.muted {
            match &mut self.to_room {
                None => self.spoken.extend_from_slice(frame),
                Some(resampler) => resampler.process(frame, &mut self.spoken),
            }
            self.spoken.resize(samples, 0);
            amplify(&mut self.spoken, self.voice.talk);
        }
        self.decoded.drain(..need);
    }

    /// Puts together what the leg hears.
    fn hear(&mut self, sum: &Sum, frame: &mut [i16], sounds: &Sounds, rate: u32) {
        if self.voice.joined && !self.voice.deaf {
            sum.minus(&self.spoken, frame);
            amplify(frame, self.voice.hear);
        } else {
            frame.fill(0);
        }
        if self.voice.music {
            let music = sounds.at(Sound::Music, rate);
            for sample in frame.iter_mut() {
                *sample = sample.saturating_add(music.get(self.music_at).copied().unwrap_or(0));
                self.music_at = (self.music_at + 1) % music.len().max(1);
            }
        }
        if let Some((samples, at)) = self.playing.front_mut() {
            let part = samples.get(*at..).unwrap_or_default();
            add(frame, part);
            *at += frame.len();
            if *at >= samples.len() {
                self.playing.pop_front();
            }
        }
    }

    fn send(&mut self, frame: &[i16], coded: &mut Vec<i16>, packet: &mut Vec<u8>) {
        if let Some(remote) = self.agreed.remote {
            let samples = match &mut self.from_room {
                None => frame,
                Some(resampler) => {
                    coded.clear();
                    resampler.process(frame, coded);
                    coded.as_slice()
                }
            };
            packet.clear();
            let payload_type = self.agreed.codec.payload;
            let head = Packet::new(payload_type, self.sequence, self.timestamp, self.own_ssrc, &[]);
            Packet { marker: !std::mem::replace(&mut self.began, true), ..head }.write(packet);
            self.codec.encode(samples, packet);
            self.port.send(packet, remote);
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.timestamp = self.timestamp.wrapping_add(CLOCK);
    }
}

impl<P> std::fmt::Debug for Mixing<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rooms", self.rooms.len())
    }
}

#[cfg(test)]
#[path = "mixing_tests.rs"]
mod tests;
