//! The table of verdicts, `testdata/verdicts.yaml`: objects and what is to be said of each. Here and in `kubepbx check` it
//! is judged offline; in a cluster the API server and the operator have to come to the same.

use serde::Deserialize;
use serde_json::Value;

/// What is to be said of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Good,
    /// The API server does not take it.
    Rejected {
        /// The field.
        field: String,
        /// What is wrong with it; the API server writes more around it.
        message: String,
    },
    /// It is there, and a condition of it is False.
    False {
        /// The condition: Accepted or ResolvedRefs. The other one is True.
        condition: String,
        /// Its reason.
        reason: String,
        /// Its message, in full.
        message: String,
    },
}

/// An object of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The object as it is written, to be applied in the order of the table.
    pub object: Value,
    /// `PbxEndpoint/8005`.
    pub id: String,
    /// What is to be said of it.
    pub verdict: Verdict,
}

/// The table's text: YAML that `kubepbx check` reads too.
pub const TEXT: &str = include_str!("../testdata/verdicts.yaml");

/// The table. `Err` says what is wrong with its text.
pub fn table() -> Result<Vec<Case>, String> {
    let documents = serde_yaml::Deserializer::from_str(TEXT).map(Value::deserialize);
    documents.map(|document| case(document.map_err(|error| error.to_string())?)).collect()
}

fn case(object: Value) -> Result<Case, String> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let need = |path: &str| text(path).ok_or_else(|| format!("{path} is missing: {object}"));
    let id = format!("{}/{}", need("/kind")?, need("/metadata/name")?);
    let said = |key: &str| need(&format!("/metadata/annotations/{key}"));
    let verdict = match text("/metadata/annotations/verdict").as_deref() {
        None => Verdict::Good,
        Some("Rejected") => Verdict::Rejected { field: said("field")?, message: said("message")? },
        Some(condition @ ("Accepted" | "ResolvedRefs")) => {
            Verdict::False { condition: condition.into(), reason: said("reason")?, message: said("message")? }
        }
        Some(other) => return Err(format!("{id}: no verdict {other}")),
    };
    Ok(Case { object, id, verdict })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::conditions::ConditionStatus;
    use crate::{Folder, Reason, Source};

    #[test]
    fn every_object_is_judged_as_the_table_says() {
        let source = |name: &str, objects: &[&Case]| Source {
            name: name.into(),
            text: objects.iter().map(|case| format!("---\n{}\n", case.object)).collect(),
        };
        let table = table().unwrap();
        let (good, bad): (Vec<&Case>, Vec<&Case>) = table.iter().partition(|case| case.verdict == Verdict::Good);
        let good = source("good.yaml", &good);
        let mut folder = Folder::new(1);
        assert_eq!(folder.load(std::slice::from_ref(&good)).problems, []);
        let mut wrong = Vec::new();
        // One at a time: what only follows from another mistake is not told.
        for case in bad {
            let update = folder.load(&[good.clone(), source("bad.yaml", &[case])]);
            let other = update.problems.iter().find(|problem| problem.resource != case.id);
            let told: Vec<_> = update.problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect();
            let mut conditions = Vec::new();
            for (_, status) in folder.compiler().statuses().iter().filter(|(id, _)| id.to_string() == case.id) {
                status.set_conditions(&mut conditions, Duration::ZERO);
            }
            let bad: Vec<_> = conditions
                .into_iter()
                .filter(|condition| condition.status == ConditionStatus::False)
                .map(|condition| (condition.kind, condition.reason, condition.message))
                .collect();
            let want = match &case.verdict {
                Verdict::Good => continue,
                Verdict::Rejected { field, message } => (vec![format!("{field}: {message}")], Vec::new()),
                Verdict::False { condition, reason, message } => {
                    (vec![message.clone()], vec![(condition.clone(), reason.clone(), message.clone())])
                }
            };
            if (&told, &bad) != (&want.0, &want.1) || other.is_some() {
                wrong.push(format!("{}: {told:?} {bad:?}", case.id));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The messages of all rules of a schema.
    fn rules(schema: &Value, out: &mut BTreeSet<String>) {
        match schema {
            Value::Object(map) => {
                for rule in map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                    out.insert(rule["message"].as_str().unwrap().to_owned());
                }
                map.values().for_each(|value| rules(value, out));
            }
            Value::Array(items) => items.iter().for_each(|item| rules(item, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reason_and_every_rule_has_an_object() {
        let table = table().unwrap();
        let reasons: BTreeSet<&str> = table
            .iter()
            .filter_map(|case| match &case.verdict {
                Verdict::False { reason, .. } => Some(reason.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(reasons, Reason::ALL.iter().map(|reason| reason.as_str()).collect());

        let mut all = BTreeSet::new();
        crate::crds::all().iter().for_each(|crd| rules(&serde_json::to_value(crd).unwrap(), &mut all));
        let rejected: BTreeSet<String> = table
            .iter()
            .filter_map(|case| match &case.verdict {
                Verdict::Rejected { message, .. } => Some(message.clone()),
                _ => None,
            })
            .collect();
        assert_eq!(rejected, all);
    }
}
