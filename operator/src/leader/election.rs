//! The rules of the election, without an API server.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use runtime::stream::server::Leader;
use std::time::Duration;

/// The Lease's annotation that says where its holder is reached.
pub const URL: &str = "kubepbx.io/url";

/// Who stands for election, and for how long it is elected.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub lease: String,
    /// Its name; another one for each run.
    pub identity: String,
    /// Where it is reached once it leads, such as `https://10.2.0.7:8443`.
    pub url: String,
    /// How long an election holds without being renewed, in whole seconds.
    pub term: Duration,
    /// How often it is renewed, or looked at by those who wait.
    pub period: Duration,
}

impl Candidate {
    /// With the usual times.
    pub fn new(namespace: &str, lease: &str, identity: &str, url: &str) -> Self {
        Self {
            namespace: namespace.into(),
            lease: lease.into(),
            identity: identity.into(),
            url: url.into(),
            term: Duration::from_secs(10),
            period: Duration::from_secs(2),
        }
    }

    /// A leader that has not renewed for so long steps down.
    fn patience(&self) -> Duration {
        self.term * 2 / 3
    }

    /// An answer that takes longer is not waited for, so that stepping down is never late by more than this.
    pub(super) fn answer(&self) -> Duration {
        ((self.term - self.patience()) / 2).min(Duration::from_secs(5))
    }

    /// How soon to try again what did not work.
    fn retry(&self) -> Duration {
        (self.period / 4).min(Duration::from_secs(1))
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Read the Lease: [`Election::seen`] or [`Election::unseen`].
    Read,
    /// Create it: [`Election::written`].
    Create(Box<Lease>),
    /// Replace it, if its resource version is still that: [`Election::written`].
    Replace(Box<Lease>),
    /// Nothing before then.
    Wait(Duration),
}

/// Why a Lease was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Somebody else did first.
    Conflict,
    /// Nobody answered, or not well; it may have been written.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: u64,
    /// When that was sent which was last written.
    since: Duration,
}

/// One candidate's view. Times are monotonic ones of this process.
#[derive(Debug)]
pub struct Election {
    candidate: Candidate,
    /// The Lease as last seen or written, if there is one.
    lease: Option<Lease>,
    /// Since when it has looked like that.
    since: Duration,
    /// Whether `lease` is what a write may build on.
    fresh: bool,
    held: Option<Held>,
    /// What was sent and is not answered yet.
    sent: Option<Held>,
    /// The highest epoch that it has held or tried to.
    highest: u64,
    due: Duration,
}

impl Election {
    /// Nothing is known yet.
    pub fn new(candidate: Candidate) -> Self {
        let (since, due) = (Duration::ZERO, Duration::ZERO);
        Self { candidate, lease: None, since, fresh: false, held: None, sent: None, highest: 0, due }
    }

    /// Who leads at `now`, as far as is known here.
    pub fn leader(&self, now: Duration) -> Leader {
        if let Some(held) = self.held.filter(|held| now < held.since + self.candidate.patience()) {
            return Leader::Here { epoch: held.epoch };
        }
        let lease = self.lease.as_ref().filter(|lease| !is_vacant(lease) && !self.is_over(now) && !self.is_mine(lease));
        let url = lease.and_then(|lease| lease.metadata.annotations.as_ref()?.get(URL));
        url.map_or(Leader::Nobody, |url| Leader::There(url.clone()))
    }

    /// What to do at `now`. `wall` is the time since the UNIX epoch, for people who read the Lease; `above` an epoch that
    /// ours is to be higher than.
    pub(super) fn next(&mut self, now: Duration, wall: Duration, above: u64) -> Step {
        self.held = self.held.filter(|held| now < held.since + self.candidate.patience());
        let overtaken = self.held.is_some_and(|held| held.epoch < above);
        if now < self.due && !overtaken {
            let end = self.held.map(|held| held.since + self.candidate.patience());
            return Step::Wait(end.map_or(self.due, |end| end.min(self.due)));
        }
        if !std::mem::take(&mut self.fresh) {
            return Step::Read;
        }
        let epoch = match (&self.lease, self.held) {
            (_, Some(held)) if !overtaken => held.epoch,
            (Some(lease), None) if !is_vacant(lease) && !self.is_mine(lease) && !self.is_over(now) => {
                self.due = now + self.candidate.period;
                return Step::Wait(self.due);
            }
            // Its own counts too: the Lease may have been deleted.
            (lease, _) => lease.as_ref().map_or(0, transitions).max(above).max(self.highest).saturating_add(1),
        };
        self.highest = self.highest.max(epoch);
        self.sent = Some(Held { epoch, since: now });
        let lease = Box::new(self.claim(epoch, wall));
        if self.lease.is_some() { Step::Replace(lease) } else { Step::Create(lease) }
    }

    /// The Lease is this; `None`: there is none.
    pub(super) fn seen(&mut self, lease: Option<Lease>, now: Duration) {
        if self.held.is_some() && !lease.as_ref().is_some_and(|lease| self.is_mine(lease)) {
            self.held = None;
        }
        self.note(lease, now);
    }

    /// It could not be read.
    pub(super) fn unseen(&mut self, now: Duration) {
        self.due = now + self.candidate.retry();
    }

    /// What became of the write that [`Election::next`] wanted.
    pub(super) fn written(&mut self, written: Result<Lease, Unwritten>, now: Duration) {
        let sent = self.sent.take();
        match written {
            Ok(lease) => {
                self.held = sent;
                self.note(Some(lease), now);
                self.due = sent.map_or(now, |sent| sent.since) + self.candidate.period;
            }
            Err(Unwritten::Conflict) => self.due = now,
            Err(Unwritten::Unknown) => self.due = now + self.candidate.retry(),
        }
    }

    /// Leads no longer, and what to replace the Lease by to say so.
    pub(super) fn resign(&mut self) -> Option<Lease> {
        self.held.take()?;
        let mut lease = self.lease.take()?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        lease.metadata.annotations.get_or_insert_default().remove(URL);
        Some(lease)
    }

    fn note(&mut self, lease: Option<Lease>, now: Duration) {
        let version = |lease: &Option<Lease>| lease.as_ref().and_then(|l| l.metadata.resource_version.clone());
        if version(&self.lease) != version(&lease) {
            self.since = now;
        }
        (self.lease, self.fresh) = (lease, true);
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        holder(lease) == self.candidate.identity
    }

    /// Whether the term of the Lease's holder is over.
    fn is_over(&self, now: Duration) -> bool {
        let seconds = self.lease.as_ref().and_then(|lease| lease.spec.as_ref()?.lease_duration_seconds);
        let term = seconds.and_then(|s| u64::try_from(s).ok()).map_or(self.candidate.term, Duration::from_secs);
        now >= self.since + term
    }

    fn claim(&self, epoch: u64, wall: Duration) -> Lease {
        let mut lease = self.lease.clone().unwrap_or_default();
        lease.metadata.name = Some(self.candidate.lease.clone());
        lease.metadata.namespace = Some(self.candidate.namespace.clone());
        lease.metadata.annotations.get_or_insert_default().insert(URL.into(), self.candidate.url.clone());
        let time = i64::try_from(wall.as_micros()).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
        let acquired = lease.spec.take().filter(|spec| spec.lease_transitions == Some(number(epoch)));
        lease.spec = Some(LeaseSpec {
            acquire_time: acquired.and_then(|spec| spec.acquire_time).or(time.map(MicroTime)),
            holder_identity: Some(self.candidate.identity.clone()),
            lease_duration_seconds: i32::try_from(self.candidate.term.as_secs()).ok(),
            lease_transitions: Some(number(epoch)),
            renew_time: time.map(MicroTime),
            ..LeaseSpec::default()
        });
        lease
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

fn is_vacant(lease: &Lease) -> bool {
    holder(lease).is_empty()
}

fn transitions(lease: &Lease) -> u64 {
    let number = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
    number.and_then(|n| u64::try_from(n).ok()).unwrap_or_default()
}

fn number(epoch: u64) -> i32 {
    i32::try_from(epoch).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
