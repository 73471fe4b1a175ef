//! A caller that another router held: its INVITE is served as if it had come here, under the same To-tag, and the step
//! that waited goes on. The first answer shows the balancer where the INVITE is now.

use crate::adopt::adopt_walk;
use crate::core::{Core, Turn};
use crate::headers;
use crate::invite::{Caller, Names};
use crate::io::Ask;
use crate::negotiate;
use bytes::Bytes;
use contract::events::CallEventKind;
use contract::hop::{self, Hop};
use contract::records::{CallRecord, Owner};
use sip::Name;
use sip::message::Message;
use sip::transaction::Received;

impl Core {
    /// Goes on with a call whose caller is held and unanswered.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>, owner: Owner, record: CallRecord) {
        let id = record.id.clone();
        if self.resumed(turn, owner, record).is_none() {
            tracing::warn!(call = %id, "a held call cannot be gone on with");
            self.order(Ask::Remove { kind: "call", id, owner });
        }
    }

    fn resumed(&mut self, turn: &mut Turn<'_>, owner: Owner, mut record: CallRecord) -> Option<()> {
        let walk = adopt_walk(&mut record);
        let held = record.held?;
        let invite = held.invite?;
        if self.ids.contains_key(&record.id) {
            return None;
        }
        let bytes = Bytes::from(invite.request);
        let message = Message::parse_stream(&bytes).ok()?;
        message.validate().ok()?;
        let (call_id, cseq) = (message.call_id().ok()?, message.header(Name::CSeq)?);
        let endpoint = turn.view.directory.endpoint(&record.endpoint)?;
        let hop = message.other(hop::HEADER).and_then(|value| Hop::open(value, turn.view.keys, call_id, cseq));
        let Received::Request(server) = self.transactions.receive(&message, &bytes, invite.from, true, turn.now.mono)
        else {
            return None;
        };
        let caller = Caller {
            endpoint,
            hop: hop.as_ref(),
            exten: &record.exten,
            max_forwards: headers::max_forwards(&message)?,
            offer: negotiate::body(&message).ok().flatten(),
            timer: self.session_asked(&message).ok().flatten(),
        };
        let names =
            Names { id: record.id.clone(), leg: record.leg, tag: invite.to_tag, owner, started_at: record.started_at };
        let key = self.begin(turn, &message, server, caller, names)?;
        let call = self.calls.get_mut(&key)?;
        call.walk = walk;
        call.saved = true;
        call.resumed = held.waits;
        self.find_step(turn, key);
        self.counters.adopted += 1;
        tracing::info!(call = %record.id, epoch = owner.epoch, "a held call is taken over");
        self.call_event(turn, key, CallEventKind::TakenOver { router: turn.view.me.to_string() });
        self.progress(turn, key, 180, None);
        self.run(turn, key);
        Some(())
    }
}
