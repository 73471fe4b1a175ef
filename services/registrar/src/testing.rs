//! What tests share: a configuration of a few endpoints, and a phone.

use bytes::Bytes;
use contract::config::{AorEntry, Auth, Ha1, PbxEntry, RegistrarEntry, Snapshot, Version};
use contract::hop::{self, Hop};
use contract::location::Binding;
use contract::{Flow, InstallationKey, KeyRing, ProcessId, Service, Transport};
use sip::digest::{self, Algorithm, Challenge, Secret, ha1};
use sip::{Message, Name};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) const ME: ProcessId = ProcessId(1);
pub(crate) const BALANCER: ProcessId = ProcessId(2);

pub(crate) fn keys() -> Arc<KeyRing> {
    Arc::new(KeyRing::new(InstallationKey::new(1, [7; 32])))
}

pub(crate) fn snapshot(domains: &[&str]) -> Snapshot<RegistrarEntry> {
    let endpoint = |name: &str, password: &str, max_contacts| {
        let ha1 = Ha1 {
            md5: ha1(Algorithm::Md5, name, "kubepbx", password),
            sha256: ha1(Algorithm::Sha256, name, "kubepbx", password),
        };
        RegistrarEntry::Endpoint {
            name: name.into(),
            auth: Some(Auth { username: name.into(), ha1 }),
            aor: AorEntry {
                max_contacts,
                remove_existing: false,
                minimum_expiration: 60,
                maximum_expiration: 7200,
                default_expiration: 3600,
            },
        }
    };
    let nobody = RegistrarEntry::Endpoint { name: "open".into(), auth: None, aor: rules_of(&endpoint("x", "x", 1)) };
    let domains: Vec<String> = domains.iter().map(|d| (*d).to_owned()).collect();
    let pbx = PbxEntry { domains, hosts: vec!["lb.example.org".into()], ..PbxEntry::default() };
    let entries = [
        ("Pbx/pbx", RegistrarEntry::Pbx(pbx)),
        ("PbxEndpoint/8005", endpoint("8005", "secret5", 1)),
        ("PbxEndpoint/8006", endpoint("8006", "secret6", 1)),
        ("PbxEndpoint/open", nobody),
    ];
    let entries: BTreeMap<_, _> = entries.into_iter().map(|(k, e)| (k.to_owned(), Arc::new(e))).collect();
    Snapshot { version: Version { epoch: 1, n: 1, hash: 0 }, entries }
}

fn rules_of(entry: &RegistrarEntry) -> AorEntry {
    match entry {
        RegistrarEntry::Endpoint { aor, .. } => aor.clone(),
        RegistrarEntry::Pbx(_) => panic!("not an endpoint"),
    }
}

pub(crate) fn flow(transport: Transport, process: ProcessId) -> Flow {
    let (local, remote) = ("127.0.0.1:5060".parse().unwrap(), "127.0.0.1:5070".parse().unwrap());
    Flow { transport, process, connection: 1, local, remote }
}

/// A binding of this user that expires then.
pub(crate) fn binding(user: &str, expires_at: u64) -> Binding {
    Binding {
        contact: format!("sip:{user}@127.0.0.1:5070"),
        call_id: "c".into(),
        cseq: 1,
        expires_at,
        since: 0,
        updated: 0,
        path: vec![],
        flow: None,
        instance: None,
        reg_id: None,
        q: 1000,
        user_agent: None,
        push: None,
        forget_at: None,
    }
}

/// A phone: it makes REGISTERs as they arrive from a balancer, and answers challenges.
pub(crate) struct Phone {
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) to: String,
    pub(crate) flow: Flow,
    pub(crate) call_id: String,
    pub(crate) cseq: u32,
    pub(crate) nc: u32,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) method: &'static str,
}

impl Phone {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            to: format!("<sip:{user}@127.0.0.1>"),
            flow: flow(Transport::Udp, BALANCER),
            call_id: format!("call-{user}"),
            cseq: 0,
            nc: 0,
            challenge: None,
            method: "REGISTER",
        }
    }

    pub(crate) fn request(&mut self, keys: &KeyRing, headers: &str) -> Bytes {
        self.cseq += 1;
        let authorization = self.challenge.as_ref().map(|challenge| {
            self.nc += 1;
            let secret = Secret::Password(&self.password);
            let value = digest::answer(challenge, &self.user, secret, self.method, "sip:127.0.0.1", "cn", self.nc);
            format!("Authorization: {value}\r\n")
        });
        let hop = Hop { flow: self.flow, trusted: false };
        let hop = hop.seal(keys, &self.call_id, &format!("{} {}", self.cseq, self.method));
        let (method, cseq, to) = (self.method, self.cseq, &self.to);
        let text = format!(
            "{method} sip:127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/TCP {};branch=z9hG4bKbalancer{cseq}\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bKphone{cseq}-{};rport=5070;received=127.0.0.1\r\n\
             Path: <sip:{}@127.0.0.1:5060;lr>\r\n\
             From: {to};tag=f\r\nTo: {to}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 69\r\n\
             User-Agent: phone\r\n{}: {hop}\r\n{headers}{}Content-Length: 0\r\n\r\n",
            hop::host(Service::Balancer, BALANCER),
            self.user,
            self.flow.token(keys),
            self.call_id,
            hop::HEADER,
            authorization.unwrap_or_default(),
        );
        Bytes::from(text)
    }

    /// Takes a challenge out of a 401.
    pub(crate) fn challenged(&mut self, response: &Message<'_>) {
        self.challenge = digest::choose(response.headers(Name::WwwAuthenticate));
        self.nc = 0;
    }
}
