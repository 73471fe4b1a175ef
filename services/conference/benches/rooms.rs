//! A leg's 20 ms in a room beside its floor, decoding, summing and encoding alone, in the same run.
//!
//! All legs send G.711 over sockets on loopback, as in a call. The thread that mixes runs one frame after the other; a
//! second thread is all the phones. Printed: CPU microseconds of the mixing thread a leg and frame, and the ratio.

#![allow(clippy::expect_used)] // A bench that cannot set itself up has nothing to say but that.

use conference::core::LegId;
use conference::room::Voice;
use conference::room::mixing::{Begin, Mixing, Port};
use conference::room::sounds::Sounds;
use conference::stream::Agreed;
use rtp::g711::Law;
use rtp::mix::Sum;
use rtp::packet::Sender;
use rtp::sdp::Codec;
use rtp::tone::Generator;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Duration;

const LEGS: usize = 150;
const FRAMES: usize = 500;

struct Line(UdpSocket);

impl Port for Line {
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.0.recv_from(buffer).ok()
    }

    fn send(&mut self, packet: &[u8], to: SocketAddr) {
        let _ = self.0.send_to(packet, to);
    }
}

/// CPU time of the calling thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn each(time: Duration, frames: usize) -> f64 {
    time.as_secs_f64() * 1e6 / (LEGS * frames) as f64
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_nonblocking(true).expect("nonblocking");
    socket
}

fn voice(leg: usize) -> Vec<u8> {
    Law::Mu.encode(&Generator::new(&[300.0 + 10.0 * leg as f64], 8000, 3000).samples(160))
}

/// Microseconds a leg-frame in rooms of `size` legs.
fn rooms(size: usize) -> f64 {
    let sounds = Arc::new(Sounds::load(Path::new("/nowhere")).expect("sounds"));
    let mut mixing = Mixing::new(sounds);
    let mut phones = Vec::new();
    for leg in 0..LEGS {
        let (phone, line) = (socket(), socket());
        let at = line.local_addr().expect("address");
        let peer = phone.local_addr().ok();
        let agreed =
            Agreed { codec: Codec::ulaw(), events: Some(101), accepted: vec![0, 101], remote: peer, source: peer };
        let id = LegId(leg as u64 + 1);
        let begin = Begin { ssrc: 1, sequence: 1, timestamp: 1 };
        mixing.insert(&(leg / size).to_string(), id, Line(line), agreed, begin);
        mixing.set_voice(id, Voice { joined: true, ..Voice::default() });
        phones.push((phone, at, Sender::new(leg as u32, 1, 1), voice(leg)));
    }
    let barrier = Arc::new(Barrier::new(2));
    let turns = barrier.clone();
    let mixer = std::thread::spawn(move || {
        let mut heard = Vec::new();
        let mut before = Duration::ZERO;
        for frame in 0..FRAMES + 50 {
            if frame == 50 {
                before = cpu();
            }
            turns.wait();
            mixing.tick(&mut heard);
            heard.clear();
            turns.wait();
        }
        cpu() - before
    });
    let mut buffer = [0; 2048];
    let mut come = 0;
    for _ in 0..FRAMES + 50 {
        for (phone, at, sender, payload) in &mut phones {
            phone.send_to(&sender.next(0, payload, 160), *at).expect("send");
        }
        barrier.wait();
        barrier.wait();
        for (phone, ..) in &phones {
            while phone.recv_from(&mut buffer).is_ok() {
                come += 1;
            }
        }
    }
    let time = mixer.join().expect("mixer");
    assert_eq!(come, LEGS * (FRAMES + 50), "each phone hears each frame");
    each(time, FRAMES)
}

/// Microseconds a leg-frame of decoding, summing, taking one's own out and encoding, and nothing else.
fn floor(size: usize) -> f64 {
    let payloads: Vec<Vec<u8>> = (0..LEGS).map(voice).collect();
    let mut frames = vec![Vec::with_capacity(160); LEGS];
    let (mut sum, mut out, mut packet) = (Sum::default(), vec![0; 160], Vec::with_capacity(160));
    let mut law = Law::Mu;
    std::thread::spawn(move || {
        let before = cpu();
        for _ in 0..FRAMES * 4 {
            for (payloads, frames) in payloads.chunks(size).zip(frames.chunks_mut(size)) {
                sum.clear(160);
                for (payload, frame) in payloads.iter().zip(frames.iter_mut()) {
                    frame.clear();
                    rtp::codec::Codec::decode(&mut law, std::hint::black_box(payload), frame);
                    sum.add(frame);
                }
                for frame in frames.iter() {
                    sum.minus(frame, &mut out);
                    packet.clear();
                    rtp::codec::Codec::encode(&mut law, &out, &mut packet);
                    std::hint::black_box(&packet);
                }
            }
        }
        each(cpu() - before, FRAMES * 4)
    })
    .join()
    .expect("floor")
}

fn main() {
    // `cargo test` builds and runs benches too; one short look is enough there.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    println!("{LEGS} G.711 legs, all sending, over sockets on loopback; the best of three rounds");
    for (size, goal) in [(3, 10.0), (50, 7.0)] {
        let best = |f: fn(usize) -> f64| (0..3).map(|_| f(size)).min_by(f64::total_cmp).unwrap_or_default();
        let (bare, ours) = (best(floor), best(rooms));
        println!("rooms of {size}: {ours:.2} us a leg-frame (goal {goal}), {:.0} legs a core", 20_000.0 / ours);
        println!("  floor of decode + sum + encode: {bare:.2} us; ratio {:.1}", ours / bare);
    }
}
