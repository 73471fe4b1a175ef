//! A callee whose phone does not run when it is called: the webhook's receiver starts it.

use contract::webhook::{SIGNATURE, TIMESTAMP, sign};
use e2e::process::root;
use e2e::{Baresip, Installation, Pbx, Phone, eventually, spectrum};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SOON: Duration = Duration::from_secs(15);

fn near(value: &Value, hz: f64) -> bool {
    value.as_f64().is_some_and(|heard| (heard - hz).abs() < 10.0)
}

/// What stands behind the webhook of `examples/callback`.
struct Receiver {
    at: SocketAddr,
    told: mpsc::Receiver<Value>,
}

impl Receiver {
    /// One that does this for each request, whose signature is right and new.
    fn start(mut act: impl FnMut(&Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, (tell, told)) = (listener.local_addr().unwrap(), mpsc::channel());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut line, mut fields) = (String::new(), Vec::new());
                while stream.read_line(&mut line).unwrap() > 2 {
                    fields.extend(line.trim_end().split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())));
                    line.clear();
                }
                let field = |name: &str| fields.iter().find(|(n, _)| *n == name.to_lowercase()).unwrap().1.clone();
                let mut body = vec![0; field("content-length").parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let at: u64 = field(TIMESTAMP).parse().unwrap();
                assert_eq!(field(SIGNATURE), sign(b"change-me", at, &body));
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                assert!(at <= now && now - at < 10, "{at} {now}");
                let body: Value = serde_json::from_slice(&body).unwrap();
                act(&body);
                stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
                if tell.send(body).is_err() {
                    return;
                }
            }
        });
        Self { at, told }
    }

    /// The manifests of `examples/callback`, with this receiver in them.
    fn manifests(&self) -> String {
        let text = std::fs::read_to_string(root().join("examples/callback/pbx.yaml")).unwrap();
        let url = format!("http://{}/wake", self.at);
        assert!(text.contains("http://127.0.0.1:8088/wake"));
        text.replace("http://127.0.0.1:8088/wake", &url)
    }

    /// The next request, of this type.
    fn told(&self, kind: &str) -> Value {
        let body = self.told.recv_timeout(SOON).unwrap();
        assert_eq!(body["type"], kind, "{body}");
        body
    }
}

/// Where phones register is known after the receiver is: it waits for that.
fn starting<P: Send + 'static>(
    start: impl Fn(SocketAddr) -> P + Send + 'static,
) -> (Receiver, mpsc::Sender<SocketAddr>, mpsc::Receiver<P>) {
    let (say, said) = mpsc::channel();
    let (give, given) = mpsc::channel();
    let receiver = Receiver::start(move |body| {
        if body["type"] == "wake" {
            give.send(start(said.recv().unwrap())).unwrap();
        }
    });
    (receiver, say, given)
}

#[test]
fn the_phone_is_started_when_it_is_called_and_both_hear_each_other() {
    let (receiver, say, phones) =
        starting(|sip| Phone::answering(sip, "8006", &["--play", "tone:880", "--ring", "1"]).unwrap());
    let pbx = Pbx::of(&receiver.manifests(), &[]).unwrap();
    say.send(pbx.sip).unwrap();
    assert_eq!(pbx.items("registrations").unwrap().len(), 0, "nobody is there");
    let options = ["--to", "8006", "--play", "tone:440", "--seconds", "3"];
    let mut caller = Phone::start("call", pbx.sip, "8005", &options).unwrap();
    let body = receiver.told("wake");
    assert_eq!((body["endpoint"].as_str(), body["from"]["number"].as_str()), (Some("8006"), Some("8005")));
    let mut callee = phones.recv_timeout(SOON).unwrap();
    let (ok, heard) = caller.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 880.0), "{heard}");
    let (ok, heard) = callee.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 440.0), "{heard}");
    pbx.idle().unwrap();
    let events = pbx.view("events").unwrap();
    let kinds: Vec<&str> = events.as_array().unwrap().iter().filter_map(|e| e["kind"]["type"].as_str()).collect();
    // The phone may register before the receiver has answered.
    let count = |kind: &str| kinds.iter().filter(|other| **other == kind).count();
    assert_eq!(["held", "notified", "woken", "released"].map(count), [1; 4], "{kinds:?}");
    assert!(receiver.told.try_recv().is_err(), "one request a hold");
}

#[test]
fn a_baresip_is_started_when_it_is_called_and_both_hear_each_other() {
    let (receiver, say, phones) = starting(|sip| Baresip::start(sip, "8006", 880.0, 60).unwrap());
    let pbx = Pbx::of(&receiver.manifests(), &[]).unwrap();
    say.send(pbx.sip).unwrap();
    let mut caller = Baresip::start(pbx.sip, "8005", 440.0, 60).unwrap();
    pbx.registered(1).unwrap();
    caller.command("dial", "8006").unwrap();
    receiver.told("wake");
    let mut callee = phones.recv_timeout(SOON).unwrap();
    callee.event("CALL_ESTABLISHED", SOON).unwrap();
    caller.event("CALL_ESTABLISHED", SOON).unwrap();
    std::thread::park_timeout(Duration::from_secs(6));
    caller.command("hangup", "").unwrap();
    callee.event("CALL_CLOSED", SOON).unwrap();
    pbx.idle().unwrap();
    for (phone, hz) in [(&caller, 880.0), (&callee, 440.0)] {
        let heard = phone.recording().unwrap();
        let share = spectrum::share(&heard, hz, 5.0).unwrap();
        assert!(share > 0.9, "{hz} Hz has {share} of what was heard in {}", heard.display());
    }
}

#[test]
fn a_caller_that_gives_up_is_answered_487_and_the_receiver_hears_of_it() {
    let receiver = Receiver::start(|_| {});
    let pbx = Pbx::of(&receiver.manifests(), &[]).unwrap();
    let options = ["--to", "8006", "--cancel-after", "2"];
    let mut caller = Phone::start("call", pbx.sip, "8005", &options).unwrap();
    let woken = receiver.told("wake");
    eventually("the hold is shown", SOON, || pbx.items("holds").ok().filter(|holds| holds.len() == 1)).unwrap();
    let cancelled = receiver.told("cancelled");
    assert_eq!((&cancelled["id"], cancelled["reason"].as_str()), (&woken["id"], Some("cancelled")));
    let (_, report) = caller.report(SOON).unwrap();
    assert_eq!(report["calls"][0]["status"], 487, "{report}");
    pbx.idle().unwrap();
    assert_eq!(pbx.items("holds").unwrap().len(), 0);
}

#[test]
fn a_hold_is_given_up_by_command() {
    let receiver = Receiver::start(|_| {});
    let pbx = Pbx::of(&receiver.manifests(), &[]).unwrap();
    let mut caller = Phone::start("call", pbx.sip, "8005", &["--to", "8006"]).unwrap();
    let id = receiver.told("wake")["id"].as_str().unwrap().to_owned();
    let answer = |path: &str| e2e::http::post(pbx.http, path).unwrap();
    assert_eq!(answer("/v1/holds/another/cancel"), 404);
    assert_eq!(answer(&format!("/v1/holds/{id}/ring")), 204);
    assert_eq!(answer(&format!("/v1/holds/{id}/cancel")), 204);
    assert_eq!(receiver.told("cancelled")["reason"], "command");
    let (_, report) = caller.report(SOON).unwrap();
    assert_eq!(report["calls"][0]["status"], 480, "{report}");
}

#[test]
fn a_router_that_is_killed_while_it_holds_is_replaced_by_another_which_connects() {
    let receiver = Receiver::start(|_| {});
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pbx.yaml"), receiver.manifests()).unwrap();
    let (mut pbx, mut members) = Installation::whole(folder.path().to_str().unwrap()).unwrap();
    members.extend(pbx.start(&["router"]).unwrap());
    pbx.acquainted(&members, 6).unwrap();
    let sip = members.iter().find(|m| m.service == "balancer").unwrap().sip;
    let options = ["--to", "8006", "--play", "tone:440", "--seconds", "3"];
    let mut caller = Phone::start("call", sip, "8005", &options).unwrap();
    let woken = receiver.told("wake");
    let holds = |m: &e2e::Member| m.view("holds").is_ok_and(|holds| holds.as_array().is_some_and(|h| !h.is_empty()));
    let owner = members.iter().position(|m| m.service == "router" && holds(m)).unwrap();
    members[owner].process.kill();
    members.remove(owner);
    // Another goes on with the same hold.
    let again = receiver.told("wake");
    assert_eq!(again["id"], woken["id"]);
    let mut callee = Phone::answering(sip, "8006", &["--play", "tone:880"]).unwrap();
    let (ok, heard) = caller.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 880.0), "{heard}");
    let (ok, heard) = callee.report(SOON).unwrap();
    assert!(ok && near(&heard["calls"][0]["tone_hz"], 440.0), "{heard}");
}
