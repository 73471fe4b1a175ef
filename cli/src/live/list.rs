//! `registrations`, `calls`, `holds` and `dispatchers`: once, or again whenever something changes.

use super::fleet::Fleet;
use super::rows::{Filter, Kind};
use super::table::Printer;
use super::{Where, now, out, warn};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often what is watched is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// Arguments of a list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only these: addresses of record, ids of calls or holds (or how they begin), dispatchers
    names: Vec<String>,
    /// Only those of this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// How it is printed
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Goes on, and prints again what changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    place: Where,
}

/// Prints a list.
pub async fn run(kind: Kind, args: ListArgs) -> Result<()> {
    if kind == Kind::Dispatchers && args.endpoint.is_some() {
        bail!("--endpoint: dispatchers have nothing to do with endpoints");
    }
    let mut fleet = Fleet::new(args.place.open().await?);
    let filter = Filter { names: args.names, endpoint: args.endpoint };
    let mut view = View::new(kind, args.output);
    loop {
        match items(&mut fleet, kind, &filter).await {
            Ok(items) if args.watch => out(&view.changes(&items, now())?)?,
            Ok(items) if items.is_empty() && view.is_table() => {
                warn(&format!("no {} found in {}", kind.name(), fleet.place.name()));
            }
            Ok(items) => out(&view.whole(&items, now())?)?,
            Err(error) if args.watch && view.began => warn(&format!("{error:#}")),
            Err(error) => return Err(error),
        }
        if !args.watch {
            return Ok(());
        }
        view.began = true;
        tokio::time::sleep(PERIOD).await;
    }
}

/// All items of a kind that are wanted, in order. What one of several processes does not tell is said on stderr.
pub async fn items(fleet: &mut Fleet, kind: Kind, filter: &Filter) -> Result<Vec<Value>> {
    let path = format!("/v1/{}", kind.name());
    let mut all = Vec::new();
    if kind.is_shared() {
        let view = fleet.ask_any(kind.service(), &path).await?;
        all = kind.items("", view).map_err(anyhow::Error::msg)?;
    } else {
        let answers = fleet.ask(Some(kind.service()), &path).await?;
        let (asked, mut failed) = (answers.len(), Vec::new());
        for (process, answer) in answers {
            match answer.and_then(|view| kind.items(&process.name, view).map_err(anyhow::Error::msg)) {
                Ok(mut items) => all.append(&mut items),
                Err(error) => failed.push(process.blame(error)),
            }
        }
        if asked == 0 {
            bail!("no {} is there in {}", kind.service().as_str(), fleet.place.name());
        }
        if failed.len() == asked
            && let Some(error) = failed.pop()
        {
            return Err(error);
        }
        failed.iter().for_each(|error| warn(&format!("{error:#}")));
    }
    all.retain(|item| kind.fits(filter, item));
    kind.sort(&mut all);
    Ok(all)
}

/// What was printed, and how.
struct View {
    kind: Kind,
    format: Option<Format>,
    printer: Printer,
    /// Documents that were printed, by the key of their row.
    documents: BTreeMap<String, Value>,
    began: bool,
}

impl View {
    fn new(kind: Kind, format: Option<Format>) -> Self {
        let printer = Printer::new(kind.columns(), format == Some(Format::Wide));
        Self { kind, format, printer, documents: BTreeMap::new(), began: false }
    }

    fn is_table(&self) -> bool {
        matches!(self.format, None | Some(Format::Wide))
    }

    /// All of it.
    fn whole(&mut self, items: &[Value], now: u64) -> Result<String> {
        let wide = self.format == Some(Format::Wide);
        match self.format {
            None | Some(Format::Wide) => Ok(self.printer.print(&self.kind.rows(items, now, wide))),
            Some(format) => document(format, &json!({"items": items})),
        }
    }

    /// What is new, or not as it was printed last: rows, or a document each.
    fn changes(&mut self, items: &[Value], now: u64) -> Result<String> {
        let wide = self.format == Some(Format::Wide);
        if let Some(format) = self.format.filter(|_| !self.is_table()) {
            let rows = self.kind.rows(items, 0, true);
            let mut text = String::new();
            let mut documents = BTreeMap::new();
            for (row, item) in rows.into_iter().zip(items) {
                // What moves with time alone is no change.
                let mut still = item.clone();
                if let Some(still) = still.as_object_mut() {
                    ["expires", "seconds"].iter().for_each(|field| _ = still.remove(*field));
                }
                if self.documents.get(&row.key) != Some(&still) {
                    if format == Format::Yaml {
                        text.push_str("---\n");
                    }
                    text.push_str(&document(format, item)?);
                }
                documents.insert(row.key, still);
            }
            self.documents = documents;
            return Ok(text);
        }
        let rows = self.printer.changed(&self.kind.rows(items, now, wide), self.kind.gone());
        Ok(if rows.is_empty() { String::new() } else { self.printer.print(&rows) })
    }
}

fn document(format: Format, value: &Value) -> Result<String> {
    Ok(match format {
        Format::Yaml => serde_yaml::to_string(value)?,
        Format::Json | Format::Wide => format!("{}\n", serde_json::to_string_pretty(value)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(state: &str) -> Vec<Value> {
        let legs = json!([{"endpoint": "8005", "direction": "inbound", "state": state}]);
        vec![json!({"id": "7f", "from": "8005", "exten": "600", "startedAt": 100, "legs": legs, "at": "serve"})]
    }

    #[test]
    fn what_is_watched_is_printed_when_it_changes() {
        let mut view = View::new(Kind::Calls, None);
        let first = view.changes(&calls("setup"), 100).unwrap();
        assert_eq!(first, "ID   FROM   EXTEN   TO       STATE   AGE\n7f   8005   600     <none>   setup   0s\n");
        assert_eq!(view.changes(&calls("setup"), 101).unwrap(), "");
        assert_eq!(view.changes(&calls("up"), 102).unwrap(), "7f   8005   600     <none>   up      2s\n");
        assert_eq!(view.changes(&[], 103).unwrap(), "7f   8005   600     <none>   gone    2s\n");
    }

    #[test]
    fn documents_are_printed_whole_or_one_for_each_change() {
        let whole = View::new(Kind::Calls, Some(Format::Json)).whole(&calls("up"), 0).unwrap();
        let read: Value = serde_json::from_str(&whole).unwrap();
        assert_eq!((&read["items"][0]["id"], &read["items"][0]["at"]), (&json!("7f"), &json!("serve")));
        let mut view = View::new(Kind::Dispatchers, Some(Format::Yaml));
        let seen = |state: &str, seconds: u64| {
            vec![json!({"dispatcher": "d", "uri": "sip:h", "state": state, "seconds": seconds, "at": "b"})]
        };
        assert!(view.changes(&seen("up", 1), 0).unwrap().starts_with("---\nat: b\ndispatcher: d\n"));
        assert_eq!(view.changes(&seen("up", 2), 0).unwrap(), "");
        assert!(view.changes(&seen("down", 0), 0).unwrap().contains("state: down"));
    }
}
