//! Steps that have their far leg at a conference process: any will do, and one that goes in the middle of a step is
//! replaced by another, where the step begins again.

use crate::call::{CallKey, Conference, Far};
use crate::cause::Branch;
use crate::core::{Core, Turn};
use crate::dial::Callee;
use crate::leg::{Exchange, LegKey};
use contract::{ProcessId, Service, hop, rendezvous};
use dialplan::Cause;
use sip::uri::Uri;

/// The conference process that a Contact of a conference's names.
pub(crate) fn process_of(target: &str) -> Option<ProcessId> {
    hop::process_of(&Uri::parse(target).ok()?.host.to_string())
}

impl Core {
    /// Connects the caller with a conference.
    pub(crate) fn dial_conference(&mut self, turn: &mut Turn<'_>, key: CallKey, far: Far, uri: &str) {
        self.begin_dial(turn, key, far, self.limits.ring_limit);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let tried = call.shunned.into_iter().collect();
        if let Some(dialing) = call.dialing.as_mut() {
            dialing.conference = Some(Conference { uri: uri.to_owned(), tried });
        }
        if !self.try_conference(turn, key) {
            self.branch_ended(key, Branch::Status(500));
        }
        self.dial_over(turn, key);
    }

    /// Asks the next conference for what is dialled; false if there is none that was not asked.
    fn try_conference(&mut self, turn: &mut Turn<'_>, key: CallKey) -> bool {
        let Some(call) = self.calls.get_mut(&key) else { return false };
        let Some(conference) = call.dialing.as_mut().and_then(|d| d.conference.as_mut()) else { return false };
        let fresh = turn.view.peers.serving(Service::Conference).filter(|p| !conference.tried.contains(&p.process));
        let Some(process) = rendezvous::choose(call.id.as_bytes(), fresh.map(|p| (p.process, p.weight))) else {
            return false;
        };
        conference.tried.push(process);
        let uri = conference.uri.clone();
        self.takeover.conferences.insert(process);
        let callee = Callee {
            endpoint: "conference",
            codecs: vec![],
            uri: &uri,
            route: &[],
            process: Some(process),
            remote: None,
        };
        self.ring(turn, key, callee);
        true
    }

    /// A branch ended so: where a conference takes nothing or is not there, another is asked.
    pub(crate) fn try_another(&mut self, turn: &mut Turn<'_>, key: CallKey, ended: Branch) {
        let dialing = self.dialing(key);
        let failed = matches!(ended, Branch::Silent | Branch::Status(408 | 503));
        if failed && dialing.is_some_and(|d| d.conference.is_some() && d.branches.is_empty() && d.winner.is_none()) {
            self.try_conference(turn, key);
        }
    }

    /// A conference process is gone.
    pub(crate) fn conference_gone(&mut self, turn: &mut Turn<'_>, process: ProcessId) {
        tracing::warn!(conference = %process, "a conference is gone");
        let there = |leg: &LegKey| self.legs.get(leg).is_some_and(|leg| leg.next == Some(process));
        let mut asked: Vec<(CallKey, LegKey)> = Vec::new();
        let mut joined: Vec<(CallKey, LegKey)> = Vec::new();
        for (key, call) in &self.calls {
            if let Some(dialing) = call.dialing.as_ref().filter(|dialing| dialing.conference.is_some()) {
                asked.extend(dialing.branches.iter().copied().filter(there).map(|leg| (*key, leg)));
            }
            if call.far.is_some_and(|far| far != Far::Dial) {
                let far = call.bridge.and_then(|b| self.bridges.get(&b)).map(|b| b.other(call.leg));
                joined.extend(far.filter(there).map(|leg| (*key, leg)));
            }
        }
        for (key, leg) in asked {
            self.drop_branch(leg, Branch::Silent);
            self.forget_leg(leg);
            self.try_another(turn, key, Branch::Silent);
            self.dial_over(turn, key);
        }
        for (key, leg) in joined {
            self.far_lost(turn, key, leg);
        }
    }

    /// The conference that a caller is with is lost: the caller stays, and the step that it was there for begins again
    /// elsewhere. Where there is no other, the plan goes on as after any step that failed.
    pub(crate) fn far_lost(&mut self, turn: &mut Turn<'_>, key: CallKey, leg_key: LegKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let near_key = call.leg;
        let again = call.far == Some(Far::Play) && call.dialing.is_none();
        call.shunned = self.legs.get(&leg_key).and_then(|leg| leg.next);
        tracing::info!(call = %call.id, again, "its conference is lost");
        let Some(near) = self.legs.get_mut(&near_key) else { return };
        if near.awaits_answer == Some(leg_key) {
            // Its ACK answers what that conference offered.
            return self.broken(turn, near_key, Cause::FAILURE, "the conference is lost");
        }
        if let Some(Exchange::Serving(serving)) = near.exchange.take_if(|e| matches!(e, Exchange::Serving(_))) {
            // It asks again when the next far leg is there.
            let tag = near.name.1.clone();
            self.servers.remove(&serving.server);
            self.reply_as(turn, serving.server, 491, &tag, |r| r);
        }
        self.unbridge(key, leg_key);
        self.forget_record(leg_key);
        self.forget_leg(leg_key);
        if again {
            if let Some(call) = self.calls.get_mut(&key) {
                call.step = call.step.saturating_sub(1);
            }
            self.run(turn, key);
        }
    }
}
