//! What a call would do, step by step: the router's own walk through the dialplan, with what nobody can know beforehand
//! assumed and said. Pure.

use dialplan::{Action, Caller, Cause, DialStatus, Digits, Facts, Plan, Prompt, Taken, Target, Walk};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

/// Steps that are explained at most.
const STEPS: usize = 500;
/// Columns that a step takes before its explanation.
const COLUMN: usize = 44;

/// An endpoint as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The context its calls run in.
    pub context: String,
    /// What its `callerId` says.
    pub caller: Caller,
}

/// What is known of an installation.
#[derive(Debug, Default)]
pub struct Known {
    /// Contexts by name.
    pub plans: BTreeMap<String, Plan>,
    /// Endpoints by name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Who is registered, where that is known.
    pub registered: Option<BTreeSet<String>>,
}

/// What is assumed of the call.
#[derive(Debug, Clone, Default)]
pub struct Assumed {
    /// The calling endpoint.
    pub from: String,
    /// What it dials.
    pub exten: String,
    /// Header fields of its INVITE.
    pub headers: Vec<(String, String)>,
    /// What it dials where the plan waits for digits, one after the other.
    pub digits: VecDeque<String>,
    /// What dials come to that ring somebody.
    pub status: Option<DialStatus>,
    /// Time since the UNIX epoch.
    pub wall: Duration,
}

/// `"Name" <number>`, a name or a number, as an endpoint's `callerId` has it.
pub fn caller(name: &str, text: Option<&str>) -> Caller {
    let unquoted = |text: &str| Some(text.trim().trim_matches('"').to_owned()).filter(|text| !text.is_empty());
    match text.map(|text| (text, text.split_once('<'))) {
        None => Caller { number: name.to_owned(), name: None },
        Some((_, Some((display, number)))) => {
            let number = number.trim_end().trim_end_matches('>').trim();
            let number = if number.is_empty() { name } else { number };
            Caller { number: number.to_owned(), name: unquoted(display) }
        }
        Some((text, None)) if text.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b)) => {
            Caller { number: text.to_owned(), name: None }
        }
        Some((text, None)) => Caller { number: name.to_owned(), name: unquoted(text) },
    }
}

impl Known {
    /// Takes in what a router shows at `/v1/dialplan`; `None` when that is of another form.
    pub fn take(&mut self, view: &Value) -> Option<()> {
        for plan in view["contexts"].as_array()? {
            let plan: Plan = serde_json::from_value(plan.clone()).ok()?;
            self.plans.insert(plan.name().to_owned(), plan);
        }
        for endpoint in view["endpoints"].as_array()? {
            let (name, context) = (endpoint["name"].as_str()?, endpoint["context"].as_str()?.to_owned());
            let caller = caller(name, endpoint["callerId"].as_str());
            self.endpoints.insert(name.to_owned(), Endpoint { context, caller });
        }
        Some(())
    }
}

/// A call, explained.
#[derive(Debug)]
pub struct Explained {
    /// For people.
    pub text: String,
    /// Whether the plan knows what was dialled.
    pub known: bool,
}

/// Explains a call of an endpoint that is known.
pub fn explain(known: &Known, endpoint: &Endpoint, assumed: Assumed) -> Explained {
    let walk = Walk::new(&endpoint.context, &assumed.exten, endpoint.caller.clone(), assumed.wall);
    let mut call =
        Call { known, wall: assumed.wall, assumed, walk, outcome: None, ended: None, up: false, text: String::new() };
    let (from, exten, context) = (call.assumed.from.clone(), call.assumed.exten.clone(), endpoint.context.clone());
    call.line(&format!("{from} calls {exten} in {context}"));
    let there = call.ask(|walk, facts| walk.locate(facts));
    if !there {
        call.line(&format!("there is no extension {exten} in {context}: 404"));
        return Explained { text: call.text, known: false };
    }
    call.run();
    Explained { text: call.text, known: true }
}

struct Call<'a> {
    known: &'a Known,
    assumed: Assumed,
    walk: Walk,
    outcome: Option<(DialStatus, Cause)>,
    ended: Option<Cause>,
    up: bool,
    wall: Duration,
    text: String,
}

impl Call<'_> {
    fn ask<T>(&mut self, ask: impl FnOnce(&mut Walk, &Facts<'_>) -> T) -> T {
        let facts = Facts {
            plan: &|name| self.known.plans.get(name),
            id: "00000000000000000000000000000000",
            endpoint: &self.assumed.from,
            headers: &self.assumed.headers,
            outcome: self.outcome,
            ended: self.ended,
            answered: self.up,
            wall: self.wall,
        };
        ask(&mut self.walk, &facts)
    }

    fn line(&mut self, text: &str) {
        // A String takes all that is written to it.
        let _ = writeln!(self.text, "{}", text.trim_end());
    }

    /// A step, and what becomes of it.
    fn said(&mut self, taken: &Taken, what: &str) {
        let step = format!("{}  {} {}", taken.at, taken.app, taken.data);
        let step = step.trim_end();
        if what.is_empty() {
            return self.line(step);
        }
        if step.chars().count() > COLUMN {
            self.line(step);
            return self.line(&format!("{:COLUMN$}  {what}", ""));
        }
        self.line(&format!("{step:COLUMN$}  {what}"));
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            let taken = self.ask(|walk, facts| walk.step(facts));
            if !self.act(&taken) {
                return;
            }
        }
        self.line(&format!("... and on: {STEPS} steps are explained"));
    }

    /// Explains a step; false when the call is over by it.
    fn act(&mut self, taken: &Taken) -> bool {
        let fault = taken.fault.as_deref();
        if taken.skipped {
            let why = fault.map_or_else(|| "its condition does not hold".to_owned(), str::to_owned);
            self.said(taken, &format!("is passed over: {why}"));
            return true;
        }
        let seconds = |time: Duration| format!("{} s", time.as_secs_f64());
        match &taken.action {
            Action::Answer if !self.up => self.answer(taken, "answers"),
            Action::Progress if !self.up => self.said(taken, "183"),
            Action::Ringing if !self.up => self.said(taken, "180: it rings"),
            Action::Dial(dialled) => self.dial(taken, &dialled.targets, dialled.timeout),
            Action::Failed => {
                self.outcome = Some((DialStatus::ChanUnavail, Cause::NO_ROUTE));
                self.said(taken, &format!("cannot be done: {}", fault.unwrap_or_default()));
            }
            Action::Play { prompts, digits } => {
                let list: Vec<String> = prompts.iter().map(prompt).collect();
                self.answer(taken, &format!("plays {}", list.join(", ")));
                let played = prompts.iter().map(length).sum::<Duration>();
                self.wall += played;
                if *digits && !self.assumed.digits.is_empty() {
                    return self.enter();
                }
            }
            Action::WaitExten(limit) => {
                self.said(taken, &format!("waits {} for digits", seconds(*limit)));
                self.wall += *limit;
                return self.enter();
            }
            Action::Echo => {
                self.answer(taken, "the caller hears itself until it hangs up");
                return self.end(Cause::NORMAL, "the caller hangs up");
            }
            Action::Milliwatt => {
                self.answer(taken, "the caller hears 1004 Hz until it hangs up");
                return self.end(Cause::NORMAL, "the caller hangs up");
            }
            Action::Wait(time) => {
                self.said(taken, &format!("waits {}", seconds(*time)));
                self.wall += *time;
            }
            Action::End(cause) => {
                let cause = cause.or(self.outcome.map(|(_, cause)| cause)).unwrap_or(Cause::NORMAL);
                let why = fault.map_or_else(|| cause.text().to_owned(), str::to_owned);
                match (taken.app, self.ended) {
                    ("", _) => {}
                    (_, None) => self.said(taken, "ends the call"),
                    (_, Some(_)) => self.said(taken, ""),
                }
                return self.end(cause, &why);
            }
            _ => self.said(taken, fault.unwrap_or_default()),
        }
        true
    }

    fn answer(&mut self, taken: &Taken, what: &str) {
        let answers = !std::mem::replace(&mut self.up, true);
        let also = if answers && what != "answers" { "answers, and " } else { "" };
        self.said(taken, &format!("{also}{what}"));
    }

    fn dial(&mut self, taken: &Taken, targets: &[Target], timeout: Option<Duration>) {
        let mut rings = false;
        let mut list = Vec::new();
        for target in targets {
            let Target::Endpoint(name) = target else { continue };
            let registered = self.known.registered.as_ref().map(|all| all.contains(name));
            list.push(match (self.known.endpoints.contains_key(name), registered) {
                (false, _) => format!("there is no endpoint {name}"),
                (true, Some(false)) => format!("{name} is not registered"),
                (true, _) => {
                    rings = true;
                    format!("rings {name}")
                }
            });
        }
        let limit =
            timeout.map(|limit| format!(" for {} s", limit.as_secs_f64())).filter(|_| rings).unwrap_or_default();
        self.said(taken, &format!("{}{limit}", list.join(", ")));
        let status = self.assumed.status.unwrap_or(DialStatus::NoAnswer);
        let outcome = match (rings, status) {
            (false, _) => (DialStatus::ChanUnavail, Cause::ABSENT),
            (true, DialStatus::Busy) => (status, Cause::BUSY),
            (true, DialStatus::Answer) => (status, Cause::NORMAL),
            (true, DialStatus::ChanUnavail) => (status, Cause::NO_ROUTE),
            (true, DialStatus::Congestion) => (status, Cause::CONGESTION),
            (true, DialStatus::NoAnswer | DialStatus::Cancel) => (status, Cause::NO_ANSWER),
        };
        self.outcome = Some(outcome);
        self.wall += timeout.filter(|_| rings).unwrap_or_default();
        if rings {
            self.line(&format!("{:COLUMN$}  if it is answered both talk; assumed: {}", "", outcome.0.as_str()));
        }
    }

    /// The next digits that are assumed, or none.
    fn enter(&mut self) -> bool {
        let digits = self.assumed.digits.pop_front().unwrap_or_default();
        let said = if digits.is_empty() { "no digits (--digits)".to_owned() } else { format!("digits {digits}") };
        let more = !digits.is_empty() && self.ask(|walk, facts| walk.digits(&digits, facts)) == Digits::More;
        let more = if more { ", after 5 s without more" } else { "" };
        match self.ask(|walk, facts| walk.enter(&digits, facts)) {
            true => {
                let to = format!("{},{}", self.walk.context(), self.walk.exten());
                self.line(&format!("{:COLUMN$}  {said}{more}: goes to {to}", ""));
                true
            }
            false => self.end(Cause::NORMAL, &format!("{said}, and no extension for that")),
        }
    }

    /// The call ends: `h` follows, once.
    fn end(&mut self, cause: Cause, why: &str) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let status = if self.up { "BYE".to_owned() } else { cause.status().to_string() };
        self.line(&format!("ends: {why} (cause {}, {status})", cause.number()));
        self.ended = Some(cause);
        self.ask(|walk, facts| walk.hang_up(facts))
    }
}

fn prompt(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Tone { hertz, duration } => format!("{hertz} Hz for {} s", duration.as_secs_f64()),
        Prompt::File(path) => path.clone(),
    }
}

/// How long it plays; of files nobody knows here.
fn length(prompt: &Prompt) -> Duration {
    match prompt {
        Prompt::Tone { duration, .. } => *duration,
        Prompt::File(_) => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known() -> Known {
        let view = json!({
            "contexts": [{"name": "office", "extensions": [
                {"pattern": "_80XX", "when": {"0": "caller.number == '8005'"}, "steps": [
                    {"noOp": {"text": "to ${EXTEN}"}},
                    {"dial": {"to": ["PJSIP/${EXTEN}"], "timeout": 30000}},
                    {"gotoIf": {"condition": "dialStatus == 'BUSY'", "then": {"extension": "9"}}},
                    {"playback": {"prompts": ["sorry"]}}]},
                {"pattern": "7", "steps": [{"background": {"prompts": ["menu"]}}, {"waitExten": {}}]},
                {"pattern": "9", "steps": [{"busy": {}}]},
                {"pattern": "i", "steps": [{"busy": {}}]},
                {"pattern": "h", "steps": [{"noOp": {"text": "cause ${HANGUPCAUSE}"}}]},
            ]}],
            "endpoints": [
                {"name": "8005", "context": "office", "callerId": null, "trunk": false},
                {"name": "8006", "context": "office", "callerId": "\"Six\" <8006>", "trunk": false},
            ],
        });
        let mut known = Known::default();
        known.take(&view).unwrap();
        known
    }

    fn said(known: &Known, exten: &str, digits: &[&str], status: Option<DialStatus>) -> Vec<String> {
        let assumed = Assumed {
            from: "8005".into(),
            exten: exten.into(),
            digits: digits.iter().map(|d| (*d).to_owned()).collect(),
            status,
            ..Assumed::default()
        };
        let explained = explain(known, &known.endpoints["8005"], assumed);
        explained.text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn a_call_is_explained_step_by_step() {
        let mut known = known();
        assert_eq!(
            said(&known, "8006", &[], None),
            [
                "8005 calls 8006 in office",
                "office,8006,1 noOp to 8006",
                "office,8006,2 dial PJSIP/8006,30 rings 8006 for 30 s",
                "if it is answered both talk; assumed: NOANSWER",
                "office,8006,3 gotoIf dialStatus == 'BUSY'?9:",
                "office,8006,4 playback sorry answers, and plays sorry.wav",
                "ends: No answer from user (cause 19, BYE)",
                "office,h,1 noOp cause 19",
            ]
        );
        let busy = said(&known, "8006", &[], Some(DialStatus::Busy));
        assert!(busy.contains(&"office,9,1 busy ends the call".to_owned()), "{busy:?}");
        assert!(busy.contains(&"ends: User busy (cause 17, 486)".to_owned()), "{busy:?}");
        known.registered = Some(BTreeSet::new());
        let absent = said(&known, "8006", &[], None);
        assert!(absent.contains(&"office,8006,2 dial PJSIP/8006,30 8006 is not registered".to_owned()), "{absent:?}");
        let unknown = said(&known, "8044", &[], None);
        assert!(unknown.iter().any(|line| line.ends_with("there is no endpoint 8044")), "{unknown:?}");
        assert_eq!(said(&known, "555", &[], None)[1], "there is no extension 555 in office: 404");
    }

    #[test]
    fn digits_are_assumed_one_after_the_other() {
        let known = known();
        let menu = said(&known, "7", &["9"], None);
        assert!(menu.contains(&"digits 9: goes to office,9".to_owned()), "{menu:?}");
        let none = said(&known, "7", &[], None);
        assert!(none.iter().any(|line| line.contains("no extension for that")), "{none:?}");
        let wrong = said(&known, "7", &["5"], None);
        assert!(wrong.contains(&"digits 5: goes to office,i".to_owned()), "{wrong:?}");
    }

    #[test]
    fn who_calls() {
        for (text, number, name) in [
            (None, "8005", None),
            (Some("\"Front\" <100>"), "100", Some("Front")),
            (Some("100"), "100", None),
            (Some("Front"), "8005", Some("Front")),
        ] {
            let got = caller("8005", text);
            assert_eq!((got.number.as_str(), got.name.as_deref()), (number, name));
        }
    }
}
