//! What holds for any session description.

/// Words that mean something in SDP.
pub(crate) const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "v=0\r\n",
    "o=- 1 1 IN IP4 192.0.2.1\r\n",
    "s=-\r\n",
    "c=IN IP4 192.0.2.1\r\n",
    "c=IN IP6 ::1\r\n",
    "t=0 0\r\n",
    "m=audio 4000 RTP/AVP 0\r\n",
    "m=video 0 RTP/AVP 96\r\n",
    "a=rtpmap:",
    "a=rtpmap:96 opus/48000/2\r\n",
    "a=fmtp:",
    "a=ptime:20\r\n",
    "a=sendonly\r\n",
    "a=inactive\r\n",
    "a=rtcp-mux\r\n",
    "a=crypto:",
    "65536",
    "-1",
    "99999999999999999999",
    "/",
    " ",
    "=",
    ":",
    "\0",
];

/// A description: printed, it is read back as the same.
pub(crate) fn session(input: &[u8]) {
    let Ok(session) = rtp::sdp::Session::parse(input) else { return };
    let printed = session.to_string();
    let again = rtp::sdp::Session::parse(printed.as_bytes()).expect("a printed description");
    assert_eq!(again.to_string(), printed);
}
