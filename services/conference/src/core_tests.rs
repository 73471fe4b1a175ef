//! Legs in virtual time: real requests and answers, sockets and files that the test plays.

use super::*;
use contract::Service;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rtp::sdp::{Codec, Session};

pub(crate) const ME: ProcessId = ProcessId(3);
pub(crate) const ROUTER: ProcessId = ProcessId(4);

/// A router's end of a leg.
pub(crate) struct Caller {
    pub(crate) uri: String,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    branch: u32,
    to: String,
    target: String,
    pub(crate) rtp: String,
}

impl Caller {
    pub(crate) fn new(uri: &str) -> Self {
        Self {
            uri: uri.into(),
            call_id: format!("call-{uri}"),
            cseq: 0,
            branch: 0,
            to: format!("<{uri}>"),
            target: uri.into(),
            rtp: "127.0.0.1:4000".into(),
        }
    }

    pub(crate) fn sdp(&self, lines: &str) -> String {
        let (host, port) = self.rtp.split_once(':').unwrap();
        format!(
            "v=0\r\no=- 1 {} IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio {port} RTP/AVP {lines}",
            self.cseq + 1
        )
    }

    pub(crate) fn request(&mut self, method: &str, headers: &str, body: &str) -> Bytes {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        if method != "CANCEL" {
            self.branch += 1;
        }
        let kind =
            if body.is_empty() || headers.contains("Content-Type") { "" } else { "Content-Type: application/sdp\r\n" };
        let contact = if method == "INVITE" || method == "UPDATE" {
            format!("Contact: <sip:leg@{}>\r\n", hop::host(Service::Router, ROUTER))
        } else {
            String::new()
        };
        let target = if method == "CANCEL" { &self.uri } else { &self.target };
        Bytes::from(format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/TCP {};branch=z9hG4bKr{}-{}\r\nMax-Forwards: 69\r\n\
             From: <sip:8005@h>;tag=f\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {} {method}\r\n{contact}{headers}{kind}\
             Content-Length: {}\r\n\r\n{body}",
            hop::host(Service::Router, ROUTER),
            self.branch,
            self.call_id.len(),
            self.to,
            self.call_id,
            self.cseq,
            body.len()
        ))
    }

    /// Takes dialog and target out of a 2xx.
    pub(crate) fn established(&mut self, response: &Message<'_>) {
        self.to = response.header(Name::To).unwrap().to_owned();
        if let Some(Ok(sip::header::Contact::Addr(contact))) = response.contacts().next() {
            self.target = contact.uri.to_owned();
        }
    }

    /// An answer of 200 to the other side's request.
    pub(crate) fn ok(request: &Message<'_>) -> Bytes {
        build::response(request, 200, None, None).finish()
    }
}

struct World {
    core: Core,
    now: Now,
    rng: StdRng,
    sent: VecDeque<Bytes>,
    orders: Vec<Output>,
    counts: Vec<&'static str>,
}

impl World {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self {
            core: Core::new(ME, settings),
            now: Now { mono: Duration::from_secs(9), wall: Duration::from_secs(1_700_000_000) },
            rng: StdRng::seed_from_u64(5),
            sent: VecDeque::new(),
            orders: Vec::new(),
            counts: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        self.core.handle(input, self.now, &mut self.rng);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Send { to, bytes } => {
                    assert_eq!(to, ROUTER);
                    self.sent.push_back(bytes);
                }
                Output::Count(what) => self.counts.push(what),
                order => self.orders.push(order),
            }
        }
    }

    fn deliver(&mut self, bytes: Bytes) {
        self.input(Input::Message(Inside { from: ROUTER, service: Service::Router, bytes }));
    }

    fn pass(&mut self, by: Duration) {
        let end = self.now.plus(by);
        while let Some(at) = self.core.deadline().filter(|d| *d <= end.mono) {
            self.now = self.now.plus(at.saturating_sub(self.now.mono));
            self.input(Input::Tick);
        }
        self.now = end;
    }

    fn next(&mut self) -> Option<Bytes> {
        self.sent.pop_front()
    }

    /// Sends and returns the status of the one answer.
    fn ask(&mut self, request: Bytes) -> u16 {
        self.deliver(request);
        let answer = self.next().expect("an answer");
        assert!(self.sent.is_empty());
        Message::parse_stream(&answer).unwrap().status().unwrap()
    }

    fn opened(&mut self, port: u16) -> LegId {
        let Some(Output::Open(id, _)) = self.orders.pop() else { panic!("not opened: {:?}", self.orders) };
        self.input(Input::Opened(id, Ok(SocketAddr::from(([127, 0, 0, 1], port)))));
        id
    }

    /// INVITE, 200, ACK.
    fn call(&mut self, caller: &mut Caller, headers: &str) -> (LegId, Bytes) {
        let offer = caller.sdp("0 8\r\n");
        let invite = caller.request("INVITE", headers, &offer);
        self.deliver(invite);
        let id = self.opened(7000);
        let ok = self.next().expect("200");
        let message = Message::parse_stream(&ok).unwrap();
        assert_eq!(message.status(), Some(200));
        caller.established(&message);
        assert!(self.orders.is_empty());
        let ack = caller.request("ACK", "", "");
        self.deliver(ack);
        (id, ok)
    }
}

fn remote(world: &mut World) -> (&'static str, LegId, Agreed) {
    match world.orders.pop() {
        Some(Output::Start(id, agreed)) => ("start", id, agreed),
        Some(Output::Update(id, agreed)) => ("update", id, agreed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leg_is_in_its_room_from_ack_to_bye() {
    let mut world = World::new();
    let mut caller = Caller::new("sip:room-100@conference.invalid;max=1;quiet");
    let (id, _) = world.call(&mut caller, "");
    let joined = crate::room::Voice { joined: true, ..Default::default() };
    assert_eq!(world.orders.pop(), Some(Output::Room(Act::Voice(id, joined))));
    assert!(matches!(world.orders.pop(), Some(Output::Start(started, _)) if started == id));
    assert_eq!(world.core.rooms().member(id).map(|m| m.from.as_str()), Some("8005"));
    // The room is full.
    let mut late = Caller::new("sip:room-100@conference.invalid");
    let (offer, count) = (late.sdp("0\r\n"), world.core.len());
    let invite = late.request("INVITE", "", &offer);
    assert_eq!((world.ask(invite), world.core.len()), (486, count));
    world.input(Input::Digit(id, '*'));
    world.input(Input::Digit(id, '8'));
    let bye = world.next().unwrap();
    let bye = Message::parse_stream(&bye).unwrap();
    assert_eq!((bye.method(), bye.other(ENDED)), (Some(Method::Bye), Some("left")));
    assert!(!world.core.rooms().has("100"));
}

#[test]
fn who_belongs_into_a_room_here_comes_in_while_it_drains() {
    let mut world = World::new();
    world.call(&mut Caller::new("sip:room-100@conference.invalid"), "");
    world.orders.clear();
    world.input(Input::Drain);
    let mut late = Caller::new("sip:room-2000@conference.invalid");
    let offer = late.sdp("0\r\n");
    let invite = late.request("INVITE", "", &offer);
    assert_eq!(world.ask(invite), 503);
    world.call(&mut Caller::new("sip:room-100@conference.invalid;x"), "");
    assert_eq!(world.core.len(), 2);
}

#[test]
fn a_prompt_is_played_from_ack_to_bye() {
    let mut world = World::new();
    let mut caller = Caller::new("sip:play@conference.invalid;prompt=welcome.wav");
    let (id, ok) = world.call(&mut caller, "Record-Route: <sip:b;lr>\r\n");
    let message = Message::parse_stream(&ok).unwrap();
    assert_eq!(message.header(Name::RecordRoute), Some("<sip:b;lr>"));
    assert_eq!(caller.target, format!("sip:conference@{}", hop::host(Service::Conference, ME)));
    let answer = Session::parse(message.body()).unwrap();
    assert_eq!(answer.rtp_address(0), Some("127.0.0.1:7000".parse().unwrap()));
    let (order, started, agreed) = remote(&mut world);
    assert_eq!((order, started, agreed.codec), ("start", id, Codec::ulaw()));
    assert_eq!(agreed.remote, Some("127.0.0.1:4000".parse().unwrap()));

    world.input(Input::Played(id));
    let bye = world.next().unwrap();
    let bye = Message::parse_stream(&bye).unwrap();
    assert_eq!(bye.method(), Some(Method::Bye));
    assert_eq!((bye.other(ENDED), bye.header(Name::Route)), (Some("completed"), Some("<sip:b;lr>")));
    assert!(bye.header(Name::Reason).unwrap().contains("Prompt ended"));
    assert_eq!(bye.uri(), Some(format!("sip:leg@{}", hop::host(Service::Router, ROUTER)).as_str()));
    assert_eq!(world.orders, [Output::Close(id)]);
    world.deliver(Caller::ok(&bye));
    assert!(world.core.is_empty() && world.next().is_none());
    // Crossing: the caller's BYE finds nothing any more.
    let late = caller.request("BYE", "", "");
    assert_eq!(world.ask(late), 481);
    world.pass(Duration::from_secs(40));
    assert!(world.next().is_none());
}

#[test]
fn the_caller_hangs_up() {
    let mut world = World::new();
    let mut caller = Caller::new("sip:echo@conference.invalid");
    let (id, _) = world.call(&mut caller, "");
    world.orders.clear();
    let bye = caller.request("BYE", "", "");
    assert_eq!(world.ask(bye), 200);
    assert_eq!(world.orders, [Output::Close(id)]);
    // Its prompt ended in the same moment: nobody is told.
    world.input(Input::Played(id));
    assert!(world.next().is_none() && world.core.is_empty());
}

#[test]
fn an_invite_without_sdp_gets_an_offer_and_the_ack_answers_it() {
    for (body, want) in [("8\r\n", None), ("9\r\n", Some("unusable")), ("", Some("unusable"))] {
        let mut world = World::new();
        let mut caller = Caller::new("sip:tone-440@conference.invalid");
        let invite = caller.request("INVITE", "", "");
        world.deliver(invite);
        let id = world.opened(7000);
        let ok = world.next().unwrap();
        let message = Message::parse_stream(&ok).unwrap();
        let offer = Session::parse(message.body()).unwrap();
        assert_eq!(offer.audio_codecs().iter().map(|c| c.payload).collect::<Vec<_>>(), [0, 8, 101]);
        caller.established(&message);
        // An offer of theirs now would cross ours.
        let update = caller.sdp("0\r\n");
        let update = caller.request("UPDATE", "", &update);
        assert_eq!(world.ask(update), 491);
        caller.cseq -= 1;
        let answer = if body.is_empty() { String::new() } else { caller.sdp(body) };
        let ack = caller.request("ACK", "", &answer);
        world.deliver(ack);
        match want {
            None => {
                let (order, _, agreed) = remote(&mut world);
                assert_eq!((order, agreed.codec), ("start", Codec::alaw()));
            }
            Some(why) => {
                let bye = world.next().unwrap();
                assert_eq!(Message::parse_stream(&bye).unwrap().other(ENDED), Some(why));
                assert_eq!(world.orders, [Output::Close(id)]);
            }
        }
    }
}

#[test]
fn what_is_refused_and_how() {
    let good = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
    let other = good.replace("AVP 0", "AVP 9");
    for (uri, method, headers, body, want) in [
        ("sip:8006@h", "INVITE", "", good, 404),
        ("sip:play@h", "INVITE", "", good, 404),
        ("sip:echo@h", "INVITE", "", &other[..], 488),
        ("sip:echo@h", "INVITE", "", "v=1\r\n", 400),
        ("sip:echo@h", "INVITE", "Content-Type: text/plain\r\n", "hello", 415),
        ("sip:echo@h", "INVITE", "Require: 100rel\r\n", good, 420),
        ("sip:echo@h", "INVITE", "Supported: timer\r\nSession-Expires: 60\r\n", good, 422),
        ("sip:echo@h", "OPTIONS", "", "", 200),
        ("sip:echo@h", "REGISTER", "", "", 405),
        ("sip:echo@h", "BYE", "", "", 481),
        ("sip:echo@h", "CANCEL", "", "", 481),
    ] {
        let mut world = World::new();
        let request = Caller::new(uri).request(method, headers, body);
        world.deliver(request);
        let answer = world.next().unwrap();
        let answer = Message::parse_stream(&answer).unwrap();
        assert_eq!(answer.status(), Some(want), "{method} {uri} {headers}");
        let told = match want {
            488 => Name::Warning,
            415 => Name::Accept,
            420 => Name::Unsupported,
            422 => Name::MinSE,
            405 => Name::Allow,
            _ => continue,
        };
        assert!(answer.header(told).is_some(), "{want}");
        assert!(world.core.is_empty());
    }
}

#[test]
fn only_routers_are_heard() {
    let mut world = World::new();
    let mut caller = Caller::new("sip:echo@h");
    let offer = caller.sdp("0\r\n");
    let bytes = caller.request("INVITE", "", &offer);
    world.input(Input::Message(Inside { from: ROUTER, service: Service::Balancer, bytes }));
    assert!(world.next().unwrap().starts_with(b"SIP/2.0 403"));
    let request = caller.request("INVITE", "X-KubePBX-Hop: x\r\n", &offer);
    assert_eq!(world.ask(request), 403);
    assert!(world.core.is_empty() && world.orders.is_empty());
}

#[test]
fn a_missing_prompt_is_404_and_a_cancelled_leg_487() {
    let mut world = World::new();
    for (error, want) in [(OpenError::Missing, 404), (OpenError::Failed, 500)] {
        let mut caller = Caller::new("sip:play@h;file=none");
        let offer = caller.sdp("0\r\n");
        let invite = caller.request("INVITE", "", &offer);
        world.deliver(invite);
        let Some(Output::Open(id, _)) = world.orders.pop() else { panic!() };
        world.input(Input::Opened(id, Err(error)));
        let answer = world.next().unwrap();
        assert_eq!(Message::parse_stream(&answer).unwrap().status(), Some(want));
        assert!(world.core.is_empty());
        assert!(Message::parse_stream(&answer).unwrap().to().unwrap().tag().is_some());
        world = World::new();
    }
    let mut caller = Caller::new("sip:play@h;file=slow");
    let offer = caller.sdp("0\r\n");
    let invite = caller.request("INVITE", "", &offer);
    world.deliver(invite);
    let Some(Output::Open(id, _)) = world.orders.pop() else { panic!() };
    let cancel = caller.request("CANCEL", "", "");
    world.deliver(cancel);
    let statuses: Vec<_> = world.sent.drain(..).map(|b| Message::parse_stream(&b).unwrap().status().unwrap()).collect();
    assert_eq!(statuses, [200, 487]);
    assert_eq!(world.orders.pop(), Some(Output::Close(id)));
    // The socket that was opened meanwhile is closed.
    world.input(Input::Opened(id, Ok("127.0.0.1:7000".parse().unwrap())));
    assert_eq!(world.orders, [Output::Close(id)]);
}

#[test]
fn a_2xx_is_repeated_until_its_ack_or_given_up() {
    let mut world = World::new();
    let mut caller = Caller::new("sip:echo@h");
    let offer = caller.sdp("0\r\n");
    let invite = caller.request("INVITE", "", &offer);
    world.deliver(invite);
    world.opened(7000);
    let ok = world.next().unwrap();
    world.pass(Duration::from_millis(1600));
    assert_eq!(world.sent.drain(..).collect::<Vec<_>>(), [ok.clone(), ok.clone()]);
    world.pass(Duration::from_secs(31));
    let bye = world.sent.pop_back().unwrap();
    assert_eq!(Message::parse_stream(&bye).unwrap().other(ENDED), Some("unacknowledged"));
    assert!(world.core.is_empty());
}

#[test]
fn reinvite_and_update_change_the_sound() {
    let mut world = World::new();
    let mut caller = Caller::new("sip:echo@h");
    world.call(&mut caller, "");
    assert_eq!(remote(&mut world).0, "start");
    // Hold.
    let hold = caller.sdp("0\r\na=sendonly\r\n");
    let request = caller.request("INVITE", "", &hold);
    world.deliver(request);
    let ok = world.next().unwrap();
    let answer = Session::parse(Message::parse_stream(&ok).unwrap().body()).unwrap();
    assert_eq!((answer.origin.version, answer.direction(0).sends()), (2, false));
    let (order, _, agreed) = remote(&mut world);
    assert_eq!((order, agreed.remote), ("update", None));
    let ack = caller.request("ACK", "", "");
    world.deliver(ack);
    assert!(world.orders.is_empty());
    // A new address by UPDATE.
    caller.rtp = "127.0.0.1:4444".into();
    let moved = caller.sdp("8\r\n");
    let request = caller.request("UPDATE", "", &moved);
    assert_eq!(world.ask(request), 200);
    let (_, _, agreed) = remote(&mut world);
    assert_eq!((agreed.codec, agreed.remote), (Codec::alaw(), Some("127.0.0.1:4444".parse().unwrap())));
    // re-INVITE without SDP: our offer, answered in the ACK.
    let request = caller.request("INVITE", "", "");
    world.deliver(request);
    let ok = world.next().unwrap();
    assert!(!Message::parse_stream(&ok).unwrap().body().is_empty());
    let answer = caller.sdp("0\r\n");
    let ack = caller.request("ACK", "", &answer);
    world.deliver(ack);
    assert_eq!(remote(&mut world).2.codec, Codec::ulaw());
    // One that does not fit changes nothing and ends nothing.
    let bad = caller.sdp("9\r\n");
    let request = caller.request("INVITE", "", &bad);
    assert_eq!(world.ask(request), 488);
    let request = caller.request("UPDATE", "", "");
    assert_eq!(world.ask(request), 200);
    let request = caller.request("OPTIONS", "", "");
    assert_eq!(world.ask(request), 200);
    let request = caller.request("REFER", "Refer-To: <sip:x@h>\r\n", "");
    assert_eq!(world.ask(request), 405);
    caller.cseq = 1;
    let old = caller.request("UPDATE", "", "");
    assert_eq!(world.ask(old), 500);
    assert!(world.orders.is_empty());
    assert_eq!(world.core.len(), 1);
}

#[test]
fn a_session_that_nobody_refreshes_ends() {
    let timer = "Supported: timer\r\nSession-Expires: 90\r\n";
    let mut world = World::new();
    let mut caller = Caller::new("sip:echo@h");
    let (_, ok) = world.call(&mut caller, timer);
    let ok = Message::parse_stream(&ok).unwrap();
    assert_eq!(ok.header(Name::SessionExpires), Some("90;refresher=uac"));
    assert_eq!(ok.header(Name::Require), Some("timer"));
    world.pass(Duration::from_secs(50));
    let refresh = caller.request("UPDATE", timer, "");
    assert_eq!(world.ask(refresh), 200);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.core.len(), 1);
    world.pass(Duration::from_secs(2));
    let bye = world.next().unwrap();
    assert_eq!(Message::parse_stream(&bye).unwrap().other(ENDED), Some("expired"));
    assert!(world.core.is_empty());
    // Without a timer, and where we would have to refresh, it lasts until the limit.
    for headers in ["Session-Expires: 90\r\n", "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n"] {
        let mut world = World::new();
        let (_, ok) = world.call(&mut Caller::new("sip:echo@h"), headers);
        assert!(Message::parse_stream(&ok).unwrap().header(Name::SessionExpires).is_none());
        world.pass(Duration::from_secs(6 * 3600 - 1));
        assert_eq!(world.core.len(), 1);
        world.pass(Duration::from_secs(2));
        assert!(world.core.is_empty());
        assert!(world.counts.contains(&"limit"));
    }
}

#[test]
fn full_or_draining_it_takes_nothing_new_and_keeps_what_it_has() {
    let mut world = World::with(Settings { limit: 1, ..Settings::default() });
    let mut first = Caller::new("sip:echo@h");
    world.call(&mut first, "");
    let offer = first.sdp("0\r\n");
    let second = Caller { call_id: "second-call".into(), ..Caller::new("sip:echo@h") }.request("INVITE", "", &offer);
    assert_eq!(world.ask(second), 503);
    let bye = first.request("BYE", "", "");
    assert_eq!(world.ask(bye), 200);
    let mut third = Caller { call_id: "third".into(), ..Caller::new("sip:echo@h") };
    world.orders.clear();
    world.call(&mut third, "");
    world.input(Input::Drain);
    let fourth = Caller { call_id: "fourth-call-id".into(), ..Caller::new("sip:echo@h") }.request("INVITE", "", &offer);
    assert_eq!(world.ask(fourth), 503);
    assert_eq!(world.core.len(), 1);
    let bye = third.request("BYE", "", "");
    assert_eq!(world.ask(bye), 200);
}

#[test]
fn noise_does_not_panic() {
    use rand::Rng;
    let mut world = World::new();
    let mut caller = Caller::new("sip:play@h;prompt=a&tone:440");
    let (_, _) = world.call(&mut caller, "Supported: timer\r\nSession-Expires: 90\r\n");
    let body = caller.sdp("0 8 101\r\na=rtpmap:101 telephone-event/8000\r\n");
    for method in ["INVITE", "ACK", "UPDATE", "BYE", "CANCEL"] {
        let good = caller.request(method, "Record-Route: <sip:b;lr>\r\nSession-Expires: 1800\r\n", &body);
        for _ in 0..4000 {
            let mut bytes = good.to_vec();
            for _ in 0..world.rng.random_range(1..4) {
                let at = world.rng.random_range(0..bytes.len());
                bytes[at] = world.rng.random();
            }
            world.deliver(Bytes::from(bytes));
            world.sent.clear();
            for order in std::mem::take(&mut world.orders) {
                if let Output::Open(id, _) = order {
                    world.input(Input::Opened(id, Ok("127.0.0.1:7000".parse().unwrap())));
                }
            }
        }
    }
    assert!(world.core.len() <= world.core.settings.limit);
    world.pass(Duration::from_secs(7 * 3600));
    assert!(world.core.is_empty() && world.core.dialogs.is_empty());
}
