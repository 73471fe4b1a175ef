//! From a REGISTER's bytes to what it asks, bounded.

use crate::save::{Asked, Register, Wanted};
use contract::Flow;
use contract::location::Push;
use sip::header::{Contact, NameAddr, unquote};
use sip::uri::Uri;
use sip::{Message, Name, ParseError};
use std::borrow::Cow;

/// Contacts in one REGISTER.
pub const MAX_CONTACTS: usize = 16;
const MAX_PATH: usize = 8;
const MAX_VALUE: usize = 1024;
const MAX_CALL_ID: usize = 256;
const MAX_USER_AGENT: usize = 128;

/// Why a REGISTER is answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A header field breaks its grammar.
    #[error("{0}")]
    Parse(#[from] ParseError),
    /// `*` with other contacts or without `Expires: 0` (RFC 3261 10.3 step 6).
    #[error("Contact: * stands alone, with Expires: 0")]
    Star,
    /// More contacts or Path values than are read.
    #[error("too many {0}")]
    TooMany(Name),
    /// A value longer than is stored.
    #[error("{0} too long")]
    TooLong(Name),
    /// A contact that no call could be sent to.
    #[error("Contact is not a SIP URI")]
    NotSip,
}

/// Reads what a REGISTER that came on `flow` asks.
pub fn read(message: &Message<'_>, flow: Flow) -> Result<Register, ReadError> {
    let expires = message.expires().transpose()?;
    let mut star = false;
    let mut contacts = Vec::new();
    for contact in message.contacts() {
        match contact? {
            Contact::Star => star = true,
            Contact::Addr(addr) => contacts.push(wanted(&addr, expires)?),
        }
        if contacts.len() > MAX_CONTACTS {
            return Err(ReadError::TooMany(Name::Contact));
        }
    }
    let asked = match (star, contacts.is_empty()) {
        (true, true) if expires == Some(0) && message.contacts().count() == 1 => Asked::RemoveAll,
        (true, _) => return Err(ReadError::Star),
        (false, true) => Asked::Query,
        (false, false) => Asked::Contacts(contacts),
    };
    let path: Vec<String> = message.values(Name::Path).take(MAX_PATH + 1).map(str::to_owned).collect();
    if path.len() > MAX_PATH {
        return Err(ReadError::TooMany(Name::Path));
    }
    bounded(Name::Path, path.iter().map(String::len).max().unwrap_or(0), MAX_VALUE)?;
    let call_id = message.call_id()?;
    bounded(Name::CallId, call_id.len(), MAX_CALL_ID)?;
    let user_agent = message.header(Name::UserAgent).map(|v| v.chars().take(MAX_USER_AGENT).collect());
    Ok(Register { call_id: call_id.to_owned(), cseq: message.cseq()?.number, asked, path, flow, user_agent })
}

fn bounded(name: Name, length: usize, limit: usize) -> Result<(), ReadError> {
    if length > limit { Err(ReadError::TooLong(name)) } else { Ok(()) }
}

fn wanted(addr: &NameAddr<'_>, expires: Option<u32>) -> Result<Wanted, ReadError> {
    if !addr.uri_parsed().is_ok_and(|u: Uri<'_>| u.is_sip()) {
        return Err(ReadError::NotSip);
    }
    bounded(Name::Contact, addr.uri.len(), MAX_VALUE)?;
    let param = |name: &str| addr.params.get(name).flatten();
    let instance = param("+sip.instance").map(|v| unquote(v).into_owned()).filter(|v| !v.is_empty());
    bounded(Name::Contact, instance.as_ref().map_or(0, String::len), MAX_VALUE)?;
    let uri = addr.uri_parsed()?;
    let of_push = |name: &str| uri.param(name).flatten().map(Cow::into_owned).filter(|value| !value.is_empty());
    let push = of_push("pn-provider");
    let push = push.map(|provider| Push { provider, prid: of_push("pn-prid"), param: of_push("pn-param") });
    Ok(Wanted {
        push,
        uri: addr.uri.to_owned(),
        expires: match param("expires") {
            Some(own) => seconds(own),
            None => expires,
        },
        q: param("q").and_then(thousandths).unwrap_or(1000),
        // RFC 5626 6: a reg-id without an instance is ignored.
        reg_id: instance.as_ref().and_then(|_| param("reg-id")?.parse().ok()),
        instance,
    })
}

/// delta-seconds; what is too large for us is as good as forever, what is none at all gives the default (RFC 3261
/// 10.2.1.1).
fn seconds(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u32::MAX))
}

/// qvalue (RFC 3261 25.1) in thousandths.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match (whole, fraction) {
        ("0", f) => Some(f),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{ProcessId, Transport};

    fn read_of(headers: &str) -> Result<Register, ReadError> {
        let text = format!(
            "REGISTER sip:h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:a@h>\r\n\
             Call-ID: c\r\nCSeq: 3 REGISTER\r\n{headers}\r\n"
        );
        let addr = "127.0.0.1:5060".parse().unwrap();
        let flow = Flow { transport: Transport::Udp, process: ProcessId(1), connection: 0, local: addr, remote: addr };
        read(&Message::parse(text.as_bytes()).unwrap(), flow)
    }

    fn contacts_of(headers: &str) -> Vec<Wanted> {
        match read_of(headers).unwrap().asked {
            Asked::Contacts(c) => c,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn contacts_are_read_with_their_parameters() {
        let all = contacts_of(
            "m: \"A, b\" <sip:a@h:1;transport=tcp>;expires=60;q=0.25;+sip.instance=\"<urn:uuid:1>\";reg-id=2, sip:b@h;reg-id=1\r\n\
             Expires: 99\r\nContact: <sips:c@h>;expires=x;q=2, <sip:d@h>;expires=99999999999;q=1.0\r\n",
        );
        let plain =
            |uri: &str, expires| Wanted { uri: uri.into(), expires, q: 1000, instance: None, reg_id: None, push: None };
        let first = Wanted {
            uri: "sip:a@h:1;transport=tcp".into(),
            expires: Some(60),
            q: 250,
            instance: Some("<urn:uuid:1>".into()),
            reg_id: Some(2),
            push: None,
        };
        let rest = [plain("sip:b@h", Some(99)), plain("sips:c@h", None), plain("sip:d@h", Some(u32::MAX))];
        assert_eq!(all[0], first);
        assert_eq!(all[1..], rest);
    }

    #[test]
    fn how_a_phone_is_woken_stands_in_its_contacts_uri() {
        let all = contacts_of(
            "Contact: <sip:a@h;pn-provider=apns;pn-prid=00fc%3A13;PN-PARAM=ABC.com.example;transport=tcp>, <sip:b@h;pn-provider>, \
             <sip:c@h>;pn-provider=fcm, <sip:d@h;pn-provider=x>\r\n",
        );
        let push = |provider: &str, prid: Option<&str>, param: Option<&str>| {
            Some(Push { provider: provider.into(), prid: prid.map(Into::into), param: param.map(Into::into) })
        };
        let want = [push("apns", Some("00fc:13"), Some("ABC.com.example")), None, None, push("x", None, None)];
        assert_eq!(all.into_iter().map(|wanted| wanted.push).collect::<Vec<_>>(), want);
    }

    #[test]
    fn path_values_keep_their_order_over_fields() {
        let path = read_of("Path: <sip:1@a;lr>, <sip:2@b;lr>\r\nPath: <sip:3@c;lr>\r\n").unwrap().path;
        assert_eq!(path, ["<sip:1@a;lr>", "<sip:2@b;lr>", "<sip:3@c;lr>"]);
    }

    #[test]
    fn what_is_asked_and_what_is_refused() {
        assert_eq!(read_of("").unwrap().asked, Asked::Query);
        assert_eq!(read_of("Contact: *\r\nExpires: 0\r\n").unwrap().asked, Asked::RemoveAll);
        let long = "a".repeat(1100);
        let many = ["<sip:a@h>"; MAX_CONTACTS + 1].join(",");
        let paths = ["<sip:a@h>"; 9].join(",");
        for (headers, want) in [
            ("Contact: *\r\n", ReadError::Star),
            ("Contact: *\r\nExpires: 5\r\n", ReadError::Star),
            ("Contact: *, <sip:a@h>\r\nExpires: 0\r\n", ReadError::Star),
            ("Contact: *\r\nContact: *\r\nExpires: 0\r\n", ReadError::Star),
            ("Contact: <tel:+12>\r\n", ReadError::NotSip),
            (&format!("Contact: <sip:{long}@h>\r\n"), ReadError::TooLong(Name::Contact)),
            (&format!("Contact: {many}\r\n"), ReadError::TooMany(Name::Contact)),
            (&format!("Path: {paths}\r\n"), ReadError::TooMany(Name::Path)),
        ] {
            assert_eq!(read_of(headers), Err(want), "{headers}");
        }
        assert!(matches!(read_of("Expires: x\r\n"), Err(ReadError::Parse(_))));
    }
}
