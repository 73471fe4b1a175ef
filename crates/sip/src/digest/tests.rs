//! Vectors of RFC 2617 3.5 and RFC 7616 3.9.1, and of our own computed with another implementation; grammar; nonces.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

const RFC7616_NONCE: &str = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
const RFC7616_CNONCE: &str = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";

#[test]
fn rfc_examples() {
    struct Case {
        alg: Algorithm,
        password: &'static str,
        realm: &'static str,
        nonce: &'static str,
        cnonce: &'static str,
        expected: &'static str,
    }
    let cases = [
        Case {
            alg: Algorithm::Md5,
            password: "Circle Of Life",
            realm: "testrealm@host.com",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            cnonce: "0a4f113b",
            expected: "6629fae49393a05397450978507c4ef1",
        },
        Case {
            alg: Algorithm::Md5,
            password: "Circle of Life",
            realm: "http-auth@example.org",
            nonce: RFC7616_NONCE,
            cnonce: RFC7616_CNONCE,
            expected: "8ca523f5e9506fed4657c9700eebdbec",
        },
        Case {
            alg: Algorithm::Sha256,
            password: "Circle of Life",
            realm: "http-auth@example.org",
            nonce: RFC7616_NONCE,
            cnonce: RFC7616_CNONCE,
            expected: "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        },
    ];
    for case in cases {
        let ha1 = ha1(case.alg, "Mufasa", case.realm, case.password);
        let uri = "/dir/index.html";
        let input = ResponseInput {
            algorithm: case.alg,
            nonce: case.nonce,
            cnonce: case.cnonce,
            nc: "00000001",
            qop: Some(Qop::Auth),
            method: "GET",
            uri,
            body: b"",
        };
        assert_eq!(response(&input, &ha1), case.expected);
        // The same through both sides.
        let challenge = Challenge::new(case.realm, case.nonce, case.alg);
        let value = answer(&challenge, "Mufasa", Secret::Password(case.password), "GET", uri, case.cnonce, 1);
        let credentials = Credentials::parse(&value).unwrap();
        assert_eq!(credentials.response, case.expected);
        assert!(verify(&credentials, "GET", b"", &ha1));
        assert_eq!(value, answer(&challenge, "Mufasa", Secret::Ha1(&ha1), "GET", uri, case.cnonce, 1));
    }
}

/// Computed with Python's hashlib for user bob, realm pbx.example, password `zan"zi\bar`.
#[test]
fn every_algorithm_and_qop() {
    let cases = [
        (Algorithm::Md5Sess, Some(Qop::Auth), "e14bc18ac28f6c8ae6882c2af41d7020"),
        (Algorithm::Md5, Some(Qop::AuthInt), "7d7a6b16fce16bede29246ceb1a95ed2"),
        (Algorithm::Md5, None, "055df53176dd33c5c14de53d3e41d96d"),
        (Algorithm::Sha256Sess, Some(Qop::Auth), "63d7deb02a61812eaf791c40d59dccdaec38656a9a111663f167427d410a35af"),
        (Algorithm::Sha256, Some(Qop::AuthInt), "e557ae04e45be9b0c47ad5fa9372dca0a2e823e25ad5044a91739d8e2c70ee42"),
        (Algorithm::Sha256, None, "4f5e1fba76014c19b321972fe939090aaf4a6546794f52ca7583d774c6b28555"),
    ];
    for (algorithm, qop, expected) in cases {
        let ha1 = ha1(algorithm, "bob", "pbx.example", "zan\"zi\\bar");
        let input = ResponseInput {
            algorithm,
            nonce: "abc123",
            cnonce: "0a4f113b",
            nc: "0000002a",
            qop,
            method: "INVITE",
            uri: "sip:8006@pbx.example",
            body: b"v=0\r\n",
        };
        assert_eq!(response(&input, &ha1), expected, "{algorithm} {qop:?}");
        let qop = qop.map_or(String::new(), |q| format!(", qop={}, nc=0000002a", q.as_str()));
        let header = format!(
            "Digest username=\"bob\", realm=\"pbx.example\", nonce=\"abc123\", uri=\"sip:8006@pbx.example\", \
             response=\"{}\", algorithm={algorithm}, cnonce=\"0a4f113b\"{qop}",
            expected.to_uppercase()
        );
        let credentials = Credentials::parse(&header).unwrap();
        assert!(verify(&credentials, "INVITE", b"v=0\r\n", &ha1), "upper-case hex is read too");
        assert!(!verify(&credentials, "REGISTER", b"v=0\r\n", &ha1));
        assert!(!verify(&credentials, "INVITE", b"v=0\r\n", &super::ha1(algorithm, "bob", "pbx.example", "wrong")));
        let int = credentials.qop == Some(Qop::AuthInt);
        assert_eq!(verify(&credentials, "INVITE", b"v=1\r\n", &ha1), !int, "auth-int covers the body");
    }
}

#[test]
fn credentials_grammar() {
    let base = "username=\"8005\", realm=\"pbx\", nonce=\"n\", uri=\"sip:pbx\", response=\"r\"";
    let parse = |rest: &str| Credentials::parse(rest).map(|c| format!("{} {:?}", c.username, c.qop));
    let ok = |s: &str| Ok(s.to_owned());
    let cases: Vec<(String, Result<String, DigestError>)> = vec![
        (format!("Digest {base}"), ok("8005 None")),
        (format!("DIGEST   {base} , qop=auth,nc=00000001 ,cnonce=\"c\""), ok("8005 Some(Auth)")),
        (format!("Digest\t{base},qop=\"auth\",nc=0000000A,cnonce=c"), ok("8005 Some(Auth)")),
        (format!("Digest {base}\r\n ,opaque=\"a, b=\\\"c\\\"\""), ok("8005 None")),
        ("Digest username=\"a\\\"b\\\\c\",realm=\"\",nonce=n,uri=\"sip:a,b\",response=r".into(), ok("a\"b\\c None")),
        (
            "Digest username*=UTF-8''J%C3%A4s%C3%B8n, realm=\"p\", nonce=n, uri=\"sip:a\", response=r".into(),
            ok("Jäsøn None"),
        ),
        (format!("Digest {base}, username=\"other\""), Err(DigestError::Malformed)),
        (format!("Digest {base}, username*=UTF-8''x"), Err(DigestError::Malformed)),
        (format!("Digest {base}, qop=auth"), Err(DigestError::Qop)),
        (format!("Digest {base}, qop=auth, nc=1, cnonce=\"c\""), Err(DigestError::Qop)),
        (format!("Digest {base}, qop=auth, nc=0000000g, cnonce=\"c\""), Err(DigestError::Qop)),
        (format!("Digest {base}, qop=conf, nc=00000001, cnonce=\"c\""), Err(DigestError::Qop)),
        (format!("Digest {base}, algorithm=MD5-sess"), Err(DigestError::Qop)),
        (format!("Digest {base}, algorithm=SHA-512-256"), Err(DigestError::Algorithm)),
        (format!("Basic {base}"), Err(DigestError::Scheme)),
        ("Digest".into(), Err(DigestError::Malformed)),
        (String::new(), Err(DigestError::Malformed)),
        ("Digest username=\"8005\"".into(), Err(DigestError::Missing("realm"))),
        ("Digest username=\"open".into(), Err(DigestError::Malformed)),
        ("Digest username=\"open\\".into(), Err(DigestError::Malformed)),
        ("Digest username=, realm=x".into(), Err(DigestError::Malformed)),
        ("Digest =x".into(), Err(DigestError::Malformed)),
        (format!("Digest {base} junk"), Err(DigestError::Malformed)),
        (format!("Digest {base}, Digest {base}"), Err(DigestError::Malformed)),
        (
            format!("Digest {base}{}", (0..40).map(|i| format!(", x{i}=1")).collect::<String>()),
            Err(DigestError::Malformed),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&text), expected, "{text}");
    }
    let text = format!("Digest {base}, qop=auth, nc=0000002A, cnonce=c");
    assert_eq!(Credentials::parse(&text).unwrap().nonce_count(), Some(42));
}

#[test]
fn a_fold_within_quotes_is_one_blank() {
    let challenge = Challenge::parse("Digest realm=\"the \\\"big\\\" \r\n\t house\", nonce=\"a\r\n b\"").unwrap();
    assert_eq!((challenge.realm.as_str(), challenge.nonce.as_str()), ("the \"big\" house", "a b"));
    let folded = "Digest username=\"desk\r\n  8005\",\r\n realm=\"r\", nonce=\"n\", uri=\"sip:r\", response=\"0\"";
    assert_eq!(Credentials::parse(folded).unwrap().username, "desk 8005");
}

#[test]
fn challenge_prints_as_rfc_7616_asks_and_reads_back() {
    let mut challenge = Challenge::new("a \"b\" \\", "n1", Algorithm::Sha256).stale(true);
    challenge.opaque = Some("o".into());
    let text = challenge.to_string();
    assert_eq!(
        text,
        "Digest realm=\"a \\\"b\\\" \\\\\", nonce=\"n1\", opaque=\"o\", stale=true, algorithm=SHA-256, qop=\"auth\""
    );
    assert_eq!(Challenge::parse(&text), Ok(challenge));
}

#[test]
fn client_takes_the_first_challenge_it_can_answer() {
    let sha512 = "Digest realm=\"r\", nonce=\"a\", algorithm=SHA-512-256, qop=\"auth\"";
    let int_only = "Digest realm=\"r\", nonce=\"b\", qop=\"auth-int\"";
    let basic = "Basic realm=\"r\"";
    let sha = "Digest realm=\"r\", nonce=\"c\", algorithm=SHA-256, qop=\"auth-int,auth\"";
    let md5 = "Digest realm=\"r\", nonce=\"d\", algorithm=md5";
    let choice = |fields: &[&str]| choose(fields.iter().copied()).map(|c| c.nonce);
    assert_eq!(choice(&[sha512, int_only, basic, sha, md5]).as_deref(), Some("c"));
    assert_eq!(choice(&[md5, sha]).as_deref(), Some("d"));
    assert_eq!(choice(&[sha512, int_only, basic]), None);
    assert_eq!(choice(&[]), None);
    // Several in one field, as RFC 7235 allows.
    assert_eq!(choice(&[&format!("{sha512}, {basic}, {sha}")]).as_deref(), Some("c"));
}

#[test]
fn answers_without_qop_to_servers_that_offer_none() {
    for text in ["Digest realm=\"r\", nonce=\"d\"", "Digest realm=\"r\", nonce=\"d\", qop=\"\""] {
        let challenge = Challenge::parse(text).unwrap();
        let value = answer(&challenge, "u", Secret::Password("p"), "REGISTER", "sip:r", "c", 1);
        assert!(!value.contains("qop") && !value.contains("cnonce") && !value.contains("nc="), "{value}");
        assert!(verify(&Credentials::parse(&value).unwrap(), "REGISTER", b"", &ha1(Algorithm::Md5, "u", "r", "p")));
    }
}

#[test]
fn a_header_value_cannot_end_its_line() {
    let challenge = Challenge::new("r\r\nX: y", "n", Algorithm::Md5);
    let value = answer(&challenge, "u\r\nVia: z", Secret::Password("p"), "INVITE", "sip:r", "c", 1);
    assert!(!value.contains(['\r', '\n']) && !challenge.to_string().contains(['\r', '\n']));
}

#[test]
fn nonces_are_fresh_stale_or_forged() {
    let mut rng = StdRng::seed_from_u64(1);
    let (old, new) = ([1u8; 32], [2u8; 32]);
    let age = Duration::from_secs(60);
    let t = Duration::from_secs(1_800_000_000);
    let mut ring = Nonces::new(old);
    let nonce = ring.issue(t, &mut rng);
    assert_eq!((nonce.len(), ring.check(&nonce, t, age)), (52, Freshness::Fresh));
    assert_ne!(nonce, ring.issue(t, &mut rng), "two of one instant differ");
    assert_eq!(ring.check(&nonce, t + age, age), Freshness::Fresh);
    assert_eq!(ring.check(&nonce, t + age + Duration::from_millis(1), age), Freshness::Stale);
    assert_eq!(ring.check(&nonce, t - Duration::from_secs(29), age), Freshness::Fresh, "clocks differ a little");
    assert_eq!(ring.check(&nonce, t - Duration::from_secs(31), age), Freshness::Stale);
    // Another process with the same key; another installation.
    assert_eq!(Nonces::new(old).check(&nonce, t, age), Freshness::Fresh);
    assert_eq!(Nonces::new(new).check(&nonce, t, age), Freshness::Forged);
    // Each digit is covered.
    for at in 0..nonce.len() {
        let mut bytes = nonce.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(ring.check(std::str::from_utf8(&bytes).unwrap(), t, age), Freshness::Forged, "digit {at}");
    }
    for text in ["", "00", &nonce.to_uppercase(), &nonce[1..], &format!("{nonce}0"), &"é".repeat(26)] {
        assert_eq!(ring.check(text, t, age), Freshness::Forged, "{text}");
    }
    // Rotation: the former key is accepted on, a forgotten one is not.
    ring.rotate(new);
    assert_eq!(ring.check(&nonce, t, age), Freshness::Fresh);
    assert_eq!(Nonces::new(new).check(&ring.issue(t, &mut rng), t, age), Freshness::Fresh);
    for key in 3..8 {
        ring.rotate([key; 32]);
    }
    assert_eq!(ring.check(&nonce, t, age), Freshness::Forged);
    assert_eq!(Nonces::new(new).with_previous(old).check(&nonce, t, age), Freshness::Fresh);
    assert!(!format!("{ring:?}").contains("[7"), "keys are not shown");
}

#[test]
fn digest_uri_is_compared_as_sip_uris_are() {
    let cases = [
        ("sip:8006@pbx.example", "sip:8006@pbx.example", true),
        ("sip:8006@PBX.example", "sip:8006@pbx.example", true),
        ("sip:%38006@pbx.example", "sip:8006@pbx.example", true),
        // A parameter came or went on the way.
        ("sip:8006@pbx.example;transport=tcp", "sip:8006@pbx.example", true),
        ("sip:8006@pbx.example", "sip:8006@pbx.example;lr;x=1", true),
        ("sip:8006@pbx.example", "sip:8007@pbx.example", false),
        ("sip:8006@pbx.example", "sip:8006@other.example", false),
        ("sip:8006@pbx.example", "sip:8006@pbx.example:5070", false),
        ("sips:8006@pbx.example", "sip:8006@pbx.example", false),
        ("sip:pbx.example", "sip:8006@pbx.example", false),
        ("tel:+4930123", "tel:+4930123", true),
        ("*", "sip:pbx.example", false),
    ];
    for (digest, request, same) in cases {
        assert_eq!(uri_matches(digest, request), same, "{digest} {request}");
    }
}

proptest! {
    #[test]
    fn parsers_never_panic(text in "(Digest )?[ -~é\\\\\",=]{0,80}") {
        let _ = Credentials::parse(&text);
        let _ = challenges(&text).take(100).count();
        let _ = Nonces::new([0; 32]).check(&text, Duration::ZERO, Duration::ZERO);
    }

    #[test]
    fn what_the_client_answers_the_server_verifies(
        user in "[ -~é]{1,12}", realm in "[ -~]{0,12}", password in "[ -~ß]{0,12}", nonce in "[!-~]{1,20}",
        algorithm in 0usize..4, nc in 1u32.., opaque in prop::option::of("[ -~]{0,8}"),
    ) {
        let algorithm = [Algorithm::Md5, Algorithm::Md5Sess, Algorithm::Sha256, Algorithm::Sha256Sess][algorithm];
        let mut challenge = Challenge::new(realm.clone(), nonce.clone(), algorithm);
        challenge.opaque = opaque.clone();
        let challenge = Challenge::parse(&challenge.to_string()).unwrap();
        let value = answer(&challenge, &user, Secret::Password(&password), "INVITE", "sip:a@b", "xyz", nc);
        let credentials = Credentials::parse(&value).unwrap();
        prop_assert_eq!(&credentials.username, &user);
        prop_assert_eq!(&credentials.realm, &realm);
        prop_assert_eq!(&credentials.nonce, &nonce);
        prop_assert_eq!(credentials.opaque.as_deref(), opaque.as_deref());
        prop_assert_eq!(credentials.nonce_count(), Some(nc));
        prop_assert!(verify(&credentials, "INVITE", b"", &ha1(algorithm, &user, &realm, &password)));
        prop_assert!(!verify(&credentials, "INVITE", b"", &ha1(algorithm, &user, &realm, "another")) || password == "another");
    }
}
