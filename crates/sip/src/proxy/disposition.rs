//! What a stateful proxy does with what its transaction layer received (16.2, 16.7 item 1, 16.10, 16.11).

use crate::transaction::{ClientId, Received, ServerId};

/// The proxy's next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// A new request: validate, choose targets, forward by client transactions.
    Process(ServerId),
    /// A CANCEL for a request that we forwarded: answer it 200 and cancel the open branches of `invite` (16.10). The final answer of
    /// the INVITE comes from the branches (487), not from us.
    CancelBranches {
        /// The CANCEL's own transaction, to be answered 200.
        cancel: ServerId,
        /// The INVITE whose branches are cancelled.
        invite: ServerId,
    },
    /// A CANCEL for what we do not know: forget its transaction ([`crate::transaction::Transactions::forget`]) and forward it without
    /// state (16.10), since we may have forwarded the INVITE so, or before a restart.
    ForwardCancel(ServerId),
    /// An ACK for a 2xx, by its Route, without a transaction (17.1: the ACK has none), with [`super::stateless_branch`].
    ForwardAck,
    /// A response of a branch: to its response context.
    Branch(ClientId),
    /// A response of no branch: pop our Via and send it to the next one (16.7 item 1, 16.11); a 2xx of a fork that came late is of this
    /// kind. Without a next Via it is dropped.
    ForwardResponse,
    /// Nothing to do.
    Nothing,
    /// Answer 503 without state: [`crate::transaction::overloaded`].
    Overloaded,
    /// Malformed: answer a request 400 without state, drop a response.
    Malformed,
}

/// Maps what was received to the proxy's next step.
pub fn disposition(received: Received) -> Disposition {
    match received {
        Received::Request(id) => Disposition::Process(id),
        Received::Cancel { cancel, invite: Some(invite) } => Disposition::CancelBranches { cancel, invite },
        Received::Cancel { cancel, invite: None } => Disposition::ForwardCancel(cancel),
        Received::Ack2xx => Disposition::ForwardAck,
        Received::Response(id) => Disposition::Branch(id),
        Received::StrayResponse => Disposition::ForwardResponse,
        Received::AckAbsorbed | Received::Absorbed => Disposition::Nothing,
        Received::Overflow => Disposition::Overloaded,
        Received::Invalid => Disposition::Malformed,
    }
}
