//! Events of calls as lines of a log, the way Asterisk's console words them; which of them are wanted; and those of several
//! routers in the order of time. Pure.

use super::rows::{number, text};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Events wait for so long for earlier ones of other routers.
pub const HOLD: Duration = Duration::from_millis(300);
/// Events that wait at most; then the earliest goes.
const WAITING: usize = 20_000;
/// Calls that are remembered by the filter, and events of each that wait for its endpoint to come.
const CALLS: usize = 20_000;
const EARLIER: usize = 32;

/// One event of a call, and the router that told it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unix milliseconds.
    pub at: u64,
    /// The call's id.
    pub call: String,
    /// `{"type": ...}`; empty for one that is not of a call.
    pub kind: Value,
}

impl Event {
    /// Reads one of `/v1/events`.
    pub fn read(item: &Value) -> Self {
        Self { at: number(item, "at"), call: text(item, "call"), kind: item["kind"].clone() }
    }

    /// Says that a router forgot events before they were read.
    pub fn lost(count: u64, router: &str, at: u64) -> Self {
        let kind = serde_json::json!({"type": "lost", "count": count, "router": router});
        Self { at, call: String::new(), kind }
    }

    fn kind(&self) -> &str {
        self.kind["type"].as_str().unwrap_or_default()
    }

    /// From which verbosity on it is shown: 0 calls begin and end; 1 what became of them; 2 who is rung; 3 each step.
    fn level(&self) -> u8 {
        match self.kind() {
            "started" | "ended" | "lost" => 0,
            "answered" | "refused" | "absent" | "held" | "notNotified" | "woken" | "released" | "moved"
            | "takenOver" => 1,
            "called" | "ringing" | "notified" => 2,
            _ => 3,
        }
    }

    /// The endpoint that it is about.
    fn endpoint(&self) -> Option<&str> {
        ["endpoint", "from"].iter().find_map(|field| self.kind[field].as_str())
    }

    /// As a line: when, the beginning of the call's id, and what.
    pub fn line(&self) -> String {
        let call: String = self.call.chars().take(8).collect();
        let call = if call.is_empty() { "-".to_owned() } else { call };
        format!("{} {call:8} {}", time(self.at), self.words())
    }

    fn words(&self) -> String {
        let field = |name: &str| text(&self.kind, name);
        let endpoint = || match field("endpoint") {
            conference if conference == "conference" => conference,
            name => format!("PJSIP/{name}"),
        };
        match self.kind() {
            "started" => format!("== {} calls {} in {}", field("from"), field("exten"), field("context")),
            "step" => executing(&field("at"), &field("app"), &field("data")),
            "called" => format!("-- Called {}", endpoint()),
            "ringing" => format!("-- {} is ringing", endpoint()),
            "answered" => format!("-- {} answered", endpoint()),
            "refused" => format!("-- {} refused: {}", endpoint(), field("status")),
            "absent" => format!("-- {} is not registered", endpoint()),
            "held" => format!("-- {} is asleep: the caller is held", endpoint()),
            "notified" if field("what") == "wake" => format!("-- {} is being woken", endpoint()),
            "notified" => format!("-- {} need not wake any more", endpoint()),
            "notNotified" if self.kind["again"] == true => {
                format!("-- Waking {} failed and is tried again: {}", endpoint(), field("reason"))
            }
            "notNotified" => format!("-- Waking {} failed: {}", endpoint(), field("reason")),
            "woken" => format!("-- {} has registered", endpoint()),
            "released" => format!("-- {} is waited for no more: {}", endpoint(), field("reason")),
            "moved" if self.kind["planned"] == true => format!("-- Media moves to relay {}", field("relay")),
            "moved" => format!("-- Relay lost, media moves to {}", field("relay")),
            "takenOver" => format!("-- Taken over by router {}", field("router")),
            "ended" => format!("== Ended: {} (cause {})", field("reason"), field("cause")),
            "lost" => format!("** {} events of {} came too fast and are lost", field("count"), field("router")),
            // Of a newer router.
            _ => format!("-- {}", self.kind),
        }
    }
}

/// `-- Executing [8006@internal:2] Dial(PJSIP/8006,30)` of `internal,8006,2`.
fn executing(at: &str, app: &str, data: &str) -> String {
    let (context, rest) = at.split_once(',').unwrap_or(("", at));
    let (exten, step) = rest.rsplit_once(',').unwrap_or((rest, ""));
    let mut app = app.chars();
    let app: String = app.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(app).collect();
    format!("-- Executing [{exten}@{context}:{step}] {app}({data})")
}

/// Unix milliseconds as `2026-11-23T21:52:46.123Z`.
fn time(at: u64) -> String {
    let seconds = api::conditions::rfc3339(Duration::from_millis(at));
    format!("{}.{:03}Z", seconds.trim_end_matches('Z'), at % 1000)
}

/// Which events are wanted.
#[derive(Debug, Default)]
pub struct Wanted {
    verbosity: u8,
    call: Option<String>,
    endpoint: Option<String>,
    /// Calls that it has, or what came before that was known.
    calls: BTreeMap<String, Option<VecDeque<Event>>>,
    /// Those calls, the longest known first.
    order: VecDeque<String>,
}

impl Wanted {
    /// Those up to a verbosity; of the calls whose ids begin so; of the calls that an endpoint has to do with.
    pub fn new(verbosity: u8, call: Option<String>, endpoint: Option<String>) -> Self {
        Self { verbosity, call, endpoint, ..Self::default() }
    }

    /// Takes the next event, and gives back those that are wanted now: it, or with it earlier ones of its call.
    pub fn take(&mut self, event: Event) -> Vec<Event> {
        if event.kind() == "lost" {
            return vec![event];
        }
        if self.call.as_ref().is_some_and(|begin| !event.call.starts_with(begin)) {
            return Vec::new();
        }
        let shown = event.level() <= self.verbosity;
        if self.endpoint.is_none() {
            return if shown { vec![event] } else { Vec::new() };
        }
        let (call, ended) = (event.call.clone(), event.kind() == "ended");
        let named = event.endpoint() == self.endpoint.as_deref();
        let mut out = if named { self.found(&call) } else { Vec::new() };
        match self.calls.get_mut(&call) {
            Some(None) if shown => out.push(event),
            Some(Some(earlier)) if shown && earlier.len() < EARLIER => earlier.push_back(event),
            Some(_) => {}
            None => self.remember(&call, Some(shown.then_some(event).into_iter().collect())),
        }
        if ended && self.calls.remove(&call).is_some() {
            self.order.retain(|other| *other != call);
        }
        out
    }

    /// The call is wanted from now on; what came of it before.
    fn found(&mut self, call: &str) -> Vec<Event> {
        match self.calls.get_mut(call) {
            Some(known) => known.take().into_iter().flatten().collect(),
            None => {
                self.remember(call, None);
                Vec::new()
            }
        }
    }

    fn remember(&mut self, call: &str, what: Option<VecDeque<Event>>) {
        if self.order.len() >= CALLS
            && let Some(oldest) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
        self.calls.insert(call.to_owned(), what);
        self.order.push_back(call.to_owned());
    }
}

/// Brings the events of several routers into the order of time: each waits a moment for earlier ones.
#[derive(Debug, Default)]
pub struct Merge {
    waiting: BTreeMap<(u64, u64), (Duration, Event)>,
    count: u64,
}

impl Merge {
    /// An event came, at this time of any clock that does not go back.
    pub fn push(&mut self, event: Event, now: Duration) {
        self.count += 1;
        self.waiting.insert((event.at, self.count), (now, event));
    }

    /// The events whose turn it is.
    pub fn due(&mut self, now: Duration) -> Vec<Event> {
        let mut out = Vec::new();
        while let Some((_, (came, _))) = self.waiting.first_key_value() {
            let waited = now.saturating_sub(*came) >= HOLD;
            if !waited && self.waiting.len() <= WAITING {
                break;
            }
            out.extend(self.waiting.pop_first().map(|(_, (_, event))| event));
        }
        out
    }

    /// All that wait.
    pub fn rest(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.waiting).into_values().map(|(_, event)| event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(at: u64, call: &str, kind: Value) -> Event {
        Event::read(&json!({"call": call, "at": at, "kind": kind}))
    }

    /// A call from 8005 to 8006, answered, then hung up.
    fn call(id: &str) -> Vec<Event> {
        let kinds = [
            json!({"type": "started", "from": "8005", "exten": "8006", "context": "internal"}),
            json!({"type": "step", "at": "internal,8006,1", "app": "noOp", "data": "to 8006"}),
            json!({"type": "step", "at": "internal,8006,2", "app": "dial", "data": "PJSIP/8006,30"}),
            json!({"type": "called", "endpoint": "8006"}),
            json!({"type": "ringing", "endpoint": "8006"}),
            json!({"type": "answered", "endpoint": "8006"}),
            json!({"type": "ended", "cause": 16, "reason": "the caller hung up"}),
        ];
        kinds.into_iter().zip(0..).map(|(kind, n)| event(1_795_470_766_123 + n, id, kind)).collect()
    }

    fn lines(wanted: &mut Wanted, events: &[Event]) -> Vec<String> {
        events.iter().flat_map(|event| wanted.take(event.clone())).map(|event| event.line()).collect()
    }

    #[test]
    fn a_call_reads_as_on_asterisks_console() {
        let mut wanted = Wanted { verbosity: 3, ..Wanted::default() };
        assert_eq!(
            lines(&mut wanted, &call("7f3a91bc00112233")),
            [
                "2026-11-23T21:52:46.123Z 7f3a91bc == 8005 calls 8006 in internal",
                "2026-11-23T21:52:46.124Z 7f3a91bc -- Executing [8006@internal:1] NoOp(to 8006)",
                "2026-11-23T21:52:46.125Z 7f3a91bc -- Executing [8006@internal:2] Dial(PJSIP/8006,30)",
                "2026-11-23T21:52:46.126Z 7f3a91bc -- Called PJSIP/8006",
                "2026-11-23T21:52:46.127Z 7f3a91bc -- PJSIP/8006 is ringing",
                "2026-11-23T21:52:46.128Z 7f3a91bc -- PJSIP/8006 answered",
                "2026-11-23T21:52:46.129Z 7f3a91bc == Ended: the caller hung up (cause 16)",
            ]
        );
        for (verbosity, count) in [(0, 2), (1, 3), (2, 5)] {
            assert_eq!(
                lines(&mut Wanted { verbosity, ..Wanted::default() }, &call("7f")).len(),
                count,
                "-v * {verbosity}"
            );
        }
        for (kind, words) in [
            (json!({"type": "answered", "endpoint": "conference"}), "-- conference answered"),
            (json!({"type": "refused", "endpoint": "8006", "status": 486}), "-- PJSIP/8006 refused: 486"),
            (json!({"type": "absent", "endpoint": "8006"}), "-- PJSIP/8006 is not registered"),
            (json!({"type": "moved", "relay": "0a", "planned": false}), "-- Relay lost, media moves to 0a"),
            (json!({"type": "moved", "relay": "0a", "planned": true}), "-- Media moves to relay 0a"),
            (json!({"type": "takenOver", "router": "0b"}), "-- Taken over by router 0b"),
            (json!({"type": "held", "endpoint": "8006"}), "-- PJSIP/8006 is asleep: the caller is held"),
            (json!({"type": "notified", "endpoint": "8006", "what": "wake"}), "-- PJSIP/8006 is being woken"),
            (
                json!({"type": "notified", "endpoint": "8006", "what": "cancelled"}),
                "-- PJSIP/8006 need not wake any more",
            ),
            (
                json!({"type": "notNotified", "endpoint": "8006", "reason": "HTTP 503", "again": true}),
                "-- Waking PJSIP/8006 failed and is tried again: HTTP 503",
            ),
            (
                json!({"type": "notNotified", "endpoint": "8006", "reason": "HTTP 400", "again": false}),
                "-- Waking PJSIP/8006 failed: HTTP 400",
            ),
            (json!({"type": "woken", "endpoint": "8006"}), "-- PJSIP/8006 has registered"),
            (
                json!({"type": "released", "endpoint": "8006", "reason": "timeout"}),
                "-- PJSIP/8006 is waited for no more: timeout",
            ),
            (json!({"type": "queued"}), r#"-- {"type":"queued"}"#),
        ] {
            assert_eq!(event(0, "a", kind).words(), words);
        }
        let lost = Event::lost(7, "pbx-router-1", 1000).line();
        assert_eq!(lost, "1970-01-01T00:00:01.000Z -        ** 7 events of pbx-router-1 came too fast and are lost");
    }

    #[test]
    fn calls_are_chosen_by_id_and_by_an_endpoint_that_comes_up_later() {
        let mut both = Vec::new();
        for (a, mut b) in call("aa").into_iter().zip(call("bb")) {
            b.kind["endpoint"] = if b.kind["endpoint"].is_string() { json!("8007") } else { Value::Null };
            both.extend([a, b]);
        }
        let mut wanted = Wanted { verbosity: 3, call: Some("b".into()), ..Wanted::default() };
        let chosen = lines(&mut wanted, &both);
        assert!(chosen.len() == 7 && chosen.iter().all(|line| line.contains(" bb ")), "{chosen:?}");
        // 8006 is named by the fourth event of its call: those before come with it.
        let mut wanted = Wanted { verbosity: 3, endpoint: Some("8006".into()), ..Wanted::default() };
        let chosen = lines(&mut wanted, &both);
        assert!(chosen.len() == 7 && chosen.iter().all(|line| line.contains(" aa ")), "{chosen:?}");
        assert!(chosen[0].contains("8005 calls") && wanted.calls.is_empty() && wanted.order.is_empty());
        // It may be named by events that are not shown.
        let mut wanted = Wanted { endpoint: Some("8006".into()), ..Wanted::default() };
        assert_eq!(lines(&mut wanted, &both).len(), 2);
        assert!(lines(&mut Wanted { endpoint: Some("9".into()), ..Wanted::default() }, &both).is_empty());
    }

    #[test]
    fn events_of_several_routers_come_in_the_order_of_time() {
        let mut merge = Merge::default();
        let ms = Duration::from_millis;
        let at = |at: u64| event(at, "a", json!({"type": "called"}));
        merge.push(at(20), ms(0));
        merge.push(at(10), ms(250));
        merge.push(at(30), ms(260));
        let times = |events: Vec<Event>| events.iter().map(|e| e.at).collect::<Vec<_>>();
        // The first to come waits for the one before it.
        assert!(merge.due(ms(310)).is_empty());
        assert_eq!(times(merge.due(ms(550))), [10, 20]);
        merge.push(at(30), ms(551));
        assert_eq!(times(merge.rest()), [30, 30]);
        (0..WAITING as u64 + 5).for_each(|n| merge.push(at(n), ms(600)));
        assert_eq!(times(merge.due(ms(600))), [0, 1, 2, 3, 4]);
    }
}
