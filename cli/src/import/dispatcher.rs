//! Kamailio's dispatcher.list: each set becomes a `Dispatcher`.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::{Imported, Note};
use api::manifests::Source;

struct Set {
    id: u32,
    line: usize,
    destinations: Vec<(String, Option<u32>)>,
}

/// Reads the file. With `front` the first set is put in front of all calls.
pub(super) fn import(source: &Source, front: bool) -> Imported {
    let mut work = Work { file: &source.name, notes: Vec::new() };
    let mut sets: Vec<Set> = Vec::new();
    for (at, raw) in source.text.lines().enumerate() {
        let text = raw.split('#').next().unwrap_or_default().trim();
        if !text.is_empty() {
            work.line(at + 1, text, &mut sets);
        }
    }
    let mut manifests = Vec::new();
    let mut fronted = false;
    for set in sets {
        let matched = front && !fronted;
        fronted |= matched;
        manifests.push(work.set(&set, matched));
        let id = set.id;
        work.note(
            set.line,
            match (matched, front) {
                (true, _) => format!("set {id}: takes all calls, before any endpoint and dialplan"),
                (_, true) => format!("set {id}: takes no calls: only one set can take all, the first does"),
                _ => format!(
                    "set {id}: takes no calls until something refers to it: write a match, or import with --front"
                ),
            },
        );
    }
    Imported { manifests, notes: work.notes }
}

struct Work<'a> {
    file: &'a str,
    notes: Vec<Note>,
}

impl Work<'_> {
    fn note(&mut self, line: usize, text: impl Into<String>) {
        self.notes.push(Note { file: self.file.to_owned(), line, text: text.into() });
    }

    /// `SET URI [FLAGS [PRIORITY [ATTRIBUTES]]]`.
    fn line(&mut self, line: usize, text: &str, sets: &mut Vec<Set>) {
        let mut fields = text.split_whitespace();
        let (Some(Ok(id)), Some(uri)) = (fields.next().map(str::parse::<u32>), fields.next()) else {
            self.note(line, format!("{text}: not a set's number and a URI, not carried over"));
            return;
        };
        if let Err(why) = carried(uri) {
            self.note(line, format!("{uri}: not carried over: {why}"));
            return;
        }
        let (flags, priority, attributes) = (fields.next(), fields.next(), fields.next());
        for more in fields {
            self.note(line, format!("{more}: not carried over"));
        }
        self.flags(line, flags.unwrap_or("0"));
        if !matches!(priority, None | Some("0")) {
            self.note(line, format!("the priority {}: not carried over", priority.unwrap_or_default()));
        }
        let mut weight = None;
        for attribute in attributes.unwrap_or_default().split(';').filter(|a| !a.is_empty()) {
            match attribute.split_once('=') {
                Some(("weight", value)) if value.parse::<u16>().is_ok() => weight = value.parse().ok(),
                _ => self.note(line, format!("{attribute}: not carried over")),
            }
        }
        let at = sets.iter().position(|set| set.id == id).unwrap_or_else(|| {
            sets.push(Set { id, line, destinations: Vec::new() });
            sets.len() - 1
        });
        let Some(set) = sets.get_mut(at) else { return };
        if set.destinations.iter().any(|(there, _)| there == uri) {
            self.note(line, format!("{uri}: stands in set {id} already, not carried over"));
        } else {
            set.destinations.push((uri.to_owned(), weight));
        }
    }

    /// A sum of 1 (inactive), 2 (trying), 4 (disabled), 8 (probing) and 16 (no DNS).
    fn flags(&mut self, line: usize, text: &str) {
        let Ok(flags) = text.parse::<u32>() else {
            self.note(line, format!("the flags {text}: not a number, not carried over"));
            return;
        };
        for (bit, what) in [
            (1, "1 (inactive): not carried over, the first probes find out"),
            (2, "2 (trying): not carried over, the first probes find out"),
            (4, "4 (disabled): not carried over: remove the destination or give it the weight 0"),
            (8, "8 (probing): is always so here"),
        ] {
            if flags & bit != 0 {
                self.note(line, format!("the flag {what}"));
            }
        }
        if flags & !15 != 0 {
            self.note(line, format!("the flags {}: not carried over", flags & !15));
        }
    }

    fn set(&mut self, set: &Set, front: bool) -> Value {
        let weighted = set.destinations.iter().any(|(_, weight)| weight.is_some_and(|weight| weight > 0));
        let text = "the algorithm, the times of probes and the answer when no destination is up stand in kamailio.cfg, \
            which is not read: look at algorithm, probe and unavailable";
        self.note(set.line, format!("set {}: {text}", set.id));
        let destinations: Vec<Value> = set
            .destinations
            .iter()
            .map(|(uri, weight)| match weight.filter(|_| weighted) {
                Some(weight) => json!({"uri": uri, "weight": weight}),
                // Kamailio gives nothing to a destination without weight when others have one.
                None if weighted => json!({"uri": uri, "weight": 0}),
                None => json!({ "uri": uri }),
            })
            .collect();
        let mut spec = Map::new();
        spec.insert("algorithm".into(), if weighted { "weight" } else { "roundRobin" }.into());
        spec.insert("destinations".into(), destinations.into());
        if front {
            spec.insert("match".into(), json!({"extensions": ["_."]}));
        }
        json!({
            "apiVersion": api::crds::API_VERSION,
            "kind": "Dispatcher",
            "metadata": {"name": format!("set-{}", set.id)},
            "spec": spec,
        })
    }
}

/// Whether a destination has a form here: sip:, a numeric host, UDP or TCP.
fn carried(uri: &str) -> Result<(), &'static str> {
    let Some(rest) = uri.strip_prefix("sip:") else { return Err("a URI that begins with sip: is supported") };
    let mut parts = rest.split(';');
    let host = parts.next().unwrap_or_default();
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let numeric = bracketed.map_or_else(
        || host.parse::<std::net::Ipv4Addr>().is_ok() || host.parse::<SocketAddr>().is_ok(),
        |inside| matches!(inside.parse(), Ok(IpAddr::V6(_))),
    );
    if !numeric {
        return Err("an address as the host is supported, not a name or a user");
    }
    match parts.all(|parameter| matches!(parameter, "transport=udp" | "transport=tcp")) {
        true => Ok(()),
        false => Err("of the parameters transport=udp and transport=tcp are supported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, front: bool) -> (Vec<Value>, Vec<String>) {
        let imported = import(&Source { name: "d".into(), text: text.into() }, front);
        (imported.manifests, imported.notes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn sets_and_weights() {
        let text = "# two halves\n1 sip:192.168.0.1 0 1 weight=50\n1 sip:192.168.0.2 0 1 weight=50\n\n2 sip:192.168.0.3:5080;transport=tcp\n";
        let (manifests, notes) = run(text, false);
        let first = json!({"algorithm": "weight", "destinations": [
            {"uri": "sip:192.168.0.1", "weight": 50}, {"uri": "sip:192.168.0.2", "weight": 50}]});
        assert_eq!((&manifests[0]["metadata"]["name"], &manifests[0]["spec"]), (&json!("set-1"), &first));
        let second =
            json!({"algorithm": "roundRobin", "destinations": [{"uri": "sip:192.168.0.3:5080;transport=tcp"}]});
        assert_eq!(manifests[1]["spec"], second);
        assert!(notes.iter().filter(|n| n.contains("takes no calls until")).count() == 2, "{notes:#?}");
        assert!(notes.iter().any(|n| n.starts_with("d:2: the priority 1")), "{notes:#?}");
    }

    #[test]
    fn in_front_of_all_calls() {
        let (manifests, notes) = run("1 sip:192.0.2.1\n2 sip:192.0.2.2\n", true);
        assert_eq!(manifests[0]["spec"]["match"], json!({"extensions": ["_."]}));
        assert_eq!(manifests[1]["spec"].get("match"), None);
        assert!(notes.iter().any(|n| n.starts_with("d:1: ") && n.contains("takes all calls")), "{notes:#?}");
        assert!(notes.iter().any(|n| n.starts_with("d:2: ") && n.contains("takes no calls")), "{notes:#?}");
    }

    #[test]
    fn what_has_no_form_here_is_listed() {
        for (text, word) in [
            ("x sip:192.0.2.1\n", "not a set's number"),
            ("1\n", "not a set's number"),
            ("1 sips:192.0.2.1\n", "begins with sip:"),
            ("1 sip:pbx.example.org\n", "address as the host"),
            ("1 sip:192.0.2.1;transport=tls\n", "parameters"),
            ("1 sip:192.0.2.1 8\n", "8 (probing)"),
            ("1 sip:192.0.2.1 4\n", "4 (disabled)"),
            ("1 sip:192.0.2.1 x\n", "flags x"),
            ("1 sip:192.0.2.1 0 0 duid=a;socket=udp:192.0.2.9:5060\n", "duid=a"),
            ("1 sip:192.0.2.1 0 0 duid=a;socket=udp:192.0.2.9:5060\n", "socket=udp"),
            ("1 sip:192.0.2.1 0 0 weight=x\n", "weight=x"),
            ("1 sip:192.0.2.1 0 0 weight=5 more\n", "more: not"),
        ] {
            let (_, notes) = run(text, false);
            assert!(notes.iter().any(|n| n.starts_with("d:1: ") && n.contains(word)), "{text}{notes:#?}");
        }
        let (_, notes) = run("1 sip:192.0.2.1\n1 sip:192.0.2.1\n", false);
        assert!(notes.iter().any(|n| n.starts_with("d:2: ") && n.contains("already")), "{notes:#?}");
    }
}
