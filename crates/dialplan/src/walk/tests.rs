//! Whole walks through plans, as the router and `kubepbx route` take them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::{Assigned, Condition, DialStatus, Gosub, Goto, GotoIf, Pattern, Plan, Template, Zone};

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn to(context: &str, extension: &str, label: &str) -> Goto {
    let part = |text: &str| (!text.is_empty()).then(|| template(text));
    Goto { context: part(context), extension: part(extension), label: part(label) }
}

fn log(text: &str) -> Step {
    Step::NoOp { text: Some(template(text)) }
}

fn set(name: &str, value: &str) -> Step {
    Step::Set { name: Assigned::parse(name).unwrap(), value: template(value) }
}

/// A step with `label:` and `if:` before it.
type Line<'a> = (&'a str, &'a str, Step);

fn line(step: Step) -> Line<'static> {
    ("", "", step)
}

fn plan(name: &str, includes: &[&str], extensions: Vec<(&str, Vec<Line<'_>>)>) -> Plan {
    let extensions = extensions.into_iter().map(|(pattern, lines)| {
        let labels = lines.iter().enumerate().filter(|(_, l)| !l.0.is_empty()).map(|(at, l)| (l.0.to_owned(), at));
        let when = lines.iter().enumerate().filter(|(_, l)| !l.1.is_empty());
        let when = when.map(|(at, l)| (at, Condition::parse(l.1).unwrap()));
        let steps = lines.iter().map(|l| l.2.clone()).collect();
        Extension::new(Pattern::parse(pattern).unwrap(), steps).marked(labels.collect(), when.collect())
    });
    Plan::new(name, includes.iter().map(|i| (*i).to_owned()).collect(), extensions.collect()).unwrap()
}

struct World {
    plans: Vec<Plan>,
    headers: Vec<(String, String)>,
    outcome: Option<(DialStatus, Cause)>,
    ended: Option<Cause>,
    wall: Duration,
}

impl World {
    fn new(plans: Vec<Plan>) -> Self {
        // 2026-07-05 22:30:00 UTC, a Sunday.
        Self { plans, headers: Vec::new(), outcome: None, ended: None, wall: Duration::from_secs(1_783_290_600) }
    }

    fn facts<T>(&self, with: impl FnOnce(&Facts<'_>) -> T) -> T {
        with(&Facts {
            plan: &|name| self.plans.iter().find(|plan| plan.name() == name),
            id: "0123456789abcdef",
            endpoint: "8005",
            headers: &self.headers,
            outcome: self.outcome,
            ended: self.ended,
            answered: false,
            wall: self.wall,
        })
    }

    fn walk(&self, exten: &str) -> Walk {
        let caller = Caller { number: "8005".into(), name: Some("Eight".into()) };
        Walk::new("c", exten, caller, self.wall)
    }

    /// Steps until something is to be done; gives what was logged by the way.
    fn run(&self, walk: &mut Walk) -> (Vec<String>, Taken) {
        let mut logged = Vec::new();
        loop {
            let taken = self.facts(|facts| walk.step(facts));
            if taken.app == "noOp" && !taken.skipped {
                logged.push(taken.data.clone());
            }
            if taken.action != Action::Next {
                return (logged, taken);
            }
        }
    }

    fn logged(&self, exten: &str) -> Vec<String> {
        self.run(&mut self.walk(exten)).0
    }
}

#[test]
fn steps_labels_and_conditions() {
    let world = World::new(vec![plan(
        "c",
        &[],
        vec![
            (
                "1",
                vec![
                    line(set("N", "1")),
                    ("top", "", log("round ${N}")),
                    ("", "variables.N == '3'", Step::Goto(to("", "", "end"))),
                    ("", "variables.N == '2'", set("N", "3")),
                    ("", "variables.N == '1'", set("N", "2")),
                    ("", "", Step::Goto(to("", "", "top"))),
                    ("end", "", log("at ${CONTEXT},${EXTEN},${PRIORITY}")),
                ],
            ),
            ("2", vec![line(Step::Goto(to("", "1", "end")))]),
            ("3", vec![line(Step::Goto(to("", "1", "7")))]),
        ],
    )]);
    assert_eq!(world.logged("1"), ["round 1", "round 2", "round 3", "at c,1,7"]);
    assert_eq!(world.logged("2"), ["at c,1,7"]);
    assert_eq!(world.logged("3"), ["at c,1,7"]);
}

#[test]
fn goto_if_goes_one_of_two_ways_and_an_error_is_false() {
    let branch = |condition: &str, otherwise: Option<Goto>| {
        Step::GotoIf(GotoIf {
            condition: Condition::parse(condition).unwrap(),
            then: Some(to("", "", "yes")),
            otherwise,
        })
    };
    let end = || ("", "", Step::Hangup { cause: None });
    let world = |first: Step| {
        let lines =
            vec![line(first), ("next", "", log("next")), end(), ("yes", "", log("yes")), end(), ("no", "", log("no"))];
        World::new(vec![plan("c", &[], vec![("1", lines)])])
    };
    assert_eq!(world(branch("caller.number == '8005'", None)).logged("1"), ["yes"]);
    assert_eq!(world(branch("caller.number == '1'", None)).logged("1"), ["next"]);
    assert_eq!(world(branch("caller.number == '1'", Some(to("", "", "no")))).logged("1"), ["no"]);
    let broken = world(branch("variables.NONE == '1'", Some(to("", "", "no"))));
    let taken = broken.facts(|facts| broken.walk("1").step(facts));
    assert!(taken.fault.unwrap().contains("NONE"));
    assert_eq!(broken.logged("1"), ["no"]);
}

#[test]
fn gosub_has_arguments_and_returns() {
    let gosub = |args: &[&str]| {
        let args = args.iter().map(|arg| template(arg)).collect();
        Step::Gosub(Gosub { to: to("sub", "", ""), args })
    };
    let back = Step::Return { value: Some(template("got ${ARG1}")) };
    let plans = vec![
        plan("c", &[], vec![("1", vec![line(gosub(&["a", "${EXTEN}"])), line(log("${GOSUB_RETVAL} ${ARGC}"))])]),
        plan(
            "sub",
            &[],
            vec![(
                "s",
                vec![
                    line(log("${ARGC} ${ARG1} ${ARG2} in ${CONTEXT}")),
                    ("", "variables.ARGC == '2'", gosub(&["inner"])),
                    line(log("${ARG1}/${ARG2} ${GOSUB_RETVAL}")),
                    line(back),
                ],
            )],
        ),
    ];
    let logged = World::new(plans).logged("1");
    assert_eq!(logged, ["2 a 1 in sub", "1 inner  in sub", "inner/ ", "a/1 got inner", "got a "]);
    let round = plan("c", &[], vec![("1", vec![line(Step::Gosub(Gosub { to: to("", "1", ""), args: vec![] }))])]);
    let world = World::new(vec![round]);
    let (_, taken) = world.run(&mut world.walk("1"));
    assert_eq!(taken.action, Action::End(Some(Cause::FAILURE)));
    assert!(taken.fault.unwrap().contains("nested"));
    let alone = World::new(vec![plan("c", &[], vec![("1", vec![line(Step::Return { value: None })])])]);
    assert!(alone.run(&mut alone.walk("1")).1.fault.unwrap().contains("without a gosub"));
}

#[test]
fn variables_functions_and_headers() {
    let lines = vec![
        line(set("__LANG", "de")),
        line(set("CALLERID(num)", "100")),
        // Nobody has no number.
        line(set("CALLERID(num)", "${NONE}")),
        line(set("CALLERID(name)", "Front\r\nX-Evil: 1")),
        line(set("PJSIP_HEADER(add,X-Account)", "${PJSIP_HEADER(read,x-account)}")),
        line(log("${LANG} ${CALLERID(all)} ${CHANNEL(name)} ${CHANNEL(state)} ${PJSIP_HEADER(read,X-Account,2)}|")),
        ("", "headers['X-ACCOUNT'] == '7' && endpoint == '8005'", log("account")),
        line(Step::Dial(crate::Dial {
            to: vec![template("PJSIP/8006")],
            timeout: None,
            options: DialOptions {
                caller_id: Some(template("\"Desk ${LANG}\" <200>")),
                headers: BTreeMap::from([("Alert-Info".to_owned(), template("ring"))]),
                ..DialOptions::default()
            },
        })),
    ];
    let mut world = World::new(vec![plan("c", &[], vec![("1", lines)])]);
    world.headers = vec![("X-Account".to_owned(), "7".to_owned())];
    let (logged, taken) = world.run(&mut world.walk("1"));
    assert_eq!(logged, ["de \"FrontX-Evil: 1\" <100> PJSIP/8005-01234567 Ring |", "account"]);
    let Action::Dial(dialled) = taken.action else { panic!("{taken:?}") };
    assert_eq!(dialled.caller, Caller { number: "200".into(), name: Some("Desk de".into()) });
    let headers: Vec<_> = dialled.headers.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    assert_eq!(headers, ["X-Account: 7", "Alert-Info: ring"]);
}

#[test]
fn the_time_is_that_of_the_context() {
    let at = |condition: &str, zone: &str| {
        let lines = vec![("", condition, log("yes"))];
        let plan = plan("c", &[], vec![("1", lines)]).in_zone(Zone::parse(zone).unwrap());
        !World::new(vec![plan]).logged("1").is_empty()
    };
    assert!(at("time.weekday == 'sun' && time.hour == 22", "UTC"));
    assert!(at("time.weekday == 'mon' && time.clock < '08:00'", "Europe/Berlin"));
    assert!(!at("time.weekday in ['sat', 'sun']", "Europe/Berlin"));
}

#[test]
fn loops_end_and_time_gives_more_steps() {
    let wait = Step::Wait { duration: Duration::from_secs(1) };
    let world = World::new(vec![plan(
        "c",
        &[],
        vec![
            ("1", vec![("", "true", Step::NoOp { text: None }), ("", "true", Step::Goto(to("", "1", "")))]),
            ("2", vec![line(wait), line(Step::Goto(to("", "2", "")))]),
        ],
    )]);
    let (_, taken) = world.run(&mut world.walk("1"));
    assert_eq!(taken.action, Action::End(Some(Cause::FAILURE)));
    assert!(taken.fault.unwrap().contains("1000 steps"));
    let mut world = world;
    let mut walk = world.walk("2");
    for _ in 0..5000 {
        assert!(matches!(world.run(&mut walk).1.action, Action::Wait(_)));
        world.wall += Duration::from_secs(1);
    }
}

#[test]
fn special_extensions() {
    let world = World::new(vec![
        plan(
            "c",
            &["more"],
            vec![
                ("s", vec![line(log("s"))]),
                ("i", vec![line(log("i ${INVALID_EXTEN}"))]),
                ("t", vec![line(log("t"))]),
                ("h", vec![line(log("h ${HANGUPCAUSE}")), line(Step::Echo {}), line(log("still"))]),
                ("5", vec![line(Step::WaitExten { timeout: None })]),
                ("6", vec![line(Step::Goto(to("c", "", "")))]),
                ("7", vec![line(Step::Goto(to("", "${NONE}9", "")))]),
            ],
        ),
        plan("more", &[], vec![("_20X", vec![line(log("20x"))])]),
    ]);
    assert_eq!(world.logged("6"), ["s"]);
    assert_eq!(world.logged("7"), ["i 9"]);
    let mut walk = world.walk("5");
    assert_eq!(world.run(&mut walk).1.action, Action::WaitExten(Duration::from_secs(10)));
    let digits = |digits: &str| world.facts(|facts| walk.digits(digits, facts));
    assert_eq!((digits("2"), digits("20"), digits("201")), (Digits::More, Digits::More, Digits::Done));
    assert_eq!((digits("5"), digits("9")), (Digits::Done, Digits::Done));
    for (entered, logged) in [("201", "20x"), ("9", "i 9"), ("", "t")] {
        let mut walk = walk.clone();
        assert!(world.facts(|facts| walk.enter(entered, facts)));
        assert_eq!(world.run(&mut walk).0, [logged]);
    }
    // Gone: what needs somebody to hear it is passed over, and `h` runs once.
    let mut world = world;
    world.outcome = Some((DialStatus::Busy, Cause::BUSY));
    world.ended = Some(Cause::NORMAL);
    assert!(world.facts(|facts| walk.hang_up(facts)));
    let (logged, taken) = world.run(&mut walk);
    assert_eq!((logged, taken.action), (vec!["h 16".to_owned(), "still".to_owned()], Action::End(None)));
    assert!(!world.facts(|facts| walk.hang_up(facts)));
    let bare = World::new(vec![plan("c", &[], vec![("5", vec![line(Step::Answer {})])])]);
    assert!(!bare.facts(|facts| bare.walk("5").enter("", facts) || bare.walk("5").hang_up(facts)));
    assert_eq!(bare.run(&mut bare.walk("6")).1.action, Action::End(Some(Cause::UNALLOCATED)));
}

#[test]
fn variables_are_bounded() {
    let many = (0..255).map(|n| line(set(&format!("V{n}"), "x"))).collect();
    let world = World::new(vec![plan("c", &[], vec![("1", many)])]);
    let mut walk = world.walk("1");
    world.run(&mut walk);
    assert_eq!(walk.variables().len(), 255);
    assert!(walk.set("ONE", "x") && !walk.set("MORE", "x") && walk.set("ONE", "y"));
    assert!(!walk.set("ONE", &"x".repeat(limits::VARIABLE_BYTES)));
}

#[test]
fn a_walk_goes_on_elsewhere() {
    let gosub = Step::Gosub(Gosub { to: to("", "2", ""), args: vec![template("a")] });
    let world = World::new(vec![plan(
        "c",
        &[],
        vec![
            ("1", vec![line(set("N", "1")), line(gosub), line(log("back ${N}"))]),
            ("2", vec![line(Step::Wait { duration: Duration::from_secs(1) }), line(Step::Return { value: None })]),
        ],
    )]);
    let mut walk = world.walk("1");
    assert!(matches!(world.run(&mut walk).1.action, Action::Wait(_)));
    let stored = serde_json::to_string(&walk).unwrap();
    let mut again: Walk = serde_json::from_str(&stored).unwrap();
    assert!(world.facts(|facts| again.locate(facts)));
    assert_eq!(again.current().map(Step::name), Some("wait"));
    assert_eq!(world.run(&mut again).0, ["back 1"]);
}
