//! What the router wants of a relay, as NG commands. A leg's id is its tag there and the call id names the call, so
//! whoever takes a leg over needs nothing else.
//!
//! `offer(from A, to B)` describes B's side with A's offer; `answer(from A, to B)` describes A's side with B's answer.
//! A side keeps its ports while the other is replaced, so a new far leg is one more offer from the near one.

use contract::ProcessId;
use contract::ng::{Command, Delete, Description, Query};
use std::net::IpAddr;

/// What a relay must know of a leg.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    /// The leg's id.
    pub(crate) leg: &'a str,
    /// Its phone's address, where signalling came from outside.
    pub(crate) remote: Option<IpAddr>,
}

/// A description made by `writer`, to be shown to `reader`.
fn description(
    call: &str,
    offerer: &str,
    answerer: &str,
    writer: Side<'_>,
    reader: Side<'_>,
    sdp: &str,
    owner: ProcessId,
) -> Description {
    Description {
        received_from: writer.remote,
        outside: writer.remote.is_some(),
        sent_to: reader.remote,
        owner: Some(owner.to_string()),
        ..Description::new(call, offerer, Some(answerer), sdp.as_bytes().to_vec())
    }
}

/// An offer of leg `from`, for leg `to`.
pub(crate) fn offer(call: &str, from: Side<'_>, to: Side<'_>, sdp: &str, owner: ProcessId) -> Command {
    Command::Offer(description(call, from.leg, to.leg, from, to, sdp, owner))
}

/// The answer of leg `to` to an offer of leg `from`.
pub(crate) fn answer(call: &str, from: Side<'_>, to: Side<'_>, sdp: &str, owner: ProcessId) -> Command {
    Command::Answer(description(call, from.leg, to.leg, to, from, sdp, owner))
}

/// From now on `owner` hears of the call.
pub(crate) fn own(call: &str, owner: ProcessId) -> Command {
    Command::Query(Query { call_id: call.into(), owner: Some(owner.to_string()), ..Query::default() })
}

/// The end of one leg and of nothing else.
pub(crate) fn delete_leg(call: &str, leg: &str) -> Command {
    Command::Delete(Delete { call_id: call.into(), from_tag: Some(leg.into()), leg: true, ..Delete::default() })
}

/// The end of the call.
pub(crate) fn delete_call(call: &str) -> Command {
    Command::Delete(Delete { call_id: call.into(), ..Delete::default() })
}

/// The call that a command is about; empty for one that is about none.
pub(crate) fn call_of(command: &Command) -> &str {
    match command {
        Command::Offer(description) | Command::Answer(description) => &description.call_id,
        Command::Delete(delete) => &delete.call_id,
        Command::Query(query) => &query.call_id,
        Command::Ping | Command::List { .. } => "",
    }
}
