//! `route`: what a call would do, by what runs, by files, or by files laid over what runs.

use super::explain::{self, Assumed, Endpoint, Known};
use super::fleet::Fleet;
use super::list::items;
use super::rows::{Filter, Kind, text};
use super::{Where, now, out, warn};
use crate::files;
use anyhow::{Context, Result, bail};
use api::Folder;
use clap::{Args, ValueEnum};
use contract::Service;
use contract::config::RouterEntry;
use dialplan::DialStatus;
use std::path::PathBuf;
use std::time::Duration;

/// What a dial comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Status {
    /// It rang, and nobody answered
    NoAnswer,
    /// Busy
    Busy,
    /// Somebody answered, and hung up later
    Answer,
    /// Nobody could be reached
    ChanUnavail,
    /// No way there
    Congestion,
}

/// Arguments of `route`.
#[derive(Debug, Args)]
pub struct RouteArgs {
    /// What is dialled
    exten: String,
    /// Files or folders of manifests: alone, or laid over what runs where a place is named
    paths: Vec<PathBuf>,
    /// The endpoint that calls
    #[arg(long, value_name = "ENDPOINT")]
    from: String,
    /// A header field of its INVITE, such as 'X-Account: 7'
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// What it dials where the plan waits for digits; once for each time
    #[arg(long, value_name = "DIGITS")]
    digits: Vec<String>,
    /// What a dial comes to that rings somebody
    #[arg(long, value_name = "DIALSTATUS", ignore_case = true)]
    dial_status: Option<Status>,
    /// When it calls, in Unix seconds; now, unless said otherwise
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    #[command(flatten)]
    place: Where,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Explains a call.
///
/// # Errors
/// There is no such endpoint or extension, or what runs or stands in files cannot be read.
pub async fn run(args: RouteArgs) -> Result<()> {
    let mut known = Known::default();
    if args.paths.is_empty() || args.place.is_given() {
        live(&mut known, args.place).await?;
    }
    if !args.paths.is_empty() {
        proposed(&mut known, &args.paths)?;
    }
    let Some(endpoint) = known.endpoints.get(&args.from).cloned() else {
        let names: Vec<&str> = known.endpoints.keys().take(20).map(String::as_str).collect();
        bail!("there is no endpoint {:?}: there are {}", args.from, names.join(", "));
    };
    let status = args.dial_status.map(|status| match status {
        Status::NoAnswer => DialStatus::NoAnswer,
        Status::Busy => DialStatus::Busy,
        Status::Answer => DialStatus::Answer,
        Status::ChanUnavail => DialStatus::ChanUnavail,
        Status::Congestion => DialStatus::Congestion,
    });
    let assumed = Assumed {
        from: args.from,
        exten: args.exten,
        headers: args.headers,
        digits: args.digits.into(),
        status,
        wall: Duration::from_secs(args.at.unwrap_or_else(now)),
    };
    let explained = explain::explain(&known, &endpoint, assumed);
    out(&explained.text)?;
    if !explained.known {
        bail!(super::Told);
    }
    Ok(())
}

/// What runs: contexts and endpoints of any router, and who is registered.
async fn live(known: &mut Known, place: Where) -> Result<()> {
    let mut fleet = Fleet::new(place.open().await?);
    let view = fleet.ask_any(Service::Router, "/v1/dialplan").await?;
    known.take(&view).context("the router shows its dialplan in another form: another release?")?;
    match items(&mut fleet, Kind::Registrations, &Filter::default()).await {
        Ok(items) => known.registered = Some(items.iter().map(|item| text(item, "aor")).collect()),
        Err(error) => warn(&format!("who is registered is not known: {error:#}")),
    }
    Ok(())
}

/// What stands in files, as it would be once it is live. What is wrong with it is said; what does not become live by that
/// stays as it is.
fn proposed(known: &mut Known, paths: &[PathBuf]) -> Result<()> {
    let files = files::read(paths)?;
    let mut folder = Folder::new(1);
    folder.load(&files).problems.iter().for_each(|problem| warn(&problem.to_string()));
    for entry in folder.compiler().router().entries.values() {
        match entry.as_ref() {
            RouterEntry::Context(plan) => _ = known.plans.insert(plan.name().to_owned(), plan.clone()),
            RouterEntry::Endpoint(entry) => {
                let caller = explain::caller(&entry.name, entry.caller_id.as_deref());
                let endpoint = Endpoint { context: entry.context.clone(), caller };
                known.endpoints.insert(entry.name.clone(), endpoint);
            }
            RouterEntry::Pbx(_) => {}
        }
    }
    Ok(())
}
