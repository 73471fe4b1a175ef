//! What goes into the core and what comes out of it.

use bytes::Bytes;
use contract::ProcessId;
use contract::config::WebhookEntry;
use contract::events::CallEvent;
use contract::hop::Inside;
use contract::location::{Aor, StoreError};
use contract::media::MediaEvent;
use contract::ng::Command;
use contract::records::{Key, Owner, Standing, Stored};

/// Names a question of the core's; the driver puts it on the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub(crate) u64);

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A message came over an inside hop.
    Message(&'a Inside),
    /// A question was answered.
    Answered(AskId, Answer),
    /// A relay told something.
    Media {
        /// The relay.
        relay: ProcessId,
        /// What it told.
        event: &'a MediaEvent,
    },
    /// An [`Output::Send`] did not reach its process: it is gone or its queue is full.
    Unsent(&'a Bytes),
    /// The drain took too long: calls end, but for those that another router can take over.
    HangUp,
    /// The call of this id is to end.
    HangUpCall(&'a str),
    /// The bindings of this AOR may have changed.
    Registered(&'a str),
    /// The bindings of any AOR may have changed.
    RegistrationsMissed,
    /// The hold of this id: whatever is registered rings now.
    Ring(&'a str),
    /// The hold of this id is given up: the plan goes on.
    GiveUp(&'a str),
    /// Nothing but time.
    Tick,
}

/// A question to a store or relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Load the bindings of an AOR: [`Answer::Bindings`].
    Load {
        /// The AOR.
        aor: String,
    },
    /// Take a nonce count: [`Answer::Nonce`].
    UseNonce {
        /// The nonce.
        nonce: String,
        /// Its count.
        nc: u32,
        /// Seconds that the use must be remembered.
        ttl: u64,
    },
    /// Save a record: [`Answer::Stored`].
    Save {
        /// `leg`, `call` or `bridge`.
        kind: &'static str,
        /// The record's id.
        id: String,
        /// Its owner.
        owner: Owner,
        /// JSON.
        value: Bytes,
    },
    /// Remove a record: [`Answer::Stored`].
    Remove {
        /// `leg`, `call` or `bridge`.
        kind: &'static str,
        /// The record's id.
        id: String,
        /// Its owner.
        owner: Owner,
    },
    /// How this process stands with the store: [`Answer::Standing`].
    Standing {
        /// This process.
        process: ProcessId,
    },
    /// Who owns records: [`Answer::Owners`].
    Owners,
    /// What a process owns: [`Answer::Owned`].
    Owned {
        /// The process.
        process: ProcessId,
    },
    /// Take records over: [`Answer::Taken`].
    Take {
        /// Which, and who owns them.
        records: Vec<Key>,
        /// This process.
        to: ProcessId,
    },
    /// Who owns a record: [`Answer::Record`].
    Record {
        /// `leg`, `call` or `bridge`.
        kind: &'static str,
        /// The record's id.
        id: String,
    },
    /// Tell whoever wakes phones: [`Answer::Notified`].
    Notify {
        /// The hold that it is about: what is told of one hold is told in order.
        hold: String,
        /// Who is told.
        webhook: WebhookEntry,
        /// JSON.
        body: Bytes,
    },
    /// Command a relay: [`Answer::Sdp`].
    Media {
        /// The relay.
        relay: ProcessId,
        /// What it is to do.
        command: Command,
    },
}

/// The answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To [`Ask::Load`].
    Bindings(Result<Aor, StoreError>),
    /// To [`Ask::UseNonce`]: whether the count is fresh.
    Nonce(Result<bool, StoreError>),
    /// To [`Ask::Save`] and [`Ask::Remove`].
    Stored(Result<(), StoreError>),
    /// To [`Ask::Standing`].
    Standing(Result<Standing, StoreError>),
    /// To [`Ask::Owners`].
    Owners(Result<Vec<ProcessId>, StoreError>),
    /// To [`Ask::Owned`].
    Owned(Result<Vec<Key>, StoreError>),
    /// To [`Ask::Take`]: the records as they are ours.
    Taken(Result<Vec<Stored>, StoreError>),
    /// To [`Ask::Record`]: its owner, if it is there.
    Record(Result<Option<Owner>, StoreError>),
    /// To [`Ask::Notify`]: the status of the HTTP answer, or why there is none.
    Notified(Result<u16, String>),
    /// To [`Ask::Media`]: the rewritten description (empty for a delete), or why the relay refused.
    Sdp(Result<String, String>),
    /// To [`Ask::Media`] too: why the relay gave no answer at all.
    NoRelay(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message over an inside hop.
    Send {
        /// To whom.
        to: ProcessId,
        /// The message.
        bytes: Bytes,
    },
    /// Ask a store or relay. Every question with an id is answered exactly once, if only by an error; one without is
    /// done and forgotten.
    Ask(Option<AskId>, Ask),
    /// Tell whoever follows calls.
    Event(CallEvent),
}
