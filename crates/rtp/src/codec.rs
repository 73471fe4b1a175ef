//! Speech codecs behind one trait: samples in and out at the codec's own rate, with the state of one direction each.

use crate::g711::{Law, alaw_decode, alaw_encode, ulaw_decode, ulaw_encode};
use crate::sdp;
use audio_codec::g722::{G722Decoder, G722Encoder};
use audio_codec::{Decoder, Encoder};

/// Both directions of one leg's codec.
pub trait Codec: Send {
    /// Samples a second, which for G.722 is not its RTP clock (RFC 3551 4.5.2).
    fn rate(&self) -> u32;

    /// Appends the samples of a payload. Whatever the bytes are, no more than eight samples a byte come of them.
    fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>);

    /// Appends the payload of samples, an even number of them.
    fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>);
}

impl Codec for Law {
    fn rate(&self) -> u32 {
        8000
    }

    fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        match self {
            Law::Mu => out.extend(payload.iter().map(|b| ulaw_decode(*b))),
            Law::A => out.extend(payload.iter().map(|b| alaw_decode(*b))),
        }
    }

    fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        match self {
            Law::Mu => out.extend(samples.iter().map(|s| ulaw_encode(*s))),
            Law::A => out.extend(samples.iter().map(|s| alaw_encode(*s))),
        }
    }
}

/// G.722 at 64 kbit/s.
pub struct G722 {
    decoder: G722Decoder,
    encoder: G722Encoder,
}

impl G722 {
    /// Both directions at their beginning.
    pub fn new() -> Self {
        Self { decoder: G722Decoder::new(), encoder: G722Encoder::new() }
    }
}

impl Default for G722 {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for G722 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("G722")
    }
}

impl Codec for G722 {
    fn rate(&self) -> u32 {
        16_000
    }

    fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) {
        let from = out.len();
        out.resize(from + self.decoder.max_decode_samples(payload.len()), 0);
        let into = out.get_mut(from..).unwrap_or_default();
        let made = self.decoder.decode_into(payload, into).unwrap_or(0);
        out.truncate(from + made);
    }

    fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) {
        let from = out.len();
        out.resize(from + self.encoder.max_encode_bytes(samples.len()), 0);
        let into = out.get_mut(from..).unwrap_or_default();
        let made = self.encoder.encode_into(samples, into).unwrap_or(0);
        out.truncate(from + made);
    }
}

/// The codec that a description names; `None` for what is not spoken here.
pub fn of(codec: &sdp::Codec) -> Option<Box<dyn Codec>> {
    if codec.is("PCMU") {
        Some(Box::new(Law::Mu))
    } else if codec.is("PCMA") {
        Some(Box::new(Law::A))
    } else if codec.is("G722") {
        Some(Box::new(G722::new()))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::{Generator, strongest};

    #[test]
    fn each_codec_carries_a_tone_in_20_ms_payloads() {
        for (name, rate, hz) in
            [("PCMU", 8000, 1000.0), ("PCMA", 8000, 440.0), ("G722", 16_000, 440.0), ("G722", 16_000, 5000.0)]
        {
            let mut codec = of(&sdp::Codec::new(9, name, 8000, 1)).unwrap();
            assert_eq!(codec.rate(), rate);
            let frame = rate as usize / 50;
            let (mut heard, mut payload) = (Vec::new(), Vec::new());
            for samples in Generator::new(&[hz], rate, 10_000).samples(frame * 100).chunks(frame) {
                payload.clear();
                codec.encode(samples, &mut payload);
                assert_eq!(payload.len(), 160, "{name}");
                codec.decode(&payload, &mut heard);
            }
            assert_eq!(heard.len(), frame * 100);
            let tone = strongest(&heard, rate).unwrap();
            assert!((tone.hz - hz).abs() < 2.0 && tone.share > 0.95, "{name}: {tone:?}");
            assert!((tone.level / (10_000.0 / 2f64.sqrt()) - 1.0).abs() < 0.1, "{name}: {tone:?}");
        }
        assert!(of(&sdp::Codec::new(18, "G729", 8000, 1)).is_none());
    }

    #[test]
    fn any_bytes_decode() {
        let mut x = 1u32;
        for length in [0, 1, 7, 160, 1500] {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (x >> 24) as u8
                })
                .collect();
            let (mut wide, mut narrow) = (Vec::new(), Vec::new());
            G722::new().decode(&bytes, &mut wide);
            Codec::decode(&mut Law::A, &bytes, &mut narrow);
            assert_eq!((wide.len(), narrow.len()), (2 * length, length));
        }
    }
}
