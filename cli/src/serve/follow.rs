//! Follows the files that are served, and publishes what changes in them.

use crate::files;
use api::manifests::Problem;
use api::{Folder, Update};
use contract::config::{BalancerEntry, ConferenceEntry, MediaEntry, RegistrarEntry, RouterEntry};
use notify::{RecursiveMode, Watcher};
use runtime::source::MemorySource;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long the files must rest before they are read: editors and `git checkout` write in bursts.
const SETTLE: Duration = Duration::from_millis(100);

/// A source for each kind of service.
#[derive(Debug, Default)]
pub struct Sources {
    pub balancer: MemorySource<BalancerEntry>,
    pub registrar: MemorySource<RegistrarEntry>,
    pub router: MemorySource<RouterEntry>,
    pub media: MemorySource<MediaEntry>,
    pub conference: MemorySource<ConferenceEntry>,
}

impl Sources {
    /// Publishes the whole of what the compiler has.
    pub fn start(folder: &Folder) -> Self {
        let compiler = folder.compiler();
        Self {
            balancer: MemorySource::starting_at(compiler.balancer().clone()),
            registrar: MemorySource::starting_at(compiler.registrar().clone()),
            router: MemorySource::starting_at(compiler.router().clone()),
            media: MemorySource::starting_at(compiler.media().clone()),
            conference: MemorySource::starting_at(compiler.conference().clone()),
        }
    }

    /// Publishes what an update changed. A delta that does not follow on the last (which cannot be, with one
    /// publisher) is made good by the whole snapshot.
    fn publish(&self, folder: &Folder, update: Update) -> Result<(), contract::config::DeltaError> {
        let compiler = folder.compiler();
        let delta = update.delta;
        if let Some(delta) = delta.balancer {
            self.balancer.publish(delta).or_else(|_| self.balancer.publish_snapshot(compiler.balancer().clone()))?;
        }
        if let Some(delta) = delta.registrar {
            self.registrar.publish(delta).or_else(|_| self.registrar.publish_snapshot(compiler.registrar().clone()))?;
        }
        if let Some(delta) = delta.router {
            self.router.publish(delta).or_else(|_| self.router.publish_snapshot(compiler.router().clone()))?;
        }
        if let Some(delta) = delta.media {
            self.media.publish(delta).or_else(|_| self.media.publish_snapshot(compiler.media().clone()))?;
        }
        if let Some(delta) = delta.conference {
            self.conference
                .publish(delta)
                .or_else(|_| self.conference.publish_snapshot(compiler.conference().clone()))?;
        }
        Ok(())
    }
}

/// Prints problems, one a line, on stderr.
pub fn print(problems: &[Problem]) {
    problems.iter().for_each(|problem| eprintln!("{problem}"));
}

/// The folders to watch: those named, and those that named files stand in (an editor replaces a file by renaming).
fn watched(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = paths
        .iter()
        .map(|path| match path.parent() {
            _ if path.is_dir() => path.clone(),
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => Path::new(".").to_owned(),
        })
        .collect();
    out.sort();
    out.dedup();
    out
}

/// A watch on the paths: one message, at least, after something changed.
pub fn watch(paths: &[PathBuf]) -> anyhow::Result<(notify::RecommendedWatcher, mpsc::Receiver<()>)> {
    let (tell, changed) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let reading = event.is_ok_and(|e| e.kind.is_access());
        if !reading {
            // Full means that the change is already told.
            _ = tell.try_send(());
        }
    })?;
    for path in watched(paths) {
        watcher.watch(&path, RecursiveMode::NonRecursive)?;
    }
    Ok((watcher, changed))
}

/// Reads the files whenever they change, until the process ends.
pub async fn follow(
    paths: Vec<PathBuf>,
    mut folder: Folder,
    sources: Sources,
    mut changed: mpsc::Receiver<()>,
) -> anyhow::Result<()> {
    let mut told: Vec<Problem> = Vec::new();
    while changed.recv().await.is_some() {
        loop {
            tokio::time::sleep(SETTLE).await;
            if changed.try_recv().is_err() {
                break;
            }
        }
        let files = match files::read(&paths) {
            Ok(files) => files,
            Err(error) => {
                eprintln!("kept as it was: {error:#}");
                continue;
            }
        };
        let update = folder.load(&files);
        if update.problems != told {
            print(&update.problems);
            told.clone_from(&update.problems);
        }
        let kept = update.keeps_out();
        let anything = !update.delta.is_empty();
        sources.publish(&folder, update)?;
        match (kept, anything) {
            (true, _) => eprintln!("what is wrong was not applied: what was good there stays live"),
            (false, true) => println!("changes are live"),
            (false, false) => {}
        }
    }
    Ok(())
}
