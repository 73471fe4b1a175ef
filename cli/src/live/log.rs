//! `log`: what happened to calls, and with `-f` what happens to them.

use super::fleet::{Fleet, connect};
use super::lines::{Event, Merge, Wanted};
use super::place::{Place, Process};
use super::{Where, out, warn};
use anyhow::{Result, anyhow};
use clap::{ArgAction, Args};
use contract::Service;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

/// How long a router may wait until it has something to tell.
const WAIT: Duration = Duration::from_secs(20);
/// A router that did not answer is asked again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// How often new routers are looked for.
const LOOK: Duration = Duration::from_secs(5);
/// How often what waited is printed.
const TICK: Duration = Duration::from_millis(50);
/// Events that wait to be printed; who tells more waits too.
const QUEUE: usize = 4096;

/// Arguments of `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Goes on
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many lines of what happened before
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Only the call whose id begins so
    #[arg(long, value_name = "ID")]
    call: Option<String>,
    /// Only calls that this endpoint has to do with
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Who answered or refused, too; -vv: who is rung; -vvv: each step of the dialplan
    #[arg(short, action = ArgAction::Count)]
    verbosity: u8,
    #[command(flatten)]
    place: Where,
}

/// Prints the log.
pub async fn run(args: LogArgs) -> Result<()> {
    let mut fleet = Fleet::new(args.place.open().await?);
    let mut wanted = Wanted::new(args.verbosity, args.call, args.endpoint);
    let mut merge = Merge::default();
    let mut cursors = BTreeMap::new();
    let mut failed = Vec::new();
    for (process, answer) in fleet.ask(Some(Service::Router), "/v1/events?after=").await? {
        match answer {
            Ok(page) => {
                let page = Page::read(&process.name, "", &page);
                page.events.into_iter().for_each(|event| merge.push(event, Duration::ZERO));
                cursors.insert(process.name, page.next);
            }
            Err(error) => failed.push(process.blame(error)),
        }
    }
    if cursors.is_empty() {
        return Err(failed.pop().unwrap_or_else(|| anyhow!("no router is there in {}", fleet.place.name())));
    }
    failed.iter().for_each(|error| warn(&format!("{error:#}")));
    let lines: Vec<String> = merge.rest().into_iter().flat_map(|e| wanted.take(e)).map(|e| e.line()).collect();
    let skip = args.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    lines.iter().skip(skip).try_for_each(|line| out(&format!("{line}\n")))?;
    if args.follow { follow(fleet, wanted, cursors).await } else { Ok(()) }
}

/// What a router told, and from where it is to be asked on.
struct Page {
    next: String,
    events: Vec<Event>,
}

impl Page {
    /// What was told after a cursor. What a router forgot before anybody asked, when there was no cursor yet, is not lost.
    fn read(router: &str, after: &str, page: &Value) -> Self {
        let items = page["events"].as_array().into_iter().flatten();
        let mut events: Vec<Event> = items.map(Event::read).collect();
        let lost = page["lost"].as_u64().unwrap_or(0);
        if lost > 0 && !after.is_empty() {
            let at = events.first().map_or_else(unix_ms, |first| first.at);
            events.insert(0, Event::lost(lost, router, at));
        }
        Self { next: page["next"].as_str().unwrap_or_default().to_owned(), events }
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Prints what comes, until the process is ended.
async fn follow(mut fleet: Fleet, mut wanted: Wanted, mut cursors: BTreeMap<String, String>) -> Result<()> {
    let start = Instant::now();
    let (tell, mut told) = mpsc::channel(QUEUE);
    let mut readers: BTreeMap<String, Reader> = BTreeMap::new();
    let (mut look, mut tick) = (interval(LOOK), interval(TICK));
    let mut merge = Merge::default();
    loop {
        tokio::select! {
            _ = look.tick() => match fleet.processes(Some(Service::Router)).await {
                Ok(routers) => {
                    readers.retain(|name, _| routers.iter().any(|router| router.name == *name));
                    for router in routers {
                        let cursor = cursors.remove(&router.name).unwrap_or_default();
                        let begin = || Reader::begin(fleet.place.clone(), router.clone(), cursor, tell.clone());
                        readers.entry(router.name.clone()).or_insert_with(begin);
                    }
                }
                Err(error) => warn(&format!("{error:#}")),
            },
            Some(event) = told.recv() => merge.push(event, start.elapsed()),
            _ = tick.tick() => {
                for event in merge.due(start.elapsed()).into_iter().flat_map(|event| wanted.take(event)) {
                    out(&format!("{}\n", event.line()))?;
                }
            }
        }
    }
}

/// Reads the events of one router. Dropping it ends that.
struct Reader(JoinHandle<()>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Reader {
    fn begin(place: Arc<dyn Place>, router: Process, cursor: String, tell: mpsc::Sender<Event>) -> Self {
        Self(tokio::spawn(read(place, router, cursor, tell)))
    }
}

async fn read(place: Arc<dyn Place>, router: Process, mut cursor: String, tell: mpsc::Sender<Event>) {
    let mut complained = false;
    loop {
        let Err(error) = read_on(place.as_ref(), &router, &mut cursor, &tell, &mut complained).await else { return };
        if !std::mem::replace(&mut complained, true) {
            warn(&format!("{:#}", router.blame(error)));
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the connection breaks, or nobody wants to know any more.
async fn read_on(
    place: &dyn Place,
    router: &Process,
    cursor: &mut String,
    tell: &mpsc::Sender<Event>,
    complained: &mut bool,
) -> Result<()> {
    let mut session = connect(place, router).await?;
    loop {
        let path = format!("/v1/events?after={cursor}&wait={}", WAIT.as_secs());
        let page = Page::read(&router.name, cursor, &session.get(&path, WAIT).await?);
        *complained = false;
        *cursor = page.next;
        for event in page.events {
            if tell.send(event).await.is_err() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_says_what_was_lost_before_what_is_there() {
        let event = json!({"call": "a", "at": 5, "kind": {"type": "called", "endpoint": "8006"}});
        let told = json!({"next": "x:9", "lost": 3, "events": [event]});
        let page = Page::read("r", "x:5", &told);
        assert_eq!((page.next.as_str(), page.events.len()), ("x:9", 2));
        assert_eq!(page.events[0], Event::lost(3, "r", 5));
        assert_eq!(Page::read("r", "", &told).events.len(), 1);
        assert!(Page::read("r", "x:9", &json!({"next": "x:9", "lost": 0, "events": []})).events.is_empty());
    }
}
