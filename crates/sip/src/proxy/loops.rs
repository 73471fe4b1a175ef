//! Loop detection (16.3 item 4, 16.6 item 8, RFC 5393 4.2) and branches of stateless forwarding (16.11).

use crate::header::Via;
use crate::message::{Message, Name};
use crate::transaction::{MAGIC_COOKIE, is_unique_branch};

/// FNV-1a over the parts, each ended by a zero byte. Stable over processes and releases; not for secrets.
pub fn stable_hash<'s>(parts: impl IntoIterator<Item = &'s str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// The second part of our branch: a hash over what decides where the request goes (RFC 5393 4.2.1): Request-URI and Route as
/// received, tags, Call-ID, CSeq number, Proxy-Require and Proxy-Authorization. A request that comes back with the same hash loops; with
/// another it spirals, which is legal.
pub fn loop_hash(request: &Message<'_>) -> u64 {
    let tag = |addr: Result<crate::header::NameAddr<'_>, _>| addr.ok().and_then(|a| a.tag().map(str::to_owned));
    let (to, from) = (tag(request.to()), tag(request.from()));
    let cseq = request.cseq().map_or(0, |c| c.number).to_string();
    let fixed = [
        request.uri().unwrap_or_default(),
        to.as_deref().unwrap_or_default(),
        from.as_deref().unwrap_or_default(),
        request.call_id().unwrap_or_default(),
        &cseq,
    ];
    let lists = [Name::Route, Name::ProxyRequire, Name::ProxyAuthorization];
    let values = lists.iter().flat_map(|name| request.headers(*name).chain(["\u{1}"]));
    stable_hash(fixed.into_iter().chain(values))
}

/// A branch made of the cookie, `unique` (token characters) and the loop hash.
pub fn with_loop_hash(unique: &str, hash: u64) -> String {
    format!("{MAGIC_COOKIE}{unique}.{hash:016x}")
}

/// What an own Via in an arrived request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    /// We are in no Via.
    None,
    /// We forwarded it before, as something else then.
    Spiral,
    /// We forwarded the same before: answer 482.
    Loop,
}

/// Looks for our own Via values, as `is_ours` knows them (sent-by, or a mark in the branch), and compares their loop hash with
/// `hash`, the request's [`loop_hash`].
pub fn detect_loop(request: &Message<'_>, hash: u64, is_ours: impl Fn(&Via<'_>) -> bool) -> LoopKind {
    let mut kind = LoopKind::None;
    for via in request.values(Name::Via).filter_map(|v| Via::parse(v).ok()).filter(|v| is_ours(v)) {
        let theirs = via.branch().and_then(|b| b.rsplit_once('.')).and_then(|(_, h)| u64::from_str_radix(h, 16).ok());
        if theirs == Some(hash) {
            return LoopKind::Loop;
        }
        kind = LoopKind::Spiral;
    }
    kind
}

/// The branch with which a request is forwarded without state (16.11): the same for each retransmission, and for CANCEL and ACK of
/// the same transaction.
pub fn stateless_branch(request: &Message<'_>) -> String {
    let via = request.via().ok();
    let received = via.as_ref().and_then(Via::branch).filter(|b| is_unique_branch(b));
    let hash = match received {
        Some(branch) => stable_hash([branch, via.as_ref().map_or("", |v| v.sent_by)]),
        None => {
            let cseq = request.cseq().map_or(0, |c| c.number).to_string();
            let from = request.from().ok().and_then(|f| f.tag().map(str::to_owned)).unwrap_or_default();
            let top = request.values(Name::Via).next().unwrap_or_default();
            stable_hash([top, request.call_id().unwrap_or_default(), &from, &cseq, request.uri().unwrap_or_default()])
        }
    };
    format!("{MAGIC_COOKIE}s{hash:016x}")
}
