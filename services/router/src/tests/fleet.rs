//! More than one router in the lab: which of them acts, who is gone, and what stands of a call afterwards.

use super::lab::*;
use super::phones::*;
use super::steps;
use crate::Limits;
use crate::core::Core;
use crate::io::Input;
use bytes::Bytes;
use contract::peers::Peer;
use contract::records::Owner;
use contract::{ProcessId, Service};
use dialplan::Step;
use rtp::sdp::Direction;
use sip::message::Message;

pub(super) const HEIR: ProcessId = ProcessId(0xaaab);
pub(super) const THIRD: ProcessId = ProcessId(0xaaac);
pub(super) const SDP: &str = "application/sdp";

/// 8005 is answered by the plan, and 8006 rings behind that: the caller, the callee and its INVITE.
#[track_caller]
pub(super) fn rings_behind_an_answer() -> (Lab, Phone, Phone, Bytes) {
    let plan = steps(&[("100", vec![Step::Answer {}, dial(&["PJSIP/8006"], None)])]);
    let mut lab = Lab::plan(plan).fleet(&[HEIR]);
    lab.register("8006");
    let mut a = lab.call("8005", "100");
    let silence = steps::request(&mut lab, "INVITE");
    steps::answer(&mut lab, &silence, "s", Some(&sdp(6000, "0 8 101")));
    steps::request(&mut lab, "ACK");
    let ok = lab.response(200, "INVITE");
    Lab::joined(&mut a, &ok);
    lab.within(&mut a, "ACK", None);
    let invite = lab.request_to("INVITE", "8006");
    let b = lab.callee(&invite);
    lab.answer(&b, &invite, 180, None);
    (lab, a, b, invite)
}

pub(super) fn hold(port: u16) -> String {
    format!("{}a=sendonly\r\n", sdp(port, "0 101").replace("phone 1 1", "phone 1 2"))
}

pub(super) fn held(port: u16) -> String {
    format!("{}a=recvonly\r\n", sdp(port, "0 101"))
}

impl Lab {
    /// Goes on at another router; this one stands still.
    pub(super) fn switch(&mut self, to: ProcessId) {
        let core = self.others.remove(&to).unwrap();
        let was = std::mem::replace(&mut self.core, core);
        self.others.insert(self.me, was);
        self.me = to;
    }

    /// More routers, which have seen the first. Each is a process of its own.
    pub(super) fn fleet(mut self, more: &[ProcessId]) -> Self {
        let apart = |process: ProcessId| Peer {
            address: format!("127.0.0.1:{}", process.0 & 0xffff),
            ..Peer::new(Service::Router, process)
        };
        self.peers.0.iter_mut().filter(|p| p.process == ROUTER).for_each(|p| *p = apart(ROUTER));
        for process in more {
            self.peers.0.push(apart(*process));
            self.others.insert(*process, Core::new(Limits::default()));
        }
        for process in more {
            self.switch(*process);
            self.input(Input::Tick);
            self.switch(ROUTER);
        }
        self
    }

    pub(super) fn without(&mut self, process: ProcessId) {
        self.peers.0.retain(|p| p.process != process);
    }

    /// This router's record is gone, and another looks; what it sent before stays sent.
    pub(super) fn gone(&mut self, next: ProcessId) {
        self.without(self.me);
        self.switch(next);
        self.input(Input::Tick);
    }

    pub(super) fn owner(&self, process: ProcessId, epoch: u64) -> bool {
        self.owners.len() == 4 && self.owners.values().all(|o| *o == Owner { process, epoch })
    }

    /// Hangs up from one side and checks that nothing is left.
    #[track_caller]
    pub(super) fn ends(mut self, from: &mut Phone, to: &Phone) {
        self.within(from, "BYE", None);
        self.response(200, "BYE");
        let bye = self.request_to("BYE", &to.name);
        self.answer(to, &bye, 200, None);
        self.quiet();
        self.empty();
    }

    /// One side holds and takes the call back; the version that the other is told first.
    #[track_caller]
    pub(super) fn holds(&mut self, from: &mut Phone, to: &Phone) -> u64 {
        let (mine, theirs) = (4000, 5000);
        let mut first = 0;
        for (offer, answer, direction) in [
            (hold(mine), held(theirs), Direction::SendOnly),
            (sdp(mine, "0 101").replace("phone 1 1", "phone 1 3"), sdp(theirs, "0 101"), Direction::SendRecv),
        ] {
            self.within(from, "INVITE", Some((SDP, &offer)));
            self.response(100, "INVITE");
            let reinvite = self.request_to("INVITE", &to.name);
            assert_eq!(body(&reinvite).direction(0), direction);
            if first == 0 {
                first = body(&reinvite).origin.version;
            }
            self.answer(to, &reinvite, 200, Some(&answer));
            self.request_to("ACK", &to.name);
            self.response(200, "INVITE");
            self.within(from, "ACK", None);
            self.quiet();
        }
        first
    }
}

pub(super) fn cseq(bytes: &bytes::Bytes) -> u32 {
    Message::parse_stream(bytes).unwrap().cseq().unwrap().number
}
