//! The rules of one address of record: what a REGISTER makes of its bindings (RFC 3261 10.3 steps 6 to 8, RFC 5626
//! 6, Asterisk's `aor` section). One pure function over plain values, so that it can be rerun when somebody else
//! wrote the AOR first.

use contract::Flow;
use contract::config::AorEntry;
use contract::location::{Binding, Push};
use sip::uri::Uri;

/// What one REGISTER asks of one AOR, read and bounded; owned, because it outlives its message while the store works.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// Its Call-ID.
    pub call_id: String,
    /// Its CSeq number.
    pub cseq: u32,
    /// What it wants.
    pub asked: Asked,
    /// Path values, topmost first.
    pub path: Vec<String>,
    /// The flow it came on.
    pub flow: Flow,
    /// The phone's User-Agent.
    pub user_agent: Option<String>,
}

/// What a REGISTER wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// No Contact: only the list (RFC 3261 10.2.3).
    Query,
    /// `Contact: *` with `Expires: 0` (RFC 3261 10.2.2).
    RemoveAll,
    /// These contacts, in order.
    Contacts(Vec<Wanted>),
}

/// One Contact of a REGISTER.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its URI as written.
    pub uri: String,
    /// Asked expiry in seconds, 0 to remove; none: the AOR's default.
    pub expires: Option<u32>,
    /// `q` in thousandths.
    pub q: u16,
    /// `+sip.instance` without quotes.
    pub instance: Option<String>,
    /// `reg-id`.
    pub reg_id: Option<u32>,
    /// How its push service finds the phone.
    pub push: Option<Push>,
}

/// Why a REGISTER changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 423: an expiry is shorter than the AOR's minimum, which is told.
    IntervalTooBrief(u32),
    /// 403: more contacts than the AOR may have.
    TooManyContacts,
    /// 500: older than what its Call-ID has already done (RFC 3261 10.3 step 7).
    OutOfOrder,
}

/// What a REGISTER makes of an AOR.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The bindings after it: those that live, then expired ones that are remembered, since their phones can be woken.
    pub bindings: Vec<Binding>,
    /// They differ from those before, so they have to be written.
    pub changed: bool,
}

/// Phones that are remembered of one AOR beside those registered.
const REMEMBERED: usize = 8;

struct Kept {
    binding: Binding,
    /// Written by this very request.
    written: bool,
}

/// Applies a REGISTER to the bindings of its AOR at `now` (seconds since the UNIX epoch). `gone` says of a flow that
/// nobody can use it any more. On refusal nothing changes, whatever the order of its contacts.
pub fn save(
    before: &[Binding],
    register: &Register,
    rules: &AorEntry,
    now: u64,
    gone: &dyn Fn(&Flow) -> bool,
) -> Result<Saved, Refusal> {
    let mut kept: Vec<Kept> =
        before.iter().filter(|b| b.is_live(now)).map(|b| Kept { binding: b.clone(), written: false }).collect();
    let mut remembered: Vec<Binding> = before.iter().filter_map(|b| b.remembered(now)).collect();
    match &register.asked {
        Asked::Query => {}
        Asked::RemoveAll => {
            if kept.iter().any(|k| k.binding.call_id == register.call_id && k.binding.cseq > register.cseq) {
                return Err(Refusal::OutOfOrder);
            }
            kept.clear();
            remembered.clear();
        }
        Asked::Contacts(contacts) => {
            let mut added = 0usize;
            for wanted in contacts {
                added += one(&mut kept, register, wanted, contacts, rules, now)?;
            }
            // A phone that is here again, or takes itself away, need not be remembered.
            let is_back = |b: &Binding, w: &Wanted| names(b, w) || w.push.is_some() && b.push == w.push;
            remembered.retain(|b| !contacts.iter().any(|w| is_back(b, w)));
            if added > 0 {
                make_room(&mut kept, rules, gone)?;
            }
        }
    }
    remembered.sort_by_key(|b| b.expires_at);
    let excess = remembered.len().saturating_sub(REMEMBERED);
    let bindings: Vec<Binding> =
        kept.into_iter().map(|k| k.binding).chain(remembered.into_iter().skip(excess)).collect();
    // A query leaves expired bindings to the sweep: reading does not write.
    let changed = register.asked != Asked::Query && bindings != before;
    Ok(Saved { bindings, changed })
}

/// One contact; returns how many bindings it added.
fn one(
    kept: &mut Vec<Kept>,
    register: &Register,
    wanted: &Wanted,
    all: &[Wanted],
    rules: &AorEntry,
    now: u64,
) -> Result<usize, Refusal> {
    let expires = expiry(wanted, rules)?;
    let mut own: Vec<usize> = Vec::new();
    for (at, k) in kept.iter().enumerate() {
        let b = &k.binding;
        let is_own = if expires == 0 {
            // A phone that moved registers its new contact and then removes the old one: neither its Call-ID nor
            // its instance alone may take the new binding away.
            same_uri(b, wanted) || same_registration(b, wanted) && !k.written
        } else {
            same_uri(b, wanted)
                || same_instance(b, wanted)
                || continues(b, register, wanted) && !k.written && !all.iter().any(|w| w != wanted && names(b, w))
        };
        if is_own {
            if b.call_id == register.call_id && b.cseq > register.cseq {
                return Err(Refusal::OutOfOrder);
            }
            own.push(at);
        }
    }
    if let [at] = own[..] {
        let k = &kept[at];
        if !k.written && k.binding.call_id == register.call_id && k.binding.cseq == register.cseq {
            // The same request again, by way of another balancer: what it did stands.
            return Ok(0);
        }
    }
    let since = own.iter().map(|&at| kept[at].binding.since).min();
    let added = usize::from(own.is_empty() && expires > 0);
    for at in own.into_iter().rev() {
        kept.remove(at);
    }
    if expires > 0 {
        let binding = Binding {
            contact: wanted.uri.clone(),
            call_id: register.call_id.clone(),
            cseq: register.cseq,
            expires_at: now + u64::from(expires),
            since: since.unwrap_or(now),
            updated: now,
            path: register.path.clone(),
            flow: Some(register.flow),
            instance: wanted.instance.clone(),
            reg_id: wanted.reg_id,
            q: wanted.q,
            user_agent: register.user_agent.clone(),
            push: wanted.push.clone(),
            forget_at: None,
        };
        kept.push(Kept { binding, written: true });
    }
    Ok(added)
}

/// Seconds that a contact gets; 0 removes it.
fn expiry(wanted: &Wanted, rules: &AorEntry) -> Result<u32, Refusal> {
    match wanted.expires {
        Some(0) => Ok(0),
        Some(asked) if asked < rules.minimum_expiration => Err(Refusal::IntervalTooBrief(rules.minimum_expiration)),
        Some(asked) => Ok(asked.min(rules.maximum_expiration)),
        // At least one second, whatever the bounds are: a default never removes.
        None => Ok(rules.default_expiration.max(rules.minimum_expiration).min(rules.maximum_expiration).max(1)),
    }
}

/// Holds the AOR to its maximum: bindings that nobody can reach go first, then, with `remove_existing`, the oldest.
fn make_room(kept: &mut Vec<Kept>, rules: &AorEntry, gone: &dyn Fn(&Flow) -> bool) -> Result<(), Refusal> {
    let max = rules.max_contacts as usize;
    let unreachable = |k: &Kept| !k.written && k.binding.flow.as_ref().is_some_and(gone);
    while kept.len() > max {
        let oldest = |pick: &dyn Fn(&Kept) -> bool| {
            let candidates = kept.iter().enumerate().filter(|(_, k)| pick(k));
            candidates.min_by_key(|(_, k)| k.binding.updated).map(|(at, _)| at)
        };
        let victim = oldest(&unreachable)
            .or_else(|| oldest(&|k| !k.written).filter(|_| rules.remove_existing))
            .ok_or(Refusal::TooManyContacts)?;
        kept.remove(victim);
    }
    Ok(())
}

/// The same Contact (RFC 3261 10.2.4: URI equivalence).
fn same_uri(binding: &Binding, wanted: &Wanted) -> bool {
    binding.contact == wanted.uri
        || match (Uri::parse(&binding.contact), Uri::parse(&wanted.uri)) {
            (Ok(a), Ok(b)) => a.equivalent(&b),
            _ => false,
        }
}

/// The same instance, and the same of its flows where it numbers them (RFC 5626 4.2.1).
fn same_instance(binding: &Binding, wanted: &Wanted) -> bool {
    binding.instance.is_some() && binding.instance == wanted.instance && binding.reg_id == wanted.reg_id
}

/// The same numbered flow of the same instance: what RFC 5626 6 knows a binding by.
fn same_registration(binding: &Binding, wanted: &Wanted) -> bool {
    wanted.reg_id.is_some() && same_instance(binding, wanted)
}

/// True if `wanted` names this binding, by URI or by instance.
fn names(binding: &Binding, wanted: &Wanted) -> bool {
    same_uri(binding, wanted) || same_instance(binding, wanted)
}

/// A binding that the same Call-ID made earlier: a phone whose address changed. Two that both name their instance or
/// flow, and differently, are two.
fn continues(binding: &Binding, register: &Register, wanted: &Wanted) -> bool {
    let distinct = binding.instance.is_some()
        && wanted.instance.is_some()
        && (binding.instance != wanted.instance || binding.reg_id != wanted.reg_id);
    binding.call_id == register.call_id && binding.cseq != register.cseq && !distinct
}

#[cfg(test)]
#[path = "save_tests.rs"]
mod tests;
