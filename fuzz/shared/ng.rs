//! What holds for any NG datagram.

/// Words that mean something in NG and bencode.
pub(crate) const WORDS: &[&str] = &[
    "d",
    "l",
    "e",
    "i0e",
    "i-1e",
    "i99999999999999999999e",
    "0:",
    "4:ping",
    "7:command",
    "5:offer",
    "6:answer",
    "6:delete",
    "5:query",
    "3:sdp",
    "7:call-id",
    "8:from-tag",
    "6:to-tag",
    "5:flags",
    "99999999999:",
    "-1:",
    " ",
    "d7:command4:pinge",
];

/// A request and a reply.
pub(crate) fn datagram(input: &[u8]) {
    let _ = contract::ng::Request::parse(input);
    let _ = contract::ng::Reply::parse(input);
}
