//! What is listed: registrations, calls, holds and destinations, from the JSON of processes' views to rows.

use super::age::human;
use super::table::{Column, Row, column, moving, wide};
use contract::Service;
use serde_json::Value;
use std::collections::BTreeMap;

/// A kind of thing that is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Contacts of addresses of record.
    Registrations,
    /// Calls.
    Calls,
    /// Callees that calls wait for.
    Holds,
    /// Destinations of dispatchers.
    Dispatchers,
}

/// Which of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these names only (addresses of record, ids of calls or holds, dispatchers); all, where there are none.
    pub names: Vec<String>,
    /// Calls that have a leg of this endpoint, holds from or for it, or registrations of it.
    pub endpoint: Option<String>,
}

impl Kind {
    /// The view, and what it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Registrations => "registrations",
            Kind::Calls => "calls",
            Kind::Holds => "holds",
            Kind::Dispatchers => "dispatchers",
        }
    }

    /// What one of them is called.
    pub fn one(self) -> &'static str {
        match self {
            Kind::Registrations => "registration",
            Kind::Calls => "call",
            Kind::Holds => "hold",
            Kind::Dispatchers => "dispatcher",
        }
    }

    /// Who shows it.
    pub fn service(self) -> Service {
        match self {
            Kind::Registrations => Service::Registrar,
            Kind::Calls | Kind::Holds => Service::Router,
            Kind::Dispatchers => Service::Balancer,
        }
    }

    /// Whether every process of the service shows the same, from the store.
    pub fn is_shared(self) -> bool {
        self == Kind::Registrations
    }

    /// The columns of its table.
    pub fn columns(self) -> &'static [Column] {
        const REGISTRATIONS: &[Column] = &[
            column("AOR"),
            column("CONTACT"),
            moving("EXPIRES"),
            moving("AGE"),
            wide("TRANSPORT"),
            wide("FROM"),
            wide("USER-AGENT"),
            wide("INSTANCE"),
            wide("BALANCER"),
        ];
        const CALLS: &[Column] = &[
            column("ID"),
            column("FROM"),
            column("EXTEN"),
            column("TO"),
            column("STATE"),
            moving("AGE"),
            wide("CONTEXT"),
            wide("STEP"),
            wide("CODEC"),
            wide("PROTECTED"),
            wide("RELAY"),
            wide("ROUTER"),
        ];
        const HOLDS: &[Column] = &[
            column("ID"),
            column("FROM"),
            column("EXTEN"),
            column("FOR"),
            column("STATE"),
            moving("AGE"),
            moving("LEFT"),
            wide("CALL"),
            wide("ROUTER"),
        ];
        const DISPATCHERS: &[Column] = &[
            column("DISPATCHER"),
            column("DESTINATION"),
            column("STATE"),
            column("STATUS"),
            moving("SINCE"),
            wide("BALANCER"),
        ];
        match self {
            Kind::Registrations => REGISTRATIONS,
            Kind::Calls => CALLS,
            Kind::Holds => HOLDS,
            Kind::Dispatchers => DISPATCHERS,
        }
    }

    /// The column that says of a row that it is gone.
    pub fn gone(self) -> &'static str {
        match self {
            Kind::Registrations => "EXPIRES",
            Kind::Calls | Kind::Holds | Kind::Dispatchers => "STATE",
        }
    }

    /// The items of a view, or why there are none. Each says in `at` which process showed it, unless all show the same.
    ///
    /// # Errors
    /// The store did not answer, or the view is not of this kind.
    pub fn items(self, at: &str, view: Value) -> Result<Vec<Value>, String> {
        let list = match view {
            Value::Array(list) => list,
            Value::Object(mut view) => {
                if let Some(error) = view.get("error").and_then(Value::as_str) {
                    return Err(format!("the store does not answer: {error}"));
                }
                match view.remove(self.name()) {
                    Some(Value::Array(list)) => list,
                    _ => return Err(format!("no {} in the answer", self.name())),
                }
            }
            _ => return Err(format!("no {} in the answer", self.name())),
        };
        Ok(list.into_iter().map(|item| self.mark(at, item)).collect())
    }

    fn mark(self, at: &str, mut item: Value) -> Value {
        for field in ["contact", "uri"] {
            if let Some(Value::String(uri)) = item.get_mut(field) {
                *uri = masked(uri);
            }
        }
        if let (false, Some(item)) = (self.is_shared(), item.as_object_mut()) {
            item.insert("at".to_owned(), at.into());
        }
        item
    }

    /// Whether an item is wanted. A call or a hold is named by its id or the beginning of it.
    pub fn fits(self, filter: &Filter, item: &Value) -> bool {
        let named = |name: &String| match self {
            Kind::Registrations => text(item, "aor") == *name,
            Kind::Calls | Kind::Holds => text(item, "id").starts_with(name.as_str()),
            Kind::Dispatchers => text(item, "dispatcher") == *name,
        };
        let of = |endpoint: &String| match self {
            Kind::Calls => text(item, "from") == *endpoint || legs(item).any(|leg| text(leg, "endpoint") == *endpoint),
            Kind::Holds => ["from", "endpoint"].iter().any(|field| text(item, field) == *endpoint),
            Kind::Registrations => text(item, "aor") == *endpoint,
            Kind::Dispatchers => true,
        };
        (filter.names.is_empty() || filter.names.iter().any(named)) && filter.endpoint.as_ref().is_none_or(of)
    }

    /// Puts items into their order.
    pub fn sort(self, items: &mut [Value]) {
        match self {
            Kind::Registrations => items.sort_by_key(|i| (text(i, "aor"), text(i, "contact"))),
            Kind::Calls => items.sort_by_key(|i| (number(i, "startedAt"), text(i, "id"))),
            Kind::Holds => items.sort_by_key(|i| (number(i, "since"), text(i, "id"))),
            Kind::Dispatchers => items.sort_by_key(|i| (text(i, "dispatcher"), text(i, "uri"), text(i, "at"))),
        }
    }

    /// The rows of a table. `now` is in Unix seconds. Destinations have a row for each balancer only where it is `apart`.
    pub fn rows(self, items: &[Value], now: u64, apart: bool) -> Vec<Row> {
        match self {
            Kind::Registrations => items.iter().map(|item| registration(item, now)).collect(),
            Kind::Calls => items.iter().map(|item| call(item, now)).collect(),
            Kind::Holds => items.iter().map(|item| hold(item, now)).collect(),
            Kind::Dispatchers if apart => items.iter().map(|item| destination(&[item], apart)).collect(),
            Kind::Dispatchers => destinations(items),
        }
    }
}

pub(super) fn text(item: &Value, field: &str) -> String {
    match item.get(field) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

pub(super) fn number(item: &Value, field: &str) -> u64 {
    item.get(field).and_then(Value::as_u64).unwrap_or(0)
}

fn legs(call: &Value) -> impl Iterator<Item = &Value> {
    call.get("legs").and_then(Value::as_array).into_iter().flatten()
}

fn is_outbound(leg: &&Value) -> bool {
    text(leg, "direction") == "outbound"
}

fn registration(item: &Value, now: u64) -> Row {
    let (aor, contact) = (text(item, "aor"), text(item, "contact"));
    let since = number(item, "since");
    Row {
        key: format!("{aor} {contact} {}", text(item, "instance")),
        cells: vec![
            aor,
            contact,
            human(number(item, "expires")),
            human(now.saturating_sub(since)),
            text(item, "transport"),
            text(item, "flow"),
            text(item, "userAgent"),
            text(item, "instance"),
            text(item, "balancer"),
        ],
    }
}

/// `up` once both sides talk, or the caller alone with a conference; `ringing` while somebody is rung.
pub(super) fn call_state(call: &Value) -> &'static str {
    let is = |leg: &Value, state: &str| text(leg, "state") == state;
    let outbound = || legs(call).filter(is_outbound);
    let caller_is_up = legs(call).any(|leg| !is_outbound(&leg) && is(leg, "up"));
    if caller_is_up && (outbound().count() == 0 || outbound().any(|leg| is(leg, "up"))) {
        "up"
    } else if outbound().any(|leg| is(leg, "ringing")) {
        "ringing"
    } else if legs(call).all(|leg| is(leg, "ending")) {
        "ending"
    } else {
        "setup"
    }
}

fn call(item: &Value, now: u64) -> Row {
    let to: Vec<String> = legs(item).filter(is_outbound).map(|leg| text(leg, "endpoint")).collect();
    let codec = legs(item).map(|leg| text(leg, "codec")).find(|codec| !codec.is_empty()).unwrap_or_default();
    let id = text(item, "id");
    Row {
        key: id.clone(),
        cells: vec![
            id,
            text(item, "from"),
            text(item, "exten"),
            to.join(","),
            call_state(item).to_owned(),
            human(now.saturating_sub(number(item, "startedAt"))),
            text(item, "context"),
            text(item, "step"),
            codec,
            text(item, "protected"),
            text(item, "relay"),
            text(item, "at"),
        ],
    }
}

/// `asleep` until whoever wakes the phone was told, then `waking`, then `awake`: it rings.
fn hold(item: &Value, now: u64) -> Row {
    let state = match (&item["woken"], &item["told"]) {
        (Value::Bool(true), _) => "awake",
        (_, Value::Bool(true)) => "waking",
        _ => "asleep",
    };
    let id = text(item, "id");
    Row {
        key: id.clone(),
        cells: vec![
            id,
            text(item, "from"),
            text(item, "exten"),
            text(item, "endpoint"),
            state.to_owned(),
            human(now.saturating_sub(number(item, "since"))),
            human(number(item, "until").saturating_sub(now)),
            text(item, "call"),
            text(item, "at"),
        ],
    }
}

/// A row for each destination: what all balancers think of it.
fn destinations(items: &[Value]) -> Vec<Row> {
    let mut all: BTreeMap<(String, String), Vec<&Value>> = BTreeMap::new();
    for item in items {
        all.entry((text(item, "dispatcher"), text(item, "uri"))).or_default().push(item);
    }
    all.values().map(|seen| destination(seen, false)).collect()
}

/// One destination as these balancers see it: `up`, `down`, `unused`, or `1/2 up` where they differ; since the last of
/// them changed its mind.
fn destination(seen: &[&Value], apart: bool) -> Row {
    let first = seen.first().copied().unwrap_or(&Value::Null);
    let states: Vec<String> = seen.iter().map(|item| text(item, "state")).collect();
    let up = states.iter().filter(|state| *state == "up").count();
    let state = match states.first() {
        Some(state) if states.iter().all(|other| other == state) => state.clone(),
        _ => format!("{up}/{} up", states.len()),
    };
    let since = match state.as_str() {
        "unused" => String::new(),
        _ => human(seen.iter().map(|item| number(item, "seconds")).min().unwrap_or(0)),
    };
    let status = seen.iter().map(|item| text(item, "status")).find(|status| !status.is_empty()).unwrap_or_default();
    let at = text(first, "at");
    let (name, uri) = (text(first, "dispatcher"), text(first, "uri"));
    let key = if apart { format!("{name} {uri} {at}") } else { format!("{name} {uri}") };
    Row { key, cells: vec![name, uri, state, status, since, at] }
}

/// A URI whose user has a password, without it (RFC 3261 19.1.1: it stands after a colon before the `@`).
pub(super) fn masked(uri: &str) -> String {
    let lower = uri.to_ascii_lowercase();
    let begin = ["sips:", "sip:"].iter().find_map(|scheme| lower.find(scheme).map(|at| at + scheme.len()));
    let Some((head, rest)) = begin.and_then(|at| uri.split_at_checked(at)) else { return uri.to_owned() };
    let Some((user, host)) = rest.split_once('@') else { return uri.to_owned() };
    match user.split_once(':') {
        Some((user, _)) => format!("{head}{user}:***@{host}"),
        None => uri.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Printer;
    use super::*;
    use serde_json::json;

    fn calls() -> Value {
        let leg = |endpoint: &str, direction: &str, state: &str| json!({"id": "l", "endpoint": endpoint, "direction": direction, "state": state, "answeredAt": null, "codec": "PCMU"});
        json!([
            {"id": "7f3a", "from": "8005", "exten": "8006", "context": "internal", "step": 2, "startedAt": 1000, "protected": true,
             "relay": "00ff", "legs": [leg("8005", "inbound", "up"), leg("8006", "outbound", "up")]},
            {"id": "91bc", "from": "8007", "exten": "8005", "context": "internal", "step": 2, "startedAt": 1180, "protected": false,
             "relay": null, "legs": [leg("8007", "inbound", "setup"), leg("8005", "outbound", "ringing"), leg("8009", "outbound", "setup")]},
            {"id": "a0", "from": "8008", "exten": "600", "context": "internal", "step": 1, "startedAt": 1199, "protected": false,
             "relay": null, "legs": [leg("8008", "inbound", "setup")]}
        ])
    }

    fn printed(kind: Kind, items: &[Value], wide: bool) -> String {
        Printer::new(kind.columns(), wide).print(&kind.rows(items, 1200, wide))
    }

    #[test]
    fn calls_are_listed() {
        let items = Kind::Calls.items("pbx-router-1", calls()).unwrap();
        assert_eq!(
            printed(Kind::Calls, &items, false),
            "\
ID     FROM   EXTEN   TO          STATE     AGE
7f3a   8005   8006    8006        up        3m20s
91bc   8007   8005    8005,8009   ringing   20s
a0     8008   600     <none>      setup     1s
"
        );
        let wide = printed(Kind::Calls, &items[..1], true);
        assert_eq!(
            wide,
            "\
ID     FROM   EXTEN   TO     STATE   AGE     CONTEXT    STEP   CODEC   PROTECTED   RELAY   ROUTER
7f3a   8005   8006    8006   up      3m20s   internal   2      PCMU    true        00ff    pbx-router-1
"
        );
    }

    #[test]
    fn calls_are_chosen_by_id_or_endpoint() {
        let items = Kind::Calls.items("r", calls()).unwrap();
        let chosen = |names: &[&str], endpoint: Option<&str>| -> Vec<String> {
            let names = names.iter().map(|n| (*n).to_owned()).collect();
            let filter = Filter { names, endpoint: endpoint.map(str::to_owned) };
            items.iter().filter(|item| Kind::Calls.fits(&filter, item)).map(|item| text(item, "id")).collect()
        };
        assert_eq!(chosen(&[], None).len(), 3);
        assert_eq!(chosen(&["7f", "a0"], None), ["7f3a", "a0"]);
        assert_eq!(chosen(&[], Some("8005")), ["7f3a", "91bc"]);
        assert_eq!(chosen(&["91"], Some("8006")), [""; 0]);
    }

    #[test]
    fn holds_are_listed() {
        let one = |id: &str, told: bool, woken: bool| json!({"id": id, "call": "7f3a", "endpoint": "8006", "from": "8005", "exten": "8006", "since": 1180, "until": 1270, "told": told, "woken": woken});
        let view = json!([one("c1", false, false), one("c2", true, false), one("c3", true, true)]);
        let items = Kind::Holds.items("pbx-router-1", view).unwrap();
        assert_eq!(
            printed(Kind::Holds, &items, false),
            "\
ID   FROM   EXTEN   FOR    STATE    AGE   LEFT
c1   8005   8006    8006   asleep   20s   70s
c2   8005   8006    8006   waking   20s   70s
c3   8005   8006    8006   awake    20s   70s
"
        );
        assert_eq!(
            printed(Kind::Holds, &items[..1], true),
            "\
ID   FROM   EXTEN   FOR    STATE    AGE   LEFT   CALL   ROUTER
c1   8005   8006    8006   asleep   20s   70s    7f3a   pbx-router-1
"
        );
    }

    #[test]
    fn registrations_are_listed_without_the_passwords_that_contacts_may_hold() {
        let view = json!({"registrations": [
            {"aor": "8006", "contact": "<sip:8006:geheim@192.0.2.9:5060;ob>", "expires": 3500, "since": 1100, "updated": 1190, "userAgent": "Phone 1",
             "instance": null, "transport": "udp", "flow": "192.0.2.9:5060", "local": "192.0.2.1:5060", "balancer": "00aa"}
        ]});
        let items = Kind::Registrations.items("x", view).unwrap();
        assert!(!json!(items).to_string().contains("geheim"), "{items:?}");
        assert_eq!(
            printed(Kind::Registrations, &items, true),
            "\
AOR    CONTACT                            EXPIRES   AGE    TRANSPORT   FROM             USER-AGENT   INSTANCE   BALANCER
8006   <sip:8006:***@192.0.2.9:5060;ob>   58m       100s   udp         192.0.2.9:5060   Phone 1      <none>     00aa
"
        );
        let gone = json!({"registrations": [], "error": "connection refused"});
        assert_eq!(Kind::Registrations.items("x", gone), Err("the store does not answer: connection refused".into()));
        assert!(Kind::Registrations.items("x", json!(7)).is_err());
    }

    #[test]
    fn destinations_are_what_all_balancers_think_of_them() {
        let one = |uri: &str, state: &str, seconds: u64, status: Value| json!([{"dispatcher": "asterisk", "uri": uri, "state": state, "seconds": seconds, "status": status}]);
        let mut items = Vec::new();
        for (at, uri, state, seconds, status) in [
            ("b1", "sip:10.0.0.1", "up", 4000, json!(200)),
            ("b2", "sip:10.0.0.1", "down", 70, json!(null)),
            ("b1", "sip:10.0.0.2", "down", 10, json!(503)),
            ("b2", "sip:10.0.0.2", "down", 20, json!(503)),
            ("b1", "sip:10.0.0.3", "unused", 0, json!(null)),
        ] {
            items.extend(Kind::Dispatchers.items(at, one(uri, state, seconds, status)).unwrap());
        }
        assert_eq!(
            printed(Kind::Dispatchers, &items, false),
            "\
DISPATCHER   DESTINATION    STATE    STATUS   SINCE
asterisk     sip:10.0.0.1   1/2 up   200      70s
asterisk     sip:10.0.0.2   down     503      10s
asterisk     sip:10.0.0.3   unused   <none>   <none>
"
        );
        assert_eq!(printed(Kind::Dispatchers, &items, true).lines().count(), 6);
    }

    #[test]
    fn a_password_in_a_uri_is_hidden() {
        for (uri, shown) in [
            ("sip:8006@192.0.2.9:5060", "sip:8006@192.0.2.9:5060"),
            ("<SIPS:a:b@h;x=y@z>", "<SIPS:a:***@h;x=y@z>"),
            ("sip:192.0.2.9:5060", "sip:192.0.2.9:5060"),
            ("", ""),
        ] {
            assert_eq!(masked(uri), shown);
        }
    }
}
