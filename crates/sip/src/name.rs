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
    RecvInfo "Recv-Info", AnswerMode "Answer-Mode",
}

/// How many names there are.
pub(crate) const COUNT: usize = TEXT.len();

const EMPTY: u8 = u8::MAX;
const SLOTS: usize = 256;

const fn hash(len: usize, first: u8, middle: u8, last: u8) -> usize {
    let (first, middle, last) = ((first | 0x20) as usize, (middle | 0x20) as usize, (last | 0x20) as usize);
    (len.wrapping_mul(31) ^ first.wrapping_mul(7) ^ middle.wrapping_mul(13) ^ last.wrapping_mul(67)) % SLOTS
}

/// Open addressing over the names, laid out by the compiler: one probe finds nearly every name.
const TABLE: [u8; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    let mut id = 0;
    while id < TEXT.len() {
        let name = TEXT[id].as_bytes();
        let mut slot = hash(name.len(), name[0], name[name.len() / 2], name[name.len() - 1]);
        while table[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        table[slot] = id as u8;
        id += 1;
    }
    table
};

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
        let bytes = name.as_bytes();
        let (first, last) = (*bytes.first()?, *bytes.last()?);
        if bytes.len() == 1 {
            let letter = first.to_ascii_lowercase();
            return if letter.is_ascii_lowercase() { COMPACT[(letter - b'a') as usize] } else { None };
        }
        let mut slot = hash(bytes.len(), first, bytes[bytes.len() / 2], last);
        loop {
            let id = TABLE[slot];
            if id == EMPTY {
                return None;
            }
            let text = TEXT[id as usize];
            // Nearly everyone writes the canonical case: compare words before letters.
            if text == name || text.eq_ignore_ascii_case(name) {
                return Some(ALL[id as usize]);
            }
            slot = (slot + 1) % SLOTS;
        }
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
