//! Values of conditions.

use std::collections::BTreeMap;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// Values by name.
    Map(BTreeMap<String, Value>),
    /// Texts by name in lower case, asked for in any case: header fields.
    Fields(BTreeMap<String, String>),
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) | Value::Fields(_) => "a map",
        }
    }

    /// What stands under a name.
    pub(crate) fn member(&self, name: &str) -> Option<Value> {
        match self {
            Value::Map(map) => map.get(name).cloned(),
            Value::Fields(map) => map.get(&name.to_ascii_lowercase()).cloned().map(Value::Text),
            _ => None,
        }
    }

    /// How many characters or members it has.
    pub(super) fn size(&self) -> Option<i64> {
        let count = match self {
            Value::Text(text) => text.chars().count(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::Fields(map) => map.len(),
            _ => return None,
        };
        i64::try_from(count).ok()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}
