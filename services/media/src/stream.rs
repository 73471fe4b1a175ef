//! One media line of a leg: two sockets, what was learned of the other end, and counters.

use contract::ng::Totals;
use rtp::dtmf::Receiving;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long after the first packet a better source may still take over.
const LEARNING: Duration = Duration::from_secs(3);

/// How well a source fits what was signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// Any other.
    Unknown,
    /// The host is the description's or the signalling's.
    Host,
    /// Exactly the described address, or the one learned before under the same description.
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Latch {
    /// Since the last description nothing came.
    Open,
    /// Learned at this time.
    Learned(Duration, Fit),
}

/// What to do with a packet, by its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The known source.
    Known,
    /// From now on the source.
    Latched,
    /// Somebody else.
    Stranger,
}

/// One direction pair of a socket with its peer.
#[derive(Debug)]
pub(crate) struct Path {
    /// What the description said.
    pub(crate) signalled: Option<SocketAddr>,
    /// Where packets go.
    pub(crate) remote: Option<SocketAddr>,
    latch: Latch,
    /// Learned under an earlier, equal description.
    before: Option<SocketAddr>,
    /// When the last packet came from the source.
    pub(crate) last: Option<Duration>,
    /// What came from the source, and what was dropped.
    pub(crate) received: Totals,
}

impl Path {
    fn new() -> Path {
        Path {
            signalled: None,
            remote: None,
            latch: Latch::Open,
            before: None,
            last: None,
            received: Totals::default(),
        }
    }

    pub(crate) fn is_latched(&self) -> bool {
        self.latch != Latch::Open
    }

    /// A new description: the path opens again. `sendable` is `signalled`, when it may be sent to unheard.
    pub(crate) fn describe(&mut self, signalled: Option<SocketAddr>, sendable: Option<SocketAddr>) {
        let same = self.signalled.is_some() && self.signalled == signalled;
        if self.is_latched() {
            self.before = self.remote;
        }
        if !same {
            self.before = None;
        }
        self.remote = self.before.or(sendable);
        self.signalled = signalled;
        self.latch = Latch::Open;
    }

    /// Nothing goes there, nothing is expected.
    pub(crate) fn close(&mut self) {
        self.describe(None, None);
    }

    fn fit(&self, from: SocketAddr, received_from: Option<IpAddr>) -> Fit {
        if self.signalled == Some(from) || self.before == Some(from) {
            Fit::Exact
        } else if self.signalled.is_some_and(|s| s.ip() == from.ip()) || received_from == Some(from.ip()) {
            Fit::Host
        } else {
            Fit::Unknown
        }
    }

    /// Judges a packet's source, learning it where that is open.
    pub(crate) fn judge(&mut self, from: SocketAddr, received_from: Option<IpAddr>, now: Duration) -> Source {
        match self.latch {
            Latch::Learned(..) if self.remote == Some(from) => return Source::Known,
            Latch::Learned(since, fit) => {
                let open = now.saturating_sub(since) < LEARNING;
                if !open || self.fit(from, received_from) <= fit {
                    return Source::Stranger;
                }
                self.latch = Latch::Learned(since, self.fit(from, received_from));
            }
            Latch::Open => self.latch = Latch::Learned(now, self.fit(from, received_from)),
        }
        self.remote = Some(from);
        Source::Latched
    }
}

/// A media line of a leg.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The call's slot.
    pub(crate) call: usize,
    /// The leg's place in the call.
    pub(crate) leg: usize,
    /// The media line, from 0.
    pub(crate) index: usize,
    /// `audio`, ...
    pub(crate) kind: String,
    /// `RTP/AVP`, ...
    pub(crate) protocol: String,
    /// Local RTP port; RTCP is one above.
    pub(crate) port: u16,
    /// The stream that packets from this one go to.
    pub(crate) peer: Option<usize>,
    /// RTP.
    pub(crate) rtp: Path,
    /// RTCP, unused when muxed.
    pub(crate) rtcp: Path,
    /// RTP and RTCP share the RTP port, agreed with this leg.
    pub(crate) muxed: bool,
    /// This leg offered it, or was offered it.
    pub(crate) mux_offered: bool,
    /// This leg gets it accepted whatever the other leg says.
    pub(crate) mux_accept: bool,
    /// Addresses are not learned.
    pub(crate) asymmetric: bool,
    /// Where this leg's signalling came from.
    pub(crate) received_from: Option<IpAddr>,
    /// Only RTP and RTCP pass.
    pub(crate) strict: bool,
    /// Payload type of DTMF events in this leg's description.
    pub(crate) dtmf: Option<u8>,
    /// Digits that this leg sends.
    pub(crate) digits: Receiving,
    /// The leg was told silent and nothing came since.
    pub(crate) silent: bool,
}

impl Stream {
    pub(crate) fn new(call: usize, leg: usize, index: usize, port: u16) -> Stream {
        Stream {
            call,
            leg,
            index,
            kind: String::new(),
            protocol: String::new(),
            port,
            peer: None,
            rtp: Path::new(),
            rtcp: Path::new(),
            muxed: false,
            mux_offered: false,
            mux_accept: false,
            asymmetric: false,
            received_from: None,
            strict: true,
            dtmf: None,
            digits: Receiving::new(),
            silent: false,
        }
    }

    /// When the last packet of any kind came from the leg.
    pub(crate) fn last(&self) -> Option<Duration> {
        self.rtp.last.max(self.rtcp.last)
    }

    /// Where RTCP to this leg goes: through the RTCP socket? and to whom.
    pub(crate) fn rtcp_way(&self) -> (bool, Option<SocketAddr>) {
        if self.muxed { (false, self.rtp.remote) } else { (true, self.rtcp.remote) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: &str) -> SocketAddr {
        s.parse().unwrap()
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn latches_once_and_prefers_the_signalled_address() {
        let (signalled, nat, stranger) = (at("192.0.2.1:4000"), at("192.0.2.1:9999"), at("203.0.113.7:1"));
        let mut p = Path::new();
        p.describe(Some(signalled), Some(signalled));
        assert_eq!(p.remote, Some(signalled));
        assert_eq!(p.judge(stranger, None, ms(0)), Source::Latched);
        assert_eq!(p.remote, Some(stranger));
        assert_eq!(p.judge(nat, None, ms(100)), Source::Latched, "the same host fits better");
        assert_eq!(p.judge(stranger, None, ms(120)), Source::Stranger);
        assert_eq!(p.judge(signalled, None, ms(200)), Source::Latched, "exactly the described address fits best");
        assert_eq!(p.judge(nat, None, ms(220)), Source::Stranger);
        assert_eq!(p.judge(signalled, None, ms(9000)), Source::Known);
    }

    #[test]
    fn learning_ends() {
        let (signalled, nat) = (at("192.0.2.1:4000"), at("192.0.2.1:9999"));
        let mut p = Path::new();
        p.describe(Some(signalled), Some(signalled));
        assert_eq!(p.judge(nat, None, ms(0)), Source::Latched);
        assert_eq!(p.judge(signalled, None, ms(3000)), Source::Stranger);
        assert_eq!(p.remote, Some(nat));
    }

    #[test]
    fn opens_again_with_the_next_description() {
        let (private, nat, moved) = (at("10.0.0.5:4000"), at("198.51.100.9:7000"), at("198.51.100.9:8000"));
        let from = Some(nat.ip());
        let mut p = Path::new();
        p.describe(Some(private), None);
        assert_eq!(p.remote, None, "nobody is sent to before it was heard from");
        p.judge(nat, from, ms(0));
        // The same description again (hold, refresh): what was learned stays good, and beats its host's other ports.
        p.describe(Some(private), None);
        assert_eq!((p.remote, p.is_latched()), (Some(nat), false));
        assert_eq!(p.judge(moved, from, ms(5000)), Source::Latched);
        assert_eq!(p.judge(nat, from, ms(5020)), Source::Latched);
        assert_eq!(p.judge(moved, from, ms(5040)), Source::Stranger);
        // Another description: what was learned is forgotten.
        p.describe(Some(at("10.0.0.6:4000")), None);
        assert_eq!(p.remote, None);
        assert_eq!(p.judge(moved, from, ms(6000)), Source::Latched);
        assert_eq!(p.judge(nat, from, ms(6020)), Source::Stranger);
    }
}
