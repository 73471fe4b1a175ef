//! Names of header fields (RFC 3261 20, IANA's registry), found in any case and in compact form (7.3.3).

use std::fmt;

macro_rules! names {
    ($($variant:ident $text:literal $($compact:literal)?),+ $(,)?) => {
        /// A header field that the library knows by name. Each variant is the field of the same name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "a variant is the field of the same name")]
        #[non_exhaustive]
        pub enum Name { $($variant),+ }

        const TEXT: &[&str] = &[$($text),+];
        const ALL: &[Name] = &[$(Name::$variant),+];

        /// The known name of each compact letter, `a` to `z`.
        const COMPACT: [Option<Name>; 26] = {
            let mut table = [None; 26];
            $($(table[($compact - b'a') as usize] = Some(Name::$variant);)?)+
            table
        };
    };
}

names! {
    Via "Via" b'v', Route "Route", RecordRoute "Record-Route", Path "Path", ServiceRoute "Service-Route",
    From "From" b'f', To "To" b't', CallId "Call-ID" b'i', CSeq "CSeq", MaxForwards "Max-Forwards",
    Contact "Contact" b'm', ContentLength "Content-Length" b'l', ContentType "Content-Type" b'c',
    ContentEncoding "Content-Encoding" b'e', ContentDisposition "Content-Disposition",
    ContentLanguage "Content-Language", ContentId "Content-ID", MimeVersion "MIME-Version",
    Expires "Expires", MinExpires "Min-Expires",
    Authorization "Authorization", ProxyAuthorization "Proxy-Authorization",
    WwwAuthenticate "WWW-Authenticate", ProxyAuthenticate "Proxy-Authenticate",
    AuthenticationInfo "Authentication-Info",
    Supported "Supported" b'k', Require "Require", ProxyRequire "Proxy-Require", Unsupported "Unsupported",
    Allow "Allow", Accept "Accept", AcceptEncoding "Accept-Encoding", AcceptLanguage "Accept-Language",
    AcceptContact "Accept-Contact" b'a', RejectContact "Reject-Contact" b'j',
    RequestDisposition "Request-Disposition" b'd',
    AllowEvents "Allow-Events" b'u', Event "Event" b'o', SubscriptionState "Subscription-State",
    SipETag "SIP-ETag", SipIfMatch "SIP-If-Match",
    Reason "Reason", RetryAfter "Retry-After", SessionExpires "Session-Expires" b'x', MinSE "Min-SE",
    RSeq "RSeq", RAck "RAck", ReferTo "Refer-To" b'r', ReferredBy "Referred-By" b'b', ReferSub "Refer-Sub",
    Replaces "Replaces", Join "Join", TargetDialog "Target-Dialog",
    PAssertedIdentity "P-Asserted-Identity", PPreferredIdentity "P-Preferred-Identity",
    PAccessNetworkInfo "P-Access-Network-Info", PChargingVector "P-Charging-Vector",
    Privacy "Privacy", Identity "Identity" b'y', Diversion "Diversion", HistoryInfo "History-Info",
    UserAgent "User-Agent", Server "Server", Warning "Warning", ErrorInfo "Error-Info",
    AlertInfo "Alert-Info", CallInfo "Call-Info", Organization "Organization", Priority "Priority",
    Subject "Subject" b's', SessionId "Session-ID", Date "Date", Timestamp "Timestamp",
    InReplyTo "In-Reply-To", ReplyTo "Reply-To", FlowTimer "Flow-Timer", InfoPackage "Info-Package",
    RecvInfo "Recv-Info", AnswerMode "Answer-Mode", FeatureCaps "Feature-Caps",
}

/// How many names there are.
pub(crate) const COUNT: usize = TEXT.len();

/// A name in lower case, in three words; no known name is longer.
type Words = [u64; 3];
/// The bytes of [`Words`].
pub(crate) const WIDTH: usize = 24;
const NONE: u8 = u8::MAX;
const SLOTS: usize = 512;

/// Lower case of eight bytes at once; other bytes than `A` to `Z` stay.
#[inline]
const fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low.wrapping_add(ONES * (0x80 - b'A' as u64));
    let past_z = low.wrapping_add(ONES * (0x7f - b'Z' as u64));
    let upper = !word & (ONES * 0x80) & (from_a ^ past_z);
    word | (upper >> 2)
}

#[inline]
const fn hash(words: &Words) -> usize {
    let mixed = words[0] ^ words[1].rotate_left(23) ^ words[2].rotate_left(41);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55) as usize
}

const fn words(name: &[u8]) -> Words {
    let mut words = [0u64; 3];
    let mut at = 0;
    while at < name.len() {
        words[at / 8] |= (name[at] as u64) << (8 * (at % 8));
        at += 1;
    }
    [lower(words[0]), lower(words[1]), lower(words[2])]
}

/// Open addressing over long and compact names, laid out by the compiler: one probe finds nearly every name.
static TABLE: [(Words, u8, u8); SLOTS] = {
    let mut table = [([0; 3], NONE, 0); SLOTS];
    let mut n = 0;
    while n < TEXT.len() + COMPACT.len() {
        let letter = [b'a' + n.saturating_sub(TEXT.len()) as u8];
        let (id, len, key) = if n < TEXT.len() {
            (n as u8, TEXT[n].len() as u8, words(TEXT[n].as_bytes()))
        } else {
            match COMPACT[n - TEXT.len()] {
                Some(name) => (name as u8, 1, words(&letter)),
                None => (NONE, 0, [0; 3]),
            }
        };
        n += 1;
        if id == NONE {
            continue;
        }
        let mut slot = hash(&key);
        while table[slot].1 != NONE {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = (key, id, len);
    }
    table
};

#[inline]
fn find(key: &Words, len: usize) -> Option<Name> {
    let mut slot = hash(key);
    loop {
        let (text, id, text_len) = &TABLE[slot % SLOTS];
        if *id == NONE {
            return None;
        }
        // The length tells a NUL at the end of a name from the words' own padding.
        if text[0] == key[0] && text[1] == key[1] && text[2] == key[2] && usize::from(*text_len) == len {
            return Some(ALL[*id as usize]);
        }
        slot += 1;
    }
}

/// A known name and the colon right after it, at the start of a line: the name and the colon's offset.
#[inline]
pub(crate) fn known_at(line: &[u8; WIDTH]) -> Option<(Name, usize)> {
    let [a, b, c] = line.as_chunks::<8>().0 else { return None };
    let (a, b, c) = (u64::from_le_bytes(*a), u64::from_le_bytes(*b), u64::from_le_bytes(*c));
    // Each word by itself and not an array of them, so that the key never leaves the registers.
    let (key, colon) = if let Some(at) = colon_in(a) {
        ([lower(below(a, at)), 0, 0], at)
    } else if let Some(at) = colon_in(b) {
        ([lower(a), lower(below(b, at)), 0], 8 + at)
    } else {
        let at = colon_in(c)?;
        ([lower(a), lower(b), lower(below(c, at))], 16 + at)
    };
    find(&key, colon as usize).map(|name| (name, colon as usize))
}

/// The number of the first byte that is a colon.
#[inline]
fn colon_in(word: u64) -> Option<u32> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let colons = word ^ (ONES * b':' as u64);
    // The lowest marked byte is exact, which is the one that is used.
    let found = colons.wrapping_sub(ONES) & !colons & (ONES * 0x80);
    (found != 0).then(|| found.trailing_zeros() / 8)
}

/// The first `n` bytes of a word, fewer than eight.
#[inline]
fn below(word: u64, n: u32) -> u64 {
    word & ((1u64 << (8 * n)) - 1)
}

impl Name {
    /// The name as RFC 3261 20 and IANA write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        TEXT[self as usize]
    }

    /// Finds a name in any case, long or compact.
    #[must_use]
    #[inline]
    pub fn parse(name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > WIDTH {
            return None;
        }
        find(&words(name.as_bytes()), name.len())
    }

    /// Every known name.
    #[must_use]
    pub fn all() -> &'static [Self] {
        ALL
    }

    /// The compact form, where there is one (RFC 3261 7.3.3).
    #[must_use]
    pub fn compact(self) -> Option<char> {
        COMPACT.iter().position(|n| *n == Some(self)).map(|at| char::from(b'a' + at as u8))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for name in Name::all() {
            let text = name.as_str();
            for form in [text.to_owned(), text.to_ascii_lowercase(), text.to_ascii_uppercase()] {
                assert_eq!(Name::parse(&form), Some(*name));
                let mut line = [b'x'; WIDTH];
                line[..form.len()].copy_from_slice(form.as_bytes());
                line[form.len()] = b':';
                assert_eq!(known_at(&line), Some((*name, form.len())));
            }
            if let Some(letter) = name.compact() {
                assert_eq!(Name::parse(&letter.to_string()), Some(*name));
                assert_eq!(Name::parse(&letter.to_ascii_uppercase().to_string()), Some(*name));
            }
        }
    }

    #[test]
    fn nothing_else_is_found() {
        // 0x0d is '-' without the bit of lower case, NUL is the padding.
        for text in [
            "",
            "X-Via",
            "Vi",
            "Call\rID",
            "Call_ID",
            "Via\0",
            "\0",
            "Content-Length\0",
            "z",
            "@",
            "[",
            "Subscription-State-",
        ] {
            assert_eq!(Name::parse(text), None, "{text:?}");
        }
        assert_eq!(known_at(b"Content-Length\0: 0\r\n\r\n.."), None);
        assert_eq!(known_at(b"Subject without any colon"[..WIDTH].first_chunk().unwrap()), None);
    }
}
