//! RFC 4475 3.1.2: invalid messages. Where the RFC leaves a choice, the choice is named.

use sip::intake::{self, Intake};
use sip::{Message, Method, Name, ParseError};

use crate::common::{Verdict, judge, load};

/// The verdict, and the fault that led to it.
fn fault(name: &str) -> (Verdict, ParseError) {
    let bytes = load(&format!("rfc4475/{name}"));
    let error = match intake::datagram(&bytes, "tag") {
        Intake::Message(_) => panic!("{name} is accepted"),
        Intake::Refused { error, .. } | Intake::Dropped(error) => error,
    };
    (judge(&bytes), error)
}

fn bad_request(error: ParseError) -> (Verdict, ParseError) {
    (Verdict::Rejected(400), error)
}

#[test]
fn s01_extra_separators() {
    assert_eq!(fault("badinv01"), bad_request(ParseError::Malformed(Name::Via)));
    // The Contact alone is refused as well.
    let fixed = String::from_utf8(load("rfc4475/badinv01")).unwrap().replace(";;,;,,", "");
    assert_eq!(judge(fixed.as_bytes()), Verdict::Rejected(400));
    assert_eq!(judge(fixed.replace(";;;;", "").as_bytes()), Verdict::Accepted);
}

#[test]
fn s02_content_length_beyond_the_datagram() {
    assert_eq!(fault("clerr"), bad_request(ParseError::Length));
    // A stream waits for the rest instead.
    let mut framer = sip::framer::Framer::new();
    framer.push(&load("rfc4475/clerr"));
    assert_eq!(framer.next(), Ok(None));
}

#[test]
fn s03_negative_content_length() {
    assert_eq!(fault("ncl"), bad_request(ParseError::Malformed(Name::ContentLength)));
    let mut framer = sip::framer::Framer::new();
    framer.push(&load("rfc4475/ncl"));
    let error = framer.next().unwrap_err();
    assert_eq!(error.error, ParseError::Malformed(Name::ContentLength));
    let head = error.head.unwrap();
    assert!(intake::refuse(&head, error.error, "t").is_some(), "answered before the stream is closed");
}

#[test]
fn s04_overlarge_scalars_in_a_request() {
    assert_eq!(fault("scalar02"), bad_request(ParseError::Malformed(Name::CSeq)));
    let text = String::from_utf8(load("rfc4475/scalar02")).unwrap();
    let cseq = text.replace("36893488147419103232", "1");
    assert_eq!(judge(cseq.as_bytes()), Verdict::Rejected(400), "Max-Forwards of 300");
    let hops = cseq.replace(": 300", ": 70");
    let m = Message::parse(hops.as_bytes()).unwrap();
    assert_eq!(m.validate(), Err(ParseError::Malformed(Name::Expires)));
}

#[test]
fn s05_overlarge_scalars_in_a_response() {
    assert_eq!(fault("scalarlg"), (Verdict::Dropped, ParseError::Malformed(Name::CSeq)));
}

#[test]
fn s06_unterminated_quote() {
    assert_eq!(fault("quotbal"), bad_request(ParseError::Malformed(Name::To)));
}

#[test]
fn s07_brackets_around_the_request_uri() {
    assert_eq!(fault("ltgtruri"), bad_request(ParseError::StartLine));
}

#[test]
fn s08_blanks_in_the_request_uri() {
    assert_eq!(fault("lwsruri"), bad_request(ParseError::StartLine));
}

#[test]
fn s09_several_blanks_in_the_request_line() {
    assert_eq!(fault("lwsstart"), bad_request(ParseError::StartLine));
}

#[test]
fn s10_blanks_at_the_end_of_the_request_line() {
    assert_eq!(fault("trws"), bad_request(ParseError::StartLine));
}

#[test]
fn s11_headers_in_the_request_uri() {
    assert_eq!(fault("escruri"), bad_request(ParseError::StartLine));
}

/// The RFC lets an element take a bad Date for an absent one, which is what a server that needs no date does.
#[test]
fn s12_bad_time_zone() {
    let bytes = load("rfc4475/baddate");
    assert_eq!(judge(&bytes), Verdict::Accepted);
    let m = Message::parse(&bytes).unwrap();
    assert_eq!(m.header(Name::Date), Some("Fri, 01 Jan 2010 16:00:00 EST"));
}

#[test]
fn s13_name_addr_without_brackets() {
    assert_eq!(fault("regbadct"), bad_request(ParseError::Malformed(Name::Contact)));
}

/// Of the RFC's two choices (reject, or strip the blanks) the strict one.
#[test]
fn s14_blanks_within_the_brackets() {
    assert_eq!(fault("badaspec"), bad_request(ParseError::Malformed(Name::To)));
}

/// Of the RFC's two choices (reject, or guess the name) the strict one.
#[test]
fn s15_display_name_that_needs_quotes() {
    assert_eq!(fault("baddn"), bad_request(ParseError::Malformed(Name::From)));
}

#[test]
fn s16_unknown_version() {
    assert_eq!(fault("badvers"), (Verdict::Rejected(505), ParseError::Version));
}

#[test]
fn s17_method_mismatch() {
    assert_eq!(fault("mismatch01"), bad_request(ParseError::MethodMismatch));
}

#[test]
fn s18_unknown_method_mismatch() {
    let bytes = load("rfc4475/mismatch02");
    assert_eq!(fault("mismatch02"), bad_request(ParseError::MethodMismatch));
    assert_eq!(Message::parse(&bytes).unwrap().method(), Some(Method::Other("NEWMETHOD")));
}

#[test]
fn s19_overlarge_status() {
    assert_eq!(fault("bigcode"), (Verdict::Dropped, ParseError::NotSip));
}
