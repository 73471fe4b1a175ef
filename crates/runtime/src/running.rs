//! A service that runs: its tasks, its views, and what it can be told to do.

use crate::log::Follow;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Makes the JSON of a view when it is asked for.
pub type View = Arc<dyn Fn() -> BoxFuture<'static, serde_json::Value> + Send + Sync>;

/// Views by name: `/v1/<name>`.
pub type Views = BTreeMap<String, View>;

/// Logs by name: `/v1/<name>?after=<cursor>`.
pub type Logs = BTreeMap<String, Arc<dyn Follow>>;

/// Does something to one thing that is named, and says how that went.
pub type Command = Arc<dyn Fn(String) -> BoxFuture<'static, Done> + Send + Sync>;

/// Commands by view and verb: `/v1/<view>/<id>/<verb>`.
pub type Commands = BTreeMap<(String, String), Command>;

/// How a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is done.
    Done,
    /// There is no such thing here.
    Unknown,
    /// Nobody is there to do it.
    Gone,
}

/// What a service's `build` returns. Dropping it aborts the tasks.
#[derive(Default)]
pub struct Running {
    /// What it shows at `/v1/<name>`.
    pub views: Views,
    /// What can be followed at `/v1/<name>?after=<cursor>`.
    pub logs: Logs,
    /// What it can be told to do.
    pub commands: Commands,
    /// With whether the service is over when it ends well.
    tasks: JoinSet<(String, bool, anyhow::Result<()>)>,
}

impl Running {
    /// A service without tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task on this runtime. It ends with `Ok` when its work is done (drained) and with an error when the
    /// service cannot go on.
    pub fn spawn(&mut self, name: &str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let name = name.to_owned();
        self.tasks.spawn(async move { (name, false, task.await) });
    }

    /// Spawns the task that says when the service is over: when it ends with `Ok`, [`Running::join`] aborts the others,
    /// which would go on for ever.
    pub fn spawn_main(&mut self, name: &str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let name = name.to_owned();
        self.tasks.spawn(async move { (name, true, task.await) });
    }

    /// Adds a view: `make` is called for every request and gives JSON.
    pub fn view<F>(&mut self, name: &str, make: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = serde_json::Value> + Send + 'static,
    {
        self.views.insert(name.to_owned(), Arc::new(move || Box::pin(make())));
    }

    /// Adds a log, which is a view too.
    pub fn log(&mut self, name: &str, log: impl Follow + 'static) {
        let log: Arc<dyn Follow> = Arc::new(log);
        let shown = log.clone();
        self.view(name, move || {
            let all = shown.all();
            async move { all.into() }
        });
        self.logs.insert(name.to_owned(), log);
    }

    /// Adds a command: `act` is called with the id for every `POST /v1/<view>/<id>/<verb>`.
    pub fn command<F>(&mut self, view: &str, verb: &str, act: impl Fn(String) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Done> + Send + 'static,
    {
        self.commands.insert((view.to_owned(), verb.to_owned()), Arc::new(move |id| Box::pin(act(id))));
    }

    /// Waits until all tasks or a main one have ended, or one has failed or panicked: then the others are aborted and
    /// the error, which names the task, is returned.
    pub async fn join(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.tasks.join_next().await {
            let failure = match ended {
                Ok((_, false, Ok(()))) => continue,
                Ok((_, true, Ok(()))) => {
                    self.tasks.shutdown().await;
                    return Ok(());
                }
                Ok((name, _, Err(error))) => error.context(name),
                Err(gone) if gone.is_cancelled() => continue,
                Err(panic) => anyhow::Error::new(panic),
            };
            self.tasks.shutdown().await;
            return Err(failure);
        }
        Ok(())
    }

    /// Aborts all tasks and waits until they are gone.
    pub async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Running({} tasks, views {:?})", self.tasks.len(), self.views.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_task_ends_the_service_and_is_named() {
        let mut running = Running::new();
        running.spawn("good", async { Ok(()) });
        running.spawn("endless", std::future::pending());
        running.spawn("listener", async { anyhow::bail!("port taken") });
        let error = running.join().await.unwrap_err();
        assert_eq!(format!("{error:#}"), "listener: port taken");
        assert!(running.join().await.is_ok());
    }

    #[tokio::test]
    async fn a_main_task_that_ends_ends_those_that_would_not() {
        let mut running = Running::new();
        running.spawn("endless", std::future::pending());
        running.spawn("short", async { Ok(()) });
        running.spawn_main("main", async { Ok(()) });
        assert!(running.join().await.is_ok());
        assert_eq!(running.tasks.len(), 0);
    }
}
