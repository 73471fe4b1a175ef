//! `status`: one screen of what runs, what it does, and what is wrong.

use super::age::human;
use super::cluster::{name, service};
use super::fleet::Fleet;
use super::list::items;
use super::place::Objects;
use super::rows::{Filter, Kind, call_state, number, text};
use super::table::{Column, Printer, Row, column, wide};
use super::{Where, now, out};
use anyhow::{Result, bail};
use clap::Args;
use contract::Service;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// With processes and nodes
    #[arg(long)]
    wide: bool,
    #[command(flatten)]
    place: Where,
}

/// Prints the screen.
///
/// # Errors
/// Nothing at all could be asked.
pub async fn run(args: StatusArgs) -> Result<()> {
    let mut fleet = Fleet::new(args.place.open().await?);
    let objects = fleet.place.objects().await?;
    let mut processes = Vec::new();
    for (process, answer) in fleet.ask(None, "/v1/processes").await? {
        let list = answer.map(|list| list.as_array().cloned().unwrap_or_default());
        processes.push((process.name, list.map_err(|error| format!("{error:#}"))));
    }
    if let (None, [(_, Err(error))]) = (&objects, processes.as_slice()) {
        bail!("{error}");
    }
    let mut of =
        async |kind: Kind| items(&mut fleet, kind, &Filter::default()).await.map_err(|error| format!("{error:#}"));
    let facts = Facts {
        calls: of(Kind::Calls).await,
        registrations: of(Kind::Registrations).await,
        dispatchers: of(Kind::Dispatchers).await,
        place: fleet.place.name(),
        objects,
        processes,
    };
    out(&facts.screen(now(), args.wide))
}

type Items = Result<Vec<Value>, String>;

/// All that was found.
#[derive(Debug)]
struct Facts {
    place: String,
    /// None outside a cluster.
    objects: Option<Objects>,
    /// What each pod, or `serve`, says of the services in it.
    processes: Vec<(String, Items)>,
    calls: Items,
    registrations: Items,
    dispatchers: Items,
}

const COLUMNS: &[Column] = &[
    column("SERVICE"),
    column("POD"),
    column("READY"),
    column("STATE"),
    column("VERSION"),
    column("LOAD"),
    column("AGE"),
    wide("PROCESS"),
    wide("NODE"),
];

impl Facts {
    fn screen(&self, now: u64, wide: bool) -> String {
        let wrong = self.wrong();
        let pbx = self.of_kind("Pbx").next();
        let what = pbx.map_or_else(|| self.place.clone(), |pbx| format!("Pbx {} in {}", name(pbx), self.place));
        let mut out =
            format!("{what}: {}\n\n", if wrong.is_empty() { "all is well" } else { "see below what is wrong" });
        out.push_str(&Printer::new(COLUMNS, wide).print(&self.rows(now)));
        let count = |items: &Items, words: &dyn Fn(&[Value]) -> String| match items {
            Ok(items) => words(items),
            Err(_) => "unknown".to_owned(),
        };
        let calls = count(&self.calls, &|calls| tally(calls.len(), calls.iter().map(|c| call_state(c).to_owned())));
        let registrations = count(&self.registrations, &|all| {
            let aors: BTreeSet<String> = all.iter().map(|item| text(item, "aor")).collect();
            format!("{} of {} addresses of record", all.len(), aors.len())
        });
        let destinations = count(&self.dispatchers, &|all| {
            let rows = Kind::Dispatchers.rows(all, now, false);
            tally(rows.len(), rows.iter().map(|row| row.cells.get(2).cloned().unwrap_or_default()))
        });
        _ = write!(out, "\nCalls:          {calls}\nRegistrations:  {registrations}\nDestinations:   {destinations}\n");
        if !wrong.is_empty() {
            out.push_str("\nWrong:\n");
            wrong.iter().for_each(|line| _ = writeln!(out, "  {line}"));
        }
        out
    }

    fn resources(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter().flat_map(|objects| &objects.resources)
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.resources().filter(move |resource| resource["kind"] == kind)
    }

    fn pods(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter().flat_map(|objects| &objects.pods)
    }

    /// What runs, with the name of the pod that it runs in.
    fn running(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.processes.iter().flat_map(|(pod, said)| said.iter().flatten().map(move |process| (pod.as_str(), process)))
    }

    /// A row for each service of each process, and for each pod that says nothing.
    fn rows(&self, now: u64) -> Vec<Row> {
        let mut rows: Vec<(Option<Service>, Row)> = Vec::new();
        for (pod, process) in self.running() {
            let is_ready = match self.pods().find(|object| name(object) == pod) {
                Some(object) => is_ready(object),
                None => strings(process, "missing").is_empty(),
            };
            let node = self.pods().find(|object| name(object) == pod).map(|object| text(&object["spec"], "nodeName"));
            let kind = Service::ALL.into_iter().find(|service| service.as_str() == text(process, "service"));
            let cells = vec![
                text(process, "service"),
                pod.to_owned(),
                if is_ready { "yes" } else { "no" }.to_owned(),
                text(process, "state"),
                version(process),
                text(process, "load"),
                human(now.saturating_sub(number(process, "since"))),
                text(process, "process"),
                node.unwrap_or_default(),
            ];
            rows.push((kind, Row { key: String::new(), cells }));
        }
        for pod in self.pods().filter(|pod| !self.running().any(|(known, _)| known == name(pod))) {
            let mut cells = vec![String::new(); COLUMNS.len()];
            let known = [service(pod).map_or("", Service::as_str).to_owned(), name(pod), "no".to_owned(), phase(pod)];
            cells.iter_mut().zip(known).for_each(|(cell, known)| *cell = known);
            rows.push((service(pod), Row { key: String::new(), cells }));
        }
        rows.sort_by(|(a, row), (b, other)| (a, &row.cells).cmp(&(b, &other.cells)));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    /// What is not as it should be, one a line.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(objects) = &self.objects {
            wrong.extend(objects.unseen.iter().cloned());
            if objects.unseen.is_empty() && self.of_kind("Pbx").next().is_none() {
                wrong.push(format!("there is no Pbx in {}", self.place));
            }
        }
        wrong.extend(self.resources().flat_map(conditions));
        wrong.extend(self.pods().filter(|pod| !is_ready(pod)).map(|pod| {
            format!("pod {} of {} is not ready: {}", name(pod), service(pod).map_or("", Service::as_str), phase(pod))
        }));
        for (pod, said) in &self.processes {
            if let Err(error) = said {
                wrong.push(format!("{pod} does not say how it is: {error}"));
            }
        }
        let mut newest: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (_, process) in self.running() {
            let at = newest.entry(text(process, "service")).or_default();
            *at = (*at).max(numbers(process));
        }
        for (pod, process) in self.running() {
            let which = format!("{} {pod}", text(process, "service"));
            if text(process, "state") == "draining" {
                wrong.push(format!("{which} is draining, with a load of {}", text(process, "load")));
            }
            let missing = strings(process, "missing");
            if !missing.is_empty() {
                wrong.push(format!("{which} is not ready: it waits for {}", missing.join(", ")));
            }
            let stalled = strings(process, "stalled");
            if !stalled.is_empty() {
                wrong.push(format!("{which} stands still: {}", stalled.join(", ")));
            }
            match text(process, "error") {
                none if none.is_empty() => {}
                error => wrong.push(format!("{which} does not take its configuration: {error}")),
            }
            let newest = newest.get(&text(process, "service")).copied().unwrap_or_default();
            if numbers(process) != newest {
                let has = version(process);
                let has = if has.is_empty() { "no configuration" } else { &has };
                wrong.push(format!("{which} has {has}, others have {}.{}", newest.0, newest.1));
            }
        }
        for service in Service::ALL {
            let serves =
                |(_, p): (&str, &Value)| text(p, "service") == service.as_str() && text(p, "state") == "serving";
            if !self.running().any(serves) {
                wrong.push(format!("no {} is serving", service.as_str()));
            }
        }
        for (kind, items) in
            [("calls", &self.calls), ("registrations", &self.registrations), ("destinations", &self.dispatchers)]
        {
            if let Err(error) = items {
                wrong.push(format!("{kind} are unknown: {error}"));
            }
        }
        let calls = self.calls.iter().flatten();
        let unprotected = calls.filter(|call| call_state(call) == "up" && call["protected"] == false).count();
        if unprotected > 0 {
            wrong.push(format!("{unprotected} calls are not in the store: they do not outlive their router"));
        }
        let mut down: Vec<Row> =
            self.dispatchers.iter().flat_map(|all| Kind::Dispatchers.rows(all, 0, false)).collect();
        down.retain(|row| row.cells.get(2).is_some_and(|state| state != "up" && state != "unused"));
        wrong.extend(down.iter().map(|row| match row.cells.as_slice() {
            [set, uri, state, ..] => format!("destination {uri} of {set} is {state}"),
            _ => String::new(),
        }));
        wrong
    }
}

/// `3 (2 up, 1 ringing)`
fn tally(count: usize, states: impl Iterator<Item = String>) -> String {
    let mut by: BTreeMap<String, usize> = BTreeMap::new();
    states.for_each(|state| *by.entry(state).or_default() += 1);
    let parts: Vec<String> = by.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if parts.is_empty() { count.to_string() } else { format!("{count} ({})", parts.join(", ")) }
}

fn numbers(process: &Value) -> (u64, u64) {
    (number(&process["version"], "epoch"), number(&process["version"], "n"))
}

/// The version in use, `3.41`; empty while there is none.
fn version(process: &Value) -> String {
    match numbers(process) {
        (0, 0) => String::new(),
        (epoch, n) => format!("{epoch}.{n}"),
    }
}

fn strings(item: &Value, field: &str) -> Vec<String> {
    let list = item[field].as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|list| list.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// What keeps a pod from running, or how far it is.
fn phase(pod: &Value) -> String {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return "Terminating".to_owned();
    }
    let waiting = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let reason = waiting.map(|status| text(&status["state"]["waiting"], "reason")).find(|reason| !reason.is_empty());
    reason.unwrap_or_else(|| text(&pod["status"], "phase"))
}

/// The conditions of a resource that do not hold; Ready only where no other says why.
fn conditions(resource: &Value) -> Vec<String> {
    let which = format!("{}/{}", text(resource, "kind"), name(resource));
    let Some(list) = resource["status"]["conditions"].as_array() else {
        return vec![format!("{which}: no operator has looked at it")];
    };
    let fails = |condition: &&Value| text(condition, "status") != "True";
    let mut failing: Vec<&Value> = list.iter().filter(fails).collect();
    if failing.len() > 1 {
        failing.retain(|condition| text(condition, "type") != "Ready");
    }
    let line = |c: &&Value| {
        let (kind, status) = (text(c, "type"), text(c, "status"));
        format!("{which}: {kind} is {status} ({}): {}", text(c, "reason"), text(c, "message"))
    };
    failing.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn process(service: &str, id: &str, state: &str, load: u64, n: u64) -> Value {
        json!({"service": service, "process": id, "pod": "", "state": state, "load": load, "since": 1000,
            "version": {"epoch": 3, "n": n, "hash": "00"}, "error": null, "missing": [], "stalled": []})
    }

    fn call(state: &str, protected: bool) -> Value {
        let leg = json!({"direction": "inbound", "state": state, "endpoint": "8005"});
        json!({"id": "a", "from": "8005", "legs": [leg], "protected": protected})
    }

    #[test]
    fn a_serve_that_is_well() {
        let all = Service::ALL.map(|service| process(service.as_str(), "0a", "serving", 1, 41)).to_vec();
        let facts = Facts {
            place: "http://127.0.0.1:8080".into(),
            objects: None,
            processes: vec![("serve".into(), Ok(all))],
            calls: Ok(vec![call("up", true), call("setup", false)]),
            registrations: Ok(vec![json!({"aor": "8005"}), json!({"aor": "8006"}), json!({"aor": "8006"})]),
            dispatchers: Ok(vec![]),
        };
        assert_eq!(
            facts.screen(1200, false),
            "\
http://127.0.0.1:8080: all is well

SERVICE      POD     READY   STATE     VERSION   LOAD   AGE
balancer     serve   yes     serving   3.41      1      3m20s
registrar    serve   yes     serving   3.41      1      3m20s
router       serve   yes     serving   3.41      1      3m20s
media        serve   yes     serving   3.41      1      3m20s
conference   serve   yes     serving   3.41      1      3m20s

Calls:          2 (1 setup, 1 up)
Registrations:  3 of 2 addresses of record
Destinations:   0
"
        );
    }

    fn pod(name: &str, service: &str, ready: bool) -> Value {
        json!({
            "metadata": {"name": name, "labels": {"app.kubernetes.io/component": service}},
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        })
    }

    #[test]
    fn a_cluster_with_all_that_can_be_wrong() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let failing = json!({"conditions": [
            {"type": "ResolvedRefs", "status": "False", "reason": "SecretNotFound", "message": "no Secret phones"},
            {"type": "Ready", "status": "False", "reason": "SecretNotFound", "message": "no Secret phones"},
        ]});
        let mut crashing = pod("pbx-conference-1", "conference", false);
        crashing["status"]["containerStatuses"] = json!([{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        let objects = Objects {
            pods: vec![
                pod("pbx-balancer-1", "balancer", true),
                pod("pbx-router-1", "router", true),
                pod("pbx-router-2", "router", true),
                pod("pbx-media-1", "media", true),
                crashing,
            ],
            resources: vec![
                json!({"kind": "Pbx", "metadata": {"name": "pbx"}, "status": ready}),
                json!({"kind": "PbxEndpoint", "metadata": {"name": "8005"}, "status": failing}),
                json!({"kind": "Dialplan", "metadata": {"name": "internal"}}),
            ],
            unseen: vec!["cannot list dispatchers in namespace pbx: forbidden".into()],
        };
        let mut waits = process("balancer", "01", "serving", 0, 40);
        waits["missing"] = json!(["configuration"]);
        waits["error"] = json!("hash differs");
        let facts = Facts {
            place: "namespace pbx".into(),
            objects: Some(objects),
            processes: vec![
                ("pbx-balancer-1".into(), Ok(vec![waits])),
                ("pbx-router-1".into(), Ok(vec![process("router", "02", "serving", 7, 41)])),
                ("pbx-router-2".into(), Ok(vec![process("router", "03", "serving", 0, 40)])),
                ("pbx-media-1".into(), Ok(vec![process("media", "04", "draining", 7, 2)])),
            ],
            calls: Ok(vec![call("up", false)]),
            registrations: Err("the store does not answer: timeout".into()),
            dispatchers: Ok(vec![
                json!({"dispatcher": "asterisk", "uri": "sip:10.0.0.1", "state": "down", "seconds": 3, "status": 503, "at": "b"}),
                json!({"dispatcher": "asterisk", "uri": "sip:10.0.0.2", "state": "up", "seconds": 3, "status": 200, "at": "b"}),
            ]),
        };
        assert_eq!(
            facts.screen(1200, true),
            "\
Pbx pbx in namespace pbx: see below what is wrong

SERVICE      POD                READY   STATE              VERSION   LOAD     AGE      PROCESS   NODE
balancer     pbx-balancer-1     yes     serving            3.40      0        3m20s    01        node-1
router       pbx-router-1       yes     serving            3.41      7        3m20s    02        node-1
router       pbx-router-2       yes     serving            3.40      0        3m20s    03        node-1
media        pbx-media-1        yes     draining           3.2       7        3m20s    04        node-1
conference   pbx-conference-1   no      CrashLoopBackOff   <none>    <none>   <none>   <none>    <none>

Calls:          1 (1 up)
Registrations:  unknown
Destinations:   2 (1 down, 1 up)

Wrong:
  cannot list dispatchers in namespace pbx: forbidden
  PbxEndpoint/8005: ResolvedRefs is False (SecretNotFound): no Secret phones
  Dialplan/internal: no operator has looked at it
  pod pbx-conference-1 of conference is not ready: CrashLoopBackOff
  balancer pbx-balancer-1 is not ready: it waits for configuration
  balancer pbx-balancer-1 does not take its configuration: hash differs
  router pbx-router-2 has 3.40, others have 3.41
  media pbx-media-1 is draining, with a load of 7
  no registrar is serving
  no media is serving
  no conference is serving
  registrations are unknown: the store does not answer: timeout
  1 calls are not in the store: they do not outlive their router
  destination sip:10.0.0.1 of asterisk is down
"
        );
    }
}
