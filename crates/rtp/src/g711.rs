//! G.711: mu-law and A-law to and from 16-bit samples.

/// One mu-law byte of a sample.
pub fn ulaw_encode(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(32635) + 0x84;
    let exponent = (31 - (magnitude as u32).leading_zeros()).saturating_sub(7);
    let mantissa = (magnitude >> (exponent + 3)) & 0x0f;
    !(sign | (exponent as u8) << 4 | mantissa as u8)
}

/// The sample of a mu-law byte.
pub fn ulaw_decode(byte: u8) -> i16 {
    let byte = !byte;
    let exponent = (byte >> 4) & 7;
    let magnitude = (((i32::from(byte & 0x0f) << 3) + 0x84) << exponent) - 0x84;
    (if byte & 0x80 != 0 { -magnitude } else { magnitude }) as i16
}

/// One A-law byte of a sample.
pub fn alaw_encode(sample: i16) -> u8 {
    let (sign, magnitude) = if sample >= 0 { (0x80, i32::from(sample)) } else { (0, -i32::from(sample) - 1) };
    let magnitude = magnitude.min(32767) >> 4;
    let byte = match 32 - (magnitude as u32).leading_zeros() {
        bits @ 5.. => ((bits - 4) as u8) << 4 | ((magnitude >> (bits - 5)) & 0x0f) as u8,
        _ => magnitude as u8,
    };
    (sign | byte) ^ 0x55
}

/// The sample of an A-law byte.
pub fn alaw_decode(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let exponent = (byte >> 4) & 7;
    let mantissa = i32::from(byte & 0x0f) << 4;
    let magnitude = if exponent == 0 { mantissa + 8 } else { (mantissa + 0x108) << (exponent - 1) };
    (if byte & 0x80 != 0 { magnitude } else { -magnitude }) as i16
}

/// Which of the two laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// Payload type 0, PCMU.
    Mu,
    /// Payload type 8, PCMA.
    A,
}

impl Law {
    /// Bytes of samples.
    pub fn encode(self, samples: &[i16]) -> Vec<u8> {
        let one = if self == Law::Mu { ulaw_encode } else { alaw_encode };
        samples.iter().map(|s| one(*s)).collect()
    }

    /// Samples of bytes.
    pub fn decode(self, bytes: &[u8]) -> Vec<i16> {
        let one = if self == Law::Mu { ulaw_decode } else { alaw_decode };
        bytes.iter().map(|b| one(*b)).collect()
    }

    /// The law of a static payload type.
    pub fn of_payload_type(payload_type: u8) -> Option<Law> {
        match payload_type {
            0 => Some(Law::Mu),
            8 => Some(Law::A),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let ulaw = [(0x00, -32124), (0x80, 32124), (0xff, 0), (0x7f, 0), (0xfe, 8), (0x0f, -16764), (0x8f, 16764)];
        let alaw = [(0x55, -8), (0xd5, 8), (0x2a, -32256), (0xaa, 32256), (0xd4, 24), (0x80, 5504)];
        for (byte, sample) in ulaw {
            assert_eq!(ulaw_decode(byte), sample, "{byte:#x}");
        }
        for (byte, sample) in alaw {
            assert_eq!(alaw_decode(byte), sample, "{byte:#x}");
        }
        assert_eq!((ulaw_encode(0), alaw_encode(0)), (0xff, 0xd5));
        assert_eq!((ulaw_encode(i16::MIN), ulaw_encode(i16::MAX)), (0x00, 0x80));
        assert_eq!((alaw_encode(i16::MIN), alaw_encode(i16::MAX)), (0x2a, 0xaa));
    }

    /// Every byte is the encoding of its own sample (mu-law has two zeros), and no other byte is nearer to a sample.
    #[test]
    fn encoding_is_the_nearest_byte() {
        for law in [Law::Mu, Law::A] {
            let levels = law.decode(&(0..=255).collect::<Vec<u8>>());
            for byte in 0..=255u8 {
                let again = law.encode(&[levels[usize::from(byte)]])[0];
                assert!(again == byte || (law, byte) == (Law::Mu, 0x7f), "{law:?} {byte:#x} {again:#x}");
            }
            for sample in (i16::MIN..=i16::MAX).step_by(7) {
                let error = |level: i16| (i32::from(level) - i32::from(sample)).abs();
                let got = error(law.decode(&law.encode(&[sample]))[0]);
                let best = levels.iter().map(|l| error(*l)).min().unwrap();
                // Rounding at a boundary between two steps may take either.
                assert!(got <= best + 8.max(i32::from(sample).abs() / 32), "{law:?} {sample} {got} {best}");
            }
        }
    }
}
