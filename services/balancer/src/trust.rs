//! What is believed of a message from outside (ARCHITECTURE.md, "Trust").
//!
//! Route and Request-URI choose a target only by a token of ours; what only we or a trusted trunk may assert is removed.

use crate::listen::Listeners;
use crate::token::pair;
use contract::leg::LegToken;
use contract::{Flow, KeyRing};
use ipnet::IpNet;
use sip::edit::Edit;
use sip::header::NameAddr;
use sip::uri::Uri;
use sip::{Message, Name};
use std::net::{IpAddr, SocketAddr};

/// Headers that only our own processes may write begin so.
const OWN_PREFIX: &str = "X-KubePBX-";

/// True if the source is a trusted trunk's.
pub fn is_trusted(source: IpAddr, trunks: &[IpNet]) -> bool {
    trunks.iter().any(|net| net.contains(&source))
}

/// Removes what the outside may not say: our own headers, Path, Service-Route, and P-Asserted-Identity of whoever is
/// not a trusted trunk.
pub fn strip_outside<'m, 'a>(edit: &mut Edit<'m, 'a>, message: &'m Message<'a>, trusted: bool) {
    strip_own(edit, message);
    edit.remove_all(Name::Path).remove_all(Name::ServiceRoute);
    if !trusted {
        edit.remove_all(Name::PAssertedIdentity);
    }
}

/// Removes our own headers: towards the outside nobody is to see them.
pub fn strip_own<'m, 'a>(edit: &mut Edit<'m, 'a>, message: &'m Message<'a>) {
    for (name, _) in message.fields() {
        if name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX)) {
            edit.remove_all_other(name);
        }
    }
}

/// What the Route values at the top said that are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnRoutes {
    /// How many of them there are: to be popped.
    pub count: usize,
    /// The flow of the last one that is a plain flow token.
    pub flow: Option<Flow>,
    /// The flow of the last one that is a token of this very dispatched dialog.
    pub pair: Option<Flow>,
    /// There are more Route values, not ours.
    pub foreign: bool,
}

/// Reads the Route values from the top as long as they are ours: by a valid token, or, without a user, by the address
/// (a phone that has us as its outbound proxy). `local` is where the request arrived.
pub fn own_routes(request: &Message<'_>, local: SocketAddr, listeners: &Listeners, keys: &KeyRing) -> OwnRoutes {
    let mut own = OwnRoutes::default();
    let call_id = request.call_id().unwrap_or_default();
    for value in request.values(Name::Route) {
        let uri = NameAddr::parse(value).and_then(|a| a.uri_parsed());
        let Ok(uri) = uri else {
            own.foreign = true;
            break;
        };
        match uri.user {
            Some(user) => {
                if let Some(flow) = Flow::from_token(user, keys) {
                    own.flow = Some(flow);
                } else if let Some(flow) = pair::open(user, call_id, keys) {
                    own.pair = Some(flow);
                } else {
                    own.foreign = true;
                    break;
                }
            }
            None if listeners.is_own(&uri.host, uri.port, local) => {}
            None => {
                own.foreign = true;
                break;
            }
        }
        own.count += 1;
    }
    own
}

/// The leg that a Request-URI names by our token.
pub fn leg(uri: &Uri<'_>, keys: &KeyRing) -> Option<LegToken> {
    LegToken::open(uri.user?, keys)
}

/// True if calls to this host are ours to judge: one of `domains`, an own address, or any when no domains are given.
/// What is judged so goes to an inside service and nowhere else.
pub fn is_our_domain(uri: &Uri<'_>, local: SocketAddr, listeners: &Listeners, domains: &[String]) -> bool {
    if domains.is_empty() || !uri.is_sip() {
        return true;
    }
    let host = uri.host.to_string();
    // Domains have IPv6 addresses without brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    domains.iter().any(|d| d.eq_ignore_ascii_case(host)) || listeners.is_own(&uri.host, uri.port, local)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{InstallationKey, ProcessId, Transport};

    fn keys() -> KeyRing {
        KeyRing::new(InstallationKey::new(1, [1; 32]))
    }

    fn listeners() -> Listeners {
        Listeners::new(vec![(Transport::Udp, local())], None)
    }

    fn local() -> SocketAddr {
        "127.0.0.1:5060".parse().unwrap()
    }

    fn flow(port: u16) -> Flow {
        let remote = SocketAddr::new(local().ip(), port);
        Flow { transport: Transport::Udp, process: ProcessId(1), connection: 0, local: local(), remote }
    }

    fn request(routes: &str) -> Vec<u8> {
        format!(
            "INVITE sip:8006@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
             Call-ID: c\r\nCSeq: 1 INVITE\r\n{routes}Content-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn only_what_is_ours_is_popped() {
        let token = flow(9).token(&keys());
        let mine = pair::seal(&flow(10), "c", &keys());
        let alien = pair::seal(&flow(10), "another call", &keys());
        let forged = "A".repeat(token.len());
        for (routes, want) in [
            (String::new(), OwnRoutes::default()),
            (
                format!("Route: <sip:{token}@x;lr>\r\n"),
                OwnRoutes { count: 1, flow: Some(flow(9)), ..Default::default() },
            ),
            ("Route: <sip:127.0.0.1;lr>\r\n".into(), OwnRoutes { count: 1, ..Default::default() }),
            ("Route: <sip:10.0.0.9;lr>\r\n".into(), OwnRoutes { foreign: true, ..Default::default() }),
            (format!("Route: <sip:{forged}@127.0.0.1;lr>\r\n"), OwnRoutes { foreign: true, ..Default::default() }),
            (
                format!("Route: <sip:{token}@x;lr>, <sip:{mine}@x;lr>\r\nRoute: <sip:evil;lr>\r\n"),
                OwnRoutes { count: 2, flow: Some(flow(9)), pair: Some(flow(10)), foreign: true },
            ),
            (format!("Route: <sip:{alien}@x;lr>\r\n"), OwnRoutes { foreign: true, ..Default::default() }),
        ] {
            let bytes = request(&routes);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(own_routes(&message, local(), &listeners(), &keys()), want, "{routes}");
        }
    }

    #[test]
    fn what_the_outside_may_not_say_is_removed() {
        let bytes = request(
            "Path: <sip:evil>\r\nx-kubepbx-hop: forged\r\nX-KubePBX-Hand-Over: x\r\nservice-route: <sip:evil>\r\n\
             P-Asserted-Identity: <sip:boss@h>\r\nX-Other: kept\r\nX-KUBEPBX-HOP: again\r\n",
        );
        let message = Message::parse(&bytes).unwrap();
        for (trusted, identity) in [(false, 0), (true, 1)] {
            let mut edit = Edit::new(&message);
            strip_outside(&mut edit, &message, trusted);
            let out = edit.finish();
            let out = Message::parse(&out).unwrap();
            assert_eq!(out.headers(Name::PAssertedIdentity).count(), identity);
            assert_eq!(out.other("X-Other"), Some("kept"));
            let names: Vec<_> = out.fields().map(|(n, _)| n.to_ascii_lowercase()).collect();
            assert!(
                !names.iter().any(|n| n.starts_with("x-kubepbx") || n == "path" || n == "service-route"),
                "{names:?}"
            );
        }
    }

    #[test]
    fn domains_bound_what_we_judge() {
        let ours = ["pbx.example".to_owned()];
        for (uri, domains, want) in [
            ("sip:1@PBX.example", &ours[..], true),
            ("sip:1@127.0.0.1", &ours[..], true),
            ("sip:1@127.0.0.1:5061", &ours[..], false),
            ("sip:1@evil.example", &ours[..], false),
            ("sip:1@evil.example", &[], true),
            ("tel:+49", &ours[..], true),
        ] {
            let uri = Uri::parse(uri).unwrap();
            assert_eq!(is_our_domain(&uri, local(), &listeners(), domains), want, "{uri}");
        }
        let trunks = ["192.0.2.0/24".parse().unwrap()];
        assert!(is_trusted("192.0.2.9".parse().unwrap(), &trunks));
        assert!(!is_trusted("192.0.3.9".parse().unwrap(), &trunks));
    }
}
