//! The test bench: the core, virtual time, a balancer with phones behind it, a store and a relay.

use crate::Limits;
use crate::core::{Core, View};
use crate::identify::Directory;
use crate::io::{Answer, Ask, AskId, Input, Output};
use bytes::Bytes;
use contract::config::{Auth, EndpointEntry, Ha1, IdentifyBy, PbxEntry, RouterEntry, Snapshot};
use contract::events::{CallEvent, CallEventKind};
use contract::hop::{self, Inside};
use contract::location::{Aor, Binding, StoreError};
use contract::media::{MediaEvent, MediaEventKind};
use contract::ng;
use contract::peers::{Peer, Peers};
use contract::records::{Key, Owner, Standing, Stored};
use contract::{Flow, InstallationKey, KeyRing, Now, ProcessId, Service, Transport};
use dialplan::{Dial, DialOptions, Extension, Pattern, Plan, Step, Template};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rtp::sdp::Session;
use sip::digest::{self, Algorithm};
use sip::message::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ROUTER: ProcessId = ProcessId(0xaaaa);
pub(crate) const BALANCER: ProcessId = ProcessId(0xbbbb);
pub(crate) const CONFERENCE: ProcessId = ProcessId(0xcccc);
pub(crate) const RELAY: ProcessId = ProcessId(0xeeee);
pub(crate) const EDGE: &str = "192.0.2.1:5060";

pub(crate) fn sdp(port: u16, formats: &str) -> String {
    format!(
        "v=0\r\no=phone 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\na=rtpmap:101 telephone-event/8000\r\n"
    )
}

pub(crate) fn steps(list: &[(&str, Vec<Step>)]) -> Plan {
    let extensions = list.iter().map(|(p, s)| Extension::new(Pattern::parse(p).unwrap(), s.clone())).collect();
    Plan::new("from-external", vec![], extensions).unwrap()
}

pub(crate) fn dial(to: &[&str], timeout: Option<u64>) -> Step {
    let to = to.iter().map(|t| Template::parse(t).unwrap()).collect();
    Step::Dial(Dial { to, timeout: timeout.map(Duration::from_secs), options: DialOptions::default() })
}

pub(crate) fn endpoint(name: &str, codecs: &[&str]) -> EndpointEntry {
    let ha1 = |a| digest::ha1(a, name, "kubepbx", &format!("secret{name}"));
    EndpointEntry {
        name: name.into(),
        context: "from-external".into(),
        auth: Some(Auth {
            username: name.into(),
            ha1: Ha1 { md5: ha1(Algorithm::Md5), sha256: ha1(Algorithm::Sha256) },
        }),
        codecs: codecs.iter().map(|c| (*c).to_owned()).collect(),
        caller_id: None,
        identify_by: vec![IdentifyBy::Username, IdentifyBy::Ip],
        networks: vec![],
        callback: None,
    }
}

/// What a phone remembers of its dialog.
#[derive(Debug, Clone)]
pub(crate) struct Phone {
    pub(crate) name: String,
    pub(crate) call_id: String,
    pub(crate) tag: String,
    pub(crate) peer_tag: String,
    pub(crate) local: String,
    pub(crate) remote: String,
    pub(crate) target: String,
    pub(crate) cseq: u32,
    pub(crate) branch: String,
}

pub(crate) struct Lab {
    pub(crate) core: Core,
    /// The router that `core` is.
    pub(crate) me: ProcessId,
    /// Other routers, which stand still.
    pub(crate) others: BTreeMap<ProcessId, Core>,
    pub(crate) directory: Directory,
    pub(crate) entries: Snapshot<RouterEntry>,
    pub(crate) peers: Peers,
    pub(crate) keys: KeyRing,
    pub(crate) now: Now,
    pub(crate) rng: StdRng,
    pub(crate) draining: bool,
    /// What the router sent, oldest first.
    pub(crate) wire: VecDeque<(ProcessId, Bytes)>,
    pub(crate) events: Vec<CallEvent>,
    pub(crate) aors: BTreeMap<String, Aor>,
    pub(crate) records: BTreeMap<(String, String), Bytes>,
    pub(crate) owners: BTreeMap<(String, String), Owner>,
    /// How many records were taken from a process.
    pub(crate) taken: BTreeMap<ProcessId, u64>,
    pub(crate) incarnation: u64,
    /// How many records were written.
    pub(crate) writes: usize,
    pub(crate) nonces: BTreeMap<String, u32>,
    /// Ports of the relays' sides, by relay, call and leg.
    pub(crate) relay: BTreeMap<(ProcessId, String, String), u16>,
    pub(crate) store_down: bool,
    /// The balancer that brings what phones say.
    pub(crate) edge: ProcessId,
    /// By which phones registered.
    pub(crate) transport: Transport,
    pub(crate) relay_down: bool,
    /// Relays that answer nothing.
    pub(crate) silent: BTreeSet<ProcessId>,
    /// Relays that take no new calls.
    pub(crate) full: BTreeSet<ProcessId>,
    /// Owners that relays were told of.
    pub(crate) claims: Vec<(ProcessId, String)>,
    /// What whoever wakes phones was told, and what it answers.
    pub(crate) notices: Vec<serde_json::Value>,
    pub(crate) receiver: Result<u16, String>,
    /// Questions that match are held until released.
    pub(crate) hold: Option<fn(&Ask) -> bool>,
    pub(crate) held: VecDeque<(Option<AskId>, Ask)>,
    next_port: u16,
    next: u32,
}

impl Lab {
    /// 8005 and 8006 with ulaw and alaw, 8007 with alaw only, 8008 with video; extensions as the seed deployment has.
    pub(crate) fn new() -> Self {
        Self::with(
            Limits::default(),
            steps(&[("_80XX", vec![Step::NoOp { text: None }, dial(&["PJSIP/${EXTEN}"], None)])]),
        )
    }

    pub(crate) fn plan(plan: Plan) -> Self {
        Self::with(Limits::default(), plan)
    }

    pub(crate) fn with(limits: Limits, plan: Plan) -> Self {
        let mut entries = Snapshot::default();
        entries.entries.insert("Pbx/p".into(), Arc::new(RouterEntry::Pbx(PbxEntry::default())));
        entries.entries.insert("Dialplan/d".into(), Arc::new(RouterEntry::Context(plan)));
        for (name, codecs) in [
            ("8005", &["ulaw", "alaw"][..]),
            ("8006", &["ulaw", "alaw"]),
            ("8007", &["alaw"]),
            ("8008", &["ulaw", "h264"]),
            ("8009", &["ulaw", "h264"]),
        ] {
            entries
                .entries
                .insert(format!("PbxEndpoint/{name}"), Arc::new(RouterEntry::Endpoint(endpoint(name, codecs))));
        }
        let peers = Peers(vec![
            Peer::new(Service::Router, ROUTER),
            Peer::new(Service::Balancer, BALANCER),
            Peer::new(Service::Conference, CONFERENCE),
            Peer::new(Service::Media, RELAY),
        ]);
        Self {
            core: Core::new(limits),
            me: ROUTER,
            others: BTreeMap::new(),
            directory: Directory::new(&entries),
            entries,
            peers,
            keys: KeyRing::new(InstallationKey::new(1, [3; 32])),
            now: Now { mono: Duration::from_secs(100), wall: Duration::from_secs(1_700_000_000) },
            rng: StdRng::seed_from_u64(7),
            draining: false,
            wire: VecDeque::new(),
            events: Vec::new(),
            aors: BTreeMap::new(),
            records: BTreeMap::new(),
            owners: BTreeMap::new(),
            taken: BTreeMap::new(),
            incarnation: 1,
            writes: 0,
            nonces: BTreeMap::new(),
            relay: BTreeMap::new(),
            store_down: false,
            edge: BALANCER,
            transport: Transport::Udp,
            relay_down: false,
            silent: BTreeSet::new(),
            full: BTreeSet::new(),
            claims: Vec::new(),
            notices: Vec::new(),
            receiver: Ok(204),
            hold: None,
            held: VecDeque::new(),
            next_port: 40_000,
            next: 0,
        }
    }

    pub(crate) fn put(&mut self, entry: EndpointEntry) {
        self.entries.entries.insert(format!("PbxEndpoint/{}", entry.name), Arc::new(RouterEntry::Endpoint(entry)));
        self.directory = Directory::new(&self.entries);
    }

    pub(crate) fn flow(&self, name: &str) -> Flow {
        let port: u16 = name.parse().unwrap_or(9000);
        Flow {
            transport: self.transport,
            process: BALANCER,
            connection: 0,
            local: EDGE.parse().unwrap(),
            remote: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    pub(crate) fn route(&self, name: &str) -> String {
        format!("<sip:{}@{EDGE};lr>", self.flow(name).token(&self.keys))
    }

    pub(crate) fn register(&mut self, name: &str) {
        let port: u16 = name.parse().unwrap_or(9000);
        self.register_at(name, &format!("sip:{name}@127.0.0.1:{port}"));
    }

    pub(crate) fn register_at(&mut self, name: &str, contact: &str) {
        let binding = Binding {
            contact: contact.into(),
            call_id: "reg".into(),
            cseq: 1,
            expires_at: self.now.unix() + 3600,
            since: 0,
            updated: 0,
            path: vec![self.route(name)],
            flow: Some(self.flow(name)),
            instance: None,
            reg_id: None,
            q: 1000,
            user_agent: None,
            push: None,
            forget_at: None,
        };
        let aor = self.aors.entry(name.into()).or_default();
        aor.revision += 1;
        aor.bindings.push(binding);
    }

    // --- the core's world ---

    pub(crate) fn input(&mut self, input: Input<'_>) {
        self.handle(input);
        self.settle();
    }

    fn handle(&mut self, input: Input<'_>) {
        let view = View {
            directory: &self.directory,
            peers: &self.peers,
            keys: &self.keys,
            me: self.me,
            draining: self.draining,
        };
        self.core.handle(&view, input, self.now, &mut self.rng);
    }

    fn settle(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Send { to, bytes } => self.wire.push_back((to, bytes)),
                Output::Event(event) => self.events.push(event),
                Output::Ask(id, ask) if self.hold.is_some_and(|hold| hold(&ask)) => self.held.push_back((id, ask)),
                Output::Ask(id, ask) => self.serve(id, ask),
            }
        }
    }

    fn serve(&mut self, id: Option<AskId>, ask: Ask) {
        let answer = self.perform(ask);
        if let Some(id) = id {
            self.handle(Input::Answered(id, answer));
        }
    }

    pub(crate) fn release(&mut self) {
        self.hold = None;
        while let Some((id, ask)) = self.held.pop_front() {
            self.serve(id, ask);
            self.settle();
        }
    }

    fn perform(&mut self, ask: Ask) -> Answer {
        let down = || StoreError::Unavailable("down".into());
        match ask {
            Ask::Load { .. } if self.store_down => Answer::Bindings(Err(down())),
            Ask::UseNonce { .. } if self.store_down => Answer::Nonce(Err(down())),
            Ask::Save { .. } | Ask::Remove { .. } if self.store_down => Answer::Stored(Err(down())),
            Ask::Load { aor } => Answer::Bindings(Ok(self.aors.get(&aor).cloned().unwrap_or_default())),
            Ask::UseNonce { nonce, nc, .. } => {
                let last = self.nonces.entry(nonce).or_default();
                let fresh = nc > *last;
                *last = nc.max(*last);
                Answer::Nonce(Ok(fresh))
            }
            Ask::Save { kind, id, owner, value } => Answer::Stored(self.write(kind, id, owner, Some(value))),
            Ask::Remove { kind, id, owner } => Answer::Stored(self.write(kind, id, owner, None)),
            Ask::Standing { .. } if self.store_down => Answer::Standing(Err(down())),
            Ask::Standing { process } => {
                let taken = self.taken.get(&process).copied().unwrap_or(0);
                Answer::Standing(Ok(Standing { incarnation: self.incarnation, taken }))
            }
            Ask::Owners if self.store_down => Answer::Owners(Err(down())),
            Ask::Owners => {
                let owners: BTreeSet<ProcessId> = self.owners.values().map(|owner| owner.process).collect();
                Answer::Owners(Ok(owners.into_iter().collect()))
            }
            Ask::Owned { .. } if self.store_down => Answer::Owned(Err(down())),
            Ask::Owned { process } => {
                let of = self.owners.iter().filter(|(_, owner)| owner.process == process);
                let key = |((kind, id), owner): (&(String, String), &Owner)| Key {
                    kind: kind.clone(),
                    id: id.clone(),
                    owner: *owner,
                };
                Answer::Owned(Ok(of.map(key).collect()))
            }
            Ask::Take { .. } if self.store_down => Answer::Taken(Err(down())),
            Ask::Take { records, to } => Answer::Taken(self.take_records(&records, to)),
            Ask::Record { .. } if self.store_down => Answer::Record(Err(down())),
            Ask::Record { kind, id } => Answer::Record(Ok(self.owners.get(&(kind.into(), id)).copied())),
            Ask::Notify { webhook, body, hold } => {
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(
                    (body["id"].as_str(), webhook.url.as_str()),
                    (Some(hold.as_str()), "http://127.0.0.1:9/wake")
                );
                self.notices.push(body);
                Answer::Notified(self.receiver.clone())
            }
            Ask::Media { relay, .. } if self.silent.contains(&relay) => Answer::NoRelay("no answer".into()),
            Ask::Media { relay, command } => Answer::Sdp(self.media(relay, &command)),
        }
    }

    fn write(&mut self, kind: &str, id: String, owner: Owner, value: Option<Bytes>) -> Result<(), StoreError> {
        let name = (kind.to_owned(), id);
        if self.owners.get(&name).is_some_and(|s| s.epoch > owner.epoch || (s.epoch == owner.epoch && *s != owner)) {
            return Err(StoreError::Conflict);
        }
        match value {
            Some(value) => {
                self.writes += 1;
                self.owners.insert(name.clone(), owner);
                self.records.insert(name, value);
            }
            None => {
                self.owners.remove(&name);
                self.records.remove(&name);
            }
        }
        Ok(())
    }

    fn take_records(&mut self, wanted: &[Key], to: ProcessId) -> Result<Vec<Stored>, StoreError> {
        let name = |key: &Key| (key.kind.clone(), key.id.clone());
        if !wanted.iter().all(|key| self.owners.get(&name(key)) == Some(&key.owner)) {
            return Err(StoreError::Conflict);
        }
        let mut stored = Vec::new();
        for key in wanted {
            let owner = key.owner.taken_by(to);
            self.owners.insert(name(key), owner);
            *self.taken.entry(key.owner.process).or_default() += 1;
            stored.push(Stored { key: Key { owner, ..key.clone() }, value: self.records[&name(key)].clone() });
        }
        Ok(stored)
    }

    fn media(&mut self, relay: ProcessId, command: &ng::Command) -> Result<String, String> {
        if self.relay_down {
            return Err("down".into());
        }
        let known = |call: &str| self.relay.keys().any(|(at, c, _)| *at == relay && c == call);
        match command {
            ng::Command::Ping => Ok(String::new()),
            ng::Command::Query(q) if !known(&q.call_id) => Err("unknown call-id".into()),
            ng::Command::Query(q) => {
                self.claims.push((relay, q.owner.clone().unwrap()));
                Ok(String::new())
            }
            ng::Command::Answer(d) if self.full.contains(&relay) && !known(&d.call_id) => Err("unknown call-id".into()),
            ng::Command::Offer(d) if self.full.contains(&relay) && !known(&d.call_id) => Err("too many calls".into()),
            ng::Command::Offer(d) => Ok(self.describe(relay, d, d.to_tag.as_deref().unwrap())),
            ng::Command::Answer(d) => {
                let joined = (relay, d.call_id.clone(), d.to_tag.clone().unwrap());
                assert!(self.relay.contains_key(&joined), "an answer without an offer: {d:?}");
                Ok(self.describe(relay, d, &d.from_tag))
            }
            ng::Command::Delete(d) => {
                match &d.from_tag {
                    Some(tag) => {
                        let there = self.relay.remove(&(relay, d.call_id.clone(), tag.clone())).is_some();
                        // One that refused the call knows nothing of its legs.
                        assert!(d.leg && (there || self.full.contains(&relay)), "{d:?}")
                    }
                    None => self.relay.retain(|(at, call, _), _| *at != relay || *call != d.call_id),
                }
                Ok(String::new())
            }
            other => panic!("{other:?}"),
        }
    }

    /// The description for `reader`, at its own port.
    fn describe(&mut self, relay: ProcessId, d: &ng::Description, reader: &str) -> String {
        assert_eq!(d.owner, Some(self.me.to_string()));
        let next = &mut self.next_port;
        let mut port_of = |leg: &str| {
            *self.relay.entry((relay, d.call_id.clone(), leg.to_owned())).or_insert_with(|| {
                *next += 4;
                *next
            })
        };
        port_of(&d.from_tag);
        let port = port_of(reader);
        let mut session = Session::parse(&d.sdp).unwrap();
        session.set_address("127.0.0.9".parse().unwrap());
        for (at, media) in session.media.iter_mut().enumerate().filter(|(_, m)| m.is_active()) {
            media.port = port + 2 * at as u16;
        }
        session.to_string()
    }

    /// Time goes by; what is due happens when it is due.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(due) = self.core.deadline().filter(|d| *d <= end.mono) {
            let step = due.saturating_sub(self.now.mono);
            self.now = self.now.plus(step);
            self.input(Input::Tick);
        }
        self.now = end;
        self.input(Input::Tick);
    }

    pub(crate) fn seconds(&mut self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    // --- messages ---

    pub(crate) fn receive(&mut self, bytes: Bytes) {
        self.input(Input::Message(&Inside { from: self.edge, service: Service::Balancer, bytes }));
    }

    pub(crate) fn receive_from(&mut self, from: ProcessId, service: Service, bytes: Bytes) {
        self.input(Input::Message(&Inside { from, service, bytes }));
    }

    pub(crate) fn unique(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{}", self.next)
    }

    pub(crate) fn balancer_via(&mut self) -> String {
        let branch = self.unique("z9hG4bKb");
        format!("SIP/2.0/TCP {};branch={branch}", hop::host(Service::Balancer, BALANCER))
    }

    /// Takes the first message of the wire that `wanted` picks.
    pub(crate) fn take_if(&mut self, wanted: impl Fn(&Message<'_>) -> bool) -> Option<Bytes> {
        let at = self.wire.iter().position(|(_, b)| wanted(&Message::parse_stream(b).unwrap()))?;
        self.wire.remove(at).map(|(_, b)| b)
    }

    #[track_caller]
    pub(crate) fn take(&mut self, wanted: impl Fn(&Message<'_>) -> bool, what: &str) -> Bytes {
        match self.take_if(wanted) {
            Some(bytes) => bytes,
            None => panic!("no {what}; on the wire: {:#?}", self.lines()),
        }
    }

    /// Takes a request of this method.
    #[track_caller]
    pub(crate) fn request(&mut self, method: &str) -> Bytes {
        self.take(|m| m.method().is_some_and(|x| x.as_str() == method), method)
    }

    /// Takes a request of this method to the phone of this name.
    #[track_caller]
    pub(crate) fn request_to(&mut self, method: &str, name: &str) -> Bytes {
        let start = format!("sip:{name}@");
        let fits = |m: &Message<'_>| {
            m.method().is_some_and(|x| x.as_str() == method) && m.uri().is_some_and(|u| u.starts_with(&start))
        };
        self.take(fits, &format!("{method} to {name}"))
    }

    /// Takes a response with this status to this method.
    #[track_caller]
    pub(crate) fn response(&mut self, status: u16, method: &str) -> Bytes {
        let fits = |m: &Message<'_>| m.status() == Some(status) && m.cseq().unwrap().method.as_str() == method;
        self.take(fits, &format!("{status} to {method}"))
    }

    /// First lines of all that is on the wire.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.wire.iter().map(|(_, b)| String::from_utf8_lossy(b).lines().next().unwrap().to_owned()).collect()
    }

    #[track_caller]
    pub(crate) fn quiet(&self) {
        assert!(self.wire.is_empty(), "{:#?}", self.lines());
    }

    /// Everything is gone: after the last transactions lingered.
    #[track_caller]
    pub(crate) fn empty(&mut self) {
        self.seconds(200);
        assert_eq!(self.core.load(), crate::Load::default());
        assert!(self.records.is_empty(), "{:?}", self.records.keys());
        assert!(self.relay.is_empty(), "{:?}", self.relay);
        assert!(self.core.is_idle());
    }

    /// Why the last call ended: cause and words.
    #[track_caller]
    pub(crate) fn ended(&self) -> (u8, String) {
        match self.events.iter().rev().find_map(|e| match &e.kind {
            CallEventKind::Ended { cause, reason } => Some((*cause, reason.clone())),
            _ => None,
        }) {
            Some(end) => end,
            None => panic!("not ended: {:?}", self.events),
        }
    }

    pub(crate) fn media_timeout(&mut self) {
        let call = self.events.last().unwrap().call.clone();
        let event = MediaEvent { seq: 1, call, tag: None, kind: MediaEventKind::SessionTimeout };
        self.input(Input::Media { relay: RELAY, event: &event });
    }
}
