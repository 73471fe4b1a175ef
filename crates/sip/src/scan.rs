//! The lexer's small parts (RFC 3261 25.1): tokens, blanks (folds included), quoted strings, comma lists.

const TOKEN: u8 = 1;
const BLANK: u8 = 2;
/// Ends a parameter's name or value, or begins a quoted string.
const STOP: u8 = 4;
/// May stand in a parameter's value that is not quoted.
const VALUE: u8 = 8;
/// May stand in a host name; underscores are none of RFC 1123 but are met in private networks' DNS.
const HOST: u8 = 16;

/// Classes of bytes, by the compiler.
const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut b = 0;
    while b < 256 {
        let c = b as u8;
        if c.is_ascii_alphanumeric()
            || matches!(c, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        {
            table[b] |= TOKEN;
        }
        if matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
            table[b] |= BLANK;
        }
        if matches!(c, b';' | b'=' | b'"') {
            table[b] |= STOP;
        }
        if c > b' ' && !matches!(c, b'"' | b'<' | b'>' | b',' | b';' | 0x7f) {
            table[b] |= VALUE;
        }
        if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_') {
            table[b] |= HOST;
        }
        b += 1;
    }
    table
};

/// A byte of a token.
#[inline]
pub(crate) fn is_token_byte(b: u8) -> bool {
    CLASS[b as usize] & TOKEN != 0
}

/// A blank; CR and LF stand in a value only within a fold, which is a blank (RFC 3261 7.3.1).
#[inline]
pub(crate) fn is_blank(b: u8) -> bool {
    CLASS[b as usize] & BLANK != 0
}

/// A byte at which the walk over parameters has to look.
#[inline]
pub(crate) fn is_stop(b: u8) -> bool {
    CLASS[b as usize] & STOP != 0
}

/// A byte of a parameter's value without quotes.
#[inline]
pub(crate) fn is_value_byte(b: u8) -> bool {
    CLASS[b as usize] & VALUE != 0
}

/// A byte of a host name.
#[inline]
pub(crate) fn is_host_byte(b: u8) -> bool {
    CLASS[b as usize] & HOST != 0
}

/// Without blanks at either end.
#[inline]
pub(crate) fn trim(s: &str) -> &str {
    let bytes = s.as_bytes();
    if let ([first, ..], [.., last]) = (bytes, bytes)
        && !is_blank(*first)
        && !is_blank(*last)
    {
        return s;
    }
    let mut start = 0;
    let mut end = bytes.len();
    while start < end && is_blank(bytes[start]) {
        start += 1;
    }
    while end > start && is_blank(bytes[end - 1]) {
        end -= 1;
    }
    &s[start..end]
}

/// Without blanks at the start.
#[inline]
pub(crate) fn trim_start(s: &str) -> &str {
    match s.as_bytes() {
        [first, ..] if is_blank(*first) => &s[s.bytes().take_while(|b| is_blank(*b)).count()..],
        _ => s,
    }
}

/// The length of the quoted string that `s` begins with, both quotes included; none if it is not closed.
#[inline]
pub(crate) fn quoted_len(s: &str) -> Option<usize> {
    let bytes = s.as_bytes();
    if bytes.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Where the first value of a comma list ends: the comma outside of quotes and angle brackets, or the end.
#[inline]
pub(crate) fn value_end(s: &str) -> usize {
    let bytes = s.as_bytes();
    if memchr::memchr(b',', bytes).is_none() {
        return bytes.len();
    }
    let mut at = 0;
    while let Some(b) = bytes.get(at) {
        match b {
            b',' => return at,
            b'"' => match quoted_len(&s[at..]) {
                Some(len) => at += len,
                None => return bytes.len(),
            },
            // A bracket that is never closed hides no comma.
            b'<' => at += memchr::memchr(b'>', &bytes[at..]).unwrap_or(0) + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Splits a comma list, quotes and angle brackets respected; values come trimmed, empty ones too.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: Option<&'a str>,
}

impl<'a> Values<'a> {
    /// Over one field's value.
    #[must_use]
    pub fn new(list: &'a str) -> Self {
        Self { rest: Some(list) }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let end = value_end(rest);
        self.rest = rest.get(end + 1..);
        Some(trim(&rest[..end]))
    }
}

/// Digits only, of at most `max`, which is below 2^32; leading zeros are legal.
#[inline]
pub(crate) fn number(s: &str, max: u64) -> Option<u64> {
    if s.is_empty() {
        return None;
    }
    // Where a number stays that is too large, so that more digits never bring it round to a small one.
    const PAST: u64 = 1 << 32;
    let mut n: u64 = 0;
    let mut good = true;
    for b in s.bytes() {
        let digit = b.wrapping_sub(b'0');
        good &= digit <= 9;
        n = (n * 10 + u64::from(digit)).min(PAST);
    }
    (good && n <= max).then_some(n)
}
