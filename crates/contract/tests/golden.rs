//! What releases have written, to the byte: `golden/<release>/<what>.json`, one value a line.
//!
//! Each must be read by today's code. What this release writes must be the same again to the byte; what an earlier one
//! wrote must come out again with everything that it said. While a release is not out yet, a change to what it writes is
//! taken over by running this test with `KUBEPBX_GOLDEN=write` and reading the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests are tests")]

use contract::config::{BalancerEntry, ConferenceEntry, MediaEntry, RegistrarEntry, RouterEntry};
use contract::hop::Hop;
use contract::leg::LegToken;
use contract::location::Binding;
use contract::media::MediaEvent;
use contract::peers::Peer;
use contract::records::{BridgeRecord, CallRecord, LegRecord};
use contract::stream::{Ack, Line};
use contract::{Flow, InstallationKey, KeyRing};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Reads a line and writes it again.
type Again = fn(&str) -> serde_json::Result<String>;

fn again<T: DeserializeOwned + Serialize>(line: &str) -> serde_json::Result<String> {
    serde_json::to_string(&serde_json::from_str::<T>(line)?)
}

const FILES: [(&str, Again); 12] = [
    ("stream-balancer", again::<Line<BalancerEntry>>),
    ("stream-registrar", again::<Line<RegistrarEntry>>),
    ("stream-router", again::<Line<RouterEntry>>),
    ("stream-media", again::<Line<MediaEntry>>),
    ("stream-conference", again::<Line<ConferenceEntry>>),
    ("ack", again::<Ack>),
    ("peer", again::<Peer>),
    ("leg", again::<LegRecord>),
    ("call", again::<CallRecord>),
    ("bridge", again::<BridgeRecord>),
    ("binding", again::<Binding>),
    ("media-event", again::<MediaEvent>),
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// `0.1` of `0.1.0`.
fn release() -> String {
    let mut parts = env!("CARGO_PKG_VERSION").splitn(3, '.');
    format!("{}.{}", parts.next().unwrap(), parts.next().unwrap())
}

fn read(release: &str, what: &str) -> String {
    let path = golden().join(release).join(format!("{what}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Everything that stands in `old` stands in `new`.
fn keeps(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.iter().all(|(key, value)| new.get(key).is_some_and(|new| keeps(value, new)))
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| keeps(old, new))
        }
        _ => old == new,
    }
}

#[test]
fn this_release_writes_what_stands_here() {
    for (what, again) in FILES {
        let text = read(&release(), what);
        let written: String =
            text.lines().map(|line| again(line).unwrap_or_else(|e| panic!("{what}: {e}: {line}")) + "\n").collect();
        if std::env::var("KUBEPBX_GOLDEN").is_ok_and(|v| v == "write") {
            std::fs::write(golden().join(release()).join(format!("{what}.json")), &written).unwrap();
        } else {
            assert_eq!(written, text, "{what}");
        }
    }
}

#[test]
fn what_earlier_releases_wrote_is_read_whole_and_what_later_ones_add_is_passed_over() {
    for dir in std::fs::read_dir(golden()).unwrap() {
        let release = dir.unwrap().file_name().into_string().unwrap();
        for (what, again) in FILES {
            for line in read(&release, what).lines() {
                let written = again(line).unwrap_or_else(|e| panic!("{release}/{what}: {e}: {line}"));
                let (old, new) = (serde_json::from_str(line).unwrap(), serde_json::from_str(&written).unwrap());
                assert!(keeps(&old, &new), "{release}/{what}: {old} became {new}");
                let later = line.replacen('{', r#"{"later":{"more":[1]},"#, 1);
                assert_eq!(again(&later).unwrap(), written, "{release}/{what}");
            }
        }
    }
}

#[test]
fn tokens_of_releases_are_opened_and_made_the_same() {
    let keys = KeyRing::new(InstallationKey::new(1, [7; 32]));
    for dir in std::fs::read_dir(golden()).unwrap() {
        let text = read(dir.unwrap().file_name().to_str().unwrap(), "tokens");
        let tokens: Value = serde_json::from_str(&text).unwrap();
        let token = |name: &str| tokens[name].as_str().unwrap();
        let flow = Flow::from_token(token("flow"), &keys).expect("a flow");
        assert_eq!(flow.remote, "[2001:db8::1]:5062".parse().unwrap());
        assert_eq!(flow.token(&keys), token("flow"));
        let leg = LegToken::open(token("leg"), &keys).expect("a leg");
        assert_eq!(leg.seal(&keys), token("leg"));
        let hop = Hop::open(token("hop"), &keys, "a@b", "1 INVITE").expect("a hop");
        assert_eq!((hop.flow, hop.trusted), (flow, true));
        assert_eq!(hop.seal(&keys, "a@b", "1 INVITE"), token("hop"));
    }
}
