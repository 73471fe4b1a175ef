//! A packet through the relay beside one through a bare recv/send loop, in the same run.
//!
//! Both run in one thread of their own on loopback; the generator keeps a window of packets under way and counts what
//! comes back. Printed: microseconds a packet of CPU time of the forwarding thread, and the ratio of the two.

#![allow(clippy::expect_used)] // A bench that cannot set itself up has nothing to say but that.

use contract::ng::{Command, Description, Reply};
use rtp::sdp::{Codec, Session};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PACKETS: u32 = 200_000;
const WINDOW: u32 = 32;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    socket
}

/// CPU time (user and system) of the thread named `name` of this process, in clock ticks of 10 ms.
fn cpu(name: &str) -> Duration {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("tasks").flatten() {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        if let Some((head, rest)) = stat.rsplit_once(") ")
            && head.contains(name)
        {
            let fields: Vec<&str> = rest.split(' ').collect();
            let field = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            ticks += field(11) + field(12);
        }
    }
    Duration::from_millis(ticks * 10)
}

/// Sends through `to` and receives at `b`; wall time and CPU time a packet in microseconds.
fn measure(a: &UdpSocket, b: &UdpSocket, to: SocketAddr, thread: &str) -> (f64, f64) {
    let payload = rtp::packet::Packet::new(0, 1, 160, 7, &[0xff; 160]).to_vec();
    let mut buffer = [0; 2048];
    let mut run = |count: u32| {
        let (mut sent, mut got) = (0, 0);
        while got < count {
            while sent < count && sent - got < WINDOW {
                a.send_to(&payload, to).expect("send");
                sent += 1;
            }
            match b.recv_from(&mut buffer) {
                Ok(_) => got += 1,
                // Lost on loopback: count it as come.
                Err(_) => got = sent,
            }
        }
    };
    run(PACKETS / 10);
    let (start, before) = (Instant::now(), cpu(thread));
    run(PACKETS);
    let each = |d: Duration| d.as_secs_f64() * 1e6 / f64::from(PACKETS);
    (each(start.elapsed()), each(cpu(thread) - before))
}

fn floor() -> (f64, f64) {
    let (a, b, relay) = (socket(), socket(), socket());
    let (to, at) = (b.local_addr().expect("address"), relay.local_addr().expect("address"));
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let thread = std::thread::Builder::new().name("bare-loop".to_owned()).spawn(move || {
        let mut buffer = [0; 2048];
        while !seen.load(Ordering::Relaxed) {
            if let Ok((n, _)) = relay.recv_from(&mut buffer) {
                let _ = relay.send_to(&buffer[..n], to);
            }
        }
    });
    let result = measure(&a, &b, at, "bare-loop");
    stop.store(true, Ordering::Relaxed);
    thread.expect("thread").join().expect("join");
    result
}

fn relay() -> (f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let config = media::Config {
            rtp_address: "127.0.0.1".parse().expect("address"),
            ports: 25000..=25099,
            threads: 1,
            ..media::Config::default()
        };
        let relay = media::build(config).await.expect("relay");
        let (a, b) = (socket(), socket());
        let describe = |s: &UdpSocket| {
            let sdp = rtp::sdp::offer(s.local_addr().expect("address"), &[Codec::ulaw()], 1, 1).to_vec();
            Description::new("bench", "a", Some("b"), sdp)
        };
        relay.handle.request(Command::Offer(describe(&a))).await;
        let Reply::Sdp(sdp) = relay.handle.request(Command::Answer(describe(&b))).await else { return (0.0, 0.0) };
        let to = Session::parse(&sdp).ok().and_then(|s| s.rtp_address(0)).expect("answer");
        let result = measure(&a, &b, to, "media-0");
        relay.shutdown().await;
        result
    })
}

fn main() {
    // `cargo test` builds and runs benches too; one short look is enough there.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    println!("packets of 172 bytes on loopback, {WINDOW} under way; the best of three rounds");
    let best = |f: fn() -> (f64, f64)| (0..3).map(|_| f()).min_by(|x, y| x.1.total_cmp(&y.1)).unwrap_or_default();
    let (bare, ours) = (best(floor), best(relay));
    println!("bare recv/send: {:.2} us CPU a packet, {:.2} us wall", bare.1, bare.0);
    println!("relay:          {:.2} us CPU a packet, {:.2} us wall", ours.1, ours.0);
    println!("ratio relay/bare: {:.2} (CPU of the forwarding thread), {:.2} (wall)", ours.1 / bare.1, ours.0 / bare.0);
}
