//! A call that was another router's becomes ours: its legs, bridge and plan are made anew of their records.
//!
//! Our CSeq numbers jump, as the former owner may have used some that no record shows; the version of our `o=` goes on.
//! What the records leave open is settled: a 2xx that may lack our ACK gets it again, and a phone of which it is not sure
//! what it was told last is told again, by a re-INVITE.

use crate::bridge::{Bridge, BridgeKey};
use crate::call::{Call, CallKey};
use crate::cause;
use crate::conference;
use crate::core::{Core, Turn};
use crate::headers;
use crate::io::{Ask, Output};
use crate::leg::{Begin, Leg, LegKey, Phase, SessionTimer};
use crate::negotiate::Told;
use crate::timers::Timer;
use contract::events::CallEventKind;
use contract::leg::LegToken;
use contract::records::{BridgeRecord, CallRecord, DialogRecord, Direction, Far, LegRecord, Owner, Stored};
use contract::{Service, hop::host};
use dialplan::{Caller, Cause, Walk};
use serde::de::DeserializeOwned;
use sip::Name;
use sip::dialog::{Dialog, DialogId, Role, State};
use std::collections::VecDeque;
use std::time::Duration;

/// How far CSeq jumps.
const JUMP: u32 = 1000;
/// Transactions of the former owner are over after this (64*T1, and what a record may be late).
const UNSURE: u64 = 40;
/// A phone that has to refresh its session has this much time at least: its last try may have been lost.
const GRACE: Duration = Duration::from_secs(40);
/// Hops of far legs that are yet to be called.
const MAX_FORWARDS: u8 = 69;

/// The records of one kind that can be read.
fn read<T: DeserializeOwned>(records: &[Stored], kind: &str) -> Vec<(Owner, T)> {
    let of = records.iter().filter(|record| record.key.kind == kind);
    of.filter_map(|record| Some((record.key.owner, serde_json::from_slice(&record.value).ok()?))).collect()
}

fn dialog(record: &DialogRecord, contact: &str, direction: Direction) -> Dialog {
    Dialog {
        id: DialogId {
            call_id: record.call_id.clone(),
            local_tag: record.local_tag.clone(),
            remote_tag: record.remote_tag.clone(),
        },
        local_uri: record.local_uri.clone(),
        remote_uri: record.remote_uri.clone(),
        local_contact: contact.to_owned(),
        remote_target: record.remote_target.clone(),
        route_set: record.route_set.clone(),
        local_cseq: record.local_cseq.saturating_add(JUMP),
        remote_cseq: record.remote_cseq,
        secure: false,
        state: State::Confirmed,
        role: if direction == Direction::Inbound { Role::Uas } else { Role::Uac },
    }
}

/// A call's way through the dialplan as its record has it. A step that waits for callees begins again, and goes on with
/// what it waited for.
pub(crate) fn adopt_walk(call: &mut CallRecord) -> Walk {
    // A release before walks were stored had no variables.
    let mut walk = call.walk.take().unwrap_or_else(|| {
        let caller = Caller { number: call.caller_number.clone(), name: call.caller_name.clone() };
        let wall = Duration::from_secs(call.started_at);
        Walk::new(&call.context, &call.exten, caller, wall).at_step(call.step)
    });
    if call.held.is_some() {
        walk.again();
    }
    walk
}

/// A call as its record has it.
fn adopt_call(owner: Owner, mut call: CallRecord, near: LegKey) -> Call {
    let walk = adopt_walk(&mut call);
    Call {
        id: call.id,
        owner,
        leg: near,
        endpoint: call.endpoint,
        walk,
        digits: String::new(),
        outcome: Some(cause::ANSWERED),
        dialing: None,
        far: call.far,
        shunned: None,
        bridge: None,
        max_forwards: MAX_FORWARDS,
        passed: Vec::new(),
        returned: Vec::new(),
        progress: None,
        started_at: call.started_at,
        relay: None,
        refused: Vec::new(),
        leaving: None,
        heard: VecDeque::new(),
        saved: true,
        unprotected: false,
        resumed: call.held.map(|held| held.waits).unwrap_or_default(),
        paused: false,
    }
}

impl Core {
    /// Makes a call of the records of its family.
    pub(crate) fn adopt(&mut self, turn: &mut Turn<'_>, records: Vec<Stored>) {
        let legs: Vec<(Owner, LegRecord)> = read(&records, "leg");
        let mut calls: Vec<(Owner, CallRecord)> = read(&records, "call");
        let bridges: Vec<(Owner, BridgeRecord)> = read(&records, "bridge");
        if let Some(at) = calls.iter().position(|(_, call)| call.held.as_ref().is_some_and(|h| h.invite.is_some())) {
            let (owner, call) = calls.swap_remove(at);
            return self.resume(turn, owner, call);
        }
        let whole = calls.pop().filter(|(_, call)| {
            let near = legs.iter().any(|(_, leg)| leg.id == call.leg);
            // A dialled call without its bridge had begun to end.
            near && (call.far != Some(Far::Dial) || !bridges.is_empty()) && !self.ids.contains_key(&call.id)
        });
        let Some((owner, call)) = whole else {
            return self.clear(turn, &records, legs);
        };
        let (id, near_id) = (call.id.clone(), call.leg.clone());
        let key = CallKey(self.number());
        let bridge = bridges.into_iter().find(|(_, bridge)| {
            bridge.legs.first() == Some(&near_id)
                && bridge.legs.len() == 2
                && bridge.legs.iter().all(|id| legs.iter().any(|(_, leg)| leg.id == *id))
        });
        let far_id = bridge.as_ref().and_then(|(_, bridge)| bridge.legs.get(1).cloned());
        let (mut near, mut far) = (None, None);
        let mut rest = Vec::new();
        let mut settle = Vec::new();
        for (owner, leg) in legs {
            let place = match &leg.id {
                id if *id == near_id => &mut near,
                id if Some(id) == far_id.as_ref() => &mut far,
                _ => {
                    rest.push((owner, leg));
                    continue;
                }
            };
            let leg_key = self.adopt_leg(turn, owner, &leg, Some(key));
            *place = Some(leg_key);
            settle.push((leg_key, leg));
        }
        let Some(near) = near else { return };
        let placed = settle.iter().filter(|(_, record)| record.moving).find_map(|(_, record)| record.relay);
        let at = |leg: LegKey| self.legs.get(&leg)?.relay;
        let relay = placed.or_else(|| [Some(near), far].into_iter().flatten().find_map(at));
        let half_way = placed.is_some() || [Some(near), far].into_iter().flatten().any(|leg| at(leg) != relay);
        let mut adopted = adopt_call(owner, call, near);
        adopted.relay = relay;
        if let (Some((owner, bridge)), Some(far)) = (bridge, far) {
            let bridge_key = BridgeKey(self.number());
            self.bridges.insert(bridge_key, Bridge { id: bridge.id, owner, legs: [near, far] });
            adopted.bridge = Some(bridge_key);
            for leg in [near, far] {
                if let Some(leg) = self.legs.get_mut(&leg) {
                    leg.bridge = Some(bridge_key);
                }
            }
        }
        let goes_on = adopted.bridge.is_none() || adopted.far == Some(Far::Answer);
        if adopted.bridge.is_none() {
            adopted.far = None;
        }
        self.ids.insert(id.clone(), key);
        self.calls.insert(key, adopted);
        self.find_step(turn, key);
        self.counters.adopted += 1;
        tracing::info!(call = %id, epoch = owner.epoch, "taken over");
        self.event(turn, &id, CallEventKind::TakenOver { router: turn.view.me.to_string() });
        self.claim_media(turn, key);
        let awaited: Vec<String> = settle.iter().filter_map(|(_, record)| record.awaits.clone()).collect();
        for (leg_key, record) in settle {
            self.settle_leg(turn, leg_key, &record, awaited.contains(&record.id));
        }
        if let (true, Some(relay)) = (half_way, relay) {
            self.place_anew(turn, key, relay);
        }
        self.clear(turn, &[], rest);
        if goes_on {
            self.run(turn, key);
        }
    }

    fn adopt_leg(&mut self, turn: &mut Turn<'_>, owner: Owner, record: &LegRecord, call: Option<CallKey>) -> LegKey {
        let key = LegKey(self.number());
        let token = LegToken { process: turn.view.me, leg: record.id.clone() }.seal(turn.view.keys);
        let place = record.dialog.route_set.first().and_then(|route| headers::place(route));
        let place = place.unwrap_or_else(|| host(Service::Router, turn.view.me));
        let contact = format!("<sip:{token}@{place}>");
        let name = (record.dialog.call_id.clone(), record.dialog.local_tag.clone());
        let told = Told::resume(&record.local_sdp).unwrap_or_else(|| Told::new(turn.rng.next_u64()));
        let mut leg = Leg::new(Begin {
            id: record.id.clone(),
            call: call.unwrap_or(CallKey(0)),
            call_id: record.call.clone(),
            owner,
            direction: record.direction,
            endpoint: record.endpoint.clone(),
            codecs: record.codecs.clone(),
            contact: contact.clone(),
            name: name.clone(),
            told,
        });
        leg.call = call;
        leg.dialog = Some(dialog(&record.dialog, &contact, record.direction));
        leg.phase = Phase::Confirmed;
        leg.adopted = true;
        leg.saved = true;
        leg.said = Some(record.remote_sdp.clone()).filter(|sdp| !sdp.is_empty());
        leg.said_offer = record.said_offer;
        leg.remote = record.remote;
        leg.remote_session = record.remote_session.clone();
        leg.relay = record.relay;
        leg.min_se = record.min_se;
        leg.allows_update = record.allows_update;
        leg.answered_at = record.answered_at;
        leg.last_invite = record.invite;
        leg.acked = record.acked;
        // Only conferences are reached without a route.
        leg.next =
            record.dialog.route_set.is_empty().then(|| conference::process_of(&record.dialog.remote_target)).flatten();
        self.takeover.conferences.extend(leg.next);
        leg.timer = record.session.map(|s| SessionTimer { interval: Duration::from_secs(s.interval), ours: s.ours });
        if record.direction == Direction::Inbound {
            let caller = (name.0.clone(), record.dialog.remote_tag.clone());
            self.callers.insert(caller.clone(), key);
            leg.caller = Some(caller);
        }
        self.dialogs.insert(name, key);
        self.legs.insert(key, leg);
        key
    }

    /// Settles what the record of a leg leaves open, and starts its session timer. One whose 2xx is `awaited` by the other
    /// leg's answer gets its ACK with that.
    fn settle_leg(&mut self, turn: &mut Turn<'_>, key: LegKey, record: &LegRecord, awaited: bool) {
        let now = turn.now.unix();
        let unsure = now.saturating_sub(record.saved_at) < UNSURE;
        let other = record.awaits.as_ref().and_then(|id| self.legs.iter().find(|(_, leg)| leg.id == *id));
        let other = other.map(|(key, leg)| (*key, leg.last_invite));
        if let Some((other_key, invite)) = other {
            if let Some(other) = self.legs.get_mut(&other_key) {
                other.unacknowledged = invite;
            }
            if let Some(leg) = self.legs.get_mut(&key) {
                leg.awaits_answer = Some(other_key);
            }
        } else if unsure && record.invite.is_some() && !awaited {
            self.acknowledge_anew(turn, key);
        }
        let spread = turn.between(500, 1500);
        let (first, last) = (turn.between(1, 5), turn.now.mono);
        let Some(leg) = self.legs.get_mut(&key) else { return };
        let told = Some(leg.told.text().to_owned()).filter(|told| !told.is_empty());
        // Whether it got our last 2xx is not sure, nor whether a conference knows where we are.
        let doubtful = unsure && !record.acked;
        let again =
            doubtful || leg.awaits_answer.is_some() || leg.dialog.as_ref().is_some_and(|d| d.route_set.is_empty());
        leg.realign = record.owed.clone().or(told.filter(|_| again));
        leg.doubted = doubtful && record.owed.is_none();
        if leg.realign.is_some() {
            self.timers.arm(Timer::Retry(key), turn.now.mono + Duration::from_millis(spread));
        }
        let Some(session) = record.session else { return };
        let interval = Duration::from_secs(session.interval);
        let gone = Duration::from_secs(now.saturating_sub(session.since));
        let due = if session.ours {
            (interval / 2).saturating_sub(gone).max(Duration::from_secs(first))
        } else {
            let margin = (interval / 3).min(Duration::from_secs(32));
            interval.saturating_sub(margin).saturating_sub(gone).max(GRACE)
        };
        leg.refreshed_at = session.since;
        self.timers.arm(Timer::Session(key), last + due);
    }

    /// Acknowledges the last INVITE of a leg, whose 2xx may have come when nobody was there.
    fn acknowledge_anew(&mut self, turn: &mut Turn<'_>, key: LegKey) {
        let Some(to) = self.hop_of(turn, key) else { return };
        let via = turn.via();
        let Some(leg) = self.legs.get_mut(&key) else { return };
        let (Some(cseq), Some(dialog)) = (leg.last_invite, leg.dialog.as_ref()) else { return };
        let session = headers::session_id(&leg.call_id, leg.remote_session.as_deref());
        let bytes = dialog.ack(cseq, &via).header(Name::SessionId, session).finish();
        leg.last_ack = Some((cseq, bytes.clone()));
        self.out.push_back(Output::Send { to, bytes });
    }

    /// What is left of a call that was ending: its legs are hung up, its records go.
    fn clear(&mut self, turn: &mut Turn<'_>, records: &[Stored], legs: Vec<(Owner, LegRecord)>) {
        for record in records {
            let kind = match record.key.kind.as_str() {
                "call" => "call",
                "bridge" => "bridge",
                // Legs that can be read are hung up, and then go.
                _ if legs.iter().any(|(_, leg)| leg.id == record.key.id) => continue,
                _ => "leg",
            };
            self.order(Ask::Remove { kind, id: record.key.id.clone(), owner: record.key.owner });
        }
        for (owner, record) in legs {
            let key = self.adopt_leg(turn, owner, &record, None);
            self.bye(turn, key, Some(cause::reason(Cause::NORMAL)));
        }
    }
}
