//! All processes of a place, with a kept connection to each that was asked.

use super::place::{Place, Process};
use super::session::Session;
use anyhow::{Context, Result};
use contract::Service;
use futures::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Processes that are asked at once.
const AT_ONCE: usize = 16;
/// Who is there is looked at again after this.
const FRESH: Duration = Duration::from_secs(5);

/// An answer: who gave it, and what it is.
pub type Answer = (Process, Result<Value>);

/// The processes.
pub struct Fleet {
    /// Where they are.
    pub place: Arc<dyn Place>,
    listed: Option<Instant>,
    processes: Vec<Process>,
    sessions: BTreeMap<String, Session>,
}

impl Fleet {
    /// Nobody was asked yet.
    pub fn new(place: Arc<dyn Place>) -> Self {
        Self { place, listed: None, processes: Vec::new(), sessions: BTreeMap::new() }
    }

    /// Those of a service, or all that there are.
    ///
    /// # Errors
    /// Nobody says who is there.
    pub async fn processes(&mut self, service: Option<Service>) -> Result<Vec<Process>> {
        if self.listed.is_none_or(|at| at.elapsed() > FRESH) {
            self.processes = self.place.processes().await?;
            self.listed = Some(Instant::now());
            let processes = &self.processes;
            self.sessions.retain(|name, _| processes.iter().any(|process| process.name == *name));
        }
        let of = |process: &&Process| service.is_none() || process.service.is_none() || process.service == service;
        Ok(self.processes.iter().filter(of).cloned().collect())
    }

    /// What every process of a service, or every process, answers.
    ///
    /// # Errors
    /// As [`Fleet::processes`].
    pub async fn ask(&mut self, service: Option<Service>, path: &str) -> Result<Vec<Answer>> {
        let mut asked = Vec::new();
        for process in self.processes(service).await? {
            let (place, session) = (self.place.clone(), self.sessions.remove(&process.name));
            asked.push(async move {
                let (session, answer) = get(place.as_ref(), &process, session, path).await;
                (process, session, answer)
            });
        }
        let answers: Vec<_> = futures::stream::iter(asked).buffered(AT_ONCE).collect().await;
        let mut out = Vec::new();
        for (process, session, answer) in answers {
            match session {
                Some(session) => _ = self.sessions.insert(process.name.clone(), session),
                // It may be gone: who is there is looked at anew.
                None => self.listed = None,
            }
            out.push((process, answer));
        }
        Ok(out)
    }

    /// What the first process of a service answers that answers at all.
    ///
    /// # Errors
    /// None does: as the last one says.
    pub async fn ask_any(&mut self, service: Service, path: &str) -> Result<Value> {
        let mut last = anyhow::anyhow!("no {} is there", service.as_str());
        for process in self.processes(Some(service)).await? {
            let session = self.sessions.remove(&process.name);
            match get(self.place.as_ref(), &process, session, path).await {
                (Some(session), Ok(value)) => {
                    self.sessions.insert(process.name, session);
                    return Ok(value);
                }
                (_, Err(error)) => last = process.blame(error),
                (None, Ok(value)) => return Ok(value),
            }
        }
        self.listed = None;
        Err(last)
    }

    /// Gives a command to one process; false where it knows nothing of that name.
    ///
    /// # Errors
    /// It was not done.
    pub async fn command(&mut self, process: &str, path: &str) -> Result<bool> {
        let processes = self.processes(None).await?;
        let process = processes.iter().find(|p| p.name == process).with_context(|| format!("{process} is gone"))?;
        let mut session = match self.sessions.remove(&process.name) {
            Some(session) => session,
            None => Session::open(self.place.connect(process).await?).await?,
        };
        let done = session.post(path).await;
        if done.is_ok() {
            self.sessions.insert(process.name.clone(), session);
        }
        done
    }
}

/// Asks on the connection that is there, or else on a new one. What broke is not given back.
async fn get(
    place: &dyn Place,
    process: &Process,
    session: Option<Session>,
    path: &str,
) -> (Option<Session>, Result<Value>) {
    if let Some(mut session) = session
        && let Ok(value) = session.get(path, Duration::ZERO).await
    {
        return (Some(session), Ok(value));
    }
    let mut session = match connect(place, process).await {
        Ok(session) => session,
        Err(error) => return (None, Err(error)),
    };
    match session.get(path, Duration::ZERO).await {
        Ok(value) => (Some(session), Ok(value)),
        Err(error) => (None, Err(error)),
    }
}

/// A new connection to a process.
pub async fn connect(place: &dyn Place, process: &Process) -> Result<Session> {
    Session::open(place.connect(process).await?).await
}
