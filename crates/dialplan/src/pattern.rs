//! Extension patterns as Asterisk writes them, and their order of preference.
//!
//! A pattern begins with `_`; without it the text is an extension that matches itself. In a pattern `X` is 0-9, `Z` 1-9,
//! `N` 2-9 (in either case), `[15-7]` one character of a set, `.` one or more and `!` none or more of anything; all else
//! is itself. A `-` outside a set is decoration, in the pattern and in what is dialled.
//!
//! Preference within a context, as in Asterisk: an exact extension before any pattern; between patterns the first
//! position that differs decides: the set with fewer characters, then the one with the lower first character, then `.`,
//! then `!`, then the pattern's end.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits;
use crate::{Error, ErrorKind};

/// An extension or an extension pattern. Equality and order are of the meaning (`_80[0-9]X` equals `_80XX`), and the
/// order is the order of preference. In JSON and YAML it is the text as written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    form: Form,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    /// The extension without its dashes.
    Exact(String),
    Pattern(Vec<Item>),
}

/// One position. The order of the variants is the order of preference.
#[derive(Clone, PartialEq, Eq)]
enum Item {
    /// Which ASCII characters match, one bit each.
    Set(u128),
    /// `.`
    OneOrMore,
    /// `!`
    AnyOrNone,
}

impl Item {
    fn rank(&self) -> (u8, u32, u32, u128) {
        match self {
            Item::Set(set) => (0, set.count_ones(), set.trailing_zeros(), set.reverse_bits()),
            Item::OneOrMore => (1, 0, 0, 0),
            Item::AnyOrNone => (2, 0, 0, 0),
        }
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

fn bit(c: u8) -> u128 {
    1u128 << (c & 0x7f)
}

fn range(from: u8, to: u8) -> u128 {
    (from..=to).fold(0, |set, c| set | bit(c))
}

impl Pattern {
    /// Reads an extension (`8005`) or a pattern (`_80XX`).
    ///
    /// # Errors
    /// [`ErrorKind::Pattern`] with what to write instead.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad =
            |why| Error::from(ErrorKind::Pattern { pattern: text.chars().take(limits::EXTENSION).collect(), why });
        if text.is_empty() {
            return Err(bad("write an extension (8005) or a pattern (_80XX)"));
        }
        if text.len() > limits::EXTENSION {
            return Err(bad("longer than 80 characters"));
        }
        if text.bytes().any(|c| !c.is_ascii_graphic()) {
            return Err(bad("only printable ASCII characters, no spaces"));
        }
        if text.contains('/') {
            return Err(bad("matching the caller's number after '/' is not supported"));
        }
        let form = match text.strip_prefix('_') {
            None => {
                // A forgotten underscore is the classic slip: `80[0-9]X` would match only itself.
                if text.contains(['[', ']']) {
                    return Err(bad("a pattern begins with '_'"));
                }
                let plain: String = text.chars().filter(|c| *c != '-').collect();
                if plain.is_empty() {
                    return Err(bad("nothing but dashes"));
                }
                Form::Exact(plain)
            }
            Some(rest) => Form::Pattern(items(rest).map_err(bad)?),
        };
        Ok(Self { text: text.to_owned(), form })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether what was dialled matches. Dashes in it do not count; it is compared case-sensitively.
    pub fn matches(&self, exten: &str) -> bool {
        let mut dialled = exten.bytes().filter(|c| *c != b'-');
        match &self.form {
            Form::Exact(plain) => dialled.eq(plain.bytes()),
            Form::Pattern(items) => {
                for item in items {
                    match (item, dialled.next()) {
                        (Item::AnyOrNone, _) | (Item::OneOrMore, Some(_)) => return true,
                        (Item::Set(set), Some(c)) if c.is_ascii() && set & bit(c) != 0 => {}
                        _ => return false,
                    }
                }
                dialled.next().is_none()
            }
        }
    }

    /// Whether more digits could make a match of these.
    pub fn may_grow(&self, digits: &str) -> bool {
        let mut dialled = digits.bytes().filter(|c| *c != b'-');
        match &self.form {
            Form::Exact(plain) => {
                let dialled: Vec<u8> = dialled.collect();
                plain.len() > dialled.len() && plain.as_bytes().starts_with(&dialled)
            }
            Form::Pattern(items) => {
                for item in items {
                    match (item, dialled.next()) {
                        (Item::AnyOrNone | Item::OneOrMore, _) | (Item::Set(_), None) => return true,
                        (Item::Set(set), Some(c)) if c.is_ascii() && set & bit(c) != 0 => {}
                        _ => return false,
                    }
                }
                false
            }
        }
    }

    /// Whether another pattern, which is preferred, takes all that this one matches: it is the same and a `!` after it.
    pub fn is_hidden_by(&self, other: &Self) -> bool {
        match (&self.form, &other.form) {
            (Form::Pattern(own), Form::Pattern(others)) => match others.split_last() {
                Some((Item::AnyOrNone, begin)) => own == begin,
                _ => false,
            },
            _ => false,
        }
    }
}

/// The positions of a pattern after its `_`.
fn items(rest: &str) -> Result<Vec<Item>, &'static str> {
    let mut items = Vec::new();
    let mut bytes = rest.bytes();
    while let Some(c) = bytes.next() {
        if matches!(items.last(), Some(Item::OneOrMore | Item::AnyOrNone)) {
            return Err("'.' and '!' match all that follows: nothing may stand after them");
        }
        items.push(match c {
            b'-' => continue,
            b'X' | b'x' => Item::Set(range(b'0', b'9')),
            b'Z' | b'z' => Item::Set(range(b'1', b'9')),
            b'N' | b'n' => Item::Set(range(b'2', b'9')),
            b'.' => Item::OneOrMore,
            b'!' => Item::AnyOrNone,
            b'[' => Item::Set(set(&mut bytes)?),
            b']' => return Err("']' without '['"),
            c => Item::Set(bit(c)),
        });
    }
    if items.is_empty() { Err("nothing follows '_'") } else { Ok(items) }
}

/// A set after its `[`, up to and with the `]`.
fn set(bytes: &mut impl Iterator<Item = u8>) -> Result<u128, &'static str> {
    let mut members = Vec::new();
    loop {
        match bytes.next() {
            None => return Err("'[' without ']'"),
            Some(b']') => break,
            Some(b'[') => return Err("'[' inside a set"),
            Some(c) => members.push(c),
        }
    }
    let (mut set, mut at) = (0u128, 0);
    while let Some(&from) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some(b'-'), Some(&to)) if from <= to => {
                set |= range(from, to);
                at += 3;
            }
            (Some(b'-'), Some(_)) => return Err("a range runs from the lower to the higher character, such as [2-5]"),
            _ if from == b'-' => return Err("a '-' in a set stands between two characters, such as [2-5]"),
            _ => {
                set |= bit(from);
                at += 1;
            }
        }
    }
    if set == 0 { Err("an empty set matches nothing") } else { Ok(set) }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pattern {}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.form, &other.form) {
            (Form::Pattern(left), Form::Pattern(right)) => {
                for pair in left.iter().zip(right) {
                    match pair.0.cmp(pair.1) {
                        Ordering::Equal => {}
                        unequal => return unequal,
                    }
                }
                // The end of a pattern is the least preferred position.
                right.len().cmp(&left.len())
            }
            (left, right) => left.cmp(right),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_matches() {
        for (pattern, yes, no) in [
            ("8005", &["8005", "80-05"][..], &["8006", "800", "80055", ""][..]),
            ("_80XX", &["8005", "8099", "80-99"], &["800", "80999", "8105", "80AB"]),
            ("_8-0XX", &["8005"], &["8-00"]),
            ("_NZX", &["210", "999"], &["110", "200", "2101"]),
            ("_nzx", &["210"], &["110"]),
            ("_[13-5]X", &["10", "39", "40", "50"], &["20", "60", "-0"]),
            ("_9.", &["91", "9+44"], &["9", "8", ""]),
            ("_9!", &["9", "91", "9abc"], &["8", ""]),
            ("_.", &["s", "1", "h"], &[""]),
            ("_!", &["", "1"], &[]),
            ("_+49.", &["+491"], &["+49", "491"]),
            ("_[n]e[x]t", &["next"], &["2ext", "ne1t"]),
            ("_9X", &[], &["9\u{0669}"]),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            for exten in yes {
                assert!(pattern.matches(exten), "{pattern} must match {exten}");
            }
            for exten in no {
                assert!(!pattern.matches(exten), "{pattern} must not match {exten}");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        for (pattern, why) in [
            ("", "write an extension"),
            ("_", "nothing follows"),
            ("_-", "nothing follows"),
            ("-", "dashes"),
            ("_80[", "'[' without ']'"),
            ("_80]", "']' without '['"),
            ("_80[]", "empty set"),
            ("_[5-2]", "lower to the higher"),
            ("_[-2]", "between two characters"),
            ("_[[1]]", "inside a set"),
            ("_9.1", "nothing may stand after"),
            ("_9!X", "nothing may stand after"),
            ("_80 X", "no spaces"),
            ("_80XX/8005", "caller's number"),
            ("80[0-9]X", "begins with '_'"),
            ("_8é", "ASCII"),
            (&"1".repeat(81), "80 characters"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }

    #[test]
    fn order_of_preference() {
        // Each stands before all that follow.
        let order =
            ["2", "8005", "_800[56]", "_80[5-7]X", "_80[6-8]X", "_80NX", "_80ZX", "_80X5", "_80XX", "_80.", "_80!"]
                .map(|text| Pattern::parse(text).unwrap());
        for (at, left) in order.iter().enumerate() {
            for right in &order[at + 1..] {
                assert!(left < right, "{left} before {right}");
            }
        }
    }

    #[test]
    fn equal_by_meaning() {
        for (left, right) in [("_80XX", "_80[0-9]x"), ("80-05", "8005"), ("_[15]", "_[51]"), ("_[2-9]", "_N")] {
            assert_eq!(Pattern::parse(left).unwrap(), Pattern::parse(right).unwrap());
        }
        assert_ne!(Pattern::parse("_8").unwrap(), Pattern::parse("8").unwrap());
        assert_ne!(Pattern::parse("_[13]").unwrap(), Pattern::parse("_[14]").unwrap());
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_read(text in "[ -~é]{0,90}", exten in "\\PC{0,20}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                pattern.matches(&exten);
                let again = Pattern::parse(pattern.as_str()).unwrap();
                prop_assert_eq!(again, pattern);
            }
        }

        #[test]
        fn order_is_total(texts in proptest::collection::vec("_[0-9XZN]{1,3}[.!]?", 3)) {
            let p: Vec<_> = texts.iter().map(|t| Pattern::parse(t).unwrap()).collect();
            prop_assert_eq!(p[0].cmp(&p[1]), p[1].cmp(&p[0]).reverse());
            if p[0] <= p[1] && p[1] <= p[2] { prop_assert!(p[0] <= p[2]); }
        }
    }

    #[test]
    fn what_more_digits_could_match() {
        for (pattern, digits, grows) in [
            ("8005", "80", true),
            ("8005", "", true),
            ("8005", "8005", false),
            ("8005", "81", false),
            ("_80XX", "800", true),
            ("_80XX", "8005", false),
            ("_80XX", "9", false),
            ("_9.", "9", true),
            ("_9.", "91", true),
            ("_9!", "9", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().may_grow(digits), grows, "{pattern} {digits}");
        }
        let hidden =
            |own: &str, other: &str| Pattern::parse(own).unwrap().is_hidden_by(&Pattern::parse(other).unwrap());
        assert!(hidden("_8X", "_8X!") && hidden("_8X", "_8[0-9]!"));
        assert!(!hidden("_8X!", "_8X") && !hidden("_8X", "_8X.") && !hidden("80", "_8X!") && !hidden("_8X", "_8N!"));
    }
}
