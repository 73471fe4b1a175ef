//! Records: what is confirmed stands in the store before anybody is told (ARCHITECTURE.md).

use crate::call::CallKey;
use crate::core::{AfterSave, Core, Saving, Then, Turn};
use crate::io::Ask;
use crate::leg::LegKey;
use crate::timers::Timer;
use bytes::Bytes;
use contract::location::StoreError;
use contract::records::Owner;
use serde::Serialize;

impl Core {
    /// Saves legs, and with `all` the call and its bridge; `after` follows when all are saved or could not be.
    pub(crate) fn save(&mut self, turn: &mut Turn<'_>, key: CallKey, legs: &[LegKey], all: bool, after: AfterSave) {
        let held = self.held_record(key);
        let Some(call) = self.calls.get_mut(&key) else { return };
        let mut records: Vec<(&'static str, String, Owner, Bytes)> = Vec::new();
        let bridge = call.bridge.and_then(|b| self.bridges.get(&b));
        // What the store missed is made good at the next occasion.
        let all = all || call.unprotected;
        let legs = match bridge {
            Some(bridge) if all => bridge.legs.as_slice(),
            _ => legs,
        };
        for leg_key in legs {
            let awaits =
                self.legs.get(leg_key).and_then(|leg| self.legs.get(&leg.awaits_answer?)).map(|l| l.id.clone());
            let Some(leg) = self.legs.get_mut(leg_key) else { continue };
            if held.as_ref().is_some_and(|held| held.invite.is_some()) {
                // An unanswered caller stands in the call's record, and in no other.
                continue;
            }
            let record = leg.record(turn.now.unix(), bridge.map(|b| b.id.clone()), awaits);
            let Some(record) = record else { continue };
            leg.saved = true;
            if leg.acked {
                self.timers.disarm(Timer::Note(*leg_key));
            }
            records.push(("leg", leg.id.clone(), leg.owner, json(&record)));
        }
        if all {
            call.saved = true;
            let near = self.legs.get(&call.leg).map(|l| l.id.clone()).unwrap_or_default();
            records.push(("call", call.id.clone(), call.owner, json(&call.record(near, held))));
            if let Some(bridge) = bridge {
                let ids = bridge.legs.iter().filter_map(|l| self.legs.get(l)).map(|l| l.id.clone()).collect();
                records.push(("bridge", bridge.id.clone(), bridge.owner, json(&bridge.record(ids))));
            }
        }
        if records.is_empty() {
            return self.after_save(turn, after);
        }
        let group = self.number();
        self.saving.insert(group, Saving { left: records.len(), failed: false, whole: all, after, call: Some(key) });
        for (kind, id, owner, value) in records {
            self.ask(Ask::Save { kind, id, owner, value }, Then::Saved(group));
        }
    }

    /// One record of a group is saved, or could not be.
    pub(crate) fn saved(&mut self, turn: &mut Turn<'_>, group: u64, result: Result<(), StoreError>) {
        let Some(saving) = self.saving.get_mut(&group) else { return };
        if let (Err(StoreError::Conflict), Some(call)) = (&result, saving.call) {
            self.saving.remove(&group);
            return self.lose(turn, call);
        }
        saving.left = saving.left.saturating_sub(1);
        saving.failed |= result.is_err();
        if saving.left > 0 {
            return;
        }
        let Some(saving) = self.saving.remove(&group) else { return };
        // A call that is answered already goes on, and says that it will not outlive this process.
        if let Some(call) = saving.call.and_then(|c| self.calls.get_mut(&c)) {
            if saving.failed && !std::mem::replace(&mut call.unprotected, true) {
                self.counters.unprotected += 1;
                tracing::warn!(call = %call.id, "not in the store: unprotected");
            }
            if !saving.failed && saving.whole && std::mem::replace(&mut call.unprotected, false) {
                tracing::info!(call = %call.id, "in the store again: protected");
            }
        }
        match saving.after {
            AfterSave::Hold(call) if saving.failed && !self.caller_is_up(call) => return self.store_down(turn, call),
            after => self.after_save(turn, after),
        }
        if let Some(call) = saving.call.filter(|_| saving.failed && self.leaving) {
            // Nobody could take it over.
            self.go_down(turn, call);
        }
    }

    fn after_save(&mut self, turn: &mut Turn<'_>, after: AfterSave) {
        match after {
            AfterSave::AnswerCaller(call) => self.answer_caller(turn, call),
            AfterSave::AnswerChange(leg) => self.answer_change(turn, leg),
            AfterSave::Hold(call) => self.wait_for_registration(turn, call),
            AfterSave::Nothing => {}
        }
    }
}

/// Records are plain data: they always have a JSON form.
fn json(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record).unwrap_or_default().into()
}
