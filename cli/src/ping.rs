//! `kubepbx ping`: an OPTIONS probe with sipsak's exit codes, and a timeout in milliseconds.
//!
//! Exit status (sipsak(1)): 0 a 200 came; 1 another final answer came; 2 the request or its target is unusable;
//! 3 nobody answered in time.

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use rand::RngCore;
use sip::transaction::{Output, Received, Timers, Transactions};
use sip::uri::{Host, Uri};
use sip::{Message, Name, build};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Arguments of `kubepbx ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// Whom to probe: sip:HOST:PORT or sip:USER@HOST:PORT
    uri: String,
    /// Milliseconds to wait for a final answer
    #[arg(long, default_value_t = 2000)]
    timeout: u64,
    /// How often to try, one after the other, while nobody answers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    tries: u32,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
}

/// Probes and says how it went.
pub async fn run(args: PingArgs) -> ExitCode {
    let mut seen = probe(&args).await;
    for _ in 1..args.tries {
        if !matches!(seen, Ok(None)) {
            break;
        }
        seen = probe(&args).await;
    }
    match seen {
        Ok(Some((status, took))) => {
            if !args.quiet {
                println!("{status} in {:.1} ms", took.as_secs_f64() * 1000.0);
            }
            ExitCode::from(u8::from(status != 200))
        }
        Ok(None) => {
            if !args.quiet {
                let tries = if args.tries > 1 { format!(" at any of {} tries", args.tries) } else { String::new() };
                eprintln!("kubepbx ping: no answer from {} within {} ms{tries}", args.uri, args.timeout);
            }
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("kubepbx ping: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Where a URI leads: its address, or what the system's resolver says of its name.
async fn target(uri: &str) -> anyhow::Result<SocketAddr> {
    let parsed = Uri::parse(uri).with_context(|| format!("{uri} is not a SIP URI"))?;
    if !parsed.is_sip() {
        bail!("{uri}: only sip: URIs can be probed");
    }
    let port = parsed.port.unwrap_or(5060);
    Ok(match parsed.host {
        Host::V4(ip) => SocketAddr::new(IpAddr::V4(ip), port),
        Host::V6(ip) => SocketAddr::new(IpAddr::V6(ip), port),
        Host::Name(name) => tokio::net::lookup_host((name, port))
            .await
            .with_context(|| format!("{name} does not resolve"))?
            .next()
            .with_context(|| format!("{name} has no address"))?,
    })
}

async fn probe(args: &PingArgs) -> anyhow::Result<Option<(u16, Duration)>> {
    let to = target(&args.uri).await?;
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    let local = socket.local_addr()?;
    let mut rng = runtime::entropy();
    let mut token = || format!("{:016x}", rng.next_u64());
    let request = build::request("OPTIONS", &args.uri)
        .header(Name::Via, format!("SIP/2.0/UDP {local};rport;branch=z9hG4bK{}", token()))
        .header(Name::MaxForwards, "70")
        .header(Name::From, format!("<sip:ping@{local}>;tag={}", token()))
        .header(Name::To, format!("<{}>", args.uri))
        .header(Name::CallId, token())
        .header(Name::CSeq, "1 OPTIONS")
        .header(Name::Contact, format!("<sip:ping@{local}>"))
        .header(Name::UserAgent, "kubepbx-ping")
        .finish();

    let clock = runtime::Clock::new();
    let mut transactions = Transactions::new(Timers::default(), 4);
    let start = clock.now().mono;
    let end = start + Duration::from_millis(args.timeout);
    transactions.send(request, (), false, start).map_err(|_| anyhow::anyhow!("the request could not be sent"))?;
    let mut buffer = vec![0; 65_535];
    loop {
        let now = clock.now().mono;
        while let Some(output) = transactions.poll(now) {
            if let Output::Transmit { bytes, .. } = output {
                // A refusal by ICMP surfaces here or below; the next retransmission tries again.
                _ = socket.send(&bytes).await;
            }
        }
        let until = transactions.deadline().map_or(end, |d| d.min(end));
        if now >= end {
            return Ok(None);
        }
        tokio::select! {
            () = tokio::time::sleep_until(clock.instant(until)) => {}
            got = socket.recv(&mut buffer) => {
                let Ok(len) = got else { continue };
                let bytes = Bytes::copy_from_slice(&buffer[..len]);
                let Ok(message) = Message::parse(&bytes) else { continue };
                let now = clock.now().mono;
                if let Received::Response(_) = transactions.receive(&message, &bytes, (), false, now)
                    && let Some(status) = message.status().filter(|s| *s >= 200)
                {
                    return Ok(Some((status, now - start)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that answers each request with these statuses, or with none.
    async fn peer(statuses: &'static [u16]) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 2000];
            while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                let request = Message::parse(&buffer[..len]).unwrap();
                for status in statuses {
                    let answer = build::response(&request, *status, None, (*status > 100).then_some("t")).finish();
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        address
    }

    async fn ping(uri: String, timeout: u64) -> ExitCode {
        run(PingArgs { uri, timeout, tries: 1, quiet: true }).await
    }

    #[tokio::test]
    async fn the_exit_status_tells_what_came_of_it() {
        for (statuses, code) in
            [(&[200][..], 0), (&[100, 200], 0), (&[404], 1), (&[503], 1), (&[202], 1), (&[100], 3), (&[], 3)]
        {
            let to = peer(statuses).await;
            assert_eq!(
                ping(format!("sip:probe@{to}"), if code == 3 { 150 } else { 5000 }).await,
                ExitCode::from(code),
                "{statuses:?}"
            );
        }
        for unusable in ["", "127.0.0.1", "tel:+1", "sip:[::1", "sip:no-such-name.invalid"] {
            assert_eq!(ping(unusable.into(), 5000).await, ExitCode::from(2), "{unusable:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_answered_is_tried_again_and_what_was_refused_is_not() {
        for (silent, status, code) in [(1, 200, 0), (2, 200, 3), (0, 503, 1)] {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let uri = format!("sip:{}", socket.local_addr().unwrap());
            let answering = tokio::spawn(async move {
                let (mut seen, mut buffer) = (Vec::new(), vec![0; 2000]);
                while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                    let request = Message::parse(&buffer[..len]).unwrap();
                    let call = request.header(Name::CallId).unwrap().to_owned();
                    if !seen.contains(&call) {
                        seen.push(call);
                    }
                    if seen.len() > silent {
                        let answer = build::response(&request, status, None, Some("t")).finish();
                        socket.send_to(&answer, from).await.unwrap();
                    }
                }
            });
            let args = PingArgs { uri, timeout: 150, tries: 2, quiet: true };
            assert_eq!(run(args).await, ExitCode::from(code), "{silent} tries without an answer, then {status}");
            answering.abort();
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_nobody_in_time() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let before = std::time::Instant::now();
        assert_eq!(ping(format!("sip:{closed}"), 200).await, ExitCode::from(3));
        assert!(before.elapsed() >= Duration::from_millis(200));
    }
}
