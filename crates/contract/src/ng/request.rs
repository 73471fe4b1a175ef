//! Commands and how they stand on the wire.

use super::bencode::{Value, same_word};
use std::borrow::Cow;
use std::net::IpAddr;

/// Longest cookie that is answered, in bytes.
pub const MAX_COOKIE: usize = 255;
/// Longest call id, tag or branch, in bytes.
pub const MAX_NAME: usize = 512;

/// What may be done about RTP and RTCP on one port (RFC 5761), seen by who receives the new description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RtcpMux {
    /// Offer it even if the other side did not.
    Offer,
    /// Offer it as already agreed: no separate RTCP port.
    Require,
    /// Do not offer it on; accept it back to who offered it.
    Demux,
    /// Accept it back and offer it on.
    Accept,
    /// Refuse it to who offered it.
    Reject,
}

impl RtcpMux {
    const ALL: [(RtcpMux, &'static str); 5] = [
        (RtcpMux::Offer, "offer"),
        (RtcpMux::Require, "require"),
        (RtcpMux::Demux, "demux"),
        (RtcpMux::Accept, "accept"),
        (RtcpMux::Reject, "reject"),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(m, _)| *m == self).map_or("accept", |(_, s)| s)
    }
}

/// Flags of an offer or answer that are acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// `asymmetric`: the sender of this description sends from other addresses than it receives at; nothing is learned.
    pub asymmetric: bool,
    /// `SIP source address`: the signalling's source address counts instead of the description's.
    pub sip_source_address: bool,
    /// `strict source`: packets from elsewhere than the learned address are dropped. Ours always does this; the flag is
    /// kept for the report.
    pub strict_source: bool,
    /// `no rtcp attribute`: leave `a=rtcp` out.
    pub no_rtcp_attribute: bool,
    /// `full rtcp attribute`: write `a=rtcp` with its address.
    pub full_rtcp_attribute: bool,
}

/// A flag's word and its place.
type FlagWord = (&'static str, fn(&mut Flags) -> &mut bool);

const FLAGS: [FlagWord; 5] = [
    ("asymmetric", |f| &mut f.asymmetric),
    ("SIP source address", |f| &mut f.sip_source_address),
    ("strict source", |f| &mut f.strict_source),
    ("no rtcp attribute", |f| &mut f.no_rtcp_attribute),
    ("full rtcp attribute", |f| &mut f.full_rtcp_attribute),
];

/// A session description on its way from one leg to another: what `offer` and `answer` carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// Call id: groups the legs of a call.
    pub call_id: String,
    /// Tag of the leg that made the *offer*, in `answer` too.
    pub from_tag: String,
    /// Tag of the leg that answers; an `answer` must have it.
    pub to_tag: Option<String>,
    /// Via branch, which tells apart the branches of a forked offer that have no to-tag yet.
    pub via_branch: Option<String>,
    /// The description: the offerer's in `offer`, the answerer's in `answer`.
    pub sdp: Vec<u8>,
    /// Where the signalling of the description's leg came from.
    pub received_from: Option<IpAddr>,
    /// `media address`: where the leg's media is, overriding the description and `received_from`.
    pub media_address: Option<IpAddr>,
    /// Flags.
    pub flags: Flags,
    /// RTP and RTCP on one port.
    pub rtcp_mux: Vec<RtcpMux>,
    /// `replace: origin`: put our address into `o=` too.
    pub replace_origin: bool,
    /// Ours, `kubepbx-sent-to`: where the new description will be sent; the address shown in it is chosen for that peer.
    pub sent_to: Option<IpAddr>,
    /// Ours, `kubepbx-advertise`: the address shown in the new description, whatever else would be chosen.
    pub advertise: Option<IpAddr>,
    /// Ours, `kubepbx-owner`: the process that gets the media events of the description's leg.
    pub owner: Option<String>,
    /// Ours, `kubepbx-outside`: the leg's signalling came from outside. A private address in its description is then
    /// not sent to until the leg was heard from, unless it is the signalling's own.
    pub outside: bool,
}

impl Description {
    /// A description from leg `from_tag` to leg `to_tag` of `call_id`, with our defaults: `o=` is replaced too.
    pub fn new(call_id: &str, from_tag: &str, to_tag: Option<&str>, sdp: Vec<u8>) -> Description {
        Description {
            call_id: call_id.to_owned(),
            from_tag: from_tag.to_owned(),
            to_tag: to_tag.map(str::to_owned),
            sdp,
            replace_origin: true,
            ..Description::default()
        }
    }
}

/// Ends a call, or one leg of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delete {
    /// Call id.
    pub call_id: String,
    /// Without any tag the whole call ends. With only this one, that leg ends; with both, the leg `to_tag`.
    /// A foreign client's BYE carries the dialog's tags: when no more than these two legs are left, the call ends.
    pub from_tag: Option<String>,
    /// See `from_tag`.
    pub to_tag: Option<String>,
    /// Ends only the pending legs of this branch.
    pub via_branch: Option<String>,
    /// `fatal`: an unknown call is an error, not a warning.
    pub fatal: bool,
    /// Ours, `kubepbx-leg`: end exactly the leg `from_tag` and nothing else, whatever is left of the call.
    pub leg: bool,
}

/// Asks for a call's counters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Call id.
    pub call_id: String,
    /// Only these legs, when any is given.
    pub from_tag: Option<String>,
    /// Only these legs, when any is given.
    pub to_tag: Option<String>,
    /// Ours, `kubepbx-owner`: the process that gets the media events of all the call's legs from now on.
    pub owner: Option<String>,
}

/// What a client asks of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Are you there? Answered `pong`.
    Ping,
    /// First or next description of a leg that asks.
    Offer(Description),
    /// Description of the leg that answers; joins the two.
    Answer(Description),
    /// Ends a call or a leg.
    Delete(Delete),
    /// Counters of a call.
    Query(Query),
    /// Call ids, at most `limit`.
    List {
        /// Most call ids in the answer; 32 where not said.
        limit: usize,
    },
}

/// A command with the cookie that its reply must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Cookie: matches replies and tells retransmissions.
    pub cookie: Vec<u8>,
    /// Command.
    pub command: Command,
}

/// A message that is not a command. With a cookie it can be answered, by an error with `reason`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RequestError {
    /// The cookie, when there was one.
    pub cookie: Option<Vec<u8>>,
    /// Why, in words for the client.
    pub reason: String,
}

/// Splits `cookie SP rest`.
pub(super) fn split_cookie(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().take(MAX_COOKIE + 1).position(|b| *b == b' ').filter(|at| *at > 0)?;
    Some((bytes.get(..at)?, bytes.get(at + 1..)?))
}

impl Request {
    /// Reads one message.
    pub fn parse(bytes: &[u8]) -> Result<Request, RequestError> {
        let fail = |cookie: Option<&[u8]>, reason: String| RequestError { cookie: cookie.map(<[u8]>::to_vec), reason };
        let (cookie, rest) = split_cookie(bytes).ok_or_else(|| fail(None, "no cookie".to_owned()))?;
        let value = Value::parse(rest).map_err(|e| fail(Some(cookie), e.to_string()))?;
        match Command::from_value(&value) {
            Ok(command) => Ok(Request { cookie: cookie.to_vec(), command }),
            Err(reason) => Err(fail(Some(cookie), reason)),
        }
    }

    /// The message's bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = self.cookie.clone();
        out.push(b' ');
        self.command.to_value().write(&mut out);
        out
    }
}

fn name(value: &Value<'_>, key: &str) -> Result<Option<String>, String> {
    let Some(value) = value.get(key) else { return Ok(None) };
    let text = value.as_str().ok_or_else(|| format!("{key} is not a string"))?;
    if text.len() > MAX_NAME {
        return Err(format!("{key} is longer than {MAX_NAME} bytes"));
    }
    // Clients write an absent tag as an empty string.
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn needed(value: &Value<'_>, key: &str) -> Result<String, String> {
    name(value, key)?.ok_or_else(|| format!("No {key} in message"))
}

fn address(value: &Value<'_>, key: &str) -> Result<Option<IpAddr>, String> {
    let Some(text) = name(value, key)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{key} is not an address"))
}

/// A list of strings, or one string alone.
fn words<'v>(value: &'v Value<'_>, key: &str) -> Vec<&'v [u8]> {
    match value.get(key) {
        Some(Value::List(list)) => list.iter().filter_map(Value::as_bytes).collect(),
        Some(Value::Bytes(one)) => vec![one.as_ref()],
        _ => Vec::new(),
    }
}

impl Command {
    /// Reads a command's dictionary. The error is a sentence for the client.
    pub fn from_value(value: &Value<'_>) -> Result<Command, String> {
        let command = value.get("command").and_then(Value::as_str).ok_or("No \"command\" in message")?;
        match command {
            "ping" => Ok(Command::Ping),
            "offer" => Ok(Command::Offer(description(value)?)),
            "answer" => {
                let answer = description(value)?;
                if answer.to_tag.is_none() {
                    return Err("No to-tag in message".to_owned());
                }
                Ok(Command::Answer(answer))
            }
            "delete" => Ok(Command::Delete(Delete {
                call_id: needed(value, "call-id")?,
                from_tag: name(value, "from-tag")?,
                to_tag: name(value, "to-tag")?,
                via_branch: name(value, "via-branch")?,
                fatal: words(value, "flags").iter().any(|f| same_word(f, b"fatal")),
                leg: flag(value, "kubepbx-leg"),
            })),
            "query" => Ok(Command::Query(Query {
                call_id: needed(value, "call-id")?,
                from_tag: name(value, "from-tag")?,
                to_tag: name(value, "to-tag")?,
                owner: name(value, "kubepbx-owner")?,
            })),
            "list" => {
                let limit = value.get("limit").and_then(Value::as_int).unwrap_or(32);
                let limit = usize::try_from(limit).ok().filter(|l| *l > 0).ok_or("limit must be above 0")?;
                Ok(Command::List { limit })
            }
            _ => Err("Unrecognized command".to_owned()),
        }
    }

    /// The command's dictionary.
    pub fn to_value(&self) -> Value<'_> {
        let mut d = Writer(Vec::new());
        match self {
            Command::Ping => d.text("command", Some("ping")),
            Command::Offer(x) => d.description("offer", x),
            Command::Answer(x) => d.description("answer", x),
            Command::Delete(x) => {
                d.text("command", Some("delete"));
                d.text("call-id", Some(&x.call_id));
                d.text("from-tag", x.from_tag.as_deref());
                d.text("to-tag", x.to_tag.as_deref());
                d.text("via-branch", x.via_branch.as_deref());
                d.list("flags", if x.fatal { vec!["fatal"] } else { vec![] });
                d.text("kubepbx-leg", x.leg.then_some("yes"));
            }
            Command::Query(x) => {
                d.text("command", Some("query"));
                d.text("call-id", Some(&x.call_id));
                d.text("from-tag", x.from_tag.as_deref());
                d.text("to-tag", x.to_tag.as_deref());
                d.text("kubepbx-owner", x.owner.as_deref());
            }
            Command::List { limit } => {
                d.text("command", Some("list"));
                d.put("limit", Value::count(*limit as u64));
            }
        }
        Value::Dict(d.0)
    }
}

fn flag(value: &Value<'_>, key: &str) -> bool {
    match value.get(key) {
        Some(Value::Int(i)) => *i != 0,
        Some(other) => matches!(other.as_str(), Some("yes" | "on" | "true" | "1")),
        None => false,
    }
}

fn description(value: &Value<'_>) -> Result<Description, String> {
    let mut flags = Flags::default();
    for word in words(value, "flags") {
        if let Some((_, place)) = FLAGS.iter().find(|(n, _)| same_word(n.as_bytes(), word)) {
            *place(&mut flags) = true;
        }
        if same_word(word, b"trust address") {
            flags.sip_source_address = false;
        }
    }
    let mux = |w: &[u8]| RtcpMux::ALL.iter().find(|(_, n)| n.as_bytes() == w).map(|(m, _)| *m);
    let mut rtcp_mux: Vec<RtcpMux> = words(value, "rtcp-mux").into_iter().filter_map(mux).collect();
    rtcp_mux.truncate(RtcpMux::ALL.len());
    let received_from = match value.get("received-from") {
        None => None,
        Some(Value::List(list)) => {
            let text = list.get(1).and_then(Value::as_str);
            Some(text.and_then(|t| t.parse().ok()).ok_or("received-from is not a family and an address")?)
        }
        Some(_) => return Err("received-from is not a list".to_owned()),
    };
    Ok(Description {
        sdp: value.get("sdp").and_then(Value::as_bytes).ok_or("No sdp body in message")?.to_vec(),
        call_id: needed(value, "call-id")?,
        from_tag: needed(value, "from-tag")?,
        to_tag: name(value, "to-tag")?,
        via_branch: name(value, "via-branch")?,
        received_from,
        media_address: address(value, "media-address")?,
        flags,
        rtcp_mux,
        replace_origin: words(value, "replace").iter().any(|w| same_word(w, b"origin")),
        sent_to: address(value, "kubepbx-sent-to")?,
        advertise: address(value, "kubepbx-advertise")?,
        owner: name(value, "kubepbx-owner")?,
        outside: flag(value, "kubepbx-outside"),
    })
}

struct Writer<'a>(Vec<(Cow<'a, [u8]>, Value<'a>)>);

impl<'a> Writer<'a> {
    fn put(&mut self, key: &'a str, value: Value<'a>) {
        self.0.push((Cow::Borrowed(key.as_bytes()), value));
    }

    fn text(&mut self, key: &'a str, value: Option<&'a str>) {
        if let Some(value) = value {
            self.put(key, Value::text(value));
        }
    }

    fn list(&mut self, key: &'a str, words: Vec<&'a str>) {
        if !words.is_empty() {
            self.put(key, Value::List(words.into_iter().map(Value::text).collect()));
        }
    }

    fn address(&mut self, key: &'a str, value: Option<IpAddr>) {
        if let Some(value) = value {
            self.put(key, Value::text(value.to_string()));
        }
    }

    fn description(&mut self, command: &'a str, x: &'a Description) {
        self.text("command", Some(command));
        self.text("call-id", Some(&x.call_id));
        self.text("from-tag", Some(&x.from_tag));
        self.text("to-tag", x.to_tag.as_deref());
        self.text("via-branch", x.via_branch.as_deref());
        self.put("sdp", Value::Bytes(Cow::Borrowed(&x.sdp)));
        if let Some(from) = x.received_from {
            let family = if from.is_ipv4() { "IP4" } else { "IP6" };
            self.put("received-from", Value::List(vec![Value::text(family), Value::text(from.to_string())]));
        }
        self.address("media address", x.media_address);
        let mut flags = x.flags;
        self.list("flags", FLAGS.iter().filter(|(_, place)| *place(&mut flags)).map(|(n, _)| *n).collect());
        self.list("rtcp-mux", x.rtcp_mux.iter().map(|m| m.as_str()).collect());
        self.list("replace", if x.replace_origin { vec!["origin", "session connection"] } else { vec![] });
        self.address("kubepbx-sent-to", x.sent_to);
        self.address("kubepbx-advertise", x.advertise);
        self.text("kubepbx-owner", x.owner.as_deref());
        self.text("kubepbx-outside", x.outside.then_some("yes"));
    }
}
