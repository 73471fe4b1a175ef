//! A bad network between phones and the PBX: a UDP forwarder that loses, doubles and delays, from a seed.

use anyhow::Result;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How bad it is, in hundredths of all datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Badness {
    /// Lost.
    pub lost: u64,
    /// Doubled.
    pub doubled: u64,
    /// Held back for 5 to 60 ms, so that later ones overtake them.
    pub late: u64,
}

/// A forwarder that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Forwarder {
    /// What phones take for the PBX.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Forwards between phones and `pbx`; each phone has a port of its own towards the PBX.
    pub fn start(pbx: SocketAddr, badness: Badness, seed: u64) -> Result<Self> {
        let front = UdpSocket::bind("127.0.0.1:0")?;
        front.set_nonblocking(true)?;
        let address = front.local_addr()?;
        let (stop, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut network = Network {
            front,
            pbx,
            badness,
            random: seed | 1,
            clients: Vec::new(),
            held: Vec::new(),
            lost: lost.clone(),
        };
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !network.turn() {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            }
        });
        Ok(Self { address, stop, lost, thread: Some(thread) })
    }

    /// How many datagrams it has lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it would have failed the calls.
            _ = thread.join();
        }
    }
}

#[derive(Clone, Copy)]
enum Way {
    ToPbx(usize),
    ToPhone(usize),
}

struct Network {
    front: UdpSocket,
    pbx: SocketAddr,
    badness: Badness,
    random: u64,
    clients: Vec<(SocketAddr, UdpSocket)>,
    held: Vec<(Instant, Way, Vec<u8>)>,
    lost: Arc<AtomicU64>,
}

impl Network {
    /// A number below `n`, by xorshift.
    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    /// One look at all sockets; false if nothing was there.
    fn turn(&mut self) -> bool {
        let mut buffer = [0; 65_535];
        let mut any = false;
        while let Ok((length, from)) = self.front.recv_from(&mut buffer) {
            any = true;
            let known = self.clients.iter().position(|(address, _)| *address == from);
            let client = known.or_else(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").ok()?;
                socket.set_nonblocking(true).ok()?;
                self.clients.push((from, socket));
                Some(self.clients.len() - 1)
            });
            if let Some(client) = client {
                self.pass(Way::ToPbx(client), &buffer[..length]);
            }
        }
        for client in 0..self.clients.len() {
            while let Ok((length, _)) = self.clients[client].1.recv_from(&mut buffer) {
                any = true;
                self.pass(Way::ToPhone(client), &buffer[..length]);
            }
        }
        let now = Instant::now();
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|(at, ..)| *at <= now);
        self.held = held;
        let due: Vec<(Instant, Way, Vec<u8>)> = due;
        due.iter().for_each(|(_, way, bytes)| self.send(*way, bytes));
        any
    }

    fn pass(&mut self, way: Way, bytes: &[u8]) {
        if self.below(100) < self.badness.lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let copies = if self.below(100) < self.badness.doubled { 2 } else { 1 };
        for _ in 0..copies {
            if self.below(100) < self.badness.late {
                let at = Instant::now() + Duration::from_millis(5 + self.below(56));
                self.held.push((at, way, bytes.to_vec()));
            } else {
                self.send(way, bytes);
            }
        }
    }

    fn send(&self, way: Way, bytes: &[u8]) {
        // What cannot be sent is lost: this is a bad network.
        _ = match way {
            Way::ToPbx(client) => self.clients[client].1.send_to(bytes, self.pbx),
            Way::ToPhone(client) => self.front.send_to(bytes, self.clients[client].0),
        };
    }
}
