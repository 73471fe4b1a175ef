//! RFC 4475 3.2: transaction layer semantics.

use sip::Message;

use crate::common::{Verdict, judge, load};

/// 3.2.1: a branch that is the magic cookie alone is no RFC 3261 branch; the message itself is good.
#[test]
fn s01_branch_without_an_id() {
    let bytes = load("rfc4475/badbranch");
    assert_eq!(judge(&bytes), Verdict::Accepted);
    assert_eq!(Message::parse(&bytes).unwrap().via().unwrap().branch(), Some("z9hG4bK"));
}
