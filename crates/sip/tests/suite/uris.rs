//! RFC 3261 19.1 and RFC 3966: URIs taken apart and compared.

use sip::uri::{Host, Scheme, Uri, escape_user, unescape};

fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
    assert_eq!(a.equivalent(&b), b.equivalent(&a), "comparison has no direction");
    a.equivalent(&b)
}

/// The examples of 19.1.4.
#[test]
fn equivalent() {
    for (a, b) in [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
        (
            "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
            "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
        ),
        (
            "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
        ),
        ("sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0::1]"),
        ("SIP:a@b", "sip:a@b"),
        ("tel:+1-201-555-0123", "tel:+12015550123"),
        ("tel:7042;phone-context=Example.com", "tel:70-42;phone-context=example.com"),
    ] {
        assert!(equal(a, b), "{a} {b}");
    }
}

#[test]
fn not_equivalent() {
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
        ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
        ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
        ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
        ("sip:a@b", "sips:a@b"),
        ("sip:a@b;lr", "sip:a@b;lr=on"),
        ("sip:a@b", "sip:b"),
        ("sip:a:x@b", "sip:a@b"),
        ("sip:a@b;maddr=c", "sip:a@b"),
        ("tel:+12015550123", "tel:12015550123"),
        ("tel:7042;phone-context=a.com", "tel:7042"),
        ("isbn:1", "isbn:2"),
    ] {
        assert!(!equal(a, b), "{a} {b}");
    }
}

#[test]
fn every_part() {
    let uri = Uri::parse("sips:al%69ce:se%63ret@[2001:db8::1]:5061;transport=tls;lr?Subject=a%20b&X=1").unwrap();
    assert_eq!(uri.scheme, Scheme::Sips);
    assert_eq!((uri.user, uri.password), (Some("al%69ce"), Some("se%63ret")));
    assert_eq!(uri.user_unescaped(), "alice");
    assert_eq!((uri.host, uri.port), (Host::V6("2001:db8::1".parse().unwrap()), Some(5061)));
    assert_eq!(uri.param("TRANSPORT").flatten().as_deref(), Some("tls"));
    assert_eq!(uri.param("lr"), Some(None));
    assert_eq!(uri.param("l"), None);
    assert_eq!(uri.headers, Some("Subject=a%20b&X=1"));
}

#[test]
fn malformed() {
    for text in [
        "",
        "sip:",
        "sip:@a",
        "sip:a@",
        "a@b",
        "sip:a@b:0",
        "sip:a@b:65536",
        "sip:a@b:",
        "sip:a@b;",
        "sip:a@b;=1",
        "sip:a@b;x=",
        "sip:a b@c",
        "sip:a@b c",
        "sip:a%4@b",
        "sip:a%zz@b",
        "sip:<a@b>",
        "sip:a@b?x",
        "sip:a@b?=1",
        "sip:a@[::1",
        "sip:a@::1",
        "sip:a@[1.2.3.4]",
        "sip:a@-b",
        "sip:\u{e9}@b",
        "sip:a@b\r\n",
        "tel:",
        "tel:+",
        "tel:+1a",
        "tel:x",
        "1a:b",
        "x:",
        "x:a b",
    ] {
        assert!(Uri::parse(text).is_err(), "{text:?}");
    }
}

/// What looks like an address but is none is a name; leading zeros make no address.
#[test]
fn hosts() {
    for text in ["1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4a", "a_b.example"] {
        assert_eq!(Host::parse(text), Ok(Host::Name(text)));
    }
    for text in ["0.0.0.0", "255.255.255.255", "10.0.0.1", "1.22.133.4"] {
        assert_eq!(Host::parse(text), Ok(Host::V4(text.parse().unwrap())));
    }
}

#[test]
fn escapes() {
    assert_eq!(unescape("a%20b%41%"), "a bA%");
    assert_eq!(unescape("%ff"), "%ff", "no UTF-8");
    assert_eq!(escape_user("*21#"), "*21%23");
    assert_eq!(escape_user("a b@c:\u{e9}"), "a%20b%40c%3A%C3%A9");
}
