//! pjsip.conf: endpoint, auth, aor and identify sections become one `PbxEndpoint` each, passwords a Secret.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::ini::{self, Section, Setting};
use super::{Imported, Names, Note};
use api::manifests::Source;

const SECRET: &str = "phones";

/// Reads the file.
pub(super) fn import(source: &Source) -> Imported {
    let mut notes = Vec::new();
    let sections = ini::read(source, &mut notes);
    let mut work = Work { file: &source.name, notes, by_type: BTreeMap::new(), used: BTreeSet::new() };
    for section in &sections {
        match section.get("type") {
            Some(kind) => work.by_type.entry(kind.value.to_ascii_lowercase()).or_default().push(section),
            None => work.note(section.line, format!("[{}]: has no type, not carried over", section.name)),
        }
    }
    work.others();
    let mut passwords = Map::new();
    let mut names = Names::default();
    let endpoints = work.by_type.get("endpoint").cloned().unwrap_or_default();
    let mut manifests: Vec<Value> =
        endpoints.iter().filter_map(|section| work.endpoint(section, &mut names, &mut passwords)).collect();
    work.unused();
    if !passwords.is_empty() {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "stringData": passwords,
        });
        manifests.insert(0, secret);
    }
    Imported { manifests, notes: work.notes }
}

struct Work<'a> {
    file: &'a str,
    notes: Vec<Note>,
    by_type: BTreeMap<String, Vec<&'a Section>>,
    /// Sections that an endpoint used, by type and line.
    used: BTreeSet<(&'static str, usize)>,
}

impl<'a> Work<'a> {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push(Note { file: self.file.to_owned(), line, text: text.into() });
    }

    fn lost(&mut self, setting: &Setting, why: &str) {
        self.note(setting.line, format!("{}={}: not carried over{why}", setting.key, setting.value));
    }

    fn find(&mut self, kind: &'static str, name: &str) -> Option<&'a Section> {
        let section = self.by_type.get(kind)?.iter().rev().find(|section| section.name == name).copied()?;
        self.used.insert((kind, section.line));
        Some(section)
    }

    /// Sections of types that become no resource.
    fn others(&mut self) {
        let types: Vec<_> = self.by_type.iter().map(|(kind, sections)| (kind.clone(), sections.clone())).collect();
        for (kind, sections) in types {
            for section in sections {
                match kind.as_str() {
                    "endpoint" | "auth" | "aor" | "identify" => {}
                    "transport" => self.transport(section),
                    _ => {
                        let count = section.settings.len();
                        let text = format!("[{}]: type={kind} is not carried over ({count} settings)", section.name);
                        self.note(section.line, text);
                    }
                }
            }
        }
    }

    fn transport(&mut self, section: &Section) {
        let protocol = section.get("protocol").map_or("udp", |s| s.value.as_str());
        let bind = section.get("bind").map_or("0.0.0.0", |s| s.value.as_str());
        let bind = if bind.contains(':') { bind.to_owned() } else { format!("{bind}:5060") };
        let text = match protocol {
            "udp" | "tcp" => format!(
                "[{}]: where to listen is no resource: start with `kubepbx serve --sip {bind}` (UDP and TCP both)",
                section.name
            ),
            _ => format!("[{}]: a {protocol} transport is not carried over", section.name),
        };
        self.note(section.line, text);
        for setting in &section.settings {
            match setting.key.as_str() {
                "type" | "protocol" | "bind" => {}
                "external_media_address" | "external_signaling_address" => {
                    self.lost(setting, ": start with `kubepbx serve --advertise ADDRESS`");
                }
                _ => self.lost(setting, ""),
            }
        }
    }

    /// Sections that no endpoint names are lost with it.
    fn unused(&mut self) {
        for kind in ["auth", "aor", "identify"] {
            for section in self.by_type.get(kind).cloned().unwrap_or_default() {
                if !self.used.contains(&(kind, section.line)) {
                    self.note(
                        section.line,
                        format!("[{}]: type={kind}, no endpoint uses it, not carried over", section.name),
                    );
                }
            }
        }
    }

    fn endpoint(
        &mut self,
        section: &'a Section,
        names: &mut Names,
        passwords: &mut Map<String, Value>,
    ) -> Option<Value> {
        let (metadata, own) = names.metadata(&section.name);
        let mut spec = Map::new();
        spec.extend(own.map(|name| ("name".to_owned(), name.into())));
        let context = section.get("context").map_or("default", |setting| setting.value.as_str());
        spec.insert("context".into(), context.into());

        let mut codecs: Vec<&'static str> = Vec::new();
        let mut transport_told = false;
        for setting in &section.settings {
            let value = setting.value.as_str();
            match setting.key.as_str() {
                "type" | "context" | "auth" | "aors" => {}
                "allow" | "disallow" => self.codecs(setting, &mut codecs),
                "callerid" => drop(spec.insert("callerId".into(), caller_id(value).into())),
                "identify_by" => self.identify_by(setting, &mut spec),
                "trust_id_inbound" => drop(spec.insert("trustIdInbound".into(), yes(value).into())),
                "transport" => {
                    // One line a phone would bury the rest: all that are alike share the first one's line.
                    let alike = self.notes.iter().any(|note| note.text.starts_with(&format!("transport={value}:")));
                    if !alike && !transport_told {
                        let why = "an endpoint is reached by the transport that it registered over";
                        self.note(setting.line, format!("transport={value}: not carried over, here and below: {why}"));
                    }
                    transport_told = true;
                }
                "rtp_symmetric" | "force_rport" | "rewrite_contact" if yes(value) => {
                    self.note(setting.line, format!("{}={value}: is always so here", setting.key));
                }
                "direct_media" if !yes(value) => {
                    self.note(setting.line, "direct_media=no: is always so here".to_owned());
                }
                _ => self.lost(setting, ""),
            }
        }
        if codecs.is_empty() {
            self.note(
                section.line,
                format!("[{}]: allows no codec that is known here: the defaults hold", section.name),
            );
        } else {
            spec.insert("codecs".into(), json!(codecs));
        }
        if let Some(setting) = section.get("auth") {
            let auth = self.auth(setting, passwords)?;
            spec.insert("auth".into(), auth);
        }
        if let Some(setting) = section.get("aors") {
            let aor = self.aors(setting, &section.name);
            spec.extend(aor.map(|aor| ("aor".to_owned(), aor)));
        }
        let networks = self.identify(&section.name);
        if !networks.is_empty() {
            spec.insert("identify".into(), json!({ "match": networks }));
        } else if !spec.contains_key("auth") {
            let text =
                format!("[{}]: has neither auth nor an address that identifies it, not carried over", section.name);
            self.note(section.line, text);
            return None;
        } else if spec.get("trustIdInbound") == Some(&Value::Bool(true)) {
            spec.remove("trustIdInbound");
            let text = format!("[{}]: trust_id_inbound is not carried over: no address identifies it", section.name);
            self.note(section.line, text);
        }
        Some(json!({
            "apiVersion": api::crds::API_VERSION,
            "kind": "PbxEndpoint",
            "metadata": metadata,
            "spec": spec,
        }))
    }

    /// `allow` and `disallow` are worked off in order.
    fn codecs(&mut self, setting: &Setting, codecs: &mut Vec<&'static str>) {
        const KNOWN: [&str; 4] = ["ulaw", "alaw", "g722", "opus"];
        for item in setting.value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, allow) = match item.strip_prefix('!') {
                Some(name) => (name, setting.key == "disallow"),
                None => (item, setting.key == "allow"),
            };
            // A packet length (ulaw:20) may follow.
            let (name, frames) = name.split_once(':').map_or((name, None), |(name, frames)| (name, Some(frames)));
            let known = KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name));
            match (known, name.eq_ignore_ascii_case("all"), allow) {
                (_, true, true) => KNOWN.into_iter().for_each(|k| {
                    if !codecs.contains(&k) {
                        codecs.push(k);
                    }
                }),
                (_, true, false) => codecs.clear(),
                (Some(known), _, true) if !codecs.contains(&known) => codecs.push(known),
                (Some(known), _, false) => codecs.retain(|codec| *codec != known),
                (None, _, true) => self.note(setting.line, format!("the codec {name}: not carried over")),
                _ => {}
            }
            if let Some(frames) = frames {
                self.note(setting.line, format!("packets of {frames} ms for {name}: not carried over"));
            }
        }
    }

    fn identify_by(&mut self, setting: &Setting, spec: &mut Map<String, Value>) {
        let mut ways = Vec::new();
        for way in setting.value.split(',').map(str::trim) {
            match way {
                "username" => ways.push("username"),
                "auth_username" => ways.push("authUsername"),
                "ip" => ways.push("ip"),
                _ => self.note(setting.line, format!("identify_by={way}: not carried over")),
            }
        }
        if !ways.is_empty() {
            spec.insert("identifyBy".into(), json!(ways));
        }
    }

    /// The auth section's username and where its password went. None, with a note, when the endpoint cannot do without.
    fn auth(&mut self, reference: &Setting, passwords: &mut Map<String, Value>) -> Option<Value> {
        let mut wanted = reference.value.split(',').map(str::trim);
        let name = wanted.next().unwrap_or_default();
        for more in wanted {
            self.note(reference.line, format!("auth={more}: one auth an endpoint, not carried over"));
        }
        let Some(section) = self.find("auth", name) else {
            self.note(reference.line, format!("auth={name}: there is no such section: the endpoint is left out"));
            return None;
        };
        for setting in &section.settings {
            match (setting.key.as_str(), setting.value.as_str()) {
                ("type" | "username" | "password", _) | ("auth_type", "userpass" | "digest") => {}
                ("realm", realm) => self.lost(setting, &format!(": write realm: {realm:?} in a Pbx")),
                // Never the value: it is as good as the password.
                ("md5_cred" | "password_digest", _) => {
                    self.note(
                        setting.line,
                        format!("{}: not carried over: write the password in the Secret", setting.key),
                    );
                }
                _ => self.lost(setting, ""),
            }
        }
        let Some(password) = section.get("password").filter(|password| !password.value.is_empty()) else {
            self.note(section.line, format!("[{name}]: has no password: the endpoints that use it are left out"));
            return None;
        };
        let username = section.get("username").map_or(name, |setting| setting.value.as_str());
        let letter = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
        let base: String = name.chars().map(letter).collect();
        let value = Value::from(password.value.as_str());
        // Two names may be spelled alike as keys.
        let free = |key: &String| passwords.get(key).is_none_or(|there| *there == value);
        let mut keys = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
        let key = keys.find(free).unwrap_or(base);
        passwords.insert(key.clone(), value);
        Some(json!({"username": username, "passwordSecretRef": {"name": SECRET, "key": key}}))
    }

    fn aors(&mut self, reference: &Setting, endpoint: &str) -> Option<Value> {
        let mut wanted = reference.value.split(',').map(str::trim);
        let name = wanted.next().unwrap_or_default();
        for more in wanted {
            self.note(reference.line, format!("aors={more}: one aor an endpoint, not carried over"));
        }
        let Some(section) = self.find("aor", name) else {
            self.note(reference.line, format!("aors={name}: there is no such section: the endpoint cannot register"));
            return None;
        };
        if name != endpoint {
            self.note(reference.line, format!("aors={name}: phones register as {endpoint} here, not as {name}"));
        }
        let mut aor = Map::new();
        let mut contacts = 0;
        for setting in &section.settings {
            let number = setting.value.parse::<u32>();
            match (setting.key.as_str(), number) {
                ("type", _) => {}
                ("max_contacts", Ok(number)) => contacts = number,
                ("remove_existing", _) => drop(aor.insert("removeExisting".into(), yes(&setting.value).into())),
                ("minimum_expiration", Ok(n)) => drop(aor.insert("minimumExpiration".into(), n.into())),
                ("maximum_expiration", Ok(n)) => drop(aor.insert("maximumExpiration".into(), n.into())),
                ("default_expiration", Ok(n)) => drop(aor.insert("defaultExpiration".into(), n.into())),
                ("contact", _) => self.lost(setting, ": a fixed contact is not supported"),
                _ => self.lost(setting, ""),
            }
        }
        if contacts == 0 {
            let text = format!("[{name}]: max_contacts is 0 or not written: nobody may register, so no aor is written");
            self.note(section.line, text);
            return None;
        }
        aor.insert("maxContacts".into(), contacts.into());
        Some(Value::Object(aor))
    }

    /// Addresses of the identify sections of an endpoint.
    fn identify(&mut self, endpoint: &str) -> Vec<String> {
        let mut networks = Vec::new();
        for section in self.by_type.get("identify").cloned().unwrap_or_default() {
            if section.get("endpoint").is_none_or(|setting| setting.value != endpoint) {
                continue;
            }
            self.used.insert(("identify", section.line));
            for setting in &section.settings {
                match setting.key.as_str() {
                    "type" | "endpoint" => {}
                    "match" => {
                        for address in setting.value.split(',').map(str::trim).filter(|a| !a.is_empty()) {
                            match network(address) {
                                Some(network) if networks.contains(&network) => {}
                                Some(network) => networks.push(network),
                                None => self.note(
                                    setting.line,
                                    format!("match={address}: not carried over: write an address or a network"),
                                ),
                            }
                        }
                    }
                    _ => self.lost(setting, ""),
                }
            }
        }
        networks
    }
}

/// An address or network as manifests write it; a mask in dotted form (192.0.2.0/255.255.255.0) becomes a length.
fn network(text: &str) -> Option<String> {
    let (address, mask) = text.split_once('/').map_or((text, None), |(address, mask)| (address, Some(mask)));
    let address: std::net::IpAddr = address.parse().ok()?;
    let Some(mask) = mask else { return Some(address.to_string()) };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = match mask.parse::<std::net::Ipv4Addr>() {
        Ok(dotted) => {
            let bits = u32::from(dotted);
            (bits.leading_ones() + bits.trailing_zeros() == 32).then_some(bits.leading_ones())?
        }
        Err(_) => mask.parse().ok().filter(|length| *length <= longest)?,
    };
    Some(format!("{address}/{length}"))
}

fn yes(value: &str) -> bool {
    ["yes", "true", "y", "t", "1", "on"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Asterisk also takes `Name <number>` without quotation marks, as we do.
fn caller_id(value: &str) -> String {
    value.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> (Vec<Value>, Vec<String>) {
        let imported = import(&Source { name: "p".into(), text: text.into() });
        (imported.manifests, imported.notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn one_endpoint_of_four_sections() {
        let text = "[Trunk_In]\ntype=endpoint\ncontext=in\ndisallow=all\nallow=!all,g722,ulaw:20\nallow=gsm\nauth=a\naors=Trunk_In\n\
            callerid=Eight <8005>\nidentify_by=auth_username,ip,header\ntrust_id_inbound=yes\nrtp_symmetric=yes\ndtmf_mode=rfc4733\n\
            [a]\ntype=auth\nauth_type=userpass\nusername=u\npassword=p;x\n\
            [Trunk_In]\ntype=aor\nmax_contacts=2\nremove_existing=yes\nqualify_frequency=60\n\
            [i]\ntype=identify\nendpoint=Trunk_In\nmatch=192.0.2.0/255.255.255.0,sip.example.org\nmatch=192.0.2.7\n";
        let (manifests, notes) = run(text);
        let expected = json!({
            "apiVersion": "kubepbx.io/v1alpha1",
            "kind": "PbxEndpoint",
            "metadata": {"name": "trunk-in"},
            "spec": {
                "name": "Trunk_In",
                "context": "in",
                "codecs": ["g722", "ulaw"],
                "callerId": "Eight <8005>",
                "identifyBy": ["authUsername", "ip"],
                "identify": {"match": ["192.0.2.0/24", "192.0.2.7"]},
                "trustIdInbound": true,
                "auth": {"username": "u", "passwordSecretRef": {"name": "phones", "key": "a"}},
                "aor": {"maxContacts": 2, "removeExisting": true},
            },
        });
        assert_eq!(manifests[1], expected);
        assert_eq!(manifests[0]["stringData"], json!({"a": "p"}));
        for (at, word) in [
            (5, "20 ms"),
            (6, "gsm"),
            (10, "header"),
            (12, "always"),
            (13, "dtmf_mode"),
            (23, "qualify"),
            (27, "sip.ex"),
        ] {
            assert!(notes.iter().any(|n| n.starts_with(&format!("p:{at}: ")) && n.contains(word)), "{at}: {notes:#?}");
        }
        assert_eq!(notes.len(), 7, "{notes:#?}");
    }

    #[test]
    fn what_has_no_form_here_is_listed() {
        for (text, line, word) in [
            ("[g]\ntype=global\nuser_agent=x\n", 1, "type=global"),
            ("[r]\ntype=registration\n", 1, "type=registration"),
            ("[x]\nallow=ulaw\n", 1, "has no type"),
            ("[t]\ntype=transport\nprotocol=wss\nbind=0.0.0.0\n", 1, "wss transport"),
            ("[t]\ntype=transport\nbind=0.0.0.0\n", 1, "--sip 0.0.0.0:5060"),
            ("[t]\ntype=transport\nlocal_net=10.0.0.0/8\n", 3, "local_net"),
            ("[a]\ntype=auth\npassword=x\n", 1, "no endpoint uses it"),
            ("[e]\ntype=endpoint\nallow=ulaw\nauth=none\n", 4, "no such section"),
            ("[e]\ntype=endpoint\nallow=ulaw\n", 1, "neither auth"),
            ("[e]\ntype=endpoint\nallow=ulaw\nauth=e\n[e]\ntype=auth\nmd5_cred=0123\n", 7, "md5_cred: not"),
            ("[e]\ntype=endpoint\nallow=ulaw\nauth=e\n[e]\ntype=auth\nmd5_cred=0123\n", 5, "no password"),
            ("[e]\ntype=endpoint\nauth=e\n[e]\ntype=auth\npassword=x\n", 1, "no codec"),
            (
                "[e]\ntype=endpoint\nauth=e\naors=f\n[e]\ntype=auth\npassword=x\n[f]\ntype=aor\nmax_contacts=1\n",
                4,
                "register as e",
            ),
            (
                "[e]\ntype=endpoint\nauth=e\naors=e\n[e]\ntype=auth\npassword=x\n[e]\ntype=aor\n",
                8,
                "nobody may register",
            ),
        ] {
            let (_, notes) = run(text);
            assert!(
                notes.iter().any(|n| n.starts_with(&format!("p:{line}: ")) && n.contains(word)),
                "{text}{notes:#?}"
            );
        }
    }

    #[test]
    fn a_password_is_never_in_a_note() {
        let (_, notes) = run("[e]\ntype=endpoint\nauth=e\nauth=f\n[e]\ntype=auth\npassword=hunter2\nmd5_cred=cafe01\n");
        assert!(notes.iter().all(|note| !note.contains("hunter2") && !note.contains("cafe01")), "{notes:#?}");
    }

    #[test]
    fn networks() {
        for (text, want) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.0/24", Some("192.0.2.0/24")),
            ("192.0.2.0/255.255.255.0", Some("192.0.2.0/24")),
            ("192.0.2.0/255.0.255.0", None),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("192.0.2.0/33", None),
            ("sip.example.org", None),
        ] {
            assert_eq!(network(text).as_deref(), want, "{text}");
        }
    }
}
