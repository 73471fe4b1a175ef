//! RFC 4475 3.3: application layer semantics. What is not the message's own fault is accepted here; the test then
//! shows that the layer that has to judge finds what it needs.

use sip::header::Contact;
use sip::uri::{Scheme, Uri};
use sip::{Message, Name, ParseError};

use crate::common::{Verdict, judge, load};

fn accepted(name: &str) -> Message<'static> {
    let bytes: &'static [u8] = load(&format!("rfc4475/{name}")).leak();
    assert_eq!(judge(bytes), Verdict::Accepted, "{name}");
    Message::parse(bytes).unwrap()
}

fn only_contact(m: &Message<'static>) -> sip::header::NameAddr<'static> {
    let mut all = m.contacts();
    let Some(Ok(Contact::Addr(contact))) = all.next() else { panic!("an address") };
    assert!(all.next().is_none());
    contact
}

#[test]
fn s01_missing_fields() {
    let bytes = load("rfc4475/insuf");
    assert_eq!(judge(&bytes), Verdict::Rejected(400));
    assert_eq!(Message::parse(&bytes).unwrap().validate(), Err(ParseError::Missing(Name::CallId)));
}

#[test]
fn s02_unknown_scheme() {
    assert_eq!(judge(&load("rfc4475/unkscm")), Verdict::Rejected(416));
}

#[test]
fn s03_atypical_scheme() {
    assert_eq!(judge(&load("rfc4475/novelsc")), Verdict::Rejected(416));
}

/// Other schemes in To, From and Contact do not break a message; a registrar finds that To is no AOR (400).
#[test]
fn s04_unknown_schemes_in_fields() {
    let m = accepted("unksm2");
    let to = m.to().unwrap().uri_parsed().unwrap();
    assert_eq!((to.scheme, to.is_sip()), (Scheme::Other("isbn"), false));
    assert_eq!(m.from().unwrap().uri, "http://www.example.com");
    assert_eq!(only_contact(&m).uri_parsed().unwrap().scheme, Scheme::Other("name"));
}

/// 420 by whoever does not support them, from these lists.
#[test]
fn s05_required_extensions() {
    let m = accepted("bext01");
    let list = |name| m.values(name).collect::<Vec<_>>();
    assert_eq!(list(Name::Require), ["nothingSupportsThis", "nothingSupportsThisEither"]);
    assert_eq!(list(Name::ProxyRequire), ["noProxiesSupportThis", "norDoAnyProxiesSupportThis"]);
}

/// 415 by a user agent server.
#[test]
fn s06_unknown_content_type() {
    let m = accepted("invut");
    assert_eq!(m.header(Name::ContentType), Some("application/unknownformat"));
    assert_eq!(m.body().len(), 40);
}

/// 401 by a registrar that asks for credentials: there are none that it knows.
#[test]
fn s07_unknown_authorization_scheme() {
    let m = accepted("regaut01");
    assert_eq!(m.header(Name::Authorization), Some("NoOneKnowsThisScheme opaque-data=here"));
}

#[test]
fn s08_several_values_where_one_may_stand() {
    let bytes = load("rfc4475/multi01");
    assert_eq!(judge(&bytes), Verdict::Rejected(400));
    let error = Message::parse(&bytes).unwrap().validate().unwrap_err();
    assert!(matches!(error, ParseError::Repeated(_)), "{error:?}");
}

#[test]
fn s09_contradicting_content_lengths() {
    let bytes = load("rfc4475/mcl01");
    assert_eq!(judge(&bytes), Verdict::Rejected(400));
    assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Repeated(Name::ContentLength));
    let mut framer = sip::framer::Framer::new();
    framer.push(&bytes);
    assert!(framer.next().is_err(), "a stream cannot be framed any more");
}

/// A forged Via must not make a proxy send to a broadcast address: whoever forwards sees it in the second value.
#[test]
fn s10_broadcast_address_in_via() {
    let m = accepted("bcast");
    let second = m.values(Name::Via).nth(1).unwrap();
    let host = sip::header::Via::parse(second).unwrap().host;
    assert_eq!(host.ip(), Some([255, 255, 255, 255].into()));
}

/// 483 by a proxy, an answer by the endpoint itself.
#[test]
fn s11_no_hops_left() {
    assert_eq!(accepted("zeromf").max_forwards(), Some(Ok(0)));
}

#[test]
fn s12_contact_parameter() {
    let m = accepted("cparam01");
    let contact = only_contact(&m);
    assert_eq!(contact.uri, "sip:+19725552222@gw1.example.net");
    assert_eq!(contact.params.get("unknownparam"), Some(None));
}

#[test]
fn s13_contact_uri_parameter() {
    let m = accepted("cparam02");
    let contact = only_contact(&m);
    assert!(contact.params.is_empty());
    assert_eq!(contact.uri_parsed().unwrap().param("unknownparam"), Some(None));
}

#[test]
fn s14_headers_in_a_contact_uri() {
    let m = accepted("regescrt");
    let uri: Uri<'_> = only_contact(&m).uri_parsed().unwrap();
    assert_eq!(uri.headers, Some("Route=%3Csip:sip.example.com%3E"));
}

/// 406 by a user agent that can answer an INVITE with nothing but SDP.
#[test]
fn s15_unacceptable_accept() {
    let m = accepted("sdp01");
    assert_eq!(m.header(Name::Accept), Some("text/nobodyKnowsThis"));
}
