//! OPTIONS from where phones live, all the while: for how long an address did not answer.

use crate::cluster::Cluster;
use anyhow::{Result, anyhow, ensure};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request each so often.
const PERIOD: Duration = Duration::from_millis(50);

/// A probe that runs until it is asked what it saw.
#[derive(Debug)]
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Seen>>,
}

/// What a probe saw.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Answers with status 200.
    pub answers: u64,
    /// The longest time from one answer to the next, or to the end.
    pub gap: Duration,
}

impl Probe {
    /// Begins to probe a SIP server over UDP.
    pub fn begin(cluster: &Cluster, server: SocketAddr) -> Result<Self> {
        let local = cluster.phones;
        let socket = cluster.outside(|| Ok(UdpSocket::bind((local, 0))?))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PERIOD))?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = std::thread::spawn(move || probe(&socket, server, &until));
        Ok(Self { stop, thread })
    }

    /// Ends it. Fails if nothing was answered at all.
    pub fn end(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.thread.join().map_err(|_| anyhow!("the probe panicked"))??;
        ensure!(seen.answers > 0, "nobody answered OPTIONS");
        Ok(seen)
    }
}

fn probe(socket: &UdpSocket, server: SocketAddr, stop: &AtomicBool) -> std::io::Result<Seen> {
    let local = socket.local_addr()?;
    let (mut seen, mut last, mut next) = (Seen::default(), Instant::now(), Instant::now());
    let mut buffer = [0; 2048];
    for n in 1_u64.. {
        let request = format!(
            "OPTIONS sip:{server} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK-{n};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:probe@{local}>;tag={n}\r\nTo: <sip:{server}>\r\nCall-ID: {n}@{local}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n"
        );
        // Where nobody has the address it cannot even be sent.
        let sent = socket.send(request.as_bytes());
        next += PERIOD;
        while sent.is_ok() && Instant::now() < next {
            match socket.recv(&mut buffer) {
                Ok(length) if buffer[..length].starts_with(b"SIP/2.0 200") => {
                    (seen.answers, seen.gap) = (seen.answers + 1, seen.gap.max(last.elapsed()));
                    last = Instant::now();
                }
                Ok(_) | Err(_) => {}
            }
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    seen.gap = seen.gap.max(last.elapsed());
    Ok(seen)
}
