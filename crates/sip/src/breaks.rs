//! Where lines end: the CRs and LFs of a buffer, 64 bytes at a time, so that a head of many short lines costs no
//! search of its own for each of them.

#![allow(unsafe_code, reason = "calls a function of SSE2, which is checked by nothing but the target")]

/// Walks over the CRs and LFs of a buffer, forwards only.
pub(crate) struct Breaks<'a> {
    bytes: &'a [u8],
    /// The block that `found` tells of begins here.
    base: usize,
    /// A bit for each CR or LF of the block, the first byte's lowest.
    found: u64,
}

/// Bytes of a block.
const BLOCK: usize = 64;

impl<'a> Breaks<'a> {
    /// Over a buffer, from its start.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, base: 0, found: block(bytes) }
    }

    /// The offset of the first CR or LF at or after `from`, which never goes back from call to call.
    #[inline]
    pub(crate) fn next(&mut self, from: usize) -> Option<usize> {
        loop {
            let passed = from.saturating_sub(self.base);
            self.found &= if passed < BLOCK { u64::MAX << passed } else { 0 };
            if self.found != 0 {
                return Some(self.base + self.found.trailing_zeros() as usize);
            }
            let rest = self.bytes.get(self.base + BLOCK..).filter(|rest| !rest.is_empty())?;
            self.base += BLOCK;
            self.found = block(rest);
        }
    }
}

/// The first block of `bytes`, which may be shorter.
#[inline]
fn block(bytes: &[u8]) -> u64 {
    if let Some(block) = bytes.first_chunk() {
        return breaks(block);
    }
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    breaks(&block)
}

/// A bit for each CR or LF.
#[cfg(target_arch = "x86_64")]
#[inline]
fn breaks(block: &[u8; BLOCK]) -> u64 {
    // SAFETY: SSE2 belongs to x86_64 itself, so every machine that this is built for has it.
    unsafe { in_vectors(block) }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn in_vectors(block: &[u8; BLOCK]) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8};

    let (cr, lf) = (_mm_set1_epi8(b'\r' as i8), _mm_set1_epi8(b'\n' as i8));
    let mut found = 0;
    let (pieces, _) = block.as_chunks::<16>();
    for (n, piece) in pieces.iter().enumerate() {
        let whole = i128::from_le_bytes(*piece);
        let piece = _mm_set_epi64x((whole >> 64) as i64, whole as i64);
        let hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(piece, cr), _mm_cmpeq_epi8(piece, lf)));
        found |= u64::from(hits as u32) << (16 * n);
    }
    found
}

/// A bit for each CR or LF.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn breaks(block: &[u8; BLOCK]) -> u64 {
    in_words(block)
}

/// Eight bytes in a word, on any machine.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline]
fn in_words(block: &[u8; BLOCK]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = ONES * 0x7f;
    // The high bit of each byte that is zero: no carry leaves a byte.
    let zero = |word: u64| !((word & LOW).wrapping_add(LOW) | word | LOW);
    let mut found = 0;
    let (pieces, _) = block.as_chunks::<8>();
    for (n, piece) in pieces.iter().enumerate() {
        let word = u64::from_le_bytes(*piece);
        let hits = zero(word ^ (ONES * u64::from(b'\r'))) | zero(word ^ (ONES * u64::from(b'\n')));
        // The product gathers the eight marks, one from each byte, in the highest byte.
        found |= ((hits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * n);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn finds_what_a_search_finds(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..300),
            steps in proptest::collection::vec(0usize..90, 1..40),
        ) {
            let mut breaks = Breaks::new(&bytes);
            let mut from = 0;
            for step in steps {
                from += step;
                let searched = bytes.iter().skip(from).position(|b| matches!(b, b'\r' | b'\n')).map(|at| from + at);
                prop_assert_eq!(breaks.next(from), searched);
            }
        }

        #[test]
        fn vectors_and_words_agree(block in any::<[u8; 32]>(), at in 0usize..32) {
            let mut whole = [b'\r'; BLOCK];
            whole[at..at + 32].copy_from_slice(&block);
            prop_assert_eq!(in_words(&whole), breaks(&whole));
        }
    }
}
