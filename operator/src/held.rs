//! What the compiler holds, as Secrets keep it for the next leader: JSON, compressed, cut into parts that a Secret can take.
//!
//! All parts of one writing carry its number. A writer makes the parts of the next number and only then deletes those
//! before it, so that whoever reads finds one writing whole, whenever the writer was cut off.

use anyhow::{Context, ensure};
use api::Held;
use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

/// The label of the Secrets, with value `held`.
pub const LABEL: &str = "kubepbx.io/state";

/// The schema number of what is written; a reader takes its own and the one before.
const SCHEMA: u32 = 1;

/// Bytes a part: with its envelope, and base64 on its way, within what the API server takes.
const PART: usize = 700 * 1024;

/// Parts, and bytes when decompressed, that are read at most.
const MAX_PARTS: usize = 64;
const MAX_HELD: u64 = 256 * 1024 * 1024;

/// One Secret. Printing shows its name alone: hashes of passwords stand in it.
#[derive(Clone, PartialEq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// What stands in it.
    pub data: BTreeMap<String, ByteString>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({})", self.name)
    }
}

/// What a reader found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// The number of the writing; the next one is higher. 0: there is none.
    pub number: u64,
    /// What was held.
    pub held: Held,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Clone, Copy)]
struct Envelope {
    schema: u32,
    number: u64,
    part: usize,
    parts: usize,
}

#[derive(Serialize)]
struct Written<'a> {
    held: &'a Held,
}

#[derive(Deserialize)]
struct Stored {
    held: Held,
}

/// The Secrets for what is held; none if nothing is. Fails if it is more than [`MAX_PARTS`] can take.
pub fn pack(held: &Held, number: u64) -> anyhow::Result<Vec<Part>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let text = serde_json::to_vec(&Written { held })?;
    let mut bytes = Vec::new();
    ZlibEncoder::new(text.as_slice(), Compression::default()).read_to_end(&mut bytes)?;
    let sum = Sha256::digest(&bytes).to_vec();
    let parts = bytes.len().div_ceil(PART);
    ensure!(parts <= MAX_PARTS, "what is held is too much to be stored: {} bytes", bytes.len());
    let part = |(part, piece): (usize, &[u8])| {
        let envelope = serde_json::to_vec(&Envelope { schema: SCHEMA, number, part, parts })?;
        let data = [("envelope", envelope), ("held", piece.to_vec()), ("sum", sum.clone())];
        let data = data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect();
        Ok(Part { name: format!("kubepbx-held-{number}-{part}"), data })
    };
    bytes.chunks(PART).enumerate().map(part).collect()
}

/// The newest writing that is there whole. Fails if there is something, but nothing whole that can be read.
pub fn unpack<'a>(secrets: impl IntoIterator<Item = &'a BTreeMap<String, ByteString>>) -> anyhow::Result<Found> {
    let mut writings: BTreeMap<u64, BTreeMap<usize, &BTreeMap<String, ByteString>>> = BTreeMap::new();
    let mut error = None;
    for secret in secrets {
        let envelope = secret.get("envelope").map(|bytes| serde_json::from_slice::<Envelope>(&bytes.0));
        match envelope.context("no envelope").and_then(|read| Ok(read?)) {
            Ok(envelope) => _ = writings.entry(envelope.number).or_default().insert(envelope.part, secret),
            Err(wrong) => error = Some(wrong),
        }
    }
    for (number, parts) in writings.into_iter().rev() {
        match whole(&parts) {
            Ok(held) => return Ok(Found { number, held }),
            Err(wrong) => error = Some(wrong.context(format!("writing {number}"))),
        }
    }
    error.map_or(Ok(Found::default()), Err)
}

fn whole(parts: &BTreeMap<usize, &BTreeMap<String, ByteString>>) -> anyhow::Result<Held> {
    let mut bytes = Vec::new();
    for (at, (part, data)) in parts.iter().enumerate() {
        let envelope: Envelope = serde_json::from_slice(&data.get("envelope").context("no envelope")?.0)?;
        ensure!((SCHEMA - 1..=SCHEMA).contains(&envelope.schema), "schema {} is not known here", envelope.schema);
        ensure!(*part == at && envelope.parts == parts.len() && at < MAX_PARTS, "a part is missing");
        bytes.extend_from_slice(&data.get("held").context("a part is empty")?.0);
    }
    let sum = parts.values().next().and_then(|data| data.get("sum"));
    ensure!(sum.is_some_and(|sum| sum.0 == Sha256::digest(&bytes).as_slice()), "the parts do not belong together");
    // A reader of JSON would ask for each byte alone.
    let mut text = Vec::new();
    ZlibDecoder::new(bytes.as_slice()).take(MAX_HELD).read_to_end(&mut text)?;
    Ok(serde_json::from_slice::<Stored>(&text)?.held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{Change, Compiler, Kind, Resource, ResourceId, Spec, State};
    use serde_json::json;
    use std::sync::Arc;

    fn put(name: &str, spec: Spec) -> Change {
        Change::Put(Resource { name: name.into(), generation: 1, created: None, spec: Arc::new(spec) })
    }

    /// A context; `note` makes it long, and what cannot be compressed stays long.
    fn context(name: &str, pattern: &str, note: &str) -> Change {
        let text = |piece: &[u8]| json!({"noOp": {"text": String::from_utf8_lossy(piece)}});
        let steps: Vec<_> = note.as_bytes().chunks(1000).map(text).chain([json!({"hangup": {}})]).collect();
        let spec = json!({"extensions": [{"pattern": pattern, "steps": steps}]});
        put(name, Spec::Dialplan(serde_json::from_value(spec).unwrap()))
    }

    fn data(parts: &[Part]) -> Vec<&BTreeMap<String, ByteString>> {
        parts.iter().map(|part| &part.data).collect()
    }

    fn noise(seed: u64, length: usize) -> String {
        use rand::{Rng, SeedableRng, distr::Alphanumeric};
        rand::rngs::StdRng::seed_from_u64(seed).sample_iter(Alphanumeric).take(length).map(char::from).collect()
    }

    /// A compiler that holds contexts of so many bytes in all, and what it was given.
    fn holding(contexts: usize, length: usize) -> (Compiler, Vec<Change>) {
        let mut compiler = Compiler::new(1, Held::default());
        let name = |n: usize| format!("c{n}");
        compiler.apply((0..contexts).map(|n| context(&name(n), "_80XX", &noise(n as u64, length))));
        let spoilt: Vec<_> = (0..contexts).map(|n| context(&name(n), "_8[", "")).collect();
        compiler.apply(spoilt.clone());
        (compiler, spoilt)
    }

    #[test]
    fn a_compiler_that_is_started_again_has_what_was_held() {
        let (before, inputs) = holding(3, 100);
        let id = ResourceId { kind: Kind::Dialplan, name: "c1".into() };
        assert_eq!(before.statuses()[&id].state, State::Held);
        let parts = pack(&before.held(), 7).unwrap();
        assert_eq!(parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["kubepbx-held-7-0"]);
        let found = unpack(data(&parts)).unwrap();
        assert_eq!(found, Found { number: 7, held: before.held() });
        let mut after = Compiler::new(2, found.held);
        after.apply(inputs);
        assert_eq!(after.router().entries, before.router().entries);
        assert_eq!(after.statuses(), before.statuses());
    }

    #[test]
    fn much_is_cut_into_parts_and_a_writing_counts_only_whole() {
        let (compiler, _) = holding(40, 60_000);
        let held = compiler.held();
        let new = pack(&held, 8).unwrap();
        assert!(new.len() > 1, "{}", new.len());
        for part in &new {
            let size: usize = part.data.iter().map(|(key, value)| key.len() + value.0.len()).sum();
            assert!(size < 1 << 20, "{size}");
        }
        let mut names: Vec<_> = new.iter().map(|part| &part.name).collect();
        names.dedup();
        assert_eq!(names.len(), new.len());
        assert_eq!(unpack(data(&new).into_iter().rev()).unwrap().held, held, "in any order");
        // The writer was cut off: the one before counts.
        let (small, _) = holding(1, 10);
        let old = pack(&small.held(), 7).unwrap();
        let mut both = data(&old);
        both.extend(data(&new[1..]));
        assert_eq!(unpack(both.clone()).unwrap(), Found { number: 7, held: small.held() });
        both.push(&new[0].data);
        assert_eq!(unpack(both).unwrap().number, 8);
    }

    #[test]
    fn nothing_is_nothing_and_what_cannot_be_read_is_said() {
        assert_eq!(pack(&Held::default(), 3).unwrap(), []);
        assert_eq!(unpack([]).unwrap(), Found::default());
        let (compiler, _) = holding(1, 10);
        let mut parts = pack(&compiler.held(), 7).unwrap();
        let good = parts[0].data.clone();
        parts[0].data.get_mut("held").unwrap().0[9] ^= 1;
        assert!(unpack(data(&parts)).unwrap_err().to_string().contains("writing 7"));
        let envelope = json!({"schema": SCHEMA + 1, "number": 9, "part": 0, "parts": 1}).to_string();
        let mut newer = good.clone();
        newer.insert("envelope".into(), ByteString(envelope.into()));
        assert!(format!("{:#}", unpack([&newer]).unwrap_err()).contains("schema 2"));
        assert_eq!(unpack([&newer, &good]).unwrap().number, 7);
        assert!(unpack([&BTreeMap::new()]).is_err());
    }
}
