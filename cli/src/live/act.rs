//! `hangup`, `ring` and `release`: commands to calls and holds.

use super::fleet::Fleet;
use super::list::items;
use super::rows::{Filter, Kind, text};
use super::{Where, out, warn};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Calls end.
    Hangup,
    /// Whatever phone of a held call's callee is registered rings.
    Ring,
    /// Held calls wait no longer: their dialplan goes on.
    Release,
}

impl Act {
    /// To what.
    fn kind(self) -> Kind {
        match self {
            Act::Hangup => Kind::Calls,
            Act::Ring | Act::Release => Kind::Holds,
        }
    }

    /// The command's word in a path.
    fn verb(self) -> &'static str {
        match self {
            Act::Hangup => "hangup",
            Act::Ring => "ring",
            Act::Release => "cancel",
        }
    }

    /// What was done.
    fn done(self) -> &'static str {
        match self {
            Act::Hangup => "hung up",
            Act::Ring => "rung",
            Act::Release => "released",
        }
    }
}

/// Arguments of a command.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "all", "endpoint"])))]
pub struct ActArgs {
    /// Ids, or how they begin
    ids: Vec<String>,
    /// All there are
    #[arg(long, conflicts_with_all = ["ids", "endpoint"])]
    all: bool,
    /// All of this endpoint
    #[arg(long, value_name = "NAME", conflicts_with = "ids")]
    endpoint: Option<String>,
    #[command(flatten)]
    place: Where,
}

/// Does it to those that are meant.
///
/// # Errors
/// There is no such call or hold, or it was not done to one of them.
pub async fn run(act: Act, args: ActArgs) -> Result<()> {
    let (kind, one) = (act.kind(), act.kind().one());
    let mut fleet = Fleet::new(args.place.open().await?);
    let all = items(&mut fleet, kind, &Filter::default()).await?;
    let chosen = choose(kind, &all, &args.ids, args.endpoint.as_deref());
    let mut failed = chosen.missing.len();
    chosen.missing.iter().for_each(|why| warn(why));
    for item in chosen.items {
        let (id, router) = (text(item, "id"), text(item, "at"));
        match fleet.command(&router, &format!("/v1/{}/{id}/{}", kind.name(), act.verb())).await {
            Ok(true) => out(&format!("{one} \"{id}\" {}\n", act.done()))?,
            // It ended by itself, or another router took it over a moment ago.
            Ok(false) => {
                failed += 1;
                warn(&format!("{one} \"{id}\" is no longer at {router}"));
            }
            Err(error) => {
                failed += 1;
                warn(&format!("{one} \"{id}\": {:#}", error.context(router)));
            }
        }
    }
    if failed > 0 {
        bail!(super::Told);
    }
    Ok(())
}

/// Those that are meant, and what is said of those that are not there.
#[derive(Debug, Default, PartialEq)]
struct Chosen<'a> {
    items: Vec<&'a Value>,
    missing: Vec<String>,
}

/// Those that are named by their id or an unmistakable beginning of it, or that an endpoint has, or all.
fn choose<'a>(kind: Kind, all: &'a [Value], names: &[String], endpoint: Option<&str>) -> Chosen<'a> {
    let filter = Filter { names: Vec::new(), endpoint: endpoint.map(str::to_owned) };
    if names.is_empty() {
        let items: Vec<&Value> = all.iter().filter(|item| kind.fits(&filter, item)).collect();
        let none = |name| format!("endpoint \"{name}\" has no {}", kind.name());
        let missing = endpoint.filter(|_| items.is_empty()).map(none);
        return Chosen { items, missing: missing.into_iter().collect() };
    }
    let mut chosen = Chosen::default();
    for name in names {
        let meant = Filter { names: vec![name.clone()], endpoint: None };
        let mut fitting = all.iter().filter(|item| kind.fits(&meant, item));
        match (fitting.next(), fitting.next()) {
            (Some(item), None) if chosen.items.contains(&item) => {}
            (Some(item), None) => chosen.items.push(item),
            (Some(_), Some(_)) => chosen.missing.push(format!("several {} begin with \"{name}\"", kind.name())),
            (None, _) => chosen.missing.push(format!("{} \"{name}\" not found", kind.one())),
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_meant_by_id_by_endpoint_or_all() {
        let all = [("a1", "8005"), ("a2", "8006"), ("b1", "8005")].map(|(id, from)| json!({"id": id, "from": from}));
        let chosen = |names: &[&str], endpoint: Option<&str>| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let chosen = choose(Kind::Calls, &all, &names, endpoint);
            (chosen.items.iter().map(|call| text(call, "id")).collect::<Vec<_>>(), chosen.missing)
        };
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(chosen(&["a1", "b", "b1"], None), (ids(&["a1", "b1"]), ids(&[])));
        assert_eq!(
            chosen(&["a", "c", "a2"], None),
            (ids(&["a2"]), ids(&["several calls begin with \"a\"", "call \"c\" not found"]))
        );
        assert_eq!(chosen(&[], Some("8005")), (ids(&["a1", "b1"]), ids(&[])));
        assert_eq!(chosen(&[], Some("8009")), (ids(&[]), ids(&["endpoint \"8009\" has no calls"])));
        assert_eq!(chosen(&[], None).0.len(), 3);
        assert_eq!(choose(Kind::Calls, &[], &[], None), Chosen::default());
        let held = [json!({"id": "c3", "from": "8005", "endpoint": "8006"})];
        for name in ["c", "8005", "8006"] {
            let chosen = match name {
                "c" => choose(Kind::Holds, &held, &[name.to_owned()], None),
                name => choose(Kind::Holds, &held, &[], Some(name)),
            };
            assert_eq!(chosen, Chosen { items: vec![&held[0]], missing: Vec::new() }, "{name}");
        }
        let none = choose(Kind::Holds, &held, &["d".to_owned()], None);
        assert_eq!(none.missing, ["hold \"d\" not found"]);
    }
}
