//! Requests for legs that are not here: a balancer's view of who has a leg may be older or newer than the store's. The
//! store is asked; a request goes to the process that has the leg, or waits until a leg of a process that is gone has
//! been taken over. Only what a token of ours names is looked for.

use crate::core::{Core, Then, Turn};
use crate::io::{Ask, Output};
use crate::takeover::{PERIOD, Step};
use bytes::Bytes;
use contract::hop::Inside;
use contract::leg::{LegToken, family};
use contract::location::StoreError;
use contract::records::Owner;
use contract::{ProcessId, Service};
use sip::Method;
use sip::edit::Edit;
use sip::message::Message;
use sip::transaction::Received;
use sip::uri::Uri;
use std::time::Duration;

/// On a request that a router passed on: who had sent it there, and the service of that.
const FROM: &str = "X-KubePBX-From";
/// How long a request waits for its leg.
const PATIENCE: Duration = Duration::from_secs(5);
/// Legs that are looked for at once.
const LEGS: usize = 1024;
/// Requests that wait for one leg.
const REQUESTS: usize = 8;

/// Requests that wait for one leg.
#[derive(Debug)]
pub(crate) struct Parked {
    waiting: Vec<Inside>,
    /// The store was asked.
    asked: bool,
    /// When it is asked again.
    next: Duration,
    until: Duration,
    /// Whom the store names was not reached.
    unreached: bool,
}

/// A message that a router passed on, as its first sender sent it; any other as it is.
pub(crate) fn first_sender(inside: &Inside, message: &Message<'_>) -> Inside {
    let from = || {
        let (process, service) = message.other(FROM)?.split_once(' ')?;
        let service = if service == Service::Conference.as_str() { Service::Conference } else { Service::Balancer };
        Some(Inside { from: process.parse().ok()?, service, bytes: inside.bytes.clone() })
    };
    let passed_on = inside.service == Service::Router;
    passed_on.then(from).flatten().unwrap_or_else(|| inside.clone())
}

/// The leg that a request is for, by our token.
fn leg_of(turn: &Turn<'_>, message: &Message<'_>) -> Option<String> {
    let uri = Uri::parse(message.uri()?).ok()?;
    LegToken::open(uri.user?, turn.view.keys).map(|token| token.leg)
}

impl Core {
    /// Takes a request for a leg that is not here; false if it is to be handled as any other.
    pub(crate) fn is_elsewhere(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, inside: &Inside) -> bool {
        let tag = message.to().ok().and_then(|to| to.tag());
        let (Some(tag), Ok(call_id), true) = (tag, message.call_id(), message.is_request()) else { return false };
        if self.dialogs.contains_key(&(call_id.to_owned(), tag.to_owned())) || self.transactions.knows(message) {
            return false;
        }
        match leg_of(turn, message) {
            Some(leg) => self.park(turn, leg, inside.clone(), false),
            None => false,
        }
    }

    fn park(&mut self, turn: &Turn<'_>, leg: String, inside: Inside, unreached: bool) -> bool {
        let parked = &mut self.takeover.parked;
        if parked.len() >= LEGS && !parked.contains_key(&leg) {
            self.counters.overflow += 1;
            return false;
        }
        let now = turn.now.mono;
        let entry = parked.entry(leg.clone()).or_insert_with(|| Parked {
            waiting: Vec::new(),
            asked: false,
            next: now,
            until: now + PATIENCE,
            unreached: false,
        });
        entry.unreached |= unreached;
        if entry.waiting.len() >= REQUESTS {
            self.counters.overflow += 1;
            return false;
        }
        entry.waiting.push(inside);
        if unreached {
            entry.next = now + PERIOD;
        } else {
            self.seek(&leg);
        }
        true
    }

    fn seek(&mut self, leg: &str) {
        let Some(parked) = self.takeover.parked.get_mut(leg) else { return };
        if !std::mem::replace(&mut parked.asked, true) {
            let ask = Ask::Record { kind: "leg", id: leg.to_owned() };
            self.ask(ask, Then::Takeover(Step::Sought(leg.to_owned())));
        }
    }

    /// Asks again for what still waits, and gives up what waited for too long.
    pub(crate) fn seek_again(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        let due = self.takeover.parked.iter().filter(|(_, p)| !p.asked && p.next <= now);
        let due: Vec<(String, bool)> = due.map(|(leg, p)| (leg.clone(), p.until <= now)).collect();
        for (leg, over) in due {
            if over {
                self.unpark(turn, &leg, true);
            } else {
                self.seek(&leg);
            }
        }
    }

    /// The legs of a family were taken, by us or by another.
    pub(crate) fn seek_family(&mut self, turn: &mut Turn<'_>, name: &str) {
        let legs: Vec<String> = self.takeover.parked.keys().filter(|leg| family(leg) == name).cloned().collect();
        for leg in legs {
            if self.legs.values().any(|l| l.id == leg) {
                self.unpark(turn, &leg, false);
            } else {
                self.seek(&leg);
            }
        }
    }

    /// The store says who has a leg.
    pub(crate) fn sought(&mut self, turn: &mut Turn<'_>, leg: &str, result: Result<Option<Owner>, StoreError>) {
        let Some(parked) = self.takeover.parked.get_mut(leg) else { return };
        parked.asked = false;
        parked.next = turn.now.mono + PERIOD;
        let unreached = parked.unreached;
        let owner = match result {
            Err(_) => return self.unpark(turn, leg, true),
            Ok(None) => return self.unpark(turn, leg, false),
            Ok(Some(owner)) => owner.process,
        };
        if owner == turn.view.me {
            // It comes with its call, or it is a remnant of one that ended.
            if !self.takeover.taking.contains(family(leg)) {
                self.unpark(turn, leg, false);
            }
        } else if self.is_gone(turn, owner) {
            self.list(turn, owner);
        } else if turn.view.peers.get(owner).is_some() && !unreached {
            self.pass_on(turn, leg, owner);
        }
    }

    /// Gives what waits to the process that has the leg. What another router passed on comes from a view as good as
    /// ours: it waits.
    fn pass_on(&mut self, turn: &mut Turn<'_>, leg: &str, owner: ProcessId) {
        let Some(parked) = self.takeover.parked.get_mut(leg) else { return };
        for inside in std::mem::take(&mut parked.waiting) {
            let Ok(message) = Message::parse_stream(&inside.bytes) else { continue };
            if message.other(FROM).is_some() {
                parked.waiting.push(inside);
                continue;
            }
            self.counters.forwarded += 1;
            let mut edit = Edit::new(&message);
            edit.append_other(FROM, format!("{} {}", inside.from, inside.service.as_str()));
            self.out.push_back(Output::Send { to: owner, bytes: edit.finish() });
        }
        if parked.waiting.is_empty() {
            self.takeover.parked.remove(leg);
        } else if parked.until <= turn.now.mono {
            self.unpark(turn, leg, true);
        }
    }

    /// What was passed on did not arrive: it waits until its owner is there again or gone. False if it is nothing that
    /// was passed on.
    pub(crate) fn not_passed_on(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, bytes: &Bytes) -> bool {
        if message.other(FROM).is_none() {
            return false;
        }
        let passed = Inside { from: turn.view.me, service: Service::Router, bytes: bytes.clone() };
        let mut inside = first_sender(&passed, message);
        let mut edit = Edit::new(message);
        edit.remove_all_other(FROM);
        inside.bytes = edit.finish();
        if let Some(leg) = leg_of(turn, message) {
            self.park(turn, leg, inside, true);
        }
        true
    }

    /// Handles what waited: as any request, or (`busy`) by asking for it again later.
    fn unpark(&mut self, turn: &mut Turn<'_>, leg: &str, busy: bool) {
        let Some(parked) = self.takeover.parked.remove(leg) else { return };
        for inside in parked.waiting {
            let Ok(message) = Message::parse_stream(&inside.bytes) else { continue };
            if !busy {
                self.receive(turn, &message, &inside);
                continue;
            }
            self.put_off(turn, &message, &inside);
        }
    }

    /// A request may come again later, or go to another router now.
    fn put_off(&mut self, turn: &mut Turn<'_>, message: &Message<'_>, inside: &Inside) {
        if message.method() == Some(Method::Ack) {
            return;
        }
        let received = self.transactions.receive(message, &inside.bytes, inside.from, true, turn.now.mono);
        if let Received::Request(server) | Received::Cancel { cancel: server, .. } = received {
            self.unavailable(turn, server);
        }
    }

    /// Puts off a call that waited here while we stood still: its balancer has brought it to another router since. False if
    /// the message is none.
    pub(crate) fn put_off_new(&mut self, turn: &mut Turn<'_>, inside: &Inside) -> bool {
        let Ok(message) = Message::parse_stream(&inside.bytes) else { return false };
        let begins = message.method() == Some(Method::Invite) && message.to().is_ok_and(|to| to.tag().is_none());
        if !begins || message.validate().is_err() || self.transactions.knows(&message) {
            return false;
        }
        self.put_off(turn, &message, inside);
        true
    }
}
