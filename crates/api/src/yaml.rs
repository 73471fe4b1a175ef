//! YAML with positions: documents become JSON, as the API server sees them, and the line of every field is kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) lines: Lines,
}

/// The line of every field of a document, by its path (`spec.extensions[0].pattern`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Lines(BTreeMap<String, u64>);

impl Lines {
    /// The line of a field, or of what it would stand in where it is absent.
    pub(crate) fn of(&self, path: &str) -> u64 {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return self.0.get("").copied().unwrap_or(1),
            }
        }
    }
}

/// A text that is not YAML.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) line: u64,
    pub(crate) message: String,
}

/// Reads every document of a text; empty ones are left out.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, Malformed> {
    let trees: Vec<Spanned<Tree>> = serde_saphyr::from_multiple(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        // The first line is the message; what follows shows the place in the file, which the line number does.
        let message = error.without_snippet().to_string();
        Malformed { line, message: message.lines().next().unwrap_or("not YAML").to_owned() }
    })?;
    let documents = trees.into_iter().filter(|tree| !matches!(tree.value, Tree::Leaf(Value::Null)));
    Ok(documents
        .map(|tree| {
            let mut lines = BTreeMap::new();
            lines.insert(String::new(), tree.referenced.line());
            let value = flatten(tree.value, "", &mut lines);
            Document { value, lines: Lines(lines) }
        })
        .collect())
}

fn flatten(tree: Tree, path: &str, lines: &mut BTreeMap<String, u64>) -> Value {
    match tree {
        Tree::Leaf(value) => value,
        Tree::List(items) => {
            let item = |(at, item): (usize, Spanned<Tree>)| {
                let path = format!("{path}[{at}]");
                lines.insert(path.clone(), item.referenced.line());
                flatten(item.value, &path, lines)
            };
            Value::Array(items.into_iter().enumerate().map(item).collect())
        }
        Tree::Map(fields) => {
            let field = |(key, value): (Spanned<String>, Spanned<Tree>)| {
                let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                // The key's line: where people look, also when the value is a block below it.
                lines.insert(path.clone(), key.referenced.line());
                let value = flatten(value.value, &path, lines);
                (key.value, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
    }
}

enum Tree {
    Leaf(Value),
    List(Vec<Spanned<Tree>>),
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Grow)
    }
}

struct Grow;

impl<'de> Visitor<'de> for Grow {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Tree, D::Error> {
        Tree::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_with_their_lines() {
        let text = "# a comment\na: 1\nb:\n- c: x\n  d: [1, two]\n-\n  c: why\n---\n\n---\nz: {q: true}\n";
        let documents = documents(text).unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].value, serde_json::json!({"a": 1, "b": [{"c": "x", "d": [1, "two"]}, {"c": "why"}]}));
        let lines = &documents[0].lines;
        for (path, line) in [
            ("a", 2),
            ("b", 3),
            ("b[0]", 4),
            ("b[0].d", 5),
            ("b[0].d[1]", 5),
            ("b[1].c", 7),
            ("b[1].missing", 7),
            ("nowhere", 2),
        ] {
            assert_eq!(lines.of(path), line, "{path}");
        }
        assert_eq!(documents[1].lines.of("z.q"), 11);
    }

    #[test]
    fn what_is_not_yaml_has_a_line() {
        for (text, line) in [("a: 1\nb: [1, 2\nc: 3\n", 3), ("a: 1\na: 2\n", 2), ("a: 1\n---\nb: {\n", 3)] {
            let error = documents(text).unwrap_err();
            assert!(error.line.abs_diff(line) <= 1, "{text}: {error:?}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn hostile_texts_are_refused_not_suffered() {
        let laughs: String = (1..30).map(|n| format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1)).collect();
        for text in
            ["[".repeat(200_000), "a: ".repeat(50_000), "- ".repeat(100_000), format!("a0: &a0 [x, x]\n{laughs}")]
        {
            assert!(documents(&text).is_err(), "{}", &text[..40]);
        }
    }
}
