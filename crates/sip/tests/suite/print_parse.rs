//! Properties: what is printed is parsed back; what is edited leaves the rest alone.

use proptest::prelude::*;
use sip::edit::Edit;
use sip::header::{NameAddr, Params, Via, quote, unquote};
use sip::uri::{Uri, escape_user};
use sip::{Message, Method, Name, build};

/// A field name that is not known, with its value: anything that is no line end.
fn unknown_field() -> impl Strategy<Value = (String, String)> {
    ("X-[A-Za-z0-9.!%*_+`'~-]{1,20}", "[^\r\n\u{85}]{0,40}")
        .prop_map(|(n, v)| (n, v.trim_matches([' ', '\t']).to_owned()))
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

/// A message as text with every liberty that the grammar gives: name forms, blanks, folds.
fn field_line(name: Name, value: &str, form: u8) -> String {
    let text = match (form % 4, name.compact()) {
        (0, Some(letter)) => letter.to_string(),
        (1, _) => name.as_str().to_ascii_uppercase(),
        (2, _) => name.as_str().to_ascii_lowercase(),
        _ => name.as_str().to_owned(),
    };
    let (before, after) = match form / 4 % 4 {
        0 => ("", " "),
        1 => (" \t", "\t "),
        2 => ("", "\r\n  "),
        _ => ("", ""),
    };
    format!("{text}{before}:{after}{value}\r\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_built_request_is_parsed_back(
        method in "[A-Z]{3,9}", user in "[a-z0-9.]{1,12}", fields in proptest::collection::vec(unknown_field(), 0..90),
        body in body(), number in 0u32..(1 << 31),
    ) {
        let uri = format!("sip:{user}@example.com");
        let mut request = build::request(&method, &uri)
            .header(Name::Via, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
            .header(Name::From, "<sip:a@example.com>;tag=1")
            .header(Name::To, format!("<{uri}>"))
            .header(Name::CallId, "c@example.com")
            .header(Name::CSeq, format!("{number} {method}"))
            .header(Name::MaxForwards, "70");
        for (name, value) in &fields {
            request = request.other(name, value);
        }
        let bytes = request.body("application/octet-stream", body.clone()).finish();
        for parsed in [Message::parse(&bytes).unwrap(), Message::parse_stream(&bytes).unwrap()] {
            prop_assert_eq!(parsed.validate(), Ok(()));
            prop_assert_eq!(parsed.method().unwrap(), Method::parse(&method));
            prop_assert_eq!(parsed.uri().unwrap(), &uri);
            prop_assert_eq!(parsed.cseq().unwrap().number, number);
            prop_assert_eq!(parsed.body(), &body[..]);
            let seen: Vec<_> = parsed.fields().filter(|(n, _)| n.starts_with("X-")).collect();
            let put: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            prop_assert_eq!(seen, put);
        }
    }

    #[test]
    fn every_form_of_a_line_says_the_same(forms in proptest::collection::vec(any::<u8>(), 7), body in body()) {
        let fields = [
            (Name::Via, "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1"),
            (Name::From, "\"A, <b>\" <sip:a@example.com>;tag=1"),
            (Name::To, "<sip:b@example.com>"),
            (Name::CallId, "c@example.com"),
            (Name::CSeq, "7 INVITE"),
            (Name::Contact, "<sip:a@192.0.2.1>;expires=60"),
        ];
        let mut text = String::from("INVITE sip:b@example.com SIP/2.0\r\n");
        for ((name, value), form) in fields.iter().zip(&forms) {
            text += &field_line(*name, value, *form);
        }
        text += &field_line(Name::ContentLength, &body.len().to_string(), forms[6]);
        let mut bytes = (text + "\r\n").into_bytes();
        bytes.extend_from_slice(&body);
        let m = Message::parse(&bytes).unwrap();
        prop_assert_eq!(m.validate(), Ok(()));
        for (name, value) in fields {
            prop_assert_eq!(m.header(name), Some(value));
            prop_assert_eq!(m.headers(name).count(), 1);
        }
        prop_assert_eq!(m.body(), &body[..]);
        // Nothing edited: nothing changed.
        prop_assert_eq!(&Edit::new(&m).finish()[..], &bytes[..]);
    }

    #[test]
    fn an_edit_leaves_the_rest_alone(
        fields in proptest::collection::vec(unknown_field(), 0..12), body in body(), hops in 1u64..255, pops in 0usize..4,
    ) {
        let mut text = String::from("BYE sip:b@example.com SIP/2.0\r\nv: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bK1\r\n");
        text += "Route: <sip:p1;lr>,\r\n\t<sip:p2;lr> , <sip:p3;lr>\r\nMAX-FORWARDS :70\r\n";
        for (name, value) in &fields {
            text += &format!("{name}:{value} \r\n");
        }
        text += "f: <sip:a@example.com>;tag=1\r\nt: <sip:b@example.com>;tag=2\r\ni: c\r\nCSeq: 1 BYE\r\n\r\n";
        let mut bytes = text.clone().into_bytes();
        bytes.extend_from_slice(&body);
        let m = Message::parse(&bytes).unwrap();
        let mut edit = Edit::new(&m);
        edit.insert_top(Name::Via, "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK9").replace_number(Name::MaxForwards, hops);
        for _ in 0..pops {
            edit.pop_top(Name::Route);
        }
        // The same edits on the text.
        let mut expected = text
            .replacen("v: ", "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK9\r\nv: ", 1)
            .replacen(":70\r\n", &format!(":{hops}\r\n"), 1);
        let routes = "Route: <sip:p1;lr>,\r\n\t<sip:p2;lr> , <sip:p3;lr>\r\n";
        let left = match pops {
            0 => routes,
            1 => "Route: <sip:p2;lr> , <sip:p3;lr>\r\n",
            2 => "Route: <sip:p3;lr>\r\n",
            _ => "",
        };
        expected = expected.replacen(routes, left, 1);
        let mut expected = expected.into_bytes();
        expected.extend_from_slice(&body);
        prop_assert_eq!(&edit.finish()[..], &expected[..]);
    }

    #[test]
    fn a_printed_uri_is_parsed_back(
        user in "\\PC{1,12}", v6 in any::<u128>(), kind in 0..3, port in proptest::option::of(1u16..), lr in any::<bool>(),
    ) {
        let host = match kind {
            0 => "pbx.example.com".to_owned(),
            1 => std::net::Ipv4Addr::from(v6 as u32).to_string(),
            _ => format!("[{}]", std::net::Ipv6Addr::from(v6)),
        };
        let mut text = format!("sip:{}@{host}", escape_user(&user));
        if let Some(port) = port {
            text += &format!(":{port}");
        }
        if lr {
            text += ";lr;transport=tcp";
        }
        let uri = Uri::parse(&text).unwrap();
        prop_assert_eq!(uri.user_unescaped(), user);
        prop_assert_eq!(uri.host.to_string(), host.clone());
        prop_assert_eq!(uri.port, port);
        prop_assert_eq!(uri.param("lr").is_some(), lr);
        prop_assert!(uri.equivalent(&uri));
        let upper = text.replacen(&host, &host.to_uppercase(), 1);
        prop_assert!(uri.equivalent(&Uri::parse(&upper).unwrap()));
    }

    #[test]
    fn quoting_is_undone(text in "\\PC{0,30}") {
        let quoted = quote(&text);
        prop_assert_eq!(unquote(&quoted), text.clone());
        let field = format!("{quoted} <sip:a@example.com>;tag={}", "x");
        let address = NameAddr::parse(&field).unwrap();
        prop_assert_eq!(address.display_unquoted(), text);
        prop_assert_eq!(address.tag(), Some("x"));
    }

    #[test]
    fn parameters_are_parsed_back(list in proptest::collection::vec(("[a-z.-]{1,8}", proptest::option::of("[^\\r\\n\\PC]{0,12}")), 0..6)) {
        let text: String = list
            .iter()
            .map(|(n, v)| v.as_ref().map_or(format!(";{n}"), |v| format!(" ; {n}\t= {}", quote(v))))
            .collect();
        let seen: Vec<_> = Params::parse(&text).unwrap().iter().map(|(n, v)| (n.to_owned(), v.map(|v| unquote(v).into_owned()))).collect();
        prop_assert_eq!(seen, list);
    }

    #[test]
    fn a_via_is_parsed_back(host in "[a-z][a-z0-9.]{0,12}", port in proptest::option::of(1u16..), branch in "[A-Za-z0-9.!%*_+`'~-]{1,40}") {
        let sent_by = port.map_or(host.clone(), |p| format!("{host}:{p}"));
        let text = format!("SIP/2.0/TCP {sent_by};rport={};branch={branch}", 5060);
        let via = Via::parse(&text).unwrap();
        prop_assert_eq!((via.transport, via.sent_by, via.port), ("TCP", sent_by.as_str(), port));
        prop_assert_eq!((via.branch(), via.rport()), (Some(branch.as_str()), Some(Some(5060))));
    }

    #[test]
    fn no_value_ends_its_line(value in "[a-z\r\n: ]{0,40}") {
        let bytes = build::request("OPTIONS", "sip:a@example.com").other("X-Value", &value).header(Name::CallId, "c").finish();
        let m = Message::parse(&bytes).unwrap();
        prop_assert_eq!(m.fields().count(), 3);
        prop_assert_eq!(m.call_id(), Ok("c"));
    }
}
