//! The AOR rules, one table row a rule, in virtual time.

use super::*;
use contract::{ProcessId, Transport};
use proptest::prelude::*;

const NOW: u64 = 1_000_000;
const DEAD: ProcessId = ProcessId(0xdead);

fn rules(max_contacts: u32, remove_existing: bool) -> AorEntry {
    AorEntry {
        max_contacts,
        remove_existing,
        minimum_expiration: 60,
        maximum_expiration: 7200,
        default_expiration: 3600,
    }
}

fn flow(transport: Transport, process: ProcessId) -> Flow {
    let (local, remote) = ("127.0.0.1:5060".parse().unwrap(), "127.0.0.1:5070".parse().unwrap());
    Flow { transport, process, connection: 1, local, remote }
}

fn gone(flow: &Flow) -> bool {
    flow.process == DEAD && flow.transport != Transport::Udp
}

/// `uri[|e=N][|q=N][|i=ID][|r=N][|p=PRID]`
fn wanted(text: &str) -> Wanted {
    let mut parts = text.split('|');
    let uri = format!("sip:{}", parts.next().unwrap());
    let mut w = Wanted { uri, expires: None, q: 1000, instance: None, reg_id: None, push: None };
    for part in parts {
        let (name, value) = part.split_once('=').unwrap();
        match name {
            "e" => w.expires = value.parse().ok(),
            "q" => w.q = value.parse().unwrap(),
            "i" => w.instance = Some(value.into()),
            "p" => w.push = Some(Push { provider: "fcm".into(), prid: Some(value.into()), param: None }),
            "r" => w.reg_id = value.parse().ok(),
            _ => panic!("{name}"),
        }
    }
    w
}

fn register(call_id: &str, cseq: u32, contacts: &[&str]) -> Register {
    let asked = match contacts {
        [] => Asked::Query,
        ["*"] => Asked::RemoveAll,
        list => Asked::Contacts(list.iter().map(|c| wanted(c)).collect()),
    };
    Register {
        call_id: call_id.into(),
        cseq,
        asked,
        path: vec!["<sip:token@127.0.0.1;lr>".into()],
        flow: flow(Transport::Udp, ProcessId(1)),
        user_agent: Some("phone".into()),
    }
}

/// Runs the steps, a second apart; what each leaves as `user@host:expires-in` or its refusal.
fn run(rules: &AorEntry, steps: &[(&str, u32, &[&str])]) -> Vec<String> {
    let mut bindings = Vec::new();
    let mut out = Vec::new();
    for (n, (call_id, cseq, contacts)) in steps.iter().enumerate() {
        let now = NOW + n as u64;
        match save(&bindings, &register(call_id, *cseq, contacts), rules, now, &gone) {
            Ok(saved) => {
                bindings = saved.bindings;
                let shown: Vec<String> = bindings
                    .iter()
                    .map(|b| format!("{}:{}", b.contact.trim_start_matches("sip:"), b.expires_at - now))
                    .collect();
                out.push(shown.join(" "));
            }
            Err(refusal) => out.push(format!("{refusal:?}")),
        }
    }
    out
}

#[test]
fn each_rule_of_an_aor() {
    type Step = (&'static str, u32, &'static [&'static str]);
    let one = rules(1, false);
    let two = rules(2, false);
    let replacing = rules(1, true);
    #[rustfmt::skip]
    let table: &[(&str, &AorEntry, &[Step], &[&str])] = &[
        ("expiry: default, asked, capped", &rules(3, false),
            &[("c", 1, &["a@h", "b@h|e=60", "c@h|e=99999"])], &["a@h:3600 b@h:60 c@h:7200"]),
        ("expiry: too brief tells the minimum and changes nothing", &two,
            &[("c", 1, &["a@h"]), ("c", 2, &["a@h|e=600", "b@h|e=59"]), ("c", 3, &[])],
            &["a@h:3600", "IntervalTooBrief(60)", "a@h:3598"]),
        ("query lists and leaves", &one, &[("c", 1, &["a@h"]), ("z", 1, &[])], &["a@h:3600", "a@h:3599"]),
        ("expires 0 removes by URI equivalence", &two,
            &[("c", 1, &["a@h", "b@h"]), ("d", 1, &["a@H;x=y|e=0"])], &["a@h:3600 b@h:3600", "b@h:3599"]),
        ("expires 0 of a contact that is not there", &one, &[("c", 1, &["a@h|e=0"])], &[""]),
        ("star removes all", &two, &[("c", 1, &["a@h", "b@h"]), ("d", 1, &["*"])], &["a@h:3600 b@h:3600", ""]),
        ("star of the past does nothing", &two,
            &[("c", 5, &["a@h"]), ("c", 4, &["*"]), ("c", 6, &[])], &["a@h:3600", "OutOfOrder", "a@h:3598"]),
        ("full", &one, &[("c", 1, &["a@h"]), ("d", 1, &["b@h"])], &["a@h:3600", "TooManyContacts"]),
        ("more than may be in one request", &one, &[("c", 1, &["a@h", "b@h"])], &["TooManyContacts"]),
        ("more than may be in one request, also when replacing", &replacing,
            &[("c", 1, &["a@h", "b@h"])], &["TooManyContacts"]),
        ("no contacts at all", &rules(0, true), &[("c", 1, &["a@h"])], &["TooManyContacts"]),
        ("remove existing takes the oldest", &rules(2, true),
            &[("c", 1, &["a@h"]), ("d", 1, &["b@h"]), ("c", 2, &["a@h"]), ("e", 1, &["n@h"])],
            &["a@h:3600", "a@h:3599 b@h:3600", "b@h:3599 a@h:3600", "a@h:3599 n@h:3600"]),
        ("refresh of its own does not count", &one, &[("c", 1, &["a@h"]), ("c", 2, &["a@h"])], &["a@h:3600", "a@h:3600"]),
        ("a restarted phone: same Contact, new Call-ID", &one,
            &[("c", 9, &["a@h"]), ("d", 1, &["a@h"])], &["a@h:3600", "a@h:3600"]),
        ("a moved phone: same Call-ID, higher CSeq", &one,
            &[("c", 1, &["a@h:1"]), ("c", 2, &["a@h:2"])], &["a@h:1:3600", "a@h:2:3600"]),
        ("a moved phone: same instance", &one,
            &[("c", 1, &["a@h:1|i=u1"]), ("d", 1, &["a@h:2|i=u1"])], &["a@h:1:3600", "a@h:2:3600"]),
        ("two flows of one instance are two", &two,
            &[("c", 1, &["a@h:1|i=u1|r=1"]), ("c", 2, &["a@h:2|i=u1|r=2"])], &["a@h:1:3600", "a@h:1:3599 a@h:2:3600"]),
        ("another instance is another phone, even with that Call-ID", &one,
            &[("c", 1, &["a@h:1|i=u1"]), ("c", 2, &["a@h:2|i=u2"])], &["a@h:1:3600", "TooManyContacts"]),
        ("moved: remove old and add new in one request, either order", &one,
            &[("c", 1, &["a@h:1|i=u"]), ("c", 2, &["a@h:1|i=u|e=0", "a@h:2|i=u"]), ("c", 3, &["a@h:3|i=u", "a@h:2|i=u|e=0"])],
            &["a@h:1:3600", "a@h:2:3600", "a@h:3:3600"]),
        ("moved: the old one removed afterwards", &one,
            &[("c", 1, &["a@h:1|i=u"]), ("c", 2, &["a@h:2|i=u"]), ("c", 3, &["a@h:1|i=u|e=0"])],
            &["a@h:1:3600", "a@h:2:3600", "a@h:2:3599"]),
        ("a numbered flow is removed whatever its address was", &one,
            &[("c", 1, &["a@h:1|i=u|r=1"]), ("d", 1, &["a@h:2|i=u|r=1|e=0"])], &["a@h:1:3600", ""]),
        ("two contacts of one Call-ID are refreshed side by side", &two,
            &[("c", 1, &["a@h", "b@h"]), ("c", 2, &["a@h", "b@h"])], &["a@h:3600 b@h:3600", "a@h:3600 b@h:3600"]),
        ("out of order by URI", &one,
            &[("c", 5, &["a@h|e=100"]), ("c", 4, &["a@h|e=0"]), ("c", 6, &[])], &["a@h:100", "OutOfOrder", "a@h:98"]),
        ("out of order by Call-ID: a late packet of before the move", &two,
            &[("c", 5, &["a@h:2"]), ("c", 4, &["a@h:1"])], &["a@h:2:3600", "OutOfOrder"]),
        ("the same request twice does its work once", &one,
            &[("c", 5, &["a@h|e=100"]), ("c", 5, &["a@h|e=100"])], &["a@h:100", "a@h:99"]),
        ("the same contact twice in one request: the last holds", &one,
            &[("c", 5, &["a@h|e=100", "a@h|e=200"])], &["a@h:200"]),
    ];
    for (rule, rules, steps, want) in table {
        assert_eq!(run(rules, steps), *want, "{rule}");
    }
}

#[test]
fn what_stands_in_a_binding() {
    let mut first = register("c", 7, &["a@h:1|i=u1|r=3|q=500|e=100"]);
    first.flow = flow(Transport::Tcp, ProcessId(2));
    let saved = save(&[], &first, &rules(1, false), NOW, &gone).unwrap();
    assert!(saved.changed);
    let want = Binding {
        contact: "sip:a@h:1".into(),
        call_id: "c".into(),
        cseq: 7,
        expires_at: NOW + 100,
        since: NOW,
        updated: NOW,
        path: vec!["<sip:token@127.0.0.1;lr>".into()],
        flow: Some(first.flow),
        instance: Some("u1".into()),
        reg_id: Some(3),
        q: 500,
        user_agent: Some("phone".into()),
        push: None,
        forget_at: None,
    };
    assert_eq!(saved.bindings, [want]);
    // A refresh from elsewhere keeps only since when.
    let mut again = register("d", 1, &["a@h:2|i=u1|r=3"]);
    again.path = vec![];
    let saved = save(&saved.bindings, &again, &rules(1, false), NOW + 50, &gone).unwrap();
    assert_eq!(saved.bindings.len(), 1);
    let b = &saved.bindings[0];
    assert_eq!((b.since, b.updated, b.contact.as_str(), b.path.len()), (NOW, NOW + 50, "sip:a@h:2", 0));
    assert_eq!(b.flow, Some(again.flow));
}

#[test]
fn an_expired_binding_does_not_count_and_goes() {
    let saved = save(&[], &register("c", 1, &["a@h|e=60"]), &rules(1, false), NOW, &gone).unwrap();
    let full = save(&saved.bindings, &register("d", 1, &["b@h"]), &rules(1, false), NOW + 59, &gone);
    assert_eq!(full, Err(Refusal::TooManyContacts));
    let after = save(&saved.bindings, &register("d", 1, &["b@h"]), &rules(1, false), NOW + 60, &gone).unwrap();
    assert_eq!(after.bindings.iter().map(|b| b.contact.as_str()).collect::<Vec<_>>(), ["sip:b@h"]);
    let asked = save(&saved.bindings, &register("d", 1, &[]), &rules(1, false), NOW + 60, &gone).unwrap();
    assert_eq!((asked.bindings.len(), asked.changed), (0, false));
}

#[test]
fn a_binding_whose_flow_is_gone_makes_room_but_only_when_it_must() {
    for (transport, process, want) in [
        (Transport::Tcp, DEAD, Ok(vec!["sip:b@h"])),
        (Transport::Tcp, ProcessId(1), Err(Refusal::TooManyContacts)),
        // Whoever holds the address now sends on a UDP flow.
        (Transport::Udp, DEAD, Err(Refusal::TooManyContacts)),
    ] {
        let mut first = register("c", 1, &["a@h"]);
        first.flow = flow(transport, process);
        let saved = save(&[], &first, &rules(1, false), NOW, &gone).unwrap();
        let next = save(&saved.bindings, &register("d", 1, &["b@h"]), &rules(1, false), NOW, &gone);
        let next = next.as_ref().map(|s| s.bindings.iter().map(|b| b.contact.as_str()).collect::<Vec<_>>());
        assert_eq!(next.map_err(|e| *e), want);
        let roomy = save(&saved.bindings, &register("d", 1, &["b@h"]), &rules(2, false), NOW, &gone).unwrap();
        assert_eq!(roomy.bindings.len(), 2);
    }
}

#[test]
fn who_can_be_woken_is_remembered_when_it_has_expired_and_not_when_it_goes() {
    let at = |bindings: &[Binding], cseq, contacts: &[&str], now| {
        save(bindings, &register(&format!("c{cseq}"), cseq, contacts), &rules(1, false), now, &gone).unwrap().bindings
    };
    let shown = |bindings: &[Binding]| -> Vec<(String, bool)> {
        bindings.iter().map(|b| (b.contact.clone(), b.forget_at.is_some())).collect()
    };
    let named = |text: &str, remembered| (format!("sip:{text}"), remembered);
    let first = at(&[], 1, &["a@1|i=A|p=x|e=60"], NOW);
    // Another phone takes the one place that there is, and the first is remembered.
    let second = at(&first, 2, &["b@2|i=B|p=y|e=60"], NOW + 100);
    assert_eq!(shown(&second), [named("b@2", false), named("a@1", true)]);
    assert_eq!(second[1].forget_at, Some(NOW + 60 + contract::location::REMEMBERED_FOR));
    // It is back at another place; the other one has expired.
    let third = at(&second, 3, &["a@3|i=A|p=x|e=60"], NOW + 200);
    assert_eq!(shown(&third), [named("a@3", false), named("b@2", true)]);
    // Known by its push service alone.
    let fourth = at(&third, 4, &["b@4|p=y|e=60"], NOW + 300);
    assert_eq!(shown(&fourth), [named("b@4", false), named("a@3", true)]);
    // Who takes itself away is not to be woken.
    assert_eq!(shown(&at(&fourth, 5, &["a@3|i=A|p=x|e=0"], NOW + 301)), [named("b@4", false)]);
    assert_eq!(shown(&at(&fourth, 5, &["*"], NOW + 301)), []);
    // Who cannot be woken is forgotten, and so is everybody in the end.
    let plain = at(&[], 1, &["c@1|i=C|e=60"], NOW);
    assert_eq!(shown(&at(&plain, 2, &["d@1|i=D|e=60"], NOW + 100)), [named("d@1", false)]);
    let late = NOW + 400 + contract::location::REMEMBERED_FOR;
    assert_eq!(shown(&at(&fourth, 6, &["e@1|i=E|e=60"], late)), [named("e@1", false)]);
    let many: Vec<Binding> = (0..20).map(|n| Binding { contact: format!("sip:{n}@h"), ..fourth[1].clone() }).collect();
    assert_eq!(at(&many, 7, &["f@1|i=F|e=60"], NOW + 400).len(), 1 + REMEMBERED);
}

proptest! {
    /// Whatever phones send, an AOR never holds more than it may, nothing expired, nothing twice.
    #[test]
    fn an_aor_stays_within_its_bounds(
        steps in prop::collection::vec(
            (0u8..3, 1u32..6, prop::collection::vec((0u8..4, 0u8..3, prop::option::of(0u32..200)), 0..4), 0u64..100), 1..20),
        max in 0u32..3,
        remove_existing: bool,
    ) {
        let rules = rules(max, remove_existing);
        let mut bindings: Vec<Binding> = Vec::new();
        let mut now = NOW;
        for (call, cseq, contacts, wait) in steps {
            now += wait;
            let contacts: Vec<String> = contacts.iter().map(|(user, instance, expires)| {
                let expires = expires.map(|e| format!("|e={e}")).unwrap_or_default();
                let instance = if *instance > 0 { format!("|i={instance}") } else { String::new() };
                format!("u{user}@h{instance}{expires}")
            }).collect();
            let contacts: Vec<&str> = contacts.iter().map(String::as_str).collect();
            let register = register(&call.to_string(), cseq, &contacts);
            if let Ok(saved) = save(&bindings, &register, &rules, now, &gone) {
                prop_assert!(saved.bindings.len() <= max as usize);
                prop_assert!(saved.bindings.iter().all(|b| b.is_live(now)));
                let mut uris: Vec<_> = saved.bindings.iter().map(|b| b.contact.clone()).collect();
                uris.sort();
                uris.dedup();
                prop_assert_eq!(uris.len(), saved.bindings.len());
                bindings = saved.bindings;
            }
        }
    }
}
