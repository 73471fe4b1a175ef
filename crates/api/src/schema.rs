//! The schemas of the resources, applied as the API server applies them: structure first, then the CEL rules.
//!
//! Structure is judged by a walk over the generated schema: types, required and unknown fields, bounds, choices and list
//! types; a null is as if nothing were written. The rules are run by kube-cel with defaults filled in, as the API server
//! does. Nothing is written here a second time: a test asserts that the schemas use no word that the walk does not know.

use std::collections::BTreeMap;

use kube::CustomResourceExt;
use kube_cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde_json::{Map, Value};

use crate::compiler::Kind;
use crate::duration::Duration;
use crate::{Dialplan, Dispatcher, Pbx, PbxEndpoint, crds};

/// A fault: the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// The schemas of all kinds, with their rules compiled.
pub(crate) struct Schemas(BTreeMap<Kind, Schema>);

struct Schema {
    /// Of the field `spec`.
    spec: Value,
    rules: CompiledSchema,
}

impl Schemas {
    pub(crate) fn new() -> Self {
        let compile = |kind: Kind| {
            let crd = match kind {
                Kind::Pbx => Pbx::crd(),
                Kind::PbxEndpoint => PbxEndpoint::crd(),
                Kind::Dialplan => Dialplan::crd(),
                Kind::Dispatcher => Dispatcher::crd(),
            };
            let spec = crds::schema(&crd).pointer("/properties/spec").cloned().unwrap_or_default();
            let rules = compile_schema(&spec);
            (kind, Schema { spec, rules })
        };
        Self(Kind::ALL.into_iter().map(compile).collect())
    }

    /// Judges a spec. Gives it with nulls taken out and defaults filled in.
    pub(crate) fn judge(&self, kind: Kind, spec: &Value) -> Result<Value, Vec<Fault>> {
        let Some(schema) = self.0.get(&kind) else {
            return Err(vec![Fault::new("spec", "no schema")]);
        };
        let spec = without_nulls(spec);
        let mut faults = Vec::new();
        walk(&schema.spec, &spec, "spec", &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let spec = apply_defaults(&schema.spec, &spec);
        match Validator::new().validate_compiled(&schema.rules, &spec, None) {
            Ok(()) => Ok(spec),
            Err(errors) => Err(errors
                .into_vec()
                .into_iter()
                .map(|error| {
                    let path = match error.field_path.as_str() {
                        "" => "spec".to_owned(),
                        path if path.starts_with('[') => format!("spec{path}"),
                        path => format!("spec.{path}"),
                    };
                    Fault::new(path, error.message)
                })
                .collect()),
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(fields.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        value => value.clone(),
    }
}

fn walk(schema: &Value, value: &Value, path: &str, faults: &mut Vec<Fault>) {
    let says = |word: &str| schema.get(word).and_then(Value::as_bool).unwrap_or_default();
    let expected = match schema.get("type").and_then(Value::as_str) {
        None if says("x-kubernetes-int-or-string") => "quantity",
        expected => expected.unwrap_or_default(),
    };
    if let Some(message) = wrong_type(expected, value) {
        faults.push(Fault::new(path, message));
        return;
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        let choices: Vec<_> = choices.iter().filter_map(Value::as_str).collect();
        faults.push(Fault::new(path, format!("{value} is none of {}", choices.join(", "))));
        return;
    }
    let bound = |word: &str| schema.get(word).and_then(Value::as_i64);
    match value {
        Value::Object(_) if says("x-kubernetes-preserve-unknown-fields") => {}
        Value::Object(map) => fields(schema, map, path, faults),
        Value::Array(items) => {
            let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
            if bound("minItems").is_some_and(|least| count < least) {
                faults.push(Fault::new(path, "the list is empty: write at least one"));
            }
            if let Some(most) = bound("maxItems").filter(|most| count > *most) {
                faults.push(Fault::new(path, format!("{count} are too many: at most {most}")));
                return;
            }
            for (at, item) in items.iter().enumerate() {
                walk(schema.get("items").unwrap_or(&Value::Null), item, &format!("{path}[{at}]"), faults);
            }
            duplicates(schema, items, path, faults);
        }
        Value::String(text) => {
            let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            if bound("minLength").is_some_and(|least| count < least) {
                faults.push(Fault::new(path, if count == 0 { "is empty: write something" } else { "is too short" }));
            }
            if let Some(most) = bound("maxLength").filter(|most| count > *most) {
                faults.push(Fault::new(path, format!("is longer than {most} characters")));
            }
            if schema.get("format").and_then(Value::as_str) == Some("duration") && Duration::parse(text).is_none() {
                faults.push(Fault::new(path, format!("{text:?} is no duration: write such as 500ms, 30s or 1h")));
            }
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(i64::MAX);
            let (least, most) = (bound("minimum"), bound("maximum"));
            if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                let range = match (least, most) {
                    (Some(least), Some(most)) => format!("from {least} to {most}"),
                    (Some(least), None) => format!("of at least {least}"),
                    (_, most) => format!("of at most {}", most.unwrap_or_default()),
                };
                faults.push(Fault::new(path, format!("{value} is out of bounds: write a number {range}")));
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}

fn wrong_type(expected: &str, value: &Value) -> Option<String> {
    let fits = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "quantity" => value.is_string() || value.is_i64() || value.is_u64(),
        _ => false,
    };
    if fits {
        return None;
    }
    Some(match (expected, value) {
        ("string", Value::Number(_) | Value::Bool(_)) => format!("is text: write it in quotes, \"{value}\""),
        ("array", _) => "is a list: write each item after a dash".into(),
        ("object", _) => "has fields of its own: write them below it, or {} for none".into(),
        ("integer", _) => "is a whole number: write it without quotes".into(),
        ("boolean", _) => "is true or false".into(),
        ("quantity", _) => "is a quantity: write such as 2, 500m or 128Mi".into(),
        _ => "is not what the schema expects".into(),
    })
}

fn fields(schema: &Value, map: &Map<String, Value>, path: &str, faults: &mut Vec<Fault>) {
    let empty = Map::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    // A map whose keys are free, such as labels.
    let any = schema.get("additionalProperties");
    for (key, value) in map {
        let path = format!("{path}.{key}");
        match known.get(key).or(any) {
            Some(schema) => walk(schema, value, &path, faults),
            None => faults.push(Fault::new(path, unknown(key, known.keys().map(String::as_str)))),
        }
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for key in required.filter(|key| !map.contains_key(*key)) {
        let about = known.get(key).and_then(|s| s.get("description")).and_then(Value::as_str).unwrap_or_default();
        let about = about.split_once(['.', ':']).map_or(about, |(first, _)| first);
        faults.push(Fault::new(format!("{path}.{key}"), format!("is missing: {about}")));
    }
    let count = i64::try_from(map.len()).unwrap_or(i64::MAX);
    let bound = |word: &str| schema.get(word).and_then(Value::as_i64);
    let names = || known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    if bound("minProperties").is_some_and(|least| count < least) {
        faults.push(Fault::new(path, format!("is empty: write one of {}, such as answer: {{}}", names())));
    }
    match bound("maxProperties").filter(|most| count > *most) {
        Some(most) if any.is_some() => faults.push(Fault::new(path, format!("{count} are too many: at most {most}"))),
        Some(_) => {
            let message = format!("has {count} of {}: write one, the others as items of their own", names());
            faults.push(Fault::new(path, message));
        }
        None => {}
    }
}

/// The lists that Kubernetes treats as sets or maps hold nothing twice.
fn duplicates(schema: &Value, items: &[Value], path: &str, faults: &mut Vec<Fault>) {
    let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Vec::new(),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        _ => return,
    };
    let identity = |item: &Value| match keys.as_slice() {
        [] => item.to_string(),
        keys => keys.iter().map(|key| item.get(*key).unwrap_or(&Value::Null).to_string()).collect::<Vec<_>>().join(" "),
    };
    let mut seen = std::collections::HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let identity = identity(item);
        if !seen.insert(identity.clone()) {
            let path = keys.first().map_or_else(|| format!("{path}[{at}]"), |key| format!("{path}[{at}].{key}"));
            faults.push(Fault::new(path, format!("{identity} stands here a second time: keep one")));
        }
    }
}

/// The message for a field that does not exist, with the nearest that does.
pub(crate) fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let lower = key.to_lowercase().replace(['_', '-'], "");
    let near = known.iter().map(|k| (distance(&lower, &k.to_lowercase()), *k)).min();
    match near {
        Some((distance, near)) if distance <= 1 + key.len() / 4 => {
            format!("unknown field {key:?}: did you mean {near}?")
        }
        _ if known.is_empty() => format!("unknown field {key:?}: nothing can be set here"),
        _ => format!("unknown field {key:?}: there are {}", known.join(", ")),
    }
}

/// How many letters must change to make one word of the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().take(64).enumerate() {
        let mut next = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let replace = row.get(j).copied().unwrap_or(0) + usize::from(l != *r);
            let best = replace.min(row.get(j + 1).copied().unwrap_or(0) + 1).min(next[j] + 1);
            next.push(best);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Every word that the schemas use, except names of fields.
    fn words(schema: &Value, out: &mut std::collections::BTreeSet<String>) {
        let Value::Object(map) = schema else { return };
        for (word, value) in map {
            out.insert(word.clone());
            match word.as_str() {
                "properties" => value.as_object().into_iter().flat_map(Map::values).for_each(|s| words(s, out)),
                "items" | "additionalProperties" => words(value, out),
                _ => {}
            }
        }
    }

    #[test]
    fn the_walk_knows_every_word_of_the_schemas_and_every_rule_compiles() {
        let schemas = Schemas::new();
        let mut used = std::collections::BTreeSet::new();
        for schema in schemas.0.values() {
            words(&schema.spec, &mut used);
            assert!(!schema.rules.has_errors(), "{:?}", schema.rules.compilation_errors());
        }
        let known = [
            "additionalProperties",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minProperties",
            "minimum",
            "properties",
            "required",
            "type",
            "x-kubernetes-int-or-string",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-validations",
        ];
        for word in used {
            assert!(known.contains(&word.as_str()), "the walk does not know {word}");
        }
    }

    #[test]
    fn verdicts() {
        let schemas = Schemas::new();
        let endpoint = |more: Value| {
            let mut spec =
                json!({"context": "c", "auth": {"username": "u", "passwordSecretRef": {"name": "s", "key": "k"}}});
            for (key, value) in more.as_object().cloned().unwrap_or_default() {
                spec[&key] = value;
            }
            (Kind::PbxEndpoint, spec)
        };
        let step = |step: Value| (Kind::Dialplan, json!({"extensions": [{"pattern": "1", "steps": [step]}]}));
        let dispatcher = |more: Value| {
            let mut spec = json!({"destinations": [{"uri": "sip:192.0.2.1"}]});
            for (key, value) in more.as_object().cloned().unwrap_or_default() {
                spec[&key] = value;
            }
            (Kind::Dispatcher, spec)
        };
        for ((kind, spec), path, message) in [
            (endpoint(json!({})), "", ""),
            (endpoint(json!({"aor": null, "callerId": null})), "", ""),
            (endpoint(json!({"contxt": "x"})), "spec.contxt", "did you mean context?"),
            (endpoint(json!({"max_contacts": 1})), "spec.max_contacts", "unknown field"),
            (endpoint(json!({"context": 8005})), "spec.context", "in quotes, \"8005\""),
            (
                endpoint(json!({"context": null})),
                "spec.context",
                "is missing: The context (a Dialplan's name) in which",
            ),
            (endpoint(json!({"codecs": ["ulaw", "g729"]})), "spec.codecs[1]", "none of ulaw, alaw, g722, opus"),
            (endpoint(json!({"codecs": ["ulaw", "ulaw"]})), "spec.codecs[1]", "a second time"),
            (endpoint(json!({"codecs": []})), "spec.codecs", "the list is empty"),
            (endpoint(json!({"codecs": "ulaw"})), "spec.codecs", "is a list"),
            (endpoint(json!({"aor": {"maxContacts": 0}})), "spec.aor.maxContacts", "from 1 to 100"),
            (endpoint(json!({"aor": {"maxContacts": "1"}})), "spec.aor.maxContacts", "whole number"),
            (endpoint(json!({"aor": {"minimumExpiration": 7000}})), "spec.aor", "minimumExpiration <="),
            (endpoint(json!({"auth": null})), "spec", "nothing proves who calls"),
            (endpoint(json!({"auth": null, "identify": {"match": ["192.0.2.1"]}})), "", ""),
            (
                endpoint(json!({"auth": null, "identify": {"match": ["192.0.2.1"]}, "identifyBy": ["username"]})),
                "spec",
                "nothing proves",
            ),
            (endpoint(json!({"trustIdInbound": true})), "spec", "trustIdInbound needs"),
            (endpoint(json!({"name": "a b"})), "spec.name", "letters, digits"),
            (endpoint(json!({"name": ""})), "spec.name", "is empty"),
            (endpoint(json!({"callerId": "\"Eight\" <8005>"})), "", ""),
            (endpoint(json!({"callerId": "8005"})), "", ""),
            (endpoint(json!({"callerId": "<sip:8005@x>"})), "spec.callerId", "write \"Name\" <number>"),
            (endpoint(json!({"callerId": "a\r\nb"})), "spec.callerId", "write \"Name\" <number>"),
            (step(json!({"answer": {}})), "", ""),
            (step(json!({"answer": null})), "spec.extensions[0].steps[0]", "is empty: write one of"),
            (step(json!({})), "spec.extensions[0].steps[0]", "is empty: write one of"),
            (step(json!({"answer": {}, "echo": {}})), "spec.extensions[0].steps[0]", "has 2 of"),
            (step(json!({"queue": {}})), "spec.extensions[0].steps[0].queue", "unknown field"),
            (step(json!({"confBridge": {"room": "${EXTEN}"}})), "", ""),
            (step(json!({"confBridge": {}})), "spec.extensions[0].steps[0].confBridge", "room"),
            (
                step(json!({"confBridge": {"room": "1", "maxMembers": 0}})),
                "spec.extensions[0].steps[0].confBridge.maxMembers",
                "from 1 to 1000",
            ),
            (step(json!({"musicOnHold": {}})), "", ""),
            (step(json!({"echo": {"x": 1}})), "spec.extensions[0].steps[0].echo.x", "nothing can be set here"),
            (step(json!({"hangup": {"cause": 128}})), "spec.extensions[0].steps[0].hangup.cause", "from 1 to 127"),
            (
                step(json!({"dial": {"to": ["PJSIP/1"], "timeout": "30"}})),
                "spec.extensions[0].steps[0].dial.timeout",
                "no duration",
            ),
            (step(json!({"dial": {"to": ["PJSIP/1"], "timeout": "30s"}})), "", ""),
            (dispatcher(json!({})), "", ""),
            (dispatcher(json!({"destinations": [{"uri": "sip:192.0.2.1", "weight": 0}]})), "spec", "a weight above 0"),
            (
                dispatcher(json!({"destinations": [{"uri": "a"}, {"uri": "a"}]})),
                "spec.destinations[1].uri",
                "second time",
            ),
            (dispatcher(json!({"probe": {"interval": "10ms"}})), "spec.probe.interval", "from 100ms to 1h"),
            (dispatcher(json!({"unavailable": {"status": 200}})), "spec.unavailable.status", "from 400 to 699"),
            (dispatcher(json!({"unavailable": {"reason": "a\nb"}})), "spec.unavailable.reason", "one line"),
            ((Kind::Pbx, json!({"domains": ["pbx.example.org"]})), "", ""),
            ((Kind::Pbx, json!({"domains": ["sip:pbx@x"]})), "spec.domains", "host names or addresses alone"),
            ((Kind::Pbx, json!({"realm": "a\"b"})), "spec.realm", "without quotation marks"),
            ((Kind::Pbx, json!({"realm": "a\\b"})), "spec.realm", "backslashes"),
            ((Kind::Pbx, json!({"media": {"timeout": "100ms"}})), "spec.media.timeout", "from 1s to 24h"),
            (
                (Kind::Pbx, json!({"media": {"ports": {"min": 30_000, "max": 30_050}}})),
                "spec.media.ports",
                "at least 100",
            ),
            (
                (Kind::Pbx, json!({"media": {"autoscaling": {"min": 4, "max": 3}}})),
                "spec.media.autoscaling",
                "not above",
            ),
            ((Kind::Pbx, json!({"media": {"autoscaling": {"cpu": 70}}})), "spec", "write services.media.resources"),
            (
                (
                    Kind::Pbx,
                    json!({
                        "media": {"autoscaling": {"cpu": 70}},
                        "services": {"media": {"resources": {"requests": {"cpu": 2}}}}
                    }),
                ),
                "",
                "",
            ),
            ((Kind::Pbx, json!({"services": {"media": {"replicas": 3}}})), "spec", "its mode: fixed"),
            (
                (
                    Kind::Pbx,
                    json!({"media": {"autoscaling": {"mode": "fixed"}}, "services": {"media": {"replicas": 3}}}),
                ),
                "",
                "",
            ),
            (
                (Kind::Pbx, json!({"services": {"balancer": {"replicas": 3}}})),
                "spec.services.balancer",
                "one balancer a node",
            ),
            (
                (Kind::Pbx, json!({"services": {"balancer": {"exposure": {"type": "NodePort"}}}})),
                "spec.services.balancer.exposure",
                "write nodePort",
            ),
            (
                (
                    Kind::Pbx,
                    json!({
                        "services": {"balancer": {"exposure": {"type": "NodePort", "nodePort": 30_060}}},
                        "listeners": [{"transport": "UDP", "port": 5060}, {"transport": "UDP", "port": 5062}]
                    }),
                ),
                "spec",
                "one listener for UDP",
            ),
            (
                (Kind::Pbx, json!({"services": {"balancer": {"exposure": {"nodePort": 30_060}}}})),
                "spec.services.balancer.exposure",
                "leave it out",
            ),
            (
                (
                    Kind::Pbx,
                    json!({"services": {"balancer": {"exposure": {"type": "ClusterIP", "loadBalancerClass": "x"}}}}),
                ),
                "spec.services.balancer.exposure",
                "type: LoadBalancer",
            ),
            (
                (Kind::Pbx, json!({"services": {"balancer": {"exposure": {"annotations": {"a": "b"}}}}})),
                "spec.services.balancer.exposure",
                "no Service with type: HostNetwork",
            ),
            (
                (
                    Kind::Pbx,
                    json!({
                        "services": {"balancer": {"exposure": {"type": "LoadBalancer"}}},
                        "virtualIP": {"addresses": ["192.0.2.7"], "interface": "eth0"}
                    }),
                ),
                "spec",
                "leave virtualIP or",
            ),
            (
                (Kind::Pbx, json!({"virtualIP": {"addresses": ["192.0.2.7"], "interface": "eth 0"}})),
                "spec.virtualIP.interface",
                "such as eth0",
            ),
            (
                (
                    Kind::Pbx,
                    json!({"listeners": [{"transport": "UDP", "port": 5060}, {"transport": "UDP", "port": 5060}]}),
                ),
                "spec.listeners[1].transport",
                "\"UDP\" 5060 stands here a second time",
            ),
            (
                (
                    Kind::Pbx,
                    json!({
                        "virtualIP": {"addresses": ["192.0.2.7"], "interface": "eth0"},
                        "listeners": [{"transport": "TCP", "port": 5060}]
                    }),
                ),
                "spec",
                "probed by UDP",
            ),
            (
                (Kind::Pbx, json!({"listeners": [{"transport": "SCTP", "port": 5060}]})),
                "spec.listeners[0].transport",
                "none of UDP, TCP",
            ),
            ((Kind::Pbx, json!({"externalAddress": "sip:192.0.2.7"})), "spec.externalAddress", "HOST or HOST:PORT"),
            ((Kind::Pbx, json!({"externalAddress": "[2001:db8::1]:5060"})), "", ""),
            (
                (Kind::Pbx, json!({"image": {"registry": "docker.io/kubepbx/"}})),
                "spec.image.registry",
                "registry and path alone",
            ),
            ((Kind::Pbx, json!({"image": {"tag": "v 1"}})), "spec.image.tag", "write a tag"),
            (
                (Kind::Pbx, json!({"services": {"router": {"image": "a b"}}})),
                "spec.services.router.image",
                "write an image",
            ),
            (
                (Kind::Pbx, json!({"services": {"router": {"drain": "25h"}}})),
                "spec.services.router.drain",
                "a duration up to 24h",
            ),
            (
                (Kind::Pbx, json!({"services": {"router": {"labels": {"a": 1}}}})),
                "spec.services.router.labels.a",
                "in quotes, \"1\"",
            ),
            (
                (Kind::Pbx, json!({"services": {"router": {"resources": {"limits": {"memory": true}}}}})),
                "spec.services.router.resources.limits.memory",
                "is a quantity",
            ),
            (
                (Kind::Pbx, {
                    let labels: BTreeMap<String, &str> = (0..65).map(|n| (format!("l{n}"), "")).collect();
                    json!({"services": {"router": {"labels": labels}}})
                }),
                "spec.services.router.labels",
                "65 are too many: at most 64",
            ),
            (
                (Kind::Pbx, json!({"services": {"router": {"replica": 3}}})),
                "spec.services.router.replica",
                "did you mean replicas?",
            ),
        ] {
            let faults = schemas.judge(kind, &spec).err().unwrap_or_default();
            let first = faults.first().map(|f| (f.path.as_str(), f.message.as_str())).unwrap_or_default();
            assert_eq!(first.0, path, "{spec}: {faults:?}");
            assert!(first.1.contains(message), "{spec}: {faults:?}");
            assert!(faults.len() <= 1, "one message each: {spec}: {faults:?}");
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let spec =
            Schemas::new().judge(Kind::Dispatcher, &json!({"destinations": [{"uri": "sip:192.0.2.1"}]})).unwrap();
        assert_eq!(spec["probe"]["interval"], "10s");
        assert_eq!(spec["destinations"][0]["weight"], 1);
    }
}
