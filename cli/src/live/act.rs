//! `hangup`: ends calls.

use super::fleet::Fleet;
use super::list::items;
use super::rows::{Filter, Kind, text};
use super::{Where, out, warn};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

/// Arguments of `hangup`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["calls", "all", "endpoint"])))]
pub struct HangupArgs {
    /// Ids of calls, or how they begin
    calls: Vec<String>,
    /// Every call
    #[arg(long, conflicts_with_all = ["calls", "endpoint"])]
    all: bool,
    /// Every call of this endpoint
    #[arg(long, value_name = "NAME", conflicts_with = "calls")]
    endpoint: Option<String>,
    #[command(flatten)]
    place: Where,
}

/// Ends the calls that are meant.
///
/// # Errors
/// There is no such call, or one of them was not ended.
pub async fn run(args: HangupArgs) -> Result<()> {
    let mut fleet = Fleet::new(args.place.open().await?);
    let all = items(&mut fleet, Kind::Calls, &Filter::default()).await?;
    let chosen = choose(&all, &args.calls, args.endpoint.as_deref());
    let mut failed = chosen.missing.len();
    chosen.missing.iter().for_each(|why| warn(why));
    for call in chosen.calls {
        let (id, router) = (text(call, "id"), text(call, "at"));
        match fleet.command(&router, &format!("/v1/calls/{id}/hangup")).await {
            Ok(true) => out(&format!("call \"{id}\" hung up\n"))?,
            // It ended by itself, or another router took it over a moment ago.
            Ok(false) => {
                failed += 1;
                warn(&format!("call \"{id}\" is no longer at {router}"));
            }
            Err(error) => {
                failed += 1;
                warn(&format!("call \"{id}\": {:#}", error.context(router)));
            }
        }
    }
    if failed > 0 {
        bail!(super::Told);
    }
    Ok(())
}

/// The calls that are meant, and what is said of those that are not there.
#[derive(Debug, Default, PartialEq)]
struct Chosen<'a> {
    calls: Vec<&'a Value>,
    missing: Vec<String>,
}

/// Those that are named by their id or an unmistakable beginning of it, or that an endpoint has, or all.
fn choose<'a>(all: &'a [Value], names: &[String], endpoint: Option<&str>) -> Chosen<'a> {
    let filter = Filter { names: Vec::new(), endpoint: endpoint.map(str::to_owned) };
    if names.is_empty() {
        let calls: Vec<&Value> = all.iter().filter(|call| Kind::Calls.fits(&filter, call)).collect();
        let missing = endpoint.filter(|_| calls.is_empty()).map(|name| format!("endpoint \"{name}\" has no calls"));
        return Chosen { calls, missing: missing.into_iter().collect() };
    }
    let mut chosen = Chosen::default();
    for name in names {
        let meant = Filter { names: vec![name.clone()], endpoint: None };
        let mut fitting = all.iter().filter(|call| Kind::Calls.fits(&meant, call));
        match (fitting.next(), fitting.next()) {
            (Some(call), None) if chosen.calls.contains(&call) => {}
            (Some(call), None) => chosen.calls.push(call),
            (Some(_), Some(_)) => chosen.missing.push(format!("several calls begin with \"{name}\"")),
            (None, _) => chosen.missing.push(format!("call \"{name}\" not found")),
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn calls_are_meant_by_id_by_endpoint_or_all() {
        let all = [("a1", "8005"), ("a2", "8006"), ("b1", "8005")].map(|(id, from)| json!({"id": id, "from": from}));
        let chosen = |names: &[&str], endpoint: Option<&str>| {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            let chosen = choose(&all, &names, endpoint);
            (chosen.calls.iter().map(|call| text(call, "id")).collect::<Vec<_>>(), chosen.missing)
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
        assert_eq!(choose(&[], &[], None), Chosen::default());
    }
}
