//! Phones behind the bench's balancer: what they send, and what they read out of what they get.

use super::lab::{BALANCER, EDGE, Lab, Phone, sdp};
use bytes::Bytes;
use contract::Service;
use contract::hop::{self, Hop};
use rtp::sdp::Session;
use sip::build;
use sip::digest;
use sip::message::Message;
use sip::{Method, Name};

impl Lab {
    /// An INVITE as the balancer passes it on; `edit` may add fields.
    pub(crate) fn invite_bytes(
        &mut self,
        phone: &Phone,
        exten: &str,
        body: Option<&str>,
        edit: impl FnOnce(build::Request) -> build::Request,
    ) -> Bytes {
        let cseq = format!("{} INVITE", phone.cseq);
        let hop = Hop { flow: self.flow(&phone.name), trusted: false }.seal(&self.keys, &phone.call_id, &cseq);
        let request = build::request("INVITE", &format!("sip:{exten}@{EDGE}"))
            .header(Name::Via, self.balancer_via())
            .header(Name::Via, format!("SIP/2.0/UDP 127.0.0.1:{0};branch={1}", phone.name, phone.branch))
            .header(Name::RecordRoute, self.route(&phone.name))
            .header(Name::From, format!("{};tag={}", phone.local, phone.tag))
            .header(Name::To, format!("<sip:{exten}@{EDGE}>"))
            .header(Name::CallId, &phone.call_id)
            .header(Name::CSeq, cseq)
            .header(Name::Contact, format!("<sip:{0}@127.0.0.1:{0}>", phone.name))
            .header(Name::Allow, "INVITE, ACK, BYE, CANCEL, UPDATE, INFO")
            .other(hop::HEADER, hop);
        let request = edit(request);
        match body {
            Some(body) => request.body("application/sdp", body.as_bytes().to_vec()).finish(),
            None => request.finish(),
        }
    }

    pub(crate) fn phone(&mut self, name: &str, exten: &str) -> Phone {
        Phone {
            name: name.into(),
            call_id: self.unique("call"),
            tag: self.unique("tag"),
            peer_tag: String::new(),
            local: format!("<sip:{name}@{EDGE}>"),
            remote: format!("<sip:{exten}@{EDGE}>"),
            target: String::new(),
            cseq: 1,
            branch: self.unique("z9hG4bKp"),
        }
    }

    /// The answer to the challenge in `challenge`.
    pub(crate) fn credentials(challenge: &Bytes, user: &str, password: &str, exten: &str) -> String {
        let message = Message::parse_stream(challenge).unwrap();
        let challenge = digest::Challenge::parse(message.header(Name::WwwAuthenticate).unwrap()).unwrap();
        digest_answer(&challenge, user, password, &format!("sip:{exten}@{EDGE}"))
    }

    /// A phone calls: INVITE, 401, INVITE with digest, 100.
    #[track_caller]
    pub(crate) fn call_with(
        &mut self,
        name: &str,
        exten: &str,
        body: Option<&str>,
        edit: impl Fn(build::Request) -> build::Request,
    ) -> Phone {
        let mut phone = self.phone(name, exten);
        let invite = self.invite_bytes(&phone, exten, body, &edit);
        self.receive(invite.clone());
        let challenge = self.response(401, "INVITE");
        self.ack_failure(&invite, &challenge);
        let credentials = Self::credentials(&challenge, name, &format!("secret{name}"), exten);
        phone.cseq += 1;
        phone.branch = self.unique("z9hG4bKp");
        let invite = self.invite_bytes(&phone, exten, body, |r| edit(r).header(Name::Authorization, &credentials));
        self.receive(invite.clone());
        self.response(100, "INVITE");
        phone.branch = branch(&invite);
        phone
    }

    #[track_caller]
    pub(crate) fn call(&mut self, name: &str, exten: &str) -> Phone {
        self.call_with(name, exten, Some(&sdp(4000, "0 8 101")), |r| r)
    }

    /// The ACK of a failure, hop by hop.
    pub(crate) fn ack_failure(&mut self, invite: &Bytes, response: &Bytes) {
        let (invite, response) = (Message::parse_stream(invite).unwrap(), Message::parse_stream(response).unwrap());
        let ack = build::request("ACK", invite.uri().unwrap())
            .header(Name::Via, invite.header(Name::Via).unwrap())
            .header(Name::From, invite.header(Name::From).unwrap())
            .header(Name::To, response.header(Name::To).unwrap())
            .header(Name::CallId, invite.call_id().unwrap())
            .header(Name::CSeq, format!("{} ACK", invite.cseq().unwrap().number))
            .finish();
        self.receive(ack);
    }

    /// The caller's dialog from a response to its INVITE.
    pub(crate) fn joined(phone: &mut Phone, response: &Bytes) {
        let message = Message::parse_stream(response).unwrap();
        phone.peer_tag = message.to().unwrap().tag().unwrap().to_owned();
        if let Some(Ok(sip::header::Contact::Addr(contact))) = message.contacts().next() {
            phone.target = contact.uri.to_owned();
        }
    }

    /// A callee's end of an INVITE that it got.
    pub(crate) fn callee(&mut self, invite: &Bytes) -> Phone {
        let message = Message::parse_stream(invite).unwrap();
        let Some(Ok(sip::header::Contact::Addr(contact))) = message.contacts().next() else { panic!("no Contact") };
        let (from, to) = (message.from().unwrap(), message.to().unwrap());
        let name = sip::uri::Uri::parse(message.uri().unwrap()).unwrap().user.unwrap().to_owned();
        Phone {
            name,
            call_id: message.call_id().unwrap().to_owned(),
            tag: self.unique("callee"),
            peer_tag: from.tag().unwrap().to_owned(),
            local: format!("<{}>", to.uri),
            remote: format!("<{}>", from.uri),
            target: contact.uri.to_owned(),
            cseq: 0,
            branch: message.via().unwrap().branch().unwrap().to_owned(),
        }
    }

    /// A callee answers the INVITE, re-INVITE, INFO or BYE that it got.
    pub(crate) fn answer(&mut self, phone: &Phone, request: &Bytes, status: u16, body: Option<&str>) -> Bytes {
        self.answer_with(phone, request, status, body, |r| r)
    }

    pub(crate) fn answer_with(
        &mut self,
        phone: &Phone,
        request: &Bytes,
        status: u16,
        body: Option<&str>,
        edit: impl for<'m, 'a> FnOnce(build::Response<'m, 'a>) -> build::Response<'m, 'a>,
    ) -> Bytes {
        let message = Message::parse_stream(request).unwrap();
        let response = build::response(&message, status, None, (status > 100).then_some(phone.tag.as_str()))
            .header(Name::RecordRoute, self.route(&phone.name))
            .header(Name::Contact, format!("<sip:{0}@127.0.0.1:{0}>", phone.name))
            .header(Name::Allow, "INVITE, ACK, BYE, CANCEL, UPDATE, INFO");
        let response = edit(response);
        let bytes = match body {
            Some(body) => response.body("application/sdp", body.as_bytes().to_vec()).finish(),
            None => response.finish(),
        };
        self.receive(bytes.clone());
        bytes
    }

    /// A request within a phone's dialog.
    pub(crate) fn within(&mut self, phone: &mut Phone, method: &str, body: Option<(&str, &str)>) -> Bytes {
        self.within_with(phone, method, body, |r| r)
    }

    pub(crate) fn within_with(
        &mut self,
        phone: &mut Phone,
        method: &str,
        body: Option<(&str, &str)>,
        edit: impl FnOnce(build::Request) -> build::Request,
    ) -> Bytes {
        if method != "ACK" {
            phone.cseq += 1;
        }
        let request = build::request(method, &phone.target)
            .header(Name::Via, self.balancer_via())
            .header(Name::MaxForwards, "69")
            .header(Name::From, format!("{};tag={}", phone.local, phone.tag))
            .header(Name::To, format!("{};tag={}", phone.remote, phone.peer_tag))
            .header(Name::CallId, &phone.call_id)
            .header(Name::CSeq, format!("{} {method}", phone.cseq))
            .header(Name::Contact, format!("<sip:{0}@127.0.0.1:{0}>", phone.name));
        let request = edit(request);
        let bytes = match body {
            Some((kind, body)) => request.body(kind, body.as_bytes().to_vec()).finish(),
            None => request.finish(),
        };
        self.receive(bytes.clone());
        bytes
    }

    /// The caller cancels its INVITE.
    pub(crate) fn cancel(&mut self, phone: &Phone, exten: &str) {
        let cancel = build::request("CANCEL", &format!("sip:{exten}@{EDGE}"))
            .header(
                Name::Via,
                format!("SIP/2.0/TCP {};branch={}", hop::host(Service::Balancer, BALANCER), phone.branch),
            )
            .header(Name::From, format!("{};tag={}", phone.local, phone.tag))
            .header(Name::To, &phone.remote)
            .header(Name::CallId, &phone.call_id)
            .header(Name::CSeq, format!("{} CANCEL", phone.cseq))
            .finish();
        self.receive(cancel);
    }

    /// 8005 calls 8006, which answers while the store is gone; it stays gone.
    #[track_caller]
    pub(crate) fn talk_without_the_store(&mut self) -> (Phone, Phone) {
        self.register("8006");
        let mut a = self.call("8005", "8006");
        let invite = self.request("INVITE");
        let b = self.callee(&invite);
        self.store_down = true;
        self.answer(&b, &invite, 200, Some(&sdp(5000, "0")));
        self.request("ACK");
        let ok = self.response(200, "INVITE");
        Self::joined(&mut a, &ok);
        self.within(&mut a, "ACK", None);
        (a, b)
    }

    /// 8005 calls 8006 and both talk: the caller and the callee.
    #[track_caller]
    pub(crate) fn talk(&mut self) -> (Phone, Phone) {
        if !self.aors.contains_key("8006") {
            self.register("8006");
        }
        let mut a = self.call("8005", "8006");
        let invite = self.request_to("INVITE", "8006");
        let b = self.callee(&invite);
        self.answer(&b, &invite, 180, None);
        self.response(180, "INVITE");
        self.answer(&b, &invite, 200, Some(&sdp(5000, "0 101")));
        self.request("ACK");
        let ok = self.response(200, "INVITE");
        Self::joined(&mut a, &ok);
        self.within(&mut a, "ACK", None);
        self.quiet();
        (a, b)
    }
}

pub(crate) fn digest_answer(challenge: &digest::Challenge, user: &str, password: &str, uri: &str) -> String {
    let input = digest::ResponseInput {
        algorithm: challenge.algorithm,
        nonce: &challenge.nonce,
        cnonce: "c",
        nc: "00000001",
        qop: Some(digest::Qop::Auth),
        method: Method::Invite.as_str(),
        uri,
        body: b"",
    };
    let ha1 = digest::ha1(challenge.algorithm, user, &challenge.realm, password);
    format!(
        "Digest username=\"{user}\", realm=\"{}\", nonce=\"{}\", uri=\"{uri}\", response=\"{}\", algorithm={}, qop=auth, nc=00000001, cnonce=\"c\"",
        challenge.realm,
        challenge.nonce,
        digest::response(&input, &ha1),
        challenge.algorithm
    )
}

pub(crate) fn branch(bytes: &Bytes) -> String {
    Message::parse_stream(bytes).unwrap().via().unwrap().branch().unwrap().to_owned()
}

/// A field's value.
pub(crate) fn field(bytes: &Bytes, name: Name) -> String {
    Message::parse_stream(bytes).unwrap().header(name).unwrap_or_default().to_owned()
}

/// The body as a description.
pub(crate) fn body(bytes: &Bytes) -> Session {
    Session::parse(Message::parse_stream(bytes).unwrap().body()).unwrap()
}
