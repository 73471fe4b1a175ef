//! What the router shows at `/v1/calls`, and tells of at `/v1/events`.

use crate::call::{Call, CallKey};
use crate::core::{Core, Turn};
use crate::hold::Hold;
use crate::leg::{Leg, Phase};
use contract::events::CallEventKind;
use contract::records::Direction;
use serde_json::{Value, json};

impl Core {
    /// All calls as JSON, oldest first.
    pub fn view(&self) -> Value {
        self.calls.values().map(|call| self.view_call(call)).collect()
    }

    /// All holds as JSON, those of the oldest call first.
    pub fn view_holds(&self) -> Value {
        let held = self.calls.values().filter_map(|call| Some((call, call.dialing.as_ref()?)));
        let view = |(call, hold): (&Call, &Hold)| {
            json!({
                "id": hold.id,
                "call": call.id,
                "endpoint": hold.endpoint,
                "from": call.walk.caller().number,
                "exten": call.walk.exten(),
                "since": hold.since,
                "until": hold.until_unix,
                "told": hold.told,
                "woken": hold.woken,
            })
        };
        held.flat_map(|(call, dialing)| dialing.holds.iter().map(move |hold| (call, hold))).map(view).collect()
    }

    /// Whether there is a call of this id.
    pub fn has_call(&self, id: &str) -> bool {
        self.ids.contains_key(id)
    }

    /// Something happened to a call.
    pub(crate) fn call_event(&mut self, turn: &Turn<'_>, key: CallKey, kind: CallEventKind) {
        if let Some(id) = self.calls.get(&key).map(|call| call.id.clone()) {
            self.event(turn, &id, kind);
        }
    }

    fn view_call(&self, call: &Call) -> Value {
        let bridged = call.bridge.and_then(|b| self.bridges.get(&b)).map(|b| b.legs.to_vec());
        let ringing = call.dialing.as_ref().map(|d| d.branches.clone());
        let mut keys = vec![call.leg];
        keys.extend(bridged.into_iter().flatten().chain(ringing.into_iter().flatten()).filter(|k| *k != call.leg));
        keys.dedup();
        let legs: Vec<Value> = keys.iter().filter_map(|key| self.legs.get(key)).map(view_leg).collect();
        json!({
            "id": call.id,
            "from": call.endpoint,
            "exten": call.walk.exten(),
            "context": call.walk.context(),
            "step": call.walk.priority(),
            "startedAt": call.started_at,
            "protected": call.saved && !call.unprotected,
            "relay": call.relay.map(|r| r.to_string()),
            "legs": legs,
        })
    }
}

fn view_leg(leg: &Leg) -> Value {
    let state = match leg.phase {
        Phase::Setup if leg.rang => "ringing",
        Phase::Setup => "setup",
        Phase::Answered | Phase::Confirmed => "up",
        Phase::Ending => "ending",
    };
    let direction = match leg.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    json!({
        "id": leg.id,
        "endpoint": leg.endpoint,
        "direction": direction,
        "state": state,
        "answeredAt": (leg.answered_at > 0).then_some(leg.answered_at),
        "codec": crate::negotiate::codec(leg.told.text()),
    })
}
