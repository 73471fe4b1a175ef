//! Callers held until a phone that is asleep has registered.

mod ends;
mod notices;
mod room;
mod succession;
mod wakes;

use super::fleet::*;
use super::lab::*;
use super::phones::*;
use crate::io::Input;
use bytes::Bytes;
use contract::ProcessId;
use contract::config::{CallbackEntry, EndpointEntry, Secret, WebhookEntry};
use contract::events::CallEventKind;
use contract::records::CallRecord;
use dialplan::Step;
use sip::Name;

/// An endpoint whose phone is woken.
fn wakeable(name: &str, always: bool) -> EndpointEntry {
    let webhook = WebhookEntry { url: "http://127.0.0.1:9/wake".into(), secret: Secret::new("s3cret") };
    EndpointEntry {
        callback: Some(CallbackEntry { hold_time: 90, always, webhook }),
        ..endpoint(name, &["ulaw", "alaw"])
    }
}

fn asleep() -> Lab {
    let mut lab = Lab::new();
    lab.put(wakeable("8006", false));
    lab
}

/// 8005 is answered, and then held for 8006.
fn answered(others: &[ProcessId]) -> (Lab, Phone) {
    let plan = steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]);
    let mut lab = Lab::plan(plan).fleet(others);
    lab.put(wakeable("8006", false));
    let mut a = lab.call("8005", "100");
    let silence = crate::tests::steps::request(&mut lab, "INVITE");
    crate::tests::steps::answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 8 101")));
    crate::tests::steps::request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    (lab, a)
}

impl Lab {
    /// The phone registers (anew), and the store says so.
    fn wakes(&mut self, name: &str) {
        self.wakes_as(name, None);
    }

    fn wakes_as(&mut self, name: &str, instance: Option<&str>) {
        self.aors.entry(name.into()).or_default().bindings.retain(|b| b.instance.as_deref() != instance);
        let port = self.aors[name].bindings.len();
        self.register_at(name, &format!("sip:{name}@127.0.0.1:{}", 7000 + port));
        let (now, serial) = (self.now.unix(), self.unique("reg"));
        let binding = self.aors.get_mut(name).unwrap().bindings.last_mut().unwrap();
        binding.instance = instance.map(str::to_owned);
        binding.updated = now;
        binding.call_id = serial;
        assert!(self.core.waits_for(name));
        self.input(Input::Registered(name));
    }

    /// `type` and reason of what whoever wakes phones was told.
    fn told(&mut self) -> Vec<(String, String)> {
        let text = |notice: &serde_json::Value, name: &str| notice[name].as_str().unwrap_or_default().to_owned();
        std::mem::take(&mut self.notices).iter().map(|n| (text(n, "type"), text(n, "reason"))).collect()
    }

    fn held(&self) -> CallRecord {
        let record = self.records.iter().find(|((kind, _), _)| kind == "call").unwrap();
        serde_json::from_slice(record.1).unwrap()
    }

    /// 8005 calls 8006 and is held.
    #[track_caller]
    fn held_call(&mut self) -> Phone {
        let a = self.call("8005", "8006");
        self.response(180, "INVITE");
        a
    }

    /// The phone that rings answers, and both talk.
    #[track_caller]
    fn connects(&mut self, a: &mut Phone, invite: &Bytes) -> Phone {
        let b = self.callee(invite);
        self.answer(&b, invite, 200, Some(&sdp(5000, "0 101")));
        self.request_to("ACK", &b.name);
        let ok = self.response(200, "INVITE");
        assert!(self.held().held.is_none());
        Lab::joined(a, &ok);
        self.within(a, "ACK", None);
        b
    }

    /// The same; then the caller hangs up and nothing is left.
    #[track_caller]
    fn talks(mut self, a: &mut Phone, invite: &Bytes) {
        let b = self.connects(a, invite);
        self.ends(a, &b);
    }

    /// The same, after another phone of the callee has rung: the phones know, nobody else is told.
    #[track_caller]
    fn talks_elsewhere(mut self, a: &mut Phone, winner: &Bytes, loser: &Phone, rang: &Bytes) {
        let b = self.connects(a, winner);
        let cancel = self.request_to("CANCEL", &loser.name);
        assert!(field(&cancel, Name::Reason).contains("elsewhere"));
        self.answer(loser, &cancel, 200, None);
        self.answer(loser, rang, 487, None);
        self.request_to("ACK", &loser.name);
        assert_eq!(self.told(), []);
        self.ends(a, &b);
    }

    /// The kinds of events that are about holds, by their names in JSON.
    fn hold_events(&self) -> Vec<String> {
        let name = |kind: &CallEventKind| serde_json::to_value(kind).unwrap()["type"].as_str().unwrap().to_owned();
        let of = ["held", "notified", "notNotified", "woken", "released"];
        self.events.iter().map(|e| name(&e.kind)).filter(|name| of.contains(&name.as_str())).collect()
    }
}

fn wake() -> (String, String) {
    ("wake".into(), String::new())
}

fn cancelled(why: &str) -> (String, String) {
    ("cancelled".into(), why.into())
}
