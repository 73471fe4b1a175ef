//! Rooms of tones in virtual time: ports are queues.

use super::*;
use rtp::dtmf::Sending;
use rtp::packet::Sender;
use rtp::sdp;
use rtp::tone::{Generator, goertzel, strongest};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

const PEER: &str = "127.0.0.1:4000";

/// Datagrams to the room and from it.
#[derive(Clone, Default)]
struct Line(Rc<RefCell<(VecDeque<Vec<u8>>, Vec<Vec<u8>>)>>);

impl Port for Line {
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let datagram = self.0.borrow_mut().0.pop_front()?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Some((datagram.len(), PEER.parse().unwrap()))
    }

    fn send(&mut self, packet: &[u8], to: SocketAddr) {
        assert_eq!(to, PEER.parse().unwrap());
        self.0.borrow_mut().1.push(packet.to_vec());
    }
}

/// A phone with a tone.
struct Phone {
    id: LegId,
    line: Line,
    tone: Generator,
    codec: Box<dyn Codec>,
    payload_type: u8,
    sender: Sender,
}

struct World {
    mixing: Mixing<Line>,
    phones: Vec<Phone>,
    heard: Vec<Heard>,
}

fn agreed(codec: &sdp::Codec) -> Agreed {
    let peer = PEER.parse().unwrap();
    Agreed {
        accepted: vec![codec.payload, 101],
        codec: codec.clone(),
        events: Some(101),
        remote: Some(peer),
        source: Some(peer),
    }
}

impl World {
    fn new() -> Self {
        Self {
            mixing: Mixing::new(Arc::new(Sounds::load(Path::new("/nowhere")).unwrap())),
            phones: vec![],
            heard: vec![],
        }
    }

    fn join(&mut self, codec: &sdp::Codec, hz: f64) -> LegId {
        let (id, line) = (LegId(self.phones.len() as u64 + 1), Line::default());
        let begin = Begin { ssrc: 7, sequence: 65_534, timestamp: u32::MAX - 200 };
        self.mixing.insert("100", id, line.clone(), agreed(codec), begin);
        self.voice(id, |_| {});
        let speaks = codec::of(codec).unwrap();
        let tone = Generator::new(&[hz], speaks.rate(), 8000);
        let sender = Sender::new(id.0 as u32, 1, 1);
        self.phones.push(Phone { id, line, tone, codec: speaks, payload_type: codec.payload, sender });
        id
    }

    fn voice(&mut self, id: LegId, change: impl Fn(&mut Voice)) {
        let mut voice = Voice { joined: true, ..Voice::default() };
        change(&mut voice);
        self.mixing.set_voice(id, voice);
    }

    /// All phones say their tones for so many frames; `lost` says which packet of which phone does not come.
    fn run(&mut self, frames: usize, lost: impl Fn(LegId, usize) -> bool) {
        for n in 0..frames {
            for phone in &mut self.phones {
                let mut payload = Vec::new();
                let samples = phone.tone.samples(phone.codec.rate() as usize / 50);
                phone.codec.encode(&samples, &mut payload);
                let packet = phone.sender.next(phone.payload_type, &payload, 160);
                if !lost(phone.id, n) {
                    phone.line.0.borrow_mut().0.push_back(packet);
                }
            }
            self.mixing.tick(&mut self.heard);
        }
    }

    /// What a phone heard since last asked, and that its packets were in order.
    fn recording(&mut self, at: usize) -> (Vec<i16>, u32) {
        let phone = &mut self.phones[at];
        let (mut samples, mut last) = (Vec::new(), None::<(u16, u32)>);
        for packet in std::mem::take(&mut phone.line.0.borrow_mut().1) {
            let packet = Packet::parse(&packet).unwrap();
            assert_eq!(packet.payload_type, phone.payload_type);
            if let Some((sequence, timestamp)) = last {
                assert_eq!(
                    (packet.sequence, packet.timestamp),
                    (sequence.wrapping_add(1), timestamp.wrapping_add(160))
                );
            }
            last = Some((packet.sequence, packet.timestamp));
            phone.codec.decode(packet.payload, &mut samples);
        }
        (samples, phone.codec.rate())
    }
}

fn share(heard: &(Vec<i16>, u32), hz: f64) -> f64 {
    goertzel(&heard.0[heard.0.len() / 4..], heard.1, hz)
}

#[test]
fn each_is_heard_by_the_others_and_not_by_itself_whatever_its_codec() {
    let mut world = World::new();
    let g722 = sdp::Codec::new(9, "G722", 8000, 1);
    for (codec, hz) in [(sdp::Codec::ulaw(), 440.0), (sdp::Codec::alaw(), 880.0), (g722, 1320.0)] {
        world.join(&codec, hz);
    }
    world.run(200, |_, _| false);
    for at in 0..3 {
        let heard = world.recording(at);
        assert_eq!(heard.0.len(), 200 * heard.1 as usize / 50);
        for (other, hz) in [440.0, 880.0, 1320.0].into_iter().enumerate() {
            let share = share(&heard, hz);
            assert!(if other == at { share < 0.001 } else { share > 0.4 }, "{at} {hz}: {share}");
        }
    }
    let talkers: Vec<_> = world.heard.iter().filter(|h| matches!(h, Heard::Talking(_, true))).collect();
    assert_eq!(talkers.len(), 3, "{:?}", world.heard);
}

#[test]
fn wide_sound_goes_between_wide_legs_and_not_to_narrow_ones() {
    let mut world = World::new();
    let g722 = sdp::Codec::new(9, "G722", 8000, 1);
    world.join(&sdp::Codec::ulaw(), 440.0);
    world.join(&g722, 5000.0);
    world.join(&g722, 700.0);
    world.run(150, |_, _| false);
    let (narrow, wide) = (world.recording(0), world.recording(2));
    assert!(share(&wide, 5000.0) > 0.4 && share(&wide, 440.0) > 0.4);
    // 5,000 Hz would fold to 3,000.
    assert!(share(&narrow, 3000.0) < 0.001 && share(&narrow, 700.0) > 0.9);
    // The wide legs go: the room is narrow again, and the one that is left hears nothing.
    world.mixing.remove(LegId(2));
    world.mixing.remove(LegId(3));
    assert_eq!(world.mixing.rate("100"), Some(8000));
    world.phones.truncate(1);
    world.run(50, |_, _| false);
    assert!(world.recording(0).0.iter().all(|s| *s == 0));
    world.mixing.remove(LegId(1));
    assert!(world.mixing.is_empty());
}

#[test]
fn muted_deaf_and_waiting_legs() {
    let mut world = World::new();
    let ids = [440.0, 880.0, 1320.0].map(|hz| world.join(&sdp::Codec::ulaw(), hz));
    world.voice(ids[0], |v| v.muted = true);
    world.voice(ids[1], |v| v.deaf = true);
    world.run(100, |_, _| false);
    assert!(world.recording(1).0.iter().all(|s| *s == 0));
    let third = world.recording(2);
    assert!(share(&third, 440.0) < 0.001 && share(&third, 880.0) > 0.95);
    world.voice(ids[1], |v| v.joined = false);
    world.run(100, |_, _| false);
    assert!(world.recording(1).0.iter().chain(&world.recording(2).0[1600..]).all(|s| *s == 0));
}

#[test]
fn lost_packets_are_concealed_and_a_new_source_is_followed() {
    let mut world = World::new();
    let (a, _) = (world.join(&sdp::Codec::ulaw(), 500.0), world.join(&sdp::Codec::ulaw(), 900.0));
    world.run(200, |id, n| id == a && n % 10 == 5);
    let tone = strongest(&world.recording(1).0[3200..], 8000).unwrap();
    assert!((tone.hz - 500.0).abs() < 3.0 && tone.share > 0.95, "{tone:?}");
    world.phones[0].sender = Sender::new(99, 40_000, 77);
    world.run(100, |_, _| false);
    assert!(share(&world.recording(1), 500.0) > 0.95);
}

#[test]
fn keys_are_told_once_and_not_heard() {
    let mut world = World::new();
    let a = world.join(&sdp::Codec::ulaw(), 500.0);
    world.join(&sdp::Codec::ulaw(), 900.0);
    let mut sender = Sender::new(1, 1000, 50_000);
    for (digit, lost_end) in [('*', false), ('1', true)] {
        let mut sending = Sending::new(digit, 800, 160).unwrap();
        let timestamp = sender.timestamp;
        for n in 0.. {
            let Some((payload, _)) = sending.next_payload() else { break };
            let packet = Packet::new(101, sender.sequence, timestamp, 1, &payload).to_vec();
            sender.sequence += 1;
            if !(lost_end && n >= 3) {
                world.phones[0].line.0.borrow_mut().0.push_back(packet);
            }
            world.mixing.tick(&mut world.heard);
        }
        sender.timestamp += 4000;
        (0..10).for_each(|_| world.mixing.tick(&mut world.heard));
    }
    let digits: Vec<_> = world.heard.iter().filter(|h| matches!(h, Heard::Digit(..))).collect();
    assert_eq!(digits, [&Heard::Digit(a, '*'), &Heard::Digit(a, '1')]);
}

#[test]
fn sounds_and_music_are_for_one_leg() {
    let mut world = World::new();
    let a = world.join(&sdp::Codec::ulaw(), 500.0);
    world.join(&sdp::Codec::ulaw(), 500.0);
    world.phones.iter_mut().for_each(|p| p.tone = Generator::new(&[500.0], 8000, 0));
    world.mixing.play(a, Sound::Join);
    world.run(12, |_, _| false);
    assert!(share(&world.recording(0), 990.0) > 0.4);
    assert!(world.recording(1).0.iter().all(|s| *s == 0));
    world.voice(a, |v| v.music = true);
    world.run(25, |_, _| false);
    assert!(share(&world.recording(0), 262.0) > 0.9);
}
