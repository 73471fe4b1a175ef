//! Routes: preprocessing of what arrived (16.4) and the values of what leaves (16.6 items 4 and 6).

use crate::edit::Edit;
use crate::header::NameAddr;
use crate::message::{Message, Name};
use crate::uri::Uri;

/// The route of an arrived request after 16.4, without our own values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo<'a> {
    /// The Request-URI to go on with.
    pub uri: &'a str,
    /// A strict router precedes us: the Request-URI was our own Record-Route value and the last Route value took its place.
    pub strict_peer: bool,
    /// How many of our own values were at the top of Route, to be popped.
    pub popped: usize,
    /// The first of our own URIs: what we wrote into Record-Route, with its token. From a strict peer it is the Request-URI.
    pub own: Option<&'a str>,
    /// The second of them: a proxy between two networks writes two.
    pub own_second: Option<&'a str>,
}

/// Own values popped at most: two a pass, for a request that spirals once.
const MAX_OWN: usize = 4;

/// Applies 16.4. `is_ours` tells whether a URI is one that we placed into Record-Route, Path or Service-Route, or an address of ours
/// given as a route (a preloaded outbound proxy).
pub fn preprocess<'a>(request: &Message<'a>, is_ours: impl Fn(&Uri<'_>) -> bool) -> Option<RouteInfo<'a>> {
    let ours = |uri: &str| Uri::parse(uri).is_ok_and(|u| is_ours(&u));
    let mut info = RouteInfo { uri: request.uri()?, strict_peer: false, popped: 0, own: None, own_second: None };
    let routes = request.values(Name::Route).count();
    // Only what we wrote has `lr` in a Request-URI; a plain request for an own address is none of a strict router.
    let was_ours = Uri::parse(info.uri).is_ok_and(|u| u.param("lr").is_some() && is_ours(&u));
    if was_ours && let Some(last) = request.values(Name::Route).last().and_then(|r| NameAddr::parse(r).ok()) {
        info.own = Some(info.uri);
        info.uri = last.uri;
        info.strict_peer = true;
    }
    let left = routes - usize::from(info.strict_peer);
    for value in request.values(Name::Route).take(left.min(MAX_OWN)) {
        let Ok(route) = NameAddr::parse(value) else { break };
        if !ours(route.uri) {
            break;
        }
        info.popped += 1;
        if info.own.is_none() {
            info.own = Some(route.uri);
        } else if info.own_second.is_none() {
            info.own_second = Some(route.uri);
        }
    }
    Some(info)
}

impl<'a> RouteInfo<'a> {
    /// The Route values that are left.
    pub fn routes<'s, 'm>(&'s self, request: &'m Message<'a>) -> impl Iterator<Item = &'a str> + use<'s, 'm, 'a> {
        let total = request.values(Name::Route).count();
        let left = total.saturating_sub(self.popped + usize::from(self.strict_peer));
        request.values(Name::Route).skip(self.popped).take(left)
    }
}

/// How the request leaves (16.6 items 2, 6 and 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward<'a> {
    /// The Request-URI to write.
    pub uri: &'a str,
    /// The URI whose address the request goes to.
    pub next_hop: &'a str,
    /// The next hop is a strict router: its URI is the Request-URI, and this target stands last in Route.
    pub behind_strict: Option<&'a str>,
    popped: usize,
    strict_peer: bool,
}

/// Where the request goes: `target` is the Request-URI chosen by the location service or policy (often [`RouteInfo::uri`]). The
/// first route left is the next hop; without `lr` it is a strict router.
pub fn forward<'a>(request: &Message<'a>, info: &RouteInfo<'a>, target: &'a str) -> Forward<'a> {
    let first = info.routes(request).next().and_then(|r| NameAddr::parse(r).ok());
    let plain = Forward {
        uri: target,
        next_hop: target,
        behind_strict: None,
        popped: info.popped,
        strict_peer: info.strict_peer,
    };
    match first {
        None => plain,
        Some(route) if Uri::parse(route.uri).is_ok_and(|u| u.param("lr").is_some()) => {
            Forward { next_hop: route.uri, ..plain }
        }
        Some(route) => Forward {
            uri: route.uri,
            next_hop: route.uri,
            behind_strict: Some(target),
            popped: info.popped + 1,
            ..plain
        },
    }
}

impl<'a> Forward<'a> {
    /// Writes Request-URI and Route into the edit.
    pub fn apply<'m>(&self, request: &'m Message<'a>, edit: &mut Edit<'m, 'a>) {
        if request.uri() != Some(self.uri) {
            edit.set_uri(self.uri.to_owned());
        }
        if !self.strict_peer && self.behind_strict.is_none() {
            for _ in 0..self.popped {
                edit.pop_top(Name::Route);
            }
            return;
        }
        // With a strict router on either side the list is written anew: it loses its last value, or gets one.
        let total = request.values(Name::Route).count();
        let left = total.saturating_sub(self.popped + usize::from(self.strict_peer));
        let mut list: Vec<String> =
            request.values(Name::Route).skip(self.popped).take(left).map(str::to_owned).collect();
        list.extend(self.behind_strict.map(|target| format!("<{target}>")));
        if list.is_empty() {
            edit.remove_all(Name::Route);
        } else {
            edit.replace(Name::Route, list.join(", "));
        }
    }
}

/// A Record-Route or Path value with `lr`: `<sip:token@host:port;transport=tcp;lr>`. `host_port` may be an IPv6 reference; `transport`
/// is left out for UDP; `token` is what we want to find again (characters of a URI's user part).
pub fn record_route(host_port: &str, transport: &str, token: Option<&str>) -> String {
    let mut out = String::with_capacity(64);
    out.push_str("<sip:");
    if let Some(token) = token {
        out.push_str(token);
        out.push('@');
    }
    out.push_str(host_port);
    if !transport.eq_ignore_ascii_case("udp") {
        out.push_str(";transport=");
        out.push_str(&transport.to_ascii_lowercase());
    }
    out.push_str(";lr>");
    out
}
