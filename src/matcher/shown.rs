//! Matchers as they are written in a configuration, and for programs.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::rule::Matcher;
use super::value::{Condition, MatchPlace, ValueTest};

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&inline(&self.shown()))
    }
}

impl Serialize for Matcher {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.shown().serialize(serializer)
    }
}

impl Matcher {
    /// The matcher in the keys of a configuration.
    fn shown(&self) -> Value {
        let mut keys = Map::new();
        if let Some(status) = &self.status {
            keys.insert("status".to_owned(), status.shown());
        }
        for condition in &self.conditions {
            let (name, at) = condition.place.key_and_text();
            let tests = match &condition.place {
                MatchPlace::Header(_) => {
                    let header = keys.entry(name).or_insert_with(|| json!({ "name": at }));
                    header.as_object_mut()
                }
                MatchPlace::Pointer(_)
                | MatchPlace::Xml(_)
                | MatchPlace::Form(_)
                | MatchPlace::Query(_) => {
                    keys.insert(name.to_owned(), json!(at));
                    Some(&mut keys)
                }
            };
            tests.into_iter().for_each(|tests| condition.add_to(tests));
        }
        if let Some(text) = &self.contains {
            keys.insert("contains".to_owned(), json!(text));
        }
        if let Some(array) = &self.array {
            keys.insert("array".to_owned(), json!(array));
        }
        let unless: Vec<Value> = self.unless.iter().map(Self::shown).collect();
        match unless.as_slice() {
            [] => {}
            [other] => drop(keys.insert("unless".to_owned(), other.clone())),
            others => drop(keys.insert("unless".to_owned(), json!(others))),
        }
        Value::Object(keys)
    }
}

impl Condition {
    fn add_to(&self, keys: &mut Map<String, Value>) {
        let (key, value) = match &self.test {
            ValueTest::OneOf(texts) => match texts.as_slice() {
                [text] => ("equals", json!(text)),
                texts => ("one_of", json!(texts)),
            },
            ValueTest::Class(digit) => ("class", json!(format!("{digit}xx"))),
            ValueTest::Present => ("present", json!(true)),
            ValueTest::AbsentOrNull => ("absent_or_null", json!(true)),
            ValueTest::Contains(text) => ("contains", json!(text)),
        };
        keys.insert(key.to_owned(), value);
    }
}

impl MatchPlace {
    /// The key of a matcher that names the place, and its value.
    fn key_and_text(&self) -> (&'static str, String) {
        match self {
            Self::Header(name) => ("header", name.to_string()),
            Self::Pointer(pointer) => ("pointer", pointer.to_string()),
            Self::Xml(path) => ("xml", path.to_string()),
            Self::Form(name) => ("form", name.clone()),
            Self::Query(name) => ("query", name.clone()),
        }
    }
}

/// The keys of a matcher in the order in which people write them.
const ORDER: [&str; 15] = [
    "status",
    "header",
    "name",
    "pointer",
    "xml",
    "form",
    "query",
    "equals",
    "one_of",
    "class",
    "present",
    "absent_or_null",
    "contains",
    "array",
    "unless",
];

/// A value as TOML writes it on a line.
fn inline(value: &Value) -> String {
    match value {
        Value::Object(keys) => {
            let ordered = ORDER.iter().filter_map(|key| keys.get_key_value(*key));
            let keys: Vec<String> =
                ordered.map(|(key, value)| format!("{key} = {}", inline(value))).collect();
            format!("{{ {} }}", keys.join(", "))
        }
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(inline).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
