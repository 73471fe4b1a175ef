//! Damaged messages in the middle of calls: nothing panics, nothing is left, and sound calls go on.

use super::lab::*;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A message with a few bytes changed, cut or doubled.
fn damaged(bytes: &Bytes, rng: &mut StdRng) -> Bytes {
    let mut out = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..out.len());
        match rng.random_range(0..5) {
            0 => out[at] = rng.random(),
            1 => out[at] ^= 1 << rng.random_range(0..7),
            2 => drop(out.drain(at..(at + rng.random_range(1..20)).min(out.len()))),
            3 => out.splice(at..at, b"\r\n;=99999999999".iter().copied().take(rng.random_range(1..14))).for_each(drop),
            _ => {
                let end = (at + rng.random_range(1..40)).min(out.len());
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece).for_each(drop);
            }
        }
        if out.is_empty() {
            out.push(b' ');
        }
    }
    out.into()
}

#[test]
fn damaged_messages_harm_nobody() {
    let mut rng = StdRng::seed_from_u64(11);
    let mut read = 0;
    for _ in 0..150 {
        let mut lab = Lab::new();
        lab.register("8006");
        // What a whole call consists of, with a change and an end.
        let mut seen: Vec<Bytes> = Vec::new();
        let mut a = lab.call("8005", "8006");
        let invite = lab.request("INVITE");
        let b = lab.callee(&invite);
        seen.push(lab.answer(&b, &invite, 183, Some(&sdp(5000, "0"))));
        for _ in 0..20 {
            let bad = damaged(&seen[rng.random_range(0..seen.len())], &mut rng);
            read += u32::from(sip::Message::parse_stream(&bad).is_ok());
            lab.receive(bad);
        }
        seen.push(lab.answer(&b, &invite, 200, Some(&sdp(5000, "0"))));
        if let Some(ok) = lab.take_if(|m| m.status() == Some(200)) {
            Lab::joined(&mut a, &ok);
            seen.push(lab.within(&mut a, "ACK", None));
            seen.push(lab.within(&mut a, "INVITE", Some(("application/sdp", &sdp(4002, "8 101")))));
            seen.push(lab.within(&mut a, "INFO", Some(("text/plain", "x"))));
            seen.push(lab.within(&mut a, "UPDATE", None));
        }
        for _ in 0..40 {
            let bad = damaged(&seen[rng.random_range(0..seen.len())], &mut rng);
            lab.receive(bad);
        }
        let whole = lab.wire.drain(..).map(|(_, bytes)| bytes).collect::<Vec<_>>();
        for bytes in whole {
            let bad = damaged(&bytes, &mut rng);
            lab.receive(bad);
        }
        lab.within(&mut a, "BYE", None);
        lab.seconds(1900);
        lab.wire.clear();
        lab.empty();
    }
    assert!(read > 500, "{read}: most of what was damaged still reads as a message");
}
