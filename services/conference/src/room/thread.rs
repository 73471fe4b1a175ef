//! The thread that mixes: it has the sockets of rooms and a clock of 20 ms, takes orders between two frames, and waits
//! for nobody.

use super::mixing::{Begin, Heard, Mixing, Port, Voice};
use super::recording::Recording;
use super::sounds::{Sound, Sounds};
use crate::core::LegId;
use crate::stream::{Agreed, FRAME};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::thread;
use std::time::Instant;

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// A leg comes into a room with its socket, which does not block.
    Insert {
        /// The room.
        room: String,
        /// The leg.
        id: LegId,
        /// Its socket.
        socket: UdpSocket,
        /// What SDP agreed.
        agreed: Box<Agreed>,
        /// What its packets begin with.
        begin: Begin,
    },
    /// SDP agreed something else.
    Update(LegId, Box<Agreed>),
    /// The leg goes; its socket is closed.
    Remove(LegId),
    /// What it may do and hears.
    Voice(LegId, Voice),
    /// It hears a sound.
    Play(LegId, Sound),
    /// A room is recorded from now (Unix seconds) on, or no longer.
    Record(String, Option<u64>),
}

/// The thread's handle. Dropping it ends the thread and closes all sockets.
#[derive(Debug, Clone)]
pub struct Mixer(Sender<Order>);

/// Sockets that the kernel had nothing for say so by an error.
struct Socket(UdpSocket);

impl Port for Socket {
    fn receive(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            match self.0.recv_from(buffer) {
                Ok(got) => return Some(got),
                // What an ICMP error says of a packet of ours is no end: there may be more.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
        }
    }

    fn send(&mut self, packet: &[u8], to: SocketAddr) {
        if let Err(error) = self.0.send_to(packet, to) {
            tracing::trace!(%error, "not sent");
        }
    }
}

impl Mixer {
    /// Starts a thread. `heard` is called on it for keys and talk, and must not block.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(sounds: Arc<Sounds>, recordings: PathBuf, heard: impl Fn(Heard) + Send + 'static) -> io::Result<Self> {
        let (tell, orders) = channel();
        thread::Builder::new().name("mixer".into()).spawn(move || run(sounds, recordings, &orders, heard))?;
        Ok(Self(tell))
    }

    /// Tells the thread something; false when it is gone.
    pub fn tell(&self, order: Order) -> bool {
        !matches!(self.0.send(order), Err(SendError(_)))
    }
}

fn run(sounds: Arc<Sounds>, recordings: PathBuf, orders: &Receiver<Order>, tell: impl Fn(Heard)) {
    let mut mixing = Mixing::new(sounds);
    let mut heard = Vec::new();
    let mut next = Instant::now();
    let mut lost = 0;
    loop {
        // Without legs there is no clock.
        let order = if mixing.is_empty() {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            orders.recv_timeout(next.saturating_duration_since(Instant::now()))
        };
        match order {
            Ok(order) => {
                if mixing.is_empty() {
                    next = Instant::now();
                }
                obey(&mut mixing, order, &recordings);
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                mixing.tick(&mut heard);
                heard.drain(..).for_each(&tell);
                if mixing.lost > lost {
                    tracing::warn!(frames = mixing.lost - lost, "the disk is too slow for a recording");
                    lost = mixing.lost;
                }
                next += FRAME;
                // After a standstill the time that is over is not made up for: peers' buffers are empty anyway.
                let now = Instant::now();
                if next + 10 * FRAME < now {
                    next = now;
                }
            }
        }
    }
}

fn obey(mixing: &mut Mixing<Socket>, order: Order, recordings: &std::path::Path) {
    match order {
        Order::Insert { room, id, socket, agreed, begin } => mixing.insert(&room, id, Socket(socket), *agreed, begin),
        Order::Update(id, agreed) => mixing.update(id, *agreed),
        Order::Remove(id) => mixing.remove(id),
        Order::Voice(id, voice) => mixing.set_voice(id, voice),
        Order::Play(id, sound) => mixing.play(id, sound),
        Order::Record(room, None) => mixing.record(&room, None),
        Order::Record(room, Some(unix)) => {
            let rate = mixing.rate(&room).unwrap_or(8000);
            match Recording::start(recordings, &room, unix, rate) {
                Ok(recording) => mixing.record(&room, Some(recording)),
                Err(error) => tracing::error!(room, %error, "not recorded"),
            }
        }
    }
}
