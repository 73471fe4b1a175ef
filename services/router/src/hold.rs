//! Holding a caller for an endpoint that is asleep: the dial goes on, its phone is woken (`wake.rs`), and as soon as a
//! phone has registered it is rung, each once a registration.
//!
//! A hold stands in the store before anybody waits for it. Events of the store are hints: what counts is read from it,
//! after the hold is known to want them, and again every few seconds. A contact that fails before its phone spoke
//! (nothing heard, flow gone) is a registration left from before the phone fell asleep: the hold goes on.

use crate::call::CallKey;
use crate::cause::Branch;
use crate::core::{AfterSave, Core, Then, Turn};
use crate::dial::{Callee, is_live};
use crate::io::Ask;
use crate::leg::LegKey;
use crate::timers::Timer;
use contract::config::CallbackEntry;
use contract::events::CallEventKind;
use contract::location::{Aor, Binding, StoreError};
use contract::records::{HeldRecord, InviteRecord, SeenRecord, WaitRecord};
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the bindings are read, whether there were hints or not.
pub(crate) const REREAD: Duration = Duration::from_secs(5);
/// After hints were missed, bindings are read within this, not all at once.
const SPREAD_MS: u64 = 1000;
/// Registrations that are remembered of a call.
const SEEN: usize = 64;

/// Why a hold is over, as events and notifications say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Somebody has the call.
    Answered,
    /// A phone woke, and its user said no.
    Refused,
    /// The hold time is over, or that of the step.
    Timeout,
    /// The caller is gone.
    Cancelled,
    /// Somebody who may wanted it.
    Command,
    /// The store is gone.
    Store,
}

impl Over {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Over::Answered => "answered",
            Over::Refused => "refused",
            Over::Timeout => "timeout",
            Over::Cancelled => "cancelled",
            Over::Command => "command",
            Over::Store => "store",
        }
    }
}

/// One endpoint that a dial waits for.
#[derive(Debug)]
pub(crate) struct Hold {
    /// Names it to whoever wakes phones, and to people.
    pub(crate) id: String,
    pub(crate) endpoint: String,
    /// Unix seconds.
    pub(crate) since: u64,
    pub(crate) until_unix: u64,
    until: Duration,
    /// When its bindings are read next.
    next: Duration,
    /// Another router began it: the caller knows.
    resumed: bool,
    /// It is in the store, or could not be put there.
    saved: bool,
    /// They are being read.
    reading: bool,
    /// And are to be read once more after that.
    again: bool,
    /// The notification under way.
    pub(crate) notice: Option<u64>,
    /// Whoever wakes phones was told, or may have been.
    pub(crate) told: bool,
    /// A phone registered and was rung.
    pub(crate) woken: bool,
}

/// A registration of an endpoint, as it was when it was rung.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    endpoint: String,
    mark: SeenRecord,
    /// The branch that rings it.
    leg: Option<LegKey>,
}

fn mark(binding: &Binding) -> SeenRecord {
    SeenRecord {
        phone: binding.instance.clone().unwrap_or_else(|| binding.contact.clone()),
        contact: binding.contact.clone(),
        call_id: binding.call_id.clone(),
        cseq: binding.cseq,
        updated: binding.updated,
    }
}

/// True if a branch that ended so never reached a person: the contact is one that its phone left behind.
fn is_stale(ended: Branch) -> bool {
    matches!(ended, Branch::Absent | Branch::Silent | Branch::Status(404 | 408 | 410 | 430 | 500..=599))
}

/// How an endpoint can be woken.
fn callback<'t>(turn: &'t Turn<'_>, endpoint: &str) -> Option<&'t CallbackEntry> {
    turn.view.directory.endpoint(endpoint)?.callback.as_ref()
}

impl Core {
    /// How many holds there are.
    pub(crate) fn holds(&self) -> usize {
        self.holding
    }

    /// True if a call waits for this AOR.
    pub fn waits_for(&self, aor: &str) -> bool {
        self.held.contains_key(aor)
    }

    /// The dial's look-up of an endpoint found no contact that can be rung, or its phone is to be woken in any case: true
    /// if the dial waits for it.
    pub(crate) fn hold(&mut self, turn: &mut Turn<'_>, key: CallKey, endpoint: &str, rings: bool) -> bool {
        let Some(callback) = callback(turn, endpoint).filter(|callback| !rings || callback.always) else {
            return false;
        };
        let hold_time = Duration::from_secs(u64::from(callback.hold_time));
        if self.holds() >= self.limits.max_holds {
            self.counters.overflow += 1;
            return false;
        }
        let (id, now) = (turn.token(16), turn.now);
        let Some(call) = self.calls.get_mut(&key) else { return false };
        let Some(dialing) = call.dialing.as_mut() else { return false };
        if dialing.holds.iter().any(|hold| hold.endpoint == endpoint) {
            return true;
        }
        // Another router began it.
        let at = call.resumed.iter().position(|wait| wait.endpoint == endpoint);
        let resumed = at.map(|at| call.resumed.swap_remove(at));
        let left = resumed.as_ref().map(|wait| Duration::from_secs(wait.until.saturating_sub(now.unix())));
        let left = left.map_or(hold_time, |left| left.min(hold_time));
        let seen = resumed.iter().flat_map(|wait| &wait.seen);
        let seen = seen.map(|mark| Seen { endpoint: endpoint.to_owned(), mark: mark.clone(), leg: None });
        dialing.seen.extend(seen.take(SEEN));
        let until = now.mono + left;
        let hold = Hold {
            id: resumed.as_ref().map_or(id, |wait| wait.id.clone()),
            endpoint: endpoint.to_owned(),
            since: resumed.as_ref().map_or(now.unix(), |wait| wait.since),
            until_unix: now.unix() + left.as_secs(),
            until,
            next: now.mono,
            resumed: resumed.is_some(),
            saved: false,
            reading: false,
            again: false,
            notice: None,
            // By the same id it may be told of again.
            told: false,
            woken: false,
        };
        let near = call.leg;
        let event = CallEventKind::Held { endpoint: endpoint.to_owned(), hold: hold.id.clone() };
        tracing::info!(call = %call.id, %endpoint, hold = %hold.id, "held");
        dialing.holds.push(hold);
        self.timers.extend(Timer::Dial(key), until);
        self.holding += usize::from(self.held.entry(endpoint.to_owned()).or_default().insert(key));
        self.counters.held += 1;
        self.call_event(turn, key, event);
        self.save(turn, key, &[near], true, AfterSave::Hold(key));
        true
    }

    /// A branch ended so, without an answer. Where the dial waits for its endpoint all the same, that is as if it had not
    /// been.
    pub(crate) fn branch_over(&mut self, turn: &mut Turn<'_>, key: CallKey, endpoint: &str, ended: Branch) {
        if self.hold_on(turn, key, endpoint, ended)
            && let Some(dialing) = self.dialing_mut(key)
            && let Some(at) = dialing.ended.iter().rposition(|e| *e == ended)
        {
            dialing.ended.remove(at);
        }
    }

    fn hold_on(&mut self, turn: &mut Turn<'_>, key: CallKey, endpoint: &str, ended: Branch) -> bool {
        let Some(dialing) = self.dialing(key) else { return false };
        let rings = dialing.branches.iter().any(|b| self.legs.get(b).is_some_and(|leg| leg.endpoint == endpoint));
        let held = dialing.holds.iter().any(|hold| hold.endpoint == endpoint);
        let waited = dialing.waited.iter().any(|waited| waited == endpoint);
        match (held, is_stale(ended)) {
            (true, true) => {
                self.read_again(key, endpoint);
                true
            }
            // Somebody said no, on the last phone that rang.
            (true, false) if !rings => {
                self.drop_hold(turn, key, endpoint, Over::Refused);
                false
            }
            (false, true) if !rings && !waited => self.hold(turn, key, endpoint, false),
            _ => false,
        }
    }

    /// True if a registration was there before another router began the hold that this call goes on with.
    pub(crate) fn is_left_behind(&self, key: CallKey, endpoint: &str, binding: &Binding) -> bool {
        let waits = self.calls.get(&key).map(|call| &call.resumed).into_iter().flatten();
        waits.filter(|wait| wait.endpoint == endpoint).any(|wait| wait.seen.contains(&mark(binding)))
    }

    /// Notes a registration that is rung, or tried to be.
    pub(crate) fn note_rung(&mut self, key: CallKey, endpoint: &str, binding: &Binding, leg: Option<LegKey>) {
        let Some(dialing) = self.dialing_mut(key) else { return };
        let mark = mark(binding);
        dialing.seen.retain(|seen| seen.endpoint != endpoint || seen.mark.phone != mark.phone);
        if dialing.seen.len() < SEEN {
            dialing.seen.push(Seen { endpoint: endpoint.to_owned(), mark, leg });
        }
    }

    /// A hold is in the store: the caller hears of it, and from now on registrations count.
    pub(crate) fn wait_for_registration(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let heard = call.progress.is_some();
        let Some(dialing) = call.dialing.as_mut() else { return };
        let (mut fresh, mut new) = (Vec::new(), !heard);
        for hold in dialing.holds.iter_mut().filter(|hold| !hold.saved) {
            hold.saved = true;
            new |= !hold.resumed;
            fresh.push(hold.endpoint.clone());
        }
        if fresh.is_empty() {
            return;
        }
        if new && !self.caller_is_up(key) {
            if heard {
                self.progress_again(turn, key);
            } else {
                self.progress(turn, key, 180, None);
            }
        }
        for endpoint in fresh {
            self.read_again(key, &endpoint);
        }
        self.arm_hold(key);
    }

    /// Has the bindings of an endpoint read, now or after the reading that is under way.
    fn read_again(&mut self, key: CallKey, endpoint: &str) {
        let Some(dialing) = self.dialing_mut(key) else { return };
        let dial = dialing.number;
        // Once it is saved, it is read in any case.
        let hold = dialing.holds.iter_mut().find(|hold| hold.endpoint == endpoint && hold.saved);
        let Some(hold) = hold else { return };
        if std::mem::replace(&mut hold.reading, true) {
            hold.again = true;
            return;
        }
        let then = Then::Reread { call: key, dial, endpoint: endpoint.to_owned() };
        self.ask(Ask::Load { aor: endpoint.to_owned() }, then);
    }

    /// The bindings of an endpoint that is waited for: what registered since is rung.
    pub(crate) fn reread(
        &mut self,
        turn: &mut Turn<'_>,
        key: CallKey,
        dial: u64,
        endpoint: &str,
        result: Result<Aor, StoreError>,
    ) {
        let Some(dialing) = self.dialing_mut(key) else { return };
        let Some(hold) =
            dialing.holds.iter_mut().find(|hold| hold.endpoint == endpoint).filter(|_| dialing.number == dial)
        else {
            return;
        };
        hold.reading = false;
        hold.next = turn.now.mono + REREAD;
        let again = std::mem::take(&mut hold.again);
        let aor = match result {
            Ok(aor) => aor,
            Err(_) if !self.caller_is_up(key) => return self.store_down(turn, key),
            Err(_) => {
                self.drop_hold(turn, key, endpoint, Over::Store);
                self.branch_ended(key, Branch::Status(500));
                return self.dial_over(turn, key);
            }
        };
        for binding in &aor.bindings {
            if is_live(turn, binding) && self.is_fresh(key, endpoint, binding) {
                self.ring_woken(turn, key, endpoint, binding);
            }
        }
        self.wake(turn, key, endpoint, &aor.bindings);
        if again {
            self.read_again(key, endpoint);
        }
        self.arm_hold(key);
        self.dial_over(turn, key);
    }

    /// True if a phone registered since it was last rung, and does not ring.
    fn is_fresh(&self, key: CallKey, endpoint: &str, binding: &Binding) -> bool {
        let Some(dialing) = self.dialing(key) else { return false };
        let mark = mark(binding);
        let mut known = dialing.seen.iter().filter(|seen| seen.endpoint == endpoint && seen.mark.phone == mark.phone);
        dialing.winner.is_none()
            && !known.any(|seen| seen.mark == mark || seen.leg.is_some_and(|leg| dialing.branches.contains(&leg)))
    }

    fn ring_woken(&mut self, turn: &mut Turn<'_>, key: CallKey, endpoint: &str, binding: &Binding) {
        let Some(dialing) = self.dialing_mut(key) else { return };
        let Some(hold) = dialing.holds.iter_mut().find(|hold| hold.endpoint == endpoint) else { return };
        let first = !std::mem::replace(&mut hold.woken, true);
        let (limit, id) = (dialing.limit, hold.id.clone());
        self.counters.woken += u64::from(first);
        self.timers.extend(Timer::Dial(key), turn.now.mono + limit);
        self.call_event(turn, key, CallEventKind::Woken { endpoint: endpoint.to_owned(), hold: id });
        let codecs = turn.view.directory.endpoint(endpoint).map(|e| e.codecs.clone()).unwrap_or_default();
        let leg = self.ring(turn, key, Callee::of(endpoint, codecs, binding));
        self.note_rung(key, endpoint, binding, leg);
    }

    /// Something was written at an AOR.
    pub(crate) fn registered(&mut self, aor: &str) {
        for key in self.held.get(aor).cloned().unwrap_or_default() {
            self.read_again(key, aor);
        }
    }

    /// Hints were missed.
    pub(crate) fn registrations_missed(&mut self, turn: &mut Turn<'_>) {
        let keys: BTreeSet<CallKey> = self.held.values().flatten().copied().collect();
        for key in keys {
            let soon = turn.now.mono + Duration::from_millis(turn.between(0, SPREAD_MS));
            let Some(dialing) = self.dialing_mut(key) else { continue };
            for hold in &mut dialing.holds {
                hold.next = hold.next.min(soon);
            }
            self.arm_hold(key);
        }
    }

    fn arm_hold(&mut self, key: CallKey) {
        let holds = self.dialing(key).map(|dialing| &dialing.holds);
        match holds.into_iter().flatten().map(|hold| hold.until.min(hold.next)).min() {
            Some(at) => self.timers.arm(Timer::Hold(key), at),
            None => self.timers.disarm(Timer::Hold(key)),
        }
    }

    /// Bindings are to be read, or somebody has been waited for long enough.
    pub(crate) fn hold_due(&mut self, turn: &mut Turn<'_>, key: CallKey) {
        let now = turn.now.mono;
        let Some(dialing) = self.dialing_mut(key) else { return };
        let (mut over, mut due) = (Vec::new(), Vec::new());
        for hold in &mut dialing.holds {
            if hold.until <= now {
                over.push(hold.endpoint.clone());
            } else if hold.next <= now {
                hold.next = now + REREAD;
                due.push(hold.endpoint.clone());
            }
        }
        for endpoint in over {
            self.drop_hold(turn, key, &endpoint, Over::Timeout);
            self.branch_ended(key, Branch::Asleep);
        }
        for endpoint in due {
            self.read_again(key, &endpoint);
        }
        self.arm_hold(key);
        self.dial_over(turn, key);
    }

    /// A hold by its id.
    fn hold_of(&self, id: &str) -> Option<(CallKey, String)> {
        let keys = self.held.values().flatten();
        keys.filter_map(|key| Some((*key, self.dialing(*key)?))).find_map(|(key, dialing)| {
            dialing.holds.iter().find(|hold| hold.id == id).map(|hold| (key, hold.endpoint.clone()))
        })
    }

    /// Whether there is a hold of this id.
    pub fn has_hold(&self, id: &str) -> bool {
        self.hold_of(id).is_some()
    }

    /// Somebody who may says that the callee is there: whatever is registered rings, since when it ever is.
    pub(crate) fn ring_now(&mut self, id: &str) {
        let Some((key, endpoint)) = self.hold_of(id) else { return };
        if let Some(dialing) = self.dialing_mut(key) {
            let rings: Vec<LegKey> = dialing.branches.clone();
            dialing.seen.retain(|seen| seen.endpoint != endpoint || seen.leg.is_some_and(|leg| rings.contains(&leg)));
        }
        self.read_again(key, &endpoint);
    }

    /// Somebody who may has a hold given up.
    pub(crate) fn give_up_hold(&mut self, turn: &mut Turn<'_>, id: &str) {
        let Some((key, endpoint)) = self.hold_of(id) else { return };
        self.drop_hold(turn, key, &endpoint, Over::Command);
        self.branch_ended(key, Branch::Asleep);
        self.arm_hold(key);
        self.dial_over(turn, key);
    }

    /// Ends one hold, and says so to who was told of it.
    fn drop_hold(&mut self, turn: &mut Turn<'_>, key: CallKey, endpoint: &str, why: Over) {
        let Some(dialing) = self.dialing_mut(key) else { return };
        let Some(at) = dialing.holds.iter().position(|hold| hold.endpoint == endpoint) else { return };
        let hold = dialing.holds.swap_remove(at);
        dialing.waited.push(hold.endpoint.clone());
        self.unindex(key, endpoint);
        let (endpoint, id) = (hold.endpoint.clone(), hold.id.clone());
        self.call_event(turn, key, CallEventKind::Released { endpoint, hold: id, reason: why.as_str().to_owned() });
        self.unwake(turn, key, hold, why);
    }

    /// Ends all holds of a call. Who answered needs no word.
    pub(crate) fn drop_holds(&mut self, turn: &mut Turn<'_>, key: CallKey, why: Over) {
        let holds = self.dialing(key).map(|dialing| &dialing.holds);
        let endpoints: Vec<String> = holds.into_iter().flatten().map(|hold| hold.endpoint.clone()).collect();
        for endpoint in endpoints {
            self.drop_hold(turn, key, &endpoint, why);
        }
        self.timers.disarm(Timer::Hold(key));
    }

    /// Forgets the holds of a call that another router goes on with.
    pub(crate) fn leave_holds(&mut self, key: CallKey) {
        let dialing = self.dialing_mut(key);
        for hold in dialing.map(|dialing| std::mem::take(&mut dialing.holds)).unwrap_or_default() {
            self.unindex(key, &hold.endpoint);
            if let Some(notice) = hold.notice {
                self.forget_notice(notice);
            }
        }
        self.timers.disarm(Timer::Hold(key));
    }

    fn unindex(&mut self, key: CallKey, endpoint: &str) {
        if let Some(keys) = self.held.get_mut(endpoint) {
            self.holding -= usize::from(keys.remove(&key));
            if keys.is_empty() {
                self.held.remove(endpoint);
            }
        }
    }

    /// What a call that is held has in its record.
    pub(crate) fn held_record(&self, key: CallKey) -> Option<HeldRecord> {
        let call = self.calls.get(&key)?;
        let dialing = call.dialing.as_ref().filter(|dialing| !dialing.holds.is_empty())?;
        let near = self.legs.get(&call.leg)?;
        let invite = near.server.and_then(|server| {
            Some(InviteRecord {
                request: std::str::from_utf8(self.transactions.server_request(server)?).ok()?.to_owned(),
                from: *self.transactions.server_hop(server)?,
                to_tag: near.name.1.clone(),
            })
        });
        let wait = |hold: &Hold| WaitRecord {
            id: hold.id.clone(),
            endpoint: hold.endpoint.clone(),
            since: hold.since,
            until: hold.until_unix,
            // What rang since then is rung again.
            seen: dialing
                .seen
                .iter()
                .filter(|seen| seen.endpoint == hold.endpoint && !hold.woken)
                .map(|seen| seen.mark.clone())
                .collect(),
        };
        Some(HeldRecord { invite, waits: dialing.holds.iter().map(wait).collect() })
    }
}
