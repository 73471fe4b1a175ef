//! What the wire path costs: parse with a balancer's keys, parse with a proxy's edits. Each is printed as a ratio to a
//! floor of the same run: `httparse::parse_headers` over the same header block.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use sip::edit::Edit;
use sip::transaction::{Received, Timers, Transactions};
use sip::{Message, Name};

const INVITE: &[u8] = include_bytes!("../tests/messages/invite-1044.dat");
const VIA: &str = "SIP/2.0/UDP 203.0.113.5:5060;branch=z9hG4bKb7d31f09a2c4";

/// The header lines without the start line.
fn header_block() -> &'static [u8] {
    let start = INVITE.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
    &INVITE[start..]
}

/// What a balancer decides by.
fn keys(message: &Message<'_>) -> usize {
    let Ok(via) = message.via() else { return 0 };
    let tag = |a: Result<sip::header::NameAddr<'_>, _>| a.ok().and_then(|a| a.tag()).map_or(0, str::len);
    via.branch().map_or(0, str::len)
        + via.sent_by.len()
        + message.call_id().map_or(0, str::len)
        + message.cseq().map_or(0, |c| c.number as usize)
        + tag(message.from())
        + tag(message.to())
        + message.max_forwards().and_then(Result::ok).map_or(0, usize::from)
        + message.values(Name::Route).next().map_or(0, str::len)
        + message.uri().map_or(0, str::len)
}

fn wire(c: &mut Criterion) {
    assert_eq!(INVITE.len(), 1044);
    let mut group = c.benchmark_group("wire");
    group.bench_function("floor: httparse headers", |b| {
        b.iter(|| {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            black_box(httparse::parse_headers(black_box(header_block()), &mut headers).is_ok())
        });
    });
    group.bench_function("parse", |b| {
        b.iter(|| black_box(Message::parse(black_box(INVITE)).is_ok()));
    });
    group.bench_function("parse + keys", |b| {
        b.iter(|| Message::parse(black_box(INVITE)).map_or(0, |m| black_box(keys(&m))));
    });
    group.bench_function("parse + validate", |b| {
        b.iter(|| Message::parse(black_box(INVITE)).map_or(0, |m| usize::from(black_box(m.validate()).is_ok())));
    });
    let mut out = Vec::with_capacity(4096);
    group.bench_function("parse + Via + Max-Forwards", |b| {
        b.iter(|| {
            out.clear();
            if let Ok(message) = Message::parse(black_box(INVITE)) {
                let hops = message.max_forwards().and_then(Result::ok).unwrap_or(70);
                let mut edit = Edit::new(&message);
                edit.insert_top(Name::Via, VIA).replace_number(Name::MaxForwards, u64::from(hops).saturating_sub(1));
                edit.write(&mut out);
            }
            black_box(out.len())
        });
    });
    group.finish();
}

/// A whole server transaction: a request parsed and received, its answer sent, the transaction gone.
fn transaction(c: &mut Criterion) {
    let text =
        String::from_utf8_lossy(INVITE).replace("INVITE sip", "OPTIONS sip").replace("21774 INVITE", "21774 OPTIONS");
    let bytes = Bytes::from(text);
    let Ok(request) = Message::parse(&bytes) else { return };
    let answer = sip::build::response(&request, 200, None, Some("t")).finish();
    let mut layer = Transactions::new(Timers::default(), 1024);
    let mut now = Duration::ZERO;
    c.benchmark_group("wire").bench_function("transaction", |b| {
        b.iter(|| {
            now += Duration::from_millis(1);
            let Ok(message) = Message::parse(black_box(&bytes)) else { return };
            if let Received::Request(id) = layer.receive(&message, &bytes, 0u32, true, now) {
                layer.respond(id, answer.clone(), now);
            }
            while let Some(output) = layer.poll(now) {
                black_box(output);
            }
        });
    });
    assert!(layer.is_empty(), "a transaction over a reliable transport ends with its answer");
}

/// Prints each mean as a ratio to the floor.
fn ratios(_: &mut Criterion) {
    let folder = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    let mean = |name: &str| -> Option<f64> {
        let dirs = [format!("{folder}/criterion/wire"), format!("../../{folder}/criterion/wire")];
        let text = dirs.iter().find_map(|d| std::fs::read_to_string(format!("{d}/{name}/new/estimates.json")).ok())?;
        let at = text.find("\"point_estimate\":")? + "\"point_estimate\":".len();
        text[at..].split([',', '}']).next()?.trim().parse().ok()
    };
    let Some(floor) = mean("floor_ httparse headers") else { return println!("no estimates were kept") };
    for name in ["parse", "parse + keys", "parse + validate", "parse + Via + Max-Forwards", "transaction"] {
        if let Some(ns) = mean(name) {
            println!("{name}: {ns:.0} ns, {:.2} of the floor ({floor:.0} ns)", ns / floor);
        }
    }
}

criterion_group!(benches, wire, transaction, ratios);
criterion_main!(benches);
