//! A call's media moves to another relay: because its own is lost, or because that is told to go. Both legs are
//! re-INVITEd at once with what they last agreed on; only addresses and ports are new. On a planned move the former
//! relay forwards until both legs were heard at the new one.

use crate::call::{Call, CallKey, Leaving};
use crate::core::{AfterSave, Core, Then, Turn};
use crate::end::End;
use crate::io::Ask;
use crate::leg::LegKey;
use crate::media;
use crate::negotiate;
use crate::relay::choose;
use crate::timers::Timer;
use contract::ProcessId;
use contract::events::CallEventKind;
use contract::media::{MediaEvent, MediaEventKind};
use contract::peers::PeerState;
use dialplan::Cause;
use std::time::Duration;

/// A call that found no relay tries again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Events of a call that are known when they are told again, perhaps out of order.
const HEARD: usize = 32;
/// A former relay goes on for so long at most: legs on hold send nothing.
const LEAVE: Duration = Duration::from_secs(32);

impl Core {
    /// A relay is lost: its calls move at once.
    pub(crate) fn relay_lost(&mut self, turn: &mut Turn<'_>, relay: ProcessId) {
        let calls = self.calls.iter().filter(|(_, call)| call.relay == Some(relay));
        let calls: Vec<CallKey> = calls.map(|(key, _)| *key).collect();
        for key in calls {
            self.move_call(turn, key, false);
        }
    }

    /// Moves a call's media to another relay, if there is one; false if not. Where it is `planned` the present one is
    /// still good.
    pub(crate) fn move_call(&mut self, turn: &mut Turn<'_>, key: CallKey, planned: bool) -> bool {
        let Some(call) = self.calls.get(&key) else { return false };
        let Some(from) = call.relay else { return false };
        let unfit = |p: ProcessId| p == from || call.refused.contains(&p) || self.is_down(p);
        let draining = |p: ProcessId| turn.view.peers.get(p).is_some_and(|p| p.state == PeerState::Draining);
        let to = choose(turn.view.peers, &call.id, unfit).filter(|to| !planned || !draining(*to));
        let id = call.id.clone();
        let Some(to) = to else {
            tracing::warn!(call = %id, relay = %from, "no other relay");
            if let Some(call) = self.calls.get_mut(&key) {
                call.refused.clear();
            }
            return false;
        };
        let legs = self.legs_at(call, from);
        tracing::info!(call = %id, %from, %to, planned, legs = legs.len(), "the media moves");
        self.counters.moves += 1;
        self.event(turn, &id, CallEventKind::Moved { relay: to.to_string(), planned });
        for leg in &legs {
            if let Some(leg) = self.legs.get_mut(leg) {
                leg.relay = Some(to);
            }
        }
        let ids =
            legs.iter().filter_map(|leg| self.legs.get(leg)).filter(|l| l.is_up()).map(|l| l.id.clone()).collect();
        if let Some(call) = self.calls.get_mut(&key) {
            call.relay = Some(to);
            call.refused.push(from);
            let former = match planned {
                true => call.leaving.replace(Leaving { relay: from, legs: ids }).map(|l| l.relay),
                // It may only be out of our sight: then this frees its ports.
                false => Some(from),
            };
            if planned {
                self.timers.arm(Timer::Leave(key), turn.now.mono + LEAVE);
            }
            if let Some(relay) = former {
                self.order(Ask::Media { relay, command: media::delete_call(&id) });
            }
        }
        self.watch(turn, to);
        self.place_legs(turn, key, to, legs);
        true
    }

    /// The relay that was to have a call did not take it: another is tried, or else the same again.
    pub(crate) fn move_again(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(relay) = self.calls.get(&key).and_then(|c| c.relay) else { return };
        if !self.move_call(turn, key, false)
            && let Some(call) = self.calls.get(&key)
        {
            let legs = self.legs_at(call, relay);
            self.place_legs(turn, key, relay, legs);
        }
    }

    /// Has all legs of a call described once more at its relay: whoever had the call may have gone in the middle of a move.
    pub(crate) fn place_anew(&mut self, turn: &Turn<'_>, key: CallKey, relay: ProcessId) {
        let Some(call) = self.calls.get(&key) else { return };
        let far = call.bridge.and_then(|b| self.bridges.get(&b)).map(|b| b.other(call.leg));
        let legs: Vec<LegKey> = [call.leg].into_iter().chain(far).collect();
        for leg in &legs {
            if let Some(leg) = self.legs.get_mut(leg) {
                leg.relay = Some(relay);
            }
        }
        self.place_legs(turn, key, relay, legs);
    }

    /// Has the legs of a call described at the relay that is to have them.
    fn place_legs(&mut self, turn: &Turn<'_>, key: CallKey, to: ProcessId, legs: Vec<LegKey>) {
        let bridge = self.calls.get(&key).and_then(|c| self.bridges.get(&c.bridge?)).map(|b| b.legs);
        let joined = bridge.filter(|pair| pair.iter().all(|leg| legs.contains(leg)));
        if let Some([near, far]) = joined {
            self.move_pair(turn, key, to, near, far);
        }
        let near = self.calls.get(&key).map(|c| c.leg);
        // Branches that ring: what they were offered is offered anew, and told once they have answered.
        let told = |leg: &LegKey| self.legs.get(leg).is_some_and(|l| !l.told.text().is_empty());
        let apart = |leg: &LegKey| Some(*leg) != near && joined.is_none_or(|pair| !pair.contains(leg));
        let ringing: Vec<LegKey> = legs.into_iter().filter(|leg| apart(leg) && told(leg)).collect();
        for leg in ringing {
            if let Some(near) = near {
                self.move_offer(turn, key, to, near, leg);
            }
        }
    }

    /// The legs of a call that this relay knows.
    fn legs_at(&self, call: &Call, relay: ProcessId) -> Vec<LegKey> {
        let far = call.bridge.and_then(|b| self.bridges.get(&b)).map(|b| b.other(call.leg));
        let dialing = call.dialing.iter().flat_map(|d| d.branches.iter().copied().chain(d.winner));
        let mut legs: Vec<LegKey> = [call.leg].into_iter().chain(far).chain(dialing).collect();
        legs.sort_unstable();
        legs.dedup();
        legs.retain(|leg| self.legs.get(leg).is_some_and(|l| l.relay == Some(relay)));
        legs
    }

    /// Two legs that talk: each is described for the other by what it said last.
    fn move_pair(&mut self, turn: &Turn<'_>, call: CallKey, relay: ProcessId, near: LegKey, far: LegKey) {
        let says = |core: &Self, leg| core.legs.get(&leg).is_some_and(|l| l.said.is_some());
        let (offerer, answerer) = if says(self, near) { (near, far) } else { (far, near) };
        self.move_offer(turn, call, relay, offerer, answerer);
        let (Some(a), Some(b)) = (self.legs.get(&offerer), self.legs.get(&answerer)) else { return };
        if let Some(said) = &b.said {
            let sdp = negotiate::restrict(said, &[&a.codecs, &b.codecs]).unwrap_or_else(|| said.clone());
            let command = media::answer(&a.call_id, a.side(), b.side(), &sdp, turn.view.me);
            self.ask_relay(Some(relay), command, Then::Moved { call, relay, leg: offerer });
        }
    }

    fn move_offer(&mut self, turn: &Turn<'_>, call: CallKey, relay: ProcessId, from: LegKey, to: LegKey) {
        let (Some(a), Some(b)) = (self.legs.get(&from), self.legs.get(&to)) else { return };
        let Some(said) = &a.said else { return };
        let sdp = negotiate::restrict(said, &[&a.codecs, &b.codecs]).unwrap_or_else(|| said.clone());
        let command = media::offer(&a.call_id, a.side(), b.side(), &sdp, turn.view.me);
        self.ask_relay(Some(relay), command, Then::Moved { call, relay, leg: to });
    }

    /// The new relay has a place for a leg, or has none.
    pub(crate) fn moved(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        relay: ProcessId,
        leg_key: LegKey,
        result: Result<String, String>,
    ) {
        let Some(call) = self.calls.get_mut(&key).filter(|call| call.relay == Some(relay)) else { return };
        match result {
            Ok(place) => {
                let Some(leg) = self.legs.get_mut(&leg_key).filter(|leg| leg.call == Some(key)) else { return };
                leg.place = Some(place);
                call.refused.clear();
                self.timers.disarm(Timer::Move(key));
                self.realign(turn, leg_key);
                // Whoever takes it over meanwhile knows where it goes.
                self.save(turn, key, &[leg_key], false, AfterSave::Nothing);
            }
            Err(error) => {
                tracing::warn!(call = %call.id, %relay, %error, "the relay does not take the call");
                self.timers.arm(Timer::Move(key), turn.now.mono + AGAIN);
            }
        }
    }

    /// A former relay is not needed any more.
    pub(crate) fn leave_former(&mut self, key: CallKey) {
        self.timers.disarm(Timer::Leave(key));
        let Some(call) = self.calls.get_mut(&key) else { return };
        if let Some(leaving) = call.leaving.take() {
            let command = media::delete_call(&call.id);
            self.order(Ask::Media { relay: leaving.relay, command });
        }
    }

    /// A relay tells something of a call. What a former one tells, and what was told before, counts no more.
    pub(crate) fn media_event(&mut self, turn: &mut Turn<'_>, relay: ProcessId, event: &MediaEvent) {
        let Some(key) = self.ids.get(&event.call).copied() else { return };
        let Some(call) = self.calls.get_mut(&key).filter(|call| call.relay == Some(relay)) else { return };
        let name = (relay, event.seq);
        if call.heard.contains(&name) {
            return;
        }
        if call.heard.len() == HEARD {
            call.heard.pop_front();
        }
        call.heard.push_back(name);
        tracing::debug!(call = %event.call, leg = ?event.tag, kind = ?event.kind, "media");
        match (&event.kind, &event.tag) {
            (MediaEventKind::SessionTimeout, _) => {
                self.counters.media_timeouts += 1;
                let why = "neither side sent media".to_owned();
                self.end(turn, key, End { code: 480, cause: Cause::TIMER, why, fields: vec![], reason: None });
            }
            (MediaEventKind::Latched(_), Some(tag)) => {
                let Some(leaving) = call.leaving.as_mut() else { return };
                leaving.legs.retain(|leg| leg != tag);
                if leaving.legs.is_empty() {
                    self.leave_former(key);
                }
            }
            (MediaEventKind::Dtmf { digit, .. }, Some(tag)) => self.digit(turn, key, tag, *digit),
            // Not by us: then the call would not be here.
            (MediaEventKind::Ended, None) => _ = self.move_call(turn, key, false),
            (MediaEventKind::Draining, _) => _ = self.move_call(turn, key, true),
            _ => {}
        }
    }

    /// Tells a call's relay that this process owns it from now on; what it told the former owner last comes again. A
    /// relay that does not know the call, or is gone, loses it to another.
    pub(crate) fn claim_media(&mut self, turn: &Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get(&key) else { return };
        let Some(relay) = call.relay else { return };
        let command = media::own(&call.id, turn.view.me);
        self.watch(turn, relay);
        self.ask_relay(Some(relay), command, Then::Claimed(key));
    }

    /// A relay knows its call's new owner, or does not know the call.
    pub(crate) fn claimed(&mut self, turn: &mut Turn<'_>, key: CallKey, known: bool) {
        if !known {
            self.move_call(turn, key, false);
        }
    }
}
