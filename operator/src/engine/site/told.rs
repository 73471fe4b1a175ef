//! What is written of the resources of a namespace, and what the store says of them.

use super::Site;
use crate::apply::Pods;
use crate::compile::endpoint;
use crate::figures::Figures;
use crate::observe::{News, Observed};
use crate::status::{self, Aspect, Content, Place, Queue, Verdict};
use crate::targets::Target;
use crate::watch::{Known, Seen};
use api::{Kind, ResourceId};
use contract::{Now, Service};
use std::net::SocketAddr;
use std::time::Duration;

impl Site {
    /// What to write at a place, with the uid of the resource; none: it rests.
    pub fn content(&self, place: &Place, now: Now) -> Option<(String, Content)> {
        let (_, id, aspect) = place;
        let known = self.resources.get(id)?;
        let content = match aspect {
            Aspect::Conditions => {
                let compiled = self.resources.compiler()?.statuses().get(id)?;
                let programmed = self.latch.as_ref()?.get(id);
                let pods = self.trouble.as_ref().filter(|_| id.kind == Kind::Pbx);
                let verdict = Verdict { compiled, programmed, pods };
                Content::Conditions(status::plan(&known.conditions, verdict, now.wall)?)
            }
            Aspect::Observed if id.kind == Kind::Pbx => {
                let (of, figures) = self.figures()?;
                let due = figures.due(written_figures(known), self.figures_written, now.mono)?;
                (of == *id && due <= now.mono).then(|| Content::Observed(Observed::Pbx(Box::new(figures))))?
            }
            Aspect::Observed => {
                let registered = self.registered.as_ref()?.get(endpoint(&known.resource)?);
                let observed = registered.copied().unwrap_or_default().status();
                Content::Observed(Some(observed).filter(|observed| *observed != known.observed)?)
            }
        };
        Some((known.uid.clone(), content))
    }

    /// This was written by now and made this version.
    pub fn written(&mut self, id: &ResourceId, version: u64, content: Content, now: Duration) {
        if matches!(content, Content::Observed(Observed::Pbx(_))) {
            self.figures_written = Some(now);
        }
        if let Some(known) = self.resources.get_mut(id) {
            match content {
                Content::Conditions(conditions) => known.conditions = conditions,
                Content::Observed(observed) => known.observed = observed,
            }
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
            statuses.push((self.name.clone(), id.clone(), Aspect::Observed));
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
        let sessions = self.relays.sessions();
        let serving = self.pods.values().filter(|Seen { pod, pbx: of, marks, .. }| {
            let relay = *of == pbx.resource.name && pod.service == Service::Media;
            relay && pod.ready && !pod.failing && !pod.leaving && marks.draining.is_none()
        });
        let tiers: Vec<_> = self.objects.tiers().into_iter().filter_map(|(_, live)| live?.pods).collect();
        let count = |of: fn(&Pods) -> i64| tiers.iter().map(of).sum::<i64>();
        let pods = || format!("{}/{}", count(|pods| pods.available.min(pods.wanted)), count(|pods| pods.wanted));
        let decision = self.relays.decision();
        let figures = Figures {
            pods: (!tiers.is_empty()).then(pods),
            sessions,
            relays: u32::try_from(serving.count()).ok(),
            desired_relays: decision.map(|(desired, _)| desired),
            scaling: decision.map(|(_, text)| text.to_owned()),
        };
        Some((pbx.resource.id(), figures))
    }

    /// Has what the Pbx shows written if that is due, and gives when it will be.
    pub(super) fn show(&self, statuses: &mut Queue, now: Duration) -> Option<Duration> {
        let (id, figures) = self.figures()?;
        let due = figures.due(written_figures(self.resources.get(&id)?), self.figures_written, now)?;
        if due > now {
            return Some(due);
        }
        statuses.push((self.name.clone(), id, Aspect::Observed));
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
