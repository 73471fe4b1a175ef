//! Which relay has a call's media: chosen when the first leg is described, the same for all its legs. What a relay
//! does not answer, or refuses before anything stands there, another is asked.

use crate::call::CallKey;
use crate::core::{Core, Then, Turn};
use crate::io::{Answer, Ask, AskId, Output};
use crate::leg::LegKey;
use crate::media;
use contract::ng::Command;
use contract::peers::{Peer, PeerState, Peers};
use contract::{ProcessId, Service, rendezvous};

/// How a relay says that it has no such call.
const UNKNOWN_CALL: &str = "unknown call-id";
/// A relay with so many calls counts half of an empty one.
const HALF: f64 = 50.0;

/// Relays that may refuse a call before it fails.
const MAX_REFUSED: usize = 3;

/// The relay for a new call: weighted rendezvous hash of the call id over the relays that take new work and are not in
/// `without`. A relay's weight falls with its load (`weight / (1 + load / 50)`), so an empty one fills first and equal
/// ones share evenly; loads are up to half a second old, and the hash keeps callers from all choosing the same one
/// meanwhile. Where none takes new work, one that drains is asked: it may have begun just now. `None`: there is none.
pub(crate) fn choose(peers: &Peers, call: &str, without: impl Fn(ProcessId) -> bool) -> Option<ProcessId> {
    let weight = |p: &Peer| p.weight / (1.0 + p.load as f64 / HALF);
    let among = |state: PeerState| {
        let fits = |p: &&Peer| p.service == Service::Media && p.state == state && !without(p.process);
        let relays = peers.0.iter().filter(fits);
        rendezvous::choose(call.as_bytes(), relays.map(|p| (p.process, weight(p))))
    };
    among(PeerState::Serving).or_else(|| among(PeerState::Draining))
}

impl Core {
    /// Has a leg's offer described for another leg.
    pub(crate) fn describe(&mut self, turn: &Turn<'_>, from: LegKey, to: LegKey, offer: &str, then: Then) {
        let (Some(a), Some(b)) = (self.legs.get(&from), self.legs.get(&to)) else { return };
        let command = media::offer(&a.call_id, a.side(), b.side(), offer, turn.view.me);
        let relay = a.call.and_then(|call| self.relay(turn, call));
        if relay.is_some() {
            for leg in [from, to] {
                if let Some(leg) = self.legs.get_mut(&leg) {
                    leg.relay = relay;
                }
            }
        }
        self.ask_relay(relay, command, then);
    }

    /// Has a leg's answer described for the leg that made the offer.
    pub(crate) fn describe_answer(
        &mut self,
        turn: &Turn<'_>,
        offerer: LegKey,
        answerer: LegKey,
        answer: &str,
        then: Then,
    ) {
        let (Some(a), Some(b)) = (self.legs.get(&offerer), self.legs.get(&answerer)) else { return };
        let command = media::answer(&a.call_id, a.side(), b.side(), answer, turn.view.me);
        self.ask_relay(a.relay, command, then);
    }

    /// The relay that has a call, chosen now if it has none.
    fn relay(&mut self, turn: &Turn<'_>, key: CallKey) -> Option<ProcessId> {
        let call = self.calls.get(&key)?;
        let relay = call.relay.or_else(|| choose(turn.view.peers, &call.id, |p| self.is_down(p)))?;
        if let Some(call) = self.calls.get_mut(&key) {
            call.relay = Some(relay);
        }
        self.watch(turn, relay);
        Some(relay)
    }

    /// Asks a relay; without one the answer is an error.
    pub(crate) fn ask_relay(&mut self, relay: Option<ProcessId>, command: Command, then: Then) {
        match relay {
            Some(relay) => {
                let id = AskId(self.number());
                self.commands.insert(id, (relay, command.clone()));
                self.asks.insert(id, then);
                self.out.push_back(Output::Ask(Some(id), Ask::Media { relay, command }));
            }
            None => {
                let id = AskId(self.number());
                self.asks.insert(id, then);
                self.refused.push_back(id);
            }
        }
    }

    /// Answers what could not be asked.
    pub(crate) fn refuse_asks(&mut self, turn: &mut Turn<'_>) {
        while let Some(id) = self.refused.pop_front() {
            self.answered(turn, id, Answer::Sdp(Err("there is no relay".to_owned())));
        }
    }

    /// A relay gave a description, or there will be none.
    pub(crate) fn described(&mut self, turn: &mut Turn<'_>, then: Then, result: Result<String, String>) {
        match then {
            Then::Offered(leg) => self.offered(turn, leg, result),
            Then::Early { leg, status } => self.early(turn, leg, status, result),
            Then::Connected(leg) => self.connected(turn, leg, result),
            Then::ConnectedOffer(leg) => self.connected_offer(turn, leg, result),
            Then::Acknowledged(leg) => self.acknowledge_with(turn, leg, result),
            Then::Changing { asker, other } => self.changing(turn, asker, other, result),
            Then::Changed { asker } => self.changed(turn, asker, result),
            Then::ChangedOffer { asker, other } => self.changed_offer(turn, asker, other, result),
            Then::Moved { call, relay, leg } => self.moved(turn, call, relay, leg, result),
            Then::Probed(relay) => self.probed(turn, relay, result.is_ok()),
            Then::Claimed(call) => self.claimed(turn, call, result.is_ok()),
            _ => {}
        }
    }

    /// A relay refused, or gave no answer. Where its call can have another relay, that is asked instead.
    pub(crate) fn undescribed(
        &mut self,
        turn: &mut Turn<'_>,
        then: Then,
        command: Option<(ProcessId, Command)>,
        refused: bool,
        reason: String,
    ) {
        if matches!(then, Then::Probed(_)) {
            // A refusal is an answer.
            let result = if refused { Ok(reason) } else { Err(reason) };
            return self.described(turn, then, result);
        }
        self.counters.media_errors += 1;
        let movable = !matches!(then, Then::Told | Then::Moved { .. } | Then::Claimed(_));
        if let Some((relay, command)) = command.filter(|_| movable)
            && let Some(key) = self.ids.get(media::call_of(&command)).copied()
            && let Some(other) = self.instead(turn, key, relay, refused, &reason)
        {
            tracing::info!(call = media::call_of(&command), %relay, %other, %reason, "another relay is asked");
            return self.ask_relay(Some(other), command, then);
        }
        self.described(turn, then, Err(reason));
    }

    /// The relay that may be asked what `relay` did not do.
    fn instead(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        relay: ProcessId,
        refused: bool,
        reason: &str,
    ) -> Option<ProcessId> {
        let call = self.calls.get(&key)?;
        // What is agreed is not moved because a change was refused, unless the relay knows nothing of it.
        let stands = refused && call.bridge.is_some() && reason != UNKNOWN_CALL;
        if call.relay == Some(relay) && (stands || call.refused.len() >= MAX_REFUSED) {
            return None;
        }
        if call.relay == Some(relay) {
            self.move_call(turn, key, false);
        }
        self.calls.get(&key)?.relay.filter(|other| *other != relay)
    }

    /// Ends one leg at its relay and nothing else there.
    pub(crate) fn leave_relay(&mut self, leg: LegKey) {
        let Some(leg) = self.legs.get_mut(&leg) else { return };
        if let Some(relay) = leg.relay.take() {
            let command = media::delete_leg(&leg.call_id, &leg.id);
            self.order(Ask::Media { relay, command });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_relay_fills_first_and_equal_ones_share() {
        let share = |loads: [u64; 2]| {
            let peer = |(at, load): (usize, u64)| Peer { load, ..Peer::new(Service::Media, ProcessId(at as u64)) };
            let peers = Peers(loads.into_iter().enumerate().map(peer).collect());
            let chosen = (0..2000).filter_map(|n| choose(&peers, &format!("call {n}"), |_| false));
            chosen.filter(|relay| *relay == ProcessId(0)).count()
        };
        assert!((900..1100).contains(&share([0, 0])));
        assert!((900..1100).contains(&share([400, 400])));
        // 1 : 1/3
        assert!((1400..1600).contains(&share([0, 100])), "{}", share([0, 100]));
    }

    #[test]
    fn only_relays_that_take_new_work_are_chosen() {
        let mut peers = Peers((1..=3).map(|n| Peer::new(Service::Media, ProcessId(n))).collect());
        peers.0.push(Peer::new(Service::Router, ProcessId(4)));
        peers.0[0].state = contract::peers::PeerState::Draining;
        let chosen = |peers: &Peers| -> std::collections::BTreeSet<_> {
            (0..200).filter_map(|n| choose(peers, &n.to_string(), |p| p == ProcessId(2))).map(|p| p.0).collect()
        };
        assert_eq!(chosen(&peers), [3].into());
        // Better one that drains than none.
        peers.0[2].state = contract::peers::PeerState::Draining;
        assert_eq!(chosen(&peers), [1, 3].into());
        peers.0.retain(|p| p.process == ProcessId(2));
        assert_eq!(chosen(&peers), [].into());
    }
}
