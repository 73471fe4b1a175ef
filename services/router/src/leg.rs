//! Legs: one dialog each, with its own negotiated description, session timer and record.

use crate::bridge::BridgeKey;
use crate::call::CallKey;
use crate::media::Side;
use crate::negotiate::{self, Told};
use bytes::Bytes;
use contract::ProcessId;
use contract::records::{DialogRecord, Direction, LegRecord, Owner, SCHEMA, SessionRecord};
use sip::build::Request;
use sip::dialog::{Dialog, Retransmit2xx};
use sip::transaction::{ClientId, ServerId};
use std::net::IpAddr;
use std::time::Duration;

/// Names a leg within the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LegKey(pub(crate) u64);

/// How far a leg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its INVITE has no final answer yet.
    Setup,
    /// 2xx, but no ACK yet.
    Answered,
    /// 2xx and ACK.
    Confirmed,
    /// Nobody needs it any more; its last transactions finish.
    Ending,
}

/// A 2xx to an INVITE, sent until its ACK comes.
#[derive(Debug, Clone)]
pub(crate) struct Resend {
    pub(crate) server: ServerId,
    /// The INVITE's CSeq number, which is the ACK's too.
    pub(crate) cseq: u32,
    pub(crate) repeat: Retransmit2xx,
}

/// Why we sent a re-INVITE or UPDATE on a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It carries what this other leg asked for.
    Carry(LegKey),
    /// Its session timer.
    Refresh,
    /// It is told what it should know after its far leg was replaced or a change failed half way.
    Realign,
}

/// A request of theirs that changes the session, being served.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    pub(crate) server: ServerId,
    /// INVITE rather than UPDATE.
    pub(crate) invite: bool,
    pub(crate) offer: Option<String>,
}

/// A request of ours that changes the session, unanswered.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    pub(crate) client: Option<ClientId>,
    /// INVITE rather than UPDATE.
    pub(crate) invite: bool,
    pub(crate) cseq: u32,
    pub(crate) purpose: Purpose,
    /// It carries an offer.
    pub(crate) offers: bool,
    /// What they had been told before.
    pub(crate) before: String,
    /// A 1xx came, so that CANCEL may follow.
    pub(crate) progressed: bool,
    /// CANCEL is to be sent, or was.
    pub(crate) cancelled: bool,
}

/// The one offer and answer that may be under way on a leg (RFC 3261 14).
#[derive(Debug, Clone)]
pub(crate) enum Exchange {
    Serving(Serving),
    Asking(Asking),
}

/// The session timer of a leg (RFC 4028).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionTimer {
    pub(crate) interval: Duration,
    /// We refresh; else they do.
    pub(crate) ours: bool,
}

/// One leg.
#[derive(Debug)]
pub(crate) struct Leg {
    /// Its id: in records, at the relay, in its Contact.
    pub(crate) id: String,
    /// The call that it belongs to, until it is ending.
    pub(crate) call: Option<CallKey>,
    /// That call's id.
    pub(crate) call_id: String,
    pub(crate) owner: Owner,
    pub(crate) direction: Direction,
    /// Endpoint; `conference` for a leg to a conference.
    pub(crate) endpoint: String,
    pub(crate) codecs: Vec<String>,
    pub(crate) phase: Phase,
    /// Our Contact on it.
    pub(crate) contact: String,
    /// Call-ID and our tag: what in-dialog requests are found by.
    pub(crate) name: (String, String),
    /// Call-ID and their tag: what merged INVITEs are found by (inbound).
    pub(crate) caller: Option<(String, String)>,
    pub(crate) dialog: Option<Dialog>,
    /// The other side's Session-ID.
    pub(crate) remote_session: Option<String>,
    /// Where its signalling comes from or goes to outside.
    pub(crate) remote: Option<IpAddr>,

    /// Their INVITE, until its final answer.
    pub(crate) server: Option<ServerId>,
    /// Our INVITE, until its transaction ends.
    pub(crate) client: Option<ClientId>,
    /// Where our INVITE goes, before there is a dialog.
    pub(crate) next: Option<ProcessId>,
    /// The balancer that brought its side's last answer: it has the way there.
    pub(crate) heard_by: Option<ProcessId>,
    /// Our INVITE without its body.
    pub(crate) draft: Option<Request>,
    /// Our INVITE as sent: dialogs are made from it.
    pub(crate) invite: Option<Bytes>,
    /// A 1xx came to our INVITE.
    pub(crate) progressed: bool,
    /// It rang.
    pub(crate) rang: bool,
    /// A 1xx other than 100 came: its phone is awake.
    pub(crate) spoke: bool,
    /// CANCEL is to be sent as soon as a 1xx came, with this Reason.
    pub(crate) cancel: Option<Option<String>>,
    /// CANCEL was sent, with this Reason, and has no answer; where it is not taken it is sent again until then.
    pub(crate) cancelling: Option<(Option<String>, Duration)>,
    /// The relay that knows it.
    pub(crate) relay: Option<ProcessId>,
    /// What its relay says since the call's media moved there, untold: only addresses and ports count.
    pub(crate) place: Option<String>,
    /// The same, told in the re-INVITE under way.
    pub(crate) placing: Option<String>,
    /// How often that re-INVITE was refused for the moment.
    pub(crate) refusals: u32,

    /// What they were told.
    pub(crate) told: Told,
    /// What they said last.
    pub(crate) said: Option<String>,
    /// That was an offer that `told` answered.
    pub(crate) said_offer: bool,
    /// Our 2xx carries an offer: the ACK's answer belongs to this other leg.
    pub(crate) awaits_answer: Option<LegKey>,
    /// The CSeq number of an INVITE of ours whose 2xx we have not acknowledged.
    pub(crate) unacknowledged: Option<u32>,
    /// Our last ACK, for a 2xx that comes again.
    pub(crate) last_ack: Option<(u32, Bytes)>,
    /// Our 2xx until its ACK.
    pub(crate) resend: Option<Resend>,
    /// No 2xx of ours to an INVITE of theirs lacks its ACK.
    pub(crate) acked: bool,
    /// What it must be told as soon as it can be: a re-INVITE of ours with this description.
    pub(crate) realign: Option<String>,
    /// It is told again only because nobody knows whether it got our 2xx.
    pub(crate) doubted: bool,
    /// BYE waits for the ACK (RFC 3261 15), with this Reason.
    pub(crate) bye_on_ack: Option<Option<String>>,
    pub(crate) bye_sent: bool,
    pub(crate) exchange: Option<Exchange>,
    pub(crate) timer: Option<SessionTimer>,
    /// The least session interval it accepts, in seconds (RFC 4028 5).
    pub(crate) min_se: u32,
    pub(crate) allows_update: bool,
    pub(crate) bridge: Option<BridgeKey>,
    pub(crate) answered_at: u64,
    /// CSeq number of our last INVITE on it.
    pub(crate) last_invite: Option<u32>,
    /// Unix seconds of its session timer's last start.
    pub(crate) refreshed_at: u64,
    /// It was another router's.
    pub(crate) adopted: bool,
    /// A record of it is or will be in the store.
    pub(crate) saved: bool,
    /// Requests of ours under way on it.
    pub(crate) open: u32,
}

/// What a leg begins with.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) id: String,
    pub(crate) call: CallKey,
    pub(crate) call_id: String,
    pub(crate) owner: Owner,
    pub(crate) direction: Direction,
    pub(crate) endpoint: String,
    pub(crate) codecs: Vec<String>,
    pub(crate) contact: String,
    pub(crate) name: (String, String),
    pub(crate) told: Told,
}

impl Leg {
    /// A leg in its setup.
    pub(crate) fn new(begin: Begin) -> Self {
        Self {
            id: begin.id,
            call: Some(begin.call),
            call_id: begin.call_id,
            owner: begin.owner,
            direction: begin.direction,
            endpoint: begin.endpoint,
            codecs: begin.codecs,
            phase: Phase::Setup,
            contact: begin.contact,
            name: begin.name,
            caller: None,
            dialog: None,
            remote_session: None,
            remote: None,
            server: None,
            client: None,
            next: None,
            heard_by: None,
            draft: None,
            invite: None,
            progressed: false,
            rang: false,
            spoke: false,
            cancel: None,
            cancelling: None,
            relay: None,
            place: None,
            placing: None,
            refusals: 0,
            told: begin.told,
            said: None,
            said_offer: false,
            awaits_answer: None,
            unacknowledged: None,
            last_ack: None,
            resend: None,
            acked: begin.direction == Direction::Outbound,
            realign: None,
            doubted: false,
            bye_on_ack: None,
            bye_sent: false,
            exchange: None,
            timer: None,
            min_se: 0,
            allows_update: false,
            bridge: None,
            answered_at: 0,
            last_invite: None,
            refreshed_at: 0,
            adopted: false,
            saved: false,
            open: 0,
        }
    }

    /// How the relay knows it.
    pub(crate) fn side(&self) -> Side<'_> {
        Side { leg: &self.id, remote: self.remote }
    }

    /// True once 2xx was sent or received and the leg is not ending.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Answered | Phase::Confirmed)
    }

    /// True if a further offer would collide with one under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.exchange.is_some()
            || self.unacknowledged.is_some()
            || self.resend.is_some()
            || self.phase != Phase::Confirmed
    }

    /// True if nothing is left to wait for.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Ending
            && self.client.is_none()
            && self.server.is_none()
            && self.open == 0
            && self.resend.is_none()
    }

    /// What whoever takes it over has to tell it yet.
    fn owed(&self) -> Option<String> {
        let known = self.realign.clone().unwrap_or_else(|| self.told.text().to_owned());
        match (&self.place, &self.exchange) {
            (Some(place), _) => Some(negotiate::relocate(&known, place)),
            (None, Some(Exchange::Asking(asking))) => match asking.purpose {
                Purpose::Carry(_) => Some(asking.before.clone()),
                Purpose::Realign => Some(self.told.text().to_owned()),
                Purpose::Refresh => None,
            },
            _ => self.realign.clone(),
        }
    }

    /// Its record as of `now` (Unix seconds), in this bridge; `awaits` is the id of the leg whose offer it is to answer.
    /// `None` before there is a dialog.
    pub(crate) fn record(&self, now: u64, bridge: Option<String>, awaits: Option<String>) -> Option<LegRecord> {
        let dialog = self.dialog.as_ref()?;
        Some(LegRecord {
            schema: SCHEMA,
            id: self.id.clone(),
            call: self.call_id.clone(),
            owner: self.owner,
            direction: self.direction,
            endpoint: self.endpoint.clone(),
            dialog: dialog_record(dialog),
            local_sdp: self.told.text().to_owned(),
            remote_sdp: self.said.clone().unwrap_or_default(),
            bridge,
            answered_at: self.answered_at,
            relay: self.relay,
            saved_at: now,
            remote: self.remote,
            codecs: self.codecs.clone(),
            said_offer: self.said_offer,
            remote_session: self.remote_session.clone(),
            session: self.timer.map(|timer| SessionRecord {
                interval: timer.interval.as_secs(),
                ours: timer.ours,
                // Before the first start its answer is on the way.
                since: if self.refreshed_at == 0 { now } else { self.refreshed_at },
            }),
            min_se: self.min_se,
            allows_update: self.allows_update,
            invite: self.last_invite,
            acked: self.acked,
            owed: self.owed().filter(|owed| !owed.is_empty()),
            moving: self.place.is_some() || self.placing.is_some(),
            awaits,
        })
    }
}

/// A dialog as it is stored.
pub(crate) fn dialog_record(dialog: &Dialog) -> DialogRecord {
    DialogRecord {
        call_id: dialog.id.call_id.clone(),
        local_tag: dialog.id.local_tag.clone(),
        remote_tag: dialog.id.remote_tag.clone(),
        local_uri: dialog.local_uri.clone(),
        remote_uri: dialog.remote_uri.clone(),
        remote_target: dialog.remote_target.clone(),
        route_set: dialog.route_set.clone(),
        local_cseq: dialog.local_cseq,
        remote_cseq: dialog.remote_cseq,
    }
}
