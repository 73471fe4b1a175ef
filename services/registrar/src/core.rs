//! The registrar without IO: requests, finished look-ups and time in; answers, look-ups to make and the next
//! deadline out.
//!
//! A REGISTER goes through: hop and method, Require, digest, nonce count (store), AOR, load (store), rules, swap
//! (store; on conflict load again), answer. Whatever the store does, the phone has its answer within
//! [`Settings::store_timeout`].

use crate::auth::{Authenticator, Verdict};
use crate::directory::Directory;
use crate::recent::{Known, Recent};
use crate::refill::{self, Written};
use crate::reply::{ALLOW, Reply, SUPPORTED};
use crate::save::{Refusal, Register, save};
use crate::{read, sweep};
use bytes::Bytes;
use contract::config::AorEntry;
use contract::hop::{self, Hop, Inside};
use contract::location::{Aor, Binding, Revision, StoreError};
use contract::peers::Peers;
use contract::records::Standing;
use contract::{Flow, KeyRing, Now, ProcessId};
use rand::{Rng, RngCore};
use runtime::store::AorHint;
use sip::digest::Algorithm;
use sip::{Message, Method, Name};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// What does not come with the snapshot.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Own and advertised addresses and names, beside the `domains` of the installation.
    pub own_hosts: Vec<String>,
    /// Nonces older than this are stale.
    pub nonce_max_age: Duration,
    /// Digest algorithms offered, the first preferred by those phones that know more than one.
    pub algorithms: Vec<Algorithm>,
    /// A request that the store has not settled by then is answered 503.
    pub store_timeout: Duration,
    /// Requests that may wait for the store at once; more are answered 503.
    pub limit: usize,
    /// Answers remembered for retransmissions.
    pub recent: usize,
    /// How often expired bindings are looked for.
    pub sweep_interval: Duration,
    /// AORs that are remembered, to be written again should the store lose them.
    pub known: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            own_hosts: Vec::new(),
            nonce_max_age: Duration::from_secs(300),
            // Phones that know only MD5 are many, and some of them (libre before 2, SIPp) give up when SHA-256 is
            // offered first or at all; Asterisk offers MD5 alone too. SHA-256 credentials are accepted in any case.
            algorithms: vec![Algorithm::Md5],
            store_timeout: Duration::from_millis(900),
            limit: 4096,
            recent: 16_384,
            sweep_interval: Duration::from_secs(2),
            known: 200_000,
        }
    }
}

/// A look-up under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// What comes in.
#[derive(Debug)]
pub enum Input {
    /// A SIP message from another process.
    Message(Inside),
    /// The answer to [`Output::UseNonce`]: true if this count is new.
    NonceUsed(LookupId, Result<bool, StoreError>),
    /// The answer to [`Output::Load`].
    Loaded(LookupId, Result<Aor, StoreError>),
    /// The answer to [`Output::Swap`].
    Swapped(LookupId, Result<Revision, StoreError>),
    /// The answer to [`Output::FindExpired`].
    Expired(Result<Vec<String>, StoreError>),
    /// The answer to [`Output::Standing`].
    Standing(Result<Standing, StoreError>),
    /// Somebody may have written an AOR.
    Hint(AorHint),
    /// The configuration changed.
    Configured(Arc<Directory>),
    /// The peers changed.
    Peers(Arc<Peers>),
    /// No new work is to be taken.
    Drain,
    /// A deadline came.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send to a process.
    Send {
        /// Which.
        to: ProcessId,
        /// The message.
        bytes: Bytes,
    },
    /// Note a nonce's use, to be kept for `ttl` seconds.
    UseNonce(LookupId, String, u32, u64),
    /// Load an AOR.
    Load(LookupId, String),
    /// Write an AOR.
    Swap(LookupId, String, Revision, Vec<Binding>),
    /// Find at most so many AORs that have expired bindings.
    FindExpired(usize),
    /// Ask how this process stands with the store.
    Standing,
    /// Count an answer or another event, by a word of a small fixed set.
    Count(&'static str),
}

enum Job {
    Register(Box<Work>),
    /// An AOR whose expired bindings are to go, and what is left of it.
    Sweep(String, Vec<Binding>),
    /// An AOR that the store may have lost, and what is written again.
    Refill(String, Vec<Binding>),
}

/// A REGISTER that waits for the store.
struct Work {
    from: ProcessId,
    bytes: Bytes,
    key: String,
    to_tag: String,
    aor: String,
    rules: AorEntry,
    register: Register,
    /// What the AOR will be once the swap is through.
    saved: Vec<Binding>,
}

/// The state machine. See the module's description.
pub struct Core {
    process: ProcessId,
    settings: Settings,
    keys: Arc<KeyRing>,
    auth: Authenticator,
    directory: Arc<Directory>,
    peers: Arc<Peers>,
    draining: bool,
    jobs: HashMap<LookupId, Job>,
    /// In order of time; entries of finished jobs stay until they are due.
    due: VecDeque<(Duration, LookupId)>,
    next_id: u64,
    recent: Recent,
    next_sweep: Duration,
    written: Written,
    next_look: Duration,
    /// The store was asked how we stand.
    asked: bool,
    out: VecDeque<Output>,
}

impl Core {
    /// A registrar without configuration: it answers 503 until [`Input::Configured`].
    pub fn new(process: ProcessId, settings: Settings, keys: Arc<KeyRing>) -> Self {
        Self {
            process,
            auth: Authenticator::new(&keys, settings.nonce_max_age, settings.algorithms.clone()),
            recent: Recent::new(settings.recent.max(1)),
            written: Written::new(settings.known),
            settings,
            keys,
            directory: Arc::default(),
            peers: Arc::default(),
            draining: false,
            jobs: HashMap::new(),
            due: VecDeque::new(),
            next_id: 0,
            next_sweep: Duration::ZERO,
            next_look: Duration::ZERO,
            asked: false,
            out: VecDeque::new(),
        }
    }

    /// Takes one input; drain [`Core::poll`] afterwards.
    pub fn handle(&mut self, input: Input, now: Now, rng: &mut dyn RngCore) {
        self.auth.follow(&self.keys);
        match input {
            Input::Message(inside) => self.message(inside, now, rng),
            Input::NonceUsed(id, used) => self.nonce_used(id, used, now, rng),
            Input::Loaded(id, loaded) => self.loaded(id, loaded, now, rng),
            Input::Swapped(id, swapped) => self.swapped(id, swapped, now, rng),
            Input::Expired(found) => self.expired(found, now),
            Input::Standing(standing) => {
                self.asked = false;
                self.written.stands(standing.ok());
            }
            Input::Hint(hint) => self.written.hinted(&hint),
            Input::Configured(directory) => self.directory = directory,
            Input::Peers(peers) => self.peers = peers,
            Input::Drain => self.draining = true,
            Input::Tick => {}
        }
        self.timers(now, rng);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When to come again with [`Input::Tick`], on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        let due = self.due.front().map(|(at, _)| *at);
        [due, Some(self.next_sweep), Some(self.next_look)].into_iter().flatten().min()
    }

    /// Requests that wait for the store.
    pub fn under_way(&self) -> usize {
        self.jobs.len()
    }

    fn message(&mut self, inside: Inside, now: Now, rng: &mut dyn RngCore) {
        let to_tag = format!("{:016x}", rng.next_u64());
        let message = match Message::parse_stream(&inside.bytes) {
            Ok(message) if !message.is_request() => return self.count("stray_response"),
            Ok(message) => message,
            Err(_) => return self.count("unreadable"),
        };
        let answer = |this: &mut Self, reply: Reply| this.answer(inside.from, &message, &reply);
        if message.method() == Some(Method::Ack) {
            return self.count("stray_ack");
        }
        if let Err(error) = message.validate() {
            if let Some(status) = error.status() {
                answer(self, Reply::new(status, to_tag).reason(error.to_string()));
            }
            return;
        }
        let Some(flow) = self.flow_of(&message) else {
            return answer(self, Reply::new(403, to_tag));
        };
        match message.method() {
            Some(Method::Register) => {}
            Some(Method::Options) => {
                let reply = Reply::new(200, to_tag).header(Name::Allow, ALLOW).header(Name::Supported, SUPPORTED);
                return answer(self, reply);
            }
            // Nothing here stays open long enough to be cancelled (RFC 3261 9.2).
            Some(Method::Cancel) => return answer(self, Reply::new(481, to_tag)),
            _ => return answer(self, Reply::new(405, to_tag).header(Name::Allow, ALLOW)),
        }
        if self.draining || self.directory.is_unset() {
            return answer(self, Reply::new(503, to_tag));
        }
        let unknown: Vec<&str> =
            message.values(Name::Require).filter(|o| !o.eq_ignore_ascii_case(SUPPORTED)).take(16).collect();
        if !unknown.is_empty() {
            return answer(self, Reply::new(420, to_tag).header(Name::Unsupported, unknown.join(", ")));
        }
        let (endpoint, nonce, nc) = match self.auth.judge(&message, &self.directory, now.wall) {
            Verdict::Challenge { stale } => {
                let reply = self.challenge(to_tag, stale, now, rng);
                return answer(self, reply);
            }
            Verdict::Proven { endpoint, nonce, nc } => (endpoint, nonce, nc),
        };
        if let Some(reply) = self.refuse_aor(&message, &endpoint.name, &flow, &to_tag) {
            return answer(self, reply);
        }
        let register = match read::read(&message, flow) {
            Ok(register) => register,
            Err(error) => return answer(self, Reply::new(400, to_tag).reason(error.to_string())),
        };
        if self.jobs.len() >= self.settings.limit {
            self.count("overflow");
            let reply = unavailable(to_tag, rng);
            return answer(self, reply);
        }
        let key = Recent::key(&message);
        match self.recent.begin(&key, now.mono) {
            Some(Known::UnderWay) => return self.count("repeated"),
            Some(Known::Answered(reply)) => {
                self.count("repeated");
                return answer(self, Reply::clone(&reply));
            }
            None => {}
        }
        let work = Work {
            from: inside.from,
            bytes: inside.bytes.clone(),
            key,
            to_tag,
            aor: endpoint.name.clone(),
            rules: endpoint.aor.clone(),
            register,
            saved: Vec::new(),
        };
        let id = self.begin(Job::Register(Box::new(work)), now);
        // As long as the nonce would be taken, and what clocks may differ.
        let ttl = self.auth.max_age().as_secs() + 60;
        self.out.push_back(Output::UseNonce(id, nonce, nc, ttl));
    }

    /// The flow that a balancer of ours says the request came on.
    fn flow_of(&self, message: &Message<'_>) -> Option<Flow> {
        let (call_id, cseq) = (message.call_id().ok()?, message.cseq().ok()?);
        let cseq = format!("{} {}", cseq.number, cseq.method.as_str());
        Hop::open(message.other(hop::HEADER)?, &self.keys, call_id, &cseq).map(|hop| hop.flow)
    }

    /// Holds To to the authenticated user: AOR = endpoint's name, whatever the host.
    fn refuse_aor(&self, message: &Message<'_>, own: &str, flow: &Flow, to_tag: &str) -> Option<Reply> {
        let refuse = |status| Some(Reply::new(status, to_tag.to_owned()));
        let Some(uri) = message.to().ok().and_then(|to| to.uri_parsed().ok()).filter(|u| u.is_sip()) else {
            return refuse(404);
        };
        let local = flow.local.ip().to_string();
        let host = uri.host.to_string();
        let own_hosts = self.settings.own_hosts.iter().map(String::as_str).chain([local.as_str()]);
        if !self.directory.is_ours(host.trim_start_matches('[').trim_end_matches(']'), own_hosts) {
            return refuse(404);
        }
        match uri.user_unescaped() {
            user if user == own => None,
            user if self.directory.endpoint(&user).is_some() => refuse(403),
            _ => refuse(404),
        }
    }

    fn nonce_used(&mut self, id: LookupId, used: Result<bool, StoreError>, now: Now, rng: &mut dyn RngCore) {
        let Some(Job::Register(work)) = self.jobs.get(&id) else { return };
        match used {
            Ok(true) => self.out.push_back(Output::Load(id, work.aor.clone())),
            Ok(false) => {
                let reply = self.challenge(work.to_tag.clone(), true, now, rng);
                self.count("replayed_nonce");
                self.finish(id, reply);
            }
            Err(_) => self.store_failed(id, rng),
        }
    }

    fn loaded(&mut self, id: LookupId, loaded: Result<Aor, StoreError>, now: Now, rng: &mut dyn RngCore) {
        let Ok(aor) = loaded else { return self.store_failed(id, rng) };
        match self.jobs.get_mut(&id) {
            Some(Job::Register(work)) => {
                let (peers, current) = (&self.peers, work.register.flow.process);
                let gone = |flow: &Flow| {
                    flow.transport.is_reliable() && flow.process != current && peers.get(flow.process).is_none()
                };
                match save(&aor.bindings, &work.register, &work.rules, now.unix(), &gone) {
                    Ok(saved) if saved.changed => {
                        work.saved = saved.bindings.clone();
                        let swap = Output::Swap(id, work.aor.clone(), aor.revision, saved.bindings);
                        self.out.push_back(swap);
                    }
                    Ok(saved) => {
                        work.saved = saved.bindings;
                        self.written.wrote(&work.aor, aor.revision, &work.saved);
                        self.registered(id, now);
                    }
                    Err(refusal) => {
                        let reply = Reply::new(500, work.to_tag.clone());
                        let reply = match refusal {
                            Refusal::TooManyContacts => Reply { status: 403, ..reply }.reason("Too many contacts"),
                            Refusal::OutOfOrder => reply.reason("Older than what was registered"),
                            Refusal::IntervalTooBrief(least) => {
                                Reply { status: 423, ..reply }.header(Name::MinExpires, least.to_string())
                            }
                        };
                        self.finish(id, reply);
                    }
                }
            }
            Some(Job::Refill(name, missing)) => match self.written.missing(name, &aor, now.unix()) {
                Some(bindings) => {
                    missing.clone_from(&bindings);
                    let swap = Output::Swap(id, name.clone(), aor.revision, bindings);
                    self.out.push_back(swap);
                }
                None => {
                    self.jobs.remove(&id);
                }
            },
            Some(Job::Sweep(name, kept)) => match sweep::left(&aor.bindings, now.unix()) {
                Some(left) => {
                    kept.clone_from(&left);
                    let swap = Output::Swap(id, name.clone(), aor.revision, left);
                    self.out.push_back(swap);
                }
                None => {
                    self.jobs.remove(&id);
                }
            },
            None => {}
        }
    }

    fn swapped(&mut self, id: LookupId, swapped: Result<Revision, StoreError>, now: Now, rng: &mut dyn RngCore) {
        match (self.jobs.get(&id), swapped) {
            (Some(Job::Register(work)), Ok(revision)) => {
                self.written.wrote(&work.aor, revision, &work.saved);
                self.registered(id, now);
            }
            // Somebody else wrote first: the same rules over what stands there now. The deadline bounds this.
            (Some(Job::Register(work)), Err(StoreError::Conflict)) => {
                self.out.push_back(Output::Load(id, work.aor.clone()));
                self.count("conflict");
            }
            (Some(Job::Sweep(name, left) | Job::Refill(name, left)), Ok(revision)) => {
                let refilled = matches!(self.jobs.get(&id), Some(Job::Refill(..)));
                self.written.wrote(name, revision, left);
                self.jobs.remove(&id);
                self.count(if refilled { "refilled" } else { "expired" });
            }
            // Whoever wrote removed what was expired, or knows better; if not, the next look does.
            (Some(Job::Sweep(..) | Job::Refill(..)), Err(_)) => {
                self.jobs.remove(&id);
            }
            (_, Err(_)) => self.store_failed(id, rng),
            (None, Ok(_)) => {}
        }
    }

    fn expired(&mut self, found: Result<Vec<String>, StoreError>, now: Now) {
        let Ok(found) = found else { return };
        if found.len() >= sweep::BATCH {
            // More are waiting.
            self.next_sweep = now.mono + self.settings.sweep_interval / 20;
        }
        for aor in found.into_iter().take(sweep::BATCH) {
            let id = self.begin(Job::Sweep(aor.clone(), Vec::new()), now);
            self.out.push_back(Output::Load(id, aor));
        }
    }

    fn timers(&mut self, now: Now, rng: &mut dyn RngCore) {
        while let Some(&(at, id)) = self.due.front()
            && at <= now.mono
        {
            self.due.pop_front();
            if self.jobs.contains_key(&id) {
                self.count("store_timeout");
                self.store_failed(id, rng);
            }
        }
        self.look(now);
        if self.next_sweep <= now.mono {
            self.next_sweep = now.mono + self.settings.sweep_interval;
            if sweep::is_mine(&self.peers, self.process) {
                self.out.push_back(Output::FindExpired(sweep::BATCH));
            }
        }
    }

    /// Asks whether the store lost anything, and looks at some of what it may have lost.
    fn look(&mut self, now: Now) {
        if self.next_look > now.mono {
            return;
        }
        self.next_look = now.mono + refill::PERIOD;
        if !std::mem::replace(&mut self.asked, true) {
            self.out.push_back(Output::Standing);
        }
        for aor in self.written.due() {
            let id = self.begin(Job::Refill(aor.clone(), Vec::new()), now);
            self.out.push_back(Output::Load(id, aor));
        }
    }

    fn begin(&mut self, job: Job, now: Now) -> LookupId {
        self.next_id += 1;
        let id = LookupId(self.next_id);
        self.jobs.insert(id, job);
        self.due.push_back((now.mono + self.settings.store_timeout, id));
        id
    }

    fn challenge(&self, to_tag: String, stale: bool, now: Now, rng: &mut dyn RngCore) -> Reply {
        let values = self.auth.challenges(&self.directory.pbx.realm, stale, now.wall, rng);
        values.into_iter().fold(Reply::new(401, to_tag), |r, value| r.header(Name::WwwAuthenticate, value))
    }

    fn registered(&mut self, id: LookupId, now: Now) {
        let Some(Job::Register(work)) = self.jobs.get(&id) else { return };
        let reply = Reply::registered(work.to_tag.clone(), &work.saved, &work.register.path, now.wall);
        self.finish(id, reply);
    }

    fn store_failed(&mut self, id: LookupId, rng: &mut dyn RngCore) {
        match self.jobs.get(&id) {
            Some(Job::Register(work)) => {
                let reply = unavailable(work.to_tag.clone(), rng);
                self.finish(id, reply);
            }
            _ => {
                self.jobs.remove(&id);
            }
        }
    }

    fn finish(&mut self, id: LookupId, reply: Reply) {
        let Some(Job::Register(work)) = self.jobs.remove(&id) else { return };
        // It was parsed when it came.
        let Ok(message) = Message::parse_stream(&work.bytes) else { return };
        self.answer(work.from, &message, &reply);
        self.recent.answered(&work.key, Arc::new(reply));
    }

    fn answer(&mut self, to: ProcessId, message: &Message<'_>, reply: &Reply) {
        self.out.push_back(Output::Send { to, bytes: reply.to(message) });
        self.count(match reply.status {
            200 => "200",
            400 => "400",
            401 => "401",
            403 => "403",
            404 => "404",
            405 => "405",
            420 => "420",
            423 => "423",
            503 => "503",
            _ => "other",
        });
    }

    fn count(&mut self, what: &'static str) {
        self.out.push_back(Output::Count(what));
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "registrar {} with {} jobs", self.process, self.jobs.len())
    }
}

/// 503, the phones spread over the next half minute (ARCHITECTURE.md).
fn unavailable(to_tag: String, rng: &mut dyn RngCore) -> Reply {
    Reply::new(503, to_tag).header(Name::RetryAfter, rng.random_range(5..=30).to_string())
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
