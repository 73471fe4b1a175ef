//! The limit of a drain: calls that the store has are left to the other routers, which take them over as they would after
//! a crash, only sooner; what nobody can take over is hung up.

use crate::call::{Call, CallKey};
use crate::cause;
use crate::core::{Client, Core, Turn};
use crate::leg::LegKey;
use crate::timers::Timer;
use contract::Service;
use dialplan::Cause;
use std::collections::BTreeSet;

impl Core {
    /// The drain took too long. From now on [`Core::is_idle`] says when what is left may be left.
    pub(crate) fn hang_up(&mut self, turn: &mut Turn<'_>) {
        self.leaving = turn.view.peers.serving(Service::Router).any(|router| router.process != turn.view.me);
        let calls: Vec<CallKey> = self.calls.keys().copied().collect();
        for key in calls {
            if self.leaving && self.calls.get(&key).is_some_and(is_protected) {
                self.counters.left += 1;
                self.stop_ringing(turn, key);
                self.write_acks(turn, key);
            } else {
                self.go_down(turn, key);
            }
        }
    }

    /// Ends a call because this router does.
    pub(crate) fn go_down(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        self.refuse(turn, key, 480, Cause::NORMAL, "the router goes down", Vec::new());
    }

    /// Whoever rings behind a caller that is answered rings anew at the router that takes the call over.
    fn stop_ringing(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let dialing = self.dialing(key);
        if dialing.is_none_or(|dialing| dialing.winner.is_some()) {
            return;
        }
        self.cancel_branches(turn, key, None, Some(&cause::reason(Cause::NORMAL)));
        self.timers.disarm(Timer::Dial(key));
        self.leave_holds(key);
        if let Some(call) = self.calls.get_mut(&key) {
            call.dialing = None;
        }
    }

    /// Whose ACK came a moment ago is not to be asked for it by who takes the call over.
    fn write_acks(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        for leg in self.calls.get(&key).map(|call| self.legs_of(call)).unwrap_or_default() {
            if self.timers.is_set(Timer::Note(leg)) {
                self.save_leg(turn, leg);
            }
        }
    }

    /// The caller's leg, and the one it is bridged with.
    fn legs_of(&self, call: &Call) -> Vec<LegKey> {
        call.bridge.and_then(|b| self.bridges.get(&b)).map_or(vec![call.leg], |bridge| bridge.legs.to_vec())
    }

    /// True if nothing is left for this router to do: no BYE, CANCEL or INFO waits for its answer, and no call is there but
    /// those that another router can take over as they stand in the store.
    pub fn is_idle(&self) -> bool {
        let saving: BTreeSet<CallKey> = self.saving.values().filter_map(|saving| saving.call).collect();
        let rests = |key: &CallKey, call: &Call| {
            let changes = |leg: LegKey| self.legs.get(&leg).is_some_and(|leg| leg.exchange.is_some());
            let changes = self.legs_of(call).into_iter().any(changes);
            is_protected(call) && call.dialing.is_none() && !changes && !saving.contains(key)
        };
        self.calls.iter().all(|(key, call)| self.leaving && rests(key, call))
            && self.legs.values().all(|leg| leg.call.is_some() || (leg.open == 0 && leg.cancelling.is_none()))
            && !self.clients.values().any(|client| matches!(client, Client::Info { .. }))
    }
}

/// True if the store has all of it.
fn is_protected(call: &Call) -> bool {
    call.saved && !call.unprotected
}
