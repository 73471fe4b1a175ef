//! RTCP (RFC 3550 6): sender and receiver reports, source descriptions, BYE; others are passed over.

/// Most packets read from one compound.
const MAX_PACKETS: usize = 32;

/// Why bytes are no RTCP compound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Shorter than its own lengths say, or empty.
    #[error("RTCP packet is too short")]
    Short,
    /// Version is not 2.
    #[error("RTCP version is not 2")]
    Version,
    /// A packet type outside 192..=223, or too many packets.
    #[error("not RTCP")]
    Other,
}

/// What one receiver says of one source (6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative with duplicates. 24 bits.
    pub lost: i32,
    /// Highest sequence number with its cycles above.
    pub highest: u32,
    /// Interarrival jitter in clock units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time, 0 for none.
    pub last_sr: u32,
    /// Delay since that report in 1/65536 s.
    pub delay: u32,
}

/// One packet of a compound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rtcp {
    /// Sender report (6.4.1).
    SenderReport {
        /// The sender.
        ssrc: u32,
        /// NTP time of the report, 32.32.
        ntp: u64,
        /// The same instant on the stream's clock.
        timestamp: u32,
        /// Packets sent.
        packets: u32,
        /// Payload bytes sent.
        octets: u32,
        /// What it receives; at most 31.
        reports: Vec<ReportBlock>,
    },
    /// Receiver report (6.4.2).
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// What it receives; at most 31.
        reports: Vec<ReportBlock>,
    },
    /// CNAME of each source described (6.5); other items are passed over.
    SourceDescription(Vec<(u32, String)>),
    /// Sources that leave (6.6).
    Bye(Vec<u32>),
    /// Any other type.
    Unknown(u8),
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Error> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes).ok_or(Error::Short)
}

fn blocks(bytes: &[u8], count: u8) -> Result<Vec<ReportBlock>, Error> {
    (0..usize::from(count))
        .map(|i| {
            let w = |n: usize| word(bytes, i * 24 + n * 4);
            let loss = w(1)?;
            Ok(ReportBlock {
                ssrc: w(0)?,
                fraction_lost: (loss >> 24) as u8,
                // Sign-extend 24 bits.
                lost: ((loss << 8) as i32) >> 8,
                highest: w(2)?,
                jitter: w(3)?,
                last_sr: w(4)?,
                delay: w(5)?,
            })
        })
        .collect()
}

fn descriptions(mut body: &[u8], count: u8) -> Result<Vec<(u32, String)>, Error> {
    let mut out = Vec::new();
    for _ in 0..count {
        let ssrc = word(body, 0)?;
        let mut at = 4;
        loop {
            let kind = *body.get(at).ok_or(Error::Short)?;
            if kind == 0 {
                break;
            }
            let length = usize::from(*body.get(at + 1).ok_or(Error::Short)?);
            let text = body.get(at + 2..at + 2 + length).ok_or(Error::Short)?;
            if kind == 1 {
                out.push((ssrc, String::from_utf8_lossy(text).into_owned()));
            }
            at += 2 + length;
        }
        // The list of items ends with at least one zero and fills the word.
        body = body.get((at / 4 + 1) * 4..).unwrap_or_default();
    }
    Ok(out)
}

/// Reads a compound. Lenient where phones are: the first packet may be of any type.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<Rtcp>, Error> {
    let mut out = Vec::new();
    if bytes.is_empty() {
        return Err(Error::Short);
    }
    while !bytes.is_empty() {
        let head = word(bytes, 0)?;
        let (first, kind, length) = ((head >> 24) as u8, (head >> 16) as u8, (head & 0xffff) as usize * 4);
        if first >> 6 != 2 {
            return Err(Error::Version);
        }
        if !(192..=223).contains(&kind) || out.len() == MAX_PACKETS {
            return Err(Error::Other);
        }
        let mut body = bytes.get(4..4 + length).ok_or(Error::Short)?;
        bytes = bytes.get(4 + length..).unwrap_or_default();
        if first & 0x20 != 0 {
            let padding = usize::from(*body.last().ok_or(Error::Short)?);
            body = body.get(..body.len().checked_sub(padding).ok_or(Error::Short)?).ok_or(Error::Short)?;
        }
        let count = first & 0x1f;
        out.push(match kind {
            200 => Rtcp::SenderReport {
                ssrc: word(body, 0)?,
                ntp: u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?),
                timestamp: word(body, 12)?,
                packets: word(body, 16)?,
                octets: word(body, 20)?,
                reports: blocks(body.get(24..).ok_or(Error::Short)?, count)?,
            },
            201 => Rtcp::ReceiverReport {
                ssrc: word(body, 0)?,
                reports: blocks(body.get(4..).ok_or(Error::Short)?, count)?,
            },
            202 => Rtcp::SourceDescription(descriptions(body, count)?),
            203 => Rtcp::Bye((0..usize::from(count)).map(|i| word(body, i * 4)).collect::<Result<_, _>>()?),
            other => Rtcp::Unknown(other),
        });
    }
    Ok(out)
}

fn put(out: &mut Vec<u8>, count: usize, kind: u8, body: &[u8]) {
    let words = u16::try_from(body.len() / 4).unwrap_or(u16::MAX);
    out.push(0x80 | (count.min(31) as u8));
    out.push(kind);
    out.extend_from_slice(&words.to_be_bytes());
    out.extend_from_slice(body);
}

fn put_blocks(body: &mut Vec<u8>, reports: &[ReportBlock]) {
    for r in reports.iter().take(31) {
        let lost = r.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        for w in [r.ssrc, u32::from(r.fraction_lost) << 24 | lost, r.highest, r.jitter, r.last_sr, r.delay] {
            body.extend_from_slice(&w.to_be_bytes());
        }
    }
}

impl Rtcp {
    /// Appends the packet. Lists are cut at 31; an unknown packet is written empty.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        match self {
            Rtcp::SenderReport { ssrc, ntp, timestamp, packets, octets, reports } => {
                body.extend_from_slice(&ssrc.to_be_bytes());
                body.extend_from_slice(&ntp.to_be_bytes());
                [timestamp, packets, octets].into_iter().for_each(|w| body.extend_from_slice(&w.to_be_bytes()));
                put_blocks(&mut body, reports);
                put(out, reports.len(), 200, &body);
            }
            Rtcp::ReceiverReport { ssrc, reports } => {
                body.extend_from_slice(&ssrc.to_be_bytes());
                put_blocks(&mut body, reports);
                put(out, reports.len(), 201, &body);
            }
            Rtcp::SourceDescription(chunks) => {
                for (ssrc, cname) in chunks.iter().take(31) {
                    let text = cname.as_bytes().get(..cname.len().min(255)).unwrap_or_default();
                    body.extend_from_slice(&ssrc.to_be_bytes());
                    body.extend_from_slice(&[1, text.len() as u8]);
                    body.extend_from_slice(text);
                    body.push(0);
                    body.resize(body.len().next_multiple_of(4), 0);
                }
                put(out, chunks.len(), 202, &body);
            }
            Rtcp::Bye(sources) => {
                sources.iter().take(31).for_each(|s| body.extend_from_slice(&s.to_be_bytes()));
                put(out, sources.len(), 203, &body);
            }
            Rtcp::Unknown(kind) => put(out, 0, *kind, &body),
        }
    }
}

/// A compound's bytes.
pub fn to_vec(packets: &[Rtcp]) -> Vec<u8> {
    let mut out = Vec::new();
    packets.iter().for_each(|p| p.write(&mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_a_report_to_the_bit() {
        let mut bytes = vec![0x81, 201, 0, 7];
        for w in [1u32, 2, 0x40ff_ffff, 0x0001_0005, 9, 0x1234_5678, 65536] {
            bytes.extend(w.to_be_bytes());
        }
        let block = ReportBlock {
            ssrc: 2,
            fraction_lost: 64,
            lost: -1,
            highest: 0x1_0005,
            jitter: 9,
            last_sr: 0x1234_5678,
            delay: 65536,
        };
        let want = vec![Rtcp::ReceiverReport { ssrc: 1, reports: vec![block] }];
        assert_eq!(parse(&bytes), Ok(want.clone()));
        assert_eq!(to_vec(&want), bytes);
    }

    #[test]
    fn reads_a_description_with_other_items_and_padding() {
        let mut bytes = vec![0xa1, 202, 0, 5];
        bytes.extend([0, 0, 0, 7, 2, 1, b'n', 1, 3, b'a', b'@', b'b', 0, 0, 0, 0, 0, 0, 0, 4]);
        assert_eq!(parse(&bytes), Ok(vec![Rtcp::SourceDescription(vec![(7, "a@b".to_owned())])]));
    }

    #[test]
    fn refuses() {
        let table: &[(&[u8], Error)] = &[
            (&[], Error::Short),
            (&[0x80, 200, 0, 0], Error::Short),
            (&[0x40, 200, 0, 0], Error::Version),
            (&[0x80, 0, 0, 0], Error::Other),
            (&[0x81, 203, 0, 0], Error::Short),
            (&[0x81, 202, 0, 1, 0, 0, 0, 1], Error::Short),
            (&[0xa0, 203, 0, 1, 0, 0, 0, 200], Error::Short),
        ];
        for (bytes, error) in table {
            assert_eq!(parse(bytes), Err(*error), "{bytes:?}");
        }
        assert_eq!(parse(&[0x80, 203, 0, 0].repeat(33)), Err(Error::Other));
    }

    fn block() -> impl Strategy<Value = ReportBlock> {
        (any::<(u32, u8, u32, u32, u32, u32)>(), -0x80_0000i32..0x80_0000).prop_map(
            |((ssrc, fraction_lost, highest, jitter, last_sr, delay), lost)| ReportBlock {
                ssrc,
                fraction_lost,
                lost,
                highest,
                jitter,
                last_sr,
                delay,
            },
        )
    }

    fn packet() -> impl Strategy<Value = Rtcp> {
        let blocks = || proptest::collection::vec(block(), 0..4);
        prop_oneof![
            (any::<(u32, u64, u32, u32, u32)>(), blocks()).prop_map(
                |((ssrc, ntp, timestamp, packets, octets), reports)| {
                    Rtcp::SenderReport { ssrc, ntp, timestamp, packets, octets, reports }
                }
            ),
            (any::<u32>(), blocks()).prop_map(|(ssrc, reports)| Rtcp::ReceiverReport { ssrc, reports }),
            proptest::collection::vec((any::<u32>(), "[ -~]{0,40}"), 0..4).prop_map(Rtcp::SourceDescription),
            proptest::collection::vec(any::<u32>(), 0..5).prop_map(Rtcp::Bye),
        ]
    }

    proptest! {
        #[test]
        fn parse_after_print_is_the_identity(packets in proptest::collection::vec(packet(), 1..5)) {
            prop_assert_eq!(parse(&to_vec(&packets)), Ok(packets));
        }

        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), kind in 192u8..224) {
            let _ = parse(&bytes);
            if let [first, second, high, ..] = &mut bytes[..] {
                (*first, *second, *high) = (*first & 0x3f | 0x80, kind, 0);
            }
            let _ = parse(&bytes);
        }
    }
}
