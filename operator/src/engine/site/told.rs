//! What is written of the resources of a namespace, and what the store says of them.

use super::Site;
use crate::apply::Pods;
use crate::compile::endpoint;
use crate::figures::Figures;
use crate::observe::{News, Observed};
use crate::status::{self, Cause, Content, Place, Queue, Verdict};
use crate::targets::Target;
use crate::watch::{Known, Seen};
use api::{Kind, ResourceId};
use contract::{Now, Service};
use std::net::SocketAddr;
use std::time::Duration;

impl Site {
    /// What the status of a resource is to say, with its uid; none: it says so, or is not to say anything yet.
    pub fn content(&self, (_, id): &Place, now: Now) -> Option<(String, Content)> {
        let known = self.resources.get(id)?;
        let compiled = self.resources.compiler()?.statuses().get(id)?;
        let programmed = self.latch.as_ref()?.get(id);
        let pods = self.trouble.as_ref().filter(|_| id.kind == Kind::Pbx);
        let verdict = Verdict { compiled, programmed, pods };
        let conditions = status::plan(&known.conditions, verdict, now.wall)?;
        let (observed, due) = self.observed(id, known, now.mono);
        let differs = due || conditions != known.conditions;
        differs.then(|| (known.uid.clone(), Content { conditions, observed }))
    }

    /// What a status is to say was observed, and whether that alone is worth a write.
    fn observed(&self, id: &ResourceId, known: &Known, now: Duration) -> (Observed, bool) {
        let observed = match id.kind {
            Kind::Pbx => match self.figures().filter(|(of, _)| of == id) {
                Some((_, figures)) => {
                    let due = figures.due(written_figures(known), self.figures_written, now);
                    return (Observed::Pbx(Box::new(figures)), due.is_some_and(|due| due <= now));
                }
                None => Observed::Nothing,
            },
            Kind::PbxEndpoint => match (endpoint(&known.resource), &self.registered) {
                (Some(name), Some(registered)) => registered.get(name).copied().unwrap_or_default().status(),
                // The store has not said so to this leader yet: what the one before wrote stays.
                (Some(_), None) => known.observed.clone(),
                (None, _) => Observed::Nothing,
            },
            Kind::Dialplan | Kind::Dispatcher => Observed::Nothing,
        };
        let due = observed != known.observed;
        (observed, due)
    }

    /// This was written by now and made this version.
    pub fn written(&mut self, id: &ResourceId, version: u64, content: Content, now: Duration) {
        let Content { conditions, observed } = content;
        if matches!(observed, Observed::Pbx(_)) {
            self.figures_written = Some(now);
        }
        if let Some(known) = self.resources.get_mut(id) {
            (known.conditions, known.observed) = (conditions, observed);
            known.version = known.version.max(version);
        }
    }

    /// What the store says of who is registered, of what relays carry and of where metrics are collected.
    pub fn news(&mut self, news: News, statuses: &mut Queue) {
        let names: Vec<String> = match news {
            News::Relays(sessions) => return self.relays.news(sessions),
            News::Cpu(used) => return self.relays.cpu(used),
            News::Metrics(at) => {
                self.metrics = Some(at);
                return;
            }
            News::All(all) => {
                self.registered = Some(all);
                // Also those that are not in it: the status of before may say otherwise.
                self.resources.names().cloned().collect()
            }
            News::One(name, registration) => {
                let registered = self.registered.get_or_insert_default();
                if registration.contacts > 0 {
                    registered.insert(name.clone(), registration);
                } else {
                    registered.remove(&name);
                }
                vec![name]
            }
        };
        for id in names.iter().flat_map(|name| self.resources.endpoints(name)) {
            statuses.push((self.name.clone(), id.clone()), Cause::Observed);
        }
    }

    /// Whose metrics are collected where; none: the store has not said so.
    pub fn targets(&self) -> Option<Vec<Target>> {
        let target = |(name, at): (&String, &SocketAddr)| {
            let Seen { pod, pbx, node, .. } = self.pods.get(name)?;
            let on_host = *node == Some(at.ip());
            Some(Target { at: *at, pod: name.clone(), service: pod.service, pbx: pbx.clone(), on_host })
        };
        Some(self.metrics.as_ref()?.iter().filter_map(target).collect())
    }

    /// What the Pbx is to show, and which it is.
    fn figures(&self) -> Option<(ResourceId, Figures)> {
        let (pbx, _) = self.resources.pbx()?;
        let serving = self.pods.values().filter(|Seen { pod, pbx: of, marks, .. }| {
            let relay = *of == pbx.resource.name && pod.service == Service::Media;
            relay && pod.ready && !pod.failing && !pod.leaving && marks.draining.is_none()
        });
        let tiers: Vec<_> = self.objects.tiers().into_iter().filter_map(|(_, live)| live?.pods).collect();
        let count = |of: fn(&Pods) -> i64| tiers.iter().map(of).sum::<i64>();
        let pods = || format!("{}/{}", count(|pods| pods.available.min(pods.wanted)), count(|pods| pods.wanted));
        let decision = self.relays.decision();
        let mut figures = Figures {
            pods: (!tiers.is_empty()).then(pods),
            sessions: self.relays.sessions(),
            relays: u32::try_from(serving.count()).ok(),
            desired_relays: decision.map(|(desired, _)| desired),
            scaling: decision.map(|(_, text)| text.to_owned()),
        };
        if figures.sessions.is_none()
            && let Some(there) = written_figures(pbx)
        {
            // Relays have not said so to this leader yet: what the one before wrote stays.
            let Figures { pods, relays, .. } = figures;
            figures = Figures { pods, relays, ..there.clone() };
        }
        Some((pbx.resource.id(), figures))
    }

    /// Has what the Pbx shows written if that is due, and gives when it will be.
    pub(super) fn show(&self, statuses: &mut Queue, now: Duration) -> Option<Duration> {
        let (id, figures) = self.figures()?;
        let due = figures.due(written_figures(self.resources.get(&id)?), self.figures_written, now)?;
        if due > now {
            return Some(due);
        }
        statuses.push((self.name.clone(), id), Cause::Observed);
        None
    }
}

/// What the status of a Pbx shows.
fn written_figures(pbx: &Known) -> Option<&Figures> {
    match &pbx.observed {
        Observed::Pbx(figures) => Some(figures),
        Observed::Nothing | Observed::Endpoint(_) => None,
    }
}
