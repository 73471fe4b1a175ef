//! Rooms and music on hold: three phones with tones of their own, a PIN by keys, and commands from outside.

use e2e::process::eventually;
use e2e::{Pbx, Phone, http, spectrum};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: phones}
stringData: {"8005": "8005", "8006": "8006", "8007": "8007"}
---
apiVersion: kubepbx.io/v1alpha1
kind: PbxEndpoint
metadata: {name: "8005"}
spec:
  context: rooms
  auth: {username: "8005", passwordSecretRef: {name: phones, key: "8005"}}
  codecs: [ulaw]
---
apiVersion: kubepbx.io/v1alpha1
kind: PbxEndpoint
metadata: {name: "8006"}
spec:
  context: rooms
  auth: {username: "8006", passwordSecretRef: {name: phones, key: "8006"}}
  codecs: [alaw, ulaw]
---
apiVersion: kubepbx.io/v1alpha1
kind: PbxEndpoint
metadata: {name: "8007"}
spec:
  context: rooms
  auth: {username: "8007", passwordSecretRef: {name: phones, key: "8007"}}
  codecs: [ulaw, alaw]
---
apiVersion: kubepbx.io/v1alpha1
kind: Dialplan
metadata: {name: rooms}
spec:
  extensions:
  - pattern: _7XX
    steps:
    - confBridge: {room: "${EXTEN}", quiet: true}
    - playback: {prompts: ["tone:2000,1000"]}
  - pattern: "800"
    steps:
    - musicOnHold: {}
"#;

const TONES: [(&str, f64); 3] = [("8005", 440.0), ("8006", 880.0), ("8007", 1320.0)];

struct Site {
    pbx: Pbx,
    phones: Vec<(Phone, PathBuf)>,
}

impl Site {
    fn start() -> Self {
        Self { pbx: Pbx::of(MANIFESTS, &[]).unwrap(), phones: Vec::new() }
    }

    fn call(&mut self, at: usize, to: &str, seconds: &str) {
        let (user, hz) = TONES[at];
        let recording = self.pbx.dir.path().join(format!("{user}.wav"));
        let tone = format!("tone:{hz}");
        let options = ["--to", to, "--play", &tone, "--seconds", seconds, "--record", recording.to_str().unwrap()];
        let phone = Phone::start("call", self.pbx.sip, user, &options).unwrap();
        self.phones.push((phone, recording));
    }

    /// The members of the one room, once there are so many.
    fn members(&self, count: usize) -> Vec<Value> {
        let there = || {
            let rooms = self.pbx.view("rooms").ok()?;
            rooms.as_array()?.first()?["members"].as_array().filter(|members| members.len() == count).cloned()
        };
        eventually("members", SOON, there).unwrap()
    }

    fn ends(&mut self) {
        for (phone, _) in &mut self.phones {
            let (ok, heard) = phone.report(SOON).unwrap();
            assert!(ok, "{heard}");
        }
        self.pbx.idle().unwrap();
        assert_eq!(self.pbx.view("rooms").unwrap().as_array().map(Vec::len), Some(0));
    }
}

#[test]
fn three_phones_hear_each_other_and_not_themselves() {
    let mut site = Site::start();
    (0..3).for_each(|at| site.call(at, "700", "6"));
    site.members(3);
    site.ends();
    for (at, (_, recording)) in site.phones.iter().enumerate() {
        for (other, (_, hz)) in TONES.into_iter().enumerate() {
            let share = spectrum::share(recording, hz, 4.0).unwrap();
            assert!(if other == at { share < 0.01 } else { share > 0.3 }, "{at}: {share} of {hz} Hz");
        }
    }
}

#[test]
fn a_locked_room_is_passed_and_who_is_sent_away_goes_on() {
    let mut site = Site::start();
    site.call(0, "700", "12");
    let member = site.members(1)[0]["id"].as_str().unwrap().to_owned();
    site.call(1, "700", "6");
    site.members(2);
    assert_eq!(http::post(site.pbx.http, &format!("/v1/members/{member}/kick")).unwrap(), 204);
    assert_eq!(http::post(site.pbx.http, "/v1/rooms/none/lock").unwrap(), 404);
    site.members(1);
    assert_eq!(http::post(site.pbx.http, "/v1/rooms/700/lock").unwrap(), 204);
    site.call(2, "700", "3");
    site.ends();
    // The one that was sent away and the one that found it locked hear the next step.
    for at in [0, 2] {
        let seconds = spectrum::seconds_of(&site.phones[at].1, 2000.0).unwrap();
        assert!(seconds > 0.7, "{at}: {seconds} s");
    }
}

#[test]
fn music_plays_until_the_caller_hangs_up() {
    let mut site = Site::start();
    site.call(0, "800", "4");
    site.ends();
    let seconds = spectrum::seconds_of(&site.phones[0].1, 392.0).unwrap();
    assert!(seconds > 0.3, "{seconds} s of the third note");
}
