//! Our reading of a message against rsip's, by way of `sip::typed`: where rsip reads it, both agree; where they differ,
//! the tables say who is right and why. A difference that is not in a table fails, and so does one that is gone.

use rsip::headers::ToTypedHeader as _;
use sip::header::Contact;
use sip::uri::Uri;
use sip::{Message, Name, typed};

use crate::common::{Verdict, judge, load, messages};

/// What rsip makes of a field that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Theirs {
    /// It refuses the field, or (field `message`) the whole message.
    Refuses,
    /// It reads something else.
    Misreads,
}

use Theirs::{Misreads, Refuses};

/// Every difference on messages that are legal: ours is right in all of them.
const LEGAL: &[(&str, &str, Theirs, &str)] = &[
    ("invite-1044", "contact", Refuses, "a parameter's name may hold a plus sign (RFC 5626 4.1)"),
    ("rfc4475/esc02", "message", Refuses, "a method is any token (RFC 3261 25.1)"),
    ("rfc4475/intmeth", "message", Refuses, "a method is any token, a user may hold all of these characters (25.1)"),
    ("rfc4475/regescrt", "contact", Refuses, "a URI's headers may stand in a Contact (19.1.1)"),
    ("rfc4475/semiuri", "message", Refuses, "a user may hold a semicolon (25.1)"),
    ("rfc4475/unksm2", "contact", Refuses, "a Contact may be of any scheme (20.10)"),
    ("rfc4475/unksm2", "to", Refuses, "To may be of any scheme (20.39)"),
    ("rfc4475/wsinv", "contact", Refuses, "blanks may stand around = and ; (25.1)"),
    ("rfc4475/wsinv", "from", Refuses, "blanks may stand around = and ; (25.1)"),
    ("rfc4475/wsinv", "to", Misreads, "blanks around = and ; do not make the tag another parameter (25.1)"),
    ("rfc4475/wsinv", "via", Refuses, "blanks may stand around the slashes of a Via (25.1)"),
    ("rfc5118/ipv4-mapped-ipv6", "contact", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/ipv4-mapped-ipv6", "via", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/ipv6-bug-abnf-3-colons", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/ipv6-correct-abnf-2-colons", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/ipv6-good", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/ipv6-in-sdp", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/mult-ip-in-header", "via", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/mult-ip-in-sdp", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/port-ambiguous", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/port-unambiguous", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/via-received-param-no-delim", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
    ("rfc5118/via-received-param-with-delim", "message", Refuses, "a host may be an IPv6 reference (25.1)"),
];

/// Messages that a server must refuse, or may, and that rsip takes as they are: it reads, it does not judge.
const REFUSED_BY_US_ALONE: &[&str] = &[
    "badaspec",
    "baddn",
    "badinv01",
    "clerr",
    "insuf",
    "ltgtruri",
    "mcl01",
    "mismatch01",
    "multi01",
    "ncl",
    "novelsc",
    "quotbal",
    "regbadct",
    "scalarlg",
];

fn same_uri(ours: &str, theirs: &str) -> bool {
    match (Uri::parse(ours), Uri::parse(theirs)) {
        (Ok(a), Ok(b)) => a.equivalent(&b),
        _ => ours == theirs,
    }
}

/// Compares one field: `None` if both agree. A field that neither has is agreed upon.
fn judge_field<T>(
    ours: Option<T>,
    theirs: Option<Result<T, rsip::Error>>,
    same: impl Fn(&T, &T) -> bool,
) -> Option<Theirs> {
    match (ours, theirs) {
        (None, None) => None,
        (Some(_), Some(Err(_))) => Some(Refuses),
        (Some(a), Some(Ok(b))) => (!same(&a, &b)).then_some(Misreads),
        (a, b) => panic!("one side lacks the field: {} {}", a.is_some(), b.is_some()),
    }
}

type Address = (String, Option<String>);

fn same_address(a: &Address, b: &Address) -> bool {
    same_uri(&a.0, &b.0) && a.1 == b.1
}

fn address(a: sip::header::NameAddr<'_>) -> Address {
    (a.uri.to_owned(), a.tag().map(str::to_owned))
}

/// Every difference between the two readings.
fn differences(m: &Message<'_>) -> Vec<(&'static str, Theirs)> {
    let Ok(theirs) = typed::message(m) else { return vec![("message", Refuses)] };
    let start = match &theirs {
        rsip::SipMessage::Request(r) => {
            m.method().is_some_and(|o| o.as_str() == r.method.to_string())
                && same_uri(m.uri().unwrap(), &r.uri.to_string())
        }
        rsip::SipMessage::Response(r) => m.status() == Some(u16::from(r.status_code.clone())),
    };
    let from = typed::header::<rsip::headers::From>(m, Name::From).map(|h| h.typed());
    let to = typed::header::<rsip::headers::To>(m, Name::To).map(|h| h.typed());
    let via = typed::header::<rsip::headers::Via>(m, Name::Via).map(|h| h.typed());
    let cseq = typed::header::<rsip::headers::CSeq>(m, Name::CSeq).map(|h| h.typed());
    let hops = typed::header::<rsip::headers::MaxForwards>(m, Name::MaxForwards).map(|h| h.num());
    let contact = typed::header::<rsip::headers::Contact>(m, Name::Contact).map(|h| h.typed());
    let our_contact = m.contacts().next().map(|c| match c.unwrap() {
        Contact::Addr(a) => (a.uri.to_owned(), None),
        Contact::Star => ("*".to_owned(), None),
    });
    let our_via = m.via().unwrap();
    [
        ("start", (!start).then_some(Misreads)),
        ("from", {
            let theirs = from.map(|r| r.map(|f| (f.uri.to_string(), f.tag().map(|t| t.value().to_owned()))));
            judge_field(Some(address(m.from().unwrap())), theirs, same_address)
        }),
        ("to", {
            let theirs = to.map(|r| r.map(|f| (f.uri.to_string(), f.tag().map(|t| t.value().to_owned()))));
            judge_field(Some(address(m.to().unwrap())), theirs, same_address)
        }),
        ("via", {
            let ours = (our_via.transport.to_owned(), our_via.sent_by.to_owned(), our_via.branch().map(str::to_owned));
            let theirs = via.map(|r| {
                r.map(|v| (v.transport.to_string(), v.uri.to_string(), v.branch().map(|b| b.value().to_owned())))
            });
            judge_field(Some(ours), theirs, |a, b| a == b)
        }),
        ("cseq", {
            let ours = m.cseq().unwrap();
            let theirs = cseq.map(|r| r.map(|c| (c.seq, c.method.to_string())));
            judge_field(Some((ours.number, ours.method.to_string())), theirs, |a, b| a == b)
        }),
        ("max-forwards", judge_field(m.max_forwards().map(|h| u32::from(h.unwrap())), hops, |a, b| a == b)),
        ("contact", {
            let theirs = contact.map(|r| r.map(|c| (c.uri.to_string(), None)));
            judge_field(our_contact, theirs, same_address)
        }),
    ]
    .into_iter()
    .filter_map(|(field, found)| found.map(|f| (field, f)))
    .collect()
}

/// Every message file by its path without `.dat`.
fn all() -> Vec<String> {
    let mut names: Vec<String> = ["", "rfc4475/", "rfc5118/"]
        .iter()
        .flat_map(|folder| {
            let entries = std::fs::read_dir(messages().join(folder)).unwrap();
            entries.filter_map(move |e| {
                Some(format!("{folder}{}", e.unwrap().file_name().to_str()?.strip_suffix(".dat")?))
            })
        })
        .collect();
    names.sort();
    names
}

#[test]
fn legal_messages() {
    let mut seen = Vec::new();
    let mut agreed = 0;
    for name in all() {
        let bytes = load(&name);
        if judge(&bytes) != Verdict::Accepted {
            continue;
        }
        let found = differences(&Message::parse(&bytes).unwrap());
        agreed += usize::from(found.is_empty());
        seen.extend(found.into_iter().map(|(field, theirs)| (name.clone(), field, theirs)));
    }
    let mut expected: Vec<_> = LEGAL.iter().map(|(n, f, t, _)| ((*n).to_owned(), *f, *t)).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
    assert!(agreed >= 20, "{agreed} messages are read alike in every field");
}

#[test]
fn refused_messages() {
    let ours_alone: Vec<String> = all()
        .into_iter()
        .filter_map(|n| n.strip_prefix("rfc4475/").map(str::to_owned))
        .filter(|n| {
            let bytes = load(&format!("rfc4475/{n}"));
            judge(&bytes) != Verdict::Accepted && rsip::SipMessage::try_from(&bytes[..]).is_ok()
        })
        .collect();
    assert_eq!(ours_alone, REFUSED_BY_US_ALONE);
}

/// What the adapter adds: rsip reads these only after they are normalised.
#[test]
fn normalised_messages_that_rsip_does_not_read_raw() {
    for name in ["wsinv", "esc01", "longreq"] {
        let bytes = load(&format!("rfc4475/{name}"));
        assert!(rsip::SipMessage::try_from(&bytes[..]).is_err(), "{name} raw");
        assert!(typed::message(&Message::parse(&bytes).unwrap()).is_ok(), "{name} normalised");
    }
}

#[test]
fn normalised_form() {
    let text = "INVITE sip:b@b SIP/2.0\r\nv: SIP/2.0/UDP a;branch=1,\r\n SIP/2.0/TCP c\r\nSUBJECT : a\r\n\t b  c\r\nX-y:z\r\n\r\nbody\r\n";
    let normal = typed::normalise(&Message::parse(text.as_bytes()).unwrap());
    let expected = "INVITE sip:b@b SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=1\r\nVia: SIP/2.0/TCP c\r\nSubject: a b  c\r\nX-y: z\r\n\r\nbody\r\n";
    assert_eq!(String::from_utf8(normal).unwrap(), expected);
}
