//! RTP packets (RFC 3550 5): parse, build, and a sender's counters.

/// Length of the fixed header, in bytes.
pub const HEADER: usize = 12;

/// Why bytes are no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than its own lengths say.
    #[error("RTP packet is too short")]
    Short,
    /// Version is not 2.
    #[error("RTP version is not 2")]
    Version,
    /// Padding longer than the payload, or of length 0.
    #[error("RTP padding is malformed")]
    Padding,
    /// A payload type that RTCP uses on a shared port (RFC 5761 4).
    #[error("this is RTCP")]
    Rtcp,
}

/// One RTP packet, its payload a slice of what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Marker: for audio the first packet after silence (RFC 3551 4.1).
    pub marker: bool,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Sequence number, rises by one a packet.
    pub sequence: u16,
    /// Sampling instant in units of the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Contributing sources, 4 bytes each, at most 15.
    pub csrc: &'a [u8],
    /// Header extension: profile word and data, whole 32-bit words (5.3.1).
    pub extension: Option<(u16, &'a [u8])>,
    /// Payload without padding.
    pub payload: &'a [u8],
}

/// What a datagram on a media port is, told from its first two bytes alone (RFC 5761 4, RFC 7983).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// RTP version 2.
    Rtp,
    /// RTCP version 2: packet types 192..=223.
    Rtcp,
    /// STUN, DTLS, noise.
    Other,
}

/// Tells RTP from RTCP on a port that both share.
pub fn kind(bytes: &[u8]) -> Kind {
    match bytes {
        [first, second, ..] if first >> 6 == 2 => match second {
            192..=223 if bytes.len() >= 8 => Kind::Rtcp,
            192..=223 => Kind::Other,
            _ if bytes.len() >= HEADER => Kind::Rtp,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

impl<'a> Packet<'a> {
    /// A packet without contributing sources and extension.
    pub fn new(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32, payload: &'a [u8]) -> Packet<'a> {
        let (marker, csrc, extension): (_, &[u8], _) = (false, &[], None);
        Packet { marker, payload_type: payload_type & 0x7f, sequence, timestamp, ssrc, csrc, extension, payload }
    }

    /// Reads one datagram.
    pub fn parse(bytes: &'a [u8]) -> Result<Packet<'a>, Error> {
        let first = *bytes.first().ok_or(Error::Short)?;
        let second = *bytes.get(1).ok_or(Error::Short)?;
        if first >> 6 != 2 {
            return Err(Error::Version);
        }
        if (192..=223).contains(&second) {
            return Err(Error::Rtcp);
        }
        let sequence = half(bytes, 2).ok_or(Error::Short)?;
        let timestamp = word(bytes, 4).ok_or(Error::Short)?;
        let ssrc = word(bytes, 8).ok_or(Error::Short)?;
        let mut at = HEADER + 4 * usize::from(first & 0x0f);
        let csrc = bytes.get(HEADER..at).ok_or(Error::Short)?;
        let mut extension = None;
        if first & 0x10 != 0 {
            let profile = half(bytes, at).ok_or(Error::Short)?;
            let words = half(bytes, at + 2).ok_or(Error::Short)?;
            let end = at + 4 + 4 * usize::from(words);
            extension = Some((profile, bytes.get(at + 4..end).ok_or(Error::Short)?));
            at = end;
        }
        let mut payload = bytes.get(at..).ok_or(Error::Short)?;
        if first & 0x20 != 0 {
            let padding = usize::from(*payload.last().ok_or(Error::Padding)?);
            let length = payload.len().checked_sub(padding).filter(|_| padding > 0).ok_or(Error::Padding)?;
            payload = payload.get(..length).ok_or(Error::Padding)?;
        }
        let (marker, payload_type) = (second & 0x80 != 0, second & 0x7f);
        Ok(Packet { marker, payload_type, sequence, timestamp, ssrc, csrc, extension, payload })
    }

    /// Appends the packet's bytes. Sources beyond 15 and broken words are cut.
    pub fn write(&self, out: &mut Vec<u8>) {
        let sources = (self.csrc.len() / 4).min(15);
        let extended = if self.extension.is_some() { 0x10 } else { 0 };
        out.push(0x80 | extended | sources as u8);
        out.push(if self.marker { 0x80 } else { 0 } | (self.payload_type & 0x7f));
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(self.csrc.get(..sources * 4).unwrap_or_default());
        if let Some((profile, data)) = self.extension {
            let words = (data.len() / 4).min(usize::from(u16::MAX));
            out.extend_from_slice(&profile.to_be_bytes());
            out.extend_from_slice(&(words as u16).to_be_bytes());
            out.extend_from_slice(data.get(..words * 4).unwrap_or_default());
        }
        out.extend_from_slice(self.payload);
    }

    /// The packet's bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.csrc.len() + self.payload.len());
        self.write(&mut out);
        out
    }
}

/// Counters of a stream that we send. Start values are the caller's random ones (RFC 3550 5.1).
#[derive(Debug, Clone)]
pub struct Sender {
    /// Our source.
    pub ssrc: u32,
    /// Sequence number of the next packet.
    pub sequence: u16,
    /// Timestamp of the next frame.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload bytes sent.
    pub octets: u32,
    marker: bool,
}

impl Sender {
    /// A stream that begins.
    pub fn new(ssrc: u32, sequence: u16, timestamp: u32) -> Sender {
        Sender { ssrc, sequence, timestamp, packets: 0, octets: 0, marker: true }
    }

    /// The next packet with `payload` of `samples` clock units. The first has the marker.
    pub fn next(&mut self, payload_type: u8, payload: &[u8], samples: u32) -> Vec<u8> {
        let marker = std::mem::take(&mut self.marker);
        let bytes = self.raw(payload_type, payload, self.timestamp, marker);
        self.timestamp = self.timestamp.wrapping_add(samples);
        bytes
    }

    /// A packet at a timestamp of the caller's, as DTMF events need; the stream's own timestamp stays.
    pub fn raw(&mut self, payload_type: u8, payload: &[u8], timestamp: u32, marker: bool) -> Vec<u8> {
        let packet = Packet { marker, ..Packet::new(payload_type, self.sequence, timestamp, self.ssrc, payload) };
        self.sequence = self.sequence.wrapping_add(1);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        packet.to_vec()
    }

    /// Time passes without a packet: the next one has the marker (RFC 3551 4.1).
    pub fn skip(&mut self, samples: u32) {
        self.timestamp = self.timestamp.wrapping_add(samples);
        self.marker = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: [u8; 14] = [0x80, 0x80, 0x12, 0x34, 0, 0, 0, 160, 0xde, 0xad, 0xbe, 0xef, 0xff, 0x7f];

    #[test]
    fn reads_and_writes_a_packet() {
        let packet = Packet::parse(&PLAIN).unwrap();
        let want = Packet { marker: true, ..Packet::new(0, 0x1234, 160, 0xdead_beef, &[0xff, 0x7f]) };
        assert_eq!(packet, want);
        assert_eq!(want.to_vec(), PLAIN);
    }

    #[test]
    fn reads_sources_extension_and_padding() {
        let mut bytes = PLAIN[..12].to_vec();
        bytes[0] = 0x80 | 0x20 | 0x10 | 1;
        bytes.extend([1, 2, 3, 4, 0xbe, 0xde, 0, 1, 9, 9, 9, 9, 7, 7, 0, 0, 3]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(
            (packet.csrc, packet.extension, packet.payload),
            (&[1, 2, 3, 4][..], Some((0xbede, &[9; 4][..])), &[7, 7][..])
        );
        for cut in 12..bytes.len() - 1 {
            assert_ne!(Packet::parse(&bytes[..cut]), Ok(packet), "{cut}");
        }
    }

    #[test]
    fn refuses() {
        let with = |at: usize, byte| {
            let mut b = PLAIN.to_vec();
            b[at] = byte;
            b
        };
        let table = [
            (vec![], Error::Short),
            (vec![0x80], Error::Short),
            (PLAIN[..11].to_vec(), Error::Short),
            (with(0, 0x40), Error::Version),
            (with(0, 0x81), Error::Short),
            (with(0, 0x90), Error::Short),
            (with(0, 0xa0), Error::Padding),
            (with(1, 200), Error::Rtcp),
        ];
        for (bytes, error) in table {
            assert_eq!(Packet::parse(&bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn tells_what_shares_a_port() {
        assert_eq!(kind(&PLAIN), Kind::Rtp);
        assert_eq!(kind(&[0x80, 200, 0, 1, 0, 0, 0, 0]), Kind::Rtcp);
        assert_eq!(kind(&[0x80, 200, 0, 1]), Kind::Other);
        assert_eq!(kind(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]), Kind::Other);
        assert_eq!(kind(&[]), Kind::Other);
    }

    #[test]
    fn a_sender_counts() {
        let mut sender = Sender::new(7, u16::MAX, u32::MAX - 100);
        let first = sender.next(0, &[1; 160], 160);
        let second = sender.next(0, &[2; 160], 160);
        let (a, b) = (Packet::parse(&first).unwrap(), Packet::parse(&second).unwrap());
        assert!(a.marker && !b.marker);
        assert_eq!((a.sequence, b.sequence), (u16::MAX, 0));
        assert_eq!(b.timestamp.wrapping_sub(a.timestamp), 160);
        sender.skip(800);
        let third = sender.next(0, &[3; 160], 160);
        let c = Packet::parse(&third).unwrap();
        assert!(c.marker);
        assert_eq!(c.timestamp.wrapping_sub(b.timestamp), 960);
        assert_eq!((sender.packets, sender.octets), (3, 480));
    }

    proptest! {
        #[test]
        fn parse_after_print_is_the_identity(
            marker: bool, payload_type in (0u8..64).prop_union(96..128), sequence: u16, timestamp: u32, ssrc: u32,
            csrc in 0usize..16, words in proptest::option::of(0usize..5),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let (sources, data) = ([5; 60], [6; 16]);
            let extension = words.map(|w| (0x1000, &data[..w.min(4) * 4]));
            let packet = Packet { marker, csrc: &sources[..csrc * 4], extension, ..Packet::new(payload_type, sequence, timestamp, ssrc, &payload) };
            let bytes = packet.to_vec();
            prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Packet::parse(&bytes), kind(&bytes));
        }
    }
}
