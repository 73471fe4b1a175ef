//! RFC 5118 4: IPv6 in messages.

use std::net::{IpAddr, Ipv6Addr};

use sip::header::{Contact, Host, Via};
use sip::uri::Uri;
use sip::{Message, Name};

use crate::common::{Verdict, body_of, judge, load};

fn v6(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

fn accepted(name: &str) -> Message<'static> {
    let bytes: &'static [u8] = load(&format!("rfc5118/{name}")).leak();
    assert_eq!(judge(bytes), Verdict::Accepted, "{name}");
    Message::parse(bytes).unwrap()
}

fn request_uri(m: &Message<'static>) -> Uri<'static> {
    Uri::parse(m.uri().unwrap()).unwrap()
}

#[test]
fn s01_valid_reference() {
    let m = accepted("ipv6-good");
    assert_eq!(request_uri(&m).host, Host::V6(v6("2001:db8::10")));
    assert_eq!(m.via().unwrap().host, Host::V6(v6("2001:db8::9:1")));
    let Contact::Addr(contact) = m.contacts().next().unwrap().unwrap() else { panic!("an address") };
    assert_eq!(contact.uri_parsed().unwrap().host, Host::V6(v6("2001:db8::1")));
}

#[test]
fn s02_reference_without_brackets() {
    assert_eq!(judge(&load("rfc5118/ipv6-bad")), Verdict::Rejected(400));
}

#[test]
fn s03_port_within_the_brackets_is_part_of_the_address() {
    let uri = request_uri(&accepted("port-ambiguous"));
    assert_eq!((uri.host, uri.port), (Host::V6(v6("2001:db8::10:5070")), None));
}

#[test]
fn s04_port_after_the_brackets() {
    let uri = request_uri(&accepted("port-unambiguous"));
    assert_eq!((uri.host, uri.port), (Host::V6(v6("2001:db8::10")), Some(5070)));
}

#[test]
fn s05_received_with_and_without_brackets() {
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        let via = accepted(name).via().unwrap();
        assert_eq!(via.received(), Some(IpAddr::V6(v6("2001:db8::9:255"))), "{name}");
        assert_eq!(via.branch(), Some("z9hG4bKas3-111"));
    }
}

#[test]
fn s06_addresses_in_sdp() {
    let m = accepted("ipv6-in-sdp");
    assert!(body_of(&m).contains("c=IN IP6 2001:db8::20\r\n"));
    assert_eq!(m.content_length(), Some(Ok(m.body().len() as u32)));
}

#[test]
fn s07_both_families_in_via() {
    let m = accepted("mult-ip-in-header");
    let hosts: Vec<_> = m.values(Name::Via).map(|v| Via::parse(v).unwrap()).map(|v| (v.host, v.port)).collect();
    let expected = [
        (Host::V6(v6("2001:db8::9:1")), Some(6050)),
        (Host::V4([192, 0, 2, 1].into()), None),
        (Host::V6(v6("2001:db8::9:255")), None),
    ];
    assert_eq!(hosts, expected);
    let last = Via::parse(m.values(Name::Via).last().unwrap()).unwrap();
    assert_eq!(last.received(), Some([192, 0, 2, 200].into()));
}

#[test]
fn s08_both_families_in_sdp() {
    let m = accepted("mult-ip-in-sdp");
    assert!(body_of(&m).contains("c=IN IP4 192.0.2.1\r\n") && body_of(&m).contains("c=IN IP6 2001:db8::1\r\n"));
}

#[test]
fn s09_mapped_addresses() {
    let via = accepted("ipv4-mapped-ipv6").via().unwrap();
    assert_eq!((via.host, via.port), (Host::V6(v6("::ffff:192.0.2.10")), Some(19823)));
}

#[test]
fn s10_third_colon_of_the_old_grammar() {
    for name in ["ipv6-bug-abnf-3-colons", "ipv6-correct-abnf-2-colons"] {
        let m = accepted(name);
        assert_eq!(request_uri(&m).host, Host::V6(v6("2001:db8::192.0.2.1")), "{name}");
    }
    // Only there: a third colon elsewhere is no address.
    assert!(Uri::parse("sip:user@[2001:db8:::1]").is_err());
    assert!(Uri::parse("sip:user@[2001:db8::::192.0.2.1]").is_err());
}
