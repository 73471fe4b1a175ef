//! Conditions, against a table and against another implementation of CEL.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

fn fact(name: &str) -> Value {
    let map = |pairs: &[(&str, Value)]| {
        Value::Map(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    match name {
        "caller" => map(&[("number", "8005".into()), ("name", "Zoë".into())]),
        "extension" => "8006".into(),
        "context" => "from-external".into(),
        "endpoint" => "8005".into(),
        "answered" => Value::Bool(false),
        "dialStatus" => "".into(),
        "hangupCause" => 0.into(),
        "headers" => Value::Fields(BTreeMap::from([("x-account".to_owned(), "7".to_owned())])),
        "time" => map(&[("hour", 9.into()), ("weekday", "mon".into())]),
        _ => map(&[("LANG", "de".into()), ("N", "12".into())]),
    }
}

fn holds(text: &str) -> Result<bool, String> {
    Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).holds(&fact)
}

/// What both this reading and the other one understand, and what it comes to.
const SHARED: &[(&str, Option<bool>)] = &[
    ("true", Some(true)),
    ("!true || false", Some(false)),
    ("extension == '8006'", Some(true)),
    ("extension.startsWith('80') && extension.endsWith(\"6\")", Some(true)),
    ("extension.contains('00') != true", Some(false)),
    ("extension.matches('^80[0-9]{2}$')", Some(true)),
    ("extension.matches(r'^\\d+$')", Some(true)),
    ("size(extension) == 4 && caller.number.size() == 4", Some(true)),
    ("int(extension) % 2 == 0", Some(true)),
    ("int(variables.N) * 2 - 4 == 20", Some(true)),
    ("7 / 2 == 3 && -7 / 2 == -3 && 1 + 2 * 3 == 7", Some(true)),
    ("'a' + 'b' == 'ab' && string(12) == '12'", Some(true)),
    ("time.hour >= 9 && time.hour < 17 && time.weekday in ['mon', 'tue']", Some(true)),
    ("'LANG' in variables && variables['LANG'] == 'de'", Some(true)),
    ("has(variables.LANG) && !has(variables.NONE)", Some(true)),
    ("caller.number in []", Some(false)),
    ("[1, 2, 3][1] == 2", Some(true)),
    ("caller.number == '8005' ? extension == '1' : extension == '8006'", Some(false)),
    ("(false ? 1 : true ? 2 : 3) == 2", Some(true)),
    ("variables.NONE == 'x'", None),
    ("variables.NONE == 'x' || true", Some(true)),
    ("true || variables.NONE == 'x'", Some(true)),
    ("false && variables.NONE == 'x'", Some(false)),
    ("variables.NONE == 'x' && false", Some(false)),
    ("1 / 0 == 1", None),
    ("int('x') == 1", None),
    ("[1][5] == 1", None),
    ("caller.name < 'a'", Some(true)),
    ("9223372036854775807 + 1 > 0", None),
    ("'it\\'s' == \"it's\"", Some(true)),
    ("null == null", Some(true)),
];

#[test]
fn what_conditions_come_to() {
    for (text, want) in SHARED {
        assert_eq!(holds(text).ok(), *want, "{text}");
    }
    // The specification counts characters, the other implementation bytes.
    assert_eq!(holds("caller.name.size() == 3"), Ok(true));
    // Header fields are asked for in any case; what is no bool holds nothing.
    assert_eq!(holds("headers['X-Account'] == '7' && 'x-ACCOUNT' in headers"), Ok(true));
    assert!(holds("headers['X-None'] == '7'").unwrap_err().contains("X-None"));
    assert!(holds("'8006'").unwrap_err().contains("neither true nor false"));
    assert!(holds("extension > 7").unwrap_err().contains("a text does not go with a number"));
}

/// The same facts for the other implementation.
fn other(text: &str) -> Option<bool> {
    let mut context = cel::Context::default();
    let texts = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<HashMap<String, String>>()
    };
    context.add_variable_from_value("caller", texts(&[("number", "8005"), ("name", "Zoë")]));
    context.add_variable_from_value("extension", "8006");
    context.add_variable_from_value("variables", texts(&[("LANG", "de"), ("N", "12")]));
    let time: HashMap<String, cel::Value> =
        HashMap::from([("hour".to_owned(), cel::Value::Int(9)), ("weekday".to_owned(), "mon".into())]);
    context.add_variable_from_value("time", time);
    match cel::Program::compile(text).ok()?.execute(&context) {
        Ok(cel::Value::Bool(holds)) => Some(holds),
        _ => None,
    }
}

#[test]
fn another_implementation_of_cel_comes_to_the_same() {
    for (text, want) in SHARED {
        assert_eq!(other(text), *want, "{text}");
    }
}

#[test]
fn what_is_refused_says_where_and_what_to_write() {
    for (text, at, why) in [
        ("", 1, "something is missing"),
        ("extension = '1'", 11, "write =="),
        ("extension == '1", 14, "closing quote"),
        ("exten == '1'", 1, "there is no \"exten\": there are answered, caller"),
        ("${EXTEN} == '1'", 1, "variables['NAME']"),
        ("1.5 > 1", 1, "no whole number"),
        ("extension.map(x, x)", 11, "there is no method \"map\""),
        ("duration('1s') == 1", 1, "there is no function"),
        ("{'a': 1}", 1, "maps are not written out"),
        ("extension.matches(endpoint)", 19, "written out"),
        ("extension.matches('(')", 19, "no regular expression"),
        ("true true", 6, "\"true\" is not expected"),
        ("(true", 6, "\")\" is missing"),
        ("has(extension)", 14, "has takes a member"),
        ("true & true", 6, "write &&"),
    ] {
        let error = Condition::parse(text).unwrap_err();
        let ErrorKind::Condition { at: place, .. } = &error.kind else { panic!("{error}") };
        assert!(error.to_string().contains(why), "{text}: {error}");
        assert_eq!(*place, at, "{text}");
    }
}

#[test]
fn length_and_depth_are_bounded() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Condition::parse(&nested(16)).is_ok());
    assert!(Condition::parse(&nested(17)).unwrap_err().to_string().contains("16 deep"));
    for long in ["!".repeat(200), "-".repeat(200), "true?true:".repeat(60), "[".repeat(200), "size(".repeat(60)] {
        assert!(Condition::parse(&long).unwrap_err().to_string().contains("deep"), "{long}");
    }
    assert!(Condition::parse(&format!("'{}' == ''", "x".repeat(1020))).unwrap_err().to_string().contains("longer"));
    assert!(Condition::parse(&["1"; 400].join("+")).unwrap_err().to_string().contains("words and signs"));
    // The longest chains of what is flat to read are evaluated on a small stack.
    let chain = format!("{} > 0", ["1"; 120].join("+"));
    let run = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || holds(&chain));
    assert_eq!(run.unwrap().join().unwrap(), Ok(true));
    let bomb = "extension.matches('(((a{50}){50}){50}){50}')";
    assert!(Condition::parse(bomb).unwrap_err().to_string().contains("too large"));
}

proptest! {
    #[test]
    fn never_panics(text in "[a-z'\"().,\\[\\]!&|=<>+*/%?: 0-9é\\\\-]{0,60}") {
        if let Ok(condition) = Condition::parse(&text) {
            let _ = condition.holds(&fact);
        }
    }

    #[test]
    fn never_panics_on_what_is_nearly_right(words in proptest::collection::vec(
        proptest::sample::select(vec!["extension", "caller", ".", "number", "==", "'8'", "1", "(", ")", "&&", "||", "!", "in", "[", "]", ",", "?", ":", "size", "-", "/"]),
        0..24,
    )) {
        if let Ok(condition) = Condition::parse(&words.join(" ")) {
            let _ = condition.holds(&fact);
        }
    }
}
