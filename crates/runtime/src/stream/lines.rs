//! The lines of a stream as bytes: written without holding a whole snapshot's text, read so that the hash is checked over
//! the text that came.

use bytes::Bytes;
use contract::config::{Delta, Entry, Snapshot, Version, text_hash};
use contract::stream::{Frame, Line, SCHEMA};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

/// A snapshot is written in pieces of about this many bytes.
const PIECE: usize = 32 * 1024;

fn line<E: Serialize>(frame: Frame<E>, drain: bool) -> serde_json::Result<Bytes> {
    let mut text = serde_json::to_vec(&Line { schema: SCHEMA, frame, drain })?;
    text.push(b'\n');
    Ok(text.into())
}

/// The line of a delta.
pub(super) fn delta<E: Serialize + Clone>(delta: &Delta<E>) -> serde_json::Result<Bytes> {
    line(Frame::Delta(delta.clone()), false)
}

/// The line of a ping; `drain`: who is sent it is to take nothing new.
pub(super) fn ping(version: Version, drain: bool) -> serde_json::Result<Bytes> {
    line(Frame::<()>::Ping(version), drain)
}

/// Writes the line of a snapshot piece by piece.
#[derive(Debug)]
pub(super) struct Pieces<E> {
    snapshot: Arc<Snapshot<E>>,
    /// The last key written.
    last: Option<String>,
    begun: bool,
    ended: bool,
}

impl<E: Serialize> Pieces<E> {
    pub(super) fn new(snapshot: Arc<Snapshot<E>>) -> Self {
        Self { snapshot, last: None, begun: false, ended: false }
    }

    /// The next piece; `None` after the line's end.
    pub(super) fn next(&mut self) -> serde_json::Result<Option<Bytes>> {
        if self.ended {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(PIECE + PIECE / 8);
        if !self.begun {
            self.begun = true;
            out.extend(format!("{{\"schema\":{SCHEMA},\"snapshot\":{{\"version\":").as_bytes());
            serde_json::to_writer(&mut out, &self.snapshot.version)?;
            out.extend(b",\"entries\":{");
        }
        let from = self.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (key, entry) in self.snapshot.entries.range::<str, _>((from, Bound::Unbounded)) {
            if last.is_some() || self.last.is_some() {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, key)?;
            out.push(b':');
            serde_json::to_writer(&mut out, entry)?;
            last = Some(key);
            if out.len() >= PIECE {
                break;
            }
        }
        match last {
            Some(key) if out.len() >= PIECE => self.last = Some(key.clone()),
            _ => {
                out.extend(b"}}}\n");
                self.ended = true;
            }
        }
        Ok(Some(out.into()))
    }
}

/// A line whose entries are still text.
#[derive(Deserialize)]
struct Raw<'a> {
    schema: u32,
    #[serde(borrow)]
    snapshot: Option<RawSnapshot<'a>>,
    #[serde(borrow)]
    delta: Option<RawDelta<'a>>,
    ping: Option<Version>,
    #[serde(default)]
    drain: bool,
}

#[derive(Deserialize)]
struct RawSnapshot<'a> {
    version: Version,
    #[serde(borrow)]
    entries: BTreeMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    from: Version,
    to: Version,
    #[serde(borrow)]
    put: BTreeMap<String, &'a RawValue>,
    delete: Vec<String>,
}

/// Why a line was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    /// It does not follow on what is at hand, or another hash results: everything must be asked for.
    #[error("the stream does not follow on version {0}")]
    Gap(u64),
    /// It comes from somebody who led before.
    #[error("a stream of epoch {0}, which is over")]
    Over(u64),
    /// It is well formed and brings something that this release cannot read.
    #[error("{0}")]
    Refused(String),
    /// It is not a line of a stream.
    #[error("not a line of a configuration stream")]
    Nonsense,
}

/// What a line makes of the configuration.
#[derive(Debug, PartialEq)]
pub(super) enum News<E> {
    Snapshot(Snapshot<E>),
    Delta(Delta<E>),
    /// Nothing new, but whether this process is to take nothing new.
    Ping {
        drain: bool,
    },
}

/// Reads lines, each on top of the one before.
#[derive(Debug, Default)]
pub(super) struct Reader {
    version: Version,
    /// The hash of each entry's text, by key.
    hashes: HashMap<String, u64>,
    /// A later version that could not be read.
    refused: Option<Version>,
}

impl Reader {
    /// The version that the lines read until now have made.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// True while what is at hand is not what the stream brought, because that could not be read.
    pub(super) fn is_behind(&self) -> bool {
        self.refused.is_some()
    }

    /// Reads one line, without its line break. On error the entries at hand have not changed.
    pub(super) fn read<E: Entry>(&mut self, text: &[u8]) -> Result<News<E>, Unfit> {
        // The error itself is not told: it may quote the text, and the text holds hashes of passwords.
        let raw: Raw<'_> = serde_json::from_slice(text).map_err(|_| Unfit::Nonsense)?;
        if raw.schema != SCHEMA {
            return Err(Unfit::Refused(format!("the stream has schema {}, this release reads {SCHEMA}", raw.schema)));
        }
        match (raw.snapshot, raw.delta, raw.ping) {
            (Some(snapshot), None, None) => self.snapshot(snapshot),
            (None, Some(delta), None) => self.delta(delta),
            (None, None, Some(version)) if version.epoch < self.version.epoch => Err(Unfit::Over(version.epoch)),
            (None, None, Some(version)) if version != self.refused.unwrap_or(self.version) => {
                Err(Unfit::Gap(self.version.n))
            }
            (None, None, Some(_)) => Ok(News::Ping { drain: raw.drain }),
            _ => Err(Unfit::Nonsense),
        }
    }

    fn snapshot<E: Entry>(&mut self, raw: RawSnapshot<'_>) -> Result<News<E>, Unfit> {
        let version = raw.version;
        if version.epoch < self.version.epoch {
            return Err(Unfit::Over(version.epoch));
        }
        let hashes = hashes(&raw.entries);
        if hashes.values().fold(0u64, |sum, hash| sum.wrapping_add(*hash)) != version.hash {
            return Err(Unfit::Gap(self.version.n));
        }
        let entries = parsed(raw.entries).inspect_err(|_| self.refused = Some(version))?;
        self.refused = None;
        (self.version, self.hashes) = (version, hashes);
        Ok(News::Snapshot(Snapshot { version, entries }))
    }

    fn delta<E: Entry>(&mut self, raw: RawDelta<'_>) -> Result<News<E>, Unfit> {
        let RawDelta { from, to, put, delete } = raw;
        if to.epoch < self.version.epoch {
            return Err(Unfit::Over(to.epoch));
        }
        let new = hashes(&put);
        let gone = put.keys().chain(&delete).filter_map(|key| self.hashes.get(key));
        let hash = gone.fold(self.version.hash, |sum, hash| sum.wrapping_sub(*hash));
        let hash = new.values().fold(hash, |sum, hash| sum.wrapping_add(*hash));
        if self.refused.is_some() || from != self.version || hash != to.hash {
            return Err(Unfit::Gap(self.version.n));
        }
        let put = parsed(put).inspect_err(|_| self.refused = Some(to))?;
        for key in &delete {
            self.hashes.remove(key);
        }
        self.hashes.extend(new);
        self.version = to;
        Ok(News::Delta(Delta { from, to, put, delete }))
    }
}

fn hashes(entries: &BTreeMap<String, &RawValue>) -> HashMap<String, u64> {
    entries.iter().map(|(key, raw)| (key.clone(), text_hash(key, raw.get().as_bytes()))).collect()
}

fn parsed<E: Entry>(entries: BTreeMap<String, &RawValue>) -> Result<BTreeMap<String, Arc<E>>, Unfit> {
    let read = |(key, raw): (String, &RawValue)| match serde_json::from_str(raw.get()) {
        Ok(entry) => Ok((key, Arc::new(entry))),
        Err(_) => Err(Unfit::Refused(format!("release {} cannot read {key}", env!("CARGO_PKG_VERSION")))),
    };
    entries.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::config::{BalancerEntry, entry_hash};

    fn trunk(name: &str) -> Arc<BalancerEntry> {
        Arc::new(BalancerEntry::Trunk { name: name.into(), networks: vec![] })
    }

    fn snapshot(epoch: u64, n: u64, names: impl Iterator<Item = String>) -> Snapshot<BalancerEntry> {
        let entries: BTreeMap<_, _> = names.map(|name| (format!("PbxEndpoint/{name}"), trunk(&name))).collect();
        let hash = entries.iter().fold(0u64, |h, (k, e)| h.wrapping_add(entry_hash(k, e.as_ref())));
        Snapshot { version: Version { epoch, n, hash }, entries }
    }

    fn text(snapshot: &Snapshot<BalancerEntry>) -> Vec<u8> {
        let mut pieces = Pieces::new(Arc::new(snapshot.clone()));
        let mut out = Vec::new();
        while let Some(piece) = pieces.next().unwrap() {
            assert!(piece.len() < 2 * PIECE);
            out.extend(piece);
        }
        out
    }

    #[test]
    fn the_pieces_of_a_snapshot_are_its_line_to_the_byte() {
        for count in [0, 1, 2, 5000] {
            let snapshot = snapshot(1, 1, (0..count).map(|n| n.to_string()));
            let want = line(Frame::Snapshot(snapshot.clone()), false).unwrap();
            assert_eq!(text(&snapshot), want, "{count}");
        }
    }

    #[test]
    fn lines_are_read_on_top_of_one_another() {
        let mut reader = Reader::default();
        let one = snapshot(2, 1, ["a".into(), "b".into()].into_iter());
        assert_eq!(reader.read(&text(&one)).unwrap(), News::Snapshot(one.clone()));
        let two = snapshot(2, 2, ["b".into(), "c".into()].into_iter());
        let change = Delta {
            from: one.version,
            to: two.version,
            put: [("PbxEndpoint/c".to_owned(), trunk("c"))].into(),
            delete: vec!["PbxEndpoint/a".into()],
        };
        let bytes = delta(&change).unwrap();
        assert_eq!(
            reader.read::<BalancerEntry>(&ping(two.version, false).unwrap()),
            Err(Unfit::Gap(1)),
            "it missed one"
        );
        let mut wrong = change.clone();
        wrong.delete.clear();
        assert_eq!(reader.read::<BalancerEntry>(&delta(&wrong).unwrap()), Err(Unfit::Gap(1)), "another hash");
        assert_eq!(reader.read(&bytes).unwrap(), News::Delta(change));
        assert_eq!(reader.version(), two.version);
        assert_eq!(reader.read::<BalancerEntry>(&bytes), Err(Unfit::Gap(2)), "twice");
        assert_eq!(
            reader.read::<BalancerEntry>(&ping(two.version, false).unwrap()).unwrap(),
            News::Ping { drain: false }
        );
        assert_eq!(
            reader.read::<BalancerEntry>(&ping(two.version, true).unwrap()).unwrap(),
            News::Ping { drain: true }
        );
        let old = snapshot(1, 900, std::iter::empty());
        assert_eq!(reader.read::<BalancerEntry>(&text(&old)), Err(Unfit::Over(1)));
        assert_eq!(reader.read::<BalancerEntry>(&ping(old.version, false).unwrap()), Err(Unfit::Over(1)));
        for nonsense in ["", "{}", "[]", r#"{"schema":1}"#, "<html>"] {
            assert_eq!(reader.read::<BalancerEntry>(nonsense.as_bytes()), Err(Unfit::Nonsense));
        }
    }

    #[test]
    fn fields_of_a_later_release_are_passed_over_and_what_cannot_be_read_is_named_without_its_text() {
        let entry = |json: &str| {
            let hash = text_hash("Later/x", json.as_bytes());
            format!(
                r#"{{"schema":1,"later":7,"snapshot":{{"version":{{"epoch":1,"n":1,"hash":{hash},"w":0}},"entries":{{"Later/x":{json}}}}}}}"#
            )
        };
        let mut reader = Reader::default();
        let refused =
            reader.read::<BalancerEntry>(entry(r#"{"secretive":{"ha1":"0123abcd"}}"#).as_bytes()).unwrap_err();
        let Unfit::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(
            why.contains("cannot read Later/x") && !why.contains("0123abcd") && !why.contains("secretive"),
            "{why}"
        );
        assert_eq!(reader.version(), Version::default());
        // What could not be read is not taken for a gap; what follows on it is.
        let hash = text_hash("Later/x", br#"{"secretive":{"ha1":"0123abcd"}}"#);
        let refused = Version { epoch: 1, n: 1, hash };
        assert!(reader.is_behind());
        assert_eq!(reader.read::<BalancerEntry>(&ping(refused, false).unwrap()).unwrap(), News::Ping { drain: false });
        let next = Delta::<BalancerEntry> { from: refused, to: refused, put: BTreeMap::new(), delete: vec![] };
        assert_eq!(reader.read::<BalancerEntry>(&delta(&next).unwrap()), Err(Unfit::Gap(0)));
        // The hash is that of the text, with a field in it that this release would not write.
        let known = entry(r#"{"trunk":{"name":"x","networks":[],"later":true}}"#);
        let News::Snapshot(read) = reader.read::<BalancerEntry>(known.as_bytes()).unwrap() else { panic!() };
        assert_eq!(read.entries["Later/x"], trunk("x"));
        assert!(!reader.is_behind());
        let newer = known.replace(r#""schema":1"#, r#""schema":2"#);
        assert!(matches!(reader.read::<BalancerEntry>(newer.as_bytes()), Err(Unfit::Refused(_))));
    }
}
