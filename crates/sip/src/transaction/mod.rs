//! The transaction layer: RFC 3261 17 with RFC 6026, without IO.
//!
//! Contract: call [`Transactions::receive`], [`Transactions::send`], [`Transactions::respond`] as things happen, then drain
//! [`Transactions::poll`] until it returns `None`, then sleep until [`Transactions::deadline`] at the latest and poll again. `now`
//! is monotonic time since an arbitrary start and never goes back.
//!
//! Every transaction ends with exactly one [`Output::ClientDone`] or [`Output::ServerDone`]. ACK for a failure is made here; ACK
//! for a 2xx and the retransmission of a 2xx belong to the dialog ([`crate::dialog`]). What of the RFCs is done and what deviates:
//! `docs/rfc/3261-transactions.md`.

mod client;
mod derived;
mod key;
mod schedule;
mod server;
mod slab;
#[cfg(test)]
mod tests;
mod timers;

pub use derived::overloaded;
pub use key::{MAGIC_COOKIE, is_unique_branch};
pub use timers::Timers;

use crate::message::{Message, Method};
use bytes::Bytes;
use client::Client;
use key::RequestKey;
use schedule::Schedule;
use server::{OnAck, Server};
use slab::{Slab, index_of};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A server transaction: a request that arrived. Never reused while the layer lives (2^32 uses a slot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

/// A client transaction: a request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(u64);

/// What an arrived message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A new request: answer it with [`Transactions::respond`].
    Request(ServerId),
    /// A new CANCEL. Answer `cancel` with 200, or 481 if there is no `invite`; if `invite` has no final answer yet, give it 487.
    Cancel {
        /// The transaction of the CANCEL itself.
        cancel: ServerId,
        /// The transaction that it cancels.
        invite: Option<ServerId>,
    },
    /// An ACK that belongs to no transaction: for a 2xx, so the dialog's.
    Ack2xx,
    /// The ACK for a failure of ours; nothing to do.
    AckAbsorbed,
    /// A response to pass up; also each further 2xx to an INVITE.
    Response(ClientId),
    /// A response that matches nothing: a proxy forwards it by its next Via, a user agent drops it, but ACKs a 2xx of its dialogs.
    StrayResponse,
    /// A retransmission; what there was to send again comes from `poll`.
    Absorbed,
    /// The table is full: answer with [`overloaded`].
    Overflow,
    /// Top Via, CSeq or another field that matching needs is missing or malformed.
    Invalid,
}

/// Why a request was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The table is full.
    #[error("transaction table is full")]
    Overflow,
    /// Not a request, or an ACK, or without a branch of RFC 3261.
    #[error("not a request that can have a client transaction")]
    Invalid,
    /// A transaction of this branch and method is under way.
    #[error("branch is in use")]
    Duplicate,
}

/// What the layer wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<H> {
    /// Send these bytes to this hop.
    Transmit {
        /// Where to.
        to: H,
        /// The whole message.
        bytes: Bytes,
    },
    /// Timer B or F, or 64*T1 after a CANCEL: treat as 408 (8.1.3.1). `ClientDone` follows.
    ClientTimeout(ClientId),
    /// Timer C fired (16.8): cancel the branch. It fires again if that does not happen.
    TimerC(ClientId),
    /// The request could not be sent: treat as 503 (8.1.3.1). `ClientDone` follows.
    TransportFailed(ClientId),
    /// Timer H: our failure was never acknowledged. `ServerDone` follows.
    NoAck(ServerId),
    /// The transaction left the table.
    ClientDone(ClientId),
    /// The transaction left the table.
    ServerDone(ServerId),
}

#[derive(Debug)]
enum Entry<H> {
    Client(Client<H>),
    Server(Server<H>),
}

/// The table of all transactions of one shard. `H` is the hop: whatever the driver addresses bytes with.
#[derive(Debug)]
pub struct Transactions<H: Clone> {
    timers: Timers,
    limit: usize,
    table: Slab<Entry<H>>,
    clients: HashMap<Box<str>, u64>,
    servers: HashMap<Box<str>, u64>,
    schedule: Schedule,
    out: VecDeque<Output<H>>,
    scratch: String,
    dropped: u64,
}

impl<H: Clone + PartialEq> Transactions<H> {
    /// An empty table that holds at most `limit` transactions (and for each INVITE in it one CANCEL beyond).
    pub fn new(timers: Timers, limit: usize) -> Self {
        Transactions {
            timers: timers.sane(),
            limit,
            table: Slab::new(),
            clients: HashMap::new(),
            servers: HashMap::new(),
            schedule: Schedule::default(),
            out: VecDeque::new(),
            scratch: String::new(),
            dropped: 0,
        }
    }

    /// A message arrived from `from`; answers to it go there. `bytes` is what `msg` was parsed from and is kept. `reliable` is true
    /// for TCP, TLS, WS.
    pub fn receive(&mut self, msg: &Message<'_>, bytes: &Bytes, from: H, reliable: bool, now: Duration) -> Received {
        match msg.status() {
            Some(status) => self.receive_response(status, msg, now),
            None => self.receive_request(msg, bytes, from, reliable, now).unwrap_or(Received::Invalid),
        }
    }

    /// True if this request, but for ACK, belongs to a server transaction that is here.
    pub fn knows(&mut self, request: &Message<'_>) -> bool {
        let Some((key, method)) = RequestKey::of(request).zip(request.method()) else { return false };
        method != Method::Ack
            && key.write(method.as_str(), key.to_tag(), &mut self.scratch).is_some()
            && self.servers.contains_key(self.scratch.as_str())
    }

    /// The client transaction that this response belongs to, if it is here: before the response ends it.
    pub fn client_of(&mut self, response: &Message<'_>) -> Option<ClientId> {
        key::client_key(response, &mut self.scratch)?;
        self.clients.get(self.scratch.as_str()).map(|id| ClientId(*id))
    }

    fn receive_response(&mut self, status: u16, msg: &Message<'_>, now: Duration) -> Received {
        if key::client_key(msg, &mut self.scratch).is_none() {
            return Received::Invalid;
        }
        let Some(&id) = self.clients.get(self.scratch.as_str()) else {
            return Received::StrayResponse;
        };
        let Some(Entry::Client(client)) = self.table.get_mut(id) else {
            return Received::StrayResponse;
        };
        let step = client.on_response(status, msg, &self.timers, now);
        let ack = step.ack.map(|bytes| (client.to.clone(), bytes));
        self.schedule.set(index_of(id), client.deadline());
        if let Some((to, bytes)) = ack {
            self.transmit(to, bytes);
        }
        if step.done {
            self.end(id);
        }
        if step.pass { Received::Response(ClientId(id)) } else { Received::Absorbed }
    }

    fn receive_request(
        &mut self,
        msg: &Message<'_>,
        bytes: &Bytes,
        from: H,
        reliable: bool,
        now: Duration,
    ) -> Option<Received> {
        let method = msg.method()?;
        if msg.cseq().ok()?.method.as_str() != method.as_str() {
            return None;
        }
        let key = RequestKey::of(msg)?;
        let is_ack = method == Method::Ack;
        key.write(if is_ack { "INVITE" } else { method.as_str() }, key.to_tag(), &mut self.scratch)?;
        let known = self.servers.get(self.scratch.as_str()).copied();
        if is_ack {
            return Some(self.receive_ack(known, &key, now));
        }
        if let Some(id) = known {
            if let Some(Entry::Server(server)) = self.table.get(id)
                && let Some(again) = server.on_retransmission(&self.timers)
            {
                // To where this copy came from: with several edges it may have come by another one, or a phone's
                // translator may have given it another port (RFC 3581 4).
                self.transmit_again(from, again);
            }
            return Some(Received::Absorbed);
        }
        let own_key: Box<str> = self.scratch.as_str().into();
        let cancelled = (method == Method::Cancel).then(|| {
            key.write("INVITE", key.to_tag(), &mut self.scratch);
            self.servers.get(self.scratch.as_str()).map(|id| ServerId(*id))
        });
        // A CANCEL frees what fills the table; each INVITE has at most one, so this stays bounded.
        let bound = if cancelled.flatten().is_some() { self.limit.saturating_mul(2) } else { self.limit };
        if self.table.len() >= bound {
            self.dropped += 1;
            return Some(Received::Overflow);
        }
        let invite = method == Method::Invite;
        let server =
            Server::new(own_key.clone(), bytes.clone(), from, invite, key.is_legacy(), reliable, &self.timers, now);
        let deadline = server.deadline();
        let Some(id) = self.table.insert(Entry::Server(server)) else {
            return Some(Received::Overflow);
        };
        self.servers.insert(own_key, id);
        self.schedule.set(index_of(id), deadline);
        Some(match cancelled {
            Some(invite) => Received::Cancel { cancel: ServerId(id), invite },
            None => Received::Request(ServerId(id)),
        })
    }

    fn receive_ack(&mut self, known: Option<u64>, key: &RequestKey<'_, '_>, now: Duration) -> Received {
        // RFC 2543: the To tag is that of our answer, so a transaction registered a key of its own for it.
        let id = if key.is_legacy() {
            key.write("ACK", key.to_tag(), &mut self.scratch);
            self.servers.get(self.scratch.as_str()).copied()
        } else {
            known
        };
        let Some(id) = id else {
            return Received::Ack2xx;
        };
        let Some(Entry::Server(server)) = self.table.get_mut(id) else {
            return Received::Ack2xx;
        };
        match server.on_ack(&self.timers, now) {
            OnAck::Dialog => Received::Ack2xx,
            OnAck::Absorbed(done) => {
                self.schedule.set(index_of(id), server.deadline());
                if done {
                    self.end(id);
                }
                Received::AckAbsorbed
            }
        }
    }

    /// Sends a request by a new client transaction. Its kind, branch and method are read from it; the transmission itself comes
    /// from `poll`. ACK for a 2xx has no transaction: transmit it directly. A CANCEL is tied to its INVITE by the branch.
    ///
    /// # Errors
    /// The table is full, or the request cannot have a transaction of its own.
    pub fn send(&mut self, request: Bytes, to: H, reliable: bool, now: Duration) -> Result<ClientId, SendError> {
        if self.table.len() >= self.limit.saturating_mul(2) {
            self.dropped += 1;
            return Err(SendError::Overflow);
        }
        let (invite, key) = {
            let msg = Message::parse(&request).map_err(|_| SendError::Invalid)?;
            let method = msg.method().ok_or(SendError::Invalid)?;
            let unique = msg.via().is_ok_and(|v| v.branch().is_some_and(is_unique_branch));
            let cseq_agrees = msg.cseq().is_ok_and(|c| c.method.as_str() == method.as_str());
            if method == Method::Ack || !unique || !cseq_agrees {
                return Err(SendError::Invalid);
            }
            key::client_key(&msg, &mut self.scratch).ok_or(SendError::Invalid)?;
            let key: Box<str> = self.scratch.as_str().into();
            let cancels = if method == Method::Cancel {
                key::cancelled_key(&key, &mut self.scratch);
                self.clients.get(self.scratch.as_str()).copied()
            } else {
                None
            };
            if self.table.len() >= self.limit && cancels.is_none() {
                self.dropped += 1;
                return Err(SendError::Overflow);
            }
            if self.clients.contains_key(&key) {
                return Err(SendError::Duplicate);
            }
            if let Some(id) = cancels
                && let Some(Entry::Client(client)) = self.table.get_mut(id)
            {
                client.note_cancel(&self.timers, now);
                self.schedule.set(index_of(id), client.deadline());
            }
            (method == Method::Invite, key)
        };
        let client = Client::new(key.clone(), request.clone(), to.clone(), invite, reliable, &self.timers, now);
        let deadline = client.deadline();
        let id = self.table.insert(Entry::Client(client)).ok_or(SendError::Overflow)?;
        self.clients.insert(key, id);
        self.schedule.set(index_of(id), deadline);
        self.transmit(to, request);
        Ok(ClientId(id))
    }

    /// Answers a request; the status is read from `response`. False if the transaction is gone or its state takes no such answer
    /// (a second final one), or if `response` is no response. A 2xx to INVITE may be given again (13.3.1.4) for 64*T1.
    pub fn respond(&mut self, id: ServerId, response: Bytes, now: Duration) -> bool {
        let Some(status) = status_of(&response) else {
            return false;
        };
        let Some(Entry::Server(server)) = self.table.get_mut(id.0) else {
            return false;
        };
        let Some(done) = server.respond(status, response.clone(), &self.timers, now) else {
            return false;
        };
        let to = server.from.clone();
        self.schedule.set(index_of(id.0), server.deadline());
        let legacy_failure = server.legacy && server.invite && status >= 300;
        if legacy_failure {
            self.expect_legacy_ack(id.0, &response);
        }
        self.transmit(to, response);
        if done {
            self.end(id.0);
        }
        true
    }

    /// Registers the key under which a RFC 2543 peer's ACK arrives (17.2.3): with the To tag of our response.
    fn expect_legacy_ack(&mut self, id: u64, response: &Bytes) {
        let Some(Entry::Server(server)) = self.table.get_mut(id) else {
            return;
        };
        let (Ok(request), Ok(response)) = (Message::parse(&server.request), Message::parse(response)) else {
            return;
        };
        let to_tag = response.to().ok().and_then(|t| t.tag());
        let written = RequestKey::of(&request).and_then(|key| key.write("ACK", to_tag, &mut self.scratch));
        if written.is_some() {
            let key: Box<str> = self.scratch.as_str().into();
            server.ack_key = Some(key.clone());
            self.servers.insert(key, id);
        }
    }

    /// The CANCEL for a sent INVITE (9.1), `None` once it has a final answer. Send it by [`Transactions::send`] to the same hop, when
    /// a provisional response has come ([`Transactions::may_cancel`]).
    pub fn cancel_of(&self, id: ClientId) -> Option<Bytes> {
        self.cancel_with(id, &[])
    }

    /// The same with `Reason` values (RFC 3326), for example `SIP;cause=200;text="Call completed elsewhere"`.
    pub fn cancel_with(&self, id: ClientId, reasons: &[&str]) -> Option<Bytes> {
        let client = self.client(id)?;
        if !client.invite || !matches!(client.state, client::State::Calling | client::State::Proceeding) {
            return None;
        }
        derived::cancel(&Message::parse(&client.request).ok()?, reasons)
    }

    /// Whether a CANCEL may go out now: an INVITE with a provisional response and no final one.
    pub fn may_cancel(&self, id: ClientId) -> bool {
        self.client(id).is_some_and(Client::may_cancel)
    }

    /// The next thing to do; `None` when there is nothing until the deadline. Fires what is due at `now`; each call ends, as a timer
    /// that fired is set beyond `now` or its transaction is gone.
    pub fn poll(&mut self, now: Duration) -> Option<Output<H>> {
        loop {
            if let Some(output) = self.out.pop_front() {
                return Some(output);
            }
            let (when, slot) = self.schedule.first()?;
            if when > now {
                return None;
            }
            match self.table.id_at(slot) {
                Some(id) => self.fire(id, now),
                None => self.schedule.set(slot, None),
            }
        }
    }

    fn fire(&mut self, id: u64, now: Duration) {
        match self.table.get_mut(id) {
            Some(Entry::Client(client)) => {
                let fired = client.on_timer(&self.timers, now);
                self.schedule.set(index_of(id), client.deadline());
                let again = (client.to.clone(), client.request.clone());
                match fired {
                    client::OnTimer::Nothing => {}
                    client::OnTimer::Retransmit => self.transmit(again.0, again.1),
                    client::OnTimer::TimerC => self.out.push_back(Output::TimerC(ClientId(id))),
                    client::OnTimer::Timeout => {
                        self.out.push_back(Output::ClientTimeout(ClientId(id)));
                        self.end(id);
                    }
                    client::OnTimer::Done => self.end(id),
                }
            }
            Some(Entry::Server(server)) => {
                let fired = server.on_timer(&self.timers, now);
                self.schedule.set(index_of(id), server.deadline());
                let to = server.from.clone();
                match fired {
                    server::OnTimer::Nothing => {}
                    server::OnTimer::Transmit(bytes) => self.transmit(to, bytes),
                    server::OnTimer::NoAck => {
                        self.out.push_back(Output::NoAck(ServerId(id)));
                        self.end(id);
                    }
                    server::OnTimer::Done => self.end(id),
                }
            }
            None => {}
        }
    }

    /// When `poll` is to be called at the latest.
    pub fn deadline(&self) -> Option<Duration> {
        if self.out.is_empty() { self.schedule.first().map(|(when, _)| when) } else { Some(Duration::ZERO) }
    }

    /// The driver could not send for this client transaction (17.1.4).
    pub fn transport_error(&mut self, id: ClientId, _now: Duration) {
        if self.client(id).is_some() {
            self.out.push_back(Output::TransportFailed(id));
            self.end(id.0);
        }
    }

    /// The driver could not send the answer of this server transaction (17.2.4): it ends if a final answer was given, else the user
    /// may still answer over another way.
    pub fn server_transport_error(&mut self, id: ServerId, _now: Duration) {
        if let Some(Entry::Server(server)) = self.table.get(id.0)
            && matches!(server.state, server::State::Completed | server::State::Confirmed)
        {
            self.end(id.0);
        }
    }

    /// Ends a server transaction that will not be answered from here, as a proxy does that forwards the request without state.
    pub fn forget(&mut self, id: ServerId) {
        if self.server(id).is_some() {
            self.end(id.0);
        }
    }

    /// The request that opened the transaction.
    pub fn server_request(&self, id: ServerId) -> Option<&Bytes> {
        self.server(id).map(|s| &s.request)
    }

    /// Where its answers go.
    pub fn server_hop(&self, id: ServerId) -> Option<&H> {
        self.server(id).map(|s| &s.from)
    }

    /// Sends further answers elsewhere: for a connection that was opened again (18.2.2).
    pub fn set_server_hop(&mut self, id: ServerId, hop: H) {
        if let Some(Entry::Server(server)) = self.table.get_mut(id.0) {
            server.from = hop;
        }
    }

    /// Whether a final answer was given; `None` if the transaction is gone.
    pub fn server_answered(&self, id: ServerId) -> Option<bool> {
        self.server(id).map(|s| !matches!(s.state, server::State::Trying | server::State::Proceeding))
    }

    /// The request that was sent.
    pub fn client_request(&self, id: ClientId) -> Option<&Bytes> {
        self.client(id).map(|c| &c.request)
    }

    /// Where it was sent.
    pub fn client_hop(&self, id: ClientId) -> Option<&H> {
        self.client(id).map(|c| &c.to)
    }

    /// Sends what follows to this request, CANCEL and the ACK of a failure, elsewhere: to who goes on with it.
    pub fn set_client_hop(&mut self, id: ClientId, hop: H) {
        if let Some(Entry::Client(client)) = self.table.get_mut(id.0) {
            client.to = hop;
        }
    }

    /// How many transactions are in the table.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// How many messages were turned away since the start because the table or the output queue was full.
    pub fn overflows(&self) -> u64 {
        self.dropped
    }

    fn client(&self, id: ClientId) -> Option<&Client<H>> {
        match self.table.get(id.0)? {
            Entry::Client(client) => Some(client),
            Entry::Server(_) => None,
        }
    }

    fn server(&self, id: ServerId) -> Option<&Server<H>> {
        match self.table.get(id.0)? {
            Entry::Server(server) => Some(server),
            Entry::Client(_) => None,
        }
    }

    fn transmit(&mut self, to: H, bytes: Bytes) {
        self.out.push_back(Output::Transmit { to, bytes });
    }

    /// What a peer can make us repeat is dropped when the user does not drain `poll`.
    fn transmit_again(&mut self, to: H, bytes: Bytes) {
        if self.out.len() < self.limit.saturating_add(1024) {
            self.transmit(to, bytes);
        } else {
            self.dropped += 1;
        }
    }

    fn end(&mut self, id: u64) {
        self.schedule.set(index_of(id), None);
        match self.table.remove(id) {
            Some(Entry::Client(client)) => {
                self.clients.remove(&client.key);
                self.out.push_back(Output::ClientDone(ClientId(id)));
            }
            Some(Entry::Server(server)) => {
                self.servers.remove(&server.key);
                if let Some(key) = server.ack_key {
                    self.servers.remove(&key);
                }
                self.out.push_back(Output::ServerDone(ServerId(id)));
            }
            None => {}
        }
    }
}

/// The status code of a response's first line.
fn status_of(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"SIP/2.0 ")?.get(..3)?;
    let status: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (100..700).contains(&status).then_some(status)
}
