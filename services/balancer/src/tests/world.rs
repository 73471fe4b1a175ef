//! A small installation in virtual time: balancers that share one address, a router and a registrar that do what such
//! services do on the wire, a phone, and the seeded network between the phone and the address.

use super::*;
use sip::header::NameAddr;
use sip::net_emulator::{Conditions, Network};
use sip::transaction::{self, Received, ServerId, Transactions};
use sip::{Method, uri::Uri};
use std::collections::{HashMap, VecDeque};

/// A router or registrar, reduced to its transactions: rings, answers, refuses by the number dialled.
pub(super) struct Service1 {
    pub(super) process: ProcessId,
    transactions: Transactions<ProcessId>,
    /// New requests in order: method, and Call-ID with CSeq number.
    pub(super) log: Vec<(String, String)>,
    ringing: HashMap<ServerId, Bytes>,
    /// 200s without ACK: Call-ID, transaction, bytes, when to send again, how often that was done.
    unacknowledged: Vec<(String, ServerId, Bytes, Duration, u32)>,
}

impl Service1 {
    fn new(process: ProcessId) -> Self {
        Self {
            process,
            // Behind several balancers a copy may come late, by another of them.
            transactions: Transactions::new(transaction::Timers { linger: true, ..Default::default() }, 1000),
            log: Vec::new(),
            ringing: HashMap::new(),
            unacknowledged: Vec::new(),
        }
    }

    pub(super) fn count(&self, method: &str) -> usize {
        self.log.iter().filter(|(m, _)| m == method).count()
    }

    fn note(&mut self, message: &Message<'_>) {
        let cseq = message.cseq().unwrap();
        self.log.push((cseq.method.as_str().to_owned(), format!("{} {}", message.call_id().unwrap(), cseq.number)));
    }

    fn receive(&mut self, from: ProcessId, bytes: &Bytes, now: Duration) {
        let message = Message::parse(bytes).unwrap();
        match self.transactions.receive(&message, bytes, from, true, now) {
            Received::Request(server) => {
                self.note(&message);
                self.serve(server, &message, bytes, now);
            }
            Received::Cancel { cancel, invite } => {
                self.note(&message);
                let rung = invite.and_then(|i| self.ringing.remove(&i).map(|b| (i, b)));
                let status = if invite.is_some() { 200 } else { 481 };
                self.transactions.respond(cancel, answer(bytes, status, &[]), now);
                if let Some((server, invite)) = rung {
                    self.transactions.respond(server, answer(&invite, 487, &[]), now);
                }
            }
            Received::Ack2xx => {
                self.note(&message);
                let call = message.call_id().unwrap();
                self.unacknowledged.retain(|(c, ..)| c != call);
            }
            _ => {}
        }
    }

    fn serve(&mut self, server: ServerId, message: &Message<'_>, bytes: &Bytes, now: Duration) {
        let user = Uri::parse(message.uri().unwrap()).unwrap().user.unwrap_or_default().to_owned();
        match (message.method().unwrap(), user.as_str()) {
            (Method::Register, _) if message.header(Name::Authorization).is_none() => {
                self.transactions.respond(
                    server,
                    answer(bytes, 401, &[(Name::WwwAuthenticate, "Digest realm=\"x\"")]),
                    now,
                );
            }
            (Method::Invite, "busy") => _ = self.transactions.respond(server, answer(bytes, 486, &[]), now),
            (Method::Invite, "slow") => _ = self.ringing.insert(server, bytes.clone()),
            (Method::Invite, user) => {
                self.transactions.respond(server, answer(bytes, 180, &[]), now);
                if user == "ring" {
                    self.ringing.insert(server, bytes.clone());
                    return;
                }
                let leg = contract::leg::LegToken { process: self.process, leg: "leg".into() }.seal(&keys());
                let contact = format!("<sip:{leg}@{VIP}>");
                let ok = answer(bytes, 200, &[(Name::Contact, &contact)]);
                self.transactions.respond(server, ok.clone(), now);
                let call = message.call_id().unwrap().to_owned();
                self.unacknowledged.push((call, server, ok, now + Duration::from_millis(500), 0));
            }
            _ => _ = self.transactions.respond(server, answer(bytes, 200, &[]), now),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let again = self.unacknowledged.iter().map(|u| u.3).min();
        self.transactions.deadline().into_iter().chain(again).min()
    }

    fn poll(&mut self, now: Duration) -> Vec<(ProcessId, Bytes)> {
        for (_, server, bytes, at, times) in &mut self.unacknowledged {
            if *at <= now {
                self.transactions.respond(*server, bytes.clone(), now);
                *times += 1;
                *at = now + Duration::from_millis(500 << (*times).min(3));
            }
        }
        self.unacknowledged.retain(|u| u.4 < 12);
        let mut out = Vec::new();
        while let Some(done) = self.transactions.poll(now) {
            if let transaction::Output::Transmit { to, bytes } = done {
                out.push((to, bytes));
            }
        }
        out
    }
}

/// A phone with one registration or call at a time.
pub(super) struct Phone {
    transactions: Transactions<SocketAddr>,
    /// Responses passed up: method, status.
    pub(super) heard: Vec<(String, u16)>,
    /// The last 2xx to an INVITE.
    pub(super) established: Option<Bytes>,
    /// Requests that were given up.
    pub(super) timeouts: usize,
    invite: Option<transaction::ClientId>,
    branch: u32,
}

impl Phone {
    /// The last final status to a request of this method.
    pub(super) fn final_status(&self, method: &str) -> Option<u16> {
        self.heard.iter().rev().find(|(m, s)| m == method && *s >= 200).map(|(_, s)| *s)
    }

    pub(super) fn has_heard(&self, method: &str, status: u16) -> bool {
        self.heard.iter().any(|(m, s)| m == method && *s == status)
    }
}

/// All of it.
pub(super) struct World {
    pub(super) rigs: Vec<Rig>,
    pub(super) services: Vec<Service1>,
    pub(super) phone: Phone,
    pub(super) net: Network<SocketAddr>,
    now: Now,
    /// Which balancer gets the next packet for the address.
    next: usize,
    /// If false the first balancer gets all of them.
    pub(super) alternate: bool,
    inside: VecDeque<(ProcessId, Inside)>,
    /// Processes that are gone: what is sent to them is lost, and their sockets with it.
    gone: Vec<ProcessId>,
}

impl World {
    pub(super) fn new(seed: u64, conditions: Conditions, entries: Vec<BalancerEntry>) -> Self {
        let mut rigs: Vec<Rig> = [BALANCER, OTHER]
            .map(|process| {
                let mut rig = Rig::new(entries.clone());
                let listeners = Listeners::new(vec![(Transport::Udp, addr(VIP))], None);
                rig.core = Core::new(Owner { process, shard: 0 }, listeners, Limits::default());
                rig.peers.0.push(Peer::new(Service::Balancer, OTHER));
                rig.rng = StdRng::seed_from_u64(seed ^ process.0);
                rig
            })
            .into();
        let now = rigs[0].now;
        for rig in &mut rigs {
            rig.handle(Input::Changed);
        }
        Self {
            rigs,
            services: [ROUTER, ROUTER2, REGISTRAR].map(Service1::new).into(),
            phone: Phone {
                transactions: Transactions::new(transaction::Timers::default(), 1000),
                heard: Vec::new(),
                established: None,
                timeouts: 0,
                invite: None,
                branch: 0,
            },
            net: Network::new(seed, conditions),
            now,
            next: 0,
            alternate: true,
            inside: VecDeque::new(),
            gone: Vec::new(),
        }
    }

    fn process(index: usize) -> ProcessId {
        [BALANCER, OTHER][index]
    }

    /// A balancer dies: everybody's record of it goes.
    pub(super) fn kill(&mut self, index: usize) {
        let process = Self::process(index);
        self.gone.push(process);
        for (n, rig) in self.rigs.iter_mut().enumerate() {
            rig.peers.0.retain(|p| p.process != process);
            if n != index {
                rig.now = self.now;
                let out = rig.handle(Input::Changed);
                assert!(out.is_empty());
            }
        }
    }

    /// The phone sends a request in a transaction, or an ACK without one.
    pub(super) fn phone_sends(&mut self, method: &str, uri: &str, call: &str, cseq: u32, to_tag: &str, extra: &str) {
        self.phone.branch += 1;
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {PHONE};rport;branch=z9hG4bKphone{}\r\nMax-Forwards: 70\r\n\
             From: <sip:8005@pbx>;tag=f1\r\nTo: <sip:8005@pbx>{to_tag}\r\nCall-ID: {call}\r\nCSeq: {cseq} {method}\r\n\
             Contact: <sip:8005@{PHONE}>\r\n{extra}Content-Length: 0\r\n\r\n",
            self.phone.branch
        );
        let bytes = Bytes::from(text);
        if method == "ACK" {
            self.net.send(addr(PHONE), addr(VIP), bytes, self.now.mono);
            return;
        }
        let client = self.phone.transactions.send(bytes, addr(VIP), false, self.now.mono).unwrap();
        if method == "INVITE" {
            self.phone.invite = Some(client);
        }
    }

    pub(super) fn phone_cancels(&mut self) {
        let bytes = self.phone.transactions.cancel_of(self.phone.invite.unwrap()).unwrap();
        self.phone.transactions.send(bytes, addr(VIP), false, self.now.mono).unwrap();
    }

    /// Route and target of the dialog that a 200 to the phone's INVITE made.
    pub(super) fn dialog(ok: &Bytes) -> (String, String, String) {
        let ok = Message::parse(ok).unwrap();
        let routes: Vec<_> = ok.values(Name::RecordRoute).collect();
        let routes = routes.iter().rev().fold(String::new(), |s, r| format!("{s}Route: {r}\r\n"));
        let contact = NameAddr::parse(ok.header(Name::Contact).unwrap()).unwrap().uri.to_owned();
        (contact, format!(";tag={}", ok.to().unwrap().tag().unwrap()), routes)
    }

    fn phone_receives(&mut self, bytes: &Bytes) {
        let message = Message::parse(bytes).unwrap();
        let mono = self.now.mono;
        if let Received::Response(_) = self.phone.transactions.receive(&message, bytes, addr(VIP), false, mono) {
            let cseq = message.cseq().unwrap();
            let status = message.status().unwrap();
            self.phone.heard.push((cseq.method.as_str().to_owned(), status));
            if cseq.method == Method::Invite && (200..300).contains(&status) {
                // Each copy of the 200 is acknowledged (RFC 3261 13.2.2.4).
                let (target, tag, routes) = Self::dialog(bytes);
                let call = message.call_id().unwrap().to_owned();
                self.phone_sends("ACK", &target, &call, cseq.number, &tag, &routes);
                self.phone.established = Some(bytes.clone());
            }
        }
    }

    fn outputs(&mut self, index: usize, out: Vec<Output>) {
        let from = Self::process(index);
        for output in out {
            match output {
                Output::SendOutside { flow, bytes } => {
                    assert_eq!(flow.local, addr(VIP), "answers leave from the address asked");
                    self.net.send(flow.local, flow.remote, bytes, self.now.mono);
                }
                Output::SendInside { to, bytes } | Output::HandOver { to: Owner { process: to, .. }, bytes } => {
                    self.inside.push_back((to, Inside { from, service: Service::Balancer, bytes }));
                }
            }
        }
    }

    fn handle(&mut self, index: usize, input: Input) {
        self.rigs[index].now = self.now;
        let out = self.rigs[index].handle(input);
        self.outputs(index, out);
    }

    /// Everything that happens without time passing.
    fn settle(&mut self) {
        let mono = self.now.mono;
        loop {
            while let Some(done) = self.phone.transactions.poll(mono) {
                match done {
                    transaction::Output::Transmit { to, bytes } => self.net.send(addr(PHONE), to, bytes, mono),
                    transaction::Output::ClientTimeout(_) => self.phone.timeouts += 1,
                    _ => {}
                }
            }
            for n in 0..self.services.len() {
                let from = self.services[n].process;
                let service = if from == REGISTRAR { Service::Registrar } else { Service::Router };
                for (to, bytes) in self.services[n].poll(mono) {
                    self.inside.push_back((to, Inside { from, service, bytes }));
                }
            }
            if let Some((to, message)) = self.inside.pop_front() {
                if self.gone.contains(&to) || self.gone.contains(&message.from) {
                    continue;
                }
                if let Some(service) = self.services.iter_mut().find(|s| s.process == to) {
                    service.receive(message.from, &message.bytes, mono);
                } else if let Some(index) = [BALANCER, OTHER].iter().position(|p| *p == to) {
                    self.handle(index, Input::Inside(message));
                }
                continue;
            }
            if let Some(packet) = self.net.receive(mono) {
                if packet.to == addr(PHONE) {
                    self.phone_receives(&packet.bytes);
                } else {
                    let mut index = if self.alternate { self.next % 2 } else { 0 };
                    self.next += 1;
                    if self.gone.contains(&Self::process(index)) {
                        index = 1 - index;
                    }
                    let flow = Flow { process: Self::process(index), ..udp(PHONE) };
                    self.handle(
                        index,
                        Input::Outside { bytes: packet.bytes, flow: Flow { remote: packet.from, ..flow } },
                    );
                }
                continue;
            }
            return;
        }
    }

    /// Runs until the condition holds; false if it does not within the time.
    pub(super) fn run(&mut self, limit: Duration, done: impl Fn(&World) -> bool) -> bool {
        let end = self.now.mono + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let cores = self.rigs.iter().enumerate().filter(|(n, _)| !self.gone.contains(&Self::process(*n)));
            let times = cores
                .filter_map(|(_, r)| r.core.deadline())
                .chain(self.services.iter().filter_map(Service1::deadline))
                .chain(self.net.deadline())
                .chain(self.phone.transactions.deadline());
            let Some(next) = times.min().filter(|t| *t <= end) else {
                self.now = self.now.plus(end - self.now.mono);
                self.settle();
                return done(self);
            };
            self.now = self.now.plus(next.saturating_sub(self.now.mono));
            for index in 0..2 {
                if !self.gone.contains(&Self::process(index)) {
                    self.handle(index, Input::Tick);
                }
            }
        }
    }

    pub(super) fn count(&self, method: &str) -> usize {
        self.services.iter().map(|s| s.count(method)).sum()
    }

    pub(super) fn load(&self) -> usize {
        self.rigs.iter().map(|r| r.core.load()).sum()
    }
}
