//! Manifests in files: YAML text in; resources and Secrets out, or problems with file, line and field.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::SecretValue;
use crate::compiler::{Kind, Resource, Spec};
use crate::crds::API_VERSION;
use crate::schema::{Fault, Schemas, unknown};
use crate::yaml::{self, Lines};

/// A file: its name, as problems are to say it, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name.
    pub name: String,
    /// The text: YAML, any number of documents.
    pub text: String,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// `PbxEndpoint/8005`; empty when it is not known.
    pub resource: String,
    /// The field (`spec.auth.username`); empty when it is not about one.
    pub field: String,
    /// What is wrong and what to write instead.
    pub message: String,
    /// Whether it keeps the resource (or the file) from becoming live. When false, the resource is live and only something
    /// that it names does not exist.
    pub keeps_out: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        match (self.resource.as_str(), self.field.as_str()) {
            ("", "") => write!(f, "{}", self.message),
            (what, "") | ("", what) => write!(f, "{what}: {}", self.message),
            (resource, field) => write!(f, "{resource} {field}: {}", self.message),
        }
    }
}

/// Where a manifest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: String,
    lines: Lines,
}

impl Origin {
    /// The line of a field, or of what it would stand in.
    pub fn line(&self, field: &str) -> u64 {
        self.lines.of(field)
    }
}

/// One manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Where it stands.
    pub origin: Origin,
    /// metadata.namespace, where it is written.
    pub namespace: Option<String>,
    /// What it says.
    pub content: Content,
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A resource of ours.
    Resource(Resource),
    /// A Secret: its name and its values by key.
    Secret(String, BTreeMap<String, SecretValue>),
}

impl Manifest {
    /// `PbxEndpoint/8005` or `Secret/phones`.
    pub fn id(&self) -> String {
        match &self.content {
            Content::Resource(resource) => resource.id().to_string(),
            Content::Secret(name, _) => format!("Secret/{name}"),
        }
    }
}

/// What came of a file.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The manifests that are good by themselves.
    pub manifests: Vec<Manifest>,
    /// What is wrong with the others.
    pub problems: Vec<Problem>,
}

/// Judges manifests as the API server does, by the generated schemas and their rules. Making one compiles all rules: keep it.
pub struct Judge(Schemas);

impl Default for Judge {
    fn default() -> Self {
        Self(Schemas::new())
    }
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

/// The largest file that is read, in bytes.
pub const FILE_LIMIT: usize = 4 << 20;

impl Judge {
    /// Reads a file.
    pub fn parse(&self, source: &Source) -> Parsed {
        let mut parsed = Parsed::default();
        let problem = |line, message: String| Problem {
            file: source.name.clone(),
            line,
            resource: String::new(),
            field: String::new(),
            message,
            keeps_out: true,
        };
        if source.text.len() > FILE_LIMIT {
            parsed.problems.push(problem(1, format!("the file is larger than {FILE_LIMIT} bytes: split it")));
            return parsed;
        }
        let documents = match yaml::documents(&source.text) {
            Ok(documents) => documents,
            Err(malformed) => {
                parsed.problems.push(problem(malformed.line, format!("not YAML: {}", malformed.message)));
                return parsed;
            }
        };
        for document in documents {
            let origin = Origin { file: source.name.clone(), lines: document.lines };
            match self.manifest(&document.value) {
                Ok((namespace, content)) => parsed.manifests.push(Manifest { origin, namespace, content }),
                Err((resource, faults)) => parsed.problems.extend(faults.into_iter().map(|fault| Problem {
                    file: origin.file.clone(),
                    line: origin.line(&fault.path),
                    resource: resource.clone(),
                    field: fault.path,
                    message: fault.message,
                    keeps_out: true,
                })),
            }
        }
        parsed
    }

    /// One document: its namespace and content, or what is wrong and with which resource.
    fn manifest(&self, value: &Value) -> Result<(Option<String>, Content), (String, Vec<Fault>)> {
        let anonymous = |fault| (String::new(), vec![fault]);
        let Value::Object(map) = value else {
            return Err(anonymous(Fault::new("", "not a manifest: write apiVersion, kind, metadata and spec")));
        };
        let kind = text(map, "kind").map_err(anonymous)?;
        let version = text(map, "apiVersion").map_err(anonymous)?;
        let ours = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
        let expected = match (ours, kind) {
            (Some(_), _) => API_VERSION,
            (None, "Secret") => "v1",
            _ => {
                let kinds = "Pbx, PbxEndpoint, Dialplan, Dispatcher and Secret";
                return Err(anonymous(Fault::new("kind", format!("unknown kind {kind:?}: there are {kinds}"))));
            }
        };
        if version != expected {
            return Err(anonymous(Fault::new("apiVersion", format!("{kind} has the apiVersion {expected}"))));
        }
        let (name, namespace) = metadata(map).map_err(|fault| (kind.to_owned(), vec![fault]))?;
        let id = format!("{kind}/{name}");
        let content = match ours {
            Some(kind) => self.resource(kind, name, map).map(Content::Resource),
            None => secret(map).map(|values| Content::Secret(name, values)),
        };
        content.map(|content| (namespace, content)).map_err(|faults| (id, faults))
    }

    fn resource(&self, kind: Kind, name: String, map: &Map<String, Value>) -> Result<Resource, Vec<Fault>> {
        only(map, &["apiVersion", "kind", "metadata", "spec", "status"])?;
        let empty = Value::Object(Map::new());
        let spec = match map.get("spec") {
            Some(spec) if !spec.is_null() => spec,
            // A Pbx may be all defaults; the others cannot, and the schema says what is missing.
            _ => &empty,
        };
        let spec = self.0.judge(kind, spec)?;
        let spec = match kind {
            Kind::Pbx => typed(spec).map(Spec::Pbx),
            Kind::PbxEndpoint => typed(spec).map(Spec::Endpoint),
            Kind::Dialplan => typed(spec).map(Spec::Dialplan),
            Kind::Dispatcher => typed(spec).map(Spec::Dispatcher),
        }?;
        Ok(Resource { name, generation: 0, created: None, spec: Arc::new(spec) })
    }
}

fn typed<T: DeserializeOwned>(spec: Value) -> Result<T, Vec<Fault>> {
    serde_json::from_value(spec).map_err(|error| vec![Fault::new("spec", error.to_string())])
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Result<&'a str, Fault> {
    let missing = || Fault::new(key, format!("{key} is missing: a manifest has apiVersion, kind, metadata and spec"));
    map.get(key).and_then(Value::as_str).ok_or_else(missing)
}

fn only(map: &Map<String, Value>, known: &[&str]) -> Result<(), Vec<Fault>> {
    let faults: Vec<_> = map
        .keys()
        .filter(|key| !known.contains(&key.as_str()))
        .map(|key| Fault::new(key, unknown(key, known.iter().copied())))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// metadata's name and namespace. What the API server itself writes there is let through, so that the output of
/// `kubectl get -o yaml` is a manifest too.
fn metadata(map: &Map<String, Value>) -> Result<(String, Option<String>), Fault> {
    const KNOWN: [&str; 13] = [
        "name",
        "namespace",
        "labels",
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generation",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "uid",
    ];
    let Some(metadata) = map.get("metadata").and_then(Value::as_object) else {
        return Err(Fault::new("metadata", "metadata is missing: write metadata: {name: ...}"));
    };
    if let Some(key) = metadata.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(Fault::new(format!("metadata.{key}"), unknown(key, KNOWN.into_iter())));
    }
    let name = match metadata.get("name") {
        Some(Value::String(name)) => name,
        Some(Value::Number(number)) => {
            return Err(Fault::new("metadata.name", format!("is text: write it in quotes, \"{number}\"")));
        }
        _ => return Err(Fault::new("metadata.name", "is missing: write the resource's name")),
    };
    if !is_dns_subdomain(name) {
        let message = format!(
            "{name:?} is no name that Kubernetes allows: write lower-case letters, digits, - and ., and the name itself in spec.name"
        );
        return Err(Fault::new("metadata.name", message));
    }
    match metadata.get("namespace") {
        None | Some(Value::Null) => Ok((name.clone(), None)),
        Some(Value::String(namespace)) => Ok((name.clone(), Some(namespace.clone()))),
        Some(_) => Err(Fault::new("metadata.namespace", "is text: write it in quotes")),
    }
}

/// RFC 1123 as Kubernetes takes it: labels of a-z, 0-9 and -, joined by dots, each beginning and ending with a letter or
/// digit, at most 253 characters.
pub fn is_dns_subdomain(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().is_some_and(|c| plain(*c)) && bytes.last().is_some_and(|c| plain(*c));
        ends && bytes.iter().all(|c| plain(*c) || *c == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn secret(map: &Map<String, Value>) -> Result<BTreeMap<String, SecretValue>, Vec<Fault>> {
    only(map, &["apiVersion", "kind", "metadata", "type", "immutable", "data", "stringData"])?;
    let mut values = BTreeMap::new();
    let mut faults = Vec::new();
    // What stringData says wins over data, as in Kubernetes.
    for (field, encoded) in [("data", true), ("stringData", false)] {
        let fields = match map.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(fields)) => fields,
            Some(_) => {
                faults.push(Fault::new(field, "has fields of its own: write key: \"value\" below it"));
                continue;
            }
        };
        for (key, value) in fields {
            let path = format!("{field}.{key}");
            match value {
                Value::String(text) if encoded => match STANDARD.decode(text) {
                    Ok(bytes) => drop(values.insert(key.clone(), SecretValue::new(bytes))),
                    Err(_) => faults.push(Fault::new(path, "is not base64: write plain text under stringData")),
                },
                Value::String(text) => drop(values.insert(key.clone(), SecretValue::new(text.as_bytes()))),
                // The value is a password: the message does not repeat it.
                _ => faults.push(Fault::new(path, "is text: write it in quotes")),
            }
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}
