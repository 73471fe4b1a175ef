//! NG commands on the core: which legs they mean, and what becomes of their descriptions.

use crate::address::before_latch;
use crate::core::Core;
use crate::rewrite::{Line, RtcpAttribute, rewrite};
use crate::session::{Call, Leg, Ports};
use crate::stream::Stream;
use contract::Now;
use contract::media::MediaEventKind;
use contract::ng::{Command, Delete, Description, Query, Reply, Report, RtcpMux, StreamReport, TagReport};
use rtp::sdp::Session;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

type Refused = &'static str;

impl Core {
    /// Carries a command out.
    pub fn command(&mut self, command: &Command, now: Now, ports: &mut dyn Ports) -> Reply {
        self.now = now.mono;
        let reply = match command {
            Command::Ping => Ok(Reply::Pong),
            Command::Offer(d) => self.offer(d, now, ports),
            Command::Answer(d) => self.answer(d, now, ports),
            Command::Delete(d) => self.delete(d, now, ports),
            Command::Query(q) => self.query(q, now),
            Command::List { limit } => Ok(Reply::Calls(self.by_id.keys().take(*limit).cloned().collect())),
        };
        reply.unwrap_or_else(|reason| {
            self.counters.refused += 1;
            Reply::Error(reason.to_owned())
        })
    }

    fn call(&self, at: usize) -> Option<&Call> {
        self.calls.get(at).and_then(Option::as_ref)
    }

    fn call_mut(&mut self, at: usize) -> Option<&mut Call> {
        self.calls.get_mut(at).and_then(Option::as_mut)
    }

    fn leg_mut(&mut self, call: usize, leg: usize) -> Option<&mut Leg> {
        self.call_mut(call).and_then(|c| c.leg_mut(leg))
    }

    fn stream_of(&self, call: usize, leg: usize, index: usize) -> Option<usize> {
        self.call(call)?.leg(leg)?.streams.get(index).copied().flatten()
    }

    fn new_call(&mut self, id: &str, now: Now) -> Result<usize, Refused> {
        if self.draining {
            return Err("draining: no new calls");
        }
        if self.by_id.len() >= self.config.max_calls {
            return Err("too many calls");
        }
        let call = Call {
            id: id.to_owned(),
            legs: Vec::new(),
            created: now.unix(),
            last_signal: now.unix(),
            touched: now.mono,
            seq: 0,
            recent: VecDeque::new(),
        };
        let at = self.calls.iter().position(Option::is_none).unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() - 1
        });
        if let Some(slot) = self.calls.get_mut(at) {
            *slot = Some(call);
        }
        self.by_id.insert(id.to_owned(), at);
        self.counters.calls_total += 1;
        self.arm(now.mono);
        Ok(at)
    }

    fn add_leg(&mut self, call: usize, tag: Option<&str>, branch: Option<&str>, now: Now) -> Result<usize, Refused> {
        let leg = Leg {
            tag: tag.map(str::to_owned),
            branch: branch.map(str::to_owned),
            pending: tag.is_none(),
            offerer: None,
            peer: None,
            streams: Vec::new(),
            owner: None,
            held: false,
            advertised: None,
            created: now.unix(),
        };
        let at = self.call_mut(call).and_then(|c| c.add(leg)).ok_or("too many legs")?;
        self.counters.legs += 1;
        Ok(at)
    }

    /// Gives the leg a stream for each active line of `sdp` that has none yet.
    fn open(&mut self, call: usize, leg: usize, sdp: &Session, ports: &mut dyn Ports) -> Result<(), Refused> {
        for (index, media) in sdp.media.iter().enumerate() {
            if !media.is_active() || self.stream_of(call, leg, index).is_some() {
                continue;
            }
            let (slot, port) = ports.bind().ok_or("no free media ports")?;
            if self.streams.len() <= slot {
                self.streams.resize_with(slot + 1, || None);
            }
            if let Some(place) = self.streams.get_mut(slot) {
                let mut stream = Stream::new(call, leg, index, port);
                (stream.kind, stream.protocol) = (media.kind.clone(), media.protocol.clone());
                *place = Some(stream);
            }
            self.counters.ports += 2;
            let Some(leg) = self.leg_mut(call, leg) else { continue };
            if leg.streams.len() <= index {
                leg.streams.resize(index + 1, None);
            }
            if let Some(place) = leg.streams.get_mut(index) {
                *place = Some(slot);
            }
        }
        Ok(())
    }

    /// What the leg says of itself: addresses open again, hold, DTMF, RTP and RTCP on one port.
    fn describe(&mut self, call: usize, leg: usize, d: &Description, sdp: &Session) {
        if let Some(leg) = self.leg_mut(call, leg) {
            leg.held = sdp.is_hold();
            if d.owner.is_some() {
                leg.owner.clone_from(&d.owner);
            }
        }
        let instead = d.media_address.or(d.received_from.filter(|_| d.flags.sip_source_address));
        let place = |a: SocketAddr| SocketAddr::new(instead.unwrap_or(a.ip()).to_canonical(), a.port());
        let streams = self.call(call).and_then(|c| c.leg(leg)).map(|l| l.streams.clone()).unwrap_or_default();
        for (index, slot) in streams.into_iter().enumerate() {
            let Some(slot) = slot else { continue };
            let media = sdp.media.get(index).filter(|m| m.is_active());
            let own = |a: &SocketAddr| self.call(call).is_some_and(|c| self.is_own(c, *a));
            let rtp = media.and_then(|_| sdp.rtp_address(index)).map(place).filter(|a| !own(a));
            let rtcp = media.and_then(|_| sdp.rtcp_address(index)).map(place).filter(|a| !own(a));
            let sendable = |a: Option<SocketAddr>| a.and_then(|a| before_latch(a, d.received_from, d.outside));
            let Some(stream) = self.streams.get_mut(slot).and_then(Option::as_mut) else { continue };
            let Some(media) = media else {
                stream.rtp.close();
                stream.rtcp.close();
                continue;
            };
            (stream.kind, stream.protocol) = (media.kind.clone(), media.protocol.clone());
            // DTLS shares RTP's port; what is not RTP is not looked into.
            stream.strict = media.protocol.starts_with("RTP/");
            stream.asymmetric = d.flags.asymmetric;
            stream.received_from = d.received_from.map(|a| a.to_canonical());
            stream.dtmf = media.codecs().iter().find(|c| c.is("telephone-event")).map(|c| c.payload);
            stream.rtp.describe(rtp, sendable(rtp));
            stream.rtcp.describe(rtcp, sendable(rtcp));
        }
    }

    /// The address shown to a leg: chosen once, changed only when the command says for whom or what. Our routers, which own
    /// their legs, say of every leg outside where it is: one of which they say nothing is inside.
    fn show(&mut self, call: usize, leg: usize, d: &Description, ports: &mut dyn Ports) -> IpAddr {
        let known = self.call(call).and_then(|c| c.leg(leg)).and_then(|l| l.advertised);
        let address = match (d.advertise, d.sent_to, known) {
            (Some(address), ..) => address,
            (None, None, Some(known)) => known,
            (None, Some(peer), _) => ports.address_for(Some(peer)),
            (None, None, None) if d.owner.is_some() => ports.inside(),
            (None, None, None) => ports.address_for(d.received_from),
        };
        if let Some(leg) = self.leg_mut(call, leg) {
            leg.advertised = Some(address);
        }
        address
    }

    /// The description for leg `to`, made of `sdp`.
    fn write(&self, call: usize, to: usize, d: &Description, sdp: &Session, address: IpAddr, offer: bool) -> Reply {
        let line = |index: usize| {
            let slot = self.stream_of(call, to, index)?;
            let stream = self.streams.get(slot).and_then(Option::as_ref)?;
            // An offer of one port names the RTCP port too, in case it is refused (RFC 5761 5.1.3).
            let mux = if offer { stream.mux_offered } else { stream.muxed };
            let rtcp = !mux || (offer && !d.rtcp_mux.contains(&RtcpMux::Require));
            Some(Line { port: Some(stream.port), mux, rtcp })
        };
        let lines: Vec<Line> = (0..sdp.media.len()).map(|i| line(i).unwrap_or_default()).collect();
        let attribute = match (d.flags.no_rtcp_attribute, d.flags.full_rtcp_attribute) {
            (true, _) => RtcpAttribute::None,
            (_, true) => RtcpAttribute::Full,
            _ => RtcpAttribute::Port,
        };
        Reply::Sdp(rewrite(sdp, address, &lines, attribute, d.replace_origin).to_vec())
    }

    fn touch(&mut self, call: usize, now: Now) {
        if let Some(call) = self.call_mut(call) {
            call.last_signal = now.unix();
            call.touched = now.mono;
        }
    }

    fn offer(&mut self, d: &Description, now: Now, ports: &mut dyn Ports) -> Result<Reply, Refused> {
        let sdp = Session::parse(&d.sdp).map_err(|_| "failed to parse SDP")?;
        let (call, new) = match self.by_id.get(&d.call_id) {
            Some(at) => (*at, false),
            None => (self.new_call(&d.call_id, now)?, true),
        };
        if !new {
            self.touch(call, now);
        }
        let before: Vec<usize> = self.call(call).map(|c| c.legs().map(|(i, _)| i).collect()).unwrap_or_default();
        let made = self.offered_legs(call, d, now).and_then(|(a, b)| {
            self.open(call, a, &sdp, ports)?;
            self.open(call, b, &sdp, ports)?;
            Ok((a, b))
        });
        let (a, b) = match made {
            Ok(legs) => legs,
            Err(reason) => {
                // Nothing of a failed offer stays.
                self.undo(call, &before, ports);
                return Err(reason);
            }
        };
        self.describe(call, a, d, &sdp);
        for (index, media) in sdp.media.iter().enumerate() {
            let asked = media.rtcp_mux();
            let flag = |f| d.rtcp_mux.contains(&f);
            let (to_a, to_b) = (self.stream_of(call, a, index), self.stream_of(call, b, index));
            if let Some(s) = to_a.and_then(|s| self.streams.get_mut(s)).and_then(Option::as_mut) {
                s.mux_offered = asked && !flag(RtcpMux::Reject);
                s.mux_accept = flag(RtcpMux::Demux) || flag(RtcpMux::Accept);
            }
            if let Some(s) = to_b.and_then(|s| self.streams.get_mut(s)).and_then(Option::as_mut) {
                let off = flag(RtcpMux::Demux) || flag(RtcpMux::Reject);
                s.mux_offered = flag(RtcpMux::Offer) || flag(RtcpMux::Require) || (asked && !off);
            }
        }
        // What the far side sends before its answer is passed on, unless the near one is joined to another already.
        let free = self.call(call).and_then(|c| c.leg(a)).is_some_and(|l| l.peer.is_none_or(|p| p == b));
        if free {
            self.link(call, b, a);
        }
        if let Some(leg) = self.leg_mut(call, b) {
            leg.offerer = Some(a);
        }
        if self.call(call).and_then(|c| c.leg(a)).is_some_and(|l| l.advertised.is_none()) {
            let address = match d.received_from {
                None if d.owner.is_some() => ports.inside(),
                from => ports.address_for(from),
            };
            if let Some(leg) = self.leg_mut(call, a) {
                leg.advertised = Some(address);
            }
        }
        let address = self.show(call, b, d, ports);
        Ok(self.write(call, b, d, &sdp, address, true))
    }

    /// The legs an offer is from and to; made where they are new.
    fn offered_legs(&mut self, call: usize, d: &Description, now: Now) -> Result<(usize, usize), Refused> {
        let find = |core: &Core, tag: &str| core.call(call).and_then(|c| c.by_tag(tag));
        let a = match find(self, &d.from_tag) {
            Some(a) => a,
            None => self.add_leg(call, Some(&d.from_tag), None, now)?,
        };
        let b = match &d.to_tag {
            Some(tag) => find(self, tag),
            None => self.pending(call, a, d.via_branch.as_deref()),
        };
        let b = match b {
            Some(b) if b == a => return Err("from-tag and to-tag are the same"),
            Some(b) => b,
            None => self.add_leg(call, d.to_tag.as_deref(), d.via_branch.as_deref(), now)?,
        };
        Ok((a, b))
    }

    /// The leg without a tag that `a` offered to on this branch.
    fn pending(&self, call: usize, a: usize, branch: Option<&str>) -> Option<usize> {
        let legs = self.call(call)?.legs();
        let mut legs = legs.filter(|(_, l)| l.tag.is_none() && l.offerer == Some(a) && l.branch.as_deref() == branch);
        legs.next().map(|(i, _)| i)
    }

    fn undo(&mut self, call: usize, before: &[usize], ports: &mut dyn Ports) {
        if before.is_empty() {
            // The call was made by this offer: it was never there.
            let Some(call) = self.calls.get_mut(call).and_then(Option::take) else { return };
            self.by_id.remove(&call.id);
            for leg in call.legs.into_iter().flatten() {
                self.close(&leg.streams, ports);
                self.counters.legs = self.counters.legs.saturating_sub(1);
            }
            return;
        }
        let now: Vec<usize> = self.call(call).map(|c| c.legs().map(|(i, _)| i).collect()).unwrap_or_default();
        for leg in now.into_iter().filter(|l| !before.contains(l)) {
            self.remove_leg(call, leg, ports);
        }
    }

    fn answer(&mut self, d: &Description, now: Now, ports: &mut dyn Ports) -> Result<Reply, Refused> {
        let sdp = Session::parse(&d.sdp).map_err(|_| "failed to parse SDP")?;
        let call = *self.by_id.get(&d.call_id).ok_or("unknown call-id")?;
        let to_tag = d.to_tag.as_deref().ok_or("no to-tag")?;
        let a = self.call(call).and_then(|c| c.by_tag(&d.from_tag)).ok_or("unknown from-tag")?;
        let b = self.answering(call, a, to_tag, d.via_branch.as_deref()).ok_or("no offer was made to this leg")?;
        if a == b {
            return Err("from-tag and to-tag are the same");
        }
        self.touch(call, now);
        if let Some(leg) = self.leg_mut(call, b) {
            leg.tag = Some(to_tag.to_owned());
        }
        self.describe(call, b, d, &sdp);
        self.join(call, a, b);
        for (index, media) in sdp.media.iter().enumerate() {
            let accepted = media.rtcp_mux();
            let flag = |f| d.rtcp_mux.contains(&f);
            let (of_a, of_b) = (self.stream_of(call, a, index), self.stream_of(call, b, index));
            if let Some(s) = of_b.and_then(|s| self.streams.get_mut(s)).and_then(Option::as_mut) {
                s.muxed = accepted && s.mux_offered;
            }
            if let Some(s) = of_a.and_then(|s| self.streams.get_mut(s)).and_then(Option::as_mut) {
                let accept = s.mux_accept || flag(RtcpMux::Demux) || flag(RtcpMux::Accept) || accepted;
                s.muxed = s.mux_offered && accept && !flag(RtcpMux::Reject);
            }
        }
        let address = self.show(call, a, d, ports);
        Ok(self.write(call, a, d, &sdp, address, false))
    }

    /// The leg that answers `a`: by its tag, else the one offered to without a tag, which is named by this, also again
    /// (another branch of a fork that a proxy made beyond us answers on the same ports).
    fn answering(&self, call: usize, a: usize, tag: &str, branch: Option<&str>) -> Option<usize> {
        let call = self.call(call)?;
        if let Some(at) = call.by_tag(tag) {
            return Some(at);
        }
        let offered = || call.legs().filter(|(_, l)| l.pending && l.offerer == Some(a));
        let on_branch = || offered().filter(|(_, l)| branch.is_none() || l.branch.as_deref() == branch);
        let unnamed = |(_, l): &(usize, &Leg)| l.tag.is_none();
        // A client that gave a branch with one message only still means the only leg there is.
        let found = on_branch().find(unnamed).or_else(|| on_branch().next());
        found.or_else(|| offered().find(unnamed)).or_else(|| offered().next()).map(|(i, _)| i)
    }

    /// Packets from leg `from` go to leg `to`.
    fn link(&mut self, call: usize, from: usize, to: usize) {
        let streams = self.call(call).and_then(|c| c.leg(from)).map(|l| l.streams.clone()).unwrap_or_default();
        for (index, slot) in streams.into_iter().enumerate() {
            let target = self.stream_of(call, to, index);
            if let Some(stream) = slot.and_then(|s| self.streams.get_mut(s)).and_then(Option::as_mut) {
                stream.peer = target;
            }
        }
    }

    /// No packets from this leg go anywhere.
    fn unlink(&mut self, call: usize, leg: usize) {
        let streams = self.call(call).and_then(|c| c.leg(leg)).map(|l| l.streams.clone()).unwrap_or_default();
        for slot in streams.into_iter().flatten() {
            if let Some(stream) = self.streams.get_mut(slot).and_then(Option::as_mut) {
                stream.peer = None;
            }
        }
    }

    /// Joins two legs; whom they were joined to before is left alone.
    fn join(&mut self, call: usize, a: usize, b: usize) {
        for (leg, other) in [(a, b), (b, a)] {
            let old = self.call(call).and_then(|c| c.leg(leg)).and_then(|l| l.peer).filter(|p| *p != other);
            if let Some(old) = old {
                self.unlink(call, old);
                if let Some(leg) = self.leg_mut(call, old) {
                    leg.peer = None;
                }
            }
            if let Some(leg) = self.leg_mut(call, leg) {
                leg.peer = Some(other);
            }
        }
        // Other branches' early media ends where one has answered.
        let early: Vec<usize> = self
            .call(call)
            .map(|c| c.legs().filter(|(i, l)| l.offerer == Some(a) && *i != b && l.peer.is_none()).map(|(i, _)| i))
            .map(Iterator::collect)
            .unwrap_or_default();
        early.into_iter().for_each(|leg| self.unlink(call, leg));
        self.link(call, a, b);
        self.link(call, b, a);
    }

    fn remove_leg(&mut self, call: usize, at: usize, ports: &mut dyn Ports) {
        let Some(leg) = self.call_mut(call).and_then(|c| c.legs.get_mut(at)).and_then(Option::take) else { return };
        self.close(&leg.streams, ports);
        self.counters.legs = self.counters.legs.saturating_sub(1);
        let Some(call) = self.call_mut(call) else { return };
        for other in call.legs.iter_mut().flatten() {
            if other.peer == Some(at) {
                other.peer = None;
            }
            if other.offerer == Some(at) {
                other.offerer = None;
            }
        }
    }

    fn delete(&mut self, d: &Delete, now: Now, ports: &mut dyn Ports) -> Result<Reply, Refused> {
        let missing = |reason: &'static str| {
            if d.fatal { Err(reason) } else { Ok(Reply::Report { report: None, warning: Some(reason.to_owned()) }) }
        };
        let Some(call) = self.by_id.get(&d.call_id).copied() else {
            return missing("unknown call-id");
        };
        let report = self.report(call, now, &[]);
        let by_tag = |tag: &Option<String>| {
            let call = self.call(call);
            tag.as_deref().and_then(|t| call.and_then(|c| c.by_tag(t)))
        };
        let (from, to) = (by_tag(&d.from_tag), by_tag(&d.to_tag));
        let doomed: Vec<usize> = if d.leg {
            from.into_iter().collect()
        } else if d.from_tag.is_none() && d.to_tag.is_none() {
            self.call(call).map(|c| c.legs().map(|(i, _)| i).collect()).unwrap_or_default()
        } else {
            self.doomed(call, from, to, d.via_branch.as_deref())
        };
        if doomed.is_empty() {
            return missing("unknown tag");
        }
        self.touch(call, now);
        let left = self.call(call).map_or(0, |c| c.legs().filter(|(i, _)| !doomed.contains(i)).count());
        if left == 0 {
            self.end(call, ports);
        } else {
            for leg in doomed {
                self.tell(call, Some(leg), MediaEventKind::Ended);
                self.remove_leg(call, leg, ports);
            }
        }
        Ok(Reply::Report { report: Some(Box::new(report)), warning: None })
    }

    /// The legs that a foreign client's delete means: all, unless others than the two named are joined; with a branch
    /// those offered to on it.
    fn doomed(&self, call: usize, from: Option<usize>, to: Option<usize>, branch: Option<&str>) -> Vec<usize> {
        let Some(call) = self.call(call) else { return Vec::new() };
        if from.is_none() && to.is_none() {
            return Vec::new();
        }
        if let (Some(branch), None) = (branch, to) {
            let on = |l: &Leg| l.branch.as_deref() == Some(branch);
            let hit: Vec<usize> = call.legs().filter(|(_, l)| on(l)).map(|(i, _)| i).collect();
            let rest = call.legs().any(|(i, _)| !hit.contains(&i) && Some(i) != from);
            if !hit.is_empty() && rest {
                return hit;
            }
        }
        let named = |at: usize| Some(at) == from || Some(at) == to;
        let other = call.legs().any(|(i, l)| !named(i) && l.peer.is_some_and(|p| !named(p)));
        if other { to.or(from).into_iter().collect() } else { call.legs().map(|(i, _)| i).collect() }
    }

    fn query(&mut self, q: &Query, now: Now) -> Result<Reply, Refused> {
        let call = *self.by_id.get(&q.call_id).ok_or("unknown call-id")?;
        if let Some(owner) = &q.owner {
            self.own(call, owner);
        }
        let only: Vec<&str> = [&q.from_tag, &q.to_tag].into_iter().filter_map(|t| t.as_deref()).collect();
        Ok(Reply::Report { report: Some(Box::new(self.report(call, now, &only))), warning: None })
    }

    /// Counters of a call; of the legs `only`, when there are any.
    fn report(&self, at: usize, now: Now, only: &[&str]) -> Report {
        let mut report = Report::default();
        let Some(call) = self.call(at) else { return report };
        (report.created, report.last_signal) = (call.created, call.last_signal);
        let unix = |mono: Option<std::time::Duration>| {
            mono.map_or(0, |m| now.wall.saturating_sub(now.mono.saturating_sub(m)).as_secs())
        };
        for (_, leg) in call.legs() {
            let tag = leg.tag.clone().unwrap_or_default();
            let mut entry = TagReport {
                created: leg.created,
                in_dialogue_with: leg.peer.and_then(|p| call.leg(p)).map(|l| l.tag.clone().unwrap_or_default()),
                streams: Vec::new(),
            };
            for s in leg.streams.iter().flatten().filter_map(|s| self.streams.get(*s).and_then(Option::as_ref)) {
                for (rtcp, path) in [(false, &s.rtp), (true, &s.rtcp)] {
                    if rtcp && s.muxed {
                        continue;
                    }
                    if rtcp {
                        report.rtcp.add(path.received)
                    } else {
                        report.rtp.add(path.received)
                    }
                    entry.streams.push(StreamReport {
                        index: s.index,
                        kind: s.kind.clone(),
                        protocol: s.protocol.clone(),
                        rtcp,
                        muxed: s.muxed,
                        local_port: s.port.saturating_add(u16::from(rtcp)),
                        endpoint: path.remote,
                        advertised: path.signalled,
                        latched: path.is_latched(),
                        last_packet: unix(path.last),
                        received: path.received,
                    });
                }
            }
            if only.is_empty() || only.contains(&tag.as_str()) {
                report.tags.insert(tag, entry);
            }
        }
        report
    }
}
