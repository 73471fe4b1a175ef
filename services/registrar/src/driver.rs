//! The registrar's IO: the mesh, the store, configuration, peers and timers around [`crate::core::Core`].

use crate::core::{Core, Input, Output, Settings};
use crate::directory::Directory;
use crate::view;
use contract::config::RegistrarEntry;
use contract::location::StoreError;
use contract::peers::{Peer, PeerState};
use contract::{ProcessId, Service};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::mesh::Member;
use runtime::metrics::{self, Reason};
use runtime::source::Subscription;
use runtime::store::{AorHint, Store};
use runtime::{Clock, Deps, Drain, Lookups, Running, entropy, timer};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How to run a registrar.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`Settings`].
    pub settings: Settings,
    /// After the drain began and nothing is under way, requests are still answered (503) for so long, so that the
    /// balancers learn of it first.
    pub linger: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { settings: Settings::default(), linger: Duration::from_millis(500) }
    }
}

/// Joins the mesh and serves until drained. The views are `registrations`.
pub fn build(config: Config, deps: Deps<RegistrarEntry>) -> anyhow::Result<Running> {
    let Deps { process, mesh, store, keys, source, clock, drain, metrics, health } = deps;
    let peers = mesh.peers();
    let member = mesh.join(Peer::new(Service::Registrar, process));
    let mut running = Running::new();
    let stored = store.clone();
    running.view("registrations", move || {
        let store = stored.clone();
        async move { view::registrations(store.aors().await, clock.now().unix()) }
    });
    // Sweeps, refills and their writes come on top of the requests.
    let lookups = Lookups::new(config.settings.limit + 2 * crate::sweep::BATCH + 2 * crate::refill::BATCH);
    let driver = Driver {
        process,
        core: Core::new(process, config.settings, keys),
        member,
        peers,
        store,
        source,
        clock,
        drain,
        linger: config.linger,
        events: metrics.reasons("registrar_events", "Answers to REGISTER by status, and other events."),
        lookups,
        part: health.part("registrar"),
        pulse: health.pulse("registrar"),
    };
    running.spawn("registrar", driver.run());
    Ok(running)
}

struct Driver {
    process: ProcessId,
    core: Core,
    member: Member,
    peers: tokio::sync::watch::Receiver<Arc<contract::peers::Peers>>,
    store: Arc<dyn Store>,
    source: Subscription<RegistrarEntry>,
    clock: Clock,
    drain: Drain,
    linger: Duration,
    events: Family<Reason, Counter>,
    lookups: Lookups<Input>,
    part: runtime::health::Part,
    pulse: runtime::health::Pulse,
}

impl Driver {
    async fn run(mut self) -> anyhow::Result<()> {
        let mut rng = entropy();
        let mut draining = false;
        let mut hints = self.store.hints();
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        let mut first = vec![self.configured(), Input::Peers(self.peers.borrow_and_update().clone())];
        let end = tokio::time::sleep(Duration::MAX);
        tokio::pin!(end);
        loop {
            let input = match first.pop() {
                Some(input) => input,
                None => tokio::select! {
                    message = self.member.recv() => match message {
                        Some(message) => Input::Message(message),
                        None => anyhow::bail!("another process has this one's name"),
                    },
                    done = self.lookups.next() => done,
                    hint = hints.recv() => match hint {
                        Ok(hint) => Input::Hint(hint),
                        Err(RecvError::Lagged(_)) => Input::Hint(AorHint::Missed),
                        Err(RecvError::Closed) => anyhow::bail!("the store is gone"),
                    },
                    () = self.source.changed() => self.configured(),
                    Ok(()) = self.peers.changed() => Input::Peers(self.peers.borrow_and_update().clone()),
                    () = self.drain.draining(), if !draining => {
                        draining = true;
                        self.member.set_state(PeerState::Draining);
                        end.as_mut().reset(tokio::time::Instant::now() + self.linger);
                        Input::Drain
                    }
                    () = &mut end, if draining && self.core.under_way() == 0 => return Ok(()),
                    _ = beat.tick() => Input::Tick,
                    () = timer::sleep_until_mono(self.clock, self.core.deadline()) => Input::Tick,
                },
            };
            self.pulse.beat();
            self.core.handle(input, self.clock.now(), &mut rng);
            while let Some(output) = self.core.poll() {
                self.perform(output);
            }
        }
    }

    /// The snapshot at hand, acknowledged: it is in use from the next input on.
    fn configured(&self) -> Input {
        let snapshot = self.source.snapshot();
        let directory = Directory::new(&snapshot);
        if !directory.is_unset() {
            self.part.ready();
        }
        self.source.ack(snapshot.version);
        Input::Configured(Arc::new(directory))
    }

    fn perform(&mut self, output: Output) {
        let store = self.store.clone();
        let unix = self.clock.now().unix();
        // A look-up that finds no place is one that the store did not answer: the core's deadline settles it.
        let pushed = match output {
            Output::Send { to, bytes } => {
                if let Err(error) = self.member.send(to, bytes) {
                    tracing::debug!(%to, %error, "answer not sent");
                    metrics::count(&self.events, "unsent");
                }
                return;
            }
            Output::Count(what) => return metrics::count(&self.events, what),
            Output::UseNonce(id, nonce, nc, ttl) => {
                self.lookups.push(async move { Input::NonceUsed(id, store.use_nonce(&nonce, nc, ttl, unix).await) })
            }
            Output::Load(id, aor) => self.lookups.push(async move { Input::Loaded(id, store.load(&aor).await) }),
            Output::Swap(id, aor, revision, bindings) => self.lookups.push(async move {
                let swapped = store.swap(&aor, revision, bindings, unix).await;
                if let Err(error @ StoreError::Unavailable(_)) = &swapped {
                    tracing::warn!(%aor, %error, "bindings not written");
                }
                Input::Swapped(id, swapped)
            }),
            Output::Standing => {
                let process = self.process;
                self.lookups.push(async move { Input::Standing(store.standing(process).await) })
            }
            Output::FindExpired(limit) => {
                self.lookups.push(async move { Input::Expired(store.expired(unix, limit).await) })
            }
        };
        if pushed.is_err() {
            metrics::count(&self.events, "lookup_overflow");
        }
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
