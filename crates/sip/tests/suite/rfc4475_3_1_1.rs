//! RFC 4475 3.1.1: valid messages that strain a parser.

use sip::header::{Contact, Host};
use sip::uri::Uri;
use sip::{Message, Method, Name};

use crate::common::{Verdict, body_of, judge, load};

/// Accepted by a server; the bytes are leaked so that a test reads well.
fn accepted(name: &str) -> Message<'static> {
    let bytes: &'static [u8] = load(&format!("rfc4475/{name}")).leak();
    assert_eq!(judge(bytes), Verdict::Accepted, "{name}");
    Message::parse(bytes).unwrap()
}

#[test]
fn s01_short_tortuous_invite() {
    let m = accepted("wsinv");
    assert_eq!(m.method(), Some(Method::Invite));
    let uri = Uri::parse(m.uri().unwrap()).unwrap();
    assert_eq!(uri.user, Some("vivekg"));
    assert_eq!(uri.host, Host::Name("chair-dnrc.example.com"));
    assert_eq!(uri.param("unknownparam"), Some(None));
    let to = m.to().unwrap();
    assert_eq!((to.uri, to.tag()), ("sip:vivekg@chair-dnrc.example.com", Some("1918181833n")));
    let from = m.from().unwrap();
    assert_eq!((from.uri, from.tag()), ("sip:jdrosen@example.com", Some("98asjd8")));
    assert_eq!(from.display, Some(r#""J Rosenberg \\\"""#));
    assert_eq!(from.display_unquoted(), r#"J Rosenberg \""#);
    assert_eq!(m.max_forwards(), Some(Ok(68)));
    assert_eq!(m.call_id(), Ok("wsinv.ndaksdj@192.0.2.1"));
    let cseq = m.cseq().unwrap();
    assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
    let via = m.via().unwrap();
    assert_eq!((via.transport, via.host, via.branch()), ("UDP", Host::V4([192, 0, 2, 2].into()), Some("390skdjuw")));
    let vias: Vec<_> = m.values(Name::Via).map(|v| sip::header::Via::parse(v).unwrap()).collect();
    let seen: Vec<_> = vias.iter().map(|v| (v.transport, v.sent_by, v.branch())).collect();
    let expected = [
        ("UDP", "192.0.2.2", Some("390skdjuw")),
        ("TCP", "spindle.example.com", Some("z9hG4bK9ikj8")),
        ("UDP", "192.168.255.111", Some("z9hG4bK30239")),
    ];
    assert_eq!(seen, expected);
    assert_eq!(m.header(Name::Subject), Some(""));
    assert_eq!(m.other("newfangledheader"), Some("newfangled value\r\n continued newfangled value"));
    assert_eq!(m.other("UnknownHeaderWithUnusualValue"), Some(";;,,;;,;"));
    let route: Vec<_> = m.values(Name::Route).collect();
    assert_eq!(route, ["<sip:services.example.com;lr;unknownwith=value;unknown-no-value>"]);
    let contacts: Vec<_> = m.contacts().map(Result::unwrap).collect();
    let [Contact::Addr(contact)] = contacts[..] else { panic!("one contact") };
    assert_eq!(contact.display_unquoted(), r#"Quoted string """#);
    assert_eq!(contact.params.get("newparam"), Some(Some("newvalue")));
    assert_eq!(contact.params.get("secondparam"), Some(None));
    assert_eq!(contact.params.get("q"), Some(Some("0.33")));
    assert_eq!(m.body().len(), 150);
}

#[test]
fn s02_wide_range_of_valid_characters() {
    let m = accepted("intmeth");
    assert_eq!(m.method(), Some(Method::Other("!interesting-Method0123456789_*+`.%indeed'~")));
    let uri = Uri::parse(m.uri().unwrap()).unwrap();
    assert_eq!(uri.user, Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password, Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(uri.host, Host::Name("example.com"));
    let to = m.to().unwrap();
    assert_eq!(to.display_unquoted(), "BEL:\u{7} NUL:\0 DEL:\u{7f}");
    assert!(to.tag().is_none());
    let from = m.from().unwrap();
    assert_eq!(from.display, Some("token1~` token2'+_ token3*%!.-"));
    assert_eq!(from.params.get("fromParam''~+*_!.-%"), Some(Some("\"работающий\"")));
    assert_eq!(from.tag(), Some("_token~1'+`*%!-."));
    assert_eq!(m.call_id(), Ok("intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"));
    assert_eq!(m.other("extensionHeader-!.%*+_`'~"), Some("\u{feff}大停電"));
    assert_eq!(m.max_forwards(), Some(Ok(255)));
    assert_eq!(m.via().unwrap().branch(), Some("z9hG4bK-.!%66*_+`'~"));
}

#[test]
fn s03_valid_use_of_escapes() {
    let m = accepted("esc01");
    let uri = Uri::parse(m.uri().unwrap()).unwrap();
    // Not a sips URI of user "user@example.com": one unescaping, after the parts are known.
    assert_eq!((uri.user, uri.host), (Some("sips%3Auser%40example.com"), Host::Name("example.net")));
    assert_eq!(uri.user_unescaped(), "sips:user@example.com");
    assert_eq!(m.to().unwrap().uri_parsed().unwrap().user_unescaped(), "user");
    assert_eq!(m.from().unwrap().uri_parsed().unwrap().user_unescaped(), "I have spaces");
    let Contact::Addr(contact) = m.contacts().next().unwrap().unwrap() else { panic!("an address") };
    let uri = contact.uri_parsed().unwrap();
    assert_eq!(uri.user_unescaped(), "caller");
    assert_eq!(uri.param("lr"), Some(None));
    assert_eq!(uri.param("name").flatten().as_deref(), Some("value%41"));
}

#[test]
fn s04_escaped_nulls() {
    let m = accepted("escnull");
    assert_eq!(m.to().unwrap().uri_parsed().unwrap().user_unescaped(), "null-\0-null");
    let users: Vec<_> = m
        .contacts()
        .map(|c| match c.unwrap() {
            Contact::Addr(a) => a.uri_parsed().unwrap().user_unescaped().into_owned(),
            Contact::Star => panic!("an address"),
        })
        .collect();
    assert_eq!(users, ["\0", "\0\0"]);
    assert_eq!(m.content_length(), Some(Ok(0)));
}

#[test]
fn s05_percent_that_is_no_escape() {
    let m = accepted("esc02");
    // A token is compared as it stands: neither REGISTER nor a Contact.
    assert_eq!(m.method(), Some(Method::Other("RE%47IST%45R")));
    assert_eq!(m.to().unwrap().display_unquoted(), "%Z%45");
    assert_eq!(m.contacts().count(), 2);
    assert_eq!(m.other("C%6Fntact"), Some("<sip:alias2@host2.example.com>"));
    assert_eq!(m.via().unwrap().branch(), Some("z9hG4bK209%fzsnel234"));
}

#[test]
fn s06_no_blank_between_display_name_and_bracket() {
    let m = accepted("lwsdisp");
    let from = m.from().unwrap();
    assert_eq!((from.display, from.uri, from.tag()), (Some("caller"), "sip:caller@example.com", Some("323")));
}

#[test]
fn s07_long_values() {
    let m = accepted("longreq");
    let to = m.to().unwrap();
    assert_eq!(
        to.display_unquoted().len(),
        "I have a user name of ".len() + 10 * "extreme".len() + " proportion".len()
    );
    assert_eq!(to.uri_parsed().unwrap().port, Some(6000));
    assert_eq!(m.from().unwrap().tag().unwrap().len(), 2 + 50 * 3 + 3);
    let hosts: Vec<_> = m.values(Name::Via).map(|v| sip::header::Via::parse(v).unwrap().sent_by).collect();
    assert_eq!(hosts.len(), 34);
    assert_eq!((hosts[0], hosts[33]), ("sip33.example.com", "host.example.com"));
    assert_eq!(m.body().len(), 150);
}

#[test]
fn s08_extra_octets_in_a_datagram() {
    let m = accepted("dblreq");
    assert_eq!(m.method(), Some(Method::Register));
    assert_eq!(m.call_id(), Ok("dblreq.0ha0isndaksdj99sdfafnl3lk233412"));
    assert!(m.body().is_empty());
    assert!(!m.raw().windows(6).any(|w| w == b"INVITE"), "the rest of the datagram is discarded");
}

#[test]
fn s09_semicolon_in_user() {
    let m = accepted("semiuri");
    let uri = Uri::parse(m.uri().unwrap()).unwrap();
    assert_eq!(uri.user_unescaped(), "user;par=u@example.net");
    assert_eq!(uri.host, Host::Name("example.com"));
    assert!(uri.params.is_empty());
    let accept: Vec<_> = m.values(Name::Accept).collect();
    assert_eq!(accept.len(), 6);
    assert_eq!((accept[2], accept[5]), ("multipart/mixed", "message/sipfrag"));
}

#[test]
fn s10_varied_transports() {
    let m = accepted("transports");
    let transports: Vec<_> = m.values(Name::Via).map(|v| sip::header::Via::parse(v).unwrap().transport).collect();
    assert_eq!(transports, ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"]);
}

#[test]
fn s11_multipart_with_binary() {
    let m = accepted("mpart01");
    assert_eq!(m.body().len(), 553);
    assert!(m.body().contains(&0), "NUL within the body");
    assert!(m.body().ends_with(b"--7a9cbec02ceef655--\r\n"));
    assert_eq!(m.header(Name::ContentType), Some("multipart/mixed;boundary=7a9cbec02ceef655"));
    assert_eq!(m.via().unwrap().rport(), Some(None));
}

#[test]
fn s12_unusual_reason_phrase() {
    let m = accepted("unreason");
    assert_eq!(m.status(), Some(200));
    assert_eq!(m.reason(), Some("= 2**3 * 5**2 но сто девяносто девять - простое"));
    assert!(body_of(&m).ends_with("LPC\r\n"));
}

#[test]
fn s13_empty_reason_phrase() {
    let m = accepted("noreason");
    assert_eq!((m.status(), m.reason()), (Some(100), Some("")));
}
